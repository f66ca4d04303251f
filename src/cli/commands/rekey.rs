//! `chronolith key rotate` and `chronolith key revoke`.

use crate::base::ObjectId;
use crate::cli::edges;
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::format::kind::ObjectKind;
use crate::ops::keys;
use crate::ops::read_time;
use crate::ops::rotation::{Accept, RevocationPlan, rotate};
use clap::Args;
use serde_json::json;
use std::collections::BTreeSet;

/// Lines of objects that are shown to people; --json has all.
const SHOWN: usize = 50;

#[derive(Args)]
pub struct Revoke {
    /// The id of the key (8 digits or more), or its name
    #[arg(value_name = "KEY")]
    key: String,
    /// Still accepts what the store received before this time: the last at which the key was in good hands
    #[arg(long, value_name = "TIME", group = "accepted")]
    accept_before: Option<String>,
    /// Still accepts everything that is there now
    #[arg(long, group = "accepted")]
    accept_all: bool,
    /// Accepts nothing that it ever signed
    #[arg(long, group = "accepted")]
    accept_none: bool,
    /// Still accepts this object, by its whole id; several times: several
    #[arg(long, value_name = "ID")]
    accept: Vec<String>,
    /// Adopts nothing any more that was sealed while the key was granted: later backups store all of it again
    #[arg(long)]
    close_epochs: bool,
    /// Shows what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Begins a new epoch.
pub fn rotate_keys(session: &Session) -> Result<u8, Fault> {
    let repository = session.open()?;
    let epoch = rotate(&repository)?;
    session.talk.tell(&format!(
        "epoch {epoch} has begun: what is backed up from now on is sealed with new keys; nothing old was sealed again"
    ));
    session
        .talk
        .tell("recovery sheets of before still open everything while the registry is there; export new ones");
    session.talk.event("summary", json!({ "epoch": epoch }))?;
    Ok(exit::DONE)
}

impl Revoke {
    fn accepted(&self, session: &Session) -> Result<Accept, Fault> {
        if self.accept_all {
            return Ok(Accept::Everything);
        }
        if self.accept_none {
            return Ok(Accept::Nothing);
        }
        let Some(text) = &self.accept_before else {
            return Err(Fault::usage(
                "it was not said what of the key's objects is still accepted",
                "give --accept-before TIME (when the key was last in good hands), --accept-all or --accept-none",
            ));
        };
        let zone = edges::zone();
        let now = crate::base::Clock::now(&edges::SystemClock);
        let read = read_time(text, now, &zone).ok_or_else(|| {
            Fault::usage(
                format!("{text:?} is no time"),
                "write 2026-01-15 14:30 or 2026-01-15T14:30:00+01:00",
            )
        })?;
        session.talk.tell(&format!("what the store received before {} is accepted", render::time(read.time)));
        Ok(Accept::Before(read.time))
    }
}

fn word(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::ContentPack => "content packs",
        ObjectKind::MetadataPack => "metadata packs",
        ObjectKind::IndexRun => "index runs",
        ObjectKind::Snapshot => "snapshots",
        ObjectKind::LogPack => "log segments",
        ObjectKind::LogRecord => "log records",
        ObjectKind::Annotation => "annotations",
        ObjectKind::Condemned => "condemnations",
        ObjectKind::Damaged => "reports of damage",
        ObjectKind::Catalog => "catalogues",
        ObjectKind::Parity => "parity objects",
        _ => "other objects",
    }
}

/// Ends a key that is in the wrong hands.
pub fn revoke(session: &Session, revoke: &Revoke) -> Result<u8, Fault> {
    let accept = revoke.accepted(session)?;
    let also = revoke.accept.iter().map(|text| {
        text.parse::<ObjectId>().map_err(|error| Fault::usage(error.to_string(), "give whole ids"))
    });
    let also = also.collect::<Result<BTreeSet<_>, _>>()?;
    let repository = session.open()?;
    let key = keys::find(&keys::list(&repository)?, &revoke.key)?;
    let plan = RevocationPlan::new(&repository, &key, &accept, &also, revoke.close_epochs)?;
    if session.settings.json {
        for object in &plan.objects {
            let fields = json!({
                "object": object.name, "kind": word(object.kind), "accepted": object.accepted,
                "stored": object.stored.map(events::time),
            });
            session.talk.event("object", fields)?;
        }
    } else {
        for (kind, (all, accepted)) in plan.counts() {
            session.talk.line(&format!("{}: {accepted} of {all} still accepted", word(kind)))?;
        }
        let refused = || plan.objects.iter().filter(|o| o.kind == ObjectKind::Snapshot && !o.accepted);
        for object in refused().take(SHOWN) {
            let stored = object.stored.map(render::time).unwrap_or_default();
            session.talk.line(&format!("no longer accepted: snapshot {} ({stored})", object.id.short()))?;
        }
        let more = refused().count().saturating_sub(SHOWN);
        if more > 0 {
            session.talk.line(&format!("... and {more} more snapshots (--json has them)"))?;
        }
    }
    session.talk.flush()?;
    let epoch = if revoke.dry_run { None } else { Some(plan.run(&repository)?) };
    let accepted = plan.objects.iter().filter(|object| object.accepted).count();
    let fields = json!({ "revoked": key.to_string(), "dry_run": revoke.dry_run, "epoch": epoch,
        "accepted": accepted, "refused": plan.objects.len() - accepted });
    session.talk.event("summary", fields)?;
    session.talk.tell(&match epoch {
        None => "nothing was changed".to_owned(),
        Some(epoch) => format!(
            "revoked the {} key {} ({}); epoch {epoch} has begun without it",
            plan.key.role.name(),
            key.short(),
            plan.key.name
        ),
    });
    Ok(exit::DONE)
}
