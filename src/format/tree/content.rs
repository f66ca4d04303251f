//! What a file holds: its length, its digest, its recipe.

use crate::base::{BlobId, Timestamp, limits};
use crate::format::FormatError;
use crate::format::bytes::{at_most, ensure, invalid};
use crate::format::cbor::{Extra, Field, Reader, Writer, required};
use crate::format::recipe::{RecipeNode, RecipeRoot};

/// Number of BLAKE3 among the digests.
const BLAKE3: u64 = 1;

/// What a file or stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Length in bytes, holes included.
    pub length: u64,
    /// Digest of the whole; absent where the whole never passed through one reader.
    pub digest: Option<ContentDigest>,
    /// The pieces.
    pub recipe: RecipeRoot,
    /// How the pieces were cut.
    pub cut: CutKind,
    /// When its reading began. The next backup believes that the file is unchanged only if its times
    /// are well before this.
    pub read: Option<Timestamp>,
    /// Fields of newer programs, kept as they were found.
    pub extra: Extra,
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
    Other {
        /// Its number.
        kind: u64,
        /// The page length noted with it.
        page_bytes: Option<u32>,
    },
}

impl CutKind {
    fn parts(self) -> (u64, Option<u32>) {
        match self {
            Self::Stream => (0, None),
            Self::Pages { page_bytes } => (1, Some(page_bytes)),
            Self::Other { kind, page_bytes } => (kind, page_bytes),
        }
    }

    fn from_parts(kind: u64, page_bytes: Option<u32>) -> Result<Self, FormatError> {
        match (kind, page_bytes) {
            (0, None) => Ok(Self::Stream),
            (1, Some(page_bytes)) if page_bytes > 0 => Ok(Self::Pages { page_bytes }),
            (0 | 1, _) => Err(invalid("content cut", "the page length does not fit the kind")),
            (kind, page_bytes) => Ok(Self::Other { kind, page_bytes }),
        }
    }
}

impl Content {
    /// Checks what can be said without the blobs.
    pub(super) fn check(&self) -> Result<(), FormatError> {
        at_most("content length", self.length, limits::FILE_BYTES_MAX)?;
        if let RecipeRoot::Inline(node) = &self.recipe {
            ensure(node.level() == 0, "content recipe", "is inline but not of level 0")?;
            at_most("inline recipe", node.entry_count() as u64, limits::RECIPE_INLINE_ENTRIES_MAX)?;
            ensure(node.plain_bytes() == self.length, "content length", "is not the sum of the pieces")?;
        }
        Ok(())
    }

    pub(super) fn encode(&self, out: Writer<'_>) -> Result<(), FormatError> {
        self.check()?;
        let mut inline = Vec::new();
        if let RecipeRoot::Inline(node) = &self.recipe {
            node.encode(&mut inline)?;
        }
        let (kind, page_bytes) = self.cut.parts();
        out.map(&self.extra, |map| {
            map.at(0).unsigned(self.length);
            if let Some(digest) = &self.digest {
                let (algorithm, digest) = match digest {
                    ContentDigest::Blake3(digest) => (BLAKE3, digest.as_slice()),
                    ContentDigest::Other { algorithm, digest } => (*algorithm, digest.as_slice()),
                };
                map.at(1).unsigned(algorithm);
                map.at(2).bytes(digest);
            }
            match &self.recipe {
                RecipeRoot::Inline(_) => map.at(3).bytes(&inline),
                RecipeRoot::Node(id) => map.at(4).bytes(id.as_bytes()),
            }
            map.at(5).unsigned(kind);
            map.optional(6, page_bytes, |out, bytes| out.unsigned(u64::from(bytes)));
            map.optional(7, self.read, |out, time| out.signed(time.nanoseconds()));
        });
        Ok(())
    }

    pub(super) fn decode(reader: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut length, mut algorithm, mut digest) = (None, None, None);
        let (mut inline, mut node, mut kind, mut page_bytes) = (None, None, None, None);
        let mut read = None;
        // A level-0 node with every entry at its longest.
        let inline_max = 16 + limits::RECIPE_INLINE_ENTRIES_MAX * 48;
        let extra = reader.map(|number, value| {
            match number {
                0 => length = Some(value.unsigned()?),
                1 => algorithm = Some(value.unsigned()?),
                2 => digest = Some(value.bytes(limits::DIGEST_BYTES_MAX)?),
                3 => inline = Some(value.bytes(inline_max)?),
                4 => node = Some(value.fixed()?),
                5 => kind = Some(value.unsigned()?),
                6 => page_bytes = Some(value.small()?),
                7 => read = Some(value.timestamp()?),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let recipe = match (inline, node) {
            (Some(inline), None) => RecipeRoot::Inline(RecipeNode::decode(inline)?),
            (None, Some(id)) => RecipeRoot::Node(BlobId::new(id)),
            _ => return Err(invalid("content recipe", "is not given exactly once")),
        };
        let content = Self {
            length: required(length, "content length")?,
            digest: decode_digest(algorithm, digest)?,
            recipe,
            cut: CutKind::from_parts(required(kind, "content cut")?, page_bytes)?,
            read,
            extra,
        };
        content.check()?;
        Ok(content)
    }
}

fn decode_digest(
    algorithm: Option<u64>,
    digest: Option<&[u8]>,
) -> Result<Option<ContentDigest>, FormatError> {
    match (algorithm, digest) {
        (None, None) => Ok(None),
        (Some(BLAKE3), Some(digest)) => {
            let digest = digest.try_into().map_err(|_| invalid("content digest", "has the wrong length"))?;
            Ok(Some(ContentDigest::Blake3(digest)))
        }
        (Some(algorithm), Some(digest)) => {
            Ok(Some(ContentDigest::Other { algorithm, digest: digest.to_vec() }))
        }
        _ => Err(invalid("content digest", "is given without its algorithm, or the other way round")),
    }
}
