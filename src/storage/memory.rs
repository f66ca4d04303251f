//! A store in memory, stricter than real ones: for tests, and as the plainest statement of what the
//! trait means.

use super::{
    Capabilities, ObjectInfo, Operation, PutOutcome, StorageError, Store, check_name, check_prefix, names,
};
use crate::base::{Clock, Timestamp};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

struct Object {
    bytes: Arc<[u8]>,
    modified: Timestamp,
}

/// Keeps objects in a map.
#[derive(Default)]
pub struct MemoryStore {
    objects: RwLock<BTreeMap<String, Object>>,
    clock: Option<Arc<dyn Clock>>,
    ticks: AtomicI64,
}

impl MemoryStore {
    /// Makes an empty store whose time advances by a second with every write.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty store that takes its time from the clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock: Some(clock), ..Self::default() }
    }

    fn now(&self) -> Timestamp {
        match &self.clock {
            Some(clock) => clock.now(),
            None => {
                let seconds = self.ticks.fetch_add(1, Ordering::Relaxed);
                Timestamp::from_parts(seconds, 0).unwrap_or_default()
            }
        }
    }

    fn object(&self, operation: Operation, name: &str) -> Result<(Arc<[u8]>, Timestamp), StorageError> {
        check_name(operation, name)?;
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        match objects.get(name) {
            Some(object) => Ok((object.bytes.clone(), object.modified)),
            None => Err(StorageError::NotFound { operation, name: name.to_owned() }),
        }
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl Store for MemoryStore {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        names::check_object(Operation::Put, name, bytes)?;
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        match objects.entry(name.to_owned()) {
            Entry::Occupied(present) if *present.get().bytes == *bytes => Ok(PutOutcome::Existed),
            Entry::Occupied(_) => {
                Err(StorageError::Conflict { operation: Operation::Put, name: name.to_owned() })
            }
            Entry::Vacant(place) => {
                place.insert(Object { bytes: bytes.into(), modified: self.now() });
                Ok(PutOutcome::Created)
            }
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        names::check_object(Operation::Replace, name, bytes)?;
        let object = Object { bytes: bytes.into(), modified: self.now() };
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), object);
        Ok(())
    }

    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        let (bytes, _) = self.object(Operation::Get, name)?;
        let length_bytes = length(&bytes);
        if length_bytes > limit_bytes {
            let (operation, name) = (Operation::Get, name.to_owned());
            return Err(StorageError::TooLarge { operation, name, length_bytes, limit_bytes });
        }
        Ok(bytes.to_vec())
    }

    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length_wanted: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        let (bytes, _) = self.object(Operation::GetRange, name)?;
        let range = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(length_wanted)?))
            .and_then(|range| bytes.get(range));
        match range {
            Some(range) => {
                out.extend_from_slice(range);
                Ok(())
            }
            None => Err(StorageError::Truncated {
                operation: Operation::GetRange,
                name: name.to_owned(),
                length_bytes: length(&bytes),
                wanted_bytes: offset.saturating_add(u64::try_from(length_wanted).unwrap_or(u64::MAX)),
            }),
        }
    }

    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        let (bytes, modified) = self.object(Operation::Head, name)?;
        Ok(ObjectInfo { name: name.to_owned(), length: length(&bytes), modified: Some(modified) })
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        check_prefix(prefix)?;
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let matching = objects.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        Ok(matching
            .map(|(name, object)| ObjectInfo {
                name: name.clone(),
                length: length(&object.bytes),
                modified: Some(object.modified),
            })
            .collect())
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        check_name(Operation::Delete, name)?;
        self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            exclusive_put: true,
            consistent_list: true,
            modified_times: true,
            retry: true,
            distant: false,
        }
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}
