//! Speed of sealing, of backups and of restores, in memory: what disks have no part in.

mod support;

use chronolith::base::Secret;
use chronolith::crypto::{Sealer, Suite};
use chronolith::ops::{Snapshots, cat};
use chronolith::repo::{BlobReader, find_path};
use chronolith::storage::MemoryStore;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::io;
use std::sync::Arc;
use support::{dump, repository, store};

const LENGTH: usize = 64 << 20;

fn sealing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    let plain = dump(1 << 20, 0);
    group.throughput(Throughput::Bytes(plain.len() as u64)).sample_size(20);
    for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
        let sealer = Sealer::new(suite, &Secret::new([7; 32]));
        let mut sealed = plain.clone();
        sealer.seal([0; 12], b"bench", &mut sealed, 0).unwrap();
        group.bench_with_input(BenchmarkId::new("seal", suite), &plain, |bencher, plain| {
            let seal = |mut buffer: Vec<u8>| sealer.seal([0; 12], b"bench", &mut buffer, 0).map(|()| buffer);
            bencher.iter_batched(|| plain.clone(), seal, BatchSize::LargeInput);
        });
        group.bench_with_input(BenchmarkId::new("open", suite), &sealed, |bencher, sealed| {
            let open = |mut buffer: Vec<u8>| sealer.open([0; 12], b"bench", &mut buffer, 0).map(|()| buffer);
            bencher.iter_batched(|| sealed.clone(), open, BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn whole_operations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dump of 64 MiB");
    group.throughput(Throughput::Bytes(LENGTH as u64)).sample_size(10);
    let (first, second) = (dump(LENGTH, 0), dump(LENGTH, 1));
    let fresh = || repository(Arc::new(MemoryStore::new()));
    let filled = || {
        let repository = fresh();
        store(&repository, &first, |_| ());
        repository
    };
    group.bench_function("first backup", |bencher| {
        bencher.iter_batched(fresh, |repository| store(&repository, &first, |_| ()), BatchSize::PerIteration);
    });
    group.bench_function("backup, one row in a hundred changed", |bencher| {
        bencher.iter_batched(
            filled,
            |repository| store(&repository, &second, |_| ()),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("backup, nothing changed", |bencher| {
        bencher.iter_batched(
            filled,
            |repository| store(&repository, &first, |_| ()),
            BatchSize::PerIteration,
        );
    });
    let repository = filled();
    store(&repository, &second, |_| ());
    let snapshots = Snapshots::load(&repository).unwrap();
    for (name, view) in ["restore", "restore from differences"].into_iter().zip(snapshots.iter()) {
        let mut reader = BlobReader::new(&repository).unwrap();
        let entry = find_path(&mut reader, &view.snapshot.root, &[b"app.sql"]).unwrap().unwrap();
        let content = entry.content.unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| cat::cat(&repository, "app.sql", &content, &mut io::sink()).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, sealing, whole_operations);
criterion_main!(benches);
