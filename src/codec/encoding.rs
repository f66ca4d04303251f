use super::CodecError;

/// How the bytes of a frame were encoded; the number stands in frame headers, tables and the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// The plain bytes themselves.
    Stored = 0,
    /// One zstd frame.
    Zstd = 1,
    /// One zstd frame with the plain bytes of a base blob as prefix.
    Difference = 2,
    /// One zstd frame with a dictionary blob.
    Dictionary = 3,
}

impl Encoding {
    /// Says whether another blob is needed to decode.
    pub fn needs_base(self) -> bool {
        matches!(self, Self::Difference | Self::Dictionary)
    }
}

impl From<Encoding> for u8 {
    fn from(encoding: Encoding) -> Self {
        encoding as Self
    }
}

impl TryFrom<u8> for Encoding {
    type Error = CodecError;

    fn try_from(number: u8) -> Result<Self, CodecError> {
        match number {
            0 => Ok(Self::Stored),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Difference),
            3 => Ok(Self::Dictionary),
            number => Err(CodecError::UnknownEncoding { number }),
        }
    }
}
