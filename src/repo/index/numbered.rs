//! The index with a number for every record, for operations that must remember something of each
//! blob in a bit or two: whatever the repository holds, no map of its blobs is ever in memory.

use super::segment::{KnownPack, Located, Segment};
use crate::base::BlobId;
use crate::format::pack::BlobClass;
use std::sync::Arc;

/// The records as they stood at one moment, numbered from 0.
pub struct NumberedIndex {
    segments: Arc<Vec<Arc<Segment>>>,
    /// Number of the first record of each segment.
    starts: Vec<u64>,
    length: u64,
}

impl NumberedIndex {
    pub(super) fn new(segments: Arc<Vec<Arc<Segment>>>) -> Self {
        let mut length = 0;
        let starts = segments
            .iter()
            .map(|segment| {
                let start = length;
                length += segment.len() as u64;
                start
            })
            .collect();
        Self { segments, starts, length }
    }

    /// Returns how many records there are; numbers are below that.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Says whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the packs that records name, one that several runs describe more than once.
    pub fn packs(&self) -> impl Iterator<Item = &Arc<KnownPack>> {
        self.segments.iter().flat_map(|segment| segment.packs())
    }

    /// Calls `found` with every copy of a blob and its number.
    pub fn copies(&self, class: BlobClass, id: &BlobId, mut found: impl FnMut(u64, Located)) {
        for (segment, start) in self.segments.iter().zip(&self.starts) {
            // A damaged block of the cache answers nothing.
            let _ = segment.find_numbered(class, id, |number, located| {
                found(start + number as u64, located);
                true
            });
        }
    }

    /// Returns the copy that readers take first, with its number: it stands for the blob.
    pub fn first(&self, class: BlobClass, id: &BlobId) -> Option<(u64, Located)> {
        let mut first: Option<(u64, Located)> = None;
        self.copies(class, id, |number, copy| {
            if first.as_ref().is_none_or(|(_, first)| copy.record.depth < first.record.depth) {
                first = Some((number, copy));
            }
        });
        first
    }

    /// Calls `visit` with every record and its number, in order.
    pub fn for_each(&self, mut visit: impl FnMut(u64, Located)) {
        self.for_each_in_pack(|number, _, located| visit(number, located));
    }

    /// Calls `visit` with every record, its number and the place of its pack among [`Self::packs`], so that what
    /// is known of packs need not be looked up by their names.
    pub fn for_each_in_pack(&self, mut visit: impl FnMut(u64, usize, Located)) {
        let mut first_pack = 0;
        for (segment, start) in self.segments.iter().zip(&self.starts) {
            for number in 0..segment.len() {
                if let Ok(located) = segment.record(number) {
                    visit(start + number as u64, first_pack + located.record.pack as usize, located);
                }
            }
            first_pack += segment.packs().len();
        }
    }
}
