//! `chronolith mirror`.

use crate::base::Observer;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::mirror::{
    Followed, MirrorOptions, MirrorReport, follow_sweep, lost_at_source, mirror, put_back,
};
use crate::storage::{MemoryStore, Store};
use clap::Args;
use serde_json::json;

/// Lines of objects that are shown to people; --json has all.
const SHOWN: usize = 50;

/// Copies the repository's objects to another place, without keys
///
/// Takes no password: objects are named by the hash of their bytes, and each is verified while it is copied. Only what
/// the other place lacks is copied, roots last, so that a mirror holds whole snapshots at any time; run it again to go
/// on. The mirror is a repository like the first, with the same keys. Ends with exit code 3 if something of the
/// source is damaged, after naming it; it is not copied.
#[derive(Args)]
pub struct Arguments {
    /// The mirror: a folder, which is made if it does not exist
    #[arg(long, value_name = "PATH")]
    to: String,
    /// Reads what is there already, and replaces what is not what it is named for
    #[arg(long)]
    verify: bool,
    /// Reads both sides, and replaces what is damaged on either by what is good on the other
    #[arg(long)]
    heal: bool,
    /// With --heal: brings back what the source lost, by what is on record in it (takes a key)
    #[arg(long, requires = "heal", conflicts_with = "delete")]
    lost: bool,
    /// Deletes at the mirror what a prune deleted at the source, if the source is whole (takes a key)
    #[arg(long)]
    delete: bool,
    /// Shows what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// What was done beyond copying.
#[derive(Default)]
struct Beyond {
    followed: Option<Followed>,
    lost: Vec<String>,
    damaged: Vec<String>,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("mirror {} to {}", session.place()?, arguments.to));
    // Whoever has to type a password does so before the work begins.
    let repository = match arguments.delete || arguments.lost {
        true => Some(session.open()?),
        false => None,
    };
    let source = session.open_store()?;
    if repository.is_none() {
        session.watch_signals()?;
    }
    let target: Box<dyn Store> = match session.open_other_store(&arguments.to)? {
        Some(store) => Box::new(store),
        None if arguments.dry_run => Box::new(MemoryStore::new()),
        None => {
            // Nothing is made where there is nothing to copy.
            if source.list("")?.is_empty() {
                return Err(crate::repo::RepoError::NoRepository { location: source.location() }.into());
            }
            Box::new(session.create_other_store(&arguments.to)?)
        }
    };
    let options = MirrorOptions {
        verify: arguments.verify,
        heal: arguments.heal,
        dry_run: arguments.dry_run,
        ..MirrorOptions::default()
    };
    let observer: &dyn Observer = session.talk.as_ref();
    let report = mirror(&source, target.as_ref(), &options, observer)?;
    let mut beyond = Beyond::default();
    if let Some(repository) = &repository {
        if arguments.lost {
            beyond.lost = lost_at_source(repository, target.as_ref(), &report)?;
            if !arguments.dry_run {
                beyond.damaged = put_back(&source, target.as_ref(), &beyond.lost)?;
            }
        }
        if arguments.delete {
            // What was copied is told also where nothing may be deleted.
            match follow_sweep(repository, target.as_ref(), &report, arguments.dry_run) {
                Ok(followed) => beyond.followed = Some(followed),
                Err(error) => {
                    tell(session, arguments, &report, &beyond)?;
                    return Err(error.into());
                }
            }
        }
    }
    tell(session, arguments, &report, &beyond)?;
    let incomplete = report.is_incomplete() || !beyond.damaged.is_empty();
    Ok(if incomplete { exit::INCOMPLETE } else { exit::DONE })
}

fn tell(
    session: &Session,
    arguments: &Arguments,
    report: &MirrorReport,
    beyond: &Beyond,
) -> Result<(), Fault> {
    let talk = &session.talk;
    if session.settings.json {
        for object in &report.damaged {
            let fields = json!({ "object": object.name, "at": object.place.name(), "why": object.why,
                "healed": object.healed });
            talk.event("damaged", fields)?;
        }
        for name in &beyond.lost {
            talk.event("lost", json!({ "object": name, "brought_back": !beyond.damaged.contains(name) }))?;
        }
        let followed = beyond.followed.unwrap_or_default();
        let fields = json!({
            "dry_run": arguments.dry_run, "copied": report.copied, "copied_bytes": report.copied_bytes,
            "present": report.present, "verified": report.verified, "vanished": report.vanished,
            "foreign": report.foreign, "only_at_target": report.only_at_target.len(),
            "damaged": report.damaged.len(),
            "healed": report.damaged.iter().filter(|object| object.healed).count(),
            "deleted": followed.deleted, "deleted_bytes": followed.deleted_bytes, "lost": beyond.lost.len(),
        });
        talk.event("summary", fields)?;
        return talk.flush();
    }
    for object in report.damaged.iter().take(SHOWN) {
        let what = match (object.healed, arguments.dry_run) {
            (true, false) => "; replaced by what the other side has",
            (true, true) => "; the other side has it whole",
            (false, _) => "",
        };
        let line = format!("{} is damaged at the {}: {}{what}", object.name, object.place.name(), object.why);
        talk.line(&render::visible(&line))?;
    }
    if report.damaged.len() > SHOWN {
        talk.line(&format!("... and {} more (--json has them)", report.damaged.len() - SHOWN))?;
    }
    for name in beyond.lost.iter().take(SHOWN) {
        let what = match (beyond.damaged.contains(name), arguments.dry_run) {
            (true, _) => "and is damaged at the mirror",
            (false, true) => "and is whole at the mirror",
            (false, false) => "and is back",
        };
        talk.line(&render::visible(&format!("{name} was lost at the source {what}")))?;
    }
    talk.flush()?;
    let would = if arguments.dry_run { "would be " } else { "" };
    talk.tell(&format!(
        "{} {would}copied ({}), {} were there",
        render::count(report.copied, "object", "objects"),
        render::size(report.copied_bytes),
        report.present
    ));
    if report.foreign > 0 {
        let files = render::count(report.foreign, "file", "files");
        talk.tell(&format!("{files} left out: no part of a repository"));
    }
    match &beyond.followed {
        Some(followed) => {
            let objects = render::count(followed.deleted, "object", "objects");
            talk.tell(&format!("{objects} {would}deleted ({})", render::size(followed.deleted_bytes)));
        }
        None if !arguments.lost && !report.only_at_target.is_empty() => talk.tell(&format!(
            "{} only at the mirror: deleted at the source (--delete follows) or lost there (--heal --lost)",
            render::count(report.only_at_target.len() as u64, "object", "objects")
        )),
        None => {}
    }
    Ok(())
}
