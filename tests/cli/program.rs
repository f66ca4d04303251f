//! Runs the real binary in a world of its own.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const PASSWORD: &str = "hunter2-is-the-password";

/// A folder with a repository-to-be, a home and nothing of the user's environment.
pub struct World {
    pub folder: tempfile::TempDir,
}

/// What a run left.
pub struct Outcome {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Outcome {
    pub fn text(&self) -> String {
        String::from_utf8(self.out.clone()).unwrap()
    }

    /// Checks the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", String::from_utf8_lossy(&self.out), self.err);
        self
    }

    /// Reads the lines of JSON; each has a schema and an event.
    #[track_caller]
    pub fn events(&self) -> Vec<serde_json::Value> {
        let lines: Vec<serde_json::Value> =
            self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            assert!(line["schema"].as_str().unwrap().starts_with("chronolith."), "{line}");
            assert!(line["event"].is_string(), "{line}");
        }
        lines
    }
}

impl World {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A world with a repository in it.
    pub fn with_repository() -> Self {
        let world = Self::new();
        world.run(["init", "-q"]).exits(0);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("CHRONOLITH_REPO", self.path("repository"))
            .env("CHRONOLITH_PASSWORD", PASSWORD)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn finish(mut command: Command, input: &[u8]) -> Outcome {
        command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
        let mut child = command.spawn().unwrap();
        let pipe = child.stdin.take();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            if let Some(mut pipe) = pipe {
                // The program may have refused before it read.
                let _ = pipe.write_all(&input);
            }
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Outcome {
            code: output.status.code().unwrap_or(-1),
            out: output.stdout,
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        self.feed(arguments, b"")
    }

    pub fn feed<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>, input: &[u8]) -> Outcome {
        let mut command = self.command();
        command.args(arguments);
        Self::finish(command, input)
    }

    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }
}
