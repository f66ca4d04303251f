//! What `stats` says of the golden repositories, whose streams are stored as differences of up to three
//! steps, against sets of blobs put together as plainly as can be.

use super::{cases, open_all};
use chronolith::base::{BlobId, SnapshotId};
use chronolith::format::index::IndexRecord;
use chronolith::format::pack::BlobClass;
use chronolith::format::recipe::{RecipeEntry, RecipeNode, RecipeRoot};
use chronolith::format::snapshot::Snapshot;
use chronolith::format::tree::TreeNode;
use chronolith::ops::stats::{By, Figures, stats};
use chronolith::repo::{BlobReader, Repository};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Blob = (BlobClass, BlobId);
type Records = BTreeMap<Blob, IndexRecord>;

/// The copy of every blob that readers take: that of least depth.
fn records(repository: &Repository) -> Records {
    let mut records = Records::new();
    repository.load_index().unwrap();
    repository.index().for_each(|located| {
        let record = located.record;
        let known = records.entry((record.class, record.id)).or_insert(record);
        if record.depth < known.depth {
            *known = record;
        }
    });
    records
}

/// What a snapshot refers to itself.
fn referred(repository: &Arc<Repository>, snapshot: &Snapshot) -> BTreeSet<Blob> {
    fn recipe(reader: &mut BlobReader, node: &RecipeNode, found: &mut BTreeSet<Blob>) {
        match node {
            RecipeNode::Leaf { entries, .. } => {
                found.extend(entries.iter().filter_map(|entry| match entry {
                    RecipeEntry::Chunk { id, .. } => Some((BlobClass::Content, *id)),
                    RecipeEntry::Hole { .. } => None,
                }))
            }
            RecipeNode::Branch { children, .. } => {
                for child in children {
                    found.insert((BlobClass::Metadata, child.id));
                    let bytes = reader.read(BlobClass::Metadata, "recipe", &child.id).unwrap();
                    recipe(reader, &RecipeNode::decode(bytes.bytes()).unwrap(), found);
                }
            }
        }
    }
    fn tree(reader: &mut BlobReader, id: &BlobId, found: &mut BTreeSet<Blob>) {
        found.insert((BlobClass::Metadata, *id));
        let bytes = reader.read(BlobClass::Metadata, "tree", id).unwrap();
        match TreeNode::decode(bytes.bytes()).unwrap() {
            TreeNode::Branch { parts, .. } => parts.iter().for_each(|part| tree(reader, &part.id, found)),
            TreeNode::Leaf { entries } => {
                for entry in entries {
                    if let Some(subtree) = &entry.subtree {
                        tree(reader, subtree, found);
                    }
                    match entry.content.map(|content| content.recipe) {
                        Some(RecipeRoot::Inline(node)) => recipe(reader, &node, found),
                        Some(RecipeRoot::Node(id)) => {
                            found.insert((BlobClass::Metadata, id));
                            let bytes = reader.read(BlobClass::Metadata, "recipe", &id).unwrap();
                            recipe(reader, &RecipeNode::decode(bytes.bytes()).unwrap(), found);
                        }
                        None => {}
                    }
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    tree(&mut BlobReader::new(repository).unwrap(), &snapshot.root, &mut found);
    found
}

/// These blobs and the bases of those that are differences.
fn with_bases(blobs: &BTreeSet<Blob>, records: &Records) -> BTreeSet<Blob> {
    let mut all = BTreeSet::new();
    let mut waiting: Vec<Blob> = blobs.iter().copied().collect();
    while let Some(blob) = waiting.pop() {
        if all.insert(blob) {
            waiting.extend(records[&blob].base.map(|base| (blob.0, base)));
        }
    }
    all
}

fn stored(record: &IndexRecord) -> u64 {
    u64::from(record.sealed_length) * u64::from(record.length) / u64::from(record.plain_length)
}

/// The figures of a set of snapshots, of which `others` need these blobs, bases included.
fn expected(
    snapshots: &[&Snapshot],
    referred: &BTreeSet<Blob>,
    others: &BTreeSet<Blob>,
    records: &Records,
) -> Figures {
    let mut figures = Figures { snapshots: snapshots.len() as u64, ..Figures::default() };
    figures.raw_bytes = snapshots.iter().map(|snapshot| snapshot.summary.bytes).sum();
    for blob in &with_bases(referred, records) {
        let record = &records[blob];
        let length = u64::from(record.length);
        match blob.0 {
            BlobClass::Content => figures.unique_bytes += length,
            BlobClass::Metadata => figures.metadata_bytes += length,
        }
        figures.stored_bytes += stored(record);
        if !referred.contains(blob) {
            figures.base_bytes += length;
            figures.base_stored_bytes += stored(record);
        }
        if !others.contains(blob) {
            figures.alone_bytes += length;
            figures.alone_stored_bytes += stored(record);
        }
    }
    figures
}

#[test]
fn figures_are_those_of_the_sets_and_bases_are_told_apart() {
    let (mut with_base, mut in_a_chain) = (0, 0);
    for case in cases() {
        let repository = open_all(&case).remove(0);
        let records = records(&repository);
        in_a_chain += records.values().filter(|record| record.depth > 1).count();
        let found = repository.snapshots().unwrap().found;
        let refers: Vec<BTreeSet<Blob>> =
            found.iter().map(|found| referred(&repository, &found.snapshot)).collect();
        // Every choice of snapshots that `forget` could leave behind.
        for kept in 1..1_u32 << found.len() {
            let kept: Vec<usize> = (0..found.len()).filter(|number| kept >> number & 1 == 1).collect();
            let views = || kept.iter().map(|number| (found[*number].id, &found[*number].snapshot));
            let what = format!("{}: {kept:?}", case.display());
            let report = stats(&repository, views(), Some(By::Snapshot)).unwrap();
            assert!(report.unreadable.is_empty(), "{what}");
            let union = |numbers: &mut dyn Iterator<Item = &usize>| -> BTreeSet<Blob> {
                numbers.flat_map(|number| refers[*number].iter().copied()).collect()
            };
            let all: Vec<&Snapshot> = views().map(|(_, snapshot)| snapshot).collect();
            let total = expected(&all, &union(&mut kept.iter()), &BTreeSet::new(), &records);
            assert_eq!(report.total, total, "{what}");
            with_base += u64::from(total.base_bytes > 0);
            let groups: BTreeMap<String, Figures> = report.groups.into_iter().collect();
            for number in &kept {
                let others = union(&mut kept.iter().filter(|other| *other != number));
                let others = with_bases(&others, &records);
                let id: SnapshotId = found[*number].id;
                let figures = expected(&[&found[*number].snapshot], &refers[*number], &others, &records);
                assert_eq!(groups[&id.to_string()], figures, "{what}: {number}");
                with_base += u64::from(figures.base_bytes > 0);
            }
        }
    }
    assert!(in_a_chain > 0, "no golden repository holds a difference of a difference");
    assert!(with_base > 0, "no snapshot needs anything only as a base: this proves nothing");
}
