//! A producer: a command whose output is a source and whose exit code decides.

use super::super::error::OpsError;
use super::super::program::Program;
use crate::base::Observer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::{self, Read};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::Arc;

/// Size of the pipe from the command: fewer switches between it and us.
const PIPE_BYTES: usize = 1 << 20;

/// How long output is waited for before the user is asked whether to go on.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// A running command.
pub struct Producer {
    program: Program,
    output: ChildStdout,
    observer: Arc<dyn Observer>,
}

impl Producer {
    /// Starts `sh -c COMMAND` in a process group of its own.
    pub(super) fn shell(command: &str, observer: Arc<dyn Observer>) -> Result<Self, OpsError> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command);
        Self::start(format!("the command {command:?}"), shell, observer)
    }

    /// Starts a command in a process group of its own; `name` stands in errors.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(name: String, mut command: Command, observer: Arc<dyn Observer>) -> Result<Self, OpsError> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut program = Program::start(name.clone(), command)?;
        let output = program.take_output().ok_or_else(|| OpsError::Read {
            name: format!("the output of {name}"),
            source: io::Error::other("its output cannot be read"),
        })?;
        // A larger pipe is a convenience; the kernel may refuse it.
        let _ = rustix::pipe::fcntl_setpipe_size(&output, PIPE_BYTES);
        Ok(Self { program, output, observer })
    }

    /// Waits for the end of the command, whose output has been read to its end.
    ///
    /// # Errors
    ///
    /// When it did not exit with 0; the message ends with its last lines of standard error.
    pub fn finish(self) -> Result<(), OpsError> {
        let Self { program, output, observer } = self;
        // One that still writes would wait for a reader for ever.
        drop(output);
        program.finish(observer.as_ref())
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
                Ok(0) => self.program.refuse_if_it_asks()?,
                Err(Errno::INTR) => {}
                Ok(_) => return self.output.read(buffer),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
