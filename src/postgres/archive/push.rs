//! A file of the log goes into the repository.
//!
//! The order: the file is read and looked at; that it belongs to the cluster's name is made sure of; the
//! store is asked for its name; it is put, durable. Nothing before the last step changes anything but
//! the first claim to a name, so any crash is answered by trying again.

use super::data;
use crate::base::limits;
use crate::format::log::{LogDigest, LogRecord};
use crate::mapping::Room;
use crate::ops::OpsError;
use crate::postgres::history::read_history;
use crate::postgres::lineage::{Archiver, Lineage, admit, lineages};
use crate::postgres::segment::{LogFile, Lsn, SegmentName};
use crate::postgres::wal::{FirstPage, Noted, PageError, walk, walk_behind};
use crate::repo::{LogEntry, LogPut, Repository};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Why what ends early is refused.
const SHORTER: &str = "it became shorter while it was read";

/// Longest file that is no segment: a history, a backup label.
const SMALL_FILE_BYTES_MAX: u64 = 16 << 20;
/// Longest fact of a record.
const FACT_BYTES_MAX: usize = 32 << 10;

/// The fact that holds the beginning of a record which creates something and goes on in the next segment.
const BEGUN: &str = "record_begun";
/// The fact that names created init forks, and what stands there where there are too many.
pub(in crate::postgres) const INIT_FORKS: &str = "init_forks";
pub(in crate::postgres) const TOO_MANY: &str = "many";

/// What was archived.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The file.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Whether it was stored now, or was there already.
    pub outcome: LogPut,
    /// The stream.
    pub stream: String,
    /// What was noted of a segment.
    pub noted: Option<Noted>,
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> OpsError + use<'_> {
    move |source| OpsError::Read { name: path.display().to_string(), source }
}

fn refused(name: &str, why: impl std::fmt::Display) -> OpsError {
    OpsError::Stopped {
        why: format!("{name} was refused: {why}"),
        cure: "look where the file comes from: it is not what its name says",
    }
}

/// Archives a file of the log: a segment, the beginning of one, a history, a backup label. Durable when
/// this returns (A1, A4); the same bytes again are a success (A3), other bytes under a name are recorded as
/// a conflict and refused (A2).
///
/// # Errors
///
/// When the file is not what its name says or belongs to another cluster; else when this key may not,
/// or the store fails.
pub fn push(repository: &Repository, archiver: &Archiver, path: &Path) -> Result<Pushed, OpsError> {
    push_as(repository, archiver, path, path.file_name().and_then(|name| name.to_str()).unwrap_or_default())
}

/// Archives a file of the log as [`push`] does, under another name than it has.
///
/// # Errors
///
/// As [`push`].
pub fn push_as(
    repository: &Repository,
    archiver: &Archiver,
    path: &Path,
    name: &str,
) -> Result<Pushed, OpsError> {
    push_handed(repository, archiver, path, name, Handed::read(path, name))
}

/// A file of the log as a server hands it over, open, and of a segment as much in memory as goes into one object.
pub struct Handed {
    source: File,
    length: u64,
    first: Option<Room>,
}

impl Handed {
    /// Opens and reads a file that has this name, or is to have it. Asks no repository, so that one may be opened
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or read.
    pub fn read(path: &Path, name: &str) -> Result<Self, OpsError> {
        let mut source = File::open(path).map_err(read_error(path))?;
        let length = source.metadata().map_err(read_error(path))?.len();
        let mut first = None;
        if let Ok(LogFile::Segment(_) | LogFile::Partial(_)) = name.parse() {
            let bytes = usize::try_from(length.min(limits::LOG_PIECE_BYTES_MAX)).unwrap_or(0);
            let room = Room::read_file(&source, bytes).map_err(read_error(path))?;
            source.seek(SeekFrom::Start(room.len() as u64)).map_err(read_error(path))?;
            first = Some(room);
        }
        Ok(Self { source, length, first })
    }
}

/// Archives a file of the log as [`push_as`] does, which was opened and read by [`Handed::read`].
///
/// # Errors
///
/// As [`push`].
pub fn push_handed(
    repository: &Repository,
    archiver: &Archiver,
    path: &Path,
    name: &str,
    handed: Result<Handed, OpsError>,
) -> Result<Pushed, OpsError> {
    let file: LogFile = name.parse().map_err(|error| OpsError::Usage(format!("{error}")))?;
    let Handed { mut source, length, first } = handed?;
    let of_directory = data::system_identifier(path);
    match file {
        LogFile::Segment(segment) | LogFile::Partial(segment) => {
            let mut pieces = Pieces { path, name, segment, source, first, length, of_directory };
            pieces.push(repository, archiver, || whole_digest(path))
        }
        LogFile::History { .. } | LogFile::BackupLabel { .. } => {
            check_small(name, length)?;
            let mut bytes = Vec::new();
            source.read_to_end(&mut bytes).map_err(read_error(path))?;
            let beside = data::neighbour(path).map(|first| Lineage::of(&first));
            push_small(repository, archiver, (beside, of_directory), name, file, &bytes)
        }
    }
}

/// Archives a file of the log as [`push`] does, whose bytes came from elsewhere: out of the data directory of this
/// system, as whoever sent them says.
///
/// # Errors
///
/// As [`push`].
pub fn push_bytes(
    repository: &Repository,
    archiver: &Archiver,
    system_identifier: u64,
    name: &str,
    bytes: &[u8],
) -> Result<Pushed, OpsError> {
    let file: LogFile = name.parse().map_err(|error| OpsError::Usage(format!("{error}")))?;
    let (path, length) = (Path::new(name), bytes.len() as u64);
    let of_directory = Some(system_identifier);
    match file {
        LogFile::Segment(segment) | LogFile::Partial(segment) => {
            let first = None;
            let mut pieces = Pieces { path, name, segment, source: bytes, first, length, of_directory };
            pieces.push(repository, archiver, || Ok(digest_of(bytes)))
        }
        LogFile::History { .. } | LogFile::BackupLabel { .. } => {
            check_small(name, length)?;
            push_small(repository, archiver, (None, of_directory), name, file, bytes)
        }
    }
}

fn check_small(name: &str, length: u64) -> Result<(), OpsError> {
    match length {
        1..=SMALL_FILE_BYTES_MAX => Ok(()),
        _ => Err(refused(name, format!("it has {length} bytes"))),
    }
}

pub(in crate::postgres) fn digest_of(bytes: &[u8]) -> LogDigest {
    LogDigest { length: bytes.len() as u64, blake3: *blake3::hash(bytes).as_bytes() }
}

/// Archives a file that does not say which cluster it belongs to: what lies beside it and the data directory around
/// it do, or else the name, where it has only one lineage.
fn push_small(
    repository: &Repository,
    archiver: &Archiver,
    (beside, identifier): (Option<Lineage>, Option<u64>),
    name: &str,
    file: LogFile,
    bytes: &[u8],
) -> Result<Pushed, OpsError> {
    let of_directory = beside.filter(|lineage| identifier.is_none_or(|id| id == lineage.system_identifier));
    let lineage = match of_directory {
        Some(lineage) => lineage,
        None => {
            let known = lineages(repository, &archiver.cluster)?;
            let matching = |lineage: &&Lineage| identifier.is_none_or(|id| id == lineage.system_identifier);
            let found = known.iter().rev().find(matching).cloned();
            found.ok_or_else(|| {
                refused(name, "neither its data directory nor the archive says which cluster it belongs to")
            })?
        }
    };
    admit(repository, archiver, &lineage, name, || Ok(digest_of(bytes)))?;
    let mut entry = archiver.entry(lineage.stream(&archiver.cluster), name, &lineage);
    entry.timeline = Some(file.timeline());
    if let LogFile::History { timeline } = file {
        note_ancestors(&mut entry, timeline, bytes);
    }
    let outcome = repository.archive_log(&entry, bytes)?;
    let (name, bytes) = (name.to_owned(), bytes.len() as u64);
    Ok(Pushed { name, bytes, outcome, stream: entry.stream, noted: None })
}

/// Notes the ancestors of a timeline, so that who may not read content can still tell where it branches off.
pub(in crate::postgres) fn note_ancestors(entry: &mut LogEntry, timeline: u32, history: &[u8]) {
    let Ok(history) = read_history(u64::from(timeline), history) else { return };
    let ends = history.branches().filter_map(|branch| Some((branch.timeline, branch.end?)));
    let ancestors: Vec<String> = ends.map(|(timeline, end)| format!("{timeline} {}", Lsn(end))).collect();
    entry.facts.insert("ancestors".to_owned(), short(&ancestors));
}

/// A list as a fact: a line each, as many as there is room for.
fn short(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        if text.len() + line.len() >= FACT_BYTES_MAX {
            break;
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// A segment on its way, in one piece or several.
struct Pieces<'a, R> {
    path: &'a Path,
    name: &'a str,
    segment: SegmentName,
    source: R,
    /// What was read of it before.
    first: Option<Room>,
    length: u64,
    /// The system whose data directory it lies in.
    of_directory: Option<u64>,
}

impl<R: Read> Pieces<'_, R> {
    /// Returns what goes into the first object, which is all of a segment unless that is long.
    fn first_piece(&mut self) -> Result<Room, OpsError> {
        let wanted = limits::LOG_PIECE_BYTES_MAX.min(self.length);
        let first = match self.first.take() {
            Some(first) => first,
            None => self.read(wanted)?,
        };
        // A part of it would be archived for the whole, and the whole be refused afterwards.
        if first.len() as u64 == wanted { Ok(first) } else { Err(refused(self.name, SHORTER)) }
    }

    /// Archives it; `digest` is that of the whole, for the record of a conflict.
    fn push(
        &mut self,
        repository: &Repository,
        archiver: &Archiver,
        digest: impl FnOnce() -> Result<LogDigest, OpsError>,
    ) -> Result<Pushed, OpsError> {
        let piece_bytes = limits::LOG_PIECE_BYTES_MAX;
        let mut bytes = self.first_piece()?;
        let first = FirstPage::read(&bytes).map_err(|why: PageError| refused(self.name, why))?;
        self.check(&first)?;
        let lineage = Lineage::of(&first);
        if let Some(of_directory) = self.of_directory.filter(|id| *id != lineage.system_identifier) {
            let why = format!(
                "it was written by system {}, but lies in the data directory of system {of_directory}",
                lineage.system_identifier
            );
            return Err(refused(self.name, why));
        }
        admit(repository, archiver, &lineage, self.name, digest)?;
        let stream = lineage.stream(&archiver.cluster);
        let mut entry = archiver.entry(stream.clone(), self.name, &lineage);
        entry.timeline = Some(self.segment.timeline());
        let outcome;
        let mut noted = Noted::default();
        if self.length <= piece_bytes {
            let length = self.length;
            let tell = || {
                noted = walk(&bytes, &first);
                let mut told = entry.clone();
                note(&mut told, &noted, first.address.0, length);
                told
            };
            outcome = repository.archive_log_telling(&entry, &bytes, tell)?;
        } else {
            // Of the very bytes that are stored: read again, the file could be another.
            let mut hasher = blake3::Hasher::new();
            let mut at = 0;
            loop {
                let here = FirstPage { address: Lsn(first.address.0 + at), ..first };
                noted = walk_behind(&bytes, &here, &noted);
                let mut piece = entry.clone();
                note(&mut piece, &noted, here.address.0, bytes.len() as u64);
                let end = at + bytes.len() as u64;
                hasher.update(&bytes);
                let whole = || LogDigest { length: end, blake3: *hasher.finalize().as_bytes() };
                let last = (end == self.length).then(whole);
                let put = repository.archive_log_piece(&piece, at, &bytes, last)?;
                if last.is_some() {
                    outcome = put;
                    break;
                }
                at = end;
                bytes = self.read(piece_bytes.min(self.length - at))?;
                if bytes.is_empty() {
                    return Err(refused(self.name, SHORTER));
                }
            }
        }
        Ok(Pushed { name: self.name.to_owned(), bytes: self.length, outcome, stream, noted: Some(noted) })
    }

    fn read(&mut self, limit_bytes: u64) -> Result<Room, OpsError> {
        let length = usize::try_from(self.length.min(limit_bytes)).unwrap_or(0);
        Room::read(&mut self.source, length).map_err(read_error(self.path))
    }

    /// Compares the first page with the name and the length.
    fn check(&self, first: &FirstPage) -> Result<(), OpsError> {
        let size = first.segment_size;
        if self.length != size.bytes() {
            let why = format!("it has {} bytes, segments of its cluster have {}", self.length, size.bytes());
            return Err(refused(self.name, why));
        }
        let Some(start) = self.segment.start(size).filter(|start| *start == first.address) else {
            let why = format!("its first page is that of position {}", first.address);
            return Err(refused(self.name, why));
        };
        // A segment in which a timeline begins starts with a copy of its parent's pages (A15).
        if first.timeline > self.segment.timeline() {
            let why = format!("its first page, at {start}, is of timeline {}", first.timeline);
            return Err(refused(self.name, why));
        }
        Ok(())
    }
}

/// Notes in an entry what recovery needs to know of a segment.
pub(in crate::postgres) fn note(entry: &mut LogEntry, noted: &Noted, start: u64, length: u64) {
    entry.positions = Some((start, start.saturating_add(length)));
    if noted.complete {
        entry.commits = noted.commits;
        if noted.switched {
            entry.facts.insert("records_end".to_owned(), noted.end.to_string());
        }
    } else {
        entry.facts.insert("times".to_owned(), "unknown".to_owned());
    }
    if !noted.begun.is_empty() {
        entry.facts.insert(BEGUN.to_owned(), hexadecimal(&noted.begun));
    }
    if !noted.init_forks.is_empty() {
        let lines: String = noted.init_forks.iter().map(|relation| format!("{relation}\n")).collect();
        let told = if lines.len() < FACT_BYTES_MAX { lines } else { TOO_MANY.to_owned() };
        entry.facts.insert(INIT_FORKS.to_owned(), told);
    }
    let points = noted.restore_points.iter().map(|(name, at)| format!("{at} {name}"));
    let tablespaces = noted.tablespaces.iter().map(|(number, folder)| format!("{number} {folder}"));
    let lists: [(&str, Vec<String>); 2] =
        [("restore_points", points.collect()), ("tablespaces_created", tablespaces.collect())];
    for (fact, lines) in lists.into_iter().filter(|(_, lines)| !lines.is_empty()) {
        entry.facts.insert(fact.to_owned(), short(&lines));
    }
}

/// Returns what a record says of a creation that goes on behind it; empty where it says nothing, or nothing that
/// can be read.
pub(in crate::postgres) fn record_begun(record: &LogRecord) -> Vec<u8> {
    let digits = record.facts.get(BEGUN).map_or("", String::as_str).as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect::<Option<_>>().unwrap_or_default()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(in crate::postgres) fn whole_digest(path: &Path) -> Result<LogDigest, OpsError> {
    let mut hasher = blake3::Hasher::new();
    let mut source = File::open(path).map_err(read_error(path))?;
    io::copy(&mut source, &mut hasher).map_err(read_error(path))?;
    Ok(LogDigest { length: hasher.count(), blake3: *hasher.finalize().as_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is cut short between the question for its length and the reading, as on a network file system.
    #[test]
    fn what_ends_early_is_refused() {
        let bytes = vec![1_u8; 5000];
        let pieces = |length, first| Pieces {
            path: Path::new("pg_wal/000000010000000000000001"),
            name: "000000010000000000000001",
            segment: "000000010000000000000001".parse().unwrap(),
            source: bytes.as_slice(),
            first,
            length,
            of_directory: None,
        };
        let read = |length| Room::read(&mut bytes.as_slice(), length).unwrap();
        assert_eq!(pieces(5000, None).first_piece().unwrap().len(), 5000);
        assert_eq!(pieces(5000, Some(read(5000))).first_piece().unwrap().len(), 5000);
        for first in [None, Some(read(5000))] {
            let why = pieces(16 << 20, first).first_piece().map(drop).unwrap_err();
            assert!(crate::base::explain(&why).contains("became shorter"), "{}", crate::base::explain(&why));
        }
    }
}
