//! Forgetting, as it is typed.

use super::program::World;

fn backed_up(count: usize) -> (World, Vec<String>) {
    let world = World::with_repository();
    for number in 0..count {
        world.feed(["backup", "-q", "--host", "h", "--stdin", "a"], number.to_string().as_bytes()).exits(0);
    }
    let events = world.run(["snapshots", "--json"]).exits(0).events();
    let ids = events.iter().filter_map(|event| Some(event["id"].as_str()?.to_owned())).collect();
    (world, ids)
}

#[test]
fn a_policy_shows_its_plan_and_is_carried_out() {
    let (world, ids) = backed_up(3);
    let dry = world.run(["forget", "--keep-last", "2", "--dry-run"]).exits(0);
    assert!(dry.err.contains("1 snapshot would be forgotten"), "{}", dry.err);
    let lines: Vec<String> = dry.text().lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "a on h");
    assert!(lines[2].starts_with("forget") && lines[2].contains(&ids[0][..8]), "{lines:?}");
    assert!(lines[3].starts_with("keep") && lines[3].ends_with("last"), "{lines:?}");
    assert_eq!(world.run(["snapshots", "--json"]).exits(0).events().len(), 4);
    let done = world.run(["forget", "--keep-last", "2", "--keep-tag", "x", "--json"]).exits(0).events();
    let kept: Vec<bool> = done.iter().filter_map(|event| event["keep"].as_bool()).collect();
    assert_eq!(kept, [false, true, true]);
    let summary = done.last().unwrap();
    assert_eq!((summary["forgotten"].as_u64(), summary["kept"].as_u64()), (Some(1), Some(2)));
    assert_eq!(summary["annotations"].as_array().unwrap().len(), 1);
    // It is not listed and not parent of anything, but it is there.
    assert_eq!(world.run(["snapshots", "--json"]).exits(0).events().len(), 3);
    let all = world.run(["snapshots", "--forgotten"]).exits(0).text();
    assert!(all.contains(&ids[0][..8]) && all.contains("(forgotten)"), "{all}");
    assert_eq!(world.run(["cat", &format!("{}:a", &ids[0][..8])]).exits(0).out, b"0");
    // Nothing more to do.
    let again = world.run(["forget", "--keep-last", "2"]).exits(0);
    assert!(again.err.contains("0 snapshots forgotten"), "{}", again.err);
}

#[test]
fn snapshots_are_forgotten_by_name_but_not_the_last() {
    let (world, ids) = backed_up(2);
    world.run(["forget", &ids[1]]).exits(0);
    let refused = world.run(["forget", "a"]).exits(2);
    assert!(refused.err.contains("--unsafe-allow-remove-all"), "{}", refused.err);
    let events = world.feed(["backup", "--json", "--host", "h", "--stdin", "a"], b"9").exits(0).events();
    assert_eq!(events.last().unwrap()["parent"].as_str(), Some(ids[0].as_str()), "the newest is forgotten");
    world.run(["forget", "a", &ids[0]]).exits(2);
    world.run(["forget", "a", &ids[0], "--unsafe-allow-remove-all"]).exits(0);
    assert_eq!(world.run(["snapshots", "--json"]).exits(0).events().len(), 1);
    world.run(["cat", "a"]).exits(4);
}

/// Enough of them for a catalogue, which goes on listing what a prune has deleted until the next one is made.
#[test]
fn what_was_pruned_answers_to_no_name_and_cannot_be_pinned() {
    let (world, ids) = backed_up(36);
    world.run(["key", "add", "--role", "writer", "--name", "w", "--new-key-file", "w.key"]).exits(0);
    world.run(["forget", "--keep-last", "3"]).exits(0);
    let forgotten = |options: &[&str]| {
        let arguments = ["snapshots", "--forgotten", "--json"].iter().chain(options);
        world.run(arguments).exits(0).events().len() - 1
    };
    assert_eq!((forgotten(&[]), forgotten(&["--no-cache"])), (36, 36), "they wait for their grace");
    assert_eq!(world.run(["cat", &format!("{}:a", &ids[0][..12])]).exits(0).out, b"0");
    world.run(["prune", "--grace", "0"]).exits(0);
    assert_eq!((forgotten(&[]), forgotten(&["--no-cache"])), (3, 3));
    let ghost = ids[0].as_str();
    let inside = format!("{ghost}:a");
    for arguments in [
        vec!["cat", &inside],
        vec!["restore", ghost, "--target", "out"],
        vec!["tag", ghost, "--add", "x"],
        vec!["pin", ghost],
        vec!["pin", ghost, "--key-file", "w.key"],
        vec!["undelete", ghost],
    ] {
        world.run(&arguments).exits(4);
    }
    assert_eq!(world.run(["cat", "a"]).exits(0).out, b"35");
    world.run(["forget", "--keep-last", "2", "--prune", "--grace", "0"]).exits(0);
    world.run(["check", "--read-data"]).exits(0);
}

#[test]
fn a_filter_that_fits_nothing_is_warned_of() {
    let (world, _) = backed_up(2);
    let nothing = world.run(["forget", "-n", "--keep-last", "1", "--label", "misspelt"]).exits(0);
    assert!(nothing.err.contains("warning: no snapshot has this"), "{}", nothing.err);
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_happens() {
    let (world, ids) = backed_up(2);
    let id = ids[0].as_str();
    for arguments in [
        vec!["forget"],
        vec!["forget", "--keep-last", "0"],
        vec!["forget", "--unsafe-allow-remove-all"],
        vec!["forget", "--host", "h"],
        vec!["forget", id, "--keep-last", "1"],
        vec!["forget", id, "--host", "h"],
        vec!["forget", "--keep-last", "x"],
        vec!["forget", "--keep-within", "7"],
        vec!["forget", "--keep-daily", "-1"],
        vec!["forget", "--keep-days-least", "1"],
    ] {
        world.run(&arguments).exits(2);
    }
    world.run(["forget", "nothing"]).exits(4);
    assert_eq!(world.run(["snapshots", "--json"]).exits(0).events().len(), 3);
}

#[test]
fn what_was_forgotten_is_brought_back_or_pruned() {
    let (world, ids) = backed_up(2);
    world.run(["forget", &ids[0]]).exits(0);
    let dry = world.run(["prune", "--dry-run", "--json"]).exits(0).events();
    assert_eq!(dry.last().unwrap()["condemned_snapshots"].as_u64(), Some(1));
    let waiting = world.run(["prune"]).exits(0);
    assert!(waiting.err.contains("waits for its grace"), "{}", waiting.err);
    world.run(["undelete", &ids[0]]).exits(0);
    world.run(["undelete", &ids[0]]).exits(2);
    assert_eq!(world.run(["snapshots", "--json"]).exits(0).events().len(), 3);
    assert_eq!(world.run(["cat", &format!("{}:a", &ids[0][..8])]).exits(0).out, b"0");
    let (world, ids) = backed_up(2);
    world.run(["forget", &ids[0]]).exits(0);
    let done = world.run(["prune", "--grace", "0", "--json"]).exits(0).events();
    assert!(done.last().unwrap()["deleted_objects"].as_u64() > Some(0), "{done:?}");
    world.run(["cat", &format!("{}:a", &ids[0][..8])]).exits(4);
    world.run(["check", "--read-data"]).exits(0);
    assert_eq!(world.run(["cat", "a"]).exits(0).out, b"1");
    for grace in ["", "x", "5", "1w", "400d", "-1h", "99999999999999999999h"] {
        world.run(["prune", &format!("--grace={grace}")]).exits(2);
    }
}

#[test]
fn forgetting_and_pruning_go_together() {
    let (world, ids) = backed_up(3);
    let policy = ["forget", "--keep-last", "2", "--prune", "--grace", "0s"];
    let dry = world.run(policy.iter().chain(&["--dry-run", "--json"])).exits(0).events();
    let planned = &dry.last().unwrap()["prune"];
    assert_eq!(planned["condemned_snapshots"].as_u64(), Some(1), "{dry:?}");
    assert_eq!(world.run(["snapshots", "--json"]).exits(0).events().len(), 4);
    let shown = world.run(policy.iter().chain(&["--dry-run"])).exits(0);
    assert!(shown.err.contains("1 snapshot would be forgotten"), "{}", shown.err);
    assert!(shown.err.contains("would be announced for deletion: "), "{}", shown.err);
    let done = world.run(policy.iter().chain(&["--json"])).exits(0).events();
    let summary = done.last().unwrap();
    assert_eq!((summary["forgotten"].as_u64(), summary["kept"].as_u64()), (Some(1), Some(2)));
    let pruned = &summary["prune"];
    for field in ["condemned_packs", "condemned_bytes", "condemned_snapshots"] {
        assert_eq!(pruned[field], planned[field], "{field}");
    }
    assert!(pruned["deleted_packs"].as_u64() > Some(0), "{pruned:?}");
    world.run(["cat", &format!("{}:a", &ids[0][..8])]).exits(4);
    world.run(["check", "--read-data"]).exits(0);
    // Without --prune there is nothing to bound, and nothing is forgotten.
    world.run(["forget", "--keep-last", "1", "--grace", "0"]).exits(2);
    world.run(["forget", "--keep-last", "1", "--prune", "--grace", "x"]).exits(2);
    let alone = world.run(["forget", "--keep-last", "2", "--json"]).exits(0).events();
    assert!(alone.last().unwrap()["prune"].is_null());
    assert_eq!(world.run(["snapshots", "--json"]).exits(0).events().len(), 3);
}

#[test]
fn a_grace_that_is_given_counts_for_what_was_announced_before() {
    let (world, ids) = backed_up(2);
    world.run(["forget", &ids[0], "--prune"]).exits(0);
    let waits = world.run(["prune"]).exits(0);
    assert!(waits.err.contains("waits for its grace to pass: prune again in 2"), "{}", waits.err);
    let done = world.run(["prune", "--grace", "0", "--json"]).exits(0).events();
    let summary = done.last().unwrap();
    assert!(summary["deleted_packs"].as_u64() > Some(0), "{summary:?}");
    assert!(summary["waiting_seconds"].is_null(), "{summary:?}");
    world.run(["cat", &format!("{}:a", &ids[0][..8])]).exits(4);
    world.run(["check", "--read-data"]).exits(0);
}

#[test]
fn how_much_is_repacked_is_bounded_in_words() {
    let (world, ids) = backed_up(2);
    world.run(["forget", &ids[0], "--prune", "--max-unused", "0%", "--max-repack", "10G"]).exits(0);
    for unused in ["0", "5%", "2.5%", "100%", "1G", "unlimited"] {
        let plan = world.run(["prune", "--dry-run", "--json", "--max-unused", unused]).exits(0).events();
        assert_eq!(plan.last().unwrap()["repacked_packs"].as_u64(), Some(0), "{unused}");
    }
    for held in ["0", "10%", "1G", "unlimited"] {
        let plan = world.run(["prune", "--dry-run", "--json", "--max-held", held]).exits(0).events();
        let plan = plan.last().unwrap();
        // A tree of the snapshot that was forgotten shares a frame with what is needed.
        let resealed = plan["resealed_blobs"].as_u64().unwrap();
        assert!(held == "10%" || (resealed > 0) == (held == "0"), "{held}: {plan:?}");
        assert_eq!(plan["held_bytes_max"].is_null(), held == "unlimited", "{held}: {plan:?}");
    }
    for [bound, value] in [
        ["--max-held", ""],
        ["--max-held", "101%"],
        ["--max-unused", ""],
        ["--max-unused", "%"],
        ["--max-unused", "101%"],
        ["--max-unused", "-1%"],
        ["--max-unused", "nan%"],
        ["--max-unused", "much"],
        ["--max-repack", "5%"],
        ["--max-repack", "-1"],
        ["--max-repack", ""],
    ] {
        world.run(["prune", &format!("{bound}={value}")]).exits(2);
    }
    world.run(["forget", "a", "--max-repack", "1G"]).exits(2);
    world.run(["forget", "a", "--max-held", "1G"]).exits(2);
    let shown = world.run(["prune", "--grace", "0"]).exits(0);
    assert!(shown.err.contains("once all that is announced is deleted, packs take "), "{}", shown.err);
    world.run(["check", "--read-data"]).exits(0);
}

#[test]
fn a_snapshot_that_cannot_be_read_is_forgotten_by_its_id() {
    let (world, ids) = backed_up(2);
    let folder = world.path("repository").join("snapshots/00000001");
    let id = "ab".repeat(32);
    std::fs::write(folder.join(&id), b"rotten").unwrap();
    let stopped = world.run(["prune", "--grace", "0"]).exits(1);
    assert!(stopped.err.contains(&id) && stopped.err.contains("forget it by its id"), "{}", stopped.err);
    world.run(["forget", &"cd".repeat(32)]).exits(4);
    world.run(["forget", &id[..12], "--prune", "--grace", "0"]).exits(0);
    assert!(!folder.join(&id).exists());
    assert_eq!(world.run(["cat", &format!("{}:a", &ids[0][..8])]).exits(0).out, b"0");
    world.run(["check", "--read-data"]).exits(0);
}

/// Before anything else is looked at: what would be forgotten, and whether it may be, is not for this key to be told.
#[test]
fn a_key_that_may_not_forget_is_told_so_first() {
    let (world, ids) = backed_up(2);
    world.run(["key", "add", "--role", "writer", "--name", "w", "--new-key-file", "w.key"]).exits(0);
    for arguments in [
        vec!["forget", &ids[0], "--key-file", "w.key"],
        vec!["forget", "a", &ids[0], "--key-file", "w.key"],
        vec!["forget", "--keep-last", "1", "--key-file", "w.key"],
        vec!["undelete", &ids[0], "--key-file", "w.key"],
    ] {
        let refused = world.run(&arguments).exits(6);
        assert!(refused.out.is_empty(), "{}", refused.text());
    }
    world.run(["forget", "-n", "--keep-last", "1", "--key-file", "w.key"]).exits(0);
    assert_eq!(world.run(["snapshots", "--json"]).exits(0).events().len(), 3);
}

#[test]
fn a_forgotten_snapshot_is_copied_where_it_is_named() {
    let (world, ids) = backed_up(2);
    world.run(["forget", &ids[0]]).exits(0);
    world.run(["init", "-q", "-r", "other"]).exits(0);
    std::fs::write(world.path("password"), super::program::PASSWORD).unwrap();
    let copy =
        |what: &str| world.run(["copy", "--to", "other", "--to-password-file", "password", "--json", what]);
    let copied = copy(&ids[0]).exits(0).events();
    assert_eq!(copied.last().unwrap()["copied"].as_u64(), Some(1), "{copied:?}");
    assert_eq!(world.run(["cat", "-r", "other", "a"]).exits(0).out, b"0");
    // Whoever does not name it does not mean it.
    let all = copy("--all").exits(0).events();
    let last = all.last().unwrap();
    assert_eq!((last["copied"].as_u64(), last["present"].as_u64()), (Some(1), Some(0)), "{all:?}");
}

/// A pin keeps what was forgotten, and does not take that back: both ends of it are told.
#[test]
fn a_pin_on_what_was_forgotten_says_so() {
    let (world, ids) = backed_up(2);
    world.run(["forget", &ids[0]]).exits(0);
    let pinned = world.run(["pin", &ids[0]]).exits(0);
    assert!(pinned.err.contains("is forgotten: it stays as long as it is pinned"), "{}", pinned.err);
    let unpinned = world.run(["unpin", &ids[0]]).exits(0);
    assert!(unpinned.err.contains("`chronolith undelete"), "{}", unpinned.err);
    world.run(["undelete", &ids[0]]).exits(0);
    let unpinned = world.run(["pin", &ids[0]]).exits(0);
    assert!(!unpinned.err.contains("forgotten"), "{}", unpinned.err);
}
