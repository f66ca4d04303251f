//! Which clusters have archived under a name.
//!
//! CLUSTER names one server's history. What must never mix in it are logs of different clusters (A12): every
//! system identifier has a log stream of its own, `pg/CLUSTER/IDENTIFIER`, and the stream `pg/CLUSTER`
//! lists which identifiers belong to the name, as small files `lineage-1`, `lineage-2` and so on. The first
//! cluster that archives under a free name, or has a base backup there, takes it; a further lineage is added only by
//! name, after an upgrade.

use super::segment::SegmentSize;
use super::wal::{FirstPage, WalVersion};
use crate::format::log::LogDigest;
use crate::ops::OpsError;
use crate::repo::{FoundLog, LogEntry, Repository};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// The engine, as records name it.
pub const ENGINE: &str = "postgresql";
/// Facts of records: the length of segments, and the form of the log.
const SEGMENT_SIZE: &str = "segment_size";
const VERSION: &str = "version";
/// Lineages of one name that are looked for; each upgrade makes one.
const LINEAGES_MAX: u32 = 1000;

/// The name of a cluster: letters, digits, dots, dashes and underlines, so that it can be a part of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterName(String);

impl ClusterName {
    /// Takes a name.
    ///
    /// # Errors
    ///
    /// [`OpsError::Usage`] when it has another form.
    pub fn new(name: &str) -> Result<Self, OpsError> {
        let well_formed = !name.is_empty()
            && name.len() <= 64
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        match well_formed {
            true => Ok(Self(name.to_owned())),
            false => Err(OpsError::Usage(format!(
                "{name:?} is no name for a cluster: up to 64 letters, digits, dots, dashes and underlines, \
                 a letter or digit first"
            ))),
        }
    }

    /// Returns the stream that lists the lineages.
    pub fn stream(&self) -> String {
        format!("pg/{}", self.0)
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What all segments of one stream have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The system identifier.
    pub system_identifier: u64,
    /// Length of segments.
    pub segment_size: SegmentSize,
    /// The server's major version, or the number that stands for an unknown one in the log.
    pub version: String,
}

impl Lineage {
    /// Takes the lineage from the first page of a segment.
    pub fn of(first: &FirstPage) -> Self {
        Self {
            system_identifier: first.system_identifier,
            segment_size: first.segment_size,
            version: WalVersion::name(first.version),
        }
    }

    /// Takes the lineage of a server of which no log is at hand; `None` where the form of its log is not known.
    pub fn of_server(system_identifier: u64, segment_size: SegmentSize, major: u32) -> Option<Self> {
        WalVersion::is_known(major).then(|| Self {
            system_identifier,
            segment_size,
            version: major.to_string(),
        })
    }

    /// Returns the stream that holds its log.
    pub fn stream(&self, cluster: &ClusterName) -> String {
        stream_of(cluster, self.system_identifier)
    }

    /// Returns what a record says of it.
    pub fn facts(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (SEGMENT_SIZE.to_owned(), self.segment_size.bytes().to_string()),
            (VERSION.to_owned(), self.version.clone()),
        ])
    }

    fn of_record(found: &FoundLog) -> Option<Self> {
        let record = &found.record;
        let size = record.facts.get(SEGMENT_SIZE)?.parse().ok()?;
        Some(Self {
            system_identifier: record.lineage.as_ref()?.parse().ok()?,
            segment_size: SegmentSize::new(size).ok()?,
            version: record.facts.get(VERSION)?.clone(),
        })
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.segment_size.bytes() >> 20;
        write!(
            f,
            "system identifier {}, PostgreSQL {}, segments of {mib} MiB",
            self.system_identifier, self.version
        )
    }
}

/// Returns the stream that holds the log of one system identifier under a cluster's name.
pub fn stream_of(cluster: &ClusterName, system_identifier: u64) -> String {
    format!("{}/{system_identifier}", cluster.stream())
}

/// Who archives, as records name them.
#[derive(Debug, Clone)]
pub struct Archiver {
    /// The cluster.
    pub cluster: ClusterName,
    /// The host.
    pub host: String,
    /// Name and version of the program.
    pub program: String,
}

impl Archiver {
    pub(super) fn entry(&self, stream: String, name: &str, lineage: &Lineage) -> LogEntry {
        LogEntry {
            stream,
            name: name.to_owned(),
            host: self.host.clone(),
            program: self.program.clone(),
            engine: ENGINE.to_owned(),
            lineage: Some(lineage.system_identifier.to_string()),
            facts: lineage.facts(),
            ..LogEntry::default()
        }
    }
}

/// Reads the lineages of a cluster, oldest first; none where nothing was ever archived or backed up under the name.
///
/// # Errors
///
/// When one is there but cannot be read or believed, or the store fails.
pub fn lineages(repository: &Repository, cluster: &ClusterName) -> Result<Vec<Lineage>, OpsError> {
    let mut lineages = Vec::new();
    for number in 1..=LINEAGES_MAX {
        let mut listing = repository.find_log(&cluster.stream(), &format!("lineage-{number}"))?;
        // Of several that took the name at once the first counts ([CONCURRENCY-39]).
        match (listing.found.iter().find_map(Lineage::of_record), listing.refused.pop()) {
            (Some(lineage), _) => lineages.push(lineage),
            (None, Some((_, error))) => return Err(error.into()),
            (None, None) => break,
        }
    }
    Ok(lineages)
}

/// Adds a lineage to a cluster's name, as the next of `known`; returns the lineages as they are then.
///
/// # Errors
///
/// When the key may not, or the store fails.
pub fn add_lineage(
    repository: &Repository,
    archiver: &Archiver,
    known: usize,
    lineage: &Lineage,
) -> Result<Vec<Lineage>, OpsError> {
    let name = format!("lineage-{}", known + 1);
    let entry = archiver.entry(archiver.cluster.stream(), &name, lineage);
    repository.archive_log(&entry, format!("{lineage}\n").as_bytes())?;
    lineages(repository, &archiver.cluster)
}

/// Makes sure that a log belongs to the cluster's name, which a first one takes. Bytes of another cluster
/// are recorded as a conflict and refused (A12).
///
/// # Errors
///
/// [`OpsError::Stopped`] when it belongs to another; else when the store fails.
pub(super) fn admit(
    repository: &Repository,
    archiver: &Archiver,
    offered: &Lineage,
    name: &str,
    digest: impl FnOnce() -> Result<LogDigest, OpsError>,
) -> Result<(), OpsError> {
    let cache = CachedLineage::of(repository, &archiver.cluster);
    if cache.as_ref().is_some_and(|cache| cache.holds(offered)) {
        return Ok(());
    }
    let mut known = lineages(repository, &archiver.cluster)?;
    if known.is_empty() {
        known = add_lineage(repository, archiver, 0, offered)?;
    }
    if known.contains(offered) {
        if let Some(cache) = cache {
            cache.keep(offered);
        }
        return Ok(());
    }
    let same = known.iter().find(|known| known.system_identifier == offered.system_identifier);
    let against = same.or(known.last());
    let reason = format!(
        "it is of another cluster: {offered}; {} has {}",
        archiver.cluster,
        against.map_or_else(|| "none".to_owned(), Lineage::to_string)
    );
    let stream = against.map_or_else(|| archiver.cluster.stream(), |known| known.stream(&archiver.cluster));
    repository.record_conflict(&archiver.entry(stream, name, offered), digest()?, None, &reason)?;
    Err(OpsError::Stopped {
        why: format!("{name} was refused: {reason}"),
        cure: "archive this cluster under a name of its own (--cluster); after pg_upgrade, `pg upgrade-cluster` lets it go on under the old one",
    })
}

/// What this client remembers of a name: the lineage that it archived last, so that a segment costs no
/// look at the lineages. One that was admitted once is admitted for ever.
struct CachedLineage {
    path: PathBuf,
}

impl CachedLineage {
    fn of(repository: &Repository, cluster: &ClusterName) -> Option<Self> {
        let folder = repository.environment().cache.as_ref()?.join(repository.id().to_string());
        Some(Self { path: folder.join("lineages").join(cluster.to_string()) })
    }

    fn holds(&self, lineage: &Lineage) -> bool {
        std::fs::read_to_string(&self.path).is_ok_and(|text| text == lineage.to_string())
    }

    /// Remembers; what cannot be remembered costs time only.
    fn keep(&self, lineage: &Lineage) {
        if let Some(folder) = self.path.parent()
            && std::fs::create_dir_all(folder).is_ok()
        {
            let _ = std::fs::write(&self.path, lineage.to_string());
        }
    }
}
