//! What of a cluster is kept: base backups and the log together, over all of its lineages.
//!
//! The decision is pure ([`decide`]) and can be shown; the deed has this order, and a crash after each step
//! leaves:
//! 1. base backups are forgotten: the log is all there, and the next run lets it go;
//! 2. it is looked again which base backups are left, for somebody may have pinned one;
//! 3. of the log, what was to go before and is needed by none of those is forgotten, many objects in one
//!    annotation: what a further one would have named goes the next time.
//!
//! Nothing is deleted by that: `prune` does it, after its grace.
//!
//! - `decide`: which base backups stay, and what of the log with them
//! - `going`: the objects that go

mod decide;
mod going;

pub use decide::decide;

use self::decide::{Times, decide_log, is_current};
use self::going::Going;
use crate::base::{AnnotationId, LogPackId, SnapshotId, Timestamp, explain};
use crate::format::ObjectKind;
use crate::format::session::SessionPurpose;
use crate::format::snapshot::{Snapshot, SnapshotMode};
use crate::ops::catalogue::lost_merges;
use crate::ops::forget::{forget, forget_logs};
use crate::ops::retention::{Candidate, Interval as Span, Policy, Reason};
use crate::ops::{OpsError, SnapshotView, Snapshots};
use crate::postgres::base::{BaseFacts, bases_of};
use crate::postgres::lineage::{ClusterName, Lineage};
use crate::postgres::stream::{ClusterLog, read_cluster_of};
use crate::repo::{Author, RepoError, Repository};
use crate::storage::StorageError;
use crate::timeline::{HeldBase, Interval, LogReason};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
/// A session that was not renewed for so long is none of a running backup.
const SILENT: i64 = 3 * DAY;

/// What to keep.
#[derive(Debug, Clone, Default)]
pub struct ClusterPolicy {
    /// The newest so many full base backups, and all that were made since the oldest of them.
    pub full: Option<u32>,
    /// The ordinary rules, for base backups.
    pub bases: Policy,
    /// How far back every moment stays recoverable; `None` for all that kept base backups lead to.
    pub log: Option<Span>,
    /// Lets a cluster lose its last good base backup.
    pub allow_remove_all: bool,
}

impl ClusterPolicy {
    fn rules_for_bases(&self) -> bool {
        self.full.is_some_and(|count| count > 0) || !self.bases.is_empty()
    }

    /// Says whether no rule could keep anything.
    pub fn is_empty(&self) -> bool {
        !self.rules_for_bases() && self.log.is_none()
    }
}

/// What keeps a base backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum BaseReason {
    /// A rule for snapshots.
    Rule(Reason),
    /// It was made since the oldest full one that is kept.
    Full,
    /// It ended within the window, and no rule for base backups was given.
    Window,
    /// Recovery to the beginning of the window, or of an interval in it, begins with it.
    BeginsWindow,
    /// Its log is not all archived; it may still come.
    Waiting,
    /// There would be no good one without it.
    Only,
}

impl fmt::Display for BaseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(reason) => reason.fmt(f),
            Self::Full => f.write_str("full"),
            Self::Window => f.write_str("in the window"),
            Self::BeginsWindow => f.write_str("the window begins with it"),
            Self::Waiting => f.write_str("waits for its log"),
            Self::Only => f.write_str("only good one left"),
        }
    }
}

/// What is decided about a base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseDecision {
    /// Which.
    pub id: SnapshotId,
    /// When it ended, by the server's clock.
    pub stopped: Timestamp,
    /// Its timeline.
    pub timeline: u64,
    /// Whether all the log is there that it needs.
    pub good: bool,
    /// What keeps it; nothing if it goes.
    pub reasons: BTreeSet<BaseReason>,
}

/// What is decided about one lineage of a cluster.
#[derive(Debug, Clone)]
pub struct LineagePlan {
    /// The lineage.
    pub lineage: Lineage,
    /// Base backups, oldest first.
    pub bases: Vec<BaseDecision>,
    /// What can be recovered now.
    pub before: Vec<Interval>,
    /// What can be recovered then.
    pub after: Vec<Interval>,
    /// Segments that stay, by what keeps them.
    pub kept: BTreeMap<LogReason, u64>,
    /// Runs of segments that go: the first, the last, how many.
    pub ranges: Vec<(String, String, u64)>,
    /// Segments that go.
    pub segments: u64,
    /// All files of the log that go, the segments too.
    pub files: u64,
    /// The objects that go.
    pub objects: Vec<LogPackId>,
    /// Their bytes.
    pub bytes: u64,
}

/// What is decided about a cluster.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    /// Since when every moment stays recoverable.
    pub window: Option<Timestamp>,
    /// Its lineages, oldest first.
    pub lineages: Vec<LineagePlan>,
}

impl ClusterPlan {
    /// Returns the base backups that go.
    pub fn forgotten_bases(&self) -> impl Iterator<Item = SnapshotId> {
        let decisions = self.lineages.iter().flat_map(|lineage| &lineage.bases);
        decisions.filter(|decision| decision.reasons.is_empty()).map(|decision| decision.id)
    }

    /// Returns the objects of the log that go.
    pub fn forgotten_logs(&self) -> impl Iterator<Item = LogPackId> {
        self.lineages.iter().flat_map(|lineage| lineage.objects.iter().copied())
    }
}

/// Times by which a decision is made.
#[derive(Debug, Clone, Copy)]
pub struct Present {
    /// The present, by this host's clock.
    pub now: Timestamp,
    /// When the oldest backup began that runs now, by the store's time.
    pub running_since: Option<Timestamp>,
}

/// A cluster as it was read, to be decided about.
pub struct ClusterRetention {
    repository: Arc<Repository>,
    cluster: ClusterName,
    logs: Vec<ClusterLog>,
    present: Present,
}

impl ClusterRetention {
    /// Reads what is archived of a cluster.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn read(
        repository: &Arc<Repository>,
        snapshots: &Snapshots,
        cluster: &ClusterName,
    ) -> Result<Self, OpsError> {
        // First, so that a backup that ends meanwhile is one that runs.
        let now = repository.environment().clock.now();
        let running_since = running_since(repository, now)?;
        let mut logs = read_cluster_of(repository, cluster, &bases_of(snapshots, cluster))?;
        find_lost(repository, snapshots, cluster, &mut logs)?;
        let present = Present { now, running_since };
        Ok(Self { repository: repository.clone(), cluster: cluster.clone(), logs, present })
    }

    /// Says whether there is neither log nor a base backup of the cluster.
    pub fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// Says how many objects of the log cannot be read though they may be good.
    pub fn unreadable(&self) -> usize {
        self.logs.iter().map(|log| log.damaged).sum()
    }

    /// Decides what goes.
    ///
    /// # Errors
    ///
    /// [`OpsError::Usage`] for a policy that would keep nothing; [`OpsError::Stopped`] where something that may be
    /// a base backup cannot be read.
    pub fn plan(
        &self,
        snapshots: &Snapshots,
        policy: &ClusterPolicy,
        zone: &TimeZone,
    ) -> Result<ClusterPlan, OpsError> {
        let bases = self.bases(snapshots)?;
        decide(&self.logs, &bases, policy, zone, &self.present)
    }

    /// Forgets what a plan says; durable on return.
    ///
    /// # Errors
    ///
    /// As [`forget`].
    pub fn forget(&self, snapshots: &Snapshots, plan: &ClusterPlan) -> Result<Vec<AnnotationId>, OpsError> {
        let chosen: Vec<SnapshotId> = plan.forgotten_bases().collect();
        let mut put = forget(&self.repository, snapshots, &chosen)?;
        let fresh = Snapshots::load_all(&self.repository)?;
        let left = self.bases(&fresh)?;
        let mut objects: Vec<LogPackId> = Vec::new();
        for (place, (log, lineage)) in self.logs.iter().zip(&plan.lineages).enumerate() {
            let own =
                left.iter().filter(|base| base.facts.system_identifier == log.lineage.system_identifier);
            let held: Vec<HeldBase> = own.map(|base| base.held(true)).collect();
            let times = Times::of(&self.logs, &left, &self.present);
            let decision =
                decide_log(log, &held, &times.rules(plan.window, is_current(&self.logs, &left, place)));
            let goes: HashSet<LogPackId> = Going::of(log, &decision, &times).objects.into_iter().collect();
            objects.extend(lineage.objects.iter().filter(|id| goes.contains(id)));
        }
        put.extend(forget_logs(&self.repository, &fresh, &objects)?);
        Ok(put)
    }

    /// Returns the cluster's base backups in the order of their commits; those that do not count hold their log
    /// all the same until they are forgotten ([CONCURRENCY-55]).
    fn bases(&self, snapshots: &Snapshots) -> Result<Vec<KeptBase>, OpsError> {
        let mut bases = Vec::new();
        for view in snapshots.iter() {
            let read = self.facts(&view.id.to_string(), &view.snapshot)?;
            bases.extend(read.map(|facts| KeptBase::of_view(view, facts)));
        }
        for (name, error) in snapshots.refused.iter().filter(|(name, _)| name.starts_with("snapshots/")) {
            let id = name.rsplit('/').next().and_then(|id| id.parse::<SnapshotId>().ok());
            let Some(id) = id.filter(|id| !snapshots.ended().contains(id)) else { continue };
            let snapshot = match error {
                RepoError::Untrusted { .. } => self.repository.peek_at_snapshot(name)?,
                RepoError::Damaged { .. }
                    if self.repository.author_of(name, ObjectKind::Snapshot)? != Author::Unknown =>
                {
                    None
                }
                error => {
                    return Err(OpsError::Stopped {
                        why: format!("{}, and it may be a base backup that needs its log", explain(error)),
                        cure: "bring the object back from a copy of the repository, or say that it is not \
                               needed: forget it by its id",
                    });
                }
            };
            let Some(snapshot) = snapshot else { continue };
            if let Some(facts) = self.facts(name, &snapshot)? {
                bases.push(KeptBase { doubtful: true, ..KeptBase::new(id, &snapshot, facts) });
            }
        }
        Ok(bases)
    }

    /// Reads what a snapshot remembers, if it is a base backup of this cluster.
    fn facts(&self, name: &str, snapshot: &Snapshot) -> Result<Option<BaseFacts>, OpsError> {
        let cluster = self.cluster.to_string();
        match BaseFacts::read(snapshot) {
            Ok(facts) => Ok(facts.filter(|facts| facts.cluster == cluster)),
            Err(_) if snapshot.facts.get("cluster").is_some_and(|named| *named != cluster) => Ok(None),
            Err(error) => Err(OpsError::Stopped {
                why: format!("snapshot {name}: {error}, so that nobody knows what of the log it needs"),
                cure: "install a newer chronolith, or forget that snapshot by its id",
            }),
        }
    }
}

/// Finds the merged log packs that catalogues list and that are gone: when the log before them goes they are let go, too,
/// so that nobody goes on missing them.
fn find_lost(
    repository: &Repository,
    snapshots: &Snapshots,
    cluster: &ClusterName,
    logs: &mut [ClusterLog],
) -> Result<(), OpsError> {
    let objects = logs.iter().flat_map(|log| log.files.values().chain(log.remarks.values()).flatten());
    let present: BTreeSet<LogPackId> = objects.map(|object| object.id).collect();
    if snapshots.memory().merges().all(|merge| present.contains(&merge.id)) {
        return Ok(());
    }
    let forgotten = repository.forgotten_logs()?;
    for merge in lost_merges(repository, snapshots.memory(), &present, &forgotten)? {
        let own = logs.iter_mut().find(|log| log.lineage.stream(cluster) == merge.stream);
        // One that is there and cannot be read is not lost yet.
        let gone = || {
            matches!(repository.environment().store.head(&merge.object), Err(StorageError::NotFound { .. }))
        };
        if let Some(log) = own
            && !forgotten.is_pinned(repository.registry(), &merge.id, &merge.stream)
            && gone()
        {
            log.lost.push(merge);
        }
    }
    Ok(())
}

/// Finds out since when base backups may be running: any session that writes may be one.
fn running_since(repository: &Repository, now: Timestamp) -> Result<Option<Timestamp>, OpsError> {
    let (sessions, _) = repository.sessions_as_far_as_readable()?;
    let silent = now.nanoseconds().saturating_sub(SILENT);
    let runs = sessions.values().filter(|found| {
        let session = &found.session;
        let writes = matches!(session.purpose, SessionPurpose::Write | SessionPurpose::Other(_));
        writes && !session.ended && session.renewed.nanoseconds() >= silent
    });
    Ok(runs.map(|found| found.began.unwrap_or(found.session.started)).min())
}

/// A base backup, as far as the decision must know it.
#[derive(Debug, Clone)]
pub struct KeptBase {
    /// The snapshot.
    pub id: SnapshotId,
    /// What it remembers.
    pub facts: BaseFacts,
    /// When it began, as its writer claims.
    pub started: Timestamp,
    /// When the store received it, where the store says so.
    pub stored: Option<Timestamp>,
    /// Its tags.
    pub tags: BTreeMap<String, Option<String>>,
    /// Whether a pin holds it.
    pub pinned: bool,
    /// Whether it was compared with no earlier one.
    pub full: bool,
    /// Whether it does not count: then it takes no other one's place, and no policy forgets it.
    pub doubtful: bool,
}

impl KeptBase {
    fn new(id: SnapshotId, snapshot: &Snapshot, facts: BaseFacts) -> Self {
        Self {
            id,
            facts,
            started: snapshot.started,
            stored: None,
            tags: snapshot.tags.clone(),
            pinned: false,
            full: snapshot.mode == SnapshotMode::Full || snapshot.parent.is_none(),
            doubtful: false,
        }
    }

    fn of_view(view: &SnapshotView, facts: BaseFacts) -> Self {
        let pinned = !view.pinned.is_empty();
        let tags = view.tags.clone();
        Self { stored: view.stored, tags, pinned, ..Self::new(view.id, &view.snapshot, facts) }
    }

    fn ended(&self) -> Timestamp {
        self.stored.map_or(self.facts.stopped, |stored| stored.max(self.facts.stopped))
    }

    fn held(&self, kept: bool) -> HeldBase {
        HeldBase {
            base: self.facts.log_base(self.id.to_string()),
            ended: self.ended(),
            kept,
            counts: !self.doubtful,
        }
    }

    fn candidate(&self) -> Candidate<'_> {
        // Of all hosts and lineages together: an upgrade or a failover begins no new history.
        Candidate {
            id: self.id,
            host: "",
            label: "",
            started: self.started,
            stored: self.stored,
            tags: &self.tags,
            pinned: self.pinned,
        }
    }

    fn kept_tags<'a>(&'a self, policy: &'a Policy) -> impl Iterator<Item = String> + 'a {
        let wanted = policy.tags.iter().map(|(key, _)| key);
        let has = |key: &&String| {
            let found = self.tags.get(*key);
            let asked = policy.tags.iter().filter(|(asked, _)| asked == *key);
            found.is_some_and(|found| asked.clone().any(|(_, value)| value.is_none() || found == value))
        };
        wanted.filter(has).cloned().collect::<Vec<_>>().into_iter()
    }
}
