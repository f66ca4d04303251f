//! Deterministic CBOR (RFC 8949, section 4.2.1), the encoding of structured objects; see
//! `format-spec/conventions.md`, section "CBOR".
//!
//! An object is a map with numbered fields. One value has exactly one encoding, so what is accepted
//! encodes back to the same bytes. Only integers, byte strings, texts, booleans, arrays and maps exist:
//! no floats, tags, nulls or indefinite lengths. A field that is absent is left out.
//!
//! Objects grow by new field numbers. Unknown fields are kept as they are ([`Extra`]) and written again
//! when the object is copied; numbers from [`CRITICAL_FIELD`] on refuse the object where unknown.

mod decode;
mod encode;

pub use decode::{Field, Reader, decode_array, decode_map, required};
pub use encode::{MapWriter, Writer, encode_array, encode_map};

/// Fields from this number on refuse the object where they are not known.
pub const CRITICAL_FIELD: u64 = 1 << 16;
/// Deepest nesting inside an unknown field.
const DEPTH_MAX: u8 = 16;

/// Fields that this program does not know: number and encoded value, ascending, each encoding canonical.
pub type Extra = Vec<(u64, Vec<u8>)>;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const FALSE: u8 = 0xF4;
const TRUE: u8 = 0xF5;

#[cfg(test)]
mod tests;
