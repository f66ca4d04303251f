//! What a connection string, a service file and the environment say of encryption.

use crate::postgres::error::PostgresError;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// Variables that PostgreSQL's own programs read.
const VARIABLES: [&str; 6] =
    ["PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL", "PGCHANNELBINDING"];

/// What is said of encryption, as it was said; nothing of it has been looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// How much is asked for (`sslmode`).
    pub mode: Option<String>,
    /// Certificates of those whose word counts for who a server is (`sslrootcert`), or `system`.
    pub root: Option<PathBuf>,
    /// The certificate that is shown to the server (`sslcert`).
    pub certificate: Option<PathBuf>,
    /// Its key (`sslkey`).
    pub key: Option<PathBuf>,
    /// Certificates that count no more (`sslcrl`).
    pub revoked: Option<PathBuf>,
    /// Whether a password's proof must be bound to the connection (`channel_binding`).
    pub binding: Option<String>,
    /// Where files with the usual names lie, of those that are not named: `~/.postgresql`.
    pub folder: Option<PathBuf>,
}

impl TlsOptions {
    /// Takes a word of a connection string; false where it says nothing of encryption.
    pub(in crate::postgres) fn set(&mut self, key: &str, value: &str) -> bool {
        let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
        let path = || text().map(PathBuf::from);
        match key {
            "sslmode" => self.mode = text(),
            "sslrootcert" => self.root = path(),
            "sslcert" => self.certificate = path(),
            "sslkey" => self.key = path(),
            "sslcrl" => self.revoked = path(),
            "channel_binding" => self.binding = text(),
            _ => return false,
        }
        true
    }

    /// Reads what is said in the environment; `variable` looks there, and `folder` is where files with the usual
    /// names lie.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>, folder: Option<PathBuf>) -> Self {
        let [mode, root, certificate, key, revoked, binding] = VARIABLES.map(variable);
        Self {
            mode,
            root: root.map(PathBuf::from),
            certificate: certificate.map(PathBuf::from),
            key: key.map(PathBuf::from),
            revoked: revoked.map(PathBuf::from),
            binding,
            folder,
        }
    }

    /// Takes from `other` what is not said here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            mode: self.mode.or(other.mode),
            root: self.root.or(other.root),
            certificate: self.certificate.or(other.certificate),
            key: self.key.or(other.key),
            revoked: self.revoked.or(other.revoked),
            binding: self.binding.or(other.binding),
            folder: self.folder.or(other.folder),
        }
    }

    /// Tells the same to one of PostgreSQL's own programs.
    pub(in crate::postgres) fn guide(&self, command: &mut Command) {
        let text = |text: &Option<String>| text.clone().map(Into::into);
        let path = |path: &Option<PathBuf>| path.clone().map(PathBuf::into_os_string);
        let values = [
            text(&self.mode),
            path(&self.root),
            path(&self.certificate),
            path(&self.key),
            path(&self.revoked),
            text(&self.binding),
        ];
        for (name, value) in VARIABLES.iter().zip(values) {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }

    pub(super) fn mode(&self) -> Result<Option<Mode>, PostgresError> {
        let known = |mode: &String| match mode.as_str() {
            "disable" => Ok(Mode::Disable),
            "allow" => Ok(Mode::Allow),
            "prefer" => Ok(Mode::Prefer),
            "require" => Ok(Mode::Require),
            "verify-ca" => Ok(Mode::VerifyCa),
            "verify-full" => Ok(Mode::VerifyFull),
            _ => Err(PostgresError::refused(
                format!("sslmode={mode} is not known"),
                "it is disable, allow, prefer, require, verify-ca or verify-full",
            )),
        };
        self.mode.as_ref().map(known).transpose()
    }

    pub(super) fn binding(&self) -> Result<Binding, PostgresError> {
        match self.binding.as_deref() {
            Some("disable") => Ok(Binding::Disable),
            None | Some("prefer") => Ok(Binding::Prefer),
            Some("require") => Ok(Binding::Require),
            Some(other) => Err(PostgresError::refused(
                format!("channel_binding={other} is not known"),
                "it is disable, prefer or require",
            )),
        }
    }
}

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::postgres) enum Mode {
    /// In the clear.
    Disable,
    /// Encrypted only where the server refuses anything else.
    Allow,
    /// Encrypted where the server can.
    Prefer,
    /// Encrypted.
    Require,
    /// Encrypted, and the server's certificate is one of those whose word counts.
    VerifyCa,
    /// The same, and the certificate is for the host that was meant.
    VerifyFull,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        })
    }
}

/// Whether the proof of a password is bound to the encrypted connection, so that nobody in between can pass it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::postgres) enum Binding {
    /// Never.
    Disable,
    /// Where the server can.
    Prefer,
    /// A server that does not is refused.
    Require,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_variables() {
        let mut options = TlsOptions::default();
        for (key, value) in
            [("sslmode", "verify-full"), ("sslrootcert", "/r"), ("sslkey", ""), ("sslcrl", "/c")]
        {
            assert!(options.set(key, value), "{key}");
        }
        assert!(!options.set("host", "h"));
        assert_eq!(options.mode().unwrap(), Some(Mode::VerifyFull));
        assert_eq!((options.root.clone(), options.key.clone()), (Some("/r".into()), None));
        let there = |name: &str| ["PGSSLMODE", "PGSSLKEY"].contains(&name).then(|| format!("of {name}"));
        let merged = options.or(TlsOptions::from_environment(there, Some("/home".into())));
        assert_eq!(merged.mode.as_deref(), Some("verify-full"));
        assert_eq!(
            (merged.key.clone(), merged.folder.clone()),
            (Some("of PGSSLKEY".into()), Some("/home".into()))
        );
        let mut command = Command::new("true");
        merged.guide(&mut command);
        let said: Vec<_> = command.get_envs().filter_map(|(name, value)| Some((name, value?))).collect();
        assert!(said.contains(&("PGSSLMODE".as_ref(), "verify-full".as_ref())), "{said:?}");
        assert_eq!(said.len(), 4);
        for (mode, binding) in [("verify", "prefer"), ("Require", "prefer"), ("prefer", "maybe")] {
            let options = TlsOptions {
                mode: Some(mode.to_owned()),
                binding: Some(binding.to_owned()),
                ..TlsOptions::default()
            };
            assert!(options.mode().is_err() || options.binding().is_err(), "{mode} {binding}");
        }
    }
}
