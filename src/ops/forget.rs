//! Forgetting: snapshots are said to be no roots any more. Their data stays until a prune.
//!
//! What is forgotten is decided by a plan that can be shown first. It is written in one step, an
//! annotation by a key that may say so; before it is durable nothing has happened, afterwards it can be
//! taken back as long as nothing was swept.

use super::catalogue;
use super::error::OpsError;
use super::retention::{Candidate, Policy, PolicyError, RetentionPlan, plan};
use super::snapshots::{SnapshotView, Snapshots};
use crate::base::{AnnotationId, KeyId, LogPackId, SnapshotId, TrustId, explain};
use crate::format::ObjectKind;
use crate::format::annotation::{Annotation, AnnotationKind};
use crate::format::snapshot::Snapshot;
use crate::format::trust::Act;
use crate::repo::{Author, Memory, Registry, RepoError, Repository};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Log packs that one annotation forgets: it has two megabytes then.
const IDS_MAX: usize = 1 << 16;
/// Roots that are named when they have vanished.
const SHOWN_MAX: usize = 5;
/// Snapshots that one annotation forgets: a catalogue holds it for each of them.
const SUBJECTS_MAX: usize = 64;

/// Refuses unless this key may forget.
///
/// # Errors
///
/// [`RepoError::Forbidden`].
pub fn require_may_forget(repository: &Repository) -> Result<(), RepoError> {
    repository.registry().may_sign(&repository.keyring().identity.key, Act::Withdraw)
}

/// Decides by a policy about the snapshots that `wanted` takes; the others are not looked at.
///
/// # Errors
///
/// [`OpsError::Usage`] for a policy that would keep nothing.
pub fn by_policy(
    repository: &Repository,
    snapshots: &Snapshots,
    policy: &Policy,
    zone: &TimeZone,
    wanted: impl Fn(&SnapshotView) -> bool,
) -> Result<RetentionPlan, OpsError> {
    let candidates: Vec<Candidate<'_>> = snapshots
        .iter()
        .filter(|view| wanted(view))
        .map(|view| Candidate {
            id: view.id,
            host: &view.snapshot.host,
            label: &view.snapshot.label,
            started: view.snapshot.started,
            stored: view.stored,
            tags: &view.tags,
            pinned: !view.pinned.is_empty(),
        })
        .collect();
    plan(&candidates, policy, zone, repository.environment().clock.now()).map_err(|error| match error {
        PolicyError::Empty => OpsError::Usage(format!("{error}; nothing was forgotten")),
        error => OpsError::Usage(error.to_string()),
    })
}

/// Checks that these snapshots, named one by one, can be forgotten; returns those that are not yet.
///
/// # Errors
///
/// [`OpsError::Usage`] for a pinned one, or where a host and label would be left without a snapshot.
pub fn by_name(
    snapshots: &Snapshots,
    named: &[SnapshotId],
    allow_remove_all: bool,
) -> Result<Vec<SnapshotId>, OpsError> {
    let mut chosen = Vec::new();
    for id in named {
        let Some(view) = snapshots.get(id) else {
            // One that does not count, or cannot be read, is ended in the same way.
            if !snapshots.refused_snapshots().any(|(refused, _)| refused == *id) {
                return Err(RepoError::NoSnapshot(id.to_string()).into());
            }
            if !snapshots.ended().contains(id) && !chosen.contains(id) {
                chosen.push(*id);
            }
            continue;
        };
        if !view.pinned.is_empty() {
            let reasons: Vec<&str> = view.pinned.iter().filter_map(|pin| pin.reason.as_deref()).collect();
            let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
            return Err(OpsError::Usage(format!(
                "snapshot {} is pinned{why}: nothing was forgotten; `chronolith unpin {0}` permits it",
                id.short()
            )));
        }
        if !view.forgotten && !chosen.contains(id) {
            chosen.push(*id);
        }
    }
    let mut left: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for view in snapshots.iter() {
        let group = (view.snapshot.host.as_str(), view.snapshot.label.as_str());
        *left.entry(group).or_default() += usize::from(!chosen.contains(&view.id));
    }
    if let Some(((host, label), _)) = left.iter().find(|(_, left)| **left == 0)
        && !allow_remove_all
    {
        return Err(OpsError::Usage(format!(
            "no snapshot of {label} on {host} would be left: nothing was forgotten; \
             --unsafe-allow-remove-all permits it"
        )));
    }
    Ok(chosen)
}

/// Says that snapshots are no roots any more; durable on return.
///
/// # Errors
///
/// [`RepoError::Forbidden`] for a key that may not say so; [`OpsError::Stopped`] where what is known of the
/// repository is not enough to forget anything safely; what the store says.
pub fn forget(
    repository: &Arc<Repository>,
    snapshots: &Snapshots,
    chosen: &[SnapshotId],
) -> Result<Vec<AnnotationId>, OpsError> {
    look_first(repository, snapshots, |all| {
        // Before anything is said, so that what is said stands under a generation that is still open.
        catalogue::gather(repository, all, catalogue::ROOTS_AT_LEAST);
    })?;
    say(repository, chosen.chunks(SUBJECTS_MAX), |annotation, part| {
        annotation.subjects = part.iter().copied().collect();
    })
}

/// Says the same of log packs and of log records by themselves; durable on return. Many are named in one
/// annotation.
///
/// # Errors
///
/// As [`forget`].
pub fn forget_logs(
    repository: &Arc<Repository>,
    snapshots: &Snapshots,
    chosen: &[LogPackId],
) -> Result<Vec<AnnotationId>, OpsError> {
    look_first(repository, snapshots, |_| ())?;
    say(repository, chosen.chunks(IDS_MAX), |annotation, part| {
        annotation.log_packs = part.iter().copied().collect();
    })
}

/// Looks whether this key may forget, and whether anything has vanished, by all snapshots that there are.
fn look_first(
    repository: &Arc<Repository>,
    snapshots: &Snapshots,
    then: impl FnOnce(&Snapshots),
) -> Result<(), OpsError> {
    require_may_forget(repository)?;
    let all;
    let snapshots = match snapshots.is_all() {
        true => snapshots,
        false => {
            all = Snapshots::load_all(repository)?;
            &all
        }
    };
    require_whole_memory(repository, snapshots)?;
    then(snapshots);
    Ok(())
}

/// Puts an annotation for each part of what is forgotten.
fn say<'a, T: 'a>(
    repository: &Repository,
    parts: impl Iterator<Item = &'a [T]>,
    name: impl Fn(&mut Annotation, &[T]),
) -> Result<Vec<AnnotationId>, OpsError> {
    let store = &repository.environment().store;
    store.draw_on_reserve(true);
    let said = parts
        .map(|part| {
            let now = repository.environment().clock.now();
            let mut annotation = Annotation::new(AnnotationKind::Forgotten, now);
            name(&mut annotation, part);
            Ok(repository.annotate(&annotation, Act::Withdraw)?)
        })
        .collect();
    store.draw_on_reserve(false);
    store.keep_reserve();
    said
}

/// Refuses to go on where something may protect snapshots that cannot be read, or where roots have
/// vanished that nobody ended ([ANNOTATION-4], [CONCURRENCY-45]).
pub(super) fn require_whole_memory(repository: &Repository, snapshots: &Snapshots) -> Result<(), OpsError> {
    require_whole_registry(repository, snapshots)?;
    for (name, error) in &snapshots.refused {
        // What its signature does not cover, or its signer may not say, protects nothing.
        if !name.starts_with("annotations/") || matches!(error, RepoError::Untrusted { .. }) {
            continue;
        }
        // Nor does what somebody put who wrote no annotation ([CONCURRENCY-54]).
        let broken = matches!(error, RepoError::Damaged { .. });
        if broken && repository.author_of(name, ObjectKind::Annotation)? != Author::Unknown {
            continue;
        }
        let why = format!("{name} cannot be read, and might be a pin ({})", explain(error));
        let cure = match error {
            RepoError::TooNew(_) => "install a newer chronolith",
            RepoError::Forbidden { .. } => "use a key that may read it",
            _ => "bring the object back from a copy of the repository, or remove it from the store by hand",
        };
        return Err(OpsError::Stopped { why, cure });
    }
    require_no_set_back(snapshots)?;
    let vanished = vanished(repository, snapshots)?;
    if vanished.is_empty() {
        return Ok(());
    }
    let shown = vanished.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    Err(OpsError::Stopped {
        why: format!(
            "{} objects that a catalogue lists are gone, and nobody has forgotten them: {shown}",
            vanished.len()
        ),
        cure: "somebody may have deleted backups: bring them back from a copy of the repository, or, where what \
               they need is still there, with `chronolith repair snapshots`",
    })
}

/// [CATALOG-6]: stops where catalogues that this client has seen are gone, and roots with them. The catalogues alone are
/// made anew.
fn require_no_set_back(snapshots: &Snapshots) -> Result<(), OpsError> {
    let Some(before) = snapshots.memory().before() else { return Ok(()) };
    let missed = before.memory.vanished(snapshots.present(), |id| snapshots.ended().contains(id));
    if before.is_whole && missed.is_empty() {
        return Ok(());
    }
    let named =
        |names: &mut dyn Iterator<Item = String>| names.take(SHOWN_MAX).collect::<Vec<_>>().join(", ");
    let gone = named(&mut before.gone.iter().map(ToString::to_string));
    let missed = match missed.is_empty() {
        true => String::new(),
        false => {
            format!("; {} objects that they list are gone: {}", missed.len(), named(&mut missed.into_iter()))
        }
    };
    Err(OpsError::Stopped {
        why: format!(
            "catalogues that this client saw before are gone, and there are no newer ones: {gone}{missed}"
        ),
        cure: "somebody may have deleted backups: bring them back from a copy of the repository; if it was set back \
               to an earlier state on purpose, remove this client's cache folder, which remembers them",
    })
}

/// Refuses to go on where newer versions of the registry of trust may be lost: who has none of the epochs and keys
/// that these added takes for rubbish what needs the rest.
fn require_whole_registry(repository: &Repository, snapshots: &Snapshots) -> Result<(), OpsError> {
    const CURE: &str = "bring the objects in trust/ back from a copy of the repository";
    let registry = repository.registry();
    if let Some(id) = registry.unread().first() {
        let why =
            format!("trust/{id} cannot be read, and might be the newest version of the registry of trust");
        return Err(OpsError::Stopped { why, cure: CURE });
    }
    match lost_version(registry, snapshots.with_forgotten().iter().map(|view| (&view.snapshot, &view.signer)))
    {
        Some((id, sequence)) => Err(OpsError::Stopped {
            why: format!(
                "trust/{id}, version {sequence} of the registry of trust, is gone: the store shows only {}",
                registry.head().0
            ),
            cure: CURE,
        }),
        None => Ok(()),
    }
}

/// Finds a version of the registry under which a snapshot was made and that is not there, by the word of those who
/// could delete everything anyhow.
pub(super) fn lost_version<'a>(
    registry: &Registry,
    snapshots: impl IntoIterator<Item = (&'a Snapshot, &'a KeyId)>,
) -> Option<(TrustId, u64)> {
    let newest = registry.head().0;
    let mut made = snapshots.into_iter().filter(|(_, signer)| registry.is_believed(signer));
    let lost = made.find(|(snapshot, _)| snapshot.trust_sequence > newest)?.0;
    Some((lost.trust, lost.trust_sequence))
}

/// Returns the names of roots and annotations that are gone though nobody has ended them ([CONCURRENCY-45]);
/// `snapshots` must be all.
pub(super) fn vanished(repository: &Repository, snapshots: &Snapshots) -> Result<BTreeSet<String>, OpsError> {
    let look = |memory: &Memory| memory.vanished(snapshots.present(), |id| snapshots.ended().contains(id));
    if let Some((name, error)) = snapshots.memory().unread().first() {
        return Err(OpsError::Stopped {
            why: format!(
                "{name} cannot be read, and might remember roots that are gone ({})",
                explain(error)
            ),
            cure: "bring the object back from a copy of the repository, or remove both of its copies from the store \
                   by hand",
        });
    }
    for id in snapshots.memory().untold() {
        repository.environment().observer.warn(&format!(
            "the catalogue {} is gone, or its signer counts no more: what it remembered of snapshots that are gone is lost",
            id.short()
        ));
    }
    let vanished = look(snapshots.memory());
    if vanished.is_empty() {
        return Ok(vanished);
    }
    // Deleted, and its end recorded, between the two listings?
    let now = look(&repository.memory()?);
    Ok(vanished.intersection(&now).cloned().collect())
}
