//! Against real PostgreSQL servers.

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod base;
mod dumps;
mod server;
mod timeline;
mod wal;
