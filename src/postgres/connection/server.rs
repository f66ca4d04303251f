//! An open session with a server.

use super::{ConnectionOptions, DATABASE, Target};
use crate::base::{Observer, explain};
use crate::postgres::error::PostgresError;
use crate::postgres::password_file;
use crate::postgres::tls::{Binding, Connector, Mode, TlsFailure, Way};
use postgres::config::{ChannelBinding, SslMode};
use postgres::error::SqlState;
use postgres::types::ToSql;
use postgres::{Client, Config, NoTls, Row, SimpleQueryMessage};
use std::error::Error;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CONNECT: &str = "connect to";
const CONNECT_SECONDS: u64 = 15;
/// How often a long query looks whether the user has had enough.
const LOOK_EVERY: Duration = Duration::from_millis(200);

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
        if let Some(address) = &options.address {
            command.env("PGHOSTADDR", address);
        }
        options.tls.guide(command);
    }
}

/// An open session.
pub struct Server {
    client: Client,
    /// What encrypts the connection, where anything does.
    connector: Option<Connector>,
    place: String,
    login: Login,
}

/// Connects, in one way after the other, as far as the options allow.
fn open(target: &Target) -> Result<(Client, Option<Connector>), PostgresError> {
    let encryption = &target.encryption;
    let mut config = Config::new();
    config.host(&target.host).port(target.port).user(&target.user).dbname(&target.database);
    config.application_name("chronolith").connect_timeout(Duration::from_secs(CONNECT_SECONDS));
    if let Some(address) = &target.address {
        let address = address.parse().map_err(|_| {
            PostgresError::refused(
                format!("hostaddr={address} is no address"),
                "write it in digits; a name goes into host",
            )
        })?;
        config.hostaddr(address);
    }
    if let Some(password) = &target.password {
        config.password(password.expose());
    }
    config.channel_binding(match encryption.binding {
        Binding::Disable => ChannelBinding::Disable,
        Binding::Prefer => ChannelBinding::Prefer,
        Binding::Require => ChannelBinding::Require,
    });
    let connector = encryption.handshake.clone().map(Connector);
    let mut before = None;
    let mut ways = encryption.ways().iter().peekable();
    while let Some(way) = ways.next() {
        config.ssl_mode(match way {
            Way::Clear => SslMode::Disable,
            Way::IfOffered => SslMode::Prefer,
            Way::Encrypted => SslMode::Require,
        });
        let opened = match connector.clone() {
            Some(connector) => config.connect(connector),
            None => config.connect(NoTls),
        };
        let error = match opened {
            Ok(client) => return Ok((client, connector)),
            Err(error) => error,
        };
        let failure = tls_failure(&error, encryption.mode);
        let is_refused = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
        if ways.peek().is_some() && (failure.is_some() || is_refused) {
            before = Some(failure.map_or_else(|| said(&error), |failure| failure.why));
            continue;
        }
        return Err(match (failure, before) {
            (Some(failure), None) => PostgresError::tls(CONNECT, &target.place, failure),
            (failure, before) => {
                let code = code_of(&error);
                let why = failure.map_or_else(|| said(&error), |failure| failure.why);
                let why = before.map_or_else(|| why.clone(), |before| format!("{before}; and then: {why}"));
                PostgresError::Server { doing: CONNECT, server: target.place.clone(), why, code }
            }
        });
    }
    Err(PostgresError::failed("there is no way to connect", "look at sslmode"))
}

/// Finds in an error what was wrong with the encryption.
fn tls_failure(error: &postgres::Error, mode: Mode) -> Option<TlsFailure> {
    let source = error.source()?;
    if let Some(failure) = source.downcast_ref::<TlsFailure>() {
        return Some(failure.clone());
    }
    // The library has no other sign of it.
    source.to_string().contains("does not support TLS").then(|| TlsFailure::not_offered(mode))
}

fn code_of(error: &postgres::Error) -> Option<String> {
    error.code().map(|code| code.code().to_owned())
}

/// Writes what a server said in one line, with its detail and its hint; else why nothing was heard of it.
fn said(error: &postgres::Error) -> String {
    let Some(said) = error.as_db_error() else { return explain(error) };
    let parts = [Some(said.message()), said.detail(), said.hint()].into_iter().flatten();
    let lines = parts.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("; ")
}

impl Server {
    /// Connects; where no host is named, to the usual folders of sockets, one after the other.
    ///
    /// # Errors
    ///
    /// When nobody answers, or the server refuses.
    pub fn connect(options: &ConnectionOptions, system_user: &str) -> Result<Self, PostgresError> {
        let target = options.target(system_user, &[])?;
        let (mut client, connector) = open(&target)?;
        let place = target.place;
        let failed = |error: postgres::Error| PostgresError::Server {
            doing: CONNECT,
            server: place.clone(),
            why: said(&error),
            code: code_of(&error),
        };
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
        Ok(Self { client, connector, place, login })
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
        PostgresError::Server { doing, server: self.place.clone(), why: said(error), code: code_of(error) }
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
        let (cancel, connector) = (self.client.cancel_token(), &self.connector);
        let done = AtomicBool::new(false);
        let answer = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    if observer.interrupted() {
                        // If nobody hears, the query ends when it ends.
                        let _ = match connector.clone() {
                            Some(connector) => cancel.cancel_query(connector),
                            None => cancel.cancel_query(NoTls),
                        };
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
    pub(in crate::postgres) fn odd(&self, doing: &'static str) -> PostgresError {
        let why = "it answered with something else than it was asked for".to_owned();
        PostgresError::Server { doing, server: self.place.clone(), why, code: None }
    }
}
