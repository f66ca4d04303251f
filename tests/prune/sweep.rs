//! Condemning and sweeping, beside writers and other prunes, and killed at every request.

use crate::support::world::{Client, Content, content, copy_of, dump, log_entry, noise};
use crate::support::{Failure, Fault, FaultStore, ManualClock};
use crate::{hooked, packs};
use chronolith::base::SnapshotId;
use chronolith::format::session::SessionPurpose;
use chronolith::ops::check::{CheckOptions, Finding, Gravity, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::prune::{PruneOptions, PruneReport, prune};
use chronolith::ops::rotation::rotate;
use chronolith::ops::undelete::undelete;
use chronolith::ops::{OpsError, Snapshots, catalogue};
use chronolith::repo::{Presence, Repository};
use chronolith::storage::{MemoryStore, Operation, Store};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub struct Scene {
    pub store: Arc<MemoryStore>,
    pub owner: Client,
    pub old: Content,
    pub kept: Content,
    pub kept_id: SnapshotId,
    pub forgotten_id: SnapshotId,
}

pub fn options(grace_seconds: u64) -> PruneOptions {
    PruneOptions { grace_seconds, ..PruneOptions::new("test") }
}

pub fn run(client: &Client, grace_seconds: u64) -> Result<PruneReport, OpsError> {
    prune(&client.open(), &options(grace_seconds))
}

/// Two snapshots that have nothing in common, the older forgotten.
pub fn scene_in(store: Arc<MemoryStore>) -> Scene {
    let owner = Client::init(store.clone(), 5);
    let old = content([("old.sql", dump(9, 1500, 40)), ("noise", noise(3, 9000))]);
    let kept = content([("new.sql", dump(2, 1500, 40))]);
    let forgotten_id = owner.back_up(&old);
    let kept_id = owner.back_up(&kept);
    let repository = owner.open();
    forget(&repository, &Snapshots::load(&repository).unwrap(), &[forgotten_id]).unwrap();
    Scene { store, owner, old, kept, kept_id, forgotten_id }
}

pub fn scene() -> Scene {
    scene_in(Arc::new(MemoryStore::new()))
}

impl Scene {
    /// What must be true whatever happened.
    pub fn holds(&self, client: &Client, what: &str) {
        assert_eq!(client.read(self.kept_id).unwrap(), self.kept, "{what}");
        let options =
            CheckOptions { read_data: ReadData::All, keep_ledger: false, program: "test".to_owned() };
        let report = check(&client.open(), &options).unwrap();
        assert!(!report.is_damaged(), "{what}: {:?}", report.findings);
    }
}

#[test]
fn what_nobody_needs_is_deleted_and_the_rest_is_whole() {
    let scene = scene();
    let before = packs(&scene.store);
    let dry = PruneOptions { dry_run: true, ..options(0) };
    let planned = prune(&scene.owner.open(), &dry).unwrap();
    assert_eq!(packs(&scene.store), before);
    assert!(scene.store.list("condemned/").unwrap().is_empty());
    let report = run(&scene.owner, 0).unwrap();
    assert_eq!(
        (planned.condemned_packs, planned.condemned_bytes),
        (report.condemned_packs, report.condemned_bytes)
    );
    assert_eq!((report.condemned_packs, report.condemned_snapshots), (2, 1));
    assert_eq!((report.deleted_packs, report.deleted_bytes), (2, report.condemned_bytes));
    assert!(report.copied_bytes == 0 && report.waiting_for.is_empty(), "{report:?}");
    assert_eq!(packs(&scene.store).len(), before.len() - 2);
    assert_eq!(scene.owner.snapshots(), [scene.kept_id]);
    scene.holds(&scene.owner, "after a prune");
    // Ended sessions are gone but for those of the prunes themselves, and a second prune finds nothing.
    let again = run(&scene.owner, 0).unwrap();
    assert_eq!((again.condemned_packs, again.deleted_packs), (0, 0));
    // The same content is stored again, not adopted from what an index run still names.
    let id = scene.owner.back_up(&scene.old);
    assert_eq!(scene.owner.read(id).unwrap(), scene.old);
}

#[test]
fn nothing_goes_before_its_grace_has_passed() {
    let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
    let scene = scene_in(Arc::new(MemoryStore::with_clock(clock.clone())));
    let day = 24 * 3600;
    let report = run(&scene.owner, day).unwrap();
    assert_eq!((report.condemned_packs, report.deleted_packs, report.waiting_for_grace), (2, 0, 1));
    clock.advance(Duration::from_secs(day - 1));
    assert_eq!(run(&scene.owner, 0).unwrap().deleted_packs, 0);
    assert_eq!(scene.owner.read(scene.forgotten_id).unwrap(), scene.old);
    clock.advance(Duration::from_secs(1));
    assert_eq!(run(&scene.owner, day).unwrap().deleted_packs, 2);
    scene.holds(&scene.owner, "after the grace");
}

#[test]
fn what_was_announced_with_a_long_grace_is_announced_anew_with_a_short_one() {
    // [CONCURRENCY-46]
    let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
    let scene = scene_in(Arc::new(MemoryStore::with_clock(clock.clone())));
    let day = 24 * 3600;
    run(&scene.owner, day).unwrap();
    clock.advance(Duration::from_secs(1));
    let reader =
        Presence::begin(&scene.owner.open(), SessionPurpose::Read, Default::default(), "a reader").unwrap();
    clock.advance(Duration::from_secs(1));
    // Somebody who wants no less than what was announced announces nothing.
    for options in [options(0), PruneOptions::new("test").within(day)] {
        let report = prune(&scene.owner.open(), &options).unwrap();
        assert_eq!((report.condemned_packs, report.deleted_packs), (0, 0));
        assert_eq!((report.waiting_for_grace, report.waiting_seconds), (1, Some(day - 2)));
    }
    // The reader has heard of the first announcement only.
    let hour = PruneOptions::new("test").within(0);
    let report = prune(&scene.owner.open(), &hour).unwrap();
    assert_eq!((report.condemned_packs, report.condemned_snapshots, report.deleted_packs), (2, 1, 0));
    assert_eq!(report.waiting_for.len(), 1);
    assert_eq!(scene.owner.read(scene.forgotten_id).unwrap(), scene.old);
    drop(reader);
    let report = prune(&scene.owner.open(), &hour).unwrap();
    assert_eq!((report.condemned_packs, report.deleted_packs, report.waiting_for_grace), (0, 2, 0));
    assert_eq!(scene.owner.snapshots(), [scene.kept_id]);
    scene.holds(&scene.owner, "after a grace that was shortened");
}

#[test]
fn a_dry_run_takes_for_forgotten_what_it_is_told_to() {
    let scene = scene();
    let as_forgotten = [scene.kept_id].into_iter().collect();
    let dry = PruneOptions { dry_run: true, as_forgotten, ..options(0) };
    let planned = prune(&scene.owner.open(), &dry).unwrap();
    assert_eq!((planned.condemned_packs, planned.condemned_snapshots), (4, 2));
    // Told to do it, it does no such thing.
    let report = prune(&scene.owner.open(), &PruneOptions { dry_run: false, ..dry }).unwrap();
    assert_eq!((report.condemned_packs, report.condemned_snapshots), (2, 1));
    scene.holds(&scene.owner, "after a dry run");
}

#[test]
fn a_living_writer_is_waited_for_until_it_ends_or_lapses() {
    let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
    let scene = scene_in(Arc::new(MemoryStore::with_clock(clock.clone())));
    clock.advance(Duration::from_secs(1));
    let writer =
        Presence::begin(&scene.owner.open(), SessionPurpose::Write, Default::default(), "a writer").unwrap();
    clock.advance(Duration::from_secs(1));
    let report = run(&scene.owner, 0).unwrap();
    assert_eq!((report.condemned_packs, report.deleted_packs), (2, 0));
    assert!(report.waiting_for[0].contains("a writer"), "{report:?}");
    clock.advance(Duration::from_secs(899));
    assert_eq!(run(&scene.owner, 0).unwrap().deleted_packs, 0);
    // It was recorded, and stood still for three times its promise.
    clock.advance(Duration::from_secs(2));
    assert_eq!(run(&scene.owner, 0).unwrap().deleted_packs, 2);
    // Now it renews, and finds that it had lapsed.
    writer.renew().unwrap();
    assert!(writer.take_lapse());
    scene.holds(&scene.owner, "beside a writer");
}

#[test]
fn a_reader_keeps_what_it_reads_though_it_was_forgotten() {
    let scene = scene();
    let reader = Presence::begin(
        &scene.owner.open(),
        SessionPurpose::Read,
        [scene.forgotten_id].into_iter().collect(),
        "a reader",
    )
    .unwrap();
    let report = run(&scene.owner, 0).unwrap();
    assert_eq!((report.condemned_packs, report.condemned_snapshots), (0, 0));
    assert_eq!(scene.owner.read(scene.forgotten_id).unwrap(), scene.old);
    drop(reader);
    assert_eq!(run(&scene.owner, 0).unwrap().deleted_packs, 2);
}

#[test]
fn a_prune_may_be_killed_at_every_request() {
    let scene = scene();
    for number in 1.. {
        let store = Arc::new(copy_of(&scene.store));
        let faulty = Arc::new(FaultStore::failing_from(store.clone(), number, Fault::Before(Failure::Fatal)));
        let result = scene.owner.through(faulty.clone()).try_open().map_err(OpsError::from);
        drop(result.and_then(|repository| prune(&repository, &options(0))));
        let client = scene.owner.through(store.clone());
        let what = format!("killed at request {number}");
        assert_eq!(client.read(scene.kept_id).unwrap(), scene.kept, "{what}");
        // Whoever comes next is not hurt by what is half done.
        let id = client.back_up(&scene.old);
        assert_eq!(client.read(id).unwrap(), scene.old, "{what}");
        run(&client, 0).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(client.read(id).unwrap(), scene.old, "{what}");
        assert_eq!(client.read(scene.kept_id).unwrap(), scene.kept, "{what}");
        if !faulty.fired() {
            assert!(number > 20, "a prune has more than {number} requests");
            break;
        }
    }
}

/// Runs `first`, and at its request of each number all of `second`, in a copy of the scene each time.
pub fn interleaved(
    scene: &Scene,
    first: impl Fn(&Client, &str),
    second: impl Fn(&Client) + Send + Sync + 'static,
    after: impl Fn(&Client, &str),
) {
    interleaved_at(scene, 1, first, second, after);
}

/// Does the same at every request whose number is one above a multiple of `step`.
pub fn interleaved_at(
    scene: &Scene,
    step: usize,
    first: impl Fn(&Client, &str),
    second: impl Fn(&Client) + Send + Sync + 'static,
    after: impl Fn(&Client, &str),
) {
    let second = Arc::new(second);
    for number in (1..).step_by(step) {
        let store = Arc::new(copy_of(&scene.store));
        let (inner, requests) = (scene.owner.through(store.clone()), Arc::new(AtomicU64::new(0)));
        let (doing, counting) = (second.clone(), requests.clone());
        let hooked = hooked(&store, move |_, _| {
            if counting.fetch_add(1, Ordering::SeqCst) + 1 == number {
                doing(&inner);
            }
        });
        let what = format!("at request {number}");
        first(&scene.owner.through(hooked), &what);
        after(&scene.owner.through(store), &what);
        if requests.load(Ordering::SeqCst) < number {
            assert!(number > 20, "more than {number} requests");
            break;
        }
    }
}

/// What goes while a check looks is not taken for damage; and what is damaged is told all the same.
#[test]
fn a_check_beside_a_sweep_reports_nothing_that_was_forgotten() {
    let options = || CheckOptions { read_data: ReadData::All, keep_ledger: true, program: "test".to_owned() };
    let scene = scene();
    let owner = scene.owner.clone();
    owner.back_up(&content([("other", noise(8, 9000))]));
    let clean = |client: &Client, what: &str| {
        let report = check(&client.open(), &options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!report.is_damaged(), "{what}: {:?} {:?}", report.findings, report.affected);
        assert!(report.counts.packs_read > 0, "{what}");
    };
    let forget_and_sweep = |client: &Client| {
        let repository = client.open();
        let snapshots = Snapshots::load(&repository).unwrap();
        let newest = snapshots.iter().last().unwrap().id;
        let others: Vec<SnapshotId> =
            snapshots.iter().map(|view| view.id).filter(|id| *id != newest).collect();
        forget(&repository, &snapshots, &others).unwrap();
        run(client, 0).unwrap();
    };
    interleaved(&scene, clean, forget_and_sweep, |_, _| {});
    // The same, where a pack that is needed is gone from the beginning.
    let kept = packs(&copy_of(&scene.store)).into_iter().find(|pack| {
        let store = Arc::new(copy_of(&scene.store));
        crate::delete(&*store, &[*pack]);
        scene.owner.through(store).read(scene.kept_id).is_err()
    });
    let kept = kept.unwrap();
    let sweep = |client: &Client| drop(run(client, 0));
    let damaged = |client: &Client, what: &str| {
        let report = check(&client.open(), &options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(report.hurt.iter().any(|(id, _)| *id == scene.kept_id), "{what}: {:?}", report.findings);
    };
    let rotten = copy_of(&scene.store);
    crate::delete(&*scene.store, &[kept]);
    interleaved_at(&scene, 7, damaged, sweep, |_, _| {});
    // What only reading shows is told as well, of a pack and of a log.
    let scene = Scene { store: Arc::new(rotten), ..scene };
    let owner = scene.owner.through(scene.store.clone());
    let entry = log_entry("pg/main/1", "000000010000000000000001");
    owner.open().archive_log(&entry, &noise(5, 50_000)).unwrap();
    let log = scene.store.list("logs/").unwrap().remove(0).name;
    let kept = kept.to_string();
    let names = [format!("packs/{}/{kept}", &kept[..2]), log];
    for name in &names {
        let mut bytes = scene.store.get(name, u64::MAX).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        scene.store.replace(name, &bytes).unwrap();
    }
    let read = |client: &Client, what: &str| {
        let report = check(&client.open(), &options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        for name in &names {
            let is_named = |finding: &Finding| finding.gravity == Gravity::Damage && finding.object == *name;
            assert!(report.findings.iter().any(is_named), "{what}: {name}: {:?}", report.findings);
        }
        assert_eq!((report.reported, report.known_damage), (1, 0), "{what}");
    };
    let sweep = |client: &Client| {
        // Something goes, whatever a prune makes of a repository that is damaged.
        let sessions = client.store.list("sessions/").unwrap();
        sessions.iter().for_each(|session| client.store.delete(&session.name).unwrap());
    };
    interleaved_at(&scene, 5, read, sweep, |_, _| {});
}

/// What is committed while a check looks is not taken for damage either, and what is damaged is told all the same.
#[test]
fn a_check_beside_a_backup_takes_nothing_new_for_damage() {
    let options = || CheckOptions { read_data: ReadData::All, keep_ledger: true, program: "test".to_owned() };
    let scene = scene();
    let back_up = |client: &Client| {
        client.back_up(&content([("new.sql", dump(4, 1500, 40)), ("noise", noise(11, 9000))]));
        let entry = log_entry("pg/main/1", "000000010000000000000001");
        client.open().archive_log(&entry, &noise(5, 50_000)).unwrap();
    };
    let clean = |client: &Client, what: &str| {
        let report = check(&client.open(), &options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!report.is_damaged(), "{what}: {:?} {:?}", report.findings, report.hurt);
    };
    interleaved(&scene, clean, back_up, clean);
    // A backup and all that goes with an older one, so that the check looks again.
    let more = move |client: &Client| {
        back_up(client);
        run(client, 0).unwrap();
    };
    interleaved_at(&scene, 3, clean, more, clean);
    // Many backups, one after the other.
    for every in [1, 2, 3, 5, 7] {
        let store = Arc::new(copy_of(&scene.store));
        let (inner, requests) = (scene.owner.through(store.clone()), AtomicU64::new(0));
        let hooked = hooked(&store, move |_, _| {
            let number = requests.fetch_add(1, Ordering::SeqCst);
            if number % every == 0 && number / every < 40 {
                inner.back_up(&content([("noise", noise(100 + number, 900))]));
            }
        });
        clean(&scene.owner.through(hooked), &format!("with a backup every {every} requests"));
        clean(&scene.owner.through(store), &format!("after a backup every {every} requests"));
    }
    let kept = packs(&copy_of(&scene.store)).into_iter().find(|pack| {
        let store = Arc::new(copy_of(&scene.store));
        crate::delete(&*store, &[*pack]);
        scene.owner.through(store).read(scene.kept_id).is_err()
    });
    crate::delete(&*scene.store, &[kept.unwrap()]);
    let damaged = |client: &Client, what: &str| {
        let report = check(&client.open(), &options()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(report.hurt.iter().any(|(id, _)| *id == scene.kept_id), "{what}: {:?}", report.findings);
    };
    let back_up = |client: &Client| {
        client.back_up(&content([("noise", noise(12, 9000))]));
    };
    interleaved_at(&scene, 7, damaged, back_up, |_, _| {});
}

/// A check looks again for the second copy of what is put twice: whoever puts it may be between the two.
#[test]
fn a_check_between_the_two_copies_of_something_takes_it_for_whole() {
    let scene = scene();
    rotate(&scene.owner.open()).unwrap();
    catalogue::gather_now(&scene.owner.open()).unwrap().unwrap();
    for area in ["trust/", "catalog/", "keys/"] {
        for twin in ["", "copies/"] {
            let store = Arc::new(copy_of(&scene.store));
            let names = store.list(&format!("{twin}{area}")).unwrap();
            let name = names.last().unwrap().name.clone();
            let bytes = store.get(&name, u64::MAX).unwrap();
            let (inner, missing, looks) = (store.clone(), name.clone(), AtomicU64::new(0));
            let hooked = hooked(&store, move |operation, name| {
                if operation == Operation::Head
                    && name == missing
                    && looks.fetch_add(1, Ordering::SeqCst) == 1
                {
                    inner.put(name, &bytes).unwrap();
                }
            });
            let repository = scene.owner.through(hooked).open();
            store.delete(&name).unwrap();
            let report = check(&repository, &CheckOptions::default()).unwrap();
            assert!(!report.is_damaged(), "{name}: {:?}", report.findings);
            // It stays missing.
            store.delete(&name).unwrap();
            let report = check(&scene.owner.through(store).open(), &CheckOptions::default()).unwrap();
            assert!(report.is_damaged(), "{name}: {:?}", report.findings);
        }
    }
}

/// What is put while a catalogue is made is listed from then on, though its writer saw no catalogue yet.
#[test]
fn what_is_put_while_a_catalogue_is_made_is_listed() {
    // [CONCURRENCY-22], [CONCURRENCY-44]
    let scene = scene();
    scene.owner.back_up(&content([("other", noise(8, 9000))]));
    let beside = |client: &Client| {
        client.on_host("late").back_up(&content([("late", noise(9, 900))]));
        let repository = client.open();
        let kept = scene_kept(&repository);
        forget(&repository, &Snapshots::load_all(&repository).unwrap(), &[kept]).unwrap();
    };
    let gather = |client: &Client, _: &str| {
        catalogue::gather_now(&client.open()).unwrap();
    };
    let lists = |client: &Client, what: &str| {
        let (shown, all) = (Snapshots::load(&client.open()).unwrap(), Snapshots::load_all(&client.open()));
        let ids = |snapshots: &Snapshots| snapshots.iter().map(|view| view.id).collect::<BTreeSet<_>>();
        assert_eq!(ids(&shown), ids(&all.unwrap()), "{what}");
        if shown.iter().any(|view| view.snapshot.host == "late") {
            assert_eq!(shown.iter().count(), 2, "{what}: one was forgotten before, one is now, one is new");
        }
    };
    interleaved(&scene, gather, beside, lists);
    // The same where several generations are closed at once.
    let name = scene.store.list("snapshots/").unwrap().remove(0).name;
    let elsewhere = name.replace("/00000001/", "/00000004/");
    scene.store.put(&elsewhere, &scene.store.get(&name, u64::MAX).unwrap()).unwrap();
    interleaved(&scene, gather, beside, lists);
}

/// The same where something was brought back under a later generation, and whoever made the catalogue was killed before
/// it could look again.
#[test]
fn what_is_put_while_a_catalogue_is_made_by_who_dies_is_listed() {
    // [CATALOG-3], [CONCURRENCY-44]
    let scene = scene();
    let name = scene.store.list("snapshots/").unwrap().remove(0).name;
    let brought_back = name.replace("/00000001/", "/00000002/");
    scene.store.put(&brought_back, &scene.store.get(&name, u64::MAX).unwrap()).unwrap();
    let before: BTreeSet<String> =
        scene.store.list("snapshots/").unwrap().into_iter().map(|object| object.name).collect();
    let (late, done) = (scene.owner.on_host("late"), AtomicU64::new(0));
    let store = hooked(&scene.store, move |operation, name| {
        let is_now = operation == Operation::Put && name.starts_with("copies/catalog/");
        if is_now && done.fetch_add(1, Ordering::SeqCst) == 0 {
            late.back_up(&content([("late", noise(9, 900))]));
        }
    });
    catalogue::gather_now(&scene.owner.through(store).open()).unwrap().unwrap();
    let is_late = |name: &String| !before.contains(name);
    let all = scene.store.list("snapshots/").unwrap().into_iter().map(|object| object.name);
    let late: Vec<String> = all.filter(is_late).collect();
    // Where its writer put it, and where the maker brought it along, had he lived.
    assert!(late.len() == 2 && late[0].contains("/00000001/"), "{late:?}");
    scene.store.delete(&late[1]).unwrap();
    let shown = Snapshots::load(&scene.owner.open()).unwrap();
    assert!(!shown.is_all() && shown.iter().any(|view| view.snapshot.host == "late"));
}

fn scene_kept(repository: &Arc<Repository>) -> SnapshotId {
    let snapshots = Snapshots::load_all(repository).unwrap();
    snapshots.iter().find(|view| view.snapshot.host != "late").unwrap().id
}

#[test]
fn bases_of_differences_are_needed_by_what_differs_from_them() {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 6);
    let first = content([("app.sql", dump(1, 3000, 40)), ("noise", noise(3, 30_000))]);
    let mut next = first.clone();
    for bytes in next.values_mut() {
        bytes.iter_mut().step_by(997).for_each(|byte| *byte ^= 1);
    }
    let first_id = owner.back_up(&first);
    let mut options = owner.options();
    options.differences = chronolith::ops::backup::Differences::Always;
    let sources = crate::support::world::streams(&next);
    let report = chronolith::ops::backup::backup(&owner.open(), sources, &options).unwrap();
    assert!(report.differences > 0, "{report:?}");
    let repository = owner.open();
    forget(&repository, &Snapshots::load(&repository).unwrap(), &[first_id]).unwrap();
    for _ in 0..2 {
        let pruned = run(&owner, 0).unwrap();
        assert!(pruned.needed_bytes > 0 && pruned.needed_bytes <= pruned.pack_bytes, "{pruned:?}");
        assert_eq!(owner.read(report.snapshot.unwrap()).unwrap(), next);
    }
    assert_eq!(owner.snapshots().len(), 1);
    // What is needed only by what differs from it stays, and is told.
    assert!(run(&owner, 0).unwrap().base_bytes > 0);
}

#[test]
fn what_protects_data_and_cannot_be_read_stops_a_prune() {
    let scene = scene();
    let name = format!("snapshots/00000001/{}", scene.kept_id);
    let whole = scene.store.get(&name, u64::MAX).unwrap();
    let mut rotten = whole.clone();
    rotten[90] ^= 1;
    scene.store.replace(&name, &rotten).unwrap();
    assert!(matches!(run(&scene.owner, 0), Err(OpsError::Stopped { .. })));
    scene.store.replace(&name, &whole).unwrap();
    let names = ["annotations/00000001/", "condemned/", "damaged/"];
    for name in names.map(|area| format!("{area}{}", "0".repeat(64))) {
        scene.store.put(&name, b"rotten").unwrap();
        assert!(matches!(run(&scene.owner, 0), Err(OpsError::Stopped { .. })), "{name}");
        scene.store.delete(&name).unwrap();
    }
    let session = format!("sessions/{}", "0".repeat(64));
    scene.store.put(&session, b"rotten").unwrap();
    run(&scene.owner, 0).unwrap_err();
    scene.store.delete(&session).unwrap();
    assert_eq!(scene.owner.read(scene.forgotten_id).unwrap(), scene.old, "nothing was deleted so far");
    // A missing pack: nobody can say what else is wrong.
    let pack = scene.store.list("packs/").unwrap().remove(0).name;
    let bytes = scene.store.get(&pack, u64::MAX).unwrap();
    for object in scene.store.list("packs/").unwrap() {
        let bytes = scene.store.get(&object.name, u64::MAX).unwrap();
        scene.store.delete(&object.name).unwrap();
        let needed = scene.owner.read(scene.kept_id).is_err();
        assert_eq!(run(&scene.owner, 24 * 3600).is_err(), needed, "{}", object.name);
        scene.store.put(&object.name, &bytes).unwrap();
    }
    assert_eq!(scene.store.get(&pack, u64::MAX).unwrap(), bytes);
    run(&scene.owner, 0).unwrap();
    scene.holds(&scene.owner, "after all");
}

#[test]
fn what_was_forgotten_comes_back_within_the_grace() {
    let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
    let scene = scene_in(Arc::new(MemoryStore::with_clock(clock.clone())));
    let day = 24 * 3600;
    assert_eq!(run(&scene.owner, day).unwrap().condemned_packs, 2);
    undelete(&scene.owner.open(), &[scene.forgotten_id], "test").unwrap();
    clock.advance(Duration::from_secs(day));
    let report = run(&scene.owner, day).unwrap();
    assert_eq!((report.condemned_packs, report.deleted_packs), (0, 2));
    assert_eq!(scene.owner.snapshots().len(), 2);
    assert_eq!(scene.owner.read(scene.forgotten_id).unwrap(), scene.old);
    scene.holds(&scene.owner, "after an undelete");
    undelete(&scene.owner.open(), &[scene.forgotten_id], "test").unwrap_err();
    // Forgotten again, it goes for good.
    let repository = scene.owner.open();
    forget(&repository, &Snapshots::load(&repository).unwrap(), &[scene.forgotten_id]).unwrap();
    assert!(run(&scene.owner, 0).unwrap().deleted_packs > 0);
    assert_eq!(scene.owner.snapshots(), [scene.kept_id]);
    scene.holds(&scene.owner, "after all");
    undelete(&scene.owner.open(), &[scene.forgotten_id], "test").unwrap_err();
}

#[test]
fn a_prune_may_come_at_every_request_of_an_undelete() {
    let scene = scene();
    interleaved(
        &scene,
        |client, _| {
            drop(
                client
                    .try_open()
                    .map_err(OpsError::from)
                    .and_then(|repository| undelete(&repository, &[scene.forgotten_id], "test")),
            )
        },
        |client| drop(run(client, 0).unwrap()),
        |client, what| {
            run(client, 0).unwrap();
            run(client, 0).unwrap();
            // It is there as a whole, or not at all.
            for view in Snapshots::load(&client.open()).unwrap().iter() {
                client.read(view.id).unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            scene.holds(client, what);
        },
    );
}

fn all_read(scene: &Scene, client: &Client, what: &str) {
    for id in client.snapshots().into_iter().filter(|id| *id != scene.forgotten_id) {
        let read = client.read(id).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(read == scene.kept || read == scene.old, "{what}");
    }
}

#[test]
fn a_backup_may_come_at_every_request_of_a_prune() {
    let scene = scene();
    let old = scene.old.clone();
    interleaved(
        &scene,
        |client, what| drop(run(client, 0).unwrap_or_else(|error| panic!("{what}: {error}"))),
        move |client| _ = client.back_up(&old),
        |client, what| {
            all_read(&scene, client, what);
            run(client, 0).unwrap();
            run(client, 0).unwrap();
            all_read(&scene, client, what);
        },
    );
}

#[test]
fn a_prune_may_come_at_every_request_of_a_backup() {
    let scene = scene();
    interleaved(
        &scene,
        |client, what| {
            client.try_back_up(&scene.old).unwrap_or_else(|error| panic!("{what}: {error}"));
        },
        |client| drop(run(client, 0).unwrap()),
        |client, what| {
            all_read(&scene, client, what);
            run(client, 0).unwrap();
            run(client, 0).unwrap();
            all_read(&scene, client, what);
        },
    );
}

#[test]
fn a_prune_may_come_at_every_request_of_another() {
    let scene = scene();
    interleaved(
        &scene,
        |client, what| drop(run(client, 0).unwrap_or_else(|error| panic!("{what}: {error}"))),
        |client| drop(run(client, 0).unwrap()),
        |client, what| {
            run(client, 0).unwrap();
            scene.holds(client, what);
            assert_eq!(client.snapshots(), [scene.kept_id], "{what}");
        },
    );
}
