//! Chronolith: one content-addressed, deduplicating, encrypted repository for database dumps,
//! data directories and write-ahead logs.
//!
//! The modules below are the architecture: groups are layers, lowest first, and a module names
//! only modules of earlier groups. `tests/architecture.rs` refuses anything else.
#![deny(unsafe_code)]
#![warn(missing_docs)]

// 0  words: no I/O, no clock, no randomness
#[forbid(unsafe_code)]
pub mod base;

// 1  pure transforms: bytes in, bytes out
#[forbid(unsafe_code)]
pub mod chunker;
#[forbid(unsafe_code)]
pub mod codec;
#[forbid(unsafe_code)]
pub mod crypto;

// 2  edges that do not know each other
#[forbid(unsafe_code)]
pub mod format;
#[forbid(unsafe_code)]
pub mod localfs;
#[allow(unsafe_code)]
pub mod mapping;
#[forbid(unsafe_code)]
pub mod storage;

// 3  the repository
#[forbid(unsafe_code)]
pub mod repo;

// 4  the two directions
#[forbid(unsafe_code)]
pub mod ingest;
#[forbid(unsafe_code)]
pub mod view;

// 5  operations, each a plan that can be shown, then run
#[forbid(unsafe_code)]
pub mod ops;

// 7  databases
#[forbid(unsafe_code)]
pub mod sqlite;

// 9  the face that is typed
#[forbid(unsafe_code)]
pub mod cli;
