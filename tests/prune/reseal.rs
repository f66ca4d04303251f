//! What is needed is sealed anew where it holds what is not: bases of differences, and blobs in the same frame.
//! Nothing that anybody needs is lost by that, whoever prunes beside it, claims what, and is killed when.

use crate::forge::{Claim, client_with, index_run, poison, put, records_of, sealed};
use crate::support::world::{Client, Content, content, copy_of, noise, streams};
use crate::support::{Failure, Fault, FaultStore};
use crate::sweep::{Scene, interleaved_at};
use crate::{condemn, packs};
use chronolith::base::{KeyId, PackId, SnapshotId, Timestamp};
use chronolith::codec::Encoding;
use chronolith::format::ObjectKind;
use chronolith::format::annotation::{Annotation, AnnotationKind, Outcome};
use chronolith::format::index::{IndexRecord, PackEntry};
use chronolith::format::pack::BlobClass;
use chronolith::format::trust::Role;
use chronolith::ops::backup::{BackupOptions, Differences, backup};
use chronolith::ops::check::{CheckOptions, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::prune::{PruneOptions, PruneReport, Unused, prune};
use chronolith::ops::{OpsError, Snapshots};
use chronolith::repo::{BlobReader, CondemnedListing, Located, RepoError};
use chronolith::storage::{MemoryStore, Operation, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whatever holds something is sealed anew.
fn thorough() -> PruneOptions {
    PruneOptions {
        max_unused: Unused::Bytes(0),
        max_held: Some(Unused::Bytes(0)),
        ..PruneOptions::new("test").within(0)
    }
}

fn dry(options: PruneOptions) -> PruneOptions {
    PruneOptions { dry_run: true, ..options }
}

fn run(client: &Client, options: &PruneOptions) -> PruneReport {
    prune(&client.open(), options).unwrap()
}

fn store_version(client: &Client, version: &Content) -> SnapshotId {
    let options = BackupOptions { differences: Differences::Always, ..client.options() };
    backup(&client.open(), streams(version), &options).unwrap().snapshot.unwrap()
}

fn forget_all(owner: &Client, ids: &[SnapshotId]) {
    let repository = owner.open();
    forget(&repository, &Snapshots::load(&repository).unwrap(), ids).unwrap();
}

fn pack_bytes(store: &dyn Store) -> u64 {
    store.list("packs/").unwrap().iter().map(|pack| pack.length).sum()
}

fn is_clean(client: &Client, what: &str) {
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let report = check(&client.open(), &options).unwrap();
    assert!(!report.is_damaged(), "{what}: {:?}", report.findings);
}

/// No blob is there twice: what was sealed anew has taken the place of what there was.
fn is_stored_once(client: &Client, what: &str) {
    let repository = client.open();
    let mut there: BTreeSet<PackId> = packs(client.store.as_ref()).into_iter().collect();
    // What was announced may wait for the session of a prune that was killed.
    let condemned = repository.condemned(&CondemnedListing::default()).unwrap().found;
    there.retain(|pack| !condemned.values().any(|found| found.condemned.names(pack)));
    for class in [BlobClass::Content, BlobClass::Metadata] {
        let mut seen = BTreeMap::new();
        let records = records_of(&repository, class).into_iter();
        for copy in records.filter(|copy| there.contains(&copy.pack.id)) {
            // Two runs may say the same.
            let place = (copy.pack.id, copy.record.frame_offset, copy.record.depth);
            let first = *seen.entry(copy.record.id).or_insert(place);
            assert_eq!(first, place, "{what}: {} is stored twice", copy.record.id);
        }
    }
}

/// A version of which every chunk differs a little from those of all others.
fn daily(seed: u64, length: usize, day: usize) -> Content {
    let mut app = noise(seed, length);
    app.iter_mut().skip(day * 7).step_by(991).for_each(|byte| *byte ^= 0x55);
    content([("app", app)])
}

/// Some chunks.
const SMALL: usize = 20_000;

struct Series {
    store: Arc<MemoryStore>,
    owner: Client,
    kept: Vec<(SnapshotId, Content)>,
}

impl Series {
    /// So many versions, each stored as what differs from one before; the first are forgotten.
    fn new(seed: u64, versions: Vec<Content>, forgotten: usize) -> Self {
        let store = Arc::new(MemoryStore::new());
        let owner = Client::init(store.clone(), seed);
        let mut kept: Vec<_> =
            versions.into_iter().map(|version| (store_version(&owner, &version), version)).collect();
        let gone: Vec<SnapshotId> = kept.drain(..forgotten).map(|(id, _)| id).collect();
        forget_all(&owner, &gone);
        Self { store, owner, kept }
    }

    fn daily(seed: u64, days: usize, forgotten: usize) -> Self {
        Self::new(seed, (0..days).map(|day| daily(seed, 60_000, day)).collect(), forgotten)
    }

    /// A few chunks in three versions, of which the first is forgotten: for what is done at every request.
    fn small(seed: u64) -> Self {
        Self::new(seed, (0..3).map(|day| daily(seed, SMALL, day)).collect(), 1)
    }

    /// What must be true whatever happened.
    fn reads(&self, client: &Client, what: &str) {
        for (id, version) in &self.kept {
            let read = client.read(*id).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(read == *version, "{what}: another content");
        }
    }

    fn depths(&self) -> Vec<u8> {
        let records = records_of(&self.owner.open(), BlobClass::Content);
        records.iter().map(|copy| copy.record.depth).collect()
    }
}

#[test]
fn what_is_stored_is_what_is_needed() {
    let series = Series::daily(91, 13, 8);
    // All that goes without sealing anew is gone.
    let plain = PruneOptions { max_held: Some(Unused::Share { hundredths: 10_000 }), ..thorough() };
    let before = run(&series.owner, &plain);
    assert!(before.base_bytes > 50_000 && before.unused_bytes == 0, "{before:?}");
    assert_eq!((before.held_bytes_max, before.resealed.blobs), (None, 0));
    let deepest = series.depths().into_iter().max().unwrap();
    assert_eq!(deepest, 4);
    let bytes = pack_bytes(series.store.as_ref());
    let planned = run(&series.owner, &dry(thorough()));
    assert_eq!(pack_bytes(series.store.as_ref()), bytes, "nothing was done");
    assert!(planned.resealed.blobs > 0 && planned.base_bytes == before.base_bytes, "{planned:?}");
    let report = run(&series.owner, &thorough());
    assert_eq!(report.resealed.blobs, planned.resealed.blobs, "{report:?}");
    assert_eq!(report.resealed.freed_bytes, planned.resealed.freed_bytes);
    assert!(
        report.resealed.bytes.abs_diff(planned.resealed.bytes) < planned.resealed.bytes / 4,
        "{planned:?}"
    );
    let held = (report.base_bytes, report.shared_frame_bytes, report.unused_bytes, report.held_packs);
    assert_eq!((held, report.resealed.unreadable), ((0, 0, 0, 0), 0), "{report:?}");
    series.reads(&series.owner, "sealed anew");
    is_clean(&series.owner, "sealed anew");
    is_stored_once(&series.owner, "sealed anew");
    // One version whole, and what the others differ from it by: no more than before.
    let after = pack_bytes(series.store.as_ref());
    assert!(after <= bytes, "{bytes} to {after}");
    assert!(after.abs_diff(report.kept_bytes) < 1024, "{after}: {report:?}");
    let depths = series.depths();
    assert!(
        depths.iter().all(|depth| *depth <= deepest)
            && depths.iter().filter(|depth| **depth > 0).count() > 20
    );
    let names = packs(series.store.as_ref());
    for round in 0..2 {
        let again = run(&series.owner, &thorough());
        assert_eq!(
            (again.resealed.blobs, again.copied_bytes, again.condemned_packs),
            (0, 0, 0),
            "round {round}"
        );
        assert_eq!((again.base_bytes, again.shared_frame_bytes), (0, 0), "round {round}");
        assert_eq!(packs(series.store.as_ref()), names, "round {round}");
    }
    // What was sealed anew is adopted as anything else is, and built on.
    let (_, newest) = series.kept.last().unwrap();
    let next = series.owner.try_back_up(newest).unwrap();
    assert_eq!(next.summary.new_blobs, 1, "only the root, which holds the time");
    let id = store_version(&series.owner, &daily(91, 60_000, 13));
    assert_eq!(series.owner.read(id).unwrap(), daily(91, 60_000, 13));
    is_clean(&series.owner, "after other backups");
}

#[test]
fn what_frees_little_is_not_written_again_day_by_day() {
    let series = Series::daily(92, 13, 8);
    let usual = PruneOptions { max_held: None, ..thorough() };
    let before = run(&series.owner, &usual);
    assert!(before.held_bytes_max.unwrap() < before.base_bytes, "it is more than a tenth: {before:?}");
    assert_eq!((before.resealed.blobs, before.resealed.bytes), (0, 0), "{before:?}");
    // Half of each chunk changes with each version, and all but the last were forgotten.
    let changed = |day: usize| {
        let mut app = noise(92, 60_000);
        for (number, part) in app.chunks_mut(500).enumerate() {
            for day in (1..=day).filter(|day| (number + day).is_multiple_of(3)) {
                part.copy_from_slice(&noise((day * 1000 + number) as u64, part.len()));
            }
        }
        content([("app", app)])
    };
    let series = Series::new(93, (0..5).map(changed).collect(), 4);
    let bytes = pack_bytes(series.store.as_ref());
    let report = run(&series.owner, &usual);
    assert!(report.resealed.blobs > 0 && report.resealed.bytes < report.resealed.freed_bytes, "{report:?}");
    assert!(pack_bytes(series.store.as_ref()) * 4 < bytes * 3, "{report:?}");
    series.reads(&series.owner, "worth it");
    is_clean(&series.owner, "worth it");
    let again = run(&series.owner, &usual);
    assert_eq!((again.resealed.blobs, again.condemned_packs), (0, 0), "{again:?}");
}

/// Two snapshots that share frames, the older forgotten.
fn shared() -> Series {
    let versions = [("gone", 5, 150_000), ("more", 6, 150_000)];
    let old = content(versions.map(|(name, seed, length)| (name, noise(seed, length))));
    let mut old = old;
    old.insert(b"kept".to_vec(), noise(1, 60_000));
    let kept = content([("kept", noise(1, 60_000)), ("new", noise(3, 5_000))]);
    Series::new(94, vec![old, kept], 1)
}

#[test]
fn frames_of_which_little_is_needed_are_split() {
    let series = shared();
    let (before, usual) = (pack_bytes(series.store.as_ref()), PruneOptions { max_held: None, ..thorough() });
    let planned = run(&series.owner, &dry(usual.clone()));
    assert!(planned.shared_frame_bytes > 200_000, "{planned:?}");
    assert!(planned.shared_frame_bytes > planned.held_bytes_max.unwrap());
    let report = run(&series.owner, &usual);
    assert_eq!(report.resealed.blobs, planned.resealed.blobs, "{report:?}");
    assert!(report.resealed.bytes.abs_diff(planned.resealed.bytes) < 5_000, "{report:?}");
    assert!(report.shared_frame_bytes <= report.held_bytes_max.unwrap(), "{report:?}");
    let after = pack_bytes(series.store.as_ref());
    assert!(after + 250_000 < before && after < 90_000, "{before} to {after}: {report:?}");
    series.reads(&series.owner, "split");
    is_clean(&series.owner, "split");
    let again = run(&series.owner, &usual);
    assert_eq!((again.resealed.blobs, again.condemned_packs, again.copied_bytes), (0, 0, 0), "{again:?}");
}

/// Without a bound little is left where it is; who gives one has it kept.
#[test]
fn for_little_nothing_is_read_and_written() {
    let part = |number: u64| {
        let kept = (format!("kept{number}").into_bytes(), noise(number, 60_000));
        let gone = (format!("gone{number}").into_bytes(), noise(100 + number, 40_000));
        [kept, gone]
    };
    let mut versions: Vec<Content> = (1..=8).map(|number| part(number).into()).collect();
    let mut last: Content = (1..=8).map(|number| part(number)[0].clone()).collect();
    last.insert(b"new".to_vec(), noise(50, 2_200_000));
    versions.push(last);
    let series = Series::new(95, versions, 8);
    let usual = PruneOptions { max_held: None, ..thorough() };
    let tenth = PruneOptions { max_held: Some(Unused::Share { hundredths: 1000 }), ..thorough() };
    let planned = run(&series.owner, &dry(tenth.clone()));
    assert!(planned.shared_frame_bytes > planned.held_bytes_max.unwrap(), "more than a tenth: {planned:?}");
    let gain = planned.resealed.freed_bytes - planned.resealed.bytes;
    assert!(gain > 0 && gain * 10 < planned.needed_bytes - planned.shared_frame_bytes, "{planned:?}");
    let report = run(&series.owner, &usual);
    assert_eq!((report.resealed.blobs, report.resealed.bytes), (0, 0), "{report:?}");
    assert_eq!(report.held_bytes_max, planned.held_bytes_max);
    let report = run(&series.owner, &tenth);
    assert!(report.resealed.blobs > 0, "{report:?}");
    assert!(report.shared_frame_bytes <= report.held_bytes_max.unwrap(), "{report:?}");
    series.reads(&series.owner, "a tenth");
    is_clean(&series.owner, "a tenth");
}

#[test]
fn bounds_are_kept() {
    let series = shared();
    let plan = |max_held, max_repack_bytes| {
        let options = PruneOptions { max_held: Some(max_held), max_repack_bytes, ..dry(thorough()) };
        run(&series.owner, &options)
    };
    let all = plan(Unused::Bytes(0), None);
    assert!(all.resealed.blobs > 0 && all.held_bytes_max == Some(0), "{all:?}");
    let held = all.base_bytes + all.shared_frame_bytes;
    for enough in
        [Unused::Bytes(held), Unused::Share { hundredths: 10_000 }, Unused::Share { hundredths: 9_900 }]
    {
        assert_eq!(plan(enough, None).resealed.blobs, 0, "{enough:?}");
    }
    assert!(plan(Unused::Bytes(held - 1), None).resealed.blobs > 0);
    // A frame is taken apart whole, or not at all.
    assert_eq!(plan(Unused::Bytes(0), Some(100)).resealed.blobs, 0);
    let some = plan(Unused::Bytes(0), Some(300_000));
    assert!(some.resealed.freed_bytes <= 300_000, "{some:?}");
    // What was sealed anew leaves less room for what is only copied.
    let few = PruneOptions { max_repack_bytes: Some(all.resealed.freed_bytes), ..thorough() };
    let report = run(&series.owner, &few);
    assert!(report.resealed.blobs > 0 && report.repacked_packs == 0, "{report:?}");
    series.reads(&series.owner, "within bounds");
    run(&series.owner, &thorough());
    series.reads(&series.owner, "and to the end");
}

#[test]
fn who_reads_no_content_seals_nothing_anew_and_says_so() {
    let series = Series::daily(95, 7, 5);
    let maintainer = client_with(&series.owner, Role::Maintainer, "keeper", "", &[]);
    let usual = PruneOptions { max_held: None, ..thorough() };
    let report = run(&maintainer, &usual);
    assert!(report.base_bytes > 50_000 && report.held_bytes_max.is_none(), "{report:?}");
    assert_eq!(report.resealed.blobs, 0);
    match prune(&maintainer.open(), &thorough()) {
        Err(OpsError::Repo(RepoError::Forbidden { role, action })) => {
            assert_eq!(role, "maintainer");
            assert!(action.contains("seal anew"), "{action}");
        }
        other => panic!("{other:?}"),
    }
    // There is nothing to do within such a bound.
    let unlimited = PruneOptions { max_held: Some(Unused::Share { hundredths: 10_000 }), ..thorough() };
    run(&maintainer, &unlimited);
    // Once the owner has done it, the maintainer finds the old copies superfluous too ([CONCURRENCY-57]).
    let day = PruneOptions { grace_seconds: 24 * 3600, shorten: false, ..thorough() };
    let sealed = run(&series.owner, &day);
    assert!(
        sealed.resealed.blobs > 0 && sealed.condemned_packs > 0 && sealed.deleted_packs == 0,
        "{sealed:?}"
    );
    let swept = run(&maintainer, &usual);
    assert!(swept.copied_bytes == 0 && swept.deleted_packs > 0, "{swept:?}");
    series.reads(&series.owner, "swept by the maintainer");
    is_clean(&series.owner, "swept by the maintainer");
    let last = run(&maintainer, &usual);
    assert_eq!((last.base_bytes, last.condemned_packs, last.copied_bytes), (0, 0, 0), "{last:?}");
}

#[test]
fn it_may_be_killed_before_every_change() {
    let series = Series::small(96);
    for number in 1.. {
        let store = Arc::new(copy_of(series.store.as_ref()));
        let changes = AtomicU64::new(0);
        // What changes nothing leaves what there was before it.
        let dies = move |_, operation, _: &str| {
            let is_change = !matches!(
                operation,
                Operation::Get | Operation::GetRange | Operation::Head | Operation::List
            );
            let before = changes.fetch_add(u64::from(is_change), Ordering::SeqCst);
            (before + u64::from(is_change) >= number).then_some(Fault::Before(Failure::Fatal))
        };
        let faulty = Arc::new(FaultStore::with_plan(store.clone(), dies));
        let result = series.owner.through(faulty.clone()).try_open().map_err(OpsError::from);
        drop(result.and_then(|repository| prune(&repository, &thorough())));
        let client = series.owner.through(store.clone());
        let what = format!("killed at change {number}");
        series.reads(&client, &what);
        let first = daily(96, SMALL, 0);
        let id = store_version(&client, &first);
        assert_eq!(client.read(id).unwrap(), first, "{what}");
        prune(&client.open(), &thorough()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let last = run(&client, &thorough());
        let held = (last.base_bytes, last.shared_frame_bytes, last.unused_bytes);
        assert_eq!((held, last.resealed.blobs), ((0, 0, 0), 0), "{what}: it comes to rest");
        is_stored_once(&client, &what);
        assert_eq!(client.read(id).unwrap(), first, "{what}");
        series.reads(&client, &what);
        if !faulty.fired() {
            assert!(number > 20, "a prune makes more than {number} changes");
            break;
        }
    }
}

/// What a [`Series`] is for those who do something at each request.
fn scene(series: &Series) -> Scene {
    let (kept_id, kept) = series.kept[0].clone();
    let (store, owner) = (series.store.clone(), series.owner.clone());
    Scene { store, owner, old: daily(97, SMALL, 0), kept, kept_id, forgotten_id: kept_id }
}

#[test]
fn a_writer_may_adopt_what_it_makes_superfluous_at_any_moment() {
    let series = Series::small(97);
    let scene = scene(&series);
    let before = series.owner.snapshots();
    // What the first version had is base of all others; the next differs from the newest.
    for version in [0, 3] {
        interleaved_at(
            &scene,
            5,
            |client, what| {
                prune(&client.open(), &thorough()).unwrap_or_else(|error| panic!("{what}: {error}"));
            },
            move |client| _ = store_version(client, &daily(97, SMALL, version)),
            |client, what| {
                for round in 0..3 {
                    series.reads(client, what);
                    for id in client.snapshots().into_iter().filter(|id| !before.contains(id)) {
                        let read = client.read(id).unwrap_or_else(|error| panic!("{what}, {round}: {error}"));
                        assert!(read == daily(97, SMALL, version), "{what}, round {round}");
                    }
                    run(client, &thorough());
                }
                is_clean(client, what);
            },
        );
    }
}

#[test]
fn two_that_seal_the_same_do_not_rely_on_what_the_other_deletes() {
    let series = Series::small(97);
    interleaved_at(
        &scene(&series),
        5,
        |client, what| {
            drop(prune(&client.open(), &thorough()).unwrap_or_else(|error| panic!("{what}: {error}")))
        },
        |client| drop(run(client, &thorough())),
        |client, what| {
            series.reads(client, what);
            run(client, &thorough());
            let last = run(client, &thorough());
            let held = (last.base_bytes, last.shared_frame_bytes, last.unused_bytes);
            assert_eq!((held, last.condemned_packs), ((0, 0, 0), 0), "{what}");
            series.reads(client, what);
            is_clean(client, what);
        },
    );
}

#[test]
fn where_each_of_two_condemned_what_the_other_sealed_the_old_copies_are_rescued() {
    // [CONCURRENCY-29], [CONCURRENCY-59]
    let series = Series::daily(98, 7, 5);
    let owner = &series.owner;
    client_with(owner, Role::Writer, "somebody", "", &["web"]);
    let before: BTreeSet<PackId> = packs(series.store.as_ref()).into_iter().collect();
    let base = copy_of(series.store.as_ref());
    let sealed: Vec<Vec<PackId>> = (0..2)
        .map(|_| {
            let alone = Arc::new(copy_of(&base));
            let dies = |_, operation, name: &str| {
                (operation == Operation::Put && name.starts_with("condemned/"))
                    .then_some(Fault::Before(Failure::Fatal))
            };
            let killed = owner.through(Arc::new(FaultStore::with_plan(alone.clone(), dies)));
            prune(&killed.open(), &thorough()).unwrap_err();
            for object in alone.list("").unwrap() {
                series.store.put(&object.name, &alone.get(&object.name, u64::MAX).unwrap()).unwrap();
            }
            packs(alone.as_ref()).into_iter().filter(|pack| !before.contains(pack)).collect()
        })
        .collect();
    let original: Vec<PackId> = before.into_iter().collect();
    for packs in &sealed {
        assert!(!packs.is_empty());
        condemn(owner, &[original.as_slice(), packs].concat());
    }
    let report =
        run(owner, &PruneOptions { max_held: Some(Unused::Share { hundredths: 10_000 }), ..thorough() });
    assert!(report.copied_bytes > 60_000 && report.deleted_packs > original.len() as u64, "{report:?}");
    series.reads(owner, "rescued");
    is_clean(owner, "rescued");
    run(owner, &thorough());
    let last = run(owner, &thorough());
    assert_eq!((last.base_bytes, last.condemned_packs, last.resealed.blobs), (0, 0, 0), "{last:?}");
    series.reads(owner, "and sealed anew");
    is_clean(owner, "and sealed anew");
}

/// A victim's versions, of which some were forgotten, and a thief of the same trust domain.
struct Besieged {
    series: Series,
    thief: Client,
}

fn besieged(seed: u64) -> Besieged {
    let series = Series::daily(seed, 7, 5);
    let thief = client_with(&series.owner, Role::Writer, "thief", "", &["web"]);
    Besieged { series, thief }
}

fn forged(located: &Located) -> Claim {
    let blob = (located.record.id, located.record.length);
    Claim { blob, encoding: Encoding::Stored, base: None, encoded: noise(99, blob.1 as usize) }
}

#[test]
fn a_poisoned_copy_is_never_sealed_anew() {
    let Besieged { series, thief } = besieged(101);
    let owner = &series.owner;
    for located in records_of(&thief.open(), BlobClass::Content) {
        poison(&thief, BlobClass::Content, forged(&located));
    }
    let before = pack_bytes(series.store.as_ref());
    let report = run(owner, &thorough());
    assert!(report.resealed.blobs > 0 && report.resealed.unreadable == 0, "{report:?}");
    series.reads(owner, "poison beside true copies");
    vouched_for_is_true(owner);
    // What only claims to stand alone makes nobody store whole what differs from something.
    assert!(pack_bytes(series.store.as_ref()) * 2 < before, "{report:?}");
    assert!(report.resealed.bytes < 70_000, "one version, and what the other differs by: {report:?}");
    let again = run(owner, &thorough());
    assert_eq!((again.resealed.blobs, again.base_bytes, again.condemned_packs), (0, 0, 0), "{again:?}");
}

#[test]
fn a_poisoned_base_stops_nothing_else() {
    let Besieged { series, thief } = besieged(103);
    let owner = &series.owner;
    let on = owner.on_host("db2");
    let mut others: Vec<(SnapshotId, Content)> = Vec::new();
    for day in 0..7 {
        let version = daily(104, 60_000, day);
        others.push((store_version(&on, &version), version));
    }
    let gone: Vec<SnapshotId> = others.drain(..5).map(|(id, _)| id).collect();
    forget_all(owner, &gone);
    // Forged copies in the place of the first version that all others differ from.
    let repository = owner.open();
    let records = records_of(&repository, BlobClass::Content);
    let mut reader = BlobReader::new(&repository).unwrap();
    let first = daily(103, 60_000, 0);
    let mut lost: BTreeSet<PackId> = BTreeSet::new();
    for located in records.iter().filter(|copy| copy.record.depth == 0) {
        let plain = reader.read_copy(located).unwrap();
        if first[&b"app"[..]].windows(plain.bytes().len()).any(|window| window == plain.bytes()) {
            poison(&thief, BlobClass::Content, forged(located));
            lost.insert(located.pack.id);
        }
    }
    assert_eq!(lost.len(), 1);
    crate::delete(series.store.as_ref(), &lost.into_iter().collect::<Vec<_>>());
    assert!(owner.read(series.kept[0].0).is_err());
    let report = run(owner, &thorough());
    assert!(report.resealed.unreadable > 0 && report.resealed.blobs > 0, "{report:?}");
    assert!(owner.listener.warned().contains("is not sealed anew"), "{}", owner.listener.warned());
    for (id, version) in &others {
        assert_eq!(owner.read(*id).unwrap(), *version);
    }
    vouched_for_is_true(owner);
    let again = run(owner, &thorough());
    assert_eq!((again.resealed.blobs, again.condemned_packs), (0, 0), "{again:?}");
}

fn key_of(client: &Client) -> KeyId {
    client.open().keyring().identity.key
}

/// Packs that the owner vouches for.
fn attested(owner: &Client) -> BTreeSet<PackId> {
    let found = owner.open().annotations().unwrap().found.into_iter();
    let found = found.filter(|found| found.annotation.kind == AnnotationKind::Attested);
    found.flat_map(|found| found.annotation.packs.iter().copied().collect::<Vec<_>>()).collect()
}

/// Everything in packs that the owner vouches for is what its id says.
fn vouched_for_is_true(owner: &Client) {
    let repository = owner.open();
    let mut reader = BlobReader::new(&repository).unwrap();
    let attested = attested(owner);
    let sealed = records_of(&repository, BlobClass::Content).into_iter();
    let sealed: Vec<_> = sealed.filter(|copy| attested.contains(&copy.pack.id)).collect();
    assert!(!sealed.is_empty());
    for copy in &sealed {
        reader.read_copy(copy).unwrap();
    }
}

#[test]
fn only_an_owner_who_signed_a_pack_vouches_for_it() {
    // [CONCURRENCY-58]
    let Besieged { series, thief } = besieged(105);
    let owner = &series.owner;
    let reader = client_with(owner, Role::Reader, "reader", "", &[]);
    let maintainer = client_with(owner, Role::Maintainer, "keeper", "", &[]);
    let before: BTreeSet<PackId> = packs(series.store.as_ref()).into_iter().collect();
    for located in records_of(&thief.open(), BlobClass::Content) {
        poison(&thief, BlobClass::Content, forged(&located));
    }
    let new = || packs(series.store.as_ref()).into_iter().filter(|pack| !before.contains(pack));
    // A reader who lies or was deceived; an owner who has not sealed what another signed; and the thief, who may not
    // attest at all and does it all the same.
    reader.open().attest(new(), "test").unwrap();
    owner.open().attest(new(), "test").unwrap();
    thief.open().attest(new(), "test").unwrap_err();
    let mut lie = Annotation::new(AnnotationKind::Attested, Timestamp::from_nanoseconds(1));
    lie.packs = new().collect();
    (lie.method, lie.outcome) = (Some("test".to_owned()), Some(Outcome::Passed));
    let lie = sealed(&thief.open(), ObjectKind::Annotation, &lie.encode().unwrap(), None);
    put(&thief, "annotations/00000001", &lie);
    let usual = PruneOptions { max_held: None, ..thorough() };
    for _ in 0..3 {
        run(&maintainer, &usual);
        series.reads(owner, "attested by others");
    }
}

#[test]
fn who_describes_a_pack_that_is_vouched_for_does_not_say_what_is_in_it() {
    // [CONCURRENCY-58], [INDEX-9]
    let Besieged { series, thief } = besieged(106);
    let owner = &series.owner;
    let maintainer = client_with(owner, Role::Maintainer, "keeper", "", &[]);
    let victim = client_with(owner, Role::Writer, "victim", "", &["db3"]);
    let version = content([("victim", noise(106, 30_000))]);
    let id = victim.back_up(&version);
    // The owner is killed between the annotation and the index run.
    let dies = |_, operation, name: &str| {
        (operation == Operation::Put && name.starts_with("index/")).then_some(Fault::Before(Failure::Fatal))
    };
    let killed = owner.through(Arc::new(FaultStore::with_plan(series.store.clone(), dies)));
    prune(&killed.open(), &thorough()).unwrap_err();
    let attested = attested(owner);
    assert!(!attested.is_empty());
    for pack in attested {
        let name = chronolith::repo::pack_name(&pack);
        let length = series.store.head(&name).unwrap().length;
        let (known, frames) = owner.open().describe_pack(&pack, length).unwrap();
        let entry =
            PackEntry { id: pack, length: known.length, class: known.class, origins: known.origins.to_vec() };
        let victims = records_of(&victim.open(), known.class).into_iter();
        let victims = victims.filter(|copy| copy.pack.signer == key_of(&victim));
        let records: Vec<_> = victims
            .map(|copy| IndexRecord {
                pack: 0,
                frame_offset: frames[0].offset,
                sealed_length: frames[0].sealed_length,
                plain_length: copy.record.length.max(frames[0].plain_length),
                offset: 0,
                counter: frames[0].counter,
                base: None,
                depth: 0,
                origin: 0,
                encoding: Encoding::Zstd,
                ..copy.record
            })
            .collect();
        put(&thief, "index/00000001", &index_run(&thief.open(), vec![entry], records, None));
    }
    for client in [&maintainer, owner, &maintainer] {
        run(client, &PruneOptions { max_held: None, ..thorough() });
        assert_eq!(owner.read(id).unwrap(), version);
        series.reads(owner, "described by the thief");
    }
    run(owner, &thorough());
    assert_eq!(owner.read(id).unwrap(), version);
    series.reads(owner, "sealed anew beside it");
}

#[test]
fn copies_of_other_trust_domains_stay() {
    // [CONCURRENCY-57]: whoever does not adopt from the owner keeps what he relies on.
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 107);
    let near = client_with(&owner, Role::Writer, "near", "", &["db1"]);
    let far = client_with(&owner, Role::Writer, "far", "elsewhere", &["db2"]);
    let old = content([("gone", noise(5, 150_000)), ("kept", noise(1, 60_000))]);
    let kept = content([("kept", noise(1, 60_000))]);
    let mut ids = Vec::new();
    for writer in [&near, &far] {
        let forgotten = writer.back_up(&old);
        ids.push(writer.back_up(&kept));
        forget_all(&owner, &[forgotten]);
    }
    let of = |client: &Client| {
        let key = client.open().keyring().identity.key;
        let records = records_of(&owner.open(), BlobClass::Content).into_iter();
        let there: BTreeSet<PackId> = packs(store.as_ref()).into_iter().collect();
        let own = records.filter(|copy| copy.pack.signer == key && there.contains(&copy.pack.id));
        own.map(|copy| copy.pack.id).collect::<BTreeSet<_>>().len()
    };
    assert!(of(&near) > 0 && of(&far) > 0);
    let report = run(&owner, &thorough());
    assert!(
        report.resealed.blobs > 0 && report.shared_frame_bytes > 100_000,
        "of the other domain: {report:?}"
    );
    let again = run(&owner, &thorough());
    assert_eq!((again.resealed.blobs, again.condemned_packs), (0, 0), "{again:?}");
    assert!(of(&near) == 0 && of(&far) > 0);
    for id in ids {
        assert_eq!(owner.read(id).unwrap(), kept);
    }
    // Both go on from there.
    for writer in [&near, &far] {
        let next = writer.try_back_up(&kept).unwrap();
        assert_eq!(next.summary.new_blobs, 1, "only the root");
    }
    is_clean(&owner, "two domains");
}
