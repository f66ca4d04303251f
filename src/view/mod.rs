//! The read path: pieces are looked up, their frames fetched and decoded by all cores, and handed
//! out in order, each verified against its id.

mod stream;

pub use stream::{Delivered, Piece, StreamOptions, Wanted, stream};
