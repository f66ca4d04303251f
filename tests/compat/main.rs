//! Every repository that a release wrote is opened and read by this program: `format-spec/repos/README.md`.
//!
//! `tools/reader_test.py` reads the same repositories without this program.

mod figures;

use chronolith::base::{Clock, Entropy, Quiet, SecretBytes, SnapshotId, Timestamp};
use chronolith::format::pack::BlobClass;
use chronolith::format::recipe::RecipeEntry;
use chronolith::repo::{
    BlobReader, Credential, Environment, NoKeyCache, Pieces, RecoverySheet, Repository, find_path, open,
    open_with_sheet,
};
use chronolith::storage::LocalStore;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanoseconds(0)
    }
}

impl Entropy for Still {
    fn fill(&self, _: &mut [u8]) {
        panic!("reading needs no randomness");
    }
}

fn environment(root: &Path) -> Environment {
    Environment {
        store: Arc::new(LocalStore::open(root).unwrap()),
        clock: Arc::new(Still),
        entropy: Arc::new(Still),
        observer: Arc::new(Quiet),
        cache: None,
        key_cache: Arc::new(NoKeyCache),
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// Opens a case in every way that it offers.
fn open_all(case: &Path) -> Vec<Arc<Repository>> {
    let root = case.join("repository");
    let file = |name: &str| fs::read(case.join(name)).ok();
    let mut opened = Vec::new();
    if let Some(password) = file("password") {
        let password = password.strip_suffix(b"\n").unwrap().to_vec();
        opened.push(open(environment(&root), &Credential::Password(SecretBytes::new(password))).unwrap());
    }
    if let Some(key) = file("key-file") {
        opened.push(open(environment(&root), &Credential::KeyFile(SecretBytes::new(key))).unwrap());
    }
    if let Some(sheet) = file("sheet") {
        let sheet = RecoverySheet::parse(&SecretBytes::new(sheet)).unwrap();
        opened.push(open_with_sheet(environment(&root), sheet).unwrap());
    }
    opened
}

/// The hash of a file's content, as this program reads it.
fn digest(repository: &Arc<Repository>, snapshot: SnapshotId, path: &str) -> String {
    let found = repository.snapshots().unwrap();
    assert!(found.refused.is_empty(), "{:?}", found.refused);
    let snapshot = found.found.iter().find(|found| found.id == snapshot).expect("the snapshot is listed");
    let mut reader = BlobReader::new(repository).unwrap();
    let names: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
    let entry = find_path(&mut reader, &snapshot.snapshot.root, &names).unwrap().expect("the path is there");
    let mut pieces = Pieces::open(&mut reader, &entry.content.expect("it is a file")).unwrap();
    let mut hasher = blake3::Hasher::new();
    while let Some(piece) = pieces.next(&mut reader).unwrap() {
        match piece {
            RecipeEntry::Chunk { id, .. } => {
                hasher.update(reader.read(BlobClass::Content, "chunk", &id).unwrap().bytes());
            }
            RecipeEntry::Hole { length } => {
                hasher.update(&vec![0; usize::try_from(length).unwrap()]);
            }
        }
    }
    hasher.finalize().to_string()
}

/// The folders of all golden repositories.
fn cases() -> Vec<PathBuf> {
    let repositories = Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/repos");
    let cases: Vec<_> = folders(&repositories).iter().flat_map(|release| folders(release)).collect();
    assert!(!cases.is_empty());
    cases
}

#[test]
fn every_golden_repository_opens_and_holds_what_it_held() {
    for case in cases() {
        let opened = open_all(&case);
        assert!(!opened.is_empty(), "{} cannot be unlocked", case.display());
        let expected = fs::read_to_string(case.join("expected")).unwrap();
        for repository in opened {
            repository.load_index().unwrap();
            for line in expected.lines() {
                let (hash, place) = line.split_once(' ').unwrap();
                let (snapshot, path) = place.split_once(':').unwrap();
                assert_eq!(digest(&repository, snapshot.parse().unwrap(), path), hash, "{}", case.display());
            }
        }
    }
}
