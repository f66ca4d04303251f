//! Base backups: the files of a running cluster, and what makes them one moment.
//!
//! Steps, and what a crash after each leaves (the server ends the backup when the session ends):
//!
//! 1. one session with the server, held open (B1); the cluster's name must be its own, or nobody's yet (`claim`);
//!    what it writes must come into the folder that is read (`whose`); a slot of that session holds the log, where the log goes into the snapshot;
//! 2. `pg_backup_start`, which makes a checkpoint;
//! 3. the data directory and the tablespaces are read, as they change; then `pg_control` (B4);
//! 4. `pg_backup_stop`, whose `backup_label` and `tablespace_map` are taken byte for byte (B2, B3);
//! 5. the log of [start, stop], where it goes into the snapshot;
//! 6. a name that is nobody's yet is taken; the snapshot is committed. Before that there is no backup, after it there is one. One whose log is
//!    archived is good once all of that log is (B11), which the archive says.
//!
//! In the snapshot:
//!
//! | folder | holds |
//! |---|---|
//! | `config` | configuration that lies outside of the data directory |
//! | `data` | the data directory, without what a restore must write last |
//! | `tablespaces/OID` | what a tablespace holds for this version of the server |
//! | `vital` | `backup_label`, `pg_control`, `tablespace_map` |
//! | `wal` | histories of timelines; segments of the log, where they are inside |

mod claim;
mod configuration;
mod facts;
mod label;
mod remote;
mod rules;
mod server;
mod whose;

#[cfg(test)]
pub(super) use facts::sample_facts;
pub use facts::{BaseFacts, KIND, LogPlace, needs_archive};
pub use label::{BackupLabel, MappedTablespace, read_tablespace_map, write_tablespace_map};
pub use remote::remote_base_backup;

use self::claim::{Claim, archive_histories};
use self::rules::ClusterRules;
use self::server::{About, Stopped};
use super::connection::Server;
use super::control::{ControlError, ControlFile};
use super::error::PostgresError;
use super::layout;
use super::lineage::{ClusterName, stream_of};
use super::pages::BadPages;
use super::segment::{LogFile, SegmentName};
use super::wal::FirstPage;
use crate::base::Observer;
use crate::format::snapshot::SnapshotMode;
use crate::ops::backup::{BackupOptions, BackupReport, EngineJob, Taking, backup_engine};
use crate::ops::{OpsError, SnapshotView, Snapshots};
use crate::repo::{Repository, holds_whole};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, Cursor};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often a control file that does not hold is read again, and how long is waited between.
const CONTROL_TRIES: u32 = 50;
const CONTROL_WAIT: Duration = Duration::from_millis(20);
/// Mode of files that the backup makes itself.
const FILE_MODE: u32 = 0o600;

/// Where the log of a backup is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogChoice {
    /// Into the archive where the server archives, else into the snapshot.
    Suitable,
    /// Into the archive.
    Archive,
    /// Into the snapshot.
    Inside,
}

/// What to back up and how.
pub struct BaseOptions {
    /// The name of the cluster, by which parents are found.
    pub cluster: ClusterName,
    /// Where the data is; `None` takes the server's word.
    pub data_directory: Option<PathBuf>,
    /// Makes the checkpoint at once, instead of without haste.
    pub fast: bool,
    /// Where the log goes.
    pub log: LogChoice,
    /// Everything that is the same for all backups; label, parent and what is believed are set here.
    pub backup: BackupOptions,
}

/// What a base backup did.
#[derive(Debug)]
pub struct BaseReport {
    /// The snapshot and its figures.
    pub backup: BackupReport,
    /// What it remembers of the cluster.
    pub facts: BaseFacts,
}

/// A base backup in a repository.
#[derive(Debug, Clone)]
pub struct Base {
    /// The snapshot.
    pub view: SnapshotView,
    /// What it remembers.
    pub facts: BaseFacts,
}

/// Returns the base backups of a cluster that are not forgotten, oldest first, from whatever host.
pub fn bases_of(snapshots: &Snapshots, cluster: &ClusterName) -> Vec<Base> {
    let read = |view: &SnapshotView| Some((view.clone(), BaseFacts::read(&view.snapshot).ok()??));
    let all = snapshots.iter().filter_map(read).map(|(view, facts)| Base { view, facts });
    let mut bases: Vec<Base> = all.filter(|base| base.facts.cluster == cluster.to_string()).collect();
    bases.sort_by_key(|base| (base.facts.stopped, base.view.id));
    bases
}

/// Reads the control file of a data directory, again while it is being written (B4).
///
/// # Errors
///
/// When it is not there, or does not hold however often it is read.
pub fn read_control(data_directory: &Path) -> Result<(Vec<u8>, ControlFile), PostgresError> {
    let path = data_directory.join("global/pg_control");
    let mut last = ControlError::Checksum;
    for _ in 0..CONTROL_TRIES {
        let bytes = std::fs::read(&path).map_err(PostgresError::file("read", &path))?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((bytes, control)),
            Err(error) => last = error,
        }
        std::thread::sleep(CONTROL_WAIT);
    }
    Err(PostgresError::Damaged { what: path.display().to_string(), why: format!("cannot be used: {last}") })
}

/// A backup that has been checked and is about to begin.
struct Preparation {
    about: About,
    data_directory: PathBuf,
    control: ControlFile,
    log: LogPlace,
    slot: String,
    cluster: ClusterName,
    fast: bool,
    parent_bad: BTreeMap<String, BadPages>,
    observer: Arc<dyn Observer>,
}

/// Backs up a running cluster whose files this process can read.
///
/// # Errors
///
/// When the server refuses, a file cannot be read for another reason than that the server changes it, or
/// the repository cannot be written: nothing is committed then, and the server's backup has ended.
pub fn base_backup(
    repository: &Arc<Repository>,
    mut server: Server,
    options: BaseOptions,
) -> Result<BaseReport, PostgresError> {
    let about = server.about()?;
    let data_directory = data_directory(&options, &about)?;
    let (_, control) = read_control(&data_directory)?;
    if control.system_identifier != about.system_identifier {
        return Err(PostgresError::refused(
            format!(
                "{} belongs to another cluster than the server at {}",
                data_directory.display(),
                server.place()
            ),
            "name the data directory of that server with --pgdata; a server on another host cannot be read from here",
        ));
    }
    server.require_works_in(&data_directory, about.data_directory.as_deref())?;
    rules::linked(&data_directory).map_or(Ok(()), |link| Err(refuse_link(&link)))?;
    let log = choose_log(options.log, about.archives);
    let mut backup = options.backup;
    let snapshots = Snapshots::load(repository)?;
    let (identifier, place) = (control.system_identifier, server.place().to_owned());
    let claim = Claim::look(repository, &snapshots, &options.cluster, identifier, &place)?;
    let parent = choose_parent(&snapshots, &options.cluster, &mut backup);
    if let Some(parent) = &parent {
        let same = parent.facts.system_identifier == control.system_identifier
            && parent.facts.timeline == control.timeline;
        backup.read_everything |= !same;
    }
    backup.label = Some(options.cluster.to_string());
    let random = repository.environment().entropy.draw();
    let slot = random.iter().take(8).fold("chronolith_".to_owned(), |name, byte| format!("{name}{byte:02x}"));
    let preparation = Preparation {
        about,
        control,
        log,
        slot,
        cluster: options.cluster.clone(),
        fast: options.fast,
        parent_bad: parent.map(|parent| parent.facts.bad_pages).unwrap_or_default(),
        observer: repository.environment().observer.clone(),
        data_directory,
    };
    let job = EngineJob {
        kind: KIND.to_owned(),
        sources: vec![preparation.data_directory.display().to_string()],
        label: options.cluster.to_string(),
    };
    let mut remembered = None;
    let log_folder = preparation.data_directory.join("pg_wal");
    let report = backup_engine(repository, job, &backup, |taking| {
        let facts = preparation.take(&mut server, taking)?;
        claim.take(repository, &options.cluster, &backup, &facts, &place)?;
        let mut read = |timeline| read_own_history(&log_folder, timeline);
        let archived = archive_histories(repository, &options.cluster, &backup, &facts, &mut read);
        archived.into_iter().for_each(|line| taking.advise(line));
        let written = facts.write();
        remembered = Some(facts);
        Ok::<_, PostgresError>(written)
    })?;
    let facts = remembered.ok_or_else(|| server.odd("back up"))?;
    Ok(BaseReport { backup: report, facts })
}

const fn choose_log(choice: LogChoice, archives: bool) -> LogPlace {
    match (choice, archives) {
        (LogChoice::Archive, _) | (LogChoice::Suitable, true) => LogPlace::Archive,
        (LogChoice::Inside, _) | (LogChoice::Suitable, false) => LogPlace::Inside,
    }
}

/// Says whether the files of a server can be read here: the folder that it names is there, this user may read
/// it, and what the server writes comes into it.
///
/// # Errors
///
/// When the server refuses to be asked.
pub fn is_here(server: &mut Server) -> Result<bool, PostgresError> {
    let Some(folder) = server.about()?.data_directory else { return Ok(false) };
    // Where nothing proves it, the server sends its files.
    Ok(read_control(&folder).is_ok() && server.works_in(&folder).unwrap_or(false))
}

fn refuse_link(link: &Path) -> PostgresError {
    PostgresError::refused(
        format!(
            "{} is a link: a copy on this host would write into the files of this server",
            link.display()
        ),
        "move what it leads to back into the data directory, or into a tablespace; only pg_wal may be a link",
    )
}

fn data_directory(options: &BaseOptions, about: &About) -> Result<PathBuf, PostgresError> {
    let named = options.data_directory.clone().or_else(|| about.data_directory.clone());
    let folder = named.ok_or_else(|| {
        PostgresError::refused(
            "the server does not tell this user where its data is",
            "name it with --pgdata DIR, or grant the user pg_read_all_settings",
        )
    })?;
    // A data directory that is itself a link is meant, not the link.
    folder.canonicalize().map_err(PostgresError::file("find the data directory", &folder))
}

/// Finds the parent by the cluster, from whatever host; without one the backup is a full one.
fn choose_parent(snapshots: &Snapshots, cluster: &ClusterName, backup: &mut BackupOptions) -> Option<Base> {
    let bases = bases_of(snapshots, cluster);
    let wanted = |base: &&Base| match (backup.parent, backup.mode) {
        (Some(id), _) => base.view.id == id,
        (None, SnapshotMode::Full) => false,
        (None, SnapshotMode::Incremental) => true,
        (None, SnapshotMode::Differential) => base.view.snapshot.mode == SnapshotMode::Full,
    };
    let parent = bases.iter().rev().find(wanted).cloned();
    backup.parent = parent.as_ref().map(|parent| parent.view.id);
    if parent.is_none() {
        backup.mode = SnapshotMode::Full;
    }
    parent
}

impl Preparation {
    /// Steps 1 to 5 of the list above.
    fn take(self, server: &mut Server, taking: &mut Taking<'_>) -> Result<BaseFacts, PostgresError> {
        let observer = self.observer.clone();
        let major = self.about.major();
        if self.log == LogPlace::Inside && !server.hold_log(&self.slot) {
            observer.warn(
                "the server does not let this user reserve a slot, so it may remove its log before it is in the \
                 snapshot: the backup would fail then",
            );
        }
        let label = format!("chronolith {}", self.cluster);
        let (start, started) = server.start_backup(&label, self.fast, major, observer.as_ref())?;
        server.require_reached(&read_control(&self.data_directory)?.1, &self.data_directory, start)?;
        let tablespaces = server.tablespaces()?;
        // Before everything else is read, and once more as they are.
        let absent = tablespaces.iter().filter(|(_, path)| !self.in_tablespace(path).is_dir());
        server.require_dropped(&absent.map(|(oid, path)| (*oid, path.clone())).collect())?;
        let control = &self.control;
        let verifies = control.data_checksums;
        let mut rules =
            ClusterRules::new(control.block_bytes, control.segment_blocks, verifies, self.parent_bad.clone());
        self.take_configuration(taking)?;
        rules.enter(self.data_directory.clone(), "data".to_owned(), false);
        let excludes = layout::excludes().map_err(OpsError::from)?;
        taking.scan(&self.data_directory, b"data", excludes.clone(), &mut rules)?;
        let missing = self.take_tablespaces(&tablespaces, &excludes, &mut rules, taking)?;
        server.require_dropped(&missing)?;
        if let Some(link) = &rules.link {
            return Err(refuse_link(link));
        }
        let (control_bytes, control) = read_control(&self.data_directory)?;
        server.require_reached(&control, &self.data_directory, start)?;
        let names = server.databases()?;
        let stopped = server.stop_backup(major, observer.as_ref())?;
        take_vital(&control_bytes, &stopped, taking)?;
        let label = BackupLabel::parse(&stopped.label).ok_or_else(|| server.odd("stop the backup of"))?;
        let databases =
            rules.sizes.iter().filter_map(|(oid, bytes)| Some((names.get(oid)?.clone(), *bytes))).collect();
        for note in std::mem::take(&mut rules.notes) {
            taking.advise(note);
        }
        let facts = BaseFacts {
            cluster: self.cluster.to_string(),
            system_identifier: control.system_identifier,
            server_version: self.about.version.clone(),
            major,
            catalog_version: control.catalog_version,
            timeline: label.timeline,
            start: label.start,
            stop: stopped.stop,
            started,
            stopped: stopped.time,
            from_standby: label.from_standby,
            log: self.log,
            segment_size: control.segment_size,
            block_bytes: control.block_bytes,
            data_checksums: control.data_checksums,
            data_directory: self.data_directory.display().to_string(),
            tablespaces,
            settings: control.settings,
            databases,
            bad_pages: rules.into_bad_pages(),
            warnings: Vec::new(),
        };
        self.take_log(&facts, taking)?;
        Ok(facts)
    }

    fn take_configuration(&self, taking: &mut Taking<'_>) -> Result<(), PostgresError> {
        let files = configuration::read_outside(&self.data_directory, &self.about.configuration)?;
        if files.is_empty() {
            return Ok(());
        }
        taking.open_folder(b"config")?;
        let mut inner: Option<String> = None;
        // In the order of the tree: a folder stands among the files by its name.
        for (name, content) in &files {
            let (folder, file) = match name.split_once('/') {
                Some((folder, file)) => (Some(folder), file),
                None => (None, name.as_str()),
            };
            if inner.as_deref() != folder {
                if inner.take().is_some() {
                    taking.close_folder()?;
                }
                if let Some(folder) = folder {
                    taking.open_folder(folder.as_bytes())?;
                    inner = Some(folder.to_owned());
                }
            }
            taking.stream(file.as_bytes(), FILE_MODE, &mut Cursor::new(content))?;
        }
        if inner.is_some() {
            taking.close_folder()?;
        }
        Ok(taking.close_folder()?)
    }

    /// What a tablespace holds for this version of the server.
    fn in_tablespace(&self, path: &str) -> PathBuf {
        Path::new(path).join(layout::tablespace_folder(self.about.major(), self.control.catalog_version))
    }

    /// Returns the tablespaces whose files are not there: those that were dropped since.
    fn take_tablespaces(
        &self,
        tablespaces: &BTreeMap<u32, String>,
        excludes: &crate::localfs::Excludes,
        rules: &mut ClusterRules,
        taking: &mut Taking<'_>,
    ) -> Result<BTreeMap<u32, String>, PostgresError> {
        let mut missing = BTreeMap::new();
        if tablespaces.is_empty() {
            return Ok(missing);
        }
        let version = layout::tablespace_folder(self.about.major(), self.control.catalog_version);
        taking.open_folder(b"tablespaces")?;
        // In the order of names, not of numbers.
        let by_name: BTreeMap<String, (u32, &String)> =
            tablespaces.iter().map(|(oid, path)| (oid.to_string(), (*oid, path))).collect();
        for (name, (oid, path)) in by_name {
            taking.open_folder(name.as_bytes())?;
            let folder = self.in_tablespace(path);
            if folder.is_dir() {
                rules.enter(folder.clone(), format!("tablespaces/{name}/{version}"), true);
                taking.scan(&folder, version.as_bytes(), excludes.clone(), rules)?;
            } else {
                missing.insert(oid, path.clone());
            }
            taking.close_folder()?;
        }
        taking.close_folder()?;
        Ok(missing)
    }

    /// Takes the segments that make the backup consistent out of the server's own folder, where they go
    /// into the snapshot; and always the histories of its timelines: a server that was promoted while it did
    /// not archive never archives its own, and another cannot recover along a timeline without it.
    fn take_log(&self, facts: &BaseFacts, taking: &mut Taking<'_>) -> Result<(), PostgresError> {
        let folder = self.data_directory.join("pg_wal");
        let mut names = history_files(&folder);
        if self.log == LogPlace::Inside {
            names.extend(facts.needed_segments().iter().map(SegmentName::to_string));
        }
        if names.is_empty() {
            return Ok(());
        }
        taking.open_folder(b"wal")?;
        names.sort();
        for name in names {
            let path = folder.join(&name);
            let file = File::open(&path).map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => PostgresError::failed(
                    format!("the server removed {name} from its log before it was in the snapshot"),
                    "let the user reserve a slot (REPLICATION, max_replication_slots), or archive the log",
                ),
                _ => PostgresError::File { doing: "read", path: path.clone(), source },
            })?;
            let held = file.metadata().map_err(PostgresError::file("look at", &path))?;
            let mut reader = std::io::BufReader::new(file);
            let begin = reader.fill_buf().map_err(PostgresError::file("read", &path))?;
            let first = FirstPage::read(begin).map(|first| first.address);
            let length = taking.stream(name.as_bytes(), FILE_MODE, &mut reader)?;
            let Ok(LogFile::Segment(segment)) = name.parse::<LogFile>() else { continue };
            if length != facts.segment_size.bytes() {
                let why = format!("has {length} bytes instead of {}", facts.segment_size.bytes());
                return Err(PostgresError::Damaged { what: path.display().to_string(), why });
            }
            // A file of the log that is no longer needed gets another name and is written anew, perhaps while
            // it was being read.
            let is_held =
                std::fs::metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino()));
            if !is_held || first.ok() != segment.start(facts.segment_size) {
                return Err(PostgresError::failed(
                    format!("the server used the file of {name} anew before it was in the snapshot"),
                    "let the user reserve a slot (REPLICATION, max_replication_slots), or archive the log",
                ));
            }
        }
        taking.close_folder()?;
        Ok(())
    }
}

/// Takes what a restore writes last.
fn take_vital(control: &[u8], stopped: &Stopped, taking: &mut Taking<'_>) -> Result<(), PostgresError> {
    taking.open_folder(b"vital")?;
    taking.stream(b"backup_label", FILE_MODE, &mut Cursor::new(&stopped.label))?;
    taking.stream(b"pg_control", FILE_MODE, &mut Cursor::new(control))?;
    if !stopped.map.is_empty() {
        taking.stream(b"tablespace_map", FILE_MODE, &mut Cursor::new(&stopped.map))?;
    }
    taking.close_folder()?;
    Ok(())
}

/// Reads the history of a timeline out of the server's own folder; `None` where it has none.
fn read_own_history(folder: &Path, timeline: u32) -> Result<Option<Vec<u8>>, PostgresError> {
    let path = folder.join(LogFile::History { timeline }.to_string());
    match std::fs::read(&path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PostgresError::file("read", &path)(error)),
    }
}

/// Names the histories of timelines that the server has at hand.
fn history_files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.len() == 16 && name.ends_with(".history")).collect()
}

/// Returns what is not in the archive yet of the log without which a base backup is worth nothing (B11);
/// nothing for one that has its log inside.
///
/// # Errors
///
/// When the repository cannot be read.
pub fn missing_log(
    repository: &Repository,
    cluster: &ClusterName,
    facts: &BaseFacts,
) -> Result<Vec<SegmentName>, PostgresError> {
    if facts.log == LogPlace::Inside {
        return Ok(Vec::new());
    }
    let stream = stream_of(cluster, facts.system_identifier);
    let mut missing = Vec::new();
    for name in facts.needed_segments() {
        let listing = repository.search_log(&stream, &name.to_string())?;
        if !holds_whole(&listing.found) {
            missing.push(name);
        }
    }
    Ok(missing)
}
