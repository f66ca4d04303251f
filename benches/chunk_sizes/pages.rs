//! Folders of database files, cut at fixed places.

use crate::first::{FRAME_OVERHEAD, report, seed};
use crate::input::mb;
use crate::pair::Partners;
use chronolith::chunker::Sketcher;
use chronolith::codec::Compressor;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

type Folder = [(PathBuf, Vec<u8>)];

pub fn pages(old: &Folder, new: &Folder) {
    for chunk_bytes in [64 << 10, 128 << 10, 256 << 10, 512 << 10] {
        println!("chunks of {} KiB", chunk_bytes >> 10);
        measure(old, new, chunk_bytes);
    }
}

fn measure(old: &Folder, new: &Folder, chunk_bytes: usize) {
    let sketcher = Sketcher::derive(&seed());
    let mut seen = HashSet::new();
    let first: Vec<&[u8]> = old
        .iter()
        .flat_map(|(_, data)| data.chunks(chunk_bytes))
        .filter(|chunk| seen.insert(blake3::hash(chunk)))
        .collect();
    for frame in [1, 512 << 10, 1 << 20, 2 << 20] {
        report(frame, &first);
    }
    let by_name: HashMap<&Path, &[u8]> =
        old.iter().map(|(name, data)| (name.as_path(), data.as_slice())).collect();
    let partners = Partners::new(first.iter().map(|chunk| sketcher.sketch(chunk)));
    let mut compressor = Compressor::new(3).expect("memory");
    let (mut unknown, mut by_place, mut by_sketch, mut found) = (Vec::new(), 0, 0, 0);
    for (name, data) in new {
        let before = by_name.get(name.as_path()).copied().unwrap_or_default();
        for (number, chunk) in data.chunks(chunk_bytes).enumerate() {
            if !seen.insert(blake3::hash(chunk)) {
                continue;
            }
            unknown.push(chunk);
            let mut out = Vec::new();
            compressor.compress(chunk, &mut out).expect("memory");
            let alone = out.len() + FRAME_OVERHEAD;
            let mut difference = |base: &[u8]| {
                let mut out = Vec::new();
                compressor.difference(base, chunk, &mut out).expect("memory");
                (out.len() + FRAME_OVERHEAD).min(alone)
            };
            by_place += before.chunks(chunk_bytes).nth(number).map_or(alone, &mut difference);
            let partner = partners.best(sketcher.sketch(chunk), 0);
            found += usize::from(partner.is_some());
            by_sketch += partner.map_or(alone, |number| difference(first[number]));
        }
    }
    let bytes = unknown.iter().map(|chunk| chunk.len()).sum();
    println!("  {} chunks unknown, {:.0} MB plain; as they are:", unknown.len(), mb(bytes));
    report(1, &unknown);
    report(1 << 20, &unknown);
    println!(
        "  differences: against the same place {:.1} MB; partner by sketch for {:.1} %, {:.1} MB",
        mb(by_place),
        100.0 * found as f64 / unknown.len() as f64,
        mb(by_sketch)
    );
}
