//! How much of each pack is needed.

use super::super::keeper::Keeper;
use super::PruneReport;
use crate::base::PackId;
use crate::repo::NumberedIndex;
use std::collections::HashMap;
use std::ops::Range;

/// What a table of contents says of a frame, of its base, and of a blob.
const TABLE_BYTES: [u64; 3] = [28, 32, 36];

/// What is needed of a pack.
#[derive(Default)]
pub(super) struct Use {
    /// Stored bytes of frames that are needed, and what the table of contents says of them.
    pub frames: u64,
    pub table: u64,
    /// Of those the bytes that only differences need, and that nobody needs.
    bases: u64,
    shared: u64,
}

/// Frames of several blobs that are remembered at once, at some 20 bytes each.
const FRAMES_AT_ONCE: usize = 7 << 20;

/// A frame of several blobs.
struct Shared {
    sealed: u32,
    plain: u32,
    needed: u32,
}

/// Adds up what is needed of each pack; a frame is needed as a whole.
pub(super) fn uses(
    index: &NumberedIndex,
    keeper: &Keeper<'_>,
    report: &mut PruneReport,
) -> HashMap<PackId, Use> {
    let packs = Packs::of(index);
    let (uses, _) = packs.uses(index, keeper, FRAMES_AT_ONCE);
    report.base_bytes += uses.iter().map(|used| used.bases).sum::<u64>();
    report.shared_frame_bytes += uses.iter().map(|used| used.shared).sum::<u64>();
    packs.ids.into_iter().zip(uses).filter(|(_, used)| used.table > 0).collect()
}

/// The packs of an index, each once.
struct Packs {
    /// In order: a pack's number is its place here.
    ids: Vec<PackId>,
    /// The number of each as the index has them, where several runs may describe one.
    numbers: Vec<usize>,
}

impl Packs {
    fn of(index: &NumberedIndex) -> Self {
        let mut ids: Vec<PackId> = index.packs().map(|pack| pack.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let number = |pack: &PackId| ids.binary_search(pack).unwrap_or(usize::MAX);
        let numbers = index.packs().map(|pack| number(&pack.id)).collect();
        Self { ids, numbers }
    }

    /// Adds up what is needed of each in one pass over the index, unless the frames are more than may be in memory: then as
    /// many packs a pass as fit. Returns how many passes it took.
    fn uses(&self, index: &NumberedIndex, keeper: &Keeper<'_>, frames_at_once: usize) -> (Vec<Use>, u32) {
        let mut uses: Vec<Use> = Vec::new();
        uses.resize_with(self.ids.len(), Use::default);
        let (mut from, mut passes, mut fit) = (0, 0, usize::MAX);
        while from < uses.len() {
            let packs = from..uses.len().min(from.saturating_add(fit));
            let until = uses_of(index, keeper, &self.numbers, packs, &mut uses, frames_at_once);
            // Names are chance: where so many fitted, as many will.
            fit = until - from;
            from = until;
            passes += 1;
        }
        (uses, passes)
    }
}

/// Adds up what is needed of packs with these numbers, in one pass; returns the number of the first pack that it left to
/// the next.
fn uses_of(
    index: &NumberedIndex,
    keeper: &Keeper<'_>,
    numbers: &[usize],
    packs: Range<usize>,
    uses: &mut [Use],
    frames_at_once: usize,
) -> usize {
    let [frame_bytes, base_bytes, blob_bytes] = TABLE_BYTES;
    let Range { start: from, end: mut until } = packs;
    // By the number of the pack and the offset in it.
    let mut frames: HashMap<(u32, u32), Shared> = HashMap::new();
    index.for_each_in_pack(|number, pack, copy| {
        if !keeper.chosen.get(number) {
            return;
        }
        let Some(&pack) = numbers.get(pack).filter(|pack| (from..until).contains(*pack)) else {
            return;
        };
        let Some(used) = uses.get_mut(pack) else { return };
        let record = &copy.record;
        let (sealed, plain) = (u64::from(record.sealed_length), u64::from(record.plain_length));
        used.table += blob_bytes;
        if keeper.is_only_base(number, &copy) {
            used.bases += sealed * u64::from(record.length) / plain.max(1);
        }
        let mut whole = || {
            used.frames += sealed;
            used.table += frame_bytes + if record.base.is_some() { base_bytes } else { 0 };
        };
        if record.length == record.plain_length {
            whole();
            return;
        }
        let frame = frames.entry((pack as u32, record.frame_offset)).or_insert_with(|| {
            whole();
            Shared { sealed: record.sealed_length, plain: record.plain_length, needed: 0 }
        });
        frame.needed = frame.needed.saturating_add(record.length);
        if frames.len() > frames_at_once && until - from > 1 {
            until = from + (until - from) / 2;
            frames.retain(|(pack, _), _| (*pack as usize) < until);
            uses.iter_mut().skip(until).for_each(|used| *used = Use::default());
        }
    });
    frames.retain(|_, frame| frame.needed < frame.plain);
    for ((pack, _), frame) in &frames {
        let unneeded = u64::from(frame.plain - frame.needed);
        if let Some(used) = uses.get_mut(*pack as usize) {
            used.shared += u64::from(frame.sealed) * unneeded / u64::from(frame.plain.max(1));
        }
    }
    if frames.is_empty() {
        return until;
    }
    // The table tells of the other blobs too.
    index.for_each_in_pack(|number, pack, copy| {
        if !keeper.chosen.get(number)
            && let Some(&pack) = numbers.get(pack)
            && frames.contains_key(&(pack as u32, copy.record.frame_offset))
            && let Some(used) = uses.get_mut(pack)
        {
            used.table += blob_bytes;
        }
    });
    until
}

#[cfg(test)]
mod tests {
    use super::super::super::keeper::Trust;
    use super::super::super::reach::reach;
    use super::super::super::words::Said;
    use super::*;
    use crate::base::{Clock, Entropy, Quiet, SecretBytes, Timestamp};
    use crate::crypto::Suite;
    use crate::ops::backup::{BackupOptions, Source, backup};
    use crate::ops::{OpsError, Snapshots};
    use crate::repo::{Credential, Environment, InitOptions, NewSlot, NoKeyCache, Repository, init, open};
    use crate::storage::MemoryStore;
    use std::io::Cursor;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Noon;
    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::from_nanoseconds(1_800_000_000_000_000_000)
        }
    }

    struct Draw(AtomicU64);
    impl Entropy for Draw {
        fn fill(&self, buffer: &mut [u8]) {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(buffer);
        }
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Six backups, each with packs of its own; every other chunk of each is in the last one too.
    fn repository() -> Result<Arc<Repository>, OpsError> {
        let environment = Environment {
            store: Arc::new(MemoryStore::new()),
            clock: Arc::new(Noon),
            entropy: Arc::new(Draw(0.into())),
            observer: Arc::new(Quiet),
            cache: None,
            key_cache: Arc::new(NoKeyCache),
        };
        let key = || SecretBytes::new(vec![7; 32]);
        let options = InitOptions::recommended(Suite::default(), "me")?;
        init(&environment, &options, &NewSlot::KeyFile(&key()))?;
        let repository = open(environment, &Credential::KeyFile(key()))?;
        let whole: Vec<Vec<u8>> = (0..6).map(|seed| noise(seed, 2 << 20)).collect();
        let halves: Vec<u8> =
            whole.iter().flat_map(|bytes| bytes.chunks(1 << 20).step_by(2).flatten()).copied().collect();
        for (bytes, name) in whole.into_iter().zip(["a", "b", "c", "d", "e", "f"]).chain([(halves, "halves")])
        {
            let source =
                Source::Stream { name: name.as_bytes().to_vec(), reader: Box::new(Cursor::new(bytes)) };
            let _ = backup(&repository, vec![source], &BackupOptions::new("host", "user", "test"))?;
        }
        Ok(repository)
    }

    #[test]
    fn however_few_frames_are_remembered_the_sums_are_the_same() -> Result<(), OpsError> {
        let repository = repository()?;
        let index = repository.index().numbered();
        let mut keeper = Keeper::new(&index, |_| Trust::Stays(Said::ByAnybody));
        let snapshots = Snapshots::load(&repository)?;
        reach(&repository, [snapshots.resolve("halves")?.snapshot.root], &mut keeper)?;
        let packs = Packs::of(&index);
        let sums = |frames_at_once: usize| {
            let (uses, passes) = packs.uses(&index, &keeper, frames_at_once);
            let sums: Vec<_> =
                uses.iter().map(|used| [used.frames, used.table, used.bases, used.shared]).collect();
            (sums, passes)
        };
        let (at_once, passes) = sums(usize::MAX);
        assert_eq!(passes, 1);
        assert!(at_once.iter().filter(|[frames, ..]| *frames > 0).count() > 6, "{at_once:?}");
        assert!(at_once.iter().any(|[.., shared]| *shared > 0), "{at_once:?}");
        for frames_at_once in [0, 1, 2, 3, 5] {
            let (sums, passes) = sums(frames_at_once);
            assert!(passes > 1, "{frames_at_once} at once");
            assert_eq!(sums, at_once, "{frames_at_once} at once");
        }
        Ok(())
    }
}
