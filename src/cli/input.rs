//! Standard input that a signal can interrupt while nothing comes.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How long a wait lasts before the flag is looked at.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Standard input.
pub struct Input {
    interrupted: Arc<AtomicBool>,
}

impl Input {
    /// Begins to read; `interrupted` ends a wait.
    pub fn new(interrupted: Arc<AtomicBool>) -> Self {
        // Fewer switches between the producer and this program. The kernel may refuse.
        let _ = rustix::pipe::fcntl_setpipe_size(io::stdin(), 1 << 20);
        Self { interrupted }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(io::Error::other("interrupted"));
            }
            let stdin = io::stdin();
            let mut watched = [PollFd::new(&stdin, PollFlags::IN)];
            match poll(&mut watched, Some(&WAIT)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // Files are always ready; what poll cannot watch is read.
                Ok(_) | Err(_) => match rustix::io::read(&stdin, &mut *buffer) {
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    result => return Ok(result?),
                },
            }
        }
    }
}
