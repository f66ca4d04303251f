//! Every request of a backup fails once, in every way: nothing is visible that is not whole, what was
//! there before is untouched, and the next backup succeeds.

use crate::support::world::{Client, Content, content, copy_of, dump, noise};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::storage::{MemoryStore, Operation, Store};
use std::sync::Arc;

const FAULTS: [Fault; 8] = [
    Fault::Before(Failure::Transient),
    Fault::Before(Failure::Fatal),
    Fault::Before(Failure::NoSpace),
    Fault::Before(Failure::Denied),
    Fault::After(Failure::Transient),
    Fault::Twice,
    Fault::Torn,
    Fault::Flip,
];

struct Scene {
    owner: Client,
    before: Content,
    next: Content,
}

/// A repository with two snapshots, and what is to be backed up next: half old, half new.
fn scene() -> Scene {
    let owner = Client::init(Arc::new(MemoryStore::new()), 1);
    let before = content([("app.sql", dump(1, 4000, 50)), ("globals.sql", noise(1, 20_000))]);
    let next = content([("app.sql", dump(2, 4000, 50)), ("globals.sql", noise(1, 20_000))]);
    owner.back_up(&content([("app.sql", dump(0, 4000, 50))]));
    owner.back_up(&before);
    Scene { owner, before, next }
}

/// Checks what a client finds after a backup through a faulty store that ended in `result`.
fn check_after(
    scene: &Scene,
    store: &Arc<MemoryStore>,
    snapshot: Option<chronolith::base::SnapshotId>,
    what: &str,
) {
    let owner = scene.owner.through(store.clone());
    let known = scene.owner.snapshots();
    let now = owner.snapshots();
    let new: Vec<_> = now.iter().filter(|id| !known.contains(id)).copied().collect();
    assert!(known.iter().all(|id| now.contains(id)), "{what}: an earlier snapshot is gone");
    if let Some(snapshot) = snapshot {
        assert_eq!(new, [snapshot], "{what}: a backup that succeeded has its snapshot");
    }
    for id in &new {
        assert_eq!(owner.read(*id).unwrap(), scene.next, "{what}: what is visible is whole");
    }
    assert_eq!(owner.read(known[1]).unwrap(), scene.before, "{what}: an earlier snapshot has changed");
    let again = owner.back_up(&scene.next);
    assert_eq!(owner.read(again).unwrap(), scene.next, "{what}: the next backup");
}

fn is_commit((operation, name): &(Operation, String)) -> bool {
    *operation == Operation::Put && name.starts_with("snapshots/")
}

#[test]
fn every_request_of_a_backup_may_fail() {
    let scene = scene();
    for fault in FAULTS {
        let mut number = 0;
        loop {
            number += 1;
            let store = Arc::new(copy_of(&scene.owner.store));
            let faulty = Arc::new(FaultStore::failing_at(store.clone(), number, fault));
            let client = scene.owner.through(faulty.clone());
            let result = client.try_back_up(&scene.next);
            let log = faulty.log();
            let request =
                log.get(number as usize - 1).map(|(operation, name)| format!("{operation:?} {name}"));
            let what = format!("{fault:?} at request {number} ({})", request.unwrap_or_default());
            let is_write =
                log.get(number as usize - 1).is_some_and(|(operation, _)| *operation == Operation::Put);
            match &result {
                Ok(report) => check_after(&scene, &store, report.snapshot, &what),
                Err(error) => {
                    let is_reply_lost = matches!(fault, Fault::After(_)) && is_write;
                    let visible = store.list("snapshots/").unwrap().len();
                    let torn = fault == Fault::Torn && is_write;
                    // A writer that could not make sure of what it relies on does not call it good.
                    let committed = log.iter().take(number as usize - 1).any(is_commit);
                    assert!(
                        is_reply_lost || torn || committed || visible == 2,
                        "{what}: {error}, yet a snapshot"
                    );
                    check_after(&scene, &store, None, &what);
                }
            }
            if !faulty.fired() {
                assert!(result.is_ok(), "{what}: {result:?}");
                assert!(number > 15, "a backup has more than {number} requests");
                break;
            }
            // A session that was not ended lapses; where there is no room for its end, its renewals are deleted ([CONCURRENCY-14]).
            let after = log.get(number as usize..).unwrap_or_default();
            let is_end = log.get(number as usize - 1).is_some_and(|(_, name)| name.starts_with("sessions/"))
                && after.iter().all(|(operation, name)| {
                    fault == Fault::Before(Failure::NoSpace)
                        && *operation == Operation::Delete
                        && name.starts_with("sessions/")
                });
            if is_write && !is_end && fault != Fault::Twice && fault != Fault::Flip {
                assert!(result.is_err(), "{what}: a lost write was not noticed");
            }
        }
    }
}

#[test]
fn a_store_that_goes_away_during_a_backup() {
    let scene = scene();
    for number in 1.. {
        let store = Arc::new(copy_of(&scene.owner.store));
        let fault = Fault::Before(Failure::Transient);
        let faulty = Arc::new(FaultStore::failing_from(store.clone(), number, fault));
        let result = scene.owner.through(faulty.clone()).try_back_up(&scene.next);
        if !faulty.fired() {
            assert!(result.is_ok());
            break;
        }
        let log = faulty.log();
        let is_last = log.len() == number as usize && log.last().unwrap().1.starts_with("sessions/");
        assert!(
            result.is_err() || is_last,
            "request {number} and all after it failed, yet the backup did not"
        );
        let committed = log.iter().take(number as usize - 1).any(is_commit);
        assert_eq!(store.list("snapshots/").unwrap().len(), if committed { 3 } else { 2 });
        let snapshot = result.ok().and_then(|report| report.snapshot);
        check_after(&scene, &store, snapshot, &format!("away from request {number}"));
    }
}
