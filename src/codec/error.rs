use crate::base::{Classify, ErrorClass};
use std::io;

/// What can go wrong when content is encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// An encoding that this version does not know.
    #[error("encoding {number} is unknown")]
    UnknownEncoding {
        /// The number found.
        number: u8,
    },
    /// More plain bytes than a frame may hold.
    #[error("{length} plain bytes exceed the {limit} that a frame may hold")]
    TooLong {
        /// Plain bytes announced or given.
        length: usize,
        /// The bound of the format.
        limit: u64,
    },
    /// A difference or dictionary frame without its base, or a base where none belongs.
    #[error("encoding {encoding:?} {}", if *.given { "takes no base" } else { "needs a base" })]
    Base {
        /// The encoding asked for.
        encoding: super::Encoding,
        /// Whether a base was given.
        given: bool,
    },
    /// The decoded bytes are not as many as announced.
    #[error("decoded to {found} bytes where {announced} were announced")]
    Length {
        /// Bytes that came out.
        found: usize,
        /// Bytes that had to come out.
        announced: usize,
    },
    /// The bytes are no single zstd frame.
    #[error("not one whole zstd frame")]
    NotAFrame,
    /// zstd refused to decode.
    #[error("zstd could not decode")]
    Decode(#[source] io::Error),
    /// A library refused what it was given.
    #[error("{doing}: {why}")]
    Library {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        why: String,
    },
    /// zstd refused to encode; only lack of memory is expected here.
    #[error("zstd could not encode")]
    Encode(#[source] io::Error),
}

impl Classify for CodecError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::UnknownEncoding { .. } => ErrorClass::TooNew,
            Self::TooLong { .. } | Self::Length { .. } | Self::NotAFrame | Self::Decode(_) => {
                ErrorClass::Corrupt
            }
            Self::Base { .. } | Self::Library { .. } | Self::Encode(_) => ErrorClass::Fatal,
        }
    }
}
