//! What this client has seen before, so that a store set back in time is noticed.
//!
//! Kept in the cache folder: losing it loses the memory, never anything else.

use crate::base::{RepositoryId, TrustId};
use std::fs;
use std::path::{Path, PathBuf};

/// The newest versions that this client has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Number and id of the registry.
    pub registry: Option<(u64, TrustId)>,
    /// Revision of the configuration.
    pub revision: u64,
}

fn check(revision: u64, sequence: u64, id: TrustId) -> String {
    let text = format!("{revision} {sequence} {id}");
    blake3::hash(text.as_bytes()).to_hex().as_str()[..16].to_owned()
}

fn path(cache: &Path, repository: &RepositoryId) -> PathBuf {
    cache.join(repository.to_string()).join("seen")
}

impl Seen {
    /// Reads what was seen; whatever cannot be read counts as never seen.
    pub fn load(cache: Option<&Path>, repository: &RepositoryId) -> Self {
        let Some(text) = cache.and_then(|cache| fs::read_to_string(path(cache, repository)).ok()) else {
            return Self::default();
        };
        let mut words = text.split_whitespace();
        let mut parse = || {
            let revision = words.next()?.parse().ok()?;
            let sequence = words.next()?.parse().ok()?;
            let id = words.next()?.parse().ok()?;
            // A damaged memory must not make a client refuse what is genuine.
            if words.next()? != check(revision, sequence, id) {
                return None;
            }
            Some(Self { registry: Some((sequence, id)), revision })
        };
        parse().unwrap_or_default()
    }

    /// Remembers; a folder that cannot be written is no error.
    pub fn store(&self, cache: Option<&Path>, repository: &RepositoryId) {
        let (Some(cache), Some((sequence, id))) = (cache, self.registry) else { return };
        if *self == Self::load(Some(cache), repository) {
            return;
        }
        let path = path(cache, repository);
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        let check = check(self.revision, sequence, id);
        let _ = folder
            .and_then(|()| fs::write(&partial, format!("{} {sequence} {id} {check}\n", self.revision)))
            .and_then(|()| fs::rename(&partial, &path));
    }
}
