//! The bytes of a segment become sealed frames: cut into pieces, a few threads at once, and each read back before anybody
//! hears of it.
//!
//! What was read back is compared with the segment, and the ids that a record names are those of what was read back. So is
//! the digest, where the pieces are subtrees of it, as those of a full segment are.

use super::windows::whole_of;
use super::write::{digest, panicked};
use crate::base::{BlobId, limits};
use crate::format::log::LogDigest;
use crate::format::pack::{BlobClass, FrameRecord};
use crate::repo::error::RepoError;
use crate::repo::frames::{FrameEncoder, SealedBlob, SessionOrigin};
use crate::repo::repository::Repository;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Threads that compress one segment.
const THREADS: usize = 2;
/// Bytes from which a segment is worth a second thread.
const WORTH_HALVING: usize = 256 << 10;
/// What the pieces of a segment are aligned to: no page of a log is cut.
const ALIGNMENT: usize = 8 << 10;
/// Length of a chunk of nothing but zeros, of which a segment may name many and store one (A9).
const ZEROS: usize = 1 << 20;
/// Zeros at the end that are worth chunks of their own.
const WORTH_ZEROS: usize = 128 << 10;

/// A segment on its way into a log pack.
pub(super) struct SealedSegment {
    /// What it is as a whole.
    pub digest: LogDigest,
    /// The blob of each piece, in their order.
    pub ids: Vec<(BlobId, u32)>,
    /// The frames, each blob once.
    pub frames: Vec<(FrameRecord, Vec<u8>)>,
}

impl Repository {
    /// Compresses, seals and identifies the pieces of a segment, on a few threads; equal pieces once.
    pub(super) fn seal_segment(
        &self,
        session: &SessionOrigin,
        bytes: &[u8],
    ) -> Result<SealedSegment, RepoError> {
        let pieces = cut(bytes);
        let ids = self.keyring().id_key(BlobClass::Content)?;
        // Chunks of zeros are found by their place, so that each length is hashed and sealed once.
        let mut work: Vec<(u64, &[u8])> = Vec::new();
        let mut place = Vec::with_capacity(pieces.len());
        let mut zeros: HashMap<usize, usize> = HashMap::new();
        let data_end = data_end(bytes);
        for piece in &pieces {
            let is_zeros = piece.start >= data_end;
            let known = zeros.get(&piece.len()).copied().filter(|_| is_zeros);
            place.push(known.unwrap_or(work.len()));
            if known.is_none() {
                if is_zeros {
                    zeros.insert(piece.len(), work.len());
                }
                work.push((piece.start as u64, bytes.get(piece.clone()).unwrap_or_default()));
            }
        }
        // Of all others the digest is taken of the whole, beside.
        let has_subtrees = work.len() == pieces.len() && are_subtrees(&pieces);
        let threads = if bytes.len() >= WORTH_HALVING { THREADS.min(work.len()) } else { 1 };
        let seal_some = |first: usize| -> Result<Vec<(usize, SealedBlob)>, RepoError> {
            let mut encoder = FrameEncoder::for_logs()?;
            let mut sealed = Vec::new();
            for (number, (offset, plain)) in work.iter().enumerate().skip(first).step_by(threads.max(1)) {
                let offset = has_subtrees.then_some(*offset);
                sealed.push((number, encoder.seal_alone(session, self.id(), ids, plain, offset)?));
            }
            Ok(sealed)
        };
        let (mut sealed, whole) = std::thread::scope(|scope| {
            let whole = (!has_subtrees).then(|| scope.spawn(|| digest(bytes)));
            let others: Vec<_> = (1..threads).map(|first| scope.spawn(move || seal_some(first))).collect();
            let own = seal_some(0);
            // All are waited for before anything is said: a panic is an error here, and nothing else.
            let others: Vec<_> = others.into_iter().map(|other| other.join()).collect();
            let whole = whole.map(|whole| whole.join().map_err(|_| panicked())).transpose();
            let mut sealed = own?;
            for other in others {
                sealed.extend(other.map_err(|_| panicked())??);
            }
            Ok::<_, RepoError>((sealed, whole?))
        })?;
        sealed.sort_unstable_by_key(|(number, _)| *number);
        let whole = match whole {
            Some(whole) => whole,
            None => {
                let values = sealed.iter().filter_map(|(number, blob)| Some((*number, blob.subtree?)));
                let blake3 = whole_of(values.collect()).ok_or_else(panicked)?;
                LogDigest { length: bytes.len() as u64, blake3 }
            }
        };
        let blobs: Vec<(BlobId, u32)> =
            sealed.iter().filter_map(|(_, blob)| blob.record.blobs.first().copied()).collect();
        let ids = place.iter().filter_map(|number| blobs.get(*number).copied()).collect();
        let mut placed = HashSet::new();
        sealed.retain(|(_, blob)| blob.record.blobs.first().is_some_and(|(id, _)| placed.insert(*id)));
        let frames = sealed.into_iter().map(|(_, blob)| (blob.record, blob.bytes)).collect();
        Ok(SealedSegment { digest: whole, ids, frames })
    }
}

/// Says whether pieces are subtrees of the BLAKE3 of the whole: a power of two of them, each as long as the others, a
/// power of two.
fn are_subtrees(pieces: &[Range<usize>]) -> bool {
    let Some(length) = pieces.first().map(Range::len) else { return false };
    let (count, is_long) = (pieces.len(), length >= blake3::CHUNK_LEN);
    count > 1
        && count.is_power_of_two()
        && is_long
        && length.is_power_of_two()
        && pieces.iter().all(|piece| piece.len() == length)
}

/// Returns where the zeros at the end begin, rounded up to a page, where they are worth it.
fn data_end(bytes: &[u8]) -> usize {
    let zeros: usize =
        bytes.rchunks(4096).take_while(|block| block.iter().all(|byte| *byte == 0)).map(<[u8]>::len).sum();
    let end = (bytes.len() - zeros).next_multiple_of(ALIGNMENT).min(bytes.len());
    if bytes.len() - end >= WORTH_ZEROS { end } else { bytes.len() }
}

/// Cuts a segment: what holds something into equal pieces, one for each thread or more; zeros at the end
/// into pieces of which all but the last are equal.
fn cut(bytes: &[u8]) -> Vec<Range<usize>> {
    let end = data_end(bytes);
    let least = if end >= WORTH_HALVING { THREADS } else { 1 };
    let blob_max = usize::try_from(limits::BLOB_BYTES_MAX).unwrap_or(usize::MAX);
    let count = end.div_ceil(blob_max).max(least);
    let length = end.div_ceil(count).next_multiple_of(ALIGNMENT).min(blob_max).max(1);
    let data = (0..end).step_by(length).map(|start| start..end.min(start + length));
    let zeros = (end..bytes.len()).step_by(ZEROS).map(|start| start..bytes.len().min(start + ZEROS));
    data.chain(zeros).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(bytes: &[u8]) -> Vec<usize> {
        let pieces = cut(bytes);
        assert_eq!(pieces.first().map(|piece| piece.start), Some(0));
        assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(pieces.last().map(|piece| piece.end), Some(bytes.len()));
        pieces.iter().map(Range::len).collect()
    }

    #[test]
    fn segments_are_cut_for_two_threads() {
        assert_eq!(lengths(b"1"), [1]);
        assert_eq!(lengths(&[1; 100 << 10]), [100 << 10]);
        assert_eq!(lengths(&[1; 1 << 20]), [512 << 10, 512 << 10]);
        assert_eq!(lengths(&[1; 16 << 20]), [8 << 20, 8 << 20]);
        assert_eq!(lengths(&[1; 64 << 20]), [8 << 20; 8]);
    }

    /// A9: what `archive_timeout` makes: full length, and nothing behind the first pages.
    #[test]
    fn zeros_at_the_end_are_pieces_of_their_own() {
        let mut segment = vec![0; 16 << 20];
        segment[9000] = 1;
        let found = lengths(&segment);
        assert_eq!(found[0], 16 << 10);
        assert_eq!(found[1..16], [1 << 20; 15]);
        assert_eq!(found[16..], [(1 << 20) - (16 << 10)]);
        assert_eq!(lengths(&[0; 16 << 20]), [1 << 20; 16]);
        // Too short to be worth it.
        let mut segment = vec![1; 1 << 20];
        segment[(1 << 20) - 100_000..].fill(0);
        assert_eq!(lengths(&segment), [512 << 10; 2]);
    }
}
