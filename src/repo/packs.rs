//! Packs: sealed frames collected into objects of some tens of MiB, and taken apart again.

use super::error::RepoError;
use super::frames::{SealedFrame, SessionOrigin, internal, length_u32};
use super::keyring::Keyring;
use crate::base::{Entropy, PackId, RepositoryId};
use crate::crypto::{
    SignedMessage, Suite, derive_committed, derive_pair, open_in_place, seal_in_place, verify,
};
use crate::format::kind::ObjectKind;
use crate::format::pack::{
    BlobClass, CONTENTS_CONTEXT, FrameRecord, HEAD_BYTES, ORIGIN_BYTES, Origin, PackHead, PackTrailer,
    PackView, TableOfContents, contents_associated_data,
};
use crate::format::{FormatError, log};

/// Bytes after which a pack of this class is full. One of metadata is small, since listing one snapshot should fetch
/// little.
pub const fn pack_bytes(class: BlobClass) -> usize {
    match class {
        BlobClass::Content => 32 << 20,
        BlobClass::Metadata => 8 << 20,
    }
}

/// Returns the name of a pack in the store.
pub fn pack_name(id: &PackId) -> String {
    let id = id.to_string();
    format!("packs/{}/{id}", &id[..2])
}

/// A pack that is being filled.
pub struct PackBuilder {
    class: BlobClass,
    origin: Origin,
    bytes: Vec<u8>,
    frames: Vec<FrameRecord>,
}

/// A pack that is ready to be stored.
pub struct FinishedPack {
    /// Its name.
    pub id: PackId,
    /// Content or metadata.
    pub class: BlobClass,
    /// Its stored bytes.
    pub bytes: Vec<u8>,
    /// Its frames, for the index.
    pub frames: Vec<FrameRecord>,
    /// Its origins.
    pub origins: Vec<Origin>,
}

impl PackBuilder {
    /// Begins a pack in a buffer, whose capacity is used again.
    pub fn new(session: &SessionOrigin, class: BlobClass, keyring: &Keyring, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        PackHead { class, origin_count: 1, signer: keyring.identity.key }.encode(&mut buffer);
        session.origin.encode(&mut buffer);
        debug_assert_eq!(buffer.len(), HEAD_BYTES + ORIGIN_BYTES);
        Self { class, origin: session.origin, bytes: buffer, frames: Vec::new() }
    }

    /// Says whether the pack holds no frame yet.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Says whether a frame of this length should go into the next pack.
    pub fn is_full_for(&self, sealed_length: usize) -> bool {
        !self.frames.is_empty() && self.bytes.len() + sealed_length > pack_bytes(self.class)
    }

    /// Adds a frame.
    ///
    /// # Errors
    ///
    /// When the pack would grow past what its offsets can say.
    pub fn push(&mut self, frame: SealedFrame<'_>) -> Result<(), RepoError> {
        let mut record = frame.record;
        record.offset = length_u32(self.bytes.len())?;
        self.bytes.extend_from_slice(frame.bytes);
        self.frames.push(record);
        Ok(())
    }

    /// Seals the table of contents, signs and names the pack.
    ///
    /// # Errors
    ///
    /// When a frame breaks a bound of the format, or the key was granted no epoch.
    pub fn finish(
        self,
        suite: Suite,
        repository: &RepositoryId,
        keyring: &Keyring,
        entropy: &dyn Entropy,
    ) -> Result<FinishedPack, RepoError> {
        let (kind, origins) = (kind_of(self.class), vec![self.origin]);
        finish_pack(kind, origins, self.bytes, self.frames, suite, repository, keyring, entropy)
    }
}

/// Makes a pack of frames that were sealed before, under whatever origins; their offsets are set here.
///
/// # Errors
///
/// As [`PackBuilder::finish`].
#[expect(clippy::too_many_arguments, reason = "the parts of one pack, put together in one place")]
pub(super) fn fill_pack(
    class: BlobClass,
    origins: Vec<Origin>,
    sealed: &[u8],
    mut frames: Vec<FrameRecord>,
    suite: Suite,
    repository: &RepositoryId,
    keyring: &Keyring,
    entropy: &dyn Entropy,
) -> Result<FinishedPack, RepoError> {
    let mut bytes = Vec::with_capacity(sealed.len() + HEAD_BYTES + 2 * origins.len() * ORIGIN_BYTES);
    PackHead { class, origin_count: origin_count(&origins)?, signer: keyring.identity.key }
        .encode(&mut bytes);
    origins.iter().for_each(|origin| origin.encode(&mut bytes));
    let mut offset = length_u32(bytes.len())?;
    for frame in &mut frames {
        frame.offset = offset;
        offset = offset.checked_add(frame.sealed_length).ok_or_else(too_many)?;
    }
    bytes.extend_from_slice(sealed);
    finish_pack(kind_of(class), origins, bytes, frames, suite, repository, keyring, entropy)
}

const fn kind_of(class: BlobClass) -> ObjectKind {
    match class {
        BlobClass::Content => ObjectKind::ContentPack,
        BlobClass::Metadata => ObjectKind::MetadataPack,
    }
}

fn too_many() -> RepoError {
    RepoError::Internal { doing: "filling a pack", why: "it does not hold so much".to_owned() }
}

fn origin_count(origins: &[Origin]) -> Result<u16, RepoError> {
    u16::try_from(origins.len()).map_err(|_| too_many())
}

/// Seals the table, signs and names a pack whose head, origins and frames are written. A log pack ends as
/// a content pack does, but for its kind.
#[expect(clippy::too_many_arguments, reason = "the parts of one pack, put together in one place")]
pub(super) fn finish_pack(
    kind: ObjectKind,
    origins: Vec<Origin>,
    mut bytes: Vec<u8>,
    frames: Vec<FrameRecord>,
    suite: Suite,
    repository: &RepositoryId,
    keyring: &Keyring,
    entropy: &dyn Entropy,
) -> Result<FinishedPack, RepoError> {
    let epoch = keyring.current()?;
    let class = match kind {
        ObjectKind::MetadataPack => BlobClass::Metadata,
        _ => BlobClass::Content,
    };
    let contents = TableOfContents { frames };
    let contents_offset = bytes.len();
    contents.encode(&mut bytes).map_err(RepoError::damaged("a pack being written"))?;
    let salt = entropy.draw();
    let (key, commitment) = derive_pair(CONTENTS_CONTEXT, &epoch.metadata, &salt);
    let trailer = PackTrailer {
        contents_offset: length_u32(contents_offset)?,
        contents_plain_length: length_u32(bytes.len() - contents_offset)?,
        epoch: epoch.number,
        suite,
        class,
        origin_count: origin_count(&origins)?,
        frame_count: length_u32(contents.frames.len())?,
        blob_count: length_u32(contents.blob_count() as usize)?,
        salt,
        commitment,
        signer: keyring.identity.key,
    };
    let bound = match kind {
        ObjectKind::LogPack => log::contents_associated_data(repository, trailer.contents_plain_length),
        _ => contents_associated_data(repository, class, trailer.contents_plain_length),
    };
    seal_in_place(suite, &key, [0; 12], &bound, &mut bytes, contents_offset)
        .map_err(internal("sealing a table of contents"))?;
    origins.iter().for_each(|origin| origin.encode(&mut bytes));
    match kind {
        ObjectKind::LogPack => log::encode_trailer(&trailer, &mut bytes),
        _ => trailer.encode(&mut bytes),
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes);
    let message = SignedMessage::from_hash(repository, kind.number(), hasher.finalize().as_bytes());
    let signature = keyring.identity.signing.sign(&message);
    bytes.extend_from_slice(&signature);
    hasher.update(&signature);
    Ok(FinishedPack {
        id: PackId::new(*hasher.finalize().as_bytes()),
        class,
        bytes,
        frames: contents.frames,
        origins,
    })
}

/// A pack read back whole: name, signature and table of contents hold.
pub struct OpenedPack {
    /// Content or metadata.
    pub class: BlobClass,
    /// Who signed it.
    pub signer: crate::base::KeyId,
    /// Its origins.
    pub origins: Vec<Origin>,
    /// Its frames.
    pub frames: Vec<FrameRecord>,
}

/// Opens a table of contents.
///
/// # Errors
///
/// When the epoch was not granted, or the table is not what was written.
pub fn open_contents(
    object: &str,
    repository: &RepositoryId,
    keyring: &Keyring,
    trailer: &PackTrailer,
    sealed: &[u8],
) -> Result<TableOfContents, RepoError> {
    let bound = contents_associated_data(repository, trailer.class, trailer.contents_plain_length);
    let plain = unseal_contents(object, keyring, trailer, &bound, sealed)?;
    TableOfContents::decode(&plain, trailer).map_err(RepoError::damaged(object))
}

/// Opens the seal of a table of contents that is bound to this.
///
/// # Errors
///
/// As [`open_contents`].
pub(super) fn unseal_contents(
    object: &str,
    keyring: &Keyring,
    trailer: &PackTrailer,
    bound: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, RepoError> {
    let damaged = |why: &'static str| {
        RepoError::damaged(object)(FormatError::Invalid { what: "table of contents", why })
    };
    let metadata = &keyring.epoch(trailer.epoch)?.metadata;
    let key = derive_committed(CONTENTS_CONTEXT, metadata, &trailer.salt, &trailer.commitment)
        .map_err(|_| damaged("its key is not the epoch's"))?;
    let mut plain = sealed.to_vec();
    open_in_place(trailer.suite, &key, [0; 12], bound, &mut plain, 0)
        .map_err(|_| damaged("it does not open"))?;
    Ok(plain)
}

/// Takes a whole pack apart and checks name, signature and table of contents.
///
/// `signer_key` returns the public key of a signer that the registry lets write packs.
///
/// # Errors
///
/// When any of it does not hold.
pub fn open_pack(
    id: &PackId,
    bytes: &[u8],
    repository: &RepositoryId,
    keyring: &Keyring,
    signer_key: impl FnOnce(&crate::base::KeyId) -> Option<[u8; 32]>,
) -> Result<OpenedPack, RepoError> {
    let object = pack_name(id);
    if blake3::hash(bytes).as_bytes() != id.as_bytes() {
        return Err(RepoError::damaged(object)(FormatError::Invalid {
            what: "pack",
            why: "its bytes are not the ones it was named for",
        }));
    }
    let view = PackView::parse(bytes).map_err(RepoError::damaged(object.as_str()))?;
    let untrusted = |why: &str| RepoError::Untrusted { object: object.clone(), why: why.to_owned() };
    let public = signer_key(&view.head.signer).ok_or_else(|| untrusted("its signer may not write packs"))?;
    let message = SignedMessage::new(repository, view.head.class.pack_kind(), view.signed);
    verify(&public, &message, &view.signature).map_err(|_| untrusted("its signature does not hold"))?;
    let contents = open_contents(&object, repository, keyring, &view.trailer, view.contents_sealed)?;
    Ok(OpenedPack {
        class: view.head.class,
        signer: view.head.signer,
        origins: view.origins,
        frames: contents.frames,
    })
}
