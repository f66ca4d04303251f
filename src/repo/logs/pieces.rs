//! Pieces of a segment that is archived while it grows: each is appended to those that are there, and all are
//! superfluous once the whole segment is.

use super::find::FoundLog;
use super::write::{LogEntry, LogPut, digest};
use crate::format::log::{LogRecord, LogRecordKind};
use crate::repo::error::RepoError;
use crate::repo::repository::Repository;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

fn range(log: &FoundLog) -> Option<(u64, u64)> {
    let (offset, content) = (log.record.piece_offset?, log.record.content.as_ref()?);
    let end = offset.checked_add(content.digest.length)?;
    (end > offset).then_some((offset, end))
}

/// Returns the pieces that join from an offset on and reach furthest, in order ([LOG-PACK-6]); of several that
/// reach as far, those that count first.
pub fn joined<'a>(found: impl IntoIterator<Item = &'a FoundLog>, from: u64) -> Vec<&'a FoundLog> {
    let ranges = found.into_iter().filter_map(|log| range(log).map(|(offset, end)| (offset, end, log)));
    let mut pieces: Vec<(u64, u64, &FoundLog)> = ranges.collect();
    pieces.sort_by_key(|(offset, _, _)| Reverse(*offset));
    // By the offset at which a piece begins: how far one comes from there, and with which piece.
    let mut best: HashMap<u64, (u64, u64, &FoundLog)> = HashMap::new();
    for (offset, end, log) in pieces {
        let reach = best.get(&end).map_or(end, |(reach, ..)| *reach);
        if best.get(&offset).is_none_or(|(known, ..)| reach > *known) {
            best.insert(offset, (reach, end, log));
        }
    }
    let (mut chain, mut at) = (Vec::new(), from);
    while let Some((_, end, log)) = best.get(&at) {
        chain.push(*log);
        at = *end;
    }
    chain
}

/// Returns how far pieces reach from the beginning of their segment without a hole.
pub fn joined_length<'a>(found: impl IntoIterator<Item = &'a FoundLog>) -> u64 {
    joined(found, 0).last().and_then(|log| range(log)).map_or(0, |(_, end)| end)
}

/// Says whether something is there that ends its segment: the whole, or the last of its pieces.
pub fn holds_whole(found: &[FoundLog]) -> bool {
    found.iter().any(|found| found.record.piece_offset.is_none() || found.record.whole.is_some())
}

impl Repository {
    /// Archives a further piece of a segment that is still being written. `seen` holds the names of the
    /// objects in the segment's folder that the caller has looked at; what is not among them is looked at
    /// here, so that a piece costs no look at each piece before it. Durable on return.
    ///
    /// # Errors
    ///
    /// As [`Repository::archive_log`].
    pub fn append_log_piece(
        &self,
        entry: &LogEntry,
        offset: u64,
        bytes: &[u8],
        seen: &mut HashSet<String>,
    ) -> Result<LogPut, RepoError> {
        self.require_log_writer(&entry.stream)?;
        let folder = format!("{}/", self.log_segment_folder(&entry.stream, &entry.name));
        let piece = Some((offset, None));
        let merged = self.merged_copies(&entry.stream, &entry.name, None)?.found;
        if merged.iter().any(|log| !seen.contains(&log.object))
            || self.environment().store.list(&folder)?.iter().any(|object| !seen.contains(&object.name))
        {
            let listing = self.look_before(&entry.stream, &entry.name)?;
            seen.extend(listing.found.iter().map(|log| log.object.clone()));
            seen.extend(listing.refused.iter().map(|(name, _)| name.clone()));
            if let Some(present) = self.present(entry, &listing.found, piece, &digest(bytes))? {
                return Ok(LogPut::Present(present));
            }
        }
        let record = LogRecord {
            piece_offset: Some(offset),
            ..entry.record(LogRecordKind::Piece, self.environment().clock.now())
        };
        let stored = self.put_log(folder.trim_end_matches('/'), || record, bytes)?;
        let put = self.settle(entry, seen, stored, piece, bytes)?;
        seen.insert(format!("{folder}{stored}"));
        Ok(put)
    }

    /// Deletes the pieces of a segment that are superfluous, since the whole of it is there with the same
    /// bytes ([CONCURRENCY-42]); returns how many. A store that lets nobody delete keeps them, which costs room
    /// only.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed or read.
    pub fn drop_superfluous_pieces(
        &self,
        stream: &str,
        name: &str,
        whole: &[u8],
    ) -> Result<usize, RepoError> {
        let found = self.find_log(stream, name)?.found;
        let held = digest(whole);
        let is_there = |log: &FoundLog| {
            let content = log.record.content.as_ref();
            log.record.kind == LogRecordKind::Segment && content.is_some_and(|content| content.digest == held)
        };
        if !found.iter().any(is_there) {
            return Ok(0);
        }
        let is_same = |log: &&FoundLog| {
            let same = range(log).and_then(|(offset, end)| {
                let part = whole.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)?;
                Some(log.record.content.as_ref()?.digest == digest(part))
            });
            same == Some(true)
        };
        let pieces = found.iter().filter(is_same);
        Ok(pieces.filter(|log| self.environment().store.delete(&log.object).is_ok()).count())
    }
}
