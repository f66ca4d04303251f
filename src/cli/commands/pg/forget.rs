//! `chronolith pg forget`.

use super::Cluster;
use crate::cli::commands::keep::{KeepRules, refused};
use crate::cli::commands::prune;
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render::{self, Align, Table};
use crate::cli::session::Session;
use crate::ops::forget::require_may_forget;
use crate::ops::prune::{PruneOptions, require_allowed};
use crate::ops::retention;
use crate::postgres::Lsn;
use crate::postgres::retention::{ClusterPlan, ClusterPolicy, ClusterRetention, LineagePlan};
use crate::timeline::Interval;
use clap::Args;
use serde_json::{Value, json};

/// Runs of segments that are shown to people; --json has up to 100.
const SHOWN: usize = 20;

/// Says which base backups of a cluster, and what of its log, are no longer needed
///
/// Both together: a base backup that stays keeps the log without which it is worth nothing. Without --keep-wal it keeps
/// all log behind it too; with it, the log of older ones goes but for that. Base backups whose log is not
/// all archived take no other one's place. Pinned ones stay, and at least one good one. Shows what can be
/// recovered before and after. What is forgotten is still there until it is pruned.
///
/// N is a number of base backups, `all`, or an interval back from the newest one, such as 7d or 1y6m.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub cluster: Cluster,
    /// Keeps the newest N base backups that were taken with --full (or were the first), and all that were taken
    /// since the oldest of these
    #[arg(long, value_name = "N")]
    pub keep_full: Option<u32>,
    /// Keeps every moment of this interval recoverable, back from now or from when anything was archived last;
    /// without rules for base backups, also all base backups in it
    #[arg(long, value_name = "INTERVAL")]
    pub keep_wal: Option<String>,
    #[command(flatten)]
    pub keep: KeepRules,
    /// Goes on though objects of the log cannot be read; they stay, what only they lead to does not
    #[arg(long)]
    pub despite_unreadable: bool,
    /// Shows what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Permits that the cluster loses its last good base backup
    #[arg(long)]
    pub unsafe_allow_remove_all: bool,
    /// Prunes afterwards, as `chronolith prune` does
    #[arg(long)]
    pub prune: bool,
    #[command(flatten)]
    pub bounds: prune::Bounds,
}

impl Arguments {
    fn policy(&self) -> Result<ClusterPolicy, Fault> {
        let log = self.keep_wal.as_ref().map(|text| retention::Interval::parse(text));
        let policy = ClusterPolicy {
            full: self.keep_full,
            bases: self.keep.policy()?,
            log: log.transpose().map_err(refused)?,
            allow_remove_all: self.unsafe_allow_remove_all,
        };
        if policy.is_empty() {
            return Err(Fault::usage(
                "no policy that would keep anything was given: nothing was forgotten",
                "say what to keep, such as --keep-daily 7 --keep-wal 7d; `chronolith forget` takes base backups by name",
            ));
        }
        Ok(policy)
    }
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let cluster = arguments.cluster.name(session)?;
    session.doing(format!("forget base backups and log of {cluster} in {}", session.place()?));
    let policy = arguments.policy()?;
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
    let retention = ClusterRetention::read(&repository, &snapshots, &cluster)?;
    if retention.is_empty() {
        return Err(Fault::Plain {
            class: crate::base::ErrorClass::NotFound,
            why: format!("there is neither log nor a base backup of the cluster {cluster} here"),
            advice: "check the name; the server's archive_command says which it archives under".to_owned(),
        });
    }
    let unreadable = retention.unreadable();
    if unreadable > 0 && !arguments.despite_unreadable {
        let count = render::count(unreadable as u64, "object", "objects");
        return Err(Fault::Plain {
            class: crate::base::ErrorClass::Corrupt,
            why: format!("{count} of the log cannot be read, so that it is not known what leads where: nothing was forgotten"),
            advice: "`chronolith pg timeline` names them; bring them back (`chronolith parity repair`, another copy), or \
                     give --despite-unreadable"
                .to_owned(),
        });
    }
    let plan = retention.plan(&snapshots, &policy, &crate::cli::edges::zone())?;
    for lineage in &plan.lineages {
        match session.settings.json {
            true => write_events(session, lineage)?,
            false => write_lines(session, &cluster.to_string(), lineage)?,
        }
    }
    session.talk.flush()?;
    let annotations = match arguments.dry_run {
        true => Vec::new(),
        false => retention.forget(&snapshots, &plan)?,
    };
    let figures = Figures::of(&plan);
    let said = figures.said();
    session.talk.tell(&match arguments.dry_run {
        true => format!("{said} would be forgotten"),
        false => format!("{said} forgotten"),
    });
    let pruned = match arguments.prune {
        true => {
            session.doing(format!("prune {} ({said} forgotten before)", session.place()?));
            let options = PruneOptions {
                dry_run: arguments.dry_run,
                as_forgotten: plan.forgotten_bases().collect(),
                as_forgotten_logs: plan.forgotten_logs().collect(),
                ..bounds
            };
            Some(prune::prune_now(session, &repository, &options)?)
        }
        false => None,
    };
    let annotations: Vec<String> = annotations.iter().map(ToString::to_string).collect();
    session.talk.event(
        "summary",
        json!({
            "cluster": cluster.to_string(),
            "dry_run": arguments.dry_run,
            "forgotten_bases": figures.bases,
            "kept_bases": figures.kept_bases,
            "forgotten_segments": figures.segments,
            "kept_segments": figures.kept_segments,
            "forgotten_objects": figures.objects,
            "forgotten_bytes": figures.bytes,
            "window_from": plan.window.map(events::time),
            "annotations": annotations,
            "prune": pruned,
        }),
    )?;
    Ok(exit::DONE)
}

/// How much goes and stays.
struct Figures {
    bases: u64,
    kept_bases: u64,
    segments: u64,
    kept_segments: u64,
    objects: u64,
    bytes: u64,
}

impl Figures {
    fn of(plan: &ClusterPlan) -> Self {
        let sum = |of: &dyn Fn(&LineagePlan) -> u64| plan.lineages.iter().map(of).sum::<u64>();
        let bases = plan.forgotten_bases().count() as u64;
        Self {
            bases,
            kept_bases: sum(&|lineage| lineage.bases.len() as u64) - bases,
            segments: sum(&|lineage| lineage.segments),
            kept_segments: sum(&|lineage| lineage.kept.values().sum()),
            objects: sum(&|lineage| lineage.objects.len() as u64),
            bytes: sum(&|lineage| lineage.bytes),
        }
    }

    fn said(&self) -> String {
        format!(
            "{} and {} of log with {}",
            render::count(self.bases, "base backup", "base backups"),
            render::count(self.segments, "segment", "segments"),
            render::size(self.bytes)
        )
    }
}

fn write_lines(session: &Session, cluster: &str, plan: &LineagePlan) -> Result<(), Fault> {
    let line = |text: &str| session.talk.line(&render::visible(text));
    line(&format!("cluster {cluster}: {}", plan.lineage))?;
    let mut table = Table::new(&[
        ("", Align::Left),
        ("base backup", Align::Left),
        ("ended", Align::Left),
        ("timeline", Align::Right),
        ("log", Align::Left),
        ("kept by", Align::Left),
    ]);
    for base in &plan.bases {
        let reasons: Vec<String> = base.reasons.iter().map(ToString::to_string).collect();
        table.row(vec![
            if reasons.is_empty() { "forget" } else { "keep" }.to_owned(),
            base.id.short(),
            render::time(base.stopped),
            base.timeline.to_string(),
            if base.good { "complete" } else { "MISSING" }.to_owned(),
            reasons.join(", "),
        ]);
    }
    if !plan.bases.is_empty() {
        table.lines().iter().try_for_each(|text| line(text))?;
    }
    for (reason, count) in &plan.kept {
        line(&format!("keep {}: {reason}", render::count(*count, "segment", "segments")))?;
    }
    for (first, last, count) in plan.ranges.iter().take(SHOWN) {
        line(&format!("forget {}: {first} to {last}", render::count(*count, "segment", "segments")))?;
    }
    if plan.ranges.len() > SHOWN {
        line("forget more runs of segments (--json has them)")?;
    }
    let files = plan.files - plan.segments;
    if files > 0 {
        line(&format!("forget {} of the log", render::count(files, "other file", "other files")))?;
    }
    for (word, intervals) in [("recoverable now", &plan.before), ("recoverable then", &plan.after)] {
        if intervals.is_empty() {
            line(&format!("{word}: nothing"))?;
        }
        for interval in intervals {
            line(&format!("{word} on timeline {}: {}", interval.timeline, reaches(interval)))?;
        }
    }
    Ok(())
}

fn reaches(interval: &Interval) -> String {
    let until = match interval.to_time {
        Some(time) => format!("before {}", render::time(time)),
        None => "the end of the base backup only".to_owned(),
    };
    let (from, to) = (Lsn(interval.from), Lsn(interval.to));
    format!("from {} to {until} ({from} to {to})", render::time(interval.from_time))
}

fn write_events(session: &Session, plan: &LineagePlan) -> Result<(), Fault> {
    let identifier = plan.lineage.system_identifier.to_string();
    let event = |name: &str, mut fields: Value| {
        if let Value::Object(fields) = &mut fields {
            fields.insert("system_identifier".to_owned(), json!(identifier));
        }
        session.talk.event(name, fields)
    };
    for base in &plan.bases {
        let reasons: Vec<String> = base.reasons.iter().map(ToString::to_string).collect();
        event(
            "decision",
            json!({
                "snapshot": base.id.to_string(),
                "timeline": base.timeline,
                "stopped": events::time(base.stopped),
                "complete": base.good,
                "keep": !reasons.is_empty(),
                "reasons": reasons,
            }),
        )?;
    }
    for (reason, segments) in &plan.kept {
        event("kept_log", json!({ "segments": segments, "reason": reason.to_string() }))?;
    }
    for (first, last, segments) in &plan.ranges {
        event("forgotten_log", json!({ "first": first, "last": last, "segments": segments }))?;
    }
    for (when, intervals) in [("before", &plan.before), ("after", &plan.after)] {
        for interval in intervals {
            event(
                "interval",
                json!({
                    "when": when,
                    "timeline": interval.timeline,
                    "bases": interval.bases,
                    "from_lsn": Lsn(interval.from).to_string(),
                    "from": events::time(interval.from_time),
                    "to_lsn": Lsn(interval.to).to_string(),
                    "to": interval.to_time.map(events::time),
                    "cut": interval.cut,
                }),
            )?;
        }
    }
    Ok(())
}
