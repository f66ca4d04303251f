//! The log that a recovery needs, brought into the data directory: a server that cannot reach the repository finds it
//! there, since it looks into `pg_wal` for whatever its `restore_command` does not bring.

use super::ClusterRestore;
use super::writing::{Owner, own};
use crate::postgres::archive::{Got, get_of};
use crate::postgres::error::PostgresError;
use crate::postgres::lineage::{ClusterName, Lineage};
use crate::postgres::segment::{LogFile, Lsn, SegmentName};
use crate::repo::RepoError;
use std::fs::File;
use std::path::Path;

impl ClusterRestore {
    /// Brings the histories and segments that the recovery needs. An attempt that is broken off begins with them
    /// anew.
    pub(super) fn bring_log(&self, owner: Option<Owner>) -> Result<(), PostgresError> {
        let Some(lineage) = &self.lineage else { return Ok(()) };
        let cluster = ClusterName::new(&self.base.facts.cluster)?;
        let folder = self.options.data_directory.join("pg_wal");
        for name in self.needed_files(lineage)? {
            if self.repository.environment().observer.interrupted() {
                return Err(RepoError::Interrupted.into());
            }
            let target = folder.join(&name);
            match get_of(&self.repository, &cluster, lineage, &name, &target)? {
                // Of a segment that is still being received the beginning: there the log ends.
                Got::Written { .. } | Got::Beginning { .. } => {
                    self.cut_behind_branch(&name, &target, lineage)?;
                    own(&target, owner)?;
                }
                Got::Absent => {
                    return Err(PostgresError::failed(
                        format!("{name} of the log was there when it was looked for, and is not any more"),
                        "see what was forgotten meanwhile (chronolith pg timeline), and run it again",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Takes out of a segment what its timeline holds behind the place where the way leaves it: that is no part of
    /// the way, and a server that finds it replays it.
    fn cut_behind_branch(&self, name: &str, target: &Path, lineage: &Lineage) -> Result<(), PostgresError> {
        let Ok(LogFile::Segment(segment)) = name.parse() else { return Ok(()) };
        let Some(Lsn(start)) = segment.start(lineage.segment_size) else { return Ok(()) };
        let bytes = lineage.segment_size.bytes();
        let ends = self.plan.path.branches().filter(|branch| branch.timeline == segment.timeline());
        let lengths = ends.filter_map(|branch| branch.end?.checked_sub(start));
        let Some(length) = lengths.filter(|length| *length < bytes).min() else { return Ok(()) };
        let cut = File::options().write(true).open(target).and_then(|file| {
            // Zeros, in which a server finds no record.
            file.set_len(length)?;
            file.set_len(bytes)
        });
        cut.map_err(PostgresError::file("cut off", target))
    }

    /// Names the files of the log that the archive has and the recovery needs, in the order of their use.
    fn needed_files(&self, lineage: &Lineage) -> Result<Vec<String>, PostgresError> {
        let mut names: Vec<String> =
            self.plan.histories.iter().map(|timeline| format!("{timeline:08X}.history")).collect();
        for (first, last) in &self.plan.stretches {
            let segment = |name: &str| {
                name.parse::<SegmentName>().map_err(|error| PostgresError::Damaged {
                    what: format!("the segment {name} of the log"),
                    why: error.to_string(),
                })
            };
            let (mut at, last) = (segment(first)?, segment(last)?);
            names.push(at.to_string());
            // No more than were counted, whatever the records say.
            while at != last
                && (names.len() as u64)
                    < self.plan.segment_count.saturating_add(self.plan.histories.len() as u64)
                && let Some(next) = at.next(lineage.segment_size)
            {
                at = next;
                names.push(at.to_string());
            }
        }
        Ok(names)
    }
}
