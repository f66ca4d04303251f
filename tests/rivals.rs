//! Two owners change the registry of trust at the same moment: neither change is lost.

#[path = "support/mod.rs"]
mod support;

use chronolith::base::SecretBytes;
use chronolith::format::trust::Role;
use chronolith::format::trust::scope::Scope;
use chronolith::ops::keys::{NewKey, add, list};
use chronolith::repo::{Credential, NewSlot, Repository, open};
use chronolith::storage::{Capabilities, MemoryStore, ObjectInfo, PutOutcome, StorageError, Store};
use std::sync::{Arc, Mutex};
use support::repository::{environment, make, reopen};

/// A store in which another owner is done just before the first version of the registry is put.
struct Beaten {
    inner: Arc<MemoryStore>,
    rival: Mutex<Option<Arc<Repository>>>,
}

fn add_named(repository: &Repository, name: &str, key: u8) {
    let secret = SecretBytes::new(vec![key; 32]);
    let new =
        NewKey { role: Role::Writer, name: name.to_owned(), domain: String::new(), scope: Scope::default() };
    add(repository, &new, &NewSlot::KeyFile(&secret)).unwrap();
}

impl Store for Beaten {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        if name.starts_with("copies/trust/") {
            let rival = self.rival.lock().unwrap().take();
            if let Some(rival) = rival {
                add_named(&rival, "rival", 2);
            }
        }
        self.inner.put(name, bytes)
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
        self.inner.list(prefix)
    }
    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.inner.delete(name)
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

#[test]
fn the_changes_of_both_owners_count() {
    // Which version wins is chance: some rounds see each outcome.
    for round in 0..12 {
        let inner = Arc::new(MemoryStore::new());
        drop(make(inner.clone()));
        let rival = reopen(inner.clone()).unwrap();
        let store = Arc::new(Beaten { inner: inner.clone(), rival: Mutex::new(Some(rival)) });
        add_named(&reopen(store).unwrap(), "mine", 1);
        let keys = list(&reopen(inner.clone()).unwrap()).unwrap();
        let names: Vec<&str> = keys.keys.iter().map(|key| key.record.name.as_str()).collect();
        assert!(names.contains(&"mine") && names.contains(&"rival"), "round {round}: {names:?}");
        assert_eq!(keys.unlisted, []);
        for key in [1, 2] {
            let credential = Credential::KeyFile(SecretBytes::new(vec![key; 32]));
            let opened = open(environment(inner.clone()), &credential).unwrap();
            assert_eq!(opened.keyring().identity.role, Role::Writer);
            opened.require_writer().unwrap();
        }
    }
}
