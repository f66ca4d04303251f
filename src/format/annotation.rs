//! An annotation: what is said about snapshots after their commit. Added, never rewritten.
//!
//! Normative: `format-spec/annotation.md`.

use super::FormatError;
use super::bytes::{at_most, ensure, invalid};
use super::cbor::{Extra, Field, decode_map, encode_map, required};
use super::sets::IdSet;
use crate::base::{AnnotationId, LogPackId, PackId, SnapshotId, Timestamp, limits};
use std::collections::BTreeMap;

const WHAT: &str = "annotation";

/// What an annotation says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnnotationKind {
    /// The snapshots carry a tag.
    Tag = 1,
    /// A tag is taken back.
    Untag = 2,
    /// Forgetting the snapshots has no effect.
    Pin = 3,
    /// A pin is taken back.
    Unpin = 4,
    /// A text for people.
    Note = 5,
    /// Something was verified, with this outcome.
    Verified = 6,
    /// The snapshots are roots no more.
    Forgotten = 7,
    /// A forgetting is taken back.
    Undeleted = 8,
    /// The content of packs was decrypted and compared with its ids.
    Attested = 9,
}

impl AnnotationKind {
    const ALL: [Self; 9] = [
        Self::Tag,
        Self::Untag,
        Self::Pin,
        Self::Unpin,
        Self::Note,
        Self::Verified,
        Self::Forgotten,
        Self::Undeleted,
        Self::Attested,
    ];

    fn from_code(code: u64) -> Result<Self, FormatError> {
        match Self::ALL.into_iter().find(|kind| *kind as u64 == code) {
            Some(kind) => Ok(kind),
            None if code == 0 => Err(invalid(WHAT, "there is no kind 0")),
            // It might protect what it speaks about: the caller must not read on as if it were not there.
            None => Err(FormatError::Unsupported { what: "kind of annotation" }),
        }
    }
}

/// How a verification ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// All of it was good.
    Passed = 0,
    /// Something was bad.
    Failed = 1,
    /// Only a part was looked at.
    Incomplete = 2,
}

/// An annotation. Which fields a kind must have is checked when it is encoded and decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// What it says.
    pub kind: AnnotationKind,
    /// When, by the clock of the host that made it.
    pub created: Timestamp,
    /// The snapshots it speaks about.
    pub subjects: IdSet<SnapshotId>,
    /// Key of a tag.
    pub key: Option<String>,
    /// Value of a tag, text of a note, reason.
    pub value: Option<String>,
    /// Packs that were verified or attested.
    pub packs: IdSet<PackId>,
    /// How it was verified.
    pub method: Option<String>,
    /// The annotation that is taken back.
    pub cancels: Option<AnnotationId>,
    /// How a verification ended.
    pub outcome: Option<Outcome>,
    /// The log packs it speaks about.
    pub log_packs: IdSet<LogPackId>,
    /// Figures of a verification or drill.
    pub facts: BTreeMap<String, String>,
    /// Fields of newer programs.
    pub extra: Extra,
}

impl Annotation {
    /// Begins an annotation that has nothing but its kind and time.
    pub fn new(kind: AnnotationKind, created: Timestamp) -> Self {
        Self {
            kind,
            created,
            subjects: IdSet::default(),
            key: None,
            value: None,
            packs: IdSet::default(),
            method: None,
            cancels: None,
            outcome: None,
            log_packs: IdSet::default(),
            facts: BTreeMap::new(),
            extra: Extra::new(),
        }
    }

    /// Encodes the payload of the object.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        let bytes = encode_map(&self.extra, |map| {
            map.at(0).unsigned(self.kind as u64);
            map.at(1).signed(self.created.nanoseconds());
            self.subjects.write_array(map, 2);
            map.optional(3, self.key.as_deref(), |place, key| place.text(key));
            map.optional(4, self.value.as_deref(), |place, value| place.text(value));
            self.packs.write_array(map, 5);
            map.optional(6, self.method.as_deref(), |place, method| place.text(method));
            map.optional(7, self.cancels, |place, id| place.bytes(id.as_bytes()));
            map.optional(8, self.outcome, |place, outcome| place.unsigned(outcome as u64));
            self.log_packs.write_array(map, 9);
            if !self.facts.is_empty() {
                map.at(10).text_map(&self.facts);
            }
        });
        at_most(WHAT, bytes.len() as u64, limits::STRUCTURED_BYTES_MAX)?;
        Ok(bytes)
    }

    /// Decodes the payload of the object.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        at_most(WHAT, bytes.len() as u64, limits::STRUCTURED_BYTES_MAX)?;
        let (mut kind, mut created) = (None, None);
        let mut read = Self::new(AnnotationKind::Note, Timestamp::default());
        let extra = decode_map(WHAT, bytes, |number, value| {
            match number {
                0 => kind = Some(AnnotationKind::from_code(value.unsigned()?)?),
                1 => created = Some(value.timestamp()?),
                2 => read.subjects = IdSet::read_array(value, limits::LIST_IDS_MAX)?,
                3 => read.key = Some(value.text(limits::NAME_BYTES_MAX)?.to_owned()),
                4 => read.value = Some(value.text(limits::VALUE_BYTES_MAX)?.to_owned()),
                5 => read.packs = IdSet::read_array(value, limits::LIST_IDS_MAX)?,
                6 => read.method = Some(value.text(limits::NAME_BYTES_MAX)?.to_owned()),
                7 => read.cancels = Some(AnnotationId::new(value.fixed()?)),
                8 => read.outcome = Some(outcome(value.unsigned()?)?),
                9 => read.log_packs = IdSet::read_array(value, limits::LIST_IDS_MAX)?,
                10 => {
                    read.facts = value.text_map(limits::FACTS_MAX, limits::VALUE_BYTES_MAX)?;
                    if read.facts.is_empty() {
                        return Err(invalid(WHAT, "an empty map is left out"));
                    }
                }
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        read.kind = required(kind, WHAT)?;
        read.created = required(created, WHAT)?;
        read.extra = extra;
        read.check()?;
        Ok(read)
    }

    /// Checks that what the kind needs is there.
    fn check(&self) -> Result<(), FormatError> {
        let subjects = !self.subjects.is_empty();
        let any = subjects || !self.log_packs.is_empty();
        let packs = !self.packs.is_empty();
        let told = self.method.is_some() && self.outcome.is_some();
        let complete = match self.kind {
            AnnotationKind::Tag => subjects && self.key.is_some(),
            AnnotationKind::Untag => self.cancels.is_some() || subjects && self.key.is_some(),
            AnnotationKind::Pin | AnnotationKind::Forgotten => any,
            AnnotationKind::Unpin | AnnotationKind::Undeleted => self.cancels.is_some(),
            AnnotationKind::Note => any && self.value.is_some(),
            AnnotationKind::Verified => (any || packs) && told,
            AnnotationKind::Attested => packs && told,
        };
        ensure(complete, WHAT, "its kind needs a field that is missing")?;
        let empty = |text: &Option<String>| text.as_deref() == Some("");
        ensure(!empty(&self.key) && !empty(&self.method), WHAT, "a key or method is empty")
    }
}

fn outcome(code: u64) -> Result<Outcome, FormatError> {
    match code {
        0 => Ok(Outcome::Passed),
        1 => Ok(Outcome::Failed),
        2 => Ok(Outcome::Incomplete),
        _ => Err(invalid(WHAT, "there is no such outcome")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin() -> Annotation {
        let mut pin = Annotation::new(AnnotationKind::Pin, Timestamp::from_nanoseconds(-5));
        pin.subjects = [SnapshotId::new([2; 32]), SnapshotId::new([1; 32])].into_iter().collect();
        pin.value = Some("before the migration".to_owned());
        pin
    }

    #[test]
    fn comes_back() {
        let mut all = pin();
        all.kind = AnnotationKind::Verified;
        all.packs = [PackId::new([7; 32])].into_iter().collect();
        all.log_packs = [LogPackId::new([8; 32])].into_iter().collect();
        all.method = Some("read-data".to_owned());
        all.outcome = Some(Outcome::Incomplete);
        all.facts = [("bytes".to_owned(), "5".to_owned())].into();
        all.extra = vec![(99, vec![0x05])];
        for annotation in [pin(), all] {
            assert_eq!(Annotation::decode(&annotation.encode().unwrap()).unwrap(), annotation);
        }
    }

    #[test]
    fn each_kind_has_what_it_needs() {
        for kind in AnnotationKind::ALL {
            assert!(Annotation::new(kind, Timestamp::default()).encode().is_err(), "{kind:?}");
            let mut full = pin();
            full.kind = kind;
            full.key = Some("k".to_owned());
            full.packs = [PackId::new([7; 32])].into_iter().collect();
            full.method = Some("read-data".to_owned());
            full.outcome = Some(Outcome::Passed);
            full.cancels = Some(AnnotationId::new([9; 32]));
            assert_eq!(Annotation::decode(&full.encode().unwrap()).unwrap(), full);
            full.key = Some(String::new());
            assert!(full.encode().is_err());
        }
    }

    #[test]
    fn an_unknown_kind_is_a_newer_programs() {
        let mut bytes = pin().encode().unwrap();
        bytes[2] = 0x0A;
        assert_eq!(Annotation::decode(&bytes), Err(FormatError::Unsupported { what: "kind of annotation" }));
        bytes[2] = 0;
        assert!(matches!(Annotation::decode(&bytes), Err(FormatError::Invalid { .. })));
    }
}
