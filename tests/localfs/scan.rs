//! What a scan finds, in which order, and what it says about the rest.

use crate::{below, raw, run};
use chronolith::base::{Classify, ErrorClass};
use chronolith::localfs::{
    Entry, Excludes, FileKind, LocalError, Owners, Scan, ScanEvent, ScanOptions, printable,
};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

fn events(source: &[u8], options: &ScanOptions) -> Vec<ScanEvent> {
    Scan::new(source, options, &Owners::load()).collect()
}

/// Events as text: paths below the source, indented by nothing, `<` for a leave, `!` for a problem.
fn script(source: &Path, options: &ScanOptions) -> Vec<String> {
    let show = |entry: &Entry| {
        let path = entry.path().strip_prefix(raw(source)).unwrap_or(entry.path());
        printable(path.strip_prefix(b"/").unwrap_or(path))
    };
    events(raw(source), options)
        .iter()
        .map(|event| match event {
            ScanEvent::Enter(entry) => format!("{}/", show(entry)),
            ScanEvent::Leaf(entry) => show(entry),
            ScanEvent::Leave => "<".to_owned(),
            ScanEvent::Problem(error) => {
                format!("! {}", error.to_string().replace(&format!("{}/", source.display()), ""))
            }
        })
        .collect()
}

fn entry(source: &Path) -> Entry {
    match Scan::new(raw(source), &ScanOptions::default(), &Owners::load()).next() {
        Some(ScanEvent::Enter(entry) | ScanEvent::Leaf(entry)) => entry,
        other => panic!("{other:?}"),
    }
}

fn child(folder: &Path, name: &[u8]) -> Entry {
    events(raw(folder), &ScanOptions::default())
        .into_iter()
        .find_map(|event| match event {
            ScanEvent::Enter(entry) | ScanEvent::Leaf(entry) if entry.name() == name => Some(entry),
            _ => None,
        })
        .unwrap_or_else(|| panic!("{} was not found", printable(name)))
}

#[test]
fn the_order_is_that_of_names_bytes_with_folders_before_their_content() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    for name in ["b/x", "b/a/1", "a.b/y", "a/z"] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), name).unwrap();
    }
    for name in [&b"Z"[..], b"\xff\xfe", b"new\nline", "ü".as_bytes(), b" ", b"-rf"] {
        fs::write(below(root, name), "x").unwrap();
    }
    fs::create_dir(root.join("empty")).unwrap();
    assert_eq!(
        script(root, &ScanOptions::default()),
        [
            "/",
            " ",
            "-rf",
            "Z",
            "a/",
            "a/z",
            "<",
            "a.b/",
            "a.b/y",
            "<",
            "b/",
            "b/a/",
            "b/a/1",
            "<",
            "b/x",
            "<",
            "empty/",
            "<",
            "new\\nline",
            "ü",
            "\\xff\\xfe",
            "<"
        ]
    );
}

#[test]
fn all_metadata_is_there() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "content").unwrap();
    fs::hard_link(&path, folder.path().join("second")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4750)).unwrap();
    let before_the_epoch = SystemTime::UNIX_EPOCH - Duration::new(86_400, 5);
    File::options().write(true).open(&path).unwrap().set_modified(before_the_epoch).unwrap();
    let (found, wanted) = (child(folder.path(), b"file"), fs::metadata(&path).unwrap());
    let metadata = found.metadata();
    assert_eq!((metadata.kind, metadata.mode, metadata.size), (FileKind::File, 0o4750, 7));
    assert_eq!((metadata.uid, metadata.gid, metadata.links), (wanted.uid(), wanted.gid(), 2));
    assert_eq!((metadata.device, metadata.inode), (wanted.dev(), wanted.ino()));
    assert_eq!(metadata.modified.nanoseconds(), -86_400_000_000_005);
    assert_eq!(metadata.changed.seconds(), wanted.ctime());
    assert_eq!(i64::from(metadata.changed.subsecond_nanoseconds()), wanted.ctime_nsec());
    assert_eq!(metadata.accessed.seconds(), wanted.atime());
    assert_eq!(entry(Path::new("/")).metadata().user.as_deref(), Some("root"));
    assert_eq!(entry(Path::new("/")).metadata().group.as_deref(), Some("root"));
}

#[test]
fn special_files_are_found_and_links_are_not_followed() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    symlink("../some where\n", root.join("link")).unwrap();
    symlink("/", root.join("out")).unwrap();
    symlink(".", root.join("self")).unwrap();
    let _listener = UnixListener::bind(root.join("socket")).unwrap();
    run("mkfifo", &[root.join("pipe").as_os_str()]);
    run("mknod", &[root.join("null").as_os_str(), "c".as_ref(), "1".as_ref(), "3".as_ref()]);
    run("mknod", &[root.join("disk").as_os_str(), "b".as_ref(), "7".as_ref(), "300".as_ref()]);
    let kind = |name: &[u8]| child(root, name).metadata().kind;
    assert_eq!(kind(b"socket"), FileKind::Socket);
    assert_eq!(kind(b"pipe"), FileKind::Fifo);
    assert_eq!(child(root, b"null").metadata().device_number, Some((1, 3)));
    assert_eq!(child(root, b"disk").metadata().device_number, Some((7, 300)));
    assert_eq!(child(root, b"link").metadata().target.as_deref(), Some(&b"../some where\n"[..]));
    assert_eq!(script(root, &ScanOptions::default()).len(), 9, "nothing behind a link is walked");
    assert!(child(root, b"link").open().is_err());
}

#[test]
fn attributes_and_access_control_lists_are_read() {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "x").unwrap();
    let large = vec![7; 2000];
    let set = |name: &str, value: &[u8]| {
        rustix::fs::setxattr(&path, name, value, rustix::fs::XattrFlags::empty()).unwrap_or_else(|errno| {
            panic!("{name}: {errno}: run the tests on a file system with attributes")
        });
    };
    set("user.z", b"last");
    set("user.empty", b"");
    set("user.large", &large);
    // Version 2; user::rw-, user 1:r--, group::r--, mask::r--, other::---
    let entries: [(u16, u16, u32); 5] = [(1, 6, !0), (2, 4, 1), (4, 4, !0), (16, 4, !0), (32, 0, !0)];
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
    }
    set("system.posix_acl_access", &list);
    let found = child(folder.path(), b"file");
    let wanted: Vec<(&[u8], &[u8])> = vec![
        (b"system.posix_acl_access", &list),
        (b"user.empty", b""),
        (b"user.large", &large),
        (b"user.z", b"last"),
    ];
    let attributes: Vec<_> =
        found.metadata().attributes.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(attributes, wanted);
}

#[test]
fn excluded_entries_are_left_out() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    for name in
        ["a/cache/x", "a/keep.log", "a/other.log", "pg/postmaster.pid", "pg/sub/postmaster.pid", "cache"]
    {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), "x").unwrap();
    }
    let whole = format!("{}/pg/sub", root.display());
    let excludes = Excludes::new(["cache/", "*.log", "!keep.log", "pg/postmaster.pid", &whole]).unwrap();
    let options = ScanOptions { excludes, ..ScanOptions::default() };
    assert_eq!(script(root, &options), ["/", "a/", "a/keep.log", "<", "cache", "pg/", "<", "<"]);

    let identity = fs::metadata(root.join("a")).unwrap();
    let options =
        ScanOptions { skipped: [(identity.dev(), identity.ino())].into(), ..ScanOptions::default() };
    assert!(!script(root, &options).contains(&"a/".to_owned()));
}

#[test]
fn one_entry_of_a_source_is_walked_as_the_whole_walk_would() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/keep"), "x").unwrap();
    fs::write(root.join("top.tmp"), "x").unwrap();
    symlink("a", root.join("link")).unwrap();
    let walk = |entry: &str, options: &ScanOptions| -> Vec<ScanEvent> {
        Scan::of_entry(raw(root), entry.as_bytes(), options, &Owners::load()).collect()
    };
    let excludes = Excludes::new(["/a/b", "*.tmp"]).unwrap();
    let options = ScanOptions { excludes, ..ScanOptions::default() };
    assert!(walk("top.tmp", &options).is_empty());
    // A link is a link, and what is anchored is anchored at the source.
    assert!(
        matches!(&walk("link", &options)[..], [ScanEvent::Leaf(entry)] if entry.metadata().kind == FileKind::Symlink)
    );
    let [ScanEvent::Enter(entered), ScanEvent::Leaf(kept), ScanEvent::Leave] = &walk("a", &options)[..]
    else {
        panic!("{:?}", walk("a", &options));
    };
    assert_eq!((entered.path(), kept.name()), (raw(&root.join("a")), &b"keep"[..]));
    let identity = fs::metadata(root.join("a")).unwrap();
    let skipped = [(identity.dev(), identity.ino())].into();
    assert!(walk("a", &ScanOptions { skipped, ..ScanOptions::default() }).is_empty());
    // Another file system.
    let options = ScanOptions { one_file_system: true, ..ScanOptions::default() };
    let events: Vec<_> = Scan::of_entry(b"/", b"proc", &options, &Owners::load()).collect();
    assert!(matches!(&events[..], [ScanEvent::Enter(_), ScanEvent::Leave]), "{events:?}");
}

#[test]
fn a_source_may_be_a_file_a_link_or_end_in_slashes() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("real")).unwrap();
    fs::write(root.join("real/file"), "x").unwrap();
    symlink("real", root.join("link")).unwrap();
    assert_eq!(script(&root.join("link"), &ScanOptions::default()), ["/", "file", "<"]);
    assert_eq!(script(&root.join("real/file"), &ScanOptions::default()), [""]);
    let with_slashes = [raw(root), b"/real//"].concat();
    let found = events(&with_slashes, &ScanOptions::default());
    assert!(matches!(&found[0], ScanEvent::Enter(entry) if entry.name() == b"real"), "{found:?}");
    assert!(matches!(&found[1], ScanEvent::Leaf(entry) if entry.path().ends_with(b"/real/file")));
    assert!(entry(&root.join("link")).metadata().kind == FileKind::Directory);
    let missing = events(&[raw(root), b"/missing"].concat(), &ScanOptions::default());
    assert!(
        matches!(&missing[..], [ScanEvent::Problem(error)] if error.class() == ErrorClass::NotFound),
        "{missing:?}"
    );
}

#[test]
fn other_file_systems_are_not_entered_when_asked() {
    let folder = TempDir::new().unwrap();
    let mounted = folder.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    fs::write(folder.path().join("z"), "x").unwrap();
    run(
        "mount",
        &["-t", "tmpfs", "-o", "size=1m", "chronolith-test", mounted.to_str().unwrap()].map(OsStr::new),
    );
    fs::write(mounted.join("inside"), "x").unwrap();
    let one = ScanOptions { one_file_system: true, ..ScanOptions::default() };
    let (within, all) = (script(folder.path(), &one), script(folder.path(), &ScanOptions::default()));
    run("umount", &[mounted.as_os_str()]);
    assert_eq!(within, ["/", "mounted/", "<", "z", "<"]);
    assert_eq!(all, ["/", "mounted/", "mounted/inside", "<", "z", "<"]);
}

#[test]
fn folders_that_contain_themselves_are_noticed() {
    let folder = TempDir::new().unwrap();
    let inner = folder.path().join("a/inner");
    fs::create_dir_all(&inner).unwrap();
    fs::write(folder.path().join("a/z"), "x").unwrap();
    run("mount", &[OsStr::new("--bind"), folder.path().as_os_str(), inner.as_os_str()]);
    let found = script(folder.path(), &ScanOptions::default());
    run("umount", &[inner.as_os_str()]);
    assert_eq!(
        found,
        ["/", "a/", "a/inner/", "! a/inner is one of the folders it lies in", "<", "a/z", "<", "<"]
    );
}

#[test]
fn folders_too_deep_are_a_problem_and_the_rest_goes_on() {
    let folder = TempDir::new().unwrap();
    let mut path = vec![b'x'];
    let mut handle =
        rustix::fs::open(folder.path(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let limit = chronolith::base::limits::TREE_DEPTH_MAX;
    for _ in 0..limit + 2 {
        rustix::fs::mkdirat(&handle, &path, rustix::fs::Mode::RWXU).unwrap();
        handle =
            rustix::fs::openat(&handle, &path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        path = vec![b'x'];
    }
    fs::write(folder.path().join("z"), "x").unwrap();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (mut before, mut most) = (usize::MAX, 0);
    let (mut enters, mut leaves, mut problems, mut beside) = (0, 0, Vec::new(), false);
    let (options, owners) = (ScanOptions::default(), Owners::load());
    for event in Scan::new(raw(folder.path()), &options, &owners) {
        if enters % 100 == 0 {
            before = before.min(open());
            most = most.max(open());
        }
        match event {
            ScanEvent::Enter(_) => enters += 1,
            ScanEvent::Leave => leaves += 1,
            ScanEvent::Leaf(entry) => beside |= entry.name() == b"z",
            ScanEvent::Problem(problem) => problems.push(problem),
        }
    }
    assert!(matches!(&problems[..], [LocalError::TooDeep { .. }]), "{problems:?}");
    assert!(beside, "what lies beside the deep folders was not found");
    assert_eq!((enters, leaves), (limit + 1, limit + 1));
    // Other tests open files too, though not hundreds.
    assert!(most - before < 500, "{} files open", most - before);
    run("rm", &[OsStr::new("-rf"), folder.path().join("x").as_os_str()]);
}

#[test]
fn the_way_back_up_is_found_when_deep_folders_are_moved_away() {
    let folder = TempDir::new().unwrap();
    let deep = folder.path().join("top/".to_owned() + &"x/".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(folder.path().join("aside")).unwrap();
    for name in ["top/x/x/later", "top/later", "z"] {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    let (options, owners) = (ScanOptions::default(), Owners::load());
    let mut seen = Vec::new();
    for event in Scan::new(raw(folder.path()), &options, &owners) {
        match event {
            ScanEvent::Enter(entry) if entry.path().len() == raw(&deep).len() - 1 => {
                // Far up on the way, so that the handle in between is no longer open.
                fs::rename(folder.path().join("top/x/x/x"), folder.path().join("aside/x")).unwrap();
            }
            ScanEvent::Leaf(entry) => seen.push(printable(entry.name())),
            ScanEvent::Problem(error) => seen.push(format!("! {error}")),
            _ => {}
        }
    }
    assert_eq!(seen, ["later", "later", "z"]);
}

#[test]
fn what_vanishes_or_is_replaced_is_reported_and_the_walk_goes_on() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    for name in ["a/1", "a/2", "b/1", "c/1", "d"] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), "x").unwrap();
    }
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), "x").unwrap();
    let (options, owners) = (ScanOptions::default(), Owners::load());
    let mut scan = Scan::new(raw(root), &options, &owners);
    assert!(matches!(scan.next(), Some(ScanEvent::Enter(_))));
    assert!(matches!(scan.next(), Some(ScanEvent::Enter(_))), "a");
    fs::remove_file(root.join("a/1")).unwrap();
    fs::remove_dir_all(root.join("b")).unwrap();
    // The folder's names are known by now; a link to elsewhere takes the place of one of them.
    fs::rename(root.join("c"), root.join("moved")).unwrap();
    symlink(outside.path(), root.join("c")).unwrap();
    let rest: Vec<_> = scan
        .map(|event| match event {
            ScanEvent::Enter(entry) => format!("{}/", printable(entry.name())),
            ScanEvent::Leaf(entry) => format!("{} {:?}", printable(entry.name()), entry.metadata().kind),
            ScanEvent::Leave => "<".to_owned(),
            ScanEvent::Problem(error) => {
                assert_eq!(error.class(), ErrorClass::NotFound);
                "!".to_owned()
            }
        })
        .collect();
    assert_eq!(rest, ["!", "2 File", "<", "!", "c Symlink", "d File", "<"]);
}

#[test]
fn names_with_newlines_give_errors_of_one_line() {
    let folder = TempDir::new().unwrap();
    fs::write(below(folder.path(), b"two\nlines\xff"), "x").unwrap();
    let found = child(folder.path(), b"two\nlines\xff");
    fs::remove_file(below(folder.path(), b"two\nlines\xff")).unwrap();
    let message = found.open().unwrap_err().to_string();
    assert!(message.contains("two\\nlines\\xff vanished") && !message.contains('\n'), "{message}");
    assert_eq!(OsStr::from_bytes(found.name()).len(), 10);
}
