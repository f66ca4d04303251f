//! Packs: whole ones, opened down to the ids of their blobs.

use super::packing::{Frame, PackRecipe, noise, rows};
use super::{Case, Object, cut, longer, opening};
use chronolith::codec::Encoding;
use chronolith::crypto::Suite;
use chronolith::format::pack::BlobClass;

pub const OBJECT: Object = Object { name: "pack", recode: opening::pack, cases };

/// A pack with one small frame: the example of the page.
pub fn smallest() -> PackRecipe {
    PackRecipe::new(BlobClass::Metadata, &[Frame::alone(0, Encoding::Stored, &[b"one small blob".to_vec()])])
}

/// Every encoding, shared frames, chains of differences, two origins with different ciphers.
pub fn richest() -> PackRecipe {
    let first = rows(0, 12, None);
    let second = rows(0, 12, Some(7));
    let third = rows(0, 13, Some(7));
    let dictionary = rows(100, 16, None);
    let mut frames = vec![
        Frame::alone(0, Encoding::Stored, &[noise(1, 60)]),
        Frame::alone(1, Encoding::Zstd, std::slice::from_ref(&first)),
        Frame::alone(
            u64::MAX,
            Encoding::Zstd,
            &[rows(500, 20, None), rows(600, 1, None), rows(700, 9, None)],
        ),
        Frame::against(2, Encoding::Difference, 1, &first, &second),
        Frame::against(3, Encoding::Difference, 2, &second, &third),
        Frame::alone(4, Encoding::Zstd, std::slice::from_ref(&dictionary)),
        Frame::against(5, Encoding::Dictionary, 1, &dictionary, &rows(120, 5, None)),
    ];
    // What was copied from another pack keeps its origin, so the two alternate; counters are per origin.
    for frame in [2, 4, 6] {
        frames[frame].origin = 1;
    }
    frames[6].counter = 0;
    PackRecipe {
        origins: vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm],
        ..PackRecipe::new(BlobClass::Content, &frames)
    }
}

fn two_frames() -> PackRecipe {
    let rows = rows(0, 12, None);
    PackRecipe::new(
        BlobClass::Content,
        &[
            Frame::alone(0, Encoding::Zstd, std::slice::from_ref(&rows)),
            Frame::against(1, Encoding::Difference, 1, &rows, &super::packing::rows(0, 12, Some(3))),
        ],
    )
}

fn with(change: impl FnOnce(&mut PackRecipe)) -> Vec<u8> {
    let mut recipe = two_frames();
    change(&mut recipe);
    recipe.make().0
}

fn set(at: usize, value: u8) -> impl FnOnce(&mut PackRecipe) {
    move |recipe| recipe.bytes = Box::new(move |bytes| bytes[at] = value)
}

/// Sets a byte counted from the end of the pack.
fn set_from_end(distance: usize, value: u8) -> impl FnOnce(&mut PackRecipe) {
    move |recipe| {
        recipe.bytes = Box::new(move |bytes| {
            // The signature is appended later.
            let at = bytes.len() + 64 - distance;
            bytes[at] = value;
        });
    }
}

fn table(at: usize, value: u8) -> impl FnOnce(&mut PackRecipe) {
    move |recipe| recipe.table_bytes = Box::new(move |bytes| bytes[at] = value)
}

fn cases() -> Vec<Case> {
    let good = two_frames().make().0;
    let end = good.len();
    let mut cases = vec![
        Case::accept("smallest", "metadata, one origin, one stored frame", smallest().make().0),
        Case::accept(
            "every-encoding",
            "stored, zstd, shared frame, differences of depth 1 and 2, dictionary; two origins, both ciphers",
            richest().make().0,
        ),
        Case::truncated("empty", "no bytes at all", Vec::new()),
        Case::truncated("head-only", "nothing behind the head", cut(&good, 64)),
        Case::truncated("shorter-than-trailer", "no room for a trailer", cut(&good, 191)),
        Case::corrupt("cut-in-the-middle", "the last bytes are no trailer", cut(&good, end / 2)),
        Case::corrupt("last-byte-missing", "the last bytes are no trailer", cut(&good, end - 1)),
        Case::corrupt("byte-behind", "the last bytes are no trailer", longer(&good, &[0])),
        Case::corrupt("magic", "the first byte is another", with(set(0, b'X'))),
        Case::corrupt("kind", "the kind is that of an index run", with(set(4, 5))),
        Case::corrupt("head-reserved", "a reserved byte of the head is not zero", with(set(8, 1))),
        Case::corrupt("origins-none", "the head counts no origin", with(set(6, 0))),
        Case::corrupt("origins-more", "the head counts more origins than the trailer", with(set(6, 2))),
        Case::corrupt("origin-reserved", "a reserved byte of an origin is not zero", with(set(65, 1))),
        Case::corrupt("origin-epoch-zero", "an origin of epoch 0", with(set(68, 0))),
        Case::corrupt(
            "origins-differ",
            "the second copy of the origins is not the first",
            with(set_from_end(193, 0)),
        ),
        Case::corrupt("signer-differs", "head and trailer name different signers", with(set(16, 0))),
        Case::corrupt("trailer-magic", "the trailer's magic is another", with(set_from_end(164, b'X'))),
        Case::corrupt("trailer-kind", "head and trailer disagree on the kind", {
            let mut recipe = smallest();
            recipe.trailer = Box::new(|trailer| trailer.class = BlobClass::Content);
            recipe.make().0
        }),
        Case::corrupt(
            "trailer-epoch-zero",
            "the table of contents is of epoch 0",
            with(set_from_end(180, 0)),
        ),
        Case::corrupt(
            "trailer-no-frames",
            "the trailer counts no frame",
            with(|r| {
                r.trailer = Box::new(|trailer| trailer.frame_count = 0);
            }),
        ),
        Case::corrupt(
            "trailer-frames",
            "the trailer counts one frame less",
            with(|r| {
                r.trailer = Box::new(|trailer| trailer.frame_count -= 1);
            }),
        ),
        Case::corrupt(
            "trailer-blobs",
            "the trailer counts one blob more",
            with(|r| {
                r.trailer = Box::new(|trailer| trailer.blob_count += 1);
            }),
        ),
        Case::corrupt(
            "trailer-blobs-fewer",
            "the trailer counts fewer blobs than the table, within bounds",
            {
                let mut recipe = richest();
                recipe.trailer = Box::new(|trailer| trailer.blob_count -= 1);
                recipe.make().0
            },
        ),
        Case::corrupt(
            "trailer-frames-fewer",
            "the trailer counts fewer frames than the table, within bounds",
            {
                let mut recipe = richest();
                recipe.trailer = Box::new(|trailer| trailer.frame_count -= 1);
                recipe.make().0
            },
        ),
        Case::corrupt(
            "trailer-offset",
            "the table of contents does not begin where the trailer says",
            with(|r| {
                r.trailer = Box::new(|trailer| trailer.contents_offset -= 1);
            }),
        ),
        Case::corrupt(
            "trailer-length",
            "the table of contents is not as long as the trailer says",
            with(|r| {
                r.trailer = Box::new(|trailer| trailer.contents_plain_length += 1);
            }),
        ),
        Case::corrupt("signature", "the signature is another", {
            let mut bytes = good.clone();
            bytes[end - 1] ^= 1;
            bytes
        }),
        Case::corrupt(
            "commitment",
            "the key of the table of contents is not the one committed to",
            with(|r| {
                r.trailer = Box::new(|trailer| trailer.commitment[0] ^= 1);
            }),
        ),
        Case::corrupt(
            "origin-commitment",
            "the key of an origin is not the one committed to",
            with(|r| {
                r.bytes = Box::new(move |bytes| {
                    bytes[64 + 72] ^= 1;
                    let copy = bytes.len() - 128 - 104;
                    bytes[copy + 72] ^= 1;
                });
            }),
        ),
        Case::corrupt(
            "sealed-frame",
            "a sealed byte is another, though signed",
            with(|r| {
                r.bytes = Box::new(|bytes| bytes[64 + 104] ^= 1);
            }),
        ),
        Case::corrupt("metadata-encapsulation", "an encapsulation in a metadata pack", {
            let mut recipe = smallest();
            recipe.bytes = Box::new(|bytes| {
                bytes[64 + 8] = 1;
                let copy = bytes.len() - 128 - 104;
                bytes[copy + 8] = 1;
            });
            recipe.make().0
        }),
        Case::unsupported("version-2", "the head is of version 2", with(set(5, 2))),
        Case::unsupported("suite-3", "an origin of a cipher that does not exist", with(set(64, 3))),
        Case::unsupported("trailer-version-2", "the trailer is of version 2", with(set_from_end(161, 2))),
        Case::unsupported(
            "trailer-suite",
            "a table of contents sealed with an unknown cipher",
            with(set_from_end(176, 9)),
        ),
    ];
    cases.extend(table_cases());
    cases
}

/// What a table of contents can say wrongly. Its first frame's record begins at 4: offset, sealed length,
/// plain length, then encoding at 16, depth at 17, blob count at 18, origin at 20, counter at 24.
fn table_cases() -> Vec<Case> {
    let second = 4 + 28 + 36;
    let change = |change: fn(&mut chronolith::format::pack::TableOfContents)| {
        with(|recipe| recipe.table = Box::new(change))
    };
    vec![
        Case::unsupported("encoding-4", "a frame of an encoding that does not exist", with(table(16, 4))),
        Case::corrupt("frame-offset", "the first frame does not begin behind the origins", with(table(4, 0))),
        Case::corrupt(
            "frame-gap",
            "the second frame does not begin where the first ends",
            change(|table| {
                table.frames[1].offset += 1;
            }),
        ),
        Case::corrupt(
            "frame-overlap",
            "the second frame begins before the first ends",
            change(|table| {
                table.frames[1].offset -= 1;
            }),
        ),
        Case::corrupt(
            "frame-order",
            "frames in another order than they lie",
            change(|table| table.frames.swap(0, 1)),
        ),
        Case::corrupt(
            "frame-length",
            "the last frame does not end where the table begins",
            change(|table| {
                table.frames[1].sealed_length -= 1;
            }),
        ),
        Case::corrupt(
            "frame-empty",
            "a frame of no plain bytes",
            with(|r| {
                r.table_bytes = Box::new(|bytes| {
                    bytes[12..16].fill(0);
                    bytes[4 + 28 + 32..4 + 28 + 36].fill(0);
                });
            }),
        ),
        Case::corrupt(
            "frame-too-long",
            "a frame of more plain bytes than allowed",
            with(|r| {
                r.table_bytes = Box::new(|bytes| {
                    let length = (8_u32 * 1024 * 1024 + 1).to_le_bytes();
                    bytes[12..16].copy_from_slice(&length);
                    bytes[4 + 28 + 32..4 + 28 + 36].copy_from_slice(&length);
                });
            }),
        ),
        Case::corrupt("frame-count", "the table counts one frame less than the trailer", with(table(0, 1))),
        Case::corrupt(
            "blob-lengths",
            "lengths of blobs that do not sum to the frame's",
            with(table(4 + 28 + 32, 1)),
        ),
        Case::corrupt("blob-none", "a frame without blobs", with(table(18, 0))),
        Case::corrupt("blob-id", "a blob that is not what its id says", with(table(4 + 28, 0))),
        Case::corrupt("depth-alone", "a frame without a base of depth 1", with(table(17, 1))),
        Case::corrupt("depth-zero", "a difference of depth 0", with(table(second + 13, 0))),
        Case::corrupt("depth-beyond", "a difference of depth 33", with(table(second + 13, 33))),
        Case::corrupt("base-other", "a difference sealed against another base", with(table(second + 28, 0))),
        Case::corrupt("encoding-other", "a frame sealed as zstd, listed as stored", with(table(16, 0))),
        Case::corrupt("origin-missing", "a frame of an origin that the pack has not", with(table(20, 1))),
        Case::corrupt(
            "record-reserved",
            "a reserved byte of a frame's record is not zero",
            with(table(22, 1)),
        ),
        Case::corrupt("counter-other", "a frame sealed under another counter", with(table(24, 9))),
        Case::corrupt(
            "counter-twice",
            "two frames of one origin with one counter",
            with(table(second + 20, 0)),
        ),
        Case::corrupt(
            "table-byte-behind",
            "a byte behind the last frame's record",
            with(|r| {
                r.table_bytes = Box::new(|bytes| bytes.push(0));
            }),
        ),
    ]
}
