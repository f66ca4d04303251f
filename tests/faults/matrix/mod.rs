//! The damage matrix: every kind of object that a repository holds, harmed in every way, and what every command
//! makes of it. `table.txt` states the outcome of each cell; what it leaves out fails.
//!
//! Whatever the outcome, these hold of every cell: nothing panics; what is restored is what was committed, byte by
//! byte, or an error; what fails has changed nothing; nothing that is needed is deleted: with the object back in its
//! place everything that was committed is there, and a check finds nothing.

mod harm;
mod scene;
mod table;
mod verbs;

use self::scene::Scene;
use self::verbs::{Control, Found, Ground, VERBS, control};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A row: a kind, a harm, and how each command ended.
struct Row {
    kind: &'static str,
    harm: &'static str,
    found: Vec<Found>,
}

/// Runs all rows on all cores.
fn run(scene: &Scene, control: &Control) -> Vec<Row> {
    let jobs: Vec<_> =
        scene.kinds.iter().flat_map(|kind| kind.harms.iter().map(move |harm| (kind, *harm))).collect();
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((kind, harm)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ground = Ground::harmed(scene, control, kind, *harm);
            let found = catch_unwind(AssertUnwindSafe(|| ground.walk()));
            let found = found.unwrap_or_else(|_| vec![Err("it panicked".to_owned()); VERBS.len()]);
            let row = Row { kind: kind.name, harm: harm.word(), found };
            rows.lock().unwrap().push((kind.name, *harm, row));
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let order = |name: &str| scene.kinds.iter().position(|kind| kind.name == name);
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|(kind, harm, _)| (order(kind), *harm));
    rows.into_iter().map(|(_, _, row)| row).collect()
}

#[test]
fn every_cell_has_the_outcome_that_the_table_states() {
    let scene = scene::furnish();
    let nothing = Control::default();
    let sound = Ground::sound(&scene, &nothing).walk();
    assert_eq!(sound.iter().filter(|found| found.is_err()).count(), 0, "{sound:?}");
    let control = control(&scene);
    let rows = run(&scene, &control);
    let complaints = table::compare(&rows);
    assert!(complaints.is_empty(), "{complaints}");
}
