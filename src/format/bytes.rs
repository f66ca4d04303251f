//! Reading fixed layouts from hostile bytes: every step is checked, none panics.

use super::error::FormatError;
use crate::base::KeyId;

/// Walks over bytes from front to back; asks for more than there is give [`FormatError::Truncated`].
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(FormatError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(FormatError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn key_id(&mut self) -> Result<KeyId, FormatError> {
        self.array().map(KeyId::new)
    }

    /// Passes over bytes that the layout reserves: they must be zero.
    pub(super) fn zeros(&mut self, length: usize, what: &'static str) -> Result<(), FormatError> {
        match self.take(length)?.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(invalid(what, "reserved bytes are not zero")),
        }
    }

    pub(super) fn magic(&mut self, magic: [u8; 4]) -> Result<(), FormatError> {
        match self.array::<4>()? == magic {
            true => Ok(()),
            false => Err(FormatError::BadMagic),
        }
    }

    /// Says that nothing may follow.
    pub(super) fn end(self, what: &'static str) -> Result<(), FormatError> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => Err(invalid(what, "bytes follow its end")),
        }
    }
}

/// Makes the error for a value that no valid object has.
pub(super) fn invalid(what: &'static str, why: &'static str) -> FormatError {
    FormatError::Invalid { what, why }
}

/// Refuses a value above its limit, before anything is allocated for it.
pub(super) fn at_most(what: &'static str, value: u64, limit: u64) -> Result<(), FormatError> {
    match value <= limit {
        true => Ok(()),
        false => Err(FormatError::TooLarge { what, value, limit }),
    }
}

/// Returns an error with the reason unless the condition holds.
pub(super) fn ensure(holds: bool, what: &'static str, why: &'static str) -> Result<(), FormatError> {
    match holds {
        true => Ok(()),
        false => Err(invalid(what, why)),
    }
}

/// Refuses every version but the one that is known.
pub(super) fn version_one(version: u8, what: &'static str) -> Result<(), FormatError> {
    match version {
        1 => Ok(()),
        _ => Err(FormatError::Unsupported { what }),
    }
}

/// Says whether the bytes are all zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
