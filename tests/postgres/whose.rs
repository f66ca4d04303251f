//! The files of a base backup are those of the server that it is taken of: not those of a standby, a copy, or
//! whatever has the same path on this host.

use super::base::{expect, tablespace};
use super::restore::{digests, recovered, target};
use super::server::{Server, USER, tool};
use super::support::program::Program;
use super::support::server::{as_user, check, folder};
use chronolith::ops::Snapshots;
use chronolith::postgres::base::{BaseFacts, bases_of};
use chronolith::postgres::lineage::ClusterName;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_chronolith"))
}

fn command(program: &Program, more: &[&str]) -> Command {
    let arguments = ["pg", "backup", "--cluster", "main", "--user", "tester", "--wal", "stream"];
    program.command(&[&arguments, more].concat())
}

fn facts(program: &Program) -> Vec<BaseFacts> {
    let snapshots = Snapshots::load(&program.client().open()).unwrap();
    bases_of(&snapshots, &ClusterName::new("main").unwrap()).into_iter().map(|base| base.facts).collect()
}

/// A copy of a running server's files that follows it when it is started.
fn copy(server: &Server) -> TempDir {
    let place = folder(USER);
    let mut copy = as_user(USER, &tool("pg_basebackup"));
    copy.arg("-D").arg(place.path().join("server/data")).args(["-U", "tester", "-X", "stream", "-R"]);
    check("pg_basebackup", copy.args(["-c", "fast", "-h"]).arg(server.sockets()).output());
    place
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Copies a folder as it is, the file with the server's process too.
fn duplicate(from: &Path, to: &Path) {
    check("cp", as_user(USER, Path::new("/bin/cp")).arg("-a").args([from, to]).output());
}

/// B1, B3: the system identifier is the same for a standby, running, paused or stopped, for a server that went
/// another way, and for a copy of the files; none of them is taken for the server, however it is named.
#[test]
fn no_other_data_directory_is_taken_for_the_servers() {
    let primary = Server::start();
    primary.sql("postgres", "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n");
    let diverged = {
        let mut other = Server::adopt(copy(&primary), &["hot_standby=on"]);
        other.sql("postgres", "SELECT pg_promote()");
        other.sql("postgres", "CREATE TABLE elsewhere ()");
        other.stop("fast");
        other
    };
    let standby = Server::adopt(copy(&primary), &["hot_standby=on"]);
    let still = primary.sockets().join("still");
    duplicate(&primary.data(), &still);
    primary.sql("postgres", "INSERT INTO t VALUES (0)");

    let program = program();
    let host = text(&primary.sockets());
    let refused = |output: std::process::Output, folder: &Path| {
        let said = expect(&output, 2);
        let why = format!("{} is not the data directory of the server at {host}", folder.display());
        assert!(said.contains(&why) && said.contains("--pgdata") && said.contains("--remote"), "{said}");
        assert!(said.contains(&format!("works in {}", primary.data().display())), "{said}");
    };
    standby.sql("postgres", "SELECT pg_wal_replay_pause()");
    for folder in [diverged.data(), standby.data(), still.clone()] {
        refused(command(&program, &["--host", &host, "--pgdata", &text(&folder)]).output().unwrap(), &folder);
        let mut by_variable = command(&program, &["--host", &host]);
        refused(by_variable.env("PGDATA", &folder).output().unwrap(), &folder);
    }
    // What stands in the copy's postmaster.pid leads to the server.
    refused(command(&program, &["--pgdata", &text(&still)]).output().unwrap(), &still);
    standby.sql("postgres", "SELECT pg_wal_replay_resume(); CHECKPOINT");
    refused(
        command(&program, &["--host", &host, "--pgdata", &text(&standby.data())]).output().unwrap(),
        &standby.data(),
    );
    // The other way round: connected to the standby, the files of the primary.
    let at_standby = ["--host", &text(&standby.sockets()), "--pgdata", &text(&primary.data())];
    let said = expect(&command(&program, &at_standby).output().unwrap(), 2);
    assert!(said.contains("is not the data directory of the server"), "{said}");
    assert!(facts(&program).is_empty());

    // Each of them by itself is backed up as ever, a standby too (B9).
    expect(&command(&program, &["--pgdata", &text(&primary.data())]).output().unwrap(), 0);
    expect(&command(&program, &["--pgdata", &text(&standby.data())]).output().unwrap(), 0);
    expect(&command(&program, &[]).env("PGDATA", primary.data()).output().unwrap(), 0);
    let found: Vec<bool> = facts(&program).iter().map(|facts| facts.from_standby).collect();
    assert_eq!(found, [false, true, false]);

    // Whoever names another host does not mean the folder that the environment names.
    let mut elsewhere = command(&program, &["--host", "nowhere.invalid"]);
    let said = expect(&elsewhere.env("PGDATA", standby.data()).output().unwrap(), 1);
    assert!(said.contains("PGDATA is left aside: the server on nowhere.invalid was named"), "{said}");
    let mut elsewhere = command(&program, &[]);
    elsewhere.env("PGDATA", standby.data()).env("PGHOST", "nowhere.invalid");
    let said = expect(&elsewhere.output().unwrap(), 1);
    assert!(said.contains("PGDATA is left aside"), "{said}");
    assert_eq!(facts(&program).len(), 3);
}

/// A server on another host, which has its data at a path at which this host has a copy: the server sends its
/// files, and what it committed since comes back.
#[test]
fn the_same_path_on_another_host_is_not_the_servers() {
    let server = Server::start();
    server.sql("postgres", "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n; CHECKPOINT");
    // The server goes on in the folder that it works in, whatever it is called; but for its control file, which it
    // writes by the path. That one it has in both, so that it gives nobody away.
    let (data, moved, copied) =
        (server.data(), server.sockets().join("moved"), server.sockets().join("copied"));
    duplicate(&data, &copied);
    fs::remove_file(copied.join("global/pg_control")).unwrap();
    std::os::unix::fs::symlink(moved.join("global/pg_control"), copied.join("global/pg_control")).unwrap();
    fs::rename(&data, &moved).unwrap();
    fs::rename(&copied, &data).unwrap();
    server.sql("postgres", "INSERT INTO t VALUES (-1)");
    let expected = digests(&server);

    let program = program();
    let host = text(&server.sockets());
    let said = expect(&command(&program, &["--host", &host, "--pgdata", &text(&data)]).output().unwrap(), 2);
    assert!(said.contains("has its own at the same path"), "{said}");
    let said = expect(&command(&program, &["--host", &host]).output().unwrap(), 0);
    assert!(said.contains("the server sends its files"), "{said}");
    // Where the folder really is, it is read.
    let said = expect(&command(&program, &["--host", &host, "--pgdata", &text(&moved)]).output().unwrap(), 0);
    assert!(!said.contains("the server sends its files"), "{said}");
    fs::rename(&data, &copied).unwrap();
    fs::rename(&moved, &data).unwrap();

    let snapshots = program.client().snapshots();
    assert_eq!(snapshots.len(), 2);
    for snapshot in snapshots {
        let (place, restored) = target();
        let base = snapshot.to_string();
        let arguments = ["pg", "restore", "--cluster", "main", "--base", &base, "--pgdata"];
        expect(&program.run(&[&arguments[..], &[restored.to_str().unwrap()]].concat()), 0);
        if rustix::process::geteuid().is_root() {
            check("chown", Command::new("chown").args(["-R", USER]).arg(&restored).output());
        }
        assert_eq!(digests(&recovered(place)), expected);
    }
}

/// What cannot be proved is not believed: a role that may not export a snapshot, and a tablespace whose files are
/// not on this host.
#[test]
fn what_cannot_be_proved_is_refused() {
    let server = Server::start();
    let place = tablespace(&server, "one");
    server.sql("postgres", &format!("CREATE TABLESPACE one LOCATION '{}'", place.display()));
    server.sql(
        "postgres",
        "CREATE TABLE kept TABLESPACE one AS SELECT 1 AS n; CREATE ROLE carrier REPLICATION LOGIN;
         GRANT pg_read_all_settings TO carrier; GRANT EXECUTE ON FUNCTION pg_backup_start, pg_backup_stop TO carrier;
         REVOKE EXECUTE ON FUNCTION pg_export_snapshot FROM PUBLIC; CHECKPOINT",
    );
    let program = program();
    let (host, data) = (text(&server.sockets()), text(&server.data()));
    let carrier =
        ["pg", "backup", "--cluster", "main", "--user", "carrier", "--wal", "stream", "--host", &host];
    let said = expect(&program.run(&[&carrier[..], &["--pgdata", &data]].concat()), 2);
    assert!(said.contains("nothing shows that") && said.contains("GRANT EXECUTE"), "{said}");
    let said = expect(&program.run(&carrier), 0);
    assert!(said.contains("the server sends its files"), "{said}");
    server.sql("postgres", "GRANT EXECUTE ON FUNCTION pg_export_snapshot TO carrier");
    let said = expect(&program.run(&carrier), 0);
    assert!(!said.contains("the server sends its files"), "{said}");
    assert_eq!(facts(&program).len(), 2);

    // Its files are somewhere else, as those of a server in a container.
    let aside = place.with_file_name("aside");
    fs::rename(&place, &aside).unwrap();
    let said = expect(&command(&program, &["--pgdata", &data]).output().unwrap(), 2);
    assert!(said.contains("are not in") && said.contains(&text(&place)), "B7: {said}");
    assert_eq!(facts(&program).len(), 2);
    fs::rename(&aside, &place).unwrap();
    expect(&command(&program, &["--pgdata", &data]).output().unwrap(), 0);
    // One that was dropped is none that is missing.
    server.sql("postgres", "DROP TABLE kept");
    server.sql("postgres", "DROP TABLESPACE one");
    let started = Instant::now();
    expect(&command(&program, &["--pgdata", &data]).output().unwrap(), 0);
    assert!(started.elapsed() < Duration::from_secs(60));
}
