//! Long streams are cut by more than one core: regions of them ahead, joined in order.
//!
//! Where a chunk begins depends on where the one before it ended, so the cutter has to go through a stream
//! from its start. But cuts that begin at any two places soon meet. So the feeder hands each
//! region it has read to a thread that cuts it as if a chunk began there, reads the next one meanwhile, and
//! later cuts only as much of each region as it takes to meet the cuts found ahead. The cut points are the
//! same as ever.

use super::along::{Along, Before};
use super::batch::Known;
use crate::chunker::Cutter;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::ops::Range;

/// Workers from which on a thread that cuts ahead is worth having: one alone is kept busy by a feeder that cuts by itself.
const WORKERS_MIN: usize = 2;

/// Returns how many threads cut ahead beside so many workers.
///
/// Cutting takes about a fifth of the time that a worker takes for bytes it has to store. Of a stream in which nothing is
/// new it takes nearly as long as what a worker does, so that beside two workers, too, one goes on while the feeder reads.
pub(super) const fn threads_for(workers: usize) -> usize {
    match workers {
        0..WORKERS_MIN => 0,
        WORKERS_MIN..4 => 1,
        4..12 => 2,
        _ => 3,
    }
}

/// A region of a stream within the bytes of a batch.
pub(super) struct Region {
    pub bytes: Vec<u8>,
    pub range: Range<usize>,
    /// What the stream held before, if it is to be cut along that.
    pub before: Option<Before>,
    /// Where a chunk was taken to begin, counted from the start of the range, and where chunks end if one did.
    pub cuts: Vec<usize>,
    /// What the chunks are that end there, as far as that was found out.
    pub known: Vec<Option<Known>>,
}

impl Region {
    /// A region that is still to be cut.
    pub fn new(bytes: Vec<u8>, range: Range<usize>) -> Self {
        Self { bytes, range, before: None, cuts: Vec::new(), known: Vec::new() }
    }
}

struct Order {
    region: Region,
    answer: Sender<Region>,
}

/// Threads wait here for regions.
pub(super) struct CutterThreads(Receiver<Order>);

impl CutterThreads {
    /// Cuts regions until the feeder is gone.
    pub fn run(&self, cutter: &Cutter<'_>, along: &Along<'_>) {
        for Order { mut region, answer } in &self.0 {
            let bytes = region.bytes.get(region.range.clone()).unwrap_or_default();
            match region.before.take().and_then(|before| along.cut(bytes, &before)) {
                Some((cuts, known)) => (region.cuts, region.known) = (cuts, known),
                None => region.cuts = cutter.cut_ahead(bytes),
            }
            // The feeder has stopped if nobody takes it.
            let _ = answer.send(region);
        }
    }
}

/// The feeder's end.
pub(super) struct CutAhead {
    orders: Sender<Order>,
    /// Regions that may be under way at once.
    pub depth: usize,
}

impl CutAhead {
    /// Makes both ends for so many threads.
    pub fn new(threads: usize) -> (Self, CutterThreads) {
        let depth = threads + 1;
        let (orders, waiting) = bounded(depth);
        (Self { orders, depth }, CutterThreads(waiting))
    }

    /// Has a region cut; its answer comes once. `None` if the threads are gone.
    pub fn begin(&self, region: Region) -> Option<Receiver<Region>> {
        let (answer, answered) = bounded(1);
        self.orders.send(Order { region, answer }).ok().map(|()| answered)
    }
}
