//! What is archived of a log.

use super::path::TimelinePath;
use crate::base::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// A segment that is archived: whole, or its beginning. Or a stretch of many that follow each other without a hole, as
/// a merged log pack sums them up: where one stands, all of them do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSegment {
    /// The name of its file; of a stretch, of the first.
    pub name: String,
    /// The name of the last file of a stretch; else its own.
    pub last: String,
    /// How many segments it stands for.
    pub count: u64,
    /// The timeline.
    pub timeline: u64,
    /// Where it begins.
    pub start: u64,
    /// Where the next one begins.
    pub end: u64,
    /// Where what is written in it ends: before its end, where the server went on to the next one early, or
    /// where only its beginning is archived.
    pub written_end: u64,
    /// Whether it is archived whole: behind one that is not, nothing follows without a hole.
    pub whole: bool,
    /// The earliest and the latest time at which a transaction ended in it; `None` if none did, or if that
    /// is not known.
    pub commits: Option<(Timestamp, Timestamp)>,
    /// Whether its records could be read, so that what is not noted is not there.
    pub known: bool,
    /// Named places in it.
    pub points: Vec<(String, u64)>,
}

/// A backup that recovery can begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBase {
    /// What it is called.
    pub name: String,
    /// The timeline on which it was made.
    pub timeline: u64,
    /// Where replay begins.
    pub start: u64,
    /// How far replay must come for it to be consistent.
    pub stop: u64,
    /// When it ended, by the server's clock.
    pub stopped: Timestamp,
    /// Whether it brings the log from `start` to `stop` with it.
    pub holds_log: bool,
}

/// The archived log of one lineage: all of its timelines.
#[derive(Debug, Clone, Default)]
pub struct LogStream {
    /// Length of all segments; 0 only where there are none.
    segment_bytes: u64,
    segments: BTreeMap<(u64, u64), LogSegment>,
    paths: BTreeMap<u64, TimelinePath>,
    damaged: BTreeSet<u64>,
}

/// How far a log reaches from a place on.
#[derive(Debug, Clone)]
pub struct Reach<'a> {
    /// The segments, in order.
    pub segments: Vec<&'a LogSegment>,
    /// Where what is missing would begin: a segment, or the rest of one.
    pub end: u64,
    /// Where what is written ends.
    pub written_end: u64,
    /// The next segment of the way that is there although one is missing before it.
    pub next: Option<&'a LogSegment>,
}

impl LogSegment {
    /// Returns where what is archived of it ends.
    pub fn held_end(&self) -> u64 {
        if self.whole { self.end } else { self.written_end }
    }
}

impl Reach<'_> {
    /// Returns the latest time at which a transaction ended in it.
    pub fn latest(&self) -> Option<Timestamp> {
        self.segments.iter().filter_map(|segment| Some(segment.commits?.1)).max()
    }
}

impl LogStream {
    /// An empty log whose segments have this length.
    pub fn new(segment_bytes: u64) -> Self {
        Self { segment_bytes: segment_bytes.max(1), ..Self::default() }
    }

    /// Adds a segment; of two at one place the first counts.
    pub fn add_segment(&mut self, segment: LogSegment) {
        self.segments.entry((segment.timeline, segment.start)).or_insert(segment);
    }

    /// Returns the log as it is without some segments, by name.
    #[must_use]
    pub fn without(&self, names: &BTreeSet<String>) -> Self {
        let mut rest = self.clone();
        rest.segments.retain(|_, segment| !names.contains(&segment.name));
        rest
    }

    /// Returns the log as it is without some segments, by name, and with no histories but those of some
    /// timelines.
    #[must_use]
    pub fn left(&self, gone: &BTreeSet<String>, histories: &BTreeSet<u64>) -> Self {
        let mut rest = self.without(gone);
        rest.paths.retain(|timeline, _| histories.contains(timeline));
        rest
    }

    /// Adds the way to a timeline; of two histories the first counts.
    pub fn add_path(&mut self, path: TimelinePath) {
        self.paths.entry(path.last()).or_insert(path);
    }

    /// Notes that the history of a timeline is there and cannot be used.
    pub fn add_damaged_history(&mut self, timeline: u64) {
        self.damaged.insert(timeline);
    }

    /// Returns the newest timeline that is known to exist and whose history cannot be used.
    pub fn newest_without_history(&self) -> Option<u64> {
        let of_segments = self.segments.keys().map(|(timeline, _)| *timeline);
        let known = of_segments.chain(self.damaged.iter().copied());
        known.filter(|timeline| *timeline > 1 && !self.has_history(*timeline)).max()
    }

    /// Returns the length of segments.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Returns where the segment that holds a position begins.
    pub fn segment_start(&self, position: u64) -> u64 {
        position - position % self.segment_bytes.max(1)
    }

    /// Returns all segments, by timeline and position.
    pub fn segments(&self) -> impl Iterator<Item = &LogSegment> {
        self.segments.values()
    }

    /// Returns the segments of one timeline, in order.
    pub fn segments_of(&self, timeline: u64) -> impl Iterator<Item = &LogSegment> {
        self.segments.range((timeline, 0)..=(timeline, u64::MAX)).map(|(_, segment)| segment)
    }

    /// Returns how many segments there are, each of a stretch by itself.
    pub fn count(&self) -> u64 {
        self.segments().map(|segment| segment.count).sum()
    }

    /// Returns what holds a position of a timeline.
    pub fn holding(&self, timeline: u64, position: u64) -> Option<&LogSegment> {
        let (_, segment) = self.segments.range((timeline, 0)..=(timeline, position)).next_back()?;
        (segment.end > position).then_some(segment)
    }

    /// Says whether anything of a stretch of a timeline is there.
    pub fn overlaps(&self, timeline: u64, (start, end): (u64, u64)) -> bool {
        let last = self.segments.range((timeline, 0)..(timeline, end)).next_back();
        last.is_some_and(|(_, segment)| segment.end > start)
    }

    /// Returns where ways that are known leave a timeline.
    pub fn forks_of(&self, timeline: u64) -> impl Iterator<Item = u64> {
        let branches = self.paths.values().flat_map(TimelinePath::branches);
        branches.filter(move |branch| branch.timeline == timeline).filter_map(|branch| branch.end)
    }

    /// Returns the timelines of which anything is known.
    pub fn timelines(&self) -> BTreeSet<u64> {
        let of_segments = self.segments.keys().map(|(timeline, _)| *timeline);
        of_segments.chain(self.paths.keys().copied()).collect()
    }

    /// Returns the timelines whose history is lost: that of any but the first must be there for whoever
    /// recovers to find it, or one above it (R9).
    pub fn lost_histories(&self) -> Vec<u64> {
        let newest = self.timelines().last().copied().unwrap_or(0);
        // The ancestors that histories name need none for their own sake, but those who look for the newest
        // timeline ask for one after the other.
        let first = self.timelines().first().copied().unwrap_or(1);
        (first.max(1) + 1..=newest).take(1000).filter(|timeline| !self.paths.contains_key(timeline)).collect()
    }

    /// Returns the way to a timeline; `None` where its history is lost.
    pub fn path(&self, timeline: u64) -> Option<TimelinePath> {
        let known = self.paths.get(&timeline).cloned();
        // The first timeline has no history.
        known.or_else(|| (timeline == 1 || self.is_first(timeline)).then(|| TimelinePath::root(timeline)))
    }

    /// Says whether the history of a timeline is there.
    pub fn has_history(&self, timeline: u64) -> bool {
        self.paths.contains_key(&timeline)
    }

    /// Says whether this is the oldest timeline that is known: archiving began on it.
    fn is_first(&self, timeline: u64) -> bool {
        self.timelines().first() == Some(&timeline)
    }

    /// Returns the segment that a recovery along a way reads at a position. Where a timeline begins within a
    /// segment that is its own copy: the parent's goes on with what is not on the way.
    pub fn segment_on(&self, path: &TimelinePath, position: u64) -> Option<&LogSegment> {
        let start = self.segment_start(position);
        self.holding(path.at(self.last_of(start)?).timeline, start)
    }

    fn last_of(&self, start: u64) -> Option<u64> {
        start.checked_add(self.segment_bytes)?.checked_sub(1)
    }

    /// Returns how far the log reaches on a way from a position on.
    pub fn reach(&self, path: &TimelinePath, from: u64) -> Reach<'_> {
        let mut at = self.segment_start(from);
        let mut reach = Reach { segments: Vec::new(), end: at, written_end: from, next: None };
        while let Some(segment) = self.segment_on(path, at) {
            // A way may leave a timeline in the midst of a stretch: what follows there is not on it.
            let left = self.last_of(at).and_then(|last| path.at(last).end).map(|end| self.segment_start(end));
            let end = left.map_or(segment.end, |left| left.min(segment.end)).max(at);
            reach.segments.push(segment);
            reach.end = segment.held_end().min(end);
            reach.written_end = segment.written_end.min(end);
            if !segment.whole || end <= at {
                break;
            }
            at = end;
        }
        reach.next = self.next_on(path, reach.end);
        reach
    }

    /// Returns the first segment of a way behind a position.
    fn next_on(&self, path: &TimelinePath, position: u64) -> Option<&LogSegment> {
        let on_way = |segment: &&LogSegment| path.at(segment.end - 1).timeline == segment.timeline;
        let of_branch = |timeline| {
            let later = self.segments.range((timeline, position)..=(timeline, u64::MAX));
            later.map(|(_, segment)| segment).find(on_way)
        };
        path.branches().filter_map(|branch| of_branch(branch.timeline)).min_by_key(|segment| segment.start)
    }
}
