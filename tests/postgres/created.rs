//! Tablespaces whose creation the end of a segment cuts: they are seen all the same (B8).

use super::archive::{Archive, archive_all};
use super::base::{arguments, expect, tablespace};
use super::restore::{restore_arguments, target};
use super::server::{Server, tool};
use chronolith::postgres::Lsn;
use chronolith::postgres::wal::{FirstPage, Noted, walk, walk_behind};
use std::path::Path;
use std::process::Command;

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
                assert_eq!(!first.tablespace_begun.is_empty(), straddles && before >= 24, "{before}");
                seen.extend(first.tablespaces);
                seen.extend(second.tablespaces);
                // What is given does not fit where the record before is another's.
                let stranger = Noted { tablespace_begun: whole[..24].to_vec(), ..Noted::default() };
                if straddles && before != 24 {
                    let walked = walk_behind(&segments[1], &firsts[1], &stranger);
                    assert!(walked.tablespaces.is_empty(), "{before}");
                }
            }
            assert_eq!(seen, [(77, folder.clone())], "{before} bytes before the end");
        }
    }
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
