//! The payload of a report of damage.

use super::{Case, Object, cut, keys, longer};
use chronolith::base::{BlobId, DamagedId, ObjectId};
use chronolith::format::cbor::{MapWriter, Writer, encode_map};
use chronolith::format::damaged::{Damaged, DamagedObject, Finding};
use chronolith::format::{IdSet, ObjectKind, Place};

pub const OBJECT: Object =
    Object { name: "damaged", recode: |bytes| Damaged::decode(bytes)?.encode(), cases };

fn object(kind: ObjectKind, folder: &str, id: u8, finding: Finding) -> DamagedObject {
    DamagedObject {
        place: Place::new(kind, folder, ObjectId::new([id; 32])).unwrap(),
        finding,
        blobs: IdSet::default(),
        expected_bytes: None,
        found_bytes: None,
        detail: None,
        extra: Vec::new(),
    }
}

fn report() -> Damaged {
    Damaged {
        created: keys::time(),
        objects: vec![object(ObjectKind::ContentPack, "", 0xA1, Finding::Missing)],
        method: "structure".to_owned(),
        program: "chronolith 0.1.0".to_owned(),
        cancels: IdSet::default(),
        extra: Vec::new(),
    }
}

fn full() -> Damaged {
    let content = DamagedObject {
        blobs: [BlobId::new([0xB2; 32]), BlobId::new([0xB1; 32])].into_iter().collect(),
        expected_bytes: Some(1000),
        found_bytes: Some(999),
        detail: Some("frame 3 of 9".to_owned()),
        extra: vec![(9, vec![0x00])],
        ..object(ObjectKind::ContentPack, "", 0xA2, Finding::Content)
    };
    Damaged {
        objects: vec![content, object(ObjectKind::Snapshot, "0000001f", 0xA1, Finding::Other(8))],
        method: "read-data".to_owned(),
        cancels: [DamagedId::new([0xC1; 32])].into_iter().collect(),
        extra: vec![(80, vec![0x00])],
        ..report()
    }
}

/// Writes the fields of one entry.
type RawEntry<'a> = &'a dyn Fn(&mut MapWriter<'_>);

fn raw(entries: Option<&[RawEntry<'_>]>, method: bool) -> Vec<u8> {
    encode_map(&Vec::new(), |map| {
        map.at(0).signed(5);
        if let Some(entries) = entries {
            map.at(1).array(entries, |w: Writer<'_>, entry| w.map(&Vec::new(), |map| entry(map)));
        }
        if method {
            map.at(2).text("structure");
        }
        map.at(3).text("chronolith 0.1.0");
    })
}

fn entry(kind: u64, id: u8, finding: u64) -> impl Fn(&mut MapWriter<'_>) {
    move |map| {
        map.at(0).unsigned(kind);
        map.at(1).bytes(&[id; 32]);
        map.at(2).unsigned(finding);
    }
}

fn cases() -> Vec<Case> {
    let plain = report().encode().unwrap();
    let cancelling =
        Damaged { objects: Vec::new(), cancels: [DamagedId::new([1; 32])].into_iter().collect(), ..report() };
    let critical = Damaged { extra: vec![(1 << 16, vec![0x00])], ..report() };
    let folder = |text: &'static str| {
        move |map: &mut MapWriter<'_>| {
            entry(6, 1, 1)(map);
            map.at(3).text(text);
        }
    };
    let blobs = |map: &mut MapWriter<'_>| {
        entry(3, 1, 6)(map);
        map.at(4).bytes(&[1; 64]);
    };
    let no_finding = |map: &mut MapWriter<'_>| {
        map.at(0).unsigned(3);
        map.at(1).bytes(&[1; 32]);
    };
    vec![
        Case::accept("missing", "a content pack is missing", plain.clone()),
        Case::accept(
            "full",
            "with all fields, a finding and fields of newer programs",
            full().encode().unwrap(),
        ),
        Case::accept("cancelling", "takes back another report", cancelling.encode().unwrap()),
        Case::truncated("nothing", "no bytes", []),
        Case::truncated("half", "within the id", cut(&plain, 40)),
        Case::unsupported("critical", "[CBOR-7]: field 65536", critical.encode().unwrap()),
        Case::unsupported("kind", "[DAMAGED-7]: kind 15", raw(Some(&[&entry(15, 1, 1)]), true)),
        Case::corrupt("says-nothing", "[DAMAGED-6]: neither entries nor cancels", raw(None, true)),
        Case::corrupt("no-method", "[DAMAGED-6]: no field 2", raw(Some(&[&entry(3, 1, 1)]), false)),
        Case::corrupt("empty", "[DAMAGED-6]: an empty list", raw(Some(&[]), true)),
        Case::corrupt("finding-zero", "[DAMAGED-7]: finding 0", raw(Some(&[&entry(3, 1, 0)]), true)),
        Case::corrupt("no-finding", "[DAMAGED-7]: no finding", raw(Some(&[&no_finding]), true)),
        Case::corrupt("order", "[DAMAGED-7]: entries not ascending", {
            raw(Some(&[&entry(3, 2, 1), &entry(3, 1, 1)]), true)
        }),
        Case::corrupt("twice", "[DAMAGED-7]: an object twice", {
            raw(Some(&[&entry(3, 1, 1), &entry(3, 1, 2)]), true)
        }),
        Case::corrupt("no-folder", "[DAMAGED-8]: a snapshot without its generation", {
            raw(Some(&[&entry(6, 1, 1)]), true)
        }),
        Case::corrupt("empty-folder", "[DAMAGED-8]: an empty folder is left out", {
            raw(Some(&[&folder("")]), true)
        }),
        Case::corrupt("climbs", "[DAMAGED-8]: a folder that leaves its area", {
            raw(Some(&[&folder("../keys")]), true)
        }),
        Case::corrupt("blob-twice", "[DAMAGED-8]: a blob twice", raw(Some(&[&blobs]), true)),
        Case::corrupt("trailing", "[CBOR-1]: a byte follows", longer(&plain, &[0])),
    ]
}
