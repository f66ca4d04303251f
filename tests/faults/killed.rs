//! The real program, killed with SIGKILL at some point of a backup. Whatever the point: the real
//! check that reads everything is clean, no snapshot is half, and the next backup succeeds.

use crate::support::SeededEntropy;
use crate::support::program::Program;
use crate::support::world::{content, noise};
use std::io::Write;
use std::process::Stdio;

const NAME: &str = "app.sql";

/// The check that reads all data finds nothing wrong; what a killed backup left is no damage.
fn is_clean(program: &Program, what: &str) {
    for arguments in [&["check", "--read-data"][..], &["check"]] {
        let output = program.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{what}: {arguments:?}: {told}");
    }
    let output = program.run(&["check", "--read-data", "--json"]);
    let events = String::from_utf8(output.stdout).unwrap();
    let summary: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!(summary["event"], "summary", "{what}: {events}");
    assert_eq!(summary["damaged"], false, "{what}: {events}");
    assert_eq!(summary["packs_read"], summary["packs"], "{what}: {events}");
    assert_eq!((&summary["damage"], &summary["hurt_snapshots"]), (&0.into(), &0.into()), "{what}: {events}");
}

#[test]
fn a_killed_backup_leaves_nothing_half() {
    let seed = std::env::var("CHRONOLITH_TEST_SEED").map_or(20_260_115, |text| text.parse().unwrap());
    println!("CHRONOLITH_TEST_SEED={seed}");
    let random = SeededEntropy::new(seed);
    let program = Program::new(env!("CARGO_BIN_EXE_chronolith"));
    // More than one pack, so that some are stored while others are still being made.
    let bytes = noise(seed, 70 << 20);
    let arguments = ["backup", "--stdin", NAME, "--label", "app", "--level", "1"];
    let mut committed = 0;
    for round in 0..6 {
        let length = bytes.len() - round;
        let input = &bytes[round..];
        let mut child = program.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // The point is a number of bytes that it has taken, the whole input included.
        let point = usize::try_from(random.number() % (length as u64 + (8 << 20))).unwrap().min(length);
        pipe.write_all(&input[..point]).unwrap();
        if point == length {
            // Everything is in: it is killed while it finishes, or has finished.
            drop(pipe);
        }
        child.kill().unwrap();
        child.wait().unwrap();

        is_clean(&program, &format!("killed at {point} of {length}"));
        let client = program.client();
        let snapshots = client.snapshots();
        let new = snapshots.len() - committed;
        assert!(new == 0 || point == length, "killed at {point} of {length}, yet a snapshot");
        if new == 1 {
            let newest = *snapshots.last().unwrap();
            assert_eq!(client.read(newest).unwrap(), content([(NAME, input.to_vec())]));
        }
        committed = snapshots.len();
    }
    // The next backup succeeds, and needs little of what the killed ones had stored already.
    let mut child = program.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let client = program.client();
    let newest = *client.snapshots().last().unwrap();
    assert!(client.read(newest).unwrap() == content([(NAME, bytes)]));
    is_clean(&program, "after the backup that succeeded");
}
