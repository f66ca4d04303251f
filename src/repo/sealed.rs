//! Structured objects: sealed with the metadata key, signed by who made them.

use super::error::RepoError;
use super::frames::internal;
use super::keyring::Keyring;
use crate::base::{Entropy, KeyId, ObjectId, RepositoryId, limits};
use crate::codec::{Compressor, Decompressor, Encoding};
use crate::crypto::derive::context::METADATA_OBJECT;
use crate::crypto::{
    SignedMessage, SigningKey, Suite, derive_committed, derive_pair, open_in_place, seal_in_place, verify,
};
use crate::format::FormatError;
use crate::format::envelope::{Compression, Envelope, HEADER_BYTES, Sealing, associated_data};
use crate::format::kind::ObjectKind;

/// Compression level of structured objects, which are small.
const LEVEL: i32 = 6;

/// Signs an object whose payload everybody may read.
pub fn sign_plain(
    kind: ObjectKind,
    repository: &RepositoryId,
    signing: &SigningKey,
    payload: &[u8],
) -> Vec<u8> {
    let envelope = Envelope {
        kind,
        compression: Compression::None,
        sealing: None,
        signer: signing.key_id(),
        plain_length: payload.len() as u64,
    };
    finish(envelope.begin(payload), kind, repository, signing)
}

fn finish(mut object: Vec<u8>, kind: ObjectKind, repository: &RepositoryId, signing: &SigningKey) -> Vec<u8> {
    let signature = signing.sign(&SignedMessage::new(repository, kind.number(), &object));
    object.extend_from_slice(&signature);
    object
}

/// Compresses, seals and signs an object under the newest epoch.
///
/// # Errors
///
/// When the key was granted no epoch.
pub fn seal(
    kind: ObjectKind,
    suite: Suite,
    repository: &RepositoryId,
    keyring: &Keyring,
    entropy: &dyn Entropy,
    payload: &[u8],
) -> Result<Vec<u8>, RepoError> {
    let epoch = keyring.current()?;
    let salt = entropy.draw();
    let (key, commitment) = derive_pair(METADATA_OBJECT, &epoch.metadata, &salt);
    let mut compressed = Vec::new();
    let compression = match payload.len() as u64 > limits::FRAME_PLAIN_BYTES_MAX {
        // Long listings are ids, hashes and sealed originals: there is little to gain.
        true => {
            compressed.extend_from_slice(payload);
            Compression::None
        }
        false => {
            let encoding = Compressor::new(LEVEL)
                .and_then(|mut compressor| compressor.compress(payload, &mut compressed))
                .map_err(|why| RepoError::Internal {
                    doing: "compressing an object",
                    why: why.to_string(),
                })?;
            if encoding == Encoding::Zstd { Compression::Zstd } else { Compression::None }
        }
    };

    let envelope = Envelope {
        kind,
        compression,
        sealing: Some(Sealing { suite, epoch: epoch.number, salt, commitment }),
        signer: keyring.identity.key,
        plain_length: payload.len() as u64,
    };
    let mut object = envelope.begin(&compressed);
    let (header, _) = object
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(RepoError::Internal { doing: "sealing an object", why: "its header is short".to_owned() })?;
    let bound = associated_data(repository, header);
    seal_in_place(suite, &key, [0; 12], &bound, &mut object, HEADER_BYTES)
        .map_err(internal("sealing an object"))?;
    Ok(finish(object, kind, repository, &keyring.identity.signing))
}

/// A structured object whose name, signature and seal hold.
pub struct Opened {
    /// Who signed it.
    pub signer: KeyId,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Checks an object's name, kind and signature, and returns its envelope's parts.
fn authentic<'a>(
    object: &str,
    id: ObjectId,
    kind: ObjectKind,
    repository: &RepositoryId,
    bytes: &'a [u8],
    signer_key: impl FnOnce(&KeyId) -> Option<[u8; 32]>,
) -> Result<crate::format::envelope::Parsed<'a>, RepoError> {
    if blake3::hash(bytes).as_bytes() != id.as_bytes() {
        return Err(RepoError::damaged(object)(FormatError::Invalid {
            what: "object",
            why: "its bytes are not the ones it was named for",
        }));
    }
    let parsed = Envelope::parse(bytes).map_err(RepoError::damaged(object))?;
    let untrusted = |why: String| RepoError::Untrusted { object: object.to_owned(), why };
    if parsed.envelope.kind != kind {
        return Err(untrusted(format!("it is a {}, not a {kind}", parsed.envelope.kind)));
    }
    let public = signer_key(&parsed.envelope.signer)
        .ok_or_else(|| untrusted(format!("key {} may not sign it", parsed.envelope.signer.short())))?;
    verify(&public, &SignedMessage::new(repository, kind.number(), parsed.signed), parsed.signature)
        .map_err(|_| untrusted("its signature does not hold".to_owned()))?;
    Ok(parsed)
}

/// Opens an object whose payload is not sealed.
///
/// # Errors
///
/// When name, kind or signature do not hold.
pub fn open_plain(
    object: &str,
    id: ObjectId,
    kind: ObjectKind,
    repository: &RepositoryId,
    bytes: &[u8],
    signer_key: impl FnOnce(&KeyId) -> Option<[u8; 32]>,
) -> Result<Opened, RepoError> {
    let parsed = authentic(object, id, kind, repository, bytes, signer_key)?;
    Ok(Opened { signer: parsed.envelope.signer, payload: parsed.payload.to_vec() })
}

/// Opens a sealed object.
///
/// # Errors
///
/// When name, kind, signature or seal do not hold, or the epoch was not granted to this key.
pub fn open(
    object: &str,
    id: ObjectId,
    kind: ObjectKind,
    repository: &RepositoryId,
    keyring: &Keyring,
    bytes: &[u8],
    signer_key: impl FnOnce(&KeyId) -> Option<[u8; 32]>,
) -> Result<Opened, RepoError> {
    let parsed = authentic(object, id, kind, repository, bytes, signer_key)?;
    let payload = unseal(object, repository, keyring, &parsed)?;
    Ok(Opened { signer: parsed.envelope.signer, payload })
}

/// Opens the seal of an object, whoever signed it.
fn unseal(
    object: &str,
    repository: &RepositoryId,
    keyring: &Keyring,
    parsed: &crate::format::envelope::Parsed<'_>,
) -> Result<Vec<u8>, RepoError> {
    let broken = |why: &'static str| RepoError::damaged(object)(FormatError::Invalid { what: "object", why });
    let sealing = parsed.envelope.sealing.as_ref().ok_or_else(|| broken("it is not sealed"))?;
    let metadata = &keyring.epoch(sealing.epoch)?.metadata;
    let key = derive_committed(METADATA_OBJECT, metadata, &sealing.salt, &sealing.commitment)
        .map_err(|_| broken("its key is not the epoch's"))?;
    let mut payload = parsed.payload.to_vec();
    let bound = associated_data(repository, parsed.header);
    open_in_place(sealing.suite, &key, [0; 12], &bound, &mut payload, 0)
        .map_err(|_| broken("it does not open"))?;
    if parsed.envelope.compression == Compression::Zstd {
        let length = usize::try_from(parsed.envelope.plain_length).map_err(|_| broken("it is too long"))?;
        payload = inflate(&payload, length).ok_or_else(|| broken("it does not decompress"))?;
    }
    Ok(payload)
}

/// Opens a sealed object, whoever signed it: what it says was said by somebody who held the metadata key,
/// which is no authority.
///
/// # Errors
///
/// When its name, kind or seal do not hold, or the epoch was not granted to this key.
pub fn open_unbelieved(
    object: &str,
    kind: ObjectKind,
    repository: &RepositoryId,
    keyring: &Keyring,
    bytes: &[u8],
) -> Result<Vec<u8>, RepoError> {
    let parsed = Envelope::parse(bytes).map_err(RepoError::damaged(object))?;
    if parsed.envelope.kind != kind {
        let why = format!("it is a {}, not a {kind}", parsed.envelope.kind);
        return Err(RepoError::Untrusted { object: object.to_owned(), why });
    }
    unseal(object, repository, keyring, &parsed)
}

/// Who made an object that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// Its bytes are not those that it was named for: it may have been anybody's.
    Unknown,
    /// It is as it was put, and no key of the registry signed it.
    Nobody,
    /// It is as it was put, by the holder of this key.
    Key(KeyId),
}

/// Finds out who made an object.
pub fn author(
    object: &str,
    id: ObjectId,
    kind: ObjectKind,
    repository: &RepositoryId,
    bytes: &[u8],
    signer_key: impl FnOnce(&KeyId) -> Option<[u8; 32]>,
) -> Author {
    if blake3::hash(bytes).as_bytes() != id.as_bytes() {
        return Author::Unknown;
    }
    match authentic(object, id, kind, repository, bytes, signer_key) {
        Ok(parsed) => Author::Key(parsed.envelope.signer),
        // Of a newer program, perhaps.
        Err(RepoError::TooNew(_)) => Author::Unknown,
        Err(_) => Author::Nobody,
    }
}

fn inflate(stored: &[u8], plain_length: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    Decompressor::new().ok()?.decode(Encoding::Zstd, None, stored, plain_length, &mut plain).ok()?;
    Some(plain)
}
