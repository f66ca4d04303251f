//! A repository to do things to: made in any store, opened through any decorator, read back by a
//! reader that is as plain as can be, so that it does not share the mistakes of what it judges.

use super::time::SeededEntropy;
use chronolith::base::{Clock, Observer, SecretBytes, SnapshotId, Timestamp};
use chronolith::chunker::CutParameters;
use chronolith::crypto::{PasswordParameters, Suite};
use chronolith::format::pack::BlobClass;
use chronolith::format::recipe::RecipeEntry;
use chronolith::format::tree::{ContentDigest, EntryKind, TreeEntry};
use chronolith::ops::OpsError;
use chronolith::ops::backup::{BackupOptions, BackupReport, Source, backup};
use chronolith::repo::{
    BlobReader, Credential, Environment, FolderEntries, InitOptions, LogEntry, NewSlot, NoKeyCache, Pieces,
    RepoError, Repository, init, open,
};
use chronolith::storage::{MemoryStore, Store};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What lies in a snapshot: paths and bytes of its files, in order.
pub type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// The time of this machine, or one that stands still, moved by what a test says has passed.
#[derive(Default)]
pub struct ShiftedClock {
    shift: AtomicI64,
    stands_at: Option<i64>,
}

impl ShiftedClock {
    /// Makes a clock that stands still at so many seconds since 1970.
    pub fn standing_at(seconds: i64) -> Self {
        Self { shift: AtomicI64::new(0), stands_at: Some(seconds * 1_000_000_000) }
    }

    /// Lets time pass without waiting for it; a negative number turns the clock back.
    pub fn shift_seconds(&self, seconds: i64) {
        self.shift.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        let passed = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let base = self.stands_at.unwrap_or_else(|| passed().as_nanos() as i64);
        Timestamp::from_nanoseconds(base + self.shift.load(Ordering::SeqCst))
    }
}

/// Remembers what it is told, and interrupts at the question of a given number.
#[derive(Default)]
pub struct Listener {
    pub warnings: Mutex<Vec<String>>,
    pub notes: Mutex<Vec<String>>,
    questions: AtomicU64,
    interrupt_at: AtomicU64,
}

impl Listener {
    /// Interrupts at the question of this number (from 1) and at all later ones.
    pub fn interrupting_at(number: u64) -> Self {
        Self { interrupt_at: AtomicU64::new(number), ..Self::default() }
    }

    /// Returns how often it was asked whether to go on.
    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::SeqCst)
    }

    /// Returns all warnings as one text.
    pub fn warned(&self) -> String {
        self.warnings.lock().unwrap().join("\n")
    }
}

impl Observer for Listener {
    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }
    fn warn(&self, text: &str) {
        self.warnings.lock().unwrap().push(text.to_owned());
    }
    fn interrupted(&self) -> bool {
        let number = self.questions.fetch_add(1, Ordering::SeqCst) + 1;
        let at = self.interrupt_at.load(Ordering::SeqCst);
        at != 0 && number >= at
    }
}

/// A client: where the repository is and what the client has of its own.
#[derive(Clone)]
pub struct Client {
    pub store: Arc<dyn Store>,
    pub key_file: Vec<u8>,
    pub cache: Option<PathBuf>,
    pub clock: Arc<ShiftedClock>,
    pub listener: Arc<Listener>,
    pub entropy: Arc<SeededEntropy>,
    pub host: String,
}

/// Small chunks, so that little data makes many.
pub fn small_chunks() -> CutParameters {
    CutParameters::new(1 << 10, 1 << 12, 1 << 14).unwrap()
}

impl Client {
    /// Makes a repository in the store and returns its owner.
    pub fn init(store: Arc<dyn Store>, seed: u64) -> Self {
        let entropy = Arc::new(SeededEntropy::new(seed));
        let mut key_file = vec![0; 32];
        chronolith::base::Entropy::fill(entropy.as_ref(), &mut key_file);
        let client = Self { entropy, ..Self::holding(store, key_file) };
        client.try_init().unwrap();
        client
    }

    /// A client of a repository that exists.
    pub fn holding(store: Arc<dyn Store>, key_file: Vec<u8>) -> Self {
        Self {
            store,
            key_file,
            cache: None,
            clock: Arc::default(),
            listener: Arc::default(),
            entropy: Arc::new(SeededEntropy::new(0)),
            host: "db1".to_owned(),
        }
    }

    /// Makes the repository of this client.
    pub fn try_init(&self) -> Result<(), RepoError> {
        let options = InitOptions {
            suite: Suite::ChaCha20Poly1305,
            cut: small_chunks(),
            page_chunk_bytes: 1 << 16,
            password: PasswordParameters::new(8, 1, 1).unwrap(),
            key_name: "owner".to_owned(),
        };
        let key_file = SecretBytes::new(self.key_file.clone());
        init(&self.environment(), &options, &NewSlot::KeyFile(&key_file)).map(|_| ())
    }

    /// The same client, whose requests go through this store.
    #[must_use]
    pub fn through(&self, store: Arc<dyn Store>) -> Self {
        Self { store, listener: Arc::default(), ..self.clone() }
    }

    #[must_use]
    pub fn with_cache(&self, cache: &Path) -> Self {
        Self { cache: Some(cache.to_owned()), listener: Arc::default(), ..self.clone() }
    }

    #[must_use]
    pub fn with_listener(&self, listener: Listener) -> Self {
        Self { listener: Arc::new(listener), ..self.clone() }
    }

    #[must_use]
    pub fn on_host(&self, host: &str) -> Self {
        Self { host: host.to_owned(), listener: Arc::default(), ..self.clone() }
    }

    pub fn environment(&self) -> Environment {
        Environment {
            store: self.store.clone(),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            observer: self.listener.clone(),
            cache: self.cache.clone(),
            key_cache: Arc::new(NoKeyCache),
        }
    }

    pub fn try_open(&self) -> Result<Arc<Repository>, RepoError> {
        open(self.environment(), &Credential::KeyFile(SecretBytes::new(self.key_file.clone())))
    }

    pub fn open(&self) -> Arc<Repository> {
        self.try_open().unwrap()
    }

    pub fn options(&self) -> BackupOptions {
        BackupOptions {
            label: Some("app".to_owned()),
            effort: chronolith::ingest::Effort::Level(1),
            workers: 1,
            ..BackupOptions::new(&self.host, "root", "test")
        }
    }

    /// Opens the repository and backs up streams.
    pub fn try_back_up(&self, content: &Content) -> Result<BackupReport, OpsError> {
        backup(&self.try_open()?, streams(content), &self.options())
    }

    pub fn back_up(&self, content: &Content) -> SnapshotId {
        self.try_back_up(content).unwrap().snapshot.unwrap()
    }

    /// Opens the repository and backs up a folder.
    pub fn try_back_up_path(&self, path: &Path) -> Result<BackupReport, OpsError> {
        backup(&self.try_open()?, vec![Source::Path(path.to_owned())], &self.options())
    }

    /// Returns the ids of the snapshots that count, oldest first.
    pub fn snapshots(&self) -> Vec<SnapshotId> {
        snapshots(&self.open())
    }

    /// Reads a whole snapshot back.
    pub fn read(&self, id: SnapshotId) -> Result<Content, RepoError> {
        read_snapshot(&self.try_open()?, id)
    }
}

pub fn streams(content: &Content) -> Vec<Source> {
    content
        .iter()
        .map(|(name, bytes)| Source::Stream {
            name: name.clone(),
            reader: Box::new(Cursor::new(bytes.clone())),
        })
        .collect()
}

pub fn snapshots(repository: &Repository) -> Vec<SnapshotId> {
    let mut found = repository.snapshots().unwrap().found;
    found.sort_by_key(|found| found.stored);
    found.into_iter().map(|found| found.id).collect()
}

/// Reads everything that a snapshot holds, one blob after the other.
pub fn read_snapshot(repository: &Arc<Repository>, id: SnapshotId) -> Result<Content, RepoError> {
    let listing = repository.snapshots()?;
    let found = listing.found.into_iter().find(|found| found.id == id);
    let root = found.ok_or_else(|| RepoError::NoSnapshot(id.to_string()))?.snapshot.root;
    repository.load_index()?;
    let mut reader = BlobReader::new(repository)?;
    let mut content = Content::new();
    let mut folders = vec![(Vec::new(), FolderEntries::open(&mut reader, &root)?)];
    while let Some((path, mut folder)) = folders.pop() {
        while let Some(entry) = folder.next(&mut reader)? {
            let mut below: Vec<u8> = path.clone();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(&entry.name);
            if let Some(subtree) = entry.subtree {
                folders.push((below, FolderEntries::open(&mut reader, &subtree)?));
            } else if entry.kind == EntryKind::File {
                content.insert(below, read_file(&mut reader, &entry)?);
            }
        }
    }
    Ok(content)
}

fn read_file(reader: &mut BlobReader, entry: &TreeEntry) -> Result<Vec<u8>, RepoError> {
    let content = entry.content.as_ref().expect("a file has content");
    let mut pieces = Pieces::open(reader, content)?;
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next(reader)? {
        match piece {
            RecipeEntry::Chunk { id, length, .. } => {
                let chunk = reader.read(BlobClass::Content, "chunk", &id)?;
                assert_eq!(
                    chunk.bytes().len(),
                    length as usize,
                    "a chunk has the length that its recipe says"
                );
                bytes.extend_from_slice(chunk.bytes());
            }
            RecipeEntry::Hole { length } => bytes.resize(bytes.len() + length as usize, 0),
        }
    }
    assert_eq!(bytes.len() as u64, content.length);
    let Some(ContentDigest::Blake3(digest)) = &content.digest else { panic!("every file has a digest") };
    assert_eq!(blake3::hash(&bytes), *digest, "the digest of {:?}", String::from_utf8_lossy(&entry.name));
    Ok(bytes)
}

/// Copies a store into memory, in the order in which its objects were stored.
pub fn copy_of(store: &dyn Store) -> MemoryStore {
    let copy = MemoryStore::new();
    let mut objects = store.list("").unwrap();
    objects.sort_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
    for object in objects {
        copy.put(&object.name, &store.get(&object.name, u64::MAX).unwrap()).unwrap();
    }
    copy
}

/// A file of a log as a server of PostgreSQL archives it.
pub fn log_entry(stream: &str, name: &str) -> LogEntry {
    LogEntry {
        stream: stream.to_owned(),
        name: name.to_owned(),
        host: "db1".to_owned(),
        program: "test".to_owned(),
        engine: "postgresql".to_owned(),
        ..LogEntry::default()
    }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Text as a dump has it: rows, of which every `changed`-th differs by the version.
pub fn dump(version: u64, rows: u64, changed: u64) -> Vec<u8> {
    let mut text = String::from("--\n-- PostgreSQL database dump\n--\n\nCOPY public.account FROM stdin;\n");
    for row in 0..rows {
        let mark = if row % changed == 0 { version } else { 0 };
        text.push_str(&format!("{row}\tcustomer {}\t{mark}\t{}\n", row * 7919 % 1000, row * 31 % 97));
    }
    text.push_str("\\.\n\n--\n-- PostgreSQL database dump complete\n--\n\n");
    text.into_bytes()
}

/// Content from names and bytes.
pub fn content<const N: usize>(files: [(&str, Vec<u8>); N]) -> Content {
    files.into_iter().map(|(name, bytes)| (name.as_bytes().to_vec(), bytes)).collect()
}
