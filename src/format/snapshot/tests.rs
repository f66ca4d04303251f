use super::*;
use crate::format::testing::{Change, id32, survives_damage};
use proptest::prelude::*;

fn sample() -> Snapshot {
    Snapshot {
        host: "db1".into(),
        label: "app".into(),
        user: "postgres".into(),
        started: Timestamp::from_nanoseconds(-1),
        ended: Timestamp::from_nanoseconds(1_700_000_000_000_000_000),
        parent: Some(SnapshotId::new(id32(1))),
        mode: SnapshotMode::Incremental,
        sources: vec!["/srv/data".into(), "app.sql=pg_dump app".into()],
        root: BlobId::new(id32(2)),
        summary: SnapshotSummary {
            files: 3,
            bytes: u64::MAX,
            extra: vec![(20, vec![0x05])],
            ..Default::default()
        },
        program: "chronolith 1.0.0".into(),
        tags: [("nightly".to_owned(), None), ("tier".to_owned(), Some("gold".to_owned()))].into(),
        trust_sequence: 1,
        trust: TrustId::new(id32(3)),
        kind: "files".into(),
        facts: [("b".to_owned(), "1".to_owned()), ("aa".to_owned(), String::new())].into(),
        extra: vec![(500, vec![0xF5])],
    }
}

#[test]
fn a_snapshot_comes_back() {
    let snapshot = sample();
    assert_eq!(Snapshot::decode(&snapshot.encode().unwrap()).unwrap(), snapshot);
    let bare = Snapshot {
        parent: None,
        sources: Vec::new(),
        tags: BTreeMap::new(),
        facts: BTreeMap::new(),
        extra: Vec::new(),
        ..snapshot
    };
    assert_eq!(Snapshot::decode(&bare.encode().unwrap()).unwrap(), bare);
}

#[test]
fn what_no_reader_would_accept_is_not_written() {
    let changes: [Change<Snapshot>; 7] = [
        ("host", |s| s.host.clear()),
        ("kind", |s| s.kind.clear()),
        ("label", |s| s.label = "x".repeat(4097)),
        ("source", |s| s.sources[0] = "x".repeat(65_537)),
        ("tag", |s| drop(s.tags.insert(String::new(), None))),
        ("fact", |s| drop(s.facts.insert("x".into(), "x".repeat(65_537)))),
        ("sequence", |s| s.trust_sequence = 0),
    ];
    for (name, change) in changes {
        let mut snapshot = sample();
        change(&mut snapshot);
        assert!(snapshot.encode().is_err(), "{name}");
    }
}

#[test]
fn critical_fields_of_newer_programs_refuse_it() {
    let mut snapshot = sample();
    snapshot.extra = vec![(1 << 16, vec![0x01])];
    let refused = Snapshot::decode(&snapshot.encode().unwrap());
    assert!(matches!(refused, Err(FormatError::Unsupported { .. })));
}

#[test]
fn damage_is_survived() {
    survives_damage(&sample().encode().unwrap(), |bytes| {
        if let Ok(snapshot) = Snapshot::decode(bytes) {
            assert_eq!(snapshot.encode().unwrap(), bytes);
        }
    });
}

proptest! {
    #[test]
    fn any_texts_come_back(
        host in "\\PC{1,20}",
        label in "\\PC{0,20}",
        sources in proptest::collection::vec("\\PC{0,20}", 0..5),
        tags in proptest::collection::btree_map("\\PC{1,9}", proptest::option::of("\\PC{0,9}"), 0..5),
        facts in proptest::collection::btree_map("\\PC{0,9}", "\\PC{0,9}", 0..5),
    ) {
        let snapshot = Snapshot { host, label, sources, tags, facts, ..sample() };
        prop_assert_eq!(Snapshot::decode(&snapshot.encode().unwrap()).unwrap(), snapshot);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(Snapshot::decode(&bytes));
    }
}
