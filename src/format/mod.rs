//! One file per on-disk object: encode, decode, validate; no I/O. The normative text is `format-spec/`.

mod bytes;
pub mod cbor;
pub mod envelope;
mod error;
pub mod index;
pub mod kind;
pub mod pack;
pub mod recipe;
pub mod snapshot;
#[cfg(test)]
mod testing;
pub mod tree;
mod words;

pub use envelope::Envelope;
pub use error::FormatError;
pub use kind::ObjectKind;
