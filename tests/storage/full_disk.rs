//! A disk that is full, and one that can only be read: small file systems in memory.

use chronolith::base::{Classify, ErrorClass};
use chronolith::storage::{LocalStore, PutOutcome, StorageError, Store};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A small file system that is unmounted when the test ends.
struct Mounted(TempDir);

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().map(|output| {
        assert!(
            output.status.success(),
            "`{program} {}` failed: {}This test mounts a small tmpfs: run it as root (in a container: with \
             CAP_SYS_ADMIN), with the Debian package `mount` installed.",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    });
    done.unwrap_or_else(|error| panic!("{program}: {error}; install the Debian package `mount`"));
}

impl Mounted {
    fn new(options: &str) -> Self {
        let folder = TempDir::new().unwrap();
        run("mount", &["-t", "tmpfs", "-o", options, "chronolith-test", folder.path().to_str().unwrap()]);
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_and_keeps_what_it_has() {
    let disk = Mounted::new("size=2m");
    let store = LocalStore::create(disk.path()).unwrap();
    let mut stored = Vec::new();
    let error = loop {
        let name = format!("packs/{:03}", stored.len());
        let content = crate::behaviour::bytes(stored.len() as u64, 300_000);
        match store.put(&name, &content) {
            Ok(outcome) => assert_eq!(outcome, PutOutcome::Created),
            Err(error) => break error,
        }
        stored.push((name, content));
    };
    assert!(matches!(error, StorageError::NoSpace { .. }), "{error:?}");
    assert!(error.to_string().ends_with(": the store is full"), "{error}");
    assert!(stored.len() >= 5, "only {} objects fitted", stored.len());

    // Nothing of the refused object is left, and all others are whole.
    assert_eq!(std::fs::read_dir(disk.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(store.list("").unwrap().len(), stored.len());
    for (name, content) in &stored {
        assert!(store.get(name, 1 << 20).unwrap() == *content);
        assert_eq!(store.put(name, content).unwrap(), PutOutcome::Existed);
    }
    let error = store.replace("packs/000", &[0; 3_000_000]).unwrap_err();
    assert!(matches!(error, StorageError::NoSpace { .. }), "{error:?}");
    assert!(store.get("packs/000", 1 << 20).unwrap() == stored[0].1);

    // Room is made: it works again.
    store.delete("packs/001").unwrap();
    assert_eq!(store.put("packs/new", &stored[1].1).unwrap(), PutOutcome::Created);
}

#[test]
fn a_disk_without_inodes_is_full() {
    let disk = Mounted::new("size=2m,nr_inodes=8");
    let store = LocalStore::create(disk.path()).unwrap();
    let error = (0..9).find_map(|n| store.put(&format!("a/{n}"), b"1").err()).unwrap();
    assert!(matches!(error, StorageError::NoSpace { .. }), "{error:?}");
    assert!(store.list("").unwrap().iter().all(|object| object.length == 1));
}

#[test]
fn a_disk_that_can_only_be_read_denies_writing() {
    let disk = Mounted::new("size=2m");
    let path = disk.path();
    let store = LocalStore::create(&path).unwrap();
    store.put("packs/a", b"1").unwrap();
    run("mount", &["-o", "remount,ro", path.to_str().unwrap()]);
    for error in [
        store.put("packs/b", b"2").unwrap_err(),
        store.replace("packs/a", b"2").unwrap_err(),
        store.delete("packs/a").unwrap_err(),
        store.clean().unwrap_err(),
    ] {
        assert!(matches!(error, StorageError::Denied { .. }), "{error:?}");
        assert_eq!(error.class(), ErrorClass::Fatal);
    }
    let read_only = LocalStore::open(&path).unwrap();
    assert_eq!(read_only.get("packs/a", 1).unwrap(), b"1");
    assert_eq!(read_only.list("").unwrap().len(), 1);
}
