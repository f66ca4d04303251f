//! Codes of ciphers and encodings as stored objects write them.

use super::error::FormatError;
use super::kind::ObjectKind;
use crate::codec::Encoding;
use crate::crypto::Suite;

/// Reads a cipher's code; an unknown one is a newer program's.
pub(super) fn suite_from(code: u8) -> Result<Suite, FormatError> {
    Suite::try_from(code).map_err(|_| FormatError::Unsupported { what: "cipher suite" })
}

/// Reads an encoding's code; an unknown one is a newer program's.
pub(super) fn encoding_from(code: u8) -> Result<Encoding, FormatError> {
    Encoding::try_from(code).map_err(|_| FormatError::Unsupported { what: "frame encoding" })
}

/// Reads the number of an object's kind from a listing; an unknown one is a newer program's.
pub(super) fn kind_from(number: u64) -> Result<ObjectKind, FormatError> {
    let number = u8::try_from(number).map_err(|_| FormatError::Unsupported { what: "kind of object" })?;
    ObjectKind::try_from(number)
}
