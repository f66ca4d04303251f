//! `chronolith forget`.

use super::keep::KeepRules;
use super::prune;
use super::snapshots::has_tag;
use crate::base::{Observer, SnapshotId};
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render::{self, Align, Table};
use crate::cli::session::Session;
use crate::ops::forget::{by_name, by_policy, forget, require_may_forget};
use crate::ops::prune::{PruneOptions, require_allowed};
use crate::ops::retention::{Policy, RetentionPlan};
use crate::ops::{SnapshotView, Snapshots};
use crate::postgres::base::needs_archive;
use clap::Args;
use serde_json::json;

/// Says that snapshots are no longer needed, by name or by a policy
///
/// Give snapshots, or what is to be kept; a snapshot stays when any rule keeps it. Rules apply to each
/// host and label by itself. Pinned snapshots stay, and at least one of each host and label. What is
/// forgotten is still there, and can be named by its id, until it is pruned.
///
/// N is a number of snapshots, `all`, or an interval back from the newest snapshot, such as 7d or
/// 1y6m (y, m: months, w, d, h).
#[derive(Args)]
pub struct Arguments {
    /// Forgets these, whatever a policy would say
    #[arg(value_name = "SNAP")]
    pub snapshots: Vec<String>,
    #[command(flatten)]
    pub keep: KeepRules,
    /// Looks only at snapshots of this host
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Looks only at snapshots with this label
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Looks only at snapshots with this tag; several times: with all of them
    #[arg(long, value_name = "K[=V]")]
    pub tag: Vec<String>,
    /// Shows what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Permits that a host and label loses its last snapshot
    #[arg(long)]
    pub unsafe_allow_remove_all: bool,
    /// Prunes afterwards, as `chronolith prune` does
    #[arg(long)]
    pub prune: bool,
    #[command(flatten)]
    pub bounds: prune::Bounds,
}

impl Arguments {
    fn matches(&self, view: &SnapshotView) -> bool {
        self.host.as_ref().is_none_or(|host| *host == view.snapshot.host)
            && self.label.as_ref().is_none_or(|label| *label == view.snapshot.label)
            && self.tag.iter().all(|tag| has_tag(view, tag))
    }

    fn filters(&self) -> bool {
        self.host.is_some() || self.label.is_some() || !self.tag.is_empty()
    }
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("forget snapshots of {}", session.place()?));
    let policy = Policy { allow_remove_all: arguments.unsafe_allow_remove_all, ..arguments.keep.policy()? };
    let named = !arguments.snapshots.is_empty();
    if named && (arguments.filters() || policy != empty(arguments)) {
        return Err(Fault::usage("snapshots are named, and a policy is given", "give one or the other"));
    }
    if !named && policy.is_empty() {
        return Err(Fault::usage(
            "neither snapshots nor a policy that would keep anything were given: nothing was forgotten",
            "name snapshots, or say what to keep, such as --keep-daily 7 --keep-monthly 12",
        ));
    }
    if arguments.bounds.are_given() && !arguments.prune {
        return Err(Fault::usage("bounds of a prune are given, but no prune is asked for", "add --prune"));
    }
    let bounds = arguments.bounds.options()?;
    let repository = session.open()?;
    if !arguments.dry_run {
        require_may_forget(&repository)?;
    }
    if arguments.prune {
        // Before anything is forgotten.
        require_allowed(&repository, &bounds)?;
    }
    let snapshots = session.all_snapshots(&repository)?;
    let (chosen, kept) = if named {
        let ids = arguments.snapshots.iter().map(|name| snapshots.resolve_any(name));
        let ids = ids.collect::<Result<Vec<SnapshotId>, _>>()?;
        let chosen = by_name(&snapshots, &ids, arguments.unsafe_allow_remove_all)?;
        for view in ids.iter().filter_map(|id| snapshots.get(id)).filter(|view| view.forgotten) {
            session.talk.tell(&format!("snapshot {} is forgotten already", view.id.short()));
        }
        show_named(session, &snapshots, &chosen)?;
        (chosen, 0)
    } else {
        let zone = crate::cli::edges::zone();
        // What is kept of these decides what must be kept of the archived log: no policy of one alone may.
        let wanted = |view: &SnapshotView| arguments.matches(view) && !needs_archive(&view.snapshot);
        let left = snapshots.iter().filter(|view| arguments.matches(view) && needs_archive(&view.snapshot));
        let left = left.count() as u64;
        if left > 0 {
            let bases = render::count(left, "base backup", "base backups");
            session.talk.tell(&format!(
                "{bases} with an archived log left alone: `pg forget` decides about them and the log together"
            ));
        }
        if arguments.filters() && left == 0 && !snapshots.iter().any(wanted) {
            session.talk.warn("no snapshot has this host, label and tag: nothing is forgotten");
        }
        let plan = by_policy(&repository, &snapshots, &policy, &zone, wanted)?;
        show_plan(session, &snapshots, &plan)?;
        let decisions: usize = plan.groups.iter().map(|group| group.decisions.len()).sum();
        let chosen: Vec<SnapshotId> = plan.forgotten().collect();
        let kept = decisions - chosen.len();
        (chosen, kept)
    };
    session.talk.flush()?;
    let annotations = match arguments.dry_run || chosen.is_empty() {
        true => Vec::new(),
        false => forget(&repository, &snapshots, &chosen)?,
    };
    let count = render::count(chosen.len() as u64, "snapshot", "snapshots");
    session.talk.tell(&match arguments.dry_run {
        true => format!("{count} would be forgotten"),
        false => format!("{count} forgotten"),
    });
    let pruned = match arguments.prune {
        true => {
            session.doing(format!("prune {} ({count} forgotten before)", session.place()?));
            let dry_run = arguments.dry_run;
            let options = PruneOptions { dry_run, as_forgotten: chosen.iter().copied().collect(), ..bounds };
            Some(prune::prune_now(session, &repository, &options)?)
        }
        false => None,
    };
    if session.settings.json {
        let annotations: Vec<String> = annotations.iter().map(ToString::to_string).collect();
        let fields = json!({ "forgotten": chosen.len(), "kept": kept, "dry_run": arguments.dry_run,
            "annotations": annotations, "prune": pruned });
        session.talk.event("summary", fields)?;
    }
    Ok(exit::DONE)
}

/// The policy of somebody who gave none.
fn empty(arguments: &Arguments) -> Policy {
    Policy { allow_remove_all: arguments.unsafe_allow_remove_all, ..Policy::default() }
}

fn show_named(session: &Session, snapshots: &Snapshots, chosen: &[SnapshotId]) -> Result<(), Fault> {
    for view in chosen.iter().filter_map(|id| snapshots.get(id)) {
        if session.settings.json {
            decision(session, view, &[])?;
        } else {
            let snapshot = &view.snapshot;
            let started = render::time(snapshot.started);
            let line = format!("{}  {started}  {}  {}", view.id.short(), snapshot.host, snapshot.label);
            session.talk.line(&render::visible(&line))?;
        }
    }
    Ok(())
}

fn decision(session: &Session, view: &SnapshotView, reasons: &[String]) -> Result<(), Fault> {
    let fields = json!({
        "id": view.id.to_string(),
        "host": view.snapshot.host,
        "label": view.snapshot.label,
        "started": events::time(view.snapshot.started),
        "keep": !reasons.is_empty(),
        "reasons": reasons,
    });
    session.talk.event("decision", fields)
}

fn show_plan(session: &Session, snapshots: &Snapshots, plan: &RetentionPlan) -> Result<(), Fault> {
    for group in &plan.groups {
        let mut table = Table::new(&[
            ("", Align::Left),
            ("snapshot", Align::Left),
            ("started", Align::Left),
            ("kept by", Align::Left),
        ]);
        for decision in &group.decisions {
            let Some(view) = snapshots.get(&decision.id) else { continue };
            let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
            if session.settings.json {
                self::decision(session, view, &reasons)?;
                continue;
            }
            let word = if decision.is_kept() { "keep" } else { "forget" };
            table.row(vec![
                word.to_owned(),
                view.id.short(),
                render::time(view.snapshot.started),
                reasons.join(", "),
            ]);
        }
        if session.settings.json {
            continue;
        }
        let title = format!("{} on {}", group.label, group.host);
        session.talk.line(&render::visible(&title))?;
        table.lines().iter().try_for_each(|line| session.talk.line(line))?;
    }
    Ok(())
}
