//! Restored clusters: started, and every row compared; what must be refused; what is broken off.

use super::archive::{Archive, archive_all};
use super::base::{arguments, back_up, expect, tablespace};
use super::server::{Server, USER, tool};
use super::support::program::Program;
use super::support::server::{as_user, check, folder};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A digest of every table of every database, and what databases and tablespaces there are.
pub fn digests(server: &Server) -> String {
    let databases = server.sql("postgres", "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1");
    let mut digests =
        server.sql("postgres", "SELECT string_agg(spcname, ',' ORDER BY spcname) FROM pg_tablespace");
    let tables = "SELECT format('SELECT %L, count(*), md5(string_agg(md5(t::text), '''' ORDER BY md5(t::text))) FROM %I.%I t', \
         schemaname || '.' || tablename, schemaname, tablename) FROM pg_tables \
         WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY schemaname, tablename \\gexec\n";
    for database in databases.lines() {
        digests.push_str(&format!("{database}:\n{}", server.sql(database, tables)));
    }
    digests
}

/// Where a restored cluster goes, so that a test's server can be made of it.
pub fn target() -> (TempDir, PathBuf) {
    let folder = folder(USER);
    let data = folder.path().join("server/data");
    (folder, data)
}

pub fn restore_arguments(data: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["pg", "restore", "--cluster", "main", "--pgdata", data.to_str().unwrap()].map(str::to_owned).into();
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    arguments
}

fn restore(program: &Program, data: &Path, more: &[&str]) -> Output {
    let arguments = restore_arguments(data, more);
    program.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Starts a restored cluster and waits until its recovery is over.
pub fn recovered(folder: TempDir) -> Server {
    let server = Server::adopt(folder, &[]);
    let started = Instant::now();
    while server.sql("postgres", "SELECT pg_is_in_recovery()").trim() != "f" {
        assert!(started.elapsed() < Duration::from_secs(120), "still recovering: {}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    server
}

/// Lets the server's own tool look at every table and index.
fn amcheck(server: &Server) {
    let mut amcheck = server.client("pg_amcheck");
    amcheck.args(["--all", "--install-missing", "--heapallindexed", "--parent-check"]);
    let output = amcheck.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Tries to start a server directly, as somebody in a hurry would.
fn starts(data: &Path) -> bool {
    let mut postgres = as_user(USER, &tool("postgres"));
    postgres.arg("-D").arg(data).args(["-c", "listen_addresses=", "-c"]);
    postgres.arg(format!("unix_socket_directories={}", data.parent().unwrap().display()));
    let mut child = postgres.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if data.join("postmaster.pid").exists() {
            let pid = fs::read_to_string(data.join("postmaster.pid")).unwrap();
            if pid.contains("ready") {
                child.kill().unwrap();
                child.wait().unwrap();
                return true;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// B2 to B9, B11: while everything is done to the server that can be done, base backups are taken; each
/// comes back as the server was at one moment, whole and consistent.
#[test]
fn backups_under_load_come_back_as_one_moment() {
    let server = Server::start_with(&["--data-checksums"], &["max_wal_size=2GB", "checkpoint_timeout=30s"]);
    let place = tablespace(&server, "space one");
    server.sql("postgres", "CREATE DATABASE app; CREATE DATABASE still");
    server.sql("postgres", &format!("CREATE TABLESPACE one LOCATION '{}'", place.display()));
    server.sql(
        "still",
        "CREATE TABLE a AS SELECT n, md5(n::text) FROM generate_series(1, 50000) n; CREATE INDEX ON a (n);
         CREATE TABLE b TABLESPACE one AS SELECT * FROM a; CREATE UNLOGGED TABLE gone AS SELECT * FROM a",
    );
    server.sql("app", "CREATE TABLE numbers (n bigint PRIMARY KEY)");
    let mut pgbench = server.client("pgbench");
    check("pgbench", pgbench.args(["-i", "-q", "-s", "2", "app"]).output());
    let still =
        server.sql("still", "SELECT sum(hashtext(a::text)) FROM a; SELECT sum(hashtext(b::text)) FROM b");

    let stop = AtomicBool::new(false);
    let acknowledged = AtomicU64::new(0);
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let mut known = Vec::new();
    std::thread::scope(|scope| {
        let (server, stop, acknowledged) = (&server, &stop, &acknowledged);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut pgbench = server.client("pgbench");
                let output = pgbench.args(["-n", "-c", "2", "-t", "200", "app"]).output().unwrap();
                assert!(output.status.success(), "{output:?}");
            }
        });
        scope.spawn(|| {
            for n in 1.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                server.sql("app", &format!("INSERT INTO numbers VALUES ({n})"));
                acknowledged.store(n, Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                server.sql(
                    "app",
                    &format!(
                        "CREATE TABLE t{n} AS SELECT n, repeat('x', 300) AS x FROM generate_series(1, 2000) n; CREATE INDEX ON t{n} (n);
                         DELETE FROM t{n} WHERE n % 3 = 0; VACUUM FULL t{n}; CREATE TABLE u{n} TABLESPACE one AS SELECT * FROM t{n};
                         TRUNCATE t{n}; ALTER TABLE u{n} SET TABLESPACE pg_default; DROP TABLE t{n};
                         CREATE TEMP TABLE passing AS SELECT * FROM u{n}; DROP TABLE u{n}; VACUUM FULL pgbench_tellers",
                    ),
                );
                server.sql("postgres", &format!("CREATE DATABASE d{n} TEMPLATE still"));
                server.sql("postgres", &format!("DROP DATABASE d{n}"));
            }
        });
        for _ in 0..3 {
            let before = acknowledged.load(Ordering::SeqCst);
            expect(&back_up(&program, server, &["--wal", "stream"]), 0);
            known.push((before, acknowledged.load(Ordering::SeqCst)));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let snapshots = program.client().snapshots();
    for ((before, after), snapshot) in known.into_iter().zip(snapshots) {
        let (folder, data) = target();
        let map = format!("{}={}", place.display(), folder.path().join("server/one").display());
        let said = expect(
            &restore(&program, &data, &["--base", &snapshot.to_string(), "--tablespace-map", &map]),
            0,
        );
        assert!(said.contains("when it is started, it recovers along timeline 1"), "{said}");
        let restored = recovered(folder);
        amcheck(&restored);
        let found = restored
            .sql("still", "SELECT sum(hashtext(a::text)) FROM a; SELECT sum(hashtext(b::text)) FROM b");
        assert_eq!(found, still);
        assert_eq!(
            restored.sql("still", "SELECT count(*) FROM gone").trim(),
            "0",
            "an unlogged table is empty"
        );
        // B8: the original tablespace is not touched, the new one is used.
        let at = restored
            .sql("still", "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'one'");
        assert_eq!(at.trim(), restored.sockets().join("one").to_str().unwrap());
        // What was acknowledged before the backup began is there, nothing later than its end, and no gap.
        let numbers = restored.sql("app", "SELECT count(*), coalesce(max(n), 0) FROM numbers");
        let (count, highest) = numbers.trim().split_once('|').unwrap();
        let count: u64 = count.parse().unwrap();
        assert_eq!(count.to_string(), highest, "numbers are missing");
        assert!((before..=after + 1).contains(&count), "{count} is not between {before} and {after}");
        // Every transaction of pgbench changes four tables or none.
        let sums = restored.sql(
            "app",
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
             (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)",
        );
        let sums: Vec<&str> = sums.trim().split('|').collect();
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    }
}

/// Commits as they were acknowledged: one row each.
struct Commit {
    number: u64,
    xid: String,
    time: String,
    /// The end of the log once it was acknowledged.
    after: String,
}

fn commit(server: &Server, number: u64) -> Commit {
    let answer = server.sql(
        "postgres",
        &format!(
            "INSERT INTO oracle VALUES ({number}, repeat('x', 100)) RETURNING xmin \\gset\n\
             SELECT :'xmin', pg_xact_commit_timestamp(:'xmin'::xid), pg_current_wal_insert_lsn()",
        ),
    );
    let words: Vec<&str> = answer.trim().split('|').collect();
    let [xid, time, after] = words.try_into().unwrap();
    Commit { number, xid: xid.into(), time: time.into(), after: after.into() }
}

/// B12 to B16, R9: to every kind of target the server comes back with exactly the rows that were committed by then.
#[test]
fn every_target_brings_back_exactly_its_rows() {
    let archive = Archive::new();
    let push = archive.command_line("archive-push --cluster main %p");
    let settings = [
        "archive_mode=on".to_owned(),
        format!("archive_command={push}"),
        "track_commit_timestamp=on".to_owned(),
        // A13, and a server in another zone than the tool.
        "wal_compression=on".to_owned(),
        "timezone=Asia/Kathmandu".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = Server::start_with(&["--data-checksums", "--wal-segsize", "1"], &settings);
    server.sql("postgres", "CREATE TABLE oracle (n bigint, filler text)");
    let mut commits: Vec<Commit> = (1..=3).map(|number| commit(&server, number)).collect();
    let backup = |more: &[&str]| {
        let mut arguments = arguments(&server, more);
        arguments.remove(0);
        archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    let said = expect(&backup(&["--archive-timeout", "120"]), 0);
    assert!(said.contains("with the log in the archive"), "{said}");
    commits.extend((4..=8).map(|number| commit(&server, number)));
    server.sql("postgres", "SELECT pg_create_restore_point('before nine')");
    commits.extend((9..=12).map(|number| commit(&server, number)));
    archive_all(&server);
    // Later commits in a later segment, so that targets in the first are certain.
    commits.extend((13..=15).map(|number| commit(&server, number)));
    archive_all(&server);
    let of = |number: usize| &commits[number - 1];

    let restored = |more: &[&str]| -> (Output, TempDir) {
        let (folder, data) = target();
        let mut arguments = restore_arguments(&data, more);
        arguments.remove(0);
        let output =
            archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
        (output, folder)
    };
    let rows = |more: &[&str]| {
        let (output, folder) = restored(more);
        expect(&output, 0);
        let server = recovered(folder);
        assert_eq!(server.sql("postgres", "SHOW archive_mode").trim(), "off", "B16");
        assert_eq!(
            server.sql("postgres", "SELECT timeline_id > 1 FROM pg_control_checkpoint()").trim(),
            "t",
            "B16"
        );
        server
            .sql("postgres", "SELECT coalesce(string_agg(n::text, ',' ORDER BY n), '') FROM oracle")
            .trim()
            .to_owned()
    };
    let until = |last: u64| {
        let numbers = commits.iter().map(|commit| commit.number).filter(|number| *number <= last);
        numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(",")
    };
    assert_eq!(rows(&[]), until(15), "latest");
    assert_eq!(rows(&["--target", "immediate"]), until(3), "immediate");
    assert_eq!(rows(&["--target-name", "before nine"]), until(8), "name");
    assert_eq!(rows(&["--target-time", &of(6).time]), until(6), "time");
    assert_eq!(rows(&["--target-time", &of(6).time, "--target-exclusive"]), until(5), "time, exclusive");
    assert_eq!(rows(&["--target-lsn", &of(10).after]), until(10), "lsn");
    assert_eq!(rows(&["--target-xid", &of(11).xid]), until(11), "xid");
    assert_eq!(rows(&["--target-xid", &of(11).xid, "--target-exclusive"]), until(10), "xid, exclusive");

    // B13: where clocks are being set back, the hour of these commits comes twice, and without its offset
    // nobody knows which is meant. Half an hour after the commit, by the tool's zone, it is an hour earlier.
    let committed: jiff::Timestamp = of(6).time.replace(' ', "T").parse().unwrap();
    let day = committed.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(1)));
    let back = day.duration_since(&day.start_of_day().unwrap()) + jiff::SignedDuration::from_mins(30);
    let rule = format!(
        "STD0DST-1,J1/0,J{}/{:02}:{:02}:{:02}",
        // The 29th of February has no number.
        day.day_of_year() - i16::from(day.date().in_leap_year() && day.month() > 2),
        back.as_secs() / 3600,
        back.as_secs() / 60 % 60,
        back.as_secs() % 60
    );
    let in_fold = |time: &str| {
        let (folder, data) = target();
        let mut arguments = restore_arguments(&data, &["--target-time", time]);
        arguments.remove(0);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        (archive.command(&arguments).env("TZ", &rule).output().unwrap(), folder)
    };
    let wall = day.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string();
    let (output, folder) = in_fold(&wall);
    let said = expect(&output, 2);
    assert!(
        said.contains("was twice") && said.contains("+01:00") && said.contains("+00:00"),
        "{rule}: {said}"
    );
    assert!(!folder.path().join("server/data").exists());
    let (output, folder) = in_fold(&format!("{wall}+01"));
    let said = expect(&output, 0);
    assert!(said.contains("+01:00"), "{said}");
    let server_there = recovered(folder);
    assert_eq!(server_there.sql("postgres", "SELECT max(n) FROM oracle").trim(), "6", "{rule}");
    drop(server_there);

    // What cannot be reached is refused before anything is written.
    let refused = |more: &[&str], word: &str| {
        let (output, folder) = restored(more);
        let said = expect(&output, 2);
        assert!(said.contains(word), "{said}");
        assert!(!folder.path().join("server/data").exists(), "something was written");
    };
    refused(&["--target-time", &of(1).time], "before the end of every base backup");
    refused(&["--target-time", "2126-01-15 14:30:00+01"], "--target latest");
    refused(&["--target-lsn", "FF/0"], "--target latest");
    refused(&["--target-name", "no such"], "before nine");
    refused(&["--target-timeline", "7"], "timeline 7");

    // A pause at the target can be read, and a standby follows.
    let (output, folder) = restored(&["--target-time", &of(6).time, "--target-action", "pause"]);
    expect(&output, 0);
    let paused = Server::adopt(folder, &[]);
    let count = "SELECT count(*) FROM oracle";
    let started = Instant::now();
    while paused.sql("postgres", count).trim() != "6" {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", paused.log());
    }
    assert_eq!(paused.sql("postgres", "SELECT pg_is_in_recovery()").trim(), "t");
    let (output, folder) = restored(&["--standby"]);
    expect(&output, 0);
    assert!(folder.path().join("server/data/standby.signal").exists(), "B14");
    assert!(!folder.path().join("server/data/recovery.signal").exists(), "B14");
    let standby = Server::adopt(folder, &[]);
    commits.push(commit(&server, 16));
    archive_all(&server);
    let started = Instant::now();
    while standby.sql("postgres", count).trim() != "16" {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", standby.log());
        std::thread::sleep(Duration::from_millis(50));
    }

    // B9: a standby can be backed up as well; with its log inside, nothing has to be archived for it.
    let data = standby.data().display().to_string();
    let more = ["backup", "--cluster", "copy", "--user", "tester", "--pgdata", &data, "--wal", "stream"];
    expect(&archive.command(&more).output().unwrap(), 0);
    let (folder, data) = target();
    let more = ["restore", "--cluster", "copy", "--pgdata", data.to_str().unwrap()];
    expect(&archive.command(&more).output().unwrap(), 0);
    let copy = recovered(folder);
    let found: u64 = copy.sql("postgres", count).trim().parse().unwrap();
    assert_eq!(found, 16);
    amcheck(&copy);
}

/// B4: a restore that was killed leaves nothing that could start; run again, it goes on and ends well.
#[test]
fn a_restore_that_was_killed_cannot_start_and_goes_on() {
    let server = Server::start_with(&[], &[]);
    server.sql("postgres", "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 200000) n");
    let expected = digests(&server);
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    expect(&back_up(&program, &server, &[]), 0);
    for stage in ["PG_VERSION", "base/1/PG_VERSION", "global", "pg_xact", "backup_label", "recovery.signal"] {
        let (folder, data) = target();
        let arguments = restore_arguments(&data, &[]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut child = program.command(&arguments).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            if data.join(stage).exists() {
                child.kill().unwrap();
                break;
            }
        }
        let whole = child.wait().unwrap().success();
        let has_control = data.join("global/pg_control").exists();
        assert!(whole == has_control || has_control, "{stage}: ended well without a control file");
        if !has_control {
            assert!(!starts(&data), "{stage}: half a cluster started");
            let said = expect(&restore(&program, &data, &[]), 0);
            assert!(said.contains("restored into"), "{said}");
        }
        assert!(!data.join(".chronolith-restore-marker").exists() || whole != has_control);
        let restored = recovered(folder);
        assert_eq!(digests(&restored), expected, "{stage}");
    }
}

/// R9, A15: a server that was restored and promoted archives from then on, but never the history of its own
/// timeline, which began while it did not archive; what is backed up of it comes back all the same.
#[test]
fn a_restored_server_is_backed_up_and_comes_back() {
    let server = Server::start_with(&[], &[]);
    server.sql("postgres", "CREATE TABLE t AS SELECT 1 AS n");
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    expect(&back_up(&program, &server, &[]), 0);
    drop(server);
    let (folder, data) = target();
    expect(&restore(&program, &data, &[]), 0);
    let mut second = recovered(folder);
    second.stop("fast");
    let archive = Archive::new();
    let push = archive.command_line("archive-push --cluster main %p");
    second.set(&["archive_mode=on".to_owned(), format!("archive_command={push}")]);
    second.launch();
    second.sql("postgres", "INSERT INTO t VALUES (2)");
    let mut more = arguments(&second, &["--archive-timeout", "120"]);
    more.remove(0);
    let output = archive.command(&more.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    assert!(expect(&output, 0).contains("timeline 2"));
    second.sql("postgres", "INSERT INTO t VALUES (3)");
    archive_all(&second);
    let files = archive.engine(&["ls", "latest:wal"]).output().unwrap();
    assert!(String::from_utf8_lossy(&files.stdout).contains("00000002.history"), "{files:?}");
    for (more, rows) in
        [(&[][..], "6"), (&["--target-timeline", "current"][..], "6"), (&["--target", "immediate"][..], "3")]
    {
        let (folder, data) = target();
        let mut more = restore_arguments(&data, more);
        more.remove(0);
        expect(&archive.command(&more.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap(), 0);
        let third = recovered(folder);
        assert_eq!(third.sql("postgres", "SELECT sum(n) FROM t").trim(), rows, "{more:?}");
        let reached = third.sql("postgres", "SELECT timeline_id FROM pg_control_checkpoint()");
        assert_eq!(reached.trim(), "3", "{more:?}");
    }
}

/// B4, B21: what cannot be put aside is refused before the cluster is touched; an attempt that was broken off
/// while it put things aside goes on; what is not marked as our own is left alone, and so is what is locked.
#[test]
fn a_cluster_is_put_aside_whole_or_not_touched() {
    let mut server = Server::start();
    server.sql("postgres", "CREATE TABLE t AS SELECT 1 AS n");
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    expect(&back_up(&program, &server, &[]), 0);
    server.stop("fast");
    let data = server.data();
    let (log, elsewhere) = (data.join("pg_wal"), data.with_file_name("elsewhere"));
    let control = data.join("global/pg_control");
    // As `initdb --waldir` has it.
    fs::rename(&log, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &log).unwrap();
    let said = expect(&restore(&program, &data, &["--delta"]), 2);
    assert!(said.contains("pg_wal is a link") && control.exists() && log.is_symlink(), "{said}");
    fs::remove_file(&log).unwrap();
    fs::rename(&elsewhere, &log).unwrap();

    let lock = fs::File::open(&data).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let said = expect(&restore(&program, &data, &["--delta", "--confirm", "main"]), 2);
    assert!(said.contains("another restore into") && control.exists(), "{said}");
    drop(lock);

    // Without the marker: what another program is bringing there.
    let aside = data.with_file_name("data.before-restore-1");
    fs::create_dir(&aside).unwrap();
    fs::rename(&control, aside.join("pg_control")).unwrap();
    for more in [&[][..], &["--delta"]] {
        expect(&restore(&program, &data, more), 2);
    }
    assert!(data.join("postmaster.opts").exists());
    // With it: killed between the control file and the log.
    let segments = fs::read_dir(&log).unwrap().count();
    let marker = format!("base backup x\nput aside into {}\n", aside.display());
    fs::write(data.join(".chronolith-restore-marker"), marker).unwrap();
    let said = expect(&restore(&program, &data, &[]), 0);
    assert!(said.contains("data.before-restore-1"), "{said}");
    assert_eq!(fs::read_dir(aside.join("pg_wal")).unwrap().count(), segments);
    assert!(!data.join(".chronolith-restore-marker").exists());
    server.launch();
    assert_eq!(server.sql("postgres", "SELECT n FROM t").trim(), "1");
}

/// B8: replay makes tablespaces at their original paths; where another server has one there, that is refused.
#[test]
fn log_that_creates_a_tablespace_in_use_is_refused() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let server = Server::start_with(&[], &["archive_mode=on", &push]);
    let run = |mut arguments: Vec<String>| {
        arguments.remove(0);
        archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    expect(&run(arguments(&server, &["--archive-timeout", "120"])), 0);
    let place = tablespace(&server, "late");
    server.sql("postgres", &format!("CREATE TABLESPACE late LOCATION '{}'", place.display()));
    archive_all(&server);
    let (folder, data) = target();
    let said = expect(&run(restore_arguments(&data, &["--dry-run"])), 2);
    assert!(said.contains("creates tablespace") && said.contains(&*place.to_string_lossy()), "{said}");
    expect(&run(restore_arguments(&data, &["--dry-run", "--force"])), 0);
    expect(&run(restore_arguments(&data, &["--target", "immediate", "--dry-run"])), 0);
    drop(folder);
}

/// B8: over the cluster that has the tablespace the restore goes on where it was broken off, and may be done again,
/// though the link to what the backup does not have is gone by then; for another system the place stays in use.
#[test]
fn a_tablespace_of_the_cluster_itself_is_its_own_at_every_attempt() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let mut server = Server::start_with(&[], &["archive_mode=on", &push]);
    let run = |mut arguments: Vec<String>| {
        arguments.remove(0);
        archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    expect(&run(arguments(&server, &["--archive-timeout", "120"])), 0);
    let place = tablespace(&server, "late");
    server.sql("postgres", &format!("CREATE TABLESPACE late LOCATION '{}'", place.display()));
    server.sql("postgres", "CREATE TABLE t TABLESPACE late AS SELECT n FROM generate_series(1, 1000) n");
    let number = server.sql("postgres", "SELECT oid FROM pg_tablespace WHERE spcname = 'late'");
    archive_all(&server);
    server.stop("fast");
    let data = server.data();
    let link = data.join("pg_tblspc").join(number.trim());
    let again = || restore_arguments(&data, &["--delta", "--confirm", "main"]);
    expect(&run(again()), 0);
    assert!(!link.exists());
    // Not started yet, and done again; broken off before the control file was there, and gone on with.
    expect(&run(again()), 0);
    fs::remove_file(data.join("global/pg_control")).unwrap();
    fs::write(data.join(".chronolith-restore-marker"), "base backup x\n").unwrap();
    expect(&run(again()), 0);
    // What was put aside of another system proves nothing.
    let asides = (1..=2).map(|number| data.with_file_name(format!("data.before-restore-{number}")));
    let asides: Vec<PathBuf> = asides.collect();
    for aside in &asides {
        fs::rename(aside.join("pg_control"), aside.join("kept")).unwrap();
    }
    let said = expect(&run(again()), 2);
    assert!(said.contains("creates tablespace"), "{said}");
    for aside in &asides {
        fs::rename(aside.join("kept"), aside.join("pg_control")).unwrap();
    }
    server.set(&[]);
    server.launch();
    while server.sql("postgres", "SELECT pg_is_in_recovery()").trim() != "f" {}
    assert_eq!(server.sql("postgres", "SELECT count(*) FROM t").trim(), "1000");
}

/// R: in place only what differs is written, the cluster's own control file and log are kept, and what is not
/// that cluster is refused.
#[test]
fn in_place_only_what_differs_is_written() {
    let mut server = Server::start_with(&["--data-checksums"], &[]);
    server.sql("postgres", "CREATE TABLE big AS SELECT n, md5(n::text) FROM generate_series(1, 300000) n; CREATE TABLE small AS SELECT 1 AS n; CHECKPOINT");
    let expected = digests(&server);
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    expect(&back_up(&program, &server, &[]), 0);
    server.sql(
        "postgres",
        "DROP TABLE small; UPDATE big SET md5 = 'x' WHERE n = 7; CREATE TABLE later AS SELECT 2; CHECKPOINT",
    );
    let data = server.data();
    // B21: a running server is refused, whatever is asked for.
    let said = expect(&restore(&program, &data, &["--delta", "--force"]), 2);
    assert!(said.contains("a server runs on"), "{said}");
    server.stop("fast");
    let said = expect(&restore(&program, &data, &[]), 2);
    assert!(said.contains("is not empty") && said.contains("--delta"), "{said}");
    let output = restore(&program, &data, &["--delta", "--confirm", "main", "--json"]);
    expect(&output, 0);
    let summary: serde_json::Value =
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap().parse().unwrap();
    let figure = |name: &str| summary[name].as_u64().unwrap();
    // The segment of the log is written whole; of the rest, little.
    assert!(figure("written_bytes") < (16 << 20) + (4 << 20) && figure("bytes") > 50 << 20, "{summary}");
    let aside = PathBuf::from(summary["kept_aside"].as_str().unwrap());
    assert!(aside.join("pg_control").exists() && fs::read_dir(aside.join("pg_wal")).unwrap().count() > 0);
    server.launch();
    assert_eq!(digests(&server), expected);
    server.stop("fast");
    // Another cluster's folder, and one that holds something else.
    let mut other = Server::start();
    other.stop("fast");
    let said = expect(&restore(&program, &other.data(), &["--delta"]), 2);
    assert!(said.contains("holds another cluster"), "{said}");
    let (folder, data) = target();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("letter.txt"), b"dear").unwrap();
    for more in [&[][..], &["--delta"]] {
        expect(&restore(&program, &data, more), 2);
    }
    assert_eq!(fs::read(data.join("letter.txt")).unwrap(), b"dear");
    drop(folder);
}

#[test]
fn what_cannot_be_restored_is_refused_before_anything_is_written() {
    let server = Server::start();
    let place = tablespace(&server, "fast");
    server.sql("postgres", &format!("CREATE TABLESPACE fast LOCATION '{}'", place.display()));
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let (folder, data) = target();
    let said = expect(&restore(&program, &data, &[]), 4);
    assert!(said.contains("there is no base backup of main"), "{said}");
    expect(&back_up(&program, &server, &[]), 0);
    let refused = |more: &[&str], word: &str| {
        let said = expect(&restore(&program, &data, more), 2);
        assert!(said.contains(word), "{said}");
        assert!(!data.exists(), "something was written");
    };
    // B8: the tablespace of the server that runs here.
    refused(&[], "is in use");
    refused(&["--tablespace-map", "/nowhere=/new"], "the backup has no tablespace at /nowhere");
    let map = format!("{}={}", place.display(), folder.path().join("server/fast").display());
    // B21: programs of another version.
    let programs = folder.path().join("programs");
    fs::create_dir(&programs).unwrap();
    fs::write(programs.join("pg_ctl"), b"").unwrap();
    fs::write(programs.join("postgres"), b"#!/bin/sh\necho 'postgres (PostgreSQL) 9.6.24'\n").unwrap();
    check("chmod", Command::new("chmod").arg("755").arg(programs.join("postgres")).output());
    refused(&["--tablespace-map", &map, "--programs", programs.to_str().unwrap()], "9 in ");
    // Nothing is archived.
    refused(
        &["--tablespace-map", &map, "--target-time", "2126-01-01 00:00:00Z"],
        "no log of this cluster is archived",
    );
    refused(
        &["--tablespace-map", &map, "--target-time", "2001-01-01 00:00:00Z"],
        "before the end of every base backup",
    );
    // Shown, not done; then done, and started.
    let output = restore(&program, &data, &["--tablespace-map", &map, "--dry-run"]);
    assert!(expect(&output, 0).contains("nothing was written") && !data.exists());
    let socket = format!("unix_socket_directories={}", folder.path().join("server").display());
    let more = ["--tablespace-map", &map, "--set", &socket, "--set", "listen_addresses=", "--start"];
    let said = expect(&restore(&program, &data, &more), 0);
    assert!(said.contains("the server is up") && said.contains("it does not archive"), "{said}");
    let mut stop = as_user(USER, &tool("pg_ctl"));
    check("pg_ctl", stop.arg("-D").arg(&data).args(["-w", "-s", "-m", "fast", "stop"]).output());
}

/// B7, B18: configuration that lies outside of the data directory, as Debian has it, is brought along.
#[test]
fn configuration_outside_of_the_data_directory_comes_along() {
    let mut server = Server::start();
    server.stop("fast");
    let etc = tablespace(&server, "etc");
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        let mv = Command::new("mv").arg(server.data().join(name)).arg(&etc).output();
        check("mv", mv);
    }
    let included = etc.join("conf.d");
    check("mkdir", as_user(USER, Path::new("/bin/mkdir")).arg(&included).output());
    fs::write(included.join("memory.conf"), b"work_mem = '7MB'\n").unwrap();
    let main = etc.join("postgresql.conf");
    let text = fs::read_to_string(&main).unwrap();
    let more = format!(
        "include_dir = 'conf.d'\nhba_file = '{0}/pg_hba.conf'\nident_file = '{0}/pg_ident.conf'\nexternal_pid_file = '{0}/pid'\n",
        etc.display()
    );
    fs::write(&main, text + &more).unwrap();
    check("chown", Command::new("chown").args(["-R", USER]).arg(&etc).output());
    server.settings.push(format!("config_file={}", main.display()));
    server.launch();
    server.sql("postgres", "CREATE TABLE t AS SELECT 1 AS n");
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    expect(&back_up(&program, &server, &[]), 0);
    server.stop("fast");
    let (folder, data) = target();
    expect(&restore(&program, &data, &[]), 0);
    let restored = recovered(folder);
    let answer =
        restored.sql("postgres", "SELECT n FROM t; SHOW work_mem; SHOW hba_file; SHOW external_pid_file");
    assert_eq!(answer, format!("1\n7MB\n{}\n\n", data.join("pg_hba.conf").display()));
}

/// Makes a standby of a running server, as its own tool does it, and waits until it can be read.
fn standby_of(server: &Server) -> Server {
    let folder = folder(USER);
    let data = folder.path().join("server/data");
    let mut copy = as_user(USER, &tool("pg_basebackup"));
    copy.arg("-D").arg(&data).arg("-h").arg(server.sockets()).args(["-p", &server.port.to_string()]);
    check("pg_basebackup", copy.args(["-U", "tester", "-R", "-X", "stream", "-c", "fast"]).output());
    // Two servers beside each other need two ports only where they have one folder for their sockets.
    Server::adopt(folder, &[])
}

/// B14: what was true of one recovery only is not in the way of standbys that are made of the restored server later, not
/// after a target in the past either; and without its settings no recovery begins.
#[test]
fn standbys_can_be_made_of_a_restored_server() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let server = Server::start_with(&[], &["archive_mode=on", &push]);
    server.sql("postgres", "CREATE TABLE t AS SELECT 1 AS n");
    let run = |mut arguments: Vec<String>| {
        arguments.remove(0);
        archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    expect(&run(arguments(&server, &["--archive-timeout", "120"])), 0);
    let point = commit_time(&server);
    server.sql("postgres", "INSERT INTO t VALUES (2)");
    archive_all(&server);
    for (more, sum) in [(&[][..], "3"), (&["--target-time", &point][..], "1")] {
        let (folder, data) = target();
        expect(&run(restore_arguments(&data, more)), 0);
        let settings = data.join("chronolith.recovery.conf");
        fs::rename(&settings, data.join("kept")).unwrap();
        assert!(!starts(&data), "it recovers without being told where to");
        fs::rename(data.join("kept"), &settings).unwrap();
        let restored = recovered(folder);
        assert_eq!(restored.sql("postgres", "SELECT sum(n) FROM t").trim(), sum);
        assert_eq!(fs::metadata(&settings).unwrap().len(), 0);
        let standby = standby_of(&restored);
        restored.sql("postgres", "INSERT INTO t VALUES (4)");
        let started = Instant::now();
        let expected = restored.sql("postgres", "SELECT sum(n) FROM t");
        while standby.sql("postgres", "SELECT sum(n) FROM t") != expected {
            assert!(started.elapsed() < Duration::from_secs(60), "{}", standby.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(standby.sql("postgres", "SELECT pg_is_in_recovery()").trim(), "t");
        // What somebody sets now does not bring anything of it back.
        restored.sql("postgres", "ALTER SYSTEM SET work_mem = '6MB'");
        let automatic = fs::read_to_string(data.join("postgresql.auto.conf")).unwrap();
        assert!(
            !automatic.contains("recovery_target_timeline") && !automatic.contains("hot_standby"),
            "{automatic}"
        );
        assert!(automatic.contains("archive_mode = 'off'"), "B16: {automatic}");
    }
}

/// Returns a moment behind everything that was done, before everything that will be done.
fn commit_time(server: &Server) -> String {
    server.sql("postgres", "SELECT pg_sleep(0.1)");
    let time = server.sql("postgres", "SELECT clock_timestamp()").trim().to_owned();
    server.sql("postgres", "SELECT pg_sleep(0.1)");
    time
}

/// B21: a server that is to shut down at its target does what it was asked; its log lies beside the data directory, and
/// an old one in it is neither backed up nor read.
#[test]
fn a_server_that_is_to_shut_down_at_its_target_has_done_so() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let server = Server::start_with(&[], &["archive_mode=on", &push]);
    let run = |mut arguments: Vec<String>| {
        arguments.remove(0);
        archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    fs::write(server.data().join("restore.log"), "an old one").unwrap();
    expect(&run(arguments(&server, &["--archive-timeout", "120"])), 0);
    server.sql("postgres", "SELECT pg_create_restore_point('here')");
    archive_all(&server);
    let (folder, data) = target();
    let socket = format!("unix_socket_directories={}", folder.path().join("server").display());
    let socket = ["--set", &socket, "--set", "listen_addresses="];
    let more = ["--target-name", "here", "--target-action", "shutdown", "--start"];
    let said = expect(&run(restore_arguments(&data, &[&socket[..], &more].concat())), 0);
    assert!(said.contains("came to its target and has shut down"), "{said}");
    assert!(!data.join("postmaster.pid").exists() && !data.join("restore.log").exists());
    let log = fs::read_to_string(data.with_file_name("data.restore.log")).unwrap();
    assert!(log.contains("recovery stopping at restore point") && !log.contains("an old one"), "{log}");
    // One that does not come up has not done what it was asked.
    let (folder, data) = target();
    let more = ["--target-name", "here", "--target-action", "shutdown", "--start", "--set", "port=nonsense"];
    let said = expect(&run(restore_arguments(&data, &more)), 1);
    assert!(said.contains("did not come up") && said.contains("data.restore.log"), "{said}");
    drop(folder);
}

/// B12: a transaction that ended before the newest base backup is recovered to from an older one, and one that began before
/// all of them is refused before anything is written.
#[test]
fn a_transaction_is_looked_for_from_a_base_backup_before_it() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let server = Server::start_with(&["--wal-segsize", "1"], &["archive_mode=on", &push]);
    server.sql("postgres", "CREATE TABLE t (n int)");
    let insert = |number: u64| {
        let answer = server.sql("postgres", &format!("INSERT INTO t VALUES ({number}) RETURNING xmin"));
        answer.trim().to_owned()
    };
    let run = |arguments: &[&str]| archive.command(arguments).output().unwrap();
    let backup = || {
        let backup = arguments(&server, &["--archive-timeout", "120"]);
        expect(&run(&backup.iter().skip(1).map(String::as_str).collect::<Vec<_>>()), 0);
    };
    let before = insert(1);
    backup();
    let (wanted, _) = (insert(2), insert(3));
    backup();
    let newest = insert(4);
    insert(5);
    archive_all(&server);

    let restored = |transaction: &str| {
        let (folder, data) = target();
        let words = restore_arguments(&data, &["--target-xid", transaction]);
        expect(&run(&words.iter().skip(1).map(String::as_str).collect::<Vec<_>>()), 0);
        recovered(folder).sql("postgres", "SELECT max(n) FROM t").trim().to_owned()
    };
    assert_eq!(restored(&wanted), "2");
    assert_eq!(restored(&newest), "4");
    let (_folder, data) = target();
    let words = restore_arguments(&data, &["--target-xid", &before]);
    let said = expect(&run(&words.iter().skip(1).map(String::as_str).collect::<Vec<_>>()), 2);
    assert!(said.contains("began before every base backup") && said.contains("--base"), "{said}");
    assert!(!data.exists());
}
