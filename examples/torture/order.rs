//! What a worker is told to do, and what it answers: lines of JSON between processes.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a worker does it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct World {
    pub repository: PathBuf,
    /// Folder for sources, restored files, caches.
    pub scratch: PathBuf,
    /// When time began to pass `speed` times as fast, in nanoseconds.
    pub origin: i64,
    pub speed: i64,
    /// Where it is written when time leapt, and how far.
    pub leaps: PathBuf,
}

/// How the store treats it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rough {
    pub seed: u64,
    pub delay_permille: u64,
    pub fault_permille: u64,
    pub late_permille: u64,
    /// The store is gone from this request on.
    pub gone_from: Option<u64>,
    /// The process dies at this request, before or after it is done.
    pub dies_at: Option<(u64, bool)>,
    pub retries: bool,
}

impl Rough {
    /// Whether nothing but time can go wrong.
    pub fn is_quiet(&self) -> bool {
        self.fault_permille == 0 && self.gone_from.is_none() && self.dies_at.is_none()
    }
}

/// Who does it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Who {
    pub host: String,
    pub key_file: PathBuf,
    pub cache: Option<PathBuf>,
    pub skew_seconds: i64,
}

/// What a backup holds, and how it was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    pub operation: u64,
    pub family: u64,
    pub version: u64,
    pub label: String,
    /// Backed up as this folder, or as streams.
    pub folder: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    Backup(Load),
    Restore {
        snapshot: String,
        load: Load,
    },
    Forget(Vec<String>),
    Undelete(String),
    Prune {
        grace_seconds: u64,
        unused_hundredths: u32,
        held_hundredths: Option<u32>,
        repack_most: Option<u64>,
    },
    Mark {
        snapshot: String,
        what: u64,
    },
    Check {
        read_data: bool,
        repair: bool,
    },
    Rotate,
    /// Archives these segments of the log, and says of each when it is done.
    Push(Vec<u64>),
    /// Offers other bytes under the name of a segment that is archived.
    Contradict(u64),
    /// Reads segments back; looked for one by one, or in a listing of the whole log.
    Fetch {
        numbers: Vec<u64>,
        listed: bool,
    },
    /// Forgets the log before a segment.
    ForgetLog(u64),
    Parity(u8),
    RepairIndex,
}

impl Task {
    /// One word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Backup(_) => "backup",
            Self::Restore { .. } => "restore",
            Self::Forget(_) => "forget",
            Self::Undelete(_) => "undelete",
            Self::Prune { .. } => "prune",
            Self::Mark { .. } => "mark",
            Self::Check { repair: true, .. } => "check and repair",
            Self::Check { .. } => "check",
            Self::Rotate => "rotate",
            Self::Push(_) => "push",
            Self::Contradict(_) => "contradict",
            Self::Fetch { .. } => "fetch",
            Self::ForgetLog(_) => "forget log",
            Self::Parity(_) => "parity",
            Self::RepairIndex => "repair index",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub world: World,
    pub who: Who,
    pub rough: Rough,
    pub task: Task,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// Success was reported, with the id of what was made or a summary.
    Done(String),
    /// An error was reported.
    Failed { class: String, what: String },
    /// It was reported that something is damaged.
    Damaged(String),
    /// Bytes came back that were never stored, or something that cannot be: a bug.
    Wrong(String),
}
