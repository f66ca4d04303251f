//! Against real PostgreSQL servers.

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod base;
mod dumps;
mod restore;
mod server;
mod setup;
mod timeline;
mod wal;
