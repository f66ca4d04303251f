//! What the record of a merge says of the records behind it: runs of them, each without a hole ([LOG-PACK-10]).

use crate::base::Timestamp;
use crate::format::log::{LogRecord, LogRun};

/// Says whether a run may hold a segment of this name: the names in it ascend.
pub(super) fn covers(run: &LogRun, name: &str) -> bool {
    run.first.as_str() <= name && name <= run.last.as_str()
}

fn last_name(record: &LogRecord) -> &str {
    record.last_name.as_ref().unwrap_or(&record.name)
}

/// Returns the plain bytes that a record brings; one of what was refused brings none.
fn bytes(record: &LogRecord) -> u64 {
    let content = record.content.as_ref().filter(|content| !content.chunks.is_empty());
    content.map_or(0, |content| content.digest.length)
}

type Commits = Option<(Timestamp, Timestamp)>;

fn both(a: Commits, b: Commits) -> Commits {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (known, None) | (None, known) => known,
    }
}

/// Says whether the second begins where the first ends, on the same timeline, under a later name.
pub fn follows(first: &LogRecord, second: &LogRecord) -> bool {
    let joins = match (first.positions, second.positions) {
        (Some((_, end)), Some((start, _))) => end == start,
        _ => false,
    };
    joins
        && first.timeline == second.timeline
        && first.lineage == second.lineage
        && last_name(first) < second.name.as_str()
}

/// Sums up records in their order, a new run wherever one does not follow the one before it.
pub(super) fn sum_up<'a>(records: impl IntoIterator<Item = &'a LogRecord>) -> Vec<LogRun> {
    let (mut runs, mut before): (Vec<LogRun>, Option<&LogRecord>) = (Vec::new(), None);
    for record in records {
        let goes_on = before.is_some_and(|before| follows(before, record));
        match runs.last_mut().filter(|_| goes_on) {
            None => runs.push(LogRun {
                first: record.name.clone(),
                last: last_name(record).to_owned(),
                records: 1,
                bytes: bytes(record),
                timeline: record.timeline,
                positions: record.positions,
                commits: record.commits,
                facts: record.facts.keys().cloned().collect(),
                extra: Default::default(),
            }),
            Some(run) => {
                last_name(record).clone_into(&mut run.last);
                run.records += 1;
                run.bytes += bytes(record);
                run.positions = run.positions.zip(record.positions).map(|(all, own)| (all.0, own.1));
                run.commits = both(run.commits, record.commits);
                for fact in
                    record.facts.keys().filter(|fact| !run.facts.contains(*fact)).cloned().collect::<Vec<_>>()
                {
                    run.facts.insert(fact);
                }
            }
        }
        before = Some(record);
    }
    runs
}

/// Says whether runs sum up these records; where a run ends is the maker's to choose.
pub(super) fn sums_up(runs: &[LogRun], records: &[&LogRecord]) -> bool {
    let mut rest = records;
    for run in runs {
        let Some((own, left)) =
            usize::try_from(run.records).ok().and_then(|count| rest.split_at_checked(count))
        else {
            return false;
        };
        rest = left;
        let joined = own.windows(2).all(|pair| matches!(pair, [a, b] if follows(a, b)));
        let [summed] = sum_up(own.iter().copied()).try_into().unwrap_or_else(|_| [run.clone()]);
        if !joined || (LogRun { extra: Default::default(), ..run.clone() }) != summed {
            return false;
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::log::{LogContent, LogDigest, LogRecordKind};
    use crate::format::sets::IdSet;

    fn record(number: u64) -> LogRecord {
        let chunks = vec![crate::format::log::LogChunk { id: crate::base::BlobId::new([1; 32]), length: 10 }];
        LogRecord {
            kind: LogRecordKind::Segment,
            stream: "s".to_owned(),
            name: format!("{number:04}"),
            created: Timestamp::from_nanoseconds(1),
            host: String::new(),
            program: String::new(),
            last_name: None,
            content: Some(LogContent {
                digest: LogDigest { length: 10, blake3: [0; 32] },
                chunks,
                extra: Default::default(),
            }),
            piece_offset: None,
            whole: None,
            engine: "e".to_owned(),
            lineage: None,
            timeline: Some(1),
            positions: Some((number * 16, number * 16 + 16)),
            commits: None,
            reason: None,
            against: None,
            runs: Vec::new(),
            replaces: IdSet::default(),
            facts: Default::default(),
            extra: Default::default(),
        }
    }

    fn at(nanoseconds: i64) -> Timestamp {
        Timestamp::from_nanoseconds(nanoseconds)
    }

    #[test]
    fn a_run_ends_where_something_is_missing() {
        let mut records: Vec<LogRecord> = [3, 4, 5, 7, 8].map(record).into();
        records[0].commits = Some((at(5), at(9)));
        records[2].commits = Some((at(2), at(3)));
        records[1].facts.insert("times".to_owned(), "unknown".to_owned());
        let runs = sum_up(&records);
        let told: Vec<_> = runs.iter().map(|run| (&*run.first, &*run.last, run.records, run.bytes)).collect();
        assert_eq!(told, [("0003", "0005", 3, 30), ("0007", "0008", 2, 20)]);
        assert_eq!(runs[0].positions, Some((48, 96)));
        assert_eq!(runs[0].commits, Some((at(2), at(9))));
        assert_eq!(runs[0].facts.iter().collect::<Vec<_>>(), ["times"]);
        assert!(covers(&runs[0], "0004") && !covers(&runs[0], "0006") && !covers(&runs[1], "0006"));
        let all: Vec<&LogRecord> = records.iter().collect();
        assert!(sums_up(&runs, &all));
    }

    #[test]
    fn a_run_that_says_anything_else_is_found_out() {
        let records: Vec<LogRecord> = [3, 4, 5].map(record).into();
        let all: Vec<&LogRecord> = records.iter().collect();
        let right = sum_up(&records).remove(0);
        let lies = [
            LogRun { first: "0002".to_owned(), ..right.clone() },
            LogRun { last: "0006".to_owned(), ..right.clone() },
            LogRun { records: 2, ..right.clone() },
            LogRun { records: 4, ..right.clone() },
            LogRun { bytes: 31, ..right.clone() },
            LogRun { timeline: Some(2), ..right.clone() },
            LogRun { positions: Some((48, 112)), ..right.clone() },
            LogRun { commits: Some((at(1), at(2))), ..right.clone() },
            LogRun { facts: ["times".to_owned()].into(), ..right.clone() },
        ];
        for lie in lies {
            assert!(!sums_up(std::slice::from_ref(&lie), &all), "{lie:?}");
        }
        assert!(!sums_up(&[], &all));
        let other_timeline = LogRecord { timeline: Some(2), ..record(6) };
        assert!(!sums_up(&[LogRun { records: 4, ..right }], &[all[0], all[1], all[2], &other_timeline]));
    }
}
