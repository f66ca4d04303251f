//! Archived logs: one object a segment, found again by its name, never two contents under one.

use crate::support::world::{Client, content, copy_of, log_entry, noise};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::{Classify, ErrorClass, SecretBytes, Timestamp};
use chronolith::format::log::{LogDigest, LogRecordKind};
use chronolith::format::trust::Role;
use chronolith::format::trust::scope::Scope;
use chronolith::ops::Snapshots;
use chronolith::ops::check::{CheckOptions, CheckReport, Holding, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::keys::{self, NewKey};
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::stats::stats;
use chronolith::repo::{LogEntry, LogPut, NewSlot, RepoError, Repository};
use chronolith::storage::{
    Capabilities, MemoryStore, ObjectInfo, Operation, PutOutcome, StorageError, Store,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub const STREAM: &str = "pg/main/7312345678901234567";

pub fn entry(name: &str) -> LogEntry {
    LogEntry {
        lineage: Some("7312345678901234567".to_owned()),
        timeline: Some(1),
        positions: Some((0x700_0000, 0x800_0000)),
        commits: Some((Timestamp::from_nanoseconds(5), Timestamp::from_nanoseconds(9))),
        facts: [("segment_size".to_owned(), "16777216".to_owned())].into(),
        ..log_entry(STREAM, name)
    }
}

pub fn client() -> (Arc<MemoryStore>, Client) {
    let store = Arc::new(MemoryStore::new());
    (store.clone(), Client::init(store, 1))
}

/// Archives a segment.
pub fn push_some(client: &Client) {
    let put = client.open().archive_log(&entry("000000010000000000000001"), &noise(2, 100_000)).unwrap();
    assert!(matches!(put, LogPut::Stored(_)));
}

/// Reads that segment.
pub fn pushed(repository: &Repository) -> Vec<u8> {
    read(repository, "000000010000000000000001").unwrap()
}

/// Reads a segment in order and in parts, which must agree.
fn read(repository: &Repository, name: &str) -> Result<Vec<u8>, RepoError> {
    let found = repository.search_log(STREAM, name)?;
    let mut bytes = Vec::new();
    let read = repository.read_segment(&found.found, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    });
    let placed = Mutex::new(Vec::new());
    let in_parts = repository.read_segment_into(&found.found, &|at, piece| {
        let (mut placed, at) = (placed.lock().unwrap(), at as usize);
        let length = placed.len().max(at + piece.len());
        placed.resize(length, 0);
        placed[at..at + piece.len()].copy_from_slice(piece);
        Ok(())
    });
    match (&read, in_parts) {
        (Ok(digest), Ok(in_parts)) => {
            assert_eq!(digest, &in_parts, "{name}");
            assert_eq!(digest.length, bytes.len() as u64, "{name}");
            assert_eq!(&digest.blake3, blake3::hash(&bytes).as_bytes(), "{name}");
            assert!(placed.into_inner().unwrap() == bytes, "{name}");
        }
        (Err(error), Err(other)) => assert_eq!(error.to_string(), other.to_string(), "{name}"),
        (read, in_parts) => panic!("{name}: {read:?}, in parts {in_parts:?}"),
    }
    read.map(|_| bytes)
}

/// Segments of all sorts: noise, text, zeros at the end (A9), zeros only, one byte.
fn segments() -> Vec<(&'static str, Vec<u8>)> {
    let mut switched = noise(1, 20_000);
    switched.resize(16 << 20, 0);
    vec![
        ("000000010000000000000001", noise(2, 16 << 20)),
        ("000000010000000000000002", b"insert into t values (1);".repeat(100_000)),
        ("000000010000000000000003", switched),
        ("000000010000000000000004", vec![0; 1 << 20]),
        ("00000002.history", b"1".to_vec()),
        ("000000010000000000000005", text(1 << 20)),
        ("000000010000000000000006", text(16 << 20)),
        ("000000010000000000000007", text(8 << 20).repeat(4)),
    ]
}

/// Rows that differ and shrink.
fn text(length: usize) -> Vec<u8> {
    let rows = (0..length / 16).map(|row: usize| format!("{row:8} {:6}\n", row * 7919 % 999_983));
    rows.flat_map(String::into_bytes).take(length).collect()
}

/// What goes wrong where a segment is written to is said, and nothing else is tried.
#[test]
fn what_the_place_of_a_segment_says_ends_the_reading() {
    let (_, client) = client();
    let repository = client.open();
    let name = "000000010000000000000006";
    repository.archive_log(&entry(name), &text(16 << 20)).unwrap();
    let found = repository.search_log(STREAM, name).unwrap().found;
    for fails_at in [0, 1 << 20, (16 << 20) - 1] {
        let count = AtomicU64::new(0);
        let read = repository.read_segment_into(&found, &|at, piece| {
            if (at..at + piece.len() as u64).contains(&fails_at) {
                count.fetch_add(1, Ordering::Relaxed);
                return Err(RepoError::Usage("the disk is full".to_owned()));
            }
            Ok(())
        });
        assert_eq!(read.unwrap_err().to_string(), "the disk is full");
        assert_eq!(count.into_inner(), 1);
    }
}

#[test]
fn a_segment_is_one_object_and_comes_back() {
    let (store, client) = client();
    let repository = client.open();
    let before = store.list("").unwrap().len();
    for (name, bytes) in segments() {
        assert!(matches!(repository.archive_log(&entry(name), &bytes).unwrap(), LogPut::Stored(_)));
    }
    assert_eq!(store.list("").unwrap().len(), before + segments().len());
    // A client that has never seen them finds each by its name.
    let other = Client::holding(store.clone(), client.key_file.clone()).open();
    for (name, bytes) in segments() {
        assert!(read(&other, name).unwrap() == bytes, "{name}");
    }
    let found = other.find_log(STREAM, "000000010000000000000001").unwrap().found.remove(0);
    let expected = entry("000000010000000000000001");
    assert_eq!(found.record.positions, expected.positions);
    assert_eq!(found.record.commits, expected.commits);
    assert_eq!(found.record.facts, expected.facts);
    assert_eq!(other.log_stream(STREAM).unwrap().found.len(), segments().len());
    // A9: what `archive_timeout` made costs what it holds.
    let switched = &other.find_log(STREAM, "000000010000000000000003").unwrap().found[0];
    assert!(switched.length < 25_000, "{}", switched.length);
    // The store learns neither the names nor the stream's.
    assert!(store.list("logs/").unwrap().iter().all(|object| !object.name.contains("0000000100000000")));
    assert!(other.search_log(STREAM, "000000010000000000000009").unwrap().found.is_empty());
    assert!(other.search_log("pg/other", "000000010000000000000001").unwrap().found.is_empty());
}

/// [LOG-PACK-7]: the segment's folder is listed, before and after one put; no index, no session, no lock. What was
/// merged is listed twice a day ([LOG-PACK-8]).
#[test]
fn archiving_asks_the_store_for_three_things() {
    let (store, client) = client();
    let counting = Arc::new(FaultStore::sound(store));
    let repository = client.through(counting.clone()).open();
    let asked = |name: &str, number| {
        let before = counting.log().len();
        repository.archive_log(&entry(name), &noise(number, 1 << 20)).unwrap();
        counting.log()[before..].iter().map(|(operation, _)| *operation).collect::<Vec<_>>()
    };
    let (list, put) = (Operation::List, Operation::Put);
    assert_eq!(asked("000000010000000000000001", 1), [list, list, put, list]);
    assert_eq!(asked("000000010000000000000002", 2), [list, put, list]);
    client.clock.shift_seconds(11 * 3600);
    assert_eq!(asked("000000010000000000000003", 3), [list, put, list]);
    client.clock.shift_seconds(2 * 3600);
    assert_eq!(asked("000000010000000000000004", 4), [list, list, put, list]);
}

/// A3, A4: whoever put it may have died before it was durable: what stands there is put once more.
#[test]
fn what_is_there_already_is_made_durable() {
    let (store, client) = client();
    let name = "000000010000000000000001";
    client.open().archive_log(&entry(name), &noise(1, 1 << 20)).unwrap();
    let object = store.list("logs/").unwrap().remove(0).name;
    let counting = Arc::new(FaultStore::sound(store));
    let repository = client.through(counting.clone()).open();
    let opened = counting.log().len();
    assert!(matches!(repository.archive_log(&entry(name), &noise(1, 1 << 20)).unwrap(), LogPut::Present(_)));
    assert!(counting.log()[opened..].contains(&(Operation::Put, object)), "{:?}", counting.log());
    // A store that cannot say so makes it no success.
    let number = counting.log().len() as u64;
    let failing =
        Arc::new(FaultStore::failing_at(counting.inner().clone(), number, Fault::Before(Failure::NoSpace)));
    let repository = client.through(failing.clone()).open();
    repository.archive_log(&entry(name), &noise(1, 1 << 20)).unwrap_err();
    assert!(failing.fired());
}

/// [CONCURRENCY-39]: of two that stored different bytes at the same moment only one is told of success, and
/// stays with it.
#[test]
fn of_two_contents_the_first_counts() {
    let (store, client) = client();
    let name = "000000010000000000000001";
    let (mine, theirs) = (b"mine".as_slice(), b"theirs".as_slice());
    // Both looked before the other put: what each stored goes into one store.
    let other = Arc::new(copy_of(store.as_ref()));
    client.open().archive_log(&entry(name), mine).unwrap();
    let their_client = Client::holding(other.clone(), client.key_file.clone());
    their_client.open().archive_log(&entry(name), theirs).unwrap();
    let object = other.list("logs/").unwrap().remove(0).name;
    store.put(&object, &other.get(&object, u64::MAX).unwrap()).unwrap();
    let repository = client.open();
    let first = read(&repository, name).unwrap();
    for bytes in [mine, theirs, mine, theirs] {
        match repository.archive_log(&entry(name), bytes) {
            Ok(put) => assert!(bytes == first && matches!(put, LogPut::Present(_))),
            Err(error) => assert!(bytes != first && matches!(error, RepoError::LogTaken { .. }), "{error}"),
        }
    }
    assert!(repository.lists_log(STREAM, name, &digest_of(&first)).unwrap());
    let second = if first == mine { theirs } else { mine };
    assert!(!repository.lists_log(STREAM, name, &digest_of(second)).unwrap());
}

fn digest_of(bytes: &[u8]) -> LogDigest {
    LogDigest { length: bytes.len() as u64, blake3: *blake3::hash(bytes).as_bytes() }
}

/// The same, while it happens: the other's object appears between the first look and the end of the put.
#[test]
fn a_race_is_seen_before_success_is_told() {
    let (store, client) = client();
    let name = "000000010000000000000001";
    let other = Arc::new(copy_of(store.as_ref()));
    Client::holding(other.clone(), client.key_file.clone())
        .open()
        .archive_log(&entry(name), b"theirs")
        .unwrap();
    let object = other.list("logs/").unwrap().remove(0).name;
    let bytes = other.get(&object, u64::MAX).unwrap();
    let repository = client.through(Arc::new(Racing { inner: store.clone(), object, bytes })).open();
    let told = repository.archive_log(&entry(name), b"mine");
    let first = read(&client.open(), name).unwrap();
    assert_eq!(told.is_ok(), first == b"mine");
    if let Err(error) = told {
        assert!(matches!(error, RepoError::LogTaken { .. }), "{error}");
        assert_eq!(repository.log_records(STREAM).unwrap().found.len(), 1);
    }
}

/// Puts another's object just before the first put of a log.
struct Racing {
    inner: Arc<MemoryStore>,
    object: String,
    bytes: Vec<u8>,
}

impl Store for Racing {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        if name.starts_with("logs/") {
            self.inner.put(&self.object, &self.bytes)?;
        }
        self.inner.put(name, bytes)
    }
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.inner.replace(name, bytes)
    }
    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.inner.get(name, limit_bytes)
    }
    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        self.inner.get_range(name, offset, length, out)
    }
    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        self.inner.head(name)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        self.inner.list(prefix)
    }
    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.inner.delete(name)
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

/// A2, A3, [LOG-PACK-7]: the same bytes are a success; other bytes are refused, and that is recorded once.
#[test]
fn a_name_has_one_content() {
    let (store, client) = client();
    let repository = client.open();
    let name = "000000010000000000000001";
    let LogPut::Stored(id) = repository.archive_log(&entry(name), b"first").unwrap() else { panic!() };
    let objects = store.list("").unwrap().len();
    assert_eq!(repository.archive_log(&entry(name), b"first").unwrap(), LogPut::Present(id));
    assert_eq!(store.list("").unwrap().len(), objects);
    for _ in 0..3 {
        let error = repository.archive_log(&entry(name), b"other").unwrap_err();
        assert!(matches!(error, RepoError::LogTaken { .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::Fatal);
    }
    let conflicts = repository.log_records(STREAM).unwrap().found;
    assert_eq!(conflicts.len(), 1, "a refusal is recorded once, however often it is tried");
    let record = &conflicts[0].record;
    assert_eq!(
        (record.kind, record.against, record.name.as_str()),
        (LogRecordKind::Conflict, Some(id), name)
    );
    assert_eq!(record.content.as_ref().unwrap().digest.blake3, *blake3::hash(b"other").as_bytes());
    assert_eq!(read(&repository, name).unwrap(), b"first");
}

/// A3: "identical and fully persisted": where the bytes are damaged, the segment is stored once more.
#[test]
fn a_damaged_segment_is_archived_again() {
    let (store, client) = client();
    let name = "000000010000000000000001";
    let bytes = noise(3, 300_000);
    client.open().archive_log(&entry(name), &bytes).unwrap();
    let object = store.list("logs/").unwrap().remove(0);
    let mut stored = store.get(&object.name, u64::MAX).unwrap();
    for at in [stored.len() / 2, 100, stored.len() - 1] {
        stored[at] ^= 1;
        store.delete(&object.name).unwrap();
        store.put(&object.name, &stored).unwrap();
        let repository = client.open();
        assert!(read(&repository, name).is_err());
        assert!(matches!(repository.archive_log(&entry(name), &bytes).unwrap(), LogPut::Stored(_)));
        assert!(read(&repository, name).unwrap() == bytes);
        let others: Vec<_> = store.list("logs/").unwrap();
        for other in others.iter().filter(|other| other.name != object.name) {
            store.delete(&other.name).unwrap();
        }
        stored[at] ^= 1;
    }
}

/// Segments over 128 MiB are archived in pieces; here they are shorter.
#[test]
fn pieces_join() {
    let (_, client) = client();
    let repository = client.open();
    let name = "000000010000000000000001";
    let whole = noise(4, 700_000);
    let digest = LogDigest { length: 700_000, blake3: *blake3::hash(&whole).as_bytes() };
    let pieces: Vec<(u64, &[u8])> =
        whole.chunks(300_000).enumerate().map(|(n, piece)| (n as u64 * 300_000, piece)).collect();
    let put = |at: u64, piece: &[u8], last: bool| {
        repository.archive_log_piece(&entry(name), at, piece, last.then_some(digest))
    };
    // The last piece comes first: until the others are there, it is not whole.
    put(pieces[2].0, pieces[2].1, true).unwrap();
    put(pieces[0].0, pieces[0].1, false).unwrap();
    assert!(read(&repository, name).unwrap_err().to_string().contains("not whole"));
    put(pieces[1].0, pieces[1].1, false).unwrap();
    assert!(read(&repository, name).unwrap() == whole);
    assert!(matches!(put(pieces[1].0, pieces[1].1, false).unwrap(), LogPut::Present(_)));
    assert!(matches!(put(pieces[2].0, pieces[2].1, true).unwrap(), LogPut::Present(_)));
    let mut other = pieces[1].1.to_vec();
    other[7] ^= 1;
    assert!(matches!(put(pieces[1].0, &other, false).unwrap_err(), RepoError::LogTaken { .. }));
    // The whole segment, with the same bytes, is welcome beside its pieces; another one is not.
    assert!(matches!(repository.archive_log(&entry(name), &whole).unwrap(), LogPut::Stored(_)));
    assert!(matches!(repository.archive_log(&entry(name), b"x").unwrap_err(), RepoError::LogTaken { .. }));
}

/// A1, A4: whichever request fails, however: success is told only of what is there whole, and trying again
/// mends everything.
#[test]
fn success_is_told_only_of_what_is_durable() {
    let (store, client) = client();
    let bytes = noise(5, 400_000);
    let name = "000000010000000000000001";
    let faults = [
        Fault::Before(Failure::Transient),
        Fault::Before(Failure::NoSpace),
        Fault::After(Failure::Transient),
        Fault::After(Failure::Fatal),
        Fault::Torn,
        Fault::Twice,
    ];
    let mut failures = 0;
    for fault in faults {
        for number in 1.. {
            let copy = Arc::new(copy_of(store.as_ref()));
            let faulty = Arc::new(FaultStore::failing_at(copy.clone(), number, fault));
            let archived = client
                .through(faulty.clone())
                .try_open()
                .and_then(|repository| repository.archive_log(&entry(name), &bytes));
            let sound = client.through(copy).open();
            match archived {
                Ok(_) => assert!(read(&sound, name).unwrap() == bytes, "{fault:?} at {number}"),
                Err(_) => failures += 1,
            }
            sound.archive_log(&entry(name), &bytes).unwrap();
            assert!(read(&sound, name).unwrap() == bytes, "{fault:?} at {number}");
            if !faulty.fired() {
                break;
            }
        }
    }
    assert!(failures > 10, "only {failures} attempts failed");
}

/// A writer that is limited to a cluster archives no other's log, and cannot read what it archived.
#[test]
fn a_writer_of_one_stream_writes_no_other() {
    let (store, owner) = client();
    let key_file = vec![9; 32];
    let new = NewKey {
        role: Role::Writer,
        name: "db1".to_owned(),
        domain: String::new(),
        scope: Scope { streams: vec!["pg/main".to_owned(), "pg/main/*".to_owned()], ..Scope::default() },
    };
    let secret = SecretBytes::new(key_file.clone());
    keys::add(&owner.open(), &new, &NewSlot::KeyFile(&secret)).unwrap();
    let writer = Client::holding(store, key_file).open();
    let name = "000000010000000000000001";
    writer.archive_log(&entry(name), b"segment").unwrap();
    assert!(matches!(writer.archive_log(&entry(name), b"segment").unwrap(), LogPut::Present(_)));
    let other = LogEntry { stream: "pg/mainland/1".to_owned(), ..entry(name) };
    assert_eq!(writer.archive_log(&other, b"segment").unwrap_err().class(), ErrorClass::Forbidden);
    assert_eq!(read(&writer, name).unwrap_err().class(), ErrorClass::Forbidden);
    assert_eq!(read(&owner.open(), name).unwrap(), b"segment");
    // What the owner puts into another stream does not count for this one.
    owner.open().archive_log(&other, b"segment").unwrap();
    assert_eq!(writer.log_stream(STREAM).unwrap().found.len(), 1);
}

fn look(client: &Client, read_data: ReadData) -> CheckReport {
    check(&client.open(), &CheckOptions { read_data, ..CheckOptions::default() }).unwrap()
}

fn overwrite(store: &MemoryStore, name: &str, bytes: &[u8]) {
    store.delete(name).unwrap();
    store.put(name, bytes).unwrap();
}

/// Whatever bit of a log pack is wrong, a check that reads finds it, and names the segment; the check of the
/// structure finds what is wrong with front and tail.
#[test]
fn a_check_finds_damage_of_logs() {
    let (store, client) = client();
    let name = "000000010000000000000001";
    let repository = client.open();
    repository.archive_log(&entry(name), &noise(6, 200_000)).unwrap();
    repository.archive_log(&entry("000000010000000000000002"), &noise(7, 200_000)).unwrap();
    for read_data in [ReadData::None, ReadData::All] {
        let report = look(&client, read_data);
        assert!(!report.is_damaged() && report.findings.is_empty(), "{report:?}");
        assert_eq!(report.counts.logs, 2);
    }
    let object = repository.find_log(STREAM, name).unwrap().found.remove(0).object;
    let whole = store.get(&object, u64::MAX).unwrap();
    let last = whole.len() - 1;
    // Head, origin, record, frames, table of contents, origins again, trailer, signature.
    let places = [8, 70, 300, 1000, whole.len() / 2, last - 330, last - 250, last - 180, last - 30, last];
    for place in places {
        let mut bytes = whole.clone();
        bytes[place] ^= 4;
        overwrite(&store, &object, &bytes);
        let report = look(&client, ReadData::All);
        assert!(report.damaged == 1, "{place}: {report:?}");
        assert!(report.findings[0].object == object || report.findings[0].what.contains(name));
        let structure = look(&client, ReadData::None).is_damaged();
        let in_frames = (1000..=whole.len() / 2).contains(&place);
        // The signature over the whole is not looked at without reading the whole.
        assert_eq!(structure, !in_frames && place < last - 60, "{place} of {last}");
        if in_frames {
            assert_eq!(report.lost_logs.len(), 1);
            assert_eq!(
                (report.lost_logs[0].name.as_str(), report.lost_logs[0].stream.as_str()),
                (name, STREAM)
            );
            assert_eq!(report.lost_logs[0].commits, entry(name).commits);
        }
    }
    overwrite(&store, &object, &whole[..whole.len() - 1]);
    assert!(look(&client, ReadData::None).is_damaged());
    // A second copy makes it good: nothing is lost.
    client.open().archive_log(&entry(name), &noise(6, 200_000)).unwrap();
    let report = look(&client, ReadData::All);
    assert!(report.is_damaged() && report.lost_logs.is_empty());
    overwrite(&store, &object, &whole);
    assert!(!look(&client, ReadData::All).is_damaged());
}

#[test]
fn a_check_tells_what_was_refused_and_what_lies_elsewhere() {
    let (store, client) = client();
    let name = "000000010000000000000001";
    let repository = client.open();
    repository.archive_log(&entry(name), b"first").unwrap();
    repository.archive_log(&entry(name), b"other").unwrap_err();
    repository
        .record_gap(&entry("000000010000000000000005"), "000000010000000000000007", "the disk was full")
        .unwrap();
    let warned = |report: &CheckReport, what: &str| {
        assert!(!report.is_damaged(), "{report:?}");
        assert!(report.findings.iter().any(|finding| finding.what.contains(what)), "{what}: {report:?}");
    };
    let report = look(&client, ReadData::All);
    warned(&report, "were refused");
    warned(&report, "will never come: the disk was full");
    // A pack in the folder of another segment is found by nobody who looks for that.
    let object = repository.find_log(STREAM, name).unwrap().found.remove(0).object;
    let folder = repository.log_segment_folder(STREAM, "000000010000000000000002");
    let bytes = store.get(&object, u64::MAX).unwrap();
    store.put(&format!("{folder}/{}", object.rsplit('/').next().unwrap()), &bytes).unwrap();
    warned(&look(&client, ReadData::None), "lies elsewhere");
    let found = repository.find_log(STREAM, "000000010000000000000002").unwrap();
    assert!(found.found.is_empty() && found.refused.len() == 1);
    // Two writers at the same moment: both are there, the first counts ([CONCURRENCY-39]).
    store.delete(&object).unwrap();
    client.open().archive_log(&entry(name), b"second").unwrap();
    store.put(&object, &bytes).unwrap();
    warned(&look(&client, ReadData::All), "2 times with different bytes");
    assert_eq!(read(&client.open(), name).unwrap(), b"second");
}

/// Prune deletes what no snapshot needs, and no log.
#[test]
fn prune_leaves_logs_alone() {
    let (store, client) = client();
    let snapshot = client.back_up(&content([("app.sql", noise(8, 500_000))]));
    let repository = client.open();
    for (name, bytes) in segments() {
        repository.archive_log(&entry(name), &bytes).unwrap();
    }
    let logs = store.list("logs/").unwrap();
    forget(&repository, &Snapshots::load(&repository).unwrap(), &[snapshot]).unwrap();
    for _ in 0..2 {
        prune(&client.open(), &PruneOptions::new("test").within(0)).unwrap();
    }
    assert!(store.list("packs/").unwrap().is_empty());
    assert_eq!(store.list("logs/").unwrap(), logs);
    for (name, bytes) in segments() {
        assert!(read(&client.open(), name).unwrap() == bytes, "{name}");
    }
    let report = stats(&repository, std::iter::empty(), None).unwrap();
    assert_eq!(report.logs, logs.len() as u64);
    assert_eq!(report.log_bytes, logs.iter().map(|object| object.length).sum::<u64>());
}

/// Two places of one repository, each whole in itself.
#[test]
fn a_place_that_lacks_files_of_a_log_is_found() {
    let (store, owner) = client();
    let (first, second) = ("000000010000000000000001", "000000010000000000000002");
    owner.open().archive_log(&entry(first), b"segment 1").unwrap();
    let other = owner.through(Arc::new(copy_of(store.as_ref())));
    let compare = || {
        let lacking = Holding::compare(&[owner.open(), other.open()]).unwrap();
        lacking.into_iter().map(|one| one.logs.into_iter().map(|(_, name)| name).collect()).collect()
    };
    let compared: Vec<Vec<String>> = compare();
    assert_eq!(compared, [Vec::<String>::new(), Vec::new()]);
    // A conflict over a name is no segment of that name.
    let repository = owner.open();
    repository.archive_log(&entry(second), b"segment 2").unwrap();
    let digest = LogDigest { length: 9, blake3: [7; 32] };
    other.open().record_conflict(&entry(second), digest, None, "other bytes").unwrap();
    let compared: Vec<Vec<String>> = compare();
    assert_eq!(compared, [vec![], vec![second.to_owned()]]);
    other.open().archive_log(&entry(second), b"segment 2").unwrap();
    // The beginning of one is no whole, and the other way round it is.
    let third = "000000010000000000000003";
    repository.archive_log_piece(&entry(third), 0, b"piece", None).unwrap();
    other.open().archive_log_piece(&entry(third), 0, b"piece", None).unwrap();
    let compared: Vec<Vec<String>> = compare();
    assert_eq!(compared, [Vec::<String>::new(), Vec::new()]);
    repository.archive_log_piece(&entry(third), 5, b"more", None).unwrap();
    let compared: Vec<Vec<String>> = compare();
    assert_eq!(compared, [vec![], vec![third.to_owned()]]);
}
