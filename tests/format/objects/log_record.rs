//! The payload of a log record.

use super::{Case, Object, cut, keys, longer, patched};
use chronolith::base::{BlobId, LogPackId, Timestamp};
use chronolith::format::IdSet;
use chronolith::format::cbor::{MapWriter, Writer, encode_map};
use chronolith::format::log::{LogChunk, LogContent, LogDigest, LogRecord, LogRecordKind, LogRun};

pub const OBJECT: Object =
    Object { name: "log-record", recode: |bytes| LogRecord::decode(bytes)?.encode(), cases };

/// The record of a segment with this content.
pub fn segment(content: LogContent) -> LogRecord {
    LogRecord {
        kind: LogRecordKind::Segment,
        stream: "pg/main".to_owned(),
        name: "000000010000000000000007".to_owned(),
        created: keys::time(),
        host: "db1".to_owned(),
        program: "chronolith 0.1.0".to_owned(),
        last_name: None,
        content: Some(content),
        piece_offset: None,
        whole: None,
        engine: "postgresql".to_owned(),
        lineage: Some("7312345678901234567".to_owned()),
        timeline: Some(1),
        positions: Some((0x0700_0000, 0x0800_0000)),
        commits: Some((Timestamp::from_nanoseconds(1), Timestamp::from_nanoseconds(2))),
        reason: None,
        against: None,
        runs: Vec::new(),
        replaces: IdSet::default(),
        facts: Default::default(),
        extra: Vec::new(),
    }
}

fn content() -> LogContent {
    let chunk = |id, length| LogChunk { id: BlobId::new([id; 32]), length };
    LogContent {
        digest: LogDigest { length: 300, blake3: [0xD1; 32] },
        chunks: vec![chunk(0xC1, 100), chunk(0xC2, 200)],
        extra: Vec::new(),
    }
}

/// The record of a merge of one segment.
pub fn merged() -> LogRecord {
    let name = "000000010000000000000007".to_owned();
    let run = LogRun {
        first: name.clone(),
        last: name.clone(),
        records: 1,
        bytes: 300,
        timeline: Some(1),
        positions: Some((0x0700_0000, 0x0800_0000)),
        commits: Some((Timestamp::from_nanoseconds(1), Timestamp::from_nanoseconds(2))),
        facts: Default::default(),
        extra: Vec::new(),
    };
    LogRecord {
        kind: LogRecordKind::Merged,
        content: None,
        last_name: Some(name),
        runs: vec![run],
        replaces: [LogPackId::new([0xE1; 32])].into_iter().collect(),
        ..segment(content())
    }
}

/// A gap with one field replaced, left out or added.
fn gap_with(changed: u64, value: Option<&dyn Fn(Writer<'_>)>) -> Vec<u8> {
    let plain = |number: u64, map: &mut MapWriter<'_>| match number {
        0 => map.at(number).unsigned(3),
        3 => map.at(number).signed(5),
        1 | 2 | 4 | 5 | 6 | 10 | 17 => map.at(number).text("x"),
        _ => {}
    };
    encode_map(&Vec::new(), |map| {
        for number in (0..22).chain([1 << 16]) {
            match value {
                Some(value) if number == changed => value(map.at(number)),
                None if number == changed => {}
                _ => plain(number, map),
            }
        }
    })
}

/// A segment with this length and these chunks.
fn segment_with(length: u64, chunks: Option<&[u8]>) -> Vec<u8> {
    encode_map(&Vec::new(), |map| {
        map.at(0).unsigned(1);
        [1, 2].into_iter().for_each(|field| map.at(field).text("x"));
        map.at(3).signed(5);
        [4, 5].into_iter().for_each(|field| map.at(field).text("x"));
        map.at(7).map(&Vec::new(), |map| {
            map.at(0).unsigned(length);
            map.at(1).bytes(&[7; 32]);
            map.optional(2, chunks, |w, chunks| w.bytes(chunks));
        });
        map.at(10).text("x");
    })
}

fn cases() -> Vec<Case> {
    let encoded = |record: LogRecord| record.encode().unwrap();
    let plain = encoded(segment(content()));
    let piece = LogRecord {
        kind: LogRecordKind::Piece,
        piece_offset: Some(700),
        commits: None,
        ..segment(content())
    };
    let last = LogRecord { whole: Some(LogDigest { length: 1000, blake3: [0xD2; 32] }), ..piece.clone() };
    let gap = LogRecord {
        kind: LogRecordKind::Gap,
        content: None,
        last_name: Some("000000010000000000000009".to_owned()),
        reason: Some("the spool was full".to_owned()),
        ..segment(content())
    };
    let conflict = LogRecord {
        kind: LogRecordKind::Conflict,
        content: Some(LogContent { chunks: Vec::new(), ..content() }),
        reason: Some("another system identifier".to_owned()),
        against: Some(LogPackId::new([0xE1; 32])),
        ..segment(content())
    };
    let newer = LogRecord {
        facts: [("segment bytes".to_owned(), "16777216".to_owned())].into(),
        extra: vec![(50, vec![0x00])],
        ..segment(content())
    };
    let bad_last = {
        let at = plain_position(&encoded(last.clone()), &[0x19, 0x03, 0xE8]);
        patched(&encoded(last.clone()), at, &[0x19, 0x03, 0xE7])
    };
    let mut with_facts = merged();
    with_facts.runs[0].facts = ["segment_size".to_owned(), "times".to_owned()].into();
    let names_swapped = {
        let plain = encoded(with_facts.clone());
        let names = encode_map(&Vec::new(), |map| {
            map.at(0).array(&["segment_size", "times"], |place, name| place.text(name));
        });
        let swapped = encode_map(&Vec::new(), |map| {
            map.at(0).array(&["times", "segment_size"], |place, name| place.text(name));
        });
        // Behind the head of the map and the key.
        patched(&plain, plain_position(&plain, &names[2..]), &swapped[2..])
    };
    let chunk = |length: u32| [&[1; 32][..], &length.to_le_bytes()].concat();
    let unsigned = |value| move |w: Writer<'_>| w.unsigned(value);
    let text = |value: &'static str| move |w: Writer<'_>| w.text(value);
    vec![
        Case::accept("segment", "a whole segment of two chunks", plain.clone()),
        Case::accept("piece", "a piece, the segment goes on", encoded(piece)),
        Case::accept("last-piece", "the piece that ends a segment", encoded(last)),
        Case::accept("gap", "three segments were dropped", encoded(gap)),
        Case::accept("conflict", "bytes that were refused", encoded(conflict)),
        Case::accept("merged", "a merge of one log pack", encoded(merged())),
        Case::accept("merged-facts", "a merge whose run names facts", encoded(with_facts)),
        Case::accept("facts", "with facts and a field of a newer program", encoded(newer)),
        Case::truncated("nothing", "no bytes", []),
        Case::truncated("half", "within the content", cut(&plain, 100)),
        Case::unsupported("kind", "[LOG-PACK-19]: kind 6", patched(&plain, 2, &[6])),
        Case::unsupported("critical", "[CBOR-7]: field 65536", gap_with(1 << 16, Some(&unsigned(0)))),
        Case::corrupt("kind-zero", "[LOG-PACK-19]: kind 0", patched(&plain, 2, &[0])),
        Case::corrupt("no-stream", "[LOG-PACK-18]: no field 1", gap_with(1, None)),
        Case::corrupt("no-engine", "[LOG-PACK-18]: no field 10", gap_with(10, None)),
        Case::corrupt("unnamed", "[LOG-PACK-18]: an empty name", gap_with(2, Some(&text("")))),
        Case::corrupt("gap-no-end", "[LOG-PACK-19]: a gap without its last name", gap_with(6, None)),
        Case::corrupt("gap-no-reason", "[LOG-PACK-19]: a gap without a reason", gap_with(17, None)),
        Case::corrupt("gap-content", "[LOG-PACK-19]: a gap with content", {
            gap_with(
                7,
                Some(&|w: Writer<'_>| {
                    w.map(&Vec::new(), |map| {
                        map.at(0).unsigned(1);
                        map.at(1).bytes(&[7; 32]);
                    })
                }),
            )
        }),
        Case::corrupt(
            "merged-nothing",
            "[LOG-PACK-19]: a merge without runs",
            gap_with(0, Some(&unsigned(5))),
        ),
        Case::corrupt("segment-nothing", "[LOG-PACK-19]: a segment without content", {
            gap_with(0, Some(&unsigned(1)))
        }),
        Case::corrupt("no-chunks", "[LOG-PACK-19]: a segment without chunks", segment_with(1, None)),
        Case::corrupt("half-range", "[LOG-PACK-21]: no end", gap_with(13, Some(&unsigned(1)))),
        Case::corrupt("half-times", "[LOG-PACK-21]: no latest", gap_with(15, Some(&unsigned(1)))),
        Case::corrupt("sum", "[LOG-PACK-20]: chunks do not sum up", segment_with(2, Some(&chunk(1)))),
        Case::corrupt("empty-chunk", "[LOG-PACK-20]: an empty chunk", segment_with(0, Some(&chunk(0)))),
        Case::corrupt("long-chunk", "[LOG-PACK-20]: a chunk longer than a blob", {
            segment_with(8_388_609, Some(&chunk(8_388_609)))
        }),
        Case::corrupt("cut-chunks", "[LOG-PACK-20]: 35 bytes of chunks", segment_with(1, Some(&[1; 35]))),
        Case::corrupt("run-facts", "[LOG-PACK-22]: names of facts that do not ascend", names_swapped),
        Case::corrupt("last-piece", "[LOG-PACK-21]: ends before its segment", bad_last),
        Case::corrupt("trailing", "[CBOR-1]: a byte follows", longer(&plain, &[0])),
    ]
}

fn plain_position(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).unwrap()
}
