//! A store that counts: what a verb costs is a number of requests.

use chronolith::storage::{Capabilities, ObjectInfo, Operation, PutOutcome, StorageError, Store};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Wraps a store and counts its requests and bytes.
pub struct CountingStore<S> {
    inner: S,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: BTreeMap<Operation, u64>,
    bytes_read: u64,
    bytes_written: u64,
}

impl<S: Store> CountingStore<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, counts: Mutex::default() }
    }

    /// Returns how many requests of one kind came since the last reset, failed ones included.
    pub fn count(&self, operation: Operation) -> u64 {
        self.counts.lock().unwrap().requests.get(&operation).copied().unwrap_or(0)
    }

    /// Returns how many requests of any kind came.
    pub fn total(&self) -> u64 {
        self.counts.lock().unwrap().requests.values().sum()
    }

    pub fn bytes_read(&self) -> u64 {
        self.counts.lock().unwrap().bytes_read
    }

    pub fn bytes_written(&self) -> u64 {
        self.counts.lock().unwrap().bytes_written
    }

    pub fn reset(&self) {
        *self.counts.lock().unwrap() = Counts::default();
    }

    fn record(&self, operation: Operation, read: usize, written: usize) {
        let mut counts = self.counts.lock().unwrap();
        *counts.requests.entry(operation).or_default() += 1;
        counts.bytes_read += read as u64;
        counts.bytes_written += written as u64;
    }
}

impl<S: Store> Store for CountingStore<S> {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        self.record(Operation::Put, 0, bytes.len());
        self.inner.put(name, bytes)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.record(Operation::Replace, 0, bytes.len());
        self.inner.replace(name, bytes)
    }

    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        let result = self.inner.get(name, limit_bytes);
        self.record(Operation::Get, result.as_ref().map_or(0, Vec::len), 0);
        result
    }

    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        let result = self.inner.get_range(name, offset, length, out);
        self.record(Operation::GetRange, if result.is_ok() { length } else { 0 }, 0);
        result
    }

    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        self.record(Operation::Head, 0, 0);
        self.inner.head(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        self.record(Operation::List, 0, 0);
        self.inner.list(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.record(Operation::Delete, 0, 0);
        self.inner.delete(name)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
