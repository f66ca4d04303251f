//! What lies under the seals of packs and index runs, plain: tables of contents, blocks, directories.
//! Each is judged as part of one certain pack or run, that of the accepted vector.

use super::index::{everything, two_blocks};
use super::pack::richest;
use super::{Case, Object, cut, longer, patched};

use chronolith::format::FormatError;
use chronolith::format::index::{BlockEntry, Directory, IndexBlock, IndexHead, encode_block};
use chronolith::format::pack::{PackTrailer, PackView, TableOfContents};
use std::sync::LazyLock;

pub const CONTENTS: Object = Object { name: "pack-contents", recode: contents, cases: contents_cases };
pub const BLOCK: Object = Object { name: "index-block", recode: block, cases: block_cases };
pub const DIRECTORY: Object = Object { name: "index-directory", recode: directory, cases: directory_cases };

fn contents(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    static TRAILER: LazyLock<PackTrailer> =
        LazyLock::new(|| PackView::parse(&richest().make().0).unwrap().trailer);
    let mut again = Vec::new();
    TableOfContents::decode(bytes, &TRAILER)?.encode(&mut again)?;
    Ok(again)
}

fn contents_cases() -> Vec<Case> {
    let mut good = Vec::new();
    richest().make().1.encode(&mut good).unwrap();
    vec![
        Case::accept("every-encoding", "the table of pack/accept-every-encoding, opened", good.clone()),
        Case::corrupt("byte-behind", "a byte behind the last blob", longer(&good, &[0])),
        Case::corrupt("depth", "a stored frame of depth 1", patched(&good, 17, &[1])),
        Case::unsupported("encoding", "a frame of an encoding that does not exist", patched(&good, 16, &[4])),
        Case::truncated("empty", "no bytes at all", []),
        Case::truncated("blob-cut", "cut within the last blob", cut(&good, good.len() - 1)),
    ]
}

/// Makes the only block of a run that describes everything; returns it with its entry.
fn whole() -> (Vec<u8>, Directory) {
    let (packs, records) = everything();
    let mut plain = Vec::new();
    let base_count = encode_block(&records, &mut plain).unwrap();
    let entry = BlockEntry {
        first: records[0].id,
        offset: 160,
        stored_length: plain.len() as u32 + 17,
        record_count: records.len() as u16,
        base_count,
    };
    (plain, Directory { packs, blocks: vec![entry] })
}

fn block(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let (_, directory) = whole();
    let records =
        IndexBlock::of(bytes, &directory.blocks[0])?.decode_all(&directory.blocks[0], &directory)?;
    let mut again = Vec::new();
    encode_block(&records, &mut again)?;
    Ok(again)
}

fn block_cases() -> Vec<Case> {
    let (good, _) = whole();
    vec![
        Case::accept("everything", "records of all encodings, then three bases", good.clone()),
        Case::corrupt("byte-behind", "a byte behind the last base", longer(&good, &[0])),
        Case::corrupt("class", "a class that does not exist", patched(&good, 70, &[0x20])),
        Case::unsupported("encoding", "an encoding that does not exist", patched(&good, 70, &[0x04])),
        Case::truncated("empty", "no bytes at all", []),
        Case::truncated("base-cut", "cut within the last base", cut(&good, good.len() - 1)),
    ]
}

fn directory(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    static HEAD: LazyLock<IndexHead> = LazyLock::new(|| {
        let run = two_blocks().make();
        IndexHead::decode(&run, run.len() as u64).unwrap()
    });
    let mut again = Vec::new();
    Directory::decode(bytes, &HEAD)?.encode(&mut again)?;
    Ok(again)
}

fn directory_cases() -> Vec<Case> {
    let (packs, records) = everything();
    let blocks = [&records[..4], &records[4..]];
    let mut offset = 160;
    let mut entries = Vec::new();
    for block in blocks {
        let mut plain = Vec::new();
        let base_count = encode_block(block, &mut plain).unwrap();
        let stored_length = plain.len() as u32 + 17;
        let (first, record_count) = (block[0].id, block.len() as u16);
        entries.push(BlockEntry { first, offset, stored_length, record_count, base_count });
        offset += u64::from(stored_length);
    }
    let mut good = Vec::new();
    Directory { packs, blocks: entries }.encode(&mut good).unwrap();
    vec![
        Case::accept("two-blocks", "the directory of index/accept-two-blocks, opened", good.clone()),
        Case::corrupt("byte-behind", "a byte behind the last block", longer(&good, &[0])),
        Case::corrupt("pack-kind", "a pack that is an index run", patched(&good, 52, &[5])),
        Case::unsupported("suite", "an origin of a cipher that does not exist", patched(&good, 112, &[9])),
        Case::truncated("empty", "no bytes at all", []),
        Case::truncated("block-cut", "cut within the last block", cut(&good, good.len() - 1)),
    ]
}
