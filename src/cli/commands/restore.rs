//! `chronolith restore`.

use crate::base::Observer;
use crate::cli::commands::cat::to_stdout;
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::{Named, Session};
use crate::localfs::{Ownership, path_text, printable};
use crate::ops::restore::{Planned, RestoreOptions, RestorePlan, RestoreReport, Severity};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

/// Problems that are named one by one; the rest is counted.
const PROBLEMS_SHOWN: usize = 20;

/// Whose the restored files are.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Owners {
    /// The users and groups of those names
    Name,
    /// The users and groups of those numbers
    Number,
    /// Whoever restores
    Me,
}

/// Restores a snapshot, or a file or folder of it, into a folder, or a file to standard output
///
/// Only what differs from what stands in the folder is written, so that an interrupted restore goes
/// on when it is run again. A snapshot's files come under their whole paths (`DIR/etc/app`), a folder's content comes
/// directly into the target.
#[derive(Args)]
pub struct Arguments {
    /// The snapshot, and a path in it
    #[arg(value_name = "SNAP[:PATH]")]
    pub name: OsString,
    /// The folder to restore into
    #[arg(short, long, value_name = "DIR", required_unless_present = "to")]
    pub target: Option<PathBuf>,
    /// `-` writes one file to standard output, as cat does
    #[arg(long, value_name = "-", conflicts_with_all = ["target", "delete", "verify", "sparse", "dry_run", "owner", "no_sync"], value_parser = ["-"], hide_possible_values = true)]
    pub to: Option<String>,
    /// Removes what the snapshot does not have
    #[arg(long)]
    pub delete: bool,
    /// Reads everything back afterwards and compares
    #[arg(long)]
    pub verify: bool,
    /// Makes holes of runs of zeros also where the original had none
    #[arg(long)]
    pub sparse: bool,
    /// Whose the files are [default: name for root, else me]
    #[arg(long, value_name = "BY")]
    pub owner: Option<Owners>,
    /// Does not wait until everything is on the disk
    #[arg(long)]
    pub no_sync: bool,
    /// Says what would be written and removed, and changes nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let Some(target) = &arguments.target else {
        session.doing(format!("find {} in {}", arguments.name.display(), session.place()?));
        session.talk.set_events_aside();
        return to_stdout(session, &session.find(&arguments.name)?);
    };
    session.doing(format!("restore {} into {}", arguments.name.display(), target.display()));
    let began = Instant::now();
    let named = session.find(&arguments.name)?;
    let options = RestoreOptions {
        delete: arguments.delete,
        verify: arguments.verify,
        sparse: arguments.sparse,
        ownership: arguments.owner.map(|owner| match owner {
            Owners::Name => Ownership::ByName,
            Owners::Number => Ownership::ByNumber,
            Owners::Me => Ownership::Own,
        }),
        no_sync: arguments.no_sync,
        protected: Vec::new(),
        total_bytes: named.path.is_empty().then_some(named.view.snapshot.summary.bytes),
    };
    let plan = RestorePlan::new(&named.repository, &named.view.snapshot.root, &named.path, target, options)?;
    let report = if arguments.dry_run { preview(session, &plan)? } else { plan.run()? };
    session.talk.end();
    show(session, &named, &plan, &report, arguments.dry_run, began.elapsed().as_secs_f64())?;
    Ok(if report.complete() { exit::DONE } else { exit::INCOMPLETE })
}

fn preview(session: &Session, plan: &RestorePlan) -> Result<RestoreReport, Fault> {
    let mut failed = None;
    let report = plan.preview(true, |planned| {
        let line = match planned {
            Planned::Remove(path) => format!("- {}", printable(path)),
            Planned::Write { bytes: 0, .. } | Planned::Make(_) => return,
            Planned::Write { path, bytes, .. } => format!("W {} ({})", printable(path), render::size(bytes)),
        };
        if !session.settings.json && failed.is_none() {
            failed = session.talk.line(&line).err();
        }
    })?;
    match failed {
        Some(fault) => Err(fault),
        None => session.talk.flush().map(|()| report),
    }
}

fn show(
    session: &Session,
    named: &Named,
    plan: &RestorePlan,
    report: &RestoreReport,
    dry_run: bool,
    seconds: f64,
) -> Result<(), Fault> {
    let talk = &session.talk;
    for (number, problem) in report.problems.iter().enumerate() {
        let severity = match problem.severity {
            Severity::Missing => "missing",
            Severity::Metadata => "metadata",
        };
        let missing: Vec<[u64; 2]> = problem.missing.iter().map(|range| [range.start, range.end]).collect();
        let mut fields = Map::new();
        events::bytes(&mut fields, "path", &problem.path);
        fields.insert("severity".to_owned(), json!(severity));
        fields.insert("what".to_owned(), json!(problem.what));
        fields.insert("missing".to_owned(), json!(missing));
        match &problem.kept_as {
            Some(kept) => events::bytes(&mut fields, "kept_as", kept),
            None => drop(fields.insert("kept_as".to_owned(), Value::Null)),
        }
        talk.event("problem", Value::Object(fields))?;
        if !session.settings.json && number < PROBLEMS_SHOWN {
            let kept = problem
                .kept_as
                .as_deref()
                .map_or(String::new(), |kept| format!("; what could be read is kept as {}", printable(kept)));
            talk.warn(&format!("{}: {}{kept}", path_text(&problem.path), problem.what));
        }
    }
    let more = report.problems.len().saturating_sub(PROBLEMS_SHOWN) as u64 + report.problems_more;
    if more > 0 && !session.settings.json {
        talk.warn(&format!("and {} more; --json names them", render::count(more, "problem", "problems")));
    }
    talk.event(
        "summary",
        json!({
            "snapshot": named.view.id.to_string(),
            "target": plan.target().display().to_string(),
            "dry_run": dry_run,
            "seconds": seconds,
            "files": report.files,
            "unchanged_files": report.unchanged_files,
            "directories": report.directories,
            "others": report.others,
            "links": report.links,
            "bytes": report.bytes,
            "written_bytes": report.written_bytes,
            "same_bytes": report.same_bytes,
            "removed": report.removed,
            "verified_files": report.verified_files,
            "missing": report.missing,
            "problems": report.problems.len() as u64 + report.problems_more,
        }),
    )?;
    let verb = if dry_run { "would restore" } else { "restored" };
    let verified = match report.verified_files {
        0 => String::new(),
        files => format!(", {} read back and right", render::count(files, "file", "files")),
    };
    let removed = match report.removed {
        0 => String::new(),
        removed => format!(", {removed} removed"),
    };
    talk.tell(&format!(
        "{verb} {} into {}: {} in {}, {} written{removed}{verified} in {}",
        named.show(),
        plan.target().display(),
        render::size(report.bytes),
        render::count(report.files, "file", "files"),
        render::size(report.written_bytes),
        render::span(seconds)
    ));
    Ok(())
}
