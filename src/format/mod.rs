//! One file per on-disk object: encode, decode, validate; no I/O. The normative text is `format-spec/`.

pub mod annotation;
mod bytes;
pub mod catalog;
pub mod cbor;
pub mod condemned;
pub mod config;
pub mod damaged;
pub mod envelope;
mod error;
pub mod grant;
pub mod index;
pub mod kind;
pub mod log;
pub mod pack;
pub mod parity;
pub mod place;
pub mod recipe;
pub mod session;
pub mod sets;
pub mod slot;
pub mod snapshot;
#[cfg(test)]
mod testing;
pub mod tree;
pub mod trust;
mod words;

pub use envelope::Envelope;
pub use error::FormatError;
pub use kind::ObjectKind;
pub use place::Place;
pub use sets::IdSet;
