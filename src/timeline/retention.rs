//! What of a log is kept: what kept backups need, what the window reaches, and what somebody may need yet.
//!
//! Decided by reachability, never by names or numbers alone:
//! - A backup is *good* when the log leads from its start to where it is consistent, on any timeline. Those
//!   that are not take no good one's place.
//! - Of a kept backup, the log that makes it consistent stays, on every timeline that it leads to.
//! - Without a window, so does all log behind it. With one, so does all log of every interval that was not
//!   over when the window began, from the newest backup that ended before that; or from its oldest.
//! - What lies behind the newest good backup stays: the next one will need it. So does, for some days, what no
//!   good backup leads to: one that still runs may need it.
//! - A history stays while a timeline is kept that descends from its own, and while whoever looks for the
//!   newest timeline asks for it on the way (R9).

use super::interval::consistent;
use super::path::TimelinePath;
use super::stream::{LogBase, LogSegment, LogStream};
use crate::base::Timestamp;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A backup, as far as retention must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBase {
    /// The backup.
    pub base: LogBase,
    /// When it ended: the later of what its server and the store say.
    pub ended: Timestamp,
    /// Whether a rule keeps it, besides the window.
    pub kept: bool,
    /// Whether it stands in for others. One that nobody vouches for keeps its log, and takes no other one's place.
    pub counts: bool,
}

/// A file of the log that holds a stretch of it: whole, in pieces, or its beginning only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFileAge {
    /// Its name.
    pub name: String,
    /// Its timeline.
    pub timeline: u64,
    /// Where it begins in the log.
    pub start: u64,
    /// Where the segment ends that it is of, or the last of a stretch.
    pub end: u64,
    /// When the store received the last of it, where the store says so.
    pub stored: Option<Timestamp>,
    /// Whether a pin holds it.
    pub pinned: bool,
}

/// What of a log is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRules {
    /// Since when everything must stay recoverable; `None` for all that kept backups lead to.
    pub window: Option<Timestamp>,
    /// What no good backup leads to stays if the store received it since then.
    pub recent: Timestamp,
    /// Everything stays that the store received since then: a backup that runs now may need it.
    pub busy: Timestamp,
    /// Whether the log is still written: false for a lineage after which another one began.
    pub is_current: bool,
}

/// Why a file of the log stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogReason {
    /// It is pinned.
    Pinned,
    /// A kept backup is not consistent without it.
    Consistency,
    /// Something that is to stay recoverable is not without it.
    Recovery,
    /// It lies behind the newest good backup.
    Newest,
    /// A backup needs it whose log is not all there yet.
    Waiting,
    /// It was archived a short while ago.
    Recent,
    /// The history of its timeline is lost, so that nobody knows what leads there.
    LostHistory,
}

impl fmt::Display for LogReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pinned => "pinned",
            Self::Consistency => "base backups are not consistent without it",
            Self::Recovery => "recovery to what is kept",
            Self::Newest => "behind the newest good base backup",
            Self::Waiting => "a base backup waits for its log",
            Self::Recent => "archived a short while ago",
            Self::LostHistory => "the history of its timeline is lost",
        })
    }
}

/// What is decided about a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogDecision {
    /// Backups that the window keeps, by name.
    pub by_window: BTreeSet<String>,
    /// Backups whose log is not all there, and that may still become good, by name.
    pub waiting: BTreeSet<String>,
    /// The files that stay, and why.
    pub kept: BTreeMap<String, LogReason>,
    /// Timelines whose histories stay.
    pub histories: BTreeSet<u64>,
}

/// A log, its backups and its files, as retention looks at them.
pub struct LogRetention<'a> {
    stream: &'a LogStream,
    bases: &'a [HeldBase],
    files: &'a [LogFileAge],
    paths: Vec<TimelinePath>,
    /// Latest time that anything in a segment can have; `None` where nothing is known.
    bounds: BTreeMap<(u64, u64), Option<Timestamp>>,
}

/// An interval on one way, with the good backups that lead into it, oldest first.
struct Held<'a> {
    bases: Vec<&'a HeldBase>,
    /// Its log, from the first segment that any of them needs.
    segments: Vec<Cow<'a, LogSegment>>,
    /// Whether it is the last one on its way.
    is_last: bool,
}

impl Held<'_> {
    fn behind(&self, from: u64) -> impl Iterator<Item = &LogSegment> {
        self.segments.iter().map(AsRef::as_ref).filter(move |segment| segment.end > from)
    }
}

/// Where the log begins that is read from a backup on.
fn begin(base: &LogBase) -> u64 {
    if base.holds_log { base.stop } else { base.start }
}

impl<'a> LogRetention<'a> {
    /// Looks at a log.
    pub fn new(stream: &'a LogStream, bases: &'a [HeldBase], files: &'a [LogFileAge]) -> Self {
        let mut timelines = stream.timelines();
        timelines.extend(bases.iter().map(|held| held.base.timeline));
        // A backup knows its own timeline, though nothing else may be known of it.
        let is_of_base = |timeline| bases.iter().any(|held| held.base.timeline == timeline);
        let way = |timeline: u64| {
            let own = || is_of_base(timeline).then(|| TimelinePath::root(timeline));
            stream.path(timeline).or_else(own)
        };
        let stored: BTreeMap<(u64, u64), Option<Timestamp>> =
            files.iter().map(|file| ((file.timeline, file.start), file.stored)).collect();
        let bound = |segment: &LogSegment| {
            let key = (segment.timeline, segment.start);
            let stored = stored.get(&key).copied().flatten();
            let latest = segment.commits.map(|(_, latest)| latest);
            // What is not known of its records, the time at which it was stored says: nothing is later.
            let bound = match (segment.known, stored) {
                (false, None) => None,
                _ => Some(latest.max(stored).unwrap_or(Timestamp::from_nanoseconds(i64::MIN))),
            };
            (key, bound)
        };
        Self {
            stream,
            bases,
            files,
            paths: timelines.into_iter().filter_map(way).collect(),
            bounds: stream.segments().map(bound).collect(),
        }
    }

    /// Says whether all the log is there without which a backup is worth nothing (B11).
    pub fn is_good(&self, base: &LogBase) -> bool {
        base.holds_log || self.paths.iter().any(|path| consistent(self.stream, path, base).is_some())
    }

    /// Decides.
    pub fn decide(&self, rules: &LogRules) -> LogDecision {
        let mut decision = LogDecision::default();
        let mut reached: BTreeSet<(u64, u64)> = BTreeSet::new();
        let mut keep: BTreeMap<(u64, u64), LogReason> = BTreeMap::new();
        let mut add = |segment: &LogSegment, reason: LogReason| {
            let kept = keep.entry((segment.timeline, segment.start)).or_insert(reason);
            *kept = reason.min(*kept);
        };
        let held: Vec<(&TimelinePath, Vec<Held<'_>>)> =
            self.paths.iter().map(|path| (path, self.intervals(path))).collect();
        for (path, interval) in held.iter().flat_map(|(path, all)| all.iter().map(move |one| (*path, one))) {
            reached.extend(interval.segments.iter().map(|segment| (segment.timeline, segment.start)));
            let from = match rules.window {
                None => interval.bases.iter().filter(|base| base.kept).map(|held| begin(&held.base)).min(),
                Some(window) => self.anchor(path, interval, window, rules).map(|held| {
                    decision.by_window.insert(held.base.name.clone());
                    begin(&held.base)
                }),
            };
            if let Some(from) = from {
                interval.behind(from).for_each(|segment| add(segment, LogReason::Recovery));
            }
        }
        for interval in held.iter().flat_map(|(_, intervals)| intervals) {
            let stays = |held: &&&HeldBase| held.kept || decision.by_window.contains(&held.base.name);
            for base in interval.bases.iter().filter(stays).map(|held| &held.base) {
                if !base.holds_log {
                    let needed = interval.behind(base.start).take_while(|segment| segment.start < base.stop);
                    needed.for_each(|segment| add(segment, LogReason::Consistency));
                }
            }
        }
        drop(held);
        self.find_waiting(rules, &mut decision);
        let newest = self.behind_newest(rules);
        let oldest_timeline = self.oldest_kept_timeline(&decision);
        for file in self.files {
            let key = (file.timeline, file.start);
            let since = |time: Timestamp| file.stored.is_none_or(|stored| stored >= time);
            let is_lost = || {
                let known = self.paths.iter().any(|path| path.last() == file.timeline);
                !known && oldest_timeline.is_none_or(|oldest| file.timeline >= oldest)
            };
            let reason = if file.pinned {
                Some(LogReason::Pinned)
            } else if let Some(reason) =
                keep.get(&key).or_else(|| self.before(file).and_then(|k| keep.get(&k)))
            {
                Some(*reason)
            } else if newest.iter().any(|(path, from)| self.is_behind(path, *from, file)) {
                Some(LogReason::Newest)
            } else if self.awaits(&decision.waiting, file) {
                Some(LogReason::Waiting)
            } else if since(rules.busy) || !reached.contains(&key) && since(rules.recent) {
                Some(LogReason::Recent)
            } else if is_lost() {
                Some(LogReason::LostHistory)
            } else {
                None
            };
            if let Some(reason) = reason {
                decision.kept.insert(file.name.clone(), reason);
            }
        }
        self.keep_histories(rules, &mut decision, oldest_timeline);
        decision
    }

    /// Returns the intervals of a way, with their backups.
    fn intervals(&self, path: &TimelinePath) -> Vec<Held<'a>> {
        let mut ends: BTreeMap<u64, Held<'a>> = BTreeMap::new();
        let mut ordered: Vec<&'a HeldBase> = self.bases.iter().collect();
        ordered.sort_by_key(|held| (held.base.stop, &held.base.name));
        for held in ordered {
            let Some(reach) = consistent(self.stream, path, &held.base) else { continue };
            let empty = || Held { bases: Vec::new(), segments: Vec::new(), is_last: false };
            // One that holds its log may end where nothing more is archived: that is nobody else's end.
            let interval = ends.entry(reach.end.max(held.base.stop)).or_insert_with(empty);
            interval.bases.push(held);
            // The longest holds all others.
            if reach.segments.len() > interval.segments.len() {
                interval.segments = reach.segments;
            }
        }
        if let Some(last) = ends.values_mut().rev().find(|held| held.bases.iter().any(|base| base.counts)) {
            last.is_last = true;
        }
        ends.into_values().collect()
    }

    /// Returns the backup from which an interval is kept; `None` for one that was over before the window.
    fn anchor(
        &self,
        path: &TimelinePath,
        interval: &Held<'a>,
        window: Timestamp,
        rules: &LogRules,
    ) -> Option<&'a HeldBase> {
        let goes_on = interval.is_last && rules.is_current && !self.is_left(path.last());
        let within = |segment: &LogSegment| {
            let bound = self.bounds.get(&(segment.timeline, segment.start)).copied().flatten();
            bound.is_none_or(|bound| bound >= window)
        };
        let reaches = || {
            interval.bases.iter().any(|held| held.counts && held.ended >= window)
                || interval.segments.iter().rev().any(|segment| within(segment))
        };
        if !goes_on && !reaches() {
            return None;
        }
        let counting = || interval.bases.iter().filter(|held| held.counts).copied();
        counting().rfind(|held| held.ended <= window).or(counting().next())
    }

    /// Says whether a timeline was left for good: another branched off it, and has newer log.
    fn is_left(&self, timeline: u64) -> bool {
        let newest = |timeline: u64| {
            let bounds = self.bounds.range((timeline, 0)..=(timeline, u64::MAX)).map(|(_, bound)| *bound);
            // Of what nobody knows the time, it may be now.
            bounds.map(|bound| bound.unwrap_or(Timestamp::from_nanoseconds(i64::MAX))).max()
        };
        let descends = |path: &&TimelinePath| {
            path.last() != timeline && path.branches().any(|branch| branch.timeline == timeline)
        };
        let own = newest(timeline);
        self.paths
            .iter()
            .filter(descends)
            .any(|path| newest(path.last()).is_some_and(|time| Some(time) > own))
    }

    /// Finds the backups that may still become good: those after which no good one ended, and young ones.
    fn find_waiting(&self, rules: &LogRules, decision: &mut LogDecision) {
        let good = self.bases.iter().filter(|held| held.counts && self.is_good(&held.base));
        let newest = good.map(|held| held.ended).max();
        let since = rules.window.map_or(rules.recent, |window| window.min(rules.recent));
        for held in self.bases.iter().filter(|held| !self.is_good(&held.base)) {
            let is_newest = rules.is_current && newest.is_none_or(|newest| held.ended > newest);
            if held.kept || is_newest || held.ended >= since {
                decision.waiting.insert(held.base.name.clone());
            }
        }
    }

    /// Returns, for every timeline that is still written, from where on its log stays whatever leads there.
    fn behind_newest(&self, rules: &LogRules) -> Vec<(&TimelinePath, u64)> {
        let current = self.paths.iter().filter(|path| rules.is_current && !self.is_left(path.last()));
        let from = |path: &TimelinePath| {
            let counting = self.bases.iter().filter(|held| held.counts);
            let good = counting.filter(|held| consistent(self.stream, path, &held.base).is_some());
            good.map(|held| begin(&held.base)).max()
        };
        current.map(|path| (path, from(path).unwrap_or(0))).collect()
    }

    fn is_behind(&self, path: &TimelinePath, from: u64, file: &LogFileAge) -> bool {
        let last = file.end.saturating_sub(1);
        // Without any backup that leads there, what its ancestors wrote is theirs to keep.
        let own = from > 0 || file.timeline == path.last();
        // A beginning that was left behind lies on the parent, though the child goes on in the same segment.
        let on_way = path.at(last).timeline == file.timeline || path.at(file.start).timeline == file.timeline;
        own && file.end > self.stream.segment_start(from) && on_way
    }

    /// Says whether a backup that waits needs a file.
    fn awaits(&self, waiting: &BTreeSet<String>, file: &LogFileAge) -> bool {
        self.bases.iter().filter(|held| waiting.contains(&held.base.name)).any(|held| {
            let base = &held.base;
            let within = file.end > self.stream.segment_start(base.start) && file.start < base.stop;
            // On whatever timeline: its own, or that of a standby's upstream that was promoted (B11).
            within && file.timeline >= base.timeline
        })
    }

    /// Returns the place of the segment before a file that is no whole one: a beginning that was left behind.
    fn before(&self, file: &LogFileAge) -> Option<(u64, u64)> {
        let is_whole = self.bounds.contains_key(&(file.timeline, file.start));
        let before = file.start.checked_sub(self.stream.segment_bytes())?;
        let start = self.stream.holding(file.timeline, before).map_or(before, |segment| segment.start);
        (!is_whole).then_some((file.timeline, start))
    }

    fn oldest_kept_timeline(&self, decision: &LogDecision) -> Option<u64> {
        let stays = |held: &&HeldBase| {
            let name = &held.base.name;
            held.kept || decision.by_window.contains(name) || decision.waiting.contains(name)
        };
        self.bases.iter().filter(stays).map(|held| held.base.timeline).min()
    }

    /// Keeps the histories of timelines that lead to what is kept, and all that somebody asks for who looks
    /// for the newest timeline from a kept backup on.
    fn keep_histories(&self, rules: &LogRules, decision: &mut LogDecision, oldest: Option<u64>) {
        let mut timelines: BTreeSet<u64> = self
            .files
            .iter()
            .filter(|file| decision.kept.contains_key(&file.name))
            .map(|file| file.timeline)
            .collect();
        timelines.extend(oldest);
        if timelines.is_empty() && !rules.is_current {
            return;
        }
        for path in self.paths.iter().filter(|path| timelines.contains(&path.last())) {
            decision.histories.extend(path.branches().map(|branch| branch.timeline));
        }
        let first = oldest.or(timelines.first().copied()).unwrap_or(0);
        decision.histories.extend(self.paths.iter().map(TimelinePath::last).filter(|last| *last >= first));
        decision.histories.extend(timelines);
    }
}
