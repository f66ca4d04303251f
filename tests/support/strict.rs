//! A store that knows one rule of the repository and enforces it: an object is named by the BLAKE3
//! hash of its bytes, and only the configuration is ever replaced. Torn writes and wrong names are
//! refused where they happen, not found later.

use chronolith::storage::{Capabilities, ObjectInfo, Operation, PutOutcome, StorageError, Store};

/// Wraps a store; panics never, refuses instead.
pub struct StrictStore<S>(pub S);

fn refuse(operation: Operation, name: &str, why: &'static str) -> StorageError {
    StorageError::Invalid { operation, name: name.to_owned(), why }
}

impl<S: Store> Store for StrictStore<S> {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        let last = name.rsplit('/').next().unwrap_or(name);
        if last != "chronolith" && last != blake3::hash(bytes).to_string() {
            return Err(refuse(Operation::Put, name, "the name is not the hash of the bytes"));
        }
        self.0.put(name, bytes)
    }

    fn expect_put(&self, folder: &str) {
        self.0.expect_put(folder);
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        if !["chronolith", "copies/chronolith"].contains(&name) {
            return Err(refuse(Operation::Replace, name, "only the configuration is ever replaced"));
        }
        self.0.replace(name, bytes)
    }

    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.0.get(name, limit_bytes)
    }

    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.0.get_range(name, offset, length, out)
    }

    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        self.0.head(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        self.0.list(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.0.delete(name)
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn location(&self) -> String {
        self.0.location()
    }
}
