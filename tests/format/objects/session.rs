//! The payload of a session's renewal.

use super::{Case, Object, cut, keys, longer};
use chronolith::base::{CondemnedId, SessionId, SnapshotId};
use chronolith::format::cbor::{Writer, encode_map};
use chronolith::format::session::{Session, SessionPurpose};

pub const OBJECT: Object =
    Object { name: "session", recode: |bytes| Session::decode(bytes)?.encode(), cases };

fn first() -> Session {
    Session {
        session: [0xA1; 32],
        sequence: 1,
        predecessor: None,
        purpose: SessionPurpose::Write,
        started: keys::time(),
        renewed: keys::time(),
        host: "db1".to_owned(),
        program: "chronolith 0.1.0".to_owned(),
        promise_seconds: 300,
        seen: Default::default(),
        snapshots: Default::default(),
        streams: Vec::new(),
        ended: false,
        extra: Vec::new(),
    }
}

fn renewal() -> Session {
    Session {
        sequence: 2,
        predecessor: Some(SessionId::new([0xB1; 32])),
        purpose: SessionPurpose::Read,
        seen: [CondemnedId::new([0xC2; 32]), CondemnedId::new([0xC1; 32])].into_iter().collect(),
        snapshots: [SnapshotId::new([0xD1; 32])].into_iter().collect(),
        streams: vec!["mysql/shop".to_owned(), "pg/main".to_owned()],
        ..first()
    }
}

/// A first renewal with one field replaced, left out or added.
fn with(changed: u64, value: Option<fn(Writer<'_>)>) -> Vec<u8> {
    let fields: [(u64, fn(Writer<'_>)); 14] = [
        (0, |w| w.bytes(&[0xA1; 32])),
        (1, |w| w.unsigned(1)),
        (2, |_| {}),
        (3, |w| w.unsigned(1)),
        (4, |w| w.signed(5)),
        (5, |w| w.signed(6)),
        (6, |w| w.text("db1")),
        (7, |w| w.text("chronolith 0.1.0")),
        (8, |w| w.unsigned(300)),
        (9, |_| {}),
        (10, |_| {}),
        (11, |_| {}),
        (12, |_| {}),
        (1 << 16, |_| {}),
    ];
    encode_map(&Vec::new(), |map| {
        for (number, write) in fields {
            match value {
                Some(value) if number == changed => value(map.at(number)),
                None if number == changed => {}
                _ if matches!(number, 2 | 9..=12) || number > 12 => {}
                _ => write(map.at(number)),
            }
        }
    })
}

fn cases() -> Vec<Case> {
    let encoded = |session: Session| session.encode().unwrap();
    let first_bytes = encoded(first());
    let ended = Session { ended: true, purpose: SessionPurpose::Maintain, ..renewal() };
    let unknown = Session { extra: vec![(40, vec![0x01])], purpose: SessionPurpose::Other(9), ..first() };
    vec![
        Case::accept("first", "the first renewal of a writer", first_bytes.clone()),
        Case::accept("renewal", "the second renewal of a reader, with all lists", encoded(renewal())),
        Case::accept("ended", "the last renewal", encoded(ended)),
        Case::accept("unknown", "a purpose and a field of a newer program", encoded(unknown)),
        Case::truncated("nothing", "no bytes", []),
        Case::truncated("half", "within the host's name", cut(&first_bytes, 65)),
        Case::unsupported("critical", "[CBOR-7]: field 65536", with(1 << 16, Some(|w| w.unsigned(0)))),
        Case::corrupt("no-session", "[SESSION-7]: no field 0", with(0, None)),
        Case::corrupt("no-sequence", "[SESSION-7]: no field 1", with(1, None)),
        Case::corrupt("no-purpose", "[SESSION-7]: no field 3", with(3, None)),
        Case::corrupt("no-promise", "[SESSION-7]: no field 8", with(8, None)),
        Case::corrupt("sequence-zero", "[SESSION-8]: sequence 0", with(1, Some(|w| w.unsigned(0)))),
        Case::corrupt("no-predecessor", "[SESSION-8]: sequence 2 alone", with(1, Some(|w| w.unsigned(2)))),
        Case::corrupt("predecessor", "[SESSION-8]: the first has one", with(2, Some(|w| w.bytes(&[1; 32])))),
        Case::corrupt("purpose-zero", "[SESSION-9]: purpose 0", with(3, Some(|w| w.unsigned(0)))),
        Case::corrupt("promise-zero", "[SESSION-9]: 0 seconds", with(8, Some(|w| w.unsigned(0)))),
        Case::corrupt("promise-long", "[SESSION-9]: 86401 seconds", with(8, Some(|w| w.unsigned(86401)))),
        Case::corrupt("long-host", "[SESSION-9]: 4097 bytes", with(6, Some(|w| w.text(&"h".repeat(4097))))),
        Case::corrupt("empty-set", "[SESSION-10]: an empty set", with(9, Some(|w| w.bytes(&[])))),
        Case::corrupt("cut-set", "[SESSION-10]: a set of 63 bytes", with(9, Some(|w| w.bytes(&[1; 63])))),
        Case::corrupt("set-twice", "[SESSION-10]: an id twice", with(10, Some(|w| w.bytes(&[1; 64])))),
        Case::corrupt("streams-empty", "[SESSION-10]: an empty list", {
            with(11, Some(|w| w.array::<u8>(&[], |_, _| {})))
        }),
        Case::corrupt("streams-descend", "[SESSION-10]: streams not ascending", {
            with(11, Some(|w| w.array(&["b", "a"], |w, name| w.text(name))))
        }),
        Case::corrupt("stream-unnamed", "[SESSION-10]: a stream without a name", {
            with(11, Some(|w| w.array(&[""], |w, name| w.text(name))))
        }),
        Case::corrupt("not-ended", "[SESSION-11]: ended is false", with(12, Some(|w| w.boolean(false)))),
        Case::corrupt("trailing", "[CBOR-1]: a byte follows", longer(&first_bytes, &[0])),
    ]
}
