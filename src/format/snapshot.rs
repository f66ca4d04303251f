//! A snapshot: the commit object of a backup, the payload of an envelope in deterministic CBOR.
//! Normative: `format-spec/snapshot.md`.

use super::FormatError;
use super::bytes::{at_most, ensure, invalid};
use super::cbor::{Extra, Field, Reader, Writer, decode_map, encode_map, required};
use crate::base::{BlobId, SnapshotId, Timestamp, TrustId, limits};
use std::collections::BTreeMap;

/// How a backup used its parent. Whatever it says, the snapshot is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SnapshotMode {
    /// Everything was read, no parent was used.
    Full = 0,
    /// Against the newest snapshot.
    Incremental = 1,
    /// Against the newest full one.
    Differential = 2,
}

/// Figures of a backup, for people and for reports; nothing relies on them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotSummary {
    /// Files and streams in the snapshot.
    pub files: u64,
    /// Folders in the snapshot.
    pub directories: u64,
    /// Other entries: links, pipes, sockets, devices.
    pub others: u64,
    /// Bytes of all files and streams.
    pub bytes: u64,
    /// Blobs that had to be stored.
    pub new_blobs: u64,
    /// Plain bytes of these.
    pub new_bytes: u64,
    /// Bytes that the store grew by, packs only.
    pub stored_bytes: u64,
    /// Files that could not be read, or changed or vanished while they were.
    pub unreadable: u64,
    /// Files taken from the parent without reading.
    pub unchanged_files: u64,
    /// Figures of newer programs, kept as they were found.
    pub extra: Extra,
}

/// A backup as it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The host whose data it is.
    pub host: String,
    /// The label that the user gave, by which parents are found; may be empty.
    pub label: String,
    /// Who ran the backup; may be empty.
    pub user: String,
    /// When it began.
    pub started: Timestamp,
    /// When the commit was made.
    pub ended: Timestamp,
    /// The snapshot that it was compared with.
    pub parent: Option<SnapshotId>,
    /// How the parent was used.
    pub mode: SnapshotMode,
    /// What was asked to be backed up: paths, names of streams.
    pub sources: Vec<String>,
    /// The topmost tree node.
    pub root: BlobId,
    /// Figures.
    pub summary: SnapshotSummary,
    /// Name and version of the program.
    pub program: String,
    /// Tags given at the start, with their values where they have one. Annotations add more.
    pub tags: BTreeMap<String, Option<String>>,
    /// Sequence of the registry of trust that the writer knew.
    pub trust_sequence: u64,
    /// Id of that registry.
    pub trust: TrustId,
    /// What kind of backup: `files`, `stream`, `commands`, an engine's name.
    pub kind: String,
    /// Facts that an engine needs to bring a database back.
    pub facts: BTreeMap<String, String>,
    /// Fields of newer programs, kept as they were found.
    pub extra: Extra,
}

impl SnapshotMode {
    fn from_number(number: u64) -> Result<Self, FormatError> {
        let found = [Self::Full, Self::Incremental, Self::Differential]
            .into_iter()
            .find(|mode| *mode as u64 == number);
        found.ok_or(FormatError::Unsupported { what: "snapshot mode" })
    }
}

impl SnapshotSummary {
    fn figures(&mut self) -> [&mut u64; 9] {
        [
            &mut self.files,
            &mut self.directories,
            &mut self.others,
            &mut self.bytes,
            &mut self.new_blobs,
            &mut self.new_bytes,
            &mut self.stored_bytes,
            &mut self.unreadable,
            &mut self.unchanged_files,
        ]
    }

    fn encode(&self, out: Writer<'_>) {
        let mut copy = self.clone();
        out.map(&self.extra, |map| {
            for (number, figure) in copy.figures().into_iter().enumerate() {
                map.at(number as u64).unsigned(*figure);
            }
        });
    }

    fn decode(reader: Reader<'_, '_>) -> Result<Self, FormatError> {
        let mut summary = Self::default();
        let mut figures = summary.figures();
        let mut seen = 0;
        let extra = reader.map(|number, value| {
            let place = usize::try_from(number).ok().and_then(|number| figures.get_mut(number));
            let Some(figure) = place else { return Ok(Field::Unknown) };
            **figure = value.unsigned()?;
            seen += 1;
            Ok(Field::Known)
        })?;
        let complete = seen == figures.len();
        ensure(complete, "snapshot summary", "a figure is missing")?;
        summary.extra = extra;
        Ok(summary)
    }
}

impl Snapshot {
    /// Encodes the payload; refuses what no reader would accept.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        let bytes = encode_map(&self.extra, |map| {
            map.at(0).text(&self.host);
            map.at(1).text(&self.label);
            map.at(2).text(&self.user);
            map.at(3).signed(self.started.nanoseconds());
            map.at(4).signed(self.ended.nanoseconds());
            map.optional(5, self.parent, |out, id| out.bytes(id.as_bytes()));
            map.at(6).unsigned(self.mode as u64);
            map.at(7).array(&self.sources, |out, source| out.text(source));
            map.at(8).bytes(self.root.as_bytes());
            self.summary.encode(map.at(9));
            map.at(10).text(&self.program);
            let tags: Vec<_> = self.tags.iter().collect();
            map.list(11, &tags, |out, (key, value)| {
                let parts: Vec<_> = std::iter::once(*key).chain(value.as_ref()).collect();
                out.array(&parts, |out, part| out.text(part));
            });
            map.at(12).unsigned(self.trust_sequence);
            map.at(13).bytes(self.trust.as_bytes());
            map.at(14).text(&self.kind);
            if !self.facts.is_empty() {
                map.at(15).text_map(&self.facts);
            }
        });
        at_most("snapshot length", bytes.len() as u64, limits::STRUCTURED_BYTES_MAX)?;
        Ok(bytes)
    }

    /// Reads a payload from exactly its bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        at_most("snapshot length", bytes.len() as u64, limits::STRUCTURED_BYTES_MAX)?;
        let mut raw = Raw::default();
        let extra = decode_map("snapshot", bytes, |number, value| raw.read(number, value))?;
        let snapshot = raw.validate(extra)?;
        snapshot.check()?;
        Ok(snapshot)
    }

    fn check(&self) -> Result<(), FormatError> {
        ensure(!self.host.is_empty(), "snapshot host", "is empty")?;
        ensure(!self.kind.is_empty(), "snapshot kind", "is empty")?;
        for text in [&self.host, &self.label, &self.user, &self.program, &self.kind] {
            at_most("snapshot text", text.len() as u64, limits::NAME_BYTES_MAX)?;
        }
        at_most("snapshot sources", self.sources.len() as u64, limits::SNAPSHOT_SOURCES_MAX)?;
        for source in &self.sources {
            at_most("snapshot source", source.len() as u64, limits::VALUE_BYTES_MAX)?;
        }
        at_most("snapshot tags", self.tags.len() as u64, limits::SNAPSHOT_TAGS_MAX)?;
        for (key, value) in &self.tags {
            ensure(!key.is_empty(), "snapshot tag", "has an empty key")?;
            at_most("snapshot tag", key.len() as u64, limits::NAME_BYTES_MAX)?;
            at_most("snapshot tag", value.as_ref().map_or(0, String::len) as u64, limits::NAME_BYTES_MAX)?;
        }
        at_most("snapshot facts", self.facts.len() as u64, limits::SNAPSHOT_FACTS_MAX)?;
        for text in self.facts.iter().flat_map(|(key, value)| [key, value]) {
            at_most("snapshot fact", text.len() as u64, limits::VALUE_BYTES_MAX)?;
        }
        ensure(self.trust_sequence > 0, "snapshot trust sequence", "registries count from 1")
    }
}

/// The fields as they are read, before it is known that all are there.
#[derive(Default)]
struct Raw {
    host: Option<String>,
    label: Option<String>,
    user: Option<String>,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    parent: Option<SnapshotId>,
    mode: Option<SnapshotMode>,
    sources: Option<Vec<String>>,
    root: Option<BlobId>,
    summary: Option<SnapshotSummary>,
    program: Option<String>,
    tags: BTreeMap<String, Option<String>>,
    trust_sequence: Option<u64>,
    trust: Option<TrustId>,
    kind: Option<String>,
    facts: BTreeMap<String, String>,
}

impl Raw {
    fn read(&mut self, number: u64, value: Reader<'_, '_>) -> Result<Field, FormatError> {
        match number {
            0 => self.host = Some(name(value)?),
            1 => self.label = Some(name(value)?),
            2 => self.user = Some(name(value)?),
            3 => self.started = Some(value.timestamp()?),
            4 => self.ended = Some(value.timestamp()?),
            5 => self.parent = Some(SnapshotId::new(value.fixed()?)),
            6 => self.mode = Some(SnapshotMode::from_number(value.unsigned()?)?),
            7 => {
                let source = |item: Reader<'_, '_>| Ok(item.text(limits::VALUE_BYTES_MAX)?.to_owned());
                self.sources = Some(value.array(limits::SNAPSHOT_SOURCES_MAX, source)?);
            }
            8 => self.root = Some(BlobId::new(value.fixed()?)),
            9 => self.summary = Some(SnapshotSummary::decode(value)?),
            10 => self.program = Some(name(value)?),
            11 => self.tags = decode_tags(value)?,
            12 => self.trust_sequence = Some(value.unsigned()?),
            13 => self.trust = Some(TrustId::new(value.fixed()?)),
            14 => self.kind = Some(name(value)?),
            15 => {
                self.facts = value.text_map(limits::SNAPSHOT_FACTS_MAX, limits::VALUE_BYTES_MAX)?;
                ensure(!self.facts.is_empty(), "snapshot facts", "an empty map is left out")?;
            }
            _ => return Ok(Field::Unknown),
        }
        Ok(Field::Known)
    }

    fn validate(self, extra: Extra) -> Result<Snapshot, FormatError> {
        Ok(Snapshot {
            host: required(self.host, "snapshot host")?,
            label: required(self.label, "snapshot label")?,
            user: required(self.user, "snapshot user")?,
            started: required(self.started, "snapshot start")?,
            ended: required(self.ended, "snapshot end")?,
            parent: self.parent,
            mode: required(self.mode, "snapshot mode")?,
            sources: required(self.sources, "snapshot sources")?,
            root: required(self.root, "snapshot root")?,
            summary: required(self.summary, "snapshot summary")?,
            program: required(self.program, "snapshot program")?,
            tags: self.tags,
            trust_sequence: required(self.trust_sequence, "snapshot trust sequence")?,
            trust: required(self.trust, "snapshot trust")?,
            kind: required(self.kind, "snapshot kind")?,
            facts: self.facts,
            extra,
        })
    }
}

fn name(reader: Reader<'_, '_>) -> Result<String, FormatError> {
    Ok(reader.text(limits::NAME_BYTES_MAX)?.to_owned())
}

fn decode_tags(reader: Reader<'_, '_>) -> Result<BTreeMap<String, Option<String>>, FormatError> {
    let tags = reader.array(limits::SNAPSHOT_TAGS_MAX, |pair| {
        let mut parts = pair.array(2, name)?.into_iter();
        let key = parts.next().ok_or_else(|| invalid("snapshot tag", "has no key"))?;
        Ok((key, parts.next()))
    })?;
    ensure(!tags.is_empty(), "snapshot tags", "an empty list is left out")?;
    ensure(tags.is_sorted_by(|a, b| a.0 < b.0), "snapshot tags", "are not in strict order")?;
    Ok(tags.into_iter().collect())
}

#[cfg(test)]
mod tests;
