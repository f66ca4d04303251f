//! One file per on-disk object: encode, decode, validate; no I/O. The normative text is `format-spec/`.

mod bytes;
pub mod cbor;
mod error;
pub mod index;
pub mod pack;
pub mod recipe;
pub mod snapshot;
pub mod tree;
mod words;

pub use error::FormatError;
