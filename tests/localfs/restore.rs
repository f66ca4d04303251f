//! Restoring: the same tree again, only what differs, interrupted and resumed, full disks.

use crate::tree::{copy, copy_with, describe};
use crate::{below, raw, run};
use chronolith::base::{Classify, ErrorClass, Timestamp};
use chronolith::localfs::{
    Durability, FileKind, LocalError, Metadata, Ownership, RestoreOptions, TEMPORARY_PREFIX, TargetFolder,
};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// A folder on a file system with attributes and holes.
pub fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn target(path: &Path) -> TargetFolder {
    TargetFolder::open(raw(path), RestoreOptions::default()).unwrap()
}

/// Metadata of a plain file of our own.
pub fn plain(size: u64) -> Metadata {
    Metadata {
        kind: FileKind::File,
        mode: 0o640,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        user: None,
        group: None,
        modified: Timestamp::from_nanoseconds(1_234_567_890_123_456_789),
        changed: Timestamp::default(),
        accessed: Timestamp::from_nanoseconds(1_234_567_890_000_000_001),
        device: 0,
        inode: 0,
        links: 1,
        size,
        allocated: size,
        target: None,
        device_number: None,
        attributes: Vec::new(),
    }
}

fn leftovers(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with(TEMPORARY_PREFIX)).count()
}

fn write(target: &TargetFolder, name: &[u8], content: &[u8]) {
    let writer = target.create_file(name, content.len() as u64, false).unwrap();
    writer.write_at(0, content).unwrap();
    assert!(writer.finish(&plain(content.len() as u64)).unwrap().is_empty());
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

/// A tree with one of everything.
fn furnish(root: &Path) {
    let old = |path: &Path, seconds| {
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
        let file = File::open(path).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
    };
    for name in ["data/base/1", "data/base/2", "data/empty", "read only/inner/file", "z"] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), if name.ends_with("empty") { String::new() } else { name.repeat(1000) })
            .unwrap();
    }
    fs::write(below(root, b"not \xff UTF-8\n"), "x").unwrap();
    fs::set_permissions(root.join("data/base/1"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(root.join("data/base/2"), fs::Permissions::from_mode(0o000)).unwrap();
    std::os::unix::fs::chown(root.join("data/base/1"), Some(12_345), Some(54_321)).unwrap();
    fs::set_permissions(root.join("data/base/1"), fs::Permissions::from_mode(0o4711)).unwrap();
    set_attribute(&root.join("z"), "user.comment", b"\0binary\xff");
    set_attribute(&root.join("data"), "user.folder", b"yes");
    set_attribute(
        &root.join("data/base/2"),
        "security.capability",
        &[1, 0, 0, 2, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    fs::hard_link(root.join("z"), root.join("data/z again")).unwrap();
    fs::hard_link(root.join("z"), root.join("a z")).unwrap();
    symlink("../nowhere\n", root.join("data/link")).unwrap();
    std::os::unix::fs::lchown(root.join("data/link"), Some(7), Some(8)).unwrap();
    set_attribute(&root.join("data/link"), "trusted.link", b"1");
    run("mkfifo", &[root.join("pipe").as_os_str()]);
    run("mknod", &[root.join("null").as_os_str(), "c".as_ref(), "1".as_ref(), "3".as_ref()]);
    fs::set_permissions(root.join("null"), fs::Permissions::from_mode(0o666)).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    sparse.write_all_at(b"data", 10 << 20).unwrap();
    for (number, path) in
        ["data/base/1", "z", "sparse", "data/base", "data", "read only/inner"].iter().enumerate()
    {
        old(&root.join(path), 1_000_000_000 + number as u64);
    }
    fs::set_permissions(root.join("read only/inner"), fs::Permissions::from_mode(0o500)).unwrap();
    fs::set_permissions(root.join("read only"), fs::Permissions::from_mode(0o1555)).unwrap();
}

#[test]
fn a_tree_comes_back_with_everything() {
    let (source, other) = (folder(), folder());
    furnish(source.path());
    let _listener = UnixListener::bind(source.path().join("socket")).unwrap();
    let copied = copy(source.path(), other.path());
    let problems: Vec<_> = copied.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, [format!("{}/socket: a socket could not be restored", other.path().display())]);
    fs::remove_file(source.path().join("socket")).unwrap();
    let time = fs::metadata(other.path()).unwrap().modified().unwrap();
    File::open(source.path()).unwrap().set_modified(time).unwrap();
    assert_eq!(describe(other.path()), describe(source.path()));
    let ino = |name: &str| fs::symlink_metadata(other.path().join(name)).unwrap().ino();
    assert!(ino("z") == ino("a z") && ino("z") == ino("data/z again"));
    assert!(fs::metadata(other.path().join("sparse")).unwrap().blocks() < 2048);
}

#[test]
fn a_second_restore_writes_nothing() {
    let (source, other) = (folder(), folder());
    furnish(source.path());
    assert!(copy(source.path(), other.path()).written > 0);
    let inodes = |root: &Path| {
        describe(root)
            .into_keys()
            .map(|name| fs::symlink_metadata(below(root, &name)).unwrap().ino())
            .collect::<Vec<_>>()
    };
    let before = inodes(other.path());
    let again = copy(source.path(), other.path());
    assert_eq!((again.written, again.problems.len()), (0, 0));
    assert_eq!(inodes(other.path()), before);
    assert_eq!(describe(other.path()), describe(source.path()));
}

#[test]
fn what_differs_is_repaired() {
    let (source, other) = (folder(), folder());
    furnish(source.path());
    copy(source.path(), other.path());
    let root = other.path();
    File::options().write(true).open(root.join("z")).unwrap().write_all_at(b"#", 500).unwrap();
    fs::write(root.join("data/empty"), "no longer").unwrap();
    fs::remove_file(root.join("data/link")).unwrap();
    symlink("elsewhere", root.join("data/link")).unwrap();
    fs::remove_file(root.join("pipe")).unwrap();
    fs::create_dir(root.join("pipe")).unwrap();
    set_attribute(&root.join("data"), "user.extra", b"1");
    fs::remove_file(root.join("null")).unwrap();
    fs::write(root.join("null"), "a file where a device belongs").unwrap();
    File::options().write(true).open(root.join("sparse")).unwrap().write_all_at(&[1; 100_000], 4096).unwrap();
    fs::remove_file(root.join("a z")).unwrap();
    fs::write(root.join("a z"), "another file").unwrap();
    fs::set_permissions(root.join("read only"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(root.join("extra"), "x").unwrap();
    fs::create_dir_all(root.join("data/extra/deep")).unwrap();
    let options = RestoreOptions { replace_folders: true, ..RestoreOptions::default() };
    let copied = copy_with(source.path(), root, options, true);
    assert_eq!(copied.problems.len(), 0, "{:?}", copied.problems);
    assert_eq!(describe(root), describe(source.path()));
    assert!(fs::metadata(root.join("sparse")).unwrap().blocks() < 2048);
}

#[test]
fn only_differing_ranges_of_a_standing_file_are_written() {
    let other = folder();
    let path = other.path().join("file");
    let content: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut old = content.clone();
    old[500_000] ^= 1;
    fs::write(&path, &old).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let target = target(other.path());
    let writer = target.create_file(b"file", 1_000_000, false).unwrap();
    assert_eq!(writer.existing_length(), 1_000_000);
    let mut buffer = vec![0; 100_000];
    for piece in 0..10u64 {
        let range = piece as usize * 100_000..(piece as usize + 1) * 100_000;
        assert_eq!(writer.read_at(piece * 100_000, &mut buffer).unwrap(), 100_000);
        assert!(piece > 5 || !writer.was_written() || piece > 4);
        if buffer != content[range.clone()] {
            assert_eq!(piece, 5);
            writer.write_at(piece * 100_000, &content[range]).unwrap();
        }
    }
    assert!(writer.was_written());
    writer.finish(&plain(1_000_000)).unwrap();
    assert!(fs::read(&path).unwrap() == content);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(fs::metadata(&path).unwrap().mtime(), 1_234_567_890);
}

#[test]
fn longer_and_shorter_files_get_their_length() {
    let other = folder();
    let target = target(other.path());
    for (old, new) in [(10usize, 5usize), (5, 10), (0, 3_000_000), (3_000_000, 1), (7, 0)] {
        fs::write(other.path().join("file"), vec![1; old]).unwrap();
        let writer = target.create_file(b"file", new as u64, false).unwrap();
        writer.write_at(0, &vec![2; new]).unwrap();
        writer.finish(&plain(new as u64)).unwrap();
        assert!(fs::read(other.path().join("file")).unwrap() == vec![2; new], "{old} to {new}");
    }
    assert_eq!(leftovers(other.path()), 0);
}

#[test]
fn an_interrupted_file_has_no_name_and_is_taken_up_again() {
    let other = folder();
    let target = target(other.path());
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 241) as u8).collect();
    let writer = target.create_file(b"big", 3_000_000, false).unwrap();
    assert_eq!(writer.existing_length(), 0);
    writer.write_at(0, &content[..1_000_000]).unwrap();
    writer.write_at(2_000_000, &content[2_000_000..2_500_000]).unwrap();
    drop(writer);
    assert!(!other.path().join("big").exists());
    assert_eq!(leftovers(other.path()), 1);
    assert!(target.names().unwrap()[0].starts_with(TEMPORARY_PREFIX.as_bytes()));

    let writer = target.create_file(b"big", 3_000_000, false).unwrap();
    assert_eq!(writer.existing_length(), 2_500_000);
    let mut buffer = vec![0; 500_000];
    let mut differing = Vec::new();
    for (piece, wanted) in content.chunks(500_000).enumerate() {
        let offset = piece as u64 * 500_000;
        if writer.read_at(offset, &mut buffer).unwrap() != wanted.len() || buffer != wanted {
            differing.push(piece);
            writer.write_at(offset, wanted).unwrap();
        }
    }
    assert_eq!(differing, [2, 3, 5]);
    writer.finish(&plain(3_000_000)).unwrap();
    assert!(fs::read(other.path().join("big")).unwrap() == content);
    assert_eq!(leftovers(other.path()), 0);
}

#[test]
fn a_discarded_file_leaves_nothing() {
    let other = folder();
    let target = target(other.path());
    let writer = target.create_file(b"x", 10, false).unwrap();
    writer.write_at(0, b"12345").unwrap();
    writer.discard().unwrap();
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
}

#[test]
fn two_restores_do_not_write_one_unfinished_file() {
    let other = folder();
    let (one, two) = (target(other.path()), target(other.path()));
    let writer = one.create_file(b"x", 2, false).unwrap();
    let error = two.create_file(b"x", 2, false).unwrap_err();
    assert!(matches!(error, LocalError::Busy { .. }), "{error}");
    writer.write_at(0, b"12").unwrap();
    writer.finish(&plain(2)).unwrap();
    assert_eq!(fs::read(other.path().join("x")).unwrap(), b"12");
}

#[test]
fn many_threads_write_one_file() {
    let other = folder();
    let target = target(other.path());
    let writer = target.create_file(b"x", 16 << 16, false).unwrap();
    std::thread::scope(|scope| {
        for piece in 0..16u8 {
            let writer = &writer;
            scope.spawn(move || writer.write_at(u64::from(piece) << 16, &[piece; 1 << 16]).unwrap());
        }
    });
    writer.finish(&plain(16 << 16)).unwrap();
    let content = fs::read(other.path().join("x")).unwrap();
    assert!(
        content.chunks(1 << 16).enumerate().all(|(piece, bytes)| bytes.iter().all(|b| *b == piece as u8))
    );
}

#[test]
fn writing_past_the_length_is_refused() {
    let other = folder();
    let writer = target(other.path()).create_file(b"x", 10, false).unwrap();
    for (offset, length) in [(0, 11), (10, 1), (u64::MAX, 1), (u64::MAX, 0)] {
        assert!(writer.write_at(offset, &vec![1; length]).is_err(), "{offset} {length}");
        assert!(writer.hole(offset, length as u64).is_err());
    }
}

#[test]
fn sparse_makes_holes_of_zeros_and_holes_stay_holes() {
    let other = folder();
    let options = RestoreOptions { sparse: true, ..RestoreOptions::default() };
    let target = TargetFolder::open(raw(other.path()), options).unwrap();
    let mut content = vec![0; 8 << 20];
    content[4_000_000] = 1;
    let blocks = |name: &str| fs::metadata(other.path().join(name)).unwrap().blocks();
    let write = |name: &[u8], content: &[u8]| {
        let writer = target.create_file(name, content.len() as u64, false).unwrap();
        for (number, piece) in content.chunks(300_001).enumerate() {
            writer.write_at(number as u64 * 300_001, piece).unwrap();
        }
        writer.finish(&plain(content.len() as u64)).unwrap();
        assert!(fs::read(below(other.path(), name)).unwrap() == content);
    };
    write(b"new", &content);
    assert!(blocks("new") <= 64, "{} blocks", blocks("new"));
    // Over a file that is full of data.
    fs::write(other.path().join("old"), vec![7; 8 << 20]).unwrap();
    write(b"old", &content);
    // A block that two pieces share is zeroed by halves, and stays.
    assert!(blocks("old") <= 64 + 28 * 8, "{} blocks", blocks("old"));

    let dense = self::target(other.path());
    let writer = dense.create_file(b"holes", 8 << 20, true).unwrap();
    writer.write_at(0, &[1; 4096]).unwrap();
    writer.hole(4096, (8 << 20) - 4096).unwrap();
    writer.finish(&plain(8 << 20)).unwrap();
    assert!(blocks("holes") <= 64);
    let writer = dense.create_file(b"zeros", 2 << 20, false).unwrap();
    writer.write_at(0, &vec![0; 2 << 20]).unwrap();
    writer.finish(&plain(2 << 20)).unwrap();
    assert!(blocks("zeros") >= 4096, "without the option zeros are written");
}

#[test]
fn owners_and_dangerous_bits() {
    let other = folder();
    let target_of = |ownership| {
        TargetFolder::open(raw(other.path()), RestoreOptions { ownership, ..RestoreOptions::default() })
            .unwrap()
    };
    let create = |name: &[u8], ownership, metadata: &Metadata| {
        let writer = target_of(ownership).create_file(name, 0, false).unwrap();
        let problems = writer.finish(metadata).unwrap();
        (fs::metadata(below(other.path(), name)).unwrap(), problems)
    };
    let foreign = Metadata { uid: 12_345, gid: 12_346, mode: 0o6755, ..plain(0) };
    let (found, problems) = create(b"number", Ownership::ByNumber, &foreign);
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (12_345, 12_346, 0o6755));
    assert!(problems.is_empty());
    let (found, _) = create(b"own", Ownership::Own, &foreign);
    assert_eq!(
        (found.uid(), found.mode() & 0o7777),
        (0, 0o755),
        "a program of others must not be ours with setuid"
    );
    let named =
        Metadata { user: Some("daemon".into()), group: Some("no such group".into()), ..foreign.clone() };
    let (found, _) = create(b"name", Ownership::ByName, &named);
    assert_eq!((found.uid(), found.gid()), (1, 12_346));
    let nobody = Metadata { uid: u32::MAX, gid: u32::MAX, mode: 0o4755, ..plain(0) };
    let (found, problems) = create(b"all ones", Ownership::ByNumber, &nobody);
    assert_eq!((found.uid(), found.mode() & 0o7777, problems.len()), (0, 0o755, 1));
}

#[test]
fn folders_in_the_way_stay_unless_they_are_empty_or_may_be_replaced() {
    let other = folder();
    let root = other.path();
    let (careful, bold) = (
        target(root),
        TargetFolder::open(raw(root), RestoreOptions { replace_folders: true, ..RestoreOptions::default() })
            .unwrap(),
    );
    let link = Metadata { kind: FileKind::Symlink, target: Some(b"x".to_vec()), ..plain(0) };
    for name in ["file", "link"] {
        fs::create_dir_all(root.join(name).join("inner")).unwrap();
    }
    for error in [
        careful.create_file(b"file", 1, false).unwrap_err(),
        careful.create_special(b"link", &link).unwrap_err(),
    ] {
        assert!(matches!(error, LocalError::InTheWay { .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::Usage);
    }
    assert!(root.join("file/inner").exists() && root.join("link/inner").exists());
    write(&bold, b"file", b"1");
    bold.create_special(b"link", &link).unwrap();
    assert!(root.join("file").is_file() && root.join("link").is_symlink());
    fs::create_dir(root.join("empty")).unwrap();
    write(&careful, b"empty", b"1");
    assert!(root.join("empty").is_file());
    careful.enter(b"file").unwrap();
    assert!(root.join("file").is_dir());
    assert_eq!(leftovers(root), 0);
}

#[test]
fn targets_are_made_and_files_are_no_targets() {
    let other = folder();
    let root = other.path();
    for good in ["new", "deep/er/still", "deep/er/still", "trailing/slash/", "."] {
        TargetFolder::open(raw(&root.join(good)), RestoreOptions::default()).unwrap();
    }
    assert!(root.join("deep/er/still").is_dir());
    fs::write(root.join("file"), "x").unwrap();
    for bad in ["file", "file/below", "file/below/more"] {
        let error = TargetFolder::open(raw(&root.join(bad)), RestoreOptions::default()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Usage, "{error}");
    }
    assert!(TargetFolder::open(b"", RestoreOptions::default()).is_err());
    symlink("new", root.join("link")).unwrap();
    write(&target(&root.join("link")), b"x", b"1");
    assert!(root.join("new/x").exists());
}

#[test]
fn durability_of_each_kind_works() {
    for durability in [Durability::Never, Durability::AtEnd, Durability::EachFile] {
        let (source, other) = (folder(), folder());
        furnish(source.path());
        let options = RestoreOptions { durability, ..RestoreOptions::default() };
        assert_eq!(copy_with(source.path(), other.path(), options, false).problems.len(), 0);
        assert_eq!(describe(other.path()).len(), describe(source.path()).len());
    }
}

#[test]
fn extra_entries_are_removed_with_all_that_lies_in_them() {
    let (other, outside) = (folder(), folder());
    let root = other.path();
    fs::create_dir_all(root.join("extra/a/b/c")).unwrap();
    fs::write(root.join("extra/a/b/file"), "x").unwrap();
    fs::write(outside.path().join("precious"), "x").unwrap();
    symlink(outside.path(), root.join("extra/a/link")).unwrap();
    fs::set_permissions(root.join("extra/a/b"), fs::Permissions::from_mode(0o000)).unwrap();
    symlink(outside.path(), root.join("link")).unwrap();
    let target = target(root);
    target.remove(b"extra").unwrap();
    target.remove(b"link").unwrap();
    target.remove(b"missing").unwrap();
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    assert!(outside.path().join("precious").exists());
}

#[test]
fn a_mounted_file_system_is_not_emptied() {
    let other = folder();
    let mounted = other.path().join("extra/mounted");
    fs::create_dir_all(&mounted).unwrap();
    run(
        "mount",
        &["-t", "tmpfs", "-o", "size=1m", "chronolith-test", mounted.to_str().unwrap()].map(OsStr::new),
    );
    fs::write(mounted.join("precious"), "x").unwrap();
    let result = target(other.path()).remove(b"extra");
    let kept = mounted.join("precious").exists();
    run("umount", &[mounted.as_os_str()]);
    assert!(kept && matches!(result, Err(LocalError::InTheWay { .. })), "{result:?}");
}

#[test]
fn a_full_disk_is_noticed_before_it_is_full_and_leaves_no_half_file() {
    let other = folder();
    let path = other.path().join("small");
    fs::create_dir(&path).unwrap();
    run(
        "mount",
        &["-t", "tmpfs", "-o", "size=4m", "chronolith-test", path.to_str().unwrap()].map(OsStr::new),
    );
    let full = |error: &LocalError| match error {
        LocalError::System { source, .. } => source.kind() == ErrorKind::StorageFull,
        _ => false,
    };
    let at_once = target(&path).create_file(b"big", 100 << 20, false).unwrap_err();
    let writer = target(&path).create_file(b"holes", 100 << 20, true).unwrap();
    let later = (0..100u64).find_map(|n| writer.write_at(n << 20, &vec![1; 1 << 20]).err()).unwrap();
    drop(writer);
    let finals = [path.join("big").exists(), path.join("holes").exists()];
    run("umount", &[path.as_os_str()]);
    assert!(full(&at_once), "{at_once:?}");
    assert!(full(&later), "{later:?}");
    assert_eq!(finals, [false, false]);
}

#[test]
fn messages_stay_on_one_line() {
    let other = folder();
    fs::create_dir_all(below(other.path(), b"two\nlines/inner")).unwrap();
    let error = target(other.path()).create_file(b"two\nlines", 1, false).unwrap_err();
    assert!(error.to_string().ends_with("two\\nlines is in the way: it is a folder with content"), "{error}");
}
