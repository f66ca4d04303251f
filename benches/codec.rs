//! Speed of frames: alone, as differences, and back.

use chronolith::codec::{Compressor, DEFAULT_LEVEL, Decompressor, Encoding, FRAME_BYTES};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A dump of `length` bytes in which one row in a hundred depends on `version`.
fn dump(length: usize, version: u64) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 128);
    let mut row = 0_u64;
    while text.len() < length {
        let mixed = row.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let number = (mixed >> 30) + if mixed.is_multiple_of(100) { version } else { 0 };
        let line = format!("{row}\tuser{:05}@example.org\t{:012}\tactive\n", number % 99_999, number);
        text.extend_from_slice(line.as_bytes());
        row += 1;
    }
    text.truncate(length);
    text
}

fn frames(criterion: &mut Criterion) {
    let mut compressor = Compressor::new(DEFAULT_LEVEL).unwrap();
    let mut decompressor = Decompressor::new().unwrap();
    let mut out = Vec::new();
    let mut group = criterion.benchmark_group("frame");
    group.sample_size(20);
    for length in [128 << 10, 1 << 20, FRAME_BYTES] {
        let plain = dump(length, 0);
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_with_input(BenchmarkId::new("compress", length >> 10), &plain, |bencher, plain| {
            bencher.iter(|| {
                out.clear();
                compressor.compress(plain, &mut out).unwrap()
            });
        });
        out.clear();
        compressor.compress(&plain, &mut out).unwrap();
        let mut back = Vec::new();
        group.bench_with_input(BenchmarkId::new("decode", length >> 10), &plain, |bencher, plain| {
            bencher.iter(|| {
                back.clear();
                decompressor.decode(Encoding::Zstd, None, &out, plain.len(), &mut back).unwrap();
            });
        });
        let base = dump(plain.len(), 1);
        group.bench_with_input(BenchmarkId::new("difference", length >> 10), &plain, |bencher, plain| {
            bencher.iter(|| {
                out.clear();
                compressor.difference(&base, plain, &mut out).unwrap();
            });
        });
        group.bench_with_input(
            BenchmarkId::new("decode difference", length >> 10),
            &plain,
            |bencher, plain| {
                bencher.iter(|| {
                    back.clear();
                    decompressor
                        .decode(Encoding::Difference, Some(&base), &out, plain.len(), &mut back)
                        .unwrap();
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, frames);
criterion_main!(benches);
