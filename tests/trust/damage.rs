//! Reports of damage by keys of all roles: whom they count for, and that no false one destroys anything.

use crate::forge::{Claim, client_with, poison, records_of};
use crate::support::world::{Client, Content, content, copy_of, noise};
use chronolith::base::{BlobId, DamagedId, ObjectId, SnapshotId};
use chronolith::codec::Encoding;
use chronolith::format::ObjectKind;
use chronolith::format::cbor::Extra;
use chronolith::format::damaged::{Damaged, DamagedObject, Finding};
use chronolith::format::pack::BlobClass;
use chronolith::format::place::Place;
use chronolith::format::trust::Role;
use chronolith::ops::check::{CheckOptions, ReadData, check};
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::repair::{PacksOptions, PacksPlan};
use chronolith::storage::{MemoryStore, Store};
use std::sync::Arc;

struct Scene {
    owner: Client,
    victim: Client,
    content: Content,
    id: SnapshotId,
    /// The pack that the victim stored.
    pack: ObjectId,
}

fn scene() -> Scene {
    let owner = Client::init(Arc::new(MemoryStore::new()), 31);
    let victim = client_with(&owner, Role::Writer, "victim", "shared", &["db1"]);
    let content = content([("data.bin", noise(7, 60_000))]);
    let id = victim.back_up(&content);
    let pack = packs(&owner.store).remove(0);
    Scene { owner, victim, content, id, pack }
}

fn packs(store: &Arc<dyn Store>) -> Vec<ObjectId> {
    let mut packs = store.list("packs/").unwrap();
    packs.retain(|pack| store.get(&pack.name, u64::MAX).unwrap()[4] == 3);
    packs.iter().map(|pack| pack.name.rsplit('/').next().unwrap().parse().unwrap()).collect()
}

fn report(client: &Client, pack: ObjectId, finding: Finding, cancels: &[DamagedId]) -> DamagedId {
    let object = DamagedObject {
        place: Place::new(ObjectKind::ContentPack, "", pack).unwrap(),
        finding,
        blobs: std::iter::empty::<BlobId>().collect(),
        expected_bytes: None,
        found_bytes: None,
        detail: None,
        extra: Extra::new(),
    };
    let damaged = Damaged {
        created: chronolith::base::Timestamp::from_nanoseconds(1),
        objects: if cancels.is_empty() { vec![object] } else { Vec::new() },
        method: "test".to_owned(),
        program: "test".to_owned(),
        cancels: cancels.iter().copied().collect(),
        extra: Extra::new(),
    };
    client.open().report_damage(&damaged).unwrap()
}

impl Scene {
    /// The same scene in another store, so that what is tried leaves no trace.
    fn aside(&self) -> (Client, Client, Arc<dyn Store>) {
        let store: Arc<dyn Store> = Arc::new(copy_of(self.owner.store.as_ref()));
        (self.owner.through(store.clone()), self.victim.through(store.clone()), store)
    }

    /// Says whether a backup of what is stored already stores it again.
    fn stores_again(&self, client: &Client, host: &str) -> bool {
        let report = client.on_host(host).try_back_up(&self.content).unwrap();
        report.summary.new_bytes >= 60_000
    }
}

#[test]
fn who_is_believed_by_whom() {
    let scene = scene();
    let keys = [
        (Role::Owner, "", [true, true, true]),
        (Role::Maintainer, "", [true, true, false]),
        (Role::Reader, "", [true, true, true]),
        (Role::Auditor, "", [true, true, false]),
        // A writer is believed by writers of its own domain, the owner believes none.
        (Role::Writer, "shared", [true, false, false]),
        (Role::Writer, "elsewhere", [false, false, false]),
    ];
    for (number, (role, domain, [victim_believes, owner_believes, of_content])) in
        keys.into_iter().enumerate()
    {
        let name = format!("key{number}");
        let signer = client_with(&scene.owner, role, &name, domain, &["web"]);
        for finding in [Finding::Hash, Finding::Undecodable, Finding::Other(99), Finding::Content] {
            let (owner, victim, store) = scene.aside();
            report(&signer.through(store.clone()), scene.pack, finding, &[]);
            // What only the content shows only those can tell who can read it.
            let told = finding != Finding::Content || of_content;
            let what = format!("{role:?} {domain} {finding:?}");
            assert_eq!(scene.stores_again(&victim, "db1"), victim_believes && told, "{what}");
            // The owner is of another domain than the pack, and would not adopt from it anyway.
            let repository = owner.open();
            let listing = repository.damage_reports().unwrap();
            let spoilt = listing.spoilt(repository.registry(), repository.keyring().identity.key);
            assert_eq!(!spoilt.is_empty(), owner_believes && told, "{what}: the owner");
        }
    }
}

#[test]
fn who_may_say_that_a_report_does_not_hold() {
    let scene = scene();
    let other = client_with(&scene.owner, Role::Auditor, "first", "", &[]);
    for (number, (role, may)) in [
        (Role::Owner, true),
        (Role::Maintainer, true),
        (Role::Reader, true),
        (Role::Auditor, false),
        (Role::Writer, false),
    ]
    .into_iter()
    .enumerate()
    {
        let canceller = client_with(&scene.owner, role, &format!("key{number}"), "shared", &["web"]);
        let (_, victim, store) = scene.aside();
        let id = report(&other.through(store.clone()), scene.pack, Finding::Hash, &[]);
        report(&canceller.through(store.clone()), scene.pack, Finding::Hash, &[id]);
        assert_eq!(scene.stores_again(&victim, "db1"), !may, "{role:?}");
    }
    // Everybody takes back what he said himself.
    let (_, victim, store) = scene.aside();
    let author = other.through(store);
    let id = report(&author, scene.pack, Finding::Hash, &[]);
    report(&author, scene.pack, Finding::Hash, &[id]);
    assert!(!scene.stores_again(&victim, "db1"));
}

#[test]
fn a_false_report_costs_room_and_destroys_nothing() {
    let scene = scene();
    let liar = client_with(&scene.owner, Role::Auditor, "liar", "", &[]);
    let thief = client_with(&scene.owner, Role::Writer, "thief", "shared", &["web"]);
    report(&liar, scene.pack, Finding::Hash, &[]);
    // Another key stores the same again, and for all a maintainer can tell it may be rubbish.
    assert!(scene.stores_again(&thief, "web"));
    let pack = format!("packs/{}/{}", &scene.pack.to_string()[..2], scene.pack);
    for _ in 0..3 {
        let options = PruneOptions { grace_seconds: 0, ..PruneOptions::new("test") };
        prune(&scene.owner.open(), &options).unwrap();
        assert!(scene.owner.store.head(&pack).is_ok(), "the true copy is still there");
        assert_eq!(scene.owner.read(scene.id).unwrap(), scene.content);
    }
    // Who can read it finds that it is whole, and says so.
    let reader = client_with(&scene.owner, Role::Reader, "reader", "", &[]);
    let options = CheckOptions { read_data: ReadData::None, keep_ledger: true, program: "test".to_owned() };
    let found = check(&reader.open(), &options).unwrap();
    assert_eq!((found.is_damaged(), found.cancelled), (false, 1), "{found:?}");
    assert!(!scene.stores_again(&scene.victim, "db1"));
}

#[test]
fn what_still_holds_of_a_report_is_not_unsaid_by_who_cannot_tell() {
    let scene = scene();
    scene.victim.back_up(&content([("more.bin", noise(8, 60_000))]));
    let reader = client_with(&scene.owner, Role::Reader, "reader", "", &[]);
    let maintainer = client_with(&scene.owner, Role::Maintainer, "keeper", "", &[]);
    let other = packs(&scene.owner.store).into_iter().find(|pack| *pack != scene.pack).unwrap();
    let [first, second] = [[1; 32], [2; 32]].map(BlobId::new);
    let object = |pack, finding, blobs: &[BlobId]| DamagedObject {
        place: Place::new(ObjectKind::ContentPack, "", pack).unwrap(),
        finding,
        blobs: blobs.iter().copied().collect(),
        expected_bytes: None,
        found_bytes: None,
        detail: None,
        extra: Extra::new(),
    };
    for (finding, repeated) in [(Finding::Content, false), (Finding::Undecodable, true)] {
        let (owner, _, store) = scene.aside();
        for blob in [first, second] {
            // A pack that is whole by now, and a blob of which only content tells.
            let mut objects = vec![object(scene.pack, Finding::Hash, &[]), object(other, finding, &[blob])];
            objects.sort_by_key(|object| object.place.id());
            let damaged = Damaged {
                created: chronolith::base::Timestamp::from_nanoseconds(1),
                objects,
                method: "test".to_owned(),
                program: "test".to_owned(),
                cancels: std::iter::empty().collect(),
                extra: Extra::new(),
            };
            reader.through(store.clone()).open().report_damage(&damaged).unwrap();
        }
        let look = |client: &Client| {
            let options =
                CheckOptions { read_data: ReadData::All, keep_ledger: true, program: "test".to_owned() };
            check(&client.through(store.clone()).open(), &options).unwrap();
            let repository = owner.open();
            let listing = repository.damage_reports().unwrap();
            let spoilt = listing.spoilt(repository.registry(), repository.keyring().identity.key);
            let names = |pack: ObjectId, blob| spoilt.names(&pack.into(), &blob);
            [names(scene.pack, first), names(other, first), names(other, second)]
        };
        // Who can say all that still holds says it again, and both blobs are in it.
        assert_eq!(look(&maintainer), [!repeated, true, true], "{finding:?}");
        assert_eq!(look(&scene.owner), [false; 3], "{finding:?}: all is whole");
    }
}

#[test]
fn a_forged_copy_is_no_reason_to_leave_a_good_frame_in_a_damaged_pack() {
    let scene = scene();
    let thief = client_with(&scene.owner, Role::Writer, "thief", "shared", &["web"]);
    for located in records_of(&scene.owner.open(), BlobClass::Content) {
        let (id, length) = (located.record.id, located.record.length);
        let encoded = noise(95, length as usize);
        let claim = Claim { blob: (id, length), encoding: Encoding::Stored, base: None, encoded };
        poison(&thief, BlobClass::Content, claim);
    }
    let name = chronolith::repo::pack_name(&scene.pack.into());
    let mut bytes = scene.owner.store.get(&name, u64::MAX).unwrap();
    bytes.pop();
    scene.owner.store.replace(&name, &bytes).unwrap();
    let plan = PacksPlan::new(&scene.owner.open(), PacksOptions::default()).unwrap();
    let damaged = plan.packs.iter().find(|pack| ObjectId::from(pack.id) == scene.pack).unwrap();
    assert_eq!((damaged.elsewhere, damaged.lost.len()), (0, 0), "{damaged:?}");
    assert!(damaged.salvaged > 0, "{damaged:?}");
    plan.run().unwrap();
    scene.owner.store.delete(&name).unwrap();
    assert_eq!(scene.owner.read(scene.id).unwrap(), scene.content);
    // True copies are elsewhere by now.
    scene.owner.store.put(&name, &bytes).unwrap();
    let again = PacksPlan::new(&scene.owner.open(), PacksOptions::default()).unwrap();
    let damaged = again.packs.iter().find(|pack| ObjectId::from(pack.id) == scene.pack).unwrap();
    assert!(damaged.salvaged == 0 && damaged.elsewhere > 0, "{damaged:?}");
}
