//! How content is packed small: zstd frames and differences, always with a bound on the output.
//!
//! - `encoding`: the numbers by which the format names an encoding
//! - `compress`: plain bytes in, the smaller of stored and zstd out; differences against a base
//! - `matches`: what a chunk has in common with a base that is nearly the same
//! - `parity`: Reed-Solomon shards, and what they bring back
//! - `decompress`: the inverse, total on hostile bytes and bounded by the length that was announced

mod compress;
mod decompress;
mod encoding;
mod error;
mod matches;
mod parity;

pub use compress::{Compressor, DEFAULT_LEVEL};
pub use decompress::Decompressor;
pub use encoding::Encoding;
pub use error::CodecError;
pub use parity::{from_parity, parity_of};

/// Plain bytes of neighbouring new chunks that share a frame; `docs/chunk-sizes.md` says why.
///
/// A frame is closed as soon as it holds this much, or where the neighbourhood ends.
pub const FRAME_BYTES: usize = 2 << 20;
