//! Index segments: sorted, immutable, memory-mapped files of the local cache.
//!
//! A segment holds the records of one or several index runs of the repository, opened and
//! verified once, in a form that needs no loading: a look-up touches the fan-out and one block.
//! Segments are local and rebuildable; the repository's own form is `format-spec/index.md`.
//!
//! Everything but the blocks is covered by one hash that is checked at opening; each block
//! carries a check of its own that is verified the first time this process touches it. So a
//! damaged cache is noticed before it is believed, and opening costs nothing per record.
//!
//! Layout (little-endian): header of 128 bytes, tables (covered runs, signers, packs, origins,
//! bases, fan-out), zeros up to the next multiple of 4096, blocks of 4096 bytes with up to
//! [`BLOCK_RECORDS`] records each.

use crate::base::{BlobId, IndexId, KeyId, PackId};
use crate::codec::Encoding;
use crate::format::index::IndexRecord;
use crate::format::pack::{BlobClass, ORIGIN_BYTES, Origin};
use crate::mapping::Mapping;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const MAGIC: &[u8; 8] = b"CHRSEG01";
const HEADER_BYTES: usize = 128;
const HASHED_HEADER_BYTES: usize = 96;
const BLOCK_BYTES: usize = 4096;
const CHECK_BYTES: usize = 8;
/// Length of one record: id 32, six 32-bit numbers, counter, base number, origin, encoding and class, depth.
const RECORD_BYTES: usize = 72;
/// Stands for "no base".
const NO_BASE: u32 = u32::MAX;
/// Records in one block.
const BLOCK_RECORDS: usize = (BLOCK_BYTES - CHECK_BYTES) / RECORD_BYTES;
const PACK_ROW_BYTES: usize = 48;

/// A pack as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPack {
    /// The pack's name.
    pub id: PackId,
    /// Its stored length in bytes.
    pub length: u32,
    /// What its frames hold.
    pub class: BlobClass,
    /// Who signed the run, and so the pack.
    pub signer: KeyId,
    /// The origins that its frames name by number.
    pub origins: Arc<[Origin]>,
}

/// One copy of a blob: which pack, which frame, which part of the frame's plain bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The record; its `pack` number has been resolved into the field below.
    pub record: IndexRecord,
    /// The pack that holds the frame.
    pub pack: Arc<KnownPack>,
}

/// Says that a segment's bytes are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentDamaged;

enum Bytes {
    Mapped(Mapping),
    Owned(Vec<u8>),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// An open segment.
pub struct Segment {
    bytes: Bytes,
    path: Option<PathBuf>,
    covered: Vec<IndexId>,
    packs: Vec<Arc<KnownPack>>,
    bases: Vec<BlobId>,
    fan_out_bits: u32,
    fan_out_offset: usize,
    blocks_offset: usize,
    records: usize,
    verified: Box<[AtomicU64]>,
    damaged: AtomicBool,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    array(bytes, at).map(|b| u32::from_le_bytes(b) as usize)
}

fn block_check(block: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = blake3::hash(block);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash.as_bytes()[..CHECK_BYTES]);
    check
}

fn encode_record(record: &IndexRecord, base: Option<u32>, out: &mut Vec<u8>) {
    out.extend_from_slice(record.id.as_bytes());
    for number in [
        record.pack,
        record.frame_offset,
        record.sealed_length,
        record.plain_length,
        record.offset,
        record.length,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&record.counter.to_le_bytes());
    out.extend_from_slice(&base.unwrap_or(NO_BASE).to_le_bytes());
    out.extend_from_slice(&record.origin.to_le_bytes());
    out.push(u8::from(record.encoding) | u8::from(record.class == BlobClass::Metadata) << 4);
    out.push(record.depth);
}

fn decode_record(bytes: &[u8], bases: &[BlobId]) -> Option<IndexRecord> {
    let number = |at| array(bytes, at).map(u32::from_le_bytes);
    let kinds = *bytes.get(70)?;
    let base = match number(64)? {
        NO_BASE => None,
        number => Some(*bases.get(number as usize)?),
    };
    Some(IndexRecord {
        id: BlobId::new(array(bytes, 0)?),
        class: if kinds >> 4 == 0 { BlobClass::Content } else { BlobClass::Metadata },
        pack: number(32)?,
        frame_offset: number(36)?,
        sealed_length: number(40)?,
        plain_length: number(44)?,
        offset: number(48)?,
        length: number(52)?,
        counter: u64::from_le_bytes(array(bytes, 56)?),
        origin: u16::from_le_bytes(array(bytes, 68)?),
        encoding: Encoding::try_from(kinds & 0xf).ok()?,
        depth: *bytes.get(71)?,
        base,
    })
}

/// Enough buckets that one holds about half a block.
fn fan_out_bits(records: usize) -> u32 {
    (records / (BLOCK_RECORDS / 2)).next_power_of_two().trailing_zeros().min(24)
}

fn bucket(id: &BlobId, bits: u32) -> usize {
    let [a, b, c, d, ..] = *id.as_bytes();
    (u64::from(u32::from_be_bytes([a, b, c, d])) >> (32 - bits)) as usize
}

impl Segment {
    /// Opens a segment file; `None` for whatever is not a whole segment.
    pub fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let bytes = match Mapping::open(&file) {
            Ok(map) => Bytes::Mapped(map),
            Err(_) => {
                let mut bytes = Vec::new();
                (&file).read_to_end(&mut bytes).ok()?;
                Bytes::Owned(bytes)
            }
        };
        Self::parse(bytes, Some(path.to_owned()))
    }

    /// Takes a segment that could not be written to a file.
    pub fn from_memory(bytes: Vec<u8>) -> Option<Self> {
        Self::parse(Bytes::Owned(bytes), None)
    }

    fn parse(held: Bytes, path: Option<PathBuf>) -> Option<Self> {
        let bytes = held.get();
        if bytes.get(..8)? != MAGIC {
            return None;
        }
        let records = usize::try_from(u64::from_le_bytes(array(bytes, 8)?)).ok()?;
        let bits = u32::from_le_bytes(array(bytes, 16)?);
        let [packs, origins, bases, signers, covered] =
            [20, 24, 28, 32, 36].map(|at| word(bytes, at).unwrap_or(usize::MAX));
        let blocks_offset = usize::try_from(u64::from_le_bytes(array(bytes, 40)?)).ok()?;
        if bits > 24 || bits != fan_out_bits(records) {
            return None;
        }
        let tables = bytes.get(HEADER_BYTES..blocks_offset)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(bytes.get(..HASHED_HEADER_BYTES)?).update(tables);
        if hasher.finalize().as_bytes() != bytes.get(HASHED_HEADER_BYTES..HEADER_BYTES)? {
            return None;
        }
        let blocks = records.div_ceil(BLOCK_RECORDS);
        if bytes.len() != blocks_offset.checked_add(blocks.checked_mul(BLOCK_BYTES)?)? {
            return None;
        }
        let mut at = HEADER_BYTES;
        let mut take = |count: usize, each: usize| {
            let length = count.checked_mul(each)?;
            let slice = bytes.get(at..at.checked_add(length)?)?;
            at += length;
            Some(slice)
        };
        let ids = |slice: &[u8]| -> Vec<[u8; 32]> {
            slice.chunks_exact(32).filter_map(|c| c.try_into().ok()).collect()
        };
        let covered = ids(take(covered, 32)?).into_iter().map(IndexId::new).collect();
        let signers: Vec<KeyId> = ids(take(signers, 32)?).into_iter().map(KeyId::new).collect();
        let pack_rows = take(packs, PACK_ROW_BYTES)?;
        let origin_rows = take(origins, ORIGIN_BYTES)?;
        let bases = ids(take(bases, 32)?).into_iter().map(BlobId::new).collect();
        let packs = pack_rows
            .chunks_exact(PACK_ROW_BYTES)
            .map(|row| {
                let first = word(row, 40)?;
                let count = usize::from(u16::from_le_bytes(array(row, 36)?));
                let class = if row.get(38) == Some(&0) { BlobClass::Content } else { BlobClass::Metadata };
                let end = first.checked_add(count)?;
                let rows =
                    origin_rows.get(first.checked_mul(ORIGIN_BYTES)?..end.checked_mul(ORIGIN_BYTES)?)?;
                let origins: Arc<[Origin]> = Origin::decode_all(rows, count as u16, class).ok()?.into();
                Some(Arc::new(KnownPack {
                    id: PackId::new(array(row, 0)?),
                    length: u32::from_le_bytes(array(row, 32)?),
                    class,
                    signer: *signers.get(word(row, 44)?)?,
                    origins,
                }))
            })
            .collect::<Option<Vec<_>>>()?;
        let fan_out_offset = at;
        bytes.get(fan_out_offset..fan_out_offset + 4 * ((1 << bits) + 1))?;
        let verified = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Some(Self {
            path,
            covered,
            packs,
            bases,
            fan_out_bits: bits,
            fan_out_offset,
            blocks_offset,
            records,
            verified,
            damaged: AtomicBool::new(false),
            bytes: held,
        })
    }

    /// Returns how many records the segment holds.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Returns the runs whose records it holds.
    pub fn covered(&self) -> &[IndexId] {
        &self.covered
    }

    /// Returns the packs that its records name.
    pub fn packs(&self) -> &[Arc<KnownPack>] {
        &self.packs
    }

    /// Returns the bases that its records name.
    pub fn bases(&self) -> &[BlobId] {
        &self.bases
    }

    /// Returns the file it is mapped from.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Says whether a damaged block has been met.
    pub fn damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    fn block(&self, number: usize) -> Result<&[u8], SegmentDamaged> {
        let start = self.blocks_offset + number * BLOCK_BYTES;
        let block = self.bytes.get().get(start..start + BLOCK_BYTES).ok_or(SegmentDamaged)?;
        let bit = 1 << (number % 64);
        let seen = self.verified.get(number / 64).ok_or(SegmentDamaged)?;
        if seen.load(Ordering::Relaxed) & bit == 0 {
            let (content, check) = block.split_at(BLOCK_BYTES - CHECK_BYTES);
            if block_check(content) != check {
                self.damaged.store(true, Ordering::Relaxed);
                return Err(SegmentDamaged);
            }
            seen.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(block)
    }

    fn record_bytes(&self, number: usize) -> Result<&[u8], SegmentDamaged> {
        let start = number % BLOCK_RECORDS * RECORD_BYTES;
        self.block(number / BLOCK_RECORDS)?.get(start..start + RECORD_BYTES).ok_or(SegmentDamaged)
    }

    fn resolve(&self, bytes: &[u8]) -> Result<Located, SegmentDamaged> {
        let record = decode_record(bytes, &self.bases).ok_or(SegmentDamaged)?;
        let pack = self.packs.get(record.pack as usize).ok_or(SegmentDamaged)?.clone();
        Ok(Located { record, pack })
    }

    fn fan_out(&self, bucket: usize) -> Option<usize> {
        word(self.bytes.get(), self.fan_out_offset + 4 * bucket)
    }

    /// Returns about where an id lies within its bucket.
    fn guess(&self, id: &BlobId, low: usize, end: usize) -> usize {
        let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
        let within = u64::from_be_bytes([a, b, c, d, e, f, g, h]) << self.fan_out_bits;
        let offset = (u128::from(within) * (end.saturating_sub(low)) as u128) >> 64;
        low + offset as usize
    }

    /// Calls `found` with each copy of a blob, until it returns false.
    ///
    /// # Errors
    ///
    /// [`SegmentDamaged`] when a block that had to be read is not what was written.
    pub fn find(
        &self,
        class: BlobClass,
        id: &BlobId,
        mut found: impl FnMut(Located) -> bool,
    ) -> Result<(), SegmentDamaged> {
        self.find_numbered(class, id, |_, located| found(located))
    }

    /// As [`Segment::find`], with the number of each copy's record.
    ///
    /// # Errors
    ///
    /// [`SegmentDamaged`] when a block that had to be read is not what was written.
    pub fn find_numbered(
        &self,
        class: BlobClass,
        id: &BlobId,
        mut found: impl FnMut(usize, Located) -> bool,
    ) -> Result<(), SegmentDamaged> {
        if self.records == 0 {
            return Ok(());
        }
        let at = bucket(id, self.fan_out_bits);
        let mut low = self.fan_out(at).ok_or(SegmentDamaged)?;
        let end = self.fan_out(at + 1).ok_or(SegmentDamaged)?.min(self.records);
        // Ids are hashes and spread evenly, so a guess by proportion lands a step or two away.
        let mut at = self.guess(id, low, end);
        while at > low && self.record_bytes(at - 1)?[..32] >= id.as_bytes()[..] {
            at -= 1;
        }
        while at < end && self.record_bytes(at)?[..32] < id.as_bytes()[..] {
            at += 1;
        }
        low = at;
        for number in low..end {
            let bytes = self.record_bytes(number)?;
            if bytes[..32] != id.as_bytes()[..] {
                break;
            }
            let located = self.resolve(bytes)?;
            if located.record.class == class && !found(number, located) {
                break;
            }
        }
        Ok(())
    }

    /// Returns the record with this number, in order of ids.
    ///
    /// # Errors
    ///
    /// [`SegmentDamaged`] when its block is not what was written.
    pub fn record(&self, number: usize) -> Result<Located, SegmentDamaged> {
        self.resolve(self.record_bytes(number)?)
    }
}

/// A file that has not got its name yet, removed unless it gets one.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Once renamed it is not there any more.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Where a segment is written: a file while that works.
enum Target {
    File(BufWriter<File>, Partial, PathBuf),
    Memory(io::Cursor<Vec<u8>>),
}

impl Target {
    fn stream(&mut self) -> &mut dyn WriteSeek {
        match self {
            Self::File(file, ..) => file,
            Self::Memory(cursor) => cursor,
        }
    }
}

trait WriteSeek: Write + Seek {}
impl<T: Write + Seek> WriteSeek for T {}

/// What a segment's tables need to know before its records come.
#[derive(Default)]
pub struct SegmentTables {
    /// The runs whose records it will hold.
    pub covered: Vec<IndexId>,
    /// The packs, in the order of their numbers.
    pub packs: Vec<Arc<KnownPack>>,
    /// The bases of differences, in the order of their numbers.
    pub bases: Vec<BlobId>,
}

/// Writes one segment, records in order of id.
pub struct SegmentWriter {
    target: Target,
    header: [u8; HEADER_BYTES],
    tables: Vec<u8>,
    base_numbers: HashMap<BlobId, u32>,
    fan_out: Vec<u32>,
    bits: u32,
    block: Vec<u8>,
    expected: usize,
    written: usize,
    last: Option<(BlobId, BlobClass)>,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl SegmentWriter {
    /// Begins a segment of exactly `records` records, in `folder` or, where that is `None`, in memory.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn new(
        folder: Option<&Path>,
        name: &str,
        tables: &SegmentTables,
        records: usize,
    ) -> io::Result<Self> {
        if u32::try_from(records).is_err() {
            return Err(invalid("more records than a segment can hold"));
        }
        let bits = fan_out_bits(records);
        let mut bytes = Vec::new();
        tables.covered.iter().for_each(|id| bytes.extend_from_slice(id.as_bytes()));
        let mut signers: Vec<KeyId> = tables.packs.iter().map(|pack| pack.signer).collect();
        signers.sort_unstable();
        signers.dedup();
        signers.iter().for_each(|id| bytes.extend_from_slice(id.as_bytes()));
        let mut origins: Vec<&Arc<[Origin]>> = Vec::new();
        let mut origin_firsts: HashMap<Vec<u8>, u32> = HashMap::new();
        let (mut origin_bytes, mut origin_count) = (Vec::new(), 0u32);
        for pack in &tables.packs {
            let mut encoded = Vec::new();
            pack.origins.iter().for_each(|origin| origin.encode(&mut encoded));
            let first = *origin_firsts.entry(encoded.clone()).or_insert_with(|| {
                let first = origin_count;
                origin_bytes.extend_from_slice(&encoded);
                origin_count += pack.origins.len() as u32;
                origins.push(&pack.origins);
                first
            });
            bytes.extend_from_slice(pack.id.as_bytes());
            bytes.extend_from_slice(&pack.length.to_le_bytes());
            bytes.extend_from_slice(&(pack.origins.len() as u16).to_le_bytes());
            bytes.push(u8::from(pack.class == BlobClass::Metadata));
            bytes.push(0);
            bytes.extend_from_slice(&first.to_le_bytes());
            let signer = signers.binary_search(&pack.signer).unwrap_or(0);
            bytes.extend_from_slice(&(signer as u32).to_le_bytes());
        }
        bytes.extend_from_slice(&origin_bytes);
        tables.bases.iter().for_each(|id| bytes.extend_from_slice(id.as_bytes()));
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&(records as u64).to_le_bytes());
        let counts = [
            bits,
            tables.packs.len() as u32,
            origin_count,
            tables.bases.len() as u32,
            signers.len() as u32,
            tables.covered.len() as u32,
        ];
        for (slot, count) in header[16..40].chunks_exact_mut(4).zip(counts) {
            slot.copy_from_slice(&count.to_le_bytes());
        }
        let fan_out_bytes = 4 * ((1usize << bits) + 1);
        let blocks_offset = (HEADER_BYTES + bytes.len() + fan_out_bytes).next_multiple_of(BLOCK_BYTES);
        header[40..48].copy_from_slice(&(blocks_offset as u64).to_le_bytes());
        let mut target = match folder {
            Some(folder) => {
                let partial = Partial(folder.join(format!("{name}.{}.partial", std::process::id())));
                Target::File(
                    BufWriter::with_capacity(1 << 20, File::create(&partial.0)?),
                    partial,
                    folder.join(format!("{name}.segment")),
                )
            }
            None => Target::Memory(io::Cursor::new(Vec::new())),
        };
        target.stream().seek(SeekFrom::Start(blocks_offset as u64))?;
        Ok(Self {
            target,
            header,
            tables: bytes,
            base_numbers: tables.bases.iter().enumerate().map(|(n, id)| (*id, n as u32)).collect(),
            fan_out: vec![0; (1 << bits) + 1],
            bits,
            block: Vec::with_capacity(BLOCK_BYTES),
            expected: records,
            written: 0,
            last: None,
        })
    }

    fn flush_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.block.resize(BLOCK_BYTES - CHECK_BYTES, 0);
        let check = block_check(&self.block);
        self.block.extend_from_slice(&check);
        self.target.stream().write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// Adds the next record.
    ///
    /// # Errors
    ///
    /// What the file system says, and records that come out of order.
    pub fn push(&mut self, record: &IndexRecord) -> io::Result<()> {
        let key = (record.id, record.class);
        if self.last.as_ref().is_some_and(|last| last.0 > key.0) || self.written == self.expected {
            return Err(invalid("records of a segment come in order of id"));
        }
        self.last = Some(key);
        if let Some(count) = self.fan_out.get_mut(bucket(&record.id, self.bits) + 1) {
            *count += 1;
        }
        let base = record.base.map(|base| self.base_numbers.get(&base).copied().unwrap_or(NO_BASE));
        encode_record(record, base, &mut self.block);
        self.written += 1;
        if self.block.len() == BLOCK_RECORDS * RECORD_BYTES { self.flush_block() } else { Ok(()) }
    }

    /// Completes the segment and opens it.
    ///
    /// # Errors
    ///
    /// What the file system says, and a count of records other than announced.
    pub fn finish(mut self) -> io::Result<Segment> {
        if self.written != self.expected {
            return Err(invalid("a segment holds as many records as announced"));
        }
        self.flush_block()?;
        let mut sum = 0;
        for count in &mut self.fan_out {
            sum += *count;
            *count = sum;
        }
        let mut tables = std::mem::take(&mut self.tables);
        self.fan_out.iter().for_each(|count| tables.extend_from_slice(&count.to_le_bytes()));
        let offset = (HEADER_BYTES + tables.len()).next_multiple_of(BLOCK_BYTES);
        tables.resize(offset - HEADER_BYTES, 0);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.header[..HASHED_HEADER_BYTES]).update(&tables);
        self.header[HASHED_HEADER_BYTES..].copy_from_slice(hasher.finalize().as_bytes());
        let stream = self.target.stream();
        stream.seek(SeekFrom::Start(0))?;
        stream.write_all(&self.header)?;
        stream.write_all(&tables)?;
        stream.flush()?;
        match self.target {
            Target::File(file, partial, path) => {
                // The cache is rebuildable: a power cut may lose it, so it is not synced.
                drop(file);
                std::fs::rename(&partial.0, &path)?;
                Segment::open(&path).ok_or_else(|| invalid("the segment just written does not read back"))
            }
            Target::Memory(cursor) => Segment::from_memory(cursor.into_inner())
                .ok_or_else(|| invalid("the segment just written does not read back")),
        }
    }
}
