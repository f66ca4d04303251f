//! What is particular to the local disk: permissions, leftovers, foreign files, killed writers.

use crate::behaviour::bytes;
use crate::support::SeededEntropy;
use chronolith::base::{Classify, ErrorClass};
use chronolith::storage::{LocalStore, PutOutcome, STALE_AFTER_SECONDS, Store};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

fn fresh() -> (TempDir, LocalStore) {
    let folder = TempDir::new().unwrap();
    let store = LocalStore::create(folder.path().join("repository")).unwrap();
    (folder, store)
}

fn write_old(path: &Path, age: Duration) {
    let mut file = File::create(path).unwrap();
    file.write_all(b"half an obj").unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn files_and_folders_are_private() {
    let (folder, store) = fresh();
    store.put("packs/00/a", b"1").unwrap();
    store.replace("chronolith", b"1").unwrap();
    let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().mode() & 0o7777;
    for path in ["repository", "repository/packs", "repository/packs/00", "repository/tmp"] {
        assert_eq!(mode(path), 0o700, "{path}");
    }
    for path in ["repository/packs/00/a", "repository/chronolith"] {
        assert_eq!(mode(path), 0o600, "{path}");
    }
}

#[test]
fn create_takes_nothing_or_an_empty_directory() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("empty")).unwrap();
    fs::create_dir_all(root.join("mounted/lost+found")).unwrap();
    fs::create_dir_all(root.join("used/.hidden")).unwrap();
    fs::write(root.join("file"), "").unwrap();
    for good in ["empty", "mounted", "new", "some/new/path"] {
        LocalStore::create(root.join(good)).unwrap();
    }
    for bad in ["used", "file"] {
        let error = LocalStore::create(root.join(bad)).err().unwrap();
        assert_eq!(error.class(), ErrorClass::Usage, "{error}");
    }
    assert_eq!(LocalStore::open(root.join("missing")).err().unwrap().class(), ErrorClass::NotFound);
    assert_eq!(LocalStore::open(root.join("file")).err().unwrap().class(), ErrorClass::Usage);
}

#[test]
fn leftovers_are_never_listed_and_removed_after_a_day() {
    let (folder, store) = fresh();
    store.put("packs/a", b"1").unwrap();
    let temporaries = folder.path().join("repository/tmp");
    let day = Duration::from_secs(STALE_AFTER_SECONDS as u64);
    write_old(&temporaries.join("4711-0"), day + Duration::from_secs(60));
    write_old(&temporaries.join("4711-1"), day - Duration::from_secs(60));
    write_old(&temporaries.join("4711-2"), Duration::ZERO);
    fs::create_dir(temporaries.join("folder")).unwrap();
    assert_eq!(store.list("").unwrap().len(), 1);
    assert_eq!(store.list("t").unwrap().len(), 0);
    assert_eq!(store.clean().unwrap(), 1);
    assert_eq!(store.clean().unwrap(), 0);
    let mut left: Vec<_> =
        fs::read_dir(&temporaries).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["4711-1", "4711-2", "folder"]);
}

#[test]
fn taken_temporary_names_are_passed_over() {
    let (folder, store) = fresh();
    let temporaries = folder.path().join("repository/tmp");
    fs::create_dir(&temporaries).unwrap();
    for number in 0..3 {
        fs::write(temporaries.join(format!("{}-{number}", std::process::id())), "not mine").unwrap();
    }
    store.put("a", b"1").unwrap();
    assert_eq!(store.get("a", 1).unwrap(), b"1");
    assert_eq!(fs::read_dir(&temporaries).unwrap().count(), 3);
}

#[test]
fn folders_that_vanish_are_made_again() {
    let (folder, store) = fresh();
    let root = folder.path().join("repository");
    store.put("packs/00/a", b"1").unwrap();
    fs::remove_dir_all(root.join("packs")).unwrap();
    fs::remove_dir_all(root.join("tmp")).unwrap();
    assert_eq!(store.put("packs/00/a", b"1").unwrap(), PutOutcome::Created);
    fs::remove_dir_all(root.join("packs")).unwrap();
    store.replace("packs/00/a", b"2").unwrap();
    assert_eq!(store.get("packs/00/a", 1).unwrap(), b"2");
}

/// What is made ready for a put is no object, and nobody relies on it.
#[test]
fn an_expected_put_need_not_come() {
    let (folder, store) = fresh();
    let root = folder.path().join("repository");
    store.expect_put("logs/a/b");
    assert!(root.join("logs/a/b").is_dir());
    assert_eq!(fs::metadata(root.join("logs/a")).unwrap().mode() & 0o7777, 0o700);
    assert!(store.list("").unwrap().is_empty());
    fs::remove_dir_all(root.join("logs")).unwrap();
    assert_eq!(store.put("logs/a/b/c", b"1").unwrap(), PutOutcome::Created);
    // Names that are none, and places where nothing can be made.
    fs::write(root.join("file"), "").unwrap();
    for folder in ["", "../a", "a//b", "file/a"] {
        store.expect_put(folder);
    }
    assert_eq!(store.list("").unwrap().len(), 2);
    assert!(!folder.path().join("a").exists());
    assert!(store.put("file/a/b", b"1").is_err());
}

#[test]
fn foreign_things_are_no_objects() {
    let (folder, store) = fresh();
    let root = folder.path().join("repository");
    store.put("packs/a", b"1").unwrap();
    fs::create_dir(root.join("lost+found")).unwrap();
    fs::write(root.join("lost+found/x"), "x").unwrap();
    fs::write(root.join(".nfs0001"), "x").unwrap();
    fs::write(root.join("packs/name with spaces"), "x").unwrap();
    fs::write(root.join("packs/.a.swp"), "x").unwrap();
    symlink("nowhere", root.join("packs/dangling")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("packs/pipe")).status().unwrap().success());
    let names: Vec<_> = store.list("").unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(names, ["packs/a"]);
    // Opening a pipe must not wait for a writer.
    assert_eq!(store.get("packs/pipe", 10).unwrap_err().class(), ErrorClass::NotFound);
    assert_eq!(store.put("packs/pipe", b"1").unwrap_err().class(), ErrorClass::Fatal);
}

#[test]
fn a_truncated_object_is_neither_taken_for_whole_nor_replaced() {
    let (folder, store) = fresh();
    store.put("packs/a", &[1; 1000]).unwrap();
    let path = folder.path().join("repository/packs/a");
    File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
    assert_eq!(store.put("packs/a", &[1; 1000]).unwrap_err().class(), ErrorClass::Corrupt);
    assert_eq!(store.get_range("packs/a", 0, 11, &mut Vec::new()).unwrap_err().class(), ErrorClass::Corrupt);
    store.delete("packs/a").unwrap();
    assert_eq!(store.put("packs/a", &[1; 1000]).unwrap(), PutOutcome::Created);
}

const CHILD: &str = "CHRONOLITH_TEST_WRITER";

/// Not a test of its own: run in a child process, writes objects until it is killed.
#[test]
fn endless_writer() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = LocalStore::open(path).unwrap();
    for number in 0.. {
        let content = bytes(u64::from(std::process::id()) << 32 | number, 200_000);
        store.put(&format!("packs/{:02x}/{}", number % 7, blake3::hash(&content)), &content).unwrap();
    }
}

#[test]
fn killed_writers_leave_whole_objects_only() {
    let (folder, store) = fresh();
    let random = SeededEntropy::new(u64::from(std::process::id()));
    let mut leftovers = 0;
    for _ in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "local::endless_writer"])
            .env(CHILD, folder.path().join("repository"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let before = store.list("").unwrap().len();
        while store.list("").unwrap().len() == before {
            assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
            std::thread::yield_now();
        }
        // A moment of random length, so that the blow falls on any step.
        for _ in 0..random.number() % 2_000_000 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for object in store.list("").unwrap() {
            let content = store.get(&object.name, 1 << 20).unwrap();
            assert!(object.name.ends_with(&blake3::hash(&content).to_string()), "{} is torn", object.name);
        }
        leftovers = fs::read_dir(folder.path().join("repository/tmp")).unwrap().count();
    }
    assert!(leftovers > 0, "no writer was killed while it wrote: this test proves nothing");
    assert_eq!(store.clean().unwrap(), 0);
}
