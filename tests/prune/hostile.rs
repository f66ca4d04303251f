//! What a thief with a writer's key, or with write access to the store, puts into the way of a prune: it is
//! told, nothing that anybody needs is lost, and nothing stops prune for ever. [CONCURRENCY-54], [CONCURRENCY-55]

use crate::forge::{client_with, id_of, put, sealed};
use crate::support::ManualClock;
use crate::support::world::{Client, Content, content, dump, noise};
use crate::sweep::run;
use chronolith::base::{BlobId, SnapshotId};
use chronolith::format::kind::ObjectKind;
use chronolith::format::session::SessionPurpose;
use chronolith::format::snapshot::Snapshot;
use chronolith::format::trust::Role;
use chronolith::ops::forget::{by_name, forget};
use chronolith::ops::keys::remove;
use chronolith::ops::prune::PruneReport;
use chronolith::ops::rotation::rotate;
use chronolith::ops::{OpsError, Snapshots};
use chronolith::repo::Presence;
use chronolith::storage::{MemoryStore, Store};
use std::sync::Arc;
use std::time::Duration;

/// Where the version stands in an envelope: after magic and kind.
const VERSION_AT: usize = 5;

struct Scene {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    owner: Client,
    keeper: Client,
    thief: Client,
    kept: Content,
    kept_id: SnapshotId,
}

/// A snapshot that is kept, one that is forgotten, and a thief with the key of another writer.
fn scene() -> Scene {
    let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
    let store = Arc::new(MemoryStore::with_clock(clock.clone()));
    let owner = Client::init(store.clone(), 61);
    let victim = client_with(&owner, Role::Writer, "victim", "", &["db1"]);
    let keeper = client_with(&owner, Role::Maintainer, "keeper", "", &[]);
    let thief = client_with(&owner, Role::Writer, "thief", "", &["web"]);
    let kept = content([("app.sql", dump(1, 800, 9))]);
    let forgotten = victim.back_up(&content([("old", noise(5, 20_000))]));
    let kept_id = victim.back_up(&kept);
    let scene = Scene { clock, store, owner, keeper, thief, kept, kept_id };
    scene.forget(&[forgotten]);
    scene
}

impl Scene {
    fn forget(&self, ids: &[SnapshotId]) {
        let repository = self.owner.open();
        let snapshots = Snapshots::load(&repository).unwrap();
        let chosen = by_name(&snapshots, ids, true).unwrap();
        assert_eq!(chosen, ids);
        forget(&repository, &snapshots, &chosen).unwrap();
    }

    /// A snapshot of the victim, as the thief would like it to be.
    fn forged(&self, change: impl Fn(&mut Snapshot)) -> Snapshot {
        let listing = self.owner.open().snapshots().unwrap();
        let found = listing.found.into_iter().find(|found| found.id == self.kept_id);
        let mut snapshot = found.unwrap().snapshot;
        change(&mut snapshot);
        snapshot
    }

    fn put(&self, snapshot: &Snapshot) -> SnapshotId {
        let object = sealed(&self.thief.open(), ObjectKind::Snapshot, &snapshot.encode().unwrap(), None);
        SnapshotId::from(id_of(&put(&self.thief, "snapshots/00000001", &object)))
    }

    fn prunes(&self, what: &str) -> PruneReport {
        let report = run(&self.keeper, 0).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(self.owner.read(self.kept_id).unwrap(), self.kept, "{what}");
        report
    }

    fn stops(&self, what: &str) -> String {
        match run(&self.keeper, 0) {
            Err(error @ OpsError::Stopped { .. }) => error.to_string(),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn a_snapshot_that_does_not_count_is_told_and_stops_nobody() {
    let scene = scene();
    // Of a host that is not the thief's, with a tree that is nowhere.
    let nowhere = scene.put(&scene.forged(|snapshot| snapshot.root = BlobId::new([7; 32])));
    let report = scene.prunes("a snapshot of another host");
    assert_eq!(report.deleted_packs, 2);
    let warned = scene.keeper.listener.warned();
    assert!(
        warned.contains(&nowhere.to_string()) && warned.contains("stays until it is forgotten"),
        "{warned}"
    );
    // Once somebody says so, it goes.
    scene.forget(&[nowhere]);
    assert_eq!(scene.prunes("forgotten").condemned_snapshots, 1);
    let places = scene.store.list("snapshots/").unwrap();
    assert!(!places.iter().any(|place| place.name.ends_with(&nowhere.to_string())));
}

#[test]
fn what_a_snapshot_that_does_not_count_needs_stays_until_it_is_forgotten() {
    // It may be a good one, of a key that was revoked since.
    let scene = scene();
    let there = scene.put(&scene.forged(|snapshot| snapshot.host = "elsewhere".to_owned()));
    scene.forget(&[scene.kept_id]);
    for _ in 0..2 {
        run(&scene.keeper, 0).unwrap();
    }
    let root = scene.forged_root(there);
    let repository = scene.owner.open();
    repository.load_index().unwrap();
    let mut reader = chronolith::repo::BlobReader::new(&repository).unwrap();
    let read = |reader: &mut chronolith::repo::BlobReader| {
        reader.read(chronolith::format::pack::BlobClass::Metadata, "tree", &root).map(drop)
    };
    read(&mut reader).unwrap();
    scene.forget(&[there]);
    assert_eq!(run(&scene.keeper, 0).unwrap().deleted_packs, 2);
}

impl Scene {
    fn forged_root(&self, id: SnapshotId) -> BlobId {
        let name = format!("snapshots/00000001/{id}");
        self.owner.open().peek_at_snapshot(&name).unwrap().unwrap().root
    }
}

#[test]
fn a_snapshot_that_counts_and_is_hurt_stops_prune_until_it_is_forgotten() {
    let scene = scene();
    let own = scene.put(&scene.forged(|snapshot| {
        snapshot.host = "web".to_owned();
        snapshot.root = BlobId::new([7; 32]);
    }));
    let why = scene.stops("a snapshot without a tree");
    assert!(why.contains(&own.short()) && why.contains("web"), "{why}");
    assert!(why.contains(&scene.thief.open().keyring().identity.key.short()), "{why}");
    scene.forget(&[own]);
    assert_eq!(scene.prunes("forgotten").deleted_packs, 2);
    // Taken out of service, the key leaves nothing behind that waits for anybody.
    remove(&scene.owner.open(), &scene.thief.open().keyring().identity.key).unwrap();
    scene.prunes("without the thief");
}

#[test]
fn rubbish_that_was_put_as_it_is_stops_nobody() {
    let scene = scene();
    let thief = scene.thief.open();
    for (folder, kind) in [
        ("snapshots/00000001", ObjectKind::Snapshot),
        ("annotations/00000001", ObjectKind::Annotation),
        ("sessions", ObjectKind::Session),
        ("condemned", ObjectKind::Condemned),
        ("damaged", ObjectKind::Damaged),
    ] {
        put(&scene.thief, folder, b"rubbish");
        put(&scene.thief, folder, &sealed(&thief, kind, b"no such thing", None));
        scene.prunes(folder);
        // An epoch that there is not, whoever signed it.
        put(&scene.thief, folder, &sealed(&thief, kind, b"of no epoch", Some(9999)));
        scene.prunes(&format!("{folder}, of no epoch"));
        let mut unsigned = sealed(&thief, kind, b"of no epoch", Some(9998));
        *unsigned.last_mut().unwrap() ^= 1;
        put(&scene.thief, folder, &unsigned);
        scene.prunes(&format!("{folder}, of no epoch and of nobody"));
    }
    // Nor does it keep anybody from forgetting.
    let forgotten = scene.owner.back_up(&content([("more", noise(6, 9000))]));
    scene.forget(&[forgotten]);
    // Nor does it keep writers from adopting.
    let again = client_with(&scene.owner, Role::Writer, "other", "", &["db1"]);
    assert_eq!(again.try_back_up(&scene.kept).unwrap().summary.new_blobs, 1);
}

#[test]
fn what_may_have_rotted_stops_prune_until_somebody_decides() {
    let scene = scene();
    // Bytes that are not those of the name may be anybody's.
    let name = format!("snapshots/00000001/{}", "ab".repeat(32));
    scene.store.put(&name, b"rotten").unwrap();
    let why = scene.stops("a rotten snapshot");
    assert!(why.contains(&name), "{why}");
    scene.forget(&["ab".repeat(32).parse().unwrap()]);
    let report = scene.prunes("forgotten by its id");
    assert_eq!((report.deleted_packs, report.condemned_snapshots), (2, 2));
    assert!(scene.store.get(&name, 100).is_err());
    // What may be a session is waited for as long as any may be silent.
    let name = format!("sessions/{}", "cd".repeat(32));
    scene.store.put(&name, b"rotten").unwrap();
    scene.stops("a rotten session");
    scene.clock.advance(Duration::from_secs(3 * 86400 - 1));
    scene.stops("a rotten session, after some days");
    scene.clock.advance(Duration::from_secs(1));
    scene.prunes("it would have been renewed");
}

#[test]
fn an_epoch_that_began_since_prune_opened_the_repository_is_no_rubbish() {
    let scene = scene();
    let keeper = scene.keeper.open();
    let ended = client_with(&scene.owner, Role::Maintainer, "ended", "", &[]);
    let closed = ended.open();
    remove(&scene.owner.open(), &closed.keyring().identity.key).unwrap();
    rotate(&scene.owner.open()).unwrap();
    // A session under the new epoch, which a prune cannot know of that was not granted it.
    let writer = scene.thief.open();
    let session = Presence::begin(&writer, SessionPurpose::Write, Default::default(), "late").unwrap();
    let (sessions, unreadable) = closed.sessions_as_far_as_readable().unwrap();
    assert!(!sessions.keys().any(|(key, _)| *key == writer.keyring().identity.key));
    assert!(!unreadable.is_empty());
    // One that was granted it learns of it when it meets it.
    let (sessions, unreadable) = keeper.sessions_as_far_as_readable().unwrap();
    assert!(sessions.keys().any(|(key, _)| *key == writer.keyring().identity.key));
    assert!(unreadable.is_empty());
    drop(session);
}

#[test]
fn what_a_newer_program_may_know_as_a_session_is_waited_for_some_days() {
    // [VERSIONING-5]: nobody can tell who signed it.
    let scene = scene();
    let mut newer = sealed(&scene.thief.open(), ObjectKind::Session, b"no such thing", None);
    newer[VERSION_AT] = 2;
    put(&scene.thief, "sessions", &newer);
    let why = scene.stops("a session of another version");
    assert!(why.contains("running backup"), "{why}");
    scene.clock.advance(Duration::from_secs(3 * 86400));
    scene.prunes("it would have been renewed");
}
