//! Snapshots: payloads of their envelopes.

use super::{Case, Object, cut, keys, longer, patched};
use chronolith::base::{BlobId, SnapshotId, Timestamp};
use chronolith::format::cbor::Writer;
use chronolith::format::snapshot::{Snapshot, SnapshotMode, SnapshotSummary};

pub const OBJECT: Object =
    Object { name: "snapshot", recode: |bytes| Snapshot::decode(bytes)?.encode(), cases };

/// A stream backed up for the first time: the example of the page.
fn first_snapshot() -> Snapshot {
    Snapshot {
        host: "db1".into(),
        label: String::new(),
        user: "postgres".into(),
        started: keys::time(),
        ended: Timestamp::from_nanoseconds(keys::time().nanoseconds() + 1_500_000_000),
        parent: None,
        mode: SnapshotMode::Full,
        sources: vec!["app.sql".into()],
        root: BlobId::new([8; 32]),
        summary: SnapshotSummary { files: 1, bytes: 1234, ..Default::default() },
        program: "chronolith 0.1.0".into(),
        tags: [("nightly".to_owned(), None)].into(),
        trust_sequence: 1,
        trust: keys::genesis(),
        kind: "stream".into(),
        facts: Default::default(),
        extra: Vec::new(),
    }
}

fn cases() -> Vec<Case> {
    let first = first_snapshot().encode().unwrap();
    let full = Snapshot {
        label: "nightly".into(),
        parent: Some(SnapshotId::new([5; 32])),
        mode: SnapshotMode::Differential,
        tags: [("a".to_owned(), None), ("tier".to_owned(), Some("gold".to_owned()))].into(),
        kind: "postgresql".into(),
        facts: [("timeline".to_owned(), "1".to_owned()), ("lsn".to_owned(), "0/16B3748".to_owned())].into(),
        summary: SnapshotSummary { extra: vec![(30, vec![0x01])], ..first_snapshot().summary },
        extra: vec![(77, vec![0x63, b'n', b'e', b'w'])],
        ..first_snapshot()
    };
    let full = full.encode().unwrap();
    // Places of single bytes, found by what stands before them.
    let after = |bytes: &[u8], before: &[u8]| {
        let at = bytes.windows(before.len()).position(|window| window == before);
        at.unwrap() + before.len()
    };
    // The parent is absent, so the mode follows the end: 8 bytes of time, then 6.
    let mode = after(&first, &first_snapshot().ended.nanoseconds().to_be_bytes()) + 1;
    let sequence = after(&first, b"nightly") + 1;
    let extra = vec![(1 << 16, vec![0x00])];
    let tagged = |tags: &[&[&str]]| {
        let bytes = Snapshot { tags: Default::default(), ..first_snapshot() }.encode().unwrap();
        let at = after(&bytes, b"chronolith 0.1.0");
        let mut field = vec![0x0B];
        Writer::new(&mut field).array(tags, |out, tag| out.array(tag, |out, part| out.text(part)));
        let mut bytes = [&bytes[..at], &field, &bytes[at..]].concat();
        bytes[0] += 1;
        bytes
    };
    vec![
        Case::accept("first", "a stream, the first of its host", first.clone()),
        Case::accept("full", "every field, and unknown ones", full),
        Case::truncated("empty", "no bytes at all", Vec::new()),
        Case::truncated("cut", "cut before the last byte", cut(&first, first.len() - 1)),
        Case::corrupt("byte-behind", "a byte behind the map", longer(&first, &[0])),
        Case::corrupt("no-fields", "an empty map", vec![0xA0]),
        Case::corrupt("host-empty", "a host without a name", {
            let mut bytes = first.clone();
            bytes[2] = 0x60;
            bytes.drain(3..6);
            bytes
        }),
        Case::corrupt("host-not-utf-8", "a host that is not UTF-8", patched(&first, 3, &[0xFF])),
        Case::corrupt("trust-sequence-zero", "a registry of sequence 0", patched(&first, sequence, &[0])),
        Case::corrupt("tags-none", "an empty list of tags", tagged(&[])),
        Case::corrupt("tags-order", "tags in the wrong order", tagged(&[&["b"], &["a"]])),
        Case::corrupt("tag-twice", "the same key twice", tagged(&[&["a"], &["a", "x"]])),
        Case::corrupt("tag-empty", "a tag of no parts", tagged(&[&[]])),
        Case::corrupt("tag-key-empty", "a tag with an empty key", tagged(&[&["", "x"]])),
        Case::corrupt("tag-three", "a tag of three parts", tagged(&[&["a", "b", "c"]])),
        Case::unsupported("mode-3", "a mode that does not exist", patched(&first, mode, &[3])),
        Case::unsupported(
            "critical-field",
            "an unknown critical field",
            Snapshot { extra, ..first_snapshot() }.encode().unwrap(),
        ),
    ]
}
