//! `chronolith pg timeline`.

use super::Cluster;
use super::drawing::draw;
use crate::base::Timestamp;
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render::{self, Align, Table};
use crate::cli::session::Session;
use crate::postgres::base::{Base, bases_of};
use crate::postgres::stream::{ClusterLog, Remark, log_base, read_cluster_of};
use crate::postgres::{Lsn, SegmentName};
use crate::timeline::{Gap, Interval, LogBase, Refusal, Target, gaps, intervals, plan};
use clap::Args;
use serde_json::{Value, json};

/// Cells of the drawing.
const DRAWING_WIDTH: usize = 64;
/// Lines of each kind that are shown to people; --json has all.
const SHOWN: usize = 40;

/// Shows what can be recovered of a cluster, to the second
///
/// Base backups, the intervals that they and the archived log cover without a hole, gaps, refused files,
/// timelines and where they branch off. The end of an interval is the last transaction in it: a target must
/// lie before that. Exits with 3 if something in the archive cannot be read.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub cluster: Cluster,
}

/// All that is shown of one lineage.
struct View {
    log: ClusterLog,
    bases: Vec<Base>,
    log_bases: Vec<LogBase>,
    intervals: Vec<Interval>,
    gaps: Vec<Gap>,
}

impl View {
    fn new(log: ClusterLog, bases: &[Base]) -> Self {
        let identifier = log.lineage.system_identifier;
        let own = bases.iter().filter(|base| base.facts.system_identifier == identifier);
        let bases: Vec<Base> = own.cloned().collect();
        let log_bases: Vec<LogBase> = bases.iter().map(log_base).collect();
        let intervals = intervals(&log.stream, &log_bases);
        let gaps = gaps(&log.stream);
        Self { log, bases, log_bases, intervals, gaps }
    }

    fn is_complete(&self, base: &Base) -> bool {
        let missing =
            plan(&self.log.stream, &log_base(base), &Target::Immediate, Some(base.facts.timeline.into()));
        !matches!(missing, Err(Refusal::Incomplete { .. }))
    }

    /// The names of the segments from one position to before another.
    fn names(&self, timeline: u64, from: u64, to: u64) -> (String, String, u64) {
        let size = self.log.lineage.segment_size;
        let name = |position| {
            SegmentName::at(timeline, Lsn(position), size).map_or_else(String::new, |name| name.to_string())
        };
        (name(from), name(to.saturating_sub(1)), (to - from) / size.bytes())
    }

    fn history(&self, timeline: u64) -> &'static str {
        let stream = &self.log.stream;
        match (stream.has_history(timeline), stream.path(timeline)) {
            (true, _) => "archived",
            (false, Some(_)) => "none",
            (false, None) => "lost",
        }
    }
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let cluster = arguments.cluster.name(session)?;
    session.doing(format!("show what can be recovered of {cluster}"));
    let repository = session.open()?;
    let bases = bases_of(&session.snapshots(&repository)?, &cluster);
    let logs = read_cluster_of(&repository, &cluster, &bases)?;
    let views: Vec<View> = logs.into_iter().map(|log| View::new(log, &bases)).collect();
    if views.is_empty() {
        return Err(Fault::Plain {
            class: crate::base::ErrorClass::NotFound,
            why: format!(
                "there is no base backup of {cluster} here, and nothing was ever archived under the cluster's name"
            ),
            advice: "check the name; the server's archive_command says which it archives under".to_owned(),
        });
    }
    for view in &views {
        match session.settings.json {
            true => write_events(session, view)?,
            false => write_lines(session, &cluster.to_string(), view)?,
        }
    }
    let problems: usize = views.iter().map(|view| view.log.refused.len()).sum();
    let recoverable: Option<Timestamp> = views
        .iter()
        .flat_map(|view| &view.intervals)
        .map(|interval| interval.to_time.unwrap_or(interval.from_time))
        .max();
    let count = |of: fn(&View) -> usize| views.iter().map(of).sum::<usize>();
    session.talk.event(
        "summary",
        json!({
            "cluster": cluster.to_string(),
            "lineages": views.len(),
            "bases": count(|view| view.bases.len()),
            "intervals": count(|view| view.intervals.len()),
            "gaps": count(|view| view.gaps.len()),
            "conflicts": count(|view| view.log.conflicts.len() + view.log.doubled.len()),
            "problems": problems,
            "recoverable_to": recoverable.map(events::time),
        }),
    )?;
    Ok(if problems == 0 { exit::DONE } else { exit::INCOMPLETE })
}

fn write_lines(session: &Session, cluster: &str, view: &View) -> Result<(), Fault> {
    let line = |text: &str| session.talk.line(&render::visible(text));
    let (stream, log) = (&view.log.stream, &view.log);
    line(&format!("cluster {cluster}: {}", log.lineage))?;
    match log.files.is_empty() && stream.count() == 0 {
        true => line("no log is archived: base backups bring back what they hold themselves")?,
        false => line(&format!(
            "{}, {} of log in {}",
            render::count(stream.count(), "segment", "segments"),
            render::size(log.bytes.0),
            render::size(log.bytes.1)
        ))?,
    }
    if log.forgotten.0 > 0 {
        let objects = render::count(log.forgotten.0, "object", "objects");
        line(&format!(
            "beside it {objects} with {}, forgotten, until they are pruned",
            render::size(log.forgotten.1)
        ))?;
    }
    for drawn in draw(stream, &view.log_bases, DRAWING_WIDTH) {
        session.talk.line(&drawn)?;
    }
    for timeline in stream.timelines() {
        if let Some((parent, at)) = stream.path(timeline).and_then(|path| path.parent()) {
            line(&format!("timeline {timeline} branches off timeline {parent} at {}", Lsn(at)))?;
        }
    }
    bases(session, view)?;
    recoverable(session, view)?;
    for gap in view.gaps.iter().take(SHOWN) {
        let (first, last, count) = view.names(gap.timeline, gap.from, gap.to);
        let count = render::count(count, "segment is", "segments are");
        line(&format!("gap on timeline {}: {count} missing: {first} to {last}", gap.timeline))?;
    }
    for timeline in stream.lost_histories() {
        line(&format!(
            "the history of timeline {timeline} is lost: whoever looks for the newest timeline stops before it"
        ))?;
    }
    for remark in log.recorded_gaps.iter().take(SHOWN) {
        line(&format!("recorded as a gap {}", said(remark)))?;
    }
    for remark in log.conflicts.iter().take(SHOWN) {
        line(&format!("refused {}", said(remark)))?;
    }
    for name in log.doubled.iter().take(SHOWN) {
        line(&format!("{name} was archived twice with different bytes; the first counts"))?;
    }
    for (object, what) in log.refused.iter().take(SHOWN) {
        let text = if what.contains(object.as_str()) { what.clone() } else { format!("{object}: {what}") };
        line(&format!("cannot be read: {text}"))?;
    }
    Ok(())
}

fn said(remark: &Remark) -> String {
    let name = match &remark.last_name {
        Some(last) => format!("{} to {last}", remark.name),
        None => remark.name.clone(),
    };
    format!("{} by {}: {name}: {}", render::time(remark.created), remark.host, remark.reason)
}

fn bases(session: &Session, view: &View) -> Result<(), Fault> {
    if view.bases.is_empty() {
        return session.talk.line("no base backup: without one nothing can be recovered");
    }
    let mut table = Table::new(&[
        ("base backup", Align::Left),
        ("ended", Align::Left),
        ("timeline", Align::Right),
        ("from", Align::Left),
        ("to", Align::Left),
        ("log", Align::Left),
    ]);
    for base in &view.bases {
        let facts = &base.facts;
        table.row(vec![
            base.view.id.short(),
            render::time(facts.stopped),
            facts.timeline.to_string(),
            facts.start.to_string(),
            facts.stop.to_string(),
            if view.is_complete(base) { "complete" } else { "MISSING" }.to_owned(),
        ]);
    }
    table.lines().iter().try_for_each(|line| session.talk.line(line))
}

fn recoverable(session: &Session, view: &View) -> Result<(), Fault> {
    for interval in view.intervals.iter().take(SHOWN) {
        let until = match interval.to_time {
            Some(time) => format!("before {}", render::time(time)),
            None if interval.to > interval.from => {
                "the end of the log: of no transaction behind the base backup is it known when it ended"
                    .to_owned()
            }
            None => "the end of the base backup only: no transaction ended after it".to_owned(),
        };
        let cut = if interval.cut { "; then a segment is missing" } else { "" };
        session.talk.line(&format!(
            "recoverable on timeline {}: from {} to {until} ({} to {}){cut}",
            interval.timeline,
            render::time(interval.from_time),
            Lsn(interval.from),
            Lsn(interval.to),
        ))?;
    }
    Ok(())
}

fn write_events(session: &Session, view: &View) -> Result<(), Fault> {
    let (log, stream) = (&view.log, &view.log.stream);
    let identifier = log.lineage.system_identifier.to_string();
    let event = |name: &str, mut fields: Value| {
        if let Value::Object(fields) = &mut fields {
            fields.insert("system_identifier".to_owned(), json!(identifier));
        }
        session.talk.event(name, fields)
    };
    event(
        "lineage",
        json!({
            "version": log.lineage.version,
            "segment_bytes": log.lineage.segment_size.bytes(),
            "segments": stream.count(),
            "files": stream.count() + log.others.len() as u64,
            "bytes": log.bytes.0,
            "stored_bytes": log.bytes.1,
            "forgotten_objects": log.forgotten.0,
            "forgotten_bytes": log.forgotten.1,
        }),
    )?;
    for base in &view.bases {
        let facts = &base.facts;
        event(
            "base",
            json!({
                "snapshot": base.view.id.to_string(),
                "timeline": facts.timeline,
                "start_lsn": facts.start.to_string(),
                "stop_lsn": facts.stop.to_string(),
                "started": events::time(facts.started),
                "stopped": events::time(facts.stopped),
                "from": if facts.from_standby { "standby" } else { "primary" },
                "wal": if log_base(base).holds_log { "inside" } else { "archive" },
                "complete": view.is_complete(base),
            }),
        )?;
    }
    for timeline in stream.timelines() {
        let parent = stream.path(timeline).and_then(|path| path.parent());
        let held = || stream.segments_of(timeline);
        event(
            "timeline",
            json!({
                "timeline": timeline,
                "parent": parent.map(|(parent, _)| parent),
                "forked_at": parent.map(|(_, at)| Lsn(at).to_string()),
                "history": view.history(timeline),
                "segments": held().map(|segment| segment.count).sum::<u64>(),
                "first": held().next().map(|segment| &segment.name),
                "last": held().last().map(|segment| &segment.last),
            }),
        )?;
    }
    for interval in &view.intervals {
        event(
            "interval",
            json!({
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
    for gap in &view.gaps {
        let (first, last, segments) = view.names(gap.timeline, gap.from, gap.to);
        let fields = json!({ "timeline": gap.timeline, "first": first, "last": last, "segments": segments });
        event("gap", fields)?;
    }
    for (name, remarks) in [("conflict", &log.conflicts), ("recorded_gap", &log.recorded_gaps)] {
        for remark in remarks {
            event(
                name,
                json!({
                    "name": remark.name,
                    "last_name": remark.last_name,
                    "recorded": events::time(remark.created),
                    "host": remark.host,
                    "reason": remark.reason,
                }),
            )?;
        }
    }
    for name in &log.doubled {
        let fields = json!({
            "name": name, "last_name": null, "recorded": null, "host": null,
            "reason": "it was archived twice with different bytes; the first counts",
        });
        event("conflict", fields)?;
    }
    let problems = log.refused.iter();
    problems
        .into_iter()
        .try_for_each(|(object, what)| event("problem", json!({ "object": object, "what": what })))
}
