//! `chronolith undelete`.

use crate::base::SnapshotId;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::undelete::undelete;
use clap::Args;
use serde_json::json;

/// Brings back snapshots that were forgotten, as long as their data is there
///
/// `chronolith snapshots --forgotten` shows them.
#[derive(Args)]
pub struct Arguments {
    /// Which, by their ids
    #[arg(value_name = "SNAP", required = true)]
    pub snapshots: Vec<String>,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("bring back snapshots of {}", session.place()?));
    let repository = session.open()?;
    let snapshots = session.all_snapshots(&repository)?;
    let ids = arguments.snapshots.iter().map(|name| snapshots.resolve(name).map(|view| view.id));
    let mut ids = ids.collect::<Result<Vec<SnapshotId>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    undelete(&repository, &ids, concat!("chronolith ", env!("CARGO_PKG_VERSION")))?;
    if session.settings.json {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        session.talk.event("summary", json!({ "snapshots": ids }))?;
    }
    session.talk.tell(&format!("{} brought back", render::count(ids.len() as u64, "snapshot", "snapshots")));
    Ok(exit::DONE)
}
