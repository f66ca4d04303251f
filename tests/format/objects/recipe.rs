//! Recipes: nodes as they are blobs.

use super::packing::{blob, id_key, rows};
use super::{Case, Object, cut, longer, patched};
use chronolith::chunker::Sketch;
use chronolith::format::pack::BlobClass;
use chronolith::format::recipe::{RecipeChild, RecipeEntry, RecipeNode};

pub const OBJECT: Object = Object {
    name: "recipe",
    recode: |bytes| {
        let mut again = Vec::new();
        RecipeNode::decode(bytes)?.encode(&mut again)?;
        Ok(again)
    },
    cases,
};

/// A chunk of content.
pub fn chunk(plain: &[u8], sketch: Sketch) -> RecipeEntry {
    let id = id_key(BlobClass::Content).blob_id(plain);
    RecipeEntry::Chunk { id, length: plain.len() as u32, sketch }
}

/// A node of level 0.
pub fn leaf(sketch_algorithm: u8, entries: &[RecipeEntry]) -> RecipeNode {
    RecipeNode::Leaf { sketch_algorithm, entries: entries.to_vec() }
}

/// Two chunks with a hole of 5 GiB between them: the example of the page.
fn holey() -> RecipeNode {
    let sketch = Sketch([0x0101_0101, 0x0202_0202, 0x0303_0303]);
    leaf(
        1,
        &[
            chunk(&rows(0, 12, None), sketch),
            RecipeEntry::Hole { length: 5 << 30 },
            chunk(&rows(100, 16, None), Sketch::NONE),
        ],
    )
}

/// A node as bytes.
pub fn encoded(node: &RecipeNode) -> Vec<u8> {
    let mut bytes = Vec::new();
    node.encode(&mut bytes).unwrap();
    bytes
}

fn cases() -> Vec<Case> {
    let good = encoded(&holey());
    let child = |byte, plain_bytes, leaf_entries| RecipeChild { id: blob(byte), plain_bytes, leaf_entries };
    let branch = encoded(&RecipeNode::Branch {
        level: 2,
        children: vec![child(1, 1 << 40, 300), child(2, 70_000, 1)],
    });
    let plain = encoded(&leaf(0, &[chunk(&rows(0, 12, None), Sketch::NONE)]));
    let unknown = patched(&good, 6, &[200]);
    let longest = [(i64::MAX as u64 - 5).to_le_bytes(), 1_u64.to_le_bytes()].concat();
    vec![
        Case::accept("holes", "two chunks, one without a sketch, and a hole of 5 GiB", good.clone()),
        Case::accept("no-sketches", "one chunk in a node without sketches", plain.clone()),
        Case::accept("nothing", "no entries: an empty file", encoded(&leaf(1, &[]))),
        Case::accept("branch", "a node of level 2", branch.clone()),
        Case::accept("unknown-sketches", "sketches of an algorithm from the future", unknown),
        Case::truncated("empty", "no bytes at all", Vec::new()),
        Case::truncated("head-cut", "cut within the head", cut(&good, 15)),
        Case::truncated("entry-cut", "cut within the last entry", cut(&good, good.len() - 1)),
        Case::truncated("count-more", "one entry more than there is", patched(&good, 8, &[4])),
        Case::corrupt("count-less", "one entry less than there is", patched(&good, 8, &[2])),
        Case::corrupt("count-beyond", "more entries than a node may have", patched(&good, 8, &[1, 16, 0, 0])),
        Case::corrupt("byte-behind", "a byte behind the last entry", longer(&good, &[0])),
        Case::corrupt("magic", "the first byte is another", patched(&good, 0, b"X")),
        Case::corrupt("reserved", "a reserved byte of the head is not zero", patched(&good, 7, &[1])),
        Case::corrupt(
            "reserved-end",
            "the last reserved byte of the head is not zero",
            patched(&good, 15, &[1]),
        ),
        Case::corrupt("level-8", "a level beyond the limit", patched(&branch, 5, &[8])),
        Case::corrupt("branch-sketches", "sketches above level 0", patched(&branch, 6, &[1])),
        Case::corrupt(
            "branch-empty",
            "a node above level 0 that lists nothing",
            patched(&branch, 8, &[0])[..16].to_vec(),
        ),
        Case::corrupt("chunk-empty", "a chunk of no bytes", patched(&good, 16 + 32, &[0; 4])),
        Case::corrupt(
            "chunk-too-long",
            "a chunk longer than a blob",
            patched(&good, 16 + 32, &[1, 0, 0x80, 0]),
        ),
        Case::corrupt("hole-empty", "a hole of no bytes", patched(&good, 64 + 32, &[0; 8])),
        Case::corrupt(
            "hole-reserved",
            "a reserved byte of a hole is not zero",
            patched(&good, 64 + 40, &[1]),
        ),
        Case::corrupt("hole-too-long", "longer than a file may be", patched(&good, 64 + 39, &[0x80])),
        Case::corrupt(
            "hole-without-place",
            "a hole in a node without sketches",
            patched(&plain, 16, &[0; 32]),
        ),
        Case::corrupt(
            "child-without-entries",
            "a child with no entries under it",
            patched(&branch, 16 + 40, &[0; 8]),
        ),
        Case::corrupt(
            "child-too-short",
            "a child of fewer bytes than entries",
            patched(&branch, 64 + 32, &[0; 8]),
        ),
        Case::corrupt(
            "children-too-long",
            "children longer together than a file may be",
            patched(&branch, 64 + 32, &longest),
        ),
        Case::corrupt(
            "sums-overflow",
            "lengths that overflow 64 bits",
            patched(&branch, 16 + 32, &[0xFF; 8]),
        ),
        Case::unsupported("version-2", "the head is of version 2", patched(&good, 4, &[2])),
    ]
}
