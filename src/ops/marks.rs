//! What is said about snapshots after their commit: tags, pins, notes. Added, never rewritten; what is
//! taken back is taken back by naming it (`format-spec/annotation.md`).
//!
//! A tag or pin that speaks of several snapshots is taken back for all of them at once. So before it is
//! taken back for some, the others get one of their own: a crash in between leaves too much, not too little.

use super::error::OpsError;
use super::snapshots::{Said, SnapshotView, Snapshots};
use crate::base::{AnnotationId, SnapshotId, limits};
use crate::format::annotation::{Annotation, AnnotationKind};
use crate::format::trust::Act;
use crate::repo::{RepoError, Repository};
use std::collections::{BTreeMap, BTreeSet};

/// Something to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The snapshots carry a tag, in the place of another value of the same key.
    Tag {
        /// The key.
        key: String,
        /// The value.
        value: Option<String>,
    },
    /// They carry no tag of this key any more.
    Untag {
        /// The key.
        key: String,
    },
    /// Forgetting them has no effect.
    Pin {
        /// Why.
        reason: Option<String>,
    },
    /// No pin holds them any more.
    Unpin {
        /// Why.
        reason: Option<String>,
    },
    /// A text for people.
    Note {
        /// The text.
        text: String,
    },
}

impl Mark {
    fn check(&self) -> Result<(), OpsError> {
        let too_long = |what: &str, bytes: u64| {
            Err(OpsError::Usage(format!("the {what} has more than {bytes} bytes: nothing was said")))
        };
        let longer = |text: &str, most: u64| text.len() as u64 > most;
        let (key, value) = match self {
            Self::Tag { key, value } => (Some(key), value.as_deref()),
            Self::Untag { key } => (Some(key), None),
            Self::Pin { reason } | Self::Unpin { reason } => (None, reason.as_deref()),
            Self::Note { text } => (None, Some(text.as_str())),
        };
        if key.is_some_and(String::is_empty) {
            return Err(OpsError::Usage("a tag has a name: write K or K=V".to_owned()));
        }
        if key.is_some_and(|key| longer(key, limits::NAME_BYTES_MAX)) {
            return too_long("name of the tag", limits::NAME_BYTES_MAX);
        }
        if value.is_some_and(|value| longer(value, limits::VALUE_BYTES_MAX)) {
            return too_long("text", limits::VALUE_BYTES_MAX);
        }
        Ok(())
    }
}

/// Says these things about snapshots, in this order; returns what was put. What is so already is not said again.
///
/// # Errors
///
/// [`RepoError::Forbidden`] for a key that may not, before anything is said; what the store says.
pub fn mark(
    repository: &Repository,
    snapshots: &Snapshots,
    chosen: &[SnapshotId],
    marks: &[Mark],
) -> Result<Vec<AnnotationId>, OpsError> {
    let mut views: BTreeMap<SnapshotId, &SnapshotView> = BTreeMap::new();
    for id in chosen {
        views.insert(*id, snapshots.get(id).ok_or_else(|| RepoError::NoSnapshot(id.to_string()))?);
    }
    let own = repository.keyring().identity.key;
    for mark in marks {
        mark.check()?;
        for view in views.values() {
            let act = match mark {
                Mark::Unpin { .. } => Act::Withdraw,
                _ => act(view),
            };
            repository.registry().may_sign(&own, act)?;
        }
    }
    let mut writer = Writer { repository, snapshots, put: Vec::new() };
    for mark in marks {
        writer.say(&views, mark)?;
    }
    Ok(writer.put)
}

fn act(view: &SnapshotView) -> Act<'_> {
    Act::Mark { host: &view.snapshot.host, label: &view.snapshot.label }
}

struct Writer<'a> {
    repository: &'a Repository,
    snapshots: &'a Snapshots,
    put: Vec<AnnotationId>,
}

impl Writer<'_> {
    fn begin(&self, kind: AnnotationKind) -> Annotation {
        Annotation::new(kind, self.repository.environment().clock.now())
    }

    fn put(&mut self, annotation: &Annotation, act: Act<'_>) -> Result<(), OpsError> {
        self.put.push(self.repository.annotate(annotation, act)?);
        Ok(())
    }

    fn say(&mut self, views: &BTreeMap<SnapshotId, &SnapshotView>, mark: &Mark) -> Result<(), OpsError> {
        match mark {
            Mark::Tag { key, value } => {
                let differs = |view: &&&SnapshotView| view.tags.get(key) != Some(value);
                for view in views.values().filter(differs) {
                    let mut tag = self.begin(AnnotationKind::Tag);
                    (tag.key, tag.value) = (Some(key.clone()), value.clone());
                    tag.subjects = [view.id].into_iter().collect();
                    self.put(&tag, act(view))?;
                }
                // Whichever host's clock was ahead, only the new value is left.
                self.take_back_tags(views, key, Some(value))
            }
            Mark::Untag { key } => {
                self.take_back_tags(views, key, None)?;
                for view in views.values().filter(|view| view.snapshot.tags.contains_key(key)) {
                    let mut untag = self.begin(AnnotationKind::Untag);
                    untag.key = Some(key.clone());
                    untag.subjects = [view.id].into_iter().collect();
                    self.put(&untag, act(view))?;
                }
                Ok(())
            }
            Mark::Pin { reason } => {
                let pinned = |view: &SnapshotView| view.pinned.iter().any(|pin| pin.reason == *reason);
                for view in views.values().filter(|view| !pinned(view)) {
                    let mut pin = self.begin(AnnotationKind::Pin);
                    pin.value.clone_from(reason);
                    pin.subjects = [view.id].into_iter().collect();
                    self.put(&pin, act(view))?;
                }
                Ok(())
            }
            Mark::Unpin { reason } => {
                let pins: BTreeSet<AnnotationId> =
                    views.values().flat_map(|view| &view.pinned).map(|pin| pin.id).collect();
                for pin in pins {
                    self.keep_for_others(views, pin, AnnotationKind::Pin)?;
                    let mut unpin = self.begin(AnnotationKind::Unpin);
                    unpin.cancels = Some(pin);
                    unpin.value.clone_from(reason);
                    self.put(&unpin, Act::Withdraw)?;
                }
                Ok(())
            }
            Mark::Note { text } => {
                for view in views.values() {
                    let mut note = self.begin(AnnotationKind::Note);
                    note.value = Some(text.clone());
                    note.subjects = [view.id].into_iter().collect();
                    self.put(&note, act(view))?;
                }
                Ok(())
            }
        }
    }

    /// Takes back the tags of a key, but for those with a value that is wanted.
    fn take_back_tags(
        &mut self,
        views: &BTreeMap<SnapshotId, &SnapshotView>,
        key: &str,
        wanted: Option<&Option<String>>,
    ) -> Result<(), OpsError> {
        let mut tags: BTreeMap<AnnotationId, SnapshotId> = BTreeMap::new();
        for view in views.values() {
            for said in view.said.iter().filter(|said| said.kind == AnnotationKind::Tag) {
                if said.key.as_deref() == Some(key) && wanted.is_none_or(|wanted| said.value != *wanted) {
                    tags.insert(said.id, view.id);
                }
            }
        }
        for (tag, subject) in tags {
            self.keep_for_others(views, tag, AnnotationKind::Tag)?;
            let Some(view) = views.get(&subject) else { continue };
            let mut untag = self.begin(AnnotationKind::Untag);
            untag.cancels = Some(tag);
            self.put(&untag, act(view))?;
        }
        Ok(())
    }

    /// Says the same anew of the snapshots that an annotation speaks of, and that are not among these.
    fn keep_for_others(
        &mut self,
        views: &BTreeMap<SnapshotId, &SnapshotView>,
        id: AnnotationId,
        kind: AnnotationKind,
    ) -> Result<(), OpsError> {
        let snapshots = self.snapshots;
        for view in snapshots.with_forgotten().iter().filter(|view| !views.contains_key(&view.id)) {
            let said: Option<&Said> = view.said.iter().find(|said| said.id == id && said.kind == kind);
            if let Some(said) = said {
                let mut again = self.begin(kind);
                (again.key, again.value) = (said.key.clone(), said.value.clone());
                again.subjects = [view.id].into_iter().collect();
                self.put(&again, act(view))?;
            }
        }
        Ok(())
    }
}
