//! A client of the server's replication protocol: its log as it is written, and base backups.
//!
//! It knows the physical half of the protocol only, and waits for the server in small steps, so that the user
//! can stop it at any time. After every copy it reads on to the last result or error: a server that found
//! something wrong says so only there.
//!
//! - `socket`: bytes to and from a server, encrypted or not
//! - `wire`: messages made of them
//! - `session`: connecting, commands and their results; `authentication`: passwords
//! - `copy`: a base backup, as archives of files; `tar`: the files in them
//! - `stream`: the log as it is written

mod authentication;
mod copy;
mod session;
mod socket;
mod stream;
mod tar;
mod wire;

pub use copy::{Archive, BackupCopy, BackupEnd, CopyOptions};
pub use session::{Endpoint, Identity, Replication, Slot, SlotName};
pub use stream::{Fork, Started, Streamed};
pub use tar::{TarEntry, TarError, TarKind, TarReader};
pub use wire::ReplicationError;
