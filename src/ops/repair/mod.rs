//! Repair: never makes it worse, and says what was lost, by name.
//!
//! - `index`: runs of the index from packs alone
//! - `packs`: what is readable in damaged packs moves to new ones
//! - `snapshots`: copies of hurt snapshots that hold what is left
//!
//! Each is decided by a plan that can be shown, then run. Nothing that was there is changed or deleted
//! before what takes its place is durable; a repair that is killed leaves objects that nothing refers to.

mod index;
mod packs;
mod snapshots;

pub use index::{IndexFate, IndexOptions, IndexPlan, IndexRepaired, PlannedPack};
pub use packs::{DamagedPack, PacksOptions, PacksPlan, PacksRepaired};
pub use snapshots::{
    Hurt, Lost, REPAIRED_FROM, RepairedSnapshot, SnapshotsOptions, SnapshotsPlan, repaired_from,
};
