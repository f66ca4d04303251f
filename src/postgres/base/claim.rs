//! Whose base backups a cluster's name may have: those of the systems that it has already, or of the first that comes.
//!
//! A base backup of another server under the name would be what a restore takes, and what keeps a retention rule from
//! keeping the right ones. So it is refused before anything is read, as the log of another cluster is (A12), and lets
//! nobody in but `upgrade-cluster`.

use super::{BaseFacts, LogPlace, bases_of};
use crate::base::{Classify, ErrorClass, explain};
use crate::ops::Snapshots;
use crate::ops::backup::BackupOptions;
use crate::postgres::archive::push_histories;
use crate::postgres::error::PostgresError;
use crate::postgres::lineage::{Archiver, ClusterName, Lineage, add_lineage, lineages};
use crate::repo::Repository;

/// Says whether a name is taken, and refuses a system that it is not taken by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// By this system, which is recorded.
    Recorded,
    /// By nobody, or by base backups of this system that nobody recorded.
    Open,
}

impl Claim {
    /// Finds out whether base backups of a system belong under a cluster's name.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Refused`] when the name is another system's; else when the repository cannot be read.
    pub fn look(
        repository: &Repository,
        snapshots: &Snapshots,
        cluster: &ClusterName,
        identifier: u64,
        place: &str,
    ) -> Result<Self, PostgresError> {
        let known = lineages(repository, cluster)?;
        if known.iter().any(|lineage| lineage.system_identifier == identifier) {
            return Ok(Self::Recorded);
        }
        let recorded = known.last().map(Lineage::to_string);
        // Base backups that hold their log may be all that there is of a cluster.
        let of_bases = || {
            let bases = bases_of(snapshots, cluster);
            let is_own = bases.iter().any(|base| base.facts.system_identifier == identifier);
            bases.last().filter(|_| !is_own).map(|base| describe(&base.facts))
        };
        match recorded.or_else(of_bases) {
            Some(other) => Err(refuse(cluster, identifier, place, &other)),
            None => Ok(Self::Open),
        }
    }

    /// Takes a name that is open for the system of a base backup, just before that is committed. Where this key may
    /// not write the cluster's log, or the form of the server's log is not known, the base backup itself is the claim.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Refused`] when another took the name meanwhile; else when the store fails.
    pub fn take(
        self,
        repository: &Repository,
        cluster: &ClusterName,
        backup: &BackupOptions,
        facts: &BaseFacts,
        place: &str,
    ) -> Result<(), PostgresError> {
        let Some(lineage) = Lineage::of_server(facts.system_identifier, facts.segment_size, facts.major)
            .filter(|_| self == Self::Open)
        else {
            return Ok(());
        };
        let archiver = archiver(cluster, backup);
        let known = lineages(repository, cluster)?;
        let known = match known.is_empty() {
            true => match add_lineage(repository, &archiver, 0, &lineage) {
                Err(error) if error.class() == ErrorClass::Forbidden => return Ok(()),
                added => added?,
            },
            false => known,
        };
        match known.iter().find(|known| known.system_identifier == lineage.system_identifier) {
            Some(_) => Ok(()),
            None => {
                let other = known.last().map_or_else(String::new, Lineage::to_string);
                Err(refuse(cluster, lineage.system_identifier, place, &other))
            }
        }
    }
}

fn archiver(cluster: &ClusterName, backup: &BackupOptions) -> Archiver {
    Archiver { cluster: cluster.clone(), host: backup.host.clone(), program: backup.program.clone() }
}

/// Archives the histories that lead to a base backup and that the server never handed over: it may have been promoted
/// while it did not archive. The base backup is as good without; whoever recovers beyond it is told what to do.
pub(super) fn archive_histories(
    repository: &Repository,
    cluster: &ClusterName,
    backup: &BackupOptions,
    facts: &BaseFacts,
    read: &mut dyn FnMut(u32) -> Result<Option<Vec<u8>>, PostgresError>,
) -> Vec<String> {
    if facts.log == LogPlace::Inside {
        return Vec::new();
    }
    let archiver = archiver(cluster, backup);
    match push_histories(repository, &archiver, facts.system_identifier, facts.timeline, read) {
        Ok(names) => names
            .into_iter()
            .map(|name| {
                format!("{name} was not in the archive, where recoveries look for it; it is there now")
            })
            .collect(),
        Err(error) => vec![format!(
            "whether the history of timeline {} is in the archive, without which no recovery finds that timeline, is \
             not certain: {}; pg setup --check archives it, or pg archive-push pg_wal/{:08X}.history",
            facts.timeline,
            explain(&error),
            facts.timeline
        )],
    }
}

fn describe(facts: &BaseFacts) -> String {
    format!("system identifier {}, PostgreSQL {}", facts.system_identifier, facts.major)
}

fn refuse(cluster: &ClusterName, identifier: u64, place: &str, other: &str) -> PostgresError {
    PostgresError::refused(
        format!(
            "the server at {place} is of another cluster: its system identifier is {identifier}, {cluster} has {other}"
        ),
        "back this cluster up under a name of its own (--cluster); after pg_upgrade, `pg upgrade-cluster` lets it go on \
         under the old one",
    )
}
