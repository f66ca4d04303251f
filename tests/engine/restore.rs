//! Trees come back, only what differs is written, nothing leaves the target.

use crate::support::repository::{
    Node, Part, backup_path, entry, file, folder, in_memory, names, noise, reopen, sparse, store_tree,
    symlink,
};
use crate::{below, scratch};
use chronolith::base::{BlobId, Classify, ErrorClass, Observer, Timestamp};
use chronolith::format::tree::{Device, EntryKind, ExtendedAttribute, TreeEntry};
use chronolith::localfs::TEMPORARY_PREFIX;
use chronolith::ops::restore::{Planned, RestoreOptions, RestorePlan, RestoreReport, Severity};
use chronolith::repo::{Credential, Repository, open};
use chronolith::storage::{MemoryStore, Store};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn plan(repository: &Arc<Repository>, root: &BlobId, target: &Path, options: RestoreOptions) -> RestorePlan {
    RestorePlan::new(repository, root, &[], target, options).unwrap()
}

fn restore(repository: &Arc<Repository>, root: &BlobId, target: &Path) -> RestoreReport {
    let options = RestoreOptions { verify: true, ..RestoreOptions::default() };
    plan(repository, root, target, options).run().unwrap()
}

fn told(report: &RestoreReport) -> Vec<String> {
    report.problems.iter().map(ToString::to_string).collect()
}

/// Path -> (mode, owner, modification time, links, content or target).
fn describe(root: &Path) -> BTreeMap<String, (u32, u32, i64, u64, Vec<u8>)> {
    fn visit(root: &Path, path: &Path, tree: &mut BTreeMap<String, (u32, u32, i64, u64, Vec<u8>)>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let kind = found.file_type();
            let content = if kind.is_symlink() {
                std::os::unix::ffi::OsStringExt::into_vec(fs::read_link(&path).unwrap().into_os_string())
            } else if kind.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let links = if kind.is_dir() { 0 } else { found.nlink() };
            let time = found.mtime() * 1_000_000_000 + found.mtime_nsec();
            tree.insert(name, (found.mode(), found.uid(), time, links, content));
            if kind.is_dir() {
                visit(root, &path, tree);
            }
        }
    }
    let mut tree = BTreeMap::new();
    visit(root, root, &mut tree);
    tree
}

fn leftovers(root: &Path) -> Vec<String> {
    let tree = describe(root).into_keys();
    tree.filter(|path| path.contains(TEMPORARY_PREFIX)).collect()
}

fn hostile() -> Vec<Node> {
    let attribute = |name: &str, value: &[u8]| ExtendedAttribute {
        name: name.as_bytes().to_vec(),
        value: value.to_vec(),
    };
    let with_attributes = file("attributes", "a").with(|entry| {
        entry.attributes = vec![attribute("user.binary", b"\0\xff"), attribute("user.empty", b"")];
    });
    vec![
        file(b"not \xff UTF-8\n", "x"),
        file("-rf *", "dash"),
        file("a".repeat(255), "long"),
        file("empty", ""),
        file("large", noise(1, 1_500_000)),
        with_attributes,
        file("setuid", "s").with(|entry| {
            (entry.mode, entry.user_id, entry.group_id) = (0o4755, Some(1234), Some(4321));
        }),
        file("unreadable", "0").with(|entry| entry.mode = 0),
        symlink("link", "../../etc/passwd"),
        symlink("dangling\n", b"\xff\xfe"),
        Node::Other(entry("pipe", EntryKind::Fifo)),
        Node::Other(entry("socket", EntryKind::Socket)),
        Node::Other(TreeEntry {
            device_numbers: Some(Device { major: 1, minor: 3 }),
            ..entry("null", EntryKind::CharacterDevice)
        }),
        sparse("sparse", vec![Part::Hole(8 << 20), Part::Data(noise(2, 5000)), Part::Hole(8 << 20)]),
        folder("read only", vec![file("inside", "1"), folder("deeper", vec![])])
            .with(|entry| entry.mode = 0o555),
        folder(
            "linked",
            vec![file("one", noise(3, 40_000)).linked(7, 3), file("two", noise(3, 40_000)).linked(7, 3)],
        ),
        file("third name", noise(3, 40_000)).linked(7, 3),
        // The same number, another content: never one file.
        file("zzz", "impostor").linked(7, 3),
        folder("many", (0..700).map(|n| file(n.to_string(), noise(n, 60))).collect()),
    ]
}

#[test]
fn a_tree_comes_back_with_everything() {
    let (_, repository) = in_memory();
    let (_, root) = store_tree(&repository, "all", hostile());
    let target = scratch();
    let report = restore(&repository, &root, target.path());
    assert_eq!(told(&report), ["socket: a socket could not be restored"]);
    assert!(report.complete());
    assert_eq!(report.problems[0].severity, Severity::Metadata);
    assert_eq!((report.links, report.others, report.directories), (2, 4, 4));
    assert_eq!(report.verified_files, report.files + report.links);
    let tree = describe(target.path());
    let at = |name: &str| &tree[name];
    assert_eq!(at("not \u{fffd} UTF-8\n").4, b"x");
    assert!(at("large").4 == noise(1, 1_500_000));
    assert_eq!(at("setuid").0 & 0o7777, 0o4755);
    assert_eq!(at("setuid").1, 1234);
    assert_eq!(at("unreadable").0 & 0o7777, 0);
    assert_eq!(at("read only").0 & 0o7777, 0o555);
    for path in ["empty", "read only", "linked", "many", "link"] {
        assert_eq!(at(path).2, 1_600_000_000_000_000_007, "{path}");
    }
    assert_eq!(at("link").4, b"../../etc/passwd");
    assert_eq!((at("linked/one").3, at("third name").3, at("zzz").3), (3, 3, 1));
    assert_eq!(at("zzz").4, b"impostor");
    assert!(at("sparse").4[8 << 20..].starts_with(&noise(2, 5000)));
    assert!(fs::metadata(target.path().join("sparse")).unwrap().blocks() * 512 < 1 << 20);
    assert!(fs::metadata(target.path().join("pipe")).unwrap().file_type().is_fifo());
    assert!(fs::metadata(target.path().join("null")).unwrap().file_type().is_char_device());
    let mut value = [0; 8];
    let length =
        rustix::fs::getxattr(target.path().join("attributes"), "user.binary", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"\0\xff");
    assert_eq!(leftovers(target.path()), [""; 0]);

    // Once more: nothing is written.
    let again = restore(&repository, &root, target.path());
    assert_eq!((again.written_bytes, again.unchanged_files), (0, again.files - 1), "{again:?}");
    assert_eq!(describe(target.path()), tree);
}

#[test]
fn what_the_program_itself_backed_up_comes_back() {
    let (store, repository) = in_memory();
    let source = scratch();
    fs::create_dir_all(source.path().join("a/b")).unwrap();
    fs::write(source.path().join("a/b/c"), noise(5, 300_000)).unwrap();
    fs::write(below(source.path(), b"\xfe"), "odd").unwrap();
    std::os::unix::fs::symlink("a", source.path().join("link")).unwrap();
    fs::hard_link(source.path().join("a/b/c"), source.path().join("again")).unwrap();
    backup_path(&repository, source.path());
    let repository = reopen(store).unwrap();
    let snapshot = repository.snapshots().unwrap().found.remove(0).snapshot;
    let target = scratch();
    let path = names(source.path().to_str().unwrap());
    let plan = RestorePlan::new(&repository, &snapshot.root, &path, target.path(), RestoreOptions::default())
        .unwrap();
    assert_eq!(told(&plan.run().unwrap()), [""; 0]);
    assert_eq!(describe(target.path()), describe(source.path()));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode();
    assert_eq!(mode(target.path()), mode(source.path()));
}

#[test]
fn one_file_is_restored_under_its_name() {
    let (_, repository) = in_memory();
    let (_, root) =
        store_tree(&repository, "one", vec![folder("a", vec![file("b", "content"), file("c", "")])]);
    let target = scratch();
    let into = target.path().join("new/folder");
    let plan = RestorePlan::new(&repository, &root, &names("a/b"), &into, RestoreOptions::default()).unwrap();
    let options = RestoreOptions { verify: true, ..RestoreOptions::default() };
    assert_eq!(plan.run().unwrap().files, 1);
    assert_eq!(fs::read(into.join("b")).unwrap(), b"content");
    let plan = RestorePlan::new(&repository, &root, &names("a/b"), &into, options).unwrap();
    assert_eq!(plan.run().unwrap().verified_files, 1);
    assert!(!into.join("c").exists());
}

#[test]
fn only_what_differs_is_written() {
    let (_, repository) = in_memory();
    let content = noise(1, 1_000_000);
    let tree = vec![
        file("changed", &content),
        file("grown", &content),
        file("short", &content),
        file("same", &content),
        file("touched", &content),
    ];
    let (_, root) = store_tree(&repository, "one", tree);
    let target = scratch();
    let at = |name: &str| target.path().join(name);
    restore(&repository, &root, target.path());
    let before = describe(target.path());
    fs::File::options().write(true).open(at("changed")).unwrap().write_all_at(b"!", 500_000).unwrap();
    fs::File::options().append(true).open(at("grown")).unwrap().set_len(1_500_000).unwrap();
    fs::File::options().append(true).open(at("short")).unwrap().set_len(900_000).unwrap();
    fs::set_permissions(at("touched"), fs::Permissions::from_mode(0o600)).unwrap();
    let inodes = |names: &[&str]| -> Vec<u64> {
        names.iter().map(|name| fs::metadata(at(name)).unwrap().ino()).collect()
    };
    let all = ["changed", "grown", "short", "same", "touched"];
    let standing = inodes(&all);

    let mut planned = BTreeMap::new();
    let preview = plan(&repository, &root, target.path(), RestoreOptions::default())
        .preview(true, |step| {
            if let Planned::Write { path, bytes, .. } = step {
                planned.insert(String::from_utf8(path.to_vec()).unwrap(), bytes);
            }
        })
        .unwrap();
    assert!(planned["changed"] > 0 && planned["changed"] <= 16 << 10, "{planned:?}");
    assert!(planned["short"] >= 100_000 && planned["short"] < 150_000, "{planned:?}");
    assert_eq!((planned["grown"], planned["same"], planned["touched"]), (0, 0, 0));

    let report = restore(&repository, &root, target.path());
    assert_eq!(report.written_bytes, preview.written_bytes);
    assert_eq!(report.written_bytes + report.same_bytes, 5_000_000);
    assert_eq!(describe(target.path()), before);
    assert_eq!(inodes(&all), standing, "written in place");
}

#[test]
fn what_the_snapshot_does_not_have_is_removed_only_when_asked() {
    let (_, repository) = in_memory();
    let tree = vec![folder("a", vec![file("keep", "1")]), file("b", "2"), file("kind", "3")];
    let (_, root) = store_tree(&repository, "one", tree);
    let target = scratch();
    let outside = scratch();
    fs::write(outside.path().join("precious"), "x").unwrap();
    restore(&repository, &root, target.path());
    let clean = describe(target.path());
    let clutter = || {
        fs::create_dir_all(target.path().join("a/extra/deep")).unwrap();
        fs::write(target.path().join("a/extra/deep/file"), "x").unwrap();
        fs::write(target.path().join("0 first"), "x").unwrap();
        fs::write(target.path().join("zz last"), "x").unwrap();
        fs::write(target.path().join(format!("{TEMPORARY_PREFIX}0123")), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), target.path().join("way out")).unwrap();
        fs::remove_file(target.path().join("kind")).unwrap();
        fs::create_dir(target.path().join("kind")).unwrap();
        fs::write(target.path().join("kind/in the way"), "x").unwrap();
    };
    clutter();
    let report = restore(&repository, &root, target.path());
    assert_eq!(report.removed, 0);
    assert!(told(&report)[0].contains("kind"), "{report:?}");
    assert!(target.path().join("a/extra/deep/file").exists());

    let options = RestoreOptions { delete: true, ..RestoreOptions::default() };
    let deleting = plan(&repository, &root, target.path(), options);
    let mut removals = Vec::new();
    let preview = deleting
        .preview(false, |step| {
            if let Planned::Remove(path) = step {
                removals.push(String::from_utf8(path.to_vec()).unwrap());
            }
        })
        .unwrap();
    assert_eq!(removals, ["0 first", "a/extra", "way out", "zz last"]);
    assert!(target.path().join("zz last").exists(), "a preview changes nothing");
    let report = deleting.run().unwrap();
    assert_eq!((report.removed, told(&report)), (preview.removed, Vec::new()));
    let mut found = describe(target.path());
    // The time at which the root itself changed is not the snapshot's.
    assert_eq!(std::mem::take(&mut found), clean);
    assert_eq!(fs::read(outside.path().join("precious")).unwrap(), b"x");
}

#[test]
fn nothing_is_removed_from_a_folder_that_cannot_be_read() {
    let (store, repository) = in_memory();
    let (_, root) = store_tree(&repository, "one", vec![folder("a", vec![file("f", "1")]), file("b", "2")]);
    let target = scratch();
    restore(&repository, &root, target.path());
    fs::write(target.path().join("a/own"), "mine").unwrap();
    // All trees are gone.
    for pack in store.list("packs/").unwrap() {
        store.delete(&pack.name).unwrap();
    }
    let repository = reopen(store).unwrap();
    let options = RestoreOptions { delete: true, ..RestoreOptions::default() };
    let report = plan(&repository, &root, target.path(), options).run().unwrap();
    assert!(!report.complete());
    assert_eq!(report.removed, 0);
    assert_eq!(fs::read(target.path().join("a/own")).unwrap(), b"mine");
}

#[test]
fn requests_that_would_destroy_are_refused() {
    let home = scratch();
    let place = home.path().join("repository");
    let store = Arc::new(chronolith::storage::LocalStore::create(&place).unwrap());
    let repository = crate::support::repository::make(store);
    let (_, root) = store_tree(&repository, "one", vec![folder("a", vec![file("f", "1")])]);
    let delete = || RestoreOptions { delete: true, ..RestoreOptions::default() };
    let refused = |path: &str, target: &Path, options: RestoreOptions| {
        let error = RestorePlan::new(&repository, &root, &names(path), target, options).err().unwrap();
        assert!(matches!(error.class(), ErrorClass::Usage | ErrorClass::NotFound), "{error}");
        error.to_string()
    };
    refused("", Path::new(""), delete());
    refused("", Path::new("/"), delete());
    refused("", home.path(), delete());
    refused("", &place, RestoreOptions::default());
    refused("", &place.join("packs/new"), RestoreOptions::default());
    refused("a/f", &home.path().join("t"), delete());
    refused("nothing", &home.path().join("t"), RestoreOptions::default());
    let other = scratch();
    let protected = RestoreOptions { protected: vec![other.path().join("x")], ..delete() };
    fs::create_dir(other.path().join("x")).unwrap();
    refused("", other.path(), protected);
    fs::write(other.path().join("file"), "x").unwrap();
    let why = refused("", &other.path().join("file"), RestoreOptions::default());
    assert!(why.contains("not a folder"), "{why}");
    // A folder beside the repository is fine, and not deleting in the folder around it, too.
    plan(&repository, &root, &home.path().join("t"), delete()).run().unwrap();
    plan(&repository, &root, home.path(), RestoreOptions::default()).run().unwrap();
}

/// Stops after a number of bytes.
struct Impatient(AtomicU64);

impl Observer for Impatient {
    fn advance(&self, _phase: chronolith::base::Phase, bytes: u64, _new: u64) {
        let left = self.0.load(Ordering::SeqCst).saturating_sub(bytes);
        self.0.store(left, Ordering::SeqCst);
    }
    fn interrupted(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

#[test]
fn an_interrupted_restore_is_resumed() {
    let (store, repository) = in_memory();
    let large = noise(1, 4_000_000);
    let (_, root) = store_tree(&repository, "one", vec![file("a", noise(2, 300_000)), file("large", &large)]);
    drop(repository);
    let target = scratch();
    let observer = Arc::new(Impatient(AtomicU64::new(2_000_000)));
    let environment = crate::support::repository::environment_with(store.clone(), observer);
    let impatient = open(environment, &Credential::KeyFile(crate::support::repository::key_file())).unwrap();
    let error = plan(&impatient, &root, target.path(), RestoreOptions::default()).run().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Interrupted);
    assert!(!target.path().join("large").exists(), "no half file has the final name");
    assert_eq!(leftovers(target.path()).len(), 1);
    let report = restore(&reopen(store).unwrap(), &root, target.path());
    assert!(report.same_bytes > 1_000_000, "{report:?}");
    assert!(fs::read(target.path().join("large")).unwrap() == large);
    assert_eq!(leftovers(target.path()), [""; 0]);
}

/// Removes the pack that holds the bytes of one file.
fn lose(store: &MemoryStore, keep: usize) {
    let mut packs = store.list("packs/").unwrap();
    packs.sort_by_key(|pack| std::cmp::Reverse(pack.length));
    for pack in packs.into_iter().skip(keep).take(1) {
        store.delete(&pack.name).unwrap();
    }
}

#[test]
fn a_file_that_cannot_be_read_wholly_is_named_and_the_others_come() {
    let (store, repository) = in_memory();
    let (first, second) = (noise(1, 600_000), noise(2, 200_000));
    // Two sessions, so that the contents lie in two packs.
    store_tree(&repository, "zero", vec![file("x", &second)]);
    let mixed = [&first[..300_000], &second[..100_000], &first[300_000..]].concat();
    let (_, root) = store_tree(
        &repository,
        "one",
        vec![file("a", &first), file("damaged", &mixed), file("lost", &second), file("z", "fine")],
    );
    lose(&store, 1);
    let repository = reopen(store).unwrap();
    let target = scratch();
    let report = restore(&repository, &root, target.path());
    assert!(!report.complete());
    assert_eq!((report.files, report.missing), (2, 2), "{:?}", told(&report));
    let damaged = &report.problems[0];
    assert_eq!(damaged.path, b"damaged");
    let ranges = &damaged.missing;
    let missing: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    assert!((60_000..=100_000).contains(&missing), "{ranges:?}");
    assert!(ranges.iter().all(|range| range.start >= 300_000 && range.end <= 400_000), "{ranges:?}");
    assert!(!target.path().join("damaged").exists(), "a file with gaps does not get its name");
    let kept = fs::read(below(Path::new("/"), damaged.kept_as.as_ref().unwrap())).unwrap();
    assert!(kept.starts_with(&first[..300_000]) && kept.ends_with(&first[300_000..]));
    assert!(fs::read(target.path().join("a")).unwrap() == first);
    assert_eq!(fs::read(target.path().join("z")).unwrap(), b"fine");
    assert_eq!(report.problems[1].path, b"lost");
}

/// Does damage once everything is written and before it is read back.
struct Saboteur(std::path::PathBuf);

impl Observer for Saboteur {
    fn begin(&self, phase: chronolith::base::Phase, _total: Option<u64>) {
        if phase == chronolith::base::Phase::Check {
            fs::write(self.0.join("flipped"), noise(9, 100_000)).unwrap();
            fs::write(self.0.join("longer"), "22").unwrap();
            fs::remove_file(self.0.join("gone")).unwrap();
            fs::remove_dir_all(self.0.join("folder")).unwrap();
        }
    }
}

#[test]
fn verification_reads_everything_back() {
    let (store, repository) = in_memory();
    let tree = vec![
        file("flipped", noise(1, 100_000)),
        file("longer", "1"),
        file("gone", "2"),
        file("good", "3"),
        folder("folder", vec![file("f", "4")]),
    ];
    let (_, root) = store_tree(&repository, "one", tree);
    let target = scratch();
    let observer = Arc::new(Saboteur(target.path().to_owned()));
    let environment = crate::support::repository::environment_with(store, observer);
    let repository = open(environment, &Credential::KeyFile(crate::support::repository::key_file())).unwrap();
    let report = restore(&repository, &root, target.path());
    let expected = [
        "flipped: read back, its content is another one",
        "folder: the folder is not there",
        "gone: the file is not there",
        "longer: read back, it has another length",
    ];
    assert_eq!(told(&report), expected);
    assert_eq!((report.verified_files, report.missing), (1, 4));
}

#[test]
fn symbolic_links_in_the_target_lead_nowhere() {
    let (_, repository) = in_memory();
    let tree = vec![
        folder("d", vec![file("evil", "x")]),
        file("f", "content"),
        // In the snapshot itself: a link, and a folder of the same name in a later snapshot.
        symlink("l", "/"),
    ];
    let (_, root) = store_tree(&repository, "one", tree);
    let (_, through) = store_tree(&repository, "two", vec![folder("l", vec![file("evil", "x")])]);
    let (target, outside) = (scratch(), scratch());
    fs::write(outside.path().join("victim"), "untouched").unwrap();
    std::os::unix::fs::symlink(outside.path(), target.path().join("d")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("victim"), target.path().join("f")).unwrap();
    restore(&repository, &root, target.path());
    std::os::unix::fs::symlink(outside.path(), target.path().join("tmp")).unwrap();
    fs::remove_file(target.path().join("l")).unwrap();
    std::os::unix::fs::symlink(outside.path(), target.path().join("l")).unwrap();
    let report = restore(&repository, &through, target.path());
    assert!(report.complete());
    assert_eq!(fs::read(outside.path().join("victim")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read(target.path().join("d/evil")).unwrap(), b"x");
    assert_eq!(fs::read(target.path().join("l/evil")).unwrap(), b"x");
    assert_eq!(fs::read(target.path().join("f")).unwrap(), b"content");
}

#[test]
fn deep_trees_and_times_before_the_epoch_come_back() {
    let (_, repository) = in_memory();
    let mut node = file("bottom", "here").with(|entry| entry.modified = Timestamp::from_nanoseconds(-5));
    for _ in 0..900 {
        node = folder("d", vec![node]);
    }
    // Only the helper that stores the tree goes down into it by calling itself.
    let (_, root) = std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(64 << 20);
        let store = || store_tree(&repository, "deep", vec![node]);
        builder.spawn_scoped(scope, store).unwrap().join().unwrap()
    });
    let target = scratch();
    let report = restore(&repository, &root, target.path());
    assert_eq!((report.directories, report.files, told(&report)), (900, 1, Vec::new()));
    // Too deep for a path, and for `TempDir` to remove.
    let status = std::process::Command::new("rm").arg("-rf").arg(target.path()).status().unwrap();
    assert!(status.success());
}
