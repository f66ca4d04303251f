//! Index runs: whole ones, opened down to their records.

use super::pack::{richest, smallest};
use super::packing::{RunRecipe, blob, indexed};
use super::{Case, Object, cut, longer, opening};
use chronolith::format::index::{IndexRecord, PackEntry};
use chronolith::format::pack::BlobClass;

pub const OBJECT: Object = Object { name: "index", recode: opening::index, cases };

/// The packs of the examples, and the records of their blobs in the order of a run.
pub fn everything() -> (Vec<PackEntry>, Vec<IndexRecord>) {
    let (bytes, contents, origins) = richest().make();
    let (content, mut records) = indexed(&bytes, BlobClass::Content, &contents, &origins);
    let (bytes, contents, origins) = smallest().make();
    let (metadata, others) = indexed(&bytes, BlobClass::Metadata, &contents, &origins);
    records.extend(others.into_iter().map(|record| IndexRecord { pack: 1, ..record }));
    records.sort_by(|a, b| a.order().cmp(&b.order()));
    (vec![content, metadata], records)
}

/// A run that describes the smallest pack: the example of the page.
fn smallest_run() -> RunRecipe {
    let (bytes, contents, origins) = smallest().make();
    let (pack, records) = indexed(&bytes, BlobClass::Metadata, &contents, &origins);
    RunRecipe::new(&[pack], &[records])
}

pub fn two_blocks() -> RunRecipe {
    let (packs, records) = everything();
    let (first, second) = records.split_at(4);
    RunRecipe::new(&packs, &[first.to_vec(), second.to_vec()])
}

/// A blob with a second copy, deeper than the first, elsewhere.
fn copies() -> RunRecipe {
    let (packs, mut records) = everything();
    let place = records.iter().position(|record| record.depth == 0 && record.class == BlobClass::Content);
    let mut copy = records[place.unwrap()];
    let other = *records.iter().find(|record| record.depth == 2).unwrap();
    (copy.frame_offset, copy.sealed_length, copy.counter, copy.origin) =
        (other.frame_offset, other.sealed_length, other.counter, other.origin);
    (copy.encoding, copy.depth, copy.base) = (other.encoding, other.depth, other.base);
    (copy.plain_length, copy.offset) = (copy.length, 0);
    records.push(copy);
    records.sort_by(|a, b| a.order().cmp(&b.order()));
    RunRecipe::new(&packs, &[records])
}

fn with(change: impl FnOnce(&mut RunRecipe)) -> Vec<u8> {
    let mut recipe = two_blocks();
    change(&mut recipe);
    recipe.make()
}

fn set(at: usize, value: u8) -> impl FnOnce(&mut RunRecipe) {
    move |recipe| recipe.bytes = Box::new(move |bytes| bytes[at] = value)
}

/// Sets a byte of the plain first block.
fn block(at: usize, value: u8) -> impl FnOnce(&mut RunRecipe) {
    move |recipe| {
        recipe.block_bytes = Box::new(move |number, bytes| {
            if number == 0 {
                bytes[at] = value;
            }
        });
    }
}

fn directory(at: usize, value: u8) -> impl FnOnce(&mut RunRecipe) {
    move |recipe| recipe.directory_bytes = Box::new(move |bytes| bytes[at] = value)
}

fn cases() -> Vec<Case> {
    let good = two_blocks().make();
    let end = good.len();
    let mut cases = vec![
        Case::accept("smallest", "one pack, one block, one record", smallest_run().make()),
        Case::accept(
            "two-blocks",
            "content and metadata, all encodings, several origins, bases",
            good.clone(),
        ),
        Case::accept("compressed", "the same, blocks and directory compressed", {
            let mut recipe = two_blocks();
            recipe.compressed = true;
            recipe.make()
        }),
        Case::accept("copies", "two copies of one blob, the shallower first", copies().make()),
        Case::accept("none", "no packs and no records", RunRecipe::new(&[], &[]).make()),
        Case::truncated("empty", "no bytes at all", Vec::new()),
        Case::truncated("head-cut", "cut within the head", cut(&good, 159)),
        Case::truncated("last-byte-missing", "cut within the signature", cut(&good, end - 1)),
        Case::corrupt("byte-behind", "a byte behind the signature", longer(&good, &[0])),
        Case::corrupt("magic", "the first byte is another", with(set(0, b'X'))),
        Case::corrupt("kind", "the kind is that of a pack", with(set(4, 3))),
        Case::corrupt("head-reserved", "a reserved byte of the head is not zero", with(set(7, 1))),
        Case::corrupt(
            "head-reserved-end",
            "the last reserved byte of the head is not zero",
            with(set(159, 1)),
        ),
        Case::corrupt("epoch-zero", "a run of epoch 0", with(set(8, 0))),
        Case::corrupt("signature", "the signature is another", {
            let mut bytes = good.clone();
            bytes[end - 1] ^= 1;
            bytes
        }),
        Case::corrupt(
            "commitment",
            "the key is not the one committed to",
            with(|r| {
                r.head = Box::new(|head| head.commitment[0] ^= 1);
            }),
        ),
        Case::corrupt(
            "sealed-block",
            "a sealed byte is another, though signed",
            with(|r| {
                r.bytes = Box::new(|bytes| bytes[160] ^= 1);
            }),
        ),
        Case::corrupt(
            "records-less",
            "the head counts one record less",
            with(|r| {
                r.head = Box::new(|head| head.record_count -= 1);
            }),
        ),
        Case::corrupt(
            "blocks-less",
            "the head counts one block less",
            with(|r| {
                r.head = Box::new(|head| head.block_count -= 1);
            }),
        ),
        Case::corrupt(
            "blocks-many",
            "more blocks than records",
            with(|r| {
                r.head = Box::new(|head| head.block_count = 1000);
            }),
        ),
        Case::corrupt(
            "directory-offset",
            "the directory does not begin where the head says",
            with(|r| {
                r.head = Box::new(|head| {
                    head.directory_offset -= 1;
                    head.directory_stored_length += 1;
                });
            }),
        ),
        Case::corrupt(
            "directory-in-head",
            "the directory begins in the head",
            with(|r| {
                r.head = Box::new(|head| {
                    head.directory_stored_length += (head.directory_offset - 159) as u32;
                    head.directory_offset = 159;
                });
            }),
        ),
        Case::corrupt(
            "directory-plain-length",
            "the directory decodes to another length",
            with(|r| {
                r.head = Box::new(|head| head.directory_plain_length += 1);
            }),
        ),
        Case::unsupported("version-2", "the head is of version 2", with(set(5, 2))),
        Case::unsupported("suite-3", "sealed with a cipher that does not exist", with(set(6, 3))),
    ];
    cases.extend(record_cases());
    cases.extend(directory_cases());
    cases
}

/// What a record can say wrongly: pack at 32, frame offset 36, sealed length 40, plain length 44, offset
/// 48, length 52, counter 56, base 64, origin 68, encoding and class 70, depth 71.
fn record_cases() -> Vec<Case> {
    let swapped = |r: &mut RunRecipe| {
        r.block_bytes = Box::new(|number, bytes| {
            if number == 0 {
                let (first, second) = bytes[..144].split_at_mut(72);
                first.swap_with_slice(second);
            }
        });
    };
    vec![
        Case::corrupt("record-order", "two records in the wrong order", with(swapped)),
        Case::corrupt(
            "record-twice",
            "the same record twice",
            with(|r| {
                r.block_bytes = Box::new(|number, bytes| {
                    if number == 0 {
                        bytes.copy_within(..72, 72);
                    }
                });
            }),
        ),
        Case::corrupt("record-pack", "a pack that the run has not", with(block(32, 9))),
        Case::corrupt("record-frame-in-head", "a frame that begins in its pack's head", with(block(37, 0))),
        Case::corrupt("record-frame-behind", "a frame that ends behind its pack", with(block(38, 0xFF))),
        Case::corrupt("record-blob-behind", "a blob that ends behind its frame", with(block(49, 0xFF))),
        Case::corrupt(
            "record-blob-empty",
            "a blob of no bytes",
            with(|r| {
                r.block_bytes = Box::new(|_, bytes| bytes[52..56].fill(0));
            }),
        ),
        Case::corrupt(
            "record-base-missing",
            "a base that the block has not",
            with(|r| {
                r.block_bytes = Box::new(|_, bytes| bytes[64..68].copy_from_slice(&[0xFE, 0, 0, 0]));
            }),
        ),
        Case::corrupt("record-origin", "an origin that the pack has not", with(block(68, 9))),
        Case::corrupt("record-class", "a class that does not exist", with(block(70, 0x20))),
        Case::corrupt("record-depth", "a depth beyond the limit", with(block(71, 200))),
        Case::unsupported("record-encoding", "an encoding that does not exist", with(block(70, 0x04))),
        Case::corrupt(
            "bases-order",
            "bases in the wrong order",
            with(|r| {
                r.blocks = vec![r.blocks.concat()];
                r.block_bytes = Box::new(|_, bytes| {
                    let last_two = bytes.len() - 64;
                    bytes[last_two..].rotate_left(32);
                });
            }),
        ),
        Case::corrupt(
            "bases-unused",
            "a base that no record names",
            with(|r| {
                r.block_bytes = Box::new(|number, bytes| {
                    if number == 0 {
                        bytes.extend_from_slice(&[0xFF; 32]);
                    }
                });
                r.directory = Box::new(|directory| directory.blocks[0].base_count += 1);
            }),
        ),
        Case::corrupt(
            "block-short",
            "a block that decodes to one record less",
            with(|r| r.block_bytes = Box::new(|_, bytes| bytes.truncate(bytes.len() - 72))),
        ),
    ]
}

/// What a directory can say wrongly: pack count at 0, origin count 4, block count 8, zero 12, then packs.
fn directory_cases() -> Vec<Case> {
    let change = |change: fn(&mut chronolith::format::index::Directory)| {
        with(|recipe| recipe.directory = Box::new(change))
    };
    vec![
        Case::truncated(
            "directory-counts",
            "the directory counts more packs than its bytes can hold",
            with(directory(0, 0xFF)),
        ),
        Case::corrupt(
            "directory-origins",
            "one origin more than packs name",
            with(|r| {
                r.directory_bytes = Box::new(|bytes| {
                    bytes[4] += 1;
                    let last = 16 + 2 * 48 + 2 * 104;
                    let copy: Vec<u8> = bytes[last..last + 104].to_vec();
                    bytes.splice(last..last, copy);
                });
            }),
        ),
        Case::corrupt(
            "directory-reserved",
            "a reserved byte of the directory is not zero",
            with(directory(12, 1)),
        ),
        Case::corrupt(
            "directory-byte-behind",
            "a byte behind the last block",
            with(|r| {
                r.directory_bytes = Box::new(|bytes| bytes.push(0));
            }),
        ),
        Case::corrupt("pack-kind", "a pack that is an index run", with(directory(16 + 36, 5))),
        Case::corrupt("pack-reserved", "a reserved byte of a pack is not zero", with(directory(16 + 37, 1))),
        Case::corrupt(
            "pack-first-origin",
            "origins not in the order of the packs",
            with(directory(16 + 40, 1)),
        ),
        Case::corrupt(
            "pack-twice",
            "one pack listed twice",
            change(|directory| {
                directory.packs[1].id = directory.packs[0].id;
            }),
        ),
        Case::corrupt(
            "pack-length",
            "a pack shorter than its frames",
            change(|directory| {
                directory.packs[0].length = 200;
            }),
        ),
        Case::corrupt(
            "pack-class",
            "content records in a metadata pack",
            change(|directory| {
                directory.packs.swap(0, 1);
            }),
        ),
        Case::corrupt(
            "block-first",
            "a block that does not begin with the id in the directory",
            change(|directory| {
                directory.blocks[0].first = blob(0);
            }),
        ),
        Case::corrupt(
            "block-overlap",
            "a block whose last id lies behind the first one of the next block",
            with(|r| {
                r.block_bytes = Box::new(|number, bytes| {
                    if number == 0 {
                        bytes[3 * 72] = 0xFE;
                    }
                });
            }),
        ),
        Case::corrupt(
            "block-order",
            "blocks in the wrong order",
            change(|directory| {
                directory.blocks[1].first = blob(0);
            }),
        ),
        Case::corrupt(
            "block-offset",
            "a block that does not begin where the one before it ends",
            change(|directory| {
                directory.blocks[1].offset += 1;
            }),
        ),
        Case::corrupt(
            "block-records",
            "a block of no records",
            change(|directory| {
                directory.blocks[0].record_count = 0;
            }),
        ),
        Case::corrupt(
            "block-bases",
            "more bases than records",
            change(|directory| {
                directory.blocks[0].base_count = directory.blocks[0].record_count + 1;
            }),
        ),
    ]
}
