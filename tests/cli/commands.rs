//! What the commands do, by what they write.

use super::program::World;

#[test]
fn a_stream_comes_back_byte_by_byte() {
    let world = World::with_repository();
    let dump: Vec<u8> = (0..200_000_u32).flat_map(|n| format!("row {n}\n").into_bytes()).collect();
    let made =
        world.feed(["backup", "--host", "h", "--label", "dump", "--tag", "d0", "--stdin", "dump.sql"], &dump);
    assert!(made.exits(0).out.is_empty());
    for arguments in
        [vec!["cat", "dump:dump.sql"], vec!["cat", "dump"], vec!["restore", "dump:dump.sql", "--to", "-"]]
    {
        assert!(world.run(&arguments).exits(0).out == dump, "{arguments:?}");
    }
    let listed = world.run(["snapshots"]).exits(0).text();
    assert!(listed.contains("dump") && listed.contains("d0"), "{listed}");
}

#[test]
fn a_folder_is_listed_searched_compared_and_restored() {
    let world = World::with_repository();
    world.write("data/one", b"1");
    world.write("data/sub/two\nlines", b"2");
    world.run(["backup", "-q", "--label", "data", "data"]).exits(0);
    world.write("data/three", b"3");
    let made = world.run(["backup", "--json", "--label", "data", "data"]).exits(0).events();
    let summary = made.last().unwrap();
    assert_eq!((summary["event"].as_str(), summary["label"].as_str()), (Some("summary"), Some("data")));
    let listed = world.run(["snapshots", "--json"]).exits(0).events();
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[1]["parent"], listed[0]["id"]);
    let first = listed[0]["id"].as_str().unwrap();
    let inside = format!("data:{}", world.path("data").display());
    let names = world.run(["ls", &inside]).exits(0).text();
    assert_eq!(names, "one\nsub/\nthree\n");
    let found = world.run(["find", "two*"]).exits(0).text();
    assert!(found.contains("two\\nlines"), "{found}");
    let diff = world.run(["diff", &first[..12], "data"]).exits(0).text();
    assert!(diff.contains("+ ") && diff.contains("/three"), "{diff}");
    world.run(["restore", &inside, "--target", "out", "--verify"]).exits(0);
    assert_eq!(std::fs::read(world.path("out/sub/two\nlines")).unwrap(), b"2");
    world.write("out/extra", b"x");
    let dry = world.run(["restore", &inside, "--target", "out", "--delete", "--dry-run"]).exits(0).text();
    assert_eq!(dry, "- extra\n");
    world.run(["restore", &inside, "--target", "out", "--delete"]).exits(0);
    assert!(!world.path("out/extra").exists());
}

#[test]
fn latest_is_refused_where_it_could_be_several() {
    let world = World::with_repository();
    world.feed(["backup", "-q", "--stdin", "a"], b"a").exits(0);
    assert_eq!(world.run(["cat", "latest"]).exits(0).out, b"a");
    world.feed(["backup", "-q", "--stdin", "b"], b"b").exits(0);
    let refused = world.run(["cat", "latest"]).exits(2);
    assert!(refused.err.contains("a, b"), "{}", refused.err);
    assert_eq!(world.run(["cat", "a@{now}"]).exits(0).out, b"a");
    world.run(["cat", "a@{2001-01-01}"]).exits(4);
}

#[test]
fn advice_is_given_for_what_could_be_better() {
    let world = World::with_repository();
    let gzip = [&[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3][..], &[5; 500]].concat();
    let outcome = world.feed(["backup", "--stdin", "x.gz"], &gzip).exits(0);
    assert!(outcome.err.contains("gzip") && outcome.err.contains("uncompressed"), "{}", outcome.err);
    let outcome = world.run(["backup", "--stdin", "nothing"]).exits(0);
    assert!(outcome.err.contains("empty"), "{}", outcome.err);
}

#[test]
fn a_profile_holds_the_options() {
    let world = World::with_repository();
    let repository = world.path("repository");
    world.write("conf/password", b"hunter2-is-the-password\n");
    let text = format!(
        "[profile.nightly]\nrepo = {:?}\npassword-file = \"password\"\n",
        repository.display().to_string()
    );
    let file = world.write("conf/config.toml", text.as_bytes());
    let mut command = world.command();
    command.env_remove("CHRONOLITH_REPO").env_remove("CHRONOLITH_PASSWORD");
    command.args(["snapshots", "--profile", "nightly", "--config"]).arg(&file);
    World::finish(command, b"").exits(0);
    // Paths in it are meant from where it stands, wherever the program runs.
    let text = "[profile.nightly]\nrepo = \"../repository\"\npassword-file = \"password\"\n";
    world.write("conf/config.toml", text.as_bytes());
    let mut command = world.command();
    command.env_remove("CHRONOLITH_REPO").env_remove("CHRONOLITH_PASSWORD").current_dir("/");
    command.args(["snapshots", "--profile", "nightly", "--config"]).arg(&file);
    World::finish(command, b"").exits(0);
    // No shell sees what stands in a file.
    let text = "[profile.nightly]\nrepo = \"~/repository\"\npassword-file = \"password\"\n";
    std::fs::write(&file, text).unwrap();
    let mut command = world.command();
    command.env_remove("CHRONOLITH_PASSWORD").env_remove("CHRONOLITH_REPO").env("HOME", world.path(""));
    command.args(["snapshots", "--profile", "nightly", "--config"]).arg(&file);
    World::finish(command, b"").exits(0);
    let unknown = world.run(["snapshots", "--profile", "daily", "--config", file.to_str().unwrap()]).exits(2);
    assert!(unknown.err.contains("nightly"), "{}", unknown.err);
}

#[test]
fn the_sqlite_part_of_the_demonstration_needs_nothing_and_leaves_nothing() {
    let world = World::new();
    let temporary = world.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = world.command();
    // Without PostgreSQL in sight of a socket path that is short enough, its part is left out.
    let long = temporary.join("a-folder-with-a-name-so-long-that-no-socket-fits-below-it-whatever-its-name");
    std::fs::create_dir(&long).unwrap();
    command.env("TMPDIR", &long).arg("demo");
    let outcome = World::finish(command, b"").exits(0);
    assert!(outcome.text().contains("120000 of 120000 rows"), "{}", outcome.text());
    assert!(outcome.text().contains("Summary"));
    assert_eq!(std::fs::read_dir(&long).unwrap().count(), 0);
}

#[test]
fn a_check_that_finds_no_snapshot_hurt_says_so_and_what_puts_it_right() {
    let world = World::with_repository();
    world.feed(["backup", "-q", "--stdin", "app.sql"], b"insert into t values (1);").exits(0);
    let copy = world.path("repository/copies/chronolith");
    let whole = std::fs::read(&copy).unwrap();
    std::fs::remove_file(&copy).unwrap();
    std::fs::write(&copy, b"rotten").unwrap();
    let said = world.run(["check"]).exits(3);
    assert!(said.text().contains("copies/chronolith"), "{}", said.text());
    assert!(said.err.contains("are whole") && said.err.contains("check --repair"), "{}", said.err);
    assert!(!said.err.contains("back the sources up"), "{}", said.err);
    let said = world.run(["check", "--repair"]).exits(0).text();
    assert!(said.contains("put right from its other copy"), "{said}");
    assert_eq!(std::fs::read(&copy).unwrap(), whole);
    assert!(world.run(["check"]).exits(0).err.contains("no damage was found"));
    // What a snapshot needs is another matter.
    std::fs::remove_dir_all(world.path("repository/packs")).unwrap();
    assert!(world.run(["check"]).exits(3).err.contains("back the sources up"));
}

#[test]
fn a_check_repairs_from_parity_when_it_is_told_to() {
    let world = World::with_repository();
    let dump: Vec<u8> = (0..50_000_u32).flat_map(|n| format!("row {n}\n").into_bytes()).collect();
    world.feed(["backup", "-q", "--stdin", "dump.sql"], &dump).exits(0);
    world.run(["parity", "add", "10%"]).exits(0);
    let shards = std::fs::read_dir(world.path("repository/packs")).unwrap();
    let packs = shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap());
    let pack =
        packs.map(|pack| pack.unwrap().path()).max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[3000] ^= 1;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    let said = world.run(["check", "--read-data", "--no-ledger"]).exits(3);
    assert!(said.text().contains("check --repair"), "{}", said.text());
    let done = world.run(["check", "--read-data", "--repair"]).exits(0);
    assert!(done.text().contains("put right from its parity"), "{}", done.text());
    assert!(done.err.contains("1 object put right"), "{}", done.err);
    let events = world.run(["check", "--repair", "--json"]).exits(0).events();
    assert_eq!(events.last().unwrap()["repaired"], 0);
    assert!(world.run(["cat", "dump.sql"]).exits(0).out == dump);
}
