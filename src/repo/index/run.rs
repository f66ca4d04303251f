//! Index runs: sealed block by block and signed, so that they can be read in ranges and believed.

use super::segment::KnownPack;
use super::set::RunContent;
use crate::base::{IndexId, KeyId, PackId, limits};
use crate::codec::{Compressor, Decompressor, Encoding};
use crate::crypto::seal::counter_nonce;
use crate::crypto::{SIGNATURE_BYTES, Sealer, SignedMessage, derive_committed, derive_pair, verify};
use crate::format::FormatError;
use crate::format::index::{
    BlockEntry, DIRECTORY_NUMBER, Directory, INDEX_CONTEXT, INDEX_HEAD_BYTES, IndexBlock, IndexHead,
    KIND_INDEX, PackEntry, encode_block, split_blocks,
};
use crate::repo::error::RepoError;
use crate::repo::frames::{internal, length_u32};
use crate::repo::repository::Repository;
use std::sync::Arc;

/// Compression level of blocks: half of a record is a hash, the rest shrinks at any level.
const LEVEL: i32 = 3;

fn codec(doing: &'static str) -> impl FnOnce(crate::codec::CodecError) -> RepoError {
    move |why| RepoError::Internal { doing, why: why.to_string() }
}

/// Encodes, seals and signs a run. Its records are sorted and lie in packs of this client.
///
/// # Errors
///
/// When a bound of the format is broken or the key was granted no epoch.
pub fn encode_run(repository: &Repository, content: &RunContent) -> Result<Vec<u8>, RepoError> {
    let keyring = repository.keyring();
    let epoch = keyring.current()?;
    let invalid = || RepoError::damaged("an index run being written");
    let salt = repository.environment().entropy.draw();
    let (key, commitment) = derive_pair(INDEX_CONTEXT, &epoch.metadata, &salt);
    let sealer = Sealer::new(repository.suite(), &key);
    let mut head = IndexHead {
        suite: repository.suite(),
        epoch: epoch.number,
        signer: keyring.identity.key,
        salt,
        commitment,
        record_count: content.records.len() as u64,
        directory_offset: 0,
        directory_stored_length: 0,
        directory_plain_length: 0,
        block_count: 0,
    };
    let bound = head.associated_data(repository.id());
    let mut compressor = Compressor::new(LEVEL).map_err(codec("preparing compression"))?;
    let mut directory = Directory {
        packs: content
            .packs
            .iter()
            .map(|pack| PackEntry {
                id: pack.id,
                length: pack.length,
                class: pack.class,
                origins: pack.origins.to_vec(),
            })
            .collect(),
        blocks: Vec::new(),
    };
    let mut blocks = Vec::new();
    let mut plain = Vec::new();
    let mut seal = |number: u64, plain: &[u8]| {
        let mut sealed = Vec::new();
        // One byte says whether the block shrank: ids do not, small blocks may grow.
        let encoding =
            compressor.compress(plain, &mut sealed).map_err(codec("compressing an index block"))?;
        sealed.insert(0, u8::from(encoding));
        sealer
            .seal(counter_nonce(number), &bound, &mut sealed, 0)
            .map_err(internal("sealing an index block"))?;
        Ok::<_, RepoError>(sealed)
    };
    for (number, records) in split_blocks(&content.records).enumerate() {
        plain.clear();
        let base_count = encode_block(records, &mut plain).map_err(invalid())?;
        let sealed = seal(number as u64, &plain)?;
        directory.blocks.push(BlockEntry {
            first: records.first().map(|record| record.id).unwrap_or(crate::base::BlobId::new([0; 32])),
            offset: (INDEX_HEAD_BYTES + blocks.len()) as u64,
            stored_length: length_u32(sealed.len())?,
            record_count: records.len() as u16,
            base_count,
        });
        blocks.extend_from_slice(&sealed);
    }
    plain.clear();
    directory.encode(&mut plain).map_err(invalid())?;
    let sealed = seal(DIRECTORY_NUMBER, &plain)?;
    head.block_count = length_u32(directory.blocks.len())?;
    head.directory_offset = (INDEX_HEAD_BYTES + blocks.len()) as u64;
    head.directory_stored_length = length_u32(sealed.len())?;
    head.directory_plain_length = length_u32(plain.len())?;
    let mut run = Vec::with_capacity(INDEX_HEAD_BYTES + blocks.len() + sealed.len() + SIGNATURE_BYTES);
    head.encode(&mut run);
    run.extend_from_slice(&blocks);
    run.extend_from_slice(&sealed);
    let message = SignedMessage::new(repository.id(), KIND_INDEX, &run);
    run.extend_from_slice(&keyring.identity.signing.sign(&message));
    Ok(run)
}

/// Opens a run: name, signature, seals and every record are checked.
///
/// `signer_key` returns the public key of a signer that the registry lets write index runs.
///
/// # Errors
///
/// When any of it does not hold, or the epoch was not granted to this key.
pub fn decode_run(
    repository: &Repository,
    id: &IndexId,
    bytes: &[u8],
    signer_key: impl FnOnce(&KeyId) -> Option<[u8; 32]>,
) -> Result<RunContent, RepoError> {
    let object = repository.index_name(id);
    let broken = |why: &'static str| {
        RepoError::damaged(object.as_str())(FormatError::Invalid { what: "index run", why })
    };
    if blake3::hash(bytes).as_bytes() != id.as_bytes() {
        return Err(broken("its bytes are not the ones it was named for"));
    }
    let head = IndexHead::decode(bytes, bytes.len() as u64).map_err(RepoError::damaged(object.as_str()))?;
    let untrusted = |why: &str| RepoError::Untrusted { object: object.clone(), why: why.to_owned() };
    let public = signer_key(&head.signer).ok_or_else(|| untrusted("its signer may not write the index"))?;
    let (signed, signature) =
        bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or_else(|| broken("it is cut short"))?;
    verify(&public, &SignedMessage::new(repository.id(), KIND_INDEX, signed), signature)
        .map_err(|_| untrusted("its signature does not hold"))?;
    let metadata = &repository.keyring().epoch(head.epoch)?.metadata;
    let key = derive_committed(INDEX_CONTEXT, metadata, &head.salt, &head.commitment)
        .map_err(|_| broken("its key is not the epoch's"))?;
    let sealer = Sealer::new(head.suite, &key);
    let bound = head.associated_data(repository.id());
    let mut decompressor = Decompressor::new().map_err(codec("preparing decompression"))?;
    let mut open = |number: u64, offset: u64, stored: u32, plain_length: usize| {
        let start = usize::try_from(offset).map_err(|_| broken("a block lies outside of it"))?;
        let sealed = start.checked_add(stored as usize).and_then(|end| bytes.get(start..end));
        let mut sealed = sealed.ok_or_else(|| broken("a block lies outside of it"))?.to_vec();
        sealer
            .open(counter_nonce(number), &bound, &mut sealed, 0)
            .map_err(|_| broken("a block does not open"))?;
        let (encoding, stored) = sealed.split_first().ok_or_else(|| broken("a block is empty"))?;
        let encoding =
            Encoding::try_from(*encoding).map_err(|_| broken("a block's encoding is not known"))?;
        let mut plain = Vec::new();
        decompressor
            .decode(encoding, None, stored, plain_length, &mut plain)
            .map_err(|_| broken("a block does not decompress"))?;
        Ok::<_, RepoError>(plain)
    };
    let plain = open(
        DIRECTORY_NUMBER,
        head.directory_offset,
        head.directory_stored_length,
        head.directory_plain_length as usize,
    )?;
    let directory = Directory::decode(&plain, &head).map_err(RepoError::damaged(object.as_str()))?;
    let count = head.record_count.min(limits::INDEX_RECORDS_MAX) as usize;
    let mut records = Vec::with_capacity(count);
    for (number, entry) in directory.blocks.iter().enumerate() {
        let plain = open(number as u64, entry.offset, entry.stored_length, entry.plain_length())?;
        let block = IndexBlock::of(&plain, entry).map_err(RepoError::damaged(object.as_str()))?;
        records.extend(block.decode_all(entry, &directory).map_err(RepoError::damaged(object.as_str()))?);
    }
    let packs = directory
        .packs
        .into_iter()
        .map(|pack| {
            Arc::new(KnownPack {
                id: pack.id,
                length: pack.length,
                class: pack.class,
                signer: head.signer,
                origins: pack.origins.into(),
            })
        })
        .collect();
    Ok(RunContent { records, packs })
}

/// What a run says of itself, without its records. Its seal holds; who signed it is not verified.
#[derive(Debug, Clone)]
pub struct RunOutline {
    /// Who says to have signed it.
    pub signer: KeyId,
    /// How many records it has.
    pub records: u64,
    /// The packs that it describes.
    pub packs: Vec<PackId>,
}

/// Reads a run's head and directory, without its records.
///
/// # Errors
///
/// When the store cannot be read, they are not what was written, or the epoch was not granted to this key.
pub fn outline_run(repository: &Repository, name: &str, length: u64) -> Result<RunOutline, RepoError> {
    let store = &repository.environment().store;
    let broken =
        |why: &'static str| RepoError::damaged(name)(FormatError::Invalid { what: "index run", why });
    let mut bytes = Vec::new();
    store.get_range(name, 0, INDEX_HEAD_BYTES, &mut bytes)?;
    let head = IndexHead::decode(&bytes, length).map_err(RepoError::damaged(name))?;
    let metadata = &repository.keyring().epoch(head.epoch)?.metadata;
    let key = derive_committed(INDEX_CONTEXT, metadata, &head.salt, &head.commitment)
        .map_err(|_| broken("its key is not the epoch's"))?;
    let mut sealed = Vec::new();
    store.get_range(name, head.directory_offset, head.directory_stored_length as usize, &mut sealed)?;
    Sealer::new(head.suite, &key)
        .open(counter_nonce(DIRECTORY_NUMBER), &head.associated_data(repository.id()), &mut sealed, 0)
        .map_err(|_| broken("its directory does not open"))?;
    let (encoding, stored) = sealed.split_first().ok_or_else(|| broken("its directory is empty"))?;
    let encoding = Encoding::try_from(*encoding).map_err(|_| broken("a block's encoding is not known"))?;
    let mut plain = Vec::new();
    Decompressor::new()
        .map_err(codec("preparing decompression"))?
        .decode(encoding, None, stored, head.directory_plain_length as usize, &mut plain)
        .map_err(|_| broken("its directory does not decompress"))?;
    let directory = Directory::decode(&plain, &head).map_err(RepoError::damaged(name))?;
    let packs = directory.packs.into_iter().map(|pack| pack.id).collect();
    Ok(RunOutline { signer: head.signer, records: head.record_count, packs })
}
