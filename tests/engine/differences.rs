//! A changed stream costs what changed: unknown chunks are stored as differences against the parent's.

use crate::support::CountingStore;
use crate::support::repository::{backup_options, in_memory, noise, reopen};
use chronolith::base::SnapshotId;
use chronolith::format::pack::BlobClass;
use chronolith::ops::backup::{BackupOptions, BackupReport, Differences, Source, backup};
use chronolith::ops::check::{CheckOptions, CheckReport, ReadData, check};
use chronolith::ops::{Snapshots, cat};
use chronolith::repo::{BlobReader, Located, Repository, find_path, pack_name};
use chronolith::storage::{MemoryStore, Store};
use std::collections::HashSet;
use std::io::Cursor;
use std::sync::Arc;

const NAME: &str = "app.sql";

/// Rows of a table: of each row one field says in which version it was last changed.
fn dump(rows: usize, changed_in: impl Fn(usize) -> u64) -> Vec<u8> {
    let mut dump = b"COPY accounts FROM stdin;\n".to_vec();
    for row in 0..rows {
        let filler: String = noise(row as u64, 24).iter().map(|byte| format!("{byte:02x}")).collect();
        dump.extend_from_slice(format!("{row}\t{}\t{filler}\n", changed_in(row)).as_bytes());
    }
    dump
}

/// Every 97th row was changed in one of `versions` versions.
pub fn version(rows: usize, version: u64) -> Vec<u8> {
    dump(rows, |row| if row % 97 == 0 { (row as u64 / 97) % (version + 1) } else { 0 })
}

pub fn try_store(
    repository: &Arc<Repository>,
    content: &[u8],
    options: &BackupOptions,
) -> Result<BackupReport, chronolith::ops::OpsError> {
    let reader = Box::new(Cursor::new(content.to_vec()));
    backup(repository, vec![Source::Stream { name: NAME.into(), reader }], options)
}

fn store(repository: &Arc<Repository>, content: &[u8]) -> BackupReport {
    try_store(repository, content, &backup_options("dump")).unwrap()
}

pub fn read(repository: &Arc<Repository>, id: SnapshotId) -> Vec<u8> {
    let snapshots = Snapshots::load(repository).unwrap();
    let root = snapshots.resolve(&id.to_string()).unwrap().snapshot.root;
    let mut reader = BlobReader::new(repository).unwrap();
    let entry = find_path(&mut reader, &root, &[NAME.as_bytes()]).unwrap().unwrap();
    let mut restored = Vec::new();
    cat::cat(repository, NAME, &entry.content.unwrap(), &mut restored).unwrap();
    restored
}

pub fn all_data(repository: &Arc<Repository>) -> CheckReport {
    check(repository, &CheckOptions { read_data: ReadData::All, ..CheckOptions::default() }).unwrap()
}

fn copies(repository: &Arc<Repository>) -> Vec<Located> {
    repository.load_index().unwrap();
    let mut copies = Vec::new();
    repository.index().for_each(|located| {
        if located.record.class == BlobClass::Content {
            copies.push(located);
        }
    });
    copies
}

#[test]
fn a_changed_dump_takes_a_fraction_and_comes_back_byte_by_byte() {
    let (backing, repository) = in_memory();
    let (old, new) = (version(60_000, 0), version(60_000, 1));
    assert!(old.len() > 3 << 20 && old != new);
    let first = store(&repository, &old);
    assert_eq!(first.differences, 0, "there was nothing to differ from");
    let second = store(&repository, &new);
    assert!(second.differences >= 20, "{second:?}");
    assert_eq!(second.differences, second.summary.new_blobs - metadata_blobs(&repository, &second));
    assert!(second.summary.stored_bytes * 12 < first.summary.stored_bytes, "{first:?} {second:?}");

    for repository in [repository, reopen(backing).unwrap()] {
        assert!(read(&repository, first.snapshot.unwrap()) == old);
        assert!(read(&repository, second.snapshot.unwrap()) == new);
        let checked = all_data(&repository);
        assert!(!checked.is_damaged() && checked.findings.is_empty(), "{checked:?}");
    }
}

/// New blobs of a backup that are trees and recipes, all of which lie in packs of metadata.
fn metadata_blobs(repository: &Arc<Repository>, report: &BackupReport) -> u64 {
    repository.load_index().unwrap();
    let content = copies(repository).iter().filter(|copy| copy.record.depth > 0).count() as u64;
    report.summary.new_blobs - content
}

#[test]
fn rows_that_moved_find_their_old_chunks_far_away() {
    let (_, repository) = in_memory();
    let (head, tail) = (version(30_000, 0), dump(30_000, |row| 7 + row as u64));
    let first = store(&repository, &[head.clone(), tail.clone()].concat());
    // The halves change places and every 97th row of one of them is new.
    let moved = [tail, version(30_000, 1)].concat();
    let second = store(&repository, &moved);
    assert!(second.summary.stored_bytes * 12 < first.summary.stored_bytes, "{first:?} {second:?}");
    assert!(read(&repository, second.snapshot.unwrap()) == moved);
}

#[test]
fn chains_stay_short_through_many_versions() {
    let (_, repository) = in_memory();
    let mut snapshots = Vec::new();
    for number in 0..12 {
        let content = version(8_000, number);
        snapshots.push((store(&repository, &content), content));
    }
    let depths: Vec<u8> = copies(&repository).iter().map(|copy| copy.record.depth).collect();
    assert!(depths.iter().all(|depth| *depth <= 4), "{depths:?}");
    assert!(depths.contains(&3), "chains were built at all: {depths:?}");
    for (report, content) in &snapshots {
        assert!(read(&repository, report.snapshot.unwrap()) == *content);
    }
    // Whatever a difference is built on lies less deep: readers come to an end, and prune knows what to keep.
    for copy in copies(&repository).iter().filter(|copy| copy.record.depth > 0) {
        let base = copy.record.base.unwrap();
        let all = copies(&repository);
        assert!(all.iter().any(|other| other.record.id == base && other.record.depth < copy.record.depth));
    }
}

#[test]
fn what_has_nothing_in_common_is_stored_whole() {
    let (_, repository) = in_memory();
    store(&repository, &version(20_000, 0));
    let other = noise(99, 2_000_000);
    let second = store(&repository, &other);
    assert_eq!(second.differences, 0);
    assert!(read(&repository, second.snapshot.unwrap()) == other);
}

#[test]
fn full_backups_and_those_told_not_to_take_no_differences() {
    let (_, repository) = in_memory();
    store(&repository, &version(20_000, 0));
    let never = BackupOptions { differences: Differences::Never, ..backup_options("dump") };
    let report = try_store(&repository, &version(20_000, 1), &never).unwrap();
    assert_eq!(report.differences, 0);
    let mode = chronolith::format::snapshot::SnapshotMode::Full;
    let full = BackupOptions { mode, ..backup_options("dump") };
    assert_eq!(try_store(&repository, &version(20_000, 2), &full).unwrap().differences, 0);
    assert!(copies(&repository).iter().all(|copy| copy.record.depth == 0));
}

#[test]
fn a_base_that_is_gone_or_rotten_costs_only_room() {
    let old = version(20_000, 0);
    let new = version(20_000, 1);
    for gone in [true, false] {
        let (backing, repository) = in_memory();
        store(&repository, &old);
        let pack = biggest_pack(&backing);
        let mut bytes = backing.get(&pack, u64::MAX).unwrap();
        backing.delete(&pack).unwrap();
        if !gone {
            // Rot that only reading shows.
            for byte in bytes.iter_mut().skip(500).step_by(1000).take(200) {
                *byte ^= 1;
            }
            backing.put(&pack, &bytes).unwrap();
        }
        let repository = reopen(backing).unwrap();
        let second = store(&repository, &new);
        assert_eq!(second.differences, 0, "gone: {gone}");
        if gone {
            assert!(read(&repository, second.snapshot.unwrap()) == new, "gone: {gone}");
        }
    }
}

fn biggest_pack(store: &MemoryStore) -> String {
    store.list("packs/").unwrap().into_iter().max_by_key(|pack| pack.length).unwrap().name
}

#[test]
fn a_damaged_base_hurts_every_snapshot_that_is_built_on_it() {
    let (backing, repository) = in_memory();
    let first = store(&repository, &version(20_000, 0)).snapshot.unwrap();
    let pack = biggest_pack(&backing);
    let second = store(&repository, &version(20_000, 1)).snapshot.unwrap();
    backing.delete(&pack).unwrap();
    let checked = all_data(&reopen(backing).unwrap());
    assert!(checked.is_damaged());
    let hurt: Vec<_> = checked.affected.iter().map(|affected| affected.snapshot).collect();
    assert!(hurt.contains(&first) && hurt.contains(&second), "{checked:?}");
}

#[test]
fn to_find_a_chain_broken_takes_no_longer_than_the_chain() {
    let (backing, repository) = in_memory();
    let mut newest = None;
    for number in 0..12 {
        newest = store(&repository, &version(4000, number)).snapshot;
    }
    let chunks = copies(&repository).len() as u64;
    assert!(copies(&repository).iter().any(|copy| copy.record.depth >= 3));
    let whole: HashSet<String> = copies(&repository)
        .iter()
        .filter(|copy| copy.record.depth == 0)
        .map(|copy| pack_name(&copy.pack.id))
        .collect();
    for pack in whole {
        backing.delete(&pack).unwrap();
    }
    let counted = Arc::new(CountingStore::new(backing));
    let repository = reopen(counted.clone()).unwrap();
    let snapshots = Snapshots::load(&repository).unwrap();
    let root = snapshots.resolve(&newest.unwrap().to_string()).unwrap().snapshot.root;
    let mut reader = BlobReader::new(&repository).unwrap();
    let entry = find_path(&mut reader, &root, &[NAME.as_bytes()]).unwrap().unwrap();
    counted.reset();
    cat::cat(&repository, NAME, &entry.content.unwrap(), &mut Vec::new()).unwrap_err();
    assert!(counted.total() < 10 * chunks, "{} requests for {chunks} chunks", counted.total());
}
