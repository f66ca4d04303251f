//! The objects of the format as the tests see them: a decoder that encodes again, and cases.
//!
//! Shared by the tests of the format and by the example that writes the vectors, so each uses a part.
#![allow(dead_code, reason = "shared by two programs, each of which uses a part")]

use chronolith::base::Entropy;
use chronolith::format::FormatError;
use std::fmt::Write;

mod annotation;
mod catalog;
mod cbor;
mod condemned;
mod config;
mod damaged;
mod envelope;
mod frozen;
mod grant;
mod identity;
mod index;
mod log_pack;
mod log_record;
mod opening;
mod pack;
mod packing;
mod parity;
mod plain;
mod recipe;
mod session;
mod slot;
mod snapshot;
mod tree;
mod trust;

/// Every object that has vectors.
pub const ALL: &[Object] = &[
    annotation::OBJECT,
    catalog::OBJECT,
    cbor::OBJECT,
    condemned::OBJECT,
    config::OBJECT,
    damaged::OBJECT,
    envelope::OBJECT,
    grant::OBJECT,
    identity::OBJECT,
    index::OBJECT,
    plain::BLOCK,
    plain::DIRECTORY,
    log_pack::OBJECT,
    log_record::OBJECT,
    pack::OBJECT,
    plain::CONTENTS,
    parity::OBJECT,
    recipe::OBJECT,
    session::OBJECT,
    slot::OBJECT,
    snapshot::OBJECT,
    tree::OBJECT,
    trust::OBJECT,
];

/// What a reader must say to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expect {
    /// It is a good object; it encodes back to the same bytes.
    Accept,
    /// It is none.
    Corrupt,
    /// A newer program may know it.
    Unsupported,
    /// It ends too early.
    Truncated,
}

impl Expect {
    pub const ALL: [Self; 4] = [Self::Accept, Self::Corrupt, Self::Unsupported, Self::Truncated];

    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Truncated => "truncated",
        }
    }
}

/// One vector: bytes, and what a reader must say to them.
pub struct Case {
    pub name: String,
    pub expect: Expect,
    /// One line; for what is refused, the rule that is broken.
    pub comment: String,
    pub bytes: Vec<u8>,
}

impl Case {
    pub fn new(expect: Expect, name: &str, comment: &str, bytes: impl Into<Vec<u8>>) -> Self {
        let name = format!("{}-{name}", expect.name());
        Self { name, expect, comment: comment.to_owned(), bytes: bytes.into() }
    }

    pub fn accept(name: &str, comment: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Expect::Accept, name, comment, bytes)
    }

    pub fn corrupt(name: &str, comment: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Expect::Corrupt, name, comment, bytes)
    }

    pub fn unsupported(name: &str, comment: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Expect::Unsupported, name, comment, bytes)
    }

    pub fn truncated(name: &str, comment: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Expect::Truncated, name, comment, bytes)
    }

    /// Writes the file: header lines, an empty line, 32 bytes a line.
    pub fn file(&self, object: &str) -> String {
        let mut text =
            format!("object: {object}\nexpect: {}\ncomment: {}\n\n", self.expect.name(), self.comment);
        for row in self.bytes.chunks(32) {
            row.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
        text
    }
}

/// A kind of bytes with a decoder of its own.
pub struct Object {
    /// Name of the folder below `format-spec/vectors/`.
    pub name: &'static str,
    /// Decodes, then encodes what was understood.
    pub recode: fn(&[u8]) -> Result<Vec<u8>, FormatError>,
    /// Makes the vectors.
    pub cases: fn() -> Vec<Case>,
}

/// The bytes with some of them replaced.
pub fn patched(bytes: &[u8], at: usize, by: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + by.len()].copy_from_slice(by);
    bytes
}

/// The first `length` bytes.
pub fn cut(bytes: &[u8], length: usize) -> Vec<u8> {
    bytes[..length].to_vec()
}

/// The bytes, then more.
pub fn longer(bytes: &[u8], by: &[u8]) -> Vec<u8> {
    [bytes, by].concat()
}

/// Randomness that is always the same byte, so that vectors can be made again.
pub struct Steady(pub u8);

impl Entropy for Steady {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(self.0);
    }
}

/// The identities and secrets that all vectors use; `format-spec/vectors/README.md` lists them.
pub mod keys {
    use chronolith::base::{KeyId, RepositoryId, Secret, Timestamp, TrustId};
    use chronolith::crypto::{ContentSecretKey, SigningKey};

    /// The repository: 32 times 0x11.
    pub fn repository() -> RepositoryId {
        RepositoryId::new([0x11; 32])
    }

    /// The owner's signing key: seed 32 times 0x22.
    pub fn owner() -> SigningKey {
        SigningKey::from_seed(&Secret::new([0x22; 32]))
    }

    /// The owner's exchange key: 32 times 0x23.
    pub fn owner_exchange() -> ContentSecretKey {
        ContentSecretKey::new(Secret::new([0x23; 32]))
    }

    /// A writer's signing key: seed 32 times 0x24.
    pub fn writer() -> SigningKey {
        SigningKey::from_seed(&Secret::new([0x24; 32]))
    }

    /// The writer's exchange key: 32 times 0x25.
    pub fn writer_exchange() -> ContentSecretKey {
        ContentSecretKey::new(Secret::new([0x25; 32]))
    }

    /// The content key of epoch 1: 32 times 0x33.
    pub fn content() -> ContentSecretKey {
        ContentSecretKey::new(Secret::new([0x33; 32]))
    }

    /// The metadata key of epoch 1: 32 times 0x44.
    pub fn metadata() -> Secret {
        Secret::new([0x44; 32])
    }

    /// The id key of content: 32 times 0x55.
    pub fn content_ids() -> Secret {
        Secret::new([0x55; 32])
    }

    /// The id key of metadata: 32 times 0x66.
    pub fn metadata_ids() -> Secret {
        Secret::new([0x66; 32])
    }

    /// The seed of the chunker's table: 32 times 0x77.
    pub fn chunker_seed() -> Secret {
        Secret::new([0x77; 32])
    }

    /// The key that opens the slots, where no password is stretched: 32 times 0x88.
    pub fn opener() -> Secret {
        Secret::new([0x88; 32])
    }

    /// 2026-01-15T14:30:00Z.
    pub fn time() -> Timestamp {
        Timestamp::from_nanoseconds(1_768_487_400_000_000_000)
    }

    /// The id of an owner or writer.
    pub fn id(key: &SigningKey) -> KeyId {
        key.key_id()
    }

    /// The first version of the registry, where nothing depends on its content: 32 times 0x99.
    pub fn genesis() -> TrustId {
        TrustId::new([0x99; 32])
    }
}
