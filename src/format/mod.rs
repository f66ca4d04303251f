//! One file per on-disk object: encode, decode, validate; no I/O. The normative text is `format-spec/`.

pub mod cbor;
mod error;

pub use error::FormatError;
