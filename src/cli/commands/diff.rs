//! `chronolith diff`.

use crate::base::BlobId;
use crate::cli::commands::ls::{Shown, short, unreadable_folders};
use crate::cli::events;
use crate::cli::fault::Fault;
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::Snapshots;
use crate::ops::diff::{Change, diff};
use crate::ops::listing::{Found, locate};
use crate::repo::Repository;
use clap::Args;
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Shows what differs between two snapshots
///
/// + added, - removed, M other content, U other metadata (mode, owner, time), T another kind of thing
#[derive(Args)]
pub struct Arguments {
    /// The first snapshot, and a folder in it
    #[arg(value_name = "SNAP[:PATH]")]
    pub before: OsString,
    /// The second snapshot, and a folder in it
    #[arg(value_name = "SNAP[:PATH]")]
    pub after: OsString,
}

fn folder(repository: &Arc<Repository>, snapshots: &Snapshots, name: &OsStr) -> Result<BlobId, Fault> {
    let (view, path) = snapshots.resolve_with_path(name.as_bytes())?;
    match locate(repository, &view.snapshot.root, &path)? {
        Found::Folder { content, .. } => Ok(content),
        Found::Leaf(_) => Err(Fault::usage(
            format!("{} is no folder", name.display()),
            "compare the folders that hold it, or `chronolith cat` both",
        )),
    }
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("compare {} with {}", arguments.before.display(), arguments.after.display()));
    let repository = session.open()?;
    let snapshots = session.snapshots(&repository)?;
    let before = folder(&repository, &snapshots, &arguments.before)?;
    let after = folder(&repository, &snapshots, &arguments.after)?;
    let mut shown = Shown::default();
    let report = diff(&repository, &before, &after, |path, change| {
        let (sign, word, entry) = match change {
            Change::Added(entry) => ('+', "added", entry),
            Change::Removed(entry) => ('-', "removed", entry),
            Change::Changed { after, how, .. } if how.kind => ('T', "kind", after),
            Change::Changed { after, how, .. } if how.content => ('M', "content", after),
            Change::Changed { after, .. } => ('U', "metadata", after),
        };
        let written = if session.settings.json {
            let mut fields = events::entry(path, entry);
            fields.insert("change".to_owned(), json!(word));
            session.talk.event("change", Value::Object(fields))
        } else {
            session.talk.line(&format!("{sign} {}", short(path, entry)))
        };
        shown.after(written)
    })?;
    shown.end(session)?;
    let code = unreadable_folders(session, &report.unreadable);
    let counts = &report.counts;
    session.talk.tell(&format!(
        "{} added ({}), {} removed ({}), {} with other content, {} with other metadata",
        counts.added,
        render::size(counts.added_bytes),
        counts.removed,
        render::size(counts.removed_bytes),
        counts.changed_content,
        counts.changed_metadata
    ));
    session.talk.event(
        "summary",
        json!({
            "added": counts.added,
            "added_bytes": counts.added_bytes,
            "removed": counts.removed,
            "removed_bytes": counts.removed_bytes,
            "changed_content": counts.changed_content,
            "changed_metadata": counts.changed_metadata,
            "unreadable": report.unreadable.len(),
        }),
    )?;
    Ok(code)
}
