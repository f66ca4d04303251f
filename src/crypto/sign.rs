//! Ed25519 signatures (RFC 8032) over objects.
//!
//! What is signed names the domain, the repository and the kind of object besides a hash of its bytes:
//! no signature means anything anywhere else.

use super::derive::key_id;
use super::error::CryptoError;
use crate::base::{KeyId, RepositoryId, Secret};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Bytes of a public signing key.
pub const PUBLIC_KEY_BYTES: usize = 32;
const DOMAIN: &[u8; 21] = b"chronolith v1 object\0";

/// The exact bytes a signature covers: domain, repository, kind, BLAKE3 of the object before its signature.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedMessage([u8; 86]);

impl SignedMessage {
    /// Builds the message for an object of a kind (`format-spec/envelope.md`; 0 is the configuration).
    ///
    /// `signed` is everything that stands before the signature.
    pub fn new(repository: &RepositoryId, kind: u8, signed: &[u8]) -> Self {
        Self::from_hash(repository, kind, blake3::hash(signed).as_bytes())
    }

    /// Builds the message from the hash of everything before the signature, for objects hashed while written.
    pub fn from_hash(repository: &RepositoryId, kind: u8, hash: &[u8; 32]) -> Self {
        let mut message = [0; 86];
        message[..21].copy_from_slice(DOMAIN);
        message[21..53].copy_from_slice(repository.as_bytes());
        message[53] = kind;
        message[54..].copy_from_slice(hash);
        Self(message)
    }

    /// Returns the bytes that are signed.
    pub const fn as_bytes(&self) -> &[u8; 86] {
        &self.0
    }
}

/// The secret half of a signing key. Whoever holds it speaks for its entry in the registry.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: [u8; PUBLIC_KEY_BYTES],
}

impl SigningKey {
    /// Expands the 32-byte seed, which is what a slot keeps.
    pub fn from_seed(seed: &Secret) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).expect("any 32 bytes are a seed");
        let mut public = [0; PUBLIC_KEY_BYTES];
        public.copy_from_slice(pair.public_key().as_ref());
        Self { pair, public }
    }

    /// Returns the public half.
    pub const fn public(&self) -> [u8; PUBLIC_KEY_BYTES] {
        self.public
    }

    /// Returns the id under which objects and the registry name this key.
    pub fn key_id(&self) -> KeyId {
        key_id(&self.public)
    }

    /// Signs an object's message. Deterministic.
    pub fn sign(&self, message: &SignedMessage) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(self.pair.sign(message.as_bytes()).as_ref());
        signature
    }
}

/// Verifies a signature over an object's message.
pub fn verify(
    public: &[u8; PUBLIC_KEY_BYTES],
    message: &SignedMessage,
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), CryptoError> {
    verify_bytes(public, message.as_bytes(), signature)
}

fn verify_bytes(
    public: &[u8; PUBLIC_KEY_BYTES],
    message: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), CryptoError> {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).map_err(|_| CryptoError::Signature)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{hex, hex32};
    use super::*;

    /// RFC 8032, section 7.1, tests 1 to 3.
    #[test]
    fn ed25519_of_rfc_8032() {
        let cases = [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "72",
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ];
        for (seed, public, message, signature) in cases {
            let key = SigningKey::from_seed(&Secret::new(hex32(seed)));
            assert_eq!(key.public(), hex32(public));
            assert_eq!(key.pair.sign(&hex(message)).as_ref(), hex(signature));
            verify_bytes(&key.public(), &hex(message), &hex(signature).try_into().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_signature_is_for_one_object_of_one_kind_in_one_repository() {
        let key = SigningKey::from_seed(&Secret::new([1; 32]));
        let repository = RepositoryId::new([2; 32]);
        let signature = key.sign(&SignedMessage::new(&repository, 6, b"object"));
        let holds = |repository: &RepositoryId, kind, bytes: &[u8], signature: &[u8; 64]| {
            verify(&key.public(), &SignedMessage::new(repository, kind, bytes), signature).is_ok()
        };
        assert!(holds(&repository, 6, b"object", &signature));
        assert!(!holds(&RepositoryId::new([3; 32]), 6, b"object", &signature));
        assert!(!holds(&repository, 7, b"object", &signature));
        assert!(!holds(&repository, 6, b"other", &signature));
        for at in 0..SIGNATURE_BYTES {
            let mut altered = signature;
            altered[at] ^= 0x10;
            assert!(!holds(&repository, 6, b"object", &altered));
        }
        let other = SigningKey::from_seed(&Secret::new([4; 32]));
        let message = SignedMessage::new(&repository, 6, b"object");
        assert_eq!(verify(&other.public(), &message, &signature), Err(CryptoError::Signature));
    }

    #[test]
    fn golden_message_and_signature() {
        let key = SigningKey::from_seed(&Secret::new(std::array::from_fn(|i| i as u8)));
        let message = SignedMessage::new(&RepositoryId::new([2; 32]), 6, b"object");
        assert_eq!(&message.as_bytes()[..21], b"chronolith v1 object\0");
        assert_eq!(key.sign(&message).to_vec(), hex(GOLDEN));
    }

    const GOLDEN: &str = "a6d5c961c743b787d1e576538ead0a8cbc4f8ff9d18b7bb4b1a0d5dab037caef55d6013bb058987b33bd7d5c0f5032c16851f32d628c9a6094044b693a2a7b0f";
}
