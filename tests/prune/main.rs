//! Deletion beside writers: sessions, condemnations, and what must survive whoever sweeps when.

mod hostile;
mod interleavings;
mod log_catalogues;
mod logs;
mod merges;
mod model;
mod repack;
mod reseal;
mod runs;
mod sessions;
mod sweep;
mod words;

#[allow(dead_code, reason = "not all that a thief can make is of use here")]
#[path = "../trust/forge.rs"]
mod forge;

#[path = "../support/mod.rs"]
mod support;

use chronolith::base::{CondemnedId, PackId, Timestamp};
use chronolith::format::ObjectKind;
use chronolith::format::cbor::Extra;
use chronolith::format::condemned::Condemned;
use chronolith::format::sets::IdSet;
use chronolith::format::trust::Act;
use chronolith::storage::{MemoryStore, Operation, Store};
use std::sync::Arc;
use support::FaultStore;
use support::world::Client;

/// The packs that a store holds.
pub fn packs(store: &dyn Store) -> Vec<PackId> {
    let id = |name: &str| name.rsplit('/').next().unwrap().parse().unwrap();
    store.list("packs/").unwrap().iter().map(|object| id(&object.name)).collect()
}

/// Condemns packs as a sweeper with the owner's key would, whether they are needed or not.
pub fn condemn(owner: &Client, dead: &[PackId]) -> CondemnedId {
    let condemned = Condemned {
        created: Timestamp::from_nanoseconds(1),
        store_time: Timestamp::from_nanoseconds(1),
        grace_seconds: 0,
        session: [9; 32],
        sessions: Vec::new(),
        dead: dead.iter().copied().collect(),
        superfluous: IdSet::default(),
        copies: IdSet::default(),
        tombstones: IdSet::default(),
        objects: Vec::new(),
        absorbs: IdSet::default(),
        bytes: 0,
        program: "test".to_owned(),
        catalogue: None,
        extra: Extra::new(),
    };
    let payload = condemned.encode().unwrap();
    let put = owner.open().put_object("condemned", ObjectKind::Condemned, Act::Condemned, &payload);
    CondemnedId::from(put.unwrap())
}

/// Deletes packs, as the last step of a sweep.
pub fn delete(store: &dyn Store, packs: &[PackId]) {
    for pack in packs {
        let id = pack.to_string();
        store.delete(&format!("packs/{}/{id}", &id[..2])).unwrap();
    }
}

/// A store that does something before each request.
pub fn hooked(
    store: &Arc<MemoryStore>,
    hook: impl Fn(Operation, &str) + Send + Sync + 'static,
) -> Arc<FaultStore<Arc<MemoryStore>>> {
    let plan = move |_, operation, name: &str| {
        hook(operation, name);
        None
    };
    Arc::new(FaultStore::with_plan(store.clone(), plan))
}
