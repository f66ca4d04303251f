//! Streams come back as they went in, or say that they do not.

use crate::support::repository::{Node, Part, file, in_memory, names, noise, reopen, sparse, store_tree};
use crate::support::{Failure, Fault, FaultStore};
use chronolith::base::{BlobId, Classify, ErrorClass};
use chronolith::format::tree::Content;
use chronolith::ops::OpsError;
use chronolith::ops::cat::{CatReport, cat};
use chronolith::ops::listing::{Found, locate};
use chronolith::repo::Repository;
use chronolith::storage::Store;
use std::io::{self, Write};
use std::sync::Arc;

pub fn content(repository: &Arc<Repository>, root: &BlobId, path: &str) -> Content {
    match locate(repository, root, &names(path)).unwrap() {
        Found::Leaf(entry) => entry.content.unwrap(),
        Found::Folder { .. } => panic!("{path} is a folder"),
    }
}

fn read(repository: &Arc<Repository>, root: &BlobId, path: &str) -> Result<Vec<u8>, OpsError> {
    let mut out = Vec::new();
    let report = cat(repository, path, &content(repository, root, path), &mut out)?;
    assert_eq!(report, CatReport { bytes: out.len() as u64, complete: true });
    Ok(out)
}

#[test]
fn bytes_come_back_in_order_whatever_they_are() {
    let (store, repository) = in_memory();
    let long = noise(1, 3_000_000);
    let repeated = [noise(2, 50_000), noise(3, 50_000)].concat().repeat(20);
    let holes = vec![
        Part::Hole(70_000),
        Part::Data(noise(4, 30_000)),
        Part::Hole(1),
        Part::Data(vec![0; 10_000]),
        Part::Hole(200_000),
    ];
    let plain = [vec![0; 70_000], noise(4, 30_000), vec![0; 1 + 10_000 + 200_000]].concat();
    let (_, root) = store_tree(
        &repository,
        "cat",
        vec![
            file("long", &long),
            file("repeated", &repeated),
            file("empty", ""),
            file("one", "x"),
            sparse("holes", holes),
            sparse("only a hole", vec![Part::Hole(99_999)]),
        ],
    );
    for repository in [repository, reopen(store).unwrap()] {
        for (name, expected) in [
            ("long", &long),
            ("repeated", &repeated),
            ("empty", &Vec::new()),
            ("one", &b"x".to_vec()),
            ("holes", &plain),
            ("only a hole", &vec![0; 99_999]),
        ] {
            assert!(read(&repository, &root, name).unwrap() == *expected, "{name}");
        }
    }
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    struct Few(usize);
    impl Write for Few {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_, repository) = in_memory();
    let (_, root) = store_tree(&repository, "cat", vec![file("f", noise(1, 5_000_000))]);
    let report = cat(&repository, "f", &content(&repository, &root, "f"), &mut Few(100_000)).unwrap();
    assert!(!report.complete && report.bytes <= 100_000);
}

#[test]
fn a_digest_of_other_bytes_is_told() {
    let (_, repository) = in_memory();
    let nodes: Vec<Node> = vec![file("a", noise(1, 100_000)), file("b", noise(2, 100_000))];
    let (_, root) = store_tree(&repository, "cat", nodes);
    let mut mixed = content(&repository, &root, "a");
    mixed.digest = content(&repository, &root, "b").digest;
    let error = cat(&repository, "a", &mixed, &mut io::sink()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Corrupt);
    assert!(error.to_string().contains("digest"), "{error}");
}

#[test]
fn what_is_lost_is_told_and_what_came_before_it_is_written() {
    let (store, repository) = in_memory();
    let bytes = noise(1, 2_000_000);
    let (_, root) = store_tree(&repository, "cat", vec![file("f", &bytes)]);
    let largest = store.list("packs/").unwrap().into_iter().max_by_key(|pack| pack.length).unwrap();
    store.delete(&largest.name).unwrap();
    let repository = reopen(store).unwrap();
    let mut out = Vec::new();
    let error = cat(&repository, "f", &content(&repository, &root, "f"), &mut out).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Corrupt);
    assert!(bytes.starts_with(&out));
}

#[test]
fn a_store_that_fails_now_and_then_loses_nothing() {
    let (store, repository) = in_memory();
    let bytes = noise(1, 1_000_000);
    let (_, root) = store_tree(&repository, "cat", vec![file("f", &bytes)]);
    drop(repository);
    let mut came = 0;
    for number in 1.. {
        let fault = if number % 2 == 0 { Fault::Flip } else { Fault::Before(Failure::Fatal) };
        let faulty = Arc::new(FaultStore::failing_at(store.clone(), number, fault));
        let mut out = Vec::new();
        let result = reopen(faulty.clone()).map_err(OpsError::from).and_then(|repository| {
            match locate(&repository, &root, &names("f"))? {
                Found::Leaf(entry) => cat(&repository, "f", &entry.content.unwrap(), &mut out),
                Found::Folder { .. } => unreachable!(),
            }
        });
        if !faulty.fired() {
            break;
        }
        match result {
            Ok(_) => assert!(out == bytes),
            Err(_) => assert!(bytes.starts_with(&out)),
        }
        came += 1;
    }
    assert!(came > 10, "only {came} requests");
}
