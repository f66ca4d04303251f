//! A program that runs beside us: its last words are kept, and it does not outlive us.

use super::error::OpsError;
use crate::base::Observer;
use crate::repo::RepoError;
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

type Lines = Arc<Mutex<VecDeque<String>>>;

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
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == LINES_SHOWN {
                    lines.pop_front();
                }
                lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
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
        // The password of the repository is no business of another program.
        command.env_remove("CHRONOLITH_PASSWORD").stderr(Stdio::piped()).process_group(0);
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

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it did not exit with 0, with its last lines of standard error; when the user has had enough, and
    /// then it is ended.
    pub fn finish(mut self, observer: &dyn Observer) -> Result<(), OpsError> {
        let status = loop {
            match self.child.try_wait() {
                Ok(None) if observer.interrupted() => return Err(RepoError::Interrupted.into()),
                Ok(None) => std::thread::sleep(LOOK_EVERY),
                Ok(Some(status)) => break Ok(status),
                Err(error) => break Err(error),
            }
        };
        self.ended = true;
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(OpsError::Source {
                name: self.name.clone(),
                why: describe(status),
                lines: self.last_lines(),
            }),
            Err(source) => Err(OpsError::Read { name: format!("the output of {}", self.name), source }),
        }
    }

    fn last_lines(&self) -> Vec<String> {
        // The listener may be a moment behind the end of the command. A grandchild may hold the pipe
        // open; what it still says does not matter.
        for _ in 0..20 {
            if self.listener.as_ref().is_none_or(JoinHandle::is_finished) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Drop for Program {
    /// Whoever stops takes his programs with him.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
