#![no_main]
//! Both ends of a lent store: whatever comes through the line, the lender answers and gives away only what is
//! there, and the borrower takes it or says what is wrong with it.
use chronolith::storage::{LentStore, Line, MemoryStore, Store, answer};
use libfuzzer_sys::fuzz_target;
use std::io;

/// The same answer to everything.
struct Answering(Vec<u8>);

impl Line for Answering {
    fn ask(&self, _request: Vec<u8>) -> io::Result<Vec<u8>> {
        Ok(self.0.clone())
    }
}

/// A line to a lender.
struct Lender(MemoryStore);

impl Line for Lender {
    fn ask(&self, request: Vec<u8>) -> io::Result<Vec<u8>> {
        Ok(answer(&self.0, &request))
    }
}

fuzz_target!(|bytes: &[u8]| {
    let store = MemoryStore::new();
    store.put("packs/a", b"0123456789").unwrap();
    let _ = answer(&store, bytes);
    assert_eq!(store.list("").unwrap().len(), 1, "a request changes nothing");
    let name = String::from_utf8_lossy(bytes).into_owned();
    let lender = LentStore::new(Lender(store), "lender".to_owned());
    if let Ok(got) = lender.get(&name, 64) {
        assert_eq!(got, b"0123456789");
    }
    let borrower = LentStore::new(Answering(bytes.to_vec()), "borrower".to_owned());
    if let Ok(got) = borrower.get("packs/a", 64) {
        assert!(got.len() <= 64);
    }
    let mut range = Vec::new();
    if borrower.get_range("packs/a", 2, 5, &mut range).is_ok() {
        assert_eq!(range.len(), 5);
    }
    let _ = borrower.head("packs/a");
    if let Ok(listed) = borrower.list("packs/") {
        assert!(listed.len() <= bytes.len());
        assert!(listed.iter().all(|object| object.name.starts_with("packs/")));
    }
});
