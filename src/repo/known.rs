//! Small objects that this client has opened before, kept beside the index in its cache folder: snapshots,
//! annotations and whole catalogues as they were once their signatures were verified.
//!
//! An object is named by the hash of its bytes, so what is kept of it never goes stale. Whom to believe does
//! change: that is looked at each time. Everything is sealed under a key that follows from this host's own, so that whoever has
//! the folder without the key can neither read it nor put anything in. It may be deleted at any time; what is missing, damaged, or in use
//! by others costs requests, no more. Once it has grown beyond its bound it is begun anew.

use super::cache::{Database, Shape, taken};
use crate::base::{CatalogId, Entropy, RepositoryId, Secret};
use crate::crypto::derive::context;
use crate::crypto::{Sealer, Suite, derive_pair};
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHAPE: Shape = Shape {
    version: 1,
    page_bytes: 4 << 10,
    table: "CREATE TABLE known (id BLOB NOT NULL PRIMARY KEY, sealed BLOB NOT NULL)",
};
/// Bytes that it may take.
const BYTES_MAX: u64 = 1 << 30;
/// Longest row: what is longer is not kept.
const ROW_BYTES_MAX: usize = 128 << 20;
const SALT_BYTES: usize = 32;

/// Under which the newest catalogues are noted: the hash of a text, so no object's name.
fn newest_catalogues_key() -> [u8; 32] {
    *blake3::hash(b"newest catalogues").as_bytes()
}

/// What one key on one host has opened. Shared between threads.
pub struct KnownObjects {
    database: Mutex<Database>,
    secret: Secret,
}

impl KnownObjects {
    /// Opens or begins it; `None` where that is not possible.
    pub(super) fn open(folder: &Path, file: &str, repository: &RepositoryId, seed: &Secret) -> Option<Self> {
        let database = Database::open(folder, file, &SHAPE).ok()?;
        let (secret, _) = derive_pair(context::KNOWN_OBJECTS, seed, repository.as_bytes());
        Some(Self { database: Mutex::new(database), secret })
    }

    fn lock(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sealer(&self, salt: &[u8; SALT_BYTES]) -> Sealer {
        // A key for each row, so that one nonce is enough.
        Sealer::new(Suite::ChaCha20Poly1305, &derive_pair(context::KNOWN_OBJECTS, &self.secret, salt).0)
    }

    /// Returns what is kept of an object.
    pub(super) fn get(&self, id: &[u8; 32]) -> Option<Vec<u8>> {
        let read = |connection: &mut Connection| {
            connection
                .prepare_cached("SELECT sealed FROM known WHERE id = ?1")?
                .query_row(params![id], |row| row.get::<_, Vec<u8>>(0))
                .optional()
        };
        let mut row = self.lock().attempt(read).flatten()?;
        let salt = *row.first_chunk::<SALT_BYTES>()?;
        self.sealer(&salt).open([0; 12], id, &mut row, SALT_BYTES).ok()?;
        row.drain(..SALT_BYTES);
        Some(row)
    }

    /// Keeps these.
    pub(super) fn put(&self, entropy: &dyn Entropy, rows: Vec<([u8; 32], Vec<u8>)>) {
        let sealed =
            rows.into_iter().filter(|(_, row)| row.len() <= ROW_BYTES_MAX).filter_map(|(id, row)| {
                let salt: [u8; SALT_BYTES] = entropy.draw();
                let mut sealed = Vec::with_capacity(SALT_BYTES + row.len() + 16);
                sealed.extend_from_slice(&salt);
                sealed.extend_from_slice(&row);
                self.sealer(&salt).seal([0; 12], &id, &mut sealed, SALT_BYTES).ok()?;
                Some((id, sealed))
            });
        let sealed: Vec<_> = sealed.collect();
        let write = |connection: &mut Connection| -> rusqlite::Result<()> {
            if taken(connection)? > BYTES_MAX {
                connection.execute("DELETE FROM known", [])?;
            }
            let transaction = connection.transaction()?;
            {
                let mut statement = transaction
                    .prepare_cached("INSERT OR REPLACE INTO known (id, sealed) VALUES (?1, ?2)")?;
                for (id, sealed) in &sealed {
                    statement.execute(params![id, sealed])?;
                }
            }
            transaction.commit()
        };
        self.lock().attempt(write);
    }

    /// Returns the greatest sequence of a catalogue that this client has seen, and all that counted with it.
    pub(super) fn newest_catalogues(&self) -> Option<(u64, Vec<CatalogId>)> {
        let row = self.get(&newest_catalogues_key())?;
        let (sequence, ids) = row.split_first_chunk::<8>()?;
        let ids = ids.chunks_exact(32).filter_map(|id| id.try_into().ok().map(CatalogId::new));
        Some((u64::from_le_bytes(*sequence), ids.collect()))
    }

    /// Notes these as the newest that were seen.
    pub(super) fn see_catalogues(&self, entropy: &dyn Entropy, sequence: u64, ids: &[CatalogId]) {
        let mut row = sequence.to_le_bytes().to_vec();
        ids.iter().for_each(|id| row.extend_from_slice(id.as_bytes()));
        self.put(entropy, vec![(newest_catalogues_key(), row)]);
    }

    /// Drops these, where they are kept.
    pub(super) fn remove(&self, ids: impl IntoIterator<Item = [u8; 32]>) {
        let write = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            {
                let mut statement = transaction.prepare_cached("DELETE FROM known WHERE id = ?1")?;
                for id in ids {
                    statement.execute(params![id])?;
                }
            }
            transaction.commit()
        };
        self.lock().attempt(write);
    }
}
