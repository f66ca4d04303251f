//! Base backups of real servers: what is in them, what is not, and what becomes of one that is stopped.

use super::server::{Server, USER, tool};
use super::support::program::Program;
use super::support::server::{as_user, check};
use chronolith::ops::Snapshots;
use chronolith::postgres::base::{BackupLabel, BaseFacts, KIND, LogPlace, bases_of};
use chronolith::postgres::lineage::ClusterName;
use chronolith::postgres::{ControlFile, SegmentName};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;

/// The arguments of a base backup of a server's cluster, with more.
pub fn arguments(server: &Server, more: &[&str]) -> Vec<String> {
    let data = server.data().display().to_string();
    let mut arguments: Vec<String> =
        ["pg", "backup", "--cluster", "main", "--user", "tester", "--pgdata", &data]
            .map(str::to_owned)
            .into();
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    arguments
}

/// Takes a base backup; returns what the program said.
pub fn back_up(program: &Program, server: &Server, more: &[&str]) -> Output {
    let arguments = arguments(server, more);
    program.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Fails unless the program ended with this code.
pub fn expect(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

/// The facts of all base backups, oldest first.
fn facts(program: &Program) -> Vec<BaseFacts> {
    let snapshots = Snapshots::load(&program.client().open()).unwrap();
    bases_of(&snapshots, &ClusterName::new("main").unwrap()).into_iter().map(|base| base.facts).collect()
}

/// All paths in the newest snapshot.
fn paths(program: &Program) -> BTreeSet<String> {
    let listed = check("ls", program.command(&["ls", "--recursive", "latest"]).output());
    String::from_utf8(listed).unwrap().lines().map(str::to_owned).collect()
}

fn cat(program: &Program, path: &str) -> Vec<u8> {
    check("cat", program.command(&["cat", &format!("latest:{path}")]).output())
}

/// Makes the folder of a tablespace.
pub fn tablespace(server: &Server, name: &str) -> PathBuf {
    let folder = server.sockets().join(name);
    check("mkdir", as_user(USER, Path::new("/bin/mkdir")).arg(&folder).output());
    folder
}

/// The path of a table's file below the data directory.
fn file_of(server: &Server, database: &str, table: &str) -> String {
    server.sql(database, &format!("SELECT pg_relation_filepath('{table}')")).trim().to_owned()
}

#[test]
fn a_base_backup_holds_what_it_must_and_no_more() {
    let server = Server::start_with(&["--data-checksums"], &["max_prepared_transactions=2"]);
    let fast = tablespace(&server, "fast disk");
    server.sql("postgres", "CREATE DATABASE app");
    server.sql("postgres", &format!("CREATE TABLESPACE fast LOCATION '{}'", fast.display()));
    server.sql(
        "app",
        "CREATE TABLE logged AS SELECT n, md5(n::text) AS t FROM generate_series(1, 20000) n;
         CREATE UNLOGGED TABLE unlogged AS SELECT * FROM logged;
         CREATE TABLE moved TABLESPACE fast AS SELECT * FROM logged;",
    );
    let (logged, unlogged) = (file_of(&server, "app", "logged"), file_of(&server, "app", "unlogged"));
    let moved = file_of(&server, "app", "moved");
    // What lies about in a data directory.
    let data = server.data();
    for name in ["base/pgsql_tmp", "base/1/pgsql_tmp_x"] {
        fs::create_dir(data.join(name)).unwrap();
        fs::write(data.join(name).join("pgsql_tmp7.0"), b"sorted").unwrap();
    }
    for name in
        ["backup_label.old", "base/1/t3_16400", "standby.signal.txt", "pg_stat_tmp/x", "backup_manifest"]
    {
        fs::write(data.join(name), b"x").unwrap();
    }
    fs::write(data.join("postgresql.auto.conf"), b"work_mem = '5MB'\n").unwrap();
    std::os::unix::fs::symlink("/nowhere", data.join("elsewhere")).unwrap();
    // PostgreSQL itself must be able to remove what was put there as root.
    check("chown", std::process::Command::new("chown").args(["-R", USER]).arg(&data).output());

    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let said = expect(&back_up(&program, &server, &[]), 0);
    assert!(said.contains("page checksums hold"), "{said}");
    assert!(said.contains("elsewhere is a link to /nowhere"), "B7: {said}");

    let found = paths(&program);
    let has = |path: &str| found.contains(path);
    // B6: folders stay, their content goes.
    for folder in [
        "pg_wal",
        "pg_replslot",
        "pg_dynshmem",
        "pg_notify",
        "pg_serial",
        "pg_snapshots",
        "pg_stat_tmp",
        "pg_subtrans",
    ] {
        assert!(has(&format!("data/{folder}/")), "{folder}");
        let inside = found.iter().filter(|path| path.starts_with(&format!("data/{folder}/"))).count();
        assert_eq!(inside, 1, "{folder} is not empty");
    }
    for path in [
        "postmaster.pid",
        "postmaster.opts",
        "backup_label.old",
        "backup_manifest",
        "global/pg_control",
        "global/pg_internal.init",
        "base/1/t3_16400",
        "base/pgsql_tmp/",
        "base/1/pgsql_tmp_x/",
    ] {
        assert!(!has(&format!("data/{path}")), "{path}");
    }
    assert!(has("data/PG_VERSION") && has("data/postgresql.auto.conf") && has("data/standby.signal.txt"));
    assert!(has(&format!("data/{logged}")) && has(&format!("data/{unlogged}_init")));
    assert!(!has(&format!("data/{unlogged}")), "B6: the rows of an unlogged table");
    assert!(!found.iter().any(|path| path.contains("pg_internal.init")));
    // B7: tablespaces are taken, the link to them is not: a restore decides where they go.
    let moved = moved.strip_prefix("pg_tblspc/").unwrap();
    assert!(has(&format!("tablespaces/{moved}")), "{moved}");
    assert!(!found.iter().any(|path| path.starts_with("data/pg_tblspc/") && path != "data/pg_tblspc/"));

    // B2, B3: what the server said, byte for byte.
    let label = cat(&program, "vital/backup_label");
    let map = cat(&program, "vital/tablespace_map");
    let facts = facts(&program).pop().unwrap();
    assert_eq!(BackupLabel::parse(&label).unwrap().start, facts.start);
    assert!(String::from_utf8(label).unwrap().ends_with("START TIMELINE: 1\n"));
    let oid = server.sql("app", "SELECT oid FROM pg_tablespace WHERE spcname = 'fast'");
    assert_eq!(String::from_utf8(map).unwrap(), format!("{} {}\n", oid.trim(), fast.display()));
    // B4, B15: the control file is whole and says what recovery needs.
    let control = ControlFile::parse(&cat(&program, "vital/pg_control")).unwrap();
    assert_eq!(control.settings, facts.settings);
    assert_eq!(facts.settings.max_prepared_transactions, 2);
    assert_eq!(
        control.system_identifier.to_string(),
        server.sql("app", "SELECT system_identifier FROM pg_control_system()").trim()
    );
    // B11: all of the log that it needs is in it, whole.
    assert_eq!(facts.log, LogPlace::Inside);
    let needed = facts.needed_segments();
    assert!(!needed.is_empty());
    for segment in needed.iter().map(SegmentName::to_string) {
        assert_eq!(cat(&program, &format!("wal/{segment}")).len() as u64, facts.segment_size.bytes());
    }
    assert_eq!(facts.tablespaces.values().collect::<Vec<_>>(), [&fast.display().to_string()]);
    assert!(facts.databases["app"] > 3_000_000 && facts.databases.contains_key("template1"));
    assert_eq!(server.sql("app", "SELECT count(*) FROM pg_replication_slots").trim(), "0");

    // The next one reads little and stores little, and goes by the cluster.
    let stored = |program: &Program| program.client().snapshots().len();
    server.sql("app", "UPDATE logged SET t = 'x' WHERE n % 1000 = 0; CHECKPOINT");
    let output = back_up(&program, &server, &["--json"]);
    expect(&output, 0);
    let summary: serde_json::Value =
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap().parse().unwrap();
    let figure = |name: &str| summary["summary"][name].as_u64().unwrap();
    assert_eq!(
        (summary["schema"].as_str(), summary["event"].as_str()),
        (Some("chronolith.pg-backup/1"), Some("summary"))
    );
    assert!(summary["parent"].is_string());
    assert!(figure("stored_bytes") < 1 << 20, "{summary}");
    assert_eq!(stored(&program), 2);
    let view = check("snapshots", program.command(&["snapshots", "--json"]).output());
    assert!(String::from_utf8(view).unwrap().contains(&format!("\"kind\":\"{KIND}\"")));
}

/// B10: pages that do not hold are listed, the backup goes on, and an unchanged file keeps its list.
#[test]
fn bad_pages_are_listed_and_remembered() {
    let mut server = Server::start_with(&["--data-checksums"], &[]);
    server.sql("postgres", "CREATE TABLE t AS SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n");
    server.sql("postgres", "CREATE TABLE zeros AS SELECT n FROM generate_series(1, 2000) n; CHECKPOINT");
    let (path, zeros) = (file_of(&server, "postgres", "t"), file_of(&server, "postgres", "zeros"));
    server.stop("fast");
    let damage = |path: &str, at: u64, bytes: &[u8]| {
        let file = fs::File::options().write(true).open(server.data().join(path)).unwrap();
        file.write_all_at(bytes, at).unwrap();
    };
    for block in [3, 4, 9] {
        damage(&path, block * 8192 + 5000, b"damage");
    }
    damage(&zeros, 8192, &[0; 8192]);
    // The files are older than the first backup's read by as much as is asked for.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    fs::File::open(server.data().join(&path)).unwrap().set_modified(old).unwrap();
    server.launch();
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let said = expect(&back_up(&program, &server, &[]), 3);
    assert!(said.contains(&format!("data/{path}: the checksums of blocks 3-4,9 do not hold")), "{said}");
    assert!(!said.contains(&zeros), "a page of zeros is no bad page: {said}");
    let first = facts(&program).pop().unwrap();
    assert_eq!(first.bad_page_count(), 3);
    // Read again or not, they are listed again.
    let said = expect(&back_up(&program, &server, &[]), 3);
    assert!(said.contains("3-4,9"), "{said}");
    assert_eq!(facts(&program).pop().unwrap().bad_pages, first.bad_pages);
    // Made good, they are gone from the list.
    server.sql("postgres", "TRUNCATE t; CHECKPOINT");
    expect(&back_up(&program, &server, &[]), 0);
}

/// B1: the server's backup ends with the session, whenever that ends; nothing is committed, and the next
/// backup succeeds.
#[test]
fn a_backup_that_is_killed_leaves_the_server_as_it_was() {
    let server = Server::start_with(&[], &[]);
    server.sql("postgres", "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 300000) n");
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let last_query = "SELECT query FROM pg_stat_activity WHERE application_name = 'chronolith'";
    // What the session asked last tells how far the backup has come.
    for stage in
        ["SET", "replication_slot", "pg_backup_start", "clock_timestamp", "pg_tablespace", "pg_database"]
    {
        let arguments = arguments(&server, &["--full"]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut child = program.command(&arguments).spawn().unwrap();
        let mut reached = false;
        while child.try_wait().unwrap().is_none() {
            let query = server.sql("postgres", last_query);
            if query.contains(stage) || (reached && query.trim().is_empty()) {
                reached = true;
                child.kill().unwrap();
                child.wait().unwrap();
                break;
            }
        }
        // A stage may be over before it is seen; the backup is whole then.
        let whole = child.wait().unwrap().success();
        let before = program.client().snapshots().len();
        assert!(whole || reached, "{stage}: the backup failed by itself");
        // The server notices the end of the session by itself.
        while server.sql("postgres", "SELECT count(*) FROM pg_replication_slots").trim() != "0"
            || !server.sql("postgres", last_query).trim().is_empty()
        {}
        assert!(!server.data().join("backup_label").exists());
        expect(&back_up(&program, &server, &[]), 0);
        assert_eq!(program.client().snapshots().len(), before + 1, "{stage}");
    }
    // The server's own end is an error like any other.
    let mut server = server;
    let before = program.client().snapshots().len();
    let arguments = arguments(&server, &["--full"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let child = program.command(&arguments).spawn().unwrap();
    while !server.sql("postgres", last_query).contains("pg_") {}
    server.stop("immediate");
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        assert_eq!(program.client().snapshots().len(), before);
        expect(&output, 1);
    }
    server.launch();
    assert_eq!(server.sql("postgres", "SELECT count(*) FROM t").trim(), "300000");
}

#[test]
fn what_cannot_be_backed_up_is_refused() {
    let server = Server::start_with(&[], &["wal_level=minimal", "max_wal_senders=0"]);
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let said = expect(&back_up(&program, &server, &[]), 2);
    assert!(said.contains("wal_level = minimal") && said.contains("ALTER SYSTEM"), "B17: {said}");
    // A data directory of another cluster.
    let other = Server::start();
    let data = server.data().display().to_string();
    let host = other.sockets().display().to_string();
    let run = |more: &[&str]| {
        let mut arguments = vec!["pg", "backup", "--cluster", "main"];
        arguments.extend(more);
        program.run(&arguments)
    };
    let said = expect(&run(&["--user", "tester", "--host", &host, "--pgdata", &data]), 2);
    assert!(said.contains("belongs to another cluster"), "{said}");
    // Nobody there; nobody of that name. Passwords are in no message.
    let said = expect(&run(&["--connect", "host=/nowhere password=geheim"]), 1);
    assert!(said.contains("/nowhere/.s.PGSQL.5432") && !said.contains("geheim"), "{said}");
    let said = expect(&run(&["--user", "nobody_there", "--host", &host]), 1);
    assert!(said.contains("nobody_there") && said.contains("does not exist"), "{said}");
    let said = expect(&run(&["--host", "localhost", "--connect", "sslmode=required"]), 2);
    assert!(said.contains("sslmode=required is not known") && said.contains("verify-full"), "{said}");
    assert!(program.client().snapshots().is_empty());
    let _ = tool("pg_ctl");
}

/// A12: a name is that of one system, also where all that there is of it are base backups that hold their log: no
/// other server's base backup comes under it, by whatever way, nor any log; and a failed attempt takes no name.
#[test]
fn another_servers_base_backup_is_refused_under_a_name_that_is_taken() {
    let (own, other) = (Server::start(), Server::start());
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let sockets = other.sockets();
    let remote = ["pg", "backup", "--cluster", "main", "--user", "tester", "--remote", "--host"];
    let remote = [&remote[..], &[sockets.to_str().unwrap()]].concat();
    let elsewhere = tablespace(&other, "gone");
    other.sql("postgres", &format!("CREATE TABLESPACE gone LOCATION '{}'", elsewhere.display()));
    fs::rename(&elsewhere, elsewhere.with_file_name("away")).unwrap();
    assert_ne!(back_up(&program, &other, &["--wal", "stream"]).status.code(), Some(0));
    fs::rename(elsewhere.with_file_name("away"), &elsewhere).unwrap();

    expect(&back_up(&program, &own, &["--wal", "stream"]), 0);
    for log in ["stream", "archive"] {
        for said in [
            expect(&back_up(&program, &other, &["--wal", log, "--archive-timeout", "0"]), 2),
            expect(&program.run(&[&remote[..], &["--wal", log, "--archive-timeout", "0"]].concat()), 2),
        ] {
            assert!(said.contains("of another cluster") && said.contains("--cluster"), "{said}");
        }
    }
    let segment = fs::read_dir(other.data().join("pg_wal")).unwrap().flatten().map(|entry| entry.path());
    let segment = segment.into_iter().find(|path| path.to_str().unwrap().ends_with("000001")).unwrap();
    let push = ["pg", "archive-push", "--cluster", "main", segment.to_str().unwrap()];
    let said = expect(&program.run(&push), 1);
    assert!(said.contains("of another cluster"), "{said}");
    expect(&back_up(&program, &own, &["--wal", "stream"]), 0);
    assert_eq!(facts(&program).len(), 2);
    // Under a name of its own it is welcome.
    let mut named = arguments(&other, &["--wal", "stream"]);
    named[3] = "other".to_owned();
    expect(&program.run(&named.iter().map(String::as_str).collect::<Vec<_>>()), 0);
    // As what an upgrade made, it goes on under the old one, though nothing was ever archived.
    let data = other.data();
    let upgrade = ["pg", "upgrade-cluster", "--cluster", "main", "--confirm", "main", "--pgdata"];
    expect(&program.run(&[&upgrade[..], &[data.to_str().unwrap()]].concat()), 0);
    expect(&back_up(&program, &other, &["--wal", "stream"]), 0);
    assert_eq!(facts(&program).len(), 3);
}

/// What the server says is told in one line, and what to try fits it: whoever was answered has reached the server.
#[test]
fn what_a_server_refuses_is_told_with_what_helps() {
    let server = Server::start();
    server.sql("postgres", "CREATE ROLE weak LOGIN; GRANT pg_monitor TO weak");
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    let (sockets, data) = (server.sockets(), server.data());
    let host = ["pg", "backup", "--cluster", "main", "--host", sockets.to_str().unwrap()];
    let run = |more: &[&str]| program.run(&[&host[..], more].concat());
    for (more, word, cure) in [
        (&["--user", "weak", "--pgdata", data.to_str().unwrap()][..], "permission denied", "GRANT"),
        (&["--user", "weak", "--remote"][..], "replication", "ALTER ROLE ... REPLICATION"),
        (&["--user", "tester", "--dbname", "nowhere"][..], "\"nowhere\" does not exist", "--dbname"),
        (&["--user", "nobody"][..], "\"nobody\" does not exist", "pg_hba.conf"),
        (&["--user", "tester", "--port", "1"][..], "connect", "where it listens"),
    ] {
        let output = run(more);
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(word) && said.contains(cure), "{said}");
        assert!(!said.contains("\\n"), "{said}");
        assert_eq!(said.contains("where it listens"), cure == "where it listens", "{said}");
    }
}
