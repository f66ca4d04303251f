//! Every command that writes, in a scene in which each has something to do.

use crate::keys::with_role;
use crate::support::world::{Client, Content, content, dump, noise};
use chronolith::base::{KeyId, SecretBytes, SnapshotId};
use chronolith::format::trust::Role;
use chronolith::format::trust::scope::Scope;
use chronolith::ops::check::{CheckOptions, Finding, Gravity, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::keys::{self, NewKey};
use chronolith::ops::marks::{Mark, mark};
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::rotation::{Accept, RevocationPlan, rotate};
use chronolith::ops::undelete::undelete;
use chronolith::ops::{OpsError, Snapshots, parity};
use chronolith::repo::NewSlot;
use chronolith::storage::MemoryStore;
use std::sync::Arc;

/// One command, for a scene in which it has something to do.
pub type Step = fn(&Scene, &Client) -> Result<(), OpsError>;

/// Two snapshots of which one is forgotten, a key to be revoked, a log.
pub struct Scene {
    pub owner: Client,
    pub kept: (SnapshotId, Content),
    pub forgotten: (SnapshotId, Content),
    writer: KeyId,
}

pub fn scene() -> Scene {
    let owner = Client::init(Arc::new(MemoryStore::new()), 61);
    let old = content([("app.sql", dump(1, 800, 5)), ("noise", noise(1, 20_000))]);
    let new = content([("app.sql", dump(2, 800, 5)), ("more", noise(2, 20_000))]);
    let forgotten = (owner.back_up(&old), old);
    let kept = (owner.back_up(&new), new);
    let writer = with_role(&owner, Role::Writer, "web").open().keyring().identity.key;
    let repository = owner.open();
    forget(&repository, &Snapshots::load(&repository).unwrap(), &[forgotten.0]).unwrap();
    Scene { owner, kept, forgotten, writer }
}

fn new_key_file() -> SecretBytes {
    SecretBytes::new(vec![5; 32])
}

/// Every command that writes, each as often as it may be repeated after it failed.
pub const COMMANDS: [(&str, Step); 11] = [
    ("backup", |_, client| {
        client.try_back_up(&content([("next.sql", dump(3, 800, 5)), ("next", noise(3, 20_000))])).map(drop)
    }),
    ("prune", |_, client| prune(&client.try_open()?, &PruneOptions::new("test").within(0)).map(drop)),
    ("forget", |scene, client| {
        let repository = client.try_open()?;
        forget(&repository, &Snapshots::load(&repository)?, &[scene.forgotten.0]).map(drop)
    }),
    ("undelete", |scene, client| {
        let repository = client.try_open()?;
        if !Snapshots::load(&repository)?.iter().any(|view| view.id == scene.forgotten.0) {
            undelete(&repository, &[scene.forgotten.0], "test")?;
        }
        Ok(())
    }),
    ("pin", |scene, client| {
        let repository = client.try_open()?;
        let pin = Mark::Pin { reason: None };
        mark(&repository, &Snapshots::load(&repository)?, &[scene.kept.0], &[pin]).map(drop)
    }),
    ("parity", |_, client| parity::add(&client.try_open()?, 10).map(drop)),
    ("key add", |_, client| {
        let new = NewKey {
            role: Role::Reader,
            name: "reader".to_owned(),
            domain: String::new(),
            scope: Scope::default(),
        };
        keys::add(&*client.try_open()?, &new, &NewSlot::KeyFile(&new_key_file())).map(drop)
    }),
    ("key passwd", |_, client| {
        let repository = client.try_open()?;
        keys::add_slot(&repository, &NewSlot::KeyFile(&new_key_file()), "other way").map(drop)
    }),
    ("key remove", |scene, client| {
        // Once it is out of service only its slots are left to be deleted.
        keys::remove(&*client.try_open()?, &scene.writer).map(drop)
    }),
    ("key rotate", |_, client| rotate(&*client.try_open()?).map(drop)),
    ("key revoke", |scene, client| {
        let repository = client.try_open()?;
        let plan = RevocationPlan::new(&repository, &scene.writer, &Accept::Everything, &[].into(), true)?;
        plan.run(&repository).map(drop)
    }),
];

/// Everything that was there is there, and nothing is half.
pub fn is_sound(scene: &Scene, client: &Client, half: bool, what: &str) {
    assert!(client.read(scene.kept.0).unwrap() == scene.kept.1, "{what}");
    let options = CheckOptions { read_data: ReadData::All, keep_ledger: false, program: "test".to_owned() };
    let report = check(&client.open(), &options).unwrap();
    // A version of the registry counts from its first copy on; the next one puts the second.
    let says = "it is missing (its other copy is whole: `chronolith check --repair`)";
    let second_copy = |finding: &Finding| finding.object.starts_with("trust/") && finding.what == says;
    let grave = report.findings.iter().filter(|finding| finding.gravity == Gravity::Damage);
    let excused = grave.filter(|finding| half && second_copy(finding)).count() as u64;
    assert!(report.damaged == excused && report.hurt.is_empty(), "{what}: {:?}", report.findings);
    let mut listed = client.snapshots();
    listed.retain(|id| *id != scene.forgotten.0 && *id != scene.kept.0);
    for id in listed {
        client.read(id).unwrap_or_else(|error| panic!("{what}: {id} is listed: {error}"));
    }
}
