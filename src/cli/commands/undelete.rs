//! `chronolith undelete`.

use crate::base::SnapshotId;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::forget::require_may_forget;
use crate::ops::undelete::{undelete, undelete_logs};
use crate::postgres::base::{BaseFacts, KIND};
use crate::postgres::lineage::ClusterName;
use crate::postgres::stream::forgotten_log_of;
use crate::repo::FoundLog;
use clap::Args;
use serde_json::json;

/// Brings back snapshots that were forgotten, as long as their data is there
///
/// `chronolith snapshots --forgotten` shows them. With a base backup comes the log that was forgotten and that it leads to.
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
    require_may_forget(&repository)?;
    let snapshots = session.all_snapshots(&repository)?;
    let ids = arguments.snapshots.iter().map(|name| snapshots.resolve(name).map(|view| view.id));
    let mut ids = ids.collect::<Result<Vec<SnapshotId>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    let mut logs: Vec<FoundLog> = Vec::new();
    for view in ids.iter().filter_map(|id| snapshots.get(id)).filter(|view| view.snapshot.kind == KIND) {
        if let Some(facts) = BaseFacts::read(&view.snapshot)? {
            logs.extend(forgotten_log_of(&repository, &ClusterName::new(&facts.cluster)?, &facts)?);
        }
    }
    if !logs.is_empty() {
        undelete_logs(&repository, &logs, concat!("chronolith ", env!("CARGO_PKG_VERSION")))?;
    }
    undelete(&repository, &ids, concat!("chronolith ", env!("CARGO_PKG_VERSION")))?;
    if session.settings.json {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        session.talk.event("summary", json!({ "snapshots": ids, "log_files": logs.len() }))?;
    }
    if !logs.is_empty() {
        session
            .talk
            .tell(&format!("{} of the log brought back", render::count(logs.len() as u64, "file", "files")));
    }
    session.talk.tell(&format!("{} brought back", render::count(ids.len() as u64, "snapshot", "snapshots")));
    Ok(exit::DONE)
}
