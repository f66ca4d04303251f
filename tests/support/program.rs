//! The real program, with a repository of its own, and a library client that reads what it left.

use super::world::Client;
use chronolith::storage::LocalStore;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// A repository made by the program, and how to call the program.
pub struct Program {
    binary: &'static str,
    pub folder: TempDir,
}

impl Program {
    /// Makes a repository; `binary` is `env!("CARGO_BIN_EXE_chronolith")`.
    pub fn new(binary: &'static str) -> Self {
        let program = Self { binary, folder: TempDir::new().unwrap() };
        let key = program.folder.path().join("key");
        let mut init = Command::new(binary);
        init.arg("init").arg("--new-key-file").arg(&key).args(["--no-recovery", "-q"]);
        let output = program.surroundings(&mut init).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        program
    }

    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn surroundings<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("CHRONOLITH_REPO", self.repository())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
    }

    /// A command of the program.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.binary);
        self.surroundings(&mut command).env("CHRONOLITH_KEY_FILE", self.folder.path().join("key"));
        command.args(arguments).args(["--no-key-cache", "--no-progress", "--cache-dir"]);
        command.arg(self.folder.path().join("cache"));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The library's view of the repository.
    pub fn client(&self) -> Client {
        let store = LocalStore::open(self.repository()).unwrap();
        let key_file = std::fs::read(self.folder.path().join("key")).unwrap();
        Client::holding(Arc::new(store), key_file)
    }
}
