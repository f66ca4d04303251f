//! Reads that give back a wrong bit: a command may fail then, and never writes down what it read wrong.

use crate::deeds::{COMMANDS, Scene, Step, is_sound, scene};
use crate::support::world::{Client, copy_of};
use crate::support::{Fault, FaultStore};
use chronolith::ops::catalogue::gather_now;
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::repair::{IndexOptions, IndexPlan};
use chronolith::storage::{Operation, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where objects are named by the hash of their bytes.
const HASHED: [&str; 8] =
    ["packs/", "index/", "snapshots/", "annotations/", "catalog/", "condemned/", "damaged/", "trust/"];

fn are_what_they_are_named(store: &dyn Store, what: &str) {
    let copies = HASHED.iter().map(|area| format!("copies/{area}"));
    for area in HASHED.iter().map(ToString::to_string).chain(copies) {
        for object in store.list(&area).unwrap() {
            let bytes = store.get(&object.name, u64::MAX).unwrap();
            let hash = blake3::hash(&bytes).to_hex();
            assert!(object.name.ends_with(hash.as_str()), "{what}: {} is something else", object.name);
        }
    }
}

/// One bit is wrong in the Nth read, for every N.
fn with_a_wrong_bit(scene: &Scene, before: &dyn Store, name: &str, command: Step) {
    for number in 1.. {
        let store = Arc::new(copy_of(before));
        let reads = AtomicU64::new(0);
        let plan = move |_, operation, _: &str| {
            let is_read = matches!(operation, Operation::Get | Operation::GetRange);
            let wrong = is_read && reads.fetch_add(1, Ordering::SeqCst) + 1 == number;
            wrong.then_some(Fault::Flip)
        };
        let faulty = Arc::new(FaultStore::with_plan(store.clone(), plan));
        let what = format!("{name}, a bit wrong in read {number}");
        let done = command(scene, &scene.owner.through(faulty.clone()));
        if !faulty.fired() {
            done.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(number > 5, "{name} reads nothing");
            return;
        }
        are_what_they_are_named(store.as_ref(), &what);
        let client = scene.owner.through(store.clone());
        is_sound(scene, &client, true, &what);
        command(scene, &client).unwrap_or_else(|error| panic!("{what}, then once more: {error}"));
        is_sound(scene, &client, false, &format!("{what}, then once more"));
        are_what_they_are_named(store.as_ref(), &format!("{what}, then once more"));
    }
}

#[test]
fn what_is_read_wrong_is_never_written_down() {
    let scene = scene();
    for (name, command) in COMMANDS {
        with_a_wrong_bit(&scene, scene.owner.store.as_ref(), name, command);
    }
}

/// The same after a prune has condemned what was forgotten: then a snapshot that is brought back moves, and packs are
/// stored again.
#[test]
fn what_was_condemned_comes_back_as_it_was_or_not_at_all() {
    let scene = scene();
    let store = copy_of(scene.owner.store.as_ref());
    let day = 24 * 3600;
    let condemning = scene.owner.through(Arc::new(copy_of(&store)));
    prune(&condemning.open(), &PruneOptions::new("test").within(day)).unwrap();
    let undelete = COMMANDS.iter().find(|(name, _)| *name == "undelete").unwrap().1;
    with_a_wrong_bit(&scene, condemning.store.as_ref(), "undelete of what is condemned", undelete);
    // What comes back is there whole, too.
    undelete(&scene, &condemning).unwrap();
    assert_eq!(condemning.read(scene.forgotten.0).unwrap(), scene.forgotten.1);
}

/// What makes something new of what is there.
#[test]
fn what_is_listed_or_described_anew_is_what_there_is() {
    let scene = scene();
    let gather: Step = |_, client: &Client| {
        let repository = client.try_open()?;
        gather_now(&repository).map(drop)
    };
    let describe: Step = |_, client| {
        IndexPlan::new(&client.try_open()?, IndexOptions { copy: true, program: "test".to_owned() })?
            .run()
            .map(drop)
    };
    for (name, command) in [("a catalogue", gather), ("repair index", describe)] {
        with_a_wrong_bit(&scene, scene.owner.store.as_ref(), name, command);
    }
}
