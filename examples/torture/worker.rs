//! A process that does one thing, and says what came of it. It may be killed at any moment.

use crate::content::{content, differs, segment, write};
use crate::order::{Answer, Load, Order, Task};
use crate::store::{Bent, Quick, rough_store};
use crate::support::SeededEntropy;
use crate::support::world::{Content, streams};
use chronolith::base::{Classify, LogPackId, Quiet, SecretBytes, SnapshotId, Timestamp, explain};
use chronolith::format::log::{LogRecord, LogRecordKind};
use chronolith::ingest::Effort;
use chronolith::ops::backup::{BackupOptions, Source, backup};
use chronolith::ops::check::{CheckOptions, Gravity, ReadData, check, check_and_repair};
use chronolith::ops::forget::{by_name, forget, forget_logs};
use chronolith::ops::marks::{Mark, mark};
use chronolith::ops::prune::{PruneOptions, Unused, prune};
use chronolith::ops::repair::{IndexOptions, IndexPlan};
use chronolith::ops::restore::{RestoreOptions, RestorePlan};
use chronolith::ops::rotation::rotate;
use chronolith::ops::undelete::undelete;
use chronolith::ops::{OpsError, Snapshots, parity};
use chronolith::repo::{
    Credential, Environment, FRESH_LOG_SECONDS, FoundLog, LogEntry, NoKeyCache, RepoError, Repository, open,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The log that segments belong to.
const STREAM: &str = "pg/main/7312345678901234567";
const PROGRAM: &str = "torture";
/// Before the number of a segment that was archived, in a line of its own.
pub const PUSHED: &str = "pushed ";
/// Numbers from here on are those of bytes that no segment has.
const OTHERS: u64 = 1 << 32;
/// What a prune counts, in the order in which it answers.
pub const PRUNED: [&str; 6] = [
    "blobs sealed anew",
    "log packs merged",
    "packs condemned",
    "packs deleted",
    "log packs deleted",
    "other objects deleted",
];

/// Does what it is told.
pub fn work(order: &Order) -> Answer {
    let late;
    let answer = {
        let bent = match Bent::new(&order.world, &order.rough) {
            Ok(bent) => bent,
            Err(error) => return failed(&error),
        };
        late = bent.late();
        match rough_store(bent, &order.rough) {
            Ok(store) => {
                let key = fs::read(&order.who.key_file).unwrap_or_default();
                let environment = Environment {
                    store,
                    clock: Arc::new(Quick::of(&order.world).skewed(order.who.skew_seconds)),
                    entropy: Arc::new(SeededEntropy::new(order.rough.seed)),
                    observer: Arc::new(Quiet),
                    cache: order.who.cache.clone(),
                    key_cache: Arc::new(NoKeyCache),
                };
                match open(environment, &Credential::KeyFile(SecretBytes::new(key))) {
                    Ok(repository) => run(order, &repository).unwrap_or_else(|error| failed(&error)),
                    Err(error) => failed(&error),
                }
            }
            Err(error) => failed(&error),
        }
    };
    // What is still on its way arrives while this process lives, as it would within a request's time limit.
    for thread in std::mem::take(&mut *late.lock().unwrap()) {
        let _ = thread.join();
    }
    answer
}

fn failed(error: &(impl std::error::Error + Classify)) -> Answer {
    Answer::Failed { class: format!("{:?}", error.class()), what: explain(error) }
}

fn id(text: &str) -> SnapshotId {
    text.parse().expect("the driver gives whole ids")
}

fn run(order: &Order, repository: &Arc<Repository>) -> Result<Answer, OpsError> {
    let all = || Snapshots::load(repository);
    Ok(Answer::Done(match &order.task {
        Task::Backup(load) => back_up(order, repository, load)?,
        Task::Restore { snapshot, load } => return restore(order, repository, id(snapshot), load),
        Task::Forget(names) => {
            let named: Vec<SnapshotId> = names.iter().map(|name| id(name)).collect();
            let snapshots = all()?;
            let chosen = by_name(&snapshots, &named, true)?;
            forget(repository, &snapshots, &chosen)?;
            format!("{} of {}", chosen.len(), named.len())
        }
        Task::Undelete(name) => format!("{:?}", undelete(repository, &[id(name)], PROGRAM)?),
        Task::Prune { grace_seconds, unused_hundredths, held_hundredths, repack_most } => {
            let share = |hundredths: &u32| Unused::Share { hundredths: *hundredths };
            let options = PruneOptions {
                max_unused: share(unused_hundredths),
                max_held: held_hundredths.as_ref().map(share),
                max_repack_bytes: *repack_most,
                ..PruneOptions::new(PROGRAM)
            };
            let report = prune(repository, &options.within(*grace_seconds))?;
            // As `PRUNED` has them.
            let counts = [
                report.resealed.blobs,
                report.merged_logs,
                report.condemned_packs,
                report.deleted_packs,
                report.deleted_logs,
                report.deleted_objects,
            ];
            serde_json::to_string(&counts).expect("numbers are JSON")
        }
        Task::Mark { snapshot, what } => {
            let mark_of = match what % 5 {
                0 => Mark::Tag { key: format!("k{}", what % 7), value: Some(what.to_string()) },
                1 => Mark::Untag { key: format!("k{}", what % 7) },
                2 => Mark::Pin { reason: None },
                3 => Mark::Unpin { reason: None },
                _ => Mark::Note { text: format!("note {what}") },
            };
            format!("{:?}", mark(repository, &all()?, &[id(snapshot)], &[mark_of])?)
        }
        Task::Check { read_data, repair } => {
            let read_data = if *read_data { ReadData::All } else { ReadData::None };
            let options = CheckOptions { read_data, keep_ledger: true, program: PROGRAM.to_owned() };
            let report = match repair {
                true => check_and_repair(repository, &options)?,
                false => check(repository, &options)?,
            };
            if report.is_damaged() {
                let grave = report.findings.iter().filter(|finding| finding.gravity == Gravity::Damage);
                let grave: Vec<String> = grave.take(5).map(ToString::to_string).collect();
                return Ok(Answer::Damaged(format!("hurt {:?}; {grave:?}", report.hurt)));
            }
            format!("{} packs, reported {}", report.counts.packs, report.reported)
        }
        Task::Rotate => rotate(repository)?.to_string(),
        Task::Push(numbers) => {
            for number in numbers {
                repository.archive_log(&entry(order, *number), &segment(*number))?;
                println!("{PUSHED}{number}");
            }
            format!("{} segments", numbers.len())
        }
        Task::Contradict(number) => {
            match repository.archive_log(&entry(order, *number), &segment(*number + OTHERS)) {
                Ok(put) => return Ok(Answer::Wrong(format!("other bytes of segment {number}: {put:?}"))),
                Err(RepoError::LogTaken { .. }) => "refused".to_owned(),
                Err(error) => return Err(error.into()),
            }
        }
        Task::Fetch { numbers, listed } => return fetch(repository, numbers, *listed),
        Task::ForgetLog(before) => forget_log(repository, *before)?,
        Task::Parity(percent) => format!("{:?}", parity::add(repository, *percent)?),
        Task::RepairIndex => {
            let options = IndexOptions { copy: true, program: PROGRAM.to_owned() };
            format!("{:?}", IndexPlan::new(repository, options)?.run()?)
        }
    }))
}

/// Reads segments back and compares them.
fn fetch(repository: &Arc<Repository>, numbers: &[u64], listed: bool) -> Result<Answer, OpsError> {
    let mut by_name: BTreeMap<String, Vec<FoundLog>> = BTreeMap::new();
    if listed {
        for found in repository.log_stream(STREAM)?.found {
            by_name.entry(found.record.name.clone()).or_default().push(found);
        }
    }
    for number in numbers {
        let found = match listed {
            true => by_name.remove(&name(*number)).unwrap_or_default(),
            false => repository.search_log(STREAM, &name(*number))?.found,
        };
        if found.is_empty() {
            return Ok(Answer::Damaged(format!("{} is not there", name(*number))));
        }
        let mut bytes = Vec::new();
        repository.read_segment(&found, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        if bytes != segment(*number) {
            return Ok(Answer::Wrong(format!("segment {number} came back with other bytes")));
        }
    }
    Ok(Answer::Done(format!("{} segments", numbers.len())))
}

/// Forgets what is archived of the log before a segment, but for what is fresh.
fn forget_log(repository: &Arc<Repository>, before: u64) -> Result<String, OpsError> {
    let outline = repository.log_outline(STREAM)?;
    let newest = outline.logs.found.iter().chain(&outline.merges).filter_map(|log| log.stored).max();
    let is_old = |log: &&FoundLog| {
        let age = newest.zip(log.stored).map(|(newest, stored)| newest.seconds() - stored.seconds());
        age.is_some_and(|age| age > FRESH_LOG_SECONDS)
    };
    let end = name(before);
    let goes = |record: &LogRecord| match record.kind {
        LogRecordKind::Merged => record.runs.iter().all(|run| run.last < end),
        // Of what was refused it is remembered for longer.
        LogRecordKind::Conflict => false,
        _ => record.name < end,
    };
    let logs = outline.logs.found.iter().chain(&outline.merges).filter(is_old);
    let ids: BTreeSet<LogPackId> = logs.filter(|log| goes(&log.record)).map(|log| log.id).collect();
    let ids: Vec<LogPackId> = ids.into_iter().collect();
    forget_logs(repository, &Snapshots::load_all(repository)?, &ids)?;
    Ok(format!("{} log packs", ids.len()))
}

fn back_up(order: &Order, repository: &Arc<Repository>, load: &Load) -> Result<String, OpsError> {
    let content = content(load.family, load.version);
    let sources = match &load.folder {
        Some(folder) => {
            write(folder, &content).expect("the scratch folder can be written");
            vec![Source::Path(folder.clone())]
        }
        None => streams(&content),
    };
    let options = BackupOptions {
        label: Some(load.label.clone()),
        effort: Effort::Level(1),
        workers: 2,
        tags: vec![("operation".to_owned(), Some(load.operation.to_string()))],
        read_everything: load.version.is_multiple_of(11),
        ..BackupOptions::new(&order.who.host, "torture", PROGRAM)
    };
    let report = backup(repository, sources, &options)?;
    Ok(report.snapshot.map(|id| id.to_string()).unwrap_or_default())
}

fn restore(
    order: &Order,
    repository: &Arc<Repository>,
    snapshot: SnapshotId,
    load: &Load,
) -> Result<Answer, OpsError> {
    let snapshots = Snapshots::load(repository)?;
    let Some(view) = snapshots.get(&snapshot) else {
        return Ok(Answer::Damaged(format!("{snapshot} is not there")));
    };
    let target = order.world.scratch.join(format!("restored-{:016x}", order.rough.seed));
    let path: Vec<Vec<u8>> = match &load.folder {
        Some(folder) => {
            folder.iter().filter(|part| *part != "/").map(|part| part.as_encoded_bytes().to_owned()).collect()
        }
        None => Vec::new(),
    };
    let options = RestoreOptions {
        no_sync: true,
        verify: order.rough.seed.is_multiple_of(5),
        ..RestoreOptions::default()
    };
    let expected = content(load.family, load.version);
    let done = RestorePlan::new(repository, &view.snapshot.root, &path, &target, options)
        .and_then(|plan| plan.run());
    let answer = match &done {
        Ok(report) if report.complete() => match differs(&target, &expected) {
            Some(why) => Answer::Wrong(format!("restored {snapshot}: {why}")),
            None => Answer::Done(snapshot.to_string()),
        },
        _ => match half_wrong(&target, &expected) {
            Some(why) => Answer::Wrong(format!("restored a part of {snapshot}: {why}")),
            None => match done {
                Err(error) => failed(&error),
                Ok(report) => {
                    Answer::Failed { class: "Incomplete".to_owned(), what: format!("{:?}", report.problems) }
                }
            },
        },
    };
    let _ = fs::remove_dir_all(&target);
    Ok(answer)
}

/// After a restore that failed, what has its name is whole all the same.
fn half_wrong(folder: &Path, expected: &Content) -> Option<String> {
    expected.iter().find_map(|(name, bytes)| {
        let name = String::from_utf8_lossy(name);
        let found = fs::read(folder.join(name.as_ref())).ok()?;
        (found != *bytes).then(|| format!("{name} stands there with other bytes"))
    })
}

fn name(number: u64) -> String {
    format!("0000000100000000{number:08X}")
}

fn entry(order: &Order, number: u64) -> LogEntry {
    LogEntry {
        stream: STREAM.to_owned(),
        name: name(number),
        host: order.who.host.clone(),
        program: PROGRAM.to_owned(),
        engine: "postgresql".to_owned(),
        lineage: Some("7312345678901234567".to_owned()),
        timeline: Some(1),
        positions: Some((number << 24, (number + 1) << 24)),
        commits: Some((Timestamp::from_nanoseconds(5), Timestamp::from_nanoseconds(9))),
        facts: [("segment_size".to_owned(), "16777216".to_owned())].into(),
    }
}
