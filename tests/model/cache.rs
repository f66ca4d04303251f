//! A cache that is missing, read-only, full or damaged costs time, never correctness.

use crate::support::world::{Client, Content, content, dump, noise};
use chronolith::storage::MemoryStore;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

struct Scene {
    client: Client,
    cache: TempDir,
    content: Content,
    id: chronolith::base::SnapshotId,
}

fn scene() -> Scene {
    let cache = TempDir::new().unwrap();
    let client = Client::init(Arc::new(MemoryStore::new()), 21).with_cache(cache.path());
    let content = content([("app.sql", dump(1, 1500, 7)), ("b", noise(1, 30_000))]);
    let id = client.back_up(&content);
    client.read(id).unwrap();
    Scene { client, cache, content, id }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn works(scene: &Scene, what: &str) {
    let read = scene.client.read(scene.id).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(read == scene.content, "{what}");
}

#[test]
fn every_byte_of_the_cache_may_be_wrong() {
    let scene = scene();
    let originals: Vec<_> =
        files(scene.cache.path()).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    assert!(originals.iter().any(|(_, path)| path.extension().is_some_and(|e| e == "segment")));
    assert!(originals.iter().any(|(_, path)| path.ends_with("seen")));
    for (bytes, path) in &originals {
        // A prime step through what is long; every byte of what is short.
        let step = if bytes.len() < 512 { 1 } else { 61 };
        for at in (0..bytes.len()).step_by(step) {
            let mut harmed = bytes.clone();
            harmed[at] ^= 1 << (at % 8);
            fs::write(path, &harmed).unwrap();
            works(&scene, &format!("byte {at} of {} flipped", path.display()));
        }
        for length in [0, 1, 7, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            fs::write(path, &bytes[..length]).unwrap();
            works(&scene, &format!("{} cut to {length} bytes", path.display()));
        }
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_backup_over_a_damaged_cache_is_whole() {
    let scene = scene();
    for path in files(scene.cache.path()) {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() * 3 / 4;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let next = content([("app.sql", dump(2, 1500, 7))]);
        let id = scene.client.back_up(&next);
        assert_eq!(scene.client.read(id).unwrap(), next);
        works(&scene, "after a backup over a damaged cache");
    }
}

#[test]
fn the_cache_may_vanish_or_be_no_folder() {
    let scene = scene();
    let repository = scene.client.open();
    repository.load_index().unwrap();
    fs::remove_dir_all(scene.cache.path()).unwrap();
    let read = crate::support::world::read_snapshot(&repository, scene.id).unwrap();
    assert_eq!(read, scene.content, "the cache vanished under an open repository");
    works(&scene, "no cache folder");
    fs::remove_dir_all(scene.cache.path()).unwrap();
    fs::write(scene.cache.path(), b"a file").unwrap();
    works(&scene, "a file in place of the cache folder");
    scene.client.back_up(&content([("c", noise(9, 10_000))]));
    fs::remove_file(scene.cache.path()).unwrap();
    fs::create_dir_all(scene.cache.path()).unwrap();
}

#[test]
fn what_dead_processes_left_in_it_is_removed_after_a_day() {
    let scene = scene();
    let folder = fs::read_dir(scene.cache.path()).unwrap().next().unwrap().unwrap().path();
    let day = Duration::from_secs(24 * 60 * 60);
    let make = |name: &str, age: Duration| {
        let path = folder.join(name);
        let file = fs::File::create(&path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        path
    };
    let minute = Duration::from_secs(60);
    let stale = [make("index/0123.4711.partial", day + minute), make("seen.4711.partial", day * 40)];
    let others = [
        make("index/0123.4712.partial", day - minute),
        make("seen.4712.partial", Duration::ZERO),
        make("somebody.else", day * 40),
    ];
    fs::create_dir(folder.join("folder.partial")).unwrap();
    works(&scene, "unfinished files in the cache");
    for path in &stale {
        assert!(!path.exists(), "{} is still there", path.display());
    }
    for path in others.iter().chain([&folder.join("folder.partial")]) {
        assert!(path.exists(), "{} is gone", path.display());
    }
    // A clock that is wrong by years costs what is being written at most.
    scene.client.clock.shift_seconds(-40 * 365 * 86_400);
    works(&scene, "a clock of the past");
    scene.client.clock.shift_seconds(80 * 365 * 86_400);
    works(&scene, "a clock of the future");
    assert!(!others[0].exists() && others[2].exists());
}

/// A small file system that is unmounted when the test ends.
struct Mounted(TempDir);

fn run(program: &str, arguments: &[&str]) {
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install the package `mount`"));
    assert!(
        output.status.success(),
        "`{program} {}` failed: {}This test mounts a small tmpfs: run it as root (in a container: with \
         CAP_SYS_ADMIN).",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Mounted {
    fn new(options: &str) -> Self {
        let folder = TempDir::new().unwrap();
        run("mount", &["-t", "tmpfs", "-o", options, "chronolith-test", folder.path().to_str().unwrap()]);
        Self(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_or_read_only_cache() {
    for size in ["size=4k", "size=16k", "size=1m,nr_inodes=3"] {
        let disk = Mounted::new(size);
        let client = Client::init(Arc::new(MemoryStore::new()), 22).with_cache(disk.0.path());
        for version in 0..6 {
            let content = content([("app.sql", dump(version, 2500, 3))]);
            let id = client.back_up(&content);
            assert_eq!(client.read(id).unwrap(), content, "{size}");
        }
        let mut left = files(disk.0.path());
        left.retain(|path| path.extension().is_some_and(|extension| extension == "partial"));
        assert!(left.is_empty(), "{size}: what could not be finished is left behind: {left:?}");
        run("mount", &["-o", "remount,ro", disk.0.path().to_str().unwrap()]);
        let content = content([("app.sql", dump(9, 2500, 3))]);
        let id = client.back_up(&content);
        assert_eq!(client.read(id).unwrap(), content, "read-only, {size}");
    }
}
