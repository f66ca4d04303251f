//! The payload of an annotation.

use super::{Case, Object, cut, keys, longer, patched};
use chronolith::base::{AnnotationId, LogPackId, PackId, SnapshotId};
use chronolith::format::annotation::{Annotation, AnnotationKind, Outcome};
use chronolith::format::cbor::{Writer, encode_map};

pub const OBJECT: Object =
    Object { name: "annotation", recode: |bytes| Annotation::decode(bytes)?.encode(), cases };

fn of(kind: AnnotationKind) -> Annotation {
    let mut annotation = Annotation::new(kind, keys::time());
    annotation.subjects = [SnapshotId::new([0xA1; 32])].into_iter().collect();
    annotation
}

fn tag() -> Annotation {
    Annotation { key: Some("release".to_owned()), value: Some("2.1".to_owned()), ..of(AnnotationKind::Tag) }
}

fn verified() -> Annotation {
    Annotation {
        subjects: [SnapshotId::new([0xA2; 32]), SnapshotId::new([0xA1; 32])].into_iter().collect(),
        packs: [PackId::new([0xB1; 32]), PackId::new([0xB2; 32])].into_iter().collect(),
        log_packs: [LogPackId::new([0xC1; 32])].into_iter().collect(),
        method: Some("read-data".to_owned()),
        outcome: Some(Outcome::Incomplete),
        facts: [("bytes".to_owned(), "1048576".to_owned()), ("to".to_owned(), "5/7".to_owned())].into(),
        ..of(AnnotationKind::Verified)
    }
}

/// A field by its number, and what writes its value.
type RawField = (u64, fn(Writer<'_>));

/// An annotation with these fields after kind and time.
fn raw(kind: u64, fields: &[RawField]) -> Vec<u8> {
    encode_map(&Vec::new(), |map| {
        map.at(0).unsigned(kind);
        map.at(1).signed(5);
        for (number, write) in fields {
            write(map.at(*number));
        }
    })
}

const ONE: (u64, fn(Writer<'_>)) = (2, |w| w.array(&[1_u8], |w, n| w.bytes(&[*n; 32])));
const METHOD: (u64, fn(Writer<'_>)) = (6, |w| w.text("read-data"));

fn cases() -> Vec<Case> {
    let cancel = |kind| Annotation {
        cancels: Some(AnnotationId::new([0xD1; 32])),
        subjects: Default::default(),
        ..of(kind)
    };
    let note = Annotation { value: Some("before the move".to_owned()), ..of(AnnotationKind::Note) };
    let attested = Annotation {
        subjects: Default::default(),
        log_packs: Default::default(),
        outcome: Some(Outcome::Passed),
        ..Annotation { kind: AnnotationKind::Attested, ..verified() }
    };
    let untag = Annotation { key: Some("release".to_owned()), ..of(AnnotationKind::Untag) };
    let unknown = Annotation { extra: vec![(77, vec![0x83, 1, 2, 3])], ..tag() };
    let encoded = |annotation: Annotation| annotation.encode().unwrap();
    let tag = encoded(tag());
    vec![
        Case::accept("tag", "the tag release=2.1", tag.clone()),
        Case::accept("untag", "tags named release inside the snapshot have no effect", encoded(untag)),
        Case::accept("untag-one", "one tag is taken back", encoded(cancel(AnnotationKind::Untag))),
        Case::accept("pin", "a pin without a reason", encoded(of(AnnotationKind::Pin))),
        Case::accept("unpin", "a pin is taken back", encoded(cancel(AnnotationKind::Unpin))),
        Case::accept("note", "a note", encoded(note)),
        Case::accept("verified", "an entry of the ledger, with all fields", encoded(verified())),
        Case::accept("forgotten", "a snapshot is forgotten", encoded(of(AnnotationKind::Forgotten))),
        Case::accept("undeleted", "forgetting is taken back", encoded(cancel(AnnotationKind::Undeleted))),
        Case::accept("attested", "packs were decrypted and found good", encoded(attested)),
        Case::accept("unknown-field", "with a field of a newer program", encoded(unknown)),
        Case::truncated("nothing", "no bytes", []),
        Case::truncated("half", "within the subject", cut(&tag, 30)),
        Case::unsupported("kind", "[ANNOTATION-11]: kind 10", patched(&tag, 2, &[10])),
        Case::unsupported("critical", "[CBOR-7]: field 65536", raw(3, &[ONE, (1 << 16, |w| w.unsigned(0))])),
        Case::corrupt("kind-zero", "[ANNOTATION-11]: kind 0", patched(&tag, 2, &[0])),
        Case::corrupt("no-time", "[ANNOTATION-10]: no time", {
            encode_map(&Vec::new(), |map| {
                map.at(0).unsigned(3);
                ONE.1(map.at(2));
            })
        }),
        Case::corrupt("pin-nothing", "[ANNOTATION-12]: a pin without subjects", raw(3, &[])),
        Case::corrupt("tag-no-key", "[ANNOTATION-12]: a tag without a key", raw(1, &[ONE])),
        Case::corrupt("untag-nothing", "[ANNOTATION-12]: untag names nothing", raw(2, &[ONE])),
        Case::corrupt("unpin-nothing", "[ANNOTATION-12]: unpin without the pin", raw(4, &[ONE])),
        Case::corrupt("note-no-text", "[ANNOTATION-12]: a note without a text", raw(5, &[ONE])),
        Case::corrupt("verified-how", "[ANNOTATION-12]: no outcome", raw(6, &[ONE, METHOD])),
        Case::corrupt("attested-no-pack", "[ANNOTATION-12]: attests no packs", {
            raw(9, &[ONE, METHOD, (8, |w| w.unsigned(0))])
        }),
        Case::corrupt(
            "outcome",
            "[ANNOTATION-14]: outcome 3",
            raw(6, &[ONE, METHOD, (8, |w| w.unsigned(3))]),
        ),
        Case::corrupt("empty-method", "[ANNOTATION-14]: an empty method", {
            raw(6, &[ONE, (6, |w| w.text("")), (8, |w| w.unsigned(0))])
        }),
        Case::corrupt("empty-key", "[ANNOTATION-14]: an empty key", raw(1, &[ONE, (3, |w| w.text(""))])),
        Case::corrupt("long-key", "[ANNOTATION-14]: a key of 4097 bytes", {
            raw(1, &[ONE, (3, |w| w.text(&"k".repeat(4097)))])
        }),
        Case::corrupt("empty-subjects", "[ANNOTATION-13]: an empty list", {
            raw(5, &[(2, |w| w.array::<u8>(&[], |_, _| {})), (4, |w| w.text("x"))])
        }),
        Case::corrupt("subjects-descend", "[ANNOTATION-13]: subjects not ascending", {
            raw(3, &[(2, |w| w.array(&[2_u8, 1], |w, n| w.bytes(&[*n; 32])))])
        }),
        Case::corrupt("subject-twice", "[ANNOTATION-13]: a subject twice", {
            raw(3, &[(2, |w| w.array(&[1_u8, 1], |w, n| w.bytes(&[*n; 32])))])
        }),
        Case::corrupt("short-subject", "[ANNOTATION-13]: an id of 31 bytes", {
            raw(3, &[(2, |w| w.array(&[1_u8], |w, n| w.bytes(&[*n; 31])))])
        }),
        Case::corrupt("no-facts", "[ANNOTATION-13]: an empty map of facts", {
            raw(3, &[ONE, (10, |w| w.text_map(&Default::default()))])
        }),
        Case::corrupt("trailing", "[CBOR-1]: a byte follows", longer(&tag, &[0])),
    ]
}
