//! What the benches of whole operations share: a repository in memory, and a dump.

#![allow(dead_code, reason = "each bench uses a part")]

use chronolith::base::{Clock, Entropy, Quiet, SecretBytes, Timestamp};
use chronolith::crypto::Suite;
use chronolith::ops::backup::{BackupOptions, BackupReport, Source, backup};
use chronolith::repo::{Credential, Environment, InitOptions, NewSlot, NoKeyCache, Repository, init, open};
use chronolith::storage::Store;
use std::io::Cursor;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The clock of this machine.
pub struct Now;

impl Clock for Now {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_nanoseconds(since.as_nanos() as i64)
    }
}

/// The randomness of this machine.
pub struct Random;

impl Entropy for Random {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the system gives randomness");
    }
}

/// Makes a repository as `init` does, without a cache.
pub fn repository(store: Arc<dyn Store>) -> Arc<Repository> {
    let environment = Environment {
        store,
        clock: Arc::new(Now),
        entropy: Arc::new(Random),
        observer: Arc::new(Quiet),
        cache: None,
        key_cache: Arc::new(NoKeyCache),
    };
    let key = || SecretBytes::new(vec![7; 32]);
    let options = InitOptions::recommended(Suite::default(), "owner").expect("the defaults are valid");
    init(&environment, &options, &NewSlot::KeyFile(&key())).expect("an empty store");
    open(environment, &Credential::KeyFile(key())).expect("a new repository")
}

/// A dump of `length` bytes in which one row in a hundred depends on `version`: numbers, words, and hexadecimal
/// digits that do not shrink by more than half.
pub fn dump(length: usize, version: u64) -> Vec<u8> {
    const WORDS: [&str; 8] =
        ["new", "paid", "packed", "shipped", "delivered", "returned", "cancelled", "lost"];
    let mut text = Vec::with_capacity(length + 256);
    let mut row = 0_u64;
    while text.len() < length {
        let version = if row.wrapping_mul(0x9e37_79b9_7f4a_7c15).is_multiple_of(100) { version } else { 0 };
        let hash = blake3::hash(&[row.to_le_bytes(), version.to_le_bytes()].concat()).to_hex();
        let word = WORDS[(row ^ version) as usize % WORDS.len()];
        let line = format!(
            "{row}\t2026-01-{:02} 12:{:02}:00+00\t{}\t{word}\tuser{}@example.org\t{{\"sku\": \"{}\"}}\n",
            row % 28 + 1,
            row % 60,
            &hash[..16],
            row * 7919 % 99_999,
            &hash[16..24],
        );
        text.extend_from_slice(line.as_bytes());
        row += 1;
    }
    text.truncate(length);
    text
}

/// Backs a dump up as a stream.
pub fn store(
    repository: &Arc<Repository>,
    dump: &[u8],
    change: impl FnOnce(&mut BackupOptions),
) -> BackupReport {
    let mut options = BackupOptions::new("db1", "postgres", "bench");
    change(&mut options);
    let reader = Box::new(Cursor::new(dump.to_vec()));
    backup(repository, vec![Source::Stream { name: b"app.sql".to_vec(), reader }], &options)
        .expect("a store in memory takes everything")
}
