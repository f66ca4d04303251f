//! Where to begin: at the segment in which the slot stands; further on, where the archive holds what follows;
//! before it, where the archive ends before it.

use super::status::no_slot;
use super::{Failure, Run};
use crate::format::log::LogRecordKind;
use crate::ops::OpsError;
use crate::postgres::error::PostgresError;
use crate::postgres::history::read_history;
use crate::postgres::lineage::{Lineage, lineages, stream_of};
use crate::postgres::replication::{Identity, Replication, ReplicationError};
use crate::postgres::segment::{Lsn, SegmentName, SegmentSize};
use crate::postgres::stream::read_log;
use crate::repo::holds_whole;
use crate::timeline::TimelinePath;

const ASK: &str = "ask";

/// Histories as they came, by timeline.
pub(super) type Histories = Vec<(u32, Vec<u8>)>;

/// What a server has said of itself, and what is archived of it.
pub(super) struct Known {
    pub identity: Identity,
    pub size: SegmentSize,
    /// The way to the server's timeline.
    pub path: TimelinePath,
    /// The histories of its timelines.
    pub histories: Histories,
    /// What is archived; `None` before anything is.
    lineage: Option<Lineage>,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begin {
    pub timeline: u64,
    pub start: Lsn,
    /// What the slot keeps the log from; the server is told of nothing before it.
    pub kept_from: Lsn,
}

impl Known {
    /// Asks the server, and refuses one whose log has no place here.
    pub fn ask(run: &Run<'_>, replication: &mut Replication) -> Result<Self, Failure> {
        let place = run.endpoint.place();
        let at = |error| Failure::of_server(error, ASK, place);
        let identity = replication.identify().map_err(at)?;
        let size = replication.segment_size().map_err(at)?;
        let cluster = &run.options.archiver.cluster;
        let known = lineages(run.repository, cluster).map_err(Failure::from)?;
        let lineage =
            known.iter().find(|known| known.system_identifier == identity.system_identifier).cloned();
        if let (None, Some(other)) = (&lineage, known.last()) {
            return Err(Failure::from(OpsError::Stopped {
                why: format!(
                    "the server at {place} is another cluster: its system identifier is {}, {cluster} has {other}",
                    identity.system_identifier
                ),
                cure: "archive this cluster under a name of its own (--cluster)",
            }));
        }
        let (path, histories) = path_to(run, replication, identity.timeline)?;
        Ok(Self { identity, size, path, histories, lineage })
    }

    /// Names the segment of the server's way that begins at a position: the one that goes on with it.
    fn name_at(&self, start: Lsn) -> Option<SegmentName> {
        let last = start.0.checked_add(self.size.bytes())?.checked_sub(1)?;
        SegmentName::at(self.path.at(last).timeline, start, self.size)
    }

    fn is_held(&self, run: &Run<'_>, name: SegmentName) -> Result<bool, Failure> {
        let stream = stream_of(&run.options.archiver.cluster, self.identity.system_identifier);
        let listing = run.repository.search_log(&stream, &name.to_string())?;
        Ok(holds_whole(&listing.found))
    }

    /// Finds where to begin. `from_slot` begins nowhere before the slot: what follows on the archived log was
    /// asked for and is gone, which is recorded.
    pub fn begin(
        &self,
        run: &Run<'_>,
        replication: &mut Replication,
        from_slot: bool,
    ) -> Result<Begin, Failure> {
        let restart = self.restart(run, replication)?;
        let mut start = self.size.start_of(restart.unwrap_or(self.identity.position));
        let mut timeline = self.path.at(restart.unwrap_or(self.identity.position).0).timeline;
        let kept_from = restart.unwrap_or_default();
        let begin = |timeline, start| Begin { timeline, start, kept_from };
        if self.lineage.is_none() {
            return Ok(begin(timeline, start));
        }
        // Forward over what the server has archived by itself.
        while let Some(name) = self.name_at(start).filter(|name| name.timeline() == timeline)
            && let Some(end) = start.0.checked_add(self.size.bytes())
            && end <= self.identity.position.0
            && self.is_held(run, name)?
        {
            start = Lsn(end);
            timeline = self.path.at(end).timeline;
        }
        let before = start.0.checked_sub(self.size.bytes()).and_then(|before| self.name_at(Lsn(before)));
        let Some(before) = before else { return Ok(begin(timeline, start)) };
        if self.is_held(run, before)? {
            return Ok(begin(timeline, start));
        }
        let Some(held) = self.held_end(run, start)? else { return Ok(begin(timeline, start)) };
        let missing = self.size.start_of(held);
        match from_slot {
            false => Ok(begin(self.path.at(missing.0).timeline, missing)),
            true => {
                self.record_gap(run, missing, before)?;
                Ok(begin(timeline, start))
            }
        }
    }

    /// Asks for the slot, makes it if that is wanted; returns from where on the server keeps its log for it.
    fn restart(&self, run: &Run<'_>, replication: &mut Replication) -> Result<Option<Lsn>, Failure> {
        let (slot, place) = (&run.options.slot, run.endpoint.place());
        let at = |error| Failure::of_server(error, "use a replication slot of", place);
        if run.options.create_slot {
            match replication.create_slot(slot) {
                Err(error) if !error.is("42710") => return Err(at(error)),
                _ => {}
            }
        }
        match replication.slot(slot) {
            Ok(Some(slot)) => Ok(slot.restart.map(|(lsn, _)| lsn)),
            Ok(None) => Err(Failure::from(no_slot(
                slot,
                place,
                "--create-slot makes it; the server keeps its log for a slot from then on",
            ))),
            // Servers before 15 do not know the question.
            Err(error) if error.is("42601") => Ok(None),
            Err(error) => Err(at(error)),
        }
    }

    /// Returns where what is archived on the way ends, before a position; `None` where nothing is.
    fn held_end(&self, run: &Run<'_>, position: Lsn) -> Result<Option<Lsn>, Failure> {
        let Some(lineage) = self.lineage.clone() else { return Ok(None) };
        let log = read_log(run.repository, &run.options.archiver.cluster, lineage)?;
        let on_way = log.stream.segments().filter(|segment| {
            segment.start < position.0 && self.path.at(segment.end - 1).timeline == segment.timeline
        });
        // The beginning of a segment is received again.
        Ok(on_way.map(|segment| if segment.whole { segment.end } else { segment.start }).max().map(Lsn))
    }

    /// Records that segments will never come, once.
    fn record_gap(&self, run: &Run<'_>, missing: Lsn, last: SegmentName) -> Result<(), Failure> {
        let (Some(first), Some(lineage)) = (self.name_at(missing), &self.lineage) else { return Ok(()) };
        let archiver = &run.options.archiver;
        let stream = lineage.stream(&archiver.cluster);
        let recorded = run.repository.log_records(&stream)?.found.iter().any(|found| {
            let record = &found.record;
            record.kind == LogRecordKind::Gap
                && record.name == first.to_string()
                && record.last_name.as_ref() == Some(&last.to_string())
        });
        if !recorded {
            (run.tell)(super::Happening::Gap { first, last });
            let mut entry = archiver.entry(stream, &first.to_string(), lineage);
            entry.timeline = Some(first.timeline());
            let reason = "the server removed this log before it was received";
            run.repository.record_gap(&entry, &last.to_string(), reason)?;
            run.count(|report| report.gaps += 1);
        }
        Ok(())
    }
}

/// Fetches the way to a timeline, and the histories of all on it.
pub(super) fn path_to(
    run: &Run<'_>,
    replication: &mut Replication,
    timeline: u32,
) -> Result<(TimelinePath, Histories), Failure> {
    if timeline <= 1 {
        return Ok((TimelinePath::root(u64::from(timeline)), Vec::new()));
    }
    let place = run.endpoint.place();
    let at = |error: ReplicationError| match error.may_pass() {
        true => Failure::Passing(error.at(ASK, place)),
        false => Failure::Final(error.at(ASK, place)),
    };
    let own = replication.history(timeline).map_err(at)?;
    let path = read_history(u64::from(timeline), &own).map_err(|error| {
        let what = format!("a history file of the server at {place}");
        Failure::from(PostgresError::Damaged { what, why: error.to_string() })
    })?;
    let mut histories = Vec::new();
    for branch in
        path.branches().filter(|branch| branch.timeline > 1 && branch.timeline < u64::from(timeline))
    {
        let Ok(ancestor) = u32::try_from(branch.timeline) else { continue };
        match replication.history(ancestor) {
            Ok(content) => histories.push((ancestor, content)),
            Err(error @ ReplicationError::Refused { .. }) => run.observer().warn(&format!(
                "the server does not have the history of timeline {ancestor}, which is not archived from here: {error}"
            )),
            Err(error) => return Err(at(error)),
        }
    }
    histories.push((timeline, own));
    Ok((path, histories))
}
