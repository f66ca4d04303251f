//! Keys by role, passwords, recovery sheets.

use super::program::World;

#[test]
fn a_writer_adds_and_cannot_read() {
    let world = World::with_repository();
    world.run(["key", "add", "--role", "writer", "--host", "db-*", "--new-key-file", "w.key"]).exits(0);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(world.path("w.key")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    world.feed(["backup", "-q", "--host", "db-1", "--stdin", "s", "--key-file", "w.key"], b"secret").exits(0);
    world.feed(["backup", "-q", "--host", "other", "--stdin", "s", "--key-file", "w.key"], b"x").exits(6);
    world.run(["cat", "s", "--key-file", "w.key"]).exits(6);
    world.run(["key", "add", "--role", "owner", "--new-key-file", "o.key", "--key-file", "w.key"]).exits(6);
    assert!(!world.path("o.key").exists(), "a key file for nothing was left");
    assert_eq!(world.run(["cat", "s"]).exits(0).out, b"secret");
}

#[test]
fn a_password_changes_and_the_sheet_stays_good() {
    let world = World::with_repository();
    world.feed(["backup", "-q", "--stdin", "s"], b"secret").exits(0);
    world.run(["key", "export", "--to", "sheet"]).exits(0);
    world.write("new", b"another-password\n");
    world.run(["key", "passwd", "--new-password-file", "new"]).exits(0);
    world.run(["snapshots", "--no-key-cache"]).exits(5);
    let mut command = world.command();
    command.env("CHRONOLITH_PASSWORD", "another-password").args(["cat", "s"]);
    assert_eq!(World::finish(command, b"").exits(0).out, b"secret");
    let mut command = world.command();
    command.env_remove("CHRONOLITH_PASSWORD").args(["cat", "s", "--key-file", "sheet"]);
    assert_eq!(World::finish(command, b"").exits(0).out, b"secret");
}

#[test]
fn a_removed_key_opens_nothing_and_the_last_owner_stays() {
    let world = World::with_repository();
    world.write("p", b"reader-password");
    world.run(["key", "add", "--role", "reader", "--name", "rita", "--new-password-file", "p"]).exits(0);
    world.run(["snapshots", "--password-file", "p"]).exits(0);
    world.run(["key", "remove", "rita", "--dry-run"]).exits(0);
    world.run(["snapshots", "--password-file", "p"]).exits(0);
    world.run(["key", "remove", "rita"]).exits(0);
    world.run(["snapshots", "--password-file", "p"]).exits(5);
    let keys = world.run(["key", "list", "--json"]).exits(0).events();
    let owner = keys.iter().find(|key| key["role"] == "owner").unwrap();
    world.run(["key", "remove", owner["key"].as_str().unwrap()]).exits(2);
    assert_eq!(keys.last().unwrap()["keys"], 2);
    assert_eq!(keys[1]["standing"], "removed");
}

#[test]
fn epochs_begin_and_a_leaked_key_is_ended() {
    let world = World::with_repository();
    world.run(["key", "add", "--role", "writer", "--name", "web", "--new-key-file", "web.key"]).exits(0);
    let as_writer = |content: &str| {
        world.feed(["backup", "-q", "--stdin", "app.sql", "--key-file", "web.key"], content.as_bytes())
    };
    as_writer("one").exits(0);
    world.run(["key", "rotate"]).exits(0);
    as_writer("two").exits(0);
    // What is accepted must be said, and a dry run changes nothing.
    world.run(["key", "revoke", "web"]).exits(2);
    world.run(["key", "revoke", "web", "--accept-before", "no time"]).exits(2);
    world.run(["key", "revoke", "nobody", "--accept-all"]).exits(4);
    let plan = world.run(["key", "revoke", "web", "--accept-none", "-n"]).exits(0).text();
    assert!(
        plan.contains("snapshots: 0 of 2 still accepted") && plan.contains("no longer accepted: snapshot"),
        "{plan}"
    );
    as_writer("three").exits(0);
    let done = world.run(["key", "revoke", "web", "--accept-all", "--json"]).exits(0).events();
    let summary = done.last().unwrap();
    assert_eq!((summary["epoch"].as_u64(), summary["refused"].as_u64()), (Some(3), Some(0)));
    assert!(world.run(["key", "list"]).exits(0).text().contains("revoked"));
    as_writer("four").exits(5);
    assert_eq!(world.run(["snapshots", "--json"]).exits(0).events().len(), 4);
    assert_eq!(world.run(["cat", "app.sql"]).exits(0).out, b"three");
}

/// A sheet is typed from paper, by hand.
#[test]
fn a_sheet_is_recognised_as_it_was_typed() {
    let world = World::with_repository();
    world.feed(["backup", "-q", "--stdin", "s"], b"secret").exits(0);
    world.run(["key", "export", "--to", "sheet"]).exits(0);
    let sheet = std::fs::read_to_string(world.path("sheet")).unwrap();
    let (_, lines) = sheet.split_once('\n').unwrap();
    let open = |text: String| {
        world.write("typed", text.as_bytes());
        let mut command = world.command();
        command.env_remove("CHRONOLITH_PASSWORD").args(["cat", "s", "--key-file", "typed"]);
        World::finish(command, b"")
    };
    for title in [
        "Chronolith Recovery Sheet 1",
        "\u{feff}chronolith recovery sheet 1",
        "  chronolith  recovery sheet 1 ",
    ] {
        assert_eq!(open(format!("{title}\n{lines}")).exits(0).out, b"secret", "{title}");
    }
    let untitled = open(lines.to_owned()).exits(2);
    assert!(untitled.err.contains("has to begin with the line"), "{}", untitled.err);
    let newer = open(format!("chronolith recovery sheet 2\n{lines}")).exits(7);
    assert!(newer.err.contains("another version"), "{}", newer.err);
    // It is no key file for another repository: that would open with nothing but this very file.
    let other = world.run(["init", "-q", "-r", "other", "--key-file", "sheet"]).exits(2);
    assert!(other.err.contains("--new-key-file"), "{}", other.err);
    assert!(!world.path("other/chronolith").exists());
}

#[test]
fn the_sheet_of_a_removed_key_says_so() {
    let world = World::with_repository();
    world.run(["key", "add", "--role", "owner", "--name", "old", "--new-key-file", "old.key"]).exits(0);
    world.run(["key", "export", "--to", "sheet", "--key-file", "old.key"]).exits(0);
    world.feed(["backup", "-q", "--stdin", "s"], b"secret").exits(0);
    let in_service = world.run(["cat", "s", "--key-file", "sheet"]).exits(0);
    assert!(!in_service.err.contains("out of service"), "{}", in_service.err);
    world.run(["key", "remove", "old"]).exits(0);
    let removed = world.run(["cat", "s", "--key-file", "sheet"]).exits(0);
    assert!(removed.err.contains("out of service"), "{}", removed.err);
    // Once is enough, and a variable that is not set names nothing.
    world.run(["key", "remove", "old"]).exits(2);
    world.run(["key", "remove", ""]).exits(4);
    world.run(["key", "add", "--role", "reader", "--name", "", "--new-key-file", "r.key"]).exits(2);
    // Of a revoked key more may be accepted later, by its name too.
    world.run(["key", "add", "--role", "writer", "--name", "w", "--new-key-file", "w.key"]).exits(0);
    world.run(["key", "revoke", "w", "--accept-none"]).exits(0);
    world.run(["key", "revoke", "w", "--accept-all"]).exits(0);
}

/// What the session of somebody who left has put is nobody's any more.
#[test]
fn sessions_of_a_removed_key_are_swept_without_a_word() {
    let world = World::with_repository();
    world.run(["key", "add", "--role", "writer", "--name", "w", "--new-key-file", "w.key"]).exits(0);
    for number in 0..3 {
        let backup = ["backup", "-q", "--stdin", "s", "--key-file", "w.key"];
        world.feed(backup, number.to_string().as_bytes()).exits(0);
    }
    world.run(["key", "remove", "w"]).exits(0);
    let sessions = || std::fs::read_dir(world.path("repository/sessions")).map_or(0, Iterator::count);
    let before = sessions();
    assert!(before > 5, "{before}");
    for _ in 0..3 {
        let pruned = world.run(["prune", "--grace", "0"]).exits(0);
        assert!(!pruned.err.contains("session"), "{}", pruned.err);
    }
    // Those of the last prunes are left.
    assert!(sessions() <= 5, "{} of {before}", sessions());
}

#[test]
fn an_init_that_is_refused_leaves_nothing() {
    let world = World::new();
    world.write("short", b"1");
    world.run(["init", "-q", "-r", "new", "--key-file", "short"]).exits(2);
    world.write("long", &[7; 32]);
    world.run(["init", "-q", "-r", "new", "--key-file", "long"]).exits(0);
    let one = world.run(["init", "-q", "-r", "m", "--also", "m", "--key-file", "long"]).exits(2);
    assert!(one.err.contains("are one place"), "{}", one.err);
}
