//! One run of the program: settings, the observer, the store, the repository.

use super::edges::{SystemClock, SystemEntropy};
use super::fault::Fault;
use super::input::Input;
use super::key_cache::KernelKeyCache;
use super::places::{canonical, local_path};
use super::settings::{CachePlace, Settings, Way};
use super::several;
use super::talk::Talk;
use super::unlock::{self, Opening};
use crate::base::{ErrorClass, Observer};
use crate::format::trust::Standing;
use crate::ops::listing::show_path;
use crate::ops::repair::repaired_from;
use crate::ops::{SnapshotView, Snapshots};
use crate::repo::{Credential, Environment, KeyCache, NoKeyCache, Repository, open, open_with_sheet};
use crate::storage::{LocalStore, MirroredStore, StorageError, Store};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One run of the program.
pub struct Session {
    /// What the global options say.
    pub settings: Settings,
    /// The observer.
    pub talk: Arc<Talk>,
    doing: RefCell<String>,
    interrupted: Arc<AtomicBool>,
}

/// A place, and the repository in it or why that cannot be opened.
pub type OpenedPlace = (String, Result<Arc<Repository>, Fault>);

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

    /// Returns what does as a signal does, from whatever thread.
    pub fn interrupter(&self) -> impl Fn() + Send + 'static {
        let interrupted = self.interrupted.clone();
        move || interrupted.store(true, Ordering::Relaxed)
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

    /// Returns all folders that hold the repository.
    pub fn local_folders(&self) -> impl Iterator<Item = PathBuf> {
        let also = self.settings.also.iter().filter_map(|place| local_path(place).ok());
        self.local_folder().into_iter().chain(also)
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

    /// Returns all places that hold the repository, as the user named them.
    pub fn places(&self) -> Result<Vec<&str>, Fault> {
        let also = self.settings.also.iter().map(String::as_str);
        Ok(std::iter::once(self.place()?).chain(also).collect())
    }

    /// Opens the store that holds the repository, or joins the stores that do.
    pub fn open_store(&self) -> Result<Box<dyn Store>, Fault> {
        match self.settings.also.is_empty() {
            true => Ok(Box::new(open_local(self.place()?)?)),
            false => self.join(several::open(&self.places()?, |text| self.talk.warn(text))?),
        }
    }

    fn join(&self, stores: Vec<Arc<dyn Store>>) -> Result<Box<dyn Store>, Fault> {
        let joined = MirroredStore::new(stores, self.settings.quorum, self.talk.clone());
        Ok(Box::new(joined.map_err(|error| {
            let why = super::fault::explain(&error);
            Fault::usage(why, "--quorum counts the places in which a write has to succeed")
        })?))
    }

    /// Makes the folder for a new repository, or all of them.
    pub fn create_store(&self) -> Result<Box<dyn Store>, Fault> {
        let mut stores: Vec<Arc<dyn Store>> = Vec::new();
        let places = self.places()?;
        several::require_different(&places)?;
        for place in places {
            stores.push(Arc::new(LocalStore::create(local_path(place)?).map_err(|error| match error {
                StorageError::Invalid { why, .. } => {
                    Fault::usage(format!("{place}: {why}"), "give a folder that is empty or does not exist")
                }
                error => error.into(),
            })?));
        }
        self.join(stores)
    }

    /// Opens the repository in each of its places on its own; why not, where one cannot be opened.
    pub fn open_each(&self) -> Result<Vec<OpenedPlace>, Fault> {
        let (_, opening) = self.unlock()?;
        self.watch_signals()?;
        let Opening::Credential(credential) = opening else {
            return Err(Fault::usage(
                "a recovery sheet opens one place at a time",
                "name one with -r PATH, and no others",
            ));
        };
        let one = |place: &str| -> Result<Arc<Repository>, Fault> {
            let store = open_local(place)?;
            require_repository(&store, place)?;
            let repository = open(self.environment(store), &credential)?;
            self.check_id(&repository)?;
            Ok(repository)
        };
        Ok(self.places()?.into_iter().map(|place| (place.to_owned(), one(place))).collect())
    }

    /// Opens a second store, beside that of the repository; `None` where nothing is there yet.
    pub fn open_other_store(&self, place: &str) -> Result<Option<LocalStore>, Fault> {
        let path = local_path(place)?;
        for own in self.local_folders() {
            let (Ok(own), Some(other)) = (own.canonicalize(), canonical(&path)) else { continue };
            let why = match (other.starts_with(&own), own.starts_with(&other)) {
                (true, true) => "is the repository itself",
                (true, false) => "lies within the repository",
                (false, true) => "holds the repository itself",
                (false, false) => continue,
            };
            return Err(Fault::usage(format!("{place} {why}"), "give another place"));
        }
        match LocalStore::open(&path) {
            Ok(store) => Ok(Some(store)),
            Err(StorageError::NotFound { .. }) => Ok(None),
            Err(StorageError::Invalid { why, .. }) => {
                Err(Fault::usage(format!("{place}: {why}"), "give the path of a folder"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the folder of a second store.
    pub fn create_other_store(&self, place: &str) -> Result<LocalStore, Fault> {
        Ok(LocalStore::create(local_path(place)?)?)
    }

    /// Opens the repository.
    pub fn open(&self) -> Result<Arc<Repository>, Fault> {
        let opened = self.unlock()?;
        self.watch_signals()?;
        self.finish_opening(opened)
    }

    /// Opens the repository for a server's command, which a signal ends at once: the server knows its own
    /// signals by how the command ends.
    pub fn open_for_server(&self) -> Result<Arc<Repository>, Fault> {
        self.finish_opening(self.unlock()?)
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

    fn open_as((environment, opening): (Environment, Opening)) -> Result<Arc<Repository>, Fault> {
        Ok(match opening {
            Opening::Credential(credential) => open(environment, &credential)?,
            Opening::Sheet(sheet) => open_with_sheet(environment, sheet)?,
        })
    }

    fn finish_opening(&self, unlocked: (Environment, Opening)) -> Result<Arc<Repository>, Fault> {
        let is_sheet = matches!(unlocked.1, Opening::Sheet(_));
        let repository = Self::open_as(unlocked)?;
        self.check_id(&repository)?;
        let own = &repository.keyring().identity.key;
        let standing = repository.registry().trust().key(own).map(|key| key.standing());
        if is_sheet && standing != Some(Standing::Active) {
            self.talk.warn(
                "the key of this recovery sheet is out of service: it reads what it could read before that, and nothing \
                 of later epochs",
            );
        }
        Ok(repository)
    }

    /// Refuses a repository that is not the one of the profile: another disk may be mounted there.
    fn check_id(&self, repository: &Repository) -> Result<(), Fault> {
        let found = repository.id().to_string();
        match &self.settings.repository_id {
            Some(expected) if !expected.eq_ignore_ascii_case(&found) => Err(Fault::usage(
                format!(
                    "the repository at {} is another one than the profile's: its id is {found}, the profile says {expected}",
                    self.place()?
                ),
                "see what is mounted there; if it is meant, correct repository-id in the profile",
            )),
            _ => Ok(()),
        }
    }

    /// Opens the repository with a slot and returns what opened it too; a sheet is refused.
    /// Signals still end the program at once: more will be asked.
    pub fn open_with_slot(&self) -> Result<(Arc<Repository>, Credential), Fault> {
        match self.unlock()? {
            (environment, Opening::Credential(credential)) => {
                let repository = open(environment, &credential)?;
                self.check_id(&repository)?;
                Ok((repository, credential))
            }
            (_, Opening::Sheet(_)) => Err(Fault::usage(
                "a recovery sheet is no slot, so there is nothing to change",
                "`chronolith key add` makes a new way to open this key",
            )),
        }
    }

    /// Opens the repository and a second one, which is unlocked in its own way.
    pub fn open_both(
        &self,
        other: &str,
        way: Option<&Way>,
    ) -> Result<(Arc<Repository>, Arc<Repository>), Fault> {
        let first = self.unlock()?;
        let store = self.open_other_store(other)?.ok_or_else(|| no_repository(other, "it does not exist"))?;
        require_repository(&store, other)?;
        if way.is_none() && !unlock::has_terminal() {
            return Err(Fault::usage(
                format!("there is no password and no key file for {other}, and no terminal to ask at"),
                "give --to-password-file, --to-password-command or --to-key-file, or set CHRONOLITH_TO_PASSWORD",
            ));
        }
        let opening = unlock::opening(way, other, |text| self.talk.warn(text))?;
        let second = (self.environment(store), opening);
        self.watch_signals()?;
        let first = self.finish_opening(first)?;
        self.doing(format!("open {other}"));
        Ok((first, Self::open_as(second)?))
    }

    fn unlock(&self) -> Result<(Environment, Opening), Fault> {
        let store = self.open_store()?;
        let place = self.place()?;
        require_repository(&store, place)?;
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
        let snapshots = snapshots.in_zone(super::edges::zone()).on_host(&super::edges::host_name());
        for (name, error) in &snapshots.refused {
            let why = super::fault::explain(error);
            let text = if why.contains(name.as_str()) { why } else { format!("{name}: {why}") };
            self.talk.warn(&format!("{text}; it is left out"));
        }
        Ok(snapshots)
    }
}

/// Opens the store in a folder.
pub(super) fn open_local(place: &str) -> Result<LocalStore, Fault> {
    LocalStore::open(local_path(place)?).map_err(|error| match error {
        StorageError::NotFound { .. } => no_repository(place, "it does not exist"),
        StorageError::Invalid { .. } => no_repository(place, "it is a file, not a folder"),
        error => error.into(),
    })
}

/// Notices a folder without a repository before anybody is asked for a password.
pub(super) fn require_repository(store: &dyn Store, place: &str) -> Result<(), Fault> {
    let missing = |name| matches!(store.head(name), Err(StorageError::NotFound { .. }));
    match ["chronolith", "copies/chronolith"].into_iter().all(missing) {
        true => Err(no_repository(place, "the folder holds none")),
        false => Ok(()),
    }
}

fn no_repository(place: &str, why: &str) -> Fault {
    Fault::Plain {
        class: ErrorClass::NotFound,
        why: format!("there is no repository at {place}: {why}"),
        advice: format!("check the path after -r, or make a repository there: chronolith init -r {place}"),
    }
}
