//! Timelines that fork, in one archive: each is recovered with its own rows and no others.

use super::archive::{Archive, archive_all};
use super::base::{arguments, expect};
use super::server::{Server, USER};
use super::support::server::folder;
use std::path::PathBuf;
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
    // R10: the second's own backup leads to no later moment of the first.
    expect(&run(arguments(&second, &["--archive-timeout", "120"])), 0);
    let place = folder(USER);
    let data = place.path().join("server/data");
    let more = ["restore", "--cluster", "main", "--target-timeline", "1", "--base", "latest", "--pgdata"];
    let output = archive.command(&[&more[..], &[data.to_str().unwrap()]].concat()).output().unwrap();
    expect(&output, 2);
    assert!(!data.exists());
}
