//! `pg timeline` of a live cluster: what it says can be recovered, and what damage does to it.

use super::archive::{Archive, archive_all, bench, code, said, start};
use super::server::{Server, USER, tool};
use super::support::server::{as_user, check, folder};
use chronolith::repo::FoundLog;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Events(Vec<Value>);

impl Events {
    pub fn read(archive: &Archive, arguments: &[&str], expected: i32) -> Self {
        let output = archive.run(arguments);
        assert_eq!(code(&output), expected, "{}", said(&output));
        let lines = String::from_utf8(output.stdout).unwrap();
        Self(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    pub fn timeline(archive: &Archive) -> Self {
        Self::read(archive, &["pg", "timeline", "--cluster", "main", "--json"], 0)
    }

    pub fn of(&self, event: &str) -> Vec<&Value> {
        self.0.iter().filter(|line| line["event"] == event).collect()
    }
}

fn instant(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap_or_else(|| panic!("no time: {value}")).parse().unwrap()
}

fn now(server: &Server) -> jiff::Timestamp {
    let text = server.sql(
        "postgres",
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    );
    text.trim().parse().unwrap()
}

pub fn back_up(archive: &Archive, server: &Server) {
    let (data, host) = (server.data(), server.sockets());
    let output = archive.run(&[
        "pg",
        "backup",
        "--cluster",
        "main",
        "--user",
        "tester",
        "--host",
        host.to_str().unwrap(),
        "--pgdata",
        data.to_str().unwrap(),
    ]);
    assert_eq!(code(&output), 0, "{}", said(&output));
}

/// The last transaction of an interval is the last that the archive holds, to the microsecond; a missing
/// segment cuts it; damage is named with the interval that it hurts.
#[test]
fn intervals_are_what_the_archive_covers() {
    let archive = Archive::new();
    let mut server = start(&archive, "1");
    bench(&server, "30");
    back_up(&archive, &server);
    let after_base = now(&server);
    bench(&server, "60");
    archive_all(&server);
    server.sql("postgres", "CREATE TABLE last_one ()");
    let after_last = now(&server);
    archive_all(&server);
    let events = Events::timeline(&archive);
    let [base] = events.of("base")[..] else { panic!("{:?}", events.0) };
    assert_eq!((base["complete"].as_bool(), base["wal"].as_str()), (Some(true), Some("archive")));
    let [interval] = events.of("interval")[..] else { panic!("{:?}", events.0) };
    assert_eq!(interval["bases"][0], base["snapshot"]);
    assert!(instant(&interval["from"]) <= after_base);
    let to = instant(&interval["to"]);
    assert!(to <= after_last && after_last.duration_since(to).as_secs() < 10, "{to} {after_last}");
    assert_eq!(events.of("gap").len() + events.of("conflict").len() + events.of("problem").len(), 0);
    let summary = events.of("summary")[0];
    assert_eq!((summary["lineages"].as_u64(), summary["cluster"].as_str()), (Some(1), Some("main")));
    let text = archive.run(&["pg", "timeline", "--cluster", "main"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("recoverable on timeline 1: from ") && text.contains("━"), "{text}");
    assert!(text.contains("complete"), "{text}");
    server.stop("fast");

    // A segment in the middle is damaged: check names the interval that it hurts.
    let repository = archive.open();
    let all = repository.all_logs().unwrap().found;
    let mut segments: Vec<_> = all.iter().filter(|found| found.record.name.len() == 24).collect();
    segments.sort_by(|a, b| a.record.name.cmp(&b.record.name));
    let stop: u64 = base["stop_lsn"].as_str().unwrap().parse::<chronolith::postgres::Lsn>().unwrap().0;
    let after = segments.iter().position(|found| found.record.positions.unwrap().0 > stop).unwrap();
    let victim = segments[after + 1];
    let path = archive.repository().join(&victim.object);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, &bytes).unwrap();
    let events = Events::read(&archive, &["check", "--json"], 0);
    assert_eq!(events.of("hurt_interval").len(), 0);
    let events = Events::read(&archive, &["check", "--read-data", "--json"], 3);
    let [hurt] = events.of("hurt_interval")[..] else { panic!("{:?}", events.0) };
    assert_eq!((instant(&hurt["to"]), hurt["cluster"].as_str()), (to, Some("main")));
    assert!(instant(&hurt["left_to"]) < to);
    let summary = events.of("summary")[0];
    assert_eq!(summary["lost_logs"][0]["name"], victim.record.name.as_str());
    let said = archive.run(&["check", "--read-data"]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("hurt: cluster main, timeline 1") && said.contains(&victim.record.name), "{said}");

    // It is gone: a gap, at which what can be recovered ends.
    fs::remove_file(&path).unwrap();
    let events = Events::timeline(&archive);
    let [gap] = events.of("gap")[..] else { panic!("{:?}", events.0) };
    assert_eq!(
        (&gap["first"], gap["segments"].as_u64()),
        (&Value::from(victim.record.name.as_str()), Some(1))
    );
    let [interval] = events.of("interval")[..] else { panic!("{:?}", events.0) };
    assert_eq!(interval["cut"], true);
    assert!(instant(&interval["to"]) < to);

    // Nobody loses what is behind it without having asked for that.
    let place = archive.repository().with_file_name("restored");
    let place = place.to_str().unwrap();
    let restore = ["pg", "restore", "--cluster", "main", "--dry-run", "--json", "--pgdata", place];
    let output = archive.run(&restore);
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let told = String::from_utf8_lossy(&said);
    assert!(code(&output) != 0 && told.contains("hole") && told.contains("--up-to-gap"), "{output:?}");
    let events = Events::read(&archive, &[&restore[..], &["--up-to-gap"]].concat(), 0);
    let summary = events.of("summary")[0];
    assert_eq!((&summary["certain"], &summary["timeline"]), (&Value::from(false), &Value::from(1)));
    assert!(summary["cut"]["from"].is_string() && summary["cut"]["to"].is_string(), "{summary}");
    let cut = summary["cut"].clone();

    // For a target in the hole the way to what lies before it is named, and is one: also where a base backup was made
    // behind the hole.
    let inside = chronolith::postgres::Lsn(victim.record.positions.unwrap().0).to_string();
    let plain: Vec<&str> = restore.iter().copied().filter(|word| *word != "--json").collect();
    let output = archive.run(&[&plain[..], &["--target-lsn", &inside]].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let id = told.split("--base ").nth(1).unwrap_or_default().split(' ').next().unwrap_or_default();
    let way = ["--base", id, "--target-timeline", "1", "--target", "latest", "--up-to-gap"];
    assert!(code(&output) == 2 && told.contains(&way.join(" ")), "{told}");
    assert!(id.len() >= 8 && base["snapshot"].as_str().unwrap().starts_with(id), "{told}");
    let events = Events::read(&archive, &[&restore[..], &way].concat(), 0);
    assert_eq!(events.of("summary")[0]["cut"], cut);

    // A cluster that nobody has archived.
    let output = archive.run(&["pg", "timeline", "--cluster", "nobody"]);
    assert_eq!(code(&output), 4);
}

/// B11: base backups that hold their log are all that there is of a cluster that archives nothing, on whatever
/// timeline; they are shown with the moment that each brings back.
#[test]
fn base_backups_that_hold_their_log_are_shown_without_an_archive() {
    let archive = Archive::new();
    let primary = Server::start();
    back_up(&archive, &primary);
    let mut server = Server::adopt(copy_that_recovers(&primary), &[&from_pg_wal(&primary)]);
    let started = Instant::now();
    while server.sql("postgres", "SELECT pg_is_in_recovery()").trim() != "f" {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    server.sql("postgres", "CHECKPOINT");
    back_up(&archive, &server);
    server.stop("fast");
    let events = Events::timeline(&archive);
    let bases = events.of("base");
    let shown = |name: &str| bases.iter().map(|base| base[name].clone()).collect::<Vec<_>>();
    assert_eq!(shown("timeline"), [1, 2]);
    assert_eq!((shown("wal"), shown("complete")), (vec!["inside".into(); 2], vec![true.into(); 2]));
    let intervals = events.of("interval");
    assert_eq!(
        intervals.iter().map(|interval| &interval["from"]).collect::<Vec<_>>(),
        [&bases[0]["stopped"], &bases[1]["stopped"]]
    );
    assert!(intervals.iter().all(|interval| interval["to"].is_null()), "{intervals:?}");
    let summary = events.of("summary")[0];
    assert_eq!((&summary["bases"], &summary["intervals"]), (&Value::from(2), &Value::from(2)));
    assert_eq!(summary["recoverable_to"], bases[1]["stopped"]);
    let output = archive.run(&["pg", "timeline", "--cluster", "main"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("no log is archived") && text.contains("the end of the base backup only"),
        "{text}"
    );
}

/// A setting by which a copy recovers with the log of the server that it was made of.
fn from_pg_wal(server: &Server) -> String {
    format!("restore_command=cp {}/pg_wal/%f %p", server.data().display())
}

/// A copy of a running server's files, to be recovered.
fn copy_that_recovers(server: &Server) -> TempDir {
    let folder = folder(USER);
    let mut copy = as_user(USER, &tool("pg_basebackup"));
    copy.args(["-U", "tester", "-X", "none", "-c", "fast", "-h"]).arg(server.sockets());
    check("pg_basebackup", copy.arg("-D").arg(folder.path().join("server/data")).output());
    let signal = folder.path().join("server/data/recovery.signal");
    check("touch", as_user(USER, Path::new("/bin/touch")).arg(signal).output());
    folder
}

/// Merges all segments that are archived, as a prune does, and deletes what they were merged from.
pub fn merge_all(archive: &Archive) -> FoundLog {
    let repository = archive.open();
    let mut segments = repository.all_logs().unwrap().found;
    segments.retain(|found| found.record.name.len() == 24);
    segments.sort_by(|a, b| a.record.name.cmp(&b.record.name));
    let merge = repository.merge_logs(&segments.iter().collect::<Vec<_>>()).unwrap();
    segments.iter().for_each(|log| repository.environment().store.delete(&log.object).unwrap());
    assert_eq!(merge.record.runs.iter().map(|run| run.records).sum::<u64>(), segments.len() as u64);
    // The server's user reads it.
    let mut chown = std::process::Command::new("chown");
    chown.arg("-R").arg("--reference").arg(archive.repository().join("logs"));
    check("chown", chown.arg(archive.repository().join("logs")).output());
    merge
}

/// B13: the server agrees where an interval ends: a microsecond before its last transaction is reached; the
/// time of that transaction itself is not, since nothing in the log is later.
#[test]
fn the_server_agrees_where_an_interval_ends() {
    let archive = Archive::new();
    let mut server = start(&archive, "1");
    bench(&server, "30");
    back_up(&archive, &server);
    let (reached, missed) = (copy_that_recovers(&server), copy_that_recovers(&server));
    bench(&server, "60");
    archive_all(&server);
    server.stop("fast");
    let events = Events::timeline(&archive);
    let [interval] = events.of("interval")[..] else { panic!("{:?}", events.0) };
    let to = instant(&interval["to"]);
    // What is merged says the same, and comes back the same.
    merge_all(&archive);
    let merged = Events::timeline(&archive);
    for event in ["interval", "timeline", "gap", "base", "lineage"] {
        let without_stored = |line: &&Value| {
            let mut line = (*line).clone();
            line.as_object_mut().unwrap().remove("stored_bytes");
            line
        };
        let all = |events: &Events| events.of(event).iter().map(without_stored).collect::<Vec<_>>();
        assert_eq!(all(&merged), all(&events), "{event}");
    }
    let get = archive.command_line("archive-get --cluster main --prefetch 3 %f %p");
    let settings = |at: jiff::Timestamp| {
        [
            "archive_mode=off".to_owned(),
            format!("restore_command={get}"),
            // B13: no abbreviation of a zone, not even Z.
            format!("recovery_target_time={}", at.to_string().replace('Z', "+00")),
            "recovery_target_action=promote".to_owned(),
        ]
    };
    let before = settings(to - jiff::SignedDuration::from_micros(1));
    let restored = Server::adopt(reached, &before.each_ref().map(String::as_str));
    let started = Instant::now();
    while restored.sql("postgres", "SELECT pg_is_in_recovery()").trim() != "f" {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", restored.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(restored.log().contains("recovery stopping before"), "{}", restored.log());
    let mut postgres = as_user(USER, &tool("postgres"));
    postgres.arg("-D").arg(missed.path().join("server/data")).arg("-k").arg(missed.path().join("server"));
    postgres.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
    for setting in settings(to) {
        postgres.arg("-c").arg(setting);
    }
    let output = postgres.output().unwrap();
    let log = said(&output);
    assert!(
        !output.status.success() && log.contains("before configured recovery target was reached"),
        "{log}"
    );
}
