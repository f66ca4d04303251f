//! Subkeys and ids, all by BLAKE3 (`format-spec/keys.md`, "Derivations").
//!
//! A context string names the one use of a derived key; two uses never share one.

use super::error::CryptoError;
use crate::base::{BlobId, KeyId, ObjectId, RepositoryId, Secret};
use zeroize::Zeroizing;

/// Context strings of [`derive_pair`]: each names the one use of the keys derived under it.
pub mod context {
    /// Payload of a sealed structured object.
    pub const METADATA_OBJECT: &str = "chronolith v1 metadata object";
    /// Frames of a content pack.
    pub const CONTENT_FRAMES: &str = "chronolith v1 content frames";
    /// Frames of a metadata pack.
    pub const METADATA_FRAMES: &str = "chronolith v1 metadata frames";
    /// Table of contents of a pack.
    pub const PACK_CONTENTS: &str = "chronolith v1 pack contents";
    /// Blocks and directory of an index run.
    pub const INDEX_RUN: &str = "chronolith v1 index run";
    /// The identity inside a key slot.
    pub const SLOT: &str = "chronolith v1 slot";
    /// From the bytes of a key file to the key that opens its slot.
    pub const KEY_FILE: &str = "chronolith v1 key file";
    /// Frames that a client keeps in its base cache.
    pub const BASE_CACHE: &str = "chronolith v1 base cache";
    /// Small objects that a client keeps as it opened them.
    pub const KNOWN_OBJECTS: &str = "chronolith v1 known objects";
    /// From a public signing key to its id.
    pub const KEY_ID: &str = "chronolith v1 key id";
}

/// Bytes of a salt, of a key and of a commitment.
pub const SALT_BYTES: usize = 32;

/// Derives a key and the commitment to it from a secret and a salt that is used once.
///
/// The two are the first and second half of 64 bytes of BLAKE3's derive-key mode under `context`, over the
/// secret followed by the salt. The commitment is stored in the open: it says nothing about the key, yet no
/// second key has it, so sealed bytes open under one key only, which the ciphers alone do not promise.
pub fn derive_pair(context: &'static str, secret: &Secret, salt: &[u8; SALT_BYTES]) -> (Secret, [u8; 32]) {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(secret.expose()).update(salt);
    let mut output = Zeroizing::new([0; 64]);
    hasher.finalize_xof().fill(output.as_mut());
    let (mut key, mut commitment) = (Zeroizing::new([0; 32]), [0; 32]);
    key.copy_from_slice(&output[..32]);
    commitment.copy_from_slice(&output[32..]);
    (Secret::new(*key), commitment)
}

/// Derives the key as [`derive_pair`] does, and refuses it unless it is the one committed to.
pub fn derive_committed(
    context: &'static str,
    secret: &Secret,
    salt: &[u8; SALT_BYTES],
    commitment: &[u8; 32],
) -> Result<Secret, CryptoError> {
    let (key, expected) = derive_pair(context, secret, salt);
    if &expected == commitment { Ok(key) } else { Err(CryptoError::Commitment) }
}

/// Names stored bytes: plain BLAKE3, so that whoever holds no key can audit and copy a store.
pub fn object_hash(stored: &[u8]) -> ObjectId {
    ObjectId::new(*blake3::hash(stored).as_bytes())
}

/// Names a signer by a hash of its public signing key.
pub fn key_id(public: &[u8; 32]) -> KeyId {
    KeyId::new(blake3::derive_key(context::KEY_ID, public))
}

/// The key under which blobs are named.
///
/// A repository has two, one for content and one for metadata, independent of each other: whoever holds
/// the one for metadata alone can't test guesses of content.
pub struct IdKey(Secret);

impl IdKey {
    /// Takes the id key; the same for the life of a repository.
    pub fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// Names a blob by its plain bytes.
    pub fn blob_id(&self, plain: &[u8]) -> BlobId {
        BlobId::new(*blake3::keyed_hash(self.0.expose(), plain).as_bytes())
    }

    /// Begins to name a blob whose plain bytes come piece by piece; what it comes to in the end is the blob's id.
    pub fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(self.0.expose())
    }

    /// Lends the secret, to be put into a grant.
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

/// HPKE info of a content pack's encapsulation: binds it to the repository and the epoch.
pub fn content_info(repository: &RepositoryId, epoch: u32) -> Vec<u8> {
    [b"chronolith v1 content".as_slice(), repository.as_bytes(), &epoch.to_le_bytes()].concat()
}

/// HPKE info of a grant: binds it to the repository, the epoch and the key it is made for.
pub fn grant_info(repository: &RepositoryId, epoch: u32, key: &KeyId) -> Vec<u8> {
    [b"chronolith v1 grant".as_slice(), repository.as_bytes(), &epoch.to_le_bytes(), key.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::testing::hex32;
    use super::*;

    fn counting() -> [u8; 32] {
        std::array::from_fn(|i| i as u8)
    }

    #[test]
    fn pairs_differ_by_context_secret_and_salt() {
        let secret = Secret::new(counting());
        let (key, commitment) = derive_pair(context::SLOT, &secret, &[7; 32]);
        assert_ne!(key.expose(), &commitment);
        for (other, salt) in [(context::INDEX_RUN, [7; 32]), (context::SLOT, [8; 32])] {
            let (another, its) = derive_pair(other, &secret, &salt);
            assert_ne!((another.expose(), its), (key.expose(), commitment));
        }
        let again = derive_committed(context::SLOT, &secret, &[7; 32], &commitment).unwrap();
        assert_eq!(again.expose(), key.expose());
        let wrong = derive_committed(context::SLOT, &Secret::new([1; 32]), &[7; 32], &commitment);
        assert_eq!(wrong.unwrap_err(), CryptoError::Commitment);
    }

    /// These bytes are the format: if one changes, no repository opens any more.
    #[test]
    fn golden_derivations() {
        let secret = Secret::new(counting());
        let (key, commitment) = derive_pair(context::METADATA_OBJECT, &secret, &[0xA5; 32]);
        assert_eq!(key.expose(), &hex32(GOLDEN[0]));
        assert_eq!(commitment, hex32(GOLDEN[1]));
        assert_eq!(key_id(&counting()).as_bytes(), &hex32(GOLDEN[2]));
        let ids = IdKey::new(Secret::new(counting()));
        assert_eq!(ids.blob_id(b"chronolith").as_bytes(), &hex32(GOLDEN[3]));
        assert_eq!(object_hash(b"").as_bytes(), &hex32(GOLDEN[4]));
    }

    const GOLDEN: [&str; 5] = [
        "1b0b4ebf94ad1af5200f55c95a8ede79bd05c19de37f7f21fe8b7a710dac8963",
        "55b9079f985358cb18cdd8b618f2c44645a2977443f0db383d66388d4afcda7b",
        "6bec8bdc7888203df5825b059b31e214cad8d1d461f560c390bbd29b2a48f6b8",
        "572bbeee6cf3ebd671d9bca7ea227f23a6980ee1ee0d3e87772965afe759098a",
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    ];
}
