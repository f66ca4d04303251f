//! A second version of a stream: what it adds, and what differences make of that.

use crate::first::{FRAME_OVERHEAD, cut, report, seed};
use crate::input::{mb, timed};
use chronolith::chunker::{CutParameters, Sketch, Sketcher};
use chronolith::codec::Compressor;
use std::collections::{HashMap, HashSet};

/// Most candidates looked at for one super-feature.
const CANDIDATES_MAX: usize = 64;

pub fn pair(old: &[u8], new: &[u8], cuts: &[&str]) {
    let cuts =
        if cuts.is_empty() { &["16,64,256", "32,128,512", "64,256,1024", "128,512,2048"] } else { cuts };
    for text in cuts {
        let sizes: Vec<u32> =
            text.split(',').map(|kib| kib.parse::<u32>().expect("a number") << 10).collect();
        let [minimum, average, maximum] = sizes[..] else { panic!("{text}: three numbers") };
        println!("chunks of {text} KiB");
        measure(old, new, CutParameters::new(minimum, average, maximum).expect("valid"));
    }
}

/// Chunks by super-feature.
pub struct Partners(HashMap<(usize, u32), Vec<usize>>);

impl Partners {
    pub fn new(sketches: impl Iterator<Item = Sketch>) -> Self {
        let mut found: HashMap<_, Vec<usize>> = HashMap::new();
        for (number, sketch) in sketches.enumerate() {
            for feature in sketch.features() {
                found.entry(feature).or_default().push(number);
            }
        }
        Self(found)
    }

    /// Finds the chunk that shares most super-features, of several the one nearest to `place`.
    pub fn best(&self, sketch: Sketch, place: usize) -> Option<usize> {
        let mut shared: HashMap<usize, usize> = HashMap::new();
        for feature in sketch.features() {
            for &candidate in self.0.get(&feature).into_iter().flatten().take(CANDIDATES_MAX) {
                *shared.entry(candidate).or_default() += 1;
            }
        }
        let rank = |&(candidate, shared): &(usize, usize)| (shared, usize::MAX - candidate.abs_diff(place));
        shared.into_iter().max_by_key(rank).map(|(candidate, _)| candidate)
    }
}

fn measure(old: &[u8], new: &[u8], parameters: CutParameters) {
    let sketcher = Sketcher::derive(&seed());
    let old: Vec<&[u8]> = cut(old, parameters).into_iter().map(|range| &old[range]).collect();
    let new: Vec<&[u8]> = cut(new, parameters).into_iter().map(|range| &new[range]).collect();
    let known: HashMap<_, _> =
        old.iter().enumerate().rev().map(|(number, chunk)| (blake3::hash(chunk), number)).collect();
    let partners = Partners::new(old.iter().map(|chunk| sketcher.sketch(chunk)));

    let (mut seen, mut unknown) = (HashSet::new(), Vec::new());
    let (mut by_sketch, mut with_place, mut found, mut seconds, mut differenced) = (0, 0, 0, 0.0, 0);
    // The chunk of the old version that follows the last one met again: what stood at this place.
    let mut expected = 0;
    let mut compressor = Compressor::new(3).expect("memory");
    for &chunk in &new {
        let id = blake3::hash(chunk);
        if let Some(number) = known.get(&id) {
            expected = number + 1;
            continue;
        }
        if !seen.insert(id) {
            continue;
        }
        unknown.push(chunk);
        let mut out = Vec::new();
        compressor.compress(chunk, &mut out).expect("memory");
        let alone = out.len() + FRAME_OVERHEAD;
        let mut difference = |base: &[u8]| {
            let mut out = Vec::new();
            seconds += timed(|| compressor.difference(base, chunk, &mut out).expect("memory")).1;
            differenced += chunk.len();
            (out.len() + FRAME_OVERHEAD).min(alone)
        };
        let partner = partners.best(sketcher.sketch(chunk), expected);
        let place = if partner.is_none() { old.get(expected).map(|base| difference(base)) } else { None };
        let sketched = partner.map_or(alone, |number| difference(old[number]));
        found += usize::from(partner.is_some());
        by_sketch += sketched;
        with_place += place.unwrap_or(sketched);
        if sketched < alone / 2 {
            expected = partner.map_or(expected, |number| number + 1);
        }
    }
    let bytes = unknown.iter().map(|chunk| chunk.len()).sum();
    println!("  {} of {} chunks unknown, {:.0} MB plain; as they are:", unknown.len(), new.len(), mb(bytes));
    report(1, &unknown);
    report(2 << 20, &unknown);
    println!(
        "  differences: partner by sketch for {:.1} %, {:.1} MB; where none, what stood at this place: {:.1} MB; {:.0} MB/s",
        100.0 * found as f64 / unknown.len() as f64,
        mb(by_sketch),
        mb(with_place),
        mb(differenced) / seconds
    );
}

pub fn sketch_speed(data: &[u8]) {
    let sketcher = Sketcher::derive(&seed());
    let chunks = cut(data, CutParameters::STREAM);
    for _ in 0..5 {
        let (sum, seconds) = timed(|| {
            chunks
                .iter()
                .fold(0_u32, |sum, range| sum.wrapping_add(sketcher.sketch(&data[range.clone()]).0[0]))
        });
        println!("{:.0} MB/s ({sum})", mb(data.len()) / seconds);
    }
}
