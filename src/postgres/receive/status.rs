//! What there is to know of a slot, without receiving anything.

use crate::base::Observer;
use crate::postgres::error::PostgresError;
use crate::postgres::replication::{Endpoint, Identity, Replication, Slot, SlotName};
use std::sync::Arc;

/// How to see which slots a server has: the replication protocol does not list them.
pub const LISTS_SLOTS: &str = "SELECT slot_name, active FROM pg_replication_slots, in an ordinary session of that server, \
     shows which slots there are";
/// Classes of the server's errors.
const NO_SUCH_OBJECT: &str = "42704";
const IN_USE: &str = "55006";

/// Says that a slot is not there.
pub(super) fn no_slot(slot: &SlotName, place: &str, cure: &str) -> PostgresError {
    PostgresError::NotFound {
        why: format!("the server at {place} has no replication slot {slot}"),
        cure: format!("{cure}{}{LISTS_SLOTS}", if cure.is_empty() { "" } else { ". " }),
    }
}

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
/// [`PostgresError::NotFound`] when there is no such slot; when it cannot be reached, or somebody uses the slot.
pub fn drop_slot(
    endpoint: &Endpoint,
    slot: &SlotName,
    observer: Arc<dyn Observer>,
) -> Result<(), PostgresError> {
    const DOING: &str = "remove a replication slot of";
    let at = |error: crate::postgres::replication::ReplicationError| error.at(DOING, endpoint.place());
    let mut replication = Replication::connect(endpoint, observer).map_err(at)?;
    replication.drop_slot(slot).map_err(|error| match error {
        error if error.is(NO_SUCH_OBJECT) => no_slot(slot, endpoint.place(), ""),
        error if error.is(IN_USE) => PostgresError::failed(
            format!("the replication slot {slot} of the server at {} is in use: {error}", endpoint.place()),
            "stop whoever receives through it first",
        ),
        error => at(error),
    })
}
