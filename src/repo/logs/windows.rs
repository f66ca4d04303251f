//! A segment straight into its place: each thread decodes a part of it, hashes it and hands it on, window by window, so
//! that what a processor's cache holds is hashed and written from there, and no memory is taken for the whole.
//!
//! What is verified is the digest of the whole, which the signed record names: bytes of which it holds are the right ones,
//! whatever the ids of their chunks are.
//!
//! So are segments read whose chunks are equally long, as those of full ones are: a power of two of them, each a power
//! of two long. Then each is a subtree of the whole's BLAKE3 (section 2.1 of its paper), and the digest of the whole is
//! what those of the chunks come to.

use super::find::FoundLog;
use super::merged::is_merged;
use super::read::{OpenedLog, THREADS, key_of};
use crate::base::BlobId;
use crate::format::log::{LogContent, LogDigest};
use crate::format::pack::FrameRecord;
use crate::repo::error::RepoError;
use crate::repo::frames::FrameDecoder;
use crate::repo::repository::Repository;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use std::collections::HashMap;

/// Where the bytes of a segment go: called by several threads, with an offset and what stands there.
pub type PlacedSink<'a> = dyn Fn(u64, &[u8]) -> Result<(), RepoError> + Sync + 'a;

/// A frame that holds one chunk, and which of the chunks are that one.
struct Part<'a> {
    frame: &'a FrameRecord,
    places: Vec<usize>,
}

/// Why a segment did not come out in parts.
enum Failure {
    /// What was read is not what it must be: another way may lead further.
    Unreadable,
    /// Where it goes.
    Sink(RepoError),
}

impl Repository {
    /// Reads a segment as [`Self::read_segment`] does, from several threads and each part into its own place. Nothing that
    /// `sink` receives counts before this returns, and it may receive the bytes of a place twice; the last count.
    /// Returns the digest that the whole was found to have.
    ///
    /// # Errors
    ///
    /// As [`Self::read_segment`].
    pub fn read_segment_into(
        &self,
        found: &[FoundLog],
        sink: &PlacedSink<'_>,
    ) -> Result<LogDigest, RepoError> {
        let whole = found.iter().find(|log| log.record.piece_offset.is_none());
        if let Some(log) = whole.filter(|log| !is_merged(&log.object))
            && let Some(content) = log.record.content.as_ref().filter(|content| is_even(content))
            && let Ok(opened) = self.open_log(log)
        {
            match opened.read_parts(self, content, sink) {
                Ok(true) => return Ok(content.digest),
                Err(Failure::Sink(error)) => return Err(error),
                // What is wrong, if anything is, is said by the other way, which also looks for another copy.
                Ok(false) | Err(Failure::Unreadable) => {}
            }
        }
        let mut at = 0;
        self.read_segment(found, &mut |piece| {
            sink(at, piece)?;
            at += piece.len() as u64;
            Ok(())
        })
    }
}

/// Says whether each chunk of a content is a subtree of its digest.
fn is_even(content: &LogContent) -> bool {
    let Some(length) = content.chunks.first().map(|chunk| chunk.length) else { return false };
    let (count, is_long) = (content.chunks.len(), length as usize >= blake3::CHUNK_LEN);
    count > 1
        && count.is_power_of_two()
        && is_long
        && length.is_power_of_two()
        && content.chunks.iter().all(|chunk| chunk.length == length)
        && content.digest.length == u64::from(length) * count as u64
}

impl OpenedLog {
    /// Reads a content of equal chunks in parts; false where it lies otherwise than such usually do.
    fn read_parts(
        &self,
        repository: &Repository,
        content: &LogContent,
        sink: &PlacedSink<'_>,
    ) -> Result<bool, Failure> {
        let Some(parts) = self.frames.ways(content).find_map(|way| parts(content, &way)) else {
            return Ok(false);
        };
        let read = |first: usize| -> Result<Vec<(usize, ChainingValue)>, Failure> {
            let mut decoder = FrameDecoder::new().map_err(|_| Failure::Unreadable)?;
            let mut values = Vec::new();
            for part in parts.iter().skip(first).step_by(THREADS) {
                values.extend(self.read_part(repository, &mut decoder, part, sink)?);
            }
            Ok(values)
        };
        let values = std::thread::scope(|scope| {
            let others: Vec<_> =
                (1..THREADS.min(parts.len())).map(|first| scope.spawn(move || read(first))).collect();
            let own = read(0);
            let mut values = Vec::new();
            for other in others {
                values.extend(other.join().map_err(|_| Failure::Unreadable)??);
            }
            values.extend(own?);
            Ok(values)
        })?;
        match whole_of(values) == Some(content.digest.blake3) {
            true => Ok(true),
            false => Err(Failure::Unreadable),
        }
    }

    /// Reads one frame into each of its places; returns their chaining values.
    fn read_part(
        &self,
        repository: &Repository,
        decoder: &mut FrameDecoder,
        part: &Part<'_>,
        sink: &PlacedSink<'_>,
    ) -> Result<Vec<(usize, ChainingValue)>, Failure> {
        let frame = part.frame;
        let unreadable = |_: RepoError| Failure::Unreadable;
        let sealer = self.sealer(repository, frame).map_err(unreadable)?;
        let sealed = self.sealed(frame).map_err(unreadable)?;
        let length = u64::from(frame.plain_length);
        let mut places: Vec<(u64, blake3::Hasher)> = Vec::new();
        for number in &part.places {
            let offset = *number as u64 * length;
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(offset);
            places.push((offset, hasher));
        }
        let (mut at, mut failed) = (0, None);
        let mut each = |plain: &[u8]| {
            for (offset, hasher) in &mut places {
                hasher.update(plain);
                if let Err(error) = sink(*offset + at, plain) {
                    failed = Some(error);
                    return Err("the other end failed".to_owned());
                }
            }
            at += plain.len() as u64;
            Ok(())
        };
        let opened = decoder.open_in_windows(&sealer, repository.id(), &key_of(frame), sealed, &mut each);
        if let Some(error) = failed {
            return Err(Failure::Sink(error));
        }
        if opened.is_err() {
            return Err(Failure::Unreadable);
        }
        let values = places.iter().map(|(_, hasher)| hasher.finalize_non_root());
        Ok(part.places.iter().copied().zip(values).collect())
    }
}

/// Says which frame holds each chunk, where each holds one and needs no base.
fn parts<'a>(content: &LogContent, frames: &[&'a FrameRecord]) -> Option<Vec<Part<'a>>> {
    let mut places: HashMap<BlobId, Vec<usize>> = HashMap::new();
    for (number, chunk) in content.chunks.iter().enumerate() {
        places.entry(chunk.id).or_default().push(number);
    }
    let length = content.chunks.first()?.length;
    let of_frame = |frame: &&'a FrameRecord| {
        let [(id, held)] = frame.blobs.as_slice() else { return None };
        let is_plain = frame.base.is_none() && frame.plain_length == length && *held == length;
        let places = places.get(id).filter(|_| is_plain)?.clone();
        Some(Part { frame, places })
    };
    let parts: Vec<Part<'a>> = frames.iter().map(of_frame).collect::<Option<_>>()?;
    (parts.len() == places.len()).then_some(parts)
}

/// Puts the digest of the whole together from those of subtrees of equal length; `None` where chunks are missing.
pub(super) fn whole_of(mut values: Vec<(usize, ChainingValue)>) -> Option<[u8; 32]> {
    values.sort_unstable_by_key(|(number, _)| *number);
    if values.len() < 2 || !values.len().is_power_of_two() {
        return None;
    }
    let mut level: Vec<ChainingValue> = values.into_iter().map(|(_, value)| value).collect();
    while level.len() > 2 {
        let pairs = level.chunks_exact(2).filter_map(|pair| match pair {
            [left, right] => Some(merge_subtrees_non_root(left, right, Mode::Hash)),
            _ => None,
        });
        level = pairs.collect();
    }
    let [left, right] = level.try_into().ok()?;
    Some(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
}
