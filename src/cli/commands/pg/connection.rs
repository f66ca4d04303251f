//! How a server is found: options, then a service, then the environment, as in PostgreSQL's own programs.

use crate::base::SecretBytes;
use crate::cli::edges;
use crate::cli::fault::Fault;
use crate::postgres::replication::Endpoint;
use crate::postgres::{ConnectionOptions, PostgresError, Server, TlsOptions};
use clap::Args;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Options of every command that talks to a server. Passwords come from PGPASSFILE, ~/.pgpass or
/// PGPASSWORD, never from the command line.
#[derive(Args, Default)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The server's host, or the folder of its socket [env: PGHOST]
    #[arg(long, value_name = "HOST|DIR")]
    pub host: Option<String>,
    /// Its port [env: PGPORT]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Who connects [env: PGUSER]
    #[arg(long, value_name = "ROLE")]
    pub user: Option<String>,
    /// To which database [env: PGDATABASE; default: postgres]
    #[arg(long, value_name = "NAME")]
    pub dbname: Option<String>,
    /// A service of ~/.pg_service.conf [env: PGSERVICE, PGSERVICEFILE]
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// A connection string or URI, for example 'host=db1 user=backup sslmode=verify-full'
    #[arg(long, value_name = "STRING")]
    pub connect: Option<String>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn home(below: &str) -> Option<PathBuf> {
    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(below))
}

/// What the environment says.
fn environment() -> ConnectionOptions {
    let password = std::env::var_os("PGPASSWORD").filter(|password| !password.is_empty());
    let password_file = std::env::var_os("PGPASSFILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    ConnectionOptions {
        host: variable("PGHOST"),
        address: variable("PGHOSTADDR"),
        port: variable("PGPORT").and_then(|port| port.parse().ok()),
        user: variable("PGUSER"),
        database: variable("PGDATABASE"),
        password: password.map(|password: OsString| SecretBytes::new(password.into_vec())),
        password_file: password_file.or_else(|| home(".pgpass")),
        tls: TlsOptions::from_environment(variable, home(".postgresql")),
    }
}

/// Finds a service: in the user's file, then in the system's.
fn service(name: &str) -> Result<ConnectionOptions, Fault> {
    let own = std::env::var_os("PGSERVICEFILE").map(PathBuf::from).or_else(|| home(".pg_service.conf"));
    let system = std::env::var_os("PGSYSCONFDIR").map(|folder| PathBuf::from(folder).join("pg_service.conf"));
    for file in own.into_iter().chain(system).filter(|file| file.exists()) {
        if let Some(options) = ConnectionOptions::from_service(&file, name)? {
            return Ok(options);
        }
    }
    Err(Fault::usage(
        format!("there is no service {name:?} in the service file"),
        "PGSERVICEFILE names the file; it is ~/.pg_service.conf else",
    ))
}

impl Connection {
    /// Puts together what is known of the server; a data directory that was named says where its own
    /// server listens.
    pub fn options(&self, data_directory: Option<&Path>) -> Result<ConnectionOptions, Fault> {
        let given = ConnectionOptions {
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            database: self.dbname.clone(),
            ..ConnectionOptions::default()
        };
        let (string, in_string) = match &self.connect {
            Some(text) => ConnectionOptions::parse(text)?,
            None => Default::default(),
        };
        let name = self.service.clone().or(in_string).or_else(|| variable("PGSERVICE"));
        let from_service = match &name {
            Some(name) => service(name)?,
            None => ConnectionOptions::default(),
        };
        let here = data_directory.and_then(ConnectionOptions::of_data_directory).unwrap_or_default();
        Ok(given.or(string).or(from_service).or(here).or(environment()))
    }

    /// Says where the server is and who connects, for the replication protocol.
    pub fn endpoint(&self) -> Result<Endpoint, Fault> {
        Ok(Endpoint::new(&self.options(None)?, &edges::user_name())?)
    }

    /// Connects.
    pub fn open(&self, data_directory: Option<&Path>) -> Result<Server, Fault> {
        let options = self.options(data_directory)?;
        Server::connect(&options, &edges::user_name()).map_err(|error| match error {
            PostgresError::Server { why, .. } if why.contains("role \"root\" does not exist") => Fault::failed(
                "the server has no role \"root\"",
                "name a role with --user, or run this as the server's user: sudo -u postgres chronolith pg ...",
            ),
            error => error.into(),
        })
    }
}
