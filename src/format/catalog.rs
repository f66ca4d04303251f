//! A catalogue: what closed generations and log streams hold, with the signed originals inside.
//!
//! Normative: `format-spec/catalog.md`.

use super::bytes::{at_most, ensure, invalid};
use super::cbor::{Extra, Field, MapWriter, Reader, decode_map, encode_map, required};
use super::kind::ObjectKind;
use super::place::Place;
use super::sets::{IdSet, ascending_by, not_empty};
use super::{FormatError, words};
use crate::base::{CatalogId, ObjectId, Timestamp, limits};

const WHAT: &str = "catalogue";
const MAX: u64 = limits::LISTING_BYTES_MAX;
const LOG_SCOPE: &str = "log:";

/// What a catalogue lists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CatalogScope {
    /// Snapshots and annotations of these generations, first and last included.
    Roots {
        /// The first generation.
        first: u32,
        /// The last generation; it is closed by the catalogue.
        last: u32,
    },
    /// Log packs and records of one stream, by the stream's name.
    Log(String),
}

/// An object that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEntry {
    /// Where it lies.
    pub place: Place,
    /// Order in which a catalogue first saw it, over the whole repository.
    pub number: u64,
    /// The store's time of it when it was first seen.
    pub first_seen: Timestamp,
    /// Its stored length.
    pub length: u64,
    /// The signed original: the whole object, or the first record of a log pack.
    pub original: Vec<u8>,
    /// Fields of newer programs.
    pub extra: Extra,
}

/// An object that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEnd {
    /// What it was.
    pub kind: ObjectKind,
    /// Its id.
    pub id: ObjectId,
    /// The number that it had.
    pub number: u64,
    /// What kind of object ended it.
    pub authority_kind: ObjectKind,
    /// The signed object that ended it.
    pub authority: ObjectId,
    /// The store's time of that.
    pub ended: Timestamp,
    /// The signed original, where an annotation ended a snapshot or an annotation.
    pub original: Option<Vec<u8>>,
    /// Fields of newer programs.
    pub extra: Extra,
}

/// Another catalogue that belongs to the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogPart {
    /// Its id.
    pub catalogue: CatalogId,
    /// What it lists.
    pub scope: CatalogScope,
    /// How many entries it has.
    pub entries: u64,
    /// Fields of newer programs.
    pub extra: Extra,
}

/// A catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// One more than the predecessor's, from 1.
    pub sequence: u64,
    /// The catalogue that was the newest, for all but the first.
    pub predecessor: Option<CatalogId>,
    /// When it was made, by the host's clock.
    pub created: Timestamp,
    /// What it lists.
    pub scope: CatalogScope,
    /// What is there, ascending by kind and id.
    pub entries: Vec<CatalogEntry>,
    /// What has ended, ascending by kind and id.
    pub ends: Vec<CatalogEnd>,
    /// The other catalogues that belong to the whole, ascending by id.
    pub parts: Vec<CatalogPart>,
    /// Catalogues whose entries and ends this one takes over.
    pub replaces: IdSet<CatalogId>,
    /// Name and version of the program, for people.
    pub program: String,
    /// The number that the next object seen will have.
    pub next_number: u64,
    /// Fields of newer programs.
    pub extra: Extra,
}

impl CatalogScope {
    fn text(&self) -> String {
        match self {
            Self::Roots { .. } => "roots".to_owned(),
            Self::Log(stream) => format!("{LOG_SCOPE}{stream}"),
        }
    }

    fn write(&self, map: &mut MapWriter<'_>, field: u64) {
        map.at(field).text(&self.text());
        if let Self::Roots { first, last } = self {
            map.at(field + 1).unsigned((*first).into());
            map.at(field + 2).unsigned((*last).into());
        }
    }

    fn assemble(text: Option<&str>, first: Option<u32>, last: Option<u32>) -> Result<Self, FormatError> {
        match (required(text, WHAT)?, first, last) {
            ("roots", Some(first), Some(last)) => Ok(Self::Roots { first, last }),
            (text, None, None) => match text.strip_prefix(LOG_SCOPE) {
                Some(stream) => Ok(Self::Log(stream.to_owned())),
                None => Err(invalid(WHAT, "its scope is none")),
            },
            _ => Err(invalid(WHAT, "its scope and generations do not go together")),
        }
    }

    fn check(&self) -> Result<(), FormatError> {
        match self {
            Self::Roots { first, last } => {
                ensure(*first > 0 && first <= last, WHAT, "its generations are not in order, from 1")
            }
            Self::Log(stream) => {
                ensure(!stream.is_empty(), WHAT, "the stream has no name")?;
                at_most("name of a stream", stream.len() as u64, limits::NAME_BYTES_MAX)
            }
        }
    }

    /// Says whether a catalogue of this scope may list objects of the kind.
    fn lists(&self, kind: ObjectKind) -> bool {
        match self {
            Self::Roots { .. } => matches!(kind, ObjectKind::Snapshot | ObjectKind::Annotation),
            Self::Log(_) => matches!(kind, ObjectKind::LogPack | ObjectKind::LogRecord),
        }
    }
}

impl Catalog {
    /// Encodes the payload of the object.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        let bytes = encode_map(&self.extra, |map| {
            map.at(0).unsigned(self.sequence);
            map.optional(1, self.predecessor, |place, id| place.bytes(id.as_bytes()));
            map.at(2).signed(self.created.nanoseconds());
            self.scope.write(map, 3);
            map.list(6, &self.entries, |place, entry| place.map(&entry.extra, |map| entry.write(map)));
            map.list(7, &self.ends, |place, end| place.map(&end.extra, |map| end.write(map)));
            map.list(8, &self.parts, |place, part| {
                place.map(&part.extra, |map| {
                    map.at(0).bytes(part.catalogue.as_bytes());
                    part.scope.write(map, 1);
                    map.at(4).unsigned(part.entries);
                });
            });
            self.replaces.write_packed(map, 9);
            map.at(10).text(&self.program);
            map.at(11).unsigned(self.next_number);
        });
        at_most(WHAT, bytes.len() as u64, MAX)?;
        Ok(bytes)
    }

    /// Decodes the payload of the object. The originals in it are not looked into.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        at_most(WHAT, bytes.len() as u64, MAX)?;
        let (mut sequence, mut predecessor, mut created, mut scope) = (None, None, None, None);
        let (mut first, mut last, mut program, mut next_number) = (None, None, None, None);
        let (mut entries, mut ends, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let mut replaces = IdSet::default();
        let extra = decode_map(WHAT, bytes, |number, value| {
            match number {
                0 => sequence = Some(value.unsigned()?),
                1 => predecessor = Some(CatalogId::new(value.fixed()?)),
                2 => created = Some(value.timestamp()?),
                3 => scope = Some(value.text(limits::NAME_BYTES_MAX + LOG_SCOPE.len() as u64)?),
                4 => first = Some(value.small()?),
                5 => last = Some(value.small()?),
                6 => entries = not_empty(WHAT, value.array(limits::LIST_IDS_MAX, CatalogEntry::read)?)?,
                7 => ends = not_empty(WHAT, value.array(limits::LIST_IDS_MAX, CatalogEnd::read)?)?,
                8 => parts = not_empty(WHAT, value.array(limits::LIST_IDS_MAX, CatalogPart::read)?)?,
                9 => replaces = IdSet::read_packed(value, MAX)?,
                10 => program = Some(value.text(limits::NAME_BYTES_MAX)?.to_owned()),
                11 => next_number = Some(value.unsigned()?),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let read = Self {
            sequence: required(sequence, WHAT)?,
            predecessor,
            created: required(created, WHAT)?,
            scope: CatalogScope::assemble(scope, first, last)?,
            entries,
            ends,
            parts,
            replaces,
            program: required(program, WHAT)?,
            next_number: required(next_number, WHAT)?,
            extra,
        };
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), FormatError> {
        let chained = self.sequence > 0 && (self.sequence == 1) == self.predecessor.is_none();
        ensure(chained, WHAT, "the first alone has no predecessor, and sequences count from 1")?;
        self.scope.check()?;
        let numbers = self.entries.iter().map(|entry| entry.number);
        let mut numbers = numbers.chain(self.ends.iter().map(|end| end.number));
        let given = numbers.all(|number| (1..self.next_number).contains(&number));
        ensure(given && self.next_number > 0, WHAT, "a number was not given yet")?;
        ascending_by(WHAT, &self.entries, |entry| (entry.place.kind(), entry.place.id()))?;
        ascending_by(WHAT, &self.ends, |end| (end.kind, end.id))?;
        ascending_by(WHAT, &self.parts, |part| part.catalogue)?;
        let mut kinds = self.entries.iter().map(|entry| entry.place.kind());
        let listed = kinds.all(|kind| self.scope.lists(kind));
        let mut ended = self.ends.iter().map(|end| end.kind);
        ensure(listed && ended.all(|kind| self.scope.lists(kind)), WHAT, "a kind is not in its scope")?;
        ensure(self.entries.iter().all(|entry| entry.length > 0), WHAT, "an object is empty")?;
        ensure(self.entries.iter().all(|entry| !entry.original.is_empty()), WHAT, "an original is empty")?;
        self.parts.iter().try_for_each(|part| part.scope.check())?;
        self.ends.iter().try_for_each(CatalogEnd::check)?;
        let both = self.ends.iter().any(|end| {
            self.entries.binary_search_by_key(&(end.kind, end.id), |e| (e.place.kind(), e.place.id())).is_ok()
        });
        ensure(!both, WHAT, "an object is there and has ended")
    }
}

impl CatalogEntry {
    fn write(&self, map: &mut MapWriter<'_>) {
        map.at(0).unsigned(self.place.kind().number().into());
        map.at(1).bytes(self.place.id().as_bytes());
        map.at(2).unsigned(self.number);
        map.at(3).signed(self.first_seen.nanoseconds());
        map.at(4).text(self.place.folder());
        map.at(5).unsigned(self.length);
        map.at(6).bytes(&self.original);
    }

    fn read(reader: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut kind, mut id, mut number, mut first_seen) = (None, None, None, None);
        let (mut folder, mut length, mut original) = (None, None, None);
        let extra = reader.map(|field, value| {
            match field {
                0 => kind = Some(words::kind_from(value.unsigned()?)?),
                1 => id = Some(ObjectId::new(value.fixed()?)),
                2 => number = Some(value.unsigned()?),
                3 => first_seen = Some(value.timestamp()?),
                4 => folder = Some(value.text(limits::NAME_BYTES_MAX)?),
                5 => length = Some(value.unsigned()?),
                6 => original = Some(value.bytes(MAX)?.to_vec()),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        Ok(Self {
            place: Place::new(required(kind, WHAT)?, required(folder, WHAT)?, required(id, WHAT)?)?,
            number: required(number, WHAT)?,
            first_seen: required(first_seen, WHAT)?,
            length: required(length, WHAT)?,
            original: required(original, WHAT)?,
            extra,
        })
    }
}

impl CatalogEnd {
    fn write(&self, map: &mut MapWriter<'_>) {
        map.at(0).unsigned(self.kind.number().into());
        map.at(1).bytes(self.id.as_bytes());
        map.at(2).unsigned(self.number);
        map.at(3).unsigned(self.authority_kind.number().into());
        map.at(4).bytes(self.authority.as_bytes());
        map.at(5).signed(self.ended.nanoseconds());
        map.optional(6, self.original.as_deref(), |place, original| place.bytes(original));
    }

    fn read(reader: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut kind, mut id, mut number, mut authority_kind) = (None, None, None, None);
        let (mut authority, mut ended, mut original) = (None, None, None);
        let extra = reader.map(|field, value| {
            match field {
                0 => kind = Some(words::kind_from(value.unsigned()?)?),
                1 => id = Some(ObjectId::new(value.fixed()?)),
                2 => number = Some(value.unsigned()?),
                3 => authority_kind = Some(words::kind_from(value.unsigned()?)?),
                4 => authority = Some(ObjectId::new(value.fixed()?)),
                5 => ended = Some(value.timestamp()?),
                6 => original = Some(value.bytes(MAX)?.to_vec()),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        Ok(Self {
            kind: required(kind, WHAT)?,
            id: required(id, WHAT)?,
            number: required(number, WHAT)?,
            authority_kind: required(authority_kind, WHAT)?,
            authority: required(authority, WHAT)?,
            ended: required(ended, WHAT)?,
            original,
            extra,
        })
    }

    fn check(&self) -> Result<(), FormatError> {
        let by_annotation = match self.authority_kind {
            ObjectKind::Annotation => true,
            ObjectKind::Condemned | ObjectKind::LogPack => false,
            _ => return Err(invalid(WHAT, "no object of this kind ends another")),
        };
        // One annotation may end thousands of log packs, and each would hold it.
        let is_log = matches!(self.kind, ObjectKind::LogPack | ObjectKind::LogRecord);
        let original = self.original.as_ref().map(Vec::is_empty);
        let wanted = (by_annotation && !is_log).then_some(false);
        ensure(original == wanted, WHAT, "an end has no original, or needs none")
    }
}

impl CatalogPart {
    fn read(reader: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut catalogue, mut scope, mut first, mut last, mut entries) = (None, None, None, None, None);
        let extra = reader.map(|field, value| {
            match field {
                0 => catalogue = Some(CatalogId::new(value.fixed()?)),
                1 => scope = Some(value.text(limits::NAME_BYTES_MAX + LOG_SCOPE.len() as u64)?),
                2 => first = Some(value.small()?),
                3 => last = Some(value.small()?),
                4 => entries = Some(value.unsigned()?),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        Ok(Self {
            catalogue: required(catalogue, WHAT)?,
            scope: CatalogScope::assemble(scope, first, last)?,
            entries: required(entries, WHAT)?,
            extra,
        })
    }
}

#[cfg(test)]
mod tests;
