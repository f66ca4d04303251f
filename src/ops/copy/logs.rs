//! Copying archived segments of logs: one object each, read, verified and archived once more.

use super::{CopyOptions, require_other};
use crate::base::explain;
use crate::format::log::{LogRecord, LogRecordKind};
use crate::ops::OpsError;
use crate::repo::{FoundLog, LogEntry, LogPut, RepoError, Repository};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What became of segments.
#[derive(Debug, Clone, Default)]
pub struct CopiedLogs {
    /// Segments, and pieces of long ones, that were copied, or would be.
    pub copied: u64,
    /// Their plain bytes.
    pub bytes: u64,
    /// Those that the target had.
    pub present: u64,
    /// Recorded gaps that were recorded at the target too.
    pub gaps: u64,
    /// Those that could not be copied, by stream and name, and why.
    pub failed: Vec<(String, String, String)>,
}

/// Copies the archived segments of the streams that `wanted` takes.
///
/// # Errors
///
/// When this key may not write a stream at the target, when the target fails, or the source does not answer. What was
/// copied by then stays.
pub fn copy_logs(
    source: &Arc<Repository>,
    target: &Arc<Repository>,
    wanted: impl Fn(&str) -> bool,
    options: &CopyOptions,
) -> Result<CopiedLogs, OpsError> {
    require_other(source, target)?;
    let listing = source.all_logs()?;
    let mut copied = CopiedLogs::default();
    for (name, error) in listing.refused {
        let why = explain(&error);
        source.environment().observer.warn(&format!("{name} is left out: {why}"));
    }
    // In the order of streams and names: of a segment that is there twice, what counts comes first.
    let mut segments: BTreeMap<(String, String, Option<u64>), Vec<FoundLog>> = BTreeMap::new();
    for log in listing.found.into_iter().filter(|log| wanted(&log.record.stream)) {
        let record = &log.record;
        match record.kind {
            LogRecordKind::Gap => gap(target, record, options, &mut copied)?,
            // What was refused was refused there; the target refuses for itself.
            LogRecordKind::Conflict => {}
            _ => {
                let key = (record.stream.clone(), record.name.clone(), record.piece_offset);
                segments.entry(key).or_default().push(log);
            }
        }
    }
    let mut permitted = None;
    for ((stream, name, piece), found) in segments {
        if target.environment().observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        if permitted.as_ref() != Some(&stream) {
            target.require_log_writer(&stream)?;
            permitted = Some(stream.clone());
        }
        if is_there(target, &stream, &name, piece, &found)? {
            copied.present += 1;
            continue;
        }
        if options.dry_run {
            copied.copied += 1;
            copied.bytes +=
                found.first().and_then(|log| log.record.content.as_ref()).map_or(0, |c| c.digest.length);
            continue;
        }
        let (log, bytes) = match read(source, &found) {
            Ok(read) => read,
            Err(error) if error.is_unanswered() => return Err(error.into()),
            Err(error) => {
                copied.failed.push((stream, name, explain(&error)));
                continue;
            }
        };
        let entry = entry(&log.record);
        let put = match piece {
            None => target.archive_log(&entry, &bytes),
            Some(offset) => target.archive_log_piece(&entry, offset, &bytes, log.record.whole),
        };
        match put {
            Ok(LogPut::Stored(_)) => {
                copied.copied += 1;
                copied.bytes += bytes.len() as u64;
            }
            Ok(LogPut::Present(_)) => copied.present += 1,
            Err(error @ RepoError::LogTaken { .. }) => copied.failed.push((stream, name, explain(&error))),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(copied)
}

/// Says whether the target lists a segment with these bytes: records are read, no content.
fn is_there(
    target: &Repository,
    stream: &str,
    name: &str,
    piece: Option<u64>,
    found: &[FoundLog],
) -> Result<bool, RepoError> {
    let digests: Vec<_> = found.iter().filter_map(|log| Some(log.record.content.as_ref()?.digest)).collect();
    let there = target.search_log(stream, name)?.found;
    Ok(there.iter().any(|log| {
        log.record.piece_offset == piece
            && log.record.content.as_ref().is_some_and(|content| digests.contains(&content.digest))
    }))
}

/// Reads a segment from the first of its objects that is whole.
fn read<'f>(source: &Repository, found: &'f [FoundLog]) -> Result<(&'f FoundLog, Vec<u8>), RepoError> {
    let mut problem = None;
    for log in found {
        match source.read_log(log) {
            Ok(bytes) => return Ok((log, bytes)),
            Err(error) if error.is_unanswered() => return Err(error),
            Err(error) => drop(problem.get_or_insert(error)),
        }
    }
    Err(problem.unwrap_or_else(|| RepoError::Usage("there is no such segment".to_owned())))
}

fn entry(record: &LogRecord) -> LogEntry {
    LogEntry {
        stream: record.stream.clone(),
        name: record.name.clone(),
        host: record.host.clone(),
        program: record.program.clone(),
        engine: record.engine.clone(),
        lineage: record.lineage.clone(),
        timeline: record.timeline,
        positions: record.positions,
        commits: record.commits,
        facts: record.facts.clone(),
    }
}

fn gap(
    target: &Repository,
    record: &LogRecord,
    options: &CopyOptions,
    copied: &mut CopiedLogs,
) -> Result<(), OpsError> {
    let Some(last) = &record.last_name else { return Ok(()) };
    let known = target.log_records(&record.stream)?.found.into_iter().any(|known| {
        known.record.kind == LogRecordKind::Gap
            && (known.record.name.as_str(), known.record.last_name.as_ref())
                == (record.name.as_str(), Some(last))
    });
    if known {
        return Ok(());
    }
    if !options.dry_run {
        target.record_gap(&entry(record), last, record.reason.as_deref().unwrap_or_default())?;
    }
    copied.gaps += 1;
    Ok(())
}
