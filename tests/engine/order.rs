//! The order of snapshots is one and the same for whoever asks: a backup is compared with what its
//! label and `latest` name.

use crate::support::repository::{backup_options, in_memory, reopen};
use chronolith::base::SnapshotId;
use chronolith::format::snapshot::SnapshotMode;
use chronolith::ops::Snapshots;
use chronolith::ops::backup::{BackupOptions, Source, backup};
use chronolith::repo::Repository;
use chronolith::storage::{MemoryStore, Store};
use std::io::Cursor;
use std::sync::Arc;

fn store(repository: &Arc<Repository>, mode: SnapshotMode, text: &str) -> SnapshotId {
    let stream = Source::Stream { name: b"s".to_vec(), reader: Box::new(Cursor::new(text.to_owned())) };
    let options = BackupOptions { mode, ..backup_options("app") };
    backup(repository, vec![stream], &options).unwrap().snapshot.unwrap()
}

fn parent_of(repository: &Arc<Repository>, id: SnapshotId) -> Option<SnapshotId> {
    Snapshots::load(repository).unwrap().get(&id).unwrap().snapshot.parent
}

#[test]
fn a_backup_is_compared_with_what_is_latest_whatever_times_a_copied_store_has() {
    let (original, repository) = in_memory();
    let full = store(&repository, SnapshotMode::Full, "1");
    let middle = store(&repository, SnapshotMode::Incremental, "2");
    let newest = store(&repository, SnapshotMode::Incremental, "3");
    assert_eq!(parent_of(&repository, newest), Some(middle));
    // A copy whose times say the opposite of what was.
    let copy = Arc::new(MemoryStore::new());
    let mut objects = original.list("").unwrap();
    objects.sort_by_key(|object| std::cmp::Reverse(object.modified));
    for object in objects {
        copy.put(&object.name, &original.get(&object.name, u64::MAX).unwrap()).unwrap();
    }
    let stored = |id: &SnapshotId| copy.head(&format!("snapshots/00000001/{id}")).unwrap().modified;
    assert!(stored(&newest) < stored(&middle) && stored(&middle) < stored(&full));
    let repository = reopen(copy.clone()).unwrap();
    let snapshots = Snapshots::load(&repository).unwrap();
    let order: Vec<SnapshotId> = snapshots.iter().map(|view| view.id).collect();
    assert_eq!(order, [full, middle, newest], "a snapshot comes after its parent");
    for name in ["latest", "app"] {
        assert_eq!(snapshots.resolve(name).unwrap().id, newest, "{name}");
    }
    assert_eq!(snapshots.newest_of("host", "app").unwrap().id, newest);
    let next = store(&repository, SnapshotMode::Incremental, "4");
    assert_eq!(parent_of(&repository, next), Some(newest));
    let differential = store(&repository, SnapshotMode::Differential, "5");
    assert_eq!(parent_of(&repository, differential), Some(full));
    assert_eq!(Snapshots::load(&repository).unwrap().resolve("latest").unwrap().id, differential);
}
