//! Histories of timelines that a server never archives by itself.
//!
//! A server hands over the history of a timeline when it begins it, once. One that was promoted while it did not
//! archive, as after every restore (B16), does not do so later, and without that file nobody finds the timeline in the
//! archive (R9, A15). What is put there is put once: the same bytes again are left alone (A3), others refused (A2).

use super::push::{digest_of, push_bytes};
use crate::format::log::LogRecordKind;
use crate::postgres::error::PostgresError;
use crate::postgres::history::read_history;
use crate::postgres::lineage::{Archiver, stream_of};
use crate::postgres::segment::LogFile;
use crate::repo::Repository;

/// Archives the histories of a server's timeline and of those that it came along, as far as the archive lacks them and
/// `read` brings them; returns their names.
///
/// # Errors
///
/// When the server's own history is not to be had or another one is archived under its name; when this key may not, or
/// the store fails.
pub fn push_histories(
    repository: &Repository,
    archiver: &Archiver,
    system_identifier: u64,
    timeline: u32,
    read: &mut dyn FnMut(u32) -> Result<Option<Vec<u8>>, PostgresError>,
) -> Result<Vec<String>, PostgresError> {
    if timeline <= 1 {
        return Ok(Vec::new());
    }
    let own = read(timeline)?.ok_or_else(|| {
        PostgresError::failed(
            format!("the server has no history of its own timeline, {}", LogFile::History { timeline }),
            "take the file from another server of this cluster into pg_wal, and archive it with pg archive-push",
        )
    })?;
    let path = read_history(u64::from(timeline), &own).map_err(|error| PostgresError::Damaged {
        what: "a history of the server".to_owned(),
        why: error.to_string(),
    })?;
    let mut histories = Vec::new();
    let ancestors = path.branches().filter_map(|branch| u32::try_from(branch.timeline).ok());
    for ancestor in ancestors.filter(|ancestor| *ancestor > 1 && *ancestor != timeline) {
        // One that the server itself has no longer is of no use to it.
        histories.extend(read(ancestor)?.map(|content| (ancestor, content)));
    }
    histories.push((timeline, own));
    let stream = stream_of(&archiver.cluster, system_identifier);
    let mut pushed = Vec::new();
    for (timeline, content) in histories {
        let name = LogFile::History { timeline }.to_string();
        let digest = digest_of(&content);
        let listing = repository.search_log(&stream, &name)?;
        let is_there = listing.found.iter().map(|found| &found.record).any(|record| {
            let content = record.content.as_ref();
            record.kind == LogRecordKind::Segment && content.is_some_and(|content| content.digest == digest)
        });
        if !is_there {
            push_bytes(repository, archiver, system_identifier, &name, &content)?;
            pushed.push(name);
        }
    }
    Ok(pushed)
}
