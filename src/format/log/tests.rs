use super::*;
use crate::base::{BlobId, KeyId, LogPackId, Timestamp, limits};
use crate::codec::Encoding;
use crate::crypto::{SIGNATURE_BYTES, Suite, TAG_BYTES};
use crate::format::envelope::{Compression, Envelope, Sealing};
use crate::format::pack::{FrameRecord, Origin, PackTrailer, TableOfContents};
use crate::format::{FormatError, IdSet, ObjectKind};
use proptest::prelude::*;

fn content() -> LogContent {
    let chunk = |id, length| LogChunk { id: BlobId::new([id; 32]), length };
    LogContent {
        digest: LogDigest { length: 300, blake3: [6; 32] },
        chunks: vec![chunk(1, 100), chunk(2, 200)],
        extra: vec![(9, vec![0x00])],
    }
}

fn segment() -> LogRecord {
    LogRecord {
        kind: LogRecordKind::Segment,
        stream: "pg/main".to_owned(),
        name: "000000010000000000000007".to_owned(),
        created: Timestamp::from_nanoseconds(5),
        host: "db1".to_owned(),
        program: "chronolith 1.0".to_owned(),
        last_name: None,
        content: Some(content()),
        piece_offset: None,
        whole: None,
        engine: "postgresql".to_owned(),
        lineage: Some("7234567890123456789".to_owned()),
        timeline: Some(1),
        positions: Some((0x700_0000, 0x800_0000)),
        commits: Some((Timestamp::from_nanoseconds(1), Timestamp::from_nanoseconds(2))),
        reason: None,
        against: None,
        runs: Vec::new(),
        replaces: IdSet::default(),
        facts: [("tablespaces".to_owned(), "16385".to_owned())].into(),
        extra: vec![(70, vec![0x00])],
    }
}

fn piece() -> LogRecord {
    LogRecord {
        kind: LogRecordKind::Piece,
        piece_offset: Some(700),
        whole: Some(LogDigest { length: 1000, blake3: [7; 32] }),
        ..segment()
    }
}

fn gap() -> LogRecord {
    LogRecord {
        kind: LogRecordKind::Gap,
        content: None,
        last_name: Some("000000010000000000000009".to_owned()),
        reason: Some("dropped: the spool was full".to_owned()),
        commits: None,
        facts: Default::default(),
        ..segment()
    }
}

fn conflict() -> LogRecord {
    LogRecord {
        kind: LogRecordKind::Conflict,
        content: Some(LogContent { chunks: Vec::new(), ..content() }),
        reason: Some("another system identifier".to_owned()),
        against: Some(LogPackId::new([3; 32])),
        ..segment()
    }
}

fn merged() -> LogRecord {
    let run = LogRun {
        first: "a".to_owned(),
        last: "b".to_owned(),
        records: 2,
        bytes: 600,
        timeline: Some(1),
        positions: Some((1, 2)),
        commits: None,
        facts: ["times".to_owned()].into(),
        extra: vec![(50, vec![0x00])],
    };
    LogRecord {
        kind: LogRecordKind::Merged,
        content: None,
        last_name: Some("b".to_owned()),
        runs: vec![run],
        replaces: [LogPackId::new([4; 32])].into_iter().collect(),
        ..segment()
    }
}

#[test]
fn records_come_back() {
    let unfinished = LogRecord { whole: None, ..piece() };
    for record in [segment(), piece(), unfinished, gap(), conflict(), merged()] {
        assert_eq!(LogRecord::decode(&record.encode().unwrap()).unwrap(), record);
    }
}

#[test]
fn records_that_break_a_rule_are_refused() {
    let mut short = segment();
    short.content.as_mut().unwrap().digest.length = 299;
    let mut empty_chunk = segment();
    empty_chunk.content.as_mut().unwrap().chunks[0].length = 0;
    let broken = [
        short,
        empty_chunk,
        LogRecord { name: String::new(), ..segment() },
        LogRecord { content: None, ..segment() },
        LogRecord { piece_offset: Some(1), ..segment() },
        LogRecord { positions: Some((2, 1)), ..segment() },
        LogRecord { piece_offset: None, ..piece() },
        LogRecord { piece_offset: Some(701), ..piece() },
        LogRecord { piece_offset: Some(u64::MAX), whole: None, ..piece() },
        LogRecord { reason: None, ..gap() },
        LogRecord { content: Some(content()), ..gap() },
        LogRecord { content: Some(content()), ..conflict() },
        LogRecord { runs: Vec::new(), ..merged() },
    ];
    for record in broken {
        assert!(record.encode().is_err(), "{record:?}");
    }
}

fn stored(record: &LogRecord) -> Vec<u8> {
    let payload = record.encode().unwrap();
    let envelope = Envelope {
        kind: ObjectKind::LogRecord,
        compression: Compression::None,
        sealing: Some(Sealing {
            suite: Suite::ChaCha20Poly1305,
            epoch: 1,
            salt: [1; 32],
            commitment: [2; 32],
        }),
        signer: KeyId::new([3; 32]),
        plain_length: payload.len() as u64,
    };
    let mut object = envelope.begin(&payload);
    object.extend_from_slice(&[0; TAG_BYTES + SIGNATURE_BYTES]);
    object
}

/// A log pack with one frame of two blobs and one difference against the first of them.
fn log_pack(base: u8) -> (Vec<u8>, Vec<u8>) {
    let origin = Origin {
        suite: Suite::ChaCha20Poly1305,
        epoch: 1,
        encapsulation: [1; 32],
        salt: [2; 32],
        commitment: [3; 32],
    };
    let records = [stored(&merged()), stored(&segment())];
    let front = LogPackFront {
        signer: KeyId::new([4; 32]),
        origins: vec![origin],
        records: records.iter().map(Vec::as_slice).collect(),
    };
    let mut pack = Vec::new();
    let offset = u32::try_from(front.encode(&mut pack).unwrap()).unwrap();
    assert_eq!(pack.len(), offset as usize);
    pack.extend_from_slice(&[5; 150]);
    let first = FrameRecord {
        offset,
        sealed_length: 100,
        plain_length: 300,
        encoding: Encoding::Zstd,
        depth: 0,
        origin: 0,
        counter: 0,
        base: None,
        blobs: vec![(BlobId::new([1; 32]), 100), (BlobId::new([2; 32]), 200)],
    };
    let second = FrameRecord {
        offset: offset + 100,
        sealed_length: 50,
        plain_length: 40,
        encoding: Encoding::Difference,
        depth: 1,
        counter: 1,
        base: Some(BlobId::new([base; 32])),
        blobs: vec![(BlobId::new([3; 32]), 40)],
        ..first.clone()
    };
    let mut contents = Vec::new();
    TableOfContents { frames: vec![first, second] }.encode(&mut contents).unwrap();
    let trailer = PackTrailer {
        contents_offset: offset + 150,
        contents_plain_length: u32::try_from(contents.len()).unwrap(),
        epoch: 1,
        suite: Suite::ChaCha20Poly1305,
        class: crate::format::pack::BlobClass::Content,
        origin_count: 1,
        frame_count: 2,
        blob_count: 3,
        salt: [6; 32],
        commitment: [7; 32],
        signer: KeyId::new([4; 32]),
    };
    pack.extend_from_slice(&contents);
    pack.extend_from_slice(&[8; TAG_BYTES]);
    origin.encode(&mut pack);
    encode_trailer(&trailer, &mut pack);
    pack.extend_from_slice(&[9; SIGNATURE_BYTES]);
    (pack, contents)
}

#[test]
fn a_log_pack_apart() {
    let (pack, contents) = log_pack(1);
    assert_eq!(ObjectKind::of(&pack), Ok(ObjectKind::LogPack));
    let view = LogPackView::parse(&pack).unwrap();
    assert_eq!(view.front.records.len(), 2);
    let record = Envelope::parse(view.front.records[1]).unwrap();
    assert_eq!(LogRecord::decode(&record.payload[..record.payload.len() - TAG_BYTES]).unwrap(), segment());
    assert_eq!(view.signature, [9; SIGNATURE_BYTES]);
    assert_eq!(&view.contents_sealed[..contents.len()], contents);
    let table = view.contents(&contents).unwrap();
    assert_eq!(view.frame(&table.frames[1]).unwrap(), [5; 50]);

    let front_length = usize::try_from(LogPackHead::decode(&pack).unwrap().frames_offset()).unwrap();
    assert!(LogPackFront::parse(&pack[..front_length]).is_ok());
    for length in 0..front_length {
        assert_eq!(LogPackFront::parse(&pack[..length]), Err(FormatError::Truncated), "{length}");
    }
    for length in 0..pack.len() {
        assert!(LogPackView::parse(&pack[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_base_lies_in_the_same_log_pack() {
    for outside in [3, 9] {
        let (pack, contents) = log_pack(outside);
        let view = LogPackView::parse(&pack).unwrap();
        assert!(matches!(view.contents(&contents), Err(FormatError::Invalid { .. })));
    }
}

#[test]
fn a_front_that_breaks_a_rule_is_refused() {
    let (pack, _) = log_pack(1);
    for (at, bytes) in [
        (4, &[3][..]),
        (6, &[0, 0]),
        (8, &[0; 4]),
        (8, &[3, 0, 0, 0]),
        (8, &[1, 0, 0, 0]),
        (12, &[0; 4]),
        (50, &[1]),
        (64 + 104, &[0xFF; 4]),
        (64 + 104 + 4, b"X"),
        (64 + 104 + 8, &[ObjectKind::Session as u8]),
    ] {
        let mut broken = pack.clone();
        broken[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(matches!(LogPackFront::parse(&broken), Err(FormatError::Invalid { .. })), "{at}");
        assert!(LogPackView::parse(&broken).is_err());
    }
    let mut many = pack;
    many[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let limit = limits::LOG_PACK_RECORDS_MAX;
    assert!(matches!(LogPackFront::parse(&many), Err(FormatError::TooLarge { limit: l, .. }) if l == limit));
}

proptest! {
    #[test]
    fn parsing_is_total(at: proptest::sample::Index, bits in 1..=255_u8) {
        let (mut pack, contents) = log_pack(1);
        let at = at.index(pack.len());
        pack[at] ^= bits;
        if let Ok(view) = LogPackView::parse(&pack) {
            for frame in view.contents(&contents).map(|table| table.frames).unwrap_or_default() {
                prop_assert!(view.frame(&frame).is_ok());
            }
        }
    }

    #[test]
    fn reading_a_record_is_total(at: proptest::sample::Index, bits in 1..=255_u8) {
        for record in [segment(), piece(), gap(), conflict(), merged()] {
            let mut bytes = record.encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
            if let Ok(read) = LogRecord::decode(&bytes) {
                prop_assert_eq!(read.encode().unwrap(), bytes);
            }
        }
    }
}
