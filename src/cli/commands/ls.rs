//! `chronolith ls`.

use crate::base::Observer;
use crate::cli::commands::snapshots;
use crate::cli::events;
use crate::cli::fault::{Fault, exit, explain};
use crate::cli::render;
use crate::cli::session::Session;
use crate::format::tree::{EntryKind, TreeEntry};
use crate::localfs::printable;
use crate::ops::listing::{Unreadable, list, locate};
use clap::Args;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::ops::ControlFlow;

/// Lists what a snapshot, or a folder in it, holds; without a name, the snapshots
#[derive(Args)]
pub struct Arguments {
    /// The snapshot, and a path in it
    #[arg(value_name = "SNAP[:PATH]")]
    pub name: Option<OsString>,
    /// Also what lies in folders
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Mode, owner, size and time too
    #[arg(short, long)]
    pub long: bool,
}

/// Whether what is listed one by one can still be shown: a listing ends at the first entry that cannot.
#[derive(Default)]
pub struct Shown(Option<Fault>);

impl Shown {
    /// Goes on after an entry that was written, and stops after one that was not.
    pub fn after(&mut self, written: Result<(), Fault>) -> ControlFlow<()> {
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(fault) => {
                self.0 = Some(fault);
                ControlFlow::Break(())
            }
        }
    }

    /// Ends the listing, or says why it stopped.
    pub fn end(self, session: &Session) -> Result<(), Fault> {
        match self.0 {
            Some(fault) => Err(fault),
            None => Ok(session.talk.flush()?),
        }
    }
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let Some(name) = &arguments.name else {
        return snapshots::run(session, &snapshots::Arguments::default());
    };
    session.doing(format!("list {}", name.display()));
    let named = session.find(name)?;
    let found = locate(&named.repository, &named.view.snapshot.root, &named.path)?;
    let (mut entries, mut shown) = (0_u64, Shown::default());
    let json = session.settings.json;
    let unreadable = list(&named.repository, &found, arguments.recursive, |path, entry| {
        entries += 1;
        let written = if json {
            let fields = Value::Object(events::entry(path, entry));
            session.talk.event("entry", fields)
        } else if arguments.long {
            session.talk.line(&long(path, entry))
        } else {
            session.talk.line(&short(path, entry))
        };
        shown.after(written)
    })?;
    shown.end(session)?;
    let code = unreadable_folders(session, &unreadable);
    session.talk.event(
        "summary",
        json!({ "snapshot": named.view.id.to_string(), "entries": entries, "unreadable": unreadable.len() }),
    )?;
    Ok(code)
}

/// Warns of folders that cannot be read, and returns the exit code.
pub fn unreadable_folders(session: &Session, unreadable: &[Unreadable]) -> u8 {
    for folder in unreadable {
        session.talk.warn(&format!("/{}: {}", printable(&folder.path), explain(&folder.error)));
    }
    if unreadable.is_empty() { exit::DONE } else { exit::INCOMPLETE }
}

/// Writes a path, with a slash behind a folder.
pub fn short(path: &[u8], entry: &TreeEntry) -> String {
    let slash = if entry.kind == EntryKind::Directory { "/" } else { "" };
    format!("{}{slash}", printable(path))
}

fn long(path: &[u8], entry: &TreeEntry) -> String {
    let owner = |name: &Option<Vec<u8>>, number: Option<u32>| match (name, number) {
        (Some(name), _) => printable(name),
        (None, Some(number)) => number.to_string(),
        (None, None) => "-".to_owned(),
    };
    let size = entry.content.as_ref().map_or_else(String::new, |content| content.length.to_string());
    let target =
        entry.target.as_ref().map_or_else(String::new, |target| format!(" -> {}", printable(target)));
    format!(
        "{}  {:<8} {:<8} {size:>14}  {}  {}{target}",
        mode(entry),
        owner(&entry.user_name, entry.user_id),
        owner(&entry.group_name, entry.group_id),
        render::time(entry.modified),
        short(path, entry)
    )
}

/// Writes kind and permissions as `ls -l` does.
fn mode(entry: &TreeEntry) -> String {
    let kind = match entry.kind {
        EntryKind::File => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
        EntryKind::CharacterDevice => 'c',
        EntryKind::BlockDevice => 'b',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = entry.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, entry.mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}
