//! Speed of cutting and of sketches, on a dump and on noise.

use chronolith::base::Secret;
use chronolith::chunker::{CutParameters, Cutter, GearTable, Sketcher, recognise};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const LENGTH: usize = 16 << 20;

fn dump() -> Vec<u8> {
    let mut text = Vec::with_capacity(LENGTH + 128);
    let mut row = 0_u64;
    while text.len() < LENGTH {
        let number = row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        text.extend_from_slice(
            format!("{row}\tuser{}@example.org\t{number}\tactive\n", number % 99_999).as_bytes(),
        );
        row += 1;
    }
    text.truncate(LENGTH);
    text
}

fn noise() -> Vec<u8> {
    let mut noise = vec![0; LENGTH];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}

fn cutting(criterion: &mut Criterion) {
    let seed = Secret::new([7; 32]);
    let table = GearTable::derive(&seed);
    let cutter = Cutter::new(&table, CutParameters::STREAM);
    let sketcher = Sketcher::derive(&seed);
    for (name, data) in [("dump", dump()), ("noise", noise()), ("zeros", vec![0; LENGTH])] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(LENGTH as u64)).sample_size(20);
        group.bench_function("cut", |bencher| {
            bencher.iter(|| {
                let (mut rest, mut chunks) = (data.as_slice(), 0_usize);
                while let Some(length) = cutter.cut(rest, true) {
                    rest = &rest[length..];
                    chunks += 1;
                }
                chunks
            });
        });
        group.bench_function("sketch", |bencher| {
            bencher.iter(|| {
                for chunk in data.chunks(160 << 10) {
                    black_box(sketcher.sketch(black_box(chunk)));
                }
            });
        });
        group.finish();
    }
    criterion.bench_function("derive the gear table", |bencher| {
        bencher.iter_batched(|| seed.duplicate(), |seed| GearTable::derive(&seed), BatchSize::SmallInput);
    });
    let head = dump();
    criterion.bench_function("recognise a file that is none", |bencher| {
        bencher.iter(|| recognise(black_box(&head[..65536]), LENGTH as u64));
    });
}

criterion_group!(benches, cutting);
criterion_main!(benches);
