//! Where objects are kept: the [`Store`] trait, its stores and decorators.
//!
//! A store maps names to immutable bytes and knows nothing of what they mean. The verbs are few so
//! that every store can keep their promises: a `put` that has returned is durable, never replaces
//! and never leaves half an object; a `list` shows whole objects only.
//!
//! | room | holds |
//! |---|---|
//! | `names` | what a name may look like: nothing that could leave the repository |
//! | `error` | [`StorageError`], the only error of this layer |
//! | `lent` | what another host lends, to be read only, and the lender's side of that |
//! | `local` | a directory on this machine |
//! | `memory` | a map, for tests and for looking |
//! | `mirrored` | decorator: several stores that hold the same, as one |
//! | `retry` | decorator: tries whole requests again |

mod error;
mod lent;
mod local;
mod memory;
mod mirrored;
mod names;
mod retry;

pub use error::{Cause, Operation, StorageError};
pub use lent::{LentStore, Line, answer};
pub use local::{LocalStore, STALE_AFTER_SECONDS};
pub use memory::MemoryStore;
pub use mirrored::{AbsentStore, MirroredStore};
pub use names::{NAME_BYTES_MAX, SEGMENT_BYTES_MAX, TEMPORARY_FOLDER, check_name, check_prefix};
pub use retry::{RetryPolicy, RetryStore, Sleep};

use crate::base::Timestamp;
use std::sync::Arc;

/// What a `put` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PutOutcome {
    /// The object is new.
    Created,
    /// The same bytes stood there already; they are durable too.
    Existed,
}

/// What a store tells of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Name relative to the repository.
    pub name: String,
    /// Length in bytes.
    pub length: u64,
    /// When the object was stored, by the store's clock; `None` where the store does not say.
    pub modified: Option<Timestamp>,
}

/// What a store can promise beyond the trait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Of several writers that put one name at once, exactly one is told [`PutOutcome::Created`].
    pub exclusive_put: bool,
    /// A list that begins after a put has returned shows the object.
    pub consistent_list: bool,
    /// [`ObjectInfo::modified`] is always there.
    pub modified_times: bool,
    /// A request that failed may be sent again. False on local disks: a failed fsync loses data
    /// once and then reports success, so the first failure has to be the last word.
    pub retry: bool,
    /// Reading some bytes here and there costs more than it does on a disk of this machine.
    pub distant: bool,
}

/// A place that keeps objects. Every method may be called from any thread.
///
/// Names are checked by [`check_name`] before anything is done. All methods return errors that
/// name the operation and the object.
pub trait Store: Send + Sync {
    /// Stores an object under a name that nothing else uses; durable once this returns.
    ///
    /// Never replaces: if the same bytes stand there, that is [`PutOutcome::Existed`]; other bytes
    /// are a [`StorageError::Conflict`]. Empty objects are refused, because some stores drop them.
    /// After an error the object is there whole or not at all.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError>;

    /// Says that an object will be put into a folder soon: what a store makes ready for that, it may do now. Never fails:
    /// what could not be done is done, or told, by the put.
    fn expect_put(&self, _folder: &str) {}

    /// Stores an object in place of what stands there, in one step; durable once this returns.
    ///
    /// Only for the configuration, and for putting right what is damaged: everything else is immutable and named by
    /// its content.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError>;

    /// Reads a whole object; one longer than `limit_bytes` is refused before it is read.
    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError>;

    /// Appends exactly `length` bytes from `offset` to `out`, or leaves `out` as it was.
    ///
    /// An object that ends before that is a [`StorageError::Truncated`], found before memory is
    /// taken for it.
    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError>;

    /// Tells length and time of an object.
    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError>;

    /// Lists all objects whose names start with `prefix`, sorted by name; none is no error.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError>;

    /// Removes an object; one that is missing already is no error.
    fn delete(&self, name: &str) -> Result<(), StorageError>;

    /// Says that what was read of an object is not what it must be. A store that holds it more than once looks for a
    /// copy whose bytes are those of the name, and reads that one from then on; returns whether it found one.
    fn doubt(&self, _name: &str) -> bool {
        false
    }

    /// Names what writers have not finished: no objects, and removed in time. Stores that keep no
    /// such thing where it could be seen have none.
    fn unfinished(&self) -> Result<Vec<ObjectInfo>, StorageError> {
        Ok(Vec::new())
    }

    /// Removes what a dead writer has left unfinished long ago, and tells how much that was.
    fn clean(&self) -> Result<usize, StorageError> {
        Ok(0)
    }

    /// Keeps some room back for the day when there is none left, where the room is shared with other things. Never fails:
    /// where there is too little, nothing is kept back.
    fn keep_reserve(&self) {}

    /// Says whether this process may use the room that was kept back, where it finds no other: who writes in order to
    /// delete may.
    fn draw_on_reserve(&self, _may: bool) {}

    /// Tells what this store promises.
    fn capabilities(&self) -> Capabilities;

    /// Names the place for people.
    fn location(&self) -> String;
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<S: Store + ?Sized> Store for $pointer {
            fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
                (**self).put(name, bytes)
            }
            fn expect_put(&self, folder: &str) {
                (**self).expect_put(folder);
            }
            fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
                (**self).replace(name, bytes)
            }
            fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
                (**self).get(name, limit_bytes)
            }
            fn get_range(
                &self,
                name: &str,
                offset: u64,
                length: usize,
                out: &mut Vec<u8>,
            ) -> Result<(), StorageError> {
                (**self).get_range(name, offset, length, out)
            }
            fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
                (**self).head(name)
            }
            fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
                (**self).list(prefix)
            }
            fn delete(&self, name: &str) -> Result<(), StorageError> {
                (**self).delete(name)
            }
            fn doubt(&self, name: &str) -> bool {
                (**self).doubt(name)
            }
            fn unfinished(&self) -> Result<Vec<ObjectInfo>, StorageError> {
                (**self).unfinished()
            }
            fn clean(&self) -> Result<usize, StorageError> {
                (**self).clean()
            }
            fn keep_reserve(&self) {
                (**self).keep_reserve();
            }
            fn draw_on_reserve(&self, may: bool) {
                (**self).draw_on_reserve(may);
            }
            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }
            fn location(&self) -> String {
                (**self).location()
            }
        }
    )*};
}

forward! { Arc<S>, Box<S>, &S }
