//! Merged log packs: many archived segments become one object, and none is lost or changed on the way, whoever writes, forgets,
//! prunes or dies meanwhile.

use crate::hooked;
use crate::support::ManualClock;
use crate::support::world::{Client, log_entry, noise};
use crate::support::{Failure, Fault, FaultStore};
use crate::sweep::run;
use chronolith::base::{Clock, LogPackId, Quiet, SecretBytes, Timestamp};
use chronolith::crypto::SIGNATURE_BYTES;
use chronolith::format::ObjectKind;
use chronolith::format::log::{LogPackFront, LogPackView, LogRecord, LogRecordKind};
use chronolith::format::trust::scope::Scope;
use chronolith::format::trust::{Act, Role};
use chronolith::ops::Snapshots;
use chronolith::ops::check::{CheckOptions, ReadData, check, check_and_repair};
use chronolith::ops::copy::{CopyOptions, copy_logs};
use chronolith::ops::forget::forget_logs;
use chronolith::ops::keys::{self, NewKey};
use chronolith::ops::mirror::{MirrorOptions, follow_sweep, lost_at_source, mirror};
use chronolith::ops::parity;
use chronolith::ops::prune::{PruneOptions, PruneReport, prune};
use chronolith::ops::undelete::undelete_logs;
use chronolith::repo::{FoundLog, LogEntry, LogPut, NewSlot, RepoError, Repository};
use chronolith::storage::{MemoryStore, Operation, Store};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const STREAM: &str = "pg/main/1";
/// As many as are worth a merge.
const COUNT: u64 = 64;
pub const HOUR: u64 = 3600;
pub const DAY: u64 = 24 * HOUR;

pub fn entry(number: u64) -> LogEntry {
    LogEntry {
        timeline: Some(1),
        positions: Some((number << 24, (number + 1) << 24)),
        ..log_entry(STREAM, &name(number))
    }
}

fn name(number: u64) -> String {
    format!("0000000100000000000000{number:02X}")
}

pub fn bytes(number: u64) -> Vec<u8> {
    let mut bytes = noise(number, 300);
    bytes.resize(length(number), 0);
    bytes
}

/// Zeros at the end are chunks that some segments have in common.
fn length(number: u64) -> usize {
    if number % 8 == 7 { 200_000 } else { 300 }
}

/// A repository whose store has a clock of its own, which the client's follows.
pub struct Scene {
    pub clock: Arc<ManualClock>,
    pub store: Arc<MemoryStore>,
    pub client: Client,
}

impl Scene {
    pub fn new(count: u64) -> Self {
        Self::seeded(count, 5)
    }

    fn seeded(count: u64, seed: u64) -> Self {
        let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        let client = Client::init(store.clone(), seed);
        let scene = Self { clock, store, client };
        let repository = scene.client.open();
        for number in 1..=count {
            repository.archive_log(&entry(number), &bytes(number)).unwrap();
        }
        scene
    }

    pub fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.client.clock.shift_seconds(seconds as i64);
    }

    /// The same at another place, with the times at which everything was stored.
    pub fn copy(&self) -> Self {
        let mut objects = self.store.list("").unwrap();
        objects.sort_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
        let first = objects[0].modified.unwrap();
        let clock = Arc::new(ManualClock::at_seconds(first.seconds()));
        let until = |time: Timestamp| {
            let ahead = time.nanoseconds() - clock.now().nanoseconds();
            clock.advance(Duration::from_nanos(ahead.max(0) as u64));
        };
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        for object in objects {
            until(object.modified.unwrap());
            store.put(&object.name, &self.store.get(&object.name, u64::MAX).unwrap()).unwrap();
        }
        until(self.clock.now());
        Self { client: self.client.through(store.clone()), clock, store }
    }

    pub fn prune(&self) -> PruneReport {
        run(&self.client, HOUR).unwrap()
    }

    /// Merges, and sweeps the originals once they may go.
    fn merged(count: u64) -> Self {
        let scene = Self::new(count);
        scene.pass(2 * HOUR);
        scene.prune();
        scene.pass(DAY);
        scene.prune();
        assert_eq!(scene.counts(), (0, 1));
        scene
    }

    /// Originals, and merged ones.
    fn counts(&self) -> (usize, usize) {
        let all = self.store.list("logs/").unwrap();
        let in_folder = |folder| all.iter().filter(|object| object.name.contains(folder)).count();
        let merged = in_folder("/merged/");
        (all.len() - merged - in_folder("/records/"), merged)
    }

    /// Every segment comes back, looked up and listed, for a client that knows nothing.
    fn holds(&self, numbers: impl IntoIterator<Item = u64>, what: &str) {
        let repository = self.client.open();
        let mut listed: BTreeMap<String, Vec<FoundLog>> = BTreeMap::new();
        let listing = repository.log_stream(STREAM).unwrap();
        assert!(listing.refused.is_empty(), "{what}: {:?}", listing.refused);
        for found in listing.found {
            listed.entry(found.record.name.clone()).or_default().push(found);
        }
        for number in numbers {
            let found = listed.remove(&name(number)).unwrap_or_default();
            assert_eq!(read(&repository, &found), bytes(number), "{what}: {number} as listed");
            let found = repository.search_log(STREAM, &name(number)).unwrap().found;
            assert_eq!(read(&repository, &found), bytes(number), "{what}: {number} as looked up");
        }
        assert!(listed.is_empty(), "{what}: {:?}", listed.keys());
    }

    pub fn is_sound(&self, what: &str) {
        let options =
            CheckOptions { read_data: ReadData::All, keep_ledger: false, program: "test".to_owned() };
        let report = check(&self.client.open(), &options).unwrap();
        assert!(report.findings.is_empty() && !report.is_damaged(), "{what}: {:?}", report.findings);
    }

    fn merged_id(&self) -> LogPackId {
        let merges = self.client.open().merged_logs(STREAM).unwrap().found;
        assert_eq!(merges.len(), 1);
        merges[0].id
    }
}

fn read(repository: &Repository, found: &[FoundLog]) -> Vec<u8> {
    let mut read = Vec::new();
    repository
        .read_segment(found, &mut |piece| {
            read.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
    read
}

#[test]
fn segments_become_one_object_and_the_originals_go_a_day_later() {
    // [LOG-PACK-2], [LOG-PACK-10], [CONCURRENCY-40]
    let scene = Scene::new(COUNT - 1);
    scene.client.open().archive_log(&entry(COUNT), &bytes(COUNT)).unwrap();
    // What is fresh stays by itself.
    assert_eq!(scene.prune().merged_logs, 0);
    scene.pass(2 * HOUR);
    let dry = PruneOptions { dry_run: true, ..PruneOptions::new("test") };
    assert_eq!(prune(&scene.client.open(), &dry).unwrap().merged_logs, COUNT);
    let bounded = PruneOptions { max_repack_bytes: Some(1000), ..PruneOptions::new("test") };
    assert_eq!(prune(&scene.client.open(), &bounded).unwrap().merged_logs, 0);
    assert_eq!(scene.counts(), (COUNT as usize, 0));

    let report = scene.prune();
    assert_eq!((report.merged_logs, report.condemned_logs, report.deleted_logs), (COUNT, COUNT, 0));
    assert!(report.merged_log_bytes > 64 * 900 && report.waiting_for_grace == 1, "{report:?}");
    assert_eq!(scene.counts(), (COUNT as usize, 1));
    scene.holds(1..=COUNT, "beside the originals");
    scene.is_sound("beside the originals");
    let merges = scene.client.open().merged_logs(STREAM).unwrap().found;
    let [run] = merges[0].record.runs.as_slice() else { panic!("{:?}", merges[0].record.runs) };
    assert_eq!((run.first.clone(), run.last.clone(), run.records), (name(1), name(COUNT), COUNT));
    assert_eq!(
        (run.bytes, run.positions),
        ((1..=COUNT).map(length).sum::<usize>() as u64, Some((1 << 24, (COUNT + 1) << 24)))
    );

    // The grace has passed, but whoever has looked up merged log packs half a day ago knows none of this one.
    scene.pass(2 * HOUR);
    assert_eq!(scene.prune().deleted_logs, 0);
    scene.pass(22 * HOUR);
    let report = scene.prune();
    assert_eq!((report.merged_logs, report.deleted_logs, report.waiting_for_grace), (0, COUNT, 0));
    assert_eq!(scene.counts(), (0, 1));
    scene.holds(1..=COUNT, "without the originals");
    scene.is_sound("without the originals");
    scene.pass(10 * DAY);
    scene.prune();
    assert_eq!(scene.counts(), (0, 1));
}

/// A gap ends a run; what was stored under one name twice stays by itself, and so do the few beside it.
#[test]
fn only_what_lies_side_by_side_is_merged() {
    let scene = Scene::new(COUNT + 10);
    let repository = scene.client.open();
    let twice = repository.find_log(STREAM, &name(5)).unwrap().found.remove(0);
    repository.store_log_again(&twice).unwrap();
    scene.pass(2 * HOUR);
    let report = scene.prune();
    assert_eq!((report.merged_logs, report.condemned_logs), (COUNT + 5, COUNT + 5));
    scene.pass(2 * DAY);
    scene.prune();
    assert_eq!(scene.counts(), (6, 1));
    scene.holds(1..=COUNT + 10, "without a few");
}

#[test]
fn a_push_under_a_merged_name_is_compared() {
    // [LOG-PACK-7], [LOG-PACK-8]
    let scene = Scene::merged(COUNT);
    let folder = tempfile::tempdir().unwrap();
    let id = scene.merged_id();
    for client in [scene.client.clone(), scene.client.with_cache(folder.path())] {
        for _ in 0..2 {
            let repository = client.open();
            assert_eq!(repository.archive_log(&entry(7), &bytes(7)).unwrap(), LogPut::Present(id));
            let taken = repository.archive_log(&entry(7), &bytes(8)).unwrap_err();
            assert!(matches!(taken, RepoError::LogTaken { .. }), "{taken}");
            let digest = |number| {
                let (bytes, length) = (bytes(number), length(number) as u64);
                chronolith::format::log::LogDigest { length, blake3: *blake3::hash(&bytes).as_bytes() }
            };
            assert!(repository.lists_log(STREAM, &name(7), &digest(7)).unwrap());
            assert!(!repository.lists_log(STREAM, &name(7), &digest(8)).unwrap());
            let mut seen = Default::default();
            let piece = repository.append_log_piece(&entry(7), 0, &bytes(7)[..100], &mut seen);
            assert!(matches!(piece.unwrap(), LogPut::Stored(_) | LogPut::Present(_)));
            let new = repository.archive_log(&entry(COUNT + 1), &bytes(COUNT + 1)).unwrap();
            assert!(matches!(new, LogPut::Stored(_) | LogPut::Present(_)));
        }
    }
    let conflicts = scene.client.open().log_records(STREAM).unwrap().found;
    assert_eq!(conflicts.len(), 1, "whoever is refused again is recorded once");
    assert_eq!(conflicts[0].record.against, Some(id));
}

/// A client that listed merged log packs some hours ago finds whatever was merged since.
#[test]
fn what_a_client_knows_may_be_half_a_day_old() {
    let scene = Scene::new(COUNT);
    scene.pass(2 * HOUR);
    let folder = tempfile::tempdir().unwrap();
    let old = scene.client.with_cache(folder.path());
    let repository = old.open();
    assert!(matches!(repository.archive_log(&entry(1), &bytes(1)).unwrap(), LogPut::Present(_)));
    scene.prune();
    scene.pass(11 * HOUR);
    scene.prune();
    for repository in [repository.clone(), old.open()] {
        assert!(matches!(repository.archive_log(&entry(2), &bytes(2)).unwrap(), LogPut::Present(_)));
        assert!(repository.archive_log(&entry(2), &bytes(3)).is_err());
        assert_eq!(read(&repository, &repository.search_log(STREAM, &name(2)).unwrap().found), bytes(2));
    }
    scene.pass(14 * HOUR);
    scene.prune();
    assert_eq!(scene.counts().0, 0);
    for repository in [repository, old.open()] {
        assert_eq!(repository.archive_log(&entry(2), &bytes(2)).unwrap(), LogPut::Present(scene.merged_id()));
        assert!(repository.archive_log(&entry(2), &bytes(3)).is_err());
        assert_eq!(read(&repository, &repository.search_log(STREAM, &name(2)).unwrap().found), bytes(2));
    }
}

/// A merge and a sweep that are killed at any request lose nothing, and the next ones end what they began.
#[test]
fn a_merge_may_be_killed_at_every_request() {
    let scene = Scene::new(COUNT);
    scene.pass(2 * HOUR);
    let merged = scene.copy();
    merged.prune();
    merged.pass(DAY);
    for (scene, step, at_least) in [(scene, 41, 150), (merged, 11, 30)] {
        for number in (1..).step_by(step) {
            let scene = scene.copy();
            let what = format!("killed at request {number}");
            let fault = Fault::Before(Failure::Fatal);
            let faulty = Arc::new(FaultStore::failing_from(scene.store.clone(), number, fault));
            drop(run_through(&scene, faulty.clone()));
            scene.holds(1..=COUNT, &what);
            for _ in 0..4 {
                scene.pass(2 * DAY);
                scene.prune();
            }
            assert_eq!(scene.counts(), (0, 1), "{what}");
            scene.holds(1..=COUNT, &what);
            if !faulty.fired() {
                assert!(number > at_least, "it has more than {number} requests");
                break;
            }
        }
    }
}

pub fn run_through(scene: &Scene, store: Arc<dyn Store>) -> Option<PruneReport> {
    let repository = scene.client.through(store).try_open().ok()?;
    prune(&repository, &PruneOptions { grace_seconds: HOUR, ..PruneOptions::new("test") }).ok()
}

/// Does something once, before the first put of a name that holds this.
fn before_put(scene: &Scene, part: &'static str, deed: impl Fn() + Send + Sync + 'static) -> Arc<dyn Store> {
    let done: Arc<Mutex<bool>> = Arc::default();
    hooked(&scene.store, move |operation, name| {
        let now = operation == Operation::Put && name.contains(part);
        if now && !std::mem::replace(&mut *done.lock().unwrap(), true) {
            deed();
        }
    })
}

#[test]
fn two_merges_at_once_end_as_one() {
    let scene = Scene::new(COUNT);
    scene.pass(2 * HOUR);
    let other = scene.client.clone();
    let store = before_put(&scene, "/merged/", move || {
        assert_eq!(run(&other, HOUR).unwrap().merged_logs, COUNT);
    });
    assert_eq!(run_through(&scene, store).unwrap().merged_logs, COUNT);
    assert_eq!(scene.counts(), (COUNT as usize, 2));
    scene.holds(1..=COUNT, "merged twice");
    for _ in 0..4 {
        scene.pass(2 * DAY);
        scene.prune();
        scene.holds(1..=COUNT, "merged twice, then pruned");
    }
    assert_eq!(scene.counts(), (0, 1));
    scene.is_sound("merged twice");
}

/// A push that was suspended before its put arrives when its name was merged, and the original is long gone.
#[test]
fn a_push_that_slept_through_a_merge_takes_nobodys_place() {
    // [CONCURRENCY-39], [CONCURRENCY-41]
    for same in [true, false] {
        let scene = Scene::new(COUNT - 1);
        let sleeper = scene.client.clone();
        let (clock, shifted) = (scene.clock.clone(), sleeper.clone());
        let store = before_put(&scene, "logs/", move || {
            let pass = |seconds: u64| {
                clock.advance(Duration::from_secs(seconds));
                shifted.clock.shift_seconds(seconds as i64);
            };
            shifted.open().archive_log(&entry(COUNT), &bytes(COUNT)).unwrap();
            pass(2 * HOUR);
            assert_eq!(run(&shifted, HOUR).unwrap().merged_logs, COUNT);
            pass(DAY);
            assert_eq!(run(&shifted, HOUR).unwrap().deleted_logs, COUNT);
        });
        let put =
            sleeper.through(store).open().archive_log(&entry(COUNT), &bytes(if same { COUNT } else { 1 }));
        match same {
            true => assert!(matches!(put, Ok(LogPut::Stored(_))), "{put:?}"),
            false => assert!(matches!(put, Err(RepoError::LogTaken { .. })), "{put:?}"),
        }
        let repository = scene.client.open();
        let found = repository.search_log(STREAM, &name(COUNT)).unwrap().found;
        assert_eq!((found.len(), found[0].id), (2, scene.merged_id()));
        assert_eq!(read(&repository, &found), bytes(COUNT));
        for _ in 0..3 {
            scene.pass(2 * DAY);
            scene.prune();
        }
        let found = repository.search_log(STREAM, &name(COUNT)).unwrap().found;
        assert_eq!(read(&repository, &found), bytes(COUNT));
    }
}

/// Other bytes that came in between, under a name whose original is to go: by the store's times that one counts,
/// so that it must not go.
#[test]
fn an_original_stays_where_something_else_has_its_name() {
    let scene = Scene::new(COUNT);
    scene.pass(2 * HOUR);
    // A push that has looked before, and puts now.
    let (other, clock) = (scene.copy(), scene.clock.clone());
    other.store.list("logs/").unwrap().iter().for_each(|object| other.store.delete(&object.name).unwrap());
    other.client.open().archive_log(&entry(3), &bytes(4)).unwrap();
    let strange = other.store.list("logs/").unwrap().remove(0);
    let strange = (strange.name.clone(), other.store.get(&strange.name, u64::MAX).unwrap());
    let into = scene.store.clone();
    let store = before_put(&scene, "/merged/", move || {
        into.put(&strange.0, &strange.1).unwrap();
        clock.advance(Duration::from_secs(1));
    });
    assert_eq!(run_through(&scene, store).unwrap().merged_logs, COUNT);
    for _ in 0..3 {
        scene.pass(2 * DAY);
        scene.prune();
    }
    assert_eq!(scene.counts(), (2, 1));
    let repository = scene.client.open();
    let found = repository.search_log(STREAM, &name(3)).unwrap().found;
    assert_eq!(read(&repository, &found), bytes(3));
}

/// What is forgotten is not merged; a merged one is forgotten as a whole, and comes back as a whole.
#[test]
fn a_merged_log_pack_is_forgotten_and_comes_back_whole() {
    // [CONCURRENCY-24], [CONCURRENCY-56]
    let scene = Scene::merged(COUNT);
    let id = scene.merged_id();
    let repository = scene.client.open();
    forget_logs(&repository, &Snapshots::load(&repository).unwrap(), &[id]).unwrap();
    let report = scene.prune();
    assert_eq!((report.condemned_logs, report.deleted_logs), (1, 0));
    let found = repository.log_stream(STREAM).unwrap().found;
    assert_eq!(found.len(), COUNT as usize);
    undelete_logs(&repository, &found, "test").unwrap();
    scene.pass(2 * HOUR);
    assert_eq!(scene.prune().deleted_logs, 1);
    assert_ne!(scene.merged_id(), id);
    scene.holds(1..=COUNT, "brought back");
    let repository = scene.client.open();
    forget_logs(&repository, &Snapshots::load(&repository).unwrap(), &[scene.merged_id()]).unwrap();
    scene.prune();
    scene.pass(2 * HOUR);
    scene.prune();
    assert_eq!(scene.counts(), (0, 0));
}

/// Forgotten once it was merged: its originals have a root no more, and nothing else relies on it.
#[test]
fn a_forgotten_merge_stands_in_for_nothing() {
    let scene = Scene::new(COUNT);
    scene.pass(2 * HOUR);
    scene.prune();
    let repository = scene.client.open();
    forget_logs(&repository, &Snapshots::load(&repository).unwrap(), &[scene.merged_id()]).unwrap();
    for _ in 0..3 {
        scene.pass(2 * DAY);
        scene.prune();
        scene.holds(1..=COUNT, "the merge was forgotten");
    }
    // They were merged anew.
    assert_eq!(scene.counts(), (0, 1));
}

/// A merged log pack in which a bit is wrong is relied on by nobody.
#[test]
fn a_merge_that_rotted_stands_in_for_nothing() {
    let scene = Scene::new(COUNT);
    scene.pass(2 * HOUR);
    scene.prune();
    let object = scene.client.open().merged_logs(STREAM).unwrap().found.remove(0);
    let mut bytes = scene.store.get(&object.object, u64::MAX).unwrap();
    // In a frame: no short read shows it.
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    scene.store.delete(&object.object).unwrap();
    scene.store.put(&object.object, &bytes).unwrap();
    scene.pass(2 * DAY);
    assert_eq!(scene.prune().deleted_logs, 0);
    scene.pass(DAY);
    assert_eq!(scene.prune().deleted_logs, 0);
    scene.holds(1..=COUNT, "the merge has rotted");
}

fn writer_of(scene: &Scene) -> Client {
    let new = NewKey {
        role: Role::Writer,
        name: "db1".to_owned(),
        domain: String::new(),
        scope: Scope { streams: vec!["pg/*".to_owned(), "pg/main/*".to_owned()], ..Scope::default() },
    };
    let key_file = vec![9; 32];
    let secret = SecretBytes::new(key_file.clone());
    keys::add(&scene.client.open(), &new, &NewSlot::KeyFile(&secret)).unwrap();
    Client { clock: scene.client.clock.clone(), ..Client::holding(scene.store.clone(), key_file) }
}

/// Puts a merged log pack together by hand: its front with a merge's record that a key made, and what follows of a real one.
fn forge(scene: &Scene, by: &Repository, act: Act<'_>, change: impl Fn(&mut LogRecord, &mut Vec<Vec<u8>>)) {
    let real = scene.copy();
    for object in real.store.list("logs/").unwrap().iter().filter(|object| object.name.contains("/merged/")) {
        real.store.delete(&object.name).unwrap();
    }
    real.prune();
    let merge = real.client.open().merged_logs(STREAM).unwrap().found.remove(0);
    let whole = real.store.get(&merge.object, u64::MAX).unwrap();
    let front = LogPackFront::parse(&whole).unwrap();
    let mut records: Vec<Vec<u8>> = front.records.iter().skip(1).map(|record| record.to_vec()).collect();
    let mut record = merge.record.clone();
    change(&mut record, &mut records);
    let (_, first) = by.seal_object(ObjectKind::LogRecord, act, &record.encode().unwrap()).unwrap();
    let mut forged = Vec::new();
    let all = [first.as_slice()].into_iter().chain(records.iter().map(Vec::as_slice)).collect();
    LogPackFront { signer: by.keyring().identity.key, origins: front.origins.clone(), records: all }
        .encode(&mut forged)
        .unwrap();
    forged.extend_from_slice(&whole[front.frames_offset() as usize..]);
    let id = blake3::hash(&forged);
    let folder = merge.object.rsplit_once('/').unwrap().0;
    scene.store.put(&format!("{folder}/{}", id.to_hex()), &forged).unwrap();
}

#[test]
fn forged_merges_count_for_nothing() {
    // [LOG-PACK-2], [LOG-PACK-3], [LOG-PACK-10]
    let scene = Scene::new(COUNT);
    let writer = writer_of(&scene);
    scene.pass(2 * HOUR);
    let owner = scene.client.open();
    let as_writer = Act::LogRecord { stream: STREAM };
    forge(&scene, &writer.open(), as_writer, |_, _| {});
    // Bytes that a record does not have any more, and runs that say more than there is.
    forge(&scene, &owner, Act::LogMerge, |_, records| {
        let last = records[3].len() - 1;
        records[3][last] ^= 1;
    });
    forge(&scene, &owner, Act::LogMerge, |record, _| {
        record.runs[0].last = name(COUNT + 20);
        record.last_name = Some(name(COUNT + 20));
    });
    forge(&scene, &owner, Act::LogMerge, |record, _| record.runs[0].records += 1);
    forge(&scene, &owner, Act::LogMerge, |_, records| drop(records.pop()));
    assert_eq!(scene.counts(), (COUNT as usize, 5));
    let repository = scene.client.open();
    let listing = repository.log_stream(STREAM).unwrap();
    assert_eq!((listing.found.len(), listing.refused.len()), (COUNT as usize, 5));
    // Nobody is refused because of them, and nothing goes.
    let new = repository.archive_log(&entry(COUNT + 1), &bytes(1)).unwrap();
    assert!(matches!(new, LogPut::Stored(_)));
    let report = scene.prune();
    assert_eq!((report.merged_logs, report.condemned_logs), (COUNT, COUNT));
    for _ in 0..3 {
        scene.pass(2 * DAY);
        scene.prune();
    }
    // Of those that say nothing that the good one does not say some are superfluous.
    let (originals, merged) = scene.counts();
    assert!(originals == 1 && (3..=5).contains(&merged), "{originals} {merged}");
    let repository = scene.client.open();
    for number in 1..=COUNT {
        let found = repository.search_log(STREAM, &name(number)).unwrap().found;
        assert_eq!(read(&repository, &found), bytes(number), "{number}");
    }
    // A writer may not make one.
    let sources = writer.open().log_stream(STREAM).unwrap().found;
    assert!(writer.open().merge_logs(&[&sources[0]]).is_err());
}

/// A writer that claims to hold another's blobs, in frames that do not open, spoils nobody's segment ([LOG-PACK-5]).
#[test]
fn frames_that_lie_harm_only_their_own() {
    let scene = Scene::new(COUNT);
    scene.pass(2 * HOUR);
    let repository = scene.client.open();
    let found = repository.log_stream(STREAM).unwrap().found;
    let liar = found.iter().find(|log| log.record.name == name(1)).unwrap();
    // The frames of one segment rot, and are signed all the same: as somebody would who wants others to rot.
    let mut forged = scene.store.get(&liar.object, u64::MAX).unwrap();
    let end = LogPackView::parse(&forged).unwrap().trailer.contents_offset as usize;
    forged[end - 1] ^= 1;
    forged.truncate(forged.len() - SIGNATURE_BYTES);
    let forged = crate::forge::signed(&repository, ObjectKind::LogPack, forged);
    scene.store.delete(&liar.object).unwrap();
    let folder = liar.object.rsplit_once('/').unwrap().0;
    scene.store.put(&format!("{folder}/{}", blake3::hash(&forged).to_hex()), &forged).unwrap();
    scene.pass(2 * HOUR);
    assert_eq!(scene.prune().merged_logs, COUNT);
    scene.pass(2 * DAY);
    scene.prune();
    assert_eq!(scene.counts(), (0, 1));
    let repository = scene.client.open();
    for number in 2..=COUNT {
        let found = repository.search_log(STREAM, &name(number)).unwrap().found;
        assert_eq!(read(&repository, &found), bytes(number), "{number}");
        assert_eq!(found[0].record.kind, LogRecordKind::Segment);
    }
}

/// A mirror that was made before segments were merged, and that saw neither the announcement nor the condemnation.
#[test]
fn a_mirror_follows_a_merge_that_it_slept_through() {
    let scene = Scene::new(COUNT + 3);
    let repository = scene.client.open();
    let forgotten = repository.find_log(STREAM, &name(COUNT + 3)).unwrap().found[0].id;
    forget_logs(&repository, &Snapshots::load(&repository).unwrap(), &[forgotten]).unwrap();
    let mirror_to = |target: &MemoryStore| {
        let options = MirrorOptions { workers: 2, ..MirrorOptions::default() };
        let report = mirror(scene.store.as_ref(), target, &options, &Quiet).unwrap();
        follow_sweep(&scene.client.open(), target, &report, false).unwrap()
    };
    let (asleep, awake) = (MemoryStore::new(), MemoryStore::new());
    mirror_to(&asleep);
    for _ in 0..4 {
        scene.pass(2 * DAY);
        scene.prune();
        mirror_to(&awake);
    }
    assert_eq!(scene.counts(), (0, 1));
    mirror_to(&asleep);
    let names = |store: &dyn Store| -> Vec<String> {
        store.list("logs/").unwrap().into_iter().map(|object| object.name).collect()
    };
    for target in [asleep, awake] {
        assert_eq!(names(&target), names(scene.store.as_ref()));
        let mirrored = Scene { store: Arc::new(target), ..scene.copy() };
        let mirrored = Scene { client: scene.client.through(mirrored.store.clone()), ..mirrored };
        mirrored.holds(1..=COUNT + 2, "mirrored");
        mirrored.is_sound("mirrored");
    }

    // What the source lost is not taken for merged.
    let target = MemoryStore::new();
    mirror_to(&target);
    let merge = scene.client.open().merged_logs(STREAM).unwrap().found.remove(0);
    scene.store.delete(&merge.object).unwrap();
    let report = mirror(scene.store.as_ref(), &target, &MirrorOptions::default(), &Quiet).unwrap();
    assert!(follow_sweep(&scene.client.open(), &target, &report, false).is_err());
    assert_eq!(lost_at_source(&scene.client.open(), &target, &report).unwrap(), [merge.object]);
}

/// Merged log packs are copied into another repository segment by segment.
#[test]
fn what_was_merged_is_copied() {
    let scene = Scene::merged(COUNT);
    let other = Scene::seeded(0, 6);
    let options = CopyOptions { workers: 1, ..CopyOptions::new("test") };
    for copied in [COUNT, 0] {
        let logs = copy_logs(&scene.client.open(), &other.client.open(), |_| true, &options).unwrap();
        assert_eq!((logs.copied, logs.present), (copied, COUNT - copied));
    }
    other.holds(1..=COUNT, "copied");
    // And from there, merged too, nothing is copied back.
    other.pass(2 * HOUR);
    other.prune();
    let back = copy_logs(&other.client.open(), &scene.client.open(), |_| true, &options).unwrap();
    assert_eq!((back.copied, back.present), (0, COUNT));
}

/// What rots in a merged log pack comes back from its parity; that of originals goes with them.
#[test]
fn parity_covers_what_was_merged() {
    let scene = Scene::new(COUNT);
    assert!(parity::add(&scene.client.open(), 10).unwrap().made as u64 >= COUNT);
    scene.pass(2 * HOUR);
    scene.prune();
    parity::add(&scene.client.open(), 10).unwrap();
    scene.pass(DAY);
    scene.prune();
    assert_eq!(scene.counts(), (0, 1));
    let object = scene.client.open().merged_logs(STREAM).unwrap().found.remove(0).object;
    let whole = scene.store.get(&object, u64::MAX).unwrap();
    let mut rotten = whole.clone();
    let at = rotten.len() / 2;
    rotten[at] ^= 1;
    scene.store.replace(&object, &rotten).unwrap();
    let options = CheckOptions { read_data: ReadData::All, keep_ledger: false, program: "test".to_owned() };
    assert!(check(&scene.client.open(), &options).unwrap().is_damaged());
    let report = check_and_repair(&scene.client.open(), &options).unwrap();
    assert!(report.mended.iter().any(|mended| mended.object == object), "{:?}", report.mended);
    assert_eq!(scene.store.get(&object, u64::MAX).unwrap(), whole);
    scene.is_sound("mended");
    for _ in 0..3 {
        scene.pass(2 * DAY);
        scene.prune();
    }
    let left = scene.store.list("parity/").unwrap();
    assert!(left.len() < 20, "{} objects of parity", left.len());
}
