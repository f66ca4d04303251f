//! Long streams that several threads cut are cut as one thread would.

use super::differences::{read, try_store};
use crate::support::repository::{backup_options, in_memory, noise, reopen};
use chronolith::ops::backup::{BackupOptions, Differences, Source, backup};
use std::io::{self, Cursor, Read};

/// Noise and stretches without any cut point, some of them longer than a batch.
fn stream() -> Vec<u8> {
    let mut bytes = noise(1, 21 << 20);
    bytes.extend(std::iter::repeat_n(0, (9 << 20) + 12_345));
    bytes.extend(noise(2, 7 << 20));
    bytes.extend(b"abcdefg".iter().cycle().take(6 << 20));
    bytes.extend(noise(3, 333));
    bytes
}

fn with_workers(workers: usize) -> BackupOptions {
    BackupOptions { workers, ..backup_options("long") }
}

#[test]
fn many_workers_find_the_chunks_of_few() {
    let (backing, repository) = in_memory();
    let content = stream();
    let few = try_store(&repository, &content, &with_workers(2)).unwrap();
    assert!(few.summary.new_blobs > 1000);
    // Cut, not taken from the parent: only equal chunks, and so an equal tree, add nothing.
    for workers in [4, 12] {
        let repository = reopen(backing.clone()).unwrap();
        let many = try_store(&repository, &content, &with_workers(workers)).unwrap();
        assert!(many.summary.new_blobs <= 1, "{workers}: {:?}", many.summary);
        assert!(read(&repository, many.snapshot.unwrap()) == content);
    }
    // In pieces of any size, and longer or shorter by a little.
    for (workers, length) in [(4, content.len() - 1), (5, 22 << 20), (4, (22 << 20) + 1)] {
        let repository = reopen(backing.clone()).unwrap();
        let reader = Box::new(Dribble(Cursor::new(content[..length].to_vec()), 77_777));
        let report = backup(
            &repository,
            vec![Source::Stream { name: b"app.sql".to_vec(), reader }],
            &with_workers(workers),
        );
        assert!(read(&repository, report.unwrap().snapshot.unwrap()) == content[..length]);
    }
}

#[test]
fn a_stream_is_cut_along_its_parent_as_if_it_had_none() {
    let (backing, repository) = in_memory();
    let old = stream();
    try_store(&repository, &old, &with_workers(2)).unwrap();
    // Moved by a little, by nothing, by more than any chunk, and back.
    let mut changed = old.clone();
    changed.splice(40 << 20..40 << 20, noise(4, 100));
    changed.splice(33 << 20..(36 << 20) + 100, []);
    changed.splice(18 << 20..18 << 20, noise(5, 3 << 20));
    changed.splice(12 << 20..(12 << 20) + 5, noise(6, 5));
    changed.splice(9 << 20..(9 << 20) + 3, *b"12345678");
    let shorter = changed[..changed.len() - 5_000_001].to_vec();
    let longer = [changed.as_slice(), &noise(7, 5 << 20)].concat();
    for (workers, content) in [(2, &changed), (4, &shorter), (12, &longer), (2, &old)] {
        let repository = reopen(backing.clone()).unwrap();
        let along = try_store(&repository, content, &with_workers(workers)).unwrap();
        assert!(read(&repository, along.snapshot.unwrap()) == *content);
        let repository = reopen(backing.clone()).unwrap();
        let alone = BackupOptions { differences: Differences::Never, ..with_workers(1) };
        let scanned = try_store(&repository, content, &alone).unwrap();
        assert!(scanned.summary.new_blobs <= 1, "{workers}: {:?}", scanned.summary);
    }
}

/// Gives out little at a time.
struct Dribble(Cursor<Vec<u8>>, usize);

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

/// Fails after so many bytes.
struct Failing(u64);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the disk is on fire"));
        }
        let length = buffer.len().min(self.0 as usize);
        self.0 -= length as u64;
        buffer[..length].fill(self.0 as u8);
        Ok(length)
    }
}

#[test]
fn a_stream_that_breaks_while_it_is_cut_ahead_commits_nothing_and_hangs_nowhere() {
    let (_, repository) = in_memory();
    for length in [30 << 20, (30 << 20) + 1, (8 << 20) + 5] {
        let reader = Box::new(Failing(length));
        let sources = vec![Source::Stream { name: b"app.sql".to_vec(), reader }];
        let error = backup(&repository, sources, &with_workers(4)).unwrap_err();
        let said = chronolith::base::explain(&error);
        assert!(said.contains("app.sql") && said.contains("on fire"), "{said}");
    }
    assert!(chronolith::ops::Snapshots::load(&repository).unwrap().with_forgotten().is_empty());
}
