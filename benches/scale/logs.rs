//! Archived log by the million: merged log packs as far as listing and planning read them, their first records.

use super::{Failure, Scene};
use chronolith::base::Timestamp;
use chronolith::crypto::Suite;
use chronolith::format::ObjectKind;
use chronolith::format::log::{LogPackFront, LogRecord, LogRecordKind, LogRun};
use chronolith::format::pack::Origin;
use chronolith::format::sets::IdSet;
use chronolith::format::trust::Act;
use chronolith::ops::Snapshots;
use chronolith::ops::catalogue::{MERGES_AT_LEAST, gather_logs, lost_merges};
use chronolith::postgres::lineage::{ClusterName, Lineage};
use chronolith::postgres::stream::{ClusterLog, read_log};
use chronolith::postgres::{Lsn, SegmentName, SegmentSize};
use chronolith::repo::{MERGED_RECORDS, Repository};
use chronolith::timeline::{LogBase, Target, intervals, plan};
use std::sync::Arc;

/// Nanoseconds between two segments: ten a second.
const BETWEEN: i64 = 100_000_000;
/// When the log begins.
const BEGIN: i64 = 1_700_000_000_000_000_000;

fn other(error: impl ToString) -> Failure {
    Failure::Other(error.to_string())
}

fn cluster() -> Result<ClusterName, Failure> {
    ClusterName::new("main").map_err(other)
}

fn lineage() -> Lineage {
    Lineage { system_identifier: 7, segment_size: SegmentSize::DEFAULT, version: "17".to_owned() }
}

fn name(number: u64) -> Result<String, Failure> {
    let start = Lsn(number * SegmentSize::DEFAULT.bytes());
    let name = SegmentName::at(1, start, SegmentSize::DEFAULT);
    name.map(|name| name.to_string()).ok_or_else(|| other("so many segments have no names"))
}

fn time(number: u64) -> Timestamp {
    Timestamp::from_nanoseconds(BEGIN + number as i64 * BETWEEN)
}

/// The record that sums up segments from one to another.
fn merge(stream: &str, first: u64, count: u64) -> Result<LogRecord, Failure> {
    let bytes = SegmentSize::DEFAULT.bytes();
    let (begin, end) = (name(first)?, name(first + count - 1)?);
    let run = LogRun {
        first: begin.clone(),
        last: end.clone(),
        records: count,
        bytes: count * bytes,
        timeline: Some(1),
        positions: Some((first * bytes, (first + count) * bytes)),
        commits: Some((time(first), time(first + count))),
        facts: ["segment_size".to_owned(), "version".to_owned()].into(),
        extra: Vec::new(),
    };
    Ok(LogRecord {
        kind: LogRecordKind::Merged,
        stream: stream.to_owned(),
        name: begin,
        created: time(first),
        host: String::new(),
        program: "scale".to_owned(),
        last_name: Some(end),
        content: None,
        piece_offset: None,
        whole: None,
        engine: "postgresql".to_owned(),
        lineage: Some("7".to_owned()),
        timeline: None,
        positions: None,
        commits: None,
        reason: None,
        against: None,
        runs: vec![run],
        replaces: IdSet::default(),
        facts: Default::default(),
        extra: Vec::new(),
    })
}

/// Fills a new repository with merged log packs of so many segments, so many in each; of each pack its beginning.
pub fn fill(scene: &Scene, segments: u64, in_each: u64) -> Result<(), Failure> {
    let repository = scene.create()?;
    let stream = lineage().stream(&cluster()?);
    let folder = scene.stored_at(&format!("{}/merged", repository.log_stream_folder(&stream)));
    std::fs::create_dir_all(&folder).map_err(other)?;
    let (encapsulation, salt, commitment) = ([1; 32], [2; 32], [3; 32]);
    let origin = Origin { suite: Suite::default(), epoch: 1, encapsulation, salt, commitment };
    let mut first = 1;
    while first <= segments {
        let count = (segments - first + 1).min(in_each).min(MERGED_RECORDS as u64);
        let payload = merge(&stream, first, count)?.encode()?;
        let (_, record) = repository.seal_object(ObjectKind::LogRecord, Act::LogMerge, &payload)?;
        let signer = repository.keyring().identity.key;
        let mut pack = Vec::new();
        LogPackFront { signer, origins: vec![origin], records: vec![&record] }.encode(&mut pack)?;
        std::fs::write(folder.join(blake3::hash(&pack).to_string()), &pack).map_err(other)?;
        first += count;
    }
    Ok(())
}

fn read(repository: &Repository) -> Result<ClusterLog, Failure> {
    Ok(read_log(repository, &cluster()?, lineage())?)
}

/// Lists the log.
pub fn list(repository: &Repository) -> Result<String, Failure> {
    let log = read(repository)?;
    if let Some((name, why)) = log.refused.first() {
        return Err(other(format!("{name}: {why}")));
    }
    Ok(format!("{} segments in {} stretches", log.stream.count(), log.stream.segments().count()))
}

/// Makes a catalogue of the log.
pub fn catalogue(repository: &Arc<Repository>) -> Result<String, Failure> {
    let folder = repository.log_stream_folder(&lineage().stream(&cluster()?));
    let snapshots = Snapshots::load_all(repository).map_err(other)?;
    let listed = repository.environment().store.list(&format!("{folder}/merged/")).map_err(other)?;
    gather_logs(repository, &snapshots, &[(folder, listed)].into(), MERGES_AT_LEAST);
    let memory = repository.memory()?;
    Ok(format!("{} merged log packs in {} catalogues", memory.merges().count(), memory.held().len()))
}

/// Looks whether any merged log pack is gone that a catalogue lists.
pub fn look_for_lost(repository: &Repository) -> Result<String, Failure> {
    let memory = repository.memory()?;
    let folder = repository.log_stream_folder(&lineage().stream(&cluster()?));
    let listed = repository.environment().store.list(&format!("{folder}/merged/")).map_err(other)?;
    let present = listed.iter().filter_map(|object| object.name.rsplit('/').next()?.parse().ok()).collect();
    let lost = lost_merges(repository, &memory, &present, &repository.forgotten_logs()?).map_err(other)?;
    Ok(format!("{} are gone", lost.len()))
}

/// Says what can be recovered, and plans a restore from a base backup of a day before, to a moment just before the end.
pub fn plan_restore(repository: &Repository) -> Result<String, Failure> {
    let log = read(repository)?;
    let last = log.stream.count();
    let begin = last.saturating_sub(864_000).max(1);
    let position = begin * SegmentSize::DEFAULT.bytes();
    let base = LogBase {
        name: "base".to_owned(),
        timeline: 1,
        start: position,
        stop: position + 1,
        stopped: time(begin),
        holds_log: false,
    };
    let found = intervals(&log.stream, std::slice::from_ref(&base));
    let target = Target::Time { at: time(last - 1), inclusive: true };
    let plan = plan(&log.stream, &base, &target, None).map_err(other)?;
    Ok(format!("{} segments are needed, {} interval", plan.segment_count, found.len()))
}
