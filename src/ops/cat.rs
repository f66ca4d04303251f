//! One file or stream, read ahead by all cores and written out in order.
//!
//! Every piece is checked against its id before it is written, and the whole against the digest
//! that the backup took while it read the source.

use super::error::OpsError;
use crate::base::Phase;
use crate::format::recipe::RecipeEntry;
use crate::format::tree::{Content, ContentDigest};
use crate::repo::{BlobReader, Pieces, RepoError, Repository};
use crate::view::{StreamOptions, Wanted, stream};
use rustix::io::Errno;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

/// Room that is asked for in a pipe, so that the reader is woken seldom.
const PIPE_BYTES: usize = 1 << 20;
/// Holes are written in pieces of this length.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatReport {
    /// Bytes that the output took.
    pub bytes: u64,
    /// False when the reader at the other end of a pipe had enough before the end.
    pub complete: bool,
}

/// Makes room in a pipe; whatever else the output is stays as it is.
pub fn widen_pipe(output: impl AsFd) {
    // An unprivileged process may find its share of pipe memory used up: then it stays small.
    let _ = rustix::pipe::fcntl_setpipe_size(output, PIPE_BYTES);
}

/// Where a part of the output comes from.
enum Part {
    Piece,
    Hole(u64),
}

/// The digest of what was written so far, and where it goes.
struct Output<'a> {
    out: &'a mut dyn Write,
    digest: blake3::Hasher,
    bytes: u64,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn zeros(&mut self, mut length: u64) -> io::Result<()> {
        while length > 0 {
            let piece = length.min(ZEROS.len() as u64);
            self.write(ZEROS.get(..piece as usize).unwrap_or_default())?;
            length -= piece;
        }
        Ok(())
    }
}

/// Writes the content of one file or stream.
///
/// # Errors
///
/// When a piece cannot be read (what came before it has been written by then), the output fails,
/// or the digest of the whole is not the one that the backup took.
pub fn cat(
    repository: &Arc<Repository>,
    name: &str,
    content: &Content,
    out: &mut dyn Write,
) -> Result<CatReport, OpsError> {
    repository.load_index()?;
    let observer = repository.environment().observer.clone();
    observer.begin(Phase::Restore, Some(content.length));
    let mut reader = BlobReader::new(repository)?;
    let mut pieces = Pieces::open(&mut reader, content)?;
    let recipe_error = Arc::new(Mutex::new(None));
    let failed = recipe_error.clone();
    let wanted = std::iter::from_fn(move || match pieces.next(&mut reader) {
        Ok(Some(RecipeEntry::Chunk { id, length, .. })) => Some(Wanted::piece(Part::Piece, id, length)),
        Ok(Some(RecipeEntry::Hole { length })) => Some(Wanted::mark(Part::Hole(length))),
        Ok(None) => None,
        Err(error) => {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            None
        }
    });
    let mut output = Output { out, digest: blake3::Hasher::new(), bytes: 0 };
    let mut ended: Result<bool, OpsError> = Ok(true);
    stream(repository, StreamOptions::default(), wanted, |delivered| {
        let before = output.bytes;
        let written = match (delivered.piece, delivered.tag) {
            (Err(error), _) => {
                ended = Err(error.into());
                return ControlFlow::Break(());
            }
            (Ok(_), Part::Hole(length)) => output.zeros(length),
            (Ok(piece), Part::Piece) => output.write(piece.bytes()),
        };
        observer.advance(Phase::Restore, output.bytes - before, 0);
        if let Err(error) = written {
            ended = closed(name, error);
            return ControlFlow::Break(());
        }
        if observer.interrupted() {
            ended = Err(RepoError::Interrupted.into());
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    let mut complete = ended?;
    if complete {
        if let Some(error) = recipe_error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error.into());
        }
        if let Err(error) = output.out.flush() {
            complete = closed(name, error)?;
        }
    }
    if complete {
        check_digest(name, content, &output.digest)?;
    }
    observer.end(Phase::Restore);
    Ok(CatReport { bytes: output.bytes, complete })
}

/// A reader that had enough is no error.
fn closed(name: &str, error: io::Error) -> Result<bool, OpsError> {
    if error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(Errno::PIPE.raw_os_error()) {
        return Ok(false);
    }
    Err(OpsError::Write { name: format!("the output, while restoring {name}"), source: error })
}

/// Compares what was read with what the backup saw.
pub(super) fn check_digest(name: &str, content: &Content, digest: &blake3::Hasher) -> Result<(), OpsError> {
    let differs = |why: String| Err(OpsError::Differs { what: name.to_owned(), why });
    if digest.count() != content.length {
        return differs(format!("it has {} bytes instead of {}", digest.count(), content.length));
    }
    match &content.digest {
        Some(ContentDigest::Blake3(expected)) if digest.finalize() != *expected => {
            differs("its digest is another one".to_owned())
        }
        _ => Ok(()),
    }
}
