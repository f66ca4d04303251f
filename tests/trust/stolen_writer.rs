//! The key of one host was stolen.

use crate::forge::{client_with, entry_of, id_of, index_run, plain, put, records_of, sealed};
use crate::support::world::{Client, Content, content, copy_of, dump, noise};
use chronolith::base::{AnnotationId, SnapshotId, Timestamp};
use chronolith::format::annotation::{Annotation, AnnotationKind};
use chronolith::format::condemned::Condemned;
use chronolith::format::config::Config;
use chronolith::format::kind::ObjectKind;
use chronolith::format::pack::BlobClass;
use chronolith::format::sets::IdSet;
use chronolith::format::snapshot::Snapshot;
use chronolith::format::trust::{Revocation, Role, Trust};
use chronolith::ops::Snapshots;
use chronolith::ops::check::{CheckOptions, Gravity, check};
use chronolith::repo::Repository;
use chronolith::storage::{MemoryStore, Store};
use std::path::Path;
use std::sync::Arc;

struct Scene {
    owner: Client,
    victim: Client,
    thief: Client,
    id: SnapshotId,
    content: Content,
}

/// A victim with a backup and a thief who holds the key of another host, of another trust domain.
fn scene() -> Scene {
    let owner = Client::init(Arc::new(MemoryStore::new()), 12);
    let victim = client_with(&owner, Role::Writer, "victim", "good", &["db1"]);
    let thief = client_with(&owner, Role::Writer, "thief", "bad", &["web"]);
    let content = content([("app.sql", dump(1, 3000, 7))]);
    let id = victim.back_up(&content);
    Scene { owner, victim, thief, id, content }
}

fn snapshot_of(repository: &Repository, id: SnapshotId) -> Snapshot {
    repository.snapshots().unwrap().found.into_iter().find(|found| found.id == id).unwrap().snapshot
}

impl Scene {
    /// The owner sees one snapshot of the victim, whole; and what was refused names the object.
    fn holds(&self, forged: &str) {
        let repository = self.owner.open();
        let snapshots = Snapshots::load(&repository).unwrap();
        let of_victim: Vec<_> = snapshots.iter().filter(|view| view.snapshot.host == "db1").collect();
        assert_eq!(of_victim.len(), 1, "{forged}");
        assert_eq!(of_victim[0].id, self.id, "{forged}");
        assert_eq!(snapshots.newest_of("db1", "app").unwrap().id, self.id);
        assert_eq!(self.owner.read(self.id).unwrap(), self.content);
        let mut refused = repository.snapshots().unwrap().refused;
        refused.extend(repository.annotations().unwrap().refused);
        if forged.starts_with("snapshots/") {
            assert!(refused.iter().any(|(name, _)| name == forged), "{forged} is not named: {refused:?}");
        }
    }
}

impl Scene {
    /// A check tells of a forged annotation, which is no damage.
    fn is_warned_of(&self, forged: &str) {
        let report = check(&self.owner.open(), &CheckOptions::default()).unwrap();
        let id = id_of(forged).to_string();
        let found = report.findings.iter().find(|finding| finding.object.ends_with(&id)).unwrap();
        assert_eq!(found.gravity, Gravity::Warning, "{found}");
        assert!(!report.is_damaged() && found.what.contains("it does not count"), "{found}");
    }
}

#[test]
fn snapshots_of_another_host_or_role_are_refused() {
    let scene = scene();
    let repository = scene.thief.open();
    let genuine = snapshot_of(&repository, scene.id);
    let folder = "snapshots/00000001";
    let later = Snapshot { started: Timestamp::from_nanoseconds(i64::MAX / 2), ..genuine.clone() };
    let forged = sealed(&repository, ObjectKind::Snapshot, &later.encode().unwrap(), None);
    scene.holds(&put(&scene.thief, folder, &forged));
    // Sealed in an epoch that does not exist; an annotation in the place of a snapshot.
    let forged = sealed(&repository, ObjectKind::Snapshot, &later.encode().unwrap(), Some(99));
    scene.holds(&put(&scene.thief, folder, &forged));
    let note = Annotation { value: Some("x".to_owned()), ..forgotten(scene.id) };
    let other = sealed(&repository, ObjectKind::Annotation, &note.encode().unwrap(), None);
    scene.holds(&put(&scene.thief, folder, &other));
    // Signed by a key that may write nothing.
    let auditor = client_with(&scene.owner, Role::Auditor, "auditor", "good", &[]);
    let forged = sealed(&auditor.open(), ObjectKind::Snapshot, &later.encode().unwrap(), None);
    scene.holds(&put(&auditor, folder, &forged));
    // The victim's own snapshot with the thief as signer: the signature is another's.
    let name = format!("{folder}/{}", scene.id);
    let mut bytes = scene.owner.store.get(&name, u64::MAX).unwrap();
    bytes[16..48].copy_from_slice(repository.keyring().identity.key.as_bytes());
    scene.holds(&put(&scene.thief, folder, &bytes));
    // The victim goes on as if nothing had happened.
    let next = content([("app.sql", dump(2, 3000, 7))]);
    let id = scene.victim.back_up(&next);
    assert_eq!(scene.owner.read(id).unwrap(), next);
    assert_eq!(snapshot_of(&scene.owner.open(), id).parent, Some(scene.id));
}

#[test]
fn a_snapshot_of_another_repository_is_refused() {
    let scene = scene();
    let other = Client::init(Arc::new(MemoryStore::new()), 99);
    let id = other.back_up(&scene.content);
    let name = format!("snapshots/00000001/{id}");
    scene.owner.store.put(&name, &other.store.get(&name, u64::MAX).unwrap()).unwrap();
    scene.holds(&name);
}

fn forgotten(id: SnapshotId) -> Annotation {
    Annotation {
        subjects: IdSet::from_iter([id]),
        ..Annotation::new(AnnotationKind::Forgotten, Timestamp::from_nanoseconds(1))
    }
}

#[test]
fn nobody_forgets_or_unpins_with_a_writers_key() {
    let scene = scene();
    let owner = scene.owner.open();
    let pin = Annotation { kind: AnnotationKind::Pin, ..forgotten(scene.id) };
    let pin = sealed(&owner, ObjectKind::Annotation, &pin.encode().unwrap(), None);
    let pin = put(&scene.owner, "annotations/00000001", &pin);
    for thief in [&scene.thief, &scene.victim] {
        let repository = thief.open();
        let unpin = Annotation {
            kind: AnnotationKind::Unpin,
            subjects: IdSet::default(),
            cancels: Some(AnnotationId::from(id_of(&pin))),
            ..forgotten(scene.id)
        };
        for annotation in [forgotten(scene.id), unpin] {
            let object = sealed(&repository, ObjectKind::Annotation, &annotation.encode().unwrap(), None);
            let name = put(thief, "annotations/00000001", &object);
            scene.holds(&name);
            scene.is_warned_of(&name);
            let snapshots = Snapshots::load(&scene.owner.open()).unwrap();
            let view = snapshots.get(&scene.id).unwrap();
            assert!(!view.forgotten && view.pinned.len() == 1, "{annotation:?}");
        }
    }
    // Tags of another host's snapshot do not stick either.
    let tag = Annotation { kind: AnnotationKind::Tag, key: Some("forged".to_owned()), ..forgotten(scene.id) };
    let object = sealed(&scene.thief.open(), ObjectKind::Annotation, &tag.encode().unwrap(), None);
    scene.is_warned_of(&put(&scene.thief, "annotations/00000001", &object));
    let snapshots = Snapshots::load(&scene.owner.open()).unwrap();
    assert!(snapshots.get(&scene.id).unwrap().tags.is_empty());
    // What the owner said himself is nothing to be warned of.
    let report = check(&scene.owner.open(), &CheckOptions::default()).unwrap();
    assert!(!report.findings.iter().any(|finding| finding.object.ends_with(&id_of(&pin).to_string())));
}

#[test]
fn chunks_are_not_adopted_across_trust_domains() {
    let scene = scene();
    let shared = content([("shared.bin", noise(5, 60_000))]);
    // The thief stores it first; whether its packs hold what they claim, the victim cannot see.
    let of_thief = scene.thief.back_up(&shared);
    let packs: Vec<String> =
        scene.owner.store.list("packs/").unwrap().into_iter().map(|object| object.name).collect();
    let report = scene.victim.try_back_up(&shared).unwrap();
    assert!(report.summary.new_bytes >= 60_000, "the victim adopted: {:?}", report.summary);
    // Now the thief's content goes away, and the victim's backup is whole.
    let signer = scene.thief.open().keyring().identity.key;
    for name in packs {
        let bytes = scene.owner.store.get(&name, u64::MAX).unwrap();
        if bytes[4] == 3 && bytes[16..48] == *signer.as_bytes() {
            scene.owner.store.delete(&name).unwrap();
        }
    }
    assert_eq!(scene.owner.read(report.snapshot.unwrap()).unwrap(), shared);
    assert!(scene.owner.read(of_thief).is_ok(), "the victim's copy serves the thief's snapshot too");
}

#[test]
fn an_index_run_or_registry_of_a_thief_stops_nobody() {
    let scene = scene();
    let repository = scene.thief.open();
    // A registry that makes the thief an owner, and one that follows the real one.
    let trust = repository.registry().trust().clone();
    let mut own: Trust = trust.clone();
    own.sequence += 1;
    own.predecessor = Some(repository.registry().id());
    let thief = repository.keyring().identity.key;
    for key in &mut own.keys {
        if key.id == thief {
            key.role = Role::Owner;
        }
    }
    let promoted = plain(&repository, ObjectKind::Trust, &own.encode());
    for folder in ["trust", "copies/trust"] {
        put(&scene.thief, folder, &promoted);
    }
    let opened = scene.owner.open();
    assert_eq!(opened.registry().head(), repository.registry().head());
    assert!(scene.owner.listener.warned().contains(&blake3::hash(&promoted).to_string()));
    scene.holds("trust");
    // A configuration of a higher revision.
    let parsed = scene.owner.store.get("chronolith", u64::MAX).unwrap();
    let mut config: Config = Config::parse(&parsed).unwrap().config;
    config.revision += 7;
    config.signer = thief;
    let encoded = config.encode();
    let message = chronolith::crypto::SignedMessage::new(repository.id(), 0, encoded.as_bytes());
    let forged = Config::finish(encoded, &repository.keyring().identity.signing.sign(&message));
    scene.owner.store.replace("chronolith", &forged).unwrap();
    assert_eq!(scene.owner.open().config().revision, 1);
    assert_eq!(scene.victim.open().config().revision, 1);
    // Both copies forged: the repository is refused, by name.
    let store = Arc::new(copy_of(&scene.owner.store));
    store.replace("copies/chronolith", &forged).unwrap();
    let error = scene.owner.through(store).try_open().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("chronolith"), "{error}");
}

fn set_back(owner: &Client, change: impl FnOnce(), cache: &Path) {
    let client = owner.with_cache(cache);
    client.open();
    let before = copy_of(&owner.store);
    change();
    client.open();
    // The store shows the past again; who saw the present does not believe it.
    let error = client.through(Arc::new(before)).try_open().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("was there before"), "{error}");
}

#[test]
fn a_registry_set_back_is_noticed_by_who_saw_the_newer_one() {
    let scene = scene();
    let cache = tempfile::TempDir::new().unwrap();
    let change = || {
        client_with(&scene.owner, Role::Writer, "third", "", &["third"]);
    };
    set_back(&scene.owner, change, cache.path());
}

/// The configuration with a change, signed with whatever key the repository was opened with.
fn config_by(repository: &Repository, change: impl FnOnce(&mut Config)) -> Vec<u8> {
    let mut config = repository.config().clone();
    config.signer = repository.keyring().identity.key;
    change(&mut config);
    let encoded = config.encode();
    let message = chronolith::crypto::SignedMessage::new(repository.id(), 0, encoded.as_bytes());
    Config::finish(encoded, &repository.keyring().identity.signing.sign(&message))
}

/// Puts a configuration into both places.
fn replace_config(store: &dyn Store, config: &[u8]) {
    store.replace("copies/chronolith", config).unwrap();
    store.replace("chronolith", config).unwrap();
}

#[test]
fn a_configuration_set_back_is_noticed_by_who_saw_the_newer_one() {
    let scene = scene();
    let cache = tempfile::TempDir::new().unwrap();
    let newer = config_by(&scene.owner.open(), |config| config.revision += 1);
    set_back(&scene.owner, || replace_config(scene.owner.store.as_ref(), &newer), cache.path());
    // Who has not seen it is warned by nothing but the registry, which may say what is the least.
    assert_eq!(scene.owner.open().config().revision, 2);
}

#[test]
fn a_configuration_signed_by_a_revoked_owner_does_not_count() {
    let scene = scene();
    let second = client_with(&scene.owner, Role::Owner, "second", "", &[]);
    let repository = second.open();
    let first = scene.owner.open().keyring().identity.key;
    let mut trust: Trust = repository.registry().trust().clone();
    trust.sequence += 1;
    trust.predecessor = Some(repository.registry().id());
    for key in &mut trust.keys {
        if key.id == first {
            key.revoked = Some(Revocation { sequence: trust.sequence, ..Revocation::default() });
        }
    }
    let revoked = plain(&repository, ObjectKind::Trust, &trust.encode());
    for folder in ["trust", "copies/trust"] {
        put(&second, folder, &revoked);
    }
    let error = second.try_open().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
    replace_config(second.store.as_ref(), &config_by(&repository, |config| config.revision += 1));
    assert_eq!(second.open().config().revision, 2);
}

#[test]
fn lies_in_the_index_cost_time_only() {
    let scene = scene();
    let thief = scene.thief.open();
    let known = records_of(&thief, BlobClass::Content);
    // Every chunk of the victim is said to lie elsewhere in the victim's own pack; an epoch that does
    // not exist; a chunk that nobody has is said to be there.
    let moved: Vec<_> = known
        .iter()
        .map(|located| {
            let mut record = located.record;
            (record.pack, record.counter) = (0, record.counter + 1000);
            record.frame_offset += 8;
            record
        })
        .collect();
    let pack = entry_of(&known[0]);
    put(&scene.thief, "index/00000001", &index_run(&thief, vec![pack.clone()], moved.clone(), None));
    put(&scene.thief, "index/00000001", &index_run(&thief, vec![pack.clone()], moved, Some(99)));
    let future = content([("later.bin", noise(77, 900))]);
    let ids = thief.keyring().id_key(BlobClass::Content).unwrap();
    let mut claimed = known[0].record;
    (claimed.pack, claimed.offset, claimed.length) = (0, 0, 900);
    claimed.id = ids.blob_id(&noise(77, 900));
    (claimed.plain_length, claimed.sealed_length) =
        (claimed.plain_length.max(900), claimed.sealed_length.max(20));
    put(&scene.thief, "index/00000001", &index_run(&thief, vec![pack], vec![claimed], None));
    scene.holds("index");
    // Who trusts another domain stores it himself.
    let id = scene.victim.back_up(&future);
    assert_eq!(scene.owner.read(id).unwrap(), future);
    // Within the thief's own domain the lie is believed when writing, and found when reading.
    let friend = client_with(&scene.owner, Role::Writer, "friend", "bad", &["web2"]);
    let poisoned = friend.back_up(&content([("later.bin", noise(77, 900))]));
    assert!(scene.owner.read(poisoned).is_ok(), "the victim's copy serves it");
}

#[test]
fn an_unsigned_pack_is_no_reason_to_store_less() {
    let scene = scene();
    // The victim's content pack, its index runs gone and its signature spoilt: what its table says can
    // be read, since every blob proves itself, but nobody relies on it for a new snapshot.
    let store = Arc::new(copy_of(&scene.owner.store));
    for object in store.list("index/").unwrap() {
        store.delete(&object.name).unwrap();
    }
    for object in store.list("packs/").unwrap() {
        let mut bytes = store.get(&object.name, u64::MAX).unwrap();
        store.delete(&object.name).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let name = blake3::hash(&bytes).to_string();
        store.put(&format!("packs/{}/{name}", &name[..2]), &bytes).unwrap();
    }
    let victim = scene.victim.through(store.clone());
    let reader = scene.owner.through(store);
    assert_eq!(reader.read(scene.id).unwrap(), scene.content);
    let repository = victim.open();
    repository.load_index().unwrap();
    repository.index_unlisted_packs().unwrap();
    for located in records_of(&repository, BlobClass::Content) {
        assert!(!repository.adoptable(BlobClass::Content, &located.record.id));
    }
}

#[test]
fn nobody_condemns_with_a_writers_key() {
    let scene = scene();
    let everything = Condemned {
        created: Timestamp::from_nanoseconds(1),
        store_time: Timestamp::from_nanoseconds(1),
        grace_seconds: 0,
        session: [9; 32],
        sessions: Vec::new(),
        dead: scene.owner.open().pack_lengths().unwrap().into_keys().collect(),
        superfluous: IdSet::default(),
        copies: IdSet::default(),
        tombstones: IdSet::default(),
        objects: Vec::new(),
        absorbs: IdSet::default(),
        bytes: 0,
        program: "thief".to_owned(),
        catalogue: None,
        extra: Vec::new(),
    };
    let object = sealed(&scene.thief.open(), ObjectKind::Condemned, &everything.encode().unwrap(), None);
    scene.holds(&put(&scene.thief, "condemned", &object));
    let listing = scene.owner.open().condemned(&Default::default()).unwrap();
    assert!(listing.found.is_empty() && listing.unreadable.is_empty());
}
