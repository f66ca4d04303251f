//! Tags, pins, notes and verifications, as they are typed.

use super::program::World;

fn backed_up() -> World {
    let world = World::with_repository();
    for content in ["one", "two"] {
        world.feed(["backup", "--stdin", "app.sql"], content.as_bytes()).exits(0);
    }
    world
}

#[test]
fn what_is_said_is_found_and_shown() {
    let world = backed_up();
    world.run(["tag", "app.sql", "--add", "release=2.1", "--add", "keep"]).exits(0);
    world.run(["note", "app.sql", "before the Migration"]).exits(0);
    world.run(["pin", "app.sql", "--reason", "audit 2026"]).exits(0);
    for query in [
        vec!["snapshots", "--tag", "release=2.1"],
        vec!["snapshots", "--tag", "keep", "--pinned"],
        vec!["snapshots", "--note", "migration"],
    ] {
        let found = world.run(&query).exits(0);
        assert!(found.err.contains("1 snapshot"), "{query:?}: {}", found.err);
    }
    let said = world.run(["snapshots", "-v"]).exits(0).text();
    for text in ["tag release=2.1", "pin: audit 2026", "note: before the Migration", "(pinned)", "(1 note)"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let json = world.run(["snapshots", "--json", "--pinned"]).exits(0).text();
    assert!(json.contains("\"kind\":\"pin\"") && json.contains("\"signer\""), "{json}");
    // A pin holds against a policy and a name; then it is taken off.
    let refused = world.run(["forget", "app.sql"]).exits(2);
    assert!(refused.err.contains("audit 2026"), "{}", refused.err);
    world.run(["unpin", "app.sql"]).exits(0);
    world.run(["forget", "app.sql"]).exits(0);
    world.run(["tag", "app.sql"]).exits(2);
    world.run(["tag", "nowhere", "--add", "x"]).exits(4);
    world.run(["tag", "app.sql", "--add", "x", "--remove", "x"]).exits(2);
}

#[test]
fn verified_and_repaired_by_hand() {
    let world = backed_up();
    let good = world.run(["verify", "app.sql"]).exits(0).text();
    assert!(good.contains(": good; 1 file"), "{good}");
    let listed = world.run(["snapshots", "-v"]).exits(0).text();
    assert!(listed.contains("verified (digests): passed"), "{listed}");
    for verb in [vec!["repair", "index"], vec!["repair", "packs"], vec!["repair", "snapshots", "-n"]] {
        world.run(&verb).exits(0);
    }
    // Every content pack is lost.
    let mut packs: Vec<_> = walk(&world.path("repository/packs"));
    packs.retain(|path| std::fs::read(path).unwrap()[4] == 3);
    packs.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    world.run(["verify", "app.sql"]).exits(3);
    let lost = world.run(["repair", "packs", "--dry-run"]).exits(3).text();
    assert!(lost.contains("it is missing") && lost.contains("lost"), "{lost}");
    let hurt = world.run(["repair", "snapshots", "--forget"]).exits(3);
    assert!(hurt.text().contains("app.sql bytes 0 to 2"), "{}", hurt.text());
    assert!(hurt.err.contains("2 copies made, 2 originals forgotten"), "{}", hurt.err);
    let read = world.run(["cat", "app.sql"]).exits(0);
    assert_eq!(read.out, [0, 0, 0]);
    assert!(read.err.contains("repaired copy"), "{}", read.err);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}
