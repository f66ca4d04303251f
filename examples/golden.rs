//! Writes golden repositories: `cargo run --example golden -- format-spec/repos/0.1.0`.
//!
//! Each release puts its own into the tree; later ones open, check and restore all of them. What each
//! folder holds is said in `format-spec/repos/README.md`. Everything random comes from a fixed seed, so
//! their secrets are known to everybody.

use chronolith::base::{BlobId, Clock, Entropy, Quiet, SecretBytes, Timestamp};
use chronolith::chunker::{CutParameters, Sketch};
use chronolith::crypto::{PasswordParameters, Suite};
use chronolith::format::pack::BlobClass;
use chronolith::format::recipe::{RecipeEntry, RecipeNode, RecipeRoot};
use chronolith::format::snapshot::{Snapshot, SnapshotMode, SnapshotSummary};
use chronolith::format::tree::{Content, ContentDigest, CutKind, EntryKind, TreeEntry, TreeNode};
use chronolith::format::trust::Role;
use chronolith::format::trust::scope::Scope;
use chronolith::ops::backup::{BackupOptions, Source, backup};
use chronolith::ops::keys;
use chronolith::repo::{
    Base, Credential, Environment, FrameEncoder, InitOptions, NewSlot, NoKeyCache, RecoverySheet, Repository,
    WriteSession, init, open,
};
use chronolith::storage::LocalStore;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Randomness from a seed: golden repositories protect nothing.
struct Seeded(Mutex<blake3::OutputReader>);

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().unwrap().fill(buffer);
    }
}

/// A clock that moves one second each time it is read, from 2026-01-15T14:30:00Z.
struct Ticking(Mutex<i64>);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        let mut seconds = self.0.lock().unwrap();
        *seconds += 1;
        Timestamp::from_nanoseconds(*seconds * 1_000_000_000)
    }
}

/// A golden repository while it is made.
struct Golden {
    folder: PathBuf,
    environment: Environment,
    expected: String,
}

impl Golden {
    fn new(folder: &Path) -> Outcome<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        let root = folder.join("repository");
        fs::create_dir_all(folder)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let environment = Environment {
            store: Arc::new(LocalStore::create(&root)?),
            clock: Arc::new(Ticking(Mutex::new(1_768_487_400))),
            entropy: Arc::new(Seeded(Mutex::new(
                blake3::Hasher::new().update(name.as_bytes()).finalize_xof(),
            ))),
            observer: Arc::new(Quiet),
            cache: None,
            key_cache: Arc::new(NoKeyCache),
        };
        Ok(Self { folder: folder.to_owned(), environment, expected: String::new() })
    }

    fn init(&self, suite: Suite, opener: &NewSlot<'_>) -> Outcome<()> {
        // Short chunks, so that little data makes recipes and folders of several levels.
        let options = InitOptions {
            suite,
            cut: CutParameters::new(512, 2048, 8192)?,
            page_chunk_bytes: 65536,
            password: PasswordParameters::new(256, 1, 1)?,
            key_name: "owner".to_owned(),
        };
        init(&self.environment, &options, opener)?;
        Ok(())
    }

    fn expect(&mut self, snapshot: &str, path: &str, bytes: &[u8]) -> Outcome<()> {
        writeln!(self.expected, "{} {snapshot}:{path}", blake3::hash(bytes))?;
        Ok(())
    }

    fn stream(&mut self, repository: &Arc<Repository>, host: &str, bytes: Vec<u8>) -> Outcome<()> {
        let reader = Box::new(Cursor::new(bytes.clone()));
        let source = Source::Stream { name: b"app.sql".to_vec(), reader };
        let report = backup(repository, vec![source], &options(host))?;
        let snapshot = report.snapshot.ok_or("no snapshot")?.to_string();
        self.expect(&snapshot, "app.sql", &bytes)
    }

    fn finish(self) -> Outcome<()> {
        fs::write(self.folder.join("expected"), self.expected)?;
        Ok(())
    }
}

fn options(host: &str) -> BackupOptions {
    BackupOptions {
        label: Some("golden".to_owned()),
        tags: vec![("golden".to_owned(), None)],
        workers: 1,
        ..BackupOptions::new(host, "somebody", "golden")
    }
}

/// Lines of a dump; every `changed`-th one is of another version.
fn dump(lines: u64, version: u64) -> Vec<u8> {
    let mut text = String::new();
    for line in 0..lines {
        let version = if line % 97 == 0 { version } else { 0 };
        let noise = blake3::hash(&[line.to_le_bytes(), version.to_le_bytes()].concat());
        let _ = writeln!(text, "INSERT INTO t VALUES ({line}, '{}', {version});", &noise.to_hex()[..24]);
    }
    text.into_bytes()
}

/// Snapshots whose content is a chain of differences: four versions in two packs.
fn differences(golden: &mut Golden, repository: &Arc<Repository>) -> Outcome<()> {
    let versions: Vec<Vec<u8>> = (0..4).map(|version| dump(400, version)).collect();
    let mut base: Option<BlobId> = None;
    for (depth, plain) in (0_u8..).zip(&versions) {
        let session = WriteSession::begin(repository)?;
        let mut encoder = FrameEncoder::new(3)?;
        let id = repository.keyring().blob_id(BlobClass::Content, plain)?;
        let length = u32::try_from(plain.len())?;
        let older = base.map(|id| (id, versions[usize::from(depth) - 1].as_slice()));
        let older = older.map(|(id, plain)| Base { id, plain, depth: depth - 1, thorough: false });
        match older {
            Some(base) => _ = session.store_difference(&mut encoder, plain, id, &base, usize::MAX)?,
            None => session.store_frame(&mut encoder, BlobClass::Content, plain, vec![(id, length)])?,
        }
        base = Some(id);

        let recipe = RecipeNode::Leaf {
            sketch_algorithm: 1,
            entries: vec![RecipeEntry::Chunk { id, length, sketch: Sketch::NONE }],
        };
        let content = Content {
            length: u64::from(length),
            digest: Some(ContentDigest::Blake3(*blake3::hash(plain).as_bytes())),
            recipe: RecipeRoot::Inline(recipe),
            cut: CutKind::Stream,
            read: None,
            extra: Vec::new(),
        };
        let now = golden.environment.clock.now();
        let mut entry = TreeEntry::new(b"chain.sql".to_vec(), EntryKind::File, 0o644, now);
        entry.content = Some(content);
        let node = TreeNode::Leaf { entries: vec![entry] }.encode()?;
        let root = repository.keyring().blob_id(BlobClass::Metadata, &node)?;
        let blobs = vec![(root, u32::try_from(node.len())?)];
        session.store_frame(&mut encoder, BlobClass::Metadata, &node, blobs)?;
        session.finish()?;

        let (trust_sequence, trust) = repository.registry().head();
        let snapshot = repository.commit(&Snapshot {
            host: "chain".to_owned(),
            label: "differences".to_owned(),
            user: String::new(),
            started: now,
            ended: now,
            parent: None,
            mode: SnapshotMode::Full,
            sources: vec!["chain.sql".to_owned()],
            root,
            summary: SnapshotSummary { files: 1, bytes: u64::from(length), ..Default::default() },
            program: "golden".to_owned(),
            tags: Default::default(),
            trust_sequence,
            trust,
            kind: "stream".to_owned(),
            facts: Default::default(),
            extra: Vec::new(),
        })?;
        golden.expect(&snapshot.to_string(), "chain.sql", plain)?;
        repository.load_index()?;
    }
    Ok(())
}

/// Streams of two writers, differences; opened by password, key file, sheet, and by a reader's key.
fn streams(folder: &Path) -> Outcome<()> {
    let mut golden = Golden::new(folder)?;
    let password = SecretBytes::new(b"correct horse".to_vec());
    let parameters = PasswordParameters::new(256, 1, 1)?;
    golden.init(Suite::ChaCha20Poly1305, &NewSlot::Password(&password, parameters))?;
    let owner =
        open(golden.environment.clone(), &Credential::Password(SecretBytes::new(b"correct horse".to_vec())))?;
    fs::write(folder.join("password"), b"correct horse\n")?;

    let add = |role, name: &str, secret: &[u8; 32], hosts: Vec<String>| -> Outcome<()> {
        let scope = Scope { hosts, ..Scope::default() };
        let new = keys::NewKey { role, name: name.to_owned(), domain: String::new(), scope };
        keys::add(&owner, &new, &NewSlot::KeyFile(&SecretBytes::new(secret.to_vec())))?;
        Ok(())
    };
    add(Role::Reader, "reader", &[0x52; 32], Vec::new())?;
    add(Role::Writer, "writer", &[0x57; 32], vec!["web*".to_owned()])?;
    // The key file is the reader's: it must restore what the others wrote.
    fs::write(folder.join("key-file"), [0x52; 32])?;

    let owner = open(golden.environment.clone(), &Credential::Password(password))?;
    golden.stream(&owner, "db1", dump(20_000, 0))?;
    golden.stream(&owner, "db1", dump(20_000, 1))?;
    golden.stream(&owner, "db1", Vec::new())?;
    differences(&mut golden, &owner)?;
    let writer = Credential::KeyFile(SecretBytes::new(vec![0x57; 32]));
    let writer = open(golden.environment.clone(), &writer)?;
    golden.stream(&writer, "web1", dump(1000, 2))?;
    fs::write(folder.join("sheet"), RecoverySheet::export(&owner).expose())?;
    golden.finish()
}

/// Files of all kinds, sealed with AES-256-GCM, opened by a key file.
fn files(folder: &Path) -> Outcome<()> {
    let mut golden = Golden::new(folder)?;
    let key = [0x4B; 32];
    fs::write(folder.join("key-file"), key)?;
    golden.init(Suite::Aes256Gcm, &NewSlot::KeyFile(&SecretBytes::new(key.to_vec())))?;
    let owner = open(golden.environment.clone(), &Credential::KeyFile(SecretBytes::new(key.to_vec())))?;

    // The path is in the snapshot, so it is always the same.
    let source = std::env::temp_dir().join("chronolith-golden");
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    fs::create_dir(&source)?;
    let inside = |name: &str| source.join(name);
    fs::create_dir_all(inside("folder/deeper/empty"))?;
    fs::create_dir(inside("many"))?;
    fs::write(inside("empty"), b"")?;
    fs::write(inside("small"), b"a small file\n")?;
    fs::write(inside("folder/dump.sql"), dump(3000, 0))?;
    fs::write(inside("folder/deeper/line\nfeed"), b"a name with a line feed\n")?;
    fs::write(source.join(std::ffi::OsString::from_vec(vec![0xFF, 0xFE])), b"a name that is no text\n")?;
    fs::hard_link(inside("small"), inside("folder/hard"))?;
    std::os::unix::fs::symlink("../small", inside("folder/link"))?;
    std::os::unix::fs::symlink("/nowhere/at all", inside("dangling"))?;
    let sparse = fs::File::create(inside("sparse"))?;
    sparse.set_len(1 << 20)?;
    std::os::unix::fs::FileExt::write_at(&sparse, b"the end", 1 << 19)?;
    for number in 0..1500 {
        fs::write(inside(&format!("many/{number:05}")), format!("file {number}\n"))?;
    }
    let report = backup(&owner, vec![Source::Path(source.clone())], &options("files"))?;
    let snapshot = report.snapshot.ok_or("no snapshot")?.to_string();
    let root = source.to_str().ok_or("the temporary folder's name")?.trim_start_matches('/');
    for name in ["empty", "small", "folder/dump.sql", "folder/hard", "sparse", "many/00000", "many/01499"] {
        golden.expect(&snapshot, &format!("{root}/{name}"), &fs::read(inside(name))?)?;
    }
    fs::remove_dir_all(&source)?;
    golden.finish()
}

fn main() -> Outcome<()> {
    let target = std::env::args_os().nth(1).ok_or("golden FOLDER, such as format-spec/repos/0.1.0")?;
    let target = PathBuf::from(target);
    streams(&target.join("streams"))?;
    files(&target.join("files"))
}
