//! What one place of a repository lacks of what others hold: each place may be whole in itself, and one of them behind.

use crate::base::{AnnotationId, ObjectId, SnapshotId};
use crate::format::log::LogRecordKind;
use crate::ops::error::OpsError;
use crate::ops::snapshots::Snapshots;
use crate::repo::{FoundLog, Repository};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What must be kept of what one place holds.
pub struct Holding {
    repository: Arc<Repository>,
    snapshots: Snapshots,
    logs: Vec<FoundLog>,
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
        let logs = repository.all_logs()?.found;
        Ok(Self { repository: repository.clone(), snapshots, logs })
    }

    /// Says what each of several places lacks. A place that lacks something is looked at once more: it may just have
    /// been written.
    ///
    /// # Errors
    ///
    /// As [`Holding::of`].
    pub fn compare(places: &[Arc<Repository>]) -> Result<Vec<Lacking>, OpsError> {
        let mut holdings = places.iter().map(Self::of).collect::<Result<Vec<_>, _>>()?;
        for place in 0..holdings.len() {
            let lacks = holdings.get(place).map(|own| own.lacks(&holdings)).transpose()?;
            if lacks.is_some_and(|lacking| !lacking.is_empty())
                && let Some(own) = holdings.get_mut(place)
            {
                *own = Self::of(&own.repository.clone())?;
            }
        }
        holdings.iter().map(|own| own.lacks(&holdings)).collect()
    }

    fn lacks(&self, all: &[Self]) -> Result<Lacking, OpsError> {
        let mut lacking = Lacking::default();
        // What has ended is deleted in each place for itself.
        let ended: HashSet<SnapshotId> = all.iter().flat_map(Self::ended).collect();
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
        self.lacking_logs(all, &mut lacking)?;
        Ok(lacking)
    }

    fn ended(&self) -> impl Iterator<Item = SnapshotId> {
        let forgotten = self.snapshots.with_forgotten().iter().filter(|view| view.forgotten);
        self.snapshots.ended().iter().copied().chain(forgotten.map(|view| view.id))
    }

    fn lacking_logs(&self, all: &[Self], lacking: &mut Lacking) -> Result<(), OpsError> {
        let mut merged: BTreeMap<&str, Vec<&FoundLog>> = BTreeMap::new();
        // A whole segment stands for its pieces, not the other way round.
        let mut whole: HashSet<(&str, &str)> = HashSet::new();
        let mut begun: HashSet<(&str, &str)> = HashSet::new();
        let mut objects: HashSet<&str> = HashSet::new();
        for log in &self.logs {
            objects.insert(&log.object);
            match log.record.kind {
                LogRecordKind::Merged => merged.entry(&log.record.stream).or_default().push(log),
                LogRecordKind::Piece => drop(begun.insert((&log.record.stream, &log.record.name))),
                _ => drop(whole.insert((&log.record.stream, &log.record.name))),
            }
        }
        let has_ended = |log: &FoundLog| {
            all.iter().any(|one| one.snapshots.forgotten_logs().has_ended(one.repository.registry(), log))
        };
        // Merged packs that cover a name are looked into once each.
        let mut held: HashMap<&str, HashSet<String>> = HashMap::new();
        for other in all {
            for log in other.logs.iter().filter(|log| !objects.contains(log.object.as_str())) {
                if has_ended(log) {
                    continue;
                }
                let (stream, own) = (log.record.stream.as_str(), log.record.name.clone());
                let names: Vec<String> = match log.record.kind {
                    LogRecordKind::Merged => {
                        let records = other.repository.merge_records(log)?;
                        records.into_iter().map(|record| record.record.name).collect()
                    }
                    _ => vec![own],
                };
                let is_piece = log.record.kind == LogRecordKind::Piece;
                let is_alone = |name: &String| {
                    let key = (stream, name.as_str());
                    whole.contains(&key) || is_piece && begun.contains(&key)
                };
                for name in names.into_iter().filter(|name| !is_alone(name)) {
                    let mut is_held = false;
                    for pack in merged.get(stream).into_iter().flatten().filter(|pack| pack.covers(&name)) {
                        if !held.contains_key(pack.object.as_str()) {
                            let records = self.repository.merge_records(pack)?;
                            let names = records.into_iter().map(|record| record.record.name).collect();
                            held.insert(&pack.object, names);
                        }
                        is_held |= held.get(pack.object.as_str()).is_some_and(|names| names.contains(&name));
                    }
                    if !is_held {
                        lacking.logs.insert((stream.to_owned(), name));
                    }
                }
            }
        }
        Ok(())
    }
}
