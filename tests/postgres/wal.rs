//! The walk through segments, with `pg_waldump` as the judge.

use super::server::{Server, tool};
use chronolith::base::Timestamp;
use chronolith::postgres::LogFile;
use chronolith::postgres::wal::{FirstPage, Noted, walk};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The segments in a folder, but those that were made ahead of their use, in order.
pub fn segments(folder: &Path) -> Vec<(PathBuf, Vec<u8>, FirstPage)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let Ok(LogFile::Segment(name)) = path.file_name().unwrap().to_str().unwrap().parse() else {
            continue;
        };
        let bytes = fs::read(&path).unwrap();
        let Ok(first) = FirstPage::read(&bytes) else { continue };
        if name.start(first.segment_size) == Some(first.address) {
            found.push((path, bytes, first));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// What `pg_waldump` says of a segment: the times of transactions' ends, restore points, tablespaces.
fn judged(segment: &Path) -> (Vec<Timestamp>, Vec<String>, usize) {
    let output = Command::new(tool("pg_waldump")).env("TZ", "UTC").arg(segment).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut times, mut points, mut tablespaces) = (Vec::new(), Vec::new(), 0);
    for line in text.lines() {
        let Some((head, description)) = line.split_once("desc: ") else { continue };
        let ends = ["COMMIT ", "ABORT ", "COMMIT_PREPARED ", "ABORT_PREPARED "];
        if head.contains("rmgr: Transaction") && ends.iter().any(|end| description.starts_with(end)) {
            times.push(time(description));
        } else if let Some(point) = description.strip_prefix("RESTORE_POINT ") {
            points.push(point.trim().to_owned());
        } else if head.contains("rmgr: Tablespace") && description.starts_with("CREATE ") {
            tablespaces += 1;
        }
    }
    (times, points, tablespaces)
}

/// Finds `2026-01-15 14:30:00.123456 UTC` in a line.
fn time(line: &str) -> Timestamp {
    let at = line.find(" UTC").unwrap_or_else(|| panic!("no time: {line}"));
    let words: Vec<&str> = line[..at].split_whitespace().collect();
    let text = words[words.len() - 2..].join("T");
    let parsed: jiff::Timestamp = format!("{text}Z").parse().unwrap_or_else(|_| panic!("{text} of {line}"));
    Timestamp::from_nanoseconds(parsed.as_nanosecond() as i64)
}

fn compare(folder: &Path) -> (usize, Noted) {
    let mut all = Noted::default();
    let found = segments(folder);
    for (path, bytes, first) in &found {
        let noted = walk(bytes, first);
        assert!(noted.complete, "{} ends at {}", path.display(), noted.end);
        let (times, points, tablespaces) = judged(path);
        assert_eq!(noted.commit_count, times.len() as u64, "{}", path.display());
        let range = times.iter().min().copied().zip(times.iter().max().copied());
        assert_eq!(noted.commits, range, "{}", path.display());
        assert_eq!(noted.restore_points.keys().cloned().collect::<Vec<_>>(), points, "{}", path.display());
        assert_eq!(noted.tablespaces.len(), tablespaces, "{}", path.display());
        all.commit_count += noted.commit_count;
        all.restore_points.extend(noted.restore_points);
        all.tablespaces.extend(noted.tablespaces);
    }
    (found.len(), all)
}

const WORK: &str = "
CREATE TABLE t AS SELECT n, repeat(md5(n::text), 20) AS text FROM generate_series(1, 3000) n;
CREATE INDEX ON t (n);
CHECKPOINT;
UPDATE t SET text = text || 'x' WHERE n % 3 = 0;
BEGIN; INSERT INTO t SELECT n, 'prepared' FROM generate_series(1, 100) n; PREPARE TRANSACTION 'one';
BEGIN; DELETE FROM t WHERE n = 5; PREPARE TRANSACTION 'two';
COMMIT PREPARED 'one';
ROLLBACK PREPARED 'two';
BEGIN; DELETE FROM t; SAVEPOINT a; INSERT INTO t VALUES (1, 'sub'); ROLLBACK TO a; ROLLBACK;
BEGIN; SAVEPOINT b; INSERT INTO t VALUES (2, 'sub'); RELEASE b; COMMIT;
VACUUM FULL t;
TRUNCATE t;
";

/// Transactions of all sorts, full-page images compressed in several ways, records that straddle pages and
/// segments, segments that were left before they were full.
#[test]
fn the_walk_sees_what_pg_waldump_sees() {
    for (size, compression) in [("1", "off"), ("1", "lz4"), ("2", "pglz"), ("16", "zstd")] {
        let setting = format!("wal_compression={compression}");
        let settings =
            ["max_prepared_transactions=5", "wal_keep_size=1GB", "min_wal_size=32MB", setting.as_str()];
        let mut server = Server::start_with(&["--wal-segsize", size], &settings);
        let space = server.sockets().join("space");
        let make = super::support::server::as_user(super::server::USER, Path::new("/bin/mkdir"))
            .arg(&space)
            .status();
        assert!(make.unwrap().success());
        for round in 0..3 {
            server.sql("postgres", WORK);
            server.sql("postgres", &format!("SELECT pg_create_restore_point('before {round}')"));
            if round == 1 {
                server.sql("postgres", &format!("CREATE TABLESPACE s LOCATION '{}'", space.display()));
                server.sql("postgres", "SELECT pg_switch_wal()");
            }
            server.sql("postgres", "DROP TABLE t");
        }
        let mut pgbench = server.client("pgbench");
        assert!(pgbench.args(["-i", "-q", "-s", "1", "postgres"]).output().unwrap().status.success());
        let mut pgbench = server.client("pgbench");
        pgbench.args(["-c", "4", "-t", "150", "-n", "postgres"]);
        assert!(pgbench.output().unwrap().status.success());
        // A crash leaves the last segment as it is; the next start goes on in it.
        server.stop("immediate");
        server.launch();
        server.sql("postgres", WORK);
        server.stop("fast");
        let (count, all) = compare(&server.data().join("pg_wal"));
        assert!(count >= if size == "16" { 3 } else { 8 }, "{count} segments");
        assert!(all.commit_count > 600 && all.restore_points.len() == 3 && all.tablespaces.len() == 1);
        let folder = all.tablespaces.values().next().unwrap();
        assert_eq!(Path::new(folder), space);
    }
}
