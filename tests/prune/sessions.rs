//! What a writer does while others condemn: it says that it is there, adopts nothing from what is
//! condemned, copies what it had adopted, and calls nothing good before.

use crate::support::ManualClock;
use crate::support::world::{Client, Content, content, dump, noise};
use crate::{condemn, delete, hooked, packs};
use chronolith::base::SecretBytes;
use chronolith::base::{CondemnedId, PackId};
use chronolith::format::annotation::{AnnotationKind, Outcome};
use chronolith::format::session::SessionPurpose;
use chronolith::format::trust::Role;
use chronolith::format::trust::scope::Scope;
use chronolith::ops::OpsError;
use chronolith::ops::keys::{self, NewKey};
use chronolith::repo::NewSlot;
use chronolith::storage::{MemoryStore, Operation, Store};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

struct Scene {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    owner: Client,
    dump: Content,
}

/// A repository with one snapshot, in a store whose time stands still.
fn scene() -> Scene {
    let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
    let store = Arc::new(MemoryStore::with_clock(clock.clone()));
    let owner = Client::init(store.clone(), 77);
    let dump = content([("app.sql", dump(1, 3000, 40)), ("noise", noise(3, 30_000))]);
    owner.back_up(&dump);
    Scene { store, clock, owner, dump }
}

impl Scene {
    fn named(&self, id: &CondemnedId) -> bool {
        self.owner.open().sessions().unwrap().values().any(|found| found.session.seen.contains(id))
    }
}

#[test]
fn a_backup_is_a_session_from_before_it_looks_until_its_end() {
    let scene = scene();
    let store = hooked(&scene.store, |_, _| {});
    scene.owner.through(store.clone()).back_up(&scene.dump);
    let log = store.log();
    let at = |operation, prefix: &str, from: usize| {
        let found = log.iter().skip(from).position(|(o, name)| *o == operation && name.starts_with(prefix));
        from + found.unwrap_or_else(|| panic!("no {operation:?} {prefix} after {from}: {log:?}"))
    };
    let first = at(Operation::Put, "sessions/", 0);
    let listed = at(Operation::List, "condemned/", 0);
    assert!(first < listed && listed < at(Operation::List, "packs/", 0));
    let commit = at(Operation::Put, "snapshots/", 0);
    let again = at(Operation::List, "condemned/", commit);
    assert!(again < log.len() - 1, "the last look comes before the end");
    assert_eq!(log.last().unwrap().0, Operation::Put);
    assert!(log.last().unwrap().1.starts_with("sessions/"));
    let sessions = scene.owner.open().sessions().unwrap();
    assert_eq!(sessions.len(), 2);
    for found in sessions.values() {
        assert!(found.session.ended && found.session.sequence == found.renewals.len() as u64);
        assert_eq!(found.session.purpose, SessionPurpose::Write);
    }
}

#[test]
fn a_backup_that_fails_ends_its_session_too() {
    let scene = scene();
    let refused = hooked(&scene.store, |_, _| {});
    let client = scene.owner.through(refused);
    let failing = vec![chronolith::ops::backup::Source::Command {
        name: b"x".to_vec(),
        command: "echo x; exit 3".to_owned(),
    }];
    chronolith::ops::backup::backup(&client.open(), failing, &client.options()).unwrap_err();
    assert!(scene.owner.open().sessions().unwrap().values().all(|found| found.session.ended));
}

#[test]
fn what_was_condemned_before_is_not_adopted_and_named_at_once() {
    let scene = scene();
    let old = packs(&scene.store);
    let condemned = condemn(&scene.owner, &old);
    let report = scene.owner.try_back_up(&scene.dump).unwrap();
    assert!(report.summary.new_blobs > 1, "stored again");
    assert!(scene.named(&condemned));
    delete(&scene.store, &old);
    assert_eq!(scene.owner.read(report.snapshot.unwrap()).unwrap(), scene.dump);
    // And it is the next ones to whom it is known.
    assert_eq!(scene.owner.try_back_up(&scene.dump).unwrap().summary.new_blobs, 1);
}

/// Condemns all that is there at the first request that `when` takes, and deletes it as soon as every
/// session has named the condemnation: the fastest sweeper that keeps the rules.
fn overtaken(scene: &Scene, when: impl Fn(Operation, &str) -> bool + Send + Sync + 'static) -> Vec<String> {
    let (owner, inner) = (scene.owner.clone(), scene.store.clone());
    let old = packs(&scene.store);
    let put: Arc<Mutex<Option<CondemnedId>>> = Arc::default();
    let deleted = Arc::new(AtomicBool::new(false));
    let (putting, deleting, old_packs) = (put.clone(), deleted.clone(), old.clone());
    let store = hooked(&scene.store, move |operation, name| {
        let mut put = putting.lock().unwrap();
        match *put {
            None if when(operation, name) => *put = Some(condemn(&owner, &old_packs)),
            Some(id) if !deleting.load(Ordering::SeqCst) => {
                let sessions = owner.open().sessions().unwrap();
                let waits = sessions.values().any(|f| !f.session.ended && !f.session.seen.contains(&id));
                if !waits {
                    delete(&inner, &old_packs);
                    deleting.store(true, Ordering::SeqCst);
                }
            }
            _ => {}
        }
    });
    let report = scene.owner.through(store.clone()).try_back_up(&scene.dump).unwrap();
    assert!(put.lock().unwrap().is_some(), "nothing was condemned");
    assert!(deleted.load(Ordering::SeqCst), "the session never named it");
    assert_eq!(scene.owner.read(report.snapshot.unwrap()).unwrap(), scene.dump);
    assert!(packs(&scene.store).iter().all(|pack| !old.contains(pack)));
    // The copies are as good as what they were made from.
    let again = scene.owner.try_back_up(&scene.dump).unwrap();
    // Only the root is new: it holds the time.
    assert_eq!(again.summary.new_blobs, 1);
    store.log().into_iter().map(|(operation, name)| format!("{operation:?} {name}")).collect()
}

#[test]
fn what_was_adopted_is_copied_when_it_is_condemned_meanwhile() {
    // After the writer's first look, and while it adopts.
    overtaken(&scene(), |operation, name| operation == Operation::List && name == "packs/");
}

#[test]
fn what_is_condemned_between_the_last_look_and_the_commit_is_copied_after_it() {
    let log =
        overtaken(&scene(), |operation, name| operation == Operation::Put && name.starts_with("snapshots/"));
    let commit = log.iter().position(|line| line.starts_with("Put snapshots/")).unwrap();
    assert!(log.iter().skip(commit).any(|line| line.starts_with("Put packs/")), "{log:?}");
}

#[test]
fn what_is_condemned_after_the_commit_is_copied_too() {
    let committed = AtomicU64::new(0);
    overtaken(&scene(), move |operation, name| {
        if operation == Operation::Put && name.starts_with("snapshots/") {
            committed.fetch_add(1, Ordering::SeqCst);
        }
        committed.load(Ordering::SeqCst) > 0 && operation == Operation::List && name == "condemned/"
    });
}

/// Suspends the writer before its commit for a week, in which `meanwhile` happens.
fn suspended(
    scene: &Scene,
    meanwhile: impl Fn(&Client, &[PackId]) + Send + Sync + 'static,
) -> Result<chronolith::ops::backup::BackupReport, OpsError> {
    let (owner, clock) = (scene.owner.clone(), scene.clock.clone());
    let old = packs(&scene.store);
    let store = hooked(&scene.store, move |operation, name| {
        if operation == Operation::Put && name.starts_with("snapshots/") {
            clock.advance(Duration::from_secs(7 * 24 * 3600));
            meanwhile(&owner, &old);
        }
    });
    scene.owner.through(store).try_back_up(&scene.dump)
}

#[test]
fn a_writer_suspended_for_a_week_finds_out_before_it_reports_success() {
    // Swept meanwhile, and the tombstone is gone too: nothing is left to copy, and nothing says so.
    let scene = scene();
    let error = suspended(&scene, |owner, old| delete(&owner.store, old)).unwrap_err();
    assert!(matches!(error, OpsError::Unsettled { .. }), "{error:?}");
    let annotations = scene.owner.open().annotations().unwrap().found;
    let failed = annotations.iter().find(|found| found.annotation.kind == AnnotationKind::Verified).unwrap();
    assert_eq!(failed.annotation.outcome, Some(Outcome::Failed));
    // The next backup has what it takes.
    let next = scene.owner.back_up(&scene.dump);
    assert_eq!(scene.owner.read(next).unwrap(), scene.dump);
}

#[test]
fn a_writer_suspended_for_a_week_copies_what_is_still_there() {
    let scene = scene();
    let report = suspended(&scene, |owner, old| {
        condemn(owner, old);
    })
    .unwrap();
    let condemned = scene.owner.open().condemned(&Default::default()).unwrap();
    let names = |pack: &PackId| condemned.found.values().any(|found| found.condemned.names(pack));
    let dead: Vec<PackId> = packs(&scene.store).into_iter().filter(names).collect();
    assert!(!dead.is_empty());
    delete(&scene.store, &dead);
    assert_eq!(scene.owner.read(report.snapshot.unwrap()).unwrap(), scene.dump);
}

#[test]
fn a_writer_suspended_while_nothing_happened_is_done() {
    let scene = scene();
    let before = packs(&scene.store).len();
    let report = suspended(&scene, |_, _| {}).unwrap();
    assert_eq!(packs(&scene.store).len(), before + 1, "a pack with the root");
    assert_eq!(scene.owner.read(report.snapshot.unwrap()).unwrap(), scene.dump);
}

#[test]
fn a_difference_whose_base_is_condemned_is_not_adopted() {
    let scene = scene();
    let bases = packs(&scene.store);
    // Much the same: what changed is stored as differences against the first snapshot.
    let mut next = scene.dump.clone();
    for bytes in next.values_mut() {
        bytes.iter_mut().step_by(997).for_each(|byte| *byte ^= 1);
    }
    let mut options = scene.owner.options();
    options.differences = chronolith::ops::backup::Differences::Always;
    let sources = || crate::support::world::streams(&next);
    let report = chronolith::ops::backup::backup(&scene.owner.open(), sources(), &options).unwrap();
    assert!(report.differences > 0, "{report:?}");
    condemn(&scene.owner, &bases);
    options.differences = chronolith::ops::backup::Differences::Never;
    let report = chronolith::ops::backup::backup(&scene.owner.open(), sources(), &options).unwrap();
    delete(&scene.store, &bases);
    assert_eq!(scene.owner.read(report.snapshot.unwrap()).unwrap(), next);
}

#[test]
fn a_difference_that_was_adopted_is_copied_with_its_base() {
    let scene = scene();
    let bases = packs(&scene.store);
    let mut next = scene.dump.clone();
    for bytes in next.values_mut() {
        bytes.iter_mut().step_by(997).for_each(|byte| *byte ^= 1);
    }
    let mut options = scene.owner.options();
    options.differences = chronolith::ops::backup::Differences::Always;
    let sources = || crate::support::world::streams(&next);
    chronolith::ops::backup::backup(&scene.owner.open(), sources(), &options).unwrap();
    let scene = Scene { dump: next.clone(), ..scene };
    // Only the bases go: the differences themselves lie in packs that stay.
    let (owner, condemning) = (scene.owner.clone(), bases.clone());
    let store = hooked(&scene.store, move |operation, name| {
        if operation == Operation::Put && name.starts_with("snapshots/") {
            condemn(&owner, &condemning);
        }
    });
    let client = scene.owner.through(store);
    let report = chronolith::ops::backup::backup(&client.open(), sources(), &options).unwrap();
    delete(&scene.store, &bases);
    assert_eq!(scene.owner.read(report.snapshot.unwrap()).unwrap(), next);
}

#[test]
fn a_condemnation_that_cannot_be_read_is_taken_to_list_everything() {
    let scene = scene();
    let name = format!("condemned/{}", "0".repeat(64));
    scene.store.put(&name, b"rotten").unwrap();
    let report = scene.owner.try_back_up(&scene.dump).unwrap();
    assert!(report.summary.new_blobs > 1, "nothing was adopted");
    scene.store.delete(&name).unwrap();
    // One that comes while it runs: what was adopted may be on it.
    let inner = scene.store.clone();
    let store = hooked(&scene.store, move |operation, object| {
        if operation == Operation::Put && object.starts_with("snapshots/") {
            inner.put(&name, b"rotten").unwrap();
        }
    });
    let error = scene.owner.through(store).try_back_up(&scene.dump).unwrap_err();
    assert!(matches!(error, OpsError::Unsettled { .. }), "{error:?}");
}

/// [CONCURRENCY-60]: nobody waits for the session of a key that was removed: what its backup took over may be gone.
#[test]
fn a_key_that_is_removed_while_it_writes_is_told_no_success() {
    let scene = scene();
    let key_file = vec![9; 32];
    let new =
        NewKey { role: Role::Writer, name: "w".to_owned(), domain: String::new(), scope: Scope::default() };
    let slot = SecretBytes::new(key_file.clone());
    let made = keys::add(&scene.owner.open(), &new, &NewSlot::KeyFile(&slot)).unwrap();
    let writer = Client::holding(scene.store.clone(), key_file);
    writer.back_up(&content([("small", noise(8, 5_000))]));
    let (owner, done) = (scene.owner.clone(), AtomicBool::new(false));
    let store = hooked(&scene.store, move |operation, name| {
        if operation == Operation::Put && name.starts_with("packs/") && !done.swap(true, Ordering::SeqCst) {
            keys::remove(&owner.open(), &made.key).unwrap();
        }
    });
    let error = writer.through(store).try_back_up(&content([("small", noise(9, 5_000))])).unwrap_err();
    assert!(matches!(error, OpsError::Unsettled { .. }), "{error:?}");
    assert!(chronolith::base::explain(&error).contains("out of service"), "{error:?}");
}
