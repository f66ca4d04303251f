//! What is named as a source, and what a backup makes of it.

use super::program::World;
use super::pty::{Streams, Terminal};
use std::fs;

/// The labels of all snapshots.
fn labels(world: &World) -> Vec<String> {
    let events = world.run(["snapshots", "--json"]).exits(0).events();
    let shown = events.iter().filter(|event| event["event"] == "snapshot");
    shown.map(|event| event["label"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_root_folder_is_walked_like_any_other() {
    let world = World::with_repository();
    // Whatever lies there is left out, so that nothing is looked into.
    let none = world.run(["backup", "/", "-n", "-v", "--json", "--exclude", "/*"]).exits(0);
    let summary = none.events().pop().unwrap();
    assert_eq!(summary["summary"]["files"], 0, "{summary}");
    assert_eq!(summary["summary"]["directories"], 0, "{summary}");
    assert!(!none.err.lines().any(|line| line.starts_with('/')), "{}", none.err);
}

#[test]
fn a_source_that_cannot_be_read_commits_nothing() {
    let world = World::with_repository();
    world.write("good", b"x");
    world.run(["backup", "-q", "good", "--label", "l"]).exits(0);
    // Nobody can read it from its start, not even root.
    let failed = world.run(["backup", "good", "/proc/self/mem", "--label", "l"]).exits(1);
    assert!(failed.err.contains("/proc/self/mem"), "{}", failed.err);
    assert_eq!(labels(&world), ["l"]);
}

#[test]
fn a_file_that_does_not_tell_its_length_is_read_to_its_end() {
    let world = World::with_repository();
    world.write("empty", b"");
    world.run(["backup", "-q", "/proc/version", "empty", "--label", "p"]).exits(0);
    assert_eq!(world.run(["cat", "p:proc/version"]).exits(0).out, fs::read("/proc/version").unwrap());
    let empty = format!("p:{}", world.path("empty").display());
    assert_eq!(world.run(["cat", &empty]).exits(0).out, b"");
    world.run(["check", "--read-data"]).exits(0);
}

#[test]
fn a_dry_run_names_what_it_would_store() {
    let world = World::with_repository();
    world.write("d/a", b"x");
    world.write("d/b.tmp", b"x");
    let shown = world.run(["backup", "-n", "-v", "d", "--exclude", "*.tmp"]).exits(0);
    assert!(shown.err.contains("d/a") && !shown.err.contains("b.tmp"), "{}", shown.err);
}

#[test]
fn a_default_label_names_the_sources_and_nothing_else() {
    let world = World::with_repository();
    for name in ["x:y", "x_y", "z"] {
        world.write(name, b"x");
    }
    for name in ["x:y", "x_y", "z"] {
        world.run(["backup", "-q", name]).exits(0);
    }
    world.run(["backup", "-q", "z", "z"]).exits(0);
    let labels = labels(&world);
    assert_eq!(labels[1], world.path("x_y").display().to_string());
    assert!(labels[0] != labels[1] && labels[0].contains("x_y~"), "{labels:?}");
    assert_eq!(labels[2], labels[3]);
    // However many there are, and the same again.
    let many: Vec<String> = (0..60).map(|number| format!("many/file-number-{number}")).collect();
    for name in &many {
        world.write(name, b"x");
    }
    for _ in 0..2 {
        world.run(["backup", "-q"].into_iter().chain(many.iter().map(String::as_str))).exits(0);
    }
    let labels = self::labels(&world);
    assert!(labels[4].len() <= 255 && labels[4] == labels[5], "{labels:?}");
}

#[test]
fn what_cannot_be_a_host_or_a_stream_is_refused_before_anything_is_done() {
    let world = World::with_repository();
    world.write("a", b"x");
    for arguments in [["--host", "", "a"], ["--stdin", "../x", "--quiet"]] {
        let refused = world.run(["backup"].into_iter().chain(arguments)).exits(2);
        assert!(!refused.err.contains("damaged") && refused.err.contains("cannot be"), "{}", refused.err);
    }
}

#[test]
fn what_a_command_says_is_passed_on() {
    let world = World::with_repository();
    let said = world.run(["backup", "--exec", "a=echo careful >&2; echo 1", "--label", "l"]).exits(0);
    assert!(said.err.contains("careful"), "{}", said.err);
    let many = world.run(["backup", "--exec", "a=seq 1 40 >&2; echo 1", "--label", "l"]).exits(0);
    assert!(many.err.contains("said 30 lines more") && many.err.contains("said: 40"), "{}", many.err);
}

#[test]
fn a_command_knows_no_password_of_a_repository() {
    let world = World::with_repository();
    let mut backup = world.command();
    backup.env("CHRONOLITH_TO_PASSWORD", "another").args(["backup", "-q", "--exec", "a=env", "--label", "l"]);
    World::finish(backup, b"").exits(0);
    let seen = world.run(["cat", "l:a"]).exits(0).text();
    assert!(seen.contains("PATH=") && !seen.contains("PASSWORD"), "{seen}");
}

#[test]
fn a_command_that_asks_at_the_terminal_fails_instead_of_waiting() {
    let world = World::new();
    let mut init = world.command();
    init.args(["init", "-q", "--no-recovery", "--new-key-file", "opener"]);
    World::finish(init, b"").exits(0);
    let ask = "a=read answer < /dev/tty; echo $answer";
    let arguments = ["backup", "--key-file", "opener", "--exec", ask, "--label", "l"];
    let (code, screen, _) = Terminal::run(&world, &arguments, Streams::Terminal).ends();
    assert_eq!(code, 1, "{screen}");
    assert!(screen.contains("asks for something at the terminal"), "{screen}");
}

#[test]
fn a_label_means_this_host_or_the_one_that_is_named() {
    let world = World::with_repository();
    for host in ["a", "b"] {
        world.write("f", host.as_bytes());
        world.run(["backup", "-q", "f", "--label", "l", "--host", host]).exits(0);
    }
    let file = |name: &str| format!("{name}:{}", world.path("f").display());
    let refused = world.run(["cat", &file("l")]).exits(2);
    assert!(refused.err.contains("l@a, l@b"), "{}", refused.err);
    assert_eq!(world.run(["cat", &file("l@a")]).exits(0).out, b"a");
    assert_eq!(world.run(["cat", &file("l@b@{2099-01-01}")]).exits(0).out, b"b");
    world.run(["cat", &file("l@c")]).exits(4);
    // This one.
    world.write("f", b"here");
    world.run(["backup", "-q", "f", "--label", "l"]).exits(0);
    assert_eq!(world.run(["cat", &file("l")]).exits(0).out, b"here");
}
