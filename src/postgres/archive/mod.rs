//! The two commands that a server calls: one takes a file of its log away, one brings it back.
//!
//! - `push`: into the repository; success means durable
//! - `ahead`: into it before the server asks for that, with a receipt
//! - `get`: out of it; "absent" means that the repository says so
//! - `histories`: into it what the server does not hand over
//! - `spool`: segments that are fetched before they are asked for
//! - `data`: what the data directory around a file says

mod ahead;
mod data;
mod get;
mod histories;
mod push;
mod spool;

pub use ahead::{Receipts, is_waiting};
pub(super) use data::first_page_in;
pub use data::is_standby;
pub(super) use get::get_of;
pub use get::{Got, get};
pub use histories::push_histories;
pub use push::{Handed, Pushed, push, push_as, push_bytes, push_handed};
pub(super) use push::{INIT_FORKS, TOO_MANY, digest_of, note, note_ancestors, record_begun, whole_digest};
pub use spool::Spool;
