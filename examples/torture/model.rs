//! What must be there: every snapshot that was committed and not forgotten, every segment whose push was
//! reported as done.

use crate::order::Load;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is listed, and restores.
    Live,
    /// Its writer never reported success and its session may have lapsed before its last look: it is listed,
    /// and may miss something ([CONCURRENCY-23]).
    Doubtful,
    /// It was forgotten, and may be gone.
    Gone,
}

#[derive(Debug, Clone)]
pub struct Kept {
    pub id: String,
    pub load: Load,
    pub state: State,
    /// Somebody is about to change its state.
    pub busy: bool,
    /// Counts how often that was begun.
    pub touched: u64,
}

/// Counts for people.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub operations: u64,
    pub done: BTreeMap<&'static str, u64>,
    pub failed: BTreeMap<&'static str, u64>,
    pub killed: BTreeMap<&'static str, u64>,
    pub paused: u64,
    pub restored: u64,
    pub doubtful: u64,
    pub broken_doubtful: u64,
}

impl Counts {
    pub fn kills(&self) -> u64 {
        self.killed.values().sum()
    }
}

#[derive(Default)]
pub struct Model {
    /// By the operation that made it.
    pub kept: BTreeMap<u64, Kept>,
    /// Segments whose push was reported as done.
    pub segments: BTreeSet<u64>,
    pub counts: Counts,
    /// Everything that must not be.
    pub wrong: Vec<String>,
}

impl Model {
    /// Operations whose snapshots are in this state and not being changed.
    pub fn having(&self, state: State) -> Vec<u64> {
        let free = self.kept.iter().filter(|(_, kept)| kept.state == state && !kept.busy);
        free.map(|(operation, _)| *operation).collect()
    }

    pub fn any_doubt(&self) -> bool {
        self.kept.values().any(|kept| kept.state == State::Doubtful)
    }
}
