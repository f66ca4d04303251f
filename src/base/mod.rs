//! Words that every layer speaks: identities, units, limits, time, errors' classes, the observer.
//!
//! Nothing here does I/O, reads a clock or makes randomness; the traits through which the caller
//! passes those in ([`Clock`], [`Entropy`]) are declared here and implemented at the edges.

mod class;
mod ids;
pub mod limits;
mod observe;
mod secret;
mod time;
pub mod units;

pub use class::{Classify, ErrorClass, explain, system_words};
pub use ids::{
    AnnotationId, BlobId, CatalogId, CondemnedId, DamagedId, IdError, IndexId, KeyId, LogPackId, ObjectId,
    PackId, ParityId, RepositoryId, SessionId, SlotId, SnapshotId, TrustId,
};
pub use observe::{Observer, Phase, Quiet};
pub use secret::{Secret, SecretBytes};
pub use time::{Clock, Entropy, Timestamp};
