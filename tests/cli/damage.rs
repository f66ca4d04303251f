//! What is damaged, as it is told: which paths it hurts, and what helps.

use super::program::{Outcome, World};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

fn packs_of(world: &World, kind: u8) -> Vec<PathBuf> {
    let shards = std::fs::read_dir(world.path("repository/packs")).unwrap();
    let packs = shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap());
    let packs = packs.map(|pack| pack.unwrap().path());
    packs.filter(|pack| std::fs::read(pack).unwrap()[4] == kind).collect()
}

fn overwrite(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn names_that_are_no_text_come_whole_in_json() {
    let world = World::with_repository();
    let folder = world.path("d");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join(OsStr::from_bytes(b"rnd\xff")), noise(30_000)).unwrap();
    world.run(["backup", "-q", "--label", "d", "d"]).exits(0);
    packs_of(&world, 3).iter().for_each(|pack| overwrite(pack, |bytes| bytes.fill(0)));
    let hex = |outcome: Outcome, event: &str| {
        let events = outcome.events();
        let found =
            events.iter().find(|found| found["event"] == event).unwrap_or_else(|| panic!("{events:?}"));
        (found["path"].as_str().unwrap().to_owned(), found["path_hex"].as_str().unwrap().to_owned())
    };
    for (path, hex) in [
        hex(world.run(["check", "--json"]).exits(3), "affected"),
        hex(world.run(["repair", "snapshots", "-n", "--json"]).exits(3), "lost"),
        hex(world.run(["restore", "d", "--target", "out", "--json"]).exits(3), "problem"),
    ] {
        assert!(path.ends_with("rnd\u{fffd}") && hex.ends_with("726e64ff"), "{path} {hex}");
    }
    // The path of the root is empty, and is shown all the same.
    packs_of(&world, 4).iter().for_each(|pack| overwrite(pack, |bytes| bytes.fill(0)));
    let text = world.run(["check"]).exits(3).text();
    assert!(text.lines().any(|line| line.starts_with("hurt: ") && line.ends_with(":/")), "{text}");
    let restored = world.run(["restore", "d", "--target", "out2"]).exits(3).err;
    assert!(restored.contains("warning: /: "), "{restored}");
    let repaired = world.run(["repair", "snapshots", "-n"]).exits(3).text();
    assert!(repaired.contains("`chronolith forget "), "{repaired}");
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

/// What helps depends on what is damaged.
#[test]
fn a_check_ends_with_the_cure_that_fits() {
    let object = |world: &World, area: &str| -> PathBuf {
        let mut path = world.path("repository").join(area);
        while path.is_dir() {
            path = std::fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
        }
        path
    };
    let flip = |path: &Path| overwrite(path, |bytes| bytes[100] ^= 1);
    let cures = [
        ("index", "chronolith repair index"),
        ("sessions", "`chronolith prune` removes them"),
        ("snapshots", "mirror --heal"),
    ];
    for (area, cure) in cures {
        let world = World::with_repository();
        world.feed(["backup", "-q", "--stdin", "g"], b"g").exits(0);
        flip(&object(&world, area));
        for repair in [&["check"][..], &["check", "--repair"]] {
            let said = world.run(repair).exits(3).err;
            assert!(said.contains(cure), "{area}: {said}");
            assert!(
                !said.contains("back the sources up") && !said.contains("`chronolith check --repair`"),
                "{said}"
            );
        }
    }
    let world = World::with_repository();
    world.feed(["backup", "-q", "--stdin", "f"], &noise(20_000)).exits(0);
    world.run(["parity", "add", "5%"]).exits(0);
    flip(&object(&world, "parity"));
    assert!(world.run(["check"]).exits(3).err.contains("`chronolith check --repair`"));
    assert!(world.run(["check", "--repair"]).exits(0).text().contains("made anew"));
    flip(&object(&world, "parity"));
    assert!(world.run(["parity", "repair"]).exits(0).text().contains("made anew"));
    world.run(["check"]).exits(0);
    // No part of the index is left: it costs time, no more, and who knows it can mend it.
    world.run(["parity", "drop"]).exits(0);
    std::fs::remove_dir_all(world.path("repository/index")).unwrap();
    assert!(world.run(["check"]).exits(0).err.contains("chronolith repair index"));
    world.run(["repair", "index"]).exits(0);
    assert!(!world.run(["check"]).exits(0).err.contains("repair index"));
    // A head without parity: its frames are whole.
    let pack = packs_of(&world, 3).remove(0);
    overwrite(&pack, |bytes| bytes[10] ^= 1);
    let said = world.run(["check", "--read-data"]).exits(3).err;
    assert!(said.contains("chronolith repair packs") && said.contains("are whole"), "{said}");
}
