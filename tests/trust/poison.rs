//! A writer's key was stolen, and its thief poisons what others of the same trust domain share: packs
//! and index runs, rightly sealed and signed, that say of a blob that it lies where something else does.
//!
//! Readers are never deceived, `check` names the pack, any other copy serves. But the poisoned copy
//! *is* adopted by backups of its own domain, which cannot decrypt, as long as the pack is there
//! (`format-spec/threat-model.md`, "What a stolen key can and cannot do"): the tests say so, too.

use crate::forge::{Claim, client_with, entry_of, index_run, poison, put, records_of};
use crate::support::world::{Client, Content, content, dump, noise};
use chronolith::base::{BlobId, SnapshotId};
use chronolith::codec::{Compressor, Encoding};
use chronolith::format::index::IndexRecord;
use chronolith::format::pack::BlobClass;
use chronolith::format::trust::Role;
use chronolith::ops::cat::cat;
use chronolith::ops::check::{CheckOptions, CheckReport, Gravity, ReadData, check};
use chronolith::ops::listing::{Found, locate};
use chronolith::ops::restore::{RestoreOptions, RestorePlan};
use chronolith::storage::MemoryStore;
use std::sync::Arc;

/// Short enough for one chunk.
const LENGTH: u32 = 900;
const TARGET: &str = "later.bin";

struct Scene {
    owner: Client,
    victim: Client,
    thief: Client,
    /// What the victim is going to back up; the thief knows the bytes of one file beforehand.
    future: Content,
    /// The id of the chunk that this file will be.
    id: BlobId,
}

/// Two writers of one domain, one of them a thief.
fn scene() -> Scene {
    let owner = Client::init(Arc::new(MemoryStore::new()), 21);
    let victim = client_with(&owner, Role::Writer, "victim", "shared", &["db1"]);
    let thief = client_with(&owner, Role::Writer, "thief", "shared", &["web"]);
    victim.back_up(&content([("app.sql", dump(1, 2000, 7))]));
    let future = content([(TARGET, noise(77, LENGTH as usize)), ("app.sql", dump(1, 2000, 7))]);
    let id = thief.open().keyring().id_key(BlobClass::Content).unwrap().blob_id(&noise(77, LENGTH as usize));
    Scene { owner, victim, thief, future, id }
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let encoding = Compressor::new(3).unwrap().compress(plain, &mut encoded).unwrap();
    assert_eq!(encoding, Encoding::Zstd);
    encoded
}

/// Everything that can be wrong with a frame that opens, or does not.
fn poisons(id: BlobId) -> Vec<(&'static str, Claim)> {
    let claim = |encoding, base, encoded| Claim { blob: (id, LENGTH), encoding, base, encoded };
    let mut difference = Vec::new();
    Compressor::new(3).unwrap().difference(&noise(1, 900), &noise(78, 900), &mut difference).unwrap();
    vec![
        ("other bytes", claim(Encoding::Stored, None, noise(78, LENGTH as usize))),
        ("one bit", {
            let mut bytes = noise(77, LENGTH as usize);
            bytes[450] ^= 1;
            claim(Encoding::Stored, None, bytes)
        }),
        ("too short", claim(Encoding::Zstd, None, zstd(&[7; 100]))),
        ("far too long", claim(Encoding::Zstd, None, zstd(&vec![7; 8 << 20]))),
        ("no zstd at all", claim(Encoding::Zstd, None, noise(5, 40))),
        ("a difference against itself", claim(Encoding::Difference, Some(id), difference.clone())),
        ("a difference against nothing", claim(Encoding::Difference, Some(BlobId::new([9; 32])), difference)),
    ]
}

impl Scene {
    /// How many packs of content there are.
    fn packs(&self) -> usize {
        let store = &self.owner.store;
        let packs = store.list("packs/").unwrap().into_iter();
        packs.filter(|pack| store.get(&pack.name, u64::MAX).unwrap()[4] == 3).count()
    }

    fn check(&self, read_data: ReadData) -> CheckReport {
        check(&self.owner.open(), &CheckOptions { read_data, ..CheckOptions::default() }).unwrap()
    }

    /// Says whether a snapshot comes back whole, by every way to read it. None of them ever gives the
    /// thief's bytes, and all that fail name the pack.
    fn reads(&self, id: SnapshotId, pack: &str, what: &str) -> bool {
        let repository = self.owner.open();
        let read = self.owner.read(id);
        if let Err(error) = &read {
            let text = format!("{error} {error:?}");
            assert!(text.contains(pack), "{what}: {text}");
        }
        repository.load_index().unwrap();
        let listing = repository.snapshots().unwrap();
        let root = listing.found.into_iter().find(|found| found.id == id).unwrap().snapshot.root;
        let target = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let options = RestoreOptions { no_sync: true, ..RestoreOptions::default() };
        let report =
            RestorePlan::new(&repository, &root, &[], target.path(), options).unwrap().run().unwrap();
        let path = target.path().join(TARGET);
        let mut streamed = Vec::new();
        let Found::Leaf(entry) = locate(&repository, &root, &[TARGET.into()]).unwrap() else {
            panic!("{what}: {TARGET} is a folder");
        };
        let cat = cat(&repository, TARGET, &entry.content.unwrap(), &mut streamed);
        // Its neighbour has nothing to do with it.
        assert_eq!(std::fs::read(target.path().join("app.sql")).unwrap(), self.future["app.sql".as_bytes()]);
        let whole = read.is_ok();
        assert_eq!((report.complete(), cat.is_ok()), (whole, whole), "{what}");
        if whole {
            assert_eq!(read.unwrap(), self.future, "{what}");
            assert_eq!(std::fs::read(path).unwrap(), self.future[TARGET.as_bytes()], "{what}");
            assert_eq!(streamed, self.future[TARGET.as_bytes()], "{what}");
        } else {
            assert!(!path.exists(), "{what}: a file that is not what was backed up");
            assert!(streamed.is_empty(), "{what}: bytes that are not what was backed up");
            assert!(report.problems.iter().any(|problem| problem.what.contains(pack)), "{what}: {report:?}");
        }
        whole
    }

    /// The check that reads names the pack, and these snapshots, with the path.
    fn is_named(&self, pack: &str, hurt: &[SnapshotId], what: &str) {
        let report = self.check(ReadData::All);
        assert!(report.is_damaged(), "{what}");
        let named: Vec<&str> = report.findings.iter().map(|finding| finding.object.as_str()).collect();
        assert!(named.contains(&pack), "{what}: {named:?}");
        let mut found: Vec<_> = report.hurt.iter().map(|(id, _)| *id).collect();
        let mut expected = hurt.to_vec();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{what}");
        for affected in &report.affected {
            assert_eq!(affected.path, TARGET.as_bytes(), "{what}");
            assert!(affected.because.iter().any(|object| object == pack), "{what}: {affected:?}");
        }
    }
}

#[test]
fn a_poisoned_chunk_is_never_read_as_the_real_one_and_check_names_it() {
    let id = scene().id;
    for number in 0..poisons(id).len() {
        let scene = scene();
        let (what, claim) = poisons(scene.id).swap_remove(number);
        let (pack, run) = poison(&scene.thief, BlobClass::Content, claim);
        // Nobody relies on it yet. Only who reads content can see what it is.
        assert!(!scene.check(ReadData::None).is_damaged(), "{what}");
        scene.is_named(&pack, &[], what);
        // A backup of its domain adopts it: a writer cannot decrypt what it adopts. But it sees where a
        // difference has no base of smaller depth.
        let adopted = !what.starts_with("a difference against");
        let hurt = |ids: &[SnapshotId]| if adopted { ids.to_vec() } else { Vec::new() };
        let packs = scene.packs();
        let first = scene.victim.back_up(&scene.future);
        assert_eq!(scene.packs(), packs + usize::from(!adopted), "{what}: this says what is so today");
        assert_eq!(scene.reads(first, &pack, what), !adopted, "{what}");
        assert!(!scene.check(ReadData::None).is_damaged(), "{what}");
        scene.is_named(&pack, &hurt(&[first]), what);
        // So does the next one, as long as the pack is there.
        let second = scene.victim.back_up(&scene.future);
        scene.is_named(&pack, &hurt(&[first, second]), what);
        // Once it is taken away, the next backup stores the real bytes, and those before are whole.
        scene.owner.store.delete(&pack).unwrap();
        let packs = scene.packs();
        let third = scene.victim.back_up(&scene.future);
        assert_eq!(scene.packs(), packs + usize::from(adopted), "{what}");
        for id in [first, second, third] {
            assert!(scene.reads(id, &pack, what), "{what}");
        }
        // A run goes on naming it, and no snapshot needs it: that is told, and is no damage.
        let report = scene.check(ReadData::All);
        let told = report.findings.iter().find(|finding| finding.object == pack).unwrap();
        assert!(told.gravity == Gravity::Note && !report.is_damaged() && report.hurt.is_empty(), "{what}");
        scene.owner.store.delete(&run).unwrap();
        assert!(!scene.check(ReadData::All).is_damaged(), "{what}");
    }
}

#[test]
fn wherever_a_true_copy_is_it_serves() {
    let id = scene().id;
    for number in 0..poisons(id).len() {
        // Stored by the victim before, or by somebody of another domain afterwards.
        for before in [true, false] {
            let scene = scene();
            let (what, claim) = poisons(scene.id).swap_remove(number);
            let what = &format!("{what}, the true copy stored {}", if before { "before" } else { "after" });
            let early = before.then(|| scene.victim.back_up(&scene.future));
            let (pack, _) = poison(&scene.thief, BlobClass::Content, claim);
            let next = scene.victim.back_up(&scene.future);
            if !before {
                let other = client_with(&scene.owner, Role::Writer, "other", "apart", &["mail"]);
                let packs = scene.packs();
                other.back_up(&content([("x", noise(77, LENGTH as usize))]));
                assert_eq!(scene.packs(), packs + 1, "{what}");
            }
            for id in early.into_iter().chain([next]) {
                assert!(scene.reads(id, &pack, what), "{what}");
            }
            scene.is_named(&pack, &[], what);
        }
    }
}

#[test]
fn an_index_run_alone_is_found_out_without_reading_content() {
    let scene = scene();
    let thief = scene.thief.open();
    // It says that the chunk lies in a true pack, in the place of another chunk.
    let known = records_of(&thief, BlobClass::Content);
    let honest = known.iter().find(|located| located.record.length >= LENGTH).unwrap();
    let mut record = honest.record;
    (record.pack, record.id, record.length) = (0, scene.id, LENGTH);
    let pack = chronolith::repo::pack_name(&honest.pack.id);
    let run = index_run(&thief, vec![entry_of(honest)], vec![record], None);
    let run = put(&scene.thief, "index/00000001", &run);
    let report = scene.check(ReadData::None);
    assert!(report.is_damaged());
    let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(
        found.iter().any(|found| found.contains(&pack) && found.contains("table of contents")),
        "{found:?}"
    );
    let adopted = scene.victim.back_up(&scene.future);
    assert!(!scene.reads(adopted, &pack, "a lie in the index"));
    scene.is_named(&pack, &[adopted], "a lie in the index");
    // Nothing was lost but what relied on it: without the run, the chunk is stored.
    scene.owner.store.delete(&run).unwrap();
    let next = scene.victim.back_up(&scene.future);
    assert!(scene.reads(next, &pack, "the run is gone") && scene.reads(adopted, &pack, "the run is gone"));
    assert!(!scene.check(ReadData::All).is_damaged());
}

#[test]
fn a_poisoned_tree_hides_no_true_one_and_every_check_names_it() {
    let scene = scene();
    let id = scene.victim.back_up(&scene.future);
    let repository = scene.thief.open();
    let packs: Vec<String> = records_of(&repository, BlobClass::Metadata)
        .iter()
        .map(|located| chronolith::repo::pack_name(&located.pack.id))
        .collect();
    let known = records_of(&repository, BlobClass::Metadata);
    // For every node and recipe there is, something else of the same length.
    let mut poisoned = Vec::new();
    for (number, located) in known.iter().enumerate() {
        let claim = Claim {
            blob: (located.record.id, located.record.length),
            encoding: Encoding::Stored,
            base: None,
            encoded: noise(number as u64, located.record.length as usize),
        };
        poisoned.push(poison(&scene.thief, BlobClass::Metadata, claim).0);
    }
    assert!(scene.reads(id, "", "trees with a poisoned copy each"));
    let next = scene.victim.back_up(&scene.future);
    assert!(scene.reads(next, "", "trees with a poisoned copy each"));
    let report = scene.check(ReadData::None);
    assert!(report.is_damaged() && report.hurt.is_empty(), "{report:?}");
    for pack in &poisoned {
        assert!(report.findings.iter().any(|finding| finding.object == *pack), "{pack}: {report:?}");
    }
    // Without the true ones nothing is made up: the snapshot cannot be read, and it is said why.
    packs.iter().for_each(|pack| drop(scene.owner.store.delete(pack)));
    let error = scene.owner.read(id).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(poisoned.iter().any(|pack| text.contains(pack)), "{text}");
}

/// An owner with two backups, of which the second holds differences against the first, and a thief whose
/// packs the owner adopts from.
struct Series {
    owner: Client,
    thief: Client,
    backups: Vec<(SnapshotId, Content)>,
}

fn series() -> Series {
    let owner = Client::init(Arc::new(MemoryStore::new()), 22);
    let thief = client_with(&owner, Role::Writer, "thief", "", &["web"]);
    let mut series = Series { owner, thief, backups: Vec::new() };
    for version in 1..=2 {
        let made = series.back_up(version);
        assert_eq!(made > 0, version == 2, "differences");
    }
    series
}

impl Series {
    /// Backs up a version of the dump; returns how many chunks were stored as differences.
    fn back_up(&mut self, version: u64) -> u64 {
        let content = content([("app.sql", dump(version, 6000, 97))]);
        let report = self.owner.try_back_up(&content).unwrap();
        self.backups.push((report.snapshot.unwrap(), content));
        report.differences
    }

    /// Poisons all chunks of which `pick` says so, in one way; returns the names of the packs.
    fn poison(&self, encoding: Encoding, pick: impl Fn(&IndexRecord) -> bool) -> Vec<String> {
        let known = records_of(&self.thief.open(), BlobClass::Content);
        let picked = known.iter().map(|located| located.record).filter(|record| pick(record));
        let packs: Vec<String> = picked
            .map(|record| {
                let encoded = match encoding {
                    Encoding::Stored => noise(5, record.length as usize),
                    _ => zstd(&[7; 100]),
                };
                let blob = (record.id, record.length);
                poison(&self.thief, BlobClass::Content, Claim { blob, encoding, base: None, encoded }).0
            })
            .collect();
        assert!(!packs.is_empty(), "there was nothing to poison");
        packs
    }

    /// All backups come back, by every reader, and a check names these packs and no others.
    fn is_whole(&self, poisoned: &[String], what: &str) {
        for (id, content) in &self.backups {
            let read = self.owner.read(*id).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(read, *content, "{what}");
            let repository = self.owner.open();
            repository.load_index().unwrap();
            let found = repository.snapshots().unwrap().found.into_iter().find(|found| found.id == *id);
            let target = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let options = RestoreOptions { no_sync: true, ..RestoreOptions::default() };
            let root = found.unwrap().snapshot.root;
            let plan = RestorePlan::new(&repository, &root, &[], target.path(), options).unwrap();
            assert!(plan.run().unwrap().complete(), "{what}");
            assert_eq!(std::fs::read(target.path().join("app.sql")).unwrap(), content[&b"app.sql"[..]]);
        }
        let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
        let report = check(&self.owner.open(), &options).unwrap();
        let mut named: Vec<&str> = report.findings.iter().map(|finding| finding.object.as_str()).collect();
        let mut expected: Vec<&str> = poisoned.iter().map(String::as_str).collect();
        named.sort_unstable();
        named.dedup();
        expected.sort_unstable();
        assert_eq!(named, expected, "{what}");
        assert!(report.hurt.is_empty(), "{what}: {:?}", report.hurt);
    }
}

#[test]
fn a_poisoned_base_spoils_no_difference_while_a_true_one_is_there() {
    for encoding in [Encoding::Stored, Encoding::Zstd] {
        let mut series = series();
        let known = records_of(&series.owner.open(), BlobClass::Content);
        let bases: Vec<BlobId> = known.iter().filter_map(|located| located.record.base).collect();
        let poisoned = series.poison(encoding, |record| bases.contains(&record.id));
        series.is_whole(&poisoned, &format!("{encoding:?}"));
        series.back_up(3);
        series.is_whole(&poisoned, &format!("{encoding:?}, with the next backup"));
    }
}

#[test]
fn a_poisoned_copy_that_is_less_deep_than_the_true_one_is_no_base() {
    for encoding in [Encoding::Stored, Encoding::Zstd] {
        let mut series = series();
        // What is a difference is said to be there as a whole, too. A difference against that could only
        // be read through the poisoned copy: the true one is too deep.
        let poisoned = series.poison(encoding, |record| record.depth > 0);
        series.is_whole(&poisoned, &format!("{encoding:?}"));
        for version in 3..=4 {
            series.back_up(version);
            series.is_whole(&poisoned, &format!("{encoding:?}, with backup {version}"));
        }
    }
}
