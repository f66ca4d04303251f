//! Whether new chunks are stored as differences, and where the chunks they differ from are read.

use super::BackupOptions;
use crate::repo::Repository;

/// What the base cache takes at most unless somebody says otherwise: what a dump of some gigabytes comes
/// to when it is compressed.
pub const BASE_CACHE_BYTES: u64 = 2 << 30;

/// When chunks are stored as differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Differences {
    /// Wherever that takes less room, unless the bases are hard to come by: of a repository that is not on
    /// a disk of this machine they are taken from the base cache only.
    #[default]
    Auto,
    /// Wherever that takes less room: bases are read from the repository by whoever may, by others from
    /// the base cache.
    Always,
    /// Where the base is in the base cache.
    Cached,
    /// Never: every backup is read from whole chunks.
    Never,
}

/// Where the bases of a backup's differences were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BasesFrom {
    /// In the repository.
    Repository,
    /// In the base cache of this host.
    Cache,
    /// Nowhere: everything was stored whole.
    Nowhere,
}

impl BasesFrom {
    /// Returns the name that programs read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Cache => "cache",
            Self::Nowhere => "nowhere",
        }
    }
}

impl BackupOptions {
    /// Decides where bases are read, and opens the base cache if it is there; what stands in the way is
    /// said where the user could do something about it.
    pub(super) fn find_bases(&self, repository: &Repository) -> (BasesFrom, Option<String>) {
        let reads = repository.keyring().reads_content();
        let is_distant = repository.environment().store.capabilities().distant;
        let from_cache = match self.differences {
            Differences::Never => return (BasesFrom::Nowhere, None),
            Differences::Cached => true,
            Differences::Always => !reads,
            Differences::Auto => !reads || is_distant,
        };
        if !from_cache {
            return (BasesFrom::Repository, None);
        }
        let why = match repository.open_base_cache(self.base_cache_bytes) {
            Ok(_) => return (BasesFrom::Cache, None),
            Err(why) => why,
        };
        let cause = match self.differences {
            Differences::Cached => "differences are to be taken from the base cache only",
            _ if reads => "the repository is not on a disk of this machine",
            _ => "this key may not read content",
        };
        let advice = format!(
            "{cause}, and there is no base cache ({why}): what changed is stored whole, not as differences"
        );
        (BasesFrom::Nowhere, Some(advice))
    }
}
