use super::*;
use crate::base::{BlobId, KeyId, PackId};
use crate::codec::Encoding;
use crate::crypto::{SIGNATURE_BYTES, Suite};
use crate::format::FormatError;
use crate::format::pack::{BlobClass, Origin};
use crate::format::testing::{id32, survives_damage};
use proptest::prelude::*;

fn origin(number: u8) -> Origin {
    Origin {
        suite: Suite::ChaCha20Poly1305,
        epoch: 1,
        encapsulation: id32(number),
        salt: id32(7),
        commitment: id32(8),
    }
}

fn packs() -> Vec<PackEntry> {
    let metadata = Origin { encapsulation: [0; 32], ..origin(0) };
    vec![
        PackEntry {
            id: PackId::new(id32(200)),
            length: 1 << 20,
            class: BlobClass::Content,
            origins: vec![origin(1), origin(2)],
        },
        PackEntry {
            id: PackId::new(id32(100)),
            length: 5000,
            class: BlobClass::Metadata,
            origins: vec![metadata],
        },
    ]
}

fn record(id: [u8; 32], kind: u8) -> IndexRecord {
    let class = if kind.is_multiple_of(2) { BlobClass::Content } else { BlobClass::Metadata };
    let (encoding, depth, base) = match kind % 3 {
        0 => (Encoding::Zstd, 0, None),
        1 => (Encoding::Difference, 2, Some(BlobId::new(id32(kind)))),
        _ => (Encoding::Dictionary, 1, Some(BlobId::new(id32(77)))),
    };
    IndexRecord {
        id: BlobId::new(id),
        class,
        pack: u32::from(kind % 2),
        frame_offset: 1000 + u32::from(kind),
        sealed_length: 300,
        plain_length: 900,
        offset: 100,
        length: 800 - u32::from(kind),
        counter: 1 << 40 | u64::from(kind),
        origin: u16::from(kind.is_multiple_of(2)),
        encoding,
        depth,
        base,
    }
}

/// A run without seals: plain blocks and a plain directory where sealed ones would be.
fn run(records: &[IndexRecord]) -> (Vec<u8>, IndexHead) {
    let mut directory = Directory { packs: packs(), blocks: Vec::new() };
    let mut body = Vec::new();
    for block in split_blocks(records) {
        let offset = body.len();
        let base_count = encode_block(block, &mut body).unwrap();
        directory.blocks.push(BlockEntry {
            first: block[0].id,
            offset: (INDEX_HEAD_BYTES + offset) as u64,
            stored_length: (body.len() - offset) as u32,
            record_count: block.len() as u16,
            base_count,
        });
    }
    let directory_offset = (INDEX_HEAD_BYTES + body.len()) as u64;
    let mut plain = Vec::new();
    directory.encode(&mut plain).unwrap();
    let head = IndexHead {
        suite: Suite::Aes256Gcm,
        epoch: 2,
        signer: KeyId::new(id32(9)),
        salt: id32(10),
        commitment: id32(11),
        record_count: records.len() as u64,
        directory_offset,
        directory_stored_length: plain.len() as u32,
        directory_plain_length: plain.len() as u32,
        block_count: directory.blocks.len() as u32,
    };
    let mut bytes = Vec::new();
    head.encode(&mut bytes);
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(&plain);
    bytes.extend_from_slice(&[0; SIGNATURE_BYTES]);
    (bytes, head)
}

fn read(bytes: &[u8]) -> Result<(Directory, Vec<IndexRecord>), FormatError> {
    let head = IndexHead::decode(bytes, bytes.len() as u64)?;
    let start = head.directory_offset as usize;
    let directory = Directory::decode(&bytes[start..bytes.len() - SIGNATURE_BYTES], &head)?;
    let mut records = Vec::new();
    for entry in &directory.blocks {
        let start = entry.offset as usize;
        let block = IndexBlock::of(&bytes[start..start + entry.stored_length as usize], entry)?;
        records.extend(block.decode_all(entry, &directory)?);
    }
    Ok((directory, records))
}

fn sorted(mut records: Vec<IndexRecord>) -> Vec<IndexRecord> {
    records.sort_by(|a, b| a.order().cmp(&b.order()));
    records.dedup_by(|a, b| a.order() == b.order());
    records
}

fn sample() -> Vec<IndexRecord> {
    sorted((1..=9).map(|number| record(id32(number * 20), number)).chain([record(id32(60), 6)]).collect())
}

#[test]
fn a_run_comes_back() {
    let records = sample();
    let (bytes, head) = run(&records);
    assert_eq!(IndexHead::decode(&bytes, bytes.len() as u64).unwrap(), head);
    let (directory, found) = read(&bytes).unwrap();
    assert_eq!(directory.packs, packs());
    assert_eq!(found, records);
    assert_eq!(head.associated_data(&crate::base::RepositoryId::new(id32(3))).len(), 32 + 112);
}

#[test]
fn copies_are_found_best_first() {
    let records = sample();
    let mut bytes = Vec::new();
    let bases = encode_block(&records, &mut bytes).unwrap();
    let block = IndexBlock::new(&bytes, records.len() as u16, bases).unwrap();
    for record in &records {
        let found: Vec<_> = block.find(&record.id, record.class).map(Result::unwrap).collect();
        let expected: Vec<_> =
            records.iter().filter(|r| (r.id, r.class) == (record.id, record.class)).copied().collect();
        assert_eq!(found, expected);
    }
    assert_eq!(block.find(&BlobId::new([0; 32]), BlobClass::Content).count(), 0);
    assert_eq!(block.find(&BlobId::new([0xFF; 32]), BlobClass::Content).count(), 0);
    assert!(block.record(records.len()).is_none());
}

#[test]
fn blocks_keep_copies_together() {
    let mut records: Vec<_> =
        (0..3000_u32).map(|n| record(BlobId::new(spread(n)).as_bytes().to_owned(), 0)).collect();
    records = sorted(records);
    for n in 0..40 {
        let mut copy = records[1020];
        copy.frame_offset += 1000 * (n + 1);
        records.push(copy);
    }
    let records = sorted(records);
    let blocks: Vec<_> = split_blocks(&records).collect();
    assert_eq!(blocks.iter().map(|block| block.len()).sum::<usize>(), records.len());
    assert!(blocks.windows(2).all(|pair| pair[0].last().unwrap().id < pair[1][0].id));
    assert_eq!(blocks.len(), 3);
    assert_eq!(split_blocks(&[]).count(), 0);
    let (bytes, _) = run(&records);
    let (directory, found) = read(&bytes).unwrap();
    assert_eq!(found, records);
    for record in &records {
        let number = directory.block_of(&record.id).unwrap();
        assert!(blocks[number].contains(record));
    }
}

fn spread(number: u32) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

#[test]
fn a_reader_refuses() {
    let records = sample();
    let (good, head) = run(&records);
    let directory = head.directory_offset as usize;
    let record = |number: usize, at: usize| INDEX_HEAD_BYTES + number * INDEX_RECORD_BYTES + at;
    let cases: [(&str, usize, u8); 17] = [
        ("magic", 0, 0),
        ("kind", 4, 4),
        ("version", 5, 2),
        ("suite", 6, 3),
        ("reserved", 7, 1),
        ("epoch", 8, 0),
        ("record count", 112, 1),
        ("directory offset", 120, 1),
        ("block count", 136, 9),
        ("records out of order", record(1, 0), 0),
        ("pack that is not there", record(0, 32), 3),
        ("class of another pack", record(0, 70), 1),
        ("encoding that is not known", record(0, 70), 0x14),
        ("origin that its pack has not", record(0, 68), 2),
        ("blob outside its frame", record(0, 49), 0xFF),
        ("pack count", directory, 9),
        ("reserved in the directory", directory + 12, 1),
    ];
    for (name, at, value) in cases {
        let mut bytes = good.clone();
        assert_ne!(bytes[at], value, "{name}: no change");
        bytes[at] = value;
        assert!(read(&bytes).is_err(), "{name}");
    }
}

#[test]
fn a_writer_refuses() {
    let good = sample();
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    assert!(encode_block(&swapped, &mut Vec::new()).is_err());
    let twice = [good[0], good[0]];
    assert!(encode_block(&twice, &mut Vec::new()).is_err());
    assert!(encode_block(&[], &mut Vec::new()).is_err());
    let mut bad = good[0];
    bad.length = 0;
    assert!(encode_block(&[bad], &mut Vec::new()).is_err());
}

#[test]
fn a_pack_is_listed_once() {
    let records = sample();
    let (_, head) = run(&records);
    let mut twice = packs();
    twice[1].id = twice[0].id;
    let (bytes, _) = run(&records);
    let (directory, _) = read(&bytes).unwrap();
    let directory = Directory { packs: twice, blocks: directory.blocks };
    let mut plain = Vec::new();
    directory.encode(&mut plain).unwrap();
    assert!(matches!(
        Directory::decode(&plain, &head),
        Err(FormatError::Invalid { what: "index packs", .. })
    ));
}

#[test]
fn damage_is_survived() {
    survives_damage(&run(&sample()).0, |bytes| drop(read(bytes)));
}

proptest! {
    #[test]
    fn any_run_comes_back(ids in proptest::collection::vec((any::<[u8; 32]>(), any::<u8>()), 1..2500)) {
        let records = sorted(ids.into_iter().map(|(id, kind)| record(id, kind)).collect());
        let (bytes, _) = run(&records);
        prop_assert_eq!(read(&bytes).unwrap().1, records);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1000), records: u16, bases: u16) {
        let _ = IndexHead::decode(&bytes, bytes.len() as u64);
        let head = run(&sample()).1;
        drop(Directory::decode(&bytes, &head));
        if let Ok(block) = IndexBlock::new(&bytes, records, bases) {
            assert_eq!(block.records().count(), block.len());
        }
    }
}
