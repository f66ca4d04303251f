//! A program that runs beside us: its last words are kept, and it does not outlive us.

use super::error::OpsError;
use crate::base::Observer;
use crate::repo::RepoError;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines of a failed program's standard error that are shown.
const LINES_SHOWN: usize = 10;
/// A longer line is cut.
const LINE_BYTES: u64 = 4096;
/// How often is looked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What of our environment is no business of another program: the passwords of repositories.
const SECRETS: [&str; 2] = ["CHRONOLITH_PASSWORD", "CHRONOLITH_TO_PASSWORD"];

/// What a program said on its standard error.
#[derive(Default)]
struct Said {
    last: VecDeque<String>,
    /// How many lines came before those.
    before: usize,
}

type Lines = Arc<Mutex<Said>>;

/// A running program, in a process group of its own; dropped before it has ended, the group is ended.
pub struct Program {
    name: String,
    child: Child,
    lines: Lines,
    listener: Option<JoinHandle<()>>,
    ended: bool,
}

fn listen(stderr: ChildStderr, lines: &Lines) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let mut said = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if said.last.len() == LINES_SHOWN {
                    said.last.pop_front();
                    said.before += 1;
                }
                said.last.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(127), _) => "was not found (exit code 127)".to_owned(),
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

impl Program {
    /// Starts a command, whose standard input and output the caller has set. `name` stands in errors.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(name: String, mut command: Command) -> Result<Self, OpsError> {
        let failed = |source| OpsError::Read { name: format!("the output of {name}"), source };
        for name in SECRETS {
            command.env_remove(name);
        }
        command.stderr(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(failed)?;
        let mut program =
            Self { name: name.clone(), child, lines: Lines::default(), listener: None, ended: false };
        let stderr = program.child.stderr.take();
        let stderr = stderr.ok_or_else(|| failed(io::Error::other("its messages cannot be read")))?;
        let kept = program.lines.clone();
        let listener = std::thread::Builder::new()
            .name("chronolith-stderr".to_owned())
            .spawn(move || listen(stderr, &kept));
        program.listener = Some(listener.map_err(failed)?);
        Ok(program)
    }

    /// Takes the end to which its standard input is written, where that is a pipe.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Takes its standard output, where that is a pipe.
    pub fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Refuses to wait for a program that the system has stopped because it asked for something at the terminal: in
    /// a process group of its own it will never get it, and would be waited for without end.
    ///
    /// # Errors
    ///
    /// That.
    pub fn refuse_if_it_asks(&self) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let look = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = pid.and_then(|pid| waitid(WaitId::Pid(pid), look).ok().flatten());
        let signal = status.and_then(|status| status.stopping_signal());
        if signal.is_some_and(|signal| [Signal::TTIN.as_raw(), Signal::TTOU.as_raw()].contains(&signal)) {
            return Err(io::Error::other(
                "it asks for something at the terminal, where it is not heard; give it by an option, a file \
                 or the environment (pg_dump: ~/.pgpass)",
            ));
        }
        Ok(())
    }

    /// Waits for its end, and passes on what it said on standard error.
    ///
    /// # Errors
    ///
    /// When it did not exit with 0, with its last lines of standard error; when the user has had enough or it asks
    /// for something at the terminal, and then it is ended.
    pub fn finish(mut self, observer: &dyn Observer) -> Result<(), OpsError> {
        let status = loop {
            match self.child.try_wait() {
                Ok(None) if observer.interrupted() => return Err(RepoError::Interrupted.into()),
                Ok(None) => {
                    let named =
                        |source| OpsError::Read { name: format!("the output of {}", self.name), source };
                    self.refuse_if_it_asks().map_err(named)?;
                    std::thread::sleep(LOOK_EVERY);
                }
                Ok(Some(status)) => break Ok(status),
                Err(error) => break Err(error),
            }
        };
        self.ended = true;
        match status {
            Ok(status) if status.success() => {
                let (lines, before) = self.last_lines();
                if before > 0 {
                    observer.note(&format!("{} said {before} lines more than these:", self.name));
                }
                lines.iter().for_each(|line| observer.note(&format!("{} said: {line}", self.name)));
                Ok(())
            }
            Ok(status) => Err(OpsError::Source {
                name: self.name.clone(),
                why: describe(status),
                lines: self.last_lines().0,
            }),
            Err(source) => Err(OpsError::Read { name: format!("the output of {}", self.name), source }),
        }
    }

    /// The last lines of standard error, and how many came before them.
    fn last_lines(&self) -> (Vec<String>, usize) {
        // The listener may be a moment behind the end of the command. A grandchild may hold the pipe
        // open; what it still says does not matter.
        for _ in 0..20 {
            if self.listener.as_ref().is_none_or(JoinHandle::is_finished) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let said = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        (said.last.iter().cloned().collect(), said.before)
    }
}

impl Drop for Program {
    /// Whoever stops takes his programs with him.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself, or have been stopped: then it hears of its end only once it goes on.
            let _ = rustix::process::kill_process_group(group, Signal::TERM);
            let _ = rustix::process::kill_process_group(group, Signal::CONT);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
