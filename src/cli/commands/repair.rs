//! `chronolith repair`.

use crate::base::{PackId, SnapshotId};
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::repair::{
    IndexFate, IndexOptions, IndexPlan, IndexRepaired, Lost, PacksOptions, PacksPlan, PacksRepaired,
    PlannedPack, SnapshotsOptions, SnapshotsPlan,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// Name and version of this program, for what it writes.
const PROGRAM: &str = concat!("chronolith ", env!("CARGO_PKG_VERSION"));
/// Lines of each kind that are shown to people; --json has all.
const SHOWN: usize = 100;

/// Repairs the index, packs or snapshots from what is left, and says what is lost
///
/// Nothing is changed or deleted before what takes its place is durable. First of all back the sources
/// up again: what they still have is stored anew, and older snapshots are whole again. Ends with exit
/// code 3 if something is lost or could not be repaired, after naming it.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Describes packs anew that no part of the index describes as they are
    Index(Index),
    /// Copies what is readable in damaged packs into new ones
    Packs(Packs),
    /// Makes copies of hurt snapshots that hold what is left of them
    Snapshots(Snapshots),
}

#[derive(Args)]
struct Index {
    /// Copies packs of other keys into packs of this one; else only the key that made a pack can describe it
    #[arg(long)]
    copy: bool,
    /// Shows what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Args)]
struct Packs {
    /// Looks at these too, by their ids; without any, at those that `check` reported or whose length is wrong
    #[arg(value_name = "PACK")]
    packs: Vec<String>,
    /// Shows what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Args)]
struct Snapshots {
    /// Only these; without any, all that are hurt
    #[arg(value_name = "SNAP")]
    snapshots: Vec<String>,
    /// Reads all content first, so that what nobody has found yet is found
    #[arg(long)]
    read_data: bool,
    /// Forgets the originals once their copies are there
    #[arg(long)]
    forget: bool,
    /// Shows what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let place = session.place()?.to_owned();
    match &arguments.verb {
        Verb::Index(arguments) => {
            session.doing(format!("repair the index of {place}"));
            index(session, arguments)
        }
        Verb::Packs(arguments) => {
            session.doing(format!("repair packs of {place}"));
            packs(session, arguments)
        }
        Verb::Snapshots(arguments) => {
            session.doing(format!("repair snapshots of {place}"));
            snapshots(session, arguments)
        }
    }
}

/// Writes at most [`SHOWN`] lines of a kind, and how many more there are.
fn lines(session: &Session, lines: impl ExactSizeIterator<Item = String>, what: &str) -> Result<(), Fault> {
    let more = lines.len().saturating_sub(SHOWN);
    lines.take(SHOWN).try_for_each(|line| session.talk.line(&render::visible(&line)))?;
    if more > 0 {
        session.talk.line(&format!("... and {more} more {what} (--json has them)"))?;
    }
    Ok(())
}

const fn code(incomplete: bool) -> u8 {
    if incomplete { exit::INCOMPLETE } else { exit::DONE }
}

fn fate(pack: &PlannedPack) -> (&'static str, String) {
    match &pack.fate {
        IndexFate::Describe => ("describe", "described anew".to_owned()),
        IndexFate::Copy => ("copy", "copied into packs of this key".to_owned()),
        IndexFate::Foreign(key) => (
            "foreign",
            format!(
                "left: only the key {} can describe it (run this with that key, or give --copy)",
                key.short()
            ),
        ),
        IndexFate::Unreadable(why) => ("unreadable", format!("left: {why}")),
    }
}

fn index(session: &Session, arguments: &Index) -> Result<u8, Fault> {
    let repository = session.open()?;
    let options = IndexOptions { copy: arguments.copy, program: PROGRAM.to_owned() };
    let mut plan = IndexPlan::new(&repository, options)?;
    let done = if arguments.dry_run { IndexRepaired::default() } else { plan.run()? };
    if session.settings.json {
        for (name, why) in &plan.runs {
            session.talk.event("run", json!({ "object": name, "why": why }))?;
        }
        for pack in &plan.packs {
            let (word, what) = fate(pack);
            let fields = json!({ "pack": pack.id.to_string(), "bytes": pack.bytes, "blobs": pack.blobs,
                "fate": word, "what": what });
            session.talk.event("pack", fields)?;
        }
        let fields = json!({
            "dry_run": arguments.dry_run, "described": done.described, "copied": done.copied,
            "stored_bytes": done.stored_bytes, "deleted_runs": done.deleted_runs,
            "complete": !plan.leaves_something(),
        });
        session.talk.event("summary", fields)?;
    } else {
        lines(session, plan.runs.iter().map(|(name, why)| format!("{name}: {why}")), "runs")?;
        let packs = plan.packs.iter().map(|pack| format!("pack {}: {}", pack.id.short(), fate(pack).1));
        lines(session, packs, "packs")?;
    }
    session.talk.flush()?;
    session.talk.tell(&match (plan.is_empty(), arguments.dry_run) {
        (true, _) => "the index describes every pack as it is".to_owned(),
        (false, true) => "nothing was changed".to_owned(),
        (false, false) => format!(
            "{} described, {} copied, {} deleted",
            render::count(done.described, "pack", "packs"),
            done.copied,
            render::count(done.deleted_runs, "damaged run", "damaged runs")
        ),
    });
    Ok(code(plan.leaves_something()))
}

fn packs(session: &Session, arguments: &Packs) -> Result<u8, Fault> {
    let packs = arguments.packs.iter().map(|text| {
        text.parse::<PackId>().map_err(|error| Fault::usage(error.to_string(), "`check` names packs"))
    });
    let packs = packs.collect::<Result<Vec<_>, _>>()?;
    let repository = session.open()?;
    let options = PacksOptions { packs, program: PROGRAM.to_owned() };
    let plan = PacksPlan::new(&repository, options)?;
    let json = session.settings.json;
    for pack in &plan.packs {
        if json {
            let lost: Vec<String> = pack.lost.iter().map(ToString::to_string).collect();
            let fields = json!({
                "pack": pack.id.to_string(), "why": pack.why, "by_parity": pack.by_parity, "salvaged_frames": pack.salvaged,
                "salvaged_bytes": pack.salvaged_bytes, "elsewhere_frames": pack.elsewhere,
                "closed_frames": pack.closed, "lost_blobs": lost, "lost_bytes": pack.lost_bytes,
            });
            session.talk.event("pack", fields)?;
            continue;
        }
        if pack.by_parity {
            let text = format!("pack {}: {}; its parity brings all of it back", pack.id.short(), pack.why);
            session.talk.line(&render::visible(&text))?;
            continue;
        }
        let mut text = format!(
            "pack {}: {}; {} to salvage ({})",
            pack.id.short(),
            pack.why,
            render::count(pack.salvaged, "frame", "frames"),
            render::size(pack.salvaged_bytes)
        );
        if !pack.lost.is_empty() {
            let blobs = render::count(pack.lost.len() as u64, "blob", "blobs");
            text.push_str(&format!(", {blobs} lost ({})", render::size(pack.lost_bytes)));
        }
        if pack.closed > 0 {
            text.push_str(&format!(", {} this key cannot open", pack.closed));
        }
        session.talk.line(&render::visible(&text))?;
    }
    session.talk.flush()?;
    let done = if arguments.dry_run { PacksRepaired::default() } else { plan.run()? };
    if json {
        let fields = json!({
            "dry_run": arguments.dry_run, "damaged": plan.packs.len(), "copied_frames": done.frames,
            "new_packs": done.packs, "repaired_by_parity": done.by_parity, "stored_bytes": done.stored_bytes, "complete": !plan.loses_something(),
        });
        session.talk.event("summary", fields)?;
    }
    session.talk.tell(&match (plan.packs.is_empty(), arguments.dry_run) {
        (true, _) => "no pack is known to be damaged; `check --read-data` finds out".to_owned(),
        (false, true) => "nothing was changed".to_owned(),
        (false, false) => format!(
            "{} brought back by parity; {} copied into {} ({}); other damaged ones stay until nothing needs them",
            render::count(done.by_parity, "pack", "packs"),
            render::count(done.frames, "frame", "frames"),
            render::count(done.packs, "new pack", "new packs"),
            render::size(done.stored_bytes)
        ),
    });
    if plan.loses_something() {
        session.talk.tell("what is lost, by snapshot and path: `chronolith repair snapshots --dry-run`");
    }
    Ok(code(plan.loses_something()))
}

fn lost_fields(snapshot: &SnapshotId, lost: &Lost) -> Value {
    let ranges: Vec<[u64; 2]> = lost.ranges.iter().map(|range| [range.start, range.end]).collect();
    let mut fields = serde_json::Map::new();
    events::bytes(&mut fields, "path", &lost.path);
    fields.insert("missing".to_owned(), json!(ranges));
    fields.insert("snapshot".to_owned(), json!(snapshot.to_string()));
    Value::Object(fields)
}

fn snapshots(session: &Session, arguments: &Snapshots) -> Result<u8, Fault> {
    let repository = session.open()?;
    let mut wanted = Vec::new();
    if !arguments.snapshots.is_empty() {
        let snapshots = session.all_snapshots(&repository)?;
        for name in &arguments.snapshots {
            wanted.push(snapshots.resolve(name)?.id);
        }
    }
    let options = SnapshotsOptions {
        snapshots: wanted,
        read_data: arguments.read_data,
        forget: arguments.forget,
        program: PROGRAM.to_owned(),
    };
    let plan = SnapshotsPlan::run(&repository, options, !arguments.dry_run)?;
    if session.settings.json {
        for (snapshot, lost) in &plan.lost {
            session.talk.event("lost", lost_fields(snapshot, lost))?;
        }
        for hurt in &plan.hurt {
            let copy = plan.repaired.iter().find(|repaired| repaired.from == hurt.id);
            let id = copy.map(|copy| copy.id).or(hurt.repaired).map(|id| id.to_string());
            let fields = json!({ "id": hurt.id.to_string(), "paths": hurt.paths, "repairable": hurt.repairable,
                "certain": hurt.is_certain, "pinned": hurt.is_pinned, "copy": id, "new": copy.is_some(), "lost_bytes": copy.map(|copy| copy.lost_bytes) });
            session.talk.event("snapshot", fields)?;
        }
        let forgotten: Vec<String> = plan.forgotten.iter().map(ToString::to_string).collect();
        let fields = json!({ "dry_run": arguments.dry_run, "hurt": plan.hurt.len(),
            "repaired": plan.repaired.len(), "forgotten": forgotten, "put_back": plan.put_back,
            "put_back_from_parity": plan.from_parity });
        session.talk.event("summary", fields)?;
    } else {
        for name in &plan.put_back {
            let what = if arguments.dry_run { "would be put back" } else { "put back" };
            session.talk.line(&format!("{name}: {what}, as a catalogue holds it"))?;
        }
        for name in &plan.from_parity {
            let what = if arguments.dry_run { "would be put back" } else { "put back" };
            session.talk.line(&format!("{name}: {what}, as its parity holds it"))?;
        }
        let lost = plan.lost.iter().map(|(id, lost)| format!("lost: {}:{lost}", id.short()));
        lines(session, lost, "paths")?;
        for hurt in &plan.hurt {
            let copy = plan.repaired.iter().find(|repaired| repaired.from == hurt.id);
            let what = match (copy, hurt.repaired, hurt.repairable) {
                (Some(copy), ..) => format!(
                    "its copy {} holds the rest ({} lost)",
                    copy.id.short(),
                    render::size(copy.lost_bytes)
                ),
                (None, Some(copy), _) => format!("its copy {} was made before", copy.short()),
                (None, None, false) => format!(
                    "not even the names in it can be read: nothing is left to copy; `chronolith forget {}` lets it go",
                    hurt.id.short()
                ),
                (None, None, true) if !hurt.is_certain => {
                    "it may be hurt, and this key cannot tell: run this with an owner's key".to_owned()
                }
                (None, None, true) => "a copy would hold the rest".to_owned(),
            };
            let pinned = match hurt.is_pinned && (copy.is_some() || hurt.repaired.is_some()) {
                true => format!(
                    "; it is pinned and stays: `chronolith unpin {}` first, and the copy is pinned like it",
                    hurt.id.short()
                ),
                false => String::new(),
            };
            session.talk.line(&format!("snapshot {}: {what}{pinned}", hurt.id.short()))?;
        }
    }
    session.talk.flush()?;
    session.talk.tell(&match (plan.hurt.is_empty(), arguments.dry_run) {
        (true, _) => "no snapshot is hurt".to_owned(),
        (false, true) => "nothing was changed".to_owned(),
        (false, false) => format!(
            "{} made, {} forgotten",
            render::count(plan.repaired.len() as u64, "copy", "copies"),
            render::count(plan.forgotten.len() as u64, "original", "originals")
        ),
    });
    Ok(code(plan.loses_something()))
}
