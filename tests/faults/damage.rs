//! Objects rot: {deleted, cut short, a bit flipped, swapped with another of its kind} x every kind of
//! object x {backup, restore, list}. Each cell has its outcome; none is silence.

use crate::support::world::{Client, Content, content, copy_of, dump, noise};
use chronolith::base::SnapshotId;
use chronolith::ops::Snapshots;
use chronolith::storage::{MemoryStore, Store};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Deleted,
    CutShort,
    Flipped,
    Swapped,
}

const HARMS: [Harm; 4] = [Harm::Deleted, Harm::CutShort, Harm::Flipped, Harm::Swapped];

struct Scene {
    owner: Client,
    first: (SnapshotId, Content),
    second: (SnapshotId, Content),
}

/// Two snapshots that share nothing, of two labels.
fn scene() -> Scene {
    let owner = Client::init(Arc::new(MemoryStore::new()), 3);
    let first = content([("first.sql", dump(1, 3000, 7))]);
    let second = content([("second.bin", noise(2, 50_000))]);
    let first_id = owner.back_up(&first);
    let second_id = owner.back_up(&second);
    Scene { owner, first: (first_id, first), second: (second_id, second) }
}

fn read(store: &dyn Store, name: &str) -> Vec<u8> {
    store.get(name, u64::MAX).unwrap()
}

fn put_over(store: &dyn Store, name: &str, bytes: &[u8]) {
    store.delete(name).unwrap();
    store.put(name, bytes).unwrap();
}

fn harm(store: &dyn Store, name: &str, other: Option<&str>, harm: Harm) {
    let mut bytes = read(store, name);
    match harm {
        Harm::Deleted => store.delete(name).unwrap(),
        Harm::CutShort => put_over(store, name, &bytes[..bytes.len() * 2 / 3]),
        Harm::Flipped => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            put_over(store, name, &bytes);
        }
        Harm::Swapped => {
            let Some(other) = other else { return };
            put_over(store, name, &read(store, other));
            put_over(store, other, &bytes);
        }
    }
}

/// Names of objects under a prefix, oldest first.
fn names(store: &dyn Store, prefix: &str) -> Vec<String> {
    let mut objects = store.list(prefix).unwrap();
    objects.sort_by_key(|object| object.modified);
    objects.into_iter().map(|object| object.name).collect()
}

/// The content packs or metadata packs, oldest first.
fn packs(store: &dyn Store, kind: u8) -> Vec<String> {
    names(store, "packs/").into_iter().filter(|name| read(store, name)[4] == kind).collect()
}

/// Runs `test` on a copy of the scene in which the first (oldest) of `pick`'s objects was harmed.
fn each(pick: impl Fn(&dyn Store) -> Vec<String>, test: impl Fn(&Scene, &Client, Harm, &str)) {
    let scene = scene();
    for kind in HARMS {
        let store = Arc::new(copy_of(&scene.owner.store));
        let picked = pick(store.as_ref());
        harm(store.as_ref(), &picked[0], picked.get(1).map(String::as_str), kind);
        let client = scene.owner.through(store);
        test(&scene, &client, kind, &picked[0]);
    }
}

fn whole(client: &Client, (id, content): &(SnapshotId, Content), what: &str) {
    assert_eq!(client.read(*id).unwrap_or_else(|error| panic!("{what}: {error}")), *content, "{what}");
}

/// After the harm, everything works as if nothing had happened.
fn nothing_is_lost(scene: &Scene, client: &Client, harm: Harm, name: &str) {
    let what = format!("{harm:?} {name}");
    whole(client, &scene.first, &what);
    whole(client, &scene.second, &what);
    assert_eq!(client.snapshots().len(), 2, "{what}");
    let again = client.back_up(&scene.first.1);
    whole(client, &(again, scene.first.1.clone()), &what);
}

#[test]
fn configuration_registry_and_slots_have_second_copies() {
    for object in ["chronolith", "copies/chronolith"] {
        each(|_| vec![object.to_owned()], nothing_is_lost);
    }
    for prefix in ["trust/", "copies/trust/", "keys/", "copies/keys/"] {
        each(|store| names(store, prefix), nothing_is_lost);
    }
}

#[test]
fn any_flipped_bit_of_the_configuration_leaves_the_other_copy() {
    let scene = scene();
    let length = read(&scene.owner.store, "chronolith").len();
    for at in 0..length {
        let store = Arc::new(copy_of(&scene.owner.store));
        let mut bytes = read(store.as_ref(), "chronolith");
        bytes[at] ^= 1;
        put_over(store.as_ref(), "chronolith", &bytes);
        let client = scene.owner.through(store);
        client.try_open().unwrap_or_else(|error| panic!("byte {at} of the configuration: {error}"));
    }
}

#[test]
fn an_index_run_that_is_lost_is_made_up_for_by_packs() {
    each(|store| names(store, "index/"), nothing_is_lost);
    // All of them at once.
    let scene = scene();
    let store = copy_of(&scene.owner.store);
    names(&store, "index/").iter().for_each(|name| store.delete(name).unwrap());
    nothing_is_lost(&scene, &scene.owner.through(Arc::new(store)), Harm::Deleted, "every index run");
}

#[test]
fn a_snapshot_that_is_lost_hides_no_other() {
    each(
        |store| names(store, "snapshots/"),
        |scene, client, harm, name| {
            let what = format!("{harm:?} {name}");
            let snapshots = Snapshots::load(&client.open()).unwrap();
            let found: Vec<_> = snapshots.iter().map(|view| view.id).collect();
            match harm {
                Harm::Swapped => assert!(found.is_empty(), "{what}: both are refused"),
                _ => {
                    assert_eq!(found, [scene.second.0], "{what}");
                    whole(client, &scene.second, &what);
                }
            }
            let refused = client.open().snapshots().unwrap().refused;
            assert_eq!(refused.is_empty(), harm == Harm::Deleted, "{what}: {refused:?}");
            assert!(refused.iter().all(|(object, error)| error.to_string().contains(object)), "{refused:?}");
            // What the lost one held is still known; the next backup is whole.
            let again = client.back_up(&scene.first.1);
            whole(client, &(again, scene.first.1.clone()), &what);
        },
    );
}

#[test]
fn a_pack_that_is_lost_takes_only_its_own_content_with_it() {
    for kind in [3, 4] {
        each(
            |store| packs(store, kind),
            |scene, client, harm, name| {
                let what = format!("{harm:?} {name}");
                let error = client.read(scene.first.0).expect_err(&what);
                let text = format!("{error} {error:?}");
                assert!(text.contains(name), "{what}: the error does not name the pack: {text}");
                if harm != Harm::Swapped {
                    whole(client, &scene.second, &what);
                }
                assert_eq!(client.snapshots().len(), 2, "{what}");
                // Gone or cut short, it is not relied upon again. A flipped bit shows only to a reader:
                // `check` reports it, and from then on nobody adopts from that pack (`healing`).
                let again = client.back_up(&scene.first.1);
                if harm != Harm::Flipped {
                    whole(client, &(again, scene.first.1.clone()), &what);
                }
            },
        );
    }
}

#[test]
fn an_index_run_that_names_nothing_readable_harms_nobody() {
    let scene = scene();
    let store = copy_of(&scene.owner.store);
    // Rubbish under a good name, an object of another kind, one that is far too long.
    for (byte, length) in [(1u8, 10usize), (2, 100_000)] {
        store
            .put(&format!("index/00000001/{}", format!("{byte:02x}").repeat(32)), &noise(1, length))
            .unwrap();
    }
    let snapshot = names(&store, "snapshots/").remove(0);
    let bytes = read(&store, &snapshot);
    store.put(&format!("index/00000001/{}", blake3::hash(&bytes)), &bytes).unwrap();
    nothing_is_lost(&scene, &scene.owner.through(Arc::new(store)), Harm::Swapped, "rubbish in index/");
}
