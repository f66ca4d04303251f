//! Opens whole packs and index runs with the keys of the vectors, checking everything that a reader
//! must, and returns the bytes that the decoded values encode to.

use super::keys;
use super::packing::id_key;
use chronolith::base::{BlobId, KeyId};
use chronolith::codec::{Decompressor, Encoding};
use chronolith::crypto::derive::{content_info, context};
use chronolith::crypto::seal::counter_nonce;
use chronolith::crypto::{
    SIGNATURE_BYTES, Sealer, SignedMessage, decapsulate, derive_committed, open_in_place, verify,
};
use chronolith::format::FormatError;
use chronolith::format::index::{DIRECTORY_NUMBER, Directory, IndexBlock, IndexHead, encode_block};
use chronolith::format::pack::{
    BlobClass, FrameAssociatedData, FrameRecord, Origin, PackView, TableOfContents, contents_associated_data,
};
use std::collections::HashMap;

fn refused<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> FormatError {
    move |_| FormatError::Invalid { what, why: "does not open" }
}

/// The registry of the vectors knows one key.
fn known_signer(key: KeyId) -> Result<(), FormatError> {
    if key == keys::writer().key_id() {
        Ok(())
    } else {
        Err(FormatError::Invalid { what: "signer", why: "is not known" })
    }
}

/// Opens a pack down to the ids of its blobs.
pub fn pack(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let view = PackView::parse(bytes)?;
    known_signer(view.head.signer)?;
    let message = SignedMessage::new(&keys::repository(), view.head.class.pack_kind(), view.signed);
    verify(&keys::writer().public(), &message, &view.signature).map_err(refused("signature"))?;
    let trailer = view.trailer;
    let key = derive_committed(context::PACK_CONTENTS, &keys::metadata(), &trailer.salt, &trailer.commitment)
        .map_err(refused("key of the table of contents"))?;
    let bound = contents_associated_data(&keys::repository(), trailer.class, trailer.contents_plain_length);
    let mut plain = view.contents_sealed.to_vec();
    open_in_place(trailer.suite, &key, [0; 12], &bound, &mut plain, 0)
        .map_err(refused("table of contents"))?;
    let contents = TableOfContents::decode(&plain, &trailer)?;
    open_frames(&view, &contents)?;

    let mut again = Vec::new();
    view.head.encode(&mut again);
    view.origins.iter().for_each(|origin| origin.encode(&mut again));
    for frame in &contents.frames {
        again.extend_from_slice(view.frame(frame)?);
    }
    let mut plain_again = Vec::new();
    contents.encode(&mut plain_again)?;
    assert_eq!(plain, plain_again, "the table of contents encodes to other bytes");
    again.extend_from_slice(view.contents_sealed);
    view.origins.iter().for_each(|origin| origin.encode(&mut again));
    trailer.encode(&mut again);
    again.extend_from_slice(&view.signature);
    Ok(again)
}

fn sealer(class: BlobClass, origin: &Origin) -> Result<Sealer, FormatError> {
    let secret = match class {
        BlobClass::Metadata => keys::metadata(),
        BlobClass::Content => decapsulate(
            &keys::content(),
            &origin.encapsulation,
            &content_info(&keys::repository(), origin.epoch),
        )
        .map_err(refused("encapsulation"))?,
    };
    let key = derive_committed(class.frame_context(), &secret, &origin.salt, &origin.commitment)
        .map_err(refused("key of an origin"))?;
    Ok(Sealer::new(origin.suite, &key))
}

/// Opens frames in the order of their depths, so that bases come first; they lie in the same pack here.
fn open_frames(view: &PackView<'_>, contents: &TableOfContents) -> Result<(), FormatError> {
    let class = view.head.class;
    let sealers = view.origins.iter().map(|origin| sealer(class, origin)).collect::<Result<Vec<_>, _>>()?;
    let mut frames: Vec<&FrameRecord> = contents.frames.iter().collect();
    frames.sort_by_key(|frame| frame.depth);
    let mut known: HashMap<BlobId, Vec<u8>> = HashMap::new();
    for frame in frames {
        let bound = FrameAssociatedData::new(
            &keys::repository(),
            class,
            frame.encoding,
            frame.counter,
            frame.plain_length,
            frame.base.as_ref(),
        );
        let mut sealed = view.frame(frame)?.to_vec();
        sealers[usize::from(frame.origin)]
            .open(counter_nonce(frame.counter), bound.as_ref(), &mut sealed, 0)
            .map_err(refused("frame"))?;
        let base = frame.base.map(|base| known.get(&base).expect("vectors hold their own bases").clone());
        let mut plain = Vec::new();
        Decompressor::new()
            .unwrap()
            .decode(frame.encoding, base.as_deref(), &sealed, frame.plain_length as usize, &mut plain)
            .map_err(refused("frame"))?;
        let mut rest = plain.as_slice();
        for (id, length) in &frame.blobs {
            let (blob, after) = rest.split_at(*length as usize);
            if id_key(class).blob_id(blob) != *id {
                return Err(FormatError::Invalid { what: "blob", why: "is not what its id says" });
            }
            known.insert(*id, blob.to_vec());
            rest = after;
        }
    }
    Ok(())
}

/// Opens an index run down to its records.
pub fn index(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let head = IndexHead::decode(bytes, bytes.len() as u64)?;
    known_signer(head.signer)?;
    let (signed, signature) = bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(FormatError::Truncated)?;
    let message = SignedMessage::new(&keys::repository(), 5, signed);
    verify(&keys::writer().public(), &message, signature).map_err(refused("signature"))?;
    let key = derive_committed(context::INDEX_RUN, &keys::metadata(), &head.salt, &head.commitment)
        .map_err(refused("key of the run"))?;
    let sealer = Sealer::new(head.suite, &key);
    let bound = head.associated_data(&keys::repository());
    let open = |number: u64, offset: u64, stored_length: u32, plain_length: usize| {
        let start = offset as usize;
        let mut sealed =
            bytes.get(start..start + stored_length as usize).ok_or(FormatError::Truncated)?.to_vec();
        sealer.open(counter_nonce(number), &bound, &mut sealed, 0).map_err(refused("index block"))?;
        let (encoding, stored) = sealed.split_first().ok_or(FormatError::Truncated)?;
        let encoding = Encoding::try_from(*encoding).map_err(refused("index block"))?;
        let mut plain = Vec::new();
        Decompressor::new()
            .unwrap()
            .decode(encoding, None, stored, plain_length, &mut plain)
            .map_err(refused("index block"))?;
        Ok::<_, FormatError>(plain)
    };
    let plain = open(
        DIRECTORY_NUMBER,
        head.directory_offset,
        head.directory_stored_length,
        head.directory_plain_length as usize,
    )?;
    let directory = Directory::decode(&plain, &head)?;
    let mut again = Vec::new();
    directory.encode(&mut again)?;
    assert_eq!(again, plain, "the directory encodes to other bytes");
    let mut whole = Vec::new();
    head.encode(&mut whole);
    for (number, entry) in directory.blocks.iter().enumerate() {
        let plain = open(number as u64, entry.offset, entry.stored_length, entry.plain_length())?;
        let records = IndexBlock::of(&plain, entry)?.decode_all(entry, &directory)?;
        let mut again = Vec::new();
        encode_block(&records, &mut again)?;
        assert_eq!(again, plain, "block {number} encodes to other bytes");
    }
    whole.extend_from_slice(&bytes[whole.len()..]);
    Ok(whole)
}
