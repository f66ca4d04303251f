use super::*;
use crate::base::{BlobId, Timestamp};
use crate::chunker::Sketch;
use crate::format::FormatError;
use crate::format::recipe::{RecipeEntry, RecipeNode, RecipeRoot};
use crate::format::testing::{Change, id32, survives_damage};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn file(name: &str, length: u32) -> TreeEntry {
    let chunk = RecipeEntry::Chunk { id: BlobId::new(id32(1)), length, sketch: Sketch([1, 2, 3]) };
    let node = RecipeNode::Leaf { sketch_algorithm: 1, entries: vec![chunk] };
    let mut entry = TreeEntry::new(name.into(), EntryKind::File, 0o640, Timestamp::from_nanoseconds(-5));
    entry.content = Some(Content {
        length: u64::from(length),
        digest: Some(ContentDigest::Blake3(id32(4))),
        recipe: RecipeRoot::Inline(node),
        cut: CutKind::Pages { page_bytes: 8192 },
        read: Some(Timestamp::from_nanoseconds(-1)),
        extra: Vec::new(),
    });
    entry.size = Some(u64::from(length));
    entry
}

fn every_kind() -> Vec<TreeEntry> {
    let time = Timestamp::from_nanoseconds(1_700_000_000_000_000_001);
    let entry = |name: &str, kind| TreeEntry::new(name.into(), kind, 0o4755, time);
    let mut rich = file("a rich file", 77);
    rich.user_id = Some(0);
    rich.group_id = Some(u32::MAX);
    rich.user_name = Some(b"root".to_vec());
    rich.group_name = Some(b"\xFF".to_vec());
    rich.changed = Some(time);
    rich.accessed = Some(time);
    rich.device = Some(1);
    rich.inode = Some(u64::MAX);
    rich.links = Some(2);
    rich.attributes = vec![
        ExtendedAttribute { name: b"user.a".to_vec(), value: vec![0; 300] },
        ExtendedAttribute { name: b"user.b".to_vec(), value: Vec::new() },
    ];
    rich.extra = vec![(40, vec![0x01])];
    let mut folder = entry("b folder", EntryKind::Directory);
    folder.subtree = Some(BlobId::new(id32(9)));
    let mut link = entry("c link", EntryKind::Symlink);
    link.target = Some(b"../\xFE".to_vec());
    let mut device = entry("d device", EntryKind::BlockDevice);
    device.device_numbers = Some(Device { major: 8, minor: 1 });
    let mut big = entry("e big file", EntryKind::File);
    big.content = Some(Content {
        length: 1 << 40,
        digest: None,
        recipe: RecipeRoot::Node(BlobId::new(id32(8))),
        cut: CutKind::Stream,
        read: None,
        extra: vec![(99, vec![0x40])],
    });
    vec![
        rich,
        folder,
        link,
        device,
        big,
        entry("f pipe", EntryKind::Fifo),
        entry("g socket", EntryKind::Socket),
    ]
}

fn leaf(entries: Vec<TreeEntry>) -> Result<Vec<u8>, FormatError> {
    TreeNode::Leaf { entries }.encode()
}

#[test]
fn every_kind_of_entry_comes_back() {
    let entries = every_kind();
    let bytes = leaf(entries.clone()).unwrap();
    assert_eq!(TreeNode::decode(&bytes).unwrap(), TreeNode::Leaf { entries });
    let empty = leaf(Vec::new()).unwrap();
    assert_eq!(empty, [0xA2, 0, 0, 1, 0x80]);
    assert_eq!(TreeNode::decode(&empty).unwrap().first_name(), None);
}

#[test]
fn entries_that_lead_astray_are_refused() {
    let changes: [Change<TreeEntry>; 17] = [
        ("empty", |e| e.name.clear()),
        ("dot", |e| e.name = b".".to_vec()),
        ("dots", |e| e.name = b"..".to_vec()),
        ("slash", |e| e.name = b"a/b".to_vec()),
        ("nul", |e| e.name = b"a\0".to_vec()),
        ("long", |e| e.name = vec![b'x'; 4097]),
        ("mode", |e| e.mode = 0o100_644),
        ("no content", |e| e.content = None),
        ("subtree", |e| e.subtree = Some(BlobId::new(id32(1)))),
        ("target", |e| e.target = Some(b"x".to_vec())),
        ("numbers", |e| e.device_numbers = Some(Device { major: 0, minor: 0 })),
        ("size", |e| e.size = Some(1)),
        ("length", |e| e.content.as_mut().unwrap().length = 1),
        ("owner", |e| e.user_name = Some(vec![0; 4097])),
        ("attribute order", |e| e.attributes.reverse()),
        ("attribute twice", |e| e.attributes[1].name = e.attributes[0].name.clone()),
        ("attribute size", |e| e.attributes[0].value = vec![0; 65537]),
    ];
    let rich = every_kind().remove(0);
    for (name, change) in changes {
        let mut entry = rich.clone();
        change(&mut entry);
        assert!(leaf(vec![entry]).is_err(), "{name}");
    }
}

#[test]
fn a_reader_refuses() {
    // Map heads, level and entries by hand; 0x40 is an empty byte string.
    let cases: [(&str, &[u8]); 8] = [
        ("no entries", &[0xA1, 0, 0]),
        ("no level", &[0xA1, 1, 0x80]),
        ("no parts", &[0xA2, 0, 1, 1, 0x80]),
        ("level too high", &[0xA2, 0, 8, 1, 0x80]),
        ("bytes behind", &[0xA2, 0, 0, 1, 0x80, 0]),
        ("unknown field of the node", &[0xA3, 0, 0, 1, 0x80, 2, 0]),
        ("not the shortest form", &[0xA2, 0, 0x18, 0, 1, 0x80]),
        ("an entry without anything", &[0xA2, 0, 0, 1, 0x81, 0xA0]),
    ];
    for (name, bytes) in cases {
        assert!(TreeNode::decode(bytes).is_err(), "{name}");
    }
    let mut unordered = vec![file("b", 1), file("a", 1)];
    assert!(leaf(unordered.clone()).is_err());
    unordered[1].name = b"b".to_vec();
    assert!(leaf(unordered).is_err(), "twice the same name");
}

#[test]
fn newer_kinds_are_not_guessed_at() {
    let entry = TreeEntry::new(b"x".to_vec(), EntryKind::Fifo, 0, Timestamp::default());
    let mut bytes = leaf(vec![entry]).unwrap();
    let at = bytes.iter().position(|byte| *byte == EntryKind::Fifo as u8).unwrap();
    bytes[at] = 7;
    assert_eq!(TreeNode::decode(&bytes), Err(FormatError::Unsupported { what: "kind of tree entry" }));
}

/// Builds a folder into a map from ids to nodes.
fn build(entries: &[TreeEntry]) -> (BlobId, BTreeMap<BlobId, Vec<u8>>) {
    let mut nodes = BTreeMap::new();
    let mut emit = |bytes: &[u8]| -> Result<BlobId, FormatError> {
        let id = BlobId::new(*blake3::hash(bytes).as_bytes());
        nodes.insert(id, bytes.to_vec());
        Ok(id)
    };
    let mut builder = TreeBuilder::new();
    for entry in entries {
        builder.push(entry, &mut emit).unwrap();
    }
    (builder.finish(&mut emit).unwrap(), nodes)
}

fn walk(node: &TreeNode, nodes: &BTreeMap<BlobId, Vec<u8>>, entries: &mut Vec<TreeEntry>) {
    match node {
        TreeNode::Leaf { entries: leaf } => entries.extend(leaf.iter().cloned()),
        TreeNode::Branch { level, parts } => {
            for (number, part) in parts.iter().enumerate() {
                let next = parts.get(number + 1);
                let node = TreeNode::decode_part(&nodes[&part.id], *level, part, next).unwrap();
                walk(&node, nodes, entries);
            }
        }
    }
}

fn entries_of(root: BlobId, nodes: &BTreeMap<BlobId, Vec<u8>>) -> Vec<TreeEntry> {
    let mut entries = Vec::new();
    walk(&TreeNode::decode(&nodes[&root]).unwrap(), nodes, &mut entries);
    entries
}

fn folder(count: u32) -> Vec<TreeEntry> {
    (0..count).map(|number| file(&format!("file {number:08}"), 1 + number)).collect()
}

#[test]
fn folders_of_every_size_come_back() {
    for count in [0, 1, 63, 64, 65, 1000, 1025, 30_000] {
        let entries = folder(count);
        let (root, nodes) = build(&entries);
        assert_eq!(entries_of(root, &nodes), entries, "{count}");
        assert!(nodes.values().all(|node| node.len() <= TREE_SPLIT_BYTES_MAX + 16));
    }
}

#[test]
fn a_change_touches_few_nodes() {
    let mut entries = folder(20_000);
    let (_, before) = build(&entries);
    entries[10_000].mode = 0o600;
    entries.remove(5000);
    entries.insert(15_000, file("file 00015000b", 5));
    let (_, after) = build(&entries);
    let new = after.keys().filter(|id| !before.contains_key(id)).count();
    assert!(before.len() > 60 && new <= 10, "{new} new of {}", after.len());
}

#[test]
fn big_entries_stand_apart() {
    let mut entries = folder(40);
    for entry in &mut entries {
        entry.attributes =
            (0..3).map(|n| ExtendedAttribute { name: vec![b'a' + n], value: vec![n; 60_000] }).collect();
    }
    let (root, nodes) = build(&entries);
    assert_eq!(entries_of(root, &nodes), entries);
    assert!(nodes.len() >= 40);
}

#[test]
fn names_come_in_order() {
    let mut builder = TreeBuilder::new();
    let mut emit = |_: &[u8]| -> Result<BlobId, FormatError> { Ok(BlobId::new(id32(1))) };
    builder.push(&file("b", 1), &mut emit).unwrap();
    assert!(builder.push(&file("a", 1), &mut emit).is_err());
    assert!(builder.push(&file("b", 1), &mut emit).is_err());
}

#[test]
fn a_part_is_what_the_node_above_says() {
    let bytes = leaf(vec![file("b", 1), file("d", 1)]).unwrap();
    let part = |name: &str| TreePart { first_name: name.into(), id: BlobId::new(id32(1)) };
    assert!(TreeNode::decode_part(&bytes, 1, &part("b"), None).is_ok());
    assert!(TreeNode::decode_part(&bytes, 1, &part("b"), Some(&part("e"))).is_ok());
    assert!(TreeNode::decode_part(&bytes, 1, &part("b"), Some(&part("d"))).is_err());
    assert!(TreeNode::decode_part(&bytes, 1, &part("a"), None).is_err());
    assert!(TreeNode::decode_part(&bytes, 2, &part("b"), None).is_err());
}

#[test]
fn damage_is_survived() {
    let decode = |bytes: &[u8]| {
        if let Ok(node) = TreeNode::decode(bytes) {
            assert_eq!(node.encode().unwrap(), bytes);
        }
    };
    survives_damage(&leaf(every_kind()).unwrap(), decode);
    let parts = (1..4).map(|n| TreePart { first_name: vec![b'a' + n], id: BlobId::new(id32(n)) }).collect();
    survives_damage(&TreeNode::Branch { level: 1, parts }.encode().unwrap(), decode);
}

proptest! {
    #[test]
    fn any_folder_comes_back(names in proptest::collection::btree_set("[a-z]{1,12}", 0..300)) {
        let entries: Vec<_> = names.iter().map(|name| file(name, 9)).collect();
        let (root, nodes) = build(&entries);
        prop_assert_eq!(entries_of(root, &nodes), entries);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(TreeNode::decode(&bytes));
        drop(TreeNode::decode(&[&[0xA2, 0, 0, 1][..], &bytes].concat()));
    }
}
