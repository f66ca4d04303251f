//! Chronolith: one content-addressed, deduplicating, encrypted repository for database dumps,
//! data directories and write-ahead logs.
//!
//! The modules below are the architecture: groups are layers, lowest first, and a module names
//! only modules of earlier groups. `tests/architecture.rs` refuses anything else.
//!
//! The whole story, in memory:
//!
//! ```
//! use chronolith::base::{Clock, Entropy, Quiet, SecretBytes, Timestamp};
//! use chronolith::crypto::Suite;
//! use chronolith::ops::{Snapshots, backup, cat};
//! use chronolith::repo::{Credential, Environment, InitOptions, NewSlot, NoKeyCache, find_path, init, open};
//! use chronolith::repo::BlobReader;
//! use chronolith::storage::MemoryStore;
//! use std::sync::Arc;
//!
//! // Clock and randomness are passed in; a program passes real ones.
//! struct Noon;
//! impl Clock for Noon {
//!     fn now(&self) -> Timestamp {
//!         Timestamp::from_nanoseconds(1_800_000_000_000_000_000)
//!     }
//! }
//! struct Draw(std::sync::atomic::AtomicU64);
//! impl Entropy for Draw {
//!     fn fill(&self, buffer: &mut [u8]) {
//!         let number = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
//!         blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(buffer);
//!     }
//! }
//! let environment = Environment {
//!     store: Arc::new(MemoryStore::new()),
//!     clock: Arc::new(Noon),
//!     entropy: Arc::new(Draw(0.into())),
//!     observer: Arc::new(Quiet),
//!     cache: None,
//!     key_cache: Arc::new(NoKeyCache),
//! };
//!
//! // A repository with one owner, opened by a key file of 32 random bytes.
//! let key_file = || SecretBytes::new(vec![7; 32]);
//! init(&environment, &InitOptions::recommended(Suite::default(), "me")?, &NewSlot::KeyFile(&key_file()))?;
//! let repository = open(environment, &Credential::KeyFile(key_file()))?;
//!
//! // A dump goes in: one atomic snapshot.
//! let dump = b"-- a dump\ninsert into t values (1);\n".repeat(1000);
//! let source = backup::Source::Stream { name: b"app.sql".to_vec(), reader: Box::new(std::io::Cursor::new(dump.clone())) };
//! let options = backup::BackupOptions::new("db1", "postgres", "an example");
//! backup::backup(&repository, vec![source], &options)?;
//!
//! // And comes out again, each chunk and the whole verified on the way.
//! let snapshots = Snapshots::load(&repository)?;
//! let root = snapshots.resolve("app.sql")?.snapshot.root;
//! let entry = find_path(&mut BlobReader::new(&repository)?, &root, &[b"app.sql"])?.expect("it is there");
//! let mut restored = Vec::new();
//! cat::cat(&repository, "app.sql", &entry.content.expect("a file has content"), &mut restored)?;
//! assert_eq!(restored, dump);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]
#![warn(missing_docs)]

// 0  words: no I/O, no clock, no randomness
#[forbid(unsafe_code)]
pub mod base;

// 0a what zstd and the processor do and has no safe form
#[allow(unsafe_code)]
pub mod sequences;
#[allow(unsafe_code)]
pub mod wide;

// 1  pure transforms: bytes in, bytes out
#[forbid(unsafe_code)]
pub mod chunker;
#[forbid(unsafe_code)]
pub mod codec;
#[forbid(unsafe_code)]
pub mod crypto;

// 1a what the system holds of files in memory
#[allow(unsafe_code)]
pub mod mapping;

// 1b how long files reach a disk and come from there, for the two edges that write some
#[forbid(unsafe_code)]
pub mod direct;

// 2  edges that do not know each other
#[forbid(unsafe_code)]
pub mod format;
#[forbid(unsafe_code)]
pub mod localfs;
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

// 6  log streams
#[forbid(unsafe_code)]
pub mod timeline;

// 7  databases
#[forbid(unsafe_code)]
pub mod postgres;
#[forbid(unsafe_code)]
pub mod sqlite;

// 9  the face that is typed
#[forbid(unsafe_code)]
pub mod cli;
