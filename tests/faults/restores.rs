//! Every request of a restore fails once, in every way: it may fail, it is never wrong, and it can be
//! taken up again.

use crate::support::world::{Client, Content, content, copy_of, dump, noise};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::SnapshotId;
use chronolith::ops::OpsError;
use chronolith::ops::restore::{RestoreOptions, RestorePlan, RestoreReport};
use chronolith::repo::{BlobReader, RepoError};
use chronolith::storage::{MemoryStore, Store};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const FAULTS: [Fault; 5] = [
    Fault::Before(Failure::Transient),
    Fault::Before(Failure::Fatal),
    Fault::Before(Failure::Denied),
    Fault::Torn,
    Fault::Flip,
];

fn scene() -> (Client, SnapshotId, Content) {
    let owner = Client::init(Arc::new(MemoryStore::new()), 5);
    owner.back_up(&content([("app.sql", dump(0, 3000, 50))]));
    let content = content([
        ("app.sql", dump(1, 3000, 50)),
        ("folder/globals.sql", noise(1, 20_000)),
        ("folder/empty", Vec::new()),
    ]);
    let id = owner.back_up(&content);
    (owner, id, content)
}

fn restore(client: &Client, id: SnapshotId, target: &Path) -> Result<RestoreReport, OpsError> {
    let repository = client.try_open()?;
    let found = repository.snapshots()?.found.into_iter().find(|found| found.id == id);
    let root = found.ok_or_else(|| RepoError::NoSnapshot(id.to_string()))?.snapshot.root;
    repository.load_index()?;
    let options = RestoreOptions { no_sync: true, ..RestoreOptions::default() };
    RestorePlan::new(&repository, &root, &[], target, options)?.run()
}

fn matches(target: &Path, content: &Content) -> bool {
    content.iter().all(|(path, bytes)| {
        std::fs::read(target.join(std::str::from_utf8(path).unwrap())).is_ok_and(|found| found == *bytes)
    })
}

#[test]
fn every_request_of_a_restore_may_fail() {
    let (owner, id, content) = scene();
    for fault in FAULTS {
        for number in 1.. {
            let target = TempDir::new().unwrap();
            let faulty = Arc::new(FaultStore::failing_at(owner.store.clone(), number, fault));
            let result = restore(&owner.through(faulty.clone()), id, target.path());
            let what = format!("{fault:?} at request {number}: {:?}", faulty.log().last());
            let complete = result.as_ref().is_ok_and(RestoreReport::complete);
            assert!(
                !complete || matches(target.path(), &content),
                "{what}: a wrong restore passed for whole"
            );
            if !faulty.fired() {
                assert!(complete, "{what}: {result:?}");
                assert!(number > 8, "a restore has more than {number} requests");
                break;
            }
            let report = restore(&owner, id, target.path()).unwrap();
            assert!(report.complete() && matches(target.path(), &content), "{what}: taken up again");
        }
    }
}

/// Several threads miss the same things at once; whoever does not search waits for who does.
#[test]
fn many_readers_of_a_repository_without_index() {
    let (owner, id, content) = scene();
    for round in 0..20 {
        let store = Arc::new(copy_of(&owner.store));
        for object in store.list("index/").unwrap() {
            store.delete(&object.name).unwrap();
        }
        let repository = owner.through(store).open();
        assert!(BlobReader::new(&repository).is_ok());
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let read = crate::support::world::read_snapshot(&repository, id);
                    assert!(read.unwrap_or_else(|error| panic!("round {round}: {error}")) == content);
                });
            }
        });
    }
}
