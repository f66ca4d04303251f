//! What every store does. Each property gets a fresh, empty store.

use crate::Subject;
use chronolith::base::{Classify, ErrorClass};
use chronolith::storage::{ObjectInfo, PutOutcome, StorageError, Store};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

/// Makes a module of tests, one a property, for the store that the expression makes.
macro_rules! behaves {
    ($store:ident, $make:expr) => {
        mod $store {
            #[allow(unused_imports)]
            use super::*;
            crate::behaviour::behaves!(@ $make;
                what_is_put_is_read_back
                nothing_is_replaced
                a_replacement_is_seen_whole
                missing_objects_are_not_found
                a_limit_is_kept
                ranges_are_exact
                ranges_past_the_end_are_truncated
                lists_are_sorted_and_know_prefixes
                hostile_names_are_refused
                empty_objects_are_refused
                a_deleted_object_can_come_back
                sixteen_equal_puts_have_one_winner
                sixteen_different_puts_have_one_winner
                writers_do_not_disturb_each_other
                a_folder_is_no_object
            );
        }
    };
    (@ $make:expr; $($property:ident)*) => {$(
        #[test]
        fn $property() {
            crate::behaviour::$property(&$make);
        }
    )*};
}
pub(crate) use behaves;

const LIMIT: u64 = 1 << 30;

pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    use chronolith::base::Entropy;
    let mut bytes = vec![0; length];
    crate::support::SeededEntropy::new(seed).fill(&mut bytes);
    bytes
}

fn names(objects: &[ObjectInfo]) -> Vec<&str> {
    objects.iter().map(|object| object.name.as_str()).collect()
}

fn class<T: std::fmt::Debug>(result: Result<T, StorageError>) -> ErrorClass {
    result.unwrap_err().class()
}

pub fn what_is_put_is_read_back(subject: &Subject) {
    let store = &subject.store;
    for (number, length) in [1, 2, 4095, 4096, 4097, (3 << 20) + 1].into_iter().enumerate() {
        let (name, content) = (format!("packs/ab/{number}"), bytes(number as u64, length));
        assert_eq!(store.put(&name, &content).unwrap(), PutOutcome::Created);
        assert!(store.get(&name, LIMIT).unwrap() == content);
        let info = store.head(&name).unwrap();
        assert_eq!((info.name.as_str(), info.length), (name.as_str(), length as u64));
        assert!(!store.capabilities().modified_times || info.modified.is_some());
        assert_eq!(store.list(&name).unwrap(), [info]);
    }
}

pub fn nothing_is_replaced(subject: &Subject) {
    let store = &subject.store;
    let content = bytes(1, 300_000);
    let mut other = content.clone();
    other[299_999] ^= 1;
    assert_eq!(store.put("packs/x", &content).unwrap(), PutOutcome::Created);
    assert_eq!(store.put("packs/x", &content).unwrap(), PutOutcome::Existed);
    for wrong in [&other[..], &content[..299_999], &[&content[..], b"!"].concat()] {
        let error = store.put("packs/x", wrong).unwrap_err();
        assert!(matches!(error, StorageError::Conflict { .. }), "{error}");
        assert!(store.get("packs/x", LIMIT).unwrap() == content);
    }
    assert_eq!(store.list("").unwrap().len(), 1);
}

pub fn a_replacement_is_seen_whole(subject: &Subject) {
    let store = &subject.store;
    let versions: Vec<_> = (0..4).map(|n| bytes(n, 20_000 + n as usize)).collect();
    store.replace("chronolith", &versions[0]).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seen = store.get("chronolith", LIMIT).unwrap();
                    assert!(versions.contains(&seen), "a version that nobody wrote, {} bytes", seen.len());
                }
            });
        }
        for round in 0..40 {
            store.replace("chronolith", &versions[round % 4]).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(store.get("chronolith", LIMIT).unwrap() == versions[3]);
    assert_eq!(names(&store.list("").unwrap()), ["chronolith"]);
}

pub fn missing_objects_are_not_found(subject: &Subject) {
    let store = &subject.store;
    store.put("packs/a", b"1").unwrap();
    for name in ["packs/b", "none", "none/of/these", "packs/a/below"] {
        assert_eq!(class(store.get(name, LIMIT)), ErrorClass::NotFound, "{name}");
        assert_eq!(class(store.get_range(name, 0, 1, &mut Vec::new())), ErrorClass::NotFound, "{name}");
        assert_eq!(class(store.head(name)), ErrorClass::NotFound, "{name}");
        store.delete(name).unwrap();
    }
    let error = store.get("none/of/these", LIMIT).unwrap_err();
    assert_eq!(error.to_string(), "cannot read none/of/these: it does not exist");
    assert!(store.list("none").unwrap().is_empty());
    assert!(store.list("packs/a/").unwrap().is_empty());
}

pub fn a_limit_is_kept(subject: &Subject) {
    let store = &subject.store;
    store.put("a", &[7; 1000]).unwrap();
    assert_eq!(store.get("a", 1000).unwrap(), [7; 1000]);
    let error = store.get("a", 999).unwrap_err();
    assert!(matches!(error, StorageError::TooLarge { length_bytes: 1000, limit_bytes: 999, .. }), "{error}");
}

pub fn ranges_are_exact(subject: &Subject) {
    let store = &subject.store;
    let content = bytes(3, 100_000);
    store.put("a", &content).unwrap();
    let mut out = b"before".to_vec();
    let mut wanted = out.clone();
    for (offset, length) in [(0, 0), (0, 1), (0, 100_000), (99_999, 1), (4096, 8192), (100_000, 0)] {
        store.get_range("a", offset as u64, length, &mut out).unwrap();
        wanted.extend_from_slice(&content[offset..offset + length]);
        assert!(out == wanted, "{offset} {length}");
    }
}

pub fn ranges_past_the_end_are_truncated(subject: &Subject) {
    let store = &subject.store;
    store.put("a", &[1; 100]).unwrap();
    let mut out = b"kept".to_vec();
    let far = usize::MAX / 2;
    for (offset, length) in
        [(100, 1), (0, 101), (99, 2), (101, 0), (1 << 40, 1), (0, far), (u64::MAX, far), (u64::MAX, 0)]
    {
        let error = store.get_range("a", offset, length, &mut out).unwrap_err();
        assert!(matches!(error, StorageError::Truncated { length_bytes: 100, .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::Corrupt);
        assert_eq!(out, b"kept");
    }
}

pub fn lists_are_sorted_and_know_prefixes(subject: &Subject) {
    let store = &subject.store;
    let all =
        ["chronolith", "keys/a", "packs/00/x", "packs/ab/a", "packs/ab/b", "packs/ab.c/a", "packs0/a", "t"];
    for name in all.iter().rev() {
        store.put(name, name.as_bytes()).unwrap();
    }
    let list = |prefix: &str| {
        let objects = store.list(prefix).unwrap();
        for object in &objects {
            assert_eq!(object.length, object.name.len() as u64);
            assert_eq!(*object, store.head(&object.name).unwrap());
        }
        names(&objects).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    assert_eq!(list(""), sorted);
    for prefix in
        ["p", "packs", "packs/", "packs/a", "packs/ab", "packs/ab/", "packs/ab/a", "keys/", "t", "zz"]
    {
        let wanted: Vec<_> = sorted.iter().filter(|name| name.starts_with(prefix)).collect();
        assert_eq!(list(prefix), wanted.into_iter().map(|n| n.to_string()).collect::<Vec<_>>(), "{prefix}");
    }
}

pub fn hostile_names_are_refused(subject: &Subject) {
    let store = &subject.store;
    store.put("a", b"1").unwrap();
    let long = "x/".repeat(300) + "x";
    for name in [
        "",
        "/",
        "/etc/passwd",
        "../a",
        "a/../../b",
        "a/./b",
        "a//b",
        "a/",
        "..",
        ".",
        ".hidden",
        "a\0b",
        "a\nb",
        "a b",
        "packs/\u{e9}",
        "c:\\x",
        "tmp/x",
        "tmp",
        &long,
    ] {
        let (no_limit, mut out) = (LIMIT, Vec::new());
        assert_eq!(class(store.put(name, b"1")), ErrorClass::Usage, "{name:?}");
        assert_eq!(class(store.replace(name, b"1")), ErrorClass::Usage, "{name:?}");
        assert_eq!(class(store.get(name, no_limit)), ErrorClass::Usage, "{name:?}");
        assert_eq!(class(store.get_range(name, 0, 1, &mut out)), ErrorClass::Usage, "{name:?}");
        assert_eq!(class(store.head(name)), ErrorClass::Usage, "{name:?}");
        assert_eq!(class(store.delete(name)), ErrorClass::Usage, "{name:?}");
    }
    for prefix in ["/", "..", "../", "packs/../", "a//", "tmp/"] {
        assert_eq!(class(store.list(prefix)), ErrorClass::Usage, "{prefix:?}");
    }
    assert_eq!(names(&store.list("").unwrap()), ["a"]);
}

pub fn empty_objects_are_refused(subject: &Subject) {
    assert_eq!(class(subject.store.put("a", b"")), ErrorClass::Usage);
    assert_eq!(class(subject.store.replace("a", b"")), ErrorClass::Usage);
    assert!(subject.store.list("").unwrap().is_empty());
}

pub fn a_deleted_object_can_come_back(subject: &Subject) {
    let store = &subject.store;
    for content in [b"one", b"two"] {
        assert_eq!(store.put("packs/00/a", content).unwrap(), PutOutcome::Created);
        assert_eq!(store.get("packs/00/a", LIMIT).unwrap(), content);
        store.delete("packs/00/a").unwrap();
        store.delete("packs/00/a").unwrap();
        assert!(store.list("").unwrap().is_empty());
    }
}

/// Sixteen threads put at the same moment; returns their results.
fn race(
    store: &Arc<dyn Store>,
    name: &str,
    content: impl Fn(u64) -> Vec<u8> + Sync,
) -> Vec<Result<PutOutcome, StorageError>> {
    let start = Barrier::new(16);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..16)
            .map(|n| {
                let (start, content) = (&start, &content);
                scope.spawn(move || {
                    let content = content(n);
                    start.wait();
                    store.put(name, &content)
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    })
}

pub fn sixteen_equal_puts_have_one_winner(subject: &Subject) {
    for round in 0..5 {
        let name = format!("packs/{round}/a");
        let outcomes: Vec<_> =
            race(&subject.store, &name, |_| bytes(round, 200_000)).into_iter().map(Result::unwrap).collect();
        let winners = outcomes.iter().filter(|outcome| **outcome == PutOutcome::Created).count();
        assert!(!subject.store.capabilities().exclusive_put || winners == 1, "{winners} winners");
        assert!(subject.store.get(&name, LIMIT).unwrap() == bytes(round, 200_000));
    }
    assert_eq!(subject.store.list("").unwrap().len(), 5);
}

pub fn sixteen_different_puts_have_one_winner(subject: &Subject) {
    for round in 0..5 {
        let name = format!("packs/{round}/a");
        let content = |n| bytes(1000 * round + n, 100_000);
        let results = race(&subject.store, &name, content);
        let winners: Vec<_> = (0..16).filter(|n| results[*n as usize].is_ok()).collect();
        assert_eq!(winners.len(), 1);
        assert!(subject.store.get(&name, LIMIT).unwrap() == content(winners[0]));
        for error in results.into_iter().filter_map(Result::err) {
            assert!(matches!(error, StorageError::Conflict { .. }), "{error}");
        }
    }
}

pub fn writers_do_not_disturb_each_other(subject: &Subject) {
    let store = &subject.store;
    thread::scope(|scope| {
        for writer in 0..8 {
            scope.spawn(move || {
                for number in 0..25 {
                    let name = format!("packs/{:02x}/{writer}-{number}", number % 5);
                    store.put(&name, name.as_bytes()).unwrap();
                    assert_eq!(store.get(&name, LIMIT).unwrap(), name.as_bytes());
                    store.list("packs/00/").unwrap();
                    if number % 5 == 4 {
                        store.delete(&name).unwrap();
                    }
                }
            });
        }
    });
    let objects = store.list("packs/").unwrap();
    assert_eq!(objects.len(), 8 * 20);
    for object in objects {
        assert_eq!(store.get(&object.name, LIMIT).unwrap(), object.name.as_bytes());
    }
}

pub fn a_folder_is_no_object(subject: &Subject) {
    let store = &subject.store;
    store.put("packs/00/a", b"1").unwrap();
    for folder in ["packs", "packs/00"] {
        assert_eq!(class(store.get(folder, LIMIT)), ErrorClass::NotFound);
        assert_eq!(class(store.head(folder)), ErrorClass::NotFound);
        store.delete(folder).unwrap();
    }
    assert_eq!(names(&store.list("").unwrap()), ["packs/00/a"]);
}
