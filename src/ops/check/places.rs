//! What one place of a repository lacks of what others hold: each place may be whole in itself, and one of them behind.

use crate::base::{AnnotationId, ObjectId, SnapshotId};
use crate::format::log::LogRecordKind;
use crate::ops::error::OpsError;
use crate::ops::snapshots::Snapshots;
use crate::repo::{FoundLog, Listing, Repository};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// What must be kept of what one place holds.
pub struct Holding {
    repository: Arc<Repository>,
    snapshots: Snapshots,
    logs: Listing<FoundLog>,
}

/// What one place lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Snapshots.
    pub snapshots: BTreeSet<SnapshotId>,
    /// What was said of snapshots that it has: tags, pins, notes, that one was forgotten.
    pub annotations: BTreeSet<AnnotationId>,
    /// Files of logs, by their stream and name.
    pub logs: BTreeSet<(String, String)>,
}

impl Lacking {
    /// Says whether it lacks nothing.
    pub fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.annotations.is_empty() && self.logs.is_empty()
    }
}

impl Holding {
    /// Looks at one place.
    ///
    /// # Errors
    ///
    /// When it cannot be listed or read.
    pub fn of(repository: &Arc<Repository>) -> Result<Self, OpsError> {
        let snapshots = Snapshots::load_all(repository)?;
        let logs = repository.all_logs()?;
        Ok(Self { repository: repository.clone(), snapshots, logs })
    }

    /// Says what each of several places lacks. What a place seems to lack is looked for once more: others may have been
    /// looked at later, and something been written meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Holding::of`].
    pub fn compare(places: &[Arc<Repository>]) -> Result<Vec<Lacking>, OpsError> {
        let all = places.iter().map(Self::of).collect::<Result<Vec<_>, _>>()?;
        let of_one = |own: &Self| {
            let lacking = own.lacks(&all);
            // What the others held stood there before this second look.
            if lacking.is_empty() { Ok(lacking) } else { Ok(Self::of(&own.repository)?.lacks(&all)) }
        };
        all.iter().map(of_one).collect()
    }

    fn lacks(&self, all: &[Self]) -> Lacking {
        let mut lacking = Lacking::default();
        // What has ended is deleted in each place for itself.
        let ended: HashSet<SnapshotId> = all.iter().chain([self]).flat_map(Self::ended).collect();
        let is_here = |id: ObjectId| self.snapshots.present().contains(&id);
        for other in all {
            for view in other.snapshots.with_forgotten() {
                if !is_here(view.id.into()) {
                    if !ended.contains(&view.id) {
                        lacking.snapshots.insert(view.id);
                    }
                    continue;
                }
                let said = view.said.iter().map(|said| said.id).chain(view.forgotten_by.iter().copied());
                lacking.annotations.extend(said.filter(|id| !is_here((*id).into())));
            }
        }
        self.lacking_logs(all, &mut lacking);
        lacking
    }

    fn ended(&self) -> impl Iterator<Item = SnapshotId> {
        let forgotten = self.snapshots.with_forgotten().iter().filter(|view| view.forgotten);
        self.snapshots.ended().iter().copied().chain(forgotten.map(|view| view.id))
    }

    /// Compares segments and their pieces by name: merged or alone, what they hold is the same. One that is there and
    /// damaged is the check's to tell.
    fn lacking_logs(&self, all: &[Self], lacking: &mut Lacking) {
        let mut whole: HashSet<(&str, &str)> = HashSet::new();
        let mut pieces: HashSet<(&str, &str, u64)> = HashSet::new();
        for log in &self.logs.found {
            let record = &log.record;
            match (record.kind, record.piece_offset) {
                (LogRecordKind::Segment, _) => _ = whole.insert((&record.stream, &record.name)),
                (LogRecordKind::Piece, Some(at)) => {
                    _ = pieces.insert((&record.stream, &record.name, at));
                }
                _ => {}
            }
        }
        let damaged: HashSet<&str> = self.logs.refused.iter().map(|(name, _)| name.as_str()).collect();
        let has_ended = |log: &FoundLog| {
            let ended = |one: &Self| one.snapshots.forgotten_logs().has_ended(one.repository.registry(), log);
            ended(self) || all.iter().any(ended)
        };
        for log in all.iter().flat_map(|other| &other.logs.found) {
            let record = &log.record;
            let is_here = match (record.kind, record.piece_offset) {
                (LogRecordKind::Segment, _) => false,
                (LogRecordKind::Piece, Some(at)) => {
                    pieces.contains(&(record.stream.as_str(), record.name.as_str(), at))
                }
                // What stands in no segment's place says nothing that could be restored.
                _ => true,
            };
            let is_here = is_here || whole.contains(&(record.stream.as_str(), record.name.as_str()));
            if !is_here && !damaged.contains(log.object.as_str()) && !has_ended(log) {
                lacking.logs.insert((record.stream.clone(), record.name.clone()));
            }
        }
    }
}
