//! A disk that fills up: a small file system in memory, and a store that is full from any write on.

use crate::keys::with_role;
use crate::support::world::{Client, Content, content, copy_of, dump, noise};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::{Classify, KeyId, SecretBytes, SnapshotId};
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
use chronolith::storage::{LocalStore, MemoryStore, Operation};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

/// A small file system that is unmounted when the test ends.
struct Mounted(TempDir);

fn mount(options: &str, place: &Path) {
    let output =
        Command::new("mount").args(["-t", "tmpfs", "-o", options, "chronolith-test"]).arg(place).output();
    let output = output.unwrap_or_else(|error| panic!("mount: {error}; install the Debian package `mount`"));
    assert!(
        output.status.success(),
        "`mount -t tmpfs -o {options}` failed: {}This test mounts a small tmpfs: run it as root (in a \
         container: with CAP_SYS_ADMIN).",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_fills_up_loses_nothing() {
    let disk = Mounted(TempDir::new().unwrap());
    mount("size=4m", disk.0.path());
    let store = Arc::new(LocalStore::create(disk.0.path().join("repository")).unwrap());
    let owner = Client::init(store, 6);
    let mut stored = Vec::new();
    let refused = loop {
        assert!(stored.len() < 40, "the disk does not fill up");
        let content = content([("app.bin", noise(stored.len() as u64, 300_000))]);
        match owner.try_back_up(&content) {
            Ok(report) => stored.push((report.snapshot.unwrap(), content)),
            Err(error) => {
                assert!(error.to_string().contains("full"), "{error} ({:?})", error.class());
                break content;
            }
        }
    };
    assert!(stored.len() >= 3, "only {} backups fitted", stored.len());
    // Again and again: what cannot be finished does not pile up in the place of what could be.
    for _ in 0..3 {
        assert!(owner.try_back_up(&refused).is_err());
    }
    let known: Vec<_> = stored.iter().map(|(id, _)| *id).collect();
    assert_eq!(owner.snapshots(), known);
    for (id, content) in &stored {
        assert!(owner.read(*id).unwrap() == *content);
    }
    // Room is made: the next backup succeeds.
    mount("remount,size=32m", disk.0.path());
    let id = owner.back_up(&refused);
    assert!(owner.read(id).unwrap() == refused);
}

/// One command, for a scene in which it has something to do.
type Step = fn(&Scene, &Client) -> Result<(), OpsError>;

/// Two snapshots of which one is forgotten, a key to be revoked, a log.
struct Scene {
    owner: Client,
    kept: (SnapshotId, Content),
    forgotten: (SnapshotId, Content),
    writer: KeyId,
}

fn scene() -> Scene {
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
const COMMANDS: [(&str, Step); 11] = [
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
fn is_sound(scene: &Scene, client: &Client, half: bool, what: &str) {
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

/// The disk is full from the Nth write on, for every N: nothing is half, and once there is room the same
/// command succeeds.
#[test]
fn a_disk_that_is_full_at_any_write_leaves_nothing_half() {
    let scene = scene();
    for (name, command) in COMMANDS {
        let mut failures = 0;
        for number in 1.. {
            let store = Arc::new(copy_of(scene.owner.store.as_ref()));
            let writes = AtomicU64::new(0);
            let plan = move |_, operation, _: &str| {
                let is_write = matches!(operation, Operation::Put | Operation::Replace);
                let full = is_write && writes.fetch_add(1, Ordering::SeqCst) + 1 >= number;
                full.then_some(Fault::Before(Failure::NoSpace))
            };
            let full = Arc::new(FaultStore::with_plan(store.clone(), plan));
            let what = format!("{name}, full from write {number} on");
            let done = command(&scene, &scene.owner.through(full.clone()));
            if !full.fired() {
                done.unwrap_or_else(|error| panic!("{what}: {error}"));
                break;
            }
            failures += u32::from(done.is_err());
            if let Err(error) = done {
                let told = chronolith::base::explain(&error);
                assert!(told.contains("full"), "{what}: {told}");
            }
            let client = scene.owner.through(store);
            is_sound(&scene, &client, true, &what);
            command(&scene, &client).unwrap_or_else(|error| panic!("{what}, then once more: {error}"));
            is_sound(&scene, &client, false, &format!("{what}, then once more"));
        }
        assert!(failures > 0 || name == "forget", "{name} never failed");
    }
}
