//! Against real PostgreSQL servers.

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod dumps;
mod server;
mod wal;
