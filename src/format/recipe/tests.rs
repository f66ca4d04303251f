use super::*;
use crate::base::BlobId;
use crate::chunker::Sketch;
use crate::format::FormatError;
use crate::format::testing::survives_damage;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};

fn id(number: u64) -> BlobId {
    BlobId::new(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn chunk(number: u64) -> RecipeEntry {
    let length = 1000 + (number % 5000) as u32;
    RecipeEntry::Chunk { id: id(number), length, sketch: Sketch([number as u32, 2, 3]) }
}

/// Builds a recipe into a map from ids to nodes.
fn build(entries: impl IntoIterator<Item = RecipeEntry>) -> (Recipe, BTreeMap<BlobId, Vec<u8>>) {
    let mut nodes = BTreeMap::new();
    let mut emit = |bytes: &[u8]| -> Result<BlobId, FormatError> {
        let id = BlobId::new(*blake3::hash(bytes).as_bytes());
        nodes.insert(id, bytes.to_vec());
        Ok(id)
    };
    let mut builder = RecipeBuilder::new(1);
    for entry in entries {
        builder.push(entry, &mut emit).unwrap();
    }
    (builder.finish(&mut emit).unwrap(), nodes)
}

fn walk(node: &RecipeNode, nodes: &BTreeMap<BlobId, Vec<u8>>, entries: &mut Vec<RecipeEntry>) {
    match node {
        RecipeNode::Leaf { entries: leaf, .. } => entries.extend(leaf),
        RecipeNode::Branch { level, children } => {
            for child in children {
                walk(&RecipeNode::decode_child(&nodes[&child.id], *level, child).unwrap(), nodes, entries);
            }
        }
    }
}

fn entries_of(recipe: &Recipe, nodes: &BTreeMap<BlobId, Vec<u8>>) -> Vec<RecipeEntry> {
    let root = match &recipe.root {
        RecipeRoot::Inline(node) => node.clone(),
        RecipeRoot::Node(id) => RecipeNode::decode(&nodes[id]).unwrap(),
    };
    assert_eq!((root.plain_bytes(), root.leaf_entries()), (recipe.plain_bytes, recipe.entries));
    let mut entries = Vec::new();
    walk(&root, nodes, &mut entries);
    entries
}

#[test]
fn recipes_of_every_size_come_back() {
    for count in [0, 1, 16, 17, 127, 128, 129, 1000, 5000, 200_000] {
        let entries: Vec<_> = (0..count).map(chunk).collect();
        let (recipe, nodes) = build(entries.iter().copied());
        assert_eq!(entries_of(&recipe, &nodes), entries, "{count}");
        assert_eq!(matches!(recipe.root, RecipeRoot::Inline(_)), count <= 16, "{count}");
    }
}

#[test]
fn equal_stretches_share_nodes() {
    let (_, before) = build((0..20_000).map(chunk));
    // One entry goes, one comes, one changes.
    let changed = (0..20_000).filter(|n| *n != 5000).flat_map(|n| {
        let extra = (n == 10_000).then(|| chunk(1_000_000));
        extra.into_iter().chain([if n == 15_000 { chunk(2_000_000) } else { chunk(n) }])
    });
    let (_, after) = build(changed);
    let new = after.keys().filter(|id| !before.contains_key(id)).count();
    assert!(before.len() > 40 && new <= 10, "{new} new of {}", after.len());
}

#[test]
fn uniform_content_makes_nodes_of_bounded_size() {
    let same = RecipeEntry::Chunk { id: id(1), length: 4096, sketch: Sketch::NONE };
    let (recipe, nodes) = build(std::iter::repeat_n(same, 100_000));
    assert_eq!(recipe.entries, 100_000);
    assert!(nodes.len() < 10, "equal nodes are one blob");
    assert!(nodes.values().all(|node| node.len() <= RECIPE_HEAD_BYTES + RECIPE_SPLIT_MAX * 48));
}

#[test]
fn holes_are_kept() {
    let hole = RecipeEntry::Hole { length: (5 << 32) + 7 };
    let entries = vec![chunk(1), hole, chunk(2)];
    let (recipe, nodes) = build(entries.clone());
    assert_eq!(entries_of(&recipe, &nodes), entries);
    let mut plain = RecipeBuilder::new(0);
    let refused = plain.push(hole, |_| Err(FormatError::Truncated));
    assert!(matches!(refused, Err(FormatError::Invalid { what: "recipe hole", .. })));
}

#[test]
fn a_single_node_is_its_own_root() {
    // Exactly one node that closes by its size leaves nothing open: no level above may list it alone.
    let same = RecipeEntry::Chunk { id: id(1), length: 4096, sketch: Sketch::NONE };
    let (recipe, nodes) = build(std::iter::repeat_n(same, RECIPE_SPLIT_MAX));
    assert_eq!(nodes.len(), 1);
    assert_eq!(entries_of(&recipe, &nodes).len(), RECIPE_SPLIT_MAX);
}

fn leaf(entries: Vec<RecipeEntry>) -> Vec<u8> {
    let mut bytes = Vec::new();
    RecipeNode::Leaf { sketch_algorithm: 1, entries }.encode(&mut bytes).unwrap();
    bytes
}

fn branch(children: &[(u64, u64)]) -> Result<Vec<u8>, FormatError> {
    let children = children
        .iter()
        .map(|(plain_bytes, leaf_entries)| RecipeChild {
            id: id(*plain_bytes),
            plain_bytes: *plain_bytes,
            leaf_entries: *leaf_entries,
        })
        .collect();
    let mut bytes = Vec::new();
    RecipeNode::Branch { level: 1, children }.encode(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn a_reader_refuses() {
    let good = leaf(vec![chunk(1), RecipeEntry::Hole { length: 9 }]);
    RecipeNode::decode(&good).unwrap();
    let cases: [(&str, usize, u8); 10] = [
        ("magic", 0, b'X'),
        ("version", 4, 2),
        ("level of other entries", 5, 1),
        ("too high", 5, 8),
        ("no sketches, but their bytes", 6, 0),
        ("reserved", 7, 1),
        ("fewer entries", 8, 1),
        ("reserved", 15, 1),
        ("chunk longer than any", 16 + 35, 1),
        ("reserved in a hole", 64 + 40, 1),
    ];
    for (name, at, value) in cases {
        let mut bytes = good.clone();
        assert_ne!(bytes[at], value, "{name}: no change");
        bytes[at] = value;
        assert!(RecipeNode::decode(&bytes).is_err(), "{name}");
    }
    assert_eq!(RecipeNode::decode(&good[..good.len() - 1]), Err(FormatError::Truncated));
    assert!(branch(&[]).is_err(), "no children");
    assert!(branch(&[(5, 0)]).is_err(), "no entries under a child");
    assert!(branch(&[(5, 6)]).is_err(), "more entries than bytes");
    assert!(branch(&[(u64::MAX, 1), (1, 1)]).is_err(), "a sum that overflows");
    assert!(branch(&[(i64::MAX as u64, 1), (1, 1)]).is_err(), "longer than a file can be");
}

#[test]
fn a_child_is_what_its_parent_says() {
    let bytes = leaf(vec![RecipeEntry::Hole { length: 9 }]);
    let child = |plain_bytes, leaf_entries| RecipeChild { id: id(1), plain_bytes, leaf_entries };
    assert!(RecipeNode::decode_child(&bytes, 1, &child(9, 1)).is_ok());
    assert!(RecipeNode::decode_child(&bytes, 1, &child(10, 1)).is_err());
    assert!(RecipeNode::decode_child(&bytes, 1, &child(9, 2)).is_err());
    assert!(RecipeNode::decode_child(&bytes, 2, &child(9, 1)).is_err());
}

#[test]
fn unknown_sketches_are_passed_over() {
    let mut bytes = leaf(vec![chunk(1)]);
    bytes[6] = 200;
    let node = RecipeNode::decode(&bytes).unwrap();
    let mut again = Vec::new();
    node.encode(&mut again).unwrap();
    assert_eq!(again, bytes);
}

#[test]
fn damage_is_survived() {
    let decode = |bytes: &[u8]| {
        if let Ok(node) = RecipeNode::decode(bytes) {
            let mut again = Vec::new();
            node.encode(&mut again).unwrap();
            assert_eq!(again, bytes);
        }
    };
    survives_damage(&leaf(vec![chunk(1), RecipeEntry::Hole { length: 1 << 40 }, chunk(3)]), decode);
    survives_damage(&branch(&[(100, 1), (200, 5)]).unwrap(), decode);
}

fn entry() -> impl Strategy<Value = RecipeEntry> {
    prop_oneof![
        9 => (any::<[u8; 31]>(), 1..1_000_000_u32, any::<[u32; 3]>()).prop_map(|(tail, length, sketch)| {
            let mut id = [1; 32];
            id[1..].copy_from_slice(&tail);
            RecipeEntry::Chunk { id: BlobId::new(id), length, sketch: Sketch(sketch) }
        }),
        1 => (1..1_u64 << 50).prop_map(|length| RecipeEntry::Hole { length }),
    ]
}

proptest! {
    #[test]
    fn any_recipe_comes_back(entries in proptest::collection::vec(entry(), 0..600)) {
        let (recipe, nodes) = build(entries.iter().copied());
        prop_assert_eq!(entries_of(&recipe, &nodes), entries);
    }

    #[test]
    fn nodes_do_not_repeat_without_reason(start in 0..1_000_000_u64) {
        let (_, nodes) = build((start..start + 3000).map(chunk));
        let distinct: HashSet<_> = nodes.values().collect();
        prop_assert_eq!(distinct.len(), nodes.len());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(RecipeNode::decode(&bytes));
        drop(RecipeNode::decode(&[&b"RCPE\x01"[..], &bytes].concat()));
    }
}
