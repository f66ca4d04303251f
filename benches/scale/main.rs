//! What grows with a repository, measured: its index, its snapshots, what a prune has to know.
//!
//! Fills repositories with everything but content, as they would be with so many TiB of it, and measures
//! each step in a process of its own, with the most anonymous memory that it held.
//!
//! ```text
//! cargo bench --bench scale -- [--scratch DIR] [--tebibytes 0.02,0.1] [--chunk-kib 128] [--snapshots 500]
//!     [--segments 100000]
//! ```

mod fill;
mod logs;
mod measure;
mod store;
#[path = "../support/mod.rs"]
mod support;

use chronolith::base::{Quiet, SecretBytes};
use chronolith::crypto::Suite;
use chronolith::format::FormatError;
use chronolith::ops::OpsError;
use chronolith::repo::{
    Credential, Environment, InitOptions, NewSlot, NoKeyCache, RepoError, Repository, init, open,
};
use chronolith::storage::{LocalStore, StorageError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;
use store::Simulated;
use support::{Now, Random};

/// Whatever went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Ops(#[from] OpsError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("{0}")]
    Other(String),
}

/// A repository in a folder of its own.
pub struct Scene {
    folder: PathBuf,
    packs: u64,
}

impl Scene {
    fn environment(&self) -> Result<(Environment, Arc<Simulated>), Failure> {
        let path = self.folder.join("repository");
        let inner = if path.exists() { LocalStore::open(path)? } else { LocalStore::create(path)? };
        let store = Arc::new(Simulated { inner, packs: self.packs, requests: AtomicU64::new(0) });
        let environment = Environment {
            store: store.clone(),
            clock: Arc::new(Now),
            entropy: Arc::new(Random),
            observer: Arc::new(Quiet),
            cache: Some(self.folder.join("cache")),
            key_cache: Arc::new(NoKeyCache),
        };
        Ok((environment, store))
    }

    /// Makes the repository.
    pub fn create(&self) -> Result<Arc<Repository>, Failure> {
        let (environment, _) = self.environment()?;
        let options = InitOptions::recommended(Suite::default(), "owner")?;
        init(&environment, &options, &NewSlot::KeyFile(&key()))?;
        Ok(open(environment, &Credential::KeyFile(key()))?)
    }

    /// Opens it, and returns the store that counts its requests.
    pub fn open(&self) -> Result<(Arc<Repository>, Arc<Simulated>), Failure> {
        let (environment, store) = self.environment()?;
        Ok((open(environment, &Credential::KeyFile(key()))?, store))
    }

    /// Returns where a part of the store lies.
    pub fn stored_at(&self, part: &str) -> PathBuf {
        self.folder.join("repository").join(part)
    }

    /// Makes of this client one that has seen nothing.
    pub fn forget_cache(&self) {
        let _ = std::fs::remove_dir_all(self.folder.join("cache"));
    }

    /// Adds up the files below a part of the scene's folder.
    pub fn stored_bytes(&self, part: &str) -> u64 {
        let mut folders = vec![self.folder.join(part)];
        let mut bytes = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(found) if found.is_dir() => folders.push(entry.path()),
                    Ok(found) => bytes += found.len(),
                    Err(_) => {}
                }
            }
        }
        bytes
    }
}

fn key() -> SecretBytes {
    SecretBytes::new(vec![7; 32])
}

/// Runs something and returns the seconds that it took.
pub fn timed(run: impl FnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let began = Instant::now();
    run()?;
    Ok(began.elapsed().as_secs_f64())
}

/// Writes bytes for people.
pub fn mib(bytes: u64) -> String {
    if bytes >= 10 << 30 {
        format!("{:.1} GiB", bytes as f64 / 1073741824.0)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

fn measure_all(folder: &Path, steps: &[&str], packs: u64, chunks: u64) -> Result<(), Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::Other(error.to_string()))?;
    for step in steps {
        // A process each, so that nothing is left in memory by the one before.
        let status = Command::new(&program)
            .args([
                "--measure",
                step,
                "--packs",
                &packs.to_string(),
                "--chunks",
                &chunks.to_string(),
                "--scratch",
            ])
            .arg(folder)
            .status()
            .map_err(|error| Failure::Other(error.to_string()))?;
        if !status.success() {
            return Err(Failure::Other(format!("the step {step} failed")));
        }
    }
    Ok(())
}

/// Segments of 16 MiB, of which a database writes 2.4 MB each once they are compressed, in a merged log pack of 224 MiB.
const SEGMENTS_IN_EACH: u64 = 95;

struct Arguments {
    scratch: Option<PathBuf>,
    tebibytes: Vec<f64>,
    chunk_bytes: u32,
    snapshots: Vec<u64>,
    segments: Vec<u64>,
    in_each: u64,
    measure: Option<String>,
    packs: u64,
    chunks: u64,
}

fn arguments() -> Arguments {
    let mut found = Arguments {
        scratch: None,
        tebibytes: vec![0.02, 0.1],
        chunk_bytes: fill::CHUNK_BYTES,
        snapshots: vec![500],
        segments: vec![100_000],
        in_each: SEGMENTS_IN_EACH,
        measure: None,
        packs: 0,
        chunks: 0,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        // What cargo adds of itself is passed over.
        let mut value = || words.next().unwrap_or_default();
        match word.as_str() {
            "--scratch" => found.scratch = Some(value().into()),
            "--tebibytes" => {
                found.tebibytes = value().split(',').filter_map(|one| one.parse().ok()).collect()
            }
            "--chunk-kib" => {
                found.chunk_bytes = value().parse().map_or(fill::CHUNK_BYTES, |kib: u32| kib << 10)
            }
            "--snapshots" => {
                found.snapshots = value().split(',').filter_map(|one| one.parse().ok()).collect()
            }
            "--segments" => found.segments = value().split(',').filter_map(|one| one.parse().ok()).collect(),
            "--in-each" => found.in_each = value().parse().unwrap_or(SEGMENTS_IN_EACH),
            "--measure" => found.measure = Some(value()),
            "--packs" => found.packs = value().parse().unwrap_or(0),
            "--chunks" => found.chunks = value().parse().unwrap_or(0),
            _ => {}
        }
    }
    found
}

fn run() -> Result<(), Failure> {
    let arguments = arguments();
    if let (Some(step), Some(folder)) = (&arguments.measure, &arguments.scratch) {
        let scene = Scene { folder: folder.clone(), packs: arguments.packs };
        return measure::step(&scene, step, arguments.chunks);
    }
    let scratch = match &arguments.scratch {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let scratch = scratch.map_err(|error| Failure::Other(error.to_string()))?;
    for (number, tebibytes) in arguments.tebibytes.iter().enumerate() {
        let shape = fill::Chunks { bytes: arguments.chunk_bytes };
        let chunks = shape.in_tebibytes(*tebibytes);
        let packs = shape.packs_of(chunks);
        println!("\n## {tebibytes} TiB: {chunks} chunks in {packs} packs\n");
        let folder = scratch.path().join(format!("streams-{number}"));
        fill::streams(&Scene { folder: folder.clone(), packs }, shape, chunks)?;
        measure_all(&folder, &measure::STREAM_STEPS, packs, chunks)?;
        let _ = std::fs::remove_dir_all(&folder);
    }
    for count in &arguments.snapshots {
        println!("\n## {count} snapshots\n");
        let folder = scratch.path().join(format!("snapshots-{count}"));
        fill::snapshots(&Scene { folder: folder.clone(), packs: 0 }, *count)?;
        measure_all(&folder, &measure::SNAPSHOT_STEPS, 0, 0)?;
        let _ = std::fs::remove_dir_all(&folder);
    }
    for count in &arguments.segments {
        println!("\n## {count} segments of a log, {} in each merged log pack\n", arguments.in_each);
        let folder = scratch.path().join(format!("segments-{count}"));
        logs::fill(&Scene { folder: folder.clone(), packs: 0 }, *count, arguments.in_each)?;
        measure_all(&folder, &measure::LOG_STEPS, 0, 0)?;
        let _ = std::fs::remove_dir_all(&folder);
    }
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
