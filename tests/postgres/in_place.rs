//! Restores over a cluster that stands there: nothing of it is lost, and nobody does it by mistake.

use super::archive::{Archive, archive_all};
use super::base::{arguments, back_up, expect};
use super::forks::Pair;
use super::restore::{recovered, target};
use super::server::{Server, USER};
use super::support::program::Program;
use super::support::server::{as_user, feed};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_chronolith");

fn last_event(output: &Output) -> serde_json::Value {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap().parse().unwrap()
}

/// R, A15: a server that crashed while its archive was out of reach has log that nobody else has. It is
/// archived before the cluster is touched, the segment in use as a partial one; a key that cannot do that
/// changes nothing.
#[test]
fn log_that_only_the_cluster_has_is_archived_before_it_is_restored_over() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let mut server = Server::start_with(&[], &["archive_mode=on", &push]);
    server.sql("postgres", "CREATE TABLE t AS SELECT 1 AS n");
    let run = |mut arguments: Vec<String>| {
        arguments.remove(0);
        archive.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap()
    };
    expect(&run(arguments(&server, &["--archive-timeout", "120"])), 0);
    server.sql("postgres", "INSERT INTO t VALUES (2)");
    archive_all(&server);
    server.stop("fast");
    server.set(&["archive_mode=on".to_owned(), "archive_command=false".to_owned()]);
    server.launch();
    server.sql("postgres", "INSERT INTO t VALUES (4)");
    let whole = server.sql("postgres", "SELECT pg_walfile_name(pg_switch_wal())").trim().to_owned();
    server.sql("postgres", "INSERT INTO t VALUES (8)");
    let open =
        server.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_insert_lsn())").trim().to_owned();
    server.stop("immediate");

    let data = server.data();
    let control = fs::read(data.join("global/pg_control")).unwrap();
    let restore = |more: &[&str]| {
        let mut arguments = vec!["pg", "restore", "--cluster", "main", "--pgdata", data.to_str().unwrap()];
        arguments.push("--delta");
        arguments.extend(more);
        run(arguments.into_iter().map(str::to_owned).collect())
    };
    let untouched = || {
        assert!(data.join("pg_wal").join(&open).exists() && !data.join("backup_label").exists());
        assert_eq!(fs::read(data.join("global/pg_control")).unwrap(), control);
    };
    // Nobody is there to type the name; another name is typed.
    assert!(expect(&restore(&[]), 2).contains("nobody is there to type its name"));
    assert!(expect(&restore(&["--confirm", "mainz"]), 2).contains("is not the name of the cluster"));
    let output = restore(&["--dry-run", "--json"]);
    expect(&output, 0);
    let expected = serde_json::json!([whole, format!("{open}.partial")]);
    assert_eq!(last_event(&output)["unarchived"], expected);
    assert!(last_event(&output)["log_archived"].as_array().unwrap().is_empty());
    untouched();
    // A key that reads and cannot archive.
    let reader = archive.repository().with_file_name("reader");
    let add = ["key", "add", "--role", "reader", "--name", "r", "--new-key-file", reader.to_str().unwrap()];
    expect(&archive.engine(&add).output().unwrap(), 0);
    let with_reader = |more: &[&str]| {
        let mut command = as_user(USER, Path::new(BINARY));
        command.arg("-r").arg(archive.repository()).arg("--key-file").arg(&reader).arg("--no-cache");
        command.args(["pg", "restore", "--cluster", "main", "--delta", "--pgdata"]).arg(&data).args(more);
        command.output().unwrap()
    };
    let said = expect(&with_reader(&["--confirm", "main"]), 1);
    assert!(said.contains(&format!("{whole} of the log")) && said.contains("nothing was changed"), "{said}");
    untouched();

    let output = restore(&["--confirm", "main", "--json"]);
    expect(&output, 0);
    let summary = last_event(&output);
    assert_eq!(summary["log_archived"], expected);
    let aside = PathBuf::from(summary["kept_aside"].as_str().unwrap());
    assert_eq!(fs::read(aside.join("pg_control")).unwrap(), control);
    // Each byte that is in the archive is that of the cluster.
    for (name, file) in [(&whole, &whole), (&format!("{open}.partial"), &open)] {
        let fetched = archive.repository().with_file_name("fetched");
        assert_eq!(archive.get(name, &fetched).status.code(), Some(0), "{name}");
        assert!(fs::read(&fetched).unwrap() == fs::read(aside.join("pg_wal").join(file)).unwrap(), "{name}");
        fs::remove_file(&fetched).unwrap();
    }
    // The end of the log is now where the cluster itself had switched.
    server.set(&[]);
    server.launch();
    while server.sql("postgres", "SELECT pg_is_in_recovery()").trim() != "f" {}
    assert_eq!(server.sql("postgres", "SELECT sum(n) FROM t").trim(), "7");

    // Shut down in good order after that there is nothing that only it has.
    server.stop("fast");
    let output = restore(&["--dry-run", "--json", "--target-timeline", "1"]);
    expect(&output, 0);
    let left = last_event(&output)["unarchived"].as_array().unwrap().clone();
    assert!(left.iter().all(|name| name.as_str().unwrap().starts_with("00000002")), "{left:?}");
}

/// B21: a server is noticed though its pid file is gone; on a terminal the cluster's name has to be typed.
#[test]
fn a_running_server_and_a_wrong_name_are_refused() {
    let mut server = Server::start();
    server.sql("postgres", "CREATE TABLE t AS SELECT 1 AS n");
    let program = Program::new(BINARY);
    expect(&back_up(&program, &server, &[]), 0);
    let data = server.data();
    let arguments = ["pg", "restore", "--cluster", "main", "--delta", "--pgdata", data.to_str().unwrap()];
    let (pid, hidden) = (data.join("postmaster.pid"), data.with_file_name("hidden"));
    fs::rename(&pid, &hidden).unwrap();
    let mut forced = arguments.to_vec();
    forced.push("--force");
    let said = expect(&program.run(&forced), 2);
    fs::rename(&hidden, &pid).unwrap();
    assert!(said.contains("a server runs on"), "{said}");
    server.sql("postgres", "UPDATE t SET n = 2; CHECKPOINT");
    server.stop("fast");

    let typed = |text: &str| {
        let command = program.command(&arguments);
        let mut line = vec![command.get_program().to_str().unwrap().to_owned()];
        line.extend(command.get_args().map(|word| word.to_str().unwrap().to_owned()));
        let mut script = Command::new("script");
        script.args(["-qec", &format!("{}; echo code $?", line.join(" ")), "/dev/null"]);
        for (name, value) in command.get_envs() {
            script.env(name, value.unwrap_or_default());
        }
        String::from_utf8_lossy(&feed("script", script, text.as_bytes())).into_owned()
    };
    let said = typed("postgres\n");
    assert!(said.contains("type its name to go on (main)") && said.contains("code 2"), "{said}");
    assert!(
        said.contains("\"postgres\" is not the name of the cluster") && !data.join("backup_label").exists()
    );
    let said = typed("main\n");
    assert!(said.contains("code 0") && data.join("backup_label").exists(), "{said}");
    server.launch();
    assert_eq!(server.sql("postgres", "SELECT n FROM t").trim(), "1");
}

/// B16: a restored copy that is refreshed leaves nothing of its own timeline in the archive of its original, however it
/// was stopped: the original is restored as if the copy had never been.
#[test]
fn a_copy_that_is_refreshed_leaves_the_archive_alone() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let server = Server::start_with(&[], &["archive_mode=on", &push]);
    server.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 100) AS n");
    let run = |arguments: &[&str]| archive.command(arguments).output().unwrap();
    let backup = arguments(&server, &["--archive-timeout", "120"]);
    expect(&run(&backup.iter().skip(1).map(String::as_str).collect::<Vec<_>>()), 0);
    let restore = |data: &Path, more: &[&str]| {
        let arguments = ["restore", "--cluster", "main", "--pgdata", data.to_str().unwrap(), "--json"];
        let output = run(&[&arguments[..], more].concat());
        expect(&output, 0);
        last_event(&output)
    };
    let (folder, data) = target();
    restore(&data, &[]);
    let mut copy = recovered(folder);
    copy.sql("postgres", "INSERT INTO t VALUES (-1); SELECT pg_switch_wal(); INSERT INTO t VALUES (-2)");
    copy.stop("immediate");
    server.sql("postgres", "INSERT INTO t SELECT generate_series(101, 400)");
    archive_all(&server);

    let summary = restore(&data, &["--delta", "--confirm", "main"]);
    assert!(summary["log_archived"].as_array().unwrap().is_empty(), "{summary}");
    let left_out = summary["log_left_out"].as_array().unwrap();
    let names: Vec<&str> = left_out.iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert!(left_out.iter().all(|file| file["why"] == "copy"), "{summary}");
    assert!(names.contains(&"00000002.history") && names.len() >= 3, "{summary}");
    let aside = PathBuf::from(summary["kept_aside"].as_str().unwrap());
    for name in names {
        let fetched = archive.repository().with_file_name("fetched");
        assert_eq!(archive.get(name, &fetched).status.code(), Some(1), "{name}");
        assert!(aside.join("pg_wal").join(name.trim_end_matches(".partial")).exists(), "{name}");
    }
    // It is as the original was, and so is another one that is told nothing of an archive.
    copy.launch();
    while copy.sql("postgres", "SELECT pg_is_in_recovery()").trim() != "f" {}
    let rows = "SELECT count(*), min(n) FROM t";
    assert_eq!(copy.sql("postgres", rows).trim(), "400|1");
    let (folder, data) = target();
    assert_eq!(restore(&data, &["--bring-log"])["timeline"], 1);
    assert_eq!(recovered(folder).sql("postgres", rows).trim(), "400|1");
}

/// A2, A15: an old primary that rejoins after a failover has more of its last segment than the standby left in the
/// archive: its bytes are kept aside, and named.
#[test]
fn an_old_primary_rejoins_though_the_archive_has_its_last_segment_shorter() {
    let mut pair = Pair::new();
    pair.primary.sql("postgres", "INSERT INTO t VALUES (101)");
    pair.settle();
    pair.promote();
    pair.primary.sql("postgres", "INSERT INTO t SELECT generate_series(102, 105)");
    let asked = "SELECT pg_walfile_name(pg_current_wal_insert_lsn())";
    let open = pair.primary.sql("postgres", asked).trim().to_owned();
    pair.primary.stop("immediate");
    let data = pair.primary.data();
    let had = fs::read(data.join("pg_wal").join(&open)).unwrap();
    let arguments = ["restore", "--cluster", "main", "--delta", "--confirm", "main", "--standby", "--json"];
    let output = pair.run(&[&arguments[..], &["--pgdata", data.to_str().unwrap()]].concat());
    let said = expect(&output, 0);
    let summary = last_event(&output);
    let conflict = serde_json::json!([{ "name": format!("{open}.partial"), "why": "conflict" }]);
    assert_eq!((&summary["log_left_out"], &summary["log_archived"]), (&conflict, &serde_json::json!([])));
    let warned = String::from_utf8_lossy(&output.stdout).into_owned() + &said;
    assert!(warned.contains("will only be kept aside") && warned.contains(&open), "{warned}");
    let aside = PathBuf::from(summary["kept_aside"].as_str().unwrap());
    assert!(fs::read(aside.join("pg_wal").join(&open)).unwrap() == had);
    // It follows the one that took over.
    pair.primary.launch();
    pair.standby.sql("postgres", "INSERT INTO t VALUES (1000)");
    archive_all(&pair.standby);
    let started = std::time::Instant::now();
    while pair.primary.sql("postgres", "SELECT max(n) FROM t").trim() != "1000" {
        assert!(started.elapsed().as_secs() < 120, "{}", pair.primary.log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Nothing comes into the archive for a restore that would then be refused: once it is there it cannot be taken back, and
/// it changes what every other restore means.
#[test]
fn nothing_is_archived_for_a_restore_that_cannot_be() {
    let archive = Archive::new();
    let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
    let mut server = Server::start_with(&[], &["archive_mode=on", &push]);
    server.sql("postgres", "CREATE TABLE t AS SELECT 1 AS n");
    let backup = arguments(&server, &["--archive-timeout", "120"]);
    let run = |arguments: &[&str]| archive.command(arguments).output().unwrap();
    expect(&run(&backup.iter().skip(1).map(String::as_str).collect::<Vec<_>>()), 0);
    archive_all(&server);
    server.stop("fast");
    server.set(&["archive_mode=on".to_owned(), "archive_command=false".to_owned()]);
    server.launch();
    let filled = || {
        let switch = "INSERT INTO t VALUES (2); SELECT pg_walfile_name(pg_switch_wal())";
        server.sql("postgres", switch).trim().to_owned()
    };
    let (lost, whole) = (filled(), filled());
    server.stop("immediate");
    let data = server.data();
    fs::remove_file(data.join("pg_wal").join(&lost)).unwrap();
    let data = data.to_str().unwrap();
    let arguments = ["restore", "--cluster", "main", "--delta", "--confirm", "main", "--pgdata", data];
    let said = expect(&run(&arguments), 2);
    assert!(said.contains("that only the cluster there has") && said.contains("has a hole"), "{said}");
    let fetched = archive.repository().with_file_name("fetched");
    assert_eq!(archive.get(&whole, &fetched).status.code(), Some(1));
    // Where a hole is meant, it is archived, and all before the hole comes back.
    expect(&run(&[&arguments[..], &["--up-to-gap"]].concat()), 0);
    assert_eq!(archive.get(&whole, &fetched).status.code(), Some(0));
}
