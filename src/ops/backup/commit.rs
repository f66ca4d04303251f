//! From what is fed to a snapshot that counts: the same for all that is backed up.

use super::super::error::OpsError;
use super::super::settle::settle;
use super::super::snapshots::{LABEL_BYTES_MAX, check_label};
use super::parent::Parent;
use super::{BackupOptions, BackupReport, BasesFrom, Progress};
use crate::base::{SnapshotId, Timestamp, explain};
use crate::codec::FRAME_BYTES;
use crate::format::annotation::{Annotation, AnnotationKind, Outcome};
use crate::format::cbor::Extra;
use crate::format::session::SessionPurpose;
use crate::format::sets::IdSet;
use crate::format::snapshot::{Snapshot, SnapshotSummary};
use crate::format::trust::Act;
use crate::ingest::{Feeder, IngestOptions, ingest};
use crate::repo::{Presence, RepoError, Repository, WriteSession};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A backup that has been permitted and is about to begin.
pub(in crate::ops) struct Job {
    /// What kind of backup.
    pub kind: String,
    /// What was asked for.
    pub sources: Vec<String>,
    pub label: String,
    pub started: Timestamp,
    pub parent: Option<Parent>,
    pub progress: Progress,
    /// The snapshot of another repository that this one is to be a copy of.
    pub original: Option<Original>,
}

/// What a copy takes over from its original.
pub(in crate::ops) struct Original {
    /// The original, with the facts and tags of the copy.
    pub snapshot: Snapshot,
    /// The copy of the original's parent.
    pub parent: Option<SnapshotId>,
}

impl Original {
    /// Makes a copy of what was made to be a snapshot of its own: all that is said of the source is the original's.
    fn copied(self, new: Snapshot) -> Snapshot {
        let summary = SnapshotSummary {
            new_blobs: new.summary.new_blobs,
            new_bytes: new.summary.new_bytes,
            stored_bytes: new.summary.stored_bytes,
            ..self.snapshot.summary
        };
        Snapshot {
            root: new.root,
            parent: self.parent,
            summary,
            trust_sequence: new.trust_sequence,
            trust: new.trust,
            ..self.snapshot
        }
    }
}

/// Refuses a backup that this key may not commit, before anything is read.
pub(in crate::ops) fn permit(
    repository: &Repository,
    options: &BackupOptions,
    label: &str,
) -> Result<(), OpsError> {
    check_label(label)?;
    let host = &options.host;
    if host.is_empty() || host.len() > LABEL_BYTES_MAX || host.chars().any(char::is_control) {
        return Err(OpsError::Usage(format!(
            "{host:?} cannot be a host: a host has 1 to {LABEL_BYTES_MAX} bytes and no control characters"
        )));
    }
    repository.require_writer()?;
    let identity = repository.keyring().identity.key;
    repository.registry().may_sign(&identity, Act::Snapshot { host: &options.host, label })?;
    Ok(())
}

impl Job {
    /// Runs the backup: `feed` feeds everything and returns the facts that the snapshot is to remember.
    /// The steps are those at the top of [`super`].
    pub fn run<E: From<OpsError> + From<RepoError>>(
        self,
        repository: &Arc<Repository>,
        options: &BackupOptions,
        feed: impl FnOnce(
            &mut Feeder,
            &WriteSession,
            Option<&Parent>,
            &mut Progress,
        ) -> Result<BTreeMap<String, String>, E>,
    ) -> Result<BackupReport, E> {
        let Self { kind, sources, label, started, parent, mut progress, original } = self;
        // What dead writers left takes room that may be needed now. Who may not remove it leaves it to others.
        let _ = repository.environment().store.clean();
        // [CONCURRENCY-10]: a session first, then the look at what can be relied on.
        let presence =
            Presence::begin(repository, SessionPurpose::Write, IdSet::default(), &options.program)?;
        let session = WriteSession::begin(repository)?;
        let (bases, advice) = options.find_bases(repository);
        progress.advice.extend(advice.filter(|_| parent.is_some()));
        let ingest_options = IngestOptions {
            effort: options.effort,
            frame_bytes: FRAME_BYTES,
            differences: bases != BasesFrom::Nowhere,
            workers: options.workers,
        };
        let mut facts = BTreeMap::new();
        let ingested = ingest(&session, &ingest_options, |feeder| {
            facts = feed(feeder, &session, parent.as_ref(), &mut progress)?;
            Ok::<_, E>(())
        })?;
        let finished = session.finish()?;
        let counts = finished.counts();
        let differences = counts.differences.load(Ordering::Relaxed);
        let sum = |numbers: &[std::sync::atomic::AtomicU64; 2]| {
            numbers.iter().map(|number| number.load(Ordering::Relaxed)).sum::<u64>()
        };
        let summary = SnapshotSummary {
            files: ingested.counts.files,
            directories: ingested.counts.directories,
            others: ingested.counts.others,
            bytes: ingested.counts.bytes,
            new_blobs: sum(&counts.new_blobs),
            new_bytes: sum(&counts.new_bytes),
            stored_bytes: counts.stored_bytes.load(Ordering::Relaxed),
            unreadable: progress.problems.len() as u64,
            unchanged_files: progress.unchanged_files,
            extra: Extra::new(),
        };
        if repository.environment().observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        settle(repository, &presence, &[ingested.root])?;
        let (trust_sequence, trust) = repository.registry().head();
        let snapshot = Snapshot {
            host: options.host.clone(),
            label: label.clone(),
            user: options.user.clone(),
            started,
            ended: repository.environment().clock.now(),
            parent: parent.as_ref().map(|parent| parent.id),
            mode: options.mode,
            sources,
            root: ingested.root,
            summary: summary.clone(),
            program: options.program.clone(),
            tags: options.tags.iter().cloned().collect(),
            trust_sequence,
            trust,
            kind,
            facts,
            extra: Extra::new(),
        };
        let snapshot = match original {
            Some(original) => original.copied(snapshot),
            None => snapshot,
        };
        let committed = repository.put_snapshot(&snapshot)?;
        let id = SnapshotId::from(committed.id);
        // Whether the session has lapsed before the commit shows by the store's time of a renewal after it.
        let settled = presence.renew().map_err(OpsError::from);
        let settled = settled.and_then(|()| settle(repository, &presence, &[ingested.root]));
        // [CONCURRENCY-22]: a catalogue may have been made meanwhile.
        let settled = settled.and_then(|_| repository.stay_found(&committed).map_err(OpsError::from));
        let settled = settled.and_then(|()| require_in_service(repository));
        if let Err(error) = settled {
            report_failed(repository, id, &error);
            return Err(OpsError::Unsettled { snapshot: id, source: Box::new(error) }.into());
        }
        drop(presence);
        if let Some(cache) = repository.base_cache() {
            cache.settle(repository.environment().clock.now());
        }
        Ok(BackupReport {
            snapshot: Some(id),
            host: options.host.clone(),
            label,
            parent: snapshot.parent,
            summary,
            differences,
            bases,
            problems: progress.problems,
            advice: progress.advice,
        })
    }
}

/// [CONCURRENCY-60]: refuses success to a key that went out of service meanwhile: nobody waited for its session, so that what the snapshot
/// needs may have been swept.
fn require_in_service(repository: &Repository) -> Result<(), OpsError> {
    if repository.is_in_service()? {
        return Ok(());
    }
    Err(OpsError::Stopped {
        why: "the key went out of service while this backup was running, and what it needs may have been deleted meanwhile"
            .to_owned(),
        cure: "run it again with another key",
    })
}

/// [CONCURRENCY-23]: says of a committed snapshot that it lacks something.
fn report_failed(repository: &Repository, id: SnapshotId, error: &OpsError) {
    if !matches!(error, OpsError::Repo(RepoError::Missing { .. })) {
        return;
    }
    let now = repository.environment().clock.now();
    let mut failed = Annotation::new(AnnotationKind::Verified, now);
    failed.subjects = [id].into_iter().collect();
    failed.method = Some("structure".to_owned());
    failed.outcome = Some(Outcome::Failed);
    failed.value = Some(explain(error));
    if let Err(error) = repository.annotate(&failed, Act::Verified) {
        let why = explain(&error);
        let text = format!("cannot note that snapshot {} lacks something: {why}", id.short());
        repository.environment().observer.warn(&text);
    }
}
