//! What `tag`, `pin`, `unpin` and `note` have in common.

use crate::base::{Observer, SnapshotId};
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::marks::{Mark, mark};
use serde_json::json;

/// Says things about snapshots, and what was done: `tagged`, `pinned`.
pub fn say(session: &Session, names: &[String], marks: &[Mark], done: &str) -> Result<u8, Fault> {
    let repository = session.open()?;
    let snapshots = session.snapshots(&repository)?;
    let ids = names.iter().map(|name| snapshots.resolve(name).map(|view| view.id));
    let mut ids = ids.collect::<Result<Vec<SnapshotId>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    let put = mark(&repository, &snapshots, &ids, marks)?;
    let annotations: Vec<String> = put.iter().map(ToString::to_string).collect();
    let named: Vec<String> = ids.iter().map(ToString::to_string).collect();
    session.talk.event("summary", json!({ "snapshots": named, "annotations": annotations }))?;
    for view in ids.iter().filter_map(|id| snapshots.get(id)).filter(|view| !view.forgotten_by.is_empty()) {
        let id = view.id.short();
        match marks {
            [Mark::Pin { .. }] => session.talk.tell(&format!(
                "snapshot {id} is forgotten: it stays as long as it is pinned; `chronolith undelete {id}` brings it back"
            )),
            [Mark::Unpin { .. }] => session.talk.warn(&format!(
                "snapshot {id} was forgotten, and nothing holds it any more: prune deletes it, unless `chronolith undelete \
                 {id}` brings it back"
            )),
            _ => {}
        }
    }
    let count = render::count(ids.len() as u64, "snapshot", "snapshots");
    session.talk.tell(&match put.is_empty() {
        true => format!("nothing to do: {count} as wanted already"),
        false => format!("{count} {done}"),
    });
    Ok(exit::DONE)
}
