//! `pg forget` and `pg upgrade-cluster` with live servers: whatever stays is restored and compared.

use super::archive::{Archive, archive_all, bench, code, said, start};
use super::restore::{digests, recovered, target};
use super::server::{Server, USER, tool};
use super::support::server::{as_user, check, folder};
use super::timeline::{Events, back_up, merge_all};
use chronolith::ops::Snapshots;
use chronolith::ops::catalogue::gather_logs;
use chronolith::ops::forget::forget_logs;
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Lets everything that is archived now look as if it had been stored some days ago.
fn age(archive: &Archive, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 86400);
    let mut folders = vec![archive.repository().join("logs"), archive.repository().join("snapshots")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => File::open(entry.path()).unwrap().set_modified(then).unwrap(),
            }
        }
    }
}

fn forget(archive: &Archive, more: &[&str], expected: i32) -> Events {
    Events::read(archive, &[&["pg", "forget", "--cluster", "main", "--json"], more].concat(), expected)
}

fn restored(archive: &Archive, more: &[&str]) -> String {
    let (folder, data) = target();
    let place = data.to_str().unwrap();
    let output = archive.run(&[&["pg", "restore", "--cluster", "main", "--pgdata", place], more].concat());
    assert_eq!(code(&output), 0, "{}", said(&output));
    digests(&recovered(folder))
}

fn complete(events: &Events) -> Vec<String> {
    let bases = events.of("base");
    assert!(bases.iter().all(|base| base["complete"] == true), "{bases:?}");
    bases.iter().map(|base| base["snapshot"].as_str().unwrap().to_owned()).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

/// B11: base backups and log go together; what stays is restored, what was forgotten comes back until it is swept.
#[test]
fn what_a_policy_keeps_is_restored() {
    let archive = Archive::new();
    let server = start(&archive, "1");
    bench(&server, "20");
    back_up(&archive, &server);
    bench(&server, "40");
    archive_all(&server);
    age(&archive, 20);
    back_up(&archive, &server);
    let second = digests(&server);
    bench(&server, "40");
    archive_all(&server);
    age(&archive, 10);
    back_up(&archive, &server);
    bench(&server, "20");
    archive_all(&server);
    let last = digests(&server);

    // Nothing is done without a policy, and nothing in a dry run.
    let output = archive.run(&["pg", "forget", "--cluster", "main"]);
    assert!(code(&output) == 2 && said(&output).contains("nothing was forgotten"), "{}", said(&output));
    let bases = complete(&Events::timeline(&archive));
    assert_eq!(bases.len(), 3);
    let dry = forget(&archive, &["--keep-last", "2", "-n", "--prune"], 0);
    let summary = dry.of("summary")[0];
    assert_eq!((number(&summary["forgotten_bases"]), number(&summary["kept_bases"])), (1, 2));
    assert!(
        number(&summary["forgotten_segments"]) > 0 && number(&summary["prune"]["condemned_logs"]) > 0,
        "{summary}"
    );
    assert_eq!(complete(&Events::timeline(&archive)), bases);

    // The first goes with its log, the others keep all that they lead to.
    let done = forget(&archive, &["--keep-last", "2"], 0);
    let decisions: Vec<(bool, String)> = done
        .of("decision")
        .iter()
        .map(|decision| (decision["keep"] == true, decision["snapshot"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(decisions, [(false, bases[0].clone()), (true, bases[1].clone()), (true, bases[2].clone())]);
    let when =
        |when: &str| done.of("interval").into_iter().filter(|interval| interval["when"] == when).count();
    assert_eq!((when("before"), when("after")), (1, 1));
    let timeline = Events::timeline(&archive);
    assert_eq!(complete(&timeline), bases[1..]);
    let objects = number(&timeline.of("lineage")[0]["forgotten_objects"]);
    assert!(objects > 0, "{:?}", timeline.of("lineage"));

    // It comes back with its log, also when that was announced for deletion.
    check("prune", Ok(archive.run(&["prune"])));
    check("undelete", Ok(archive.run(&["undelete", &bases[0]])));
    assert_eq!(complete(&Events::timeline(&archive)), bases);
    assert!(!restored(&archive, &["--base", &bases[0], "--target-immediate"]).is_empty());

    // Forgotten and swept. A second run finds nothing more to do.
    let gone = forget(&archive, &["--keep-last", "2", "--prune", "--grace", "0"], 0);
    assert!(number(&gone.of("summary")[0]["prune"]["deleted_logs"]) > 0, "{:?}", gone.of("summary"));
    let again = forget(&archive, &["--keep-last", "2"], 0);
    assert_eq!(number(&again.of("summary")[0]["forgotten_objects"]), 0);
    let output = archive.run(&["undelete", &bases[0]]);
    assert_ne!(code(&output), 0);
    assert_eq!(restored(&archive, &["--base", &bases[1], "--target-immediate"]), second);
    assert_eq!(restored(&archive, &["--base", &bases[1]]), last);
    assert_eq!(restored(&archive, &[]), last);

    // A window: the base backup before the newest keeps only what makes it consistent.
    age(&archive, 2);
    bench(&server, "20");
    archive_all(&server);
    let last = digests(&server);
    forget(&archive, &["--keep-last", "2", "--keep-wal", "1h", "--prune", "--grace", "0"], 0);
    assert_eq!(complete(&Events::timeline(&archive)), bases[1..]);
    assert_eq!(restored(&archive, &["--base", &bases[1], "--target-immediate"]), second);
    assert_eq!(restored(&archive, &[]), last);
    check("check", Ok(archive.run(&["check", "--read-data"])));
}

/// What was let go between log that stays is not shown as if it were lost.
#[test]
fn forgotten_log_is_not_shown_as_a_gap() {
    let archive = Archive::new();
    let server = start(&archive, "1");
    back_up(&archive, &server);
    for _ in 0..4 {
        server.sql("postgres", "CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)");
        archive_all(&server);
    }
    let repository = archive.open();
    let mut segments = repository.all_logs().unwrap().found;
    segments.retain(|found| found.record.name.len() == 24);
    segments.sort_by(|a, b| a.record.name.cmp(&b.record.name));
    // Two of those behind the base backup, and the last one stays.
    let gone: Vec<_> = segments.iter().rev().skip(1).take(2).map(|found| found.id).collect();
    let snapshots = Snapshots::load(&repository).unwrap();
    forget_logs(&repository, &snapshots, &gone).unwrap();
    check("chown", Command::new("chown").args(["-R", USER]).arg(archive.repository()).output());
    let timeline = Events::timeline(&archive);
    assert_eq!(number(&timeline.of("lineage")[0]["forgotten_objects"]), 2);
    assert!(timeline.of("gap").is_empty(), "{:?}", timeline.of("gap"));
    assert_eq!(timeline.of("interval")[0]["cut"], true);
}

/// A merged log pack that a disk lost is missed until all that it held lies before what is kept.
#[test]
fn what_was_lost_is_let_go_with_the_log_before_it() {
    let archive = Archive::new();
    let server = start(&archive, "1");
    bench(&server, "20");
    back_up(&archive, &server);
    bench(&server, "40");
    archive_all(&server);
    let merge = merge_all(&archive);
    age(&archive, 20);
    let repository = archive.open();
    let snapshots = Snapshots::load_all(&repository).unwrap();
    let folder = repository.log_stream_folder(&merge.record.stream);
    let listed = repository.environment().store.list(&format!("{folder}/merged/")).unwrap();
    gather_logs(&repository, &snapshots, &[(folder, listed)].into(), 1);
    let mut chown = std::process::Command::new("chown");
    chown.arg("-R").arg("--reference").arg(archive.repository().join("logs")).arg(archive.repository());
    check("chown", chown.output());
    let whole = fs::read(archive.repository().join(&merge.object)).unwrap();
    fs::remove_file(archive.repository().join(&merge.object)).unwrap();
    let misses = |what: &str, missed: bool| {
        let output = archive.run(&["check"]);
        let named = String::from_utf8_lossy(&output.stdout).contains(&merge.object);
        assert_eq!((code(&output) != 0, named), (missed, missed), "{what}: {}", said(&output));
    };
    misses("lost", true);
    // Nothing that is kept lies behind it yet.
    forget(&archive, &["--keep-last", "2"], 0);
    misses("there is nothing behind it", true);
    back_up(&archive, &server);
    bench(&server, "40");
    archive_all(&server);
    // The first one waits for what was lost, for a week; who knows better lets it go.
    let waits = forget(&archive, &["--keep-last", "1"], 0);
    misses("a base backup waits for it", true);
    let first = waits.of("decision")[0]["snapshot"].as_str().unwrap();
    check("forget", Ok(archive.run(&["forget", first])));
    let dry = forget(&archive, &["--keep-last", "1", "--dry-run"], 0);
    assert!(number(&dry.of("summary")[0]["forgotten_objects"]) > 0, "{:?}", dry.of("summary"));
    misses("a dry run", true);
    forget(&archive, &["--keep-last", "1", "--prune", "--grace", "0"], 0);
    misses("let go", false);
    assert_eq!(restored(&archive, &[]), digests(&server));
    // Should it come back, it goes like anything that was forgotten.
    fs::write(archive.repository().join(&merge.object), whole).unwrap();
    age(&archive, 2);
    check("prune", Ok(archive.run(&["prune", "--grace", "0"])));
    check("prune", Ok(archive.run(&["prune", "--grace", "0"])));
    assert!(!archive.repository().join(&merge.object).exists());
    misses("gone", false);
}

/// After `pg_upgrade` the name goes on with another system, and both can be restored and let go.
#[test]
fn an_upgraded_cluster_goes_on_under_its_name() {
    let archive = Archive::new();
    let mut old = start(&archive, "1");
    bench(&old, "20");
    back_up(&archive, &old);
    bench(&old, "20");
    archive_all(&old);
    let before = digests(&old);
    let moment = old.sql("postgres", "SELECT now()");
    let transaction = old.sql("postgres", "SELECT txid_current() FROM pg_create_restore_point('old')");
    old.sql("postgres", "CREATE TABLE too_late ()");
    archive_all(&old);
    old.stop("fast");

    let upgraded = folder(USER);
    let data = upgraded.path().join("server/data");
    let mut initdb = as_user(USER, &tool("initdb"));
    initdb.arg("-D").arg(&data).args([
        "-U",
        "tester",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
    ]);
    check("initdb", initdb.arg("--wal-segsize=1").output());
    let bin = tool("pg_ctl").parent().unwrap().to_owned();
    let mut upgrade = as_user(USER, &tool("pg_upgrade"));
    upgrade.arg("-b").arg(&bin).arg("-B").arg(&bin).arg("-d").arg(old.data()).arg("-D").arg(&data);
    upgrade.args(["-U", "tester", "--no-sync"]).current_dir(upgraded.path().join("server"));
    check("pg_upgrade", upgrade.arg("-s").arg(upgraded.path().join("server")).output());

    // Its log is refused until the upgrade is recorded, which is done for no other system, and not by chance.
    let settings: Vec<&str> = old.settings.iter().map(String::as_str).collect();
    let new = Server::adopt(upgraded, &settings);
    let segment = new
        .data()
        .join("pg_wal")
        .join(new.sql("postgres", "SELECT pg_walfile_name(pg_current_wal_lsn())").trim());
    assert_eq!(code(&archive.push("main", &segment)), 1);
    let record = |data: &Path, more: &[&str]| {
        let data = data.to_str().unwrap();
        let output =
            archive.run(&[&["pg", "upgrade-cluster", "--cluster", "main", "--pgdata", data], more].concat());
        (code(&output), said(&output))
    };
    let (status, text) = record(&old.data(), &["--confirm", "main"]);
    assert!(status != 0 && text.contains("was not upgraded"), "{text}");
    for (more, expected) in
        [(&[][..], "--confirm main"), (&["--confirm", "other"][..], "nothing was changed")]
    {
        let (status, text) = record(&new.data(), more);
        assert!(status != 0 && text.contains(expected), "{text}");
    }
    assert_eq!(Events::timeline(&archive).of("lineage").len(), 1);
    let (status, text) = record(&new.data(), &["--confirm", "main"]);
    assert_eq!(status, 0, "{text}");
    let (status, text) = record(&new.data(), &["--confirm", "main"]);
    assert!(status != 0 && text.contains("already"), "{text}");

    // It archives, both are shown, and each moment comes from its own system.
    archive_all(&new);
    back_up(&archive, &new);
    bench(&new, "20");
    archive_all(&new);
    let after = digests(&new);
    let events = Events::timeline(&archive);
    assert_eq!((events.of("lineage").len(), events.of("interval").len()), (2, 2));
    let bases = complete(&events);
    assert_eq!(restored(&archive, &[]), after);
    assert_eq!(restored(&archive, &["--target-time", moment.trim()]), before);
    assert_eq!(restored(&archive, &["--target-name", "old"]), before);
    assert_eq!(restored(&archive, &["--target-xid", transaction.trim()]), before);

    // The old system goes as it ages.
    age(&archive, 30);
    bench(&new, "20");
    archive_all(&new);
    let after = digests(&new);
    let done = forget(&archive, &["--keep-last", "1", "--prune", "--grace", "0"], 0);
    assert_eq!(number(&done.of("summary")[0]["forgotten_bases"]), 1);
    let events = Events::timeline(&archive);
    assert_eq!(complete(&events), bases[1..]);
    assert_eq!(number(&events.of("lineage")[0]["segments"]), 0);
    assert_eq!(restored(&archive, &[]), after);
}
