//! What a snapshot remembers of the cluster: all that a restore must know before it writes.
//!
//! Facts are texts by name (`format-spec/snapshot.md`, field 15); the names are listed in
//! `docs/postgres.md`.

use crate::base::Timestamp;
use crate::format::snapshot::Snapshot;
use crate::postgres::control::RecoverySettings;
use crate::postgres::error::PostgresError;
use crate::postgres::pages::BadPages;
use crate::postgres::segment::{Lsn, SegmentName, SegmentSize};
use crate::timeline::LogBase;
use std::collections::BTreeMap;

/// The kind of a snapshot that holds a base backup.
pub const KIND: &str = "postgres";
/// Files with bad pages that are named one by one.
const BAD_FILES_MAX: usize = 1000;
/// Warnings that are kept, and how long each may be.
const WARNINGS_MAX: usize = 100;
const WARNING_CHARACTERS_MAX: usize = 4096;
/// Databases and tablespaces that are named one by one.
const NAMED_MAX: usize = 1000;

/// Where the log is that makes the base backup consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPlace {
    /// In the snapshot itself.
    Inside,
    /// In the cluster's archive.
    Archive,
}

/// Says whether a snapshot is a base backup that is worth nothing without the archived log.
pub fn needs_archive(snapshot: &Snapshot) -> bool {
    snapshot.kind == KIND && snapshot.facts.get("wal").is_none_or(|place| place != "inside")
}

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseFacts {
    /// The name of the cluster.
    pub cluster: String,
    /// Tells the cluster apart from all others.
    pub system_identifier: u64,
    /// The server's version, as it writes it.
    pub server_version: String,
    /// Its first number.
    pub major: u32,
    /// Version of the catalogues, in the name of every tablespace's folder.
    pub catalog_version: u32,
    /// The timeline.
    pub timeline: u32,
    /// Where replay begins.
    pub start: Lsn,
    /// How far replay must come.
    pub stop: Lsn,
    /// When the backup began, by the server's clock.
    pub started: Timestamp,
    /// When it ended, by the server's clock: a target must be later (B12).
    pub stopped: Timestamp,
    /// Whether a standby was backed up.
    pub from_standby: bool,
    /// Where the log is.
    pub log: LogPlace,
    /// Length of a segment of the log.
    pub segment_size: SegmentSize,
    /// Length of a page.
    pub block_bytes: u32,
    /// Whether pages carry checksums, which were verified then.
    pub data_checksums: bool,
    /// Where the data directory was.
    pub data_directory: String,
    /// Where tablespaces were, by their numbers.
    pub tablespaces: BTreeMap<u32, String>,
    /// What recovery needs (B15).
    pub settings: RecoverySettings,
    /// Bytes by database.
    pub databases: BTreeMap<String, u64>,
    /// Pages whose checksum did not hold.
    pub bad_pages: BTreeMap<String, BadPages>,
    /// What the server warned of while it sent its files.
    pub warnings: Vec<String>,
}

/// Writes an instant as RFC 3339 in UTC, to the microsecond that servers know.
fn write_time(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.nanoseconds())).unwrap_or_default().to_string()
}

fn read_time(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().map(Timestamp::from_nanoseconds)
}

impl BaseFacts {
    /// Writes the facts down.
    pub fn write(&self) -> BTreeMap<String, String> {
        let mut facts = BTreeMap::new();
        let mut put = |name: &str, value: String| drop(facts.insert(name.to_owned(), value));
        put("cluster", self.cluster.clone());
        put("system_identifier", self.system_identifier.to_string());
        put("server_version", self.server_version.clone());
        put("major_version", self.major.to_string());
        put("catalog_version", self.catalog_version.to_string());
        put("timeline", self.timeline.to_string());
        put("start_lsn", self.start.to_string());
        put("stop_lsn", self.stop.to_string());
        put("start_time", write_time(self.started));
        put("stop_time", write_time(self.stopped));
        put("from", if self.from_standby { "standby" } else { "primary" }.to_owned());
        let log = match self.log {
            LogPlace::Inside => "inside",
            LogPlace::Archive => "archive",
        };
        put("wal", log.to_owned());
        put("wal_segment_bytes", self.segment_size.bytes().to_string());
        put("block_bytes", self.block_bytes.to_string());
        put("data_checksums", if self.data_checksums { "on" } else { "off" }.to_owned());
        put("data_directory", self.data_directory.clone());
        for (oid, path) in self.tablespaces.iter().take(NAMED_MAX) {
            put(&format!("tablespace.{oid}"), path.clone());
        }
        for (name, value) in self.settings.by_name() {
            put(&format!("setting.{name}"), value.to_string());
        }
        for (name, bytes) in self.databases.iter().take(NAMED_MAX) {
            put(&format!("database_bytes.{name}"), bytes.to_string());
        }
        if self.bad_page_count() > 0 {
            put("bad_page_count", self.bad_page_count().to_string());
        }
        for (number, warning) in (1..).zip(self.warnings.iter().take(WARNINGS_MAX)) {
            let text: String = warning.chars().take(WARNING_CHARACTERS_MAX).collect();
            put(&format!("warning.{number:03}"), text);
        }
        for (file, bad) in self.bad_pages.iter().take(BAD_FILES_MAX) {
            let mut text = bad.to_string();
            text.truncate(60_000);
            put(&format!("bad_pages.{file}"), text);
        }
        facts
    }

    /// Reads the facts of a snapshot; `None` for one that is no base backup.
    ///
    /// # Errors
    ///
    /// When it claims to be a base backup and lacks what one needs.
    pub fn read(snapshot: &Snapshot) -> Result<Option<Self>, PostgresError> {
        if snapshot.kind != KIND {
            return Ok(None);
        }
        Self::from_map(&snapshot.facts).map(Some).map_err(|name| PostgresError::Damaged {
            what: "the base backup".to_owned(),
            why: format!("does not say its {name}, or says nonsense"),
        })
    }

    fn from_map(facts: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |name: &str| facts.get(name).cloned().ok_or_else(|| name.to_owned());
        let number = |name: &str| {
            facts.get(name).and_then(|value| value.parse::<u64>().ok()).ok_or_else(|| name.to_owned())
        };
        let small = |name: &str| u32::try_from(number(name)?).map_err(|_| name.to_owned());
        let lsn = |name: &str| text(name)?.parse::<Lsn>().map_err(|_| name.to_owned());
        let time = |name: &str| read_time(&text(name)?).ok_or_else(|| name.to_owned());
        let below = |prefix: &'static str| {
            let all = facts.range(prefix.to_owned()..);
            all.map_while(move |(name, value)| Some((name.strip_prefix(prefix)?, value)))
        };
        Ok(Self {
            cluster: text("cluster")?,
            system_identifier: number("system_identifier")?,
            server_version: text("server_version")?,
            major: small("major_version")?,
            catalog_version: small("catalog_version")?,
            timeline: small("timeline")?,
            start: lsn("start_lsn")?,
            stop: lsn("stop_lsn")?,
            started: time("start_time")?,
            stopped: time("stop_time")?,
            from_standby: text("from")? == "standby",
            log: match text("wal")?.as_str() {
                "inside" => LogPlace::Inside,
                "archive" => LogPlace::Archive,
                _ => return Err("wal".to_owned()),
            },
            segment_size: SegmentSize::new(number("wal_segment_bytes")?)
                .map_err(|_| "wal_segment_bytes".to_owned())?,
            block_bytes: small("block_bytes")?,
            data_checksums: text("data_checksums")? == "on",
            data_directory: text("data_directory")?,
            tablespaces: below("tablespace.")
                .filter_map(|(oid, path)| Some((oid.parse().ok()?, path.clone())))
                .collect(),
            settings: RecoverySettings {
                max_connections: small("setting.max_connections")?,
                max_worker_processes: small("setting.max_worker_processes")?,
                max_wal_senders: small("setting.max_wal_senders")?,
                max_prepared_transactions: small("setting.max_prepared_transactions")?,
                max_locks_per_transaction: small("setting.max_locks_per_transaction")?,
            },
            databases: below("database_bytes.")
                .filter_map(|(name, bytes)| Some((name.to_owned(), bytes.parse().ok()?)))
                .collect(),
            bad_pages: below("bad_pages.")
                .map(|(file, blocks)| (file.to_owned(), BadPages::parse(blocks)))
                .collect(),
            warnings: below("warning.").map(|(_, text)| text.clone()).collect(),
        })
    }

    /// Returns what planning needs to know, under this name.
    pub fn log_base(&self, name: String) -> LogBase {
        LogBase {
            name,
            timeline: u64::from(self.timeline),
            start: self.start.0,
            stop: self.stop.0,
            stopped: self.stopped,
            holds_log: self.log == LogPlace::Inside,
        }
    }

    /// Returns how many pages did not hold.
    pub fn bad_page_count(&self) -> u64 {
        self.bad_pages.values().map(BadPages::count).sum()
    }

    /// Returns the segments without which the backup is worth nothing (B11), in order.
    pub fn needed_segments(&self) -> Vec<SegmentName> {
        let timeline = u64::from(self.timeline);
        let size = self.segment_size;
        let last = SegmentName::at(timeline, Lsn(self.stop.0.saturating_sub(1)), size);
        let mut next = SegmentName::at(timeline, self.start, size);
        let mut needed = Vec::new();
        while let Some(name) = next.filter(|name| last.is_some_and(|last| *name <= last)) {
            needed.push(name);
            next = name.next(size);
        }
        needed
    }
}

#[cfg(test)]
pub(crate) use tests::sample as sample_facts;

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn sample() -> BaseFacts {
        BaseFacts {
            cluster: "main".to_owned(),
            system_identifier: u64::MAX - 3,
            server_version: "15.14 (Debian 15.14-0+deb12u1)".to_owned(),
            major: 15,
            catalog_version: 202_209_061,
            timeline: 11,
            start: Lsn(0xFE00_0028),
            stop: Lsn(0x1_0100_0100),
            started: Timestamp::from_nanoseconds(1_800_000_000_000_000_000),
            stopped: Timestamp::from_nanoseconds(1_800_000_060_123_456_000),
            from_standby: false,
            log: LogPlace::Inside,
            segment_size: SegmentSize::DEFAULT,
            block_bytes: 8192,
            data_checksums: true,
            data_directory: "/var/lib/postgresql/15/main".to_owned(),
            tablespaces: [(16400, "/srv/fast".to_owned())].into(),
            settings: RecoverySettings {
                max_connections: 100,
                max_worker_processes: 8,
                max_wal_senders: 10,
                max_prepared_transactions: 0,
                max_locks_per_transaction: 64,
            },
            databases: [("app".to_owned(), 5), ("odd. name=1".to_owned(), 7)].into(),
            bad_pages: [("data/base/5/16385".to_owned(), BadPages::parse("3,7-9"))].into(),
            warnings: vec!["skipping special file \"./x\"".to_owned()],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let facts = sample();
        assert_eq!(BaseFacts::from_map(&facts.write()), Ok(facts.clone()));
        assert_eq!(facts.bad_page_count(), 4);
        for name in ["cluster", "stop_lsn", "setting.max_connections", "wal", "block_bytes"] {
            let mut map = facts.write();
            map.remove(name);
            assert_eq!(BaseFacts::from_map(&map), Err(name.to_owned()));
        }
    }

    /// B11: all of [start, stop], and nothing after: a backup that stops where a segment begins needs
    /// nothing of that segment.
    #[test]
    fn the_segments_that_are_needed() {
        let names = |start, stop| {
            let facts = BaseFacts { start: Lsn(start), stop: Lsn(stop), ..sample() };
            facts.needed_segments().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            names(0xFE00_0028, 0x1_0100_0100),
            [
                "0000000B00000000000000FE",
                "0000000B00000000000000FF",
                "0000000B0000000100000000",
                "0000000B0000000100000001"
            ]
        );
        assert_eq!(names(0x200_0028, 0x300_0000), ["0000000B0000000000000002"]);
    }
}
