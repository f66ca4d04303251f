//! A pack: a head, origins, sealed frames, a sealed table of contents, the origins again, a trailer.
//!
//! Rooms: [`PackHead`] and [`Origin`] open it, [`FrameAssociatedData`] binds each seal,
//! [`TableOfContents`] describes all frames and their blobs, [`PackTrailer`] ends it, and
//! [`PackView`] is a whole pack in memory with every part where it must be.
//! Normative: `format-spec/pack.md`.

mod contents;
mod frame;
mod head;
mod trailer;
mod view;

pub use crate::crypto::derive::context::PACK_CONTENTS as CONTENTS_CONTEXT;
pub use crate::crypto::seal::counter_nonce as frame_nonce;
pub use contents::{FrameRecord, TableOfContents};
pub use frame::FrameAssociatedData;
pub(super) use frame::{check_depth, check_lengths};
pub use head::{Origin, PackHead};
pub use trailer::{PackTrailer, contents_associated_data};
pub use view::{PackTail, PackView};

use super::bytes::invalid;
use super::error::FormatError;
use super::kind::ObjectKind;
use crate::crypto::derive::context;

/// Length of a pack's head.
pub const HEAD_BYTES: usize = 64;
/// Length of one origin.
pub const ORIGIN_BYTES: usize = 104;
/// Length of a pack's trailer, signature included.
pub const TRAILER_BYTES: usize = 192;
const KIND_CONTENT: u8 = ObjectKind::ContentPack as u8;
const KIND_METADATA: u8 = ObjectKind::MetadataPack as u8;

/// The two worlds that never share a pack or a key: content, and what describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobClass {
    /// Chunks of files and streams, readable with the content secret key.
    Content,
    /// Recipes and tree nodes, readable with the metadata key.
    Metadata,
}

impl BlobClass {
    /// Returns the object kind of packs that hold this class.
    pub const fn pack_kind(self) -> u8 {
        match self {
            Self::Content => KIND_CONTENT,
            Self::Metadata => KIND_METADATA,
        }
    }

    /// Takes the class from a pack's object kind.
    pub fn from_pack_kind(kind: u8) -> Result<Self, FormatError> {
        match kind {
            KIND_CONTENT => Ok(Self::Content),
            KIND_METADATA => Ok(Self::Metadata),
            _ => Err(invalid("pack kind", "this object is no pack")),
        }
    }

    /// Returns the context by which frame keys of this class are derived.
    pub const fn frame_context(self) -> &'static str {
        match self {
            Self::Content => context::CONTENT_FRAMES,
            Self::Metadata => context::METADATA_FRAMES,
        }
    }
}

#[cfg(test)]
mod tests;
