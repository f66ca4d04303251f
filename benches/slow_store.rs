//! What `--level auto` makes of a store that is slower than the processor.
//!
//! ```text
//! cargo bench --bench slow_store -- [FILE] [MEGABYTES_A_SECOND ...]
//! ```

mod support;

use chronolith::ingest::Effort;
use chronolith::storage::{Capabilities, MemoryStore, ObjectInfo, PutOutcome, StorageError, Store};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{dump, repository, store};

/// Takes so many bytes a second, one object after the other, as a link does.
struct Slow {
    inner: MemoryStore,
    bytes_a_second: f64,
    link: Mutex<()>,
}

impl Store for Slow {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        let _link = self.link.lock();
        std::thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / self.bytes_a_second));
        self.inner.put(name, bytes)
    }
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.inner.replace(name, bytes)
    }
    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.inner.get(name, limit_bytes)
    }
    fn get_range(&self, name: &str, at: u64, length: usize, out: &mut Vec<u8>) -> Result<(), StorageError> {
        self.inner.get_range(name, at, length, out)
    }
    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        self.inner.head(name)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        self.inner.list(prefix)
    }
    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.inner.delete(name)
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn location(&self) -> String {
        "a slow link".to_owned()
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let file = words.iter().find(|word| word.parse::<f64>().is_err());
    let content = match file {
        Some(path) => std::fs::read(path).expect("the file can be read"),
        None => dump(256 << 20, 0),
    };
    let mut rates: Vec<f64> = words.iter().filter_map(|word| word.parse().ok()).collect();
    if rates.is_empty() {
        rates = vec![10.0, 30.0, 1000.0];
    }
    println!("| MB a second | level | seconds | MB stored |\n|---|---|---|---|");
    for rate in rates {
        for effort in [Effort::Level(3), Effort::Auto, Effort::Level(9)] {
            let slow = Slow { inner: MemoryStore::new(), bytes_a_second: rate * 1e6, link: Mutex::new(()) };
            let repository = repository(Arc::new(slow));
            let began = Instant::now();
            let report = store(&repository, &content, |options| options.effort = effort);
            let seconds = began.elapsed().as_secs_f64();
            let stored = report.summary.stored_bytes as f64 / 1e6;
            println!("| {rate} | {effort:?} | {seconds:.1} | {stored:.1} |");
        }
    }
}
