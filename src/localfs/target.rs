//! Writing a tree: folders as open handles, everything else relative to them.
//!
//! Neither a hostile snapshot nor somebody who swaps folders for symbolic links while the restore
//! runs can make it write outside its target: names are single components, no link is followed
//! below the target, and files are replaced by renaming, never opened through a path.
//!
//! The order for a whole tree: enter a folder, make its files and links, leave it by
//! [`TargetFolder::finish`], which sets what the content would have changed again (times, modes
//! without write permission), and at the very end [`TargetFolder::sync`] on the target itself.

use super::apply;
use super::error::LocalError;
use super::metadata::{FileKind, Metadata};
use super::owners::Owners;
use super::path::{check_component, join};
use super::scan::Names;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// How the names of unfinished files begin; what follows is made from the name they will have.
pub const TEMPORARY_PREFIX: &str = ".chronolith-restore-";
/// A file that says that its folder is being restored into, and outlives what is unfinished.
pub const RESTORE_MARKER: &str = ".chronolith-restore-marker";

/// Whose the restored files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The users and groups of those names here; where there are none, those of the same number.
    ByName,
    /// The users and groups of the same number.
    ByNumber,
    /// Whoever restores. Files of others lose their setuid and setgid bits.
    Own,
}

/// When restored files are safe from a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When the system gets round to it.
    Never,
    /// After [`TargetFolder::sync`], all at once: the fast way.
    AtEnd,
    /// One by one, each before it gets its name.
    EachFile,
}

/// How to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Makes holes of runs of zeros also where the original had none.
    pub sparse: bool,
    /// Removes folders with content that stand where something else belongs.
    pub replace_folders: bool,
    /// Whose the files are.
    pub ownership: Ownership,
    /// When they are durable.
    pub durability: Durability,
}

impl Default for RestoreOptions {
    /// Root restores owners, others can't.
    fn default() -> Self {
        let ownership = if rustix::process::geteuid().is_root() { Ownership::ByName } else { Ownership::Own };
        Self { sparse: false, replace_folders: false, ownership, durability: Durability::AtEnd }
    }
}

/// What all folders of one restore share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: RestoreOptions,
    pub(super) owners: Owners,
}

/// A folder that is being restored into. Clones are the same folder.
#[derive(Debug, Clone)]
pub struct TargetFolder {
    inner: Arc<Inner>,
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
struct Inner {
    handle: OwnedFd,
    path: Vec<u8>,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Names the unfinished form of a file, the same in every run so that the next one finds it, and
/// short whatever the length of the name.
pub(super) fn temporary_name(name: &[u8]) -> Vec<u8> {
    let hash = blake3::derive_key("chronolith v1 unfinished restore", name);
    let digits: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    [TEMPORARY_PREFIX.as_bytes(), digits.as_bytes()].concat()
}

impl TargetFolder {
    /// Opens the target of a restore, making it and its missing parents. The path is the user's
    /// own: links in it are followed.
    pub fn open(path: &[u8], options: RestoreOptions) -> Result<Self, LocalError> {
        make_parents(path)?;
        let handle = fs::open(path, FOLDER, Mode::empty()).map_err(|errno| match errno {
            Errno::NOTDIR => LocalError::InTheWay { path: path.to_owned(), found: "not a folder" },
            errno => LocalError::system("open", path, errno),
        })?;
        let shared = Arc::new(Shared { options, owners: Owners::load() });
        Ok(Self { inner: Arc::new(Inner { handle, path: path.to_owned() }), shared })
    }

    /// Opens a target to look at it, if it is there; nothing is made.
    pub fn open_existing(path: &[u8], options: RestoreOptions) -> Result<Option<Self>, LocalError> {
        let handle = match fs::open(path, FOLDER, Mode::empty()) {
            Ok(handle) => handle,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR) => {
                return Err(LocalError::InTheWay { path: path.to_owned(), found: "not a folder" });
            }
            Err(errno) => return Err(LocalError::system("open", path, errno)),
        };
        let shared = Arc::new(Shared { options, owners: Owners::load() });
        Ok(Some(Self { inner: Arc::new(Inner { handle, path: path.to_owned() }), shared }))
    }

    /// Opens a folder below to look at it; `None` for whatever is no folder or cannot be opened.
    pub fn look_into(&self, name: &[u8]) -> Option<Self> {
        check_component(name).ok()?;
        let handle = fs::openat(self.handle(), name, FOLDER | OFlags::NOFOLLOW, Mode::empty()).ok()?;
        let inner = Inner { handle, path: join(self.path(), name) };
        Some(Self { inner: Arc::new(inner), shared: self.shared.clone() })
    }

    /// Returns the path of the folder, as far as that is known: it may have been moved.
    pub fn path(&self) -> &[u8] {
        &self.inner.path
    }

    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.inner.handle.as_fd()
    }

    /// Makes an error about one entry of the folder.
    pub(super) fn failed(
        &self,
        operation: &'static str,
        name: &[u8],
    ) -> impl Fn(Errno) -> LocalError + use<'_> {
        let path = join(self.path(), name);
        move |errno| LocalError::system(operation, &path, errno)
    }

    /// Returns what stands under a name, if anything; links are not followed.
    pub fn status(&self, name: &[u8]) -> Result<Option<Metadata>, LocalError> {
        check_component(name)?;
        match Metadata::read(self.handle(), self.path(), name, false, &self.shared.owners) {
            Err(LocalError::Vanished { .. }) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Lists the folder, sorted; unfinished files of interrupted restores are among the names.
    pub fn names(&self) -> Result<Vec<Vec<u8>>, LocalError> {
        // A handle of its own: reading moves its position.
        let handle = fs::openat(self.handle(), ".", FOLDER, Mode::empty());
        let names = handle.and_then(|handle| Names::read(&handle));
        names.map(|names| names.to_vec()).map_err(|errno| LocalError::system("list", self.path(), errno))
    }

    /// Enters a folder below, making it where it is missing. What stands there and is no folder is
    /// removed: a symbolic link to a folder, too.
    pub fn enter(&self, name: &[u8]) -> Result<Self, LocalError> {
        check_component(name)?;
        let failed = self.failed("make folder", name);
        // Bounded, because somebody may be putting things in the way all the time.
        for _ in 0..8 {
            match fs::openat(self.handle(), name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(handle) => return self.entered(name, handle),
                Err(Errno::NOENT) => match fs::mkdirat(self.handle(), name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(failed(errno)),
                },
                Err(Errno::NOTDIR | Errno::LOOP) => match fs::unlinkat(self.handle(), name, AtFlags::empty())
                {
                    Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
                    Err(errno) => return Err(failed(errno)),
                },
                // Our own folder, without permissions for ourselves: an earlier restore finished it.
                Err(Errno::ACCESS) => apply::permit_owner(self.handle(), name).map_err(&failed)?,
                Err(errno) => return Err(failed(errno)),
            }
        }
        Err(LocalError::Busy { path: join(self.path(), name) })
    }

    fn entered(&self, name: &[u8], handle: OwnedFd) -> Result<Self, LocalError> {
        let failed = self.failed("make folder", name);
        let stat = fs::fstat(&handle).map_err(&failed)?;
        let mine = stat.st_uid == rustix::process::geteuid().as_raw();
        if mine && stat.st_mode & 0o700 != 0o700 {
            fs::fchmod(&handle, Mode::from_raw_mode(stat.st_mode & 0o7777) | Mode::RWXU).map_err(failed)?;
        }
        let inner = Inner { handle, path: join(self.path(), name) };
        Ok(Self { inner: Arc::new(inner), shared: self.shared.clone() })
    }

    /// Gives another name to a file that was restored before.
    pub fn link(&self, name: &[u8], first: &Self, first_name: &[u8]) -> Result<(), LocalError> {
        check_component(name)?;
        check_component(first_name)?;
        let failed = self.failed("link", name);
        let look = |folder: &Self, name: &[u8]| fs::statat(folder.handle(), name, AtFlags::SYMLINK_NOFOLLOW);
        let wanted = look(first, first_name).map_err(&failed)?;
        if look(self, name).is_ok_and(|found| (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino))
        {
            return Ok(());
        }
        let temporary = temporary_name(name);
        self.unlink(&temporary)?;
        fs::linkat(first.handle(), first_name, self.handle(), &temporary, AtFlags::empty())
            .map_err(&failed)?;
        self.publish(&temporary, name)
    }

    /// Sets the metadata of the folder itself, after all its content. Returns what this system or
    /// this user could not set.
    pub fn finish(&self, metadata: &Metadata) -> Result<Vec<LocalError>, LocalError> {
        let problems = apply::apply(self.handle(), false, metadata, &self.shared, self.path())?;
        if self.shared.options.durability == Durability::EachFile {
            fs::fsync(self.handle()).map_err(|errno| LocalError::system("sync", self.path(), errno))?;
        }
        Ok(problems)
    }

    /// Makes everything restored so far durable, if that was asked for; called once, at the end,
    /// on the target.
    pub fn sync(&self) -> Result<(), LocalError> {
        match self.shared.options.durability {
            Durability::AtEnd => {
                fs::syncfs(self.handle()).map_err(|errno| LocalError::system("sync", self.path(), errno))
            }
            Durability::Never | Durability::EachFile => Ok(()),
        }
    }

    /// Removes a file that may be missing.
    pub(super) fn unlink(&self, name: &[u8]) -> Result<(), LocalError> {
        match fs::unlinkat(self.handle(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => self.remove(name),
            Err(errno) => Err(self.failed("remove", name)(errno)),
        }
    }

    /// Gives a finished file its name, in place of what has it now.
    pub(super) fn publish(&self, temporary: &[u8], name: &[u8]) -> Result<(), LocalError> {
        let rename = || fs::renameat(self.handle(), temporary, self.handle(), name);
        let result = match rename() {
            Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => {
                self.clear_folder(name)?;
                rename()
            }
            result => result,
        };
        result.map_err(self.failed("make", name))?;
        if self.shared.options.durability == Durability::EachFile {
            fs::fsync(self.handle()).map_err(self.failed("sync", name))?;
        }
        Ok(())
    }

    /// Removes a folder that stands where something else belongs: an empty one always.
    fn clear_folder(&self, name: &[u8]) -> Result<(), LocalError> {
        match fs::unlinkat(self.handle(), name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(_) if self.shared.options.replace_folders => self.remove(name),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let found = "a folder with content";
                Err(LocalError::InTheWay { path: join(self.path(), name), found })
            }
            Err(errno) => Err(self.failed("remove", name)(errno)),
        }
    }
}

fn make_parents(path: &[u8]) -> Result<(), LocalError> {
    match fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) => {
            let parent = super::path::split(path).0;
            if parent.len() >= path.len() || parent == b"." {
                return Err(LocalError::system("make folder", path, Errno::NOENT));
            }
            make_parents(parent)?;
            match fs::mkdir(path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(LocalError::system("make folder", path, errno)),
            }
        }
        // A file among the parents, or a path like `/` on a file system that can only be read.
        Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) if fs::stat(path).is_ok() => Ok(()),
        Err(Errno::NOTDIR) => Err(LocalError::InTheWay { path: path.to_owned(), found: "below a file" }),
        Err(errno) => Err(LocalError::system("make folder", path, errno)),
    }
}

/// Says whether this kind of thing is made by one call, without content.
pub(super) fn is_special(kind: FileKind) -> bool {
    !matches!(kind, FileKind::File | FileKind::Directory)
}
