//! `chronolith cat`.

use crate::cli::fault::{Fault, exit, output};
use crate::cli::session::{Named, Session};
use crate::format::tree::TreeEntry;
use crate::ops::cat::{cat, widen_pipe};
use crate::ops::listing::{Found, list, locate, show_path};
use clap::Args;
use serde_json::json;
use std::ffi::OsString;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

/// Writes a file or stream of a snapshot to standard output
///
/// Every piece is verified before it is written, the whole against its digest at the end: pipe it on
/// only with `set -o pipefail`, and use the result only if the exit code is 0.
#[derive(Args)]
pub struct Arguments {
    /// The snapshot and the path in it; without a path, the only file there is
    #[arg(value_name = "SNAP[:PATH]")]
    pub name: OsString,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("find {} in {}", arguments.name.display(), session.place()?));
    session.talk.set_events_aside();
    let named = session.find(&arguments.name)?;
    to_stdout(session, &named)
}

/// Writes what was named to standard output.
pub fn to_stdout(session: &Session, named: &Named) -> Result<u8, Fault> {
    let (path, entry) = the_file(named)?;
    session.doing(format!("write {} to standard output", named.show()));
    let Some(content) = &entry.content else {
        return Err(Fault::usage(
            format!("{path:?} in snapshot {} is no file", named.view.id.short()),
            format!("`chronolith ls {}` shows what there is", named.view.id.short()),
        ));
    };
    let stdout = std::io::stdout();
    // The file itself: what the standard library puts before it looks for ends of lines.
    let mut out = File::from(stdout.as_fd().try_clone_to_owned().map_err(output)?);
    widen_pipe(&out);
    let report = cat(&named.repository, &path, content, &mut out)?;
    session.talk.event(
        "summary",
        json!({
            "snapshot": named.view.id.to_string(),
            "path": path,
            "bytes": report.bytes,
            "complete": report.complete,
        }),
    )?;
    if report.complete { Ok(exit::DONE) } else { Err(Fault::Closed) }
}

/// Finds the file that was named, or the only one that a snapshot holds.
fn the_file(named: &Named) -> Result<(String, TreeEntry), Fault> {
    let found = locate(&named.repository, &named.view.snapshot.root, &named.path)?;
    let folder = match &found {
        Found::Leaf(entry) => return Ok((show_path(&named.path), (**entry).clone())),
        Found::Folder { .. } if !named.path.is_empty() => {
            return Err(Fault::usage(
                format!("{} is a folder", named.show()),
                "`chronolith restore` writes a folder out",
            ));
        }
        folder @ Found::Folder { .. } => folder,
    };
    let mut files: Vec<(Vec<u8>, TreeEntry)> = Vec::new();
    let unreadable = list(&named.repository, folder, true, |path, entry| {
        if entry.content.is_some() {
            files.push((path.to_vec(), entry.clone()));
        }
        if files.len() > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(problem) = unreadable.into_iter().next() {
        return Err(problem.error.into());
    }
    let single = files.len() == 1;
    match files.pop().filter(|_| single) {
        Some((path, entry)) => Ok((show_path(&[path]), entry)),
        None => Err(Fault::usage(
            format!("the snapshot {} does not hold exactly one file", named.view.id.short()),
            format!("say which: `chronolith ls -R {}` shows them", named.view.id.short()),
        )),
    }
}
