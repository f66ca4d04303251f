//! Packs and index runs made by the rules with the keys of the vectors, and spoilt on the way where a case
//! asks for it: seals and signatures hold nevertheless.

use super::frozen;
use super::{Steady, keys};
use chronolith::base::{BlobId, PackId};
use chronolith::codec::Encoding;
use chronolith::crypto::derive::{content_info, context};
use chronolith::crypto::seal::counter_nonce;
use chronolith::crypto::{IdKey, Sealer, SignedMessage, Suite, derive_pair, encapsulate, seal_in_place};
use chronolith::format::index::{
    BlockEntry, DIRECTORY_NUMBER, Directory, INDEX_HEAD_BYTES, IndexHead, IndexRecord, PackEntry,
    encode_block,
};
use chronolith::format::pack::{
    BlobClass, FrameAssociatedData, FrameRecord, Origin, PackHead, PackTrailer, TableOfContents,
    contents_associated_data,
};

/// The only epoch of the vectors.
const EPOCH: u32 = 1;

/// The key that names blobs of a class.
pub fn id_key(class: BlobClass) -> IdKey {
    IdKey::new(match class {
        BlobClass::Content => keys::content_ids(),
        BlobClass::Metadata => keys::metadata_ids(),
    })
}

/// Rows of a table, as dumps hold them: text that compresses and whose versions resemble each other.
pub fn rows(first: u32, count: u32, changed: Option<u32>) -> Vec<u8> {
    let row = |number: u32| {
        let mark = if Some(number) == changed { "changed" } else { "kept" };
        format!("{number}\tcustomer {}\t{mark}\t{}\n", number * 7919 % 1000, number * 31 % 97)
    };
    (first..first + count).map(row).collect::<String>().into_bytes()
}

/// Bytes that do not compress.
pub fn noise(number: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A frame to be put into a pack.
#[derive(Clone)]
pub struct Frame {
    /// Number of the origin.
    pub origin: u16,
    /// Counter under that origin.
    pub counter: u64,
    /// How to encode.
    pub encoding: Encoding,
    /// What the table says about depth.
    pub depth: u8,
    /// Plain bytes of the base.
    pub base: Option<Vec<u8>>,
    /// The blobs.
    pub blobs: Vec<Vec<u8>>,
}

impl Frame {
    /// A frame that stands alone.
    pub fn alone(counter: u64, encoding: Encoding, blobs: &[Vec<u8>]) -> Self {
        Self { origin: 0, counter, encoding, depth: 0, base: None, blobs: blobs.to_vec() }
    }

    /// A frame that needs a base.
    pub fn against(counter: u64, encoding: Encoding, depth: u8, base: &[u8], blob: &[u8]) -> Self {
        Self { origin: 0, counter, encoding, depth, base: Some(base.to_vec()), blobs: vec![blob.to_vec()] }
    }
}

type Change<T> = Box<dyn Fn(&mut T)>;

/// How to make a pack, and what to spoil on the way: seals and signature hold nevertheless.
pub struct PackRecipe {
    /// Content or metadata.
    pub class: BlobClass,
    /// Ciphers of the origins.
    pub origins: Vec<Suite>,
    /// The frames.
    pub frames: Vec<Frame>,
    /// Changes the plain table of contents, value or bytes.
    pub table: Change<TableOfContents>,
    /// Changes the encoded table before it is sealed.
    pub table_bytes: Change<Vec<u8>>,
    /// Changes the trailer.
    pub trailer: Change<PackTrailer>,
    /// Changes everything before the signature.
    pub bytes: Change<Vec<u8>>,
}

impl PackRecipe {
    /// A pack with one origin, unspoilt.
    pub fn new(class: BlobClass, frames: &[Frame]) -> Self {
        Self {
            class,
            origins: vec![Suite::ChaCha20Poly1305],
            frames: frames.to_vec(),
            table: Box::new(|_| ()),
            table_bytes: Box::new(|_| ()),
            trailer: Box::new(|_| ()),
            bytes: Box::new(|_| ()),
        }
    }

    fn origin(&self, number: u8, suite: Suite) -> (Origin, Sealer) {
        let (encapsulation, secret) = match self.class {
            BlobClass::Metadata => ([0; 32], keys::metadata()),
            BlobClass::Content => {
                let info = content_info(&keys::repository(), EPOCH);
                encapsulate(&keys::content().public(), &Steady(0xA0 + number), &info).unwrap()
            }
        };
        let salt = [0xB0 + number; 32];
        let (key, commitment) = derive_pair(self.class.frame_context(), &secret, &salt);
        (Origin { suite, epoch: EPOCH, encapsulation, salt, commitment }, Sealer::new(suite, &key))
    }

    /// Makes the pack; returns it with what an index would say of its frames and origins.
    pub fn make(&self) -> (Vec<u8>, TableOfContents, Vec<Origin>) {
        let (origins, sealers): (Vec<_>, Vec<_>) =
            (0_u8..).zip(&self.origins).map(|(number, suite)| self.origin(number, *suite)).unzip();
        let origin_count = u16::try_from(origins.len()).unwrap();
        let mut bytes = Vec::new();
        PackHead { class: self.class, origin_count, signer: keys::writer().key_id() }.encode(&mut bytes);
        origins.iter().for_each(|origin| origin.encode(&mut bytes));
        let ids = id_key(self.class);
        let mut contents = TableOfContents::default();
        for frame in &self.frames {
            let plain = frame.blobs.concat();
            let mut sealed = frozen::encode(frame.encoding, frame.base.as_deref(), &plain);
            let plain_length = plain.len() as u32;
            let base = frame.base.as_ref().map(|base| ids.blob_id(base));
            let bound = FrameAssociatedData::new(
                &keys::repository(),
                self.class,
                frame.encoding,
                frame.counter,
                plain_length,
                base.as_ref(),
            );
            let sealer = &sealers[usize::from(frame.origin)];
            sealer.seal(counter_nonce(frame.counter), bound.as_ref(), &mut sealed, 0).unwrap();
            contents.frames.push(FrameRecord {
                offset: bytes.len() as u32,
                sealed_length: sealed.len() as u32,
                plain_length,
                encoding: frame.encoding,
                depth: frame.depth,
                origin: frame.origin,
                counter: frame.counter,
                base,
                blobs: frame.blobs.iter().map(|blob| (ids.blob_id(blob), blob.len() as u32)).collect(),
            });
            bytes.extend_from_slice(&sealed);
        }
        self.finish(&mut bytes, &contents, &origins);
        (bytes, contents, origins)
    }

    fn finish(&self, bytes: &mut Vec<u8>, contents: &TableOfContents, origins: &[Origin]) {
        let mut table = contents.clone();
        (self.table)(&mut table);
        let mut plain = Vec::new();
        table.encode(&mut plain).unwrap();
        (self.table_bytes)(&mut plain);
        let salt = [0xC0; 32];
        let (key, commitment) = derive_pair(context::PACK_CONTENTS, &keys::metadata(), &salt);
        let mut trailer = PackTrailer {
            contents_offset: bytes.len() as u32,
            contents_plain_length: plain.len() as u32,
            epoch: EPOCH,
            suite: Suite::ChaCha20Poly1305,
            class: self.class,
            origin_count: origins.len() as u16,
            frame_count: contents.frames.len() as u32,
            blob_count: contents.blob_count() as u32,
            salt,
            commitment,
            signer: keys::writer().key_id(),
        };
        (self.trailer)(&mut trailer);
        let bound = contents_associated_data(&keys::repository(), self.class, trailer.contents_plain_length);
        let from = bytes.len();
        bytes.extend_from_slice(&plain);
        seal_in_place(trailer.suite, &key, [0; 12], &bound, bytes, from).unwrap();
        origins.iter().for_each(|origin| origin.encode(bytes));
        trailer.encode(bytes);
        (self.bytes)(bytes);
        let message = SignedMessage::new(&keys::repository(), self.class.pack_kind(), bytes);
        bytes.extend_from_slice(&keys::writer().sign(&message));
    }
}

/// Changes the bytes of the block with this number.
type ChangeBlock = Box<dyn Fn(usize, &mut Vec<u8>)>;

/// How to make an index run, and what to spoil on the way: seals and signature hold nevertheless.
pub struct RunRecipe {
    /// Whether blocks and directory are compressed.
    pub compressed: bool,
    /// The packs.
    pub packs: Vec<PackEntry>,
    /// The records, block by block.
    pub blocks: Vec<Vec<IndexRecord>>,
    /// Changes a plain block, given its number.
    pub block_bytes: ChangeBlock,
    /// Changes the directory.
    pub directory: Change<Directory>,
    /// Changes the encoded directory before it is sealed.
    pub directory_bytes: Change<Vec<u8>>,
    /// Changes the head.
    pub head: Change<IndexHead>,
    /// Changes everything before the signature.
    pub bytes: Change<Vec<u8>>,
}

impl RunRecipe {
    /// A run, unspoilt.
    pub fn new(packs: &[PackEntry], blocks: &[Vec<IndexRecord>]) -> Self {
        Self {
            compressed: false,
            packs: packs.to_vec(),
            blocks: blocks.to_vec(),
            block_bytes: Box::new(|_, _| ()),
            directory: Box::new(|_| ()),
            directory_bytes: Box::new(|_| ()),
            head: Box::new(|_| ()),
            bytes: Box::new(|_| ()),
        }
    }

    /// Makes the run.
    pub fn make(&self) -> Vec<u8> {
        let salt = [0xD0; 32];
        let (key, commitment) = derive_pair(context::INDEX_RUN, &keys::metadata(), &salt);
        let mut head = IndexHead {
            suite: Suite::ChaCha20Poly1305,
            epoch: EPOCH,
            signer: keys::writer().key_id(),
            salt,
            commitment,
            record_count: self.blocks.iter().map(Vec::len).sum::<usize>() as u64,
            directory_offset: 0,
            directory_stored_length: 0,
            directory_plain_length: 0,
            block_count: self.blocks.len() as u32,
        };
        let bound = head.associated_data(&keys::repository());
        let sealer = Sealer::new(head.suite, &key);
        let seal = |number: u64, plain: &[u8]| {
            let encoding = if self.compressed { Encoding::Zstd } else { Encoding::Stored };
            let mut sealed = frozen::encode(encoding, None, plain);
            sealed.insert(0, u8::from(encoding));
            sealer.seal(counter_nonce(number), &bound, &mut sealed, 0).unwrap();
            sealed
        };
        let mut directory = Directory { packs: self.packs.clone(), blocks: Vec::new() };
        let mut blocks = Vec::new();
        for (number, records) in self.blocks.iter().enumerate() {
            let mut plain = Vec::new();
            let base_count = encode_block(records, &mut plain).unwrap();
            (self.block_bytes)(number, &mut plain);
            let sealed = seal(number as u64, &plain);
            directory.blocks.push(BlockEntry {
                first: records[0].id,
                offset: (INDEX_HEAD_BYTES + blocks.len()) as u64,
                stored_length: sealed.len() as u32,
                record_count: records.len() as u16,
                base_count,
            });
            blocks.extend_from_slice(&sealed);
        }
        (self.directory)(&mut directory);
        let mut plain = Vec::new();
        directory.encode(&mut plain).unwrap();
        (self.directory_bytes)(&mut plain);
        let sealed = seal(DIRECTORY_NUMBER, &plain);
        head.directory_offset = (INDEX_HEAD_BYTES + blocks.len()) as u64;
        head.directory_stored_length = sealed.len() as u32;
        head.directory_plain_length = plain.len() as u32;
        (self.head)(&mut head);
        let mut bytes = Vec::new();
        head.encode(&mut bytes);
        bytes.extend_from_slice(&blocks);
        bytes.extend_from_slice(&sealed);
        (self.bytes)(&mut bytes);
        let message = SignedMessage::new(&keys::repository(), 5, &bytes);
        bytes.extend_from_slice(&keys::writer().sign(&message));
        bytes
    }
}

/// Returns what an index run says of a pack.
pub fn indexed(
    bytes: &[u8],
    class: BlobClass,
    contents: &TableOfContents,
    origins: &[Origin],
) -> (PackEntry, Vec<IndexRecord>) {
    let id = PackId::new(*blake3::hash(bytes).as_bytes());
    let pack = PackEntry { id, length: bytes.len() as u32, class, origins: origins.to_vec() };
    let mut records = Vec::new();
    for frame in &contents.frames {
        let mut offset = 0;
        for (id, length) in &frame.blobs {
            records.push(IndexRecord {
                id: *id,
                class,
                pack: 0,
                frame_offset: frame.offset,
                sealed_length: frame.sealed_length,
                plain_length: frame.plain_length,
                offset,
                length: *length,
                counter: frame.counter,
                origin: frame.origin,
                encoding: frame.encoding,
                depth: frame.depth,
                base: frame.base,
            });
            offset += length;
        }
    }
    (pack, records)
}

/// An id made of one byte.
pub fn blob(byte: u8) -> BlobId {
    BlobId::new([byte; 32])
}
