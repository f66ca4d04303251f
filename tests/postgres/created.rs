//! What replay of a log creates and a restore must know of: tablespaces (B8) and init forks (B6), also those whose
//! record the end of a segment cuts.

use super::archive::{Archive, archive_all};
use super::base::{arguments, expect, tablespace};
use super::restore::{recovered, restore_arguments, target};
use super::server::{Server, tool};
use super::support::server::wait_until;
use super::timeline::merge_all;
use chronolith::postgres::wal::{FirstPage, Noted, walk, walk_behind};
use chronolith::postgres::{Lsn, RelationId};
use chronolith::repo::FoundLog;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SEGMENT_BYTES: u64 = 1 << 20;
const PAGE_BYTES: u64 = 8192;

/// Writes records one behind the other into two segments of version 15, from the beginning of the first on.
fn two_segments(records: &[Vec<u8>]) -> [Vec<u8>; 2] {
    let begin = 4 * SEGMENT_BYTES;
    let mut log: Vec<u8> = Vec::new();
    for record in records {
        log.resize(log.len().next_multiple_of(8), 0);
        let mut rest = record.as_slice();
        while !rest.is_empty() {
            let position = log.len() as u64;
            if position.is_multiple_of(PAGE_BYTES) {
                let goes_on = rest.len() < record.len();
                let is_long = position.is_multiple_of(SEGMENT_BYTES);
                let info = u16::from(goes_on) | if is_long { 2 } else { 0 };
                log.extend(
                    [0xD110_u16.to_le_bytes(), info.to_le_bytes(), 1_u16.to_le_bytes(), [0; 2]].concat(),
                );
                log.extend((begin + position).to_le_bytes());
                log.extend((if goes_on { rest.len() as u64 } else { 0 }).to_le_bytes());
                if is_long {
                    log.extend(7_u64.to_le_bytes());
                    log.extend((SEGMENT_BYTES | PAGE_BYTES << 32).to_le_bytes());
                }
            }
            let room = PAGE_BYTES - log.len() as u64 % PAGE_BYTES;
            let (now, later) = rest.split_at(rest.len().min(room as usize));
            log.extend_from_slice(now);
            rest = later;
        }
    }
    log.resize(2 * SEGMENT_BYTES as usize, 0);
    let second = log.split_off(SEGMENT_BYTES as usize);
    [log, second]
}

/// A record without blocks.
fn record(manager: u8, info: u8, data: &[u8]) -> Vec<u8> {
    let header = match u8::try_from(data.len()) {
        Ok(length) => vec![255, length],
        Err(_) => [&[254][..], &(data.len() as u32).to_le_bytes()].concat(),
    };
    let length = (24 + header.len() + data.len()) as u32;
    let mut record = [&length.to_le_bytes()[..], &9_u32.to_le_bytes(), &0_u64.to_le_bytes()].concat();
    record.extend([info, manager, 0, 0, 0xAA, 0xBB, 0xCC, 0xDD]);
    [record, header, data.to_vec()].concat()
}

/// Writes a record so that so many bytes of it stand before the end of the first segment.
fn cut(mut record: Vec<u8>, before: u64) -> [Vec<u8>; 2] {
    const HEADERS: u64 = 40 + (SEGMENT_BYTES / PAGE_BYTES - 1) * 24;
    let room = SEGMENT_BYTES - HEADERS - before;
    let mut filler = self::record(0, 0x20, &vec![1; usize::try_from(room - 29).unwrap()]);
    filler[8..16].copy_from_slice(&(4 * SEGMENT_BYTES - 8).to_le_bytes());
    record[8..16].copy_from_slice(&(4 * SEGMENT_BYTES + 40).to_le_bytes());
    // What is written goes on, so that there is a second segment.
    let start = if before == 0 { 5 * SEGMENT_BYTES + 40 } else { 5 * SEGMENT_BYTES - before };
    let mut more = self::record(0, 0x20, &[1; 3000]);
    more[8..16].copy_from_slice(&start.to_le_bytes());
    two_segments(&[filler, record, more])
}

/// B8: wherever the end of a segment cuts the record that creates a tablespace, it is seen, once; and nothing
/// else is taken for one.
#[test]
fn a_tablespace_is_seen_across_segments() {
    let folders = ["/x".to_owned(), "/srv/a long place".to_owned(), format!("/{}", "d/".repeat(500))];
    for folder in folders {
        let data = [&77_u32.to_le_bytes()[..], folder.as_bytes(), b"\0"].concat();
        let whole = record(5, 0x00, &data);
        let others = [record(5, 0x10, &data), record(10, 0x00, &data)];
        let length = whole.len() as u64;
        let ends = (0..=length + 8).step_by(8).filter(|before| *before < 100 || before + 16 > length);
        for before in ends {
            let mut seen = Vec::new();
            for (number, record) in [&whole].into_iter().chain(&others).enumerate() {
                let segments = cut(record.clone(), before);
                let firsts = segments.each_ref().map(|bytes| FirstPage::read(bytes).unwrap());
                let first = walk(&segments[0], &firsts[0]);
                let second = walk_behind(&segments[1], &firsts[1], &first);
                assert!(first.complete && second.complete, "{number} {before}");
                if number > 0 {
                    assert!(
                        first.tablespaces.is_empty() && second.tablespaces.is_empty(),
                        "{number} {before}"
                    );
                    continue;
                }
                let straddles = before > 0 && before < length;
                assert_eq!(!first.begun.is_empty(), straddles && before >= 24, "{before}");
                seen.extend(first.tablespaces);
                seen.extend(second.tablespaces);
                // What is given does not fit where the record before is another's.
                let stranger = Noted { begun: whole[..24].to_vec(), ..Noted::default() };
                if straddles && before != 24 {
                    let walked = walk_behind(&segments[1], &firsts[1], &stranger);
                    assert!(walked.tablespaces.is_empty(), "{before}");
                }
            }
            assert_eq!(seen, [(77, folder.clone())], "{before} bytes before the end");
        }
    }
}

/// B6: the same of a record that creates an init fork; those of other forks are left alone.
#[test]
fn an_init_fork_is_seen_across_segments() {
    let relation = RelationId { tablespace: 1663, database: 5, number: 16_400 };
    let created = |fork: u32| {
        let numbers = [relation.tablespace, relation.database, relation.number, fork];
        record(2, 0x10, &numbers.map(u32::to_le_bytes).concat())
    };
    let length = created(3).len() as u64;
    for before in (0..=length + 8).step_by(8) {
        for fork in 0..=3 {
            let segments = cut(created(fork), before);
            let firsts = segments.each_ref().map(|bytes| FirstPage::read(bytes).unwrap());
            let first = walk(&segments[0], &firsts[0]);
            let second = walk_behind(&segments[1], &firsts[1], &first);
            let seen: Vec<RelationId> = first.init_forks.into_iter().chain(second.init_forks).collect();
            let expected = if fork == 3 { vec![relation] } else { Vec::new() };
            assert_eq!(seen, expected, "fork {fork}, {before} bytes before the end");
        }
    }
}

/// A session that holds a lock until it is let go.
struct Held(Child);

impl Held {
    fn take(server: &Server, lock: u32) -> Self {
        let mut psql = server.client("psql");
        psql.args(["-X", "-q", "-d", "postgres"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = psql.spawn().unwrap();
        let pipe = child.stdin.as_mut().unwrap();
        writeln!(pipe, "SELECT pg_advisory_lock({lock});").unwrap();
        let held = format!("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {lock}");
        wait_until("psql", &mut child, || server.sql("postgres", &held).trim() == "1");
        Self(child)
    }

    fn release(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// B6: an index of an unlogged table gets its init fork when it is built. A base backup that was taken before that
/// comes back all the same, however many such forks the log has, and merged or not.
#[test]
fn what_was_unlogged_only_later_is_not_restored() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let server = Server::start_with(&["--wal-segsize", "64"], &["archive_mode=on", &push, "autovacuum=off"]);
    let run = |mut arguments: Vec<String>| {
        arguments.remove(0);
        archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    server.sql(
        "postgres",
        "CREATE FUNCTION held(n int, at int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_lock_shared(at); RETURN n; END';
         CREATE UNLOGGED TABLE passing AS SELECT n FROM generate_series(1, 100) n",
    );
    // Each index is being built as long as somebody holds its lock.
    let holders = [1, 2].map(|at| Held::take(&server, at));
    std::thread::scope(|scope| {
        let server = &server;
        let builds = [1, 2].map(|at| {
            scope.spawn(move || {
                server.sql("postgres", &format!("CREATE INDEX i{at} ON passing (held(n, {at}))"))
            })
        });
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        while server.sql("postgres", waiting).trim() != "2" {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        expect(&run(arguments(server, &["--archive-timeout", "120"])), 0);
        let restored = |more: &[&str], indexes: &str| {
            let (folder, data) = target();
            expect(&run(restore_arguments(&data, more)), 0);
            let restored = recovered(folder);
            let found = restored.sql(
                "postgres",
                "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relname IN ('i1', 'i2')",
            );
            assert_eq!(found.trim(), indexes);
            assert_eq!(restored.sql("postgres", "SELECT count(*) FROM passing").trim(), "0");
        };
        let [first, second] = holders;
        let [build, later] = builds;
        first.release();
        build.join().unwrap();
        archive_all(server);
        restored(&[], "i1");
        restored(&["--bring-log"], "i1");
        second.release();
        server.sql(
            "postgres",
            "DO 'BEGIN FOR n IN 1..3000 LOOP EXECUTE format($$CREATE UNLOGGED TABLE u%s (n int)$$, n); END LOOP; END'",
        );
        later.join().unwrap();
        archive_all(server);
        let records = archive.open().all_logs().unwrap().found;
        let told = |found: &FoundLog| found.record.facts.get("init_forks").cloned();
        assert!(records.iter().filter_map(told).any(|told| told == "many"));
        restored(&[], "i1 i2");
        merge_all(&archive);
        restored(&[], "i1 i2");
    });
}

/// Where a record that creates a tablespace begins, behind a position.
fn creation(server: &Server, from: &str) -> u64 {
    let mut waldump = Command::new(tool("pg_waldump"));
    waldump.arg("-p").arg(server.data().join("pg_wal")).args(["-r", "Tablespace", "-s", from]);
    let output = waldump.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("desc: CREATE")).expect("a tablespace was created");
    let (_, rest) = line.split_once("lsn: ").unwrap();
    rest.split(',').next().unwrap().parse::<Lsn>().unwrap().0
}

/// Creates a tablespace when so many bytes are written that its record should begin `before` bytes before a
/// segment of one MiB ends, where that many (`lead`) lie between; returns how far it is off.
fn create_before_the_end(server: &Server, place: &Path, before: u64, lead: i64) -> i64 {
    let position = || server.sql("postgres", "SELECT pg_current_wal_insert_lsn()").trim().to_owned();
    let fill = |length: u64| {
        server.sql("postgres", &format!("SELECT pg_logical_emit_message(false, '', repeat('x', {length}))"));
    };
    let at = position().parse::<Lsn>().unwrap().0;
    let mut end = at.next_multiple_of(SEGMENT_BYTES);
    if end - at < 200_000 {
        end += SEGMENT_BYTES;
    }
    fill(end - at - 100_000);
    let from = position();
    let wanted = end - before;
    fill(wanted.checked_add_signed(-lead).unwrap() - from.parse::<Lsn>().unwrap().0);
    let sql = format!("CREATE TABLESPACE late LOCATION '{}'", place.display());
    server.sql("postgres", &sql);
    creation(server, &from).cast_signed() - wanted.cast_signed()
}

/// B8: the same of a tablespace whose record the end of a segment cuts, in its header or in its path.
#[test]
fn a_tablespace_whose_record_straddles_segments_is_seen() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let settings =
        ["archive_mode=on", &push, "full_page_writes=off", "autovacuum=off", "wal_keep_size=100MB"];
    let server = Server::start_with(&["--wal-segsize", "1"], &settings);
    let run = |mut arguments: Vec<String>| {
        arguments.remove(0);
        archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    let place = tablespace(&server, "late");
    let mut lead = 1000;
    for before in [16, 40] {
        let mut tries = 0;
        loop {
            tries += 1;
            assert!(tries < 20, "a record cannot be put where it should be");
            // A base backup behind every creation but the last, so that only that one is replayed.
            expect(&run(arguments(&server, &["--archive-timeout", "120"])), 0);
            let off = create_before_the_end(&server, &place, before, lead);
            if off == 0 {
                break;
            }
            lead += off;
            server.sql("postgres", "DROP TABLESPACE late");
        }
        archive_all(&server);
        let (folder, data) = target();
        let said = expect(&run(restore_arguments(&data, &["--dry-run"])), 2);
        assert!(said.contains("creates tablespace") && said.contains(&*place.to_string_lossy()), "{said}");
        server.sql("postgres", "DROP TABLESPACE late");
        drop(folder);
    }
}
