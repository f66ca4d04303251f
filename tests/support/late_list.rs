//! A store whose lists lag behind, as those of some object stores do.

use chronolith::storage::{Capabilities, ObjectInfo, PutOutcome, StorageError, Store};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Wraps a store; an object is missing from the first `lists_late` lists after it was put, though
/// it can be read at once.
pub struct LateListStore<S> {
    inner: S,
    lists_late: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lists: u64,
    visible_from: BTreeMap<String, u64>,
}

impl<S: Store> LateListStore<S> {
    pub fn new(inner: S, lists_late: u64) -> Self {
        Self { inner, lists_late, state: Mutex::default() }
    }
}

impl<S: Store> Store for LateListStore<S> {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        let outcome = self.inner.put(name, bytes)?;
        if outcome == PutOutcome::Created {
            let mut state = self.state.lock().unwrap();
            let visible = state.lists + self.lists_late + 1;
            state.visible_from.insert(name.to_owned(), visible);
        }
        Ok(outcome)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.inner.replace(name, bytes)
    }

    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.inner.get(name, limit_bytes)
    }

    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.inner.get_range(name, offset, length, out)
    }

    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        self.inner.head(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        let mut objects = self.inner.list(prefix)?;
        let mut state = self.state.lock().unwrap();
        state.lists += 1;
        let lists = state.lists;
        objects.retain(|object| state.visible_from.get(&object.name).is_none_or(|from| lists >= *from));
        Ok(objects)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.inner.delete(name)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { consistent_list: self.lists_late == 0, ..self.inner.capabilities() }
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
