//! Hostile snapshots, and people who change the target while it is restored.

use crate::raw;
use crate::restore::{folder, plain, target};
use chronolith::base::{Classify, ErrorClass};
use chronolith::localfs::{FileKind, Metadata, RestoreOptions, TEMPORARY_PREFIX, TargetFolder};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// The temporary name that a restore of `name` uses.
fn temporary(target: &TargetFolder, name: &[u8]) -> PathBuf {
    drop(target.create_file(name, 1, false).unwrap());
    let names = target.names().unwrap();
    let found = names.iter().find(|name| name.starts_with(TEMPORARY_PREFIX.as_bytes())).unwrap();
    crate::below(std::path::Path::new(std::str::from_utf8(target.path()).unwrap()), found)
}

#[test]
fn names_cannot_lead_out_of_the_target() {
    let other = folder();
    let target = target(&other.path().join("target"));
    let special = Metadata { kind: FileKind::Fifo, ..plain(0) };
    for name in [&b""[..], b".", b"..", b"/", b"/etc/passwd", b"../out", b"a/b", b"a\0b"] {
        for error in [
            target.enter(name).unwrap_err(),
            target.create_file(name, 0, false).unwrap_err(),
            target.create_special(name, &special).unwrap_err(),
            target.link(name, &target, b"a").unwrap_err(),
            target.link(b"a", &target, name).unwrap_err(),
            target.remove(name).unwrap_err(),
            target.status(name).unwrap_err(),
        ] {
            assert_eq!(error.class(), ErrorClass::Corrupt, "{error}");
        }
    }
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn links_in_the_target_are_replaced_not_followed() {
    let (other, outside) = (folder(), folder());
    fs::write(outside.path().join("file"), "precious").unwrap();
    let before = fs::metadata(outside.path().join("file")).unwrap();
    symlink(outside.path(), other.path().join("folder")).unwrap();
    symlink(outside.path().join("file"), other.path().join("file")).unwrap();
    symlink(outside.path().join("new"), other.path().join("dangling")).unwrap();
    symlink(outside.path().join("file"), other.path().join("pipe")).unwrap();
    let target = target(other.path());
    let inner = target.enter(b"folder").unwrap();
    for (folder, name) in [(&inner, &b"file"[..]), (&target, b"file"), (&target, b"dangling")] {
        let writer = folder.create_file(name, 3, false).unwrap();
        assert_eq!(writer.existing_length(), 0, "what a link points to is not read either");
        writer.write_at(0, b"new").unwrap();
        writer.finish(&plain(3)).unwrap();
    }
    inner.finish(&Metadata { kind: FileKind::Directory, mode: 0o777, ..plain(0) }).unwrap();
    target.create_special(b"pipe", &Metadata { kind: FileKind::Fifo, ..plain(0) }).unwrap();
    target.link(b"linked", &target, b"file").unwrap();
    assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"precious");
    let after = fs::metadata(outside.path().join("file")).unwrap();
    assert_eq!((before.mode(), before.ctime_nsec()), (after.mode(), after.ctime_nsec()));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(other.path().join("folder").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read(other.path().join("folder/file")).unwrap(), b"new");
}

#[test]
fn a_link_is_linked_as_such() {
    let (other, outside) = (folder(), folder());
    fs::write(outside.path().join("file"), "precious").unwrap();
    let target = target(other.path());
    symlink(outside.path().join("file"), other.path().join("first")).unwrap();
    target.link(b"second", &target, b"first").unwrap();
    assert!(other.path().join("second").is_symlink());
    assert_eq!(fs::metadata(outside.path().join("file")).unwrap().nlink(), 1);
}

#[test]
fn files_with_other_names_outside_are_not_written_through() {
    let (other, outside) = (folder(), folder());
    let precious = outside.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).unwrap();
    let target = target(other.path());
    for content in [&b"PRECIOUS"[..], b"precious", b"prec", b""] {
        let _ = fs::remove_file(other.path().join("file"));
        fs::hard_link(&precious, other.path().join("file")).unwrap();
        let writer = target.create_file(b"file", content.len() as u64, false).unwrap();
        let mut found = vec![0; content.len()];
        writer.read_at(0, &mut found).unwrap();
        if found != content {
            writer.write_at(0, content).unwrap();
        }
        // Another mode is wanted than that of the file outside.
        writer.finish(&plain(content.len() as u64)).unwrap();
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        let outside = fs::metadata(&precious).unwrap();
        assert_eq!((outside.mode() & 0o7777, outside.nlink()), (0o600, 1));
        assert_eq!(fs::read(other.path().join("file")).unwrap(), content);
        assert_eq!(fs::metadata(other.path().join("file")).unwrap().mode() & 0o7777, 0o640);
    }
    let pipe = Metadata { kind: FileKind::Fifo, mode: 0o777, ..plain(0) };
    crate::run("mkfifo", &["-m".as_ref(), "600".as_ref(), outside.path().join("pipe").as_os_str()]);
    fs::hard_link(outside.path().join("pipe"), other.path().join("pipe")).unwrap();
    target.create_special(b"pipe", &pipe).unwrap();
    assert_eq!(fs::metadata(outside.path().join("pipe")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(other.path().join("pipe")).unwrap().mode() & 0o7777, 0o777);
}

#[test]
fn planted_unfinished_files_are_not_used() {
    let (other, outside) = (folder(), folder());
    let target = target(other.path());
    let planted = temporary(&target, b"file");
    let precious = outside.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    type Plant<'a> = &'a dyn Fn();
    let plants: [Plant<'_>; 5] = [
        &|| symlink(&precious, &planted).unwrap(),
        &|| fs::hard_link(&precious, &planted).unwrap(),
        &|| {
            fs::write(&planted, "mine").unwrap();
            fs::set_permissions(&planted, fs::Permissions::from_mode(0o666)).unwrap();
        },
        &|| {
            fs::write(&planted, "mine").unwrap();
            std::os::unix::fs::chown(&planted, Some(12_345), None).unwrap();
        },
        &|| fs::create_dir_all(planted.join("deep")).unwrap(),
    ];
    for plant in plants {
        let _ = fs::remove_file(&planted);
        let _ = fs::remove_file(other.path().join("file"));
        plant();
        let writer = target.create_file(b"file", 3, false).unwrap();
        assert_eq!(writer.existing_length(), 0);
        writer.write_at(0, b"new").unwrap();
        writer.finish(&plain(3)).unwrap();
        assert_eq!(fs::read(other.path().join("file")).unwrap(), b"new");
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        assert_eq!(fs::metadata(&precious).unwrap().nlink(), 1);
        assert!(!planted.exists());
    }
}

#[test]
fn a_folder_swapped_for_a_link_while_it_is_restored_leads_nowhere() {
    let (other, outside) = (folder(), folder());
    let target = target(other.path());
    let inner = target.enter(b"folder").unwrap();
    let writer = inner.create_file(b"started", 1, false).unwrap();
    fs::rename(other.path().join("folder"), other.path().join("moved")).unwrap();
    symlink(outside.path(), other.path().join("folder")).unwrap();
    writer.write_at(0, b"1").unwrap();
    writer.finish(&plain(1)).unwrap();
    inner.create_file(b"later", 0, false).unwrap().finish(&plain(0)).unwrap();
    inner.enter(b"below").unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(other.path().join("moved")).unwrap().count(), 3);
}

#[test]
fn nothing_gets_out_while_somebody_swaps_all_the_time() {
    let (other, outside) = (folder(), folder());
    let precious = outside.path().join("file");
    fs::write(&precious, "precious").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (folder, aside) = (other.path().join("folder"), other.path().join("aside"));
            let link = other.path().join("link");
            while !stop.load(Ordering::Relaxed) {
                let _ = symlink(outside.path(), &link);
                let _ = fs::rename(&folder, &aside);
                let _ = fs::rename(&link, &folder);
                std::thread::yield_now();
                let _ = fs::remove_file(&folder);
                let _ = fs::rename(&aside, &folder);
                let _ = fs::remove_dir_all(&aside);
            }
        });
        // Errors are fine, escapes are not.
        for round in 0..3000u32 {
            let options = RestoreOptions { replace_folders: true, ..RestoreOptions::default() };
            let target = TargetFolder::open(raw(other.path()), options).unwrap();
            if let Ok(inner) = target.enter(b"folder") {
                if let Ok(writer) = inner.create_file(b"file", 3, false) {
                    let _ = writer.write_at(0, b"new");
                    let _ = writer.finish(&plain(3));
                }
                let _ = inner.create_special(b"pipe", &Metadata { kind: FileKind::Fifo, ..plain(0) });
                let _ = inner.finish(&Metadata { kind: FileKind::Directory, mode: 0o700, ..plain(0) });
            }
            if round % 3 == 0 {
                let _ = target.remove(b"folder");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}
