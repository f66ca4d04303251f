//! An archive on its way into `pg_restore`: with another head, with the blocks that are wanted, and counted.

use crate::base::Observer;
use crate::postgres::dump::contents::Contents;
use crate::postgres::dump::scan::{BlockScanner, Held};
use crate::postgres::error::PostgresError;
use crate::repo::RepoError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::ChildStdin;

/// How long a program that takes nothing is waited for before the user is asked whether to go on.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Passes an archive on.
pub(super) struct Passing<'a> {
    out: &'a mut dyn Write,
    /// Bytes of the old head that are still to come.
    skip: usize,
    contents: &'a Contents,
    head: Option<Vec<u8>>,
    scanner: BlockScanner,
    /// The type and number of a block that has not come wholly.
    block_head: Vec<u8>,
    wanted: bool,
    written: u64,
    places: BTreeMap<i64, u64>,
}

impl<'a> Passing<'a> {
    /// Begins; `contents` takes the place of a head of `head_length` bytes. Blocks of entries that it does not
    /// have are left out.
    pub fn new(out: &'a mut dyn Write, contents: &'a Contents, head_length: usize) -> Self {
        Self {
            out,
            skip: head_length,
            contents,
            head: Some(contents.write()),
            scanner: BlockScanner::new(contents.layout),
            block_head: Vec::new(),
            wanted: false,
            written: 0,
            places: BTreeMap::new(),
        }
    }

    /// Ends: says what there was, and where the blocks that were passed on stand.
    pub fn finish(self) -> Result<(Held, BTreeMap<i64, u64>), PostgresError> {
        let held = self.scanner.finish(self.contents).map_err(|why| PostgresError::Damaged {
            what: "the dump".to_owned(),
            why: format!("is no whole archive: {why}"),
        })?;
        Ok((held, self.places))
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

impl Write for Passing<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if let Some(head) = self.head.take() {
            self.put(&head)?;
        }
        let skipped = self.skip.min(buffer.len());
        self.skip -= skipped;
        let mut rest = buffer.get(skipped..).unwrap_or_default();
        // Runs of bytes that are passed on go together.
        let mut run = Vec::with_capacity(rest.len());
        let begin = self.written;
        while !rest.is_empty() {
            let inside = self.scanner.is_inside();
            let step = self.scanner.step(rest).map_err(|why| io::Error::other(why.0))?;
            let (bytes, after) = rest.split_at(step.min(rest.len()));
            rest = after;
            if inside {
                if self.wanted {
                    run.extend_from_slice(bytes);
                }
                continue;
            }
            self.block_head.extend_from_slice(bytes);
            if self.scanner.is_inside() {
                let entry = self.scanner.entry();
                self.wanted = self.contents.entries.iter().any(|e| e.id == entry && e.has_data);
                if self.wanted {
                    self.places.insert(entry, begin + run.len() as u64);
                    run.append(&mut self.block_head);
                }
                self.block_head.clear();
            }
        }
        self.put(&run)?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The standard input of a program, whose slowness does not keep the user from stopping.
pub(super) struct Inlet<'a> {
    pipe: ChildStdin,
    observer: &'a dyn Observer,
}

impl<'a> Inlet<'a> {
    pub fn new(pipe: ChildStdin, observer: &'a dyn Observer) -> Result<Self, PostgresError> {
        let failed = |errno: Errno| {
            PostgresError::failed(format!("a pipe cannot be used: {}", io::Error::from(errno)), "try again")
        };
        crate::ops::cat::widen_pipe(&pipe);
        let flags = rustix::fs::fcntl_getfl(&pipe).map_err(failed)?;
        rustix::fs::fcntl_setfl(&pipe, flags | OFlags::NONBLOCK).map_err(failed)?;
        Ok(Self { pipe, observer })
    }
}

impl Write for Inlet<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            if self.observer.interrupted() {
                return Err(io::Error::other(RepoError::Interrupted));
            }
            match self.pipe.write(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            match poll(&mut [PollFd::new(&self.pipe, PollFlags::OUT)], Some(&WAIT)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that nobody else can read, and that is gone with whoever holds it, however that ends: it has no
/// name any more.
pub(super) struct PrivateFile(pub File);

impl PrivateFile {
    /// Makes one in a folder; `name` is random.
    pub fn make(folder: &Path, name: &str) -> Result<Self, PostgresError> {
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(PostgresError::file("make the temporary file", &path))?;
        std::fs::remove_file(&path).map_err(PostgresError::file("take the name off", &path))?;
        Ok(Self(file))
    }

    /// Writes bytes at the start.
    pub fn write_head(&self, bytes: &[u8], folder: &Path) -> Result<(), PostgresError> {
        self.0.write_all_at(bytes, 0).map_err(PostgresError::file("write a temporary file in", folder))
    }
}
