//! Copies between repositories that have nothing in common but what is copied.

use crate::support::repository::{Node, Part, entry, file, folder, make, sparse, store_tree, symlink};
use crate::support::world::{Client, Content, content, copy_of, dump, noise, read_snapshot};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::{SecretBytes, SnapshotId};
use chronolith::chunker::CutParameters;
use chronolith::crypto::{PasswordParameters, Suite};
use chronolith::format::snapshot::Snapshot;
use chronolith::format::tree::{ContentDigest, EntryKind, TreeEntry};
use chronolith::format::trust::Role;
use chronolith::format::trust::scope::Scope;
use chronolith::ops::check::{CheckOptions, ReadData, check};
use chronolith::ops::copy::{
    COPIED_FROM, COPIED_FROM_REPOSITORY, CopiedSnapshot, CopyOptions, Outcome, copied_from, copy_logs,
    copy_snapshots,
};
use chronolith::ops::forget::forget;
use chronolith::ops::keys::{self, NewKey};
use chronolith::ops::marks::{Mark, mark};
use chronolith::ops::repair::{SnapshotsOptions, SnapshotsPlan};
use chronolith::ops::{OpsError, Snapshots};
use chronolith::repo::{InitOptions, NewSlot, Repository, init};
use chronolith::storage::{MemoryStore, Store};
use chronolith::view::{TreeWalk, WalkEvent};
use std::collections::BTreeMap;
use std::sync::Arc;

struct Scene {
    source: Client,
    target: Client,
    contents: Vec<(SnapshotId, Content)>,
}

/// A repository of another cipher, whose chunks are longer.
fn other(store: Arc<dyn Store>) -> Client {
    let client = Client::holding(store, vec![77; 32]);
    let options = InitOptions {
        suite: Suite::Aes256Gcm,
        cut: CutParameters::new(1 << 11, 1 << 13, 1 << 15).unwrap(),
        page_chunk_bytes: 1 << 17,
        password: PasswordParameters::new(8, 1, 1).unwrap(),
        key_name: "off site".to_owned(),
    };
    let key_file = SecretBytes::new(client.key_file.clone());
    init(&client.environment(), &options, &NewSlot::KeyFile(&key_file)).unwrap();
    client
}

fn scene() -> Scene {
    let source = Client::init(Arc::new(MemoryStore::new()), 41);
    let versions = [1, 2].map(|version| {
        content([
            ("app.sql", dump(version, 4000, 300)),
            ("same", noise(1, 60_000)),
            ("new", noise(version, 9000)),
            ("empty", Vec::new()),
        ])
    });
    let contents = versions.into_iter().map(|content| (source.back_up(&content), content)).collect();
    Scene { source, target: other(Arc::new(MemoryStore::new())), contents }
}

fn options() -> CopyOptions {
    CopyOptions { workers: 1, ..CopyOptions::new("test") }
}

/// Copies all snapshots of one repository into another.
fn try_copy(source: &Arc<Repository>, target: &Arc<Repository>) -> Result<Vec<CopiedSnapshot>, OpsError> {
    let snapshots = Snapshots::load(source)?;
    let all: Vec<_> = snapshots.iter().collect();
    copy_snapshots(source, target, &all, &options())
}

fn copy(source: &Client, target: &Client) -> Vec<CopiedSnapshot> {
    try_copy(&source.open(), &target.open()).unwrap()
}

fn made(copied: &[CopiedSnapshot]) -> Vec<SnapshotId> {
    let id = |one: &CopiedSnapshot| match &one.outcome {
        Outcome::Copied { id, .. } => *id,
        Outcome::Present(_) | Outcome::Failed(_) => None,
    };
    copied.iter().filter_map(id).collect()
}

fn present(copied: &[CopiedSnapshot]) -> usize {
    copied.iter().filter(|one| matches!(one.outcome, Outcome::Present(_))).count()
}

fn view(repository: &Arc<Repository>, id: SnapshotId) -> Snapshot {
    Snapshots::load(repository).unwrap().get(&id).unwrap().snapshot.clone()
}

fn is_sound(client: &Client) {
    let all = CheckOptions { read_data: ReadData::All, keep_ledger: false, program: "test".to_owned() };
    let report = check(&client.open(), &all).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
}

#[test]
fn a_copy_is_the_same_under_other_keys_chunker_and_cipher() {
    let scene = scene();
    let dry = CopyOptions { dry_run: true, ..options() };
    let (source, target) = (scene.source.open(), scene.target.open());
    let snapshots = Snapshots::load(&source).unwrap();
    let all: Vec<_> = snapshots.iter().collect();
    let before = scene.target.store.list("").unwrap();
    assert_eq!(copy_snapshots(&source, &target, &all, &dry).unwrap().len(), 2);
    assert_eq!(scene.target.store.list("").unwrap(), before, "a dry run writes nothing");

    let copied = copy(&scene.source, &scene.target);
    let copies = made(&copied);
    for (copy, (from, content)) in copies.iter().zip(&scene.contents) {
        assert_eq!(scene.target.read(*copy).unwrap(), *content);
        let (ours, theirs) = (view(&source, *from), view(&target, *copy));
        let mut facts = theirs.facts.clone();
        assert_eq!(facts.remove(COPIED_FROM), Some(from.to_string()));
        assert_eq!(facts.remove(COPIED_FROM_REPOSITORY), Some(source.id().to_string()));
        let same = |s: &Snapshot| {
            (s.host.clone(), s.label.clone(), s.user.clone(), s.started, s.ended, s.mode, s.sources.clone())
        };
        assert_eq!(same(&ours), same(&theirs));
        assert_eq!((ours.kind, ours.program, ours.facts), (theirs.kind, theirs.program, facts));
        assert_eq!(ours.summary.bytes, theirs.summary.bytes);
        assert_ne!(ours.root, theirs.root, "ids are keyed");
    }
    // Lines of parents go with them, and what changed little is stored as differences.
    assert_eq!(view(&target, copies[1]).parent, Some(copies[0]));
    let stored = |id| view(&target, id).summary.stored_bytes;
    assert!(stored(copies[1]) * 3 < stored(copies[0]), "{} {}", stored(copies[0]), stored(copies[1]));
    is_sound(&scene.target);

    assert_eq!(present(&copy(&scene.source, &scene.target)), 2);
    let third = scene.source.back_up(&content([("app.sql", dump(3, 4000, 300))]));
    let more = copy(&scene.source, &scene.target);
    assert_eq!((present(&more), made(&more).len()), (2, 1));
    assert_eq!(view(&target, made(&more)[0]).parent, Some(copies[1]));
    assert!(more.iter().any(|one| one.from == third));
}

/// [SNAPSHOT-9]: a copy goes home as what it is, and on to a third place as what it was.
#[test]
fn a_copy_is_known_wherever_it_comes_from() {
    let scene = scene();
    copy(&scene.source, &scene.target);
    assert_eq!(present(&copy(&scene.target, &scene.source)), 2, "the way home");
    let third = Client::init(Arc::new(MemoryStore::new()), 43);
    copy(&scene.target, &third);
    let repository = third.open();
    let origins: Vec<_> = Snapshots::load(&repository)
        .unwrap()
        .iter()
        .map(|view| copied_from(&view.snapshot).unwrap().snapshot)
        .collect();
    assert_eq!(origins, scene.contents.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    assert_eq!(present(&copy(&scene.source, &third)), 2, "from where it began");
    let error = try_copy(&scene.source.open(), &scene.source.open()).unwrap_err();
    assert!(matches!(error, OpsError::Usage(_)), "{error}");
}

/// [SNAPSHOT-1]: whatever request of the target fails, it has whole copies only, and the next run goes on.
#[test]
fn killed_at_every_request_a_copy_is_whole_or_not_there() {
    let scene = scene();
    mark_first(&scene.source, &scene.contents[0].0);
    for number in (1..).step_by(3) {
        let store = Arc::new(copy_of(scene.target.store.as_ref()));
        let failing =
            Arc::new(FaultStore::failing_from(store.clone(), number, Fault::Before(Failure::Fatal)));
        let dying = scene.target.through(failing.clone());
        let result =
            dying.try_open().map_err(OpsError::from).and_then(|t| try_copy(&scene.source.open(), &t));
        assert!(result.is_err() || !failing.fired());
        let again = scene.target.through(store);
        let there = again.snapshots();
        for id in &there {
            let origin = copied_from(&view(&again.open(), *id)).unwrap().snapshot;
            let (_, content) = scene.contents.iter().find(|(known, _)| *known == origin).unwrap();
            assert_eq!(again.read(*id).unwrap(), *content, "request {number}");
        }
        let copied = copy(&scene.source, &again);
        assert_eq!(
            (present(&copied), made(&copied).len()),
            (there.len(), 2 - there.len()),
            "request {number}"
        );
        assert_eq!(again.snapshots().len(), 2, "request {number}");
        let repository = again.open();
        let snapshots = Snapshots::load(&repository).unwrap();
        let first = snapshots.iter().next().unwrap();
        assert_eq!((first.pinned.len(), first.notes.len()), (1, 1), "request {number}");
        if !failing.fired() {
            return;
        }
    }
}

fn mark_first(client: &Client, id: &SnapshotId) {
    let repository = client.open();
    let marks = [
        Mark::Tag { key: "release".to_owned(), value: Some("2.1".to_owned()) },
        Mark::Pin { reason: Some("audit".to_owned()) },
        Mark::Note { text: "before the migration".to_owned() },
    ];
    mark(&repository, &Snapshots::load(&repository).unwrap(), &[*id], &marks).unwrap();
}

#[test]
fn tags_pins_and_notes_go_along_and_what_was_taken_back_stays_so() {
    let scene = scene();
    mark_first(&scene.source, &scene.contents[0].0);
    let id = made(&copy(&scene.source, &scene.target))[0];
    let repository = scene.target.open();
    let look = || Snapshots::load(&repository).unwrap().get(&id).unwrap().clone();
    let seen = look();
    assert_eq!(seen.tags["release"].as_deref(), Some("2.1"));
    assert_eq!(seen.pinned[0].reason.as_deref(), Some("audit"));
    assert_eq!(seen.notes, ["before the migration"]);
    copy(&scene.source, &scene.target);
    assert_eq!(look().said, seen.said, "nothing is said twice");
    let snapshots = Snapshots::load(&repository).unwrap();
    mark(&repository, &snapshots, &[id], &[Mark::Unpin { reason: None }]).unwrap();
    copy(&scene.source, &scene.target);
    assert!(look().pinned.is_empty(), "what was unpinned here is not pinned again");
    // What was forgotten at the target is not brought back while it is there.
    let snapshots = Snapshots::load(&repository).unwrap();
    forget(&repository, &snapshots, &[id]).unwrap();
    assert_eq!(present(&copy(&scene.source, &scene.target)), 2);
    assert!(look().forgotten);
}

/// What the source does not hold whole is named, and nothing of it committed; the others are copied.
#[test]
fn a_damaged_snapshot_is_named_and_the_others_are_copied() {
    let scene = scene();
    let alone = scene.source.back_up(&content([("alone", noise(99, 40_000))]));
    let packs = scene.source.store.list("packs/").unwrap();
    let mut tried = 0;
    for pack in packs {
        let source = scene.source.through(Arc::new(copy_of(scene.source.store.as_ref())));
        let mut bytes = source.store.get(&pack.name, u64::MAX).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        source.store.replace(&pack.name, &bytes).unwrap();
        let target = scene.target.through(Arc::new(copy_of(scene.target.store.as_ref())));
        let copied = copy(&source, &target);
        let failed = copied.iter().filter(|one| matches!(one.outcome, Outcome::Failed(_))).count();
        assert_eq!(made(&copied).len() + failed, 3);
        assert_eq!(target.snapshots().len(), made(&copied).len());
        for one in &copied {
            let Outcome::Copied { id: Some(id), .. } = one.outcome else { continue };
            let repository = scene.source.open();
            assert_eq!(target.read(id).unwrap(), read_snapshot(&repository, one.from).unwrap());
        }
        tried += failed;
        is_sound(&target);
    }
    assert!(tried >= 3, "some damage hurts: {tried}");
    assert!(copy(&scene.source, &scene.target).iter().any(|one| one.from == alone));
}

fn entries(repository: &Arc<Repository>, id: SnapshotId) -> Vec<(Vec<u8>, TreeEntry, Option<[u8; 32]>)> {
    repository.load_index().unwrap();
    let mut walk = TreeWalk::new(repository, view(repository, id).root).unwrap();
    let mut found = Vec::new();
    while let Some(event) = walk.next() {
        let mut entry = match event {
            WalkEvent::Enter(entry) => TreeEntry::clone(&entry),
            WalkEvent::Leaf(entry) => *entry,
            WalkEvent::Leave(_) => continue,
            WalkEvent::Problem(error) => panic!("{error}"),
        };
        let digest = match entry.content.take().and_then(|content| content.digest) {
            Some(ContentDigest::Blake3(digest)) => Some(digest),
            _ => None,
        };
        entry.subtree = None;
        found.push((walk.path().to_vec(), entry, digest));
    }
    found
}

#[test]
fn trees_go_over_with_all_that_is_known_of_each_name() {
    let source = make(Arc::new(MemoryStore::new()));
    let target = other(Arc::new(MemoryStore::new()));
    let holes = vec![
        Part::Hole(70_000),
        Part::Data(noise(1, 50_000)),
        Part::Hole(1 << 20),
        Part::Data(noise(2, 10)),
        Part::Hole(5),
    ];
    let tree = |extra: &[u8]| {
        vec![
            file("a", noise(3, 100_000)),
            file("changing", extra),
            folder("b", vec![folder("deep", vec![file("x", b"x")]), folder("none", Vec::new())]),
            file(b"h\xff\xfe", b"odd").linked(7, 2),
            file("h2", b"odd").linked(7, 2),
            sparse("holes", holes.clone()),
            sparse("only a hole", vec![Part::Hole(9 << 20)]),
            symlink("link", b"../elsewhere"),
            Node::Other(entry("pipe", EntryKind::Fifo)),
            file("empty", b"").with(|entry| {
                entry.mode = 0o4755;
                entry.user_name = Some(b"somebody".to_vec());
            }),
        ]
    };
    let first = store_tree(&source, "tree", tree(b"one")).0;
    let second = store_tree(&source, "tree", tree(b"two")).0;
    let repository = target.open();
    let copies = made(&try_copy(&source, &repository).unwrap());
    assert_eq!(entries(&source, first), entries(&repository, copies[0]));
    assert_eq!(entries(&source, second), entries(&repository, copies[1]));
    assert_eq!(read_snapshot(&source, second).unwrap(), read_snapshot(&repository, copies[1]).unwrap());
    is_sound(&target);
}

/// [SNAPSHOT-8]: of what was lost nobody knows a digest; the copy of a repaired copy says so too.
#[test]
fn a_repaired_copy_stays_one() {
    let scene = scene();
    let source = Client::init(Arc::new(MemoryStore::new()), 45);
    source.back_up(&content([("app.sql", dump(1, 400, 50)), ("noise", noise(1, 3_000_000))]));
    let pack = source.store.list("packs/").unwrap().into_iter().max_by_key(|object| object.length);
    let pack = pack.unwrap().name;
    let mut bytes = source.store.get(&pack, u64::MAX).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    source.store.replace(&pack, &bytes).unwrap();
    let repository = source.open();
    let report = CheckOptions { read_data: ReadData::All, keep_ledger: true, program: "test".to_owned() };
    check(&repository, &report).unwrap();
    let wanted = SnapshotsOptions { program: "test".to_owned(), ..SnapshotsOptions::default() };
    let plan = SnapshotsPlan::run(&repository, wanted, true).unwrap();
    let repaired = plan.repaired[0].id;
    let target = scene.target.open();
    let copied = try_copy(&repository, &target).unwrap();
    let outcome = copied.into_iter().find(|one| one.from == repaired).unwrap().outcome;
    let Outcome::Copied { id: Some(id), .. } = outcome else { panic!("{outcome:?}") };
    let (ours, theirs) = (entries(&repository, repaired), entries(&target, id));
    assert!(ours.iter().any(|(_, entry, digest)| entry.kind == EntryKind::File && digest.is_none()));
    assert_eq!(ours, theirs);
}

/// [SNAPSHOT-9]: who may write for a host must not be able to keep its snapshots away by claiming that they are there.
#[test]
fn a_false_copy_keeps_no_true_one_away() {
    let scene = scene();
    let new =
        NewKey { role: Role::Writer, name: "db1".to_owned(), domain: String::new(), scope: Scope::default() };
    let key_file = vec![9; 32];
    keys::add(&scene.target.open(), &new, &NewSlot::KeyFile(&SecretBytes::new(key_file.clone()))).unwrap();
    let thief = Client::holding(scene.target.store.clone(), key_file);
    let empty = thief.back_up(&content([("app.sql", b"nothing".to_vec())]));
    let repository = thief.open();
    let mut forged = view(&repository, empty);
    forged.facts = BTreeMap::from([
        (COPIED_FROM.to_owned(), scene.contents[0].0.to_string()),
        (COPIED_FROM_REPOSITORY.to_owned(), scene.source.open().id().to_string()),
    ]);
    repository.commit(&forged).unwrap();
    assert_eq!(made(&copy(&scene.source, &scene.target)).len(), 2);
}

/// [SNAPSHOT-9]: an old snapshot that is copied late is no newest one.
#[test]
fn what_is_copied_late_is_not_the_newest() {
    let source = Client::init(Arc::new(MemoryStore::new()), 44);
    let first = source.back_up(&content([("x", noise(1, 5000))]));
    let second = source.on_host("db2").back_up(&content([("x", noise(2, 5000))]));
    let target = Client::holding(Arc::new(MemoryStore::with_clock(source.clock.clone())), vec![5; 32]);
    target.try_init().unwrap();
    source.clock.shift_seconds(86_400);
    for id in [second, first] {
        let repository = source.open();
        let snapshots = Snapshots::load(&repository).unwrap();
        copy_snapshots(&repository, &target.open(), &[snapshots.get(&id).unwrap()], &options()).unwrap();
    }
    let repository = target.open();
    let snapshots = Snapshots::load(&repository).unwrap();
    assert_eq!(copied_from(&snapshots.resolve("latest").unwrap().snapshot).unwrap().snapshot, second);
}

#[test]
fn archived_segments_go_over_once() {
    let scene = scene();
    crate::logs::push_some(&scene.source);
    let (source, target) = (scene.source.open(), scene.target.open());
    let none = copy_logs(&source, &target, |stream| stream == "pg/other", &options()).unwrap();
    assert_eq!(none.copied, 0);
    let logs = copy_logs(&source, &target, |_| true, &options()).unwrap();
    assert_eq!((logs.copied, logs.present, logs.bytes), (1, 0, 100_000));
    assert_eq!(crate::logs::pushed(&target), crate::logs::pushed(&source));
    let (ours, theirs) = (source.all_logs().unwrap().found, target.all_logs().unwrap().found);
    assert_eq!(ours[0].record.facts, theirs[0].record.facts);
    assert_eq!(ours[0].record.commits, theirs[0].record.commits);
    let again = copy_logs(&source, &target, |_| true, &options()).unwrap();
    assert_eq!((again.copied, again.present), (0, 1));
}
