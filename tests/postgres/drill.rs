//! Drills against real servers: what holds, what does not, and that nothing is left or reached.

use super::archive::{Archive, archive_all};
use super::base::{arguments, expect, tablespace};
use super::server::{Server, USER, tool};
use super::support::server::{as_user, check};
use chronolith::format::annotation::{AnnotationKind, Outcome};
use chronolith::ops::Snapshots;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A cluster with everything in it that must not run in a copy, and its archive.
struct Scene {
    archive: Archive,
    server: Server,
    /// Where drills happen.
    room: PathBuf,
}

impl Scene {
    fn new(settings: &[&str]) -> Self {
        let archive = Archive::new();
        let push = format!("archive_command={}", archive.command_line("archive-push --cluster main %p"));
        let mut all = vec!["archive_mode=on", &push, "track_commit_timestamp=on"];
        all.extend(settings);
        let server = Server::start_with(&["--data-checksums"], &all);
        let room = tablespace(&server, "room");
        Self { archive, server, room }
    }

    fn back_up(&self, more: &[&str]) {
        let mut arguments = arguments(&self.server, more);
        arguments.extend(["--archive-timeout", "120"].map(str::to_owned));
        let arguments: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
        expect(&self.archive.command(&arguments).output().unwrap(), 0);
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut arguments = vec!["drill", "--cluster", "main", "--folder", self.room.to_str().unwrap()];
        arguments.extend(more);
        self.archive.command(&arguments)
    }

    fn drill(&self, more: &[&str]) -> Output {
        self.command(more).output().unwrap()
    }

    /// The summary of a drill that ends with this code, after which nothing is left.
    fn summary(&self, more: &[&str], code: i32) -> Value {
        let mut arguments = vec!["--json"];
        arguments.extend(more);
        let output = self.drill(&arguments);
        expect(&output, code);
        self.is_clean();
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap().parse().unwrap()
    }

    fn left(&self) -> usize {
        fs::read_dir(&self.room).unwrap().count()
    }

    /// Nothing is left: neither folder nor server.
    fn is_clean(&self) {
        assert_eq!(self.left(), 0, "something is left in {}", self.room.display());
        // A command of the server that has ended may be a moment behind it.
        let started = Instant::now();
        while !servers_below(&self.room).is_empty() {
            assert!(started.elapsed() < Duration::from_secs(60), "{:?} run on", servers_below(&self.room));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn servers_below(folder: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let places = processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok());
    places.filter(|place| place.starts_with(folder)).collect()
}

/// The drill itself, its assertions and figures, and what is noted of it. The copied configuration would start
/// things, listen, archive and load; the throw-away server does none of that. B16, B15.
#[test]
fn a_drill_proves_what_holds_and_tells_what_does_not() {
    let scene = Scene::new(&[]);
    let server = &scene.server;
    let touched = scene.room.with_file_name("touched");
    for (name, value) in [
        ("listen_addresses", "*".to_owned()),
        ("shared_preload_libraries", "no_such_library".to_owned()),
        ("archive_cleanup_command", format!("touch {}", touched.display())),
        ("recovery_end_command", format!("touch {}", touched.display())),
        ("primary_conninfo", "host=/nowhere".to_owned()),
    ] {
        server.sql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'"));
    }
    fs::write(server.data().join("postgresql.conf"), "no such setting at all\n").unwrap();
    fs::write(server.data().join("pg_hba.conf"), "local all all reject\n").unwrap();
    std::os::unix::fs::symlink(&touched, server.data().join("restore.log")).unwrap();
    server.sql(
        "postgres",
        "CREATE DATABASE app; CREATE TABLE oracle (n bigint PRIMARY KEY); INSERT INTO oracle VALUES (1), (2)",
    );
    server.sql(
        "app",
        "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n; CREATE INDEX ON t (n);
         CREATE FUNCTION pry() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'pried'; END $$;
         CREATE EVENT TRIGGER pry ON ddl_command_end EXECUTE FUNCTION pry()",
    );
    scene.back_up(&[]);
    server.sql("postgres", "INSERT INTO oracle VALUES (3)");
    archive_all(server);
    server.sql("postgres", "INSERT INTO oracle VALUES (4)");
    archive_all(server);

    let room_before = scene.left();
    let summary = scene.summary(
        &[
            "--amcheck",
            "--assert",
            "SELECT count(*) = 4 FROM oracle",
            "--assert",
            "SELECT n FROM oracle WHERE n > 4",
        ],
        0,
    );
    assert_eq!(room_before, 0);
    assert_eq!(
        (&summary["passed"], &summary["amcheck"], &summary["assertions"]),
        (&true.into(), &true.into(), &2.into())
    );
    assert!(
        summary["rto_seconds"].as_f64().unwrap() > 0.0 && summary["rpo_seconds"].as_f64().unwrap() >= 0.0
    );
    let databases = summary["databases"].as_object().unwrap();
    assert!(databases["app"]["recorded_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(
        databases["app"]["found_bytes"].as_u64().unwrap() > 1 << 20
            && databases["app"]["relations"].as_u64().unwrap() > 100
    );
    // What the server said of its last commit is what came back; a worker of its own may have added one.
    let last = "SELECT to_char(pg_xact_commit_timestamp(xmin) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
        FROM oracle WHERE n = 4";
    let last: jiff::Timestamp = server.sql("postgres", last).trim().parse().unwrap();
    let reached: jiff::Timestamp = summary["recovered_to"].as_str().unwrap().parse().unwrap();
    assert!(reached >= last && reached.duration_since(last).as_secs() < 120, "{summary} {last}");
    assert!(!touched.exists(), "a command of the original ran, or its log was written through a link");

    // A target in the past, and the throw-away server from within.
    let contained = "SELECT count(*) = 3 FROM oracle; SELECT current_setting('listen_addresses') = ''; \
        SELECT current_setting('shared_preload_libraries') = ''; SELECT current_setting('archive_mode') = 'off'; \
        SELECT current_setting('max_worker_processes') = '0'; SELECT current_setting('primary_conninfo') = ''; \
        SELECT setting LIKE '%chronolith-drill-%' FROM pg_settings WHERE name = 'unix_socket_directories'; \
        SELECT name, setting FROM pg_settings WHERE sourcefile LIKE '%postgresql.conf'";
    let file = scene.room.with_file_name("assertions.sql");
    fs::write(&file, contained).unwrap();
    let time = server.sql("postgres", "SELECT pg_xact_commit_timestamp(xmin) FROM oracle WHERE n = 3");
    let more = ["--target-time", time.trim(), "--sql", file.to_str().unwrap()];
    let summary = scene.summary(&more, 0);
    assert_eq!(summary["passed"], true, "{summary}");
    // A second drawn at random lies where it can be recovered.
    server.sql("postgres", "SELECT pg_sleep(1.1); INSERT INTO oracle VALUES (5)");
    archive_all(server);
    let summary =
        scene.summary(&["--target", "random", "--assert", "SELECT count(*) BETWEEN 2 AND 4 FROM oracle"], 0);
    assert!(summary["drawn"]["of_seconds"].as_u64().unwrap() >= 1, "{summary}");

    // What does not hold: false, null, rows that are no truth, an error, another database.
    let wrong =
        ["SELECT false", "SELECT NULL::boolean", "SELECT n FROM oracle", "SELECT 1/0", "SELECT true, true"];
    let mut more = vec!["--target", "immediate"];
    wrong.iter().for_each(|sql| more.extend(["--assert", sql]));
    let summary = scene.summary(&more, 3);
    let problems = summary["problems"].as_array().unwrap();
    assert_eq!(problems.len(), wrong.len(), "{summary}");
    assert!(problems[3].as_str().unwrap().contains("division by zero"), "{summary}");
    // Settings that would let it out are refused before anything is made.
    for set in ["listen_addresses=*", "archive_mode=on", "max_worker_processes=8"] {
        expect(&scene.drill(&["--set", set]), 2);
    }
    scene.is_clean();
    // A server that does not start: what it said is in the error, since its log is thrown away.
    let broken =
        ["--target", "immediate", "--set", "shared_preload_libraries=no_such_library", "--no-ledger"];
    let said = expect(&scene.drill(&broken), 1);
    assert!(said.contains("could not access file \"no_such_library\""), "{said}");
    assert!(!said.contains(scene.room.to_str().unwrap()) && said.contains("--keep"), "{said}");
    scene.is_clean();
    let said = expect(&scene.drill(&[&broken[..], &["--keep"]].concat()), 1);
    let [kept] = &fs::read_dir(&scene.room).unwrap().flatten().map(|e| e.path()).collect::<Vec<_>>()[..]
    else {
        panic!("nothing is kept: {said}")
    };
    assert!(said.contains(kept.to_str().unwrap()), "{said}");
    assert!(fs::read_to_string(kept.join("data.restore.log")).unwrap().contains("no_such_library"));
    expect(&scene.archive.command(&["drill", "--throw-away", kept.to_str().unwrap()]).output().unwrap(), 0);
    scene.is_clean();

    // All of it is noted.
    let repository = scene.archive.open();
    let snapshots = Snapshots::load(&repository).unwrap();
    let view = snapshots.iter().next().unwrap();
    let noted = view.said.iter().filter(|said| said.kind == AnnotationKind::Verified);
    let mut outcomes: Vec<_> = noted.clone().map(|said| said.outcome.unwrap() as u64).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, [0, 0, 0, Outcome::Failed as u64]);
    assert!(noted.clone().all(|said| said.method.as_deref() == Some("drill")));
}

/// Damage that a restore does not see by itself shows in a drill: here that of the server's own files, which were
/// backed up as they were.
#[test]
fn a_damaged_index_is_found() {
    let mut scene = Scene::new(&[]);
    scene.server.sql(
        "postgres",
        "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n; CREATE INDEX i ON t (n); CHECKPOINT",
    );
    let path = scene.server.sql("postgres", "SELECT pg_relation_filepath('i')");
    scene.server.stop("fast");
    fs::File::options().write(true).open(scene.server.data().join(path.trim())).unwrap().set_len(0).unwrap();
    scene.server.launch();
    scene.back_up(&[]);
    let summary = scene.summary(&["--target", "immediate"], 3);
    assert_eq!(summary["problems"], serde_json::json!(["database postgres: public.i has no page"]));
    let summary = scene.summary(&["--target", "immediate", "--amcheck"], 3);
    assert!(summary["problems"].to_string().contains("amcheck: "), "{summary}");
}

/// B8: log that creates a tablespace is refused, whether it is archived or came with the backup; tablespaces
/// of the backup go below the folder, and the server's own are not touched.
#[test]
fn no_tablespace_of_another_server_is_reached() {
    let scene = Scene::new(&[]);
    let server = &scene.server;
    let (early, late) = (tablespace(server, "early"), tablespace(server, "late"));
    server.sql("postgres", &format!("CREATE TABLESPACE early LOCATION '{}'", early.display()));
    server.sql("postgres", "CREATE TABLE kept TABLESPACE early AS SELECT 1 AS n");
    scene.back_up(&[]);
    server.sql("postgres", "UPDATE kept SET n = 2; SELECT pg_sleep(2.2)");
    server.sql("postgres", "CREATE TABLE later ()");
    let listing = |place: &Path| {
        Command::new("find").arg(place).args(["-printf", "%p %s %T@\n"]).output().unwrap().stdout
    };
    archive_all(server);
    server.sql("postgres", "CHECKPOINT");
    let before = listing(&early);
    scene.summary(&["--assert", "SELECT n = 2 FROM kept"], 0);
    assert_eq!(listing(&early), before);
    server.sql("postgres", &format!("CREATE TABLESPACE late LOCATION '{}'", late.display()));
    archive_all(server);
    let said = expect(&scene.drill(&[]), 2);
    assert!(said.contains("creates tablespace") && said.contains("must not reach"), "{said}");
    // A drill by chance does not meet it, however long the log goes on behind.
    server.sql("postgres", "SELECT pg_sleep(8); CREATE TABLE much_later ()");
    archive_all(server);
    scene.summary(&["--target", "random"], 0);
    // In the log that the snapshot brings along: the tablespace is made while the backup runs.
    scene.summary(&["--target", "immediate", "--assert", "SELECT n = 1 FROM kept"], 0);
    scene.is_clean();
}

/// ^C, SIGTERM and even SIGKILL leave neither folder nor server; `--keep` leaves both until they are thrown away.
#[test]
fn whatever_ends_a_drill_nothing_is_left() {
    let scene = Scene::new(&[]);
    scene.server.sql("postgres", "CREATE TABLE t AS SELECT n FROM generate_series(1, 100000) n");
    scene.back_up(&[]);
    for (signal, stage) in
        [("INT", "base"), ("KILL", "base"), ("TERM", "postmaster.pid"), ("KILL", "postmaster.pid")]
    {
        let mut command = scene.command(&["--assert", "SELECT pg_sleep(600)"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        let reached = || {
            let folders = fs::read_dir(&scene.room).unwrap().flatten();
            folders.map(|folder| folder.path().join("data").join(stage)).any(|path| path.exists())
        };
        while !reached() {
            assert!(started.elapsed() < Duration::from_secs(60), "{stage} is not reached");
            assert!(child.try_wait().unwrap().is_none(), "{stage}: it ended by itself");
            std::thread::sleep(Duration::from_millis(2));
        }
        // `runuser` passes on what it is told, but not what it is killed by: so the program itself is told.
        let folder = scene.room.to_str().unwrap();
        let processes = fs::read_dir("/proc").unwrap().flatten().filter(|process| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.first().is_some_and(|word| word.ends_with(b"chronolith"))
                && words.contains(&folder.as_bytes())
        });
        for process in processes {
            let number = process.file_name().into_string().unwrap();
            check("kill", Command::new("kill").args([&format!("-{signal}"), &number]).output());
        }
        let _ = child.wait().unwrap();
        let ended = Instant::now();
        while scene.left() > 0 {
            assert!(ended.elapsed() < Duration::from_secs(60), "{signal} at {stage}: the folder stays");
            std::thread::sleep(Duration::from_millis(20));
        }
        scene.is_clean();
    }
    let output = scene.drill(&["--keep", "--json", "--no-ledger"]);
    expect(&output, 0);
    let summary: Value = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().parse().unwrap();
    let kept = PathBuf::from(summary["kept"].as_str().unwrap());
    assert!(!servers_below(&kept).is_empty());
    let psql = tool("psql").display().to_string();
    let ask = format!("{psql} -h {}/socket -U tester -Atc 'SELECT count(*) FROM t' postgres", kept.display());
    let answer = as_user(USER, Path::new("/bin/sh")).args(["-c", &ask]).output();
    assert_eq!(String::from_utf8(check("psql", answer)).unwrap().trim(), "100000");
    expect(&scene.archive.command(&["drill", "--throw-away", kept.to_str().unwrap()]).output().unwrap(), 0);
    scene.is_clean();
    let said = expect(&scene.archive.command(&["drill", "--throw-away", "/var/tmp"]).output().unwrap(), 2);
    assert!(said.contains("is no folder of a drill"), "{said}");
}
