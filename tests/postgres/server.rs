//! A PostgreSQL server of a test, with what `initdb` and its configuration are told.
#![allow(dead_code, reason = "each room uses some of it")]

use super::support::server::{as_user, check, feed, folder, program};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const PACKAGE: &str = "postgresql-15";
const PORT: u16 = 5432;
const FOLDERS: [&str; 3] =
    ["/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/17/bin"];
/// The user that servers of tests run as where the tests run as root.
pub const USER: &str = "postgres";

/// Finds a program of PostgreSQL.
pub fn tool(name: &str) -> PathBuf {
    program(name, &FOLDERS, PACKAGE)
}

/// A server and its folder: `server/data` holds the cluster, `server` the socket.
pub struct Server {
    pub folder: TempDir,
    child: Option<Child>,
    pub settings: Vec<String>,
    /// The port, which is a part of the socket's name too.
    pub port: u16,
}

impl Server {
    /// Makes a cluster and starts it.
    pub fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// Makes a cluster with more options of `initdb`, and starts it with settings (`name=value`).
    pub fn start_with(initdb_options: &[&str], settings: &[&str]) -> Self {
        let folder = folder(USER);
        let mut server = Self { folder, child: None, settings: Vec::new(), port: PORT };
        let mut initdb = as_user(USER, &tool("initdb"));
        initdb.arg("-D").arg(server.data()).args(["-U", "tester", "-A", "trust", "-E", "UTF8"]);
        initdb.args(["--locale=C", "--no-sync"]).args(initdb_options);
        check("initdb", initdb.output());
        server.settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        server.launch();
        server
    }

    /// Takes a folder whose `server/data` holds a cluster, and starts it.
    pub fn adopt(folder: TempDir, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut server = Self { folder, child: None, settings, port: PORT };
        server.launch();
        server
    }

    /// Other settings from the next start on.
    pub fn set(&mut self, settings: &[String]) {
        self.settings = settings.to_vec();
    }

    /// Starts the server and waits until it answers.
    pub fn launch(&mut self) {
        let mut postgres = as_user(USER, &tool("postgres"));
        postgres.arg("-D").arg(self.data()).arg("-k").arg(self.sockets());
        postgres.args(["-c", "listen_addresses=", "-c", "fsync=off", "-p", &self.port.to_string()]);
        for setting in &self.settings {
            postgres.arg("-c").arg(setting);
        }
        // What the server calls keeps its cache here too.
        postgres.env("XDG_CACHE_HOME", self.sockets().join("cache"));
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut child = postgres.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        loop {
            // A server that ends by itself has said why.
            assert!(child.try_wait().unwrap().is_none(), "{}", self.log());
            if self.client("pg_isready").output().unwrap().status.success() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        self.child = Some(child);
    }

    /// Stops the server: `smart`, `fast` or `immediate`.
    pub fn stop(&mut self, mode: &str) {
        let mut stop = as_user(USER, &tool("pg_ctl"));
        stop.arg("-D").arg(self.data()).args(["-w", "-s", "-m", mode, "stop"]);
        let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// What the server has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn sockets(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    pub fn data(&self) -> PathBuf {
        self.sockets().join("data")
    }

    /// A client program that finds the server.
    pub fn client(&self, name: &str) -> Command {
        let mut command = Command::new(tool(name));
        command.env("PGHOST", self.sockets()).env("PGUSER", "tester").env("PGPORT", self.port.to_string());
        command
    }

    /// Runs SQL and returns what it prints, without decoration.
    pub fn sql(&self, database: &str, text: &str) -> String {
        let mut psql = self.client("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database]);
        String::from_utf8(feed("psql", psql, text.as_bytes())).unwrap()
    }

    /// The command line of a client program.
    pub fn command_line(&self, name: &str, rest: &str) -> String {
        format!("{} -h {} -U tester {rest}", tool(name).display(), self.sockets().display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.stop("immediate");
        }
    }
}
