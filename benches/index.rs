//! The index at the size of 1 TiB in chunks of 64 KiB: 16.8 million entries.
//!
//! Prints the time to open it from the cache, the time of a look-up (found, and not found, which
//! is the common case of a first backup), and the anonymous memory that it holds. The number of
//! entries may be given as an argument.

use chronolith::base::{BlobId, IndexId, KeyId, PackId};
use chronolith::codec::Encoding;
use chronolith::crypto::Suite;
use chronolith::format::index::IndexRecord;
use chronolith::format::pack::{BlobClass, Origin};
use chronolith::repo::{IndexSet, KnownPack, RepoError, RunContent};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const RUN_RECORDS: u64 = 1 << 17;
const PACK_RECORDS: u64 = 512;
const LOOK_UPS: u64 = 1 << 20;

fn id(number: u64) -> BlobId {
    BlobId::new(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn run(number: u64) -> RunContent {
    let origin = Origin {
        suite: Suite::default(),
        epoch: 1,
        encapsulation: [1; 32],
        salt: [number as u8; 32],
        commitment: [2; 32],
    };
    let origins: Arc<[Origin]> = vec![origin].into();
    let packs = (0..RUN_RECORDS / PACK_RECORDS)
        .map(|pack| {
            Arc::new(KnownPack {
                id: PackId::new(*id(u64::MAX - number * RUN_RECORDS - pack).as_bytes()),
                length: 32 << 20,
                class: BlobClass::Content,
                signer: KeyId::new([7; 32]),
                origins: origins.clone(),
            })
        })
        .collect();
    let mut records: Vec<IndexRecord> = (0..RUN_RECORDS)
        .map(|record| IndexRecord {
            id: id(number * RUN_RECORDS + record),
            class: BlobClass::Content,
            pack: (record / PACK_RECORDS) as u32,
            frame_offset: 200 + (record % PACK_RECORDS) as u32 * 65536,
            sealed_length: 65536,
            plain_length: 65536,
            offset: 0,
            length: 65536,
            counter: record,
            origin: 0,
            encoding: Encoding::Zstd,
            depth: 0,
            base: None,
        })
        .collect();
    records.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
    RunContent { records, packs }
}

fn anonymous_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn look_ups(index: &IndexSet, what: &str, ids: impl Iterator<Item = u64>) {
    let ids: Vec<BlobId> = ids.map(id).collect();
    // The first pass reads the pages of the map and checks their blocks.
    for pass in ["cold", "warm"] {
        let started = Instant::now();
        let found = ids
            .iter()
            .filter(|id| !black_box(index.find(BlobClass::Content, id, true, |_| true)).is_empty())
            .count();
        let each = started.elapsed().as_nanos() as f64 / ids.len() as f64;
        println!("look-up, {what}, {pass}: {each:.0} ns ({found} of {} found)", ids.len());
    }
}

fn main() {
    let entries = std::env::args()
        .filter_map(|word| word.parse::<u64>().ok())
        .next()
        .unwrap_or(1 << 24)
        .max(RUN_RECORDS);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let count = entries / RUN_RECORDS;
    let runs: Vec<IndexId> = (0..count).map(|number| IndexId::new(*id(!number).as_bytes())).collect();
    let started = Instant::now();
    {
        let index = IndexSet::new(Some(folder.path().to_owned()));
        let mut number = 0;
        index
            .load::<RepoError>(&runs, |_| {
                number += 1;
                Ok(Some(run(number - 1)))
            })
            .expect("the runs load");
        println!(
            "{} entries in {count} runs fetched and merged into {} segments in {:.1} s",
            index.len(),
            index.segment_count(),
            started.elapsed().as_secs_f64()
        );
    }
    let before = anonymous_mib();
    let started = Instant::now();
    let index = IndexSet::new(Some(folder.path().to_owned()));
    index.load::<RepoError>(&runs, |_| panic!("all runs are in the cache")).expect("the cache opens");
    println!("open: {:.1} ms, {} segments", started.elapsed().as_secs_f64() * 1e3, index.segment_count());
    let step = (index.len() as u64 / LOOK_UPS).max(1);
    look_ups(&index, "known", (0..LOOK_UPS).map(|n| n * step % (count * RUN_RECORDS)));
    look_ups(&index, "unknown", (0..LOOK_UPS).map(|n| u64::MAX / 2 + n));
    println!("anonymous memory: {} MiB before opening, {} MiB now", before, anonymous_mib());
}
