//! A store that fails where a plan says so: lost requests, lost replies, doubled requests, torn
//! writes, flipped bits.
//!
//! To fail every request of a scenario in turn:
//!
//! ```ignore
//! for number in 1.. {
//!     let store = FaultStore::failing_at(MemoryStore::new(), number, Fault::Before(Failure::Fatal));
//!     let result = scenario(&store);
//!     if !store.fired() { break; }
//!     // look at what the scenario left, and at `result`
//! }
//! ```

use chronolith::storage::{Capabilities, ObjectInfo, Operation, PutOutcome, StorageError, Store};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Transient,
    Fatal,
    NoSpace,
    Denied,
}

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request is lost: an error, and nothing has happened.
    Before(Failure),
    /// The reply is lost: an error, though everything has happened.
    After(Failure),
    /// The request arrives twice; the caller hears the second reply.
    Twice,
    /// `put` and `replace` leave half of the object under its name and fail; `get` returns half.
    Torn,
    /// Reads succeed with one bit wrong.
    Flip,
}

type Plan = Box<dyn Fn(u64, Operation, &str) -> Option<Fault> + Send + Sync>;

/// Wraps a store and makes its requests fail.
pub struct FaultStore<S> {
    inner: S,
    plan: Plan,
    requests: AtomicU64,
    fired: AtomicBool,
    log: Mutex<Vec<(Operation, String)>>,
}

impl<S: Store> FaultStore<S> {
    /// Asks the plan about each request: its number (from 1), what it is, and its object.
    pub fn with_plan(
        inner: S,
        plan: impl Fn(u64, Operation, &str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        let (requests, fired, log) = Default::default();
        Self { inner, plan: Box::new(plan), requests, fired, log }
    }

    /// Never fails.
    pub fn sound(inner: S) -> Self {
        Self::with_plan(inner, |_, _, _| None)
    }

    /// Fails one request.
    pub fn failing_at(inner: S, number: u64, fault: Fault) -> Self {
        Self::with_plan(inner, move |n, _, _| (n == number).then_some(fault))
    }

    /// Fails that request and all after it, as a store that went away.
    pub fn failing_from(inner: S, number: u64, fault: Fault) -> Self {
        Self::with_plan(inner, move |n, _, _| (n >= number).then_some(fault))
    }

    /// Says whether any fault has happened.
    pub fn fired(&self) -> bool {
        self.fired.load(Ordering::SeqCst)
    }

    /// Returns how many requests came.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Returns every request so far.
    pub fn log(&self) -> Vec<(Operation, String)> {
        self.log.lock().unwrap().clone()
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn fault(&self, operation: Operation, name: &str) -> Option<Fault> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        self.log.lock().unwrap().push((operation, name.to_owned()));
        let fault = (self.plan)(number, operation, name);
        self.fired.fetch_or(fault.is_some(), Ordering::SeqCst);
        fault
    }

    /// Handles what all verbs have in common.
    fn run<T>(
        &self,
        operation: Operation,
        name: &str,
        request: impl Fn(Option<Fault>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        match self.fault(operation, name) {
            Some(Fault::Before(failure)) => Err(error(operation, name, failure)),
            Some(Fault::After(failure)) => request(None).and(Err(error(operation, name, failure))),
            Some(Fault::Twice) => {
                let _ = request(None);
                request(None)
            }
            fault => request(fault),
        }
    }
}

fn error(operation: Operation, name: &str, failure: Failure) -> StorageError {
    let (name, source) = (name.to_owned(), "injected fault".into());
    match failure {
        Failure::Transient => StorageError::Transient { operation, name, source },
        Failure::Fatal => StorageError::Fatal { operation, name, source },
        Failure::NoSpace => StorageError::NoSpace { operation, name, source },
        Failure::Denied => StorageError::Denied { operation, name, source },
    }
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
}

impl<S: Store> Store for FaultStore<S> {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        self.run(Operation::Put, name, |fault| match fault {
            Some(Fault::Torn) => {
                self.inner.put(name, &bytes[..bytes.len().div_ceil(2)])?;
                Err(error(Operation::Put, name, Failure::Transient))
            }
            _ => self.inner.put(name, bytes),
        })
    }

    fn expect_put(&self, folder: &str) {
        self.inner.expect_put(folder);
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.run(Operation::Replace, name, |fault| match fault {
            Some(Fault::Torn) => {
                self.inner.replace(name, &bytes[..bytes.len().div_ceil(2)])?;
                Err(error(Operation::Replace, name, Failure::Transient))
            }
            _ => self.inner.replace(name, bytes),
        })
    }

    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.run(Operation::Get, name, |fault| {
            let mut bytes = self.inner.get(name, limit_bytes)?;
            match fault {
                Some(Fault::Torn) => bytes.truncate(bytes.len() / 2),
                Some(Fault::Flip) => flip(&mut bytes),
                _ => {}
            }
            Ok(bytes)
        })
    }

    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        let mut piece = self.run(Operation::GetRange, name, |fault| {
            let mut bytes = Vec::new();
            self.inner.get_range(name, offset, length, &mut bytes)?;
            if fault == Some(Fault::Flip) {
                flip(&mut bytes);
            }
            Ok(bytes)
        })?;
        out.append(&mut piece);
        Ok(())
    }

    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        self.run(Operation::Head, name, |_| self.inner.head(name))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        self.run(Operation::List, prefix, |_| self.inner.list(prefix))
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.run(Operation::Delete, name, |_| self.inner.delete(name))
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn location(&self) -> String {
        format!("faults over {}", self.inner.location())
    }
}
