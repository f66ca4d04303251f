//! Against real PostgreSQL servers.

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod base;
mod certificates;
mod created;
mod drill;
mod dumps;
mod elsewhere;
mod forget;
mod forks;
mod in_place;
mod load;
mod logical;
mod receive;
mod remote;
mod replication;
mod restore;
mod server;
mod setup;
mod ssh;
mod timeline;
mod tls;
mod tls_certificates;
mod versions;
mod wal;
mod whose;
