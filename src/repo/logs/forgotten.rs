//! Which log packs were said to be roots no more ([CONCURRENCY-24]).

use super::find::FoundLog;
use super::merged::is_merged;
use crate::base::{AnnotationId, KeyId, LogPackId, ObjectId};
use crate::format::annotation::AnnotationKind;
use crate::format::log::{LogRecord, LogRecordKind};
use crate::format::trust::Act;
use crate::repo::error::RepoError;
use crate::repo::registry::Registry;
use crate::repo::repository::Repository;
use crate::repo::roots::FoundAnnotation;
use std::collections::{HashMap, HashSet};

/// A segment that was stored so recently is forgotten by nobody, so that whoever finds it need not ask.
pub const FRESH_LOG_SECONDS: i64 = 3600;

/// Log packs, and log records by themselves, that were forgotten, and what annotations say against that.
#[derive(Debug, Clone, Default)]
pub struct ForgottenLogs {
    /// By which annotation.
    ids: HashMap<LogPackId, AnnotationId>,
    /// Pins that nobody has taken back, and who signed them.
    pins: HashMap<LogPackId, Vec<(AnnotationId, KeyId)>>,
}

impl ForgottenLogs {
    /// Takes from annotations what they say of log packs, as far as their signers may say so.
    pub fn of(registry: &Registry, annotations: &[FoundAnnotation]) -> Self {
        let believed = |found: &FoundAnnotation| {
            let name = format!("annotation {}", found.id.short());
            registry.believe(&name, &found.signer, Act::Withdraw, &found.id.into()).is_ok()
        };
        let kind =
            |kind: AnnotationKind| annotations.iter().filter(move |found| found.annotation.kind == kind);
        let unpinned: HashSet<AnnotationId> = kind(AnnotationKind::Unpin)
            .filter(|f| believed(f))
            .filter_map(|f| f.annotation.cancels)
            .collect();
        let mut back: HashSet<(AnnotationId, Option<LogPackId>)> = HashSet::new();
        for found in kind(AnnotationKind::Undeleted).filter(|found| believed(found)) {
            let Some(target) = found.annotation.cancels else { continue };
            if found.annotation.subjects.is_empty() && found.annotation.log_packs.is_empty() {
                back.insert((target, None));
            }
            back.extend(found.annotation.log_packs.iter().map(|id| (target, Some(*id))));
        }
        let mut all = Self::default();
        for found in kind(AnnotationKind::Forgotten) {
            let logs = &found.annotation.log_packs;
            if logs.is_empty() || back.contains(&(found.id, None)) || !believed(found) {
                continue;
            }
            let over = logs.iter().filter(|id| !back.contains(&(found.id, Some(**id))));
            all.ids.extend(over.map(|id| (*id, found.id)));
        }
        for found in kind(AnnotationKind::Pin).filter(|found| !unpinned.contains(&found.id)) {
            for id in found.annotation.log_packs.iter() {
                all.pins.entry(*id).or_default().push((found.id, found.signer));
            }
        }
        all
    }

    /// Says whether nothing was forgotten.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Says whether somebody who may has forgotten it, pinned or not.
    pub fn names(&self, id: &LogPackId) -> bool {
        self.ids.contains_key(id)
    }

    /// Returns an annotation by which somebody who may has forgotten it.
    pub fn forgotten_by(&self, id: &LogPackId) -> Option<AnnotationId> {
        self.ids.get(id).copied()
    }

    /// Says whether somebody has pinned it who may or may not.
    pub fn may_be_pinned(&self, id: &LogPackId) -> bool {
        self.pins.contains_key(id)
    }

    /// Says whether a pin holds it that counts: by a key that may write its stream, an owner's or a
    /// maintainer's.
    pub fn is_pinned(&self, registry: &Registry, id: &LogPackId, stream: &str) -> bool {
        self.pins.get(id).into_iter().flatten().any(|(pin, signer)| {
            let name = format!("annotation {}", pin.short());
            let object = ObjectId::from(*pin);
            let may = |act| registry.believe(&name, signer, act, &object).is_ok();
            may(Act::Withdraw) || may(Act::LogRecord { stream })
        })
    }

    /// Says whether it is no root any more.
    pub fn has_ended(&self, registry: &Registry, log: &FoundLog) -> bool {
        self.names(&log.id) && !self.is_pinned(registry, &log.id, &log.record.stream)
    }
}

impl Repository {
    /// Reads which log packs were forgotten.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn forgotten_logs(&self) -> Result<ForgottenLogs, RepoError> {
        use AnnotationKind::{Forgotten, Pin, Undeleted, Unpin};
        let mut found = Vec::new();
        self.visit_annotations(|annotation| {
            let said = &annotation.annotation;
            let speaks = !said.log_packs.is_empty() || said.cancels.is_some();
            if speaks && matches!(said.kind, Forgotten | Undeleted | Pin | Unpin) {
                found.push(annotation);
            }
        })?;
        Ok(ForgottenLogs::of(self.registry(), &found))
    }

    /// Says whether a log pack is so fresh that nobody has forgotten it, by this client's clock. Of what is stored in its
    /// future nothing is known: its clock is behind.
    pub(super) fn is_fresh(&self, log: &FoundLog) -> bool {
        let now = self.environment().clock.now().seconds();
        let age = log.stored.map(|stored| now.saturating_sub(stored.seconds()));
        age.is_some_and(|age| (0..FRESH_LOG_SECONDS / 2).contains(&age))
    }

    /// Says whether a log pack was forgotten, so that nobody may count on it. That is looked up once, since it means to
    /// read all annotations.
    pub(super) fn is_going(
        &self,
        log: &FoundLog,
        forgotten: &mut Option<ForgottenLogs>,
    ) -> Result<bool, RepoError> {
        let forgotten = match forgotten {
            Some(forgotten) => forgotten,
            None => forgotten.insert(self.forgotten_logs()?),
        };
        Ok(forgotten.has_ended(self.registry(), log))
    }

    /// Stores what a log pack holds once more, under another name: the old one is condemned ([CONCURRENCY-31]).
    ///
    /// # Errors
    ///
    /// When it is damaged, this key may not read it or write its stream, or the store fails.
    pub fn store_log_again(&self, log: &FoundLog) -> Result<LogPackId, RepoError> {
        if is_merged(&log.object) {
            return self.merge_logs(&[log]).map(|merge| merge.id).map_err(|(_, error)| error);
        }
        self.require_log_writer(&log.record.stream)?;
        match log.record.kind {
            LogRecordKind::Segment | LogRecordKind::Piece => {
                let bytes = self.read_log(log)?;
                let folder = self.log_segment_folder(&log.record.stream, &log.record.name);
                self.put_log(&folder, || LogRecord { content: None, ..log.record.clone() }, &bytes)
            }
            _ => self.put_log_record(&log.record).map(LogPackId::from),
        }
    }
}
