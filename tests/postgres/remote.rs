//! Base backups over the replication protocol: under load, with tablespaces, with a page that does not hold, with
//! a connection that breaks.

use super::base::{expect, tablespace};
use super::restore::{digests, recovered, target};
use super::server::{Server, USER, tool};
use super::support::program::Program;
use super::support::server::{as_user, check};
use chronolith::ops::Snapshots;
use chronolith::postgres::base::{BaseFacts, bases_of};
use chronolith::postgres::lineage::ClusterName;
use std::fs;
use std::os::unix::fs::FileExt;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn command(program: &Program, server: &Server, more: &[&str]) -> Command {
    let host = server.sockets().display().to_string();
    let mut arguments =
        vec!["pg", "backup", "--cluster", "main", "--user", "tester", "--remote", "--host", &host];
    arguments.extend(more);
    program.command(&arguments)
}

fn back_up(program: &Program, server: &Server, more: &[&str]) -> Output {
    command(program, server, more).output().unwrap()
}

fn facts(program: &Program) -> Vec<BaseFacts> {
    let snapshots = Snapshots::load(&program.client().open()).unwrap();
    bases_of(&snapshots, &ClusterName::new("main").unwrap()).into_iter().map(|base| base.facts).collect()
}

fn paths(program: &Program) -> Vec<String> {
    let listed = check("ls", program.command(&["ls", "--recursive", "latest"]).output());
    String::from_utf8(listed).unwrap().lines().map(str::to_owned).collect()
}

/// Restores the newest backup and recovers it; what it holds must be enough.
fn restore(program: &Program, more: &[&str]) -> Server {
    let (folder, data) = target();
    let mut arguments = vec!["pg", "restore", "--cluster", "main", "--pgdata", data.to_str().unwrap()];
    arguments.extend(more);
    expect(&program.run(&arguments), 0);
    if rustix::process::geteuid().is_root() {
        check("chown", Command::new("chown").args(["-R", USER]).arg(folder.path().join("server")).output());
    }
    recovered(folder)
}

/// B2 to B9: what the server sends under load, tablespaces included, comes back as it was at one moment; the next
/// backup costs what changed; one of the other kind compares with it.
#[test]
fn what_a_server_sends_comes_back() {
    let server = Server::start_with(
        &["--data-checksums", "--wal-segsize", "1"],
        // A vacuum between two backups would change what the second is to find unchanged.
        &["max_wal_size=1GB", "wal_keep_size=1GB", "autovacuum=off"],
    );
    let place = tablespace(&server, "space one");
    server.sql("postgres", &format!("CREATE TABLESPACE one LOCATION '{}'", place.display()));
    server.sql("postgres", "CREATE DATABASE app; CREATE DATABASE still");
    server.sql(
        "still",
        "CREATE TABLE a AS SELECT n, md5(n::text) FROM generate_series(1, 200000) n; CREATE INDEX ON a (n);
         CREATE TABLE b TABLESPACE one AS SELECT * FROM a; CREATE UNLOGGED TABLE gone AS SELECT * FROM a",
    );
    let unlogged = server.sql("still", "SELECT pg_relation_filepath('gone')");
    let mut pgbench = server.client("pgbench");
    check("pgbench", pgbench.args(["-i", "-q", "-s", "2", "app"]).output());
    server.sql("still", "TRUNCATE gone");
    let still = "SELECT sum(hashtext(a::text)) FROM a; SELECT sum(hashtext(b::text)) FROM b";
    let before = server.sql("still", still);
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (server, stop) = (&server, &stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut pgbench = server.client("pgbench");
                let output = pgbench.args(["-n", "-c", "2", "-t", "100", "app"]).output().unwrap();
                assert!(output.status.success(), "{output:?}");
            }
        });
        let first = back_up(&program, server, &["--wal", "stream"]);
        stop.store(true, Ordering::Relaxed);
        let said = expect(&first, 0);
        assert!(said.contains("with the log in it") && said.contains("page checksums hold"), "{said}");
    });
    let found = paths(&program);
    let has = |path: &str| found.iter().any(|found| found == path);
    for path in
        ["data/PG_VERSION", "data/pg_wal/", "data/pg_replslot/", "data/pg_tblspc/", "vital/backup_label"]
    {
        assert!(has(path), "{path}: {found:?}");
    }
    assert!(has("vital/pg_control") && has("vital/tablespace_map"), "B2, B4");
    for path in ["data/postmaster.pid", "data/backup_label", "data/global/pg_control", "data/tablespace_map"]
    {
        assert!(!has(path), "{path}");
    }
    assert!(!has(&format!("data/{}", unlogged.trim())), "B6: the rows of an unlogged table");
    assert!(found.iter().filter(|path| path.starts_with("data/pg_wal/")).count() == 1);
    let first = &facts(&program)[0];
    assert_eq!(first.tablespaces.values().next().unwrap(), &place.display().to_string());
    assert!(first.databases["still"] > 10 << 20 && first.data_checksums && first.warnings.is_empty());
    assert!(first.started < first.stopped && first.start < first.stop);
    let new = place.with_file_name("space two");
    let map = format!("{}={}", place.display(), new.display());
    let mut restored = restore(&program, &["--tablespace-map", &map]);
    assert_eq!(restored.sql("still", still), before);
    let sums = restored
        .sql("app", "SELECT sum(abalance) FROM pgbench_accounts; SELECT sum(bbalance) FROM pgbench_branches");
    let mut sums = sums.lines();
    assert_eq!(sums.next(), sums.next(), "one moment");
    restored.stop("fast");
    // The next costs what changed.
    let again = expect(&back_up(&program, &server, &["--wal", "stream"]), 0);
    let snapshots = Snapshots::load(&program.client().open()).unwrap();
    let stored: Vec<u64> = snapshots.iter().map(|view| view.snapshot.summary.stored_bytes).collect();
    assert!(stored[1] * 5 < stored[0], "{stored:?} {again}");
    assert!(snapshots.iter().last().unwrap().snapshot.parent.is_some());
    // And one that reads the files itself shares them all.
    let data = server.data().display().to_string();
    let local =
        ["pg", "backup", "--cluster", "main", "--user", "tester", "--pgdata", &data, "--wal", "stream"];
    expect(&program.run(&local), 0);
    let snapshots = Snapshots::load(&program.client().open()).unwrap();
    let summary = snapshots.iter().last().unwrap().snapshot.summary.clone();
    assert!(summary.stored_bytes * 5 < stored[0], "{summary:?}");
    let expected = digests(&server);
    let map = format!("{}={}", place.display(), place.with_file_name("space three").display());
    let restored = restore(&program, &["--tablespace-map", &map]);
    assert_eq!(digests(&restored), expected);
}

/// A page that does not hold: the server says so after everything else, and then there is no backup.
#[test]
fn the_final_error_of_a_server_is_not_lost() {
    let mut server = Server::start_with(&["--data-checksums"], &[]);
    server.sql("postgres", "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n");
    let file = server.sql("postgres", "SELECT pg_relation_filepath('t')");
    server.stop("fast");
    let path = server.data().join(file.trim());
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"rotten", 3 * 8192 + 4000).unwrap();
    server.launch();
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let output = back_up(&program, &server, &["--wal", "stream"]);
    let said = expect(&output, 1);
    assert!(said.contains("checksum"), "{said}");
    assert!(
        said.contains("the server says") && said.contains("block") && said.contains("without --remote"),
        "{said}"
    );
    assert!(facts(&program).is_empty(), "nothing is committed");
    expect(&program.run(&["check"]), 0);
}

/// A connection that breaks in the middle, however it breaks: nothing is committed, and the next one is whole.
#[test]
fn a_broken_backup_is_none() {
    let mut server = Server::start_with(&[], &["max_wal_size=1GB"]);
    server.sql(
        "postgres",
        "CREATE TABLE t AS SELECT n, md5(n::text) AS x, random() AS r FROM generate_series(1, 400000) n",
    );
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let sending =
        "SELECT count(*) FROM pg_stat_progress_basebackup WHERE phase LIKE 'streaming database files'";
    // The server is told to send slowly, so that it is in the middle for a while.
    for how in ["terminate", "immediate", "interrupt"] {
        let mut command = command(&program, &server, &["--wal", "stream", "--jobs", "1", "--level", "19"]);
        let child = command.spawn().unwrap();
        let started = Instant::now();
        while server.sql("postgres", sending).trim() != "1" {
            assert!(started.elapsed() < Duration::from_secs(60), "it never began");
            std::thread::sleep(Duration::from_millis(5));
        }
        match how {
            "terminate" => drop(
                server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_basebackup"),
            ),
            "immediate" => server.stop("immediate"),
            _ => {
                let process = rustix::process::Pid::from_child(&child);
                rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
            }
        }
        let output = child.wait_with_output().unwrap();
        expect(&output, if how == "interrupt" { 130 } else { 1 });
        assert!(facts(&program).is_empty(), "{how}: nothing is committed");
        if how == "immediate" {
            server.launch();
        }
    }
    let whole = expect(&back_up(&program, &server, &["--wal", "stream"]), 0);
    assert!(whole.contains("base backup"), "{whole}");
    let expected = digests(&server);
    let restored = restore(&program, &[]);
    assert_eq!(digests(&restored), expected);
}

/// Without a data directory the files are read where that can be done, and sent where it can't.
#[test]
fn the_server_sends_what_cannot_be_read_here() {
    let server = Server::start();
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let host = server.sockets().display().to_string();
    let plain = ["pg", "backup", "--cluster", "main", "--user", "tester", "--host", &host, "--wal", "stream"];
    let said = expect(&program.run(&plain), 0);
    assert!(!said.contains("the server sends its files"), "{said}");
    // A role that may not know where the data is: as a server on another host.
    server.sql("postgres", "CREATE ROLE carrier REPLICATION LOGIN");
    let carrier =
        ["pg", "backup", "--cluster", "main", "--user", "carrier", "--host", &host, "--wal", "stream"];
    let said = expect(&program.run(&carrier), 0);
    assert!(said.contains("the server sends its files"), "{said}");
    assert_eq!(facts(&program)[1].data_directory, "unknown");
}

/// B7, B8: tablespaces within the data directory, as developers make them, come along beside ordinary ones; also where
/// no ordinary session tells of them.
#[test]
fn a_tablespace_within_the_data_directory_comes_along() {
    let mut server = Server::start();
    // The restored server insists on it too.
    server.sql("postgres", "ALTER SYSTEM SET allow_in_place_tablespaces = on");
    server.stop("fast");
    server.launch();
    let outside = tablespace(&server, "out side");
    server.sql("postgres", "CREATE TABLESPACE inside LOCATION ''");
    server.sql("postgres", &format!("CREATE TABLESPACE outside LOCATION '{}'", outside.display()));
    server.sql(
        "postgres",
        "CREATE TABLE t TABLESPACE inside AS SELECT n FROM generate_series(1, 1000) n;
         CREATE TABLE u TABLESPACE outside AS SELECT * FROM t",
    );
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    for is_told in [true, false] {
        if !is_told {
            let rules = server.data().join("pg_hba.conf");
            fs::write(rules, "local all all reject\nlocal replication all trust\n").unwrap();
            check(
                "reload",
                as_user(USER, &tool("pg_ctl")).arg("-D").arg(server.data()).arg("reload").output(),
            );
            std::thread::sleep(Duration::from_millis(300));
        }
        let said = expect(&back_up(&program, &server, &["--wal", "stream"]), 0);
        assert_eq!(said.contains("names of databases are not remembered"), !is_told, "{said}");
        let (folder, data) = target();
        let map = format!("{}={}", outside.display(), folder.path().join("server/moved").display());
        let pgdata = data.to_str().unwrap();
        let arguments = ["pg", "restore", "--cluster", "main", "--pgdata", pgdata, "--tablespace-map", &map];
        expect(&program.run(&arguments), 0);
        if rustix::process::geteuid().is_root() {
            let all = folder.path().join("server");
            check("chown", Command::new("chown").args(["-R", USER]).arg(all).output());
        }
        if !is_told {
            fs::write(data.join("pg_hba.conf"), "local all all trust\n").unwrap();
        }
        let restored = recovered(folder);
        let found = restored.sql("postgres", "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u)");
        assert_eq!(found.trim(), "1000|1000");
    }
    server.stop("immediate");
}
