//! What there is to know of a slot, without receiving anything.

use crate::base::Observer;
use crate::postgres::error::PostgresError;
use crate::postgres::replication::{Endpoint, Identity, Replication, Slot, SlotName};
use std::sync::Arc;

/// A server and one of its slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotStatus {
    /// The server.
    pub server: Identity,
    /// The slot; `None` where there is none.
    pub slot: Option<Slot>,
}

impl SlotStatus {
    /// Returns how many bytes of its log the server keeps for the slot.
    pub fn kept_bytes(&self) -> Option<u64> {
        let (from, _) = self.slot?.restart?;
        Some(self.server.position.0.saturating_sub(from.0))
    }
}

/// Asks a server for a slot.
///
/// # Errors
///
/// When it cannot be reached, or refuses.
pub fn slot_status(
    endpoint: &Endpoint,
    slot: &SlotName,
    observer: Arc<dyn Observer>,
) -> Result<SlotStatus, PostgresError> {
    const DOING: &str = "ask for a replication slot of";
    let at = |error: crate::postgres::replication::ReplicationError| error.at(DOING, endpoint.place());
    let mut replication = Replication::connect(endpoint, observer).map_err(at)?;
    let server = replication.identify().map_err(at)?;
    Ok(SlotStatus { server, slot: replication.slot(slot).map_err(at)? })
}

/// Removes a slot; the server keeps no log for it any more.
///
/// # Errors
///
/// When it cannot be reached, or refuses: there is no such slot, or somebody uses it.
pub fn drop_slot(
    endpoint: &Endpoint,
    slot: &SlotName,
    observer: Arc<dyn Observer>,
) -> Result<(), PostgresError> {
    const DOING: &str = "remove a replication slot of";
    let at = |error: crate::postgres::replication::ReplicationError| error.at(DOING, endpoint.place());
    let mut replication = Replication::connect(endpoint, observer).map_err(at)?;
    replication.drop_slot(slot).map_err(at)
}
