//! A report of damage: objects that a reader found bad, from which nobody adopts again.
//!
//! Normative: `format-spec/damaged.md`.

use super::bytes::{at_most, ensure, invalid};
use super::cbor::{Extra, Field, Reader, decode_map, encode_map, required};
use super::place::Place;
use super::sets::{IdSet, ascending_by, not_empty};
use super::{FormatError, words};
use crate::base::{BlobId, DamagedId, ObjectId, Timestamp, limits};

const WHAT: &str = "report of damage";
const MAX: u64 = limits::STRUCTURED_BYTES_MAX;

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finding {
    /// It is not there.
    Missing,
    /// It is shorter or longer than it should be.
    Length,
    /// Its bytes do not have its name as their hash.
    Hash,
    /// Its signature does not hold, or its signer may not make such objects.
    Signature,
    /// It does not open or decode.
    Undecodable,
    /// A blob in it does not have its id.
    Content,
    /// The store could not read it.
    Unreadable,
    /// A finding of a newer program, by its code.
    Other(u64),
}

impl Finding {
    const KNOWN: [Self; 7] = [
        Self::Missing,
        Self::Length,
        Self::Hash,
        Self::Signature,
        Self::Undecodable,
        Self::Content,
        Self::Unreadable,
    ];

    fn code(self) -> u64 {
        match self {
            Self::Missing => 1,
            Self::Length => 2,
            Self::Hash => 3,
            Self::Signature => 4,
            Self::Undecodable => 5,
            Self::Content => 6,
            Self::Unreadable => 7,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: u64) -> Result<Self, FormatError> {
        ensure(code > 0, WHAT, "there is no finding 0")?;
        Ok(Self::KNOWN.into_iter().find(|known| known.code() == code).unwrap_or(Self::Other(code)))
    }
}

/// One object that was found bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedObject {
    /// Where it lies.
    pub place: Place,
    /// What is wrong.
    pub finding: Finding,
    /// Blobs that cannot be had from it; empty when that is all of it, or not known.
    pub blobs: IdSet<BlobId>,
    /// Length that it should have.
    pub expected_bytes: Option<u64>,
    /// Length that it had.
    pub found_bytes: Option<u64>,
    /// A sentence for people.
    pub detail: Option<String>,
    /// Fields of newer programs.
    pub extra: Extra,
}

/// A report of damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// When it was made, by the host's clock.
    pub created: Timestamp,
    /// What was found, ascending by kind and id.
    pub objects: Vec<DamagedObject>,
    /// How it was found.
    pub method: String,
    /// Name and version of the program, for people.
    pub program: String,
    /// Reports that no longer hold.
    pub cancels: IdSet<DamagedId>,
    /// Fields of newer programs.
    pub extra: Extra,
}

impl Damaged {
    /// Encodes the payload of the object.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        let bytes = encode_map(&self.extra, |map| {
            map.at(0).signed(self.created.nanoseconds());
            map.list(1, &self.objects, |place, object| place.map(&object.extra, |map| object.write(map)));
            map.at(2).text(&self.method);
            map.at(3).text(&self.program);
            self.cancels.write_packed(map, 4);
        });
        at_most(WHAT, bytes.len() as u64, MAX)?;
        Ok(bytes)
    }

    /// Decodes the payload of the object.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        at_most(WHAT, bytes.len() as u64, MAX)?;
        let (mut created, mut method, mut program) = (None, None, None);
        let (mut objects, mut cancels) = (Vec::new(), IdSet::default());
        let extra = decode_map(WHAT, bytes, |number, value| {
            match number {
                0 => created = Some(value.timestamp()?),
                1 => {
                    objects = not_empty(WHAT, value.array(limits::LIST_IDS_MAX, DamagedObject::read)?)?;
                }
                2 => method = Some(value.text(limits::NAME_BYTES_MAX)?.to_owned()),
                3 => program = Some(value.text(limits::NAME_BYTES_MAX)?.to_owned()),
                4 => cancels = IdSet::read_packed(value, MAX)?,
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let read = Self {
            created: required(created, WHAT)?,
            objects,
            method: required(method, WHAT)?,
            program: required(program, WHAT)?,
            cancels,
            extra,
        };
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), FormatError> {
        let says_something = !self.objects.is_empty() || !self.cancels.is_empty();
        ensure(says_something, WHAT, "it neither reports nor cancels anything")?;
        ascending_by(WHAT, &self.objects, |object| (object.place.kind(), object.place.id()))
    }
}

impl DamagedObject {
    fn write(&self, map: &mut super::cbor::MapWriter<'_>) {
        map.at(0).unsigned(self.place.kind().number().into());
        map.at(1).bytes(self.place.id().as_bytes());
        map.at(2).unsigned(self.finding.code());
        if !self.place.folder().is_empty() {
            map.at(3).text(self.place.folder());
        }
        self.blobs.write_packed(map, 4);
        map.optional(5, self.expected_bytes, |place, bytes| place.unsigned(bytes));
        map.optional(6, self.found_bytes, |place, bytes| place.unsigned(bytes));
        map.optional(7, self.detail.as_deref(), |place, detail| place.text(detail));
    }

    fn read(reader: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut kind, mut id, mut finding, mut folder) = (None, None, None, "");
        let (mut blobs, mut expected_bytes, mut found_bytes, mut detail) =
            (IdSet::default(), None, None, None);
        let extra = reader.map(|number, value| {
            match number {
                0 => kind = Some(words::kind_from(value.unsigned()?)?),
                1 => id = Some(ObjectId::new(value.fixed()?)),
                2 => finding = Some(Finding::from_code(value.unsigned()?)?),
                3 => match value.text(limits::NAME_BYTES_MAX)? {
                    "" => return Err(invalid(WHAT, "an empty folder is left out")),
                    text => folder = text,
                },
                4 => blobs = IdSet::read_packed(value, MAX)?,
                5 => expected_bytes = Some(value.unsigned()?),
                6 => found_bytes = Some(value.unsigned()?),
                7 => detail = Some(value.text(limits::VALUE_BYTES_MAX)?.to_owned()),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let place = Place::new(required(kind, WHAT)?, folder, required(id, WHAT)?)?;
        let finding = required(finding, WHAT)?;
        Ok(Self { place, finding, blobs, expected_bytes, found_bytes, detail, extra })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ObjectKind;

    fn object(kind: ObjectKind, folder: &str, id: u8, finding: Finding) -> DamagedObject {
        DamagedObject {
            place: Place::new(kind, folder, ObjectId::new([id; 32])).unwrap(),
            finding,
            blobs: IdSet::default(),
            expected_bytes: None,
            found_bytes: None,
            detail: None,
            extra: Extra::new(),
        }
    }

    fn report() -> Damaged {
        let mut bad = object(ObjectKind::ContentPack, "", 9, Finding::Content);
        bad.blobs = [BlobId::new([1; 32])].into_iter().collect();
        bad.expected_bytes = Some(100);
        bad.found_bytes = Some(100);
        bad.detail = Some("frame 3 of 9".to_owned());
        bad.extra = vec![(9, vec![0x00])];
        Damaged {
            created: Timestamp::from_nanoseconds(1),
            objects: vec![bad, object(ObjectKind::Snapshot, "00000001", 1, Finding::Other(200))],
            method: "read-data".to_owned(),
            program: "chronolith 1.0".to_owned(),
            cancels: [DamagedId::new([4; 32])].into_iter().collect(),
            extra: vec![(70, vec![0x00])],
        }
    }

    #[test]
    fn comes_back() {
        let cancelling = Damaged { objects: Vec::new(), ..report() };
        for damaged in [report(), cancelling] {
            assert_eq!(Damaged::decode(&damaged.encode().unwrap()).unwrap(), damaged);
        }
        for code in 1..10 {
            assert_eq!(Finding::from_code(code).unwrap().code(), code);
        }
    }

    #[test]
    fn refuses_what_breaks_a_rule() {
        let nothing = Damaged { objects: Vec::new(), cancels: IdSet::default(), ..report() };
        assert!(nothing.encode().is_err());
        let twice = object(ObjectKind::ContentPack, "", 9, Finding::Missing);
        assert!(Damaged { objects: vec![twice.clone(), twice], ..report() }.encode().is_err());
        assert!(Finding::from_code(0).is_err());
    }
}
