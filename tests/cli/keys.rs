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
