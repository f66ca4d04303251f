//! Damage that the matrix does not reach: every bit of the configuration, all index runs at once, rubbish under good names.

use crate::support::world::{Client, Content, content, copy_of, dump, noise};
use chronolith::base::SnapshotId;
use chronolith::storage::{MemoryStore, Store};
use std::sync::Arc;

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

/// Names of objects under a prefix.
fn names(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.list(prefix).unwrap().into_iter().map(|object| object.name).collect()
}

fn whole(client: &Client, (id, content): &(SnapshotId, Content), what: &str) {
    assert_eq!(client.read(*id).unwrap_or_else(|error| panic!("{what}: {error}")), *content, "{what}");
}

/// Everything works as if nothing had happened.
fn nothing_is_lost(scene: &Scene, store: MemoryStore, what: &str) {
    let client = scene.owner.through(Arc::new(store));
    whole(&client, &scene.first, what);
    whole(&client, &scene.second, what);
    assert_eq!(client.snapshots().len(), 2, "{what}");
    let again = client.back_up(&scene.first.1);
    whole(&client, &(again, scene.first.1.clone()), what);
}

#[test]
fn any_flipped_bit_of_the_configuration_leaves_the_other_copy() {
    let scene = scene();
    let length = read(&scene.owner.store, "chronolith").len();
    for at in 0..length {
        let store = Arc::new(copy_of(&scene.owner.store));
        let mut bytes = read(store.as_ref(), "chronolith");
        bytes[at] ^= 1;
        store.replace("chronolith", &bytes).unwrap();
        let client = scene.owner.through(store);
        client.try_open().unwrap_or_else(|error| panic!("byte {at} of the configuration: {error}"));
    }
}

#[test]
fn without_any_index_run_packs_make_up_for_them() {
    let scene = scene();
    let store = copy_of(&scene.owner.store);
    names(&store, "index/").iter().for_each(|name| store.delete(name).unwrap());
    nothing_is_lost(&scene, store, "every index run");
}

#[test]
fn an_index_run_that_names_nothing_readable_harms_nobody() {
    let scene = scene();
    let store = copy_of(&scene.owner.store);
    // Rubbish under a good name, an object of another kind, one that is far too long.
    for (byte, length) in [(1u8, 10usize), (2, 100_000)] {
        let name = format!("index/00000001/{}", format!("{byte:02x}").repeat(32));
        store.put(&name, &noise(1, length)).unwrap();
    }
    let snapshot = names(&store, "snapshots/").remove(0);
    let bytes = read(&store, &snapshot);
    store.put(&format!("index/00000001/{}", blake3::hash(&bytes)), &bytes).unwrap();
    nothing_is_lost(&scene, store, "rubbish in index/");
}
