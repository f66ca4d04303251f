//! Archived logs: is every record what it claims to be, and is what it stands for still there.
//!
//! Log packs need no other object and no index; each is looked at by itself. Of those that are not read
//! whole, front and tail are checked.

use super::report::{Findings, Gravity, LostLog};
use super::selection::ReadData;
use crate::base::{ObjectId, PackId, explain, limits};
use crate::format::log::LogRecordKind;
use crate::ops::OpsError;
use crate::ops::catalogue::{LostMerge, lost_merges};
use crate::repo::{FoundLog, Memory, RepoError, Repository};
use crate::storage::StorageError;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What was looked at.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Log packs and records by themselves.
    pub objects: u64,
    /// Log packs that were read whole.
    pub read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Segments of which no copy is whole.
    pub lost: Vec<LostLog>,
    /// What this key could not look at.
    pub unchecked: Vec<String>,
}

/// Checks all logs; those of `again` are read whole in any case. `memory` must have been read before.
pub(super) fn check_logs(
    repository: &Repository,
    memory: &Memory,
    findings: &Findings,
    read_data: &ReadData,
    again: &HashSet<PackId>,
) -> Result<Checked, OpsError> {
    let mut checked = Checked::default();
    let mut listing = repository.all_logs()?;
    // What was forgotten is on its way out: nobody misses it.
    let forgotten = repository.forgotten_logs()?;
    let seen = listing.found.iter().map(|found| found.object.as_str());
    let seen = seen.chain(listing.refused.iter().map(|(name, _)| name.as_str()));
    let present = seen.filter_map(|name| name.rsplit('/').next()?.parse().ok()).collect();
    for merge in lost_merges(repository, memory, &present, &forgotten)? {
        tell_lost(findings, merge, &mut checked);
    }
    listing.found.retain(|found| !forgotten.has_ended(repository.registry(), found));
    let mut closed = 0;
    for (name, error) in &listing.refused {
        checked.objects += 1;
        // A flipped bit looks like a forgery, but who forges names the object for its own bytes.
        if matches!(error, RepoError::Untrusted { .. }) && !is_named_right(repository, name) {
            findings.add(Gravity::Damage, name, "its bytes are not the ones it was named for");
        } else {
            closed += u64::from(!tell(findings, name, "", error));
        }
    }
    let mut objects: BTreeMap<&str, Vec<&FoundLog>> = BTreeMap::new();
    let mut names: BTreeMap<(&str, &str), Vec<&FoundLog>> = BTreeMap::new();
    for found in &listing.found {
        objects.entry(&found.object).or_default().push(found);
        names.entry((&found.record.stream, &found.record.name)).or_default().push(found);
    }
    let mut chosen = chosen(&objects, read_data, &mut checked);
    chosen.extend(again);
    let reads_content = repository.keyring().reads_content();
    let mut damaged: HashSet<(&str, &str)> = HashSet::new();
    for (object, found) in &objects {
        if repository.environment().observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        checked.objects += 1;
        let Some(first) = found.first() else { continue };
        let is_remark =
            |found: &&&FoundLog| matches!(found.record.kind, LogRecordKind::Gap | LogRecordKind::Conflict);
        found.iter().filter(is_remark).for_each(|found| remark(findings, found));
        if found.iter().all(|found| is_remark(&found)) {
            continue;
        }
        misplaced(repository, findings, first);
        let outcome = if chosen.contains(&PackId::from(ObjectId::from(first.id))) {
            checked.read += 1;
            checked.bytes_read += first.length;
            repository.open_log(first).and_then(|opened| match reads_content {
                true => opened.verify(repository),
                false => Ok(()),
            })
        } else {
            repository.check_log_structure(found)
        };
        match outcome {
            Ok(()) => {}
            // Removed since it was listed.
            Err(RepoError::Storage(StorageError::NotFound { .. })) => {}
            Err(error @ (RepoError::Interrupted | RepoError::Storage(StorageError::Transient { .. }))) => {
                return Err(error.into());
            }
            Err(error) => {
                let what = format!("{} of the log {}: ", first.record.name, first.record.stream);
                if !tell(findings, object, &what, &error) {
                    closed += 1;
                    continue;
                }
                for record in found {
                    // Of one that was put together other segments may be whole.
                    match repository.read_log(record) {
                        Ok(_) => {}
                        Err(error @ RepoError::Storage(StorageError::Transient { .. })) => {
                            return Err(error.into());
                        }
                        Err(_) => drop(damaged.insert((*object, record.record.name.as_str()))),
                    }
                }
            }
        }
    }
    for ((stream, name), copies) in names {
        judge(findings, stream, name, &copies, &damaged, &mut checked);
    }
    if closed > 0 {
        checked
            .unchecked
            .push(format!("{closed} objects of logs: they belong to epochs not granted to this key"));
    }
    if checked.read > 0 && !reads_content {
        checked.unchecked.push("the content of logs: this key may not read it".to_owned());
    }
    Ok(checked)
}

/// Says whether an object is what its name says; one that cannot be read is taken for right, since that is
/// told elsewhere.
fn is_named_right(repository: &Repository, name: &str) -> bool {
    let id = name.rsplit('/').next().and_then(|id| id.parse::<ObjectId>().ok());
    let bytes = repository.environment().store.get(name, limits::PACK_BYTES_MAX);
    match (id, bytes) {
        (Some(id), Ok(bytes)) => blake3::hash(&bytes) == *id.as_bytes(),
        _ => true,
    }
}

/// Chooses the log packs that are read whole.
fn chosen(
    objects: &BTreeMap<&str, Vec<&FoundLog>>,
    read_data: &ReadData,
    checked: &mut Checked,
) -> HashSet<PackId> {
    if matches!(read_data, ReadData::OldestFirst { budget: Some(_) }) && !objects.is_empty() {
        checked
            .unchecked
            .push("the content of logs, of which no ledger is kept: --read-data reads it".to_owned());
        return HashSet::new();
    }
    let firsts = objects.values().filter_map(|found| found.first());
    let packs = firsts.map(|found| (PackId::from(ObjectId::from(found.id)), found.length)).collect();
    read_data.choose(packs, &HashMap::new()).into_iter().map(|(id, _)| id).collect()
}

/// Tells of an object that is not right; false if this key only may not look.
fn tell(findings: &Findings, object: &str, what: &str, error: &RepoError) -> bool {
    match error {
        RepoError::Forbidden { .. } => return false,
        RepoError::Untrusted { why, .. } => {
            findings.add(Gravity::Warning, object, format!("{what}it does not count: {why}"));
        }
        other => findings.add(Gravity::Damage, object, format!("{what}{}", explain(other))),
    }
    true
}

/// Tells of a merged log pack that is gone.
fn tell_lost(findings: &Findings, merge: LostMerge, checked: &mut Checked) {
    for run in merge.runs {
        let what = format!(
            "a catalogue lists it, and it is gone though nobody has forgotten it; it held {} segments of the log {}, {} to {}",
            run.records, merge.stream, run.first, run.last
        );
        findings.add(Gravity::Damage, &merge.object, what);
        checked.lost.push(LostLog {
            stream: merge.stream.clone(),
            name: if run.first == run.last { run.first } else { format!("{} to {}", run.first, run.last) },
            positions: run.positions,
            commits: run.commits,
        });
    }
}

/// Tells of bytes that were refused, and of segments that will never come.
fn remark(findings: &Findings, found: &FoundLog) {
    let record = &found.record;
    let reason = record.reason.as_deref().unwrap_or("no reason is given");
    match record.kind {
        LogRecordKind::Conflict => {
            let what =
                format!("bytes for {} of the log {} were refused: {reason}", record.name, record.stream);
            findings.add(Gravity::Warning, &found.object, what);
        }
        _ => {
            let last = record.last_name.as_deref().unwrap_or(&record.name);
            let what =
                format!("{} to {last} of the log {} will never come: {reason}", record.name, record.stream);
            findings.add(Gravity::Note, &found.object, what);
        }
    }
}

/// Tells of a log pack in the folder of another segment, where nobody looks for it.
fn misplaced(repository: &Repository, findings: &Findings, found: &FoundLog) {
    let record = &found.record;
    let folder = found.object.rsplit_once('/').map_or("", |(folder, _)| folder);
    let merged = folder.ends_with("/merged");
    if !merged && folder != repository.log_segment_folder(&record.stream, &record.name) {
        let what = format!("it is of {} of the log {}, but lies elsewhere", record.name, record.stream);
        findings.add(Gravity::Warning, &found.object, what);
    }
}

/// Says of the copies of one segment whether one is whole, and whether they are the same.
fn judge(
    findings: &Findings,
    stream: &str,
    name: &str,
    copies: &[&FoundLog],
    damaged: &HashSet<(&str, &str)>,
    checked: &mut Checked,
) {
    let segments = || copies.iter().filter(|found| found.record.kind == LogRecordKind::Segment);
    let digest = |found: &FoundLog| found.record.content.as_ref().map(|content| content.digest.blake3);
    let mut digests: Vec<_> = segments().filter_map(|found| digest(found)).collect();
    digests.sort_unstable();
    digests.dedup();
    if digests.len() > 1 {
        let what =
            format!("{name} was archived {} times with different bytes; the first counts", digests.len());
        findings.add(Gravity::Warning, format!("the log {stream}"), what);
    }
    let is_damaged = |found: &&FoundLog| damaged.contains(&(found.object.as_str(), name));
    let lost = match segments().next() {
        Some(_) => segments().all(is_damaged),
        None => copies.iter().any(is_damaged),
    };
    if let Some(first) = copies.first().filter(|_| lost) {
        checked.lost.push(LostLog {
            stream: stream.to_owned(),
            name: name.to_owned(),
            positions: first.record.positions,
            commits: first.record.commits,
        });
    }
}
