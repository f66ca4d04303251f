//! First backups: every unique chunk must be stored somehow.

use crate::input::{mb, timed};
use chronolith::base::Secret;
use chronolith::chunker::{CutParameters, Cutter, GearTable};
use chronolith::codec::Compressor;
use std::collections::HashSet;
use std::ops::Range;
use zstd::zstd_safe::{CCtx, CDict, compress_bound};

/// What a frame costs besides its content: header and tag.
pub const FRAME_OVERHEAD: usize = 40;

pub fn seed() -> Secret {
    Secret::new([7; 32])
}

/// Cuts content into the ranges of its chunks.
pub fn cut(data: &[u8], parameters: CutParameters) -> Vec<Range<usize>> {
    let table = GearTable::derive(&seed());
    let cutter = Cutter::new(&table, parameters);
    let (mut start, mut chunks) = (0, Vec::new());
    while let Some(length) = cutter.cut(&data[start..], true) {
        chunks.push(start..start + length);
        start += length;
    }
    chunks
}

pub fn first(data: &[u8]) {
    for average in [64 << 10, 128 << 10, 256 << 10, 512 << 10] {
        let parameters = CutParameters::new(average / 4, average, average * 4).expect("valid");
        let (chunks, seconds) = timed(|| cut(data, parameters));
        let mean = (data.len() / chunks.len()) >> 10;
        println!(
            "average {} KiB: {} chunks of {mean} KiB on average, cut at {:.0} MB/s",
            average >> 10,
            chunks.len(),
            mb(data.len()) / seconds
        );
        let mut seen = HashSet::new();
        let unique: Vec<&[u8]> = chunks
            .into_iter()
            .map(|range| &data[range])
            .filter(|chunk| seen.insert(blake3::hash(chunk)))
            .collect();
        for frame in [1, 512 << 10, 1 << 20, 2 << 20, 4 << 20] {
            report(frame, &unique);
        }
    }
}

/// Stores chunks in frames that are closed once they hold `frame` bytes.
pub fn report(frame: usize, chunks: &[&[u8]]) {
    let mut compressor = Compressor::new(3).expect("memory");
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let (mut stored, mut frames, mut seconds) = (0, 0, 0.0);
    for (number, chunk) in chunks.iter().enumerate() {
        plain.extend_from_slice(chunk);
        if plain.len() >= frame || number + 1 == chunks.len() {
            out.clear();
            seconds += timed(|| compressor.compress(&plain, &mut out).expect("memory")).1;
            stored += out.len() + FRAME_OVERHEAD;
            frames += 1;
            plain.clear();
        }
    }
    let bytes = chunks.iter().map(|chunk| chunk.len()).sum();
    println!(
        "  frames of {:4} KiB: {:.1} MB in {frames} frames, {:.0} MB/s",
        frame >> 10,
        mb(stored),
        mb(bytes) / seconds
    );
}

pub fn dictionary(data: &[u8]) {
    let chunks = cut(data, CutParameters::STREAM);
    for (dictionary_bytes, sample_bytes) in [(112 << 10, 4096), (112 << 10, 16384), (448 << 10, 16384)] {
        let step = data.len() * sample_bytes / (dictionary_bytes * 150);
        let samples: Vec<&[u8]> =
            data.chunks(step).map(|part| &part[..part.len().min(sample_bytes)]).collect();
        let (dictionary, training) =
            timed(|| zstd::dict::from_samples(&samples, dictionary_bytes).expect("samples"));
        let prepared = CDict::create(&dictionary, 3);
        let mut context = CCtx::create();
        context.ref_cdict(&prepared).expect("memory");
        let mut out: Vec<u8> = Vec::with_capacity(compress_bound(8 << 20));
        let (stored, seconds) = timed(|| {
            chunks
                .iter()
                .map(|range| {
                    context.compress2(&mut out, &data[range.clone()]).expect("room") + FRAME_OVERHEAD
                })
                .sum()
        });
        println!(
            "dictionary of {} KiB trained in {training:.1} s on {} samples of {} KiB: {:.1} MB, {:.0} MB/s",
            dictionary_bytes >> 10,
            samples.len(),
            sample_bytes >> 10,
            mb(stored),
            mb(data.len()) / seconds
        );
    }
}
