//! What a file holds: its length, its digest, its recipe.

use crate::base::BlobId;

/// What a file or stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Length in bytes, holes included.
    pub length: u64,
    /// Digest of the whole; absent where the whole never passed through one reader.
    pub digest: Option<ContentDigest>,
    /// The pieces.
    pub recipe: ContentRecipe,
    /// How the pieces were cut.
    pub cut: CutKind,
    /// Fields of newer programs, kept as they were found.
    pub extra: Vec<(u64, Vec<u8>)>,
}

/// Digest of a whole file or stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentDigest {
    /// BLAKE3 without a key.
    Blake3([u8; 32]),
    /// One that this program does not know.
    Other {
        /// Its number.
        algorithm: u64,
        /// The digest.
        digest: Vec<u8>,
    },
}

/// Where the pieces of a file are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentRecipe {
    /// Here: a recipe node of level 0.
    Inline(Vec<u8>),
    /// In blobs, of which this is the topmost.
    Node(BlobId),
}

/// How a file was cut into pieces. Readers need not know; the next backup cuts in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutKind {
    /// By content, as streams are.
    Stream,
    /// At multiples of the page of a database file.
    Pages {
        /// Length of a page.
        page_bytes: u32,
    },
    /// In a way that this program does not know.
    Other(u64),
}
