//! Looks at the first and the last bytes of a stream, for advice.

use crate::chunker::compressed_kind;
use std::io::{self, Read};

/// How much of the start is kept: enough for every signature and for a dump's first lines.
const HEAD_BYTES: usize = 4096;
/// How much of the end is kept: the last lines of a dump.
const TAIL_BYTES: usize = 512;

/// A reader that remembers how its bytes began and ended.
pub(super) struct Watched<'a> {
    inner: &'a mut dyn Read,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl<'a> Watched<'a> {
    pub fn new(inner: &'a mut dyn Read) -> Self {
        Self { inner, head: Vec::new(), tail: Vec::new() }
    }

    /// Returns a line of advice for input that deduplicates badly or looks cut short.
    pub fn advice(&self, name: &str) -> Option<String> {
        if let Some(kind) = compressed_kind(&self.head) {
            let cure = if kind.is_encrypted() {
                "encrypted input cannot be deduplicated; let the repository encrypt"
            } else {
                "dump uncompressed (pg_dump: -Fp or -Fc -Z0) and let the repository compress: \
                 the next backup will then store only what changed"
            };
            return Some(format!("{name} is {}: {cure}", kind.name()));
        }
        let contains = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        let begins_as = |text| contains(&self.head, text);
        let unfinished = (begins_as("-- PostgreSQL database dump\n")
            && !contains(&self.tail, "-- PostgreSQL database dump complete"))
            || ((begins_as("-- MariaDB dump ") || begins_as("-- MySQL dump "))
                && !contains(&self.tail, "-- Dump completed"));
        unfinished.then(|| {
            format!(
                "{name} begins as a database dump but lacks its last line: the dump may have been cut short; \
                 use --exec, which checks the exit code of the dump program"
            )
        })
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let new = buffer.get(..count).unwrap_or_default();
        let room = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(new.get(..room.min(count)).unwrap_or_default());
        if count >= TAIL_BYTES {
            self.tail.clear();
        }
        self.tail.extend_from_slice(new.get(count.saturating_sub(TAIL_BYTES)..).unwrap_or_default());
        let excess = self.tail.len().saturating_sub(2 * TAIL_BYTES);
        self.tail.drain(..excess);
        Ok(count)
    }
}
