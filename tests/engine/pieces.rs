//! Pieces of a log segment that is archived while it grows.

use super::logs::{STREAM, client, entry};
use crate::support::world::noise;
use chronolith::format::log::LogRecordKind;
use chronolith::repo::{FoundLog, LogPut, RepoError, Repository, holds_whole, joined, joined_length};
use chronolith::storage::Store;
use std::collections::HashSet;

const NAME: &str = "000000010000000000000007";

fn append(
    repository: &Repository,
    whole: &[u8],
    from: usize,
    to: usize,
    seen: &mut HashSet<String>,
) -> Result<LogPut, RepoError> {
    repository.append_log_piece(&entry(NAME), from as u64, &whole[from..to], seen)
}

fn read(repository: &Repository) -> Result<Vec<u8>, RepoError> {
    read_of(repository, &repository.find_log(STREAM, NAME)?.found)
}

fn read_of(repository: &Repository, found: &[FoundLog]) -> Result<Vec<u8>, RepoError> {
    let mut bytes = Vec::new();
    let length = repository.read_joined(found, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    assert_eq!(length, bytes.len() as u64);
    Ok(bytes)
}

/// What is there, with the piece of a length in front, which is so preferred among those that lead as far.
fn preferring(repository: &Repository, length: u64) -> Vec<FoundLog> {
    let mut found = repository.find_log(STREAM, NAME).unwrap().found;
    found.sort_by_key(|log| log.record.content.as_ref().unwrap().digest.length != length);
    found
}

fn piece(repository: &Repository, offset: u64, length: u64) -> String {
    let found = preferring(repository, length);
    let log = found.iter().find(|log| log.record.piece_offset == Some(offset)).unwrap();
    assert_eq!(log.record.content.as_ref().unwrap().digest.length, length);
    log.object.clone()
}

/// Spoils an object, or mends it again.
fn flip(store: &dyn Store, object: &str) {
    let mut bytes = store.get(object, u64::MAX).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.replace(object, &bytes).unwrap();
}

/// [LOG-PACK-6], [LOG-PACK-7], [CONCURRENCY-42].
#[test]
fn pieces_are_the_beginning_of_a_segment_until_the_whole_is_there() {
    let (store, client) = client();
    let repository = client.open();
    let whole = noise(7, 100_000);
    let mut seen = HashSet::new();
    assert_eq!(read(&repository).unwrap(), b"");
    for (from, to) in [(0, 10), (10, 4000), (4000, 4001)] {
        assert!(matches!(append(&repository, &whole, from, to, &mut seen).unwrap(), LogPut::Stored(_)));
    }
    assert_eq!(seen.len(), 3);
    assert!(read(&repository).unwrap() == whole[..4001]);
    // Another receiver cuts elsewhere; of both ways the one that leads furthest is taken.
    let mut others = HashSet::new();
    for (from, to) in [(0, 3000), (3000, 5000), (7000, 9000)] {
        append(&repository, &whole, from, to, &mut others).unwrap();
    }
    let found = repository.find_log(STREAM, NAME).unwrap().found;
    assert_eq!((joined_length(&found), joined(&found, 0).len(), joined(&found, 7000).len()), (5000, 2, 1));
    assert!(!holds_whole(&found));
    assert!(read(&repository).unwrap() == whole[..5000]);
    // The first goes on, and sees what the other has put.
    assert!(matches!(append(&repository, &whole, 0, 3000, &mut seen).unwrap(), LogPut::Present(_)));
    let mut wrong = whole.clone();
    wrong[3500] ^= 1;
    let mut fresh = HashSet::new();
    let error = append(&repository, &wrong, 3000, 5000, &mut fresh).unwrap_err();
    assert!(matches!(error, RepoError::LogTaken { .. }), "{error}");
    // A piece that rots is not the end where another way leads as far.
    append(&repository, &whole, 4001, 5000, &mut seen).unwrap();
    let (here, there) = (piece(&repository, 10, 3990), piece(&repository, 3000, 2000));
    flip(&*store, &there);
    for first in [10, 3000] {
        assert!(read_of(&repository, &preferring(&repository, first)).unwrap() == whole[..5000], "{first}");
    }
    // Where none does, that is an error: never less than it seemed.
    flip(&*store, &here);
    for first in [10, 3000] {
        let error = read_of(&repository, &preferring(&repository, first)).unwrap_err();
        assert!(matches!(error, RepoError::Damaged { .. }), "{error}");
    }
    flip(&*store, &here);
    store.delete(&there).unwrap();
    assert!(read(&repository).unwrap() == whole[..5000]);
    // The whole is there: those with its bytes go, one with others stays.
    let mut odd = HashSet::new();
    append(&repository, &wrong, 3400, 3600, &mut odd).unwrap();
    assert_eq!(
        repository.drop_superfluous_pieces(STREAM, NAME, &whole).unwrap(),
        0,
        "the whole is not there"
    );
    assert!(matches!(repository.archive_log(&entry(NAME), &whole).unwrap(), LogPut::Stored(_)));
    assert!(repository.drop_superfluous_pieces(STREAM, NAME, &whole).unwrap() >= 5);
    let left = repository.find_log(STREAM, NAME).unwrap().found;
    assert!(holds_whole(&left) && left.len() == 2, "{left:?}");
    assert_eq!(left.iter().filter(|f| f.record.kind == LogRecordKind::Segment).count(), 1);
}

/// Of two ways that differ, no mixture is taken: neither when a piece of the one rots, nor when none does.
#[test]
fn ways_that_differ_are_not_mixed() {
    let (store, client) = client();
    let repository = client.open();
    let right = noise(7, 5000);
    let mut wrong = right.clone();
    wrong[100] ^= 1;
    for (bytes, from, to) in [(&right, 0, 10), (&right, 10, 5000), (&wrong, 0, 3000), (&wrong, 3000, 5000)] {
        append(&repository, bytes, from, to, &mut HashSet::new()).unwrap();
    }
    assert!(read_of(&repository, &preferring(&repository, 10)).unwrap() == right);
    assert!(read_of(&repository, &preferring(&repository, 3000)).unwrap() == wrong);
    flip(&*store, &piece(&repository, 3000, 2000));
    assert!(read_of(&repository, &preferring(&repository, 10)).unwrap() == right);
    let error = read_of(&repository, &preferring(&repository, 3000)).unwrap_err();
    // Not the object that rots, but the segment.
    assert!(matches!(&error, RepoError::Damaged { object, .. } if object == NAME), "{error}");
}
