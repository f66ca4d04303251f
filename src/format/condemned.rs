//! A condemnation: announces what will be deleted, and keeps the names dead afterwards.
//!
//! Normative: `format-spec/condemned.md` and `format-spec/concurrency.md`.

use super::bytes::{at_most, ensure};
use super::cbor::{Extra, Field, MapWriter, Reader, decode_map, encode_map, required};
use super::kind::ObjectKind;
use super::place::Place;
use super::sets::{IdSet, ascending_by, not_empty};
use super::{FormatError, words};
use crate::base::{CatalogId, CondemnedId, KeyId, ObjectId, PackId, SessionId, Timestamp, limits};

const WHAT: &str = "condemnation";
const MAX: u64 = limits::LISTING_BYTES_MAX;

/// The newest renewal of a session, as the maker of a condemnation saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSighting {
    /// Who holds the session.
    pub signer: KeyId,
    /// The session's own random bytes.
    pub session: [u8; 32],
    /// Its newest renewal.
    pub renewal: SessionId,
    /// The number of that renewal.
    pub sequence: u64,
    /// Fields of newer programs.
    pub extra: Extra,
}

/// An object other than a pack that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CondemnedObject {
    /// Where it lies.
    pub place: Place,
    /// Fields of newer programs.
    pub extra: Extra,
}

/// A condemnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemned {
    /// When it was made, by the host's clock.
    pub created: Timestamp,
    /// When it was made, by the store's clock.
    pub store_time: Timestamp,
    /// Seconds between this announcement and the deletion.
    pub grace_seconds: u64,
    /// The maker's own session.
    pub session: [u8; 32],
    /// Newest renewals of all sessions that had not ended, ascending by signer and session.
    pub sessions: Vec<SessionSighting>,
    /// Packs that hold nothing live.
    pub dead: IdSet<PackId>,
    /// Packs of which everything live has other copies.
    pub superfluous: IdSet<PackId>,
    /// Packs that hold these other copies.
    pub copies: IdSet<PackId>,
    /// Packs that are deleted, but still named by index runs.
    pub tombstones: IdSet<PackId>,
    /// Other objects to delete, ascending by place.
    pub objects: Vec<CondemnedObject>,
    /// Condemnations whose tombstones this one carries on.
    pub absorbs: IdSet<CondemnedId>,
    /// Length of everything that is to be deleted.
    pub bytes: u64,
    /// Name and version of the program, for people.
    pub program: String,
    /// The newest catalogue that the roots were compared with.
    pub catalogue: Option<CatalogId>,
    /// Fields of newer programs.
    pub extra: Extra,
}

impl Condemned {
    /// Says whether nobody may adopt from the pack: it is to be deleted, or was.
    pub fn names(&self, pack: &PackId) -> bool {
        self.dead.contains(pack) || self.superfluous.contains(pack) || self.tombstones.contains(pack)
    }

    /// Encodes the payload of the object.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        let bytes = encode_map(&self.extra, |map| self.write(map));
        at_most(WHAT, bytes.len() as u64, MAX)?;
        Ok(bytes)
    }

    fn write(&self, map: &mut MapWriter<'_>) {
        map.at(0).signed(self.created.nanoseconds());
        map.at(1).signed(self.store_time.nanoseconds());
        map.at(2).unsigned(self.grace_seconds);
        map.at(3).bytes(&self.session);
        map.list(4, &self.sessions, |place, seen| {
            place.map(&seen.extra, |map| {
                map.at(0).bytes(seen.signer.as_bytes());
                map.at(1).bytes(&seen.session);
                map.at(2).bytes(seen.renewal.as_bytes());
                map.at(3).unsigned(seen.sequence);
            });
        });
        self.dead.write_packed(map, 5);
        self.superfluous.write_packed(map, 6);
        self.copies.write_packed(map, 7);
        self.tombstones.write_packed(map, 8);
        map.list(9, &self.objects, |place, object| {
            place.map(&object.extra, |map| {
                map.at(0).unsigned(object.place.kind().number().into());
                map.at(1).bytes(object.place.id().as_bytes());
                map.at(2).text(object.place.folder());
            });
        });
        self.absorbs.write_packed(map, 10);
        map.at(11).unsigned(self.bytes);
        map.at(12).text(&self.program);
        map.optional(13, self.catalogue, |place, id| place.bytes(id.as_bytes()));
    }

    /// Decodes the payload of the object.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        at_most(WHAT, bytes.len() as u64, MAX)?;
        let (mut created, mut store_time, mut grace, mut session) = (None, None, None, None);
        let (mut length, mut program, mut catalogue) = (None, None, None);
        let (mut sessions, mut objects, mut absorbs) = (Vec::new(), Vec::new(), IdSet::default());
        let (mut dead, mut superfluous) = (IdSet::default(), IdSet::default());
        let (mut copies, mut tombstones) = (IdSet::default(), IdSet::default());
        let extra = decode_map(WHAT, bytes, |number, value| {
            match number {
                0 => created = Some(value.timestamp()?),
                1 => store_time = Some(value.timestamp()?),
                2 => grace = Some(value.unsigned()?),
                3 => session = Some(value.fixed()?),
                4 => sessions = not_empty(WHAT, value.array(limits::LIST_IDS_MAX, sighting)?)?,
                5 => dead = IdSet::read_packed(value, MAX)?,
                6 => superfluous = IdSet::read_packed(value, MAX)?,
                7 => copies = IdSet::read_packed(value, MAX)?,
                8 => tombstones = IdSet::read_packed(value, MAX)?,
                9 => objects = not_empty(WHAT, value.array(limits::LIST_IDS_MAX, object)?)?,
                10 => absorbs = IdSet::read_packed(value, MAX)?,
                11 => length = Some(value.unsigned()?),
                12 => program = Some(value.text(limits::NAME_BYTES_MAX)?.to_owned()),
                13 => catalogue = Some(CatalogId::new(value.fixed()?)),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let read = Self {
            created: required(created, WHAT)?,
            store_time: required(store_time, WHAT)?,
            grace_seconds: required(grace, WHAT)?,
            session: required(session, WHAT)?,
            sessions,
            dead,
            superfluous,
            copies,
            tombstones,
            objects,
            absorbs,
            bytes: required(length, WHAT)?,
            program: required(program, WHAT)?,
            catalogue,
            extra,
        };
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), FormatError> {
        at_most("grace of a condemnation", self.grace_seconds, limits::GRACE_SECONDS_MAX)?;
        let packs = [&self.dead, &self.superfluous, &self.copies, &self.tombstones];
        for (at, set) in packs.iter().enumerate() {
            let apart = packs.iter().skip(at + 1).all(|other| !set.meets(other));
            ensure(apart, WHAT, "a pack is in two of its lists")?;
        }
        let sequences = self.sessions.iter().all(|seen| seen.sequence > 0);
        ensure(sequences, WHAT, "sequences of sessions count from 1")?;
        ascending_by(WHAT, &self.sessions, |seen| (seen.signer, seen.session))?;
        let kinds = self.objects.iter().all(|object| may_be_condemned(object.place.kind()));
        ensure(kinds, WHAT, "it lists an object that is never swept")?;
        ascending_by(WHAT, &self.objects, |object| &object.place)
    }
}

/// Packs have lists of their own; the registry of trust and key slots end in other ways.
fn may_be_condemned(kind: ObjectKind) -> bool {
    !matches!(
        kind,
        ObjectKind::Configuration
            | ObjectKind::Trust
            | ObjectKind::Slot
            | ObjectKind::ContentPack
            | ObjectKind::MetadataPack
    )
}

fn sighting(reader: Reader<'_, '_>) -> Result<SessionSighting, FormatError> {
    let (mut signer, mut session, mut renewal, mut sequence) = (None, None, None, None);
    let extra = reader.map(|number, value| {
        match number {
            0 => signer = Some(KeyId::new(value.fixed()?)),
            1 => session = Some(value.fixed()?),
            2 => renewal = Some(SessionId::new(value.fixed()?)),
            3 => sequence = Some(value.unsigned()?),
            _ => return Ok(Field::Unknown),
        }
        Ok(Field::Known)
    })?;
    Ok(SessionSighting {
        signer: required(signer, WHAT)?,
        session: required(session, WHAT)?,
        renewal: required(renewal, WHAT)?,
        sequence: required(sequence, WHAT)?,
        extra,
    })
}

fn object(reader: Reader<'_, '_>) -> Result<CondemnedObject, FormatError> {
    let (mut kind, mut id, mut folder) = (None, None, None);
    let extra = reader.map(|number, value| {
        match number {
            0 => kind = Some(words::kind_from(value.unsigned()?)?),
            1 => id = Some(ObjectId::new(value.fixed()?)),
            2 => folder = Some(value.text(limits::NAME_BYTES_MAX)?),
            _ => return Ok(Field::Unknown),
        }
        Ok(Field::Known)
    })?;
    let place = Place::new(required(kind, WHAT)?, required(folder, WHAT)?, required(id, WHAT)?)?;
    Ok(CondemnedObject { place, extra })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<T: super::super::sets::SetId>(numbers: &[u8]) -> IdSet<T> {
        numbers.iter().map(|n| T::from_bytes([*n; 32])).collect()
    }

    fn seen(signer: u8, session: u8) -> SessionSighting {
        SessionSighting {
            signer: KeyId::new([signer; 32]),
            session: [session; 32],
            renewal: SessionId::new([9; 32]),
            sequence: 4,
            extra: vec![(8, vec![0x01])],
        }
    }

    fn object(kind: ObjectKind, folder: &str, id: u8) -> CondemnedObject {
        let place = Place::new(kind, folder, ObjectId::new([id; 32])).unwrap();
        CondemnedObject { place, extra: Extra::new() }
    }

    fn condemnation() -> Condemned {
        Condemned {
            created: Timestamp::from_nanoseconds(1),
            store_time: Timestamp::from_nanoseconds(2),
            grace_seconds: 86400,
            session: [1; 32],
            sessions: vec![seen(1, 2), seen(2, 1)],
            dead: set(&[1, 2]),
            superfluous: set(&[3]),
            copies: set(&[4, 5]),
            tombstones: set(&[6]),
            objects: vec![
                object(ObjectKind::Snapshot, "00000001", 5),
                object(ObjectKind::Snapshot, "00000002", 4),
                object(ObjectKind::Session, "", 3),
            ],
            absorbs: set(&[7]),
            bytes: 12345,
            program: "chronolith 1.0".to_owned(),
            catalogue: Some(CatalogId::new([8; 32])),
            extra: vec![(70, vec![0x00])],
        }
    }

    #[test]
    fn comes_back() {
        let full = condemnation();
        assert_eq!(Condemned::decode(&full.encode().unwrap()).unwrap(), full);
        assert!(full.names(&PackId::new([6; 32])) && !full.names(&PackId::new([4; 32])));
        let observation = Condemned {
            sessions: Vec::new(),
            dead: IdSet::default(),
            superfluous: IdSet::default(),
            copies: IdSet::default(),
            tombstones: IdSet::default(),
            objects: Vec::new(),
            absorbs: IdSet::default(),
            bytes: 0,
            catalogue: None,
            extra: Extra::new(),
            ..full
        };
        assert_eq!(Condemned::decode(&observation.encode().unwrap()).unwrap(), observation);
    }

    #[test]
    fn refuses_what_breaks_a_rule() {
        let mut no_sequence = seen(1, 1);
        no_sequence.sequence = 0;
        let broken = [
            Condemned { grace_seconds: limits::GRACE_SECONDS_MAX + 1, ..condemnation() },
            Condemned { superfluous: set(&[2]), ..condemnation() },
            Condemned { tombstones: set(&[5]), ..condemnation() },
            Condemned { sessions: vec![seen(2, 1), seen(1, 2)], ..condemnation() },
            Condemned { sessions: vec![no_sequence], ..condemnation() },
            Condemned { objects: vec![object(ObjectKind::Slot, "", 1)], ..condemnation() },
            Condemned { objects: vec![object(ObjectKind::Session, "", 1); 2], ..condemnation() },
        ];
        for condemned in broken {
            assert!(condemned.encode().is_err(), "{condemned:?}");
        }
    }
}
