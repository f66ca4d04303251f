//! A connection to a server, found in the way that PostgreSQL's own programs find it.
//!
//! What is not said comes from a service file, then from the environment (which the caller reads), then
//! from what is usual. Passwords come from a password file or the caller; they are in no error.

use super::error::PostgresError;
use super::password_file;
use crate::base::{Observer, SecretBytes, explain};
use postgres::config::SslMode;
use postgres::types::ToSql;
use postgres::{Client, Config, NoTls, Row, SimpleQueryMessage};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where servers listen that were not told otherwise.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
const PORT: u16 = 5432;
/// The database that every cluster has.
const DATABASE: &str = "postgres";
const CONNECT_SECONDS: u64 = 15;
/// How often a long query looks whether the user has had enough.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is known of the server before it is asked.
#[derive(Default)]
pub struct ConnectionOptions {
    /// A name, an address, or a folder of sockets.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// Who connects.
    pub user: Option<String>,
    /// To which database.
    pub database: Option<String>,
    /// The password, where the caller has it.
    pub password: Option<SecretBytes>,
    /// Where passwords are kept.
    pub password_file: Option<PathBuf>,
    /// How far the connection must be encrypted, in the words of the server's manual.
    pub encryption: Option<String>,
}

impl ConnectionOptions {
    /// Reads `key=value` words as PostgreSQL's own programs take them, or a URI. Words that this program
    /// has no use for are refused, but for those that only name an application.
    ///
    /// # Errors
    ///
    /// When the text cannot be read; the text itself is never repeated, since it may hold a password.
    pub fn parse(text: &str) -> Result<(Self, Option<String>), PostgresError> {
        let wrong = |what: &str| {
            let why = format!("the connection string cannot be read: {what}");
            PostgresError::refused(why, "write it as 'host=/run/postgresql port=5432 user=postgres'")
        };
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Self::parse_uri(text).map(|options| (options, None)).ok_or_else(|| wrong("it is no URI"));
        }
        let (mut options, mut service) = (Self::default(), None);
        for (key, value) in words(text).ok_or_else(|| wrong("words are KEY=VALUE, quoted with '"))? {
            match key.as_str() {
                "host" | "hostaddr" => options.host = Some(value),
                "port" => options.port = Some(value.parse().map_err(|_| wrong("the port is no number"))?),
                "user" => options.user = Some(value),
                "dbname" => options.database = Some(value),
                "password" => options.password = Some(SecretBytes::new(value.into_bytes())),
                "passfile" => options.password_file = Some(value.into()),
                "service" => service = Some(value),
                "sslmode" => options.encryption = Some(value),
                "application_name" | "fallback_application_name" | "connect_timeout" => {}
                other => return Err(wrong(&format!("{other} is not known here"))),
            }
        }
        Ok((options, service))
    }

    fn parse_uri(text: &str) -> Option<Self> {
        let config: Config = text.parse().ok()?;
        let host = config.get_hosts().first().map(|host| match host {
            postgres::config::Host::Tcp(name) => name.clone(),
            postgres::config::Host::Unix(path) => path.display().to_string(),
        });
        Some(Self {
            host,
            port: config.get_ports().first().copied(),
            user: config.get_user().map(str::to_owned),
            database: config.get_dbname().map(str::to_owned),
            password: config.get_password().map(|password| SecretBytes::new(password.to_vec())),
            password_file: None,
            encryption: matches!(config.get_ssl_mode(), SslMode::Require).then(|| "require".to_owned()),
        })
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

    /// Makes the same options for another database.
    #[must_use]
    pub fn to_database(&self, database: &str) -> Self {
        let password = self.password.as_ref().map(|password| SecretBytes::new(password.expose().to_vec()));
        Self {
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            database: Some(database.to_owned()),
            password,
            password_file: self.password_file.clone(),
            encryption: self.encryption.clone(),
        }
    }

    /// Takes from `other` what is not known here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            host: self.host.or(other.host),
            port: self.port.or(other.port),
            user: self.user.or(other.user),
            database: self.database.or(other.database),
            password: self.password.or(other.password),
            password_file: self.password_file.or(other.password_file),
            encryption: self.encryption.or(other.encryption),
        }
    }

    /// Takes from `postmaster.pid` of a data directory where its server listens.
    pub fn of_data_directory(folder: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join("postmaster.pid")).ok()?;
        let lines: Vec<&str> = text.lines().collect();
        let line = |number: usize| lines.get(number).map(|line| line.trim()).filter(|line| !line.is_empty());
        let address = line(5).map(|address| match address {
            "*" | "0.0.0.0" => "127.0.0.1",
            address => address,
        });
        let host = line(4).or(address)?.to_owned();
        Some(Self { host: Some(host), port: line(3)?.parse().ok(), ..Self::default() })
    }
}

/// A server and who connects to it, nothing left open.
pub(super) struct Target {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    /// Where it is, for people; of a socket, the socket.
    pub place: String,
    pub password: Option<SecretBytes>,
}

fn is_socket(host: &str) -> bool {
    host.starts_with('/') || host.starts_with('@')
}

impl Target {
    /// Says whether it is reached through a Unix socket.
    pub fn is_socket(&self) -> bool {
        is_socket(&self.host)
    }
}

impl ConnectionOptions {
    /// Fills in what was not said: the usual folders of sockets one after the other, and the password that is
    /// kept, under the name of the database or one of `also`.
    pub(super) fn target(&self, system_user: &str, also: &[&str]) -> Result<Target, PostgresError> {
        let encryption = self.encryption.as_deref().unwrap_or("prefer");
        let hosts: Vec<&str> = match self.host.as_deref().filter(|host| !host.is_empty()) {
            Some(host) => vec![host],
            None => SOCKET_FOLDERS.to_vec(),
        };
        let port = self.port.unwrap_or(PORT);
        if !matches!(encryption, "disable" | "allow" | "prefer") && hosts.iter().any(|host| !is_socket(host))
        {
            return Err(PostgresError::refused(
                format!(
                    "sslmode={encryption} asks for an encrypted connection, which this version does not make"
                ),
                "connect through a Unix socket on the server's host",
            ));
        }
        let socket_there = |host: &&str| Path::new(host).join(format!(".s.PGSQL.{port}")).exists();
        let host = match hosts.as_slice() {
            [host] => *host,
            hosts => hosts.iter().copied().find(|host| socket_there(host)).unwrap_or(SOCKET_FOLDERS[0]),
        };
        let user = self.user.as_deref().unwrap_or(system_user);
        let database = self.database.as_deref().unwrap_or(DATABASE);
        let kept = |file: &PathBuf| {
            let mut databases = also.iter().copied().chain([database]);
            databases.find_map(|database| password_file::find(file, host, port, database, user))
        };
        let given = self.password.as_ref().map(|password| SecretBytes::new(password.expose().to_vec()));
        Ok(Target {
            host: host.to_owned(),
            port,
            user: user.to_owned(),
            database: database.to_owned(),
            place: match is_socket(host) {
                true => format!("{host}/.s.PGSQL.{port}"),
                false => format!("{host}:{port}"),
            },
            password: given.or_else(|| self.password_file.as_ref().and_then(kept)),
        })
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

/// How a session was opened: enough to open another one, and for PostgreSQL's own programs.
pub struct Login {
    options: ConnectionOptions,
    host: String,
    port: u16,
    user: String,
}

impl Login {
    /// Has one of PostgreSQL's own programs find this server and a database of it. All is said in the
    /// environment of that program alone: what stands on its command line, every user of the host can read.
    pub fn guide(&self, command: &mut Command, database: &str) {
        let Self { options, host, port, user } = self;
        // What has been understood already is not to be understood once more.
        for name in
            ["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGCLIENTENCODING", "PGPASSWORD", "PGREQUIRESSL"]
        {
            command.env_remove(name);
        }
        command.env("PGHOST", host).env("PGPORT", port.to_string()).env("PGUSER", user);
        command.env("PGDATABASE", database).env("PGAPPNAME", "chronolith");
        let kept = match (&options.password, &options.password_file) {
            (None, Some(file)) => password_file::find(file, host, *port, database, user),
            _ => None,
        };
        if let Some(password) = options.password.as_ref().or(kept.as_ref()) {
            command.env("PGPASSWORD", OsStr::from_bytes(password.expose()));
        }
        if let Some(encryption) = &options.encryption {
            command.env("PGSSLMODE", encryption);
        }
    }
}

/// An open session.
pub struct Server {
    client: Client,
    place: String,
    login: Login,
}

impl Server {
    /// Connects; where no host is named, to the usual folders of sockets, one after the other.
    ///
    /// # Errors
    ///
    /// When nobody answers, or the server refuses.
    pub fn connect(options: &ConnectionOptions, system_user: &str) -> Result<Self, PostgresError> {
        let target = options.target(system_user, &[])?;
        let mut config = Config::new();
        config.host(&target.host).port(target.port).user(&target.user).dbname(&target.database);
        config.application_name("chronolith").ssl_mode(SslMode::Disable);
        config.connect_timeout(Duration::from_secs(CONNECT_SECONDS));
        if let Some(password) = &target.password {
            config.password(password.expose());
        }
        let place = target.place;
        let failed = |error: postgres::Error| PostgresError::Server {
            doing: "connect to",
            server: place.clone(),
            why: explain(&error),
        };
        let mut client = config.connect(NoTls).map_err(failed)?;
        // A session that is silent for hours must not be ended, nor find functions of somebody else's.
        let setup = "SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0; \
             SET idle_in_transaction_session_timeout = 0; SET client_encoding = 'UTF8'; SET DateStyle = 'ISO'";
        client.batch_execute(setup).map_err(failed)?;
        // Known since 14.
        let _ = client.batch_execute("SET idle_session_timeout = 0");
        let login = Login {
            options: options.to_database(&target.database),
            host: target.host,
            port: target.port,
            user: target.user,
        };
        Ok(Self { client, place, login })
    }

    /// Opens another session with the same server, as the same user, in a database.
    ///
    /// # Errors
    ///
    /// As [`Server::connect`].
    pub fn connect_to(&self, database: &str) -> Result<Self, PostgresError> {
        let Login { options, host, port, user } = &self.login;
        let same = ConnectionOptions {
            host: Some(host.clone()),
            port: Some(*port),
            ..options.to_database(database)
        };
        Self::connect(&same, user)
    }

    /// Returns the database of this session.
    pub fn database(&self) -> &str {
        self.login.options.database.as_deref().unwrap_or(DATABASE)
    }

    /// Returns how the session was opened.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Returns where the server is, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    fn failed(&self, doing: &'static str, error: &postgres::Error) -> PostgresError {
        PostgresError::Server { doing, server: self.place.clone(), why: explain(error) }
    }

    /// Asks for rows.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn query(
        &mut self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.client.query(sql, parameters).map_err(|error| self.failed(doing, &error))
    }

    /// Asks for rows, and takes the question back when the user has had enough.
    ///
    /// # Errors
    ///
    /// What the server says, or that it was interrupted.
    pub fn query_patiently(
        &mut self,
        doing: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
        observer: &dyn Observer,
    ) -> Result<Vec<Row>, PostgresError> {
        self.patiently(doing, observer, |client| client.query(sql, parameters))
    }

    /// Runs statements as a person types them, and takes them back when the user has had enough; returns the rows
    /// of all of them as texts.
    ///
    /// # Errors
    ///
    /// What the server says, or that it was interrupted.
    pub fn run_patiently(
        &mut self,
        doing: &'static str,
        sql: &str,
        observer: &dyn Observer,
    ) -> Result<Vec<Vec<Option<String>>>, PostgresError> {
        let messages = self.patiently(doing, observer, |client| client.simple_query(sql))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    fn patiently<T>(
        &mut self,
        doing: &'static str,
        observer: &dyn Observer,
        ask: impl FnOnce(&mut Client) -> Result<T, postgres::Error>,
    ) -> Result<T, PostgresError> {
        let cancel = self.client.cancel_token();
        let done = AtomicBool::new(false);
        let answer = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    if observer.interrupted() {
                        // If nobody hears, the query ends when it ends.
                        let _ = cancel.cancel_query(NoTls);
                        return;
                    }
                    std::thread::park_timeout(LOOK_EVERY);
                }
            });
            let answer = ask(&mut self.client);
            done.store(true, Ordering::Release);
            waiting.thread().unpark();
            answer
        });
        match answer {
            Ok(answer) => Ok(answer),
            Err(_) if observer.interrupted() => Err(crate::repo::RepoError::Interrupted.into()),
            Err(error) => Err(self.failed(doing, &error)),
        }
    }

    /// Runs statements that return nothing.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn execute(&mut self, doing: &'static str, sql: &str) -> Result<(), PostgresError> {
        self.client.batch_execute(sql).map_err(|error| self.failed(doing, &error))
    }

    /// Says that the server did not answer as it should.
    pub(super) fn odd(&self, doing: &'static str) -> PostgresError {
        let why = "it answered with something else than it was asked for".to_owned();
        PostgresError::Server { doing, server: self.place.clone(), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings() {
        let (options, service) = ConnectionOptions::parse(
            "host=/run/pg  port = 5433 user='a \\'b' dbname=x\\ y password=geheim service=s",
        )
        .unwrap();
        assert_eq!(options.host.as_deref(), Some("/run/pg"));
        assert_eq!((options.port, options.user.as_deref()), (Some(5433), Some("a 'b")));
        assert_eq!(options.database.as_deref(), Some("x y"));
        assert_eq!(options.password.unwrap().expose(), b"geheim");
        assert_eq!(service.as_deref(), Some("s"));
        let (options, _) = ConnectionOptions::parse("postgresql://u:p@h:1/d").unwrap();
        assert_eq!((options.host.as_deref(), options.port), (Some("h"), Some(1)));
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
    fn services() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# all\n[other]\nhost=elsewhere\n\n[mine]\nhost=/run/x\n# port=1\nport=7\npassword=it's\n[mine2]\nport=9\n";
        std::fs::write(file.path(), text).unwrap();
        let mine = ConnectionOptions::from_service(file.path(), "mine").unwrap().unwrap();
        assert_eq!((mine.host.as_deref(), mine.port), (Some("/run/x"), Some(7)));
        assert_eq!(mine.password.unwrap().expose(), b"it's");
        assert!(ConnectionOptions::from_service(file.path(), "none").unwrap().is_none());
    }

    #[test]
    fn a_data_directory_says_where_its_server_listens() {
        let folder = tempfile::tempdir().unwrap();
        assert!(ConnectionOptions::of_data_directory(folder.path()).is_none());
        let pid = |text: &str| std::fs::write(folder.path().join("postmaster.pid"), text).unwrap();
        pid("123\n/data\n1700000000\n5433\n/run/pg\nlocalhost\n  1 2\nready   \n");
        let options = ConnectionOptions::of_data_directory(folder.path()).unwrap();
        assert_eq!((options.host.as_deref(), options.port), (Some("/run/pg"), Some(5433)));
        pid("123\n/data\n1700000000\n5433\n\n*\n");
        let options = ConnectionOptions::of_data_directory(folder.path()).unwrap();
        assert_eq!(options.host.as_deref(), Some("127.0.0.1"));
    }
}
