//! Restoring a base backup, so that a server recovers from it to a moment.
//!
//! Everything that can be known is looked at before the first byte is written ([`ClusterRestore::prepare`]);
//! the order of writing is that of [`ClusterRestore::run`].
//!
//! - `archiving`: whether a cluster that stands there archives
//! - `brought`: the log that a restored server needs, beside it
//! - `choice`: the base backup and the log that a target needs, or why there are none
//! - `contained`: a restored cluster that reaches nothing outside of a folder
//! - `inside`: what the log in a restored data directory says of the files beside it
//! - `place`: what stands where the restore would write
//! - `programs`: the server's programs on this host
//! - `refusal`: why a target cannot be reached, in words, and what can be
//! - `rescue`: what only a cluster that stands there has of its log
//! - `settings`: what the restored server is told
//! - `writing`: the writing side

mod archiving;
mod brought;
mod choice;
mod contained;
mod inside;
mod place;
mod programs;
mod refusal;
mod rescue;
mod settings;
mod writing;

pub(super) use place::servers_in;
pub use place::{Standing, TablespacePlace};
pub(super) use programs::as_owner;
pub use programs::{Awaited, find_programs, start};
pub use rescue::{LeftOut, Rescuer, Unarchived};

use super::base::{BackupLabel, Base, bases_of, read_control};
use super::control::ControlFile;
use super::error::PostgresError;
use super::layout::RelationId;
use super::lineage::{ClusterName, Lineage, stream_of};
use super::stream::read_cluster;
use crate::base::SnapshotId;
use crate::format::session::SessionPurpose;
use crate::ops::OpsError;
use crate::ops::Snapshots;
use crate::ops::cat::cat;
use crate::ops::listing::{Found, locate};
use crate::repo::{Presence, Repository};
use crate::timeline::{LogStream, RecoveryPlan, Refusal, Target};
use choice::Choice;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Which timeline is recovered along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeline {
    /// The newest that the backup leads to.
    Latest,
    /// That of the backup.
    OfBase,
    /// This one.
    Number(u64),
}

/// What the server does once it has come to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryAction {
    /// It becomes an ordinary server, on a new timeline.
    Promote,
    /// It waits, and can be read.
    Pause,
    /// It shuts down.
    Shutdown,
}

/// How to restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Where the data directory is to be.
    pub data_directory: PathBuf,
    /// Where the recovery is to end.
    pub target: Target,
    /// Ends before the target instead of behind it, for those targets that do not say so themselves.
    pub exclusive: bool,
    /// Along which timeline.
    pub timeline: Timeline,
    /// What happens then.
    pub action: RecoveryAction,
    /// From this base backup, instead of the newest that allows the target.
    pub base: Option<SnapshotId>,
    /// Though the log has a hole, before which the recovery ends.
    pub up_to_gap: bool,
    /// As a standby, which goes on and on.
    pub standby: bool,
    /// Over the same cluster, of which only what differs is written.
    pub delta: bool,
    /// Over anything, without the server's programs, and into tablespaces of others that the log creates.
    pub force: bool,
    /// New places of tablespaces, by their old paths or their numbers.
    pub tablespaces: BTreeMap<String, PathBuf>,
    /// Settings for the restored server.
    pub settings: Vec<(String, String)>,
    /// The command by which the server fetches its log, where something is archived.
    pub restore_command: Option<String>,
    /// Brings the log that the recovery needs into the data directory, so that the server fetches none.
    pub bring_log: bool,
    /// Folders in which the server's programs may be.
    pub programs: Vec<PathBuf>,
    /// Folders that must not be written to.
    pub protected: Vec<PathBuf>,
    /// Keeps the restored server within this folder, in which the data directory is to be: tablespaces go below it,
    /// its configuration is generated, and log that reaches elsewhere is refused.
    pub contained: Option<PathBuf>,
}

impl RestoreOptions {
    /// A restore into a new place, to the end of the log.
    pub fn new(data_directory: PathBuf) -> Self {
        Self {
            data_directory,
            target: Target::Latest,
            exclusive: false,
            timeline: Timeline::Latest,
            action: RecoveryAction::Promote,
            base: None,
            up_to_gap: false,
            standby: false,
            delta: false,
            force: false,
            tablespaces: BTreeMap::new(),
            settings: Vec::new(),
            restore_command: None,
            bring_log: false,
            programs: Vec::new(),
            protected: Vec::new(),
            contained: None,
        }
    }
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Files that are whole now.
    pub files: u64,
    /// Those of them of which nothing had to be written.
    pub unchanged_files: u64,
    /// Length of all files.
    pub bytes: u64,
    /// Bytes that had to be written.
    pub written_bytes: u64,
    /// What was removed.
    pub removed: u64,
    /// What of the log of the cluster that stood there was archived first.
    pub archived: Vec<String>,
    /// Where control file and log of the cluster are that stood there.
    pub kept_aside: Option<PathBuf>,
}

/// What must be written last, in memory.
struct Vital {
    label: Vec<u8>,
    control: Vec<u8>,
    map: Option<Vec<u8>>,
}

/// A restore that has been checked and can be shown or run.
pub struct ClusterRestore {
    repository: Arc<Repository>,
    options: RestoreOptions,
    /// The base backup.
    pub base: Base,
    /// What of the log is needed.
    pub plan: RecoveryPlan,
    /// What stands where the data directory is to be.
    pub standing: Standing,
    /// What only the cluster that stands there has of its log: it is archived first.
    pub unarchived: Vec<Unarchived>,
    /// What of that does not come into the archive, and is only kept aside.
    pub left_out: Vec<(Unarchived, LeftOut)>,
    /// What of the rest is archived by now, once that was done.
    rescued: Option<Vec<String>>,
    /// Where tablespaces go.
    pub places: Vec<TablespacePlace>,
    /// Where the server's programs are.
    pub programs: Option<PathBuf>,
    /// Whether there is an archive to recover from, beside what the backup holds.
    pub archived: bool,
    /// Whose log the archive holds.
    lineage: Option<Lineage>,
    /// Relations of which the archived log says that they are unlogged.
    init_forks: BTreeSet<RelationId>,
    vital: Vital,
}

impl ClusterRestore {
    /// Checks a restore, without writing anything.
    ///
    /// # Errors
    ///
    /// When there is no base backup for it, the target cannot be reached, the place is in use, the server's
    /// programs are not there, there is no room, or the backup cannot be read.
    pub fn prepare(
        repository: &Arc<Repository>,
        cluster: &ClusterName,
        mut options: RestoreOptions,
    ) -> Result<Self, PostgresError> {
        repository.load_index()?;
        let bases = bases_of(&Snapshots::load(repository)?, cluster);
        let newest = match options.base {
            Some(id) => bases.iter().find(|base| base.view.id == id),
            None => bases.last(),
        };
        let newest = newest.ok_or_else(|| PostgresError::NotFound {
            why: match options.base {
                Some(id) => format!("snapshot {} is no base backup of {cluster}", id.short()),
                None => format!("there is no base backup of {cluster}"),
            },
            cure: format!("chronolith snapshots --label {cluster} shows what there is"),
        })?;
        let logs = read_cluster(repository, cluster)?;
        let lineage = choice::lineage_for(repository, &bases, &logs, &options)?;
        let of_lineage = bases.iter().rev().find(|base| Some(base.facts.system_identifier) == lineage);
        let newest = of_lineage.filter(|_| options.base.is_none()).unwrap_or(newest);
        let identifier = newest.facts.system_identifier;
        let segment_bytes = newest.facts.segment_size.bytes();
        let log = logs.into_iter().find(|log| log.lineage.system_identifier == identifier);
        let log = log.filter(|log| !log.is_unused());
        let archived = log.is_some();
        let stream = log.as_ref().map_or_else(|| LogStream::new(segment_bytes), |log| log.stream.clone());
        if !archived || options.bring_log {
            options.restore_command = None;
        }
        let wanted = |base: &&Base| {
            base.facts.system_identifier == identifier && options.base.is_none_or(|id| base.view.id == id)
        };
        let usable: Vec<&Base> = bases.iter().filter(wanted).collect();
        let choice = Choice::new(repository, &usable, stream, archived, &options)?;
        let plan = choice.plan()?;
        let base = bases.iter().find(|base| base.view.id.to_string() == plan.base).cloned();
        let base = base.ok_or_else(|| choice.explain(&Refusal::NoBase))?;
        let standing = place::look(&options, &base)?;
        let found = match (standing, &log, read_control(&options.data_directory)) {
            // Where nothing is archived, what is kept aside is all there is to keep.
            (Standing::Cluster, Some(log), Ok((_, control))) if control.system_identifier == identifier => {
                rescue::look(repository, cluster, &options.data_directory, &control, log)?
            }
            _ => rescue::Found::default(),
        };
        let places = place::tablespaces(&options, &base.facts, standing)?;
        if let Some(log) = log.as_ref().filter(|_| !found.unarchived.is_empty()) {
            // What it leads to must be possible too: once it is archived it cannot be taken back.
            let (stream, created) = rescue::rehearse(log, &found.unarchived)?;
            let plan = choice.with(stream).plan().map_err(with_unarchived)?;
            for (segment, created) in created.iter().filter(|(name, _)| plan.segments.contains(name)) {
                place::check_created(&options, &base.facts, &places, segment, created)?;
            }
        }
        let created = match &log {
            Some(log) => log.creations(repository, cluster, &plan.segments)?,
            None => BTreeMap::new(),
        };
        let unknown =
            choice.stream.segments().filter(|segment| !segment.known).map(|segment| segment.name.as_str());
        let unknown: BTreeSet<&str> = unknown.collect();
        for segment in &plan.segments {
            let created = created.get(segment).map_or(&[][..], |created| &created.tablespaces);
            if options.contained.is_some() {
                contained::check_created(segment, created)?;
                if unknown.contains(segment.as_str()) {
                    return Err(contained::refuse_unknown(segment));
                }
            }
            place::check_created(&options, &base.facts, &places, segment, created)?;
        }
        if standing == Standing::Nothing {
            let log = if options.bring_log { plan.segment_count.saturating_mul(segment_bytes) } else { 0 };
            place::check_room(&options, &places, base.view.snapshot.summary.bytes.saturating_add(log))?;
        }
        let programs = match find_programs(&options.programs, base.facts.major) {
            Ok(folder) => Some(folder),
            Err(_) if options.force => None,
            Err(error) => return Err(error),
        };
        let vital = Vital::read(repository, &base)?;
        let lineage = log.map(|log| log.lineage);
        let init_forks = created.into_values().flat_map(|created| created.init_forks).collect();
        let repository = repository.clone();
        Ok(Self {
            repository,
            options,
            base,
            plan,
            standing,
            unarchived: found.unarchived,
            left_out: found.left_out,
            rescued: None,
            places,
            programs,
            archived,
            lineage,
            init_forks,
            vital,
        })
    }

    /// Says to whoever deletes that the backup and its log are read; both stay until the session is dropped
    /// ([CONCURRENCY-13]). For as long as the server fetches log, not only for as long as files are written.
    ///
    /// # Errors
    ///
    /// When the session cannot be stored, as in a store that can only be read.
    pub fn hold(&self, program: &str) -> Result<Presence, PostgresError> {
        let facts = &self.base.facts;
        let stream = stream_of(&ClusterName::new(&facts.cluster)?, facts.system_identifier);
        let base = [self.base.view.id].into_iter().collect();
        Ok(Presence::begin_reading(&self.repository, SessionPurpose::Read, base, vec![stream], program)?)
    }

    /// Returns the timeline that the server is told to recover along; `None` for that of its control file,
    /// where no history of it is archived: the server takes no number that it finds no history of.
    fn named_timeline(&self) -> Option<u64> {
        let timeline = self.plan.timeline;
        let of_control = ControlFile::parse(&self.vital.control).map(|control| u64::from(control.timeline));
        let is_known = timeline == 1 || self.plan.histories.contains(&timeline);
        (is_known || of_control.ok() != Some(timeline)).then_some(timeline)
    }

    /// Adds settings for the restored server.
    pub fn set(&mut self, settings: Vec<(String, String)>) {
        self.options.settings.extend(settings);
    }

    /// Lets the server fetch its log with another command, where something is archived.
    pub fn fetch_with(&mut self, command: String) {
        if self.archived && !self.options.bring_log {
            self.options.restore_command = Some(command);
        }
    }

    /// Returns the last segment that the recovery needs.
    pub fn last_segment(&self) -> Option<String> {
        let of_base = || self.base.facts.needed_segments().last().map(ToString::to_string);
        self.plan.last_segment.clone().or_else(of_base)
    }

    /// Says what the server will have come to once it is at its target.
    pub fn awaited(&self) -> Awaited {
        match self.options.action {
            _ if self.options.standby => Awaited::Reading,
            _ if self.options.target == Target::Latest => Awaited::Promotion,
            RecoveryAction::Promote => Awaited::Promotion,
            RecoveryAction::Pause => Awaited::Reading,
            RecoveryAction::Shutdown => Awaited::Shutdown,
        }
    }
}

/// Says of a refusal that it comes of log that is not archived yet.
fn with_unarchived(error: PostgresError) -> PostgresError {
    match error {
        PostgresError::Refused { why, cure } => PostgresError::Refused {
            why: format!(
                "with the log that only the cluster there has, and that would be archived first: {why}"
            ),
            cure,
        },
        error => error,
    }
}

/// Reads a small file of a base backup; `None` where there is none.
fn read_file(
    repository: &Arc<Repository>,
    base: &Base,
    path: &str,
) -> Result<Option<Vec<u8>>, PostgresError> {
    let names: Vec<Vec<u8>> = path.split('/').map(|name| name.as_bytes().to_vec()).collect();
    let entry = match locate(repository, &base.view.snapshot.root, &names) {
        Ok(Found::Leaf(entry)) => entry,
        Ok(Found::Folder { .. }) | Err(OpsError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(content) = entry.content else { return Ok(None) };
    let mut bytes = Vec::new();
    cat(repository, path, &content, &mut bytes)?;
    Ok(Some(bytes))
}

impl Vital {
    /// Reads what is written last, and so proves first that this key can read the backup.
    fn read(repository: &Arc<Repository>, base: &Base) -> Result<Self, PostgresError> {
        let file = |name: &str| read_file(repository, base, &format!("vital/{name}"));
        let damaged = |name: &str| PostgresError::Damaged {
            what: format!("{name} of base backup {}", base.view.id.short()),
            why: "is missing or cannot be used".to_owned(),
        };
        let label = file("backup_label")?.filter(|label| BackupLabel::parse(label).is_some());
        let control = file("pg_control")?.filter(|control| {
            ControlFile::parse(control)
                .is_ok_and(|control| control.system_identifier == base.facts.system_identifier)
        });
        Ok(Self {
            label: label.ok_or_else(|| damaged("backup_label"))?,
            control: control.ok_or_else(|| damaged("pg_control"))?,
            map: file("tablespace_map")?,
        })
    }
}
