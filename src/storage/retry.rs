//! Decorator: sends a whole request again when it failed for a reason that may pass.
//!
//! Never stands over a local disk: there a failed fsync has lost the data and the second one
//! reports success. Requests are whole objects and names belong to contents, so that doing one
//! twice is harmless.

use super::{Capabilities, ObjectInfo, Operation, PutOutcome, StorageError, Store};
use crate::base::{Classify, Entropy, ErrorClass};
use std::sync::Arc;
use std::time::Duration;

/// Waits. Passed in, so that tests don't.
pub trait Sleep: Send + Sync {
    /// Returns after the duration has passed.
    fn sleep(&self, duration: Duration);
}

/// How often and how patiently to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least one is made.
    pub attempts: u32,
    /// Longest wait after the first failure; it doubles with every further one.
    pub delay_first: Duration,
    /// Bound on any wait.
    pub delay_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 8, delay_first: Duration::from_millis(200), delay_max: Duration::from_secs(30) }
    }
}

impl RetryPolicy {
    /// Returns the wait after failure number `failures` (from 1): between half of the delay and all
    /// of it, so that clients that failed together don't come back together.
    fn delay(&self, failures: u32, random: u64) -> Duration {
        let doubled = self.delay_first.saturating_mul(1u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
        let half = doubled.min(self.delay_max) / 2;
        let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(if span == 0 { 0 } else { random % (span + 1) })
    }
}

/// Tries again what failed with [`ErrorClass::Transient`].
pub struct RetryStore<S> {
    inner: S,
    policy: RetryPolicy,
    sleep: Arc<dyn Sleep>,
    entropy: Arc<dyn Entropy>,
}

impl<S: Store> RetryStore<S> {
    /// Wraps a store; refuses one whose failures are final.
    pub fn new(
        inner: S,
        policy: RetryPolicy,
        sleep: Arc<dyn Sleep>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StorageError> {
        if !inner.capabilities().retry {
            return Err(StorageError::Invalid {
                operation: Operation::Open,
                name: inner.location(),
                why: "failures of this store are final and must not be retried",
            });
        }
        Ok(Self { inner, policy, sleep, entropy })
    }

    fn attempt<T>(&self, mut request: impl FnMut(&S) -> Result<T, StorageError>) -> Result<T, StorageError> {
        let mut failures = 0;
        loop {
            match request(&self.inner) {
                Err(error) if error.class() == ErrorClass::Transient => {
                    failures += 1;
                    if failures >= self.policy.attempts {
                        return Err(error);
                    }
                    let mut random = [0; 8];
                    self.entropy.fill(&mut random);
                    self.sleep.sleep(self.policy.delay(failures, u64::from_le_bytes(random)));
                }
                result => return result,
            }
        }
    }
}

impl<S: Store> Store for RetryStore<S> {
    /// The object counts as new if any attempt says so; after a lost reply that is
    /// [`PutOutcome::Existed`], which promises the same.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        self.attempt(|store| store.put(name, bytes))
    }

    fn expect_put(&self, folder: &str) {
        self.inner.expect_put(folder);
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.attempt(|store| store.replace(name, bytes))
    }

    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.attempt(|store| store.get(name, limit_bytes))
    }

    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.attempt(|store| store.get_range(name, offset, length, out))
    }

    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        self.attempt(|store| store.head(name))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        self.attempt(|store| store.list(prefix))
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.attempt(|store| store.delete(name))
    }

    fn doubt(&self, name: &str) -> bool {
        self.inner.doubt(name)
    }

    fn keep_reserve(&self) {
        self.inner.keep_reserve();
    }

    fn draw_on_reserve(&self, may: bool) {
        self.inner.draw_on_reserve(may);
    }

    fn unfinished(&self) -> Result<Vec<ObjectInfo>, StorageError> {
        self.inner.unfinished()
    }

    fn clean(&self) -> Result<usize, StorageError> {
        self.inner.clean()
    }

    /// An outcome may be that of a second attempt, so nobody is promised to be the one creator.
    fn capabilities(&self) -> Capabilities {
        Capabilities { exclusive_put: false, ..self.inner.capabilities() }
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_stay_within_bounds() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.delay(1, 0), Duration::from_millis(100));
        for failures in 1..200 {
            for random in [0, 1, u64::MAX / 2, u64::MAX] {
                let delay = policy.delay(failures, random);
                assert!(delay >= Duration::from_millis(100) && delay <= policy.delay_max, "{delay:?}");
            }
        }
        let none = RetryPolicy { attempts: 1, delay_first: Duration::ZERO, delay_max: Duration::ZERO };
        assert_eq!(none.delay(3, 7), Duration::ZERO);
    }
}
