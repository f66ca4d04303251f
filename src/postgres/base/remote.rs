//! Base backups of servers whose files cannot be read from here: the server sends them, and what it sends goes
//! into the tree as it comes, never onto a disk of this machine.
//!
//! Steps, and what a crash after each leaves (the server ends the backup when the connection ends):
//!
//! 1. a session of the replication protocol; the cluster's name must be the server's own, or nobody's yet (`claim`);
//!    BASE_BACKUP, for which the server makes a checkpoint;
//! 2. the archives of the tablespaces, then that of the data directory with `backup_label` in front, the
//!    control file behind all other files (B4), and then the log, where it goes into the snapshot;
//! 3. the last result, or the error in its place: a server says only there that a checksum did not hold;
//! 4. the histories of its timelines; the time, by its clock;
//! 5. a name that is nobody's yet is taken; the snapshot is committed. Before that there is no backup.
//!
//! What is left out, the server leaves out; the checksums of pages are the server's to verify, which can read a
//! torn page again. Files come in no order of their names.

use super::claim::{Claim, archive_histories};
use super::facts::{BaseFacts, KIND, LogPlace};
use super::label::{BackupLabel, write_tablespace_map};
use super::{BaseOptions, BaseReport, FILE_MODE, choose_log, choose_parent};
use crate::base::{Observer, Timestamp};
use crate::format::tree::{CutKind, EntryKind, TreeEntry};
use crate::localfs::Excludes;
use crate::ops::backup::{EngineJob, Taking, backup_engine};
use crate::ops::{OpsError, Snapshots};
use crate::postgres::connection::Server;
use crate::postgres::control::ControlFile;
use crate::postgres::error::PostgresError;
use crate::postgres::history::read_history;
use crate::postgres::layout::{self, Place, RelationFile, place};
use crate::postgres::lineage::ClusterName;
use crate::postgres::replication::{
    Archive, BackupCopy, CopyOptions, Endpoint, Replication, ReplicationError, TarEntry, TarError, TarKind,
    TarReader,
};
use crate::postgres::segment::{LogFile, SegmentName};
use crate::repo::Repository;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};
use std::sync::Arc;

/// The oldest server whose archives are understood.
const MAJOR_MIN: u32 = 15;
const BACK_UP: &str = "back up";
/// Warnings of a backup that failed which are shown one by one.
const WARNINGS_SHOWN: usize = 20;
/// Longer files are none of those that are kept aside.
const VITAL_BYTES_MAX: u64 = 16 << 20;
/// Stands for what the server does not tell this role.
const UNKNOWN: &str = "unknown";
/// Those that are kept aside, and what they are in the snapshot.
const VITAL: [(&[u8], &[u8]); 3] = [
    (b"backup_label", b"backup_label"),
    (b"global/pg_control", b"pg_control"),
    (b"tablespace_map", b"tablespace_map"),
];

/// Backs up a running cluster over the replication protocol. `server` is an ordinary session with the same
/// server, where there is one: it knows the names of the databases.
///
/// # Errors
///
/// When the server refuses or ends the backup, also at its very end; when the connection is lost, or the
/// repository cannot be written: nothing is committed then.
pub fn remote_base_backup(
    repository: &Arc<Repository>,
    endpoint: &Endpoint,
    server: Option<Server>,
    options: BaseOptions,
) -> Result<BaseReport, PostgresError> {
    let observer = repository.environment().observer.clone();
    let at = |error: ReplicationError| error.at(BACK_UP, endpoint.place());
    let connected = Replication::connect(endpoint, observer.clone());
    let mut session = connected.map_err(|error| error.at("connect to", endpoint.place()))?;
    if session.major() < MAJOR_MIN {
        return Err(PostgresError::refused(
            format!(
                "the server has version {}, and over the replication protocol base backups need {MAJOR_MIN} or newer",
                session.version()
            ),
            "run pg backup on the server's host, where it reads the files itself",
        ));
    }
    let identity = session.identify().map_err(at)?;
    let snapshots = Snapshots::load(repository)?;
    let (identifier, place) = (identity.system_identifier, endpoint.place());
    let claim = Claim::look(repository, &snapshots, &options.cluster, identifier, place)?;
    let archives = session.show("archive_mode").map_err(at)? != "off";
    let log = choose_log(options.log, archives);
    let data_directory = session.show("data_directory").unwrap_or_else(|_| UNKNOWN.to_owned());
    let block_bytes = session.show("block_size").map_err(at)?.parse();
    let block_bytes = block_bytes.map_err(|_| at(ReplicationError::Odd("no length of pages")))?;
    let mut backup = options.backup;
    let _ = choose_parent(&snapshots, &options.cluster, &mut backup);
    backup.label = Some(options.cluster.to_string());
    let job = EngineJob {
        kind: KIND.to_owned(),
        sources: vec![format!("{data_directory} at {}", endpoint.place())],
        label: options.cluster.to_string(),
    };
    let mut remote = Remote {
        place: endpoint.place(),
        cluster: &options.cluster,
        system_identifier: identity.system_identifier,
        data_directory,
        block_bytes,
        log,
        fast: options.fast,
        server,
        sizes: BTreeMap::new(),
        vital: BTreeMap::new(),
        segments: BTreeSet::new(),
        excludes: layout::excludes().map_err(OpsError::from)?,
        observer,
    };
    let mut remembered = None;
    let report = backup_engine(repository, job, &backup, |taking| {
        let facts = remote.take(&mut session, taking)?;
        claim.take(repository, &options.cluster, &backup, &facts, place)?;
        let mut read = |timeline| match session.history(timeline) {
            Ok(content) => Ok(Some(content)),
            Err(ReplicationError::Refused { .. }) => Ok(None),
            Err(error) => Err(at(error)),
        };
        let archived = archive_histories(repository, &options.cluster, &backup, &facts, &mut read);
        archived.into_iter().for_each(|line| taking.advise(line));
        let written = facts.write();
        remembered = Some(facts);
        Ok::<_, PostgresError>(written)
    })?;
    let facts = remembered.ok_or_else(|| at(ReplicationError::Odd("no backup")))?;
    Ok(BaseReport { backup: report, facts })
}

struct Remote<'a> {
    place: &'a str,
    cluster: &'a ClusterName,
    system_identifier: u64,
    data_directory: String,
    block_bytes: u32,
    log: LogPlace,
    fast: bool,
    server: Option<Server>,
    sizes: BTreeMap<u32, u64>,
    vital: BTreeMap<&'static [u8], Vec<u8>>,
    /// Segments that came with the backup.
    segments: BTreeSet<SegmentName>,
    excludes: Excludes,
    observer: Arc<dyn Observer>,
}

/// Folders that are open in the snapshot while an archive is unpacked, below the one that it goes into.
struct Open {
    names: Vec<Vec<u8>>,
    in_tablespace: bool,
}

impl Remote<'_> {
    fn at(&self, error: ReplicationError) -> PostgresError {
        error.at(BACK_UP, self.place)
    }

    fn odd(&self, what: &'static str) -> PostgresError {
        self.at(ReplicationError::Odd(what))
    }

    /// Steps 1 to 4 of the list above.
    fn take(
        &mut self,
        session: &mut Replication,
        taking: &mut Taking<'_>,
    ) -> Result<BaseFacts, PostgresError> {
        let started = session.clock().map_err(|error| self.at(error))?;
        let options = CopyOptions {
            label: format!("chronolith {}", self.cluster),
            fast: self.fast,
            with_log: self.log == LogPlace::Inside,
            // Where nobody tells, they must not be missing.
            with_links: match &mut self.server {
                Some(server) => server.has_inner_tablespaces()?,
                None => true,
            },
        };
        taking.any_order()?;
        let mut copy = session.base_backup(&options).map_err(|error| self.at(error))?;
        let tablespaces = copy.tablespaces.clone();
        if let Some((oid, path)) = tablespaces.iter().find(|(_, path)| !path.starts_with('/')) {
            return Err(PostgresError::refused(
                format!(
                    "tablespace {oid} lies within the data directory, in {path}, and is sent in a way that is not known"
                ),
                "run pg backup on the server's host, where it reads the files itself",
            ));
        }
        let unpacked = self.unpack(&mut copy, taking);
        let end = match unpacked {
            Ok(()) => copy.finish().map_err(|error| self.at(error)),
            // What the server says is nearer to the cause than what became of it.
            Err(error) => Err(copy.problem().map_or(error, |problem| self.at(problem))),
        };
        let end = end.inspect_err(|_| {
            // It names there what it found wrong.
            for warning in session.take_warnings().iter().take(WARNINGS_SHOWN) {
                self.observer.warn(&format!("the server says: {warning}"));
            }
        })?;
        if options.with_links && !tablespaces.is_empty() {
            let places = tablespaces.iter().map(|(oid, path)| (*oid, path.clone().into_bytes()));
            self.vital.insert(b"tablespace_map", write_tablespace_map(&places.collect::<Vec<_>>()));
        }
        self.take_vital(taking)?;
        let control = self.vital.get(&b"pg_control"[..]).ok_or_else(|| self.odd("no control file"))?;
        let control = ControlFile::parse(control).map_err(|error| PostgresError::Damaged {
            what: format!("the control file that the server at {} sent", self.place),
            why: format!("cannot be used: {error}; a backup that is taken again has another"),
        })?;
        if control.system_identifier != self.system_identifier {
            return Err(self.odd("the control file of another cluster"));
        }
        let label = self.vital.get(&b"backup_label"[..]).and_then(|label| BackupLabel::parse(label));
        let label = label.ok_or_else(|| self.odd("no backup label"))?;
        if self.log == LogPlace::Archive {
            self.take_histories(session, taking)?;
        }
        let stopped = session.clock().map_err(|error| self.at(error))?;
        let names = match &mut self.server {
            Some(server) => server.databases()?,
            None => BTreeMap::new(),
        };
        let named = |(oid, bytes): (&u32, &u64)| Some((names.get(oid)?.clone(), *bytes));
        let facts = BaseFacts {
            cluster: self.cluster.to_string(),
            system_identifier: control.system_identifier,
            server_version: session.version().to_owned(),
            major: session.major(),
            catalog_version: control.catalog_version,
            timeline: label.timeline,
            start: label.start,
            stop: end.stop,
            started,
            stopped,
            from_standby: label.from_standby,
            log: self.log,
            segment_size: control.segment_size,
            block_bytes: control.block_bytes,
            data_checksums: control.data_checksums,
            data_directory: self.data_directory.clone(),
            tablespaces,
            settings: control.settings,
            databases: self.sizes.iter().filter_map(named).collect(),
            bad_pages: BTreeMap::new(),
            warnings: end.warnings,
        };
        let needed = facts.needed_segments();
        if let Some(missing) = needed.iter().find(|name| !self.segments.contains(name))
            && self.log == LogPlace::Inside
        {
            return Err(PostgresError::failed(
                format!(
                    "the server did not send {missing} of its log, without which the backup is worth nothing"
                ),
                "take it again, or archive the log",
            ));
        }
        Ok(facts)
    }

    /// Puts what comes where it belongs.
    fn unpack(&mut self, copy: &mut BackupCopy<'_>, taking: &mut Taking<'_>) -> Result<(), PostgresError> {
        let mut in_tablespaces = false;
        let mut has_data = false;
        while let Some(archive) = copy.next_archive().map_err(|error| self.at(error))? {
            match archive {
                Archive::Tablespace(oid) if !has_data => {
                    if !in_tablespaces {
                        taking.open_folder(b"tablespaces")?;
                        taking.any_order()?;
                        in_tablespaces = true;
                    }
                    taking.open_folder(oid.to_string().as_bytes())?;
                    taking.any_order()?;
                    self.unpack_tablespace(copy, taking)?;
                    taking.close_folder()?;
                }
                Archive::Data if !has_data => {
                    if std::mem::take(&mut in_tablespaces) {
                        taking.close_folder()?;
                    }
                    has_data = true;
                    self.unpack_data(copy, taking)?;
                }
                _ => return Err(self.odd("archives in another order")),
            }
        }
        if has_data { Ok(()) } else { Err(self.odd("no data directory")) }
    }

    fn unpack_tablespace(
        &mut self,
        copy: &mut BackupCopy<'_>,
        taking: &mut Taking<'_>,
    ) -> Result<(), PostgresError> {
        let mut archive = TarReader::new(copy);
        let mut open = Open { names: Vec::new(), in_tablespace: true };
        while let Some(entry) = archive.next_entry().map_err(|error| self.broken(error))? {
            self.put(&mut open, &entry, &mut archive, taking)?;
        }
        close(&mut open.names, 0, taking)
    }

    fn unpack_data(
        &mut self,
        copy: &mut BackupCopy<'_>,
        taking: &mut Taking<'_>,
    ) -> Result<(), PostgresError> {
        let mut archive = TarReader::new(copy);
        let mut open = Open { names: Vec::new(), in_tablespace: false };
        let (mut in_data, mut in_log) = (false, false);
        while let Some(entry) = archive.next_entry().map_err(|error| self.broken(error))? {
            let below = entry.path.join(&b'/');
            if !in_data && !in_log {
                // Its owner is that of all its files.
                let folder = TreeEntry {
                    user_id: Some(entry.user_id),
                    group_id: Some(entry.group_id),
                    ..TreeEntry::new(b"data".to_vec(), EntryKind::Directory, 0o700, modified(&entry))
                };
                taking.open_entry(folder)?;
                taking.any_order()?;
                in_data = true;
            }
            if let Some((_, name)) = VITAL.iter().find(|(path, _)| *path == below) {
                self.keep(name, &entry, &mut archive)?;
                continue;
            }
            let log = below.strip_prefix(b"pg_wal/").map(|name| String::from_utf8_lossy(name).into_owned());
            let Some(name) = log else {
                if in_log {
                    return Err(self.odd("files behind the log"));
                }
                self.put(&mut open, &entry, &mut archive, taking)?;
                continue;
            };
            let file = name.parse::<LogFile>().ok().filter(|_| entry.kind == TarKind::File);
            let Some(file) =
                file.filter(|file| matches!(file, LogFile::Segment(_) | LogFile::History { .. }))
            else {
                continue;
            };
            if !in_log {
                close(&mut open.names, 0, taking)?;
                taking.close_folder()?;
                taking.open_folder(b"wal")?;
                taking.any_order()?;
                in_log = true;
            }
            self.take_log_file(&name, file, &entry, &mut archive, taking)?;
        }
        if !in_data {
            return Err(self.odd("an empty data directory"));
        }
        close(&mut open.names, 0, taking)?;
        Ok(taking.close_folder()?)
    }

    fn broken(&self, error: TarError) -> PostgresError {
        let why = crate::base::explain(&error);
        PostgresError::Server { doing: BACK_UP, server: self.place.to_owned(), why, code: None }
    }

    /// Keeps a file that a restore writes last.
    fn keep(
        &mut self,
        name: &'static [u8],
        entry: &TarEntry,
        archive: &mut impl Read,
    ) -> Result<(), PostgresError> {
        if entry.kind != TarKind::File || entry.size > VITAL_BYTES_MAX {
            return Err(self.odd("a control file or a label of impossible length"));
        }
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes).map_err(|error| self.broken(error.into()))?;
        match self.vital.insert(name, bytes) {
            None => Ok(()),
            Some(_) => Err(self.odd("a file for the second time")),
        }
    }

    /// Puts a file or a folder into the innermost folder that is open and on its way.
    fn put(
        &mut self,
        open: &mut Open,
        entry: &TarEntry,
        archive: &mut impl Read,
        taking: &mut Taking<'_>,
    ) -> Result<(), PostgresError> {
        let Some((name, folders)) = entry.path.split_last() else { return Ok(()) };
        let below = entry.path.join(&b'/');
        let absolute = [&b"/"[..], &below].concat();
        let is_folder = entry.kind == TarKind::Folder;
        // B7: links to tablespaces are made anew by a restore.
        let left_out =
            self.excludes.matches(&absolute, &below, name, is_folder) || entry.kind == TarKind::Link;
        if left_out {
            return Ok(());
        }
        let common = open.names.iter().zip(folders).take_while(|(open, wanted)| *open == *wanted).count();
        close(&mut open.names, common, taking)?;
        if common != folders.len() {
            return Err(self.odd("a file of a folder that was not announced"));
        }
        let node = TreeEntry {
            user_id: Some(entry.user_id),
            group_id: Some(entry.group_id),
            ..TreeEntry::new(
                name.clone(),
                if is_folder { EntryKind::Directory } else { EntryKind::File },
                entry.mode,
                modified(entry),
            )
        };
        if is_folder {
            taking.open_entry(node)?;
            taking.any_order()?;
            open.names.push(name.clone());
            return Ok(());
        }
        // A tablespace has a folder of the server's version around everything.
        let inner = entry.path.get(usize::from(open.in_tablespace)..).unwrap_or_default().join(&b'/');
        let place = place(&inner, open.in_tablespace);
        let relation = match place {
            Place::Shared(name) | Place::Database(_, name) => RelationFile::parse(name),
            _ => None,
        };
        if let Place::Database(oid, _) = place {
            let size = self.sizes.entry(oid).or_default();
            *size = size.saturating_add(entry.size);
        }
        let cut = relation.map_or(CutKind::Stream, |_| CutKind::Pages { page_bytes: self.block_bytes });
        taking.stream_entry(node, cut, archive)?;
        Ok(())
    }

    /// Puts a file of the log into the snapshot.
    fn take_log_file(
        &mut self,
        name: &str,
        file: LogFile,
        entry: &TarEntry,
        archive: &mut impl Read,
        taking: &mut Taking<'_>,
    ) -> Result<(), PostgresError> {
        if let LogFile::Segment(segment) = file {
            self.segments.insert(segment);
        }
        let length = taking.stream(name.as_bytes(), FILE_MODE, archive)?;
        if length == entry.size { Ok(()) } else { Err(self.odd("a file of the log that is cut short")) }
    }

    /// Takes what a restore writes last.
    fn take_vital(&self, taking: &mut Taking<'_>) -> Result<(), PostgresError> {
        taking.open_folder(b"vital")?;
        for (name, bytes) in &self.vital {
            if !bytes.is_empty() {
                taking.stream(name, FILE_MODE, &mut Cursor::new(bytes))?;
            }
        }
        Ok(taking.close_folder()?)
    }

    /// Takes the histories of the server's timelines, where they do not come with the log.
    fn take_histories(
        &self,
        session: &mut Replication,
        taking: &mut Taking<'_>,
    ) -> Result<(), PostgresError> {
        let timeline = session.identify().map_err(|error| self.at(error))?.timeline;
        if timeline <= 1 {
            return Ok(());
        }
        let own = session.history(timeline).map_err(|error| self.at(error))?;
        let path = read_history(u64::from(timeline), &own).map_err(|error| PostgresError::Damaged {
            what: "a history of the server".to_owned(),
            why: error.to_string(),
        })?;
        taking.open_folder(b"wal")?;
        let ancestors = path.branches().filter_map(|branch| u32::try_from(branch.timeline).ok());
        for ancestor in ancestors.filter(|ancestor| *ancestor > 1) {
            let content = match session.history(ancestor) {
                Ok(content) => content,
                // An ancestor's own is of no use where the server itself has it no longer.
                Err(ReplicationError::Refused { .. }) if ancestor != timeline => continue,
                Err(error) => return Err(self.at(error)),
            };
            let name = LogFile::History { timeline: ancestor }.to_string();
            taking.stream(name.as_bytes(), FILE_MODE, &mut Cursor::new(content))?;
        }
        Ok(taking.close_folder()?)
    }
}

/// Closes open folders until so many are left.
fn close(open: &mut Vec<Vec<u8>>, left: usize, taking: &mut Taking<'_>) -> Result<(), PostgresError> {
    while open.len() > left {
        open.pop();
        taking.close_folder()?;
    }
    Ok(())
}

fn modified(entry: &TarEntry) -> Timestamp {
    Timestamp::from_parts(entry.modified_seconds, 0).unwrap_or(Timestamp::from_nanoseconds(0))
}
