//! What is known of an archived log segment, without its bytes.

use crate::base::{BlobId, LogPackId, Timestamp, limits};
use crate::format::FormatError;
use crate::format::bytes::{Fields, at_most, ensure, invalid};
use crate::format::cbor::{Extra, Field, MapWriter, Reader, decode_map, encode_map, required};
use crate::format::sets::{IdSet, not_empty};
use std::collections::{BTreeMap, BTreeSet};

const WHAT: &str = "log record";
const CHUNK_BYTES: usize = 36;

/// What a record speaks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogRecordKind {
    /// A whole segment, or another file of the log: a timeline's history, a backup label.
    Segment = 1,
    /// A part of a segment that is archived while it grows, or because it is long.
    Piece = 2,
    /// Segments that will never be there.
    Gap = 3,
    /// Bytes that were offered under a taken name, and refused.
    Conflict = 4,
    /// Many records, which follow this one in a merged log pack.
    Merged = 5,
}

impl LogRecordKind {
    fn from_code(code: u64) -> Result<Self, FormatError> {
        match code {
            0 => Err(invalid(WHAT, "there is no kind 0")),
            1 => Ok(Self::Segment),
            2 => Ok(Self::Piece),
            3 => Ok(Self::Gap),
            4 => Ok(Self::Conflict),
            5 => Ok(Self::Merged),
            _ => Err(FormatError::Unsupported { what: "kind of log record" }),
        }
    }
}

/// A blob of a segment, in the frames of the same log pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogChunk {
    /// The blob.
    pub id: BlobId,
    /// Its length.
    pub length: u32,
}

/// Length and digest of plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDigest {
    /// How many bytes.
    pub length: u64,
    /// Their BLAKE3 hash, without a key.
    pub blake3: [u8; 32],
}

/// The plain bytes that a record stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogContent {
    /// Their length and digest.
    pub digest: LogDigest,
    /// Where they are; empty where they are not kept.
    pub chunks: Vec<LogChunk>,
    /// Fields of newer programs.
    pub extra: Extra,
}

/// A stretch of records without a hole between them, as the record of a merge sums it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRun {
    /// Name of its first segment.
    pub first: String,
    /// Name of its last segment.
    pub last: String,
    /// How many records it sums up.
    pub records: u64,
    /// Plain bytes of all of them.
    pub bytes: u64,
    /// The timeline.
    pub timeline: Option<u64>,
    /// Positions in the log: where it begins and ends.
    pub positions: Option<(u64, u64)>,
    /// The earliest and the latest commit in it.
    pub commits: Option<(Timestamp, Timestamp)>,
    /// Names of all facts that any of its records has.
    pub facts: BTreeSet<String>,
    /// Fields of newer programs.
    pub extra: Extra,
}

/// A record. Which fields a kind must have is checked when it is encoded and decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// What it speaks about.
    pub kind: LogRecordKind,
    /// The log stream: a cluster and its lineage.
    pub stream: String,
    /// Name of the segment; the first one of a gap or merge.
    pub name: String,
    /// When it was archived, by the host's clock.
    pub created: Timestamp,
    /// The host.
    pub host: String,
    /// Name and version of the program.
    pub program: String,
    /// Name of the last segment of a gap or merge.
    pub last_name: Option<String>,
    /// The bytes that it stands for; of a conflict, those that were refused.
    pub content: Option<LogContent>,
    /// Where in the segment a piece begins.
    pub piece_offset: Option<u64>,
    /// The whole segment, in the piece that ends it.
    pub whole: Option<LogDigest>,
    /// The engine: `postgresql`, `mysql`, `mariadb`.
    pub engine: String,
    /// What tells one lineage from another: the system identifier, the server's id.
    pub lineage: Option<String>,
    /// The timeline.
    pub timeline: Option<u64>,
    /// Positions in the log: where it begins and ends.
    pub positions: Option<(u64, u64)>,
    /// The earliest and the latest commit in it; absent where that is not known.
    pub commits: Option<(Timestamp, Timestamp)>,
    /// Why there is a gap or conflict.
    pub reason: Option<String>,
    /// The log pack that holds the name against which a conflict arose.
    pub against: Option<LogPackId>,
    /// What a merge holds, in the order of its records.
    pub runs: Vec<LogRun>,
    /// The log packs whose records a merge holds.
    pub replaces: IdSet<LogPackId>,
    /// Facts that the engine needs.
    pub facts: BTreeMap<String, String>,
    /// Fields of newer programs.
    pub extra: Extra,
}

impl LogRecord {
    /// Encodes the payload of the envelope.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        let bytes = encode_map(&self.extra, |map| self.write(map));
        at_most(WHAT, bytes.len() as u64, limits::LOG_RECORD_BYTES_MAX)?;
        Ok(bytes)
    }

    fn write(&self, map: &mut MapWriter<'_>) {
        map.at(0).unsigned(self.kind as u64);
        map.at(1).text(&self.stream);
        map.at(2).text(&self.name);
        map.at(3).signed(self.created.nanoseconds());
        map.at(4).text(&self.host);
        map.at(5).text(&self.program);
        map.optional(6, self.last_name.as_deref(), |place, name| place.text(name));
        map.optional(7, self.content.as_ref(), |place, content| {
            place.map(&content.extra, |map| content.write(map));
        });
        map.optional(8, self.piece_offset, |place, offset| place.unsigned(offset));
        map.optional(9, self.whole, |place, whole| {
            place.map(&Extra::new(), |map| {
                map.at(0).unsigned(whole.length);
                map.at(1).bytes(&whole.blake3);
            });
        });
        map.at(10).text(&self.engine);
        map.optional(11, self.lineage.as_deref(), |place, lineage| place.text(lineage));
        map.optional(12, self.timeline, |place, timeline| place.unsigned(timeline));
        write_range(map, 13, self.positions, self.commits);
        map.optional(17, self.reason.as_deref(), |place, reason| place.text(reason));
        map.optional(18, self.against, |place, id| place.bytes(id.as_bytes()));
        map.list(19, &self.runs, |place, run| place.map(&run.extra, |map| run.write(map)));
        self.replaces.write_packed(map, 20);
        if !self.facts.is_empty() {
            map.at(21).text_map(&self.facts);
        }
    }

    /// Decodes the payload of the envelope.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        at_most(WHAT, bytes.len() as u64, limits::LOG_RECORD_BYTES_MAX)?;
        let (mut kind, mut stream, mut name, mut created) = (None, None, None, None);
        let (mut host, mut program, mut last_name, mut content) = (None, None, None, None);
        let (mut piece_offset, mut whole, mut engine, mut lineage) = (None, None, None, None);
        let (mut timeline, mut range, mut reason, mut against) = (None, Range::default(), None, None);
        let (mut runs, mut replaces, mut facts) = (Vec::new(), IdSet::default(), BTreeMap::new());
        let extra = decode_map(WHAT, bytes, |number, value| {
            match number {
                0 => kind = Some(LogRecordKind::from_code(value.unsigned()?)?),
                1 => stream = Some(text(value)?),
                2 => name = Some(text(value)?),
                3 => created = Some(value.timestamp()?),
                4 => host = Some(text(value)?),
                5 => program = Some(text(value)?),
                6 => last_name = Some(text(value)?),
                7 => content = Some(LogContent::read(value)?),
                8 => piece_offset = Some(value.unsigned()?),
                9 => whole = Some(read_digest(value)?),
                10 => engine = Some(text(value)?),
                11 => lineage = Some(text(value)?),
                12 => timeline = Some(value.unsigned()?),
                13..=16 => range.read(number - 13, value)?,
                17 => reason = Some(text(value)?),
                18 => against = Some(LogPackId::new(value.fixed()?)),
                19 => runs = not_empty(WHAT, value.array(limits::LIST_IDS_MAX, LogRun::read)?)?,
                20 => replaces = IdSet::read_packed(value, limits::LOG_RECORD_BYTES_MAX)?,
                21 => {
                    facts = value.text_map(limits::FACTS_MAX, limits::VALUE_BYTES_MAX)?;
                    ensure(!facts.is_empty(), WHAT, "an empty map is left out")?;
                }
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let (positions, commits) = range.pairs()?;
        let read = Self {
            kind: required(kind, WHAT)?,
            stream: required(stream, WHAT)?,
            name: required(name, WHAT)?,
            created: required(created, WHAT)?,
            host: required(host, WHAT)?,
            program: required(program, WHAT)?,
            last_name,
            content,
            piece_offset,
            whole,
            engine: required(engine, WHAT)?,
            lineage,
            timeline,
            positions,
            commits,
            reason,
            against,
            runs,
            replaces,
            facts,
            extra,
        };
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), FormatError> {
        let named = [&self.stream, &self.name, &self.engine].into_iter().all(|name| !name.is_empty());
        ensure(named && self.last_name.as_deref() != Some(""), WHAT, "a name is empty")?;
        check_range(self.positions, self.commits)?;
        self.runs.iter().try_for_each(LogRun::check)?;
        let stored = self.content.as_ref().is_some_and(|content| !content.chunks.is_empty());
        if let Some(content) = &self.content {
            content.check()?;
        }
        let complete = match self.kind {
            LogRecordKind::Segment => stored && self.piece_offset.is_none() && self.whole.is_none(),
            LogRecordKind::Piece => return self.check_piece(stored),
            LogRecordKind::Gap => self.content.is_none() && self.last_name.is_some() && self.reason.is_some(),
            LogRecordKind::Conflict => self.content.is_some() && !stored && self.reason.is_some(),
            LogRecordKind::Merged => {
                self.content.is_none() && self.last_name.is_some() && !self.runs.is_empty()
            }
        };
        ensure(complete, WHAT, "its kind needs a field that is missing, or has one that it must not")
    }

    fn check_piece(&self, stored: bool) -> Result<(), FormatError> {
        let (Some(content), Some(offset), true) = (&self.content, self.piece_offset, stored) else {
            return Err(invalid(WHAT, "a piece needs content and its offset"));
        };
        let end = offset.saturating_add(content.digest.length);
        at_most("end of a piece", end, limits::FILE_BYTES_MAX)?;
        let ends = self.whole.is_none_or(|whole| whole.length == end);
        ensure(ends, WHAT, "the last piece does not end where the segment does")
    }
}

impl LogContent {
    fn write(&self, map: &mut MapWriter<'_>) {
        map.at(0).unsigned(self.digest.length);
        map.at(1).bytes(&self.digest.blake3);
        if !self.chunks.is_empty() {
            let mut packed = Vec::with_capacity(self.chunks.len().saturating_mul(CHUNK_BYTES));
            for chunk in &self.chunks {
                packed.extend_from_slice(chunk.id.as_bytes());
                packed.extend_from_slice(&chunk.length.to_le_bytes());
            }
            map.at(2).bytes(&packed);
        }
    }

    fn read(reader: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut length, mut blake3, mut chunks) = (None, None, Vec::new());
        let extra = reader.map(|number, value| {
            match number {
                0 => length = Some(value.unsigned()?),
                1 => blake3 = Some(value.fixed()?),
                2 => chunks = not_empty(WHAT, read_chunks(value.bytes(limits::LOG_RECORD_BYTES_MAX)?)?)?,
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let digest = LogDigest { length: required(length, WHAT)?, blake3: required(blake3, WHAT)? };
        Ok(Self { digest, chunks, extra })
    }

    fn check(&self) -> Result<(), FormatError> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        at_most("plain bytes of a log record", self.digest.length, limits::LOG_PIECE_BYTES_MAX)?;
        let mut sum = 0_u64;
        for chunk in &self.chunks {
            ensure(chunk.length > 0, WHAT, "a chunk is empty")?;
            at_most("chunk length", u64::from(chunk.length), limits::BLOB_BYTES_MAX)?;
            sum += u64::from(chunk.length);
        }
        ensure(sum == self.digest.length, WHAT, "its chunks do not sum to its length")
    }
}

fn read_chunks(bytes: &[u8]) -> Result<Vec<LogChunk>, FormatError> {
    let (whole, rest) = bytes.as_chunks::<CHUNK_BYTES>();
    ensure(rest.is_empty(), WHAT, "its chunks are no multiple of 36 bytes")?;
    let chunk = |bytes: &[u8; CHUNK_BYTES]| {
        let mut fields = Fields::new(bytes);
        Ok(LogChunk { id: BlobId::new(fields.array()?), length: fields.u32()? })
    };
    whole.iter().map(chunk).collect()
}

impl LogRun {
    fn write(&self, map: &mut MapWriter<'_>) {
        map.at(0).text(&self.first);
        map.at(1).text(&self.last);
        map.at(2).unsigned(self.records);
        map.at(3).unsigned(self.bytes);
        map.optional(4, self.timeline, |place, timeline| place.unsigned(timeline));
        write_range(map, 5, self.positions, self.commits);
        let facts: Vec<&String> = self.facts.iter().collect();
        map.list(9, &facts, |place, fact| place.text(fact));
    }

    fn read(reader: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut first, mut last, mut records, mut bytes) = (None, None, None, None);
        let (mut timeline, mut range, mut facts) = (None, Range::default(), BTreeSet::new());
        let extra = reader.map(|number, value| {
            match number {
                0 => first = Some(text(value)?),
                1 => last = Some(text(value)?),
                2 => records = Some(value.unsigned()?),
                3 => bytes = Some(value.unsigned()?),
                4 => timeline = Some(value.unsigned()?),
                5..=8 => range.read(number - 5, value)?,
                9 => facts = ascending(not_empty(WHAT, value.array(limits::FACTS_MAX, text)?)?)?,
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let (positions, commits) = range.pairs()?;
        Ok(Self {
            first: required(first, WHAT)?,
            last: required(last, WHAT)?,
            records: required(records, WHAT)?,
            bytes: required(bytes, WHAT)?,
            timeline,
            positions,
            commits,
            facts,
            extra,
        })
    }

    fn check(&self) -> Result<(), FormatError> {
        ensure(!self.first.is_empty() && !self.last.is_empty(), WHAT, "a name is empty")?;
        ensure(self.records > 0, WHAT, "a run has no records")?;
        check_range(self.positions, self.commits)
    }
}

fn ascending(names: Vec<String>) -> Result<BTreeSet<String>, FormatError> {
    ensure(names.is_sorted_by(|a, b| a < b), WHAT, "the names of facts do not ascend")?;
    Ok(names.into_iter().collect())
}

/// The four fields of positions and commits, while they are read.
#[derive(Default)]
struct Range {
    start: Option<u64>,
    end: Option<u64>,
    earliest: Option<Timestamp>,
    latest: Option<Timestamp>,
}

type Positions = Option<(u64, u64)>;
type Commits = Option<(Timestamp, Timestamp)>;

impl Range {
    fn read(&mut self, number: u64, value: Reader<'_, '_>) -> Result<(), FormatError> {
        match number {
            0 => self.start = Some(value.unsigned()?),
            1 => self.end = Some(value.unsigned()?),
            2 => self.earliest = Some(value.timestamp()?),
            _ => self.latest = Some(value.timestamp()?),
        }
        Ok(())
    }

    fn pairs(self) -> Result<(Positions, Commits), FormatError> {
        let positions = self.start.zip(self.end);
        let commits = self.earliest.zip(self.latest);
        let paired = positions.is_some() == (self.start.is_some() || self.end.is_some())
            && commits.is_some() == (self.earliest.is_some() || self.latest.is_some());
        ensure(paired, WHAT, "a range has only one end")?;
        Ok((positions, commits))
    }
}

fn write_range(map: &mut MapWriter<'_>, field: u64, positions: Positions, commits: Commits) {
    if let Some((start, end)) = positions {
        map.at(field).unsigned(start);
        map.at(field + 1).unsigned(end);
    }
    if let Some((earliest, latest)) = commits {
        map.at(field + 2).signed(earliest.nanoseconds());
        map.at(field + 3).signed(latest.nanoseconds());
    }
}

fn check_range(positions: Positions, commits: Commits) -> Result<(), FormatError> {
    let ordered = positions.is_none_or(|(start, end)| start <= end)
        && commits.is_none_or(|(earliest, latest)| earliest <= latest);
    ensure(ordered, WHAT, "a range ends before it begins")
}

fn read_digest(reader: Reader<'_, '_>) -> Result<LogDigest, FormatError> {
    let (mut length, mut blake3) = (None, None);
    let extra = reader.map(|number, value| {
        match number {
            0 => length = Some(value.unsigned()?),
            1 => blake3 = Some(value.fixed()?),
            _ => return Ok(Field::Unknown),
        }
        Ok(Field::Known)
    })?;
    ensure(extra.is_empty(), WHAT, "the digest of the whole has only two fields")?;
    Ok(LogDigest { length: required(length, WHAT)?, blake3: required(blake3, WHAT)? })
}

fn text(reader: Reader<'_, '_>) -> Result<String, FormatError> {
    reader.text(limits::NAME_BYTES_MAX).map(str::to_owned)
}
