//! Reading a file that others write to, replace or fill with holes.

use crate::raw;
use chronolith::localfs::{Entry, LocalError, Owners, Scan, ScanEvent, ScanOptions};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

fn find(path: &Path) -> Entry {
    match Scan::new(raw(path), &ScanOptions::default(), &Owners::default()).next() {
        Some(ScanEvent::Leaf(entry)) => entry,
        other => panic!("{other:?}"),
    }
}

/// As a scan of the folder finds it: links are not followed then.
fn find_in(folder: &Path, name: &str) -> Entry {
    let options = ScanOptions::default();
    let owners = Owners::default();
    Scan::new(raw(folder), &options, &owners)
        .find_map(|event| match event {
            ScanEvent::Leaf(entry) if entry.name() == name.as_bytes() => Some(entry),
            _ => None,
        })
        .unwrap()
}

#[test]
fn a_file_is_read_to_its_end() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&path, &content).unwrap();
    let source = find(&path).open().unwrap();
    let mut buffer = vec![0; 150_000];
    assert_eq!(source.read_at(0, &mut buffer).unwrap(), 150_000);
    assert!(buffer == content[..150_000]);
    assert_eq!(source.read_at(300_000, &mut buffer).unwrap(), 100_000);
    assert!(buffer[..100_000] == content[300_000..]);
    assert_eq!(source.read_at(400_000, &mut buffer).unwrap(), 0);
    assert_eq!(source.read_at(1 << 40, &mut buffer).unwrap(), 0);
    source.check_unchanged().unwrap();
}

#[test]
fn reading_leaves_the_access_time_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "content").unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(&path).unwrap().set_times(fs::FileTimes::new().set_accessed(old)).unwrap();
    find(&path).open().unwrap().read_at(0, &mut [0; 7]).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().atime(), 1_000_000_000);
}

#[test]
fn holes_are_found() {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("sparse");
    let file = File::create(&path).unwrap();
    file.set_len(100 << 20).unwrap();
    file.write_all_at(&[1; 8192], 1 << 20).unwrap();
    file.write_all_at(&[2; 65536], 50 << 20).unwrap();
    let found = find(&path);
    assert!(found.metadata().may_have_holes(), "run the tests on a file system with sparse files");
    let source = found.open().unwrap();
    let mut ranges = Vec::new();
    let mut offset = 0;
    while let Some(range) = source.next_data(offset).unwrap() {
        offset = range.end;
        ranges.push(range);
    }
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    for (range, at) in ranges.iter().zip([1 << 20, 50 << 20]) {
        assert!(range.contains(&at) && range.end - range.start <= 1 << 20, "{ranges:?}");
    }
    assert_eq!(source.next_data(100 << 20).unwrap(), None);
    assert_eq!(source.next_data(u64::MAX).unwrap(), None);
}

#[test]
fn a_dense_file_is_one_range() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("dense");
    fs::write(&path, [1; 10_000]).unwrap();
    let source = find(&path).open().unwrap();
    assert_eq!(source.next_data(0).unwrap(), Some(0..10_000));
    assert_eq!(source.next_data(5000).unwrap(), Some(5000..10_000));
    fs::write(&path, "").unwrap();
    assert_eq!(find(&path).open().unwrap().next_data(0).unwrap(), None);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_noticed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("its length", |path| File::options().append(true).open(path).unwrap().write_all(b"more").unwrap()),
        ("its length", |path| File::options().write(true).open(path).unwrap().set_len(3).unwrap()),
        ("its modification time", |path| {
            File::options().write(true).open(path).unwrap().write_all_at(b"C", 0).unwrap();
        }),
        // Rewritten, and the time set back: the change time gives it away.
        ("its metadata", |path| {
            let file = File::options().write(true).open(path).unwrap();
            let before = file.metadata().unwrap().modified().unwrap();
            file.write_all_at(b"C", 0).unwrap();
            file.set_modified(before).unwrap();
        }),
        ("its metadata", |path| fs::hard_link(path, path.with_extension("link")).unwrap()),
    ];
    for (wanted, change) in changes {
        fs::write(&path, "content").unwrap();
        // Clocks of file systems are coarse; the change must not fall into the same tick.
        let mut source = find(&path).open().unwrap();
        for _ in 0..10_000 {
            source.check_unchanged().unwrap();
            let started = SystemTime::now() - Duration::from_millis(20);
            if fs::metadata(&path).unwrap().modified().unwrap() < started {
                break;
            }
            source = find(&path).open().unwrap();
        }
        change(&path);
        match source.check_unchanged() {
            Err(LocalError::Changed { what, .. }) => assert_eq!(what, wanted),
            other => panic!("{wanted}: {other:?}"),
        }
    }
}

#[test]
fn a_file_that_was_replaced_before_it_was_opened_is_noticed() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    let replaced = |change: &dyn Fn()| {
        fs::write(root.join("file"), "content").unwrap();
        fs::write(root.join("other"), "content").unwrap();
        let found = find_in(root, "file");
        change();
        let error = found.open().unwrap_err();
        let _ = fs::remove_file(root.join("file"));
        error
    };
    let by_file = replaced(&|| fs::rename(root.join("other"), root.join("file")).unwrap());
    assert!(matches!(by_file, LocalError::Replaced { .. }), "{by_file}");
    let by_link = replaced(&|| {
        fs::remove_file(root.join("file")).unwrap();
        symlink("/etc/passwd", root.join("file")).unwrap();
    });
    assert!(matches!(by_link, LocalError::Replaced { .. }), "{by_link}");
    let by_pipe = replaced(&|| {
        fs::remove_file(root.join("file")).unwrap();
        crate::run("mkfifo", &[root.join("file").as_os_str()]);
    });
    assert!(matches!(by_pipe, LocalError::Replaced { .. }), "{by_pipe}");
    let by_nothing = replaced(&|| fs::remove_file(root.join("file")).unwrap());
    assert!(matches!(by_nothing, LocalError::Vanished { .. }), "{by_nothing}");
}
