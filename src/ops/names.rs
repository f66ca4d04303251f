//! Which snapshot a name means: an id or the beginning of one, a label, a label at a time.
//!
//! A name means the same for every command, because it is looked up here only.

use super::copy::copied_from;
use super::error::OpsError;
use super::repair::repaired_from;
use super::time::{read_time, show_time};
use super::vouched::Vouched;
use crate::base::{AnnotationId, KeyId, ObjectId, SnapshotId, Timestamp};
use crate::format::ObjectKind;
use crate::format::annotation::{Annotation, AnnotationKind, Outcome};
use crate::format::catalog::CatalogEnd;
use crate::format::snapshot::Snapshot;
use crate::format::trust::Act;
use crate::repo::{
    ForgottenLogs, FoundAnnotation, Memory, RepoError, Repository, RootsWanted, StoredRoot, Told,
};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Fewest digits of an id that stand for the whole.
const PREFIX_DIGITS_MIN: usize = 8;
/// Most bytes of a label.
pub const LABEL_BYTES_MAX: usize = 255;
/// The name of the newest snapshot of all.
const LATEST: &str = "latest";

/// That a snapshot must not be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The annotation, which an unpin names.
    pub id: AnnotationId,
    /// Why.
    pub reason: Option<String>,
}

/// Something that was said about a snapshot and still holds: a tag, a pin, a note, a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The annotation.
    pub id: AnnotationId,
    /// What it says.
    pub kind: AnnotationKind,
    /// Key of a tag.
    pub key: Option<String>,
    /// Value of a tag, reason of a pin, text of a note, what a verification found.
    pub value: Option<String>,
    /// How it was verified.
    pub method: Option<String>,
    /// How a verification ended.
    pub outcome: Option<Outcome>,
    /// Who said it.
    pub signer: KeyId,
    /// When, by the clock of that host.
    pub created: Timestamp,
}

impl Said {
    fn new(found: &FoundAnnotation) -> Self {
        let annotation = &found.annotation;
        Self {
            id: found.id,
            kind: annotation.kind,
            key: annotation.key.clone(),
            value: annotation.value.clone(),
            method: annotation.method.clone(),
            outcome: annotation.outcome,
            signer: found.signer,
            created: annotation.created,
        }
    }
}

/// A snapshot with all that was said about it since.
#[derive(Debug, Clone)]
pub struct SnapshotView {
    /// Its id.
    pub id: SnapshotId,
    /// Its content.
    pub snapshot: Snapshot,
    /// Who signed it.
    pub signer: KeyId,
    /// When the store received it, where the store says so.
    pub stored: Option<Timestamp>,
    /// The order in which a catalogue first saw it.
    pub number: Option<u64>,
    /// Its tags: those it was made with and later ones, without those taken off.
    pub tags: BTreeMap<String, Option<String>>,
    /// The pins that hold it; it is pinned while there is one.
    pub pinned: Vec<Pin>,
    /// That it is no root any more. Never true of a pinned one.
    pub forgotten: bool,
    /// The annotations that say so, which an undelete names.
    pub forgotten_by: Vec<AnnotationId>,
    /// Notes in the order in which they were made.
    pub notes: Vec<String>,
    /// What was said about it and still holds, in the order in which it was said.
    pub said: Vec<Said>,
}

/// All snapshots of a repository, oldest first.
pub struct Snapshots {
    repository: Arc<Repository>,
    views: Vec<SnapshotView>,
    places: HashMap<SnapshotId, usize>,
    zone: TimeZone,
    host: Option<String>,
    ended: HashSet<SnapshotId>,
    /// The annotation by which each snapshot that is not there was forgotten, as far as one says so.
    ended_by: HashMap<SnapshotId, AnnotationId>,
    /// All that was said, in the order in which it was said, whether it counts or not.
    annotations: Vec<(AnnotationId, Annotation)>,
    memory: Memory,
    is_all: bool,
    stored: Vec<StoredRoot>,
    present: HashSet<ObjectId>,
    forgotten_logs: ForgottenLogs,
    vouched: Vouched,
    /// Objects that do not count, by name, and why: the caller reports them.
    pub refused: Vec<(String, RepoError)>,
}

/// Says whether a text can be a label: not empty, no `:` `@` or control characters, and not to be
/// taken for an id or for `latest`.
pub fn is_label(text: &str) -> bool {
    let id = text.len() >= PREFIX_DIGITS_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    !text.is_empty()
        && !id
        && text != LATEST
        && text.len() <= LABEL_BYTES_MAX
        && !text.contains(|c: char| c == ':' || c == '@' || c.is_control())
}

/// Refuses what cannot be a label.
///
/// # Errors
///
/// [`OpsError::Usage`] with the rule.
pub fn check_label(text: &str) -> Result<(), OpsError> {
    if is_label(text) {
        return Ok(());
    }
    Err(OpsError::Usage(format!(
        "{text:?} cannot be a label: a label has no ':', no '@', no control characters and at most {LABEL_BYTES_MAX} bytes, \
         and is neither {LATEST:?} nor eight or more hexadecimal digits"
    )))
}

impl Snapshots {
    /// Reads the snapshots that there are to show and to restore, and what was said about them: those of closed
    /// generations as catalogues tell of them.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn load(repository: &Arc<Repository>) -> Result<Self, OpsError> {
        Self::load_wanted(repository, RootsWanted::Shown)
    }

    /// Reads all snapshots that lie in the store, and what was said about them: whoever forgets or deletes looks
    /// at no less ([CONCURRENCY-44]).
    ///
    /// # Errors
    ///
    /// As [`Snapshots::load`].
    pub fn load_all(repository: &Arc<Repository>) -> Result<Self, OpsError> {
        Self::load_wanted(repository, RootsWanted::All)
    }

    fn load_wanted(repository: &Arc<Repository>, wanted: RootsWanted) -> Result<Self, OpsError> {
        let roots = repository.roots(wanted)?;
        let mut refused = roots.snapshots.refused;
        refused.extend(roots.annotations.refused);
        let mut views: Vec<SnapshotView> = roots
            .snapshots
            .found
            .into_iter()
            .map(|found| SnapshotView {
                id: found.id,
                tags: found.snapshot.tags.clone(),
                snapshot: found.snapshot,
                signer: found.signer,
                stored: found.stored,
                number: found.number,
                pinned: Vec::new(),
                forgotten: false,
                forgotten_by: Vec::new(),
                notes: Vec::new(),
                said: Vec::new(),
            })
            .collect();
        sort_by_commit(&mut views);
        let mut found = roots.annotations.found;
        found.sort_by_key(|annotation| (annotation.annotation.created, annotation.id));
        let places: HashMap<SnapshotId, usize> =
            views.iter().enumerate().map(|(place, view)| (view.id, place)).collect();
        let ended_by = apply(repository, &mut views, &places, &found, &roots.memory, &mut refused);
        let mut ended: HashSet<SnapshotId> = ended_by.keys().copied().collect();
        let recorded = roots.memory.ends().filter(|end| end.kind == ObjectKind::Snapshot);
        let recorded = recorded.map(|end| SnapshotId::from(end.id));
        ended
            .extend(recorded.filter(|id| !places.contains_key(id) && !roots.present.contains(&(*id).into())));
        let forgotten_logs = ForgottenLogs::of(repository.registry(), &found);
        let vouched = Vouched::of(repository.registry(), &found);
        let annotations = found.into_iter().map(|found| (found.id, found.annotation)).collect();
        Ok(Self {
            repository: repository.clone(),
            views,
            places,
            zone: TimeZone::UTC,
            host: None,
            ended,
            ended_by,
            forgotten_logs,
            vouched,
            annotations,
            memory: roots.memory,
            is_all: roots.is_all,
            stored: roots.stored,
            present: roots.present,
            refused,
        })
    }

    /// Returns what catalogues say.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Says whether all that lies in the store was looked at.
    pub fn is_all(&self) -> bool {
        self.is_all
    }

    /// Returns all snapshots and annotations that count as they lie in the store, as far as they were listed there.
    pub(super) fn stored(&self) -> &[StoredRoot] {
        &self.stored
    }

    /// Returns the ids of all that was listed in the store, counting or not.
    pub(super) fn present(&self) -> &HashSet<ObjectId> {
        &self.present
    }

    /// Returns the annotations by which snapshots were forgotten that are not there any more.
    pub(super) fn ended_by(&self) -> &HashMap<SnapshotId, AnnotationId> {
        &self.ended_by
    }

    /// Returns all annotations whose signatures hold.
    pub(super) fn annotations(&self) -> &[(AnnotationId, Annotation)] {
        &self.annotations
    }

    /// Returns the packs that owners vouch for.
    pub(super) fn vouched(&self) -> &Vouched {
        &self.vouched
    }

    /// Sets the time zone in which times without an offset are understood; without it that is UTC.
    #[must_use]
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        self.zone = zone;
        self
    }

    /// Sets the host whose snapshots a label means where several hosts have some under it.
    #[must_use]
    pub fn on_host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Returns all snapshots that are not forgotten, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &SnapshotView> {
        self.views.iter().filter(|view| !view.forgotten)
    }

    /// Returns all snapshots, the forgotten ones too, oldest first.
    pub fn with_forgotten(&self) -> &[SnapshotView] {
        &self.views
    }

    /// Returns the snapshots that are not there and were forgotten by a key that may.
    pub fn ended(&self) -> &HashSet<SnapshotId> {
        &self.ended
    }

    /// Returns what was said of log packs: which are roots no more.
    pub fn forgotten_logs(&self) -> &ForgottenLogs {
        &self.forgotten_logs
    }

    /// Finds a snapshot by its id.
    pub fn get(&self, id: &SnapshotId) -> Option<&SnapshotView> {
        self.views.get(*self.places.get(id)?)
    }

    /// Returns the ids of snapshots that do not count or cannot be read, and why.
    pub fn refused_snapshots(&self) -> impl Iterator<Item = (SnapshotId, &RepoError)> {
        self.refused.iter().filter_map(|(name, error)| {
            let id = name.strip_prefix("snapshots/")?.rsplit('/').next()?.parse().ok()?;
            Some((id, error))
        })
    }

    /// Finds the snapshot that a name means, one that does not count or cannot be read too, by its id.
    ///
    /// # Errors
    ///
    /// As [`Snapshots::resolve`].
    pub fn resolve_any(&self, name: &str) -> Result<SnapshotId, OpsError> {
        let error = match self.resolve(name) {
            Ok(view) => return Ok(view.id),
            Err(error) => error,
        };
        let digits = name.len() >= PREFIX_DIGITS_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let prefix = name.to_ascii_lowercase();
        let mut found: Vec<SnapshotId> = self
            .refused_snapshots()
            .map(|(id, _)| id)
            .filter(|id| digits && id.to_string().starts_with(&prefix))
            .collect();
        found.dedup();
        match found.as_slice() {
            [id] => Ok(*id),
            _ => Err(error),
        }
    }

    /// Returns the newest snapshot of a host and label.
    pub fn newest_of(&self, host: &str, label: &str) -> Option<&SnapshotView> {
        self.iter().rev().find(|view| view.snapshot.host == host && view.snapshot.label == label)
    }

    /// Finds the snapshot that a name means: an id or a unique prefix of at least eight digits, a
    /// label (its newest), `LABEL@HOST`, `LABEL@{TIME}` (its newest at or before that time), `LABEL@HOST@{TIME}`, or
    /// `latest`. Where several hosts have a label and none is given, it is this host's ([`Snapshots::on_host`]).
    ///
    /// # Errors
    ///
    /// When none answers to it, or several could.
    pub fn resolve(&self, name: &str) -> Result<&SnapshotView, OpsError> {
        let (base, time) = match name.split_once("@{") {
            Some((base, rest)) => {
                let time = rest.strip_suffix('}').ok_or_else(|| unknown_form(name))?;
                (base, Some(self.read_time(time)?))
            }
            None => (name, None),
        };
        let in_time = |view: &&SnapshotView| time.is_none_or(|time| view.snapshot.started <= time);
        let no_such = || self.no_such(name);
        if base == LATEST {
            self.require_one_label()?;
            return self.iter().rev().find(in_time).ok_or_else(no_such);
        }
        let (label, host) = match base.split_once('@') {
            Some((label, host)) => (label, Some(host)),
            None => (base, None),
        };
        if time.is_none() && host.is_none() && !is_label(label) {
            return self.resolve_id(name);
        }
        let labelled = |view: &&SnapshotView| view.snapshot.label == label && in_time(view);
        let hosts: BTreeSet<&str> =
            self.iter().filter(labelled).map(|view| view.snapshot.host.as_str()).collect();
        let host = match (host.or(self.host.as_deref().filter(|own| hosts.contains(own))), hosts.len()) {
            (None, 2..) => {
                let candidates =
                    hosts.iter().map(|host| format!("{label}@{host}")).collect::<Vec<_>>().join(", ");
                return Err(RepoError::Ambiguous { name: name.to_owned(), candidates }.into());
            }
            (host, _) => host,
        };
        let of_host = |view: &&SnapshotView| host.is_none_or(|host| view.snapshot.host == host);
        self.iter().rev().filter(labelled).find(of_host).ok_or_else(no_such)
    }

    /// Finds the snapshot and the path that `SNAP[:PATH]` means. The path comes as its components;
    /// without one it is empty and means the whole snapshot.
    ///
    /// # Errors
    ///
    /// As [`Snapshots::resolve`]; also for a path with `..` in it.
    pub fn resolve_with_path(
        &self,
        name: impl AsRef<[u8]>,
    ) -> Result<(&SnapshotView, Vec<Vec<u8>>), OpsError> {
        let (snapshot, path) = split_path(name.as_ref());
        let snapshot =
            std::str::from_utf8(snapshot).map_err(|_| unknown_form(&String::from_utf8_lossy(snapshot)))?;
        let view = self.resolve(snapshot)?;
        let path: Vec<Vec<u8>> = path
            .unwrap_or_default()
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .map(<[u8]>::to_vec)
            .collect();
        if path.iter().any(|part| part == b"..") {
            return Err(OpsError::Usage("a path in a snapshot has no \"..\"".to_owned()));
        }
        Ok((view, path))
    }

    fn resolve_id(&self, name: &str) -> Result<&SnapshotView, OpsError> {
        let digits = name.len() >= PREFIX_DIGITS_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits {
            return Err(unknown_form(name));
        }
        let prefix = name.to_ascii_lowercase();
        let mut found = self.views.iter().filter(|view| view.id.to_string().starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some(view), None) => Ok(view),
            (None, _) => Err(self.no_such(name)),
            (Some(first), Some(second)) => Err(RepoError::Ambiguous {
                name: name.to_owned(),
                candidates: format!("{}, {}", first.id, second.id),
            }
            .into()),
        }
    }

    fn require_one_label(&self) -> Result<(), OpsError> {
        let labels = self.labels();
        if labels.len() <= 1 {
            return Ok(());
        }
        let candidates = labels.into_iter().collect::<Vec<_>>().join(", ");
        Err(RepoError::Ambiguous { name: LATEST.to_owned(), candidates: format!("the labels {candidates}") }
            .into())
    }

    fn labels(&self) -> BTreeSet<&str> {
        self.iter().map(|view| view.snapshot.label.as_str()).collect()
    }

    fn no_such(&self, name: &str) -> OpsError {
        RepoError::NoSnapshot(name.to_owned()).into()
    }

    fn read_time(&self, text: &str) -> Result<Timestamp, OpsError> {
        let environment = self.repository.environment();
        let read = read_time(text, environment.clock.now(), &self.zone).ok_or_else(|| {
            OpsError::Usage(format!(
                "{text:?} is no time: write 2026-01-15 14:30, 2026-01-15T14:30:00+01:00, yesterday or 2 hours ago"
            ))
        })?;
        if read.assumed {
            environment.observer.note(&format!("{text} is {}", show_time(read.time, &self.zone)));
        }
        Ok(read.time)
    }
}

fn unknown_form(name: &str) -> OpsError {
    OpsError::Usage(format!(
        "{name:?} names no snapshot: give an id or at least {PREFIX_DIGITS_MIN} digits of it, a label, LABEL@HOST or LABEL@{{TIME}}"
    ))
}

/// Parts `SNAP:PATH` at the first colon outside of `@{TIME}`.
fn split_path(name: &[u8]) -> (&[u8], Option<&[u8]>) {
    let time = name.windows(2).position(|pair| pair == b"@{");
    let colon = name.iter().position(|byte| *byte == b':');
    let from = match (time, colon) {
        (Some(time), Some(colon)) if time < colon => {
            name.iter().position(|byte| *byte == b'}').unwrap_or(name.len())
        }
        _ => 0,
    };
    let found = name.iter().enumerate().skip(from).find(|(_, byte)| **byte == b':');
    let parted = found.and_then(|(at, _)| name.split_at_checked(at));
    match parted {
        Some((snapshot, path)) => (snapshot, path.split_first().map(|(_, path)| path)),
        None => (name, None),
    }
}

/// Sorts by commit: what catalogues have seen in their order ([CATALOG-2]), then the rest by the store's time, but a
/// snapshot never before its parent, since times of a store that was copied are those of the copy. A repaired copy is as old as its original, which it names
/// as its parent.
fn sort_by_commit(views: &mut Vec<SnapshotView>) {
    let places: HashMap<SnapshotId, usize> =
        views.iter().enumerate().map(|(place, view)| (view.id, place)).collect();
    let own = |view: &SnapshotView| {
        let ended = view.snapshot.ended;
        let stored = view.stored.unwrap_or(ended);
        // Who only says that it is a copy makes itself older, no more.
        let number = view.number.unwrap_or(u64::MAX);
        match repaired_from(&view.snapshot) {
            Some(original) if places.contains_key(&original) => (0, i64::MIN),
            Some(_) => (number, stored.min(ended).nanoseconds()),
            // The store's time of a copy is that of the copying.
            None if copied_from(&view.snapshot).is_some() => (number, stored.min(ended).nanoseconds()),
            None => (number, stored.nanoseconds()),
        }
    };
    let mut keys: Vec<Option<(u64, i64)>> = vec![None; views.len()];
    for start in 0..views.len() {
        // Up the line of parents to one that has its key, then down again. Ids are hashes of what
        // they name, parents included, so that a line has no circle.
        let mut line = vec![start];
        let parent_of =
            |place: usize| -> Option<usize> { places.get(&views.get(place)?.snapshot.parent?).copied() };
        while let Some(parent) = line.last().copied().and_then(parent_of) {
            if keys.get(parent).copied().flatten().is_some() || line.len() > views.len() {
                break;
            }
            line.push(parent);
        }
        for place in line.into_iter().rev() {
            let Some(view) = views.get(place) else { continue };
            let after = parent_of(place).and_then(|parent| keys.get(parent).copied().flatten());
            let after = after.map_or((0, i64::MIN), |(number, time)| (number, time.saturating_add(1)));
            let key = own(view).max(after);
            if let Some(slot) = keys.get_mut(place) {
                *slot = Some(key);
            }
        }
    }
    let mut sorted: Vec<_> = std::mem::take(views)
        .into_iter()
        .zip(keys)
        .map(|(view, key)| ((key, view.snapshot.started, view.id), view))
        .collect();
    sorted.sort_by_key(|(key, _)| *key);
    views.extend(sorted.into_iter().map(|(_, view)| view));
}

/// Folds annotations into the snapshots they speak about, as far as their signers may say so
/// (`format-spec/annotation.md`). Returns the forgotten snapshots that are not there, with what ended them.
fn apply(
    repository: &Repository,
    views: &mut [SnapshotView],
    places: &HashMap<SnapshotId, usize>,
    annotations: &[FoundAnnotation],
    memory: &Memory,
    refused: &mut Vec<(String, RepoError)>,
) -> HashMap<SnapshotId, AnnotationId> {
    let registry = repository.registry();
    let mut believes = |found: &FoundAnnotation, act: Act<'_>| {
        let name = format!("annotation {}", found.id.short());
        match registry.believe(&name, &found.signer, act, &found.id.into()) {
            Ok(()) => true,
            Err(error) => {
                if !refused.iter().any(|(refused, _)| *refused == name) {
                    refused.push((name, error));
                }
                false
            }
        }
    };
    // [ANNOTATION-1]: cancelling is final, whatever the order in which things were said.
    let mut cancelled: HashSet<(AnnotationId, Option<SnapshotId>)> = HashSet::new();
    let by_id: HashMap<AnnotationId, &FoundAnnotation> =
        annotations.iter().map(|found| (found.id, found)).collect();
    for found in annotations {
        let annotation = &found.annotation;
        let Some(target) = annotation.cancels else { continue };
        match annotation.kind {
            AnnotationKind::Unpin if believes(found, Act::Withdraw) => {
                cancelled.insert((target, None));
            }
            AnnotationKind::Undeleted if believes(found, Act::Withdraw) => {
                if annotation.subjects.is_empty() && annotation.log_packs.is_empty() {
                    cancelled.insert((target, None));
                }
                cancelled.extend(annotation.subjects.iter().map(|subject| (target, Some(*subject))));
            }
            AnnotationKind::Untag => {
                // Whoever may tag the snapshot may take the tag off.
                let tag = by_id.get(&target);
                let subjects = tag.map(|tag| tag.annotation.subjects.iter()).into_iter().flatten();
                for subject in subjects {
                    let Some(view) = places.get(subject).and_then(|place| views.get(*place)) else {
                        continue;
                    };
                    let act = Act::Mark { host: &view.snapshot.host, label: &view.snapshot.label };
                    if believes(found, act) {
                        cancelled.insert((target, Some(*subject)));
                    }
                }
            }
            _ => {}
        }
    }
    let (mut ended, mut pinned) = (HashMap::new(), HashSet::new());
    // Tags made with the snapshot are taken off before later ones are put on.
    let ordered = annotations
        .iter()
        .filter(|found| found.annotation.kind == AnnotationKind::Untag)
        .chain(annotations.iter().filter(|found| found.annotation.kind != AnnotationKind::Untag));
    for found in ordered {
        let annotation = &found.annotation;
        for subject in annotation.subjects.iter() {
            let gone = |subject| cancelled.contains(&(found.id, subject));
            if gone(None) || gone(Some(*subject)) {
                continue;
            }
            let Some(view) = places.get(subject).and_then(|place| views.get_mut(*place)) else {
                match annotation.kind {
                    AnnotationKind::Forgotten if believes(found, Act::Withdraw) => {
                        ended.insert(*subject, found.id);
                    }
                    // Whether its signer may pin is not known without the snapshot; it may have been.
                    AnnotationKind::Pin => {
                        pinned.insert(*subject);
                    }
                    _ => {}
                }
                continue;
            };
            let mark = Act::Mark { host: &view.snapshot.host, label: &view.snapshot.label };
            match annotation.kind {
                AnnotationKind::Tag if believes(found, mark) => {
                    if let Some(key) = &annotation.key {
                        view.tags.insert(key.clone(), annotation.value.clone());
                        view.said.push(Said::new(found));
                    }
                }
                AnnotationKind::Untag if annotation.cancels.is_none() && believes(found, mark) => {
                    if let Some(key) = &annotation.key {
                        view.tags.remove(key);
                    }
                }
                AnnotationKind::Pin if believes(found, mark) => {
                    view.pinned.push(Pin { id: found.id, reason: annotation.value.clone() });
                    view.said.push(Said::new(found));
                }
                AnnotationKind::Note if believes(found, mark) => {
                    view.notes.extend(annotation.value.clone());
                    view.said.push(Said::new(found));
                }
                AnnotationKind::Verified if believes(found, Act::Verified) => {
                    view.said.push(Said::new(found))
                }
                AnnotationKind::Forgotten if believes(found, Act::Withdraw) => {
                    view.forgotten_by.push(found.id);
                }
                _ => {}
            }
        }
    }
    for view in views {
        // One that came back after its end was recorded: it has ended, unless that was taken back.
        if let Some(Told::Ended(end)) = memory.told(&view.id.into()) {
            let by = AnnotationId::from(end.authority);
            let is_cancelled = cancelled.contains(&(by, None)) || cancelled.contains(&(by, Some(view.id)));
            if is_by_annotation(end) && !is_cancelled && !view.forgotten_by.contains(&by) {
                view.forgotten_by.push(by);
            }
        }
        view.forgotten = !view.forgotten_by.is_empty() && view.pinned.is_empty();
    }
    ended.retain(|subject, _| !pinned.contains(subject));
    ended
}

fn is_by_annotation(end: &CatalogEnd) -> bool {
    end.authority_kind == ObjectKind::Annotation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for good in ["dump", "app.sql", "d", "abcdefg", "deadbee", "/var/lib/app", "two words", "ünï"] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "latest", "deadbeef", "DEADBEEF0", "a:b", "a@b", "a\nb"] {
            assert!(!is_label(bad), "{bad}");
        }
        assert!(check_label("a:b").unwrap_err().to_string().contains("no ':'"));
    }

    #[test]
    fn a_path_follows_the_first_colon_outside_of_a_time() {
        let split = |text: &'static str| {
            let (snapshot, path) = split_path(text.as_bytes());
            (std::str::from_utf8(snapshot).unwrap(), path.map(|path| std::str::from_utf8(path).unwrap()))
        };
        assert_eq!(split("dump"), ("dump", None));
        assert_eq!(split("dump:"), ("dump", Some("")));
        assert_eq!(split("dump:a:b@{c}"), ("dump", Some("a:b@{c}")));
        assert_eq!(split("dump@{14:30}"), ("dump@{14:30}", None));
        assert_eq!(split("dump@{14:30}:a/b:c"), ("dump@{14:30}", Some("a/b:c")));
        assert_eq!(split("dump@{14:30"), ("dump@{14:30", None));
        assert_eq!(split(":x"), ("", Some("x")));
    }
}
