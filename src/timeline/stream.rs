//! What is archived of a log.

use super::path::{Branch, TimelinePath};
use crate::base::Timestamp;
use std::borrow::Cow;
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
    /// Where stretches begin that somebody let go, by timeline, with their ends.
    forgotten: BTreeMap<(u64, u64), u64>,
}

/// How far a log reaches from a place on.
#[derive(Debug, Clone)]
pub struct Reach<'a> {
    /// The segments, in order; of one in which the way leaves its timeline, what lies before that.
    pub segments: Vec<Cow<'a, LogSegment>>,
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

    /// Returns what of it lies before a position. Which of its transactions do, nobody knows, unless all do.
    fn before(&self, position: u64) -> Self {
        let holds_more = self.written_end > position;
        Self {
            written_end: self.written_end.min(position),
            whole: false,
            commits: self.commits.filter(|_| !holds_more),
            known: self.known && !holds_more,
            points: self.points.iter().filter(|(_, at)| *at <= position).cloned().collect(),
            ..self.clone()
        }
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

    /// Notes that a stretch was let go, so that nobody takes it for lost.
    pub fn add_forgotten(&mut self, timeline: u64, (start, end): (u64, u64)) {
        let known = self.forgotten.entry((timeline, start)).or_insert(end);
        *known = end.max(*known);
    }

    /// Returns the parts of a stretch that nobody let go, in order.
    pub(super) fn not_forgotten(&self, timeline: u64, (start, end): (u64, u64)) -> Vec<(u64, u64)> {
        let (mut at, mut parts) = (start, Vec::new());
        for ((_, from), to) in self.forgotten.range((timeline, 0)..(timeline, end)) {
            if *from > at {
                parts.push((at, *from));
            }
            at = at.max(*to);
        }
        if at < end {
            parts.push((at, end));
        }
        parts
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

    /// Returns the segment that a recovery along a way reads at a place, and where the way leaves its timeline. Where a
    /// timeline begins within a segment, its own begins with a copy of what its parent wrote; as long as that is not
    /// there, the parent's has the same records up to there. So of all timelines that write in a segment the newest
    /// is taken that has it, as servers do.
    fn segment_on(&self, path: &TimelinePath, start: u64, from: u64) -> Option<(&LogSegment, Option<u64>)> {
        let writes = |branch: &&Branch| {
            let is_left = branch.end.is_some_and(|end| end <= start.max(from));
            self.segment_start(branch.begin) <= start && !is_left
        };
        let held = |branch: &Branch| Some((self.holding(branch.timeline, start)?, branch.end));
        path.branches().rev().filter(writes).find_map(held)
    }

    /// Returns how far the log reaches on a way from a position on.
    pub fn reach(&self, path: &TimelinePath, from: u64) -> Reach<'_> {
        let mut at = self.segment_start(from);
        let mut reach = Reach { segments: Vec::new(), end: at, written_end: from, next: None };
        while let Some((segment, left)) = self.segment_on(path, at, from) {
            // A way may leave a timeline in the midst of a stretch: the segment in which it does may be another's.
            let fork = left.map(|left| self.segment_start(left));
            let end = fork.filter(|fork| at < *fork).map_or(segment.end, |fork| fork.min(segment.end));
            let part = match left.filter(|_| fork == Some(at)) {
                Some(left) => Cow::Owned(segment.before(left)),
                None => Cow::Borrowed(segment),
            };
            if reach.segments.last().is_some_and(|last| last.name == segment.name) {
                reach.segments.pop();
            }
            reach.end = part.held_end().min(end);
            reach.written_end = part.written_end.min(end);
            let goes_on = part.whole && end > at;
            reach.segments.push(part);
            if !goes_on {
                break;
            }
            at = end;
        }
        reach.next = self.next_on(path, reach.end);
        reach
    }

    /// Returns the first segment of a way behind a position.
    fn next_on(&self, path: &TimelinePath, position: u64) -> Option<&LogSegment> {
        let of_branch = |branch: &Branch| {
            let from = position.max(self.segment_start(branch.begin));
            let mut later = self.segments.range((branch.timeline, from)..=(branch.timeline, u64::MAX));
            let (_, segment) = later.next()?;
            branch.end.is_none_or(|end| segment.start < end).then_some(segment)
        };
        path.branches().filter_map(of_branch).min_by_key(|segment| segment.start)
    }
}
