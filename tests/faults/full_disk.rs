//! A disk that fills up: a small file system in memory, and a store that is full from any write on.

use crate::deeds::{COMMANDS, is_sound, scene};
use crate::support::world::{Client, content, copy_of, noise};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::Classify;
use chronolith::ops::Snapshots;
use chronolith::ops::forget::forget;
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::storage::{LocalStore, Operation, Store};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Who deletes has to write first, and finds room for that which was kept back.
#[test]
fn on_a_disk_without_any_room_backups_are_forgotten_and_pruned() {
    let disk = Mounted(TempDir::new().unwrap());
    mount("size=12m", disk.0.path());
    let place = disk.0.path().join("repository");
    let store = Arc::new(LocalStore::create(&place).unwrap());
    let owner = Client::init(store.clone(), 7);
    let mut stored = Vec::new();
    let content_of = |number: usize| content([("app.bin", noise(number as u64, 600_000))]);
    while let Ok(report) = owner.try_back_up(&content_of(stored.len())) {
        stored.push(report.snapshot.unwrap());
        assert!(stored.len() < 40, "the disk does not fill up");
    }
    let mut filler = std::fs::File::create(disk.0.path().join("filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
    assert!(store.put("packs/none", b"not even this").is_err());
    // It is no object, and nobody takes it for something that was left unfinished.
    assert!(std::fs::exists(place.join("tmp/reserve")).unwrap());
    assert!(store.unfinished().unwrap().is_empty());

    let repository = owner.open();
    let (last, old) = stored.split_last().unwrap();
    forget(&repository, &Snapshots::load(&repository).unwrap(), old).unwrap();
    // Only what that took is used up: there is room for more of it, and for a prune, whenever that comes.
    let reserve = || std::fs::metadata(place.join("tmp/reserve")).unwrap().len();
    assert!(reserve() > 256 << 10, "{}", reserve());
    let options = PruneOptions { grace_seconds: 0, ..PruneOptions::new("test") };
    // What the backup that found no room had begun is nobody's any more: it is not waited for.
    prune(&repository, &options).unwrap();
    prune(&repository, &options).unwrap();
    drop(repository);
    assert_eq!(owner.snapshots(), [*last]);
    let id = owner.back_up(&content_of(100));
    assert!(owner.read(id).unwrap() == content_of(100));
    assert!(owner.read(*last).unwrap() == content_of(stored.len() - 1));
    assert!(reserve() > 512 << 10, "room is kept back again: {}", reserve());
}

/// The disk is full from the Nth write on, for every N: nothing is half, and once there is room the same
/// command succeeds.
#[test]
fn a_disk_that_is_full_at_any_write_leaves_nothing_half() {
    let scene = scene();
    for (name, command) in COMMANDS {
        let mut failures = 0;
        for number in 1.. {
            let store = Arc::new(copy_of(scene.owner.store.as_ref()));
            let writes = AtomicU64::new(0);
            let plan = move |_, operation, _: &str| {
                let is_write = matches!(operation, Operation::Put | Operation::Replace);
                let full = is_write && writes.fetch_add(1, Ordering::SeqCst) + 1 >= number;
                full.then_some(Fault::Before(Failure::NoSpace))
            };
            let full = Arc::new(FaultStore::with_plan(store.clone(), plan));
            let what = format!("{name}, full from write {number} on");
            let done = command(&scene, &scene.owner.through(full.clone()));
            if !full.fired() {
                done.unwrap_or_else(|error| panic!("{what}: {error}"));
                break;
            }
            failures += u32::from(done.is_err());
            if let Err(error) = done {
                let told = chronolith::base::explain(&error);
                assert!(told.contains("full"), "{what}: {told}");
            }
            let client = scene.owner.through(store);
            is_sound(&scene, &client, true, &what);
            command(&scene, &client).unwrap_or_else(|error| panic!("{what}, then once more: {error}"));
            is_sound(&scene, &client, false, &format!("{what}, then once more"));
        }
        assert!(failures > 0 || name == "forget", "{name} never failed");
    }
}
