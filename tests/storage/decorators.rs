//! What is particular to the decorators and to the stores that misbehave on purpose.

use crate::behaviour::bytes;
use crate::support::{
    CountingStore, Failure, Fault, FaultStore, LateListStore, ManualClock, NoSleep, SeededEntropy,
    StrictStore,
};
use crate::{flaky, retrying};
use chronolith::base::{Classify, ErrorClass, Timestamp};
use chronolith::storage::{
    LocalStore, MemoryStore, Operation, PutOutcome, RetryPolicy, RetryStore, StorageError, Store,
};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn retry_gets_through_lost_requests_and_lost_replies() {
    let store = retrying(flaky(MemoryStore::new()));
    for number in 0..20 {
        let (name, content) = (format!("packs/{number}"), bytes(number, 1000));
        store.put(&name, &content).unwrap();
        assert_eq!(store.get(&name, 1000).unwrap(), content);
        let mut out = vec![1, 2, 3];
        store.get_range(&name, 10, 20, &mut out).unwrap();
        assert_eq!(out[3..], content[10..30]);
        assert_eq!(store.head(&name).unwrap().length, 1000);
    }
    store.replace("chronolith", b"config").unwrap();
    store.delete("packs/0").unwrap();
    assert_eq!(store.list("").unwrap().len(), 20);
}

#[test]
fn a_put_whose_reply_was_lost_is_found_to_have_happened() {
    let faults = FaultStore::failing_at(MemoryStore::new(), 1, Fault::After(Failure::Transient));
    assert_eq!(retrying(faults).put("packs/a", b"1").unwrap(), PutOutcome::Existed);
}

#[test]
fn retry_gives_up_after_its_attempts_with_growing_waits() {
    let sleep = Arc::new(NoSleep::default());
    let faults = Arc::new(FaultStore::failing_from(MemoryStore::new(), 1, Fault::Before(Failure::Transient)));
    let policy =
        RetryPolicy { attempts: 6, delay_first: Duration::from_secs(1), delay_max: Duration::from_secs(8) };
    let store =
        RetryStore::new(faults.clone(), policy, sleep.clone(), Arc::new(SeededEntropy::new(1))).unwrap();
    assert_eq!(store.get("a", 1).unwrap_err().class(), ErrorClass::Transient);
    assert_eq!(faults.requests(), 6);
    let waits = sleep.0.lock().unwrap().clone();
    for (wait, bound) in waits.iter().zip([1, 2, 4, 8, 8]) {
        let bound = Duration::from_secs(bound);
        assert!(*wait >= bound / 2 && *wait <= bound, "{wait:?} of {bound:?}");
    }
    assert_eq!(waits.len(), 5);
}

#[test]
fn what_is_not_transient_is_not_retried() {
    for failure in [Failure::Fatal, Failure::NoSpace, Failure::Denied] {
        let faults = Arc::new(FaultStore::failing_from(MemoryStore::new(), 1, Fault::Before(failure)));
        assert_eq!(retrying(faults.clone()).put("a", b"1").unwrap_err().class(), ErrorClass::Fatal);
        assert_eq!(faults.requests(), 1);
    }
}

#[test]
fn retry_refuses_to_stand_over_a_local_disk() {
    let folder = tempfile::tempdir().unwrap();
    let local = CountingStore::new(LocalStore::create(folder.path().join("r")).unwrap());
    let result = RetryStore::new(
        local,
        RetryPolicy::default(),
        Arc::new(NoSleep::default()),
        Arc::new(SeededEntropy::new(1)),
    );
    assert_eq!(result.err().unwrap().class(), ErrorClass::Usage);
}

#[test]
fn faults_fail_each_request_in_turn() {
    let scenario = |store: &dyn Store| -> Result<(), StorageError> {
        store.put("a", b"12")?;
        store.head("a")?;
        store.list("")?;
        store.delete("a")
    };
    for number in 1.. {
        let store = FaultStore::failing_at(MemoryStore::new(), number, Fault::Before(Failure::Fatal));
        let result = scenario(&store);
        assert_eq!(result.is_err(), store.fired());
        if !store.fired() {
            assert_eq!(number, 5);
            assert_eq!(store.log().len(), 4);
            break;
        }
        assert_eq!(store.requests(), number);
        assert_eq!(store.inner().list("").unwrap().len(), usize::from(number > 1));
    }
}

#[test]
fn torn_and_flipped_bytes() {
    let store = FaultStore::failing_at(MemoryStore::new(), 1, Fault::Torn);
    assert_eq!(store.put("a", b"1234").unwrap_err().class(), ErrorClass::Transient);
    assert_eq!(store.get("a", 10).unwrap(), b"12");
    assert_eq!(store.put("a", b"1234").unwrap_err().class(), ErrorClass::Corrupt);

    let store = FaultStore::failing_from(MemoryStore::new(), 2, Fault::Flip);
    store.put("a", b"1234").unwrap();
    assert_eq!(store.get("a", 10).unwrap(), b"1224");
    let mut out = Vec::new();
    store.get_range("a", 0, 2, &mut out).unwrap();
    assert_eq!(out, b"13");
}

#[test]
fn a_strict_store_refuses_torn_writes_and_replacements() {
    let name = format!("packs/{}", blake3::hash(b"1234"));
    let torn = FaultStore::failing_at(StrictStore(MemoryStore::new()), 1, Fault::Torn);
    assert_eq!(torn.put(&name, b"1234").unwrap_err().class(), ErrorClass::Usage);
    assert_eq!(torn.put(&name, b"1234").unwrap(), PutOutcome::Created);
    assert_eq!(torn.replace(&name, b"1234").unwrap_err().class(), ErrorClass::Usage);
    torn.replace("chronolith", b"config").unwrap();
}

#[test]
fn late_lists_show_objects_later() {
    let store = LateListStore::new(MemoryStore::new(), 2);
    store.put("a", b"1").unwrap();
    assert_eq!(store.get("a", 1).unwrap(), b"1");
    let seen: Vec<_> = (0..4).map(|_| store.list("").unwrap().len()).collect();
    assert_eq!(seen, [0, 0, 1, 1]);
    assert!(!store.capabilities().consistent_list);
}

#[test]
fn counting_counts() {
    let store = CountingStore::new(MemoryStore::new());
    store.put("a", &[0; 100]).unwrap();
    store.get("a", 100).unwrap();
    store.get_range("a", 0, 10, &mut Vec::new()).unwrap();
    store.get_range("b", 0, 10, &mut Vec::new()).unwrap_err();
    assert_eq!((store.count(Operation::GetRange), store.total()), (2, 4));
    assert_eq!((store.bytes_read(), store.bytes_written()), (110, 100));
    store.reset();
    assert_eq!(store.total(), 0);
}

#[test]
fn memory_takes_its_time_from_the_clock() {
    let clock = Arc::new(ManualClock::at_seconds(100));
    let store = MemoryStore::with_clock(clock.clone());
    store.put("a", b"1").unwrap();
    clock.advance(Duration::from_secs(5));
    store.put("b", b"1").unwrap();
    let times: Vec<_> = store.list("").unwrap().into_iter().map(|object| object.modified).collect();
    assert_eq!(times, [Timestamp::from_parts(100, 0), Timestamp::from_parts(105, 0)]);
}
