//! PostgreSQL: names and positions of its write-ahead log, how it is archived and how it comes back.
//!
//! The rules are those of the server's manual and source; each test names the one that it proves.
//!
//! - `segment`: names of files in the log, and their positions
//! - `history`: where timelines branch off
//! - `wal`: what stands in a segment
//! - `lineage`: which clusters have archived under a name
//! - `stream`: what is archived of a cluster's log; `stretches`: as merged log packs sum it up; `created`: what its
//!   replay creates
//! - `archive`: a server's log into the repository and back
//! - `connection`, `password_file`: a session with a server; `tls`: what encrypts it
//! - `replication`: the same over the replication protocol
//! - `control`, `layout`, `pages`: what lies in a data directory
//! - `base`: base backups, taken from a running server
//! - `retention`: what of base backups and log is kept
//! - `restore`: base backups, and a server that recovers from one
//! - `dump`, `load`: databases by `pg_dump` and `pg_restore`; `programs`: which of those
//! - `upgrade`: a further lineage under a cluster's name
//! - `drill`: a restore that is tried, looked at and thrown away
//! - `receive`: the log as the server writes it, into the repository
//! - `setup`: what a server needs so that its log is archived
//! - `error`: what can go wrong with all that

pub mod archive;
pub mod base;
mod connection;
mod control;
mod created;
pub mod drill;
pub mod dump;
mod error;
mod history;
mod layout;
pub mod lineage;
pub mod load;
mod pages;
mod password_file;
mod programs;
pub mod receive;
pub mod replication;
pub mod restore;
pub mod retention;
mod segment;
pub mod setup;
pub mod stream;
mod stretches;
mod tls;
pub mod upgrade;
pub mod wal;

pub use connection::{ConnectionOptions, Login, Server};
pub use control::{CONTROL_FILE_BYTES, ClusterState, ControlError, ControlFile, RecoverySettings};
pub use created::Creations;
pub use error::PostgresError;
pub use history::{HISTORY_BYTES_MAX, HistoryError, read_history};
pub use layout::{Fork, RelationFile, RelationId};
pub use pages::{BadPages, page_checksum, page_holds};
pub use programs::ClientPrograms;
pub use segment::{LogFile, Lsn, SegmentError, SegmentName, SegmentSize};
pub use tls::{TlsFailure, TlsOptions};
