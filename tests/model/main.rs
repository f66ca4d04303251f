//! The engine against a naive model: a map of paths to bytes for each snapshot, whatever happens to
//! the client's own files in between.

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod scripts;
mod unchanged;
