//! The read path: trees are walked; pieces are looked up, their frames fetched and decoded by all
//! cores, and handed out in order, each verified against its id.

mod stream;
mod walk;

pub use stream::{AtHand, Delivered, Piece, StreamOptions, Wanted, stream};
pub use walk::{TreeWalk, WalkEvent};
