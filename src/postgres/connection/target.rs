//! A server and who connects to it, nothing left open.

use super::{ConnectionOptions, DATABASE};
use crate::base::SecretBytes;
use crate::postgres::error::PostgresError;
use crate::postgres::password_file;
use crate::postgres::tls::Encryption;
use std::path::{Path, PathBuf};

/// Where servers listen that were not told otherwise.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
const PORT: u16 = 5432;

/// A server and who connects to it, nothing left open.
pub(in crate::postgres) struct Target {
    pub host: String,
    /// What is connected to instead of the host's own address.
    pub address: Option<String>,
    pub port: u16,
    pub user: String,
    pub database: String,
    /// Where it is, for people; of a socket, the socket.
    pub place: String,
    pub password: Option<SecretBytes>,
    pub encryption: Encryption,
}

fn is_socket(host: &str) -> bool {
    host.starts_with('/') || host.starts_with('@')
}

impl Target {
    /// Says whether it is reached through a Unix socket.
    pub fn is_socket(&self) -> bool {
        self.address.is_none() && is_socket(&self.host)
    }
}

impl ConnectionOptions {
    /// Fills in what was not said: the usual folders of sockets one after the other, and the password that is
    /// kept, under the name of the database or one of `also`. Files that encryption takes are read.
    pub(in crate::postgres) fn target(
        &self,
        system_user: &str,
        also: &[&str],
    ) -> Result<Target, PostgresError> {
        let port = self.port.unwrap_or(PORT);
        let address = self.address.clone().filter(|address| !address.is_empty());
        let named = self.host.as_deref().filter(|host| !host.is_empty()).or(address.as_deref());
        let socket_there = |host: &&str| Path::new(host).join(format!(".s.PGSQL.{port}")).exists();
        let usual = || SOCKET_FOLDERS.into_iter().find(socket_there).unwrap_or(SOCKET_FOLDERS[0]);
        let host = named.unwrap_or_else(usual);
        let is_local = address.is_none() && is_socket(host);
        let encryption = Encryption::new(&self.tls, host, is_local)?;
        let user = self.user.as_deref().unwrap_or(system_user);
        let database = self.database.as_deref().unwrap_or(DATABASE);
        let kept = |file: &PathBuf| {
            let mut databases = also.iter().copied().chain([database]);
            databases.find_map(|database| password_file::find(file, host, port, database, user))
        };
        let given = self.password.as_ref().map(|password| SecretBytes::new(password.expose().to_vec()));
        Ok(Target {
            host: host.to_owned(),
            address: address.clone(),
            port,
            user: user.to_owned(),
            database: database.to_owned(),
            place: match is_local {
                true => format!("{host}/.s.PGSQL.{port}"),
                false => format!("{host}:{port}"),
            },
            password: given.or_else(|| self.password_file.as_ref().and_then(kept)),
            encryption,
        })
    }
}
