//! Mirrors, copies and several places, as a user types them.

use super::program::{PASSWORD, World};
use std::path::{Path, PathBuf};

fn packs(repository: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for shard in std::fs::read_dir(repository.join("packs")).unwrap() {
        found.extend(std::fs::read_dir(shard.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
    }
    found.sort();
    found
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn backed_up() -> World {
    let world = World::with_repository();
    world.feed(["backup", "-q", "--stdin", "app.sql"], b"insert into t values (1);").exits(0);
    world
}

#[test]
fn a_mirror_is_made_without_a_password_and_heals_both_ways() {
    let world = backed_up();
    let bare = |arguments: &[&str]| {
        let mut command = world.command();
        command.env_remove("CHRONOLITH_PASSWORD").args(arguments);
        World::finish(command, b"")
    };
    bare(&["mirror", "--to", "copy", "--dry-run"]).exits(0);
    assert!(!world.path("copy").exists());
    let told = bare(&["mirror", "--to", "copy"]).exits(0);
    assert!(told.err.contains("copied"), "{}", told.err);
    assert_eq!(world.run(["cat", "-r", "copy", "app.sql"]).exits(0).out, b"insert into t values (1);");
    let again = bare(&["mirror", "--to", "copy", "--json"]).exits(0).events();
    assert_eq!(again.last().unwrap()["copied"], 0);

    let (here, there) = (packs(&world.path("repository")), packs(&world.path("copy")));
    flip(&here[0]);
    let report = bare(&["mirror", "--to", "new"]).exits(3);
    assert!(report.text().contains("is damaged at the source"), "{}", report.text());
    flip(&there[1]);
    bare(&["mirror", "--to", "copy", "--heal"]).exits(0);
    world.run(["check", "--read-data"]).exits(0);
    world.run(["check", "--read-data", "-r", "copy"]).exits(0);

    // What follows takes a key.
    bare(&["mirror", "--to", "copy", "--delete"]).exits(2);
    world.run(["mirror", "--to", "copy", "--delete"]).exits(0);
    std::fs::remove_file(&here[0]).unwrap();
    let stopped = world.run(["mirror", "--to", "copy", "--delete"]).exits(1);
    assert!(stopped.err.contains("nothing was deleted"), "{}", stopped.err);
    assert!(there[0].exists());
    let healed = world.run(["mirror", "--to", "copy", "--heal", "--lost", "--json"]).exits(0).events();
    assert_eq!(healed.last().unwrap()["lost"], 1);
    world.run(["check", "--read-data"]).exits(0);
}

#[test]
fn a_mirror_of_something_else_is_refused() {
    let world = backed_up();
    world.run(["init", "-q", "-r", "other"]).exits(0);
    let refused = world.run(["mirror", "--to", "other"]).exits(2);
    assert!(refused.err.contains("another repository"), "{}", refused.err);
    world.write("photos/1", b"x");
    world.run(["mirror", "--to", "photos"]).exits(2);
    world.run(["mirror", "--to", "repository"]).exits(2);
    world.run(["mirror", "-r", "nowhere", "--to", "copy"]).exits(4);
    assert!(!world.path("copy").exists());
}

#[test]
fn places_that_are_one_are_refused() {
    let world = backed_up();
    std::os::unix::fs::symlink("repository", world.path("link")).unwrap();
    for also in ["repository", "link", "./repository/"] {
        let refused = world.run(["snapshots", "--also", also]).exits(2);
        assert!(refused.err.contains("are one place"), "{}", refused.err);
    }
    for to in ["repository/within", "link/within/deeper", "."] {
        world.run(["mirror", "--to", to]).exits(2);
    }
    assert!(!world.path("repository/within").exists());
}

#[test]
fn a_copy_of_what_does_not_exist_is_not_a_copy() {
    let world = backed_up();
    let mut init = world.command();
    init.args(["init", "-q", "-r", "other"]);
    World::finish(init, b"").exits(0);
    let mut copy = world.command();
    copy.env("CHRONOLITH_TO_PASSWORD", super::program::PASSWORD);
    copy.args(["copy", "--to", "other", "--label", "misspelt"]);
    let missed = World::finish(copy, b"").exits(4);
    assert!(missed.err.contains("no snapshot has this label"), "{}", missed.err);
}

#[test]
fn a_copy_goes_into_a_repository_with_another_password() {
    let world = backed_up();
    let password = world.write("other.password", b"another one\n");
    let mut init = world.command();
    init.env("CHRONOLITH_PASSWORD", "another one").args(["init", "-q", "-r", "other"]);
    init.args(["--cipher", "aes-256-gcm"]);
    World::finish(init, b"").exits(0);
    world.run(["tag", "app.sql", "--add", "release=1"]).exits(0);
    let to = ["--to", "other", "--to-password-file", password.to_str().unwrap()];
    let copy = |more: &[&str]| world.run([&["copy"][..], &to, more].concat());
    copy(&[]).exits(2);
    copy(&["--all", "--dry-run"]).exits(0);
    let copied = copy(&["--all", "--json"]).exits(0).events();
    assert_eq!(copied[0]["outcome"], "copied");
    assert_eq!(copied.last().unwrap()["copied"], 1);
    assert_eq!(copy(&["--label", "app.sql", "--json"]).exits(0).events().last().unwrap()["present"], 1);
    let mut cat = world.command();
    cat.env("CHRONOLITH_PASSWORD", "another one").args(["cat", "-r", "other", "app.sql"]);
    assert_eq!(World::finish(cat, b"").exits(0).out, b"insert into t values (1);");
    let mut list = world.command();
    list.env("CHRONOLITH_PASSWORD", "another one").args(["snapshots", "--json", "-r", "other"]);
    let listed = World::finish(list, b"").exits(0).events();
    assert_eq!(listed[0]["facts"]["copied-from"], copied[0]["id"]);
    assert_eq!(listed[0]["tags"]["release"], "1");

    let mut wrong = world.command();
    wrong.env("CHRONOLITH_TO_PASSWORD", PASSWORD).args(["copy", "--to", "other", "--all"]);
    assert!(!World::finish(wrong, b"").exits(5).err.contains(PASSWORD));
    world.run(["copy", "--to", "other", "--all"]).exits(2);
    world.run(["copy", "--to", "nowhere", "--all"]).exits(4);
}

#[test]
fn a_repository_in_two_places_outlives_each_of_them() {
    let world = World::new();
    let places = ["-r", "one", "--also", "two"];
    let run = |arguments: &[&str]| world.run([arguments, &places[..]].concat());
    run(&["init", "-q"]).exits(0);
    let mut backup = world.command();
    backup.args(["backup", "-q", "--stdin", "a"]).args(places);
    World::finish(backup, b"first").exits(0);
    assert_eq!(packs(&world.path("one")).len(), packs(&world.path("two")).len());
    for place in ["one", "two"] {
        assert_eq!(world.run(["cat", "-r", place, "a"]).exits(0).out, b"first");
    }
    let events = run(&["check", "--json"]).exits(0).events();
    let stores: Vec<_> =
        events.iter().filter(|e| e["event"] == "summary").map(|e| e["store"].clone()).collect();
    assert_eq!(stores, ["one", "two"]);

    flip(&packs(&world.path("one"))[0]);
    assert_eq!(run(&["cat", "a"]).exits(0).out, b"first");
    let hurt = run(&["check", "--read-data"]).exits(3);
    assert!(hurt.text().contains("one:"), "{}", hurt.text());
    world.run(["mirror", "--heal", "-r", "one", "--to", "two"]).exits(0);
    run(&["check", "--read-data"]).exits(0);

    // A disk that is not mounted is not filled, and reading goes on.
    std::fs::rename(world.path("two"), world.path("elsewhere")).unwrap();
    std::fs::create_dir(world.path("two")).unwrap();
    let read = run(&["cat", "a"]).exits(0);
    assert!(read.err.contains("two"), "{}", read.err);
    assert_eq!(read.out, b"first");
    let feed = |more: &[&str]| {
        let mut backup = world.command();
        backup.args(["backup", "-q", "--stdin", "b"]).args(places).args(more);
        World::finish(backup, b"second")
    };
    feed(&[]).exits(1);
    feed(&["--quorum", "2"]).exits(1);
    assert_eq!(std::fs::read_dir(world.path("two")).unwrap().count(), 0);
    std::fs::remove_dir(world.path("two")).unwrap();
    std::fs::rename(world.path("elsewhere"), world.path("two")).unwrap();
    feed(&["--quorum", "1"]).exits(0);
    world.run(["init", "-q", "-r", "three"]).exits(0);
    world.run(["snapshots", "-r", "one", "--also", "three"]).exits(2);
    world.run(["snapshots", "-r", "one", "--quorum", "2"]).exits(2);
    world.run(["snapshots", "-r", "one", "--also", "two", "--quorum", "3"]).exits(2);
}

/// Each place is whole in itself, and yet one of them would not do alone.
#[test]
fn a_place_that_was_away_lacks_what_came_meanwhile() {
    let world = World::new();
    let places = ["-r", "one", "--also", "two", "--also", "three", "--quorum", "2"];
    let run = |arguments: &[&str]| world.run([arguments, &places[..]].concat());
    let feed = |bytes: &[u8]| {
        let mut backup = world.command();
        backup.args(["backup", "-q", "--stdin", "a"]).args(places);
        World::finish(backup, bytes)
    };
    run(&["init", "-q"]).exits(0);
    for bytes in [b"1", b"2", b"3"] {
        feed(bytes).exits(0);
    }
    run(&["check"]).exits(0);
    // What was forgotten meanwhile is not missed, nor what was said of a snapshot that is there not told.
    let ids = run(&["snapshots", "--json"]).exits(0).events();
    let ids: Vec<&str> = ids.iter().filter_map(|event| event["id"].as_str()).collect();
    std::fs::rename(world.path("three"), world.path("away")).unwrap();
    feed(b"4").exits(0);
    feed(b"5").exits(0);
    run(&["pin", ids[1]]).exits(0);
    run(&["forget", ids[0]]).exits(0);
    std::fs::rename(world.path("away"), world.path("three")).unwrap();
    let lacking = run(&["check", "--json"]).exits(3).events();
    let lacking: Vec<_> = lacking.iter().filter(|event| event["event"] == "lacking").collect();
    assert_eq!(lacking.len(), 1, "{lacking:?}");
    assert_eq!(lacking[0]["store"], "three");
    assert_eq!(lacking[0]["snapshots"].as_array().unwrap().len(), 2);
    assert!(lacking[0]["annotations"].as_u64() >= Some(1), "{lacking:?}");
    let told = run(&["check"]).exits(3);
    assert!(told.err.contains("three lacks 2 snapshots"), "{}", told.err);
    world.run(["mirror", "-r", "one", "--to", "three"]).exits(0);
    run(&["check"]).exits(0);
}
