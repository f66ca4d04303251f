//! Fills a repository with what it would hold beside content: index runs, recipes, trees, snapshots.

use super::store::{PACK_BYTES, pack_id};
use super::{Failure, Scene, mib, timed};
use chronolith::base::{BlobId, IndexId, Timestamp};
use chronolith::chunker::{SKETCH_ALGORITHM, Sketch};
use chronolith::codec::Encoding;
use chronolith::crypto::Suite;
use chronolith::format::cbor::Extra;
use chronolith::format::index::IndexRecord;
use chronolith::format::pack::{BlobClass, Origin};
use chronolith::format::recipe::{RecipeBuilder, RecipeEntry};
use chronolith::format::snapshot::{Snapshot, SnapshotMode, SnapshotSummary};
use chronolith::format::tree::{Content, CutKind, EntryKind, TreeBuilder, TreeEntry};
use chronolith::ingest::MetadataWriter;
use chronolith::repo::{KnownPack, Repository, RunContent, WriteSession, encode_run};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Plain bytes of a chunk: the average of a new repository.
pub const CHUNK_BYTES: u32 = 128 << 10;
/// Plain bytes of a frame.
const FRAME_BYTES: u32 = 2 << 20;
/// Frames of a pack, where content shrinks to four tenths.
const PACK_FRAMES: u64 = 40;
/// Records of a run, as sessions write them.
const RUN_RECORDS: u64 = 1 << 17;
/// Plain bytes of a stream: a dump.
const STREAM_BYTES: u64 = 100 << 30;

/// Chunks of one length each.
#[derive(Debug, Clone, Copy)]
pub struct Chunks {
    /// Plain bytes of each.
    pub bytes: u32,
}

impl Chunks {
    fn in_frame(self) -> u64 {
        u64::from(FRAME_BYTES / self.bytes)
    }

    fn in_pack(self) -> u64 {
        self.in_frame() * PACK_FRAMES
    }

    /// How many make up so many TiB.
    pub fn in_tebibytes(self, tebibytes: f64) -> u64 {
        (tebibytes * (1_u64 << 40) as f64) as u64 / u64::from(self.bytes)
    }

    /// How many packs so many chunks lie in; every run begins a new one.
    pub fn packs_of(self, chunks: u64) -> u64 {
        let of = |records: u64| records.div_ceil(self.in_pack());
        (chunks / RUN_RECORDS) * of(RUN_RECORDS) + of(chunks % RUN_RECORDS)
    }
}

/// Names the chunk of a number.
pub fn chunk_id(number: u64) -> BlobId {
    BlobId::new(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn run(repository: &Repository, shape: Chunks, first: u64, records: u64) -> RunContent {
    let mut commitment = [0; 32];
    commitment[..8].copy_from_slice(&first.to_le_bytes());
    let (encapsulation, salt) = ([1; 32], [2; 32]);
    let origin = Origin { suite: Suite::default(), epoch: 1, encapsulation, salt, commitment };
    let origins: Arc<[Origin]> = vec![origin].into();
    let (in_frame, in_pack) = (shape.in_frame(), shape.in_pack());
    let signer = repository.keyring().identity.key;
    let packs = (0..records.div_ceil(in_pack)).map(|pack| {
        let id = pack_id(shape.packs_of(first) + pack);
        Arc::new(KnownPack {
            id,
            length: PACK_BYTES,
            class: BlobClass::Content,
            signer,
            origins: origins.clone(),
        })
    });
    let packs = packs.collect();
    let sealed_length = PACK_BYTES / PACK_FRAMES as u32 - 64;
    let mut records: Vec<IndexRecord> = (0..records)
        .map(|number| {
            let frame = number % in_pack / in_frame;
            IndexRecord {
                id: chunk_id(first + number),
                class: BlobClass::Content,
                pack: (number / in_pack) as u32,
                frame_offset: 1024 + frame as u32 * sealed_length,
                sealed_length,
                plain_length: FRAME_BYTES,
                offset: (number % in_frame) as u32 * shape.bytes,
                length: shape.bytes,
                counter: number / in_frame,
                origin: 0,
                encoding: Encoding::Zstd,
                depth: 0,
                base: None,
            }
        })
        .collect();
    records.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
    RunContent { records, packs }
}

/// Stores a tree of one stream and returns its root.
fn tree(
    metadata: &mut MetadataWriter<'_>,
    shape: Chunks,
    first: u64,
    chunks: u64,
) -> Result<BlobId, Failure> {
    let mut recipe = RecipeBuilder::new(SKETCH_ALGORITHM);
    for number in first..first + chunks {
        let id = chunk_id(number);
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| id.as_bytes()[4 * at + byte]));
        let sketch = Sketch([word(0), word(1), word(2)]);
        let entry = RecipeEntry::Chunk { id, length: shape.bytes, sketch };
        recipe.push(entry, |node| metadata.put(node).map_err(Failure::from))?;
    }
    let recipe = recipe.finish(|node| metadata.put(node).map_err(Failure::from))?;
    let mut entry =
        TreeEntry::new(b"dump.sql".to_vec(), EntryKind::File, 0o600, Timestamp::from_nanoseconds(0));
    entry.size = Some(recipe.plain_bytes);
    entry.content = Some(Content {
        length: recipe.plain_bytes,
        digest: None,
        recipe: recipe.root,
        cut: CutKind::Stream,
        read: None,
        extra: Extra::new(),
    });
    let mut tree = TreeBuilder::new();
    tree.push(&entry, |node| metadata.put(node).map_err(Failure::from))?;
    tree.finish(|node| metadata.put(node).map_err(Failure::from))
}

/// Commits a snapshot of a root.
pub fn commit(
    repository: &Repository,
    label: &str,
    number: u64,
    root: BlobId,
    bytes: u64,
) -> Result<(), Failure> {
    let (trust_sequence, trust) = repository.registry().head();
    let started = Timestamp::from_nanoseconds((1_700_000_000 + number as i64 * 60) * 1_000_000_000);
    repository.commit(&Snapshot {
        host: "db1".to_owned(),
        label: label.to_owned(),
        user: "postgres".to_owned(),
        started,
        ended: started,
        parent: None,
        mode: SnapshotMode::Incremental,
        sources: vec!["dump.sql".to_owned()],
        root,
        summary: SnapshotSummary { files: 1, bytes, ..SnapshotSummary::default() },
        program: "scale".to_owned(),
        tags: BTreeMap::new(),
        trust_sequence,
        trust,
        kind: "stream".to_owned(),
        facts: BTreeMap::new(),
        extra: Extra::new(),
    })?;
    Ok(())
}

/// Fills a new repository with streams of so many different chunks, and snapshots of them.
pub fn streams(scene: &Scene, shape: Chunks, chunks: u64) -> Result<(), Failure> {
    let in_stream = STREAM_BYTES / u64::from(shape.bytes);
    let repository = scene.create()?;
    let seconds = timed(|| {
        let session = WriteSession::begin(&repository)?;
        let mut metadata = MetadataWriter::new(&session)?;
        let mut roots = Vec::new();
        for first in (0..chunks).step_by(in_stream as usize) {
            let count = in_stream.min(chunks - first);
            roots.push((tree(&mut metadata, shape, first, count)?, count));
        }
        metadata.flush()?;
        drop(metadata);
        session.finish()?;
        for first in (0..chunks).step_by(RUN_RECORDS as usize) {
            let content = run(&repository, shape, first, RUN_RECORDS.min(chunks - first));
            let run = encode_run(&repository, &content)?;
            let id = IndexId::new(*blake3::hash(&run).as_bytes());
            repository.environment().store.put(&repository.index_name(&id), &run)?;
        }
        for (number, (root, count)) in roots.iter().enumerate() {
            let bytes = count * u64::from(shape.bytes);
            commit(&repository, &format!("db{number}"), number as u64, *root, bytes)?;
        }
        Ok(())
    })?;
    println!("filled in {seconds:.0} s: {} of objects", mib(scene.stored_bytes("repository")));
    Ok(())
}

/// Fills a new repository with so many snapshots of one small tree.
pub fn snapshots(scene: &Scene, count: u64) -> Result<(), Failure> {
    let repository = scene.create()?;
    let session = WriteSession::begin(&repository)?;
    let mut metadata = MetadataWriter::new(&session)?;
    let root = tree(&mut metadata, Chunks { bytes: CHUNK_BYTES }, 0, 1)?;
    metadata.flush()?;
    drop(metadata);
    session.finish()?;
    for number in 0..count {
        commit(&repository, &format!("db{}", number % 100), number, root, CHUNK_BYTES.into())?;
    }
    Ok(())
}
