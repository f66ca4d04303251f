//! Forgetting through the library: who may, what is looked at before, what others see afterwards.

use crate::support::world::{Client, content};
use crate::support::{Fault, FaultStore};
use chronolith::base::{Classify, ErrorClass, ObjectId, SnapshotId, Timestamp};
use chronolith::format::ObjectKind;
use chronolith::format::annotation::{Annotation, AnnotationKind};
use chronolith::format::catalog::{Catalog, CatalogEntry, CatalogScope};
use chronolith::format::cbor::Extra;
use chronolith::format::place::Place;
use chronolith::format::sets::IdSet;
use chronolith::format::trust::Act;
use chronolith::ops::OpsError;
use chronolith::ops::Snapshots;
use chronolith::ops::forget::{by_name, by_policy, forget};
use chronolith::ops::retention::{Amount, Policy};
use chronolith::storage::{MemoryStore, Operation};
use jiff::tz::TimeZone;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn backed_up(count: u8) -> (Client, Vec<SnapshotId>) {
    let owner = Client::init(Arc::new(MemoryStore::new()), 31);
    let ids = (0..count).map(|n| owner.back_up(&content([("a", vec![n; 5000])]))).collect();
    (owner, ids)
}

fn load(client: &Client) -> Snapshots {
    Snapshots::load_all(&client.open()).unwrap()
}

fn listed(client: &Client) -> Vec<SnapshotId> {
    load(client).iter().map(|view| view.id).collect()
}

fn said(kind: AnnotationKind, id: SnapshotId) -> Annotation {
    Annotation { subjects: IdSet::from_iter([id]), ..Annotation::new(kind, Timestamp::from_nanoseconds(1)) }
}

fn last(count: u32) -> Policy {
    Policy { last: vec![Amount::Count(count)], ..Policy::default() }
}

fn run(client: &Client, policy: &Policy) -> Result<usize, OpsError> {
    let repository = client.open();
    let snapshots = Snapshots::load_all(&repository)?;
    let plan = by_policy(&repository, &snapshots, policy, &TimeZone::UTC, |_| true)?;
    let chosen: Vec<SnapshotId> = plan.forgotten().collect();
    forget(&repository, &snapshots, &chosen)?;
    Ok(chosen.len())
}

#[test]
fn pins_hold_against_policies_names_and_what_was_forgotten_before() {
    let (owner, ids) = backed_up(4);
    let repository = owner.open();
    let pin = said(AnnotationKind::Pin, ids[0]);
    let mark = Act::Mark { host: "db1", label: "app" };
    repository.annotate(&pin, mark).unwrap();
    assert_eq!(run(&owner, &last(1)).unwrap(), 2);
    assert_eq!(listed(&owner), [ids[0], ids[3]]);
    let refused = by_name(&load(&owner), &[ids[0]], false).unwrap_err();
    assert!(refused.to_string().contains("pinned"), "{refused}");
    // A pin that comes after a forgetting brings back, by [CONCURRENCY-24].
    repository.annotate(&said(AnnotationKind::Pin, ids[1]), mark).unwrap();
    assert_eq!(listed(&owner), [ids[0], ids[1], ids[3]]);
}

#[test]
fn nothing_is_forgotten_while_something_unreadable_might_protect_it() {
    let (owner, ids) = backed_up(3);
    let repository = owner.open();
    let mark = Act::Mark { host: "db1", label: "app" };
    // A kind of annotation that only a newer program knows.
    let mut payload = said(AnnotationKind::Pin, ids[0]).encode().unwrap();
    payload[2] = 0x0A;
    let id = repository.put_object("annotations/00000001", ObjectKind::Annotation, mark, &payload).unwrap();
    let error = run(&owner, &last(1)).unwrap_err();
    assert!(matches!(&error, OpsError::Stopped { cure, .. } if cure.contains("newer")), "{error}");
    assert_eq!(listed(&owner), ids);
    owner.store.delete(&format!("annotations/00000001/{id}")).unwrap();
    // A pin that rotted.
    let pin = repository.annotate(&said(AnnotationKind::Pin, ids[0]), mark).unwrap();
    let name = format!("annotations/00000001/{pin}");
    let mut bytes = owner.store.get(&name, u64::MAX).unwrap();
    bytes[100] ^= 1;
    owner.store.replace(&name, &bytes).unwrap();
    let error = run(&owner, &last(1)).unwrap_err();
    assert!(error.to_string().contains(&pin.to_string()), "{error}");
    assert_eq!(listed(&owner), ids);
    owner.store.delete(&name).unwrap();
    assert_eq!(run(&owner, &last(1)).unwrap(), 2);
    assert_eq!(listed(&owner), [ids[2]]);
}

#[test]
fn a_root_that_a_catalogue_remembers_must_not_be_gone_unnoticed() {
    let (owner, ids) = backed_up(3);
    let repository = owner.open();
    let entry = |id: SnapshotId, number| CatalogEntry {
        place: Place::new(ObjectKind::Snapshot, "00000001", ObjectId::from(id)).unwrap(),
        number,
        first_seen: Timestamp::from_nanoseconds(5),
        length: 10,
        original: vec![1],
        extra: Extra::new(),
    };
    let mut entries = vec![entry(ids[0], 1), entry(ids[1], 2)];
    entries.sort_by(|a, b| a.place.cmp(&b.place));
    let catalogue = Catalog {
        sequence: 1,
        predecessor: None,
        created: Timestamp::from_nanoseconds(5),
        scope: CatalogScope::Roots { first: 1, last: 1 },
        entries,
        ends: Vec::new(),
        parts: Vec::new(),
        replaces: IdSet::default(),
        program: "test".to_owned(),
        next_number: 3,
        extra: Extra::new(),
    };
    let payload = catalogue.encode().unwrap();
    let id = repository.put_object("catalog", ObjectKind::Catalog, Act::Catalog, &payload).unwrap();
    // One that was forgotten first may be gone.
    forget(&repository, &load(&owner), &[ids[0]]).unwrap();
    owner.store.delete(&format!("snapshots/00000001/{}", ids[0])).unwrap();
    let kept = owner.store.get(&format!("snapshots/00000001/{}", ids[1]), u64::MAX).unwrap();
    owner.store.delete(&format!("snapshots/00000001/{}", ids[1])).unwrap();
    let error = run(&owner, &last(1)).unwrap_err();
    assert!(error.to_string().contains(&ids[1].to_string()), "{error}");
    assert!(!error.to_string().contains(&ids[0].to_string()), "{error}");
    assert_eq!(error.class(), ErrorClass::Corrupt);
    // Brought back, under whatever generation.
    owner.store.put(&format!("snapshots/00000002/{}", ids[1]), &kept).unwrap();
    assert_eq!(run(&owner, &last(1)).unwrap(), 1);
    // A catalogue that cannot be read might remember more.
    let name = format!("catalog/{id}");
    let bytes = owner.store.get(&name, u64::MAX).unwrap();
    owner.store.replace(&name, &bytes[..bytes.len() - 1]).unwrap();
    owner.store.replace(&format!("copies/{name}"), &bytes[..bytes.len() - 1]).unwrap();
    run(&owner, &last(1)).unwrap_err();
    owner.store.replace(&format!("copies/{name}"), &bytes).unwrap();
    assert_eq!(run(&owner, &last(1)).unwrap(), 0);
}

/// A flipped bit on the way, not on the disk: the annotation is whole when it is looked at again, and a pin is not
/// taken for something that its signer put there broken.
#[test]
fn a_pin_that_is_read_wrong_once_holds() {
    let (owner, ids) = backed_up(2);
    let act = Act::Mark { host: "db1", label: "app" };
    owner.open().annotate(&said(AnnotationKind::Pin, ids[0]), act).unwrap();
    let once = AtomicBool::new(false);
    let plan = move |_, operation, name: &str| {
        let pin = operation == Operation::Get && name.starts_with("annotations/");
        (pin && !once.swap(true, Ordering::SeqCst)).then_some(Fault::Flip)
    };
    let faulty = Arc::new(FaultStore::with_plan(owner.store.clone(), plan));
    let client = owner.through(faulty.clone());
    let error = by_name(&load(&client), &[ids[0]], true).unwrap_err();
    assert!(faulty.fired() && error.to_string().contains("pinned"), "{error}");
}
