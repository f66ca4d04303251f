//! One run of the program: settings, the observer, the store, the repository.

use super::edges::{SystemClock, SystemEntropy};
use super::fault::Fault;
use super::input::Input;
use super::key_cache::KernelKeyCache;
use super::settings::{CachePlace, Settings};
use super::talk::Talk;
use super::unlock::{self, Opening};
use crate::base::{ErrorClass, Observer};
use crate::ops::listing::show_path;
use crate::ops::repair::repaired_from;
use crate::ops::{SnapshotView, Snapshots};
use crate::repo::{Credential, Environment, KeyCache, NoKeyCache, Repository, open, open_with_sheet};
use crate::storage::{LocalStore, StorageError, Store};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// One run of the program.
pub struct Session {
    /// What the global options say.
    pub settings: Settings,
    /// The observer.
    pub talk: Arc<Talk>,
    doing: RefCell<String>,
    interrupted: Arc<AtomicBool>,
}

/// What `SNAP[:PATH]` means.
pub struct Named {
    /// The repository.
    pub repository: Arc<Repository>,
    /// The snapshot.
    pub view: SnapshotView,
    /// The names on the way to what is meant; none means the whole snapshot.
    pub path: Vec<Vec<u8>>,
}

impl Named {
    /// Writes it for people: `1a2b3c4d:etc/app`.
    pub fn show(&self) -> String {
        match self.path.is_empty() {
            true => self.view.id.short(),
            false => format!("{}:{}", self.view.id.short(), show_path(&self.path)),
        }
    }
}

/// Kinds of places that later versions will know.
const REMOTE: [&str; 12] =
    ["s3", "gs", "gcs", "azure", "b2", "sftp", "ssh", "ftp", "http", "https", "webdav", "rest"];

/// Takes the path of a repository from what the user wrote.
fn local_path(place: &str) -> Result<PathBuf, Fault> {
    if let Some(path) = place.strip_prefix("file://") {
        return Ok(PathBuf::from(path));
    }
    let scheme = place.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    let remote = scheme.is_some_and(|scheme| {
        let word =
            !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        REMOTE.contains(&scheme.as_str()) || (word && place.contains("://"))
    });
    if remote {
        return Err(Fault::usage(
            format!(
                "{place} is not on a local disk, and this version keeps repositories on local disks only"
            ),
            "give the path of a folder (a mounted one will do)",
        ));
    }
    Ok(PathBuf::from(place))
}

impl Session {
    /// Begins a run.
    pub fn new(settings: Settings, talk: Arc<Talk>, interrupted: Arc<AtomicBool>) -> Self {
        Self { settings, talk, doing: RefCell::new("start".to_owned()), interrupted }
    }

    /// From here on signals end the work in good order. Before, while questions are asked, they end
    /// the program at once.
    pub fn watch_signals(&self) -> Result<(), Fault> {
        super::signals::watch(&self.interrupted).map_err(|error| {
            Fault::failed(format!("cannot listen to signals: {}", super::fault::system(&error)), "")
        })
    }

    /// Ends what is being done once a signal has come.
    pub fn check_interrupted(&self) -> Result<(), Fault> {
        match self.talk.interrupted() {
            true => Err(crate::repo::RepoError::Interrupted.into()),
            false => Ok(()),
        }
    }

    /// Returns standard input, whose wait for more a signal ends.
    pub fn input(&self) -> Input {
        Input::new(self.interrupted.clone())
    }

    /// Returns the folder that holds the repository.
    pub fn local_folder(&self) -> Option<PathBuf> {
        local_path(self.settings.repository.as_deref()?).ok()
    }

    /// Says what is being done from here on, as a verb with its object; an error begins with it.
    pub fn doing(&self, what: impl Into<String>) {
        *self.doing.borrow_mut() = what.into();
    }

    /// Returns what was being done.
    pub fn was_doing(&self) -> String {
        self.doing.borrow().clone()
    }

    /// Returns the repository as the user named it.
    pub fn place(&self) -> Result<&str, Fault> {
        self.settings
            .repository
            .as_deref()
            .ok_or_else(|| Fault::usage("no repository was named", "give -r PATH, or set CHRONOLITH_REPO"))
    }

    fn cache(&self) -> Option<PathBuf> {
        let CachePlace::Folder(folder) = &self.settings.cache else { return None };
        // Others need not see which repositories this user has. A folder that cannot be made costs
        // time only, and the parts that use it say nothing either.
        let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        Some(folder.clone())
    }

    /// Puts together what the library needs from outside.
    pub fn environment(&self, store: impl Store + 'static) -> Environment {
        let key_cache: Arc<dyn KeyCache> =
            if self.settings.key_cache { Arc::new(KernelKeyCache) } else { Arc::new(NoKeyCache) };
        Environment {
            store: Arc::new(store),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            observer: self.talk.clone(),
            cache: self.cache(),
            key_cache,
        }
    }

    /// Opens the store that holds the repository.
    pub fn open_store(&self) -> Result<LocalStore, Fault> {
        let place = self.place()?;
        let path = local_path(place)?;
        LocalStore::open(&path).map_err(|error| match error {
            StorageError::NotFound { .. } => no_repository(place, "it does not exist"),
            StorageError::Invalid { .. } => no_repository(place, "it is a file, not a folder"),
            error => error.into(),
        })
    }

    /// Makes the folder for a new repository.
    pub fn create_store(&self) -> Result<LocalStore, Fault> {
        let place = self.place()?;
        let path = local_path(place)?;
        LocalStore::create(&path).map_err(|error| match error {
            StorageError::Invalid { why, .. } => {
                Fault::usage(format!("{place}: {why}"), "give a folder that is empty or does not exist")
            }
            error => error.into(),
        })
    }

    /// Opens the repository.
    pub fn open(&self) -> Result<Arc<Repository>, Fault> {
        let opened = self.unlock()?;
        self.watch_signals()?;
        Self::finish_opening(opened)
    }

    /// Opens the repository for a server's command, which a signal ends at once: the server knows its own
    /// signals by how the command ends.
    pub fn open_for_server(&self) -> Result<Arc<Repository>, Fault> {
        Self::finish_opening(self.unlock()?)
    }

    /// Starts this program once more with the same arguments and one more, and does not wait for it. That it
    /// could not be started costs time only.
    pub fn start_beside(&self, argument: &str) {
        let Ok(program) = std::env::current_exe() else { return };
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).arg(argument);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // What a server tells its own children is not meant for it.
        let _ = command.process_group(0).spawn();
    }

    fn finish_opening((environment, opening): (Environment, Opening)) -> Result<Arc<Repository>, Fault> {
        Ok(match opening {
            Opening::Credential(credential) => open(environment, &credential)?,
            Opening::Sheet(sheet) => open_with_sheet(environment, sheet)?,
        })
    }

    /// Opens the repository with a slot and returns what opened it too; a sheet is refused.
    /// Signals still end the program at once: more will be asked.
    pub fn open_with_slot(&self) -> Result<(Arc<Repository>, Credential), Fault> {
        match self.unlock()? {
            (environment, Opening::Credential(credential)) => {
                Ok((open(environment, &credential)?, credential))
            }
            (_, Opening::Sheet(_)) => Err(Fault::usage(
                "a recovery sheet is no slot, so there is nothing to change",
                "`chronolith key add` makes a new way to open this key",
            )),
        }
    }

    fn unlock(&self) -> Result<(Environment, Opening), Fault> {
        let store = self.open_store()?;
        let place = self.place()?;
        // A folder without a repository is noticed before anybody is asked for a password.
        if ["chronolith", "copies/chronolith"]
            .into_iter()
            .all(|name| matches!(store.head(name), Err(StorageError::NotFound { .. })))
        {
            return Err(no_repository(place, "the folder holds none"));
        }
        let opening = unlock::opening(self.settings.way.as_ref(), place, |text| self.talk.warn(text))?;
        Ok((self.environment(store), opening))
    }

    /// Opens the repository and finds the snapshot and path that `SNAP[:PATH]` means.
    pub fn find(&self, name: &OsStr) -> Result<Named, Fault> {
        let repository = self.open()?;
        let snapshots = self.snapshots(&repository)?;
        let (view, path) = snapshots.resolve_with_path(name.as_bytes())?;
        if let Some(original) = repaired_from(&view.snapshot) {
            self.talk.warn(&format!(
                "snapshot {} is a repaired copy of {}: what was lost is zeros in it, and a note on it says where",
                view.id.short(),
                original.short()
            ));
        }
        Ok(Named { view: view.clone(), path, repository })
    }

    /// Reads the repository's snapshots, and warns of what does not count.
    pub fn snapshots(&self, repository: &Arc<Repository>) -> Result<Snapshots, Fault> {
        self.warned(Snapshots::load(repository)?)
    }

    /// Does the same with all that lies in the store, for who forgets or brings back.
    pub fn all_snapshots(&self, repository: &Arc<Repository>) -> Result<Snapshots, Fault> {
        self.warned(Snapshots::load_all(repository)?)
    }

    fn warned(&self, snapshots: Snapshots) -> Result<Snapshots, Fault> {
        let snapshots = snapshots.in_zone(super::edges::zone());
        for (name, error) in &snapshots.refused {
            let why = super::fault::explain(error);
            let text = if why.contains(name.as_str()) { why } else { format!("{name}: {why}") };
            self.talk.warn(&format!("{text}; it is left out"));
        }
        Ok(snapshots)
    }
}

fn no_repository(place: &str, why: &str) -> Fault {
    Fault::Plain {
        class: ErrorClass::NotFound,
        why: format!("there is no repository at {place}: {why}"),
        advice: format!("check the path after -r, or make a repository there: chronolith init -r {place}"),
    }
}
