//! The payload of a catalogue.

use super::{Case, Object, cut, keys, longer};
use chronolith::base::{CatalogId, ObjectId};
use chronolith::format::catalog::{Catalog, CatalogEnd, CatalogEntry, CatalogPart, CatalogScope};
use chronolith::format::cbor::{MapWriter, Writer, encode_map};
use chronolith::format::{IdSet, ObjectKind, Place};

pub const OBJECT: Object =
    Object { name: "catalog", recode: |bytes| Catalog::decode(bytes)?.encode(), cases };

fn first() -> Catalog {
    Catalog {
        sequence: 1,
        predecessor: None,
        created: keys::time(),
        scope: CatalogScope::Roots { first: 1, last: 1 },
        entries: Vec::new(),
        ends: Vec::new(),
        parts: Vec::new(),
        replaces: IdSet::default(),
        program: "chronolith 0.1.0".to_owned(),
        next_number: 1,
        extra: Vec::new(),
    }
}

fn entry(kind: ObjectKind, folder: &str, id: u8, number: u64) -> CatalogEntry {
    CatalogEntry {
        place: Place::new(kind, folder, ObjectId::new([id; 32])).unwrap(),
        number,
        first_seen: keys::time(),
        length: 700,
        original: vec![0x43, 0x48, 0x52, 0x4E],
        extra: Vec::new(),
    }
}

fn end(kind: ObjectKind, authority_kind: ObjectKind, original: Option<Vec<u8>>) -> CatalogEnd {
    CatalogEnd {
        kind,
        id: ObjectId::new([0xB1; 32]),
        number: 1,
        authority_kind,
        authority: ObjectId::new([0xB2; 32]),
        ended: keys::time(),
        original,
        extra: Vec::new(),
    }
}

fn roots() -> Catalog {
    let part = |id, scope| CatalogPart {
        catalogue: CatalogId::new([id; 32]),
        scope,
        entries: 3,
        extra: vec![(9, vec![0x00])],
    };
    Catalog {
        sequence: 2,
        predecessor: Some(CatalogId::new([0xC1; 32])),
        scope: CatalogScope::Roots { first: 1, last: 4 },
        entries: vec![
            entry(ObjectKind::Snapshot, "00000004", 0xA1, 3),
            entry(ObjectKind::Annotation, "00000002", 0xA2, 2),
        ],
        ends: vec![end(ObjectKind::Snapshot, ObjectKind::Annotation, Some(vec![0x43]))],
        parts: vec![
            part(0xC2, CatalogScope::Log("pg/main".to_owned())),
            part(0xC3, CatalogScope::Roots { first: 5, last: 6 }),
        ],
        replaces: [CatalogId::new([0xC1; 32])].into_iter().collect(),
        next_number: 4,
        extra: vec![(80, vec![0x00])],
        ..first()
    }
}

fn logs() -> Catalog {
    let stream = "0123456789abcdef".repeat(4);
    Catalog {
        scope: CatalogScope::Log("pg/main".to_owned()),
        entries: vec![
            entry(ObjectKind::LogPack, &format!("{stream}/merged"), 0xA1, 2),
            entry(ObjectKind::LogRecord, &format!("{stream}/records"), 0xA2, 3),
        ],
        ends: vec![
            end(ObjectKind::LogPack, ObjectKind::LogPack, None),
            CatalogEnd {
                id: ObjectId::new([0xB3; 32]),
                ..end(ObjectKind::LogPack, ObjectKind::Annotation, None)
            },
        ],
        next_number: 4,
        ..first()
    }
}

/// A first catalogue with one field replaced, left out or added.
fn with(changed: u64, value: Option<&dyn Fn(Writer<'_>)>) -> Vec<u8> {
    let plain = |number: u64, map: &mut MapWriter<'_>| match number {
        0 | 4 | 5 => map.at(number).unsigned(1),
        2 => map.at(number).signed(5),
        3 => map.at(number).text("roots"),
        10 => map.at(number).text("chronolith 0.1.0"),
        11 => map.at(number).unsigned(9),
        _ => {}
    };
    encode_map(&Vec::new(), |map| {
        for number in (0..12).chain([1 << 16]) {
            match value {
                Some(value) if number == changed => value(map.at(number)),
                None if number == changed => {}
                _ => plain(number, map),
            }
        }
    })
}

/// Kind, id, number, folder, length, original.
type RawEntry = (u64, u8, u64, &'static str, u64, &'static [u8]);

/// A first catalogue with these entries.
fn listing(entries: &'static [RawEntry]) -> Vec<u8> {
    with(
        6,
        Some(&|w: Writer<'_>| {
            w.array(entries, |w, (kind, id, number, folder, length, original)| {
                w.map(&Vec::new(), |map| {
                    map.at(0).unsigned(*kind);
                    map.at(1).bytes(&[*id; 32]);
                    map.at(2).unsigned(*number);
                    map.at(3).signed(5);
                    map.at(4).text(folder);
                    map.at(5).unsigned(*length);
                    map.at(6).bytes(original);
                });
            });
        }),
    )
}

/// A catalogue of a log with one end, which brings the original of the annotation.
fn log_end_with_original() -> Vec<u8> {
    encode_map(&Vec::new(), |map| {
        map.at(0).unsigned(1);
        map.at(2).signed(5);
        map.at(3).text("log:pg/main");
        map.at(7).array(&[()], |w, ()| {
            w.map(&Vec::new(), |map| {
                map.at(0).unsigned(7);
                map.at(1).bytes(&[1; 32]);
                map.at(2).unsigned(1);
                map.at(3).unsigned(8);
                map.at(4).bytes(&[2; 32]);
                map.at(5).signed(5);
                map.at(6).bytes(b"x");
            });
        });
        map.at(10).text("chronolith 0.1.0");
        map.at(11).unsigned(2);
    })
}

/// A first catalogue with one end: kind, number, kind of the authority, original.
fn ending(kind: u64, number: u64, authority: u64, original: Option<&'static [u8]>) -> Vec<u8> {
    with(
        7,
        Some(&|w: Writer<'_>| {
            w.array(&[()], |w, ()| {
                w.map(&Vec::new(), |map| {
                    map.at(0).unsigned(kind);
                    map.at(1).bytes(&[1; 32]);
                    map.at(2).unsigned(number);
                    map.at(3).unsigned(authority);
                    map.at(4).bytes(&[2; 32]);
                    map.at(5).signed(5);
                    map.optional(6, original, |w, original| w.bytes(original));
                });
            });
        }),
    )
}

fn cases() -> Vec<Case> {
    const GENERATION: &str = "00000001";
    let plain = first().encode().unwrap();
    let number = |value| move |w: Writer<'_>| w.unsigned(value);
    let text = |value: &'static str| move |w: Writer<'_>| w.text(value);
    vec![
        Case::accept("first", "the first catalogue: an empty generation", plain.clone()),
        Case::accept("roots", "snapshots and annotations, with all fields", roots().encode().unwrap()),
        Case::accept("logs", "a stream: a merged log pack and a gap", logs().encode().unwrap()),
        Case::truncated("nothing", "no bytes", []),
        Case::truncated("half", "within the program's name", cut(&plain, 32)),
        Case::unsupported("critical", "[CBOR-7]: field 65536", with(1 << 16, Some(&number(0)))),
        Case::unsupported("kind", "[CATALOG-12]: kind 15", listing(&[(15, 1, 1, "", 1, b"x")])),
        Case::corrupt("no-sequence", "[CATALOG-9]: no field 0", with(0, None)),
        Case::corrupt("no-scope", "[CATALOG-9]: no field 3", with(3, None)),
        Case::corrupt("no-next-number", "[CATALOG-9]: no field 11", with(11, None)),
        Case::corrupt("sequence-zero", "[CATALOG-10]: sequence 0", with(0, Some(&number(0)))),
        Case::corrupt("no-predecessor", "[CATALOG-10]: sequence 2 alone", with(0, Some(&number(2)))),
        Case::corrupt("predecessor", "[CATALOG-10]: the first has one", {
            with(1, Some(&|w: Writer<'_>| w.bytes(&[1; 32])))
        }),
        Case::corrupt("scope", "[CATALOG-11]: a scope of another form", with(3, Some(&text("all")))),
        Case::corrupt("log-generations", "[CATALOG-11]: a log with generations", {
            with(3, Some(&text("log:pg/main")))
        }),
        Case::corrupt("no-generations", "[CATALOG-11]: roots without the last generation", with(5, None)),
        Case::corrupt("generation-zero", "[CATALOG-11]: generation 0", with(4, Some(&number(0)))),
        Case::corrupt("generations", "[CATALOG-11]: the first above the last", with(4, Some(&number(2)))),
        Case::corrupt("generation-large", "[CATALOG-11]: above 32 bits", with(5, Some(&number(1 << 32)))),
        Case::corrupt("stream-unnamed", "[CATALOG-11]: a stream without a name", {
            encode_map(&Vec::new(), |map| {
                map.at(0).unsigned(1);
                map.at(2).signed(5);
                map.at(3).text("log:");
                map.at(10).text("chronolith 0.1.0");
                map.at(11).unsigned(1);
            })
        }),
        Case::corrupt("empty", "[CATALOG-12]: an empty list of entries", listing(&[])),
        Case::corrupt("order", "[CATALOG-12]: entries not ascending", {
            listing(&[(6, 2, 1, GENERATION, 1, b"x"), (6, 1, 2, GENERATION, 1, b"x")])
        }),
        Case::corrupt("number-zero", "[CATALOG-12]: number 0", listing(&[(6, 1, 0, GENERATION, 1, b"x")])),
        Case::corrupt("number-next", "[CATALOG-12]: a number not given", {
            listing(&[(6, 1, 9, GENERATION, 1, b"x")])
        }),
        Case::corrupt(
            "scope-of-kind",
            "[CATALOG-12]: a session among roots",
            listing(&[(9, 1, 1, "", 1, b"x")]),
        ),
        Case::corrupt("folder", "[CATALOG-12]: a folder that leaves its area", {
            listing(&[(6, 1, 1, "../../trust", 1, b"x")])
        }),
        Case::corrupt("length-zero", "[CATALOG-12]: no object is empty", {
            listing(&[(6, 1, 1, GENERATION, 0, b"x")])
        }),
        Case::corrupt("no-original", "[CATALOG-12]: an empty original", {
            listing(&[(6, 1, 1, GENERATION, 1, b"")])
        }),
        Case::corrupt("authority", "[CATALOG-13]: a session ends nothing", ending(6, 1, 9, None)),
        Case::corrupt("authority-unproved", "[CATALOG-13]: no original", ending(6, 1, 8, None)),
        Case::corrupt("authority-proved", "[CATALOG-13]: an original of a condemnation", {
            ending(6, 1, 10, Some(b"x"))
        }),
        Case::corrupt("log-end-proved", "[CATALOG-13]: an original at the end of a log pack", {
            log_end_with_original()
        }),
        Case::corrupt("end-number", "[CATALOG-13]: number 0", ending(6, 0, 8, Some(b"x"))),
        Case::corrupt("trailing", "[CBOR-1]: a byte follows", longer(&plain, &[0])),
    ]
}
