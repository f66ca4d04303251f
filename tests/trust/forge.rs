//! What a thief can make with the secrets of a key: any object, sealed and signed as it should be.

use crate::support::world::Client;
use chronolith::base::{BlobId, Entropy, ObjectId, PackId};
use chronolith::codec::Encoding;
use chronolith::crypto::derive::content_info;
use chronolith::crypto::derive::context::METADATA_OBJECT;
use chronolith::crypto::seal::counter_nonce;
use chronolith::crypto::{Sealer, SignedMessage, derive_pair, encapsulate, seal_in_place};
use chronolith::format::Envelope;
use chronolith::format::envelope::{Compression, HEADER_BYTES, Sealing, associated_data};
use chronolith::format::index::{
    BlockEntry, DIRECTORY_NUMBER, Directory, INDEX_CONTEXT, INDEX_HEAD_BYTES, IndexHead, IndexRecord,
    PackEntry, encode_block,
};
use chronolith::format::kind::ObjectKind;
use chronolith::format::pack::{
    BlobClass, CONTENTS_CONTEXT, FrameAssociatedData, FrameRecord, Origin, PackHead, PackTrailer,
    TableOfContents, contents_associated_data,
};
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

/// What a pack claims of a frame, and what it puts there.
pub struct Claim {
    /// The blob that is said to be there, and its length.
    pub blob: (BlobId, u32),
    /// How it is said to be encoded.
    pub encoding: Encoding,
    /// What it is said to be a difference against.
    pub base: Option<BlobId>,
    /// What is sealed in its place, encoded already.
    pub encoded: Vec<u8>,
}

/// Makes a pack of one frame that holds whatever it likes, signed and sealed as it should be; returns
/// it with the records that an index run says of it.
pub fn pack_of(
    repository: &Repository,
    class: BlobClass,
    claim: Claim,
) -> (Vec<u8>, PackEntry, Vec<IndexRecord>) {
    let keys = repository.keyring().current().unwrap();
    let entropy = repository.environment().entropy.as_ref();
    let suite = repository.suite();
    let (encapsulation, secret) = match class {
        BlobClass::Metadata => ([0; 32], keys.metadata.duplicate()),
        BlobClass::Content => {
            encapsulate(&keys.content_public, entropy, &content_info(repository.id(), keys.number)).unwrap()
        }
    };
    let salt = entropy.draw();
    let (key, commitment) = derive_pair(class.frame_context(), &secret, &salt);
    let origin = Origin { suite, epoch: keys.number, encapsulation, salt, commitment };
    let mut claim = claim;
    let bound = FrameAssociatedData::new(
        repository.id(),
        class,
        claim.encoding,
        0,
        claim.blob.1,
        claim.base.as_ref(),
    );
    Sealer::new(suite, &key).seal(counter_nonce(0), bound.as_ref(), &mut claim.encoded, 0).unwrap();
    pack_under(repository, class, origin, 0, claim)
}

/// Does the same under an origin and counter that may be somebody else's, with what is sealed already.
pub fn pack_under(
    repository: &Repository,
    class: BlobClass,
    origin: Origin,
    counter: u64,
    claim: Claim,
) -> (Vec<u8>, PackEntry, Vec<IndexRecord>) {
    let keys = repository.keyring().current().unwrap();
    let entropy = repository.environment().entropy.as_ref();
    let suite = repository.suite();
    let signer = repository.keyring().identity.key;
    let mut bytes = Vec::new();
    PackHead { class, origin_count: 1, signer }.encode(&mut bytes);
    origin.encode(&mut bytes);
    let Claim { blob, encoding, base, encoded } = claim;
    let frame = FrameRecord {
        offset: bytes.len() as u32,
        sealed_length: encoded.len() as u32,
        plain_length: blob.1,
        encoding,
        depth: u8::from(base.is_some()),
        origin: 0,
        counter,
        base,
        blobs: vec![blob],
    };
    let record = IndexRecord {
        id: blob.0,
        class,
        pack: 0,
        frame_offset: frame.offset,
        sealed_length: frame.sealed_length,
        plain_length: frame.plain_length,
        offset: 0,
        length: blob.1,
        counter,
        base,
        origin: 0,
        encoding,
        depth: frame.depth,
    };
    bytes.extend_from_slice(&encoded);
    let contents_offset = bytes.len();
    TableOfContents { frames: vec![frame] }.encode(&mut bytes).unwrap();
    let salt = entropy.draw();
    let (key, commitment) = derive_pair(CONTENTS_CONTEXT, &keys.metadata, &salt);
    let trailer = PackTrailer {
        contents_offset: contents_offset as u32,
        contents_plain_length: (bytes.len() - contents_offset) as u32,
        epoch: keys.number,
        suite,
        class,
        origin_count: 1,
        frame_count: 1,
        blob_count: 1,
        salt,
        commitment,
        signer,
    };
    let bound = contents_associated_data(repository.id(), class, trailer.contents_plain_length);
    seal_in_place(suite, &key, [0; 12], &bound, &mut bytes, contents_offset).unwrap();
    origin.encode(&mut bytes);
    trailer.encode(&mut bytes);
    let message = SignedMessage::new(repository.id(), class.pack_kind(), &bytes);
    let signature = repository.keyring().identity.signing.sign(&message);
    bytes.extend_from_slice(&signature);
    let id = PackId::new(*blake3::hash(&bytes).as_bytes());
    let entry = PackEntry { id, length: bytes.len() as u32, class, origins: vec![origin] };
    (bytes, entry, vec![record])
}

/// Publishes such a pack and an index run that says the same; returns the pack's name and the run's.
pub fn poison(client: &Client, class: BlobClass, claim: Claim) -> (String, String) {
    let repository = client.open();
    publish(client, pack_of(&repository, class, claim))
}

/// Publishes a pack and an index run that says what these records say.
pub fn publish(client: &Client, forged: (Vec<u8>, PackEntry, Vec<IndexRecord>)) -> (String, String) {
    let (repository, (pack, entry, records)) = (client.open(), forged);
    let name = chronolith::repo::pack_name(&entry.id);
    client.store.put(&name, &pack).unwrap();
    let run = put(client, "index/00000001", &index_run(&repository, vec![entry], records, None));
    (name, run)
}
