//! A terminal with nobody at it but the test: what the program shows on it, and what is typed.

use super::program::World;
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Far longer than anything takes, so that a test that hangs ends.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    ended: bool,
}

/// A terminal on which the program runs.
pub struct Terminal {
    keys: File,
    child: Child,
    reader: JoinHandle<()>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    /// Where what was not yet looked at begins.
    looked: usize,
}

/// Where standard input and standard output of the program are; standard error is the terminal.
pub enum Streams {
    /// All three are the terminal.
    Terminal,
    /// The others are pipes.
    Pipes,
}

impl Terminal {
    /// Runs a command of the program, without a password in its environment.
    pub fn run(world: &World, arguments: &[&str], streams: Streams) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).unwrap()
        };
        // A session of its own, whose first terminal to be opened is the one that it belongs to.
        let program = world.command();
        let mut command = Command::new("setsid");
        command.args(["/bin/sh", "-c", r#": <"$0"; exec "$@""#]).arg(name.to_str().unwrap());
        command.arg(program.get_program()).args(arguments);
        command.env_clear().env("TERM", "xterm");
        for (name, value) in program.get_envs() {
            if let Some(value) = value.filter(|_| name != "CHRONOLITH_PASSWORD") {
                command.env(name, value);
            }
        }
        command.current_dir(world.folder.path()).stderr(open());
        match streams {
            Streams::Terminal => command.stdin(open()).stdout(open()),
            Streams::Pipes => command.stdin(Stdio::piped()).stdout(Stdio::piped()),
        };
        let child = command.spawn().unwrap();
        drop(command);
        let mut screen = File::from(rustix::io::fcntl_dupfd_cloexec(&master, 0).unwrap());
        let seen: Arc<(Mutex<Seen>, Condvar)> = Arc::default();
        let told = seen.clone();
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            loop {
                // An error when the last process has left the terminal.
                let length = screen.read(&mut piece).unwrap_or(0);
                let mut seen = told.0.lock().unwrap();
                seen.bytes.extend_from_slice(&piece[..length]);
                seen.ended = length == 0;
                told.1.notify_all();
                if length == 0 {
                    return;
                }
            }
        });
        Self { keys: File::from(master), child, reader, seen, looked: 0 }
    }

    /// Waits until the text stands on the screen, behind what was waited for before.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.seen.0.lock().unwrap();
        loop {
            let rest = &seen.bytes[self.looked..];
            if let Some(at) = rest.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.looked += at + text.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!seen.ended && !left.is_zero(), "{text:?} is not shown: {}", printable(&seen.bytes));
            seen = self.seen.1.wait_timeout(seen, left).unwrap().0;
        }
    }

    /// Says whether the terminal shows what is typed, and makes signals of keys.
    pub fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.keys).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Types a password at a prompt: once the terminal no longer shows what is typed.
    #[track_caller]
    pub fn answers_hidden(&mut self, prompt: &str, password: &str) {
        self.waits_hidden(prompt);
        self.types(&format!("{password}\r"));
    }

    /// Waits for a prompt that hides what is typed.
    #[track_caller]
    pub fn waits_hidden(&mut self, prompt: &str) {
        self.shows(prompt);
        let deadline = Instant::now() + PATIENCE;
        while self.echoes() {
            assert!(Instant::now() < deadline, "the terminal shows what is typed");
            std::thread::yield_now();
        }
    }

    /// Types a line at a prompt.
    #[track_caller]
    pub fn answers(&mut self, prompt: &str, line: &str) {
        self.shows(prompt);
        self.types(&format!("{line}\r"));
    }

    pub fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The pipe to standard input.
    pub fn input(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// Waits for the end; returns the exit code, all that the screen showed, and what standard output
    /// got where it is a pipe.
    pub fn ends(mut self) -> (i32, String, Vec<u8>) {
        drop(self.child.stdin.take());
        let mut out = Vec::new();
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_end(&mut out).unwrap();
        }
        let status = self.child.wait().unwrap();
        assert!(self.echoes(), "the terminal is left as no shell wants it");
        self.reader.join().unwrap();
        let seen = self.seen.0.lock().unwrap();
        (status.code().unwrap_or(-1), printable(&seen.bytes), out)
    }
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}
