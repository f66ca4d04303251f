//! What of a cluster can be recovered by time, and a second of it drawn at random.
//!
//! Only such seconds are drawn to which a throw-away server may recover: log that creates a tablespace, or of which nobody
//! knows what it creates, is refused (B8).

use crate::base::{Entropy, SnapshotId, Timestamp};
use crate::ops::Snapshots;
use crate::postgres::base::bases_of;
use crate::postgres::error::PostgresError;
use crate::postgres::lineage::ClusterName;
use crate::postgres::stream::{ClusterLog, log_base, read_cluster};
use crate::repo::Repository;
use crate::timeline::{Interval, LogBase, LogStream, Target, intervals, plan};
use std::collections::BTreeSet;
use std::sync::Arc;

const SECOND: i64 = 1_000_000_000;

/// What can be recovered of the newest lineage of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Recoverable {
    spans: Vec<Span>,
    /// The newest moment that a recovery brings back for certain: the last transaction that is archived
    /// without a hole, or the end of the newest base backup.
    pub newest: Option<Timestamp>,
}

/// The times to which a base backup leads on a timeline, over nothing that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    timeline: u64,
    base: String,
    /// When the base backup ended.
    from: Timestamp,
    /// The last transaction before whatever is refused.
    to: Timestamp,
    /// When the next base backup ended, which is taken from then on.
    next: Option<Timestamp>,
}

/// A second that was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// The instant.
    pub at: Timestamp,
    /// The timeline on which it lies.
    pub timeline: u64,
    /// Out of how many seconds.
    pub seconds: u64,
}

/// Reads what can be recovered of a cluster.
///
/// # Errors
///
/// When the repository cannot be read.
pub fn recoverable(
    repository: &Arc<Repository>,
    cluster: &ClusterName,
) -> Result<Recoverable, PostgresError> {
    let bases = bases_of(&Snapshots::load(repository)?, cluster);
    let Some(last) = bases.last() else { return Ok(Recoverable::default()) };
    let identifier = last.facts.system_identifier;
    let log = read_cluster(repository, cluster)?;
    let log = log.into_iter().find(|log| log.lineage.system_identifier == identifier);
    let empty = LogStream::new(last.facts.segment_size.bytes());
    let stream = log.as_ref().map_or(&empty, |log| &log.stream);
    let same = bases.iter().filter(|base| base.facts.system_identifier == identifier);
    let bases: Vec<LogBase> = same.map(log_base).collect();
    let intervals = intervals(stream, &bases);
    let newest = intervals.iter().map(|interval| interval.to_time.unwrap_or(interval.from_time)).max();
    let mut all = Vec::new();
    for interval in &intervals {
        let refused = match &log {
            Some(log) => refused(repository, cluster, log, &bases, interval)?,
            None => BTreeSet::new(),
        };
        all.extend(spans(stream, &bases, interval, &refused));
    }
    Ok(Recoverable { spans: all, newest })
}

/// Names the segments of an interval that a throw-away server must not replay.
fn refused(
    repository: &Arc<Repository>,
    cluster: &ClusterName,
    log: &ClusterLog,
    bases: &[LogBase],
    interval: &Interval,
) -> Result<BTreeSet<String>, PostgresError> {
    let led = bases.iter().filter(|base| interval.bases.contains(&base.name));
    let longest = led.min_by_key(|base| base.start);
    let way = longest.and_then(|base| plan(&log.stream, base, &Target::Latest, Some(interval.timeline)).ok());
    let (Some(base), Some(way)) = (longest, way) else { return Ok(BTreeSet::new()) };
    let segments = log.stream.reach(&way.path, base.start).segments;
    let names: Vec<String> = segments.iter().map(|segment| segment.name.clone()).collect();
    let created = log.creations(repository, cluster, &names)?;
    let reaches_out = |name: &String| {
        // Without a path a tablespace lies in the data directory.
        created.get(name).is_some_and(|made| made.tablespaces.iter().any(|(_, path)| !path.is_empty()))
    };
    let unknown = log.stream.segments().filter(|segment| !segment.known).map(|segment| segment.name.clone());
    Ok(names.into_iter().filter(reaches_out).chain(unknown).collect())
}

/// Returns the times to which each base backup of an interval leads before the first segment that is refused.
fn spans(
    stream: &LogStream,
    bases: &[LogBase],
    interval: &Interval,
    refused: &BTreeSet<String>,
) -> Vec<Span> {
    let mut led: Vec<&LogBase> = bases.iter().filter(|base| interval.bases.contains(&base.name)).collect();
    led.sort_by_key(|base| (base.stopped, base.stop));
    let ends: Vec<Timestamp> = led.iter().map(|base| base.stopped).collect();
    let span = |(place, base): (usize, &&LogBase)| {
        let way = plan(stream, base, &Target::Latest, Some(interval.timeline)).ok()?;
        // Also what it brings along itself is looked into before it is replayed.
        let mut reach = stream.reach(&way.path, base.start);
        if base.holds_log && reach.end < base.stop {
            reach = stream.reach(&way.path, base.stop);
        }
        let before = reach.segments.iter().take_while(|segment| !refused.contains(&segment.name));
        let to = before.filter_map(|segment| Some(segment.commits?.1)).max()?;
        let next = ends.get(place + 1).copied();
        Some(Span { timeline: interval.timeline, base: base.name.clone(), from: base.stopped, to, next })
    };
    led.iter().enumerate().filter_map(span).collect()
}

impl Span {
    /// Returns the first and the number of its whole seconds. A server takes a time for reached when it meets a
    /// transaction that ended later (B13), so the last transaction's own second is not among them. Where whichever base
    /// backup is newest may be taken, those behind the next one are not its own.
    fn seconds(&self, is_chosen: bool) -> Option<(i64, u64)> {
        let first = self.from.nanoseconds().checked_add(SECOND - 1)?.div_euclid(SECOND);
        let mut behind = self.to.nanoseconds().checked_sub(1)?.div_euclid(SECOND).checked_add(1)?;
        if let Some(next) = self.next.filter(|_| !is_chosen) {
            behind = behind.min(next.nanoseconds().checked_add(SECOND - 1)?.div_euclid(SECOND));
        }
        u64::try_from(behind.checked_sub(first)?).ok().filter(|count| *count > 0).map(|count| (first, count))
    }
}

impl Recoverable {
    /// Draws one of the whole seconds that can be recovered, each as likely as any other; from one base
    /// backup, where that is given. `None` where there is none.
    pub fn draw(&self, base: Option<&SnapshotId>, entropy: &dyn Entropy) -> Option<Drawn> {
        let base = base.map(ToString::to_string);
        let wanted = |span: &&Span| base.as_ref().is_none_or(|base| span.base == *base);
        let choices: Vec<(u64, i64, u64)> = self
            .spans
            .iter()
            .filter(wanted)
            .filter_map(|span| {
                span.seconds(base.is_some()).map(|(first, count)| (span.timeline, first, count))
            })
            .collect();
        let total = choices.iter().try_fold(0_u64, |sum, (.., count)| sum.checked_add(*count))?;
        let random = entropy.draw();
        let number = u64::from_le_bytes(*random.first_chunk()?);
        // The upper half of the product: uneven by less than one part in 2^64 / total.
        let mut chosen = u64::try_from((u128::from(number) * u128::from(total)) >> 64).ok()?;
        for (timeline, first, count) in choices {
            if chosen < count {
                let second = first.checked_add(i64::try_from(chosen).ok()?)?;
                let at = Timestamp::from_nanoseconds(second.checked_mul(SECOND)?);
                return Some(Drawn { at, timeline, seconds: total });
            }
            chosen -= count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::LogSegment;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Numbers(AtomicU64);

    impl Entropy for Numbers {
        fn fill(&self, buffer: &mut [u8]) {
            let number = self.0.fetch_add(1 << 54, Ordering::Relaxed);
            buffer[..8].copy_from_slice(&number.to_le_bytes());
        }
    }

    fn span(timeline: u64, base: &str, from: i64, to: i64, next: Option<i64>) -> Span {
        let at = Timestamp::from_nanoseconds;
        Span { timeline, base: base.to_owned(), from: at(from), to: at(to), next: next.map(at) }
    }

    /// B12, B13: behind the end of the backup, before the last transaction, each second as often as any other.
    #[test]
    fn every_second_is_drawn_and_no_other() {
        let first = SnapshotId::new([1; 32]);
        let spans = vec![
            span(1, &first.to_string(), 10 * SECOND + 1, 14 * SECOND, None),
            span(1, "x", 20 * SECOND, 15 * SECOND, None),
            span(2, "x", 100 * SECOND, 100 * SECOND + 1, None),
        ];
        let recoverable = Recoverable { spans, newest: None };
        let numbers = Numbers(AtomicU64::new(0));
        let mut drawn: BTreeMap<(u64, i64), u32> = BTreeMap::new();
        for _ in 0..1024 {
            let one = recoverable.draw(None, &numbers).unwrap();
            assert_eq!(one.seconds, 4);
            *drawn.entry((one.timeline, one.at.nanoseconds() / SECOND)).or_default() += 1;
        }
        let expected = [((1, 11), 256), ((1, 12), 256), ((1, 13), 256), ((2, 100), 256)];
        assert_eq!(drawn, expected.into());
        assert_eq!(recoverable.draw(Some(&first), &numbers).unwrap().seconds, 3);
        assert_eq!(recoverable.draw(Some(&SnapshotId::new([2; 32])), &numbers), None);
    }
    /// B8: neither a segment that is refused is replayed, nor does a base backup lead over it that is not the newest before
    /// a second.
    #[test]
    fn nothing_is_drawn_that_would_be_refused() {
        let second = |number: i64| Timestamp::from_nanoseconds(number * SECOND);
        let segment = |number: u64| LogSegment {
            name: number.to_string(),
            last: number.to_string(),
            count: 1,
            timeline: 1,
            start: number * 100,
            end: number * 100 + 100,
            written_end: number * 100 + 100,
            whole: true,
            commits: Some((second(number as i64 * 10), second(number as i64 * 10 + 9))),
            known: true,
            points: Vec::new(),
        };
        let mut stream = LogStream::new(100);
        (1..=6).for_each(|number| stream.add_segment(segment(number)));
        let base = |name: &str, start: u64, stopped: i64| LogBase {
            name: name.to_owned(),
            timeline: 1,
            start,
            stop: start + 20,
            stopped: second(stopped),
            holds_log: false,
        };
        let bases = [base("a", 110, 12), base("b", 410, 42)];
        let all = intervals(&stream, &bases);
        let [interval] = &all[..] else { panic!("{all:?}") };
        let seconds = |refused: &[&str], is_chosen: bool| {
            let refused = refused.iter().map(ToString::to_string).collect();
            let spans = spans(&stream, &bases, interval, &refused);
            spans.iter().map(|span| span.seconds(is_chosen)).collect::<Vec<_>>()
        };
        assert_eq!(seconds(&[], false), [Some((12, 30)), Some((42, 27))]);
        // Of a base backup that was chosen all seconds behind it are.
        assert_eq!(seconds(&[], true), [Some((12, 57)), Some((42, 27))]);
        assert_eq!(seconds(&["3"], false), [Some((12, 17)), Some((42, 27))]);
        assert_eq!(seconds(&["6"], false), [Some((12, 30)), Some((42, 17))]);
        // The first of them: nothing leads from there.
        assert_eq!(seconds(&["1", "4"], false), []);
    }
}
