//! What must be there: every snapshot that was committed and not forgotten, every segment of the log whose push
//! was reported as done and that was not forgotten since.

use crate::order::Load;
use crate::worker::PRUNED;
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
    pub fetched: u64,
    pub doubtful: u64,
    pub broken_doubtful: u64,
    /// What prunes said that they did.
    pub pruned: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Takes over what a prune has answered.
    pub fn add_pruned(&mut self, told: &str) {
        let counts: Vec<u64> = serde_json::from_str(told).unwrap_or_default();
        for (word, count) in PRUNED.iter().zip(counts) {
            *self.pruned.entry(word).or_default() += count;
        }
    }

    pub fn kills(&self) -> u64 {
        self.killed.values().sum()
    }
}

/// The log that is archived, segments by their numbers.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// Segments whose push was reported as done, and that nobody has begun to forget since.
    pub kept: BTreeSet<u64>,
    /// Somebody is about to archive something under their names.
    busy: BTreeSet<u64>,
    /// Other bytes were offered under their names, and may lie there.
    contradicted: BTreeSet<u64>,
    /// Segments before this one are being forgotten.
    forgetting: Option<u64>,
    /// Segments before this one may be forgotten, but for those that were archived again.
    forgotten: u64,
    /// No segment from this one on was archived yet.
    next: u64,
}

impl Log {
    /// Says whether segments may go since somebody has begun to forget them.
    pub fn may_go(&self, numbers: &[u64]) -> bool {
        let end = self.forgetting.unwrap_or(0).max(self.forgotten);
        numbers.iter().any(|number| *number < end && !self.kept.contains(number))
    }

    fn is_free(&self, number: u64) -> bool {
        !self.busy.contains(&number) && number >= self.forgetting.unwrap_or(0)
    }

    /// Chooses what an archiver would push next: the first segments that are not archived yet.
    pub fn begin_push(&mut self, many: usize) -> Vec<u64> {
        let free = |number: &u64| !self.kept.contains(number) && self.is_free(*number);
        let chosen: Vec<u64> = (self.forgotten..).filter(free).take(many).collect();
        self.busy.extend(&chosen);
        self.next = self.next.max(chosen.last().map_or(0, |last| last + 1));
        chosen
    }

    /// Chooses segments from one on that were pushed before, archived, forgotten or neither.
    pub fn begin_push_again(&mut self, from: u64, many: usize) -> Vec<u64> {
        // What was forgotten under a name that other bytes have too is in nobody's way only when it is gone.
        let may = |number: &u64| {
            self.is_free(*number) && !(*number < self.forgotten && self.contradicted.contains(number))
        };
        let chosen: Vec<u64> = (from..self.next).filter(may).take(many).collect();
        self.busy.extend(&chosen);
        chosen
    }

    pub fn end_push(&mut self, numbers: &[u64], done: &[u64]) {
        self.busy.retain(|number| !numbers.contains(number));
        self.kept.extend(done);
    }

    /// Chooses a segment that is archived and stays so.
    pub fn begin_contradict(&mut self, chance: u64) -> Option<u64> {
        let free: Vec<u64> = self.kept.iter().copied().filter(|number| self.is_free(*number)).collect();
        let chosen = *free.get((chance % free.len().max(1) as u64) as usize)?;
        self.busy.insert(chosen);
        Some(chosen)
    }

    pub fn end_contradict(&mut self, number: u64) {
        self.busy.remove(&number);
        self.contradicted.insert(number);
    }

    /// Chooses up to where the log is forgotten: half of it at most, and nothing that anybody is about to push.
    pub fn begin_forget(&mut self, chance: u64) -> Option<u64> {
        let kept: Vec<u64> = self.kept.iter().copied().collect();
        let before = *kept.get((chance % (kept.len() / 2 + 1) as u64) as usize)?;
        if self.forgetting.is_some() || self.busy.range(..before).next().is_some() {
            return None;
        }
        self.forgetting = Some(before);
        self.kept = self.kept.split_off(&before);
        Some(before)
    }

    pub fn end_forget(&mut self, before: u64) {
        self.forgetting = None;
        self.forgotten = self.forgotten.max(before);
    }

    /// Chooses archived segments that lie side by side.
    pub fn some(&self, chance: u64, many: usize) -> Vec<u64> {
        let skipped = chance % self.kept.len().max(1) as u64;
        self.kept.iter().copied().skip(skipped as usize).take(many).collect()
    }

    /// One of all that were ever pushed.
    pub fn any(&self, chance: u64) -> u64 {
        chance % self.next.max(1)
    }
}

#[derive(Default)]
pub struct Model {
    /// By the operation that made it.
    pub kept: BTreeMap<u64, Kept>,
    pub log: Log,
    /// How often a rotation of keys has begun, and how often one has ended.
    pub rotations: (u64, u64),
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
