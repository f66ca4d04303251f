//! Against real PostgreSQL servers.

#[path = "../support/mod.rs"]
mod support;

mod dumps;
mod server;
