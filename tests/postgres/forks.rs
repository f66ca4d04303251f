//! Timelines that fork, in one archive: each is recovered with its own rows and no others.

use super::archive::{Archive, archive_all};
use super::base::{arguments, expect};
use super::receive::{Receiver, command};
use super::restore::{recovered, target};
use super::server::{Server, USER, tool};
use super::support::server::{as_user, check, folder};
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// R9, A13, A15, A16: a server is restored to the past and goes on, archiving beside the one that it was made of;
/// with the longest segments that are usual. Along each timeline exactly its own commits come back.
#[test]
fn each_timeline_comes_back_with_its_own_rows() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let settings = ["archive_mode=on", &push, "track_commit_timestamp=on"];
    let first = Server::start_with(&["--wal-segsize", "64"], &settings);
    let commit = |server: &Server, number: u64| {
        server.sql("postgres", &format!("INSERT INTO oracle VALUES ({number})"));
        let time = format!("SELECT pg_xact_commit_timestamp(xmin) FROM oracle WHERE n = {number}");
        server.sql("postgres", &time).trim().to_owned()
    };
    first.sql("postgres", "CREATE TABLE oracle (n bigint)");
    commit(&first, 1);
    let run = |mut arguments: Vec<String>| {
        arguments.remove(0);
        archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    expect(&run(arguments(&first, &["--archive-timeout", "120"])), 0);
    let fork = commit(&first, 2);
    let beyond = commit(&first, 3);
    first.sql("postgres", "SELECT pg_create_restore_point('left'), pg_create_restore_point('also left')");
    archive_all(&first);

    let restore = |more: &[&str], settings: &[&str]| -> Server {
        let place: TempDir = folder(USER);
        let data: PathBuf = place.path().join("server/data");
        let mut arguments = vec!["restore", "--cluster", "main", "--pgdata", data.to_str().unwrap()];
        arguments.extend(more);
        expect(&archive.command(&arguments).output().unwrap(), 0);
        let server = Server::adopt(place, settings);
        let started = Instant::now();
        while server.sql("postgres", "SELECT pg_is_in_recovery()").trim() != "f" {
            assert!(started.elapsed() < Duration::from_secs(120), "{}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    };
    let rows = |server: &Server| {
        server.sql("postgres", "SELECT string_agg(n::text, ',' ORDER BY n) FROM oracle").trim().to_owned()
    };
    // It archives from its promotion on, as somebody in a hurry would have it.
    let second = restore(&["--target-time", &fork], &settings);
    assert_eq!(rows(&second), "1,2");
    let branch = commit(&second, 104);
    commit(&second, 105);
    archive_all(&second);
    // The original goes on meanwhile.
    commit(&first, 6);
    archive_all(&first);

    assert_eq!(rows(&restore(&[], &[])), "1,2,104,105", "the newest timeline");
    assert_eq!(rows(&restore(&["--target-timeline", "1"], &[])), "1,2,3,6");
    assert_eq!(rows(&restore(&["--target-timeline", "current"], &[])), "1,2,3,6");
    assert_eq!(rows(&restore(&["--target-timeline", "1", "--target-time", &beyond], &[])), "1,2,3");
    assert_eq!(rows(&restore(&["--target-timeline", "2", "--target-time", &branch], &[])), "1,2,104");
    // What lies on a timeline that was left is found there by whoever names it; the name of none is answered with all.
    assert_eq!(rows(&restore(&["--target-timeline", "1", "--target-name", "left"], &[])), "1,2,3");
    let place = folder(USER);
    let data = place.path().join("server/data");
    let named = |name: &str, more: &[&str]| {
        let words =
            ["restore", "--cluster", "main", "--pgdata", data.to_str().unwrap(), "--target-name", name];
        expect(&archive.command(&[&words[..], more].concat()).output().unwrap(), 2)
    };
    let said = named("left", &[]);
    assert!(said.contains("it lies on timeline 1: --target-timeline 1"), "{said}");
    // R10: the second's own backup leads to no later moment of the first.
    expect(&run(arguments(&second, &["--archive-timeout", "120"])), 0);
    // Behind the second backup no point was made; those behind the first are named.
    let said = named("lost", &["--target-timeline", "1"]);
    assert!(said.contains("it has: also left, left"), "{said}");
    let more = ["restore", "--cluster", "main", "--target-timeline", "1", "--base", "latest", "--pgdata"];
    let output = archive.command(&[&more[..], &[data.to_str().unwrap()]].concat()).output().unwrap();
    expect(&output, 2);
    assert!(!data.exists());
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A primary and its standby, both archiving under one name, and the primary's log received too.
pub struct Pair {
    pub archive: Archive,
    pub primary: Server,
    pub standby: Server,
    receiver: Receiver,
}

impl Pair {
    /// Makes them, with a base backup behind which the table `t` has 100 rows.
    pub fn new() -> Self {
        let archive = Archive::new();
        let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
        let settings = ["archive_mode=on", &push, "wal_keep_size=2GB", "hot_standby=on"];
        let primary = Server::start_with(&[], &settings);
        primary.sql("postgres", "CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
        let place = folder(USER);
        let mut copy = as_user(USER, &tool("pg_basebackup"));
        copy.arg("-D").arg(place.path().join("server/data"));
        copy.args(["-U", "tester", "-X", "stream", "-R", "-c", "fast", "-h"]).arg(primary.sockets());
        check("pg_basebackup", copy.output());
        let standby = Server::adopt(place, &settings);
        let mut receive = command(&archive, &["--create-slot", "--user", "tester", "--host"]);
        receive.arg(primary.sockets());
        let receiver = Receiver::spawn(&archive, receive);
        let pair = Self { archive, primary, standby, receiver };
        let mut backup = arguments(&pair.primary, &["--archive-timeout", "120"]);
        backup.remove(0);
        expect(&pair.run(&backup.iter().map(String::as_str).collect::<Vec<_>>()), 0);
        pair
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.archive.command(arguments).output().unwrap()
    }

    /// Waits until receiver and standby have all that the primary has committed; the receiver is gone then.
    pub fn settle(&mut self) {
        self.receiver.catch_up(&self.primary);
        let end = self.primary.sql("postgres", "SELECT pg_current_wal_flush_lsn()");
        let asked = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", end.trim());
        until("replayed", || self.standby.sql("postgres", &asked).trim() == "t");
        let _ = self.receiver.stop();
    }

    /// The standby takes over, and has archived the parent's last segment as far as it had it.
    pub fn promote(&self) {
        self.standby.sql("postgres", "SELECT pg_promote()");
        let asked = "SELECT coalesce(last_archived_wal LIKE '%.partial', false) FROM pg_stat_archiver";
        until("archived", || self.standby.sql("postgres", asked).trim() == "t");
    }
}

/// A15: after a failover the segment in which the new timeline begins is archived as a part of its parent only. All
/// that was committed before comes back, whoever brings the log.
#[test]
fn a_failover_loses_nothing_before_the_new_timelines_first_segment_is_archived() {
    let mut pair = Pair::new();
    pair.primary.sql("postgres", "INSERT INTO t SELECT n FROM generate_series(101, 400) n");
    let position = pair.primary.sql("postgres", "SELECT pg_create_restore_point('before')");
    // A restore point is not flushed by itself, but by a commit.
    pair.primary.sql("postgres", "CREATE TABLE later ()");
    pair.settle();
    pair.primary.stop("immediate");
    pair.promote();

    let restored = |more: &[&str]| {
        let (folder, data) = target();
        let arguments = ["restore", "--cluster", "main", "--pgdata", data.to_str().unwrap()];
        expect(&pair.run(&[&arguments[..], more].concat()), 0);
        recovered(folder).sql("postgres", "SELECT count(*) FROM t").trim().to_owned()
    };
    assert_eq!(restored(&[]), "400", "what the server fetches itself");
    assert_eq!(restored(&["--bring-log"]), "400");
    assert_eq!(restored(&["--bring-log", "--target-name", "before"]), "400");
    let output = pair.run(&["timeline", "--cluster", "main", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let intervals = text.lines().map(|line| line.parse::<serde_json::Value>().unwrap());
    let mut intervals = intervals.filter(|event| event["event"] == "interval");
    let newest = intervals.find(|interval| interval["timeline"] == 2).expect(&text);
    let number = |lsn: &str| {
        let (high, low) = lsn.trim().split_once('/').unwrap();
        u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
    };
    assert!(number(newest["to_lsn"].as_str().unwrap()) >= number(&position), "{text}");
    let said = String::from_utf8(pair.run(&["timeline", "--cluster", "main"]).stdout).unwrap();
    assert!(!said.contains("the end of the base backup only"), "{said}");

    // Once the segment is archived, it is the new timeline's that is brought.
    pair.standby.sql("postgres", "INSERT INTO t VALUES (401)");
    archive_all(&pair.standby);
    assert_eq!(restored(&["--bring-log"]), "401");
}
