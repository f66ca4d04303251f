//! The base cache: frames of content that this host stored, kept beside the index in the client's cache
//! folder, so that later backups find the bases of their differences there.
//!
//! It serves keys that may not read content, which could store nothing but whole chunks, and
//! repositories that are far away, where reading bases costs more than a difference saves. What is in it
//! is what the frames held before they were sealed for the repository, sealed again under a key that
//! follows from this host's own: whoever has the folder without the key can read nothing.
//!
//! A frame goes by its origin and counter, which no other frame has. Room is bounded. What comes once
//! the cache is full stays outside, since backups come back to the same frames in the same order:
//! making room for each would throw out the next one wanted. Only when a backup has been committed make
//! the frames room that were not of use for longest.
//!
//! Everything here is a hint. A cache that is missing, damaged, or in use by others costs space in the
//! repository, never more: what is decoded from it is checked against its id, as all content is.

use super::cache::{Database, Shape, taken};
use super::index::Located;
use crate::base::{RepositoryId, Secret, Timestamp};
use crate::crypto::derive::context;
use crate::crypto::{Sealer, Suite, derive_pair};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Frames are large: on large pages they take less time and room.
const PAGE_BYTES: u64 = 32 << 10;
const SHAPE: Shape = Shape {
    version: 1,
    page_bytes: PAGE_BYTES,
    table: "CREATE TABLE frame (name BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, sealed BLOB NOT NULL)",
};
/// Above this part of its bound a cache makes room, ...
const FULL: (u64, u64) = (9, 10);
/// ... down to this part.
const ROOMY: (u64, u64) = (3, 4);

/// Names a frame: the commitment of its origin, then its counter.
type FrameName = [u8; 40];

fn frame_name(commitment: &[u8; 32], counter: u64) -> FrameName {
    let mut name = [0; 40];
    let (origin, number) = name.split_at_mut(32);
    origin.copy_from_slice(commitment);
    number.copy_from_slice(&counter.to_le_bytes());
    name
}

fn name_of(copy: &Located) -> Option<FrameName> {
    let origin = copy.pack.origins.get(usize::from(copy.record.origin))?;
    Some(frame_name(&origin.commitment, copy.record.counter))
}

struct Open {
    database: Database,
    bytes: u64,
    used: HashSet<FrameName>,
}

/// The frames of one key on one host. Shared between threads.
pub struct BaseCache {
    open: Mutex<Open>,
    secret: Secret,
    bound_bytes: u64,
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BaseCache {
    /// Opens or begins the cache of a key in a folder.
    ///
    /// # Errors
    ///
    /// A sentence that says why there is none.
    pub(super) fn open(
        folder: &Path,
        file: &str,
        repository: &RepositoryId,
        seed: &Secret,
        bound_bytes: u64,
    ) -> Result<Self, String> {
        let why = |error: &dyn std::error::Error| format!("{}: {error}", folder.display());
        let mut database = Database::open(folder, file, &SHAPE).map_err(|error| why(&error))?;
        let bytes = database.attempt(|connection| taken(connection));
        let bytes = bytes.ok_or_else(|| format!("{}: {file} cannot be read", folder.display()))?;
        let (secret, _) = derive_pair(context::BASE_CACHE, seed, repository.as_bytes());
        Ok(Self { open: Mutex::new(Open { database, bytes, used: HashSet::new() }), secret, bound_bytes })
    }

    fn sealer(&self, name: &FrameName) -> Sealer {
        let salt = blake3::hash(name);
        // A key for each frame, and a frame never has two contents: so one nonce is enough.
        Sealer::new(
            Suite::ChaCha20Poly1305,
            &derive_pair(context::BASE_CACHE, &self.secret, salt.as_bytes()).0,
        )
    }

    /// Keeps what a frame held before it was sealed, if there is room.
    pub(super) fn put(&self, commitment: &[u8; 32], counter: u64, encoded: &[u8]) {
        let name = frame_name(commitment, counter);
        let cost = cost(encoded.len());
        {
            let mut open = lock(&self.open);
            let bytes = open.bytes.saturating_add(cost);
            if bytes > self.bound_bytes {
                return;
            }
            open.bytes = bytes;
        }
        let mut sealed = encoded.to_vec();
        let is_sealed = self.sealer(&name).seal([0; 12], &name, &mut sealed, 0).is_ok();
        let mut open = lock(&self.open);
        let put = |connection: &mut Connection| {
            connection
                .prepare_cached("INSERT OR IGNORE INTO frame (name, used, sealed) VALUES (?1, 0, ?2)")?
                .execute(params![name, sealed])
        };
        if is_sealed && open.database.attempt(put).is_some() {
            open.used.insert(name);
        } else {
            open.bytes = open.bytes.saturating_sub(cost);
        }
    }

    /// Says whether the frame of a copy is here, and notes that it is of use.
    pub fn holds(&self, copy: &Located) -> bool {
        let Some(name) = name_of(copy) else { return false };
        let mut open = lock(&self.open);
        if open.used.contains(&name) {
            return true;
        }
        let found = open.database.attempt(|connection| {
            connection.prepare_cached("SELECT 1 FROM frame WHERE name = ?1")?.exists(params![name])
        });
        let is_here = found.unwrap_or(false);
        if is_here {
            open.used.insert(name);
        }
        is_here
    }

    /// Returns what the frame of a copy held before it was sealed.
    pub(super) fn get(&self, copy: &Located) -> Option<Vec<u8>> {
        let name = name_of(copy)?;
        let read = |connection: &mut Connection| {
            connection
                .prepare_cached("SELECT sealed FROM frame WHERE name = ?1")?
                .query_row(params![name], |row| row.get::<_, Vec<u8>>(0))
                .optional()
        };
        let mut encoded = lock(&self.open).database.attempt(read).flatten()?;
        self.sealer(&name).open([0; 12], &name, &mut encoded, 0).ok()?;
        Some(encoded)
    }

    /// Notes what was of use to a backup that is committed now, and makes room for the next one.
    pub fn settle(&self, now: Timestamp) {
        let mut open = lock(&self.open);
        let used = std::mem::take(&mut open.used);
        let now = now.nanoseconds() / 1_000_000_000;
        // Without this the next backup takes other frames for the oldest, no more.
        if let Some(bytes) = open.database.attempt(|connection| self.make_room(connection, used, now)) {
            open.bytes = bytes;
        }
    }

    /// Does it; returns the bytes that are taken then.
    fn make_room(
        &self,
        connection: &mut Connection,
        used: HashSet<FrameName>,
        now: i64,
    ) -> rusqlite::Result<u64> {
        let transaction = connection.transaction()?;
        {
            let mut statement = transaction.prepare_cached("UPDATE frame SET used = ?2 WHERE name = ?1")?;
            for name in used {
                statement.execute(params![name, now])?;
            }
        }
        let mut bytes = taken(&transaction)?;
        if bytes > self.bound_bytes / FULL.1 * FULL.0 {
            let enough = self.bound_bytes / ROOMY.1 * ROOMY.0;
            let mut oldest =
                transaction.prepare("SELECT rowid, length(sealed) FROM frame ORDER BY used, rowid")?;
            let mut remove = transaction.prepare_cached("DELETE FROM frame WHERE rowid = ?1")?;
            let mut rows = oldest.query([])?;
            let mut gone = Vec::new();
            while bytes > enough
                && let Some(row) = rows.next()?
            {
                gone.push(row.get::<_, i64>(0)?);
                bytes = bytes.saturating_sub(cost(usize::try_from(row.get::<_, i64>(1)?).unwrap_or(0)));
            }
            for row in gone {
                remove.execute(params![row])?;
            }
        }
        transaction.commit()?;
        // Each step frees a page, so it is stepped to its end.
        let mut vacuum = connection.prepare("PRAGMA incremental_vacuum")?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
        drop(steps);
        drop(vacuum);
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        taken(connection)
    }
}

/// About how many bytes a frame takes: what fits no page has pages of its own.
const fn cost(length: usize) -> u64 {
    let length = length as u64 + 128;
    if length > PAGE_BYTES { length.next_multiple_of(PAGE_BYTES) } else { length }
}
