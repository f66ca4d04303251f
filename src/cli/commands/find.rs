//! `chronolith find`.

use crate::base::{BlobId, Observer, SnapshotId};
use crate::cli::commands::ls::{Shown, short};
use crate::cli::events;
use crate::cli::fault::{Fault, exit, explain};
use crate::cli::render;
use crate::cli::session::Session;
use crate::localfs::printable;
use crate::ops::SnapshotView;
use crate::ops::find::{Pattern, find};
use clap::Args;
use serde_json::{Value, json};

/// Finds names in snapshots, newest first
#[derive(Args)]
pub struct Arguments {
    /// Names to look for; with a slash in it, whole paths (* ? [] and ** stand for anything)
    #[arg(value_name = "PATTERN")]
    pub pattern: String,
    /// Only in this snapshot; may be given several times
    #[arg(long, value_name = "SNAP")]
    pub snapshot: Vec<String>,
    /// Only in snapshots of this host
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Only in snapshots with this label
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Small and capital letters are the same
    #[arg(short, long)]
    pub ignore_case: bool,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("find {}", arguments.pattern));
    let pattern = Pattern::new(&arguments.pattern, arguments.ignore_case)?;
    let repository = session.open()?;
    let snapshots = session.snapshots(&repository)?;
    let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
    let mut chosen: Vec<&SnapshotView> = if arguments.snapshot.is_empty() {
        snapshots.iter().collect()
    } else {
        arguments.snapshot.iter().map(|name| snapshots.resolve(name)).collect::<Result<_, _>>()?
    };
    chosen.retain(|view| {
        is(&arguments.host, &view.snapshot.host) && is(&arguments.label, &view.snapshot.label)
    });
    chosen.reverse();
    let roots: Vec<(SnapshotId, BlobId)> = chosen.iter().map(|view| (view.id, view.snapshot.root)).collect();
    let (mut matches, mut last, mut shown) = (0_u64, None, Shown::default());
    let unsearched = find(&repository, roots, &pattern, |id, path, entry| {
        matches += 1;
        let written = if session.settings.json {
            let mut fields = events::entry(path, entry);
            fields.insert("snapshot".to_owned(), json!(id.to_string()));
            session.talk.event("match", Value::Object(fields))
        } else {
            let title = if last.replace(*id) == Some(*id) { String::new() } else { title(&chosen, id) };
            session.talk.line(&format!("{title}  {}", short(path, entry)))
        };
        shown.after(written)
    })?;
    shown.end(session)?;
    for folder in &unsearched {
        let (snapshot, path) = (folder.snapshot.short(), printable(&folder.path));
        session.talk.warn(&format!("{snapshot}:{path}: {}", explain(&folder.error)));
    }
    let searched = render::count(chosen.len() as u64, "snapshot", "snapshots");
    session.talk.tell(&format!("{} in {searched}", render::count(matches, "match", "matches")));
    session.talk.event(
        "summary",
        json!({ "matches": matches, "snapshots": chosen.len(), "unreadable": unsearched.len() }),
    )?;
    Ok(if unsearched.is_empty() { exit::DONE } else { exit::INCOMPLETE })
}

fn title(views: &[&SnapshotView], id: &SnapshotId) -> String {
    let view = views.iter().find(|view| view.id == *id);
    view.map_or_else(String::new, |view| {
        let snapshot = &view.snapshot;
        let (host, label) = (render::visible(&snapshot.host), render::visible(&snapshot.label));
        format!("{}  {}  {host}:{label}\n", id.short(), render::time(snapshot.started))
    })
}
