//! The behaviour suite of stores: what every store and every decorator must do, then what is
//! particular to each.

#[path = "../support/mod.rs"]
mod support;

mod behaviour;
mod decorators;
mod full_disk;
mod local;
mod mirrored;

use behaviour::behaves;
use chronolith::base::Quiet;
use chronolith::storage::{LocalStore, MemoryStore, MirroredStore, RetryPolicy, RetryStore, Store};
use std::sync::Arc;
use support::{CountingStore, Failure, Fault, FaultStore, LateListStore, NoSleep, SeededEntropy};
use tempfile::TempDir;

/// A store under test with the directory it lives in.
pub struct Subject {
    pub store: Arc<dyn Store>,
    _folder: Option<TempDir>,
}

fn in_memory(wrap: impl FnOnce(MemoryStore) -> Arc<dyn Store>) -> Subject {
    Subject { store: wrap(MemoryStore::new()), _folder: None }
}

fn on_disk(wrap: impl FnOnce(LocalStore) -> Arc<dyn Store>) -> Subject {
    let folder = TempDir::new().unwrap();
    let store = LocalStore::create(folder.path().join("deep/repository")).unwrap();
    Subject { store: wrap(store), _folder: Some(folder) }
}

fn retrying<S: Store>(inner: S) -> RetryStore<S> {
    let policy = RetryPolicy { attempts: 4, ..RetryPolicy::default() };
    RetryStore::new(inner, policy, Arc::new(NoSleep::default()), Arc::new(SeededEntropy::new(7))).unwrap()
}

fn joined(stores: Vec<Arc<dyn Store>>, quorum: Option<usize>) -> MirroredStore {
    MirroredStore::new(stores, quorum, Arc::new(Quiet)).unwrap()
}

/// Two requests of three fail, before or after their effect.
fn flaky<S: Store>(inner: S) -> FaultStore<S> {
    FaultStore::with_plan(inner, |number, _, _| match number % 3 {
        0 => None,
        1 => Some(Fault::Before(Failure::Transient)),
        _ => Some(Fault::After(Failure::Transient)),
    })
}

behaves!(local_disk, on_disk(|store| Arc::new(store)));
behaves!(memory, in_memory(|store| Arc::new(store)));
behaves!(boxed, in_memory(|store| Arc::new(Box::new(store) as Box<dyn Store>)));
behaves!(retry, in_memory(|store| Arc::new(retrying(store))));
behaves!(
    doubled,
    in_memory(|store| Arc::new(FaultStore::with_plan(store, |_, operation, _| {
        // A doubled put tells its caller that the object existed, so that no writer hears of a win.
        (operation != chronolith::storage::Operation::Put).then_some(Fault::Twice)
    })))
);
behaves!(
    in_two_places,
    in_memory(|store| Arc::new(joined(vec![Arc::new(store), Arc::new(MemoryStore::new())], None)))
);
behaves!(
    on_two_disks,
    on_disk(|store| {
        let other = LocalStore::create(std::path::Path::new(&store.location()).join("../other")).unwrap();
        Arc::new(joined(vec![Arc::new(store), Arc::new(other)], None))
    })
);
behaves!(counting, on_disk(|store| Arc::new(CountingStore::new(store))));
behaves!(late_list, in_memory(|store| Arc::new(LateListStore::new(store, 0))));
