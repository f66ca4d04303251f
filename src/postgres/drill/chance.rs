//! What of a cluster can be recovered by time, and a second of it drawn at random.

use crate::base::{Entropy, SnapshotId, Timestamp};
use crate::ops::Snapshots;
use crate::postgres::base::bases_of;
use crate::postgres::error::PostgresError;
use crate::postgres::lineage::ClusterName;
use crate::postgres::stream::{log_base, read_cluster};
use crate::repo::Repository;
use crate::timeline::{Interval, LogBase, LogStream, intervals};
use std::sync::Arc;

const SECOND: i64 = 1_000_000_000;

/// What can be recovered of the newest lineage of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Recoverable {
    intervals: Vec<Interval>,
    /// The newest moment that a recovery brings back for certain: the last transaction that is archived
    /// without a hole, or the end of the newest base backup.
    pub newest: Option<Timestamp>,
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
    let stream = log.map_or_else(|| LogStream::new(last.facts.segment_size.bytes()), |log| log.stream);
    let same = bases.iter().filter(|base| base.facts.system_identifier == identifier);
    let bases: Vec<LogBase> = same.map(log_base).collect();
    let intervals = intervals(&stream, &bases);
    let newest = intervals.iter().map(|interval| interval.to_time.unwrap_or(interval.from_time)).max();
    Ok(Recoverable { intervals, newest })
}

/// Returns the first and the number of the whole seconds of an interval. A server takes a time for reached when
/// it meets a transaction that ended later (B13), so the last transaction's own second is not among them.
fn seconds(interval: &Interval) -> Option<(i64, u64)> {
    let first = interval.from_time.nanoseconds().checked_add(SECOND - 1)?.div_euclid(SECOND);
    let behind = interval.to_time?.nanoseconds().checked_sub(1)?.div_euclid(SECOND).checked_add(1)?;
    u64::try_from(behind.checked_sub(first)?).ok().filter(|count| *count > 0).map(|count| (first, count))
}

impl Recoverable {
    /// Draws one of the whole seconds that can be recovered, each as likely as any other; from one base
    /// backup, where that is given. `None` where there is none.
    pub fn draw(&self, base: Option<&SnapshotId>, entropy: &dyn Entropy) -> Option<Drawn> {
        let base = base.map(ToString::to_string);
        let wanted = |interval: &&Interval| base.as_ref().is_none_or(|base| interval.bases.contains(base));
        let choices: Vec<(u64, i64, u64)> = self
            .intervals
            .iter()
            .filter(wanted)
            .filter_map(|interval| seconds(interval).map(|(first, count)| (interval.timeline, first, count)))
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
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Numbers(AtomicU64);

    impl Entropy for Numbers {
        fn fill(&self, buffer: &mut [u8]) {
            let number = self.0.fetch_add(1 << 54, Ordering::Relaxed);
            buffer[..8].copy_from_slice(&number.to_le_bytes());
        }
    }

    fn interval(timeline: u64, base: &str, from: i64, to: Option<i64>) -> Interval {
        Interval {
            timeline,
            bases: vec![base.to_owned()],
            from: 0,
            from_time: Timestamp::from_nanoseconds(from),
            to: 1,
            to_time: to.map(Timestamp::from_nanoseconds),
            cut: false,
        }
    }

    /// B12, B13: behind the end of the backup, before the last transaction, each second as often as any other.
    #[test]
    fn every_second_is_drawn_and_no_other() {
        let first = SnapshotId::new([1; 32]);
        let intervals = vec![
            interval(1, &first.to_string(), 10 * SECOND + 1, Some(14 * SECOND)),
            interval(1, "x", 20 * SECOND, None),
            interval(2, "x", 100 * SECOND, Some(100 * SECOND + 1)),
        ];
        let recoverable = Recoverable { intervals, newest: None };
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
}
