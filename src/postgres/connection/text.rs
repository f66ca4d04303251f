//! What is known of a server, in connection strings, URIs and service files.

use super::ConnectionOptions;
use crate::base::SecretBytes;
use crate::postgres::error::PostgresError;
use std::path::Path;

fn wrong(what: &str) -> PostgresError {
    let why = format!("the connection string cannot be read: {what}");
    PostgresError::refused(why, "write it as 'host=/run/postgresql port=5432 user=postgres'")
}

impl ConnectionOptions {
    /// Reads `key=value` words as PostgreSQL's own programs take them, or a URI. Words that this program
    /// has no use for are refused, but for those that only name an application. Returns the service too, if one is
    /// named.
    ///
    /// # Errors
    ///
    /// When the text cannot be read; the text itself is never repeated, since it may hold a password.
    pub fn parse(text: &str) -> Result<(Self, Option<String>), PostgresError> {
        let uri = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let pairs = match uri {
            Some(rest) => uri_words(rest).ok_or_else(|| wrong("it is no URI of one server"))?,
            None => words(text).ok_or_else(|| wrong("words are KEY=VALUE, quoted with '"))?,
        };
        let (mut options, mut service) = (Self::default(), None);
        for (key, value) in pairs {
            match key.as_str() {
                "host" => options.host = Some(value),
                "hostaddr" => options.address = Some(value),
                "port" => options.port = Some(value.parse().map_err(|_| wrong("the port is no number"))?),
                "user" => options.user = Some(value),
                "dbname" => options.database = Some(value),
                "password" => options.password = Some(SecretBytes::new(value.into_bytes())),
                "passfile" => options.password_file = Some(value.into()),
                "service" => service = Some(value),
                "application_name" | "fallback_application_name" | "connect_timeout" => {}
                other if options.tls.set(other, &value) => {}
                other => return Err(wrong(&format!("{other} is not known here"))),
            }
        }
        Ok((options, service))
    }

    /// Reads one service of a service file; `None` when it is not in it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the service in it says something unknown.
    pub fn from_service(path: &Path, service: &str) -> Result<Option<Self>, PostgresError> {
        let text = std::fs::read_to_string(path).map_err(PostgresError::file("read", path))?;
        let mut found = None::<String>;
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                if found.is_some() {
                    break;
                }
                if name == service {
                    found = Some(String::new());
                }
            } else if let (Some(words), Some((key, value))) = (&mut found, line.split_once('='))
                && !line.starts_with('#')
            {
                let quoted = value.trim().replace('\\', "\\\\").replace('\'', "\\'");
                words.push_str(&format!("{}='{quoted}' ", key.trim()));
            }
        }
        found.map(|words| Self::parse(&words).map(|(options, _)| options)).transpose()
    }
}

/// Splits `key=value key='quoted value'` into pairs.
fn words(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return None;
        }
        let after = after.trim_start();
        let (quoted, body) = after.strip_prefix('\'').map_or((false, after), |body| (true, body));
        let mut value = String::new();
        let mut characters = body.char_indices();
        let mut end = if quoted { None } else { Some(body.len()) };
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => value.push(characters.next()?.1),
                '\'' if quoted => {
                    end = Some(at + 1);
                    break;
                }
                space if !quoted && space.is_whitespace() => {
                    end = Some(at);
                    break;
                }
                other => value.push(other),
            }
        }
        pairs.push((key.to_owned(), value));
        rest = body.get(end?..)?.trim_start();
    }
    Some(pairs)
}

/// Splits what stands behind the scheme of a URI into pairs: `user:password@host:port/dbname?key=value&...`.
fn uri_words(text: &str) -> Option<Vec<(String, String)>> {
    let (place, query) = text.split_once('?').unwrap_or((text, ""));
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    let (who, server) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = who.split_once(':').unwrap_or((who, ""));
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some(""))?)
        }
        None => server.split_once(':').unwrap_or((server, "")),
    };
    // Several servers, of which one is to be found.
    if server.contains(',') {
        return None;
    }
    let named =
        [("user", user), ("password", password), ("host", host), ("port", port), ("dbname", database)];
    let asked = query.split('&').filter(|word| !word.is_empty());
    let asked: Vec<(&str, &str)> = asked.map(|word| word.split_once('=')).collect::<Option<_>>()?;
    let there = named.into_iter().filter(|(_, value)| !value.is_empty()).chain(asked);
    there.map(|(key, value)| Some((decoded(key)?, decoded(value)?))).collect()
}

/// Replaces `%2F` by the byte that it stands for.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::explain;

    #[test]
    fn connection_strings() {
        let (options, service) = ConnectionOptions::parse(
            "host=/run/pg  port = 5433 user='a \\'b' dbname=x\\ y password=geheim service=s sslmode=verify-full",
        )
        .unwrap();
        assert_eq!(options.host.as_deref(), Some("/run/pg"));
        assert_eq!((options.port, options.user.as_deref()), (Some(5433), Some("a 'b")));
        assert_eq!(options.database.as_deref(), Some("x y"));
        assert_eq!(options.password.unwrap().expose(), b"geheim");
        assert_eq!(service.as_deref(), Some("s"));
        assert_eq!(options.tls.mode.as_deref(), Some("verify-full"));
        // What cannot be read may hold a password and is not repeated.
        for bad in
            ["geheim", "password='geheim", "port=geheim", "geheim=1", "host", "=geheim", "postgres://[geheim"]
        {
            let Err(error) = ConnectionOptions::parse(bad) else { panic!("{bad}") };
            assert!(
                !explain(&error).contains("'geheim'") && !explain(&error).contains("password="),
                "{error}"
            );
        }
    }

    #[test]
    fn uris() {
        let parse = |text: &str| ConnectionOptions::parse(text).unwrap().0;
        let options = parse(
            "postgresql://u:p%40@h:1/d?sslmode=verify-ca&sslrootcert=/etc/my%20ca.crt&hostaddr=10.0.0.1",
        );
        assert_eq!((options.host.as_deref(), options.port), (Some("h"), Some(1)));
        assert_eq!((options.user.as_deref(), options.database.as_deref()), (Some("u"), Some("d")));
        assert_eq!(options.password.unwrap().expose(), b"p@");
        assert_eq!(options.address.as_deref(), Some("10.0.0.1"));
        assert_eq!(options.tls.mode.as_deref(), Some("verify-ca"));
        assert_eq!(options.tls.root, Some("/etc/my ca.crt".into()));
        let options = parse("postgres://[::1]:5433");
        assert_eq!((options.host.as_deref(), options.port), (Some("::1"), Some(5433)));
        let options = parse("postgres://%2Frun%2Fpg/d");
        assert_eq!((options.host.as_deref(), options.database.as_deref()), (Some("/run/pg"), Some("d")));
        let options = parse("postgres:///d?host=/run/pg");
        assert_eq!((options.host.as_deref(), options.user), (Some("/run/pg"), None));
        for bad in
            ["a,b/d", "h:x/d", "[::1/d", "[::1]x/d", "h/d?sslmode", "h/%zz", "h/%2", "h/%00", "h/d?unknown=1"]
        {
            assert!(ConnectionOptions::parse(&format!("postgres://{bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn services() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# all\n[other]\nhost=elsewhere\n\n[mine]\nhost=/run/x\n# port=1\nport=7\npassword=it's\n\
                    sslcert=/c\n[mine2]\nport=9\n";
        std::fs::write(file.path(), text).unwrap();
        let mine = ConnectionOptions::from_service(file.path(), "mine").unwrap().unwrap();
        assert_eq!((mine.host.as_deref(), mine.port), (Some("/run/x"), Some(7)));
        assert_eq!(mine.password.unwrap().expose(), b"it's");
        assert_eq!(mine.tls.certificate, Some("/c".into()));
        assert!(ConnectionOptions::from_service(file.path(), "none").unwrap().is_none());
    }
}
