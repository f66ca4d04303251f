//! The writing side of a restore, in an order in which what is broken off cannot start (B4).

use super::place::{self, ASIDE_MAX, PUT_ASIDE, Standing, TablespacePlace};
use super::settings::{OF_RECOVERY, configuration_here, configure};
use super::{ClusterRestore, RestoreReport, read_file};
use crate::localfs::RESTORE_MARKER;
use crate::ops::OpsError;
use crate::ops::listing::{Found, list, locate};
use crate::ops::restore::{RestoreOptions, RestorePlan, Severity};
use crate::postgres::base::{read_tablespace_map, write_tablespace_map};
use crate::postgres::error::PostgresError;
use crate::postgres::layout::tablespace_folder;
use rustix::fs::{FlockOperation, flock, syncfs};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// Who owns the restored cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    /// Takes the owner of the restored data directory; only root can give files away.
    fn of(folder: &Path) -> Result<Option<Self>, PostgresError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let found = fs::metadata(folder).map_err(PostgresError::file("look at", folder))?;
        Ok(Some(Self { user: found.uid(), group: found.gid() }))
    }
}

pub(super) fn own(path: &Path, owner: Option<Owner>) -> Result<(), PostgresError> {
    match owner {
        Some(owner) => {
            lchown(path, Some(owner.user), Some(owner.group)).map_err(PostgresError::file("give away", path))
        }
        None => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), PostgresError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(PostgresError::file("sync", folder))
}

/// Writes a small file in one step, durable.
pub(super) fn write(path: &Path, content: &[u8], owner: Option<Owner>) -> Result<(), PostgresError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".chronolith");
    let unfinished = path.with_file_name(name);
    let written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    written.map_err(PostgresError::file("write", &unfinished))?;
    own(&unfinished, owner)?;
    fs::rename(&unfinished, path).map_err(PostgresError::file("write", path))?;
    sync_folder(path.parent().unwrap_or(path))
}

pub(super) fn remove(path: &Path) -> Result<(), PostgresError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(PostgresError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes a folder that is the server's alone; those on the way to it are like any other.
pub(super) fn make_folder(path: &Path) -> Result<(), PostgresError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(PostgresError::file("make the folder", parent))?;
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(PostgresError::file("make the folder", path))
}

impl ClusterRestore {
    fn folder(&self) -> &Path {
        &self.options.data_directory
    }

    fn control(&self) -> PathBuf {
        self.folder().join("global/pg_control")
    }

    /// Restores. Steps, and what a crash after each leaves:
    ///
    /// 0. what only a cluster that stands there has of its log is archived: [`Self::archive_first`];
    /// 1. a marker says what is going on, and where to; without one nothing is taken for our own work;
    /// 2. a cluster that stands there loses its control file and its log, which are kept beside it, with links to its
    ///    tablespaces: it cannot start any more, and the next attempt goes on with this;
    /// 3. the data directory and the tablespaces: a cluster without a control file, which cannot start;
    /// 4. the log that the backup holds, without the files of which it says that they do not count, and what is
    ///    brought of the archive's log; all of this is durable then;
    /// 5. the links to tablespaces, `backup_label` and `tablespace_map`;
    /// 6. settings and the signal of recovery;
    /// 7. everything is durable; then the control file gets its name: the cluster can start.
    ///
    /// # Errors
    ///
    /// When something cannot be read or written; what is there cannot start then. Nothing is written when
    /// the folder is not as it was when it was looked at, or another restore is at work on it.
    pub fn run(&self) -> Result<RestoreReport, PostgresError> {
        let Some(archived) = self.rescued.clone().or_else(|| self.unarchived.is_empty().then(Vec::new))
        else {
            return Err(PostgresError::refused("there is log that was not archived first", ""));
        };
        let mut report = RestoreReport { archived, ..RestoreReport::default() };
        make_folder(self.folder())?;
        let _lock = self.lock()?;
        self.look_again()?;
        let aside = match self.standing {
            Standing::Nothing => None,
            Standing::Unfinished => place::aside(self.folder()),
            Standing::Cluster => Some(self.make_aside()?),
        };
        self.mark(aside.as_deref())?;
        if let Some(aside) = aside {
            self.put_aside(&aside)?;
            self.mark(None)?;
            report.kept_aside = Some(aside);
        }
        let delete = self.standing != Standing::Nothing;
        self.restore(&["data"], self.folder(), delete, &mut report)?;
        let owner = Owner::of(self.folder())?;
        for place in &self.places {
            self.restore_tablespace(place, owner, &mut report)?;
        }
        self.restore_log(owner, &mut report)?;
        self.remove_unlogged()?;
        if self.options.bring_log {
            self.bring_log(owner)?;
        }
        self.sync()?;
        if let Some(folder) = &self.options.contained {
            self.check_inside()?;
            self.contain(folder, owner)?;
        }
        self.write_vital(owner)?;
        self.write_settings(owner)?;
        for folder in ["global", "pg_tblspc", "pg_wal", "."] {
            sync_folder(&self.folder().join(folder))?;
        }
        write(&self.control(), &self.vital.control, owner)?;
        remove(&self.folder().join(RESTORE_MARKER))?;
        Ok(report)
    }

    /// Makes sure that what stands there is what was looked at.
    pub(super) fn look_again(&self) -> Result<(), PostgresError> {
        match place::look(&self.options, &self.base)? == self.standing {
            true => Ok(()),
            false => Err(PostgresError::refused(
                format!("{} has changed since it was looked at", self.folder().display()),
                "make sure that nobody else writes there, and run it again",
            )),
        }
    }

    /// Keeps other restores away as long as it is held.
    pub(super) fn lock(&self) -> Result<File, PostgresError> {
        let folder = File::open(self.folder()).map_err(PostgresError::file("open", self.folder()))?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Err(PostgresError::refused(
                format!("another restore into {} is going on", self.folder().display()),
                "wait until it has ended",
            )),
            // Not every file system can lock folders.
            _ => Ok(folder),
        }
    }

    /// Notes in the folder what is going on, and where the old cluster is being put.
    fn mark(&self, aside: Option<&Path>) -> Result<(), PostgresError> {
        let mut text = format!("base backup {}\n", self.base.view.id);
        if let Some(aside) = aside {
            text.push_str(&format!("{PUT_ASIDE}{}\n", aside.display()));
        }
        for place in &self.places {
            text.push_str(&format!("{}\n", place.target.display()));
        }
        write(&self.folder().join(RESTORE_MARKER), text.as_bytes(), None)
    }

    /// Makes a folder beside the data directory (not beside a link to it) for what is put aside.
    fn make_aside(&self) -> Result<PathBuf, PostgresError> {
        let real = self.folder().canonicalize().map_err(PostgresError::file("find", self.folder()))?;
        for number in 1..=ASIDE_MAX {
            let folder = place::aside_folder(&real, number);
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(folder),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(PostgresError::file("make the folder", &folder)(error)),
            }
        }
        Err(PostgresError::failed("too many earlier restores left folders beside this one", "remove some"))
    }

    /// Takes the control file and the log out of a cluster, so that it can't start and nothing is lost; what
    /// is gone from there was put aside before.
    fn put_aside(&self, aside: &Path) -> Result<(), PostgresError> {
        let rename = |from: &Path, to: PathBuf| match fs::rename(from, to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(PostgresError::file("put aside", from)(error))
            }
            _ => Ok(()),
        };
        let (global, log) = (self.folder().join("global"), self.folder().join("pg_wal"));
        for folder in [&global, &log, &aside.join("pg_wal")] {
            make_folder(folder)?;
        }
        self.note_tablespaces(aside)?;
        rename(&self.control(), aside.join("pg_control"))?;
        sync_folder(&global)?;
        for entry in fs::read_dir(&log).map_err(PostgresError::file("look into", &log))? {
            let from = entry.map_err(PostgresError::file("look into", &log))?.path();
            if let Some(name) = from.file_name() {
                rename(&from, aside.join("pg_wal").join(name))?;
            }
        }
        sync_folder(&aside.join("pg_wal"))?;
        sync_folder(aside)
    }

    /// Notes where the tablespaces of the cluster are, by links as it has them: those that the backup does not have lose
    /// theirs, and the next attempt must know them for the cluster's own.
    fn note_tablespaces(&self, aside: &Path) -> Result<(), PostgresError> {
        let (links, noted) = (self.folder().join("pg_tblspc"), aside.join("pg_tblspc"));
        for entry in fs::read_dir(&links).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            make_folder(&noted)?;
            let link = noted.join(entry.file_name());
            match symlink(target, &link) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(PostgresError::file("link", &link)(error));
                }
                _ => {}
            }
        }
        if noted.exists() { sync_folder(&noted) } else { Ok(()) }
    }

    /// Restores a folder of the snapshot; nothing of it may be missing.
    fn restore(
        &self,
        path: &[&str],
        target: &Path,
        delete: bool,
        report: &mut RestoreReport,
    ) -> Result<(), PostgresError> {
        let path: Vec<Vec<u8>> = path.iter().map(|name| name.as_bytes().to_vec()).collect();
        let protected = self.options.protected.clone();
        // All of it is made durable at once, by `sync`.
        let options = RestoreOptions { delete, protected, no_sync: true, ..RestoreOptions::default() };
        let root = &self.base.view.snapshot.root;
        let done = RestorePlan::new(&self.repository, root, &path, target, options)?.run()?;
        let observer = &self.repository.environment().observer;
        for problem in &done.problems {
            observer.warn(&problem.to_string());
        }
        if let Some(first) = done.problems.iter().find(|problem| problem.severity == Severity::Missing) {
            return Err(PostgresError::Damaged {
                what: format!("{} things of the base backup", done.missing),
                why: format!("could not be restored, the first is {first}; the cluster cannot start"),
            });
        }
        report.files += done.files;
        report.unchanged_files += done.unchanged_files;
        report.bytes += done.bytes;
        report.written_bytes += done.written_bytes;
        report.removed += done.removed;
        Ok(())
    }

    /// Makes all that was restored durable, each file system once.
    fn sync(&self) -> Result<(), PostgresError> {
        let log = self.folder().join("pg_wal");
        let version = tablespace_folder(self.base.facts.major, self.base.facts.catalog_version);
        let tablespaces = self.places.iter().map(|place| place.target.join(&version));
        let folders = [self.folder().to_owned(), log].into_iter();
        let mut synced = BTreeSet::new();
        // One that was dropped while it was backed up has no folder.
        for folder in folders.chain(tablespaces.filter(|folder| folder.exists())) {
            let opened = File::open(&folder).and_then(|handle| Ok((handle.metadata()?.dev(), handle)));
            let (device, handle) = opened.map_err(PostgresError::file("open", &folder))?;
            if synced.insert(device) {
                syncfs(&handle).map_err(|errno| PostgresError::file("sync", &folder)(errno.into()))?;
            }
        }
        Ok(())
    }

    fn restore_tablespace(
        &self,
        place: &TablespacePlace,
        owner: Option<Owner>,
        report: &mut RestoreReport,
    ) -> Result<(), PostgresError> {
        make_folder(&place.target)?;
        own(&place.target, owner)?;
        let oid = place.oid.to_string();
        let version = tablespace_folder(self.base.facts.major, self.base.facts.catalog_version);
        let path = ["tablespaces", &oid, &version];
        let names: Vec<Vec<u8>> = path.iter().map(|name| name.as_bytes().to_vec()).collect();
        let target = place.target.join(&version);
        match locate(&self.repository, &self.base.view.snapshot.root, &names) {
            Ok(Found::Folder { .. }) => self.restore(&path, &target, true, report)?,
            // It was dropped while it was backed up.
            Ok(Found::Leaf(_)) | Err(OpsError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let link = self.folder().join("pg_tblspc").join(&oid);
        remove(&link)?;
        symlink(&place.target, &link).map_err(PostgresError::file("link", &link))?;
        own(&link, owner)
    }

    /// Puts the log that the snapshot holds where the server looks for it.
    fn restore_log(&self, owner: Option<Owner>, report: &mut RestoreReport) -> Result<(), PostgresError> {
        let folder = self.folder().join("pg_wal");
        match locate(&self.repository, &self.base.view.snapshot.root, &[b"wal".to_vec()]) {
            Ok(_) => self.restore(&["wal"], &folder, true, report)?,
            Err(OpsError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        // These files were made by the backup and have no owner in the snapshot.
        own(&folder, owner)?;
        for entry in fs::read_dir(&folder).map_err(PostgresError::file("look into", &folder))? {
            own(&entry.map_err(PostgresError::file("look into", &folder))?.path(), owner)?;
        }
        Ok(())
    }

    /// B3: never without the label; the map says where tablespaces are now (B8).
    fn write_vital(&self, owner: Option<Owner>) -> Result<(), PostgresError> {
        write(&self.folder().join("backup_label"), &self.vital.label, owner)?;
        let Some(map) = &self.vital.map else { return Ok(()) };
        let map = if self.places.iter().all(|place| Path::new(&place.original) == place.target) {
            map.clone()
        } else {
            let mut mapped = read_tablespace_map(map).ok_or_else(|| PostgresError::Damaged {
                what: "tablespace_map".to_owned(),
                why: "cannot be read".to_owned(),
            })?;
            for (oid, path) in &mut mapped {
                if let Some(place) = self.places.iter().find(|place| place.oid == *oid) {
                    *path = place.target.as_os_str().as_bytes().to_vec();
                }
            }
            write_tablespace_map(&mapped)
        };
        write(&self.folder().join("tablespace_map"), &map, owner)
    }

    /// Brings configuration that lay elsewhere into the data directory, where it has none of its own, so
    /// that the server can be started from there.
    fn write_configuration(&self, owner: Option<Owner>) -> Result<(), PostgresError> {
        const MAIN: &str = "postgresql.conf";
        let found = match locate(&self.repository, &self.base.view.snapshot.root, &[b"config".to_vec()]) {
            Ok(found) if !self.folder().join(MAIN).exists() => found,
            Ok(_) | Err(OpsError::NotFound(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut names = Vec::new();
        list(&self.repository, &found, true, |path, entry| {
            if entry.content.is_some() {
                names.extend(String::from_utf8(path.to_vec()).ok());
            }
            ControlFlow::Continue(())
        })?;
        let included = self.folder().join("conf.d");
        make_folder(&included)?;
        own(&included, owner)?;
        for name in names {
            let Some(mut content) = read_file(&self.repository, &self.base, &format!("config/{name}"))?
            else {
                continue;
            };
            if name == MAIN {
                content.extend_from_slice(configuration_here(self.folder()).as_bytes());
            }
            write(&self.folder().join(&name), &content, owner)?;
        }
        Ok(())
    }

    fn write_settings(&self, owner: Option<Owner>) -> Result<(), PostgresError> {
        let path = self.folder().join("postgresql.auto.conf");
        let before = match self.options.contained {
            Some(_) => Vec::new(),
            None => {
                self.write_configuration(owner)?;
                fs::read(&path).unwrap_or_default()
            }
        };
        let before = String::from_utf8_lossy(&before);
        let configuration = configure(&before, &self.options, &self.base.facts, self.named_timeline());
        let of_recovery = self.folder().join(OF_RECOVERY);
        match configuration.of_recovery {
            Some(text) => write(&of_recovery, text.as_bytes(), owner)?,
            None => remove(&of_recovery)?,
        }
        write(&path, configuration.automatic.as_bytes(), owner)?;
        // B14: one of the two, since the other would win.
        let (signal, other) = match self.options.standby {
            true => ("standby.signal", "recovery.signal"),
            false => ("recovery.signal", "standby.signal"),
        };
        remove(&self.folder().join(other))?;
        write(&self.folder().join(signal), b"", owner)
    }
}
