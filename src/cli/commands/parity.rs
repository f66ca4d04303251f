//! `chronolith parity`.

use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::parity;
use clap::{Args, Subcommand};
use serde_json::json;

/// Lines of objects that are shown to people; --json has all.
const SHOWN: usize = 50;

/// Adds parity to what is stored, drops it, and repairs from it
///
/// Reed-Solomon parity of packs, of the index, of snapshots and what is said about them: with 5%, up to a twentieth
/// of each object may rot, be cut off or be lost in sectors, and comes back exactly. It needs no key to be used, and
/// may be added, changed and dropped at any time.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes parity for everything that has no such yet; run it after backups
    Add(Add),
    /// Deletes all parity
    Drop(Drop),
    /// Shows how much there is
    Status,
    /// Reads everything that has parity, and the parity, and puts right what is damaged
    Repair(Repair),
}

#[derive(Args)]
struct Add {
    /// The share of each object that may be lost: 5%
    #[arg(value_name = "PERCENT")]
    share: String,
}

#[derive(Args)]
struct Drop {
    /// Shows what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Args)]
struct Repair {
    /// Shows what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let place = session.place()?.to_owned();
    match &arguments.verb {
        Verb::Add(arguments) => {
            session.doing(format!("add parity to {place}"));
            add(session, arguments)
        }
        Verb::Drop(arguments) => {
            session.doing(format!("drop the parity of {place}"));
            let repository = session.open()?;
            let (objects, bytes) = parity::drop_all(&repository, arguments.dry_run)?;
            let fields = json!({ "dry_run": arguments.dry_run, "objects": objects, "bytes": bytes });
            session.talk.event("summary", fields)?;
            let word = if arguments.dry_run { "would be dropped" } else { "dropped" };
            let count = render::count(objects, "parity object", "parity objects");
            session.talk.tell(&format!("{count} {word} ({})", render::size(bytes)));
            Ok(exit::DONE)
        }
        Verb::Status => {
            session.doing(format!("count the parity of {place}"));
            status(session)
        }
        Verb::Repair(arguments) => {
            session.doing(format!("repair {place} from its parity"));
            repair(session, arguments)
        }
    }
}

fn add(session: &Session, arguments: &Add) -> Result<u8, Fault> {
    let number = arguments.share.trim_end_matches('%');
    let percent =
        number.parse::<u8>().ok().filter(|percent| (1..=100).contains(percent)).ok_or_else(|| {
            Fault::usage(
                format!("{:?} is no share", arguments.share),
                "give a whole number of percent, such as 5%",
            )
        })?;
    let repository = session.open()?;
    let added = parity::add(&repository, percent)?;
    if session.settings.json {
        for (name, why) in &added.damaged {
            session.talk.event("damaged", json!({ "object": name, "why": why }))?;
        }
        let fields = json!({ "percent": percent, "made": added.made, "stored_bytes": added.stored_bytes,
            "replaced": added.replaced, "kept": added.kept, "damaged": added.damaged.len() });
        session.talk.event("summary", fields)?;
    } else {
        for (name, why) in added.damaged.iter().take(SHOWN) {
            session.talk.line(&render::visible(&format!("none made of {name}: {why}")))?;
        }
    }
    session.talk.flush()?;
    session.talk.tell(&format!(
        "parity of {} made ({}), {} had it already",
        render::count(added.made, "object", "objects"),
        render::size(added.stored_bytes),
        added.kept
    ));
    Ok(if added.damaged.is_empty() { exit::DONE } else { exit::INCOMPLETE })
}

fn status(session: &Session) -> Result<u8, Fault> {
    let repository = session.open()?;
    let status = parity::status(&repository)?;
    let fields = json!({
        "objects": status.objects, "bytes": status.bytes, "covered": status.covered,
        "covered_bytes": status.covered_bytes, "parity_objects": status.parity_objects,
        "parity_bytes": status.parity_bytes, "idle": status.idle,
    });
    session.talk.event("summary", fields)?;
    if !session.settings.json {
        session.talk.line(&format!(
            "{} of {} have parity ({} of {})",
            status.covered,
            render::count(status.objects, "object", "objects"),
            render::size(status.covered_bytes),
            render::size(status.bytes)
        ))?;
        session.talk.line(&format!(
            "it takes {} in {}; {} of them of what is not there",
            render::size(status.parity_bytes),
            render::count(status.parity_objects, "object", "objects"),
            status.idle
        ))?;
    }
    Ok(exit::DONE)
}

fn repair(session: &Session, arguments: &Repair) -> Result<u8, Fault> {
    let repository = session.open()?;
    let found = parity::repair(&repository, arguments.dry_run)?;
    let repaired = found.iter().filter(|object| object.repaired).count();
    for object in &found {
        if session.settings.json {
            let fields = json!({ "object": object.name, "repaired": object.repaired });
            session.talk.event("object", fields)?;
            continue;
        }
        let is_parity = object.name.starts_with("parity/");
        // It has no place any more.
        if !object.name.contains('/') {
            let cure = "gone though nobody has ended it; `chronolith repair snapshots` puts it back if what it needs is there";
            session.talk.line(&format!("{}: {cure}", object.name))?;
            continue;
        }
        let what = match (object.repaired, arguments.dry_run, is_parity) {
            (true, true, false) => "damaged; its parity suffices",
            (true, false, false) => "repaired from its parity",
            (false, _, false) => "damaged beyond what its parity can do",
            (true, true, true) => "damaged; it can be made anew",
            (true, false, true) => "made anew",
            (false, _, true) => "damaged, and so is what it is of",
        };
        session.talk.line(&render::visible(&format!("{}: {what}", object.name)))?;
    }
    let fields = json!({ "dry_run": arguments.dry_run, "damaged": found.len(), "repaired": repaired });
    session.talk.event("summary", fields)?;
    session.talk.flush()?;
    session.talk.tell(&match (found.is_empty(), arguments.dry_run) {
        (true, _) => "everything that has parity is as it was written, and so is the parity".to_owned(),
        (false, true) => "nothing was changed".to_owned(),
        (false, false) => format!(
            "{repaired} of {} repaired; `check` takes back what was reported of them",
            render::count(found.len() as u64, "damaged object", "damaged objects")
        ),
    });
    Ok(if repaired == found.len() { exit::DONE } else { exit::INCOMPLETE })
}
