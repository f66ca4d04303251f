//! Exit codes and the three lines of an error; secrets in none of them.

use super::program::{Outcome, PASSWORD, World};

#[track_caller]
fn three_lines(outcome: &Outcome) {
    let lines: Vec<&str> = outcome.err.lines().collect();
    let error: Vec<&str> =
        lines.iter().copied().skip_while(|line| !line.starts_with("chronolith: ")).collect();
    let [what, why, advice] = error[..] else { panic!("not three lines:\n{}", outcome.err) };
    assert!(what.starts_with("chronolith: could not "), "{what}");
    assert!(why.starts_with("  why: ") && why.len() > 10, "{why}");
    assert!(advice.starts_with("  try: ") && advice.len() > 10, "{advice}");
    assert!(!outcome.err.contains("RepoError") && !outcome.err.contains("panicked"), "{}", outcome.err);
    assert!(!outcome.err.contains(PASSWORD), "{}", outcome.err);
}

#[test]
fn what_is_not_there_is_four() {
    let world = World::new();
    for place in ["/nowhere/at/all", "/etc", "/etc/passwd"] {
        three_lines(&world.run(["snapshots", "-r", place]).exits(4));
    }
    let world = World::with_repository();
    for arguments in
        [["ls", "nolabel"], ["ls", "0123456789"], ["cat", "nolabel:x"], ["backup", "does-not-exist"]]
    {
        three_lines(&world.run(arguments).exits(4));
    }
    // Nothing was written yet, and that is not what failed.
    for name in ["nolabel", "nolabel:x", "0123456789:x"] {
        for arguments in [vec!["cat", name], vec!["restore", name, "--to", "-"]] {
            let outcome = world.run(&arguments).exits(4);
            assert!(outcome.err.contains("could not find "), "{arguments:?}: {}", outcome.err);
            assert!(!outcome.err.contains("standard output"), "{arguments:?}: {}", outcome.err);
            let snapshot = name.split(':').next().unwrap();
            assert!(
                outcome.err.contains(&format!("no snapshot answers to \"{snapshot}\"")),
                "{}",
                outcome.err
            );
        }
    }
}

#[test]
fn requests_without_sense_are_two() {
    let world = World::with_repository();
    three_lines(&world.run(["init"]).exits(2));
    three_lines(&world.run(["snapshots", "-r", "s3://bucket/x"]).exits(2));
    three_lines(&world.run(["ls", "a:b@{whenever}"]).exits(4));
    three_lines(&world.run(["ls", "a@{whenever}"]).exits(2));
    three_lines(&world.run(["backup", "--label", "latest", "/etc/hostname"]).exits(2));
    let mut command = world.command();
    command.env_remove("CHRONOLITH_PASSWORD").arg("snapshots");
    three_lines(&World::finish(command, b"").exits(2));
    let mut command = world.command();
    command.env("CHRONOLITH_KEY_FILE", "x").arg("snapshots");
    let both = World::finish(command, b"").exits(2);
    assert!(both.err.contains("several ways"), "{}", both.err);
}

#[test]
fn a_wrong_password_is_five_and_is_not_repeated() {
    let world = World::with_repository();
    let mut command = world.command();
    command.env("CHRONOLITH_PASSWORD", "wrong-horse").arg("snapshots");
    let outcome = World::finish(command, b"").exits(5);
    three_lines(&outcome);
    assert!(!outcome.err.contains("wrong-horse"));
}

#[test]
fn a_command_that_fails_commits_nothing() {
    let world = World::with_repository();
    let outcome = world.run(["backup", "--exec", "a=echo started; echo the reason >&2; exit 3"]).exits(1);
    three_lines(&outcome);
    assert!(outcome.err.contains("exit code 3") && outcome.err.contains("the reason"), "{}", outcome.err);
    three_lines(&world.run(["backup", "--exec", "a=no-such-program-anywhere"]).exits(1));
    let events = world.run(["snapshots", "--json"]).exits(0).events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["snapshots"], 0);
}

#[test]
fn lost_content_is_named_and_the_rest_comes() {
    let world = World::with_repository();
    world.write("data/a", b"first");
    world.run(["backup", "-q", "--label", "data", "data"]).exits(0);
    let mut largest = None;
    for folder in std::fs::read_dir(world.path("repository/packs")).unwrap() {
        for pack in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let pack = pack.unwrap();
            let kind = std::fs::read(pack.path()).unwrap()[4];
            // Kind 3 is a content pack.
            if kind == 3 {
                largest = Some(pack.path());
            }
        }
    }
    std::fs::remove_file(largest.unwrap()).unwrap();
    let restored = world.run(["restore", "data", "--target", "out"]).exits(3);
    assert!(restored.err.contains("data/a"), "{}", restored.err);
    three_lines(&world.run(["cat", "data"]).exits(1));
}

#[test]
fn an_error_is_an_event_too() {
    let world = World::with_repository();
    let outcome = world.run(["ls", "nolabel", "--json"]).exits(4);
    let events = outcome.events();
    let last = events.last().unwrap();
    assert_eq!((last["event"].as_str(), last["exit_code"].as_i64()), (Some("error"), Some(4)));
}

#[test]
fn a_signal_ends_a_backup_whose_producer_is_silent_and_the_producer_too() {
    use rustix::process::{Pid, Signal, kill_process, test_kill_process};
    let world = World::with_repository();
    assert!(std::process::Command::new("mkfifo").arg(world.path("told")).status().unwrap().success());
    let mut command = world.command();
    command.args(["backup", "--exec", "a=echo $$ ${CHRONOLITH_PASSWORD-none} > told; exec sleep 1000"]);
    let child = command.spawn().unwrap();
    // Opening and reading wait for the producer.
    let told = std::fs::read_to_string(world.path("told")).unwrap();
    let (number, password) = told.trim().split_once(' ').unwrap();
    assert_eq!(password, "none", "the password is no business of a producer");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let producer = Pid::from_raw(number.parse().unwrap()).unwrap();
    assert!(test_kill_process(producer).is_err(), "the producer goes on");
}

#[test]
fn a_signal_ends_a_backup_without_a_snapshot() {
    use rustix::process::{Pid, Signal, kill_process};
    let world = World::with_repository();
    let mut command = world.command();
    command.args(["backup", "-v", "--stdin", "slow"]).stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // More than a pipe holds: when this has been written, the program is reading and listens to signals.
    std::io::Write::write_all(&mut pipe, &vec![7; 8 << 20]).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    drop(pipe);
    assert_eq!(world.run(["snapshots", "--json"]).exits(0).events()[0]["snapshots"], 0);
}
