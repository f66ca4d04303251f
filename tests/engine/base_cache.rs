//! Differences of those who cannot read content, or not cheaply: bases come from the host's own cache.

use super::differences::{all_data, read, try_store, version};
use crate::support::repository::{backup_options, environment, in_memory, key_file, noise, reopen};
use chronolith::base::SecretBytes;
use chronolith::format::trust::Role;
use chronolith::format::trust::scope::Scope;
use chronolith::ops::backup::{BackupOptions, BackupReport, BasesFrom, Differences};
use chronolith::ops::keys::{NewKey, add};
use chronolith::repo::{Credential, Environment, NewSlot, Repository, open};
use chronolith::storage::{Capabilities, MemoryStore, ObjectInfo, PutOutcome, StorageError, Store};
use rusqlite::Connection;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ROWS: usize = 20_000;

fn writer_file(number: u8) -> SecretBytes {
    SecretBytes::new(vec![number; 32])
}

/// A repository whose owner has added a writer.
fn with_writer() -> (Arc<MemoryStore>, Arc<Repository>) {
    let (backing, owner) = in_memory();
    add_writer(&owner, 9);
    (backing, owner)
}

fn add_writer(owner: &Arc<Repository>, number: u8) {
    let key = NewKey {
        role: Role::Writer,
        name: format!("writer {number}"),
        domain: String::new(),
        scope: Scope::default(),
    };
    add(owner, &key, &NewSlot::KeyFile(&writer_file(number))).unwrap();
}

fn writer(store: Arc<dyn Store>, number: u8, cache: Option<&Path>) -> Arc<Repository> {
    let environment = Environment { cache: cache.map(Path::to_owned), ..environment(store) };
    open(environment, &Credential::KeyFile(writer_file(number))).unwrap()
}

fn store(repository: &Arc<Repository>, content: &[u8]) -> BackupReport {
    try_store(repository, content, &backup_options("dump")).unwrap()
}

/// The owner with a view of its own, who knows what was added since.
fn owner_anew(backing: &Arc<MemoryStore>) -> Arc<Repository> {
    reopen(backing.clone()).unwrap()
}

/// The file of the only base cache in a folder.
fn cache_file(cache: &Path, repository: &Repository) -> PathBuf {
    let folder = cache.join(repository.id().to_string());
    let mut found = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    // Beside it lies what was opened of small objects.
    found.find(|path| name(path).starts_with("bases-") && name(path).ends_with(".sqlite")).unwrap()
}

#[test]
fn a_key_that_cannot_read_stores_differences_from_what_it_kept() {
    let (backing, _) = with_writer();
    let cache = tempfile::tempdir().unwrap();
    let mut reports = Vec::new();
    for number in 0..7 {
        // As a new process each time.
        let repository = writer(backing.clone(), 9, Some(cache.path()));
        assert!(!repository.keyring().reads_content());
        reports.push(store(&repository, &version(ROWS, number)));
    }
    let owner = owner_anew(&backing);
    for (number, report) in (0..).zip(&reports) {
        assert_eq!(report.bases, BasesFrom::Cache);
        assert!(report.advice.is_empty(), "{report:?}");
        if number > 0 {
            assert!(report.differences >= 20, "{report:?}");
            assert!(report.summary.stored_bytes * 8 < reports[0].summary.stored_bytes, "{reports:?}");
        }
        assert!(read(&owner_anew(&backing), report.snapshot.unwrap()) == version(ROWS, number));
    }
    let checked = all_data(&owner);
    assert!(!checked.is_damaged() && checked.findings.is_empty(), "{checked:?}");
}

#[test]
fn without_a_base_cache_it_stores_whole_and_says_why() {
    let (backing, owner) = with_writer();
    store(&owner, &version(ROWS, 0));
    let cache = tempfile::tempdir().unwrap();
    let cases = [
        (None, backup_options("dump"), "no cache folder"),
        (Some(cache.path()), BackupOptions { base_cache_bytes: 0, ..backup_options("dump") }, "size is 0"),
    ];
    for (number, (cache, options, why)) in (1..).zip(cases) {
        let report = try_store(&writer(backing.clone(), 9, cache), &version(ROWS, number), &options).unwrap();
        assert!(report.parent.is_some());
        assert_eq!((report.differences, report.bases), (0, BasesFrom::Nowhere));
        let said = |advice: &String| advice.contains("stored whole") && advice.contains(why);
        assert!(report.advice.iter().any(said), "{:?}", report.advice);
        assert!(read(&owner_anew(&backing), report.snapshot.unwrap()) == version(ROWS, number));
    }
    // Who does not want any is not told.
    let options = BackupOptions { differences: Differences::Never, ..backup_options("dump") };
    let report = try_store(&writer(backing.clone(), 9, None), &version(ROWS, 3), &options).unwrap();
    assert!(report.advice.is_empty() && report.bases == BasesFrom::Nowhere, "{report:?}");
}

#[test]
fn what_another_host_or_key_stored_is_no_base() {
    let (backing, owner) = with_writer();
    store(&owner, &version(ROWS, 0));
    let cache = tempfile::tempdir().unwrap();
    let report = store(&writer(backing.clone(), 9, Some(cache.path())), &version(ROWS, 1));
    assert!(report.parent.is_some());
    assert_eq!((report.differences, report.bases), (0, BasesFrom::Cache));
    assert!(read(&owner_anew(&backing), report.snapshot.unwrap()) == version(ROWS, 1));
}

#[test]
fn the_cache_of_another_key_says_nothing() {
    let (backing, owner) = with_writer();
    add_writer(&owner, 8);
    let cache = tempfile::tempdir().unwrap();
    let first = writer(backing.clone(), 9, Some(cache.path()));
    store(&first, &version(ROWS, 0));
    let stolen = cache_file(cache.path(), &first);
    drop(first);
    // Nothing of the dump can be seen in the file.
    let bytes = fs::read(&stolen).unwrap();
    assert!(bytes.len() > 300_000);
    assert!(!bytes.windows(12).any(|window| window == b"COPY account"));
    assert!(!bytes.windows(4).any(|window| window == [0x28, 0xb5, 0x2f, 0xfd]), "a zstd frame in the open");

    let other = tempfile::tempdir().unwrap();
    let thief = writer(backing.clone(), 8, Some(other.path()));
    thief.open_base_cache(1 << 30).unwrap();
    let place = cache_file(other.path(), &thief);
    drop(thief);
    fs::copy(&stolen, &place).unwrap();
    let report = store(&writer(backing.clone(), 8, Some(other.path())), &version(ROWS, 1));
    assert_eq!((report.differences, report.bases), (0, BasesFrom::Cache));
    assert!(read(&owner_anew(&backing), report.snapshot.unwrap()) == version(ROWS, 1));
}

#[test]
fn a_damaged_cache_costs_space_and_nothing_else() {
    let (backing, _) = with_writer();
    let cache = tempfile::tempdir().unwrap();
    let first = writer(backing.clone(), 9, Some(cache.path()));
    store(&first, &version(ROWS, 0));
    let file = cache_file(cache.path(), &first);
    drop(first);
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    for (number, byte) in flipped.iter_mut().enumerate().skip(100_000) {
        // In every page, so also in every frame.
        if number % 997 == 0 {
            *byte ^= 1;
        }
    }
    let damages: [Vec<u8>; 5] = [
        noise(1, 200_000),
        flipped,
        whole[..whole.len() / 2].to_vec(),
        Vec::new(),
        b"SQLite format 3\0".to_vec(),
    ];
    for (number, damaged) in (1..).zip(damages) {
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", file.display()));
        }
        fs::write(&file, damaged).unwrap();
        let report = store(&writer(backing.clone(), 9, Some(cache.path())), &version(ROWS, number));
        assert!(read(&owner_anew(&backing), report.snapshot.unwrap()) == version(ROWS, number), "{number}");
    }
    // And it works again.
    store(&writer(backing.clone(), 9, Some(cache.path())), &version(ROWS, 7));
    let report = store(&writer(backing.clone(), 9, Some(cache.path())), &version(ROWS, 8));
    assert!(report.differences > 0, "{report:?}");
}

/// Rows of a dump that makes some frames, for caches that are begun anew again and again.
const FEW_ROWS: usize = 6_000;

fn sql(file: &Path, statements: &str) {
    Connection::open(file).unwrap().execute_batch(statements).unwrap();
}

/// What is done to the file of a cache, and what it held.
type Spoil = fn(&Path, &[u8]);

#[test]
fn a_cache_that_is_damaged_foreign_or_newer_is_begun_anew() {
    let (backing, _) = with_writer();
    let cache = tempfile::tempdir().unwrap();
    let open = || writer(backing.clone(), 9, Some(cache.path()));
    let mut number = 0;
    let mut next = || {
        number += 1;
        let report = store(&open(), &version(FEW_ROWS, number));
        assert!(read(&owner_anew(&backing), report.snapshot.unwrap()) == version(FEW_ROWS, number));
        report
    };
    next();
    assert!(next().differences > 0);
    let file = cache_file(cache.path(), &open());
    let whole = fs::read(&file).unwrap();
    let spoils: [(&str, Spoil); 7] = [
        ("every page but the first", |file, whole| {
            let mut bytes = whole.to_vec();
            bytes.iter_mut().skip(32 << 10).for_each(|byte| *byte ^= 0xff);
            fs::write(file, bytes).unwrap();
        }),
        ("half of it", |file, whole| fs::write(file, &whole[..whole.len() / 2]).unwrap()),
        ("no database", |file, _| fs::write(file, noise(1, 50_000)).unwrap()),
        ("another's table", |file, _| sql(file, "CREATE TABLE other (a)")),
        ("another's table of our version", |file, _| {
            sql(file, "CREATE TABLE other (a); PRAGMA user_version = 1");
        }),
        ("another's table beside ours", |file, whole| {
            fs::write(file, whole).unwrap();
            sql(file, "CREATE TABLE other (a)");
        }),
        ("a newer one", |file, whole| {
            fs::write(file, whole).unwrap();
            sql(file, "PRAGMA user_version = 2");
        }),
    ];
    for (what, spoil) in spoils {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", file.display()));
        }
        spoil(&file, &whole);
        // The first finds out, at once or on the way; the one after it has the file anew, and then it is of use.
        let reports = [next(), next(), next()];
        assert!(reports[2].differences > 0, "{what}: {reports:?}");
        let connection = Connection::open(&file).unwrap();
        let tables: Vec<String> = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(tables, ["frame"], "{what}");
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok", "{what}");
    }
}

/// Another process that holds a lock loses nothing, and keeps nobody from backing up.
#[test]
fn a_cache_that_another_process_keeps_locked_is_left_alone() {
    let (backing, _) = with_writer();
    let cache = tempfile::tempdir().unwrap();
    let open = || writer(backing.clone(), 9, Some(cache.path()));
    let back_up = |number| {
        let report = store(&open(), &version(FEW_ROWS, number));
        assert!(read(&owner_anew(&backing), report.snapshot.unwrap()) == version(FEW_ROWS, number));
        report
    };
    back_up(0);
    let file = cache_file(cache.path(), &open());
    let rows = || -> i64 {
        let connection = Connection::open(&file).unwrap();
        connection.query_row("SELECT count(*) FROM frame", [], |row| row.get(0)).unwrap()
    };
    let before = rows();
    assert!(before > 0);
    // Who only writes leaves reading: bases are found, and nothing new is kept.
    let writing = Connection::open(&file).unwrap();
    writing.execute_batch("BEGIN IMMEDIATE").unwrap();
    let report = back_up(1);
    assert!(report.differences > 0 && report.bases == BasesFrom::Cache, "{report:?}");
    writing.execute_batch("ROLLBACK").unwrap();
    drop(writing);
    assert_eq!(rows(), before);
    // Who has it alone leaves nothing: it goes without, says so, and touches nothing.
    let alone = Connection::open(&file).unwrap();
    alone.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).unwrap();
    alone.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let bytes = fs::read(&file).unwrap();
    let report = back_up(2);
    assert_eq!((report.differences, report.bases), (0, BasesFrom::Nowhere), "{report:?}");
    assert!(report.advice.iter().any(|advice| advice.contains("locked")), "{:?}", report.advice);
    assert!(fs::read(&file).unwrap() == bytes);
    alone.execute_batch("ROLLBACK").unwrap();
    drop(alone);
    assert_eq!(rows(), before);
    // It is of use again.
    back_up(3);
    assert!(back_up(4).differences > 0);
}

#[test]
fn a_small_cache_stays_small_and_of_use() {
    let (backing, _) = with_writer();
    let cache = tempfile::tempdir().unwrap();
    // Of some frames of about a megabyte each.
    let (rows, bound) = (150_000, 2 << 20);
    let options = BackupOptions { base_cache_bytes: bound, ..backup_options("dump") };
    for number in 0..4 {
        let repository = writer(backing.clone(), 9, Some(cache.path()));
        let report = try_store(&repository, &version(rows, number), &options).unwrap();
        let length = fs::metadata(cache_file(cache.path(), &repository)).unwrap().len();
        assert!(length <= bound + (64 << 10), "{length}");
        assert!(number == 0 || report.differences > 0, "{number}: {report:?}");
        assert!(read(&owner_anew(&backing), report.snapshot.unwrap()) == version(rows, number));
    }
}

/// A store in memory that calls itself distant.
struct Distant(Arc<MemoryStore>);

impl Store for Distant {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        self.0.put(name, bytes)
    }
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.0.replace(name, bytes)
    }
    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.0.get(name, limit_bytes)
    }
    fn get_range(&self, name: &str, at: u64, length: usize, out: &mut Vec<u8>) -> Result<(), StorageError> {
        self.0.get_range(name, at, length, out)
    }
    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        self.0.head(name)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        self.0.list(prefix)
    }
    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.0.delete(name)
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { distant: true, ..self.0.capabilities() }
    }
    fn location(&self) -> String {
        "far away".to_owned()
    }
}

#[test]
fn of_a_distant_repository_bases_come_from_the_cache_unless_somebody_says_otherwise() {
    let (backing, _) = in_memory();
    let cache = tempfile::tempdir().unwrap();
    let far = |cache: Option<&Path>| {
        let environment = Environment {
            cache: cache.map(Path::to_owned),
            ..environment(Arc::new(Distant(backing.clone())) as Arc<dyn Store>)
        };
        open(environment, &Credential::KeyFile(key_file())).unwrap()
    };
    let expected = [
        (Some(cache.path()), Differences::Auto, BasesFrom::Cache, false),
        (Some(cache.path()), Differences::Auto, BasesFrom::Cache, true),
        (None, Differences::Auto, BasesFrom::Nowhere, false),
        (None, Differences::Always, BasesFrom::Repository, true),
        (None, Differences::Cached, BasesFrom::Nowhere, false),
    ];
    for (number, (cache, differences, bases, some)) in (0..).zip(expected) {
        let options = BackupOptions { differences, ..backup_options("dump") };
        let report = try_store(&far(cache), &version(ROWS, number), &options).unwrap();
        assert_eq!((report.bases, report.differences > 0), (bases, some), "{number}: {report:?}");
        let says = number > 0 && bases == BasesFrom::Nowhere;
        assert_eq!(report.advice.iter().any(|advice| advice.contains("stored whole")), says, "{report:?}");
        assert!(read(&owner_anew(&backing), report.snapshot.unwrap()) == version(ROWS, number));
    }
}
