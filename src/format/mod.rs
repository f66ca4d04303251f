//! One file per on-disk object: encode, decode, validate; no I/O. The normative text is `format-spec/`.

mod error;

pub use error::FormatError;
