//! One step, measured: seconds, requests, and the most anonymous memory that the process held.

use super::fill::chunk_id;
use super::{Failure, Scene, logs, mib};
use chronolith::format::pack::BlobClass;
use chronolith::ops::Snapshots;
use chronolith::ops::catalogue::gather_now;
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::stats::stats;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is measured of streams, in this order: the first leaves the cache behind that the others use.
pub const STREAM_STEPS: [&str; 6] = ["fetch and merge", "open", "known", "unknown", "reach", "prune plan"];
/// What is measured of snapshots, in this order: without a catalogue and with one, each time by a client that has
/// no cache and by one that has.
pub const SNAPSHOT_STEPS: [&str; 6] = [
    "list",
    "list again",
    "make a catalogue",
    "list, fresh client",
    "list, warm client",
    "list all, warm client",
];

/// What is measured of archived log, in this order.
pub const LOG_STEPS: [&str; 6] = [
    "list the log, fresh client without a catalogue",
    "make a catalogue of the log",
    "list the log, fresh client",
    "list the log, warm client",
    "plan a restore, warm client",
    "check what is gone, warm client",
];

const LOOK_UPS: u64 = 1 << 19;

fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Seconds that this process had a processor, in user space and in the kernel: what other programs on the
/// machine lengthen least.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // Linux shows every architecture's programs 100 ticks a second.
    ticks as f64 / 100.0
}

/// Takes one step and prints a row of a table.
pub fn step(scene: &Scene, name: &str, chunks: u64) -> Result<(), Failure> {
    let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watch = {
        let (stop, peak) = (stop.clone(), peak.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                peak.fetch_max(anonymous_bytes(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        })
    };
    if name.contains("fresh") {
        scene.forget_cache();
    }
    let began = Instant::now();
    let (repository, store) = scene.open()?;
    let result = match name {
        "fetch and merge" => {
            repository.load_index()?;
            let index = repository.index();
            let cache = mib(scene.stored_bytes("cache"));
            format!("{} records in {} segments, {cache} on disk", index.len(), index.segment_count())
        }
        "open" => {
            repository.load_index()?;
            format!("{} records", repository.index().len())
        }
        "known" | "unknown" => {
            repository.load_index()?;
            let first = if name == "known" { 0 } else { u64::MAX / 2 };
            let step = if name == "known" { (chunks / LOOK_UPS).max(1) } else { 1 };
            let ids: Vec<_> =
                (0..LOOK_UPS).map(|number| chunk_id(first + number * step % chunks.max(1))).collect();
            let mut times = Vec::new();
            for _ in 0..2 {
                let began = Instant::now();
                let found =
                    ids.iter().filter(|id| black_box(repository.adoptable(BlobClass::Content, id))).count();
                let each = began.elapsed().as_nanos() as f64 / ids.len() as f64;
                times.push(format!("{each:.0} ns a look-up ({found} of {} found)", ids.len()));
            }
            times.join(", again: ")
        }
        "reach" => {
            let snapshots = Snapshots::load(&repository)?;
            let all = snapshots.iter().map(|view| (view.id, &view.snapshot));
            let total = stats(&repository, all, None)?.total;
            format!("{} snapshots, {} of content", total.snapshots, mib(total.raw_bytes))
        }
        "prune plan" => {
            let options = PruneOptions { dry_run: true, ..PruneOptions::new("scale") };
            let report = prune(&repository, &options)?;
            format!("{} packs, {} condemned", report.packs, report.condemned_packs)
        }
        "list" | "list again" | "list, fresh client" | "list, warm client" => {
            format!("{} snapshots", Snapshots::load(&repository)?.with_forgotten().len())
        }
        "list all, warm client" => {
            format!("{} snapshots", Snapshots::load_all(&repository)?.with_forgotten().len())
        }
        "make a catalogue" => {
            gather_now(&repository)?;
            format!("{} catalogues", repository.memory()?.held().len())
        }
        "make a catalogue of the log" => logs::catalogue(&repository)?,
        "plan a restore, warm client" => logs::plan_restore(&repository)?,
        "check what is gone, warm client" => logs::look_for_lost(&repository)?,
        list if list.starts_with("list the log") => logs::list(&repository)?,
        other => return Err(Failure::Other(format!("there is no step {other:?}"))),
    };
    let seconds = began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let _ = watch.join();
    let peak = peak.load(Ordering::Relaxed).max(anonymous_bytes());
    let requests = store.requests.load(Ordering::Relaxed);
    let processor = processor_seconds();
    println!(
        "| {name} | {seconds:.3} s | {processor:.2} s of a processor | {} | {requests} requests | {result} |",
        mib(peak)
    );
    Ok(())
}
