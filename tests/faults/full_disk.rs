//! A disk that fills up during a backup: a small file system in memory.

use crate::support::world::{Client, content, noise};
use chronolith::base::Classify;
use chronolith::storage::LocalStore;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// A small file system that is unmounted when the test ends.
struct Mounted(TempDir);

fn mount(options: &str, place: &Path) {
    let output =
        Command::new("mount").args(["-t", "tmpfs", "-o", options, "chronolith-test"]).arg(place).output();
    let output = output.unwrap_or_else(|error| panic!("mount: {error}; install the Debian package `mount`"));
    assert!(
        output.status.success(),
        "`mount -t tmpfs -o {options}` failed: {}This test mounts a small tmpfs: run it as root (in a \
         container: with CAP_SYS_ADMIN).",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_fills_up_loses_nothing() {
    let disk = Mounted(TempDir::new().unwrap());
    mount("size=4m", disk.0.path());
    let store = Arc::new(LocalStore::create(disk.0.path().join("repository")).unwrap());
    let owner = Client::init(store, 6);
    let mut stored = Vec::new();
    let refused = loop {
        assert!(stored.len() < 40, "the disk does not fill up");
        let content = content([("app.bin", noise(stored.len() as u64, 300_000))]);
        match owner.try_back_up(&content) {
            Ok(report) => stored.push((report.snapshot.unwrap(), content)),
            Err(error) => {
                assert!(error.to_string().contains("full"), "{error} ({:?})", error.class());
                break content;
            }
        }
    };
    assert!(stored.len() >= 3, "only {} backups fitted", stored.len());
    // Again and again: what cannot be finished does not pile up in the place of what could be.
    for _ in 0..3 {
        assert!(owner.try_back_up(&refused).is_err());
    }
    let known: Vec<_> = stored.iter().map(|(id, _)| *id).collect();
    assert_eq!(owner.snapshots(), known);
    for (id, content) in &stored {
        assert!(owner.read(*id).unwrap() == *content);
    }
    // Room is made: the next backup succeeds.
    mount("remount,size=32m", disk.0.path());
    let id = owner.back_up(&refused);
    assert!(owner.read(id).unwrap() == refused);
}
