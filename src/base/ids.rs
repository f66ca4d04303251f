//! Identities: each kind of thing that has an id has a type of its own, all made by one macro.

use std::fmt;
use std::str::FromStr;

/// Says why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is 64 hexadecimal digits, this is {0:?}")]
pub struct IdError(String);

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// 32 bytes, written as 64 lower-case hexadecimal digits.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Length of the id in bytes.
            pub const LENGTH: usize = 32;

            /// Takes the id from its bytes.
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Returns the bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Returns the first eight hexadecimal digits, for people to read.
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text).map(Self).ok_or_else(|| IdError(text.to_owned()))
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
    )*};
}

ids! {
    /// Names a piece of content, a recipe or a tree node: the keyed BLAKE3 hash of its plain bytes.
    BlobId;
    /// Names any stored object whose kind does not matter: the BLAKE3 hash of its stored bytes.
    ObjectId;
    /// Names a pack by the hash of its stored bytes.
    PackId;
    /// Names an index run by the hash of its stored bytes.
    IndexId;
    /// Names a snapshot by the hash of its stored bytes.
    SnapshotId;
    /// Names a version of the registry of trust by the hash of its stored bytes.
    TrustId;
    /// Names a key slot by the hash of its stored bytes.
    SlotId;
    /// Names a log pack by the hash of its stored bytes.
    LogPackId;
    /// Names an annotation by the hash of its stored bytes.
    AnnotationId;
    /// Names a session object by the hash of its stored bytes.
    SessionId;
    /// Names a condemnation by the hash of its stored bytes.
    CondemnedId;
    /// Names a report of damage by the hash of its stored bytes.
    DamagedId;
    /// Names a catalogue by the hash of its stored bytes.
    CatalogId;
    /// Names a parity object by the hash of its stored bytes.
    ParityId;
    /// Names a repository: random, drawn at init.
    RepositoryId;
    /// Names a signer: a hash of its public signing key.
    KeyId;
}

macro_rules! objects {
    ($($name:ident)*) => {$(
        impl From<ObjectId> for $name {
            fn from(id: ObjectId) -> Self {
                Self(id.0)
            }
        }

        impl From<$name> for ObjectId {
            fn from(id: $name) -> Self {
                Self(id.0)
            }
        }
    )*};
}

objects! { PackId IndexId SnapshotId TrustId SlotId LogPackId AnnotationId SessionId CondemnedId DamagedId CatalogId ParityId }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let id = BlobId::new(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse::<BlobId>().unwrap(), id);
        assert_eq!(id.short().len(), 8);
    }

    #[test]
    fn refuses_what_is_no_id() {
        for text in ["", "12", &"g".repeat(64), &"A".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert!(text.parse::<BlobId>().is_err(), "{text}");
        }
    }
}
