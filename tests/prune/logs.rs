//! Archived logs beside prunes: what was forgotten goes, what arrives late stays, what is read is waited for.

use crate::hooked;
use crate::support::ManualClock;
use crate::support::world::{Client, ShiftedClock, content, copy_of, dump, log_entry, noise};
use crate::support::{Failure, Fault, FaultStore};
use crate::sweep::{options, run};
use chronolith::base::{LogPackId, Timestamp};
use chronolith::format::annotation::{Annotation, AnnotationKind};
use chronolith::format::session::SessionPurpose;
use chronolith::format::trust::Act;
use chronolith::ops::check::{CheckOptions, ReadData, check};
use chronolith::ops::forget::forget_logs;
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::undelete::undelete_logs;
use chronolith::ops::{OpsError, Snapshots};
use chronolith::repo::{FoundLog, LogEntry, LogPut, Presence};
use chronolith::storage::{MemoryStore, Operation, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const STREAM: &str = "pg/main/1";

fn entry(name: &str) -> LogEntry {
    log_entry(STREAM, name)
}

fn bytes(number: u64) -> Vec<u8> {
    noise(number, 5000)
}

fn name(number: u64) -> String {
    format!("0000000100000000000000{number:02X}")
}

fn archive(client: &Client, number: u64) -> LogPut {
    client.open().archive_log(&entry(&name(number)), &bytes(number)).unwrap()
}

/// A client, and segments 1 to 6, of which 1 to 3 are forgotten.
fn scene_in(store: Arc<MemoryStore>) -> (Client, Vec<LogPackId>) {
    let client = Client::init(store, 5);
    client.back_up(&content([("new.sql", dump(2, 300, 40))]));
    let put = |number| match archive(&client, number) {
        LogPut::Stored(id) | LogPut::Present(id) => id,
    };
    let ids: Vec<LogPackId> = (1..=6).map(put).collect();
    say_forgotten(&client, &ids[..3]);
    (client, ids)
}

fn say_forgotten(client: &Client, ids: &[LogPackId]) {
    let repository = client.open();
    forget_logs(&repository, &Snapshots::load(&repository).unwrap(), ids).unwrap();
}

/// The segments that are roots, each read back and compared.
fn roots(client: &Client) -> BTreeSet<u64> {
    let repository = client.open();
    let forgotten = repository.forgotten_logs().unwrap();
    let mut files: BTreeMap<String, Vec<FoundLog>> = BTreeMap::new();
    for found in repository.log_stream(STREAM).unwrap().found {
        if !forgotten.has_ended(repository.registry(), &found) {
            files.entry(found.record.name.clone()).or_default().push(found);
        }
    }
    let mut numbers = BTreeSet::new();
    for (file, found) in files {
        let number = u64::from_str_radix(&file[16..], 16).unwrap();
        let mut read = Vec::new();
        repository
            .read_segment(&found, &mut |piece| {
                read.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        assert_eq!(read, bytes(number), "{file}");
        numbers.insert(number);
    }
    numbers
}

fn stored(store: &dyn Store) -> usize {
    store.list("logs/").unwrap().len()
}

fn set(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    numbers.into_iter().collect()
}

fn holds(client: &Client, what: &str) {
    let options = CheckOptions { read_data: ReadData::All, keep_ledger: false, program: "test".to_owned() };
    let report = check(&client.open(), &options).unwrap();
    assert!(!report.is_damaged(), "{what}: {:?}", report.findings);
}

#[test]
fn forgotten_segments_go_after_their_grace_and_no_others() {
    // [CONCURRENCY-24], [CONCURRENCY-27], [CONCURRENCY-32]
    let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
    let store = Arc::new(MemoryStore::with_clock(clock.clone()));
    let (client, ids) = scene_in(store.clone());
    assert_eq!(roots(&client), set(4..=6));
    let dry = PruneOptions { dry_run: true, as_forgotten_logs: [ids[3]].into(), ..options(3600) };
    let planned = prune(&client.open(), &dry).unwrap();
    assert_eq!(planned.condemned_logs, 4);
    let report = run(&client, 3600).unwrap();
    assert_eq!((report.condemned_logs, report.deleted_logs, report.waiting_for_grace), (3, 0, 1));
    assert!(report.condemned_log_bytes > 15_000, "{report:?}");
    assert_eq!(stored(store.as_ref()), 6);
    clock.advance(Duration::from_secs(3599));
    let report = run(&client, 3600).unwrap();
    assert_eq!((report.condemned_logs, report.deleted_logs), (0, 0));
    clock.advance(Duration::from_secs(1));
    let report = run(&client, 3600).unwrap();
    assert_eq!((report.deleted_logs, report.waiting_for_grace), (3, 0));
    assert!(report.deleted_log_bytes > 15_000, "{report:?}");
    assert_eq!((stored(store.as_ref()), roots(&client)), (3, set(4..=6)));
    holds(&client, "after the sweep");
    // What is gone stays forgotten, and stops nobody.
    assert_eq!(run(&client, 0).unwrap().deleted_logs, 0);
}

#[test]
fn sessions_that_read_a_log_keep_what_was_forgotten_of_it() {
    // [CONCURRENCY-13]
    let store = Arc::new(MemoryStore::new());
    let (client, _) = scene_in(store.clone());
    let reading = |stream: &str| {
        let streams = vec![stream.to_owned()];
        let none = Default::default();
        Presence::begin_reading(&client.open(), SessionPurpose::Read, none, streams, "a restore").unwrap()
    };
    let session = reading(STREAM);
    let report = run(&client, 0).unwrap();
    assert_eq!((report.condemned_logs, report.deleted_logs), (0, 0));
    drop(session);
    // One that begins after the announcement, too.
    assert_eq!(run(&client, 3600).unwrap().condemned_logs, 3);
    let session = reading(STREAM);
    let shorter = PruneOptions::new("test").within(0);
    assert_eq!(prune(&client.open(), &shorter).unwrap().deleted_logs, 0);
    assert_eq!(stored(store.as_ref()), 6);
    drop(session);
    let other = reading("pg/other/1");
    let report = prune(&client.open(), &shorter).unwrap();
    // It is waited for, as any session is, until it has heard of the announcement.
    assert_eq!((report.condemned_logs, report.deleted_logs), (3, 0), "{report:?}");
    drop(other);
    prune(&client.open(), &shorter).unwrap();
    assert_eq!((stored(store.as_ref()), roots(&client)), (3, set(4..=6)));
}

#[test]
fn pins_win() {
    // [CONCURRENCY-24]
    let store = Arc::new(MemoryStore::new());
    let (client, ids) = scene_in(store.clone());
    let repository = client.open();
    let mut pin = Annotation::new(AnnotationKind::Pin, Timestamp::from_nanoseconds(1));
    pin.log_packs = [ids[1]].into_iter().collect();
    let pin = repository.annotate(&pin, Act::Withdraw).unwrap();
    assert_eq!(roots(&client), set([2, 4, 5, 6]));
    assert_eq!(run(&client, 0).unwrap().deleted_logs, 2);
    assert_eq!(stored(store.as_ref()), 4);
    let mut unpin = Annotation::new(AnnotationKind::Unpin, Timestamp::from_nanoseconds(2));
    unpin.cancels = Some(pin);
    repository.annotate(&unpin, Act::Withdraw).unwrap();
    assert_eq!(run(&client, 0).unwrap().deleted_logs, 1);
    assert_eq!(roots(&client), set(4..=6));
}

/// A push that was suspended before its put arrives after the range was forgotten and swept: it is a root, and goes
/// with the next forget ([CONCURRENCY-41]). The very object that was swept, put once more, is none.
#[test]
fn what_arrives_late_is_a_root_like_any_other() {
    let store = Arc::new(MemoryStore::new());
    let (client, ids) = scene_in(store.clone());
    let late: Arc<Mutex<bool>> = Arc::default();
    let old: Vec<(String, Vec<u8>)> = store
        .list("logs/")
        .unwrap()
        .into_iter()
        .filter(|object| object.name.ends_with(&ids[0].to_string()))
        .map(|object| (object.name.clone(), store.get(&object.name, 1 << 20).unwrap()))
        .collect();
    // While the push of segment 2 waits before its put, everything else happens.
    let busy = {
        let (client, done) = (client.clone(), late.clone());
        hooked(&store, move |operation, name| {
            let is_put = operation == Operation::Put && name.starts_with("logs/");
            if is_put && !std::mem::replace(&mut *done.lock().unwrap(), true) {
                assert_eq!(run(&client, 0).unwrap().deleted_logs, 3);
            }
        })
    };
    let elsewhere = client.through(busy);
    elsewhere.clock.shift_seconds(7200);
    let put = elsewhere.open().archive_log(&entry(&name(2)), &bytes(2)).unwrap();
    assert!(matches!(put, LogPut::Stored(id) if id != ids[1]), "a forgotten one is not relied on: {put:?}");
    assert_eq!(roots(&client), set([2, 4, 5, 6]));
    run(&client, 0).unwrap();
    assert_eq!(roots(&client), set([2, 4, 5, 6]));
    let LogPut::Stored(id) = put else { unreachable!() };
    say_forgotten(&client, &[id]);
    run(&client, 0).unwrap();
    assert_eq!((stored(store.as_ref()), roots(&client)), (3, set(4..=6)));
    // The upload of before, once more.
    for (name, bytes) in &old {
        store.put(name, bytes).unwrap();
    }
    assert_eq!(roots(&client), set(4..=6));
    run(&client, 0).unwrap();
    run(&client, 0).unwrap();
    assert_eq!(stored(store.as_ref()), 3);
    holds(&client, "after late arrivals");
}

#[test]
fn a_receipt_or_the_same_bytes_do_not_rely_on_what_was_forgotten() {
    // [LOG-PACK-7]
    let store = Arc::new(MemoryStore::new());
    let (client, ids) = scene_in(store.clone());
    client.clock.shift_seconds(7200);
    let repository = client.open();
    let digest = |number| {
        let bytes = bytes(number);
        chronolith::format::log::LogDigest {
            length: bytes.len() as u64,
            blake3: *blake3::hash(&bytes).as_bytes(),
        }
    };
    assert!(!repository.lists_log(STREAM, &name(1), &digest(1)).unwrap());
    assert!(repository.lists_log(STREAM, &name(4), &digest(4)).unwrap());
    assert!(matches!(archive(&client, 1), LogPut::Stored(id) if id != ids[0]));
    assert_eq!(archive(&client, 4), LogPut::Present(ids[3]));
    run(&client, 0).unwrap();
    assert_eq!(roots(&client), set([1, 4, 5, 6]));
}

/// A clock that is behind makes nothing fresh that is not.
#[test]
fn the_same_bytes_do_not_rely_on_what_was_forgotten_by_a_clock_that_is_behind() {
    // [LOG-PACK-7]
    for behind in [600, 7200, 86_400] {
        let store = Arc::new(MemoryStore::with_clock(Arc::new(ShiftedClock::default())));
        let (client, ids) = scene_in(store.clone());
        client.clock.shift_seconds(-behind);
        assert!(matches!(archive(&client, 1), LogPut::Stored(id) if id != ids[0]), "{behind}");
        assert_eq!(archive(&client, 4), LogPut::Present(ids[3]), "{behind}");
        let bytes = bytes(2);
        let blake3 = *blake3::hash(&bytes).as_bytes();
        let digest = chronolith::format::log::LogDigest { length: bytes.len() as u64, blake3 };
        assert!(!client.open().lists_log(STREAM, &name(2), &digest).unwrap(), "{behind}");
        client.clock.shift_seconds(behind);
        run(&client, 0).unwrap();
        assert_eq!(roots(&client), set([1, 4, 5, 6]), "{behind}");
    }
}

fn found(client: &Client, ids: &[LogPackId]) -> Vec<FoundLog> {
    let all = client.open().log_stream(STREAM).unwrap().found;
    all.into_iter().filter(|found| ids.contains(&found.id)).collect()
}

#[test]
fn what_was_forgotten_comes_back_within_the_grace() {
    // [CONCURRENCY-31], [CONCURRENCY-38]
    let store = Arc::new(MemoryStore::new());
    let (client, ids) = scene_in(store.clone());
    let back =
        |client: &Client, ids: &[LogPackId]| undelete_logs(&client.open(), &found(client, ids), "test");
    // Before it was condemned, by a word.
    back(&client, &ids[..1]).unwrap();
    assert_eq!((stored(store.as_ref()), roots(&client)), (6, set([1, 4, 5, 6])));
    // Afterwards, under another name: the old one is dead.
    run(&client, 3600).unwrap();
    back(&client, &ids[1..2]).unwrap();
    assert_eq!((stored(store.as_ref()), roots(&client)), (7, set([1, 2, 4, 5, 6])));
    let shorter = PruneOptions::new("test").within(0);
    prune(&client.open(), &shorter).unwrap();
    prune(&client.open(), &shorter).unwrap();
    assert_eq!((stored(store.as_ref()), roots(&client)), (5, set([1, 2, 4, 5, 6])));
    holds(&client, "after coming back");
}

#[test]
fn a_prune_or_an_undelete_may_be_killed_at_every_request() {
    let store = Arc::new(MemoryStore::new());
    let (client, ids) = scene_in(store.clone());
    run(&client, 3600).unwrap();
    type Deed = fn(&Client, &[FoundLog]) -> Result<(), OpsError>;
    let prunes: Deed = |client, _| {
        let repository = client.try_open()?;
        prune(&repository, &PruneOptions::new("test").within(0)).map(drop)
    };
    let brings_back: Deed = |client, logs| undelete_logs(&client.try_open()?, logs, "test").map(drop);
    for (deed, may_return) in [(prunes, false), (brings_back, true)] {
        let logs = found(&client, &ids[..3]);
        for number in (1..).step_by(2) {
            let store = Arc::new(copy_of(&store));
            let faulty =
                Arc::new(FaultStore::failing_from(store.clone(), number, Fault::Before(Failure::Fatal)));
            let result = deed(&client.through(faulty.clone()), &logs);
            let (client, what) = (client.through(store.clone()), format!("killed at request {number}"));
            let there = roots(&client);
            assert!(there.is_superset(&set(4..=6)), "{what}: {there:?}");
            if may_return && result.is_ok() {
                assert_eq!(there, set(1..=6), "{what}");
            }
            run(&client, 0).unwrap_or_else(|error| panic!("{what}: {error}"));
            let shorter = PruneOptions::new("test").within(0);
            prune(&client.open(), &shorter).unwrap_or_else(|error| panic!("{what}: {error}"));
            // What was a root is one still, whatever was half done.
            assert_eq!(roots(&client), there, "{what}");
            if !faulty.fired() {
                assert!(number > 15, "it has more than {number} requests");
                break;
            }
        }
    }
}

/// An undelete at every request of a sweep: either it fails, or all that it brought back stays.
#[test]
fn an_undelete_beside_a_sweep_never_lies() {
    let store = Arc::new(MemoryStore::new());
    let (client, ids) = scene_in(store.clone());
    run(&client, 3600).unwrap();
    for number in (1..).step_by(2) {
        let store = Arc::new(copy_of(&store));
        let aside = client.through(store.clone());
        let logs = found(&aside, &ids[..3]);
        let done: Arc<Mutex<(u64, Option<bool>)>> = Arc::default();
        let busy = {
            let (aside, done) = (aside.clone(), done.clone());
            hooked(&store, move |_, _| {
                let mut state = done.lock().unwrap();
                state.0 += 1;
                if state.0 == number {
                    drop(state);
                    let back = undelete_logs(&aside.open(), &logs, "test").is_ok();
                    done.lock().unwrap().1 = Some(back);
                }
            })
        };
        let sweeper = client.through(busy);
        drop(prune(&sweeper.open(), &PruneOptions::new("test").within(0)));
        let Some(back) = done.lock().unwrap().1 else {
            assert!(number > 15, "a sweep has more than {number} requests");
            return;
        };
        prune(&aside.open(), &PruneOptions::new("test").within(0)).unwrap();
        prune(&aside.open(), &PruneOptions::new("test").within(0)).unwrap();
        let there = roots(&aside);
        assert!(there.is_superset(&set(4..=6)), "at request {number}");
        assert!(!back || there == set(1..=6), "at request {number}: {there:?}");
    }
}
