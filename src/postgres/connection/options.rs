//! What is known of a server before it is asked.

use crate::base::SecretBytes;
use crate::postgres::tls::TlsOptions;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What is known of the server before it is asked.
#[derive(Default)]
pub struct ConnectionOptions {
    /// A name, an address, or a folder of sockets.
    pub host: Option<String>,
    /// The address to connect to, where the host's name is not to be looked up.
    pub address: Option<String>,
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
    /// How far the connection must be encrypted.
    pub tls: TlsOptions,
}

impl ConnectionOptions {
    /// Makes the same options for another database.
    #[must_use]
    pub fn to_database(&self, database: &str) -> Self {
        let password = self.password.as_ref().map(|password| SecretBytes::new(password.expose().to_vec()));
        Self {
            host: self.host.clone(),
            address: self.address.clone(),
            port: self.port,
            user: self.user.clone(),
            database: Some(database.to_owned()),
            password,
            password_file: self.password_file.clone(),
            tls: self.tls.clone(),
        }
    }

    /// Takes from `other` what is not known here. An address goes with the host that it was said with.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let address = if self.host.is_some() { self.address } else { self.address.or(other.address) };
        Self {
            host: self.host.or(other.host),
            address,
            port: self.port.or(other.port),
            user: self.user.or(other.user),
            database: self.database.or(other.database),
            password: self.password.or(other.password),
            password_file: self.password_file.or(other.password_file),
            tls: self.tls.or(other.tls),
        }
    }

    /// Returns the host or address to connect to, where it is none of this machine's sockets or loopback addresses.
    pub fn other_host(&self) -> Option<&str> {
        let address = self.address.as_deref().filter(|address| !address.is_empty());
        address.or(self.host.as_deref()).filter(|host| {
            let is_here = host.is_empty()
                || host.starts_with(['/', '@'])
                || *host == "localhost"
                || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
            !is_here
        })
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_host_is_another_one_unless_it_is_a_socket_or_loopback() {
        let other = |host: &str, address: Option<&str>| {
            let address = address.map(str::to_owned);
            let options = ConnectionOptions { host: Some(host.to_owned()), address, ..Default::default() };
            options.other_host().map(str::to_owned)
        };
        for here in ["", "/run/pg", "@pg", "localhost", "127.0.0.1", "127.3.2.1", "::1"] {
            assert_eq!(other(here, None), None, "{here}");
        }
        for there in ["db1", "10.0.0.1", "fe80::1", "localhost.example"] {
            assert_eq!(other(there, None).as_deref(), Some(there));
        }
        assert_eq!(other("db1", Some("127.0.0.1")), None);
        assert_eq!(other("localhost", Some("10.0.0.1")).as_deref(), Some("10.0.0.1"));
        assert_eq!(ConnectionOptions::default().other_host(), None);
    }

    #[test]
    fn an_address_goes_with_its_host() {
        let options = |host: Option<&str>, address: Option<&str>| ConnectionOptions {
            host: host.map(str::to_owned),
            address: address.map(str::to_owned),
            ..ConnectionOptions::default()
        };
        let merged = options(Some("/run/pg"), None).or(options(Some("db1"), Some("10.0.0.1")));
        assert_eq!((merged.host.as_deref(), merged.address), (Some("/run/pg"), None));
        let merged = options(None, Some("10.0.0.2")).or(options(Some("db1"), Some("10.0.0.1")));
        assert_eq!((merged.host.as_deref(), merged.address.as_deref()), (Some("db1"), Some("10.0.0.2")));
    }
}
