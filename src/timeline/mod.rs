//! Log streams: what a write-ahead log and a binary log have in common.
//!
//! A log is a line of positions, cut into segments; timelines branch off it. Nothing here knows PostgreSQL:
//! positions are numbers, names are texts, and an engine's folder says what they mean.
//!
//! - `path`: the way that recovery takes over the timelines

mod path;

pub use path::{Branch, Detour, NoPath, TimelinePath};
