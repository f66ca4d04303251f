//! Catalogues of logs: a fresh client knows a long log by a few requests, what has ended is written down, and what is gone
//! without having been let go is told.

use crate::merges::{DAY, HOUR, STREAM, Scene, bytes, entry, run_through};
use crate::support::{CountingStore, Failure, Fault, FaultStore};
use chronolith::base::{LogPackId, ObjectId};
use chronolith::format::ObjectKind;
use chronolith::format::catalog::CatalogScope;
use chronolith::ops::Snapshots;
use chronolith::ops::catalogue::{MERGES_AT_LEAST, gather_logs};
use chronolith::ops::check::{CheckOptions, CheckReport, Gravity, check};
use chronolith::ops::forget::forget_logs;
use chronolith::repo::{FoundLog, LogEntry, Repository, Told};
use chronolith::storage::{ObjectInfo, Operation, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Merged log packs of two segments each.
const MERGES: u64 = MERGES_AT_LEAST as u64 + 8;
/// What a fresh client may ask for in all to know a log ([CATALOG-7]).
const REQUESTS: u64 = 20;

fn name(number: u64) -> String {
    format!("{:08X}{:08X}{:08X}", 1, number >> 8, number & 255)
}

fn segment(number: u64) -> LogEntry {
    let named = entry(number);
    LogEntry { name: name(number), ..named }
}

fn by_name(repository: &Repository) -> BTreeMap<String, FoundLog> {
    let found = repository.log_stream(STREAM).unwrap().found;
    found.into_iter().map(|log| (log.record.name.clone(), log)).collect()
}

/// Merges segments two by two, from one to another, and lets the originals go.
fn merge(scene: &Scene, numbers: std::ops::Range<u64>) {
    let repository = scene.client.open();
    for number in numbers.clone() {
        repository.archive_log(&segment(number), &bytes(number % 50)).unwrap();
    }
    let found = by_name(&repository);
    for number in numbers.clone().step_by(2) {
        repository.merge_logs(&[&found[&name(number)], &found[&name(number + 1)]]).unwrap();
    }
    for number in numbers {
        scene.store.delete(&found[&name(number)].object).unwrap();
    }
    scene.pass(DAY);
}

fn scene() -> Scene {
    let scene = Scene::new(0);
    merge(&scene, 1..2 * MERGES + 1);
    scene
}

fn catalogues(scene: &Scene) -> usize {
    let held = scene.client.open().memory().unwrap();
    held.held().values().filter(|held| matches!(held.scope(), CatalogScope::Log(_))).count()
}

fn merges(scene: &Scene) -> Vec<FoundLog> {
    scene.client.open().merged_logs(STREAM).unwrap().found
}

fn listed(scene: &Scene) -> BTreeMap<String, Vec<ObjectInfo>> {
    let objects = scene.store.list("logs/").unwrap().into_iter();
    let merged = objects.filter(|object| object.name.contains("/merged/")).collect();
    [(scene.client.open().log_stream_folder(STREAM), merged)].into()
}

/// Writes down whatever there is.
fn gather_now(scene: &Scene) {
    let repository = scene.client.open();
    let snapshots = Snapshots::load_all(&repository).unwrap();
    gather_logs(&repository, &snapshots, &listed(scene), 1);
}

fn forget(scene: &Scene, ids: &[LogPackId]) {
    let repository = scene.client.open();
    forget_logs(&repository, &Snapshots::load(&repository).unwrap(), ids).unwrap();
}

fn sweep(scene: &Scene) {
    scene.prune();
    scene.pass(2 * HOUR);
    scene.prune();
}

fn checked(scene: &Scene) -> (CheckReport, Vec<String>) {
    let report = check(&scene.client.open(), &CheckOptions::default()).unwrap();
    let damage = report.findings.iter().filter(|finding| finding.gravity == Gravity::Damage);
    let damage = damage.map(|finding| format!("{}: {}", finding.object, finding.what)).collect();
    (report, damage)
}

/// Returns the kind of object by which each merged log pack ended, as catalogues tell.
fn ended(scene: &Scene, merges: &[FoundLog]) -> Vec<Option<(ObjectKind, ObjectId)>> {
    let memory = scene.client.open().memory().unwrap();
    let told = merges.iter().map(|merge| match memory.told(&merge.id.into()) {
        Some(Told::Ended(end)) => Some((end.authority_kind, end.authority)),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_fresh_client_knows_a_long_log_by_a_few_requests() {
    // [CATALOG-7], [CATALOG-14]
    let scene = scene();
    let look = |requests: &mut u64, cache: Option<&std::path::Path>| {
        let counted = Arc::new(CountingStore::new(scene.store.clone()));
        let mut client = scene.client.through(counted.clone());
        client.cache = cache.map(Into::into);
        let outline = client.open().log_outline(STREAM).unwrap();
        assert!(outline.logs.refused.is_empty());
        let runs = outline.merges.iter().flat_map(|merge| &merge.record.runs);
        let names: BTreeSet<(String, String)> =
            runs.map(|run| (run.first.clone(), run.last.clone())).collect();
        assert_eq!(names.len(), MERGES as usize);
        assert!(
            names.contains(&(name(1), name(2))) && names.contains(&(name(2 * MERGES - 1), name(2 * MERGES)))
        );
        *requests = counted.total();
        counted.count(Operation::GetRange)
    };
    let (mut without, mut with, mut warm) = (0, 0, 0);
    assert_eq!(look(&mut without, None), MERGES);
    assert!(without > REQUESTS, "{without}");
    scene.prune();
    assert_eq!(catalogues(&scene), 1);
    assert_eq!(look(&mut with, None), 0);
    assert!(with < REQUESTS, "{with} requests");
    // Whoever knows them asks for no catalogue.
    let cache = tempfile::tempdir().unwrap();
    look(&mut with, Some(cache.path()));
    assert_eq!(look(&mut warm, Some(cache.path())), 0);
    assert!(warm < with, "{warm} of {with}");
    // One that nobody can read makes it slow, no more.
    for object in scene.store.list("").unwrap() {
        if object.name.contains("catalog/") {
            scene.store.delete(&object.name).unwrap();
        }
    }
    let mut again = 0;
    assert_eq!(look(&mut again, None), MERGES);
}

#[test]
fn what_comes_later_is_taken_together_with_what_there_is() {
    // [CATALOG-2], [CATALOG-4]
    let scene = scene();
    scene.prune();
    merge(&scene, 1000..1002);
    scene.prune();
    assert_eq!(
        scene.client.open().memory().unwrap().merges().count(),
        MERGES as usize,
        "one is not worth it"
    );
    merge(&scene, 2000..2000 + 2 * MERGES);
    scene.prune();
    let memory = scene.client.open().memory().unwrap();
    assert_eq!((catalogues(&scene), memory.merges().count()), (1, 2 * MERGES as usize + 1));
    let numbers: BTreeSet<u64> = memory.entries().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=2 * MERGES + 1).collect());
    // What was taken over goes as other replaced catalogues do.
    scene.pass(2 * HOUR);
    sweep(&scene);
    assert_eq!(scene.store.list("catalog/").unwrap().len(), 1);
    scene.is_sound("two rounds of merges");
}

#[test]
fn what_was_forgotten_or_is_in_another_one_has_ended() {
    let scene = scene();
    scene.prune();
    let mut all = merges(&scene);
    all.sort_by(|a, b| a.record.name.cmp(&b.record.name));
    let (forgotten, rest) = all.split_at(MERGES_AT_LEAST);
    forget(&scene, &forgotten.iter().map(|merge| merge.id).collect::<Vec<_>>());
    sweep(&scene);
    assert_eq!(merges(&scene).len(), rest.len());
    // The prune that deletes them has looked before that; the next one sees that they are gone.
    scene.prune();
    let by = ended(&scene, forgotten);
    assert!(by.iter().all(|end| end.is_some_and(|(kind, _)| kind == ObjectKind::Annotation)), "{by:?}");
    assert_eq!(ended(&scene, rest), vec![None; rest.len()]);
    assert_eq!(checked(&scene).1, [""; 0]);

    // Two that lie side by side become one.
    let repository = scene.client.open();
    let whole = repository.merge_logs(&rest.iter().take(2).collect::<Vec<_>>()).unwrap();
    scene.pass(2 * DAY);
    sweep(&scene);
    assert_eq!(merges(&scene).len(), rest.len() - 1);
    gather_now(&scene);
    let by = Some((ObjectKind::LogPack, ObjectId::from(whole.id)));
    assert_eq!(ended(&scene, &rest[..2]), [by, by]);
    assert!(matches!(scene.client.open().memory().unwrap().told(&whole.id.into()), Some(Told::There(_))));
    assert_eq!(checked(&scene).1, [""; 0]);
    scene.is_sound("ends were written down");
}

#[test]
fn one_that_is_gone_is_told_until_it_is_back_or_was_let_go() {
    // [CATALOG-14]
    let scene = scene();
    scene.prune();
    let lost = merges(&scene).remove(7);
    let whole = scene.store.get(&lost.object, u64::MAX).unwrap();
    scene.store.delete(&lost.object).unwrap();
    let (report, damage) = checked(&scene);
    let [told] = damage.as_slice() else { panic!("{damage:?}") };
    let run = &lost.record.runs[0];
    for part in [&lost.object, &run.first, &run.last, "2 segments", "nobody has forgotten it"] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(report.lost_logs.len(), 1);
    // It stops nobody, and is not written down as ended.
    scene.prune();
    assert!(scene.client.listener.warned().contains(&lost.object), "{}", scene.client.listener.warned());
    gather_now(&scene);
    assert_eq!(ended(&scene, std::slice::from_ref(&lost)), [None]);
    assert_eq!(checked(&scene).1.len(), 1);

    let other = scene.copy();
    other.store.put(&lost.object, &whole).unwrap();
    assert_eq!(checked(&other).1, [""; 0]);
    forget(&scene, &[lost.id]);
    assert_eq!(checked(&scene).1, [""; 0]);
    gather_now(&scene);
    assert!(ended(&scene, &[lost])[0].is_some());
}

/// One whose end was written down and that came back is there; what was forgotten is listed nowhere anew.
#[test]
fn one_that_came_back_is_there() {
    let scene = scene();
    scene.prune();
    let mut all = merges(&scene);
    all.sort_by(|a, b| a.record.name.cmp(&b.record.name));
    let (back, neighbour) = (all.remove(3), all.remove(3));
    let whole = scene.store.get(&back.object, u64::MAX).unwrap();
    let repository = scene.client.open();
    let both = repository.merge_logs(&[&back, &neighbour]).unwrap();
    scene.store.delete(&back.object).unwrap();
    gather_now(&scene);
    assert_eq!(ended(&scene, std::slice::from_ref(&back)), [Some((ObjectKind::LogPack, both.id.into()))]);
    let number = |scene: &Scene| match scene.client.open().memory().unwrap().told(&back.id.into()) {
        Some(Told::Ended(end)) => (false, end.number),
        Some(Told::There(entry)) => (true, entry.number),
        None => panic!("nothing is told"),
    };
    let before = number(&scene).1;
    scene.store.put(&back.object, &whole).unwrap();
    gather_now(&scene);
    assert_eq!(number(&scene), (true, before));
    assert_eq!(merges(&scene).len(), MERGES as usize + 1);
}

/// A prune that makes catalogues of a log may be killed at every request.
#[test]
fn making_one_may_be_killed_at_every_request() {
    let scene = scene();
    let first = merges(&scene)[0].id;
    forget(&scene, &[first]);
    scene.prune();
    scene.pass(2 * HOUR);
    merge(&scene, 2000..2000 + 2 * MERGES);
    for number in (1..).step_by(17) {
        let scene = scene.copy();
        let what = format!("killed at request {number}");
        let fault = Fault::Before(Failure::Fatal);
        let faulty = Arc::new(FaultStore::failing_from(scene.store.clone(), number, fault));
        drop(run_through(&scene, faulty.clone()));
        for _ in 0..2 {
            let seen = merges(&scene).len();
            assert!((2 * MERGES as usize - 1..=2 * MERGES as usize).contains(&seen), "{what}: {seen}");
            assert_eq!(checked(&scene).1, [""; 0], "{what}");
            scene.pass(2 * DAY);
            scene.prune();
        }
        assert_eq!(catalogues(&scene), 1, "{what}");
        if !faulty.fired() {
            assert!(number > 100, "it has more than {number} requests");
            break;
        }
    }
}
