//! The numbers of the kinds of stored objects, and how long each may be.

use super::FormatError;
use crate::base::limits::{LISTING_BYTES_MAX, LOG_RECORD_BYTES_MAX, SLOT_BYTES_MAX, STRUCTURED_BYTES_MAX};
use std::fmt;

/// The first four bytes of every stored object but the configuration.
pub const MAGIC: [u8; 4] = *b"CHRN";

/// The kind of a stored object: its fifth byte, and part of what its signature covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// The plain-text configuration; a number for its signature only.
    Configuration = 0,
    /// A version of the registry of trust.
    Trust = 1,
    /// A key slot.
    Slot = 2,
    /// A pack of chunks.
    ContentPack = 3,
    /// A pack of trees and recipes.
    MetadataPack = 4,
    /// A sorted run of the index.
    IndexRun = 5,
    /// The commit object of a backup.
    Snapshot = 6,
    /// An archived log segment, or several.
    LogPack = 7,
    /// Something said about a snapshot or pack later.
    Annotation = 8,
    /// A live client.
    Session = 9,
    /// Packs waiting to be swept.
    Condemned = 10,
    /// Packs found bad.
    Damaged = 11,
    /// A listing of closed generations.
    Catalog = 12,
    /// Parity of one object.
    Parity = 13,
    /// What is known of a log segment, or of a hole: inside a log pack, or by itself.
    LogRecord = 14,
}

impl ObjectKind {
    /// All kinds, in order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Configuration,
        Self::Trust,
        Self::Slot,
        Self::ContentPack,
        Self::MetadataPack,
        Self::IndexRun,
        Self::Snapshot,
        Self::LogPack,
        Self::Annotation,
        Self::Session,
        Self::Condemned,
        Self::Damaged,
        Self::Catalog,
        Self::Parity,
        Self::LogRecord,
    ];

    /// Returns the number that stands for the kind in stored objects and signatures.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the name that people read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Trust => "trust",
            Self::Slot => "slot",
            Self::ContentPack => "content pack",
            Self::MetadataPack => "metadata pack",
            Self::IndexRun => "index run",
            Self::Snapshot => "snapshot",
            Self::LogPack => "log pack",
            Self::Annotation => "annotation",
            Self::Session => "session",
            Self::Condemned => "condemnation",
            Self::Damaged => "damage report",
            Self::Catalog => "catalogue",
            Self::Parity => "parity",
            Self::LogRecord => "log record",
        }
    }

    /// Reads the kind of a stored object from its first bytes, without looking further.
    pub fn of(stored: &[u8]) -> Result<Self, FormatError> {
        let (head, _) = stored.split_first_chunk::<5>().ok_or(FormatError::Truncated)?;
        let [magic @ .., kind] = *head;
        if magic != MAGIC {
            return Err(FormatError::BadMagic);
        }
        Self::try_from(kind)
    }

    /// Says whether objects of this kind are stored in an envelope (`format-spec/envelope.md`).
    pub const fn in_envelope(self) -> bool {
        self.payload_bytes_max().is_some()
    }

    /// Says whether an envelope of this kind has a sealed payload; the others are read without a key.
    pub const fn sealed_in_envelope(self) -> bool {
        self.in_envelope() && !matches!(self, Self::Trust | Self::Slot)
    }

    /// Returns the most plain bytes of a payload in an envelope; `None` for kinds with layouts of their own.
    pub const fn payload_bytes_max(self) -> Option<u64> {
        match self {
            Self::Trust | Self::Snapshot | Self::Annotation | Self::Session | Self::Damaged => {
                Some(STRUCTURED_BYTES_MAX)
            }
            Self::LogRecord => Some(LOG_RECORD_BYTES_MAX),
            Self::Slot => Some(SLOT_BYTES_MAX),
            Self::Condemned | Self::Catalog => Some(LISTING_BYTES_MAX),
            Self::Configuration
            | Self::ContentPack
            | Self::MetadataPack
            | Self::IndexRun
            | Self::LogPack
            | Self::Parity => None,
        }
    }
}

impl TryFrom<u8> for ObjectKind {
    type Error = FormatError;

    /// Reads the number of a stored kind; 0 is none, since the configuration is no binary object.
    fn try_from(number: u8) -> Result<Self, FormatError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.number() == number && *kind != Self::Configuration)
            .ok_or(FormatError::Unsupported { what: "kind of object" })
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_kinds() {
        for (number, kind) in ObjectKind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.number()), number);
            assert_eq!(ObjectKind::of(&[b"CHRN", &[kind.number()][..]].concat()).is_ok(), number != 0);
        }
        assert!(ObjectKind::try_from(15).is_err());
        assert_eq!(ObjectKind::of(b"CHRN"), Err(FormatError::Truncated));
        assert_eq!(ObjectKind::of(b"CHRM\x01"), Err(FormatError::BadMagic));
    }
}
