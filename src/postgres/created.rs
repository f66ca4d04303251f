//! What replay of a log creates, as far as a restore must know of it before the server replays it:
//!
//! - a tablespace, since it is made wherever its record says (B8);
//! - an init fork, since it says that a relation is unlogged. A backup that read the main fork before there was an
//!   init fork could not know that, and a server that finds both at the end of its recovery refuses to start (B6).
//!   So it is with an index while it is built, and with a database while it is copied from its template.

use super::archive::{INIT_FORKS, TOO_MANY, record_begun};
use super::layout::RelationId;
use super::lineage::ClusterName;
use super::stream::ClusterLog;
use super::wal::{FirstPage, Noted, walk_behind};
use crate::ops::OpsError;
use crate::repo::{FoundLog, Repository, holds_whole};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// What replay of one segment creates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Creations {
    /// Tablespaces: their numbers and places.
    pub tablespaces: Vec<(u32, String)>,
    /// Relations that get an init fork.
    pub init_forks: BTreeSet<RelationId>,
}

/// What the records of a log say of what its segments create, by the names of segments.
#[derive(Debug, Clone, Default)]
pub(super) struct CreationNotes {
    noted: BTreeMap<String, Creations>,
    /// Beginnings of records that create something and end in the segment behind.
    begun: BTreeMap<String, Vec<u8>>,
    /// Segments that create too much for a record.
    too_many: BTreeSet<String>,
    /// Merged log packs some of whose records say that init forks are created, by the stretch that they hold.
    merges: BTreeMap<String, Vec<FoundLog>>,
}

impl CreationNotes {
    /// Takes what the records of a segment say that ends at a position.
    pub fn take(&mut self, name: &str, end: Option<u64>, found: &[FoundLog]) {
        let created = self.noted.entry(name.to_owned()).or_default();
        for record in found.iter().map(|found| &found.record) {
            let lines = |fact| record.facts.get(fact).map_or("", String::as_str).lines();
            created.tablespaces.extend(lines("tablespaces_created").filter_map(|line| {
                let (number, folder) = line.split_once(' ')?;
                Some((number.parse().ok()?, folder.to_owned()))
            }));
            created.init_forks.extend(lines(INIT_FORKS).filter_map(|line| RelationId::from_str(line).ok()));
            if lines(INIT_FORKS).any(|line| line == TOO_MANY) {
                self.too_many.insert(name.to_owned());
            }
            // A piece that ends before says of what it cuts only what the next one says, too.
            let begun = record_begun(record);
            if record.positions.map(|(_, to)| to) == end && !begun.is_empty() {
                self.begun.insert(name.to_owned(), begun);
            }
        }
        if *created == Creations::default() {
            self.noted.remove(name);
        }
    }

    /// Notes that what a merged log pack holds of a stretch has to be looked at, once it is replayed.
    pub fn in_merge(&mut self, stretch: &str, merge: &FoundLog) {
        self.merges.entry(stretch.to_owned()).or_default().push(merge.clone());
    }
}

impl ClusterLog {
    /// Returns what replay of segments and stretches creates, in the order in which they are replayed, by the one that
    /// holds the end of the record. A segment is read where a record straddles its beginning, and where its record
    /// could not name everything.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn creations(
        &self,
        repository: &Repository,
        cluster: &ClusterName,
        replayed: &[String],
    ) -> Result<BTreeMap<String, Creations>, OpsError> {
        let mut created: BTreeMap<String, Creations> = BTreeMap::new();
        let mut begun = Vec::new();
        for name in replayed {
            let before =
                std::mem::replace(&mut begun, self.created.begun.get(name).cloned().unwrap_or_default());
            let mut of_stretch = self.created.noted.get(name).cloned().unwrap_or_default();
            for merge in self.created.merges.get(name).into_iter().flatten() {
                let mut inside = CreationNotes::default();
                for found in repository.merge_records(merge)? {
                    inside.take(&found.record.name, None, std::slice::from_ref(&found));
                }
                of_stretch.init_forks.extend(inside.noted.into_values().flat_map(|held| held.init_forks));
                for name in inside.too_many {
                    of_stretch.init_forks.extend(self.look_into(repository, cluster, &name, &[])?.init_forks);
                }
            }
            if !before.is_empty() || self.created.too_many.contains(name) {
                let noted = self.look_into(repository, cluster, name, &before)?;
                of_stretch.tablespaces = noted.tablespaces.into_iter().collect();
                of_stretch.init_forks.extend(noted.init_forks);
            }
            created.insert(name.clone(), of_stretch);
        }
        Ok(created)
    }

    /// Reads a segment for what it creates.
    fn look_into(
        &self,
        repository: &Repository,
        cluster: &ClusterName,
        name: &str,
        begun: &[u8],
    ) -> Result<Noted, OpsError> {
        let found = repository.search_log(&self.lineage.stream(cluster), name)?.found;
        let mut bytes = Vec::new();
        let mut take = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        match holds_whole(&found) {
            true => repository.read_segment(&found, &mut take).map(drop)?,
            false => repository.read_joined(&found, &mut take).map(drop)?,
        }
        let first = FirstPage::read(&bytes).map_err(|error| OpsError::Stopped {
            why: format!("segment {name} of the log cannot be looked into: {error}"),
            cure: "choose a target before it, or a newer base backup",
        })?;
        Ok(walk_behind(&bytes, &first, &Noted { begun: begun.to_vec(), ..Noted::default() }))
    }
}
