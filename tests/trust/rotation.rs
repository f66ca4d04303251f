//! Keys through time: a new epoch shuts out who left and nobody else; a key in wrong hands is ended, and what of it
//! still counts is known.

use crate::forge::client_with;
use crate::support::FaultStore;
use crate::support::world::{Client, Content, content, dump, noise};
use chronolith::base::{Classify, ErrorClass, KeyId, SnapshotId, Timestamp};
use chronolith::format::ObjectKind;
use chronolith::format::trust::{Role, Standing};
use chronolith::ops::backup::backup;
use chronolith::ops::check::{CheckOptions, ReadData, check};
use chronolith::ops::forget::forget;
use chronolith::ops::keys::remove;
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::rotation::{Accept, RevocationPlan, rotate};
use chronolith::ops::{OpsError, Snapshots};
use chronolith::storage::{MemoryStore, Operation, Store};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn key(client: &Client) -> KeyId {
    client.open().keyring().identity.key
}

fn shown(client: &Client) -> Vec<SnapshotId> {
    Snapshots::load(&client.open()).unwrap().iter().map(|view| view.id).collect()
}

/// A time that is after everything the store has received so far.
fn now(client: &Client) -> Timestamp {
    let newest = client.store.list("").unwrap().iter().filter_map(|object| object.modified).max().unwrap();
    Timestamp::from_nanoseconds(newest.nanoseconds() + 1)
}

fn revoke(
    owner: &Client,
    key: KeyId,
    accept: &Accept,
    close: bool,
) -> Result<(RevocationPlan, u32), OpsError> {
    let repository = owner.open();
    let plan = RevocationPlan::new(&repository, &key, accept, &BTreeSet::new(), close)?;
    let epoch = plan.run(&repository)?;
    Ok((plan, epoch))
}

fn some(seed: u64) -> Content {
    content([("app.sql", dump(1, 800, 7)), ("noise", noise(seed, 30_000))])
}

#[test]
fn a_new_epoch_keeps_everything_readable_and_shuts_out_who_left() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 51);
    let writer = client_with(&owner, Role::Writer, "writer", "", &["db1"]);
    let reader = client_with(&owner, Role::Reader, "reader", "", &[]);
    let left = client_with(&owner, Role::Reader, "left", "", &[]);
    let old = some(1);
    let first = writer.back_up(&old);
    let stale = left.open();
    remove(&owner.open(), &key(&left)).unwrap();
    assert_eq!(rotate(&owner.open()).unwrap(), 2);
    for client in [&owner, &writer, &reader] {
        let repository = client.open();
        assert_eq!(repository.keyring().epochs().count(), 2);
        assert_eq!(repository.keyring().current().unwrap().number, 2);
    }
    assert_eq!(left.try_open().map(drop).unwrap_err().class(), ErrorClass::WrongKey);
    // Nothing is stored again because of it, and what is new is sealed in the new epoch.
    let again = writer.try_back_up(&old).unwrap();
    assert!(again.summary.new_bytes < 2000, "{:?}", again.summary);
    let new = some(2);
    let second = writer.back_up(&new);
    for client in [&owner, &reader] {
        assert_eq!(client.read(first).unwrap(), old);
        assert_eq!(client.read(second).unwrap(), new);
    }
    // Who left reads what it could read, and nothing newer.
    assert_eq!(crate::support::world::read_snapshot(&stale, first).unwrap(), old);
    assert!(crate::support::world::read_snapshot(&stale, second).is_err());
    let report =
        check(&owner.open(), &CheckOptions { read_data: ReadData::All, ..CheckOptions::default() }).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
    // Only an owner begins epochs.
    for client in [&writer, &reader] {
        assert_eq!(rotate(&client.open()).unwrap_err().class(), ErrorClass::Forbidden);
    }
    assert_eq!(rotate(&owner.open()).unwrap(), 3);
    assert_eq!(reader.read(second).unwrap(), new);
    // A key that is added later reads all epochs.
    let late = client_with(&owner, Role::Reader, "late", "", &[]);
    assert_eq!((late.read(first).unwrap(), late.read(second).unwrap()), (old, new));
}

#[test]
fn a_leaked_writer_is_ended_and_what_it_did_in_good_hands_still_counts() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 52);
    let victim = client_with(&owner, Role::Writer, "victim", "", &["db1"]);
    let other = client_with(&owner, Role::Writer, "other", "", &["web"]);
    let (good, bad) = (some(1), some(2));
    let before = victim.back_up(&good);
    let leaked_at = now(&owner);
    // The thief, and a client that he keeps open.
    let rogue = victim.back_up(&bad);
    let thief = victim.open();
    let (plan, epoch) = revoke(&owner, key(&victim), &Accept::Before(leaked_at), false).unwrap();
    assert_eq!(epoch, 2);
    let count = |kind| plan.counts()[&kind];
    assert_eq!(count(ObjectKind::Snapshot), (2, 1));
    assert!(count(ObjectKind::ContentPack).1 < count(ObjectKind::ContentPack).0);
    // What is accepted is listed as before; the rest is named and refused.
    assert_eq!(shown(&owner), [before]);
    assert_eq!(owner.read(before).unwrap(), good);
    let refused = Snapshots::load(&owner.open()).unwrap().refused;
    let [(name, why)] = refused.as_slice() else { panic!("{refused:?}") };
    assert!(name.ends_with(&rogue.to_string()) && why.to_string().contains("was revoked"), "{why}");
    // The key opens nothing, signs nothing; what the thief stores with what he has open does not count, and no backup
    // that was under way is called good ([CONCURRENCY-60]).
    assert_eq!(victim.try_open().map(drop).unwrap_err().class(), ErrorClass::WrongKey);
    let stored = backup(&thief, crate::support::world::streams(&some(3)), &victim.options());
    assert!(matches!(stored, Err(OpsError::Unsettled { .. })), "{stored:?}");
    assert_eq!(shown(&owner), [before]);
    // Others go on, adopt what is accepted and nothing else.
    let mine = other.try_back_up(&good).unwrap();
    assert!(mine.summary.new_bytes < 2000, "{:?}", mine.summary);
    let again = other.try_back_up(&bad).unwrap();
    assert!(again.summary.new_bytes >= 30_000, "{:?}", again.summary);
    assert_eq!(owner.read(again.snapshot.unwrap()).unwrap(), bad);
    let record = owner.open().registry().trust().key(&plan.key.id).unwrap().clone();
    assert_eq!(record.standing(), Standing::Revoked);
    // More can be accepted later.
    let repository = owner.open();
    let also = BTreeSet::from([chronolith::base::ObjectId::from(rogue)]);
    RevocationPlan::new(&repository, &record.id, &Accept::Nothing, &also, false)
        .unwrap()
        .run(&repository)
        .unwrap();
    let listed = shown(&owner);
    assert!(listed.contains(&before) && listed.contains(&rogue), "{listed:?}");
}

#[test]
fn everything_or_nothing_may_be_accepted_and_epochs_closed() {
    for (accept, left) in [(Accept::Everything, 1), (Accept::Nothing, 0)] {
        let owner = Client::init(Arc::new(MemoryStore::new()), 53);
        let victim = client_with(&owner, Role::Writer, "victim", "", &["db1"]);
        victim.back_up(&some(1));
        let close = accept == Accept::Everything;
        revoke(&owner, key(&victim), &accept, close).unwrap();
        assert_eq!(shown(&owner).len(), left, "{accept:?}");
        // From a closed epoch nothing is adopted, though all of it is believed.
        let report = owner.try_back_up(&some(1)).unwrap();
        assert!(report.summary.new_bytes > 30_000, "{accept:?}: {:?}", report.summary);
        assert_eq!(owner.read(report.snapshot.unwrap()).unwrap(), some(1));
        assert_eq!(owner.open().registry().trust().epoch(1).unwrap().closed, close);
    }
}

#[test]
fn nobody_revokes_himself_the_last_owner_or_without_being_one() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 54);
    let writer = client_with(&owner, Role::Writer, "writer", "", &[]);
    let second = client_with(&owner, Role::Owner, "second", "", &[]);
    let own = key(&owner);
    let refused = revoke(&owner, own, &Accept::Nothing, false).err().unwrap();
    assert_eq!(refused.class(), ErrorClass::Usage);
    let refused = revoke(&writer, own, &Accept::Nothing, false).err().unwrap();
    assert_eq!(refused.class(), ErrorClass::Forbidden);
    let unknown = revoke(&owner, KeyId::new([9; 32]), &Accept::Nothing, false).err().unwrap();
    assert_eq!(unknown.class(), ErrorClass::NotFound);
    // A stolen owner's key can be ended by another owner.
    let id = owner.back_up(&some(1));
    revoke(&second, own, &Accept::Everything, false).unwrap();
    assert_eq!(owner.try_open().map(drop).unwrap_err().class(), ErrorClass::WrongKey);
    assert_eq!(second.read(id).unwrap(), some(1));
}

#[test]
fn two_owners_at_once_lose_neither_the_epoch_nor_the_revocation() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 55);
    let second = client_with(&owner, Role::Owner, "second", "", &[]);
    let victim = client_with(&owner, Role::Writer, "victim", "", &[]);
    let (one, two) = (owner.open(), second.open());
    let gone = key(&victim);
    std::thread::scope(|scope| {
        scope.spawn(|| rotate(&one).unwrap());
        scope.spawn(|| {
            let plan = RevocationPlan::new(&two, &gone, &Accept::Nothing, &BTreeSet::new(), false).unwrap();
            plan.run(&two).unwrap()
        });
    });
    let repository = owner.open();
    let trust = repository.registry().trust();
    assert_eq!(trust.key(&gone).unwrap().standing(), Standing::Revoked);
    assert!(trust.epochs.len() >= 2);
    assert!(trust.current_epoch().unwrap().grant(&gone).is_none());
    assert_eq!(victim.try_open().map(drop).unwrap_err().class(), ErrorClass::WrongKey);
    for client in [&owner, &second] {
        let id = client.back_up(&some(4));
        assert_eq!(owner.read(id).unwrap(), some(4));
    }
}

/// New keys, and what is sealed with them, come while others work: a backup that runs sees the condemnations of the
/// new epoch, and who opened the repository before reads what is stored after.
#[test]
fn who_is_at_work_while_keys_are_rotated_goes_on() {
    let store = Arc::new(MemoryStore::new());
    let owner = Client::init(store.clone(), 59);
    let writer = client_with(&owner, Role::Writer, "writer", "", &["db1"]);
    let content = some(1);
    let first = writer.back_up(&content);
    let (before, stale_writer) = (owner.open(), writer.open());
    let once = AtomicBool::new(false);
    let other = owner.clone();
    let hook = move |_, operation, name: &str| {
        if operation == Operation::List && name == "packs/" && !once.swap(true, Ordering::SeqCst) {
            let repository = other.open();
            assert_eq!(rotate(&repository).unwrap(), 2);
            let repository = other.open();
            forget(&repository, &Snapshots::load(&repository).unwrap(), &[first]).unwrap();
            let pruned = prune(&repository, &PruneOptions::new("test").within(0)).unwrap();
            assert!(pruned.condemned_packs > 0, "{pruned:?}");
        }
        None
    };
    let through = writer.through(Arc::new(FaultStore::with_plan(store.clone(), hook)));
    let report = through.try_back_up(&content).unwrap();
    let second = report.snapshot.unwrap();
    for _ in 0..2 {
        prune(&owner.open(), &PruneOptions::new("test").within(0)).unwrap();
    }
    assert_eq!(owner.read(second).unwrap(), content);
    // It sealed in its own epoch, and nothing that others seal in the new one is closed to who came before.
    let new = some(2);
    let third = writer.back_up(&new);
    assert_eq!(before.keyring().current().unwrap().number, 1);
    for (id, content) in [(second, content), (third, new)] {
        assert_eq!(crate::support::world::read_snapshot(&before, id).unwrap(), content);
    }
    assert_eq!(stale_writer.snapshots().unwrap().found.len(), 2);
    // An epoch that there is not is still none.
    assert!(before.keyring().epoch(3).is_err() && before.keyring().epoch(0).is_err());
}

/// What is of an epoch that only a lost version of the registry knows is no rubbish: it stops who deletes.
#[test]
fn a_registry_that_was_set_back_stops_a_prune() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 8);
    let content = crate::support::world::content([("a", crate::support::world::noise(1, 20_000))]);
    owner.back_up(&content);
    let versions = || -> Vec<String> {
        let listed = ["trust/", "copies/trust/"].map(|area| owner.store.list(area).unwrap());
        listed.into_iter().flatten().map(|object| object.name).collect()
    };
    let before = versions();
    chronolith::ops::rotation::rotate(&owner.open()).unwrap();
    let id = owner.back_up(&content);
    let newest: Vec<String> = versions().into_iter().filter(|name| !before.contains(name)).collect();
    let whole: Vec<Vec<u8>> = newest.iter().map(|name| owner.store.get(name, u64::MAX).unwrap()).collect();
    assert_eq!(newest.len(), 2);
    let run = || {
        let options = chronolith::ops::prune::PruneOptions::new("test").within(0);
        chronolith::ops::prune::prune(&owner.open(), &options)
    };
    for rotten in [false, true] {
        for name in &newest {
            match rotten {
                true => owner.store.replace(name, b"rotten").unwrap(),
                false => owner.store.delete(name).unwrap(),
            }
        }
        let error = run().unwrap_err().to_string();
        assert!(error.contains("registry of trust"), "{error}");
        for (name, bytes) in newest.iter().zip(&whole) {
            owner.store.replace(name, bytes).unwrap();
        }
        run().unwrap();
        assert_eq!(owner.read(id).unwrap(), content);
    }
}
