//! What a thief can make with the secrets of a key: any object, sealed and signed as it should be.

use crate::support::world::Client;
use chronolith::base::{Entropy, ObjectId};
use chronolith::crypto::derive::context::METADATA_OBJECT;
use chronolith::crypto::seal::counter_nonce;
use chronolith::crypto::{Sealer, SignedMessage, derive_pair, seal_in_place};
use chronolith::format::Envelope;
use chronolith::format::envelope::{Compression, HEADER_BYTES, Sealing, associated_data};
use chronolith::format::index::{
    BlockEntry, DIRECTORY_NUMBER, Directory, INDEX_CONTEXT, INDEX_HEAD_BYTES, IndexHead, IndexRecord,
    PackEntry, encode_block,
};
use chronolith::format::kind::ObjectKind;
use chronolith::format::pack::BlobClass;
use chronolith::format::trust::Role;
use chronolith::format::trust::scope::Scope;
use chronolith::ops::keys::{NewKey, add};
use chronolith::repo::{Located, NewSlot, Repository};
use std::sync::Arc;

/// Adds a key to the owner's repository and returns the client that holds it.
pub fn client_with(owner: &Client, role: Role, name: &str, domain: &str, hosts: &[&str]) -> Client {
    let mut key_file = vec![0; 32];
    owner.entropy.fill(&mut key_file);
    let content = chronolith::base::SecretBytes::new(key_file.clone());
    let new = NewKey {
        role,
        name: name.to_owned(),
        domain: domain.to_owned(),
        scope: Scope { hosts: hosts.iter().map(|host| (*host).to_owned()).collect(), ..Scope::default() },
    };
    add(&owner.open(), &new, &NewSlot::KeyFile(&content)).unwrap();
    let host = hosts.first().copied().unwrap_or("db1").to_owned();
    Client { key_file, host, listener: Arc::default(), ..owner.clone() }
}

/// Signs whatever it is told, without asking whether it may.
pub fn signed(repository: &Repository, kind: ObjectKind, mut object: Vec<u8>) -> Vec<u8> {
    let message = SignedMessage::new(repository.id(), kind.number(), &object);
    object.extend_from_slice(&repository.keyring().identity.signing.sign(&message));
    object
}

/// An object whose payload everybody may read.
pub fn plain(repository: &Repository, kind: ObjectKind, payload: &[u8]) -> Vec<u8> {
    let envelope = Envelope {
        kind,
        compression: Compression::None,
        sealing: None,
        signer: repository.keyring().identity.key,
        plain_length: payload.len() as u64,
    };
    signed(repository, kind, envelope.begin(payload))
}

/// A sealed object, in an epoch of the thief's choice.
pub fn sealed(repository: &Repository, kind: ObjectKind, payload: &[u8], epoch: Option<u32>) -> Vec<u8> {
    let keys = repository.keyring().current().unwrap();
    let salt = repository.environment().entropy.draw();
    let (key, commitment) = derive_pair(METADATA_OBJECT, &keys.metadata, &salt);
    let suite = repository.suite();
    let epoch = epoch.unwrap_or(keys.number);
    let envelope = Envelope {
        kind,
        compression: Compression::None,
        sealing: Some(Sealing { suite, epoch, salt, commitment }),
        signer: repository.keyring().identity.key,
        plain_length: payload.len() as u64,
    };
    let mut object = envelope.begin(payload);
    let header: [u8; HEADER_BYTES] = object[..HEADER_BYTES].try_into().unwrap();
    let bound = associated_data(repository.id(), &header);
    seal_in_place(suite, &key, [0; 12], &bound, &mut object, HEADER_BYTES).unwrap();
    signed(repository, kind, object)
}

/// Puts an object where its kind belongs; returns its name.
pub fn put(client: &Client, folder: &str, object: &[u8]) -> String {
    let name = format!("{folder}/{}", blake3::hash(object));
    client.store.put(&name, object).unwrap();
    name
}

/// The id in a name.
pub fn id_of(name: &str) -> ObjectId {
    name.rsplit('/').next().unwrap().parse().unwrap()
}

/// Encodes, seals and signs an index run of whatever records, in an epoch of the thief's choice.
pub fn index_run(
    repository: &Repository,
    packs: Vec<PackEntry>,
    mut records: Vec<IndexRecord>,
    epoch: Option<u32>,
) -> Vec<u8> {
    let keys = repository.keyring().current().unwrap();
    let salt = repository.environment().entropy.draw();
    let (key, commitment) = derive_pair(INDEX_CONTEXT, &keys.metadata, &salt);
    let mut head = IndexHead {
        suite: repository.suite(),
        epoch: epoch.unwrap_or(keys.number),
        signer: repository.keyring().identity.key,
        salt,
        commitment,
        record_count: records.len() as u64,
        directory_offset: 0,
        directory_stored_length: 0,
        directory_plain_length: 0,
        block_count: 1,
    };
    let bound = head.associated_data(repository.id());
    let sealer = Sealer::new(head.suite, &key);
    let seal = |number: u64, plain: &[u8]| {
        // The first byte says that it is stored as it is.
        let mut sealed = [&[0], plain].concat();
        sealer.seal(counter_nonce(number), &bound, &mut sealed, 0).unwrap();
        sealed
    };
    records.sort_by(|a, b| a.order().cmp(&b.order()));
    let mut plain = Vec::new();
    let base_count = encode_block(&records, &mut plain).unwrap();
    let block = seal(0, &plain);
    let entry = BlockEntry {
        first: records[0].id,
        offset: INDEX_HEAD_BYTES as u64,
        stored_length: block.len() as u32,
        record_count: records.len() as u16,
        base_count,
    };
    let mut plain = Vec::new();
    Directory { packs, blocks: vec![entry] }.encode(&mut plain).unwrap();
    let directory = seal(DIRECTORY_NUMBER, &plain);
    head.directory_offset = (INDEX_HEAD_BYTES + block.len()) as u64;
    head.directory_stored_length = directory.len() as u32;
    head.directory_plain_length = plain.len() as u32;
    let mut run = Vec::new();
    head.encode(&mut run);
    run.extend_from_slice(&block);
    run.extend_from_slice(&directory);
    signed(repository, ObjectKind::IndexRun, run)
}

/// What the index says of all blobs of a class that it knows.
pub fn records_of(repository: &Repository, class: BlobClass) -> Vec<Located> {
    repository.load_index().unwrap();
    let mut found = Vec::new();
    repository.index().for_each(|located| {
        if located.record.class == class {
            found.push(located);
        }
    });
    found
}

/// The entry of a pack in a run.
pub fn entry_of(located: &Located) -> PackEntry {
    PackEntry {
        id: located.pack.id,
        length: located.pack.length,
        class: located.pack.class,
        origins: located.pack.origins.to_vec(),
    }
}
