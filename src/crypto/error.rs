//! Why a cryptographic operation refused.

use crate::base::{Classify, ErrorClass};

/// Why something could not be opened, verified, derived or sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// The authentication tag does not hold: other key, other associated data, or altered bytes.
    #[error("the sealed bytes do not open under this key: they were altered or belong elsewhere")]
    Sealed,
    /// The commitment stored beside the sealed bytes is that of another key.
    #[error("the key is not the one these bytes were sealed with")]
    Commitment,
    /// The signature is not the signer's over these bytes.
    #[error("the signature does not hold")]
    Signature,
    /// A public key or an encapsulation is no usable point.
    #[error("the public key or encapsulation is not usable")]
    PublicKey,
    /// A suite number or name that this program does not know.
    #[error("the cipher suite is not known to this program")]
    UnknownSuite,
    /// A key file holds too little to be a key.
    #[error("a key file holds 32 to 4096 bytes, this one {length_bytes}")]
    KeyFileLength {
        /// Length of the file's content.
        length_bytes: usize,
    },
    /// Parameters of the password function that are out of bounds.
    #[error("the parameters of the password function are out of bounds: {what}")]
    PasswordParameters {
        /// Which of them.
        what: &'static str,
    },
    /// Something longer than a cipher takes.
    #[error("the bytes to seal are longer than the cipher takes")]
    TooLong,
}

impl Classify for CryptoError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Commitment => ErrorClass::WrongKey,
            Self::Sealed | Self::Signature | Self::PublicKey | Self::PasswordParameters { .. } => {
                ErrorClass::Corrupt
            }
            Self::UnknownSuite => ErrorClass::TooNew,
            Self::KeyFileLength { .. } => ErrorClass::Usage,
            Self::TooLong => ErrorClass::Fatal,
        }
    }
}
