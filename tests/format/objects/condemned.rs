//! The payload of a condemnation.

use super::{Case, Object, cut, keys, longer};
use chronolith::base::{CatalogId, CondemnedId, KeyId, ObjectId, PackId, SessionId};
use chronolith::format::cbor::{MapWriter, Writer, encode_map};
use chronolith::format::condemned::{Condemned, CondemnedObject, SessionSighting};
use chronolith::format::{IdSet, ObjectKind, Place};

pub const OBJECT: Object =
    Object { name: "condemned", recode: |bytes| Condemned::decode(bytes)?.encode(), cases };

fn packs(first_bytes: &[u8]) -> IdSet<PackId> {
    first_bytes.iter().map(|byte| PackId::new([*byte; 32])).collect()
}

fn object(kind: ObjectKind, folder: &str, id: u8) -> CondemnedObject {
    let place = Place::new(kind, folder, ObjectId::new([id; 32])).unwrap();
    CondemnedObject { place, extra: Vec::new() }
}

fn observation() -> Condemned {
    Condemned {
        created: keys::time(),
        store_time: keys::time(),
        grace_seconds: 86400,
        session: [0xA1; 32],
        sessions: Vec::new(),
        dead: IdSet::default(),
        superfluous: IdSet::default(),
        copies: IdSet::default(),
        tombstones: IdSet::default(),
        objects: Vec::new(),
        absorbs: IdSet::default(),
        bytes: 0,
        program: "chronolith 0.1.0".to_owned(),
        catalogue: None,
        extra: Vec::new(),
    }
}

fn full() -> Condemned {
    let segment = format!("{}/{}", "0123456789abcdef".repeat(4), "fedcba9876543210".repeat(4));
    let sighting = |signer, session, sequence| SessionSighting {
        signer: KeyId::new([signer; 32]),
        session: [session; 32],
        renewal: SessionId::new([0xB1; 32]),
        sequence,
        extra: Vec::new(),
    };
    Condemned {
        sessions: vec![sighting(1, 2, 7), sighting(2, 1, 1)],
        dead: packs(&[0xC1, 0xC2]),
        superfluous: packs(&[0xC3]),
        copies: packs(&[0xC4]),
        tombstones: packs(&[0xC5]),
        objects: vec![
            object(ObjectKind::Snapshot, "00000001", 0xD2),
            object(ObjectKind::Snapshot, "00000002", 0xD1),
            object(ObjectKind::LogPack, &segment, 0xD3),
            object(ObjectKind::Session, "", 0xD4),
        ],
        absorbs: [CondemnedId::new([0xE1; 32])].into_iter().collect(),
        bytes: 67_108_864,
        catalogue: Some(CatalogId::new([0xF1; 32])),
        extra: vec![(80, vec![0x62, 0x6F, 0x6B])],
        ..observation()
    }
}

/// An observation with one field replaced, left out or added.
fn with(changed: u64, value: Option<&dyn Fn(Writer<'_>)>) -> Vec<u8> {
    with_two(changed, value, 1 << 20, &|_| {})
}

fn with_two(
    changed: u64,
    value: Option<&dyn Fn(Writer<'_>)>,
    added: u64,
    more: &dyn Fn(Writer<'_>),
) -> Vec<u8> {
    let plain = |number: u64, map: &mut MapWriter<'_>| match number {
        0 | 1 => map.at(number).signed(5),
        2 => map.at(number).unsigned(60),
        3 => map.at(number).bytes(&[0xA1; 32]),
        11 => map.at(number).unsigned(0),
        12 => map.at(number).text("chronolith 0.1.0"),
        _ => {}
    };
    encode_map(&Vec::new(), |map| {
        for number in (0..14).chain([1 << 16]) {
            match value {
                Some(value) if number == changed => value(map.at(number)),
                None if number == changed => {}
                _ if number == added => more(map.at(number)),
                _ => plain(number, map),
            }
        }
    })
}

fn listed(kind: u64, folder: &'static str) -> Vec<u8> {
    let entry = move |w: Writer<'_>| {
        w.map(&Vec::new(), |map| {
            map.at(0).unsigned(kind);
            map.at(1).bytes(&[9; 32]);
            map.at(2).text(folder);
        });
    };
    with(9, Some(&move |w: Writer<'_>| w.array(&[()], |w, ()| entry(w))))
}

fn cases() -> Vec<Case> {
    let plain = observation().encode().unwrap();
    let set = |bytes: &'static [u8]| move |w: Writer<'_>| w.bytes(bytes);
    let number = |value| move |w: Writer<'_>| w.unsigned(value);
    let sighting = |sequence: u64| {
        move |w: Writer<'_>| {
            w.array(&[()], |w, ()| {
                w.map(&Vec::new(), |map| {
                    (0..3).for_each(|field| map.at(field).bytes(&[7; 32]));
                    map.at(3).unsigned(sequence);
                });
            });
        }
    };
    let missing = |fields: std::ops::Range<u64>| {
        move |w: Writer<'_>| {
            w.array(&[()], |w, ()| {
                w.map(&Vec::new(), |map| fields.clone().for_each(|field| map.at(field).bytes(&[7; 32])));
            });
        }
    };
    vec![
        Case::accept("observation", "nothing is listed: only sessions would be recorded", plain.clone()),
        Case::accept("full", "with all fields, and one of a newer program", full().encode().unwrap()),
        Case::truncated("nothing", "no bytes", []),
        Case::truncated("half", "within the session", cut(&plain, 40)),
        Case::unsupported("critical", "[CBOR-7]: field 65536", with(1 << 16, Some(&number(0)))),
        Case::unsupported("kind", "[CONDEMNED-10]: kind 15", listed(15, "")),
        Case::corrupt("no-grace", "[CONDEMNED-7]: no field 2", with(2, None)),
        Case::corrupt("no-session", "[CONDEMNED-7]: no field 3", with(3, None)),
        Case::corrupt("no-store-time", "[CONDEMNED-7]: no field 1", with(1, None)),
        Case::corrupt("long-grace", "[CONDEMNED-7]: a day too long", with(2, Some(&number(31_708_800)))),
        Case::corrupt("empty-set", "[CONDEMNED-8]: an empty set", with(5, Some(&set(&[])))),
        Case::corrupt("cut-set", "[CONDEMNED-8]: a set of 33 bytes", with(6, Some(&set(&[1; 33])))),
        Case::corrupt("pack-twice", "[CONDEMNED-8]: a pack twice in a list", with(8, Some(&set(&[1; 64])))),
        Case::corrupt("two-lists", "[CONDEMNED-8]: a pack in two lists", {
            with_two(5, Some(&set(&[1; 32])), 7, &set(&[1; 32]))
        }),
        Case::corrupt("no-sessions", "[CONDEMNED-9]: an empty list", {
            with(4, Some(&|w: Writer<'_>| w.array::<u8>(&[], |_, _| {})))
        }),
        Case::corrupt("session-sequence", "[CONDEMNED-9]: sequence 0", with(4, Some(&sighting(0)))),
        Case::corrupt("session-half", "[CONDEMNED-9]: a session without its renewal", {
            with(4, Some(&missing(0..2)))
        }),
        Case::corrupt("trust", "[CONDEMNED-10]: a registry of trust", listed(1, "")),
        Case::corrupt("slot", "[CONDEMNED-10]: a key slot", listed(2, "")),
        Case::corrupt("pack", "[CONDEMNED-10]: packs have lists of their own", listed(3, "")),
        Case::corrupt("no-generation", "[CONDEMNED-10]: a snapshot without its generation", listed(6, "")),
        Case::corrupt("generation-zero", "[CONDEMNED-10]: generation 0", listed(6, "00000000")),
        Case::corrupt("climbs", "[CONDEMNED-10]: a folder that leaves its area", listed(6, "../trust")),
        Case::corrupt("session-folder", "[CONDEMNED-10]: sessions have no folders", listed(9, "00000001")),
        Case::corrupt("trailing", "[CBOR-1]: a byte follows", longer(&plain, &[0])),
    ]
}
