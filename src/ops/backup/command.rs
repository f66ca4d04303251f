//! A producer: a command whose output is a source and whose exit code decides.

use super::super::error::OpsError;
use crate::base::Observer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Lines of a failed command's standard error that are shown.
const LINES_SHOWN: usize = 10;
/// A longer line is cut.
const LINE_BYTES: u64 = 4096;
/// Size of the pipe from the command: fewer switches between it and us.
const PIPE_BYTES: usize = 1 << 20;

/// How long output is waited for before the user is asked whether to go on.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

type Lines = Arc<Mutex<VecDeque<String>>>;

/// A running command.
pub(super) struct Producer {
    command: String,
    child: Child,
    output: ChildStdout,
    lines: Lines,
    listener: Option<JoinHandle<()>>,
    ended: bool,
    observer: Arc<dyn Observer>,
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

impl Producer {
    /// Starts `sh -c COMMAND` in a process group of its own.
    pub fn start(command: &str, observer: Arc<dyn Observer>) -> Result<Self, OpsError> {
        let failed = |source| OpsError::Read { name: format!("the output of {command:?}"), source };
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(command)
            // The password of the repository is no business of a producer.
            .env_remove("CHRONOLITH_PASSWORD")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let missing = || failed(io::Error::other("its output cannot be read"));
        let output = child.stdout.take().ok_or_else(missing)?;
        // A larger pipe is a convenience; the kernel may refuse it.
        let _ = rustix::pipe::fcntl_setpipe_size(&output, PIPE_BYTES);
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let lines = Lines::default();
        let kept = lines.clone();
        let listener = std::thread::Builder::new()
            .name("chronolith-stderr".to_owned())
            .spawn(move || listen(stderr, &kept))
            .map_err(failed)?;
        Ok(Self {
            command: command.to_owned(),
            child,
            output,
            lines,
            listener: Some(listener),
            ended: false,
            observer,
        })
    }

    /// Waits for the end of the command, whose output has been read to its end.
    ///
    /// # Errors
    ///
    /// When it did not exit with 0; the message ends with its last lines of standard error.
    pub fn finish(mut self) -> Result<(), OpsError> {
        let status = self.child.wait();
        self.ended = true;
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(OpsError::Source {
                name: format!("the command {:?}", self.command),
                why: describe(status),
                lines: self.last_lines(),
            }),
            Err(source) => Err(OpsError::Read { name: format!("the output of {:?}", self.command), source }),
        }
    }

    fn last_lines(&self) -> Vec<String> {
        // The listener may be a moment behind the end of the command. A grandchild may hold the pipe
        // open; what it still says does not matter.
        for _ in 0..20 {
            if self.listener.as_ref().is_none_or(JoinHandle::is_finished) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
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

impl Read for Producer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.observer.interrupted() {
                return Err(io::Error::other("interrupted"));
            }
            let mut watched = [PollFd::new(&self.output, PollFlags::IN)];
            match poll(&mut watched, Some(&WAIT)) {
                // A command may think for hours before it says something.
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return self.output.read(buffer),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Drop for Producer {
    /// A backup that stops takes its producers with it.
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
