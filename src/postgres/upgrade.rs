//! After `pg_upgrade` a cluster is another one: a new system identifier, and a log that begins anew. Under its name
//! it goes on as a further lineage, beside which the old one stays as it is.

use super::archive::first_page_in;
use super::base::{bases_of, read_control};
use super::error::PostgresError;
use super::lineage::{Archiver, ClusterName, Lineage, add_lineage, lineages};
use crate::ops::{OpsError, Snapshots};
use crate::repo::Repository;
use std::path::Path;
use std::sync::Arc;

/// An upgrade that was looked at and may be recorded.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// The lineages so far, oldest first.
    pub known: Vec<Lineage>,
    /// How many of them are recorded.
    recorded: usize,
    /// The one that begins.
    pub lineage: Lineage,
}

impl Upgrade {
    /// Looks at the data directory of the upgraded server.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Refused`] when nothing was ever archived under the name, the system is one that the name
    /// has already, or its version is an older one; else when the directory cannot be read.
    pub fn look(
        repository: &Arc<Repository>,
        archiver: &Archiver,
        data_directory: &Path,
    ) -> Result<Self, PostgresError> {
        let cluster = &archiver.cluster;
        let mut known = lineages(repository, cluster)?;
        let recorded = known.len();
        if known.is_empty() {
            known = of_bases(repository, cluster)?;
        }
        let (_, control) = read_control(data_directory)?;
        let Some(last) = known.last() else {
            return Err(PostgresError::refused(
                format!(
                    "nothing was ever archived or backed up under the cluster's name {cluster} here, so that there is nothing to go on from"
                ),
                "check the name; a new cluster needs no upgrade: it takes its name with the first file that it archives, or its first base backup",
            ));
        };
        if let Some(same) = known.iter().find(|known| known.system_identifier == control.system_identifier) {
            return Err(PostgresError::refused(
                format!(
                    "{} is of a system that {cluster} has already ({same}): it was not upgraded",
                    data_directory.display()
                ),
                "run pg_upgrade first, and give the data directory of the new server",
            ));
        }
        let first =
            first_page_in(&data_directory.join("pg_wal"), control.system_identifier).ok_or_else(|| {
                PostgresError::refused(
                    format!(
                        "{} holds no segment of the new system's log",
                        data_directory.join("pg_wal").display()
                    ),
                    "start the upgraded server once",
                )
            })?;
        let lineage = Lineage::of(&first);
        let number = |version: &str| version.parse::<u32>().ok();
        if number(&lineage.version).zip(number(&last.version)).is_some_and(|(new, old)| new < old) {
            return Err(PostgresError::refused(
                format!(
                    "{} is of version {}, which is older than {}",
                    data_directory.display(),
                    lineage.version,
                    last.version
                ),
                "give the data directory of the server that pg_upgrade made",
            ));
        }
        Ok(Self { known, recorded, lineage })
    }

    /// Begins the lineage: from here on the new server archives under the name.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Failed`] when somebody else began another one meanwhile; when this key may not write the
    /// cluster's log, or the store fails.
    pub fn record(&self, repository: &Repository, archiver: &Archiver) -> Result<(), PostgresError> {
        for (number, lineage) in self.known.iter().enumerate().skip(self.recorded) {
            add_lineage(repository, archiver, number, lineage)?;
        }
        let now = add_lineage(repository, archiver, self.known.len(), &self.lineage)?;
        match now.contains(&self.lineage) {
            true => Ok(()),
            false => Err(PostgresError::failed(
                format!("somebody else began another lineage of {} at the same moment", archiver.cluster),
                "chronolith pg timeline shows which; run it again",
            )),
        }
    }
}

/// Returns the systems of the base backups under a name that nobody recorded, oldest first.
fn of_bases(repository: &Arc<Repository>, cluster: &ClusterName) -> Result<Vec<Lineage>, OpsError> {
    let mut found: Vec<Lineage> = Vec::new();
    for base in bases_of(&Snapshots::load(repository)?, cluster) {
        let facts = &base.facts;
        let lineage = Lineage::of_server(facts.system_identifier, facts.segment_size, facts.major);
        found.extend(lineage.filter(|lineage| !found.contains(lineage)));
    }
    Ok(found)
}
