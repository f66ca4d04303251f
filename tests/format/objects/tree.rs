//! Trees: nodes as they are blobs.

use super::packing::{blob, rows};
use super::recipe::{chunk, encoded, leaf};
use super::{Case, Object, cut, keys, longer};
use chronolith::base::Timestamp;
use chronolith::chunker::Sketch;
use chronolith::format::cbor::{Writer, encode_map};
use chronolith::format::recipe::{RecipeChild, RecipeEntry, RecipeNode, RecipeRoot};
use chronolith::format::tree::{
    Content, ContentDigest, CutKind, Device, EntryKind, ExtendedAttribute, TreeEntry, TreeNode, TreePart,
};

pub const OBJECT: Object = Object { name: "tree", recode: |bytes| TreeNode::decode(bytes)?.encode(), cases };

fn entry(name: &str, kind: EntryKind) -> TreeEntry {
    TreeEntry::new(name.into(), kind, 0o644, keys::time())
}

fn content(length: u64, recipe: RecipeRoot, cut: CutKind) -> Content {
    Content { length, digest: None, recipe, cut, read: None, extra: Vec::new() }
}

/// A file whose recipe stands in its entry: the example of the page.
fn small_file() -> TreeEntry {
    let plain = rows(0, 12, None);
    let chunk = chunk(&plain, Sketch([0x0101_0101, 0x0202_0202, 0x0303_0303]));
    let mut file = content(plain.len() as u64, RecipeRoot::Inline(leaf(1, &[chunk])), CutKind::Stream);
    file.digest = Some(ContentDigest::Blake3(*blake3::hash(&plain).as_bytes()));
    TreeEntry { content: Some(file), ..entry("app.sql", EntryKind::File) }
}

fn every_kind() -> Vec<TreeEntry> {
    let holes = leaf(1, &[RecipeEntry::Hole { length: 1 << 30 }]);
    let mut sparse = content(1 << 30, RecipeRoot::Inline(holes), CutKind::Pages { page_bytes: 8192 });
    sparse.digest = Some(ContentDigest::Other { algorithm: 9, digest: vec![1, 2, 3] });
    sparse.read = Some(keys::time());
    sparse.extra = vec![(100, vec![0x17])];
    let full = TreeEntry {
        mode: 0o4755,
        user_id: Some(0),
        group_id: Some(u32::MAX),
        user_name: Some(b"root".to_vec()),
        group_name: Some(b"\xff not UTF-8".to_vec()),
        modified: Timestamp::from_nanoseconds(-1),
        changed: Some(keys::time()),
        accessed: Some(Timestamp::from_nanoseconds(i64::MAX)),
        device: Some(2049),
        inode: Some(u64::MAX),
        links: Some(2),
        size: Some(1 << 30),
        attributes: vec![
            ExtendedAttribute { name: b"security.capability".to_vec(), value: vec![1, 0, 0, 2] },
            ExtendedAttribute { name: b"user.note".to_vec(), value: Vec::new() },
        ],
        content: Some(sparse),
        extra: vec![(99, vec![0x82, 0x01, 0xF5])],
        ..entry("a full file", EntryKind::File)
    };
    let big = content(1 << 42, RecipeRoot::Node(blob(7)), CutKind::Other { kind: 5, page_bytes: None });
    vec![
        full,
        TreeEntry { subtree: Some(blob(8)), ..entry("b folder", EntryKind::Directory) },
        TreeEntry { target: Some(b"../\xfe".to_vec()), ..entry("c link", EntryKind::Symlink) },
        entry("d pipe", EntryKind::Fifo),
        entry("e socket", EntryKind::Socket),
        TreeEntry {
            device_numbers: Some(Device { major: 1, minor: 3 }),
            ..entry("f character device", EntryKind::CharacterDevice)
        },
        TreeEntry {
            device_numbers: Some(Device { major: u32::MAX, minor: 0 }),
            ..entry("g block device", EntryKind::BlockDevice)
        },
        TreeEntry { content: Some(big), ..entry("h big file", EntryKind::File) },
        TreeEntry {
            content: Some(content(0, RecipeRoot::Inline(leaf(1, &[])), CutKind::Stream)),
            ..TreeEntry::new(b"\xff".to_vec(), EntryKind::File, 0, keys::time())
        },
    ]
}

/// A node of level 0 from entries that are written field by field, valid or not.
fn tree(entries: &[&dyn Fn(Writer<'_>)]) -> Vec<u8> {
    encode_map(&Vec::new(), |map| {
        map.at(0).unsigned(0);
        map.at(1).array(entries, |out, entry| entry(out));
    })
}

/// An entry with these fields, the rest as it must be.
fn pipe(name: &[u8], kind: u64, mode: u64) -> impl Fn(Writer<'_>) {
    move |out| {
        out.map(&Vec::new(), |map| {
            map.at(0).bytes(name);
            map.at(1).unsigned(kind);
            map.at(2).unsigned(mode);
            map.at(7).signed(0);
        });
    }
}

/// A file whose content map has these fields.
fn file(fields: impl Fn(&mut chronolith::format::cbor::MapWriter<'_>)) -> Vec<u8> {
    let entry = |out: Writer<'_>| {
        out.map(&Vec::new(), |map| {
            map.at(0).bytes(b"file");
            map.at(1).unsigned(0);
            map.at(2).unsigned(0);
            map.at(7).signed(0);
            map.at(18).map(&Vec::new(), |content| fields(content));
        });
    };
    tree(&[&entry])
}

fn cases() -> Vec<Case> {
    let encode = |entries: Vec<TreeEntry>| TreeNode::Leaf { entries }.encode().unwrap();
    let good = encode(vec![small_file()]);
    let part = |name: &str, byte| TreePart { first_name: name.into(), id: blob(byte) };
    let parts = TreeNode::Branch { level: 1, parts: vec![part("a", 1), part("m", 2)] }.encode().unwrap();
    let named = |name: &[u8]| tree(&[&pipe(name, 3, 0)]);
    let inline = encoded(&leaf(1, &[RecipeEntry::Hole { length: 9 }]));
    let many = encoded(&leaf(1, &[RecipeEntry::Hole { length: 1 }; 65]));
    let branch = encoded(&RecipeNode::Branch {
        level: 1,
        children: vec![RecipeChild { id: blob(1), plain_bytes: 9, leaf_entries: 1 }],
    });
    let with_inline = |length: u64, inline: &[u8]| {
        file(|content| {
            content.at(0).unsigned(length);
            content.at(3).bytes(inline);
            content.at(5).unsigned(0);
        })
    };
    let hex = |text: &str| {
        text.split_ascii_whitespace().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect::<Vec<u8>>()
    };
    let mut cases = vec![
        Case::accept("small-file", "one file whose recipe stands in its entry", good.clone()),
        Case::accept("every-kind", "every kind of entry and every field", encode(every_kind())),
        Case::accept("no-entries", "an empty folder", encode(Vec::new())),
        Case::accept("parts", "a big folder in two parts", parts),
        Case::truncated("empty", "no bytes at all", Vec::new()),
        Case::truncated("cut", "cut before the last byte", cut(&good, good.len() - 1)),
        Case::corrupt("byte-behind", "a byte behind the node", longer(&good, &[0])),
        Case::corrupt("level-missing", "entries without a level before them", hex("a1 01 80")),
        Case::corrupt("entries-missing", "no entries", hex("a1 00 00")),
        Case::corrupt("level-8", "a level beyond the limit", hex("a2 00 08 01 80")),
        Case::corrupt("parts-none", "a node of level 1 without parts", hex("a2 00 01 01 80")),
        Case::unsupported("node-field", "an unknown field of the node itself", hex("a3 00 00 01 80 02 00")),
        Case::corrupt(
            "long-integer",
            "an integer that is not in its shortest form",
            hex("a2 00 18 00 01 80"),
        ),
        Case::corrupt("indefinite", "an array of indefinite length", hex("a2 00 00 01 9f ff")),
        Case::corrupt("fields-order", "fields in descending order", hex("a2 01 80 00 00")),
        Case::corrupt("field-twice", "a field twice", hex("a3 00 00 00 00 01 80")),
        Case::corrupt("null", "null in place of a value", hex("a2 00 00 01 f6")),
        Case::corrupt("parts-order", "parts in the wrong order", {
            let parts = |out: Writer<'_>, name: &[u8]| {
                out.map(&Vec::new(), |map| {
                    map.at(0).bytes(name);
                    map.at(1).bytes(&[1; 32]);
                });
            };
            encode_map(&Vec::new(), |map| {
                map.at(0).unsigned(1);
                map.at(1).array(&[b"b".as_slice(), b"a"], |out, name| parts(out, name));
            })
        }),
        Case::corrupt("entry-empty", "an entry without fields", hex("a2 00 00 01 81 a0")),
        Case::corrupt(
            "names-order",
            "names in the wrong order",
            tree(&[&pipe(b"b", 3, 0), &pipe(b"a", 3, 0)]),
        ),
        Case::corrupt("name-twice", "the same name twice", tree(&[&pipe(b"a", 3, 0), &pipe(b"a", 3, 0)])),
        Case::corrupt("name-empty", "an empty name", named(b"")),
        Case::corrupt("name-dot", "the name of the folder itself", named(b".")),
        Case::corrupt("name-dots", "the name of the folder above", named(b"..")),
        Case::corrupt("name-slash", "a name with a slash", named(b"a/b")),
        Case::corrupt("name-nul", "a name with a NUL", named(b"a\0")),
        Case::corrupt("name-long", "a name of 4097 bytes", named(&[b'x'; 4097])),
        Case::corrupt("mode", "a mode with more than permission bits", tree(&[&pipe(b"a", 3, 0o100_644)])),
        Case::corrupt("file-without-content", "a file without content", tree(&[&pipe(b"a", 0, 0)])),
        Case::corrupt("folder-without-subtree", "a folder without subtree", tree(&[&pipe(b"a", 1, 0)])),
        Case::corrupt("link-without-target", "a symbolic link without target", tree(&[&pipe(b"a", 2, 0)])),
        Case::corrupt("device-without-numbers", "a device without numbers", tree(&[&pipe(b"a", 6, 0)])),
        Case::unsupported("kind-7", "a kind that does not exist", tree(&[&pipe(b"a", 7, 0)])),
        Case::corrupt("recipe-sum", "an inline recipe of another length", with_inline(8, &inline)),
        Case::corrupt("recipe-many", "an inline recipe of 65 entries", with_inline(65, &many)),
        Case::corrupt("recipe-level", "an inline recipe of level 1", with_inline(9, &branch)),
        Case::corrupt(
            "recipe-missing",
            "content without a recipe",
            file(|content| {
                content.at(0).unsigned(0);
                content.at(5).unsigned(0);
            }),
        ),
        Case::corrupt(
            "recipe-twice",
            "content with two recipes",
            file(|content| {
                content.at(0).unsigned(9);
                content.at(3).bytes(&inline);
                content.at(4).bytes(&[1; 32]);
                content.at(5).unsigned(0);
            }),
        ),
        Case::corrupt(
            "length-beyond",
            "content longer than a file may be",
            file(|content| {
                content.at(0).unsigned(1 << 63);
                content.at(4).bytes(&[1; 32]);
                content.at(5).unsigned(0);
            }),
        ),
        Case::corrupt(
            "digest-alone",
            "a digest without its algorithm",
            file(|content| {
                content.at(0).unsigned(9);
                content.at(2).bytes(&[1; 32]);
                content.at(3).bytes(&inline);
                content.at(5).unsigned(0);
            }),
        ),
        Case::corrupt(
            "digest-short",
            "a BLAKE3 digest of 31 bytes",
            file(|content| {
                content.at(0).unsigned(9);
                content.at(1).unsigned(1);
                content.at(2).bytes(&[1; 31]);
                content.at(3).bytes(&inline);
                content.at(5).unsigned(0);
            }),
        ),
        Case::corrupt(
            "pages-missing",
            "cut at pages of no length",
            file(|content| {
                content.at(0).unsigned(9);
                content.at(3).bytes(&inline);
                content.at(5).unsigned(1);
            }),
        ),
        Case::unsupported(
            "critical-field",
            "an unknown critical field of content",
            file(|content| {
                content.at(0).unsigned(9);
                content.at(3).bytes(&inline);
                content.at(5).unsigned(0);
                content.at(1 << 16).unsigned(0);
            }),
        ),
    ];
    cases.extend(attribute_cases());
    cases
}

fn attribute_cases() -> Vec<Case> {
    let attributes = |pairs: &[&[&[u8]]]| {
        let entry = |out: Writer<'_>| {
            out.map(&Vec::new(), |map| {
                map.at(0).bytes(b"a");
                map.at(1).unsigned(3);
                map.at(2).unsigned(0);
                map.at(7).signed(0);
                map.at(16).array(pairs, |out, pair| out.array(pair, |out, part| out.bytes(part)));
            });
        };
        tree(&[&entry])
    };
    vec![
        Case::corrupt("attributes-none", "an empty list of extended attributes", attributes(&[])),
        Case::corrupt(
            "attributes-order",
            "attributes in the wrong order",
            attributes(&[&[b"b", b""], &[b"a", b""]]),
        ),
        Case::corrupt(
            "attribute-twice",
            "the same attribute twice",
            attributes(&[&[b"a", b""], &[b"a", b""]]),
        ),
        Case::corrupt("attribute-alone", "an attribute without a value", attributes(&[&[b"a"]])),
        Case::corrupt("attribute-long", "a value of 65537 bytes", attributes(&[&[b"a", &[0; 65_537]]])),
    ]
}
