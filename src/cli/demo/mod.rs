//! `chronolith demo`: the whole way on real databases, in a folder of its own, compared row by row.
//!
//! - `story`: what is shown, and the figures for the summary
//! - `sqlite`: a SQLite database, copied, backed up, changed, restored
//! - `postgres`: the same with dumps of a throw-away PostgreSQL server, where it is installed

mod postgres;
mod sqlite;
mod story;

use self::story::Story;
use crate::base::{Entropy, SecretBytes};
use crate::cli::edges::{SystemClock, SystemEntropy};
use crate::cli::fault::{Fault, exit};
use crate::cli::session::Session;
use crate::crypto::Suite;
use crate::ops::backup::{BackupOptions, BackupReport, Source, backup};
use crate::repo::{Credential, Environment, InitOptions, NewSlot, NoKeyCache, Repository, init, open};
use crate::storage::LocalStore;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The folder of a demonstration; it goes when the demonstration ends, however it ends.
pub struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self, Fault> {
        let mut drawn = [0; 6];
        SystemEntropy.fill(&mut drawn);
        let name: String = drawn.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = std::env::temp_dir().join(format!("chronolith-demo-{name}"));
        // Others may pass through it, since PostgreSQL may have to run as another user, but not look.
        std::fs::DirBuilder::new()
            .mode(0o711)
            .create(&path)
            .map_err(|error| Fault::file("make", &path, &error))?;
        Ok(Self(path))
    }

    /// Returns a path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed lies in the folder for temporary files, where the system clears up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the parts of a demonstration share.
pub struct Stage<'a> {
    /// The session, for signals and warnings.
    pub session: &'a Session,
    /// The folder.
    pub folder: &'a Folder,
    /// The repository.
    pub repository: Arc<Repository>,
    /// What is shown.
    pub story: &'a mut Story,
}

impl Stage<'_> {
    /// Backs up one source under a label, and shows what that cost.
    pub fn back_up(&mut self, source: Source, label: &str, what: &str) -> Result<BackupReport, Fault> {
        self.session.check_interrupted()?;
        let program = concat!("chronolith ", env!("CARGO_PKG_VERSION"));
        let options =
            BackupOptions { label: Some(label.to_owned()), ..BackupOptions::new("demo", "demo", program) };
        let began = Instant::now();
        let report = backup(&self.repository, vec![source], &options)?;
        if let Some(problem) = report.problems.first() {
            return Err(Fault::failed(format!("{}: {}", problem.path, problem.what), ""));
        }
        self.story.backed_up(what, &report, began.elapsed().as_secs_f64())?;
        Ok(report)
    }
}

fn make_repository(session: &Session, folder: &Folder) -> Result<Arc<Repository>, Fault> {
    let environment = Environment {
        store: Arc::new(LocalStore::create(folder.path("repository"))?),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        observer: session.talk.clone(),
        cache: Some(folder.path("cache")),
        key_cache: Arc::new(NoKeyCache),
    };
    let key = SystemEntropy.draw();
    let options = InitOptions::recommended(Suite::ChaCha20Poly1305, "demo")?;
    init(&environment, &options, &NewSlot::KeyFile(&SecretBytes::new(key.to_vec())))?;
    Ok(open(environment, &Credential::KeyFile(SecretBytes::new(key.to_vec())))?)
}

/// Runs the demonstration.
pub fn run(session: &Session) -> Result<u8, Fault> {
    session.doing("show how it works");
    if session.settings.json {
        return Err(Fault::usage("the demonstration is for people, not JSON", "leave --json out"));
    }
    session.watch_signals()?;
    let began = Instant::now();
    let folder = Folder::make()?;
    let mut story = Story::new(session.talk.clone());
    story.say(&format!("A demonstration in {}, which is removed at the end.", folder.0.display()))?;
    let repository = make_repository(session, &folder)?;
    story.say(
        "An empty repository is made there, encrypted with ChaCha20-Poly1305 and opened by a key file.",
    )?;
    let mut stage = Stage { session, folder: &folder, repository, story: &mut story };
    sqlite::run(&mut stage)?;
    postgres::run(&mut stage)?;
    drop(stage);
    let stored = length_of(&folder.path("repository"));
    drop(folder);
    story.summary(stored, began.elapsed().as_secs_f64())?;
    Ok(exit::DONE)
}

/// Adds up the lengths of all files in a folder.
fn length_of(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => length_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
