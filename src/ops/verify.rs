//! Verifying snapshots: everything in them is read back in full and compared with its ids and digests, and
//! who signed them is told. The result is noted in the repository, as an annotation.

use super::cat::{cat, check_digest};
use super::error::{OpsError, unless_unnoted};
use super::snapshots::SnapshotView;
use crate::base::{KeyId, SnapshotId, explain};
use crate::format::annotation::{Annotation, AnnotationKind, Outcome};
use crate::format::pack::BlobClass;
use crate::format::recipe::RecipeEntry;
use crate::format::tree::Content;
use crate::format::trust::{Act, Standing};
use crate::localfs::printable;
use crate::repo::{BlobReader, Pieces, RepoError, Repository};
use crate::view::{TreeWalk, WalkEvent};
use std::io;
use std::sync::Arc;

/// Files up to this length are read by one thread: to begin a stream would take longer.
const SMALL_BYTES: u64 = 4 << 20;
/// Problems that are told one by one for each snapshot.
const PROBLEMS_MAX: usize = 10_000;
/// What the annotation says of how it was done.
pub const METHOD_DIGESTS: &str = "digests";

/// What came of verifying one snapshot.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The snapshot.
    pub id: SnapshotId,
    /// Who signed it; the signature was checked when it was read.
    pub signer: KeyId,
    /// The name of that key.
    pub signer_name: String,
    /// How far that key is believed now.
    pub standing: Option<Standing>,
    /// Files and streams that were read back.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of those files, the ones without a digest of the whole: only their pieces were compared.
    pub without_digest: u64,
    /// Paths that are not what was backed up, and why.
    pub problems: Vec<(Vec<u8>, String)>,
    /// Problems beyond those.
    pub problems_more: u64,
}

impl Verified {
    /// Says whether everything is as it was backed up.
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, path: &[u8], error: &OpsError) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push((path.to_vec(), explain(error)));
        } else {
            self.problems_more += 1;
        }
    }
}

/// Reads a snapshot back in full, and notes the result in the repository if `note` is set.
///
/// # Errors
///
/// [`RepoError::Forbidden`] for a key that cannot read content; when the store fails, or the user stopped it. What
/// is not as it was backed up is in the result.
pub fn verify(
    repository: &Arc<Repository>,
    view: &SnapshotView,
    program: &str,
    note: bool,
) -> Result<Verified, OpsError> {
    if !repository.keyring().reads_content() {
        let role = repository.keyring().identity.role.name();
        return Err(RepoError::Forbidden { role, action: "read content".to_owned() }.into());
    }
    repository.load_index()?;
    let record = repository.registry().trust().key(&view.signer);
    let mut verified = Verified {
        id: view.id,
        signer: view.signer,
        signer_name: record.map(|record| record.name.clone()).unwrap_or_default(),
        standing: record.map(|record| record.standing()),
        files: 0,
        bytes: 0,
        without_digest: 0,
        problems: Vec::new(),
        problems_more: 0,
    };
    let mut reader = BlobReader::new(repository)?;
    let mut walk = TreeWalk::new(repository, view.snapshot.root)?;
    while let Some(event) = walk.next() {
        if repository.environment().observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        match event {
            WalkEvent::Leaf(entry) => {
                let Some(content) = &entry.content else { continue };
                verified.files += 1;
                verified.bytes += content.length;
                verified.without_digest += u64::from(content.digest.is_none());
                match read(repository, &mut reader, walk.path(), content) {
                    Ok(()) => {}
                    Err(error) if is_ours(&error) => return Err(error),
                    Err(error) => verified.problem(walk.path(), &error),
                }
            }
            WalkEvent::Problem(RepoError::Interrupted) => return Err(RepoError::Interrupted.into()),
            WalkEvent::Problem(error) => verified.problem(walk.path(), &error.into()),
            WalkEvent::Enter(_) | WalkEvent::Leave(_) => {}
        }
    }
    if note {
        let observer = &repository.environment().observer;
        let kept = keep(repository, &verified, program);
        unless_unnoted(kept, observer.as_ref(), "what was found could not be noted")?;
    }
    Ok(verified)
}

/// Says whether an error is about the reading itself, and says nothing of what is read.
fn is_ours(error: &OpsError) -> bool {
    use crate::base::{Classify, ErrorClass};
    matches!(error.class(), ErrorClass::Interrupted | ErrorClass::Transient | ErrorClass::Forbidden)
}

fn read(
    repository: &Arc<Repository>,
    reader: &mut BlobReader,
    path: &[u8],
    content: &Content,
) -> Result<(), OpsError> {
    let name = printable(path);
    if content.length > SMALL_BYTES {
        return cat(repository, &name, content, &mut io::sink()).map(drop);
    }
    let mut digest = blake3::Hasher::new();
    let mut pieces = Pieces::open(reader, content)?;
    while let Some(piece) = pieces.next(reader)? {
        match piece {
            RecipeEntry::Chunk { id, .. } => {
                digest.update(reader.read(BlobClass::Content, "chunk", &id)?.bytes());
            }
            RecipeEntry::Hole { length } => hash_zeros(&mut digest, length),
        }
    }
    check_digest(&name, content, &digest)
}

fn hash_zeros(digest: &mut blake3::Hasher, mut length: u64) {
    let zeros = [0; 64 << 10];
    while length > 0 {
        let part = usize::try_from(length).unwrap_or(usize::MAX).min(zeros.len());
        digest.update(zeros.get(..part).unwrap_or_default());
        length -= part as u64;
    }
}

fn keep(repository: &Repository, verified: &Verified, program: &str) -> Result<(), OpsError> {
    let now = repository.environment().clock.now();
    let mut annotation = Annotation::new(AnnotationKind::Verified, now);
    annotation.subjects = [verified.id].into_iter().collect();
    annotation.method = Some(METHOD_DIGESTS.to_owned());
    annotation.outcome = Some(if verified.passed() { Outcome::Passed } else { Outcome::Failed });
    if let Some((path, why)) = verified.problems.first() {
        let more = verified.problems.len() as u64 + verified.problems_more - 1;
        let mut text = format!("{}: {why}", printable(path));
        if more > 0 {
            text.push_str(&format!("; and {more} more"));
        }
        // Names and reasons may be long; the note need not be.
        annotation.value = Some(text.chars().take(4000).collect());
    }
    annotation.facts = [
        ("program", program.to_owned()),
        ("files", verified.files.to_string()),
        ("bytes", verified.bytes.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    repository.annotate(&annotation, Act::Verified)?;
    Ok(())
}
