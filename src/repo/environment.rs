//! What a repository needs from outside: store, clock, randomness, folders, someone to talk to.

use crate::base::{Clock, Entropy, Observer};
use crate::storage::Store;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that is passed in from the edges of the program.
#[derive(Clone)]
pub struct Environment {
    /// Where the objects are kept.
    pub store: Arc<dyn Store>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Hears about progress and trouble.
    pub observer: Arc<dyn Observer>,
    /// The client's cache folder; `None` works without one.
    pub cache: Option<PathBuf>,
    /// Remembers opened key slots for some minutes, where the system offers that.
    pub key_cache: Arc<dyn KeyCache>,
}

/// Remembers what a password opened, so that the next command need not stretch it again.
///
/// An implementation keeps entries out of files and lets them expire.
pub trait KeyCache: Send + Sync {
    /// Returns what was stored under this name.
    fn load(&self, name: &str) -> Option<crate::base::SecretBytes>;
    /// Stores a secret under this name; failure is silent and costs time only.
    fn store(&self, name: &str, secret: &[u8]);
    /// Forgets the entry.
    fn forget(&self, name: &str);
}

/// A cache that remembers nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoKeyCache;

impl KeyCache for NoKeyCache {
    fn load(&self, _name: &str) -> Option<crate::base::SecretBytes> {
        None
    }
    fn store(&self, _name: &str, _secret: &[u8]) {}
    fn forget(&self, _name: &str) {}
}
