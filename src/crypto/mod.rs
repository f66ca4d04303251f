//! Secrets and what is done with them: derivation, keyed hashes, sealing, wrapping, signatures.
//!
//! Every function here is pure: bytes in, bytes out, randomness passed in. Which key is used for what
//! is written in `format-spec/keys.md`; this folder only knows how.
//!
//! - [`mod@derive`]: subkeys with commitments, ids of blobs and of signers
//! - [`seal`]: authenticated encryption under one of two suites
//! - [`hybrid`]: HPKE, by which content can be written without being readable
//! - [`sign`]: Ed25519 over objects
//! - [`password`]: from what a person or a file holds to a key

pub mod derive;
mod error;
pub mod hybrid;
pub mod password;
pub mod seal;
pub mod sign;

pub use derive::{IdKey, derive_committed, derive_pair, object_hash};
pub use error::CryptoError;
pub use hybrid::{ContentPublicKey, ContentSecretKey, decapsulate, encapsulate, unwrap, wrap};
pub use password::{PasswordParameters, key_from_file, key_from_password};
pub use seal::{Sealer, Suite, TAG_BYTES, open_in_place, seal_in_place};
pub use sign::{SIGNATURE_BYTES, SignedMessage, SigningKey, verify};

#[cfg(test)]
mod testing {
    /// Bytes from hexadecimal digits, for published vectors.
    pub fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// 32 bytes from hexadecimal digits.
    pub fn hex32(text: &str) -> [u8; 32] {
        hex(text).try_into().unwrap()
    }
}
