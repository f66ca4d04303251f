//! A connection to a server, found in the way that PostgreSQL's own programs find it.
//!
//! What is not said comes from a service file, then from the environment (which the caller reads), then
//! from what is usual. Passwords come from a password file or the caller; they are in no error.
//!
//! - `options`: what is known of the server before it is asked; `text`: the same in strings and service files
//! - `target`: what is usual, filled in
//! - `server`: an open session

mod options;
mod server;
mod target;
mod text;

pub use options::ConnectionOptions;
pub use server::{Login, Server};
pub(super) use target::Target;

/// The database that every cluster has.
const DATABASE: &str = "postgres";
