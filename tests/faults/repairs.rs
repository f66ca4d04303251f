//! Repair never makes it worse, whatever happens on the way, and says what was lost.

use crate::support::world::{Client, Content, content, copy_of, dump, noise, read_snapshot};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::{Classify, ErrorClass, SnapshotId};
use chronolith::format::trust::Role;
use chronolith::ops::backup::{Source, backup};
use chronolith::ops::cat::cat;
use chronolith::ops::check::{CheckOptions, CheckReport, Gravity, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::listing::{Found, locate};
use chronolith::ops::marks::{Mark, mark};
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::repair::{
    IndexFate, IndexOptions, IndexPlan, IndexRepaired, PacksOptions, PacksPlan, REPAIRED_FROM,
    SnapshotsOptions, SnapshotsPlan,
};
use chronolith::ops::{OpsError, Snapshots};
use chronolith::storage::{MemoryStore, Operation, Store};
use std::sync::Arc;
use std::time::Duration;

/// Names of packs of a kind (3 content, 4 metadata), oldest first.
fn packs(store: &dyn Store, kind: u8) -> Vec<String> {
    let mut objects = store.list("packs/").unwrap();
    objects.sort_by_key(|object| object.modified);
    let names = objects.into_iter().map(|object| object.name);
    names.filter(|name| store.get(name, u64::MAX).unwrap()[4] == kind).collect()
}

fn change(store: &dyn Store, name: &str, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = store.get(name, u64::MAX).unwrap();
    change(&mut bytes);
    store.delete(name).unwrap();
    store.put(name, &bytes).unwrap();
}

fn look(client: &Client) -> CheckReport {
    let options = CheckOptions { read_data: ReadData::All, keep_ledger: true, program: "test".to_owned() };
    check(&client.open(), &options).unwrap()
}

fn pruned(client: &Client) {
    let options = PruneOptions { grace_seconds: 0, ..PruneOptions::new("test") };
    prune(&client.open(), &options).unwrap();
}

fn index(client: &Client, copy: bool) -> Result<(IndexRepaired, bool), OpsError> {
    let options = IndexOptions { copy, program: "test".to_owned() };
    let mut plan = IndexPlan::new(&client.try_open()?, options)?;
    let done = plan.run()?;
    Ok((done, plan.leaves_something()))
}

fn repair_packs(client: &Client) -> Result<PacksPlan, OpsError> {
    let plan = PacksPlan::new(&client.try_open()?, PacksOptions::default())?;
    plan.run()?;
    Ok(plan)
}

fn repair_snapshots(client: &Client, forget: bool) -> Result<SnapshotsPlan, OpsError> {
    let options = SnapshotsOptions { forget, program: "test".to_owned(), ..SnapshotsOptions::default() };
    SnapshotsPlan::run(&client.try_open()?, options, true)
}

/// Kills `repair` at every request and looks whether what could be read before still can; at last it
/// comes through.
fn killed_everywhere<T>(
    before: &Client,
    readable: &[(SnapshotId, &Content)],
    repair: impl Fn(&Client) -> Result<T, OpsError>,
) {
    let mut number = 1;
    loop {
        let store = Arc::new(copy_of(before.store.as_ref()));
        let fault = Fault::Before(Failure::Fatal);
        let faulty = Arc::new(FaultStore::failing_from(store.clone(), number, fault));
        let came_through = repair(&before.through(faulty.clone())).is_ok() && !faulty.fired();
        let after = before.through(store);
        for (id, content) in readable {
            assert_eq!(after.read(*id).as_ref().ok(), Some(*content), "killed at request {number}");
        }
        // And whatever was left can be taken up again.
        if number.is_multiple_of(7) || came_through {
            repair(&after).unwrap_or_else(|error| panic!("after request {number}: {error}"));
            for (id, content) in readable {
                assert_eq!(after.read(*id).as_ref().ok(), Some(*content), "again after request {number}");
            }
        }
        if came_through {
            return;
        }
        number += 1;
    }
}

struct Scene {
    store: Arc<MemoryStore>,
    owner: Client,
    first: (SnapshotId, Content),
    second: (SnapshotId, Content),
}

/// Two snapshots of one label that share nothing; the content of the first takes several frames.
fn scene_of(noise_bytes: usize) -> Scene {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 78);
    let first = content([("app.sql", dump(1, 500, 7)), ("noise", noise(5, noise_bytes))]);
    let second = content([("other.sql", dump(9, 300, 3))]);
    let (one, two) = (owner.back_up(&first), owner.back_up(&second));
    Scene { store, owner, first: (one, first), second: (two, second) }
}

#[test]
fn the_index_comes_back_from_packs_alone() {
    let scene = scene_of(50_000);
    let runs = scene.store.list("index/").unwrap();
    assert!(runs.len() >= 2);
    change(&scene.store, &runs[0].name, |bytes| bytes[500] ^= 1);
    scene.store.delete(&runs[1].name).unwrap();
    let (done, left) = index(&scene.owner, false).unwrap();
    assert_eq!((done.described, done.deleted_runs, left), (4, 1, false), "{done:?}");
    assert!(scene.store.head(&runs[0].name).is_err());
    // Nothing is left to find out from packs, and backups adopt from what was described.
    let repository = scene.owner.open();
    repository.load_index().unwrap();
    assert!(!repository.index_unlisted_packs().unwrap());
    let again = scene.owner.try_back_up(&scene.first.1).unwrap();
    assert!(again.summary.new_bytes < 1000, "{:?}", again.summary);
    let report = look(&scene.owner);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(index(&scene.owner, false).unwrap().0, IndexRepaired::default());
}

/// A client's cache goes on knowing what a run said, and others do not.
#[test]
fn a_run_that_only_the_cache_knows_is_described_anew() {
    for harm in 0..3 {
        let scene = scene_of(50_000);
        let cache = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let owner = scene.owner.with_cache(cache.path());
        owner.back_up(&content([("third", noise(8, 9_000))]));
        owner.open().load_index().unwrap();
        let run = scene.store.list("index/").unwrap().remove(0).name;
        change(&scene.store, &run, |bytes| match harm {
            0 => bytes[500] ^= 1,
            1 => bytes.truncate(bytes.len() / 2),
            _ => bytes.fill(0),
        });
        let report = check_with(&owner, ReadData::None);
        assert!(report.is_damaged(), "{harm}");
        assert!(report.findings.iter().any(|f| f.object == run && f.gravity == Gravity::Damage));
        let (done, left) = index(&owner, false).unwrap();
        assert_eq!((done.described, done.deleted_runs, left), (2, 1, false), "{harm}: {done:?}");
        for client in [&owner, &scene.owner] {
            let report = check_with(client, ReadData::None);
            assert!(report.findings.is_empty(), "{harm}: {:?}", report.findings);
        }
        assert_eq!(index(&owner, false).unwrap(), (IndexRepaired::default(), false));
    }
}

#[test]
fn only_its_own_key_describes_a_pack_and_others_copy_it() {
    let scene = scene_of(50_000);
    let writer = crate::keys::with_role(&scene.owner, chronolith::format::trust::Role::Writer, "writer");
    let theirs = content([("theirs", noise(44, 30_000))]);
    let id = writer.back_up(&theirs);
    for run in scene.store.list("index/").unwrap() {
        scene.store.delete(&run.name).unwrap();
    }
    let aside = |client: &Client| client.through(Arc::new(copy_of(scene.store.as_ref())));
    // The owner describes its own packs and leaves the others, which it says.
    let owner = aside(&scene.owner);
    let options = IndexOptions::default();
    let plan = IndexPlan::new(&owner.open(), options).unwrap();
    let foreign = plan.packs.iter().filter(|pack| matches!(pack.fate, IndexFate::Foreign(_))).count();
    assert_eq!((foreign, plan.packs.len()), (2, 6));
    let (done, left) = index(&owner, false).unwrap();
    assert_eq!((done.described, done.copied, left), (4, 0, true));
    assert_eq!(owner.read(id).unwrap(), theirs);
    let (done, left) = index(&owner, true).unwrap();
    assert_eq!((done.described, done.copied, left), (0, 2, false));
    assert_eq!(index(&owner, true).unwrap(), (IndexRepaired::default(), false), "once is enough");
    assert_eq!(owner.read(id).unwrap(), theirs);
    // The writer describes what is its own.
    let (done, left) = index(&aside(&writer), false).unwrap();
    assert_eq!((done.described, left), (2, true));
    // Who may not write packs may not repair.
    let reader = crate::keys::with_role(&scene.owner, chronolith::format::trust::Role::Reader, "reader");
    let refused = index(&aside(&reader), false).unwrap_err();
    assert_eq!(chronolith::base::Classify::class(&refused), chronolith::base::ErrorClass::Forbidden);
    assert!(repair_packs(&aside(&reader)).is_err() && repair_snapshots(&aside(&reader), false).is_err());
}

#[test]
fn what_is_readable_moves_to_new_packs_and_the_damaged_one_goes() {
    let scene = scene_of(5_000_000);
    let pack = packs(&scene.store, 3).remove(0);
    change(&scene.store, &pack, |bytes| bytes[1000] ^= 1);
    assert!(look(&scene.owner).is_damaged());
    let plan = repair_packs(&scene.owner).unwrap();
    let [damaged] = plan.packs.as_slice() else { panic!("{:?}", plan.packs) };
    assert!(pack.ends_with(&damaged.id.to_string()));
    assert!(damaged.salvaged >= 1 && !damaged.lost.is_empty() && plan.loses_something(), "{damaged:?}");
    // What was lost is stored again by the next backup; then nothing needs the damaged pack.
    let healing = scene.owner.back_up(&scene.first.1);
    assert_eq!(scene.owner.read(scene.first.0).unwrap(), scene.first.1);
    for _ in 0..2 {
        pruned(&scene.owner);
    }
    assert!(scene.store.head(&pack).is_err(), "the damaged pack is gone");
    for (id, content) in
        [(scene.first.0, &scene.first.1), (healing, &scene.first.1), (scene.second.0, &scene.second.1)]
    {
        assert_eq!(scene.owner.read(id).unwrap(), *content);
    }
    let after = look(&scene.owner);
    assert!(!after.is_damaged() && after.known_damage == 0, "{after:?}");
    assert!(repair_packs(&scene.owner).unwrap().packs.is_empty());
}

#[test]
fn a_pack_without_its_end_gives_what_the_index_knows_of_it() {
    for damage in 0..3 {
        let scene = scene_of(5_000_000);
        let pack = packs(&scene.store, 3).remove(0);
        change(&scene.store, &pack, |bytes| match damage {
            // Without its last byte, without its second half, with a trailer that says nothing.
            0 => bytes.truncate(bytes.len() - 1),
            1 => bytes.truncate(bytes.len() / 2),
            _ => {
                let end = bytes.len();
                bytes[end - 192..].fill(0);
            }
        });
        look(&scene.owner);
        let plan = repair_packs(&scene.owner).unwrap();
        assert_eq!(plan.packs.len(), 1, "{damage}");
        assert!(plan.packs[0].salvaged >= 1, "{damage}: {:?}", plan.packs);
        assert_eq!(plan.loses_something(), damage == 1, "{damage}: {:?}", plan.packs);
        scene.store.delete(&pack).unwrap();
        assert_eq!(
            scene.owner.read(scene.first.0).is_ok(),
            damage != 1,
            "{damage}: without the damaged pack"
        );
        assert_eq!(scene.owner.read(scene.second.0).unwrap(), scene.second.1);
    }
}

fn check_with(client: &Client, read_data: ReadData) -> CheckReport {
    let options = CheckOptions { read_data, keep_ledger: true, program: "test".to_owned() };
    check(&client.open(), &options).unwrap()
}

/// That something was reported does not make it whole, and what nobody here can open is not known to be.
#[test]
fn keys_that_read_no_content_do_not_take_what_is_reported_for_whole() {
    for role in [Role::Maintainer, Role::Writer, Role::Auditor] {
        let scene = scene_of(3_000_000);
        let limited = crate::keys::with_role(&scene.owner, role, "limited");
        let pack = packs(&scene.store, 3).remove(0);
        change(&scene.store, &pack, |bytes| bytes[100_000] ^= 1);
        for read_data in [
            ReadData::All,
            ReadData::All,
            ReadData::None,
            ReadData::OldestFirst { budget: Some(Duration::ZERO) },
        ] {
            let report = check_with(&limited, read_data.clone());
            assert!(report.is_damaged(), "{role:?} {read_data:?}: {report:?}");
            let hurt: Vec<SnapshotId> = report.hurt.iter().map(|(id, _)| *id).collect();
            assert_eq!(hurt, [scene.first.0], "{role:?} {read_data:?}");
            assert!(report.hurt_perhaps.contains(&scene.first.0));
            assert!(
                report
                    .affected
                    .iter()
                    .all(|affected| !affected.is_certain && affected.because == [pack.as_str()])
            );
        }
        // Who can tell says what is lost.
        let told = check_with(&scene.owner, ReadData::None);
        assert!(told.is_damaged() && told.hurt_perhaps.is_empty(), "{told:?}");
        assert!(told.affected.iter().all(|affected| affected.is_certain));
        // Nothing is given up on a doubt.
        if role == Role::Writer {
            let plan = repair_snapshots(&limited, false).unwrap();
            assert!(plan.loses_something() && plan.lost.is_empty() && plan.repaired.is_empty());
            assert!(!plan.hurt[0].is_certain);
        }
        // What a writer reports counts for writers.
        if role == Role::Writer { &limited } else { &scene.owner }.back_up(&scene.first.1);
        let healed = check_with(&limited, ReadData::None);
        assert!(!healed.is_damaged() && healed.known_damage == 1, "{role:?}: {healed:?}");
        assert_eq!(scene.owner.read(scene.first.0).unwrap(), scene.first.1);
    }
}

#[test]
fn a_pack_that_says_nothing_of_itself_is_looked_into_by_every_check() {
    for from_end in [None, Some(60_000)] {
        let scene = scene_of(500_000);
        let pack = packs(&scene.store, 3).remove(0);
        change(&scene.store, &pack, |bytes| {
            let start = from_end.map_or(0, |from_end| bytes.len() - from_end);
            bytes[start..].fill(0);
        });
        assert!(scene.owner.read(scene.first.0).is_err());
        for read_data in [ReadData::None, ReadData::All, ReadData::None, ReadData::None] {
            let report = check_with(&scene.owner, read_data.clone());
            assert!(report.is_damaged(), "{from_end:?} {read_data:?}: {report:?}");
            let hurt: Vec<SnapshotId> = report.hurt.iter().map(|(id, _)| *id).collect();
            assert_eq!(hurt, [scene.first.0], "{from_end:?} {read_data:?}");
        }
        let dry = SnapshotsPlan::run(&scene.owner.open(), SnapshotsOptions::default(), false).unwrap();
        assert_eq!((dry.hurt.len(), dry.hurt[0].is_certain), (1, true), "{from_end:?}");
        scene.owner.back_up(&scene.first.1);
        assert!(!check_with(&scene.owner, ReadData::None).is_damaged());
        assert_eq!(scene.owner.read(scene.first.0).unwrap(), scene.first.1);
    }
}

/// What was forgotten and is hurt waits for the next prune; what nobody needs may be gone.
#[test]
fn only_what_a_snapshot_needs_is_damage() {
    let scene = scene_of(50_000);
    let (first, second) = (scene.first.0, scene.second.0);
    let repository = scene.owner.open();
    forget(&repository, &Snapshots::load_all(&repository).unwrap(), &[first]).unwrap();
    let [pack, needed] = packs(&scene.store, 3).try_into().unwrap();
    let whole = scene.store.get(&pack, u64::MAX).unwrap();
    scene.store.delete(&pack).unwrap();
    let told = |report: &CheckReport| -> Vec<(Gravity, String)> {
        report.findings.iter().map(|finding| (finding.gravity, finding.object.clone())).collect()
    };
    let report = check_with(&scene.owner, ReadData::None);
    assert!(!report.is_damaged() && report.hurt.is_empty() && report.affected.is_empty(), "{report:?}");
    assert_eq!(report.hurt_forgotten, [(first, 2)]);
    assert_eq!(
        told(&report),
        [(Gravity::Warning, pack.clone()), (Gravity::Warning, format!("snapshot {first}"))]
    );
    // Needed by nobody at all: the snapshot is gone, and with it nobody is left who could say that this was rightly so.
    let name =
        names_of(&scene.store, "snapshots/").into_iter().find(|name| name.ends_with(&first.to_string()));
    scene.store.delete(&name.unwrap()).unwrap();
    let report = check_with(&scene.owner, ReadData::None);
    assert!(!report.is_damaged(), "{report:?}");
    assert_eq!(told(&report), [(Gravity::Note, pack.clone())]);
    scene.store.put(&pack, &whole).unwrap();
    assert!(check_with(&scene.owner, ReadData::All).findings.is_empty());
    // And what somebody needs is damage.
    scene.store.delete(&needed).unwrap();
    let report = check_with(&scene.owner, ReadData::None);
    assert_eq!(report.hurt, [(second, 1)]);
    assert_eq!(told(&report), [(Gravity::Damage, needed)]);
}

fn names_of(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.list(prefix).unwrap().into_iter().map(|object| object.name).collect()
}

#[test]
fn a_copy_stands_for_its_original_with_pins_and_notes() {
    let scene = scene_of(500_000);
    let pack = packs(&scene.store, 3).remove(0);
    change(&scene.store, &pack, |bytes| bytes.fill(0));
    let repository = scene.owner.open();
    let marks =
        [Mark::Pin { reason: Some("audit".to_owned()) }, Mark::Note { text: "before the move".to_owned() }];
    mark(&repository, &Snapshots::load(&repository).unwrap(), &[scene.first.0], &marks).unwrap();
    check_with(&scene.owner, ReadData::All);
    let plan = repair_snapshots(&scene.owner, true).unwrap();
    assert!(plan.hurt[0].is_pinned && plan.forgotten.is_empty());
    let copy = plan.repaired[0].id;
    let snapshots = Snapshots::load(&scene.owner.open()).unwrap();
    let view = snapshots.get(&copy).unwrap();
    assert_eq!(view.pinned[0].reason.as_deref(), Some("audit"));
    assert_eq!(view.notes[0], "before the move");
    // A pin holds the original in any case, and it stays hurt.
    assert!(check_with(&scene.owner, ReadData::None).is_damaged());
    mark(&repository, &snapshots, &[scene.first.0], &[Mark::Unpin { reason: None }]).unwrap();
    let again = repair_snapshots(&scene.owner, true).unwrap();
    assert_eq!(again.forgotten, [scene.first.0]);
    // As the documentation has it: no snapshot is hurt.
    let report = check_with(&scene.owner, ReadData::All);
    assert!(!report.is_damaged() && report.hurt_forgotten == [(scene.first.0, 2)], "{report:?}");
}

#[test]
fn a_hurt_snapshot_gets_a_copy_that_holds_the_rest() {
    let scene = scene_of(5_000_000);
    let pack = packs(&scene.store, 3).remove(0);
    change(&scene.store, &pack, |bytes| bytes[2_500_000] ^= 1);
    let hurt = look(&scene.owner).affected;
    let [affected] = hurt.as_slice() else { panic!("{hurt:?}") };
    assert_eq!(affected.path, b"noise");
    let dry = SnapshotsPlan::run(&scene.owner.open(), SnapshotsOptions::default(), false).unwrap();
    assert_eq!((dry.hurt.len(), dry.repaired.len(), scene.owner.snapshots().len()), (1, 0, 2));
    let plan = repair_snapshots(&scene.owner, false).unwrap();
    let [copy] = plan.repaired.as_slice() else { panic!("one is hurt") };
    assert_eq!((copy.from, copy.lost.len(), copy.lost_more), (scene.first.0, 1, 0));
    assert_eq!((&copy.lost[0].path, &copy.lost[0].ranges), (&affected.path, &affected.ranges));
    // Zeros stand for what was lost, everything else where it was.
    let mut expected = scene.first.1["noise".as_bytes()].clone();
    for range in &affected.ranges {
        expected[range.start as usize..range.end as usize].fill(0);
    }
    let repository = scene.owner.open();
    let snapshots = Snapshots::load(&repository).unwrap();
    let view = snapshots.get(&copy.id).unwrap();
    for (name, bytes) in [("noise", &expected), ("app.sql", &scene.first.1["app.sql".as_bytes()])] {
        let Found::Leaf(entry) = locate(&repository, &view.snapshot.root, &[name.into()]).unwrap() else {
            panic!("{name} is a file");
        };
        let mut read = Vec::new();
        cat(&repository, name, entry.content.as_ref().unwrap(), &mut read).unwrap();
        assert!(read == *bytes, "{name}");
        assert_eq!(entry.content.unwrap().digest.is_none(), name == "noise");
    }
    // It says what it is, and what it lacks; and it is no newer than what it was made from.
    assert_eq!(view.snapshot.facts[REPAIRED_FROM], scene.first.0.to_string());
    assert!(view.notes.iter().any(|note| note.contains("noise bytes")), "{:?}", view.notes);
    let order: Vec<SnapshotId> = snapshots.iter().map(|view| view.id).collect();
    assert_eq!(order, [scene.first.0, copy.id, scene.second.0]);
    // A second time there is nothing to do, but to forget the original.
    let again = repair_snapshots(&scene.owner, true).unwrap();
    assert_eq!((again.repaired.len(), again.forgotten.as_slice()), (0, [scene.first.0].as_slice()));
    let snapshots = Snapshots::load(&scene.owner.open()).unwrap();
    let order: Vec<SnapshotId> = snapshots.iter().map(|view| view.id).collect();
    assert_eq!(order, [copy.id, scene.second.0]);
    let after = look(&scene.owner);
    assert!(after.hurt.iter().all(|(id, _)| *id == scene.first.0), "{:?}", after.hurt);
    for _ in 0..2 {
        pruned(&scene.owner);
    }
    assert!(!look(&scene.owner).is_damaged());
    assert_eq!(read_snapshot(&scene.owner.open(), scene.second.0).unwrap(), scene.second.1);
    assert_eq!(Snapshots::load(&scene.owner.open()).unwrap().iter().count(), 2);
}

#[test]
fn who_only_claims_to_be_a_repaired_copy_has_no_original_forgotten() {
    let scene = scene_of(50_000);
    let thief = crate::keys::with_role(&scene.owner, chronolith::format::trust::Role::Writer, "thief");
    let pack = packs(&scene.store, 3).remove(0);
    change(&scene.store, &pack, |bytes| bytes[1000] ^= 1);
    look(&scene.owner);
    let original =
        Snapshots::load(&scene.owner.open()).unwrap().get(&scene.first.0).unwrap().snapshot.clone();
    // Of another tree, under the same label; and by an owner, but under another.
    let theirs = thief.back_up(&content([("junk", noise(6, 1000))]));
    let claim = |client: &Client, label: &str| {
        let repository = client.open();
        let found =
            repository.snapshots().unwrap().found.into_iter().find(|found| found.id == theirs).unwrap();
        let (trust_sequence, trust) = repository.registry().head();
        let mut forged = chronolith::format::snapshot::Snapshot {
            host: original.host.clone(),
            label: label.to_owned(),
            trust_sequence,
            trust,
            ..found.snapshot
        };
        forged.facts.insert(REPAIRED_FROM.to_owned(), scene.first.0.to_string());
        repository.commit(&forged).unwrap()
    };
    let forged = [claim(&thief, &original.label), claim(&scene.owner, "elsewhere")];
    assert!(forged.iter().all(|id| scene.owner.snapshots().contains(id)), "both count");
    let plan = repair_snapshots(&scene.owner, true).unwrap();
    let [copy] = plan.repaired.as_slice() else { panic!("a copy is made") };
    assert_eq!((copy.from, plan.forgotten.as_slice()), (scene.first.0, [scene.first.0].as_slice()));
    assert!(!forged.contains(&copy.id));
}

#[test]
fn what_an_outage_hides_is_not_lost() {
    let transient = Fault::Before(Failure::Transient);
    let is_read = |operation: Operation, name: &str| {
        matches!(operation, Operation::Get | Operation::GetRange) && name.starts_with("packs/")
    };
    let class = |error: &dyn Classify| error.class();
    // Everything is whole, and no pack answers.
    let scene = scene_of(50_000);
    let away = FaultStore::with_plan(scene.store.clone(), move |_, operation, name| {
        is_read(operation, name).then_some(transient)
    });
    let away = scene.owner.through(Arc::new(away));
    assert_eq!(class(&away.read(scene.first.0).unwrap_err()), ErrorClass::Transient);
    let Err(error) = repair_snapshots(&away, true) else { panic!("nobody knows what is hurt") };
    assert_eq!(class(&error), ErrorClass::Transient);
    assert_eq!(scene.owner.snapshots(), [scene.first.0, scene.second.0]);
    // One is hurt, and one answer after the other fails: no more is lost than that.
    let pack = packs(&scene.store, 3).remove(0);
    change(&scene.store, &pack, |bytes| bytes[1000] ^= 1);
    look(&scene.owner);
    let aside = || Arc::new(copy_of(scene.store.as_ref()));
    let lost = repair_snapshots(&scene.owner.through(aside()), true).unwrap().repaired.remove(0).lost;
    let mut failed = 0;
    for number in 1.. {
        let store = aside();
        let faulty = FaultStore::with_plan(store.clone(), move |n, operation, name| {
            (n >= number && n < number + 3 && is_read(operation, name)).then_some(transient)
        });
        let faulty = Arc::new(faulty);
        match repair_snapshots(&scene.owner.through(faulty.clone()), true) {
            Ok(plan) if !plan.repaired.is_empty() => {
                assert_eq!(plan.repaired[0].lost, lost, "request {number}");
            }
            // It fails, or does not learn that anything is hurt.
            other => {
                failed += u64::from(other.is_err());
                let left = scene.owner.through(store).snapshots();
                assert!(left.contains(&scene.first.0), "request {number}");
            }
        }
        if faulty.requests() < number {
            break;
        }
    }
    assert!(failed > 0);
}

#[test]
fn a_file_with_zeros_in_a_copy_is_read_anew() {
    let home = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let source = home.path().join("d");
    std::fs::create_dir(&source).unwrap();
    let bytes = noise(3, 300_000);
    std::fs::write(source.join("f"), &bytes).unwrap();
    std::fs::write(source.join("g"), "whole").unwrap();
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 79);
    // Files count as unchanged only some time after they were.
    owner.clock.shift_seconds(1000);
    let run = || backup(&owner.open(), vec![Source::Path(source.clone())], &owner.options()).unwrap();
    let first = run().snapshot.unwrap();
    assert_eq!(run().summary.unchanged_files, 2);
    let pack = packs(store.as_ref(), 3).remove(0);
    store.delete(&pack).unwrap();
    let plan = repair_snapshots(&owner, true).unwrap();
    assert!(plan.repaired.iter().any(|copy| copy.from == first), "{:?}", plan.hurt);
    let next = run();
    assert_eq!(next.summary.unchanged_files, 0);
    let read = owner.read(next.snapshot.unwrap()).unwrap();
    assert!(read.values().any(|read| *read == bytes));
}

#[test]
fn a_folder_whose_names_are_lost_breaks_off_and_the_rest_stays() {
    let home = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let source = home.path().join("d");
    for folder in ["a", "b"] {
        std::fs::create_dir_all(source.join(folder)).unwrap();
        for number in 0..400 {
            let name = format!("file-with-a-name-that-takes-some-room-{folder}-{number:04}");
            std::fs::write(source.join(folder).join(name), format!("{folder}{number}")).unwrap();
        }
    }
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 80);
    let run = || backup(&owner.open(), vec![Source::Path(source.clone())], &owner.options()).unwrap();
    let id = run().snapshot.unwrap();
    let whole = owner.read(id).unwrap();
    // One frame after the other is bad, until one is a part of a folder.
    let pack = packs(store.as_ref(), 4).remove(0);
    let length = store.head(&pack).unwrap().length as usize;
    let mut broken_off = 0;
    for at in (300..length - 400).step_by(length / 12) {
        let aside = owner.through(Arc::new(copy_of(store.as_ref())));
        change(aside.store.as_ref(), &pack, |bytes| bytes[at] ^= 1);
        let plan = repair_snapshots(&aside, false).unwrap();
        assert_eq!(plan.hurt.len(), 1, "at {at}");
        let Some(copy) = plan.repaired.first() else {
            assert!(!plan.hurt[0].repairable, "at {at}");
            continue;
        };
        let read = aside.read(copy.id).unwrap_or_else(|error| panic!("at {at}: {error}"));
        assert!(read.len() < whole.len() && !copy.lost.is_empty(), "at {at}");
        assert!(read.iter().all(|(path, bytes)| whole[path] == *bytes), "at {at}");
        broken_off += 1;
    }
    println!("{broken_off} of the places left something");
}

#[test]
fn killed_at_every_request_nothing_is_worse() {
    let scene = scene_of(20_000);
    // The index: one run gone, one damaged; everything is readable all the time.
    let aside = scene.owner.through(Arc::new(copy_of(scene.store.as_ref())));
    let runs = aside.store.list("index/").unwrap();
    change(aside.store.as_ref(), &runs[0].name, |bytes| bytes[500] ^= 1);
    aside.store.delete(&runs[1].name).unwrap();
    let both = [(scene.first.0, &scene.first.1), (scene.second.0, &scene.second.1)];
    killed_everywhere(&aside, &both, |client| index(client, true));
    // Packs: all frames can be salvaged, the pack cannot tell what it holds.
    let aside = scene.owner.through(Arc::new(copy_of(scene.store.as_ref())));
    let pack = packs(aside.store.as_ref(), 3).remove(0);
    change(aside.store.as_ref(), &pack, |bytes| {
        let end = bytes.len();
        bytes[end - 100] ^= 1;
    });
    look(&aside);
    killed_everywhere(&aside, &both, repair_packs);
    // Snapshots: the first is hurt, the second is not.
    let aside = scene.owner.through(Arc::new(copy_of(scene.store.as_ref())));
    aside.store.delete(&pack).unwrap();
    killed_everywhere(&aside, &both[1..], |client| {
        let plan = repair_snapshots(client, true)?;
        // The original is forgotten only once a copy is there.
        let snapshots = Snapshots::load(&client.try_open()?)?;
        let original = snapshots.get(&scene.first.0).unwrap();
        let copies = snapshots.iter().filter(|view| view.snapshot.facts.contains_key(REPAIRED_FROM)).count();
        assert!(!original.forgotten || copies > 0);
        Ok(plan)
    });
}
