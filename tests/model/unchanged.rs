//! A file counts as unchanged without being read only where nothing can have been hidden.

use crate::support::world::Client;
use chronolith::ops::backup::BackupReport;
use chronolith::storage::MemoryStore;
use std::fs::{self, File, FileTimes};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

struct Scene {
    client: Client,
    folder: TempDir,
}

impl Scene {
    /// A folder with one file, written long ago as far as the backup's clock is concerned.
    fn new() -> Self {
        let scene =
            Self { client: Client::init(Arc::new(MemoryStore::new()), 31), folder: TempDir::new().unwrap() };
        fs::write(scene.file(), b"old content").unwrap();
        scene
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("file")
    }

    fn back_up(&self) -> BackupReport {
        self.client.try_back_up_path(self.folder.path()).unwrap()
    }

    fn stored(&self, report: &BackupReport) -> Vec<u8> {
        let content = self.client.read(report.snapshot.unwrap()).unwrap();
        content.into_iter().find(|(path, _)| path.ends_with(b"/file")).unwrap().1
    }
}

#[test]
fn a_file_at_rest_is_not_read_again() {
    let scene = Scene::new();
    scene.client.clock.shift_seconds(10);
    assert_eq!(scene.back_up().summary.unchanged_files, 0);
    let report = scene.back_up();
    assert_eq!(report.summary.unchanged_files, 1);
    assert_eq!(scene.stored(&report), b"old content");
}

#[test]
fn a_file_touched_within_two_seconds_of_the_read_is_read_again() {
    // The parent's read began at the very time of the change, or just after it: an equal time proves nothing.
    for seconds in [0, 1] {
        let scene = Scene::new();
        scene.client.clock.shift_seconds(seconds);
        scene.back_up();
        scene.client.clock.shift_seconds(100);
        let report = scene.back_up();
        assert_eq!(report.summary.unchanged_files, 0, "{seconds} s after the change");
        // This read began long after the change: from now on it counts.
        assert_eq!(scene.back_up().summary.unchanged_files, 1);
    }
}

#[test]
fn the_same_size_and_an_mtime_set_back_do_not_hide_a_change() {
    let scene = Scene::new();
    let long_ago = SystemTime::now() - Duration::from_secs(1_000_000);
    let set_back = || {
        let file = File::options().write(true).open(scene.file()).unwrap();
        file.set_times(FileTimes::new().set_modified(long_ago)).unwrap();
    };
    set_back();
    scene.client.clock.shift_seconds(10);
    scene.back_up();
    assert_eq!(scene.back_up().summary.unchanged_files, 1);
    // Rewritten in place: same inode, same size, same mtime. Only ctime tells.
    fs::write(scene.file(), b"new content").unwrap();
    set_back();
    let report = scene.back_up();
    assert_eq!(report.summary.unchanged_files, 0);
    assert_eq!(scene.stored(&report), b"new content");
}

#[test]
fn another_file_under_the_name_is_read() {
    let scene = Scene::new();
    scene.client.clock.shift_seconds(10);
    scene.back_up();
    let modified = fs::metadata(scene.file()).unwrap().modified().unwrap();
    let other = scene.folder.path().join("other");
    fs::write(&other, b"new content").unwrap();
    File::options()
        .write(true)
        .open(&other)
        .unwrap()
        .set_times(FileTimes::new().set_modified(modified))
        .unwrap();
    fs::rename(&other, scene.file()).unwrap();
    let report = scene.back_up();
    assert_eq!(report.summary.unchanged_files, 0);
    assert_eq!(scene.stored(&report), b"new content");
}

#[test]
fn what_another_host_backed_up_says_nothing() {
    let scene = Scene::new();
    scene.client.clock.shift_seconds(10);
    let parent = scene.back_up().snapshot;
    let other = scene.client.on_host("db2");
    let mut options = other.options();
    options.parent = parent;
    let source = chronolith::ops::backup::Source::Path(scene.folder.path().to_owned());
    let report = chronolith::ops::backup::backup(&other.open(), vec![source], &options).unwrap();
    assert_eq!(report.parent, parent);
    assert_eq!(report.summary.unchanged_files, 0, "its devices and inodes mean other files there");
}

#[test]
fn an_unchanged_file_whose_content_is_gone_is_stored_again() {
    use chronolith::storage::Store;
    let scene = Scene::new();
    scene.client.clock.shift_seconds(10);
    scene.back_up();
    for object in scene.client.store.list("packs/").unwrap() {
        scene.client.store.delete(&object.name).unwrap();
    }
    let report = scene.back_up();
    assert_eq!(report.summary.unchanged_files, 0);
    assert_eq!(scene.stored(&report), b"old content");
}
