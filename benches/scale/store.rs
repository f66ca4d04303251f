//! A store in which the packs of content exist by name and length only.

use chronolith::base::PackId;
use chronolith::repo::pack_name;
use chronolith::storage::{Capabilities, LocalStore, ObjectInfo, PutOutcome, StorageError, Store};
use std::sync::atomic::{AtomicU64, Ordering};

/// Stored bytes of a pack.
pub const PACK_BYTES: u32 = 32 << 20;

/// Names the pack of a number.
pub fn pack_id(number: u64) -> PackId {
    PackId::new(*blake3::hash(format!("pack {number}").as_bytes()).as_bytes())
}

/// A local store and, in its listings, so many packs more.
pub struct Simulated {
    pub inner: LocalStore,
    pub packs: u64,
    pub requests: AtomicU64,
}

impl Simulated {
    fn inner(&self) -> &LocalStore {
        self.requests.fetch_add(1, Ordering::Relaxed);
        &self.inner
    }
}

impl Store for Simulated {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        self.inner().put(name, bytes)
    }
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.inner().replace(name, bytes)
    }
    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.inner().get(name, limit_bytes)
    }
    fn get_range(&self, name: &str, at: u64, length: usize, out: &mut Vec<u8>) -> Result<(), StorageError> {
        self.inner().get_range(name, at, length, out)
    }
    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        self.inner().head(name)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        let mut objects = self.inner().list(prefix)?;
        if prefix == "packs/" {
            let modified = objects.first().and_then(|object| object.modified);
            objects.extend((0..self.packs).map(|number| ObjectInfo {
                name: pack_name(&pack_id(number)),
                length: PACK_BYTES.into(),
                modified,
            }));
            objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(objects)
    }
    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.inner().delete(name)
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}
