//! A whole log pack, really sealed and signed with the keys of the vectors.

use super::{Case, Object, Steady, cut, envelope, keys, log_record, longer, patched};
use chronolith::codec::{Compressor, Encoding};
use chronolith::crypto::derive::{IdKey, content_info, context, derive_pair};
use chronolith::crypto::{SignedMessage, Suite, encapsulate, seal_in_place};
use chronolith::format::ObjectKind;
use chronolith::format::log::{
    LogChunk, LogContent, LogDigest, LogPackFront, LogPackView, contents_associated_data, encode_trailer,
};
use chronolith::format::pack::{
    BlobClass, FrameAssociatedData, FrameRecord, Origin, PackTrailer, TableOfContents, frame_nonce,
};

pub const OBJECT: Object = Object {
    name: "log-pack",
    recode: |bytes| {
        let view = LogPackView::parse(bytes)?;
        let mut again = Vec::new();
        let frames = view.front.encode(&mut again)? as usize;
        again.extend_from_slice(&bytes[frames..view.trailer.contents_offset as usize]);
        again.extend_from_slice(view.contents_sealed);
        view.front.origins.iter().for_each(|origin| origin.encode(&mut again));
        encode_trailer(&view.trailer, &mut again);
        again.extend_from_slice(&view.signature);
        Ok(again)
    },
    cases,
};

const SUITE: Suite = Suite::ChaCha20Poly1305;
const SALT: [u8; 32] = [0xAB; 32];

/// The plain bytes of the segment: 100 times `a`, then 200 times `b`, in two frames; the second one is a
/// difference against the first.
fn plain() -> [Vec<u8>; 2] {
    [vec![b'a'; 100], [vec![b'a'; 60], vec![b'b'; 140]].concat()]
}

fn record(merged: bool) -> Vec<u8> {
    let ids = IdKey::new(keys::content_ids());
    let plain = plain();
    let whole = plain.concat();
    let content = LogContent {
        digest: LogDigest { length: whole.len() as u64, blake3: *blake3::hash(&whole).as_bytes() },
        chunks: plain
            .iter()
            .map(|chunk| LogChunk { id: ids.blob_id(chunk), length: chunk.len() as u32 })
            .collect(),
        extra: Vec::new(),
    };
    let (record, signer) = match merged {
        false => (log_record::segment(content), keys::writer()),
        true => (log_record::merged(), keys::owner()),
    };
    let payload = record.encode().unwrap();
    envelope::sealed_by(ObjectKind::LogRecord, SUITE, &payload, &signer)
}

fn log_pack(merged: bool) -> Vec<u8> {
    let signer = if merged { keys::owner() } else { keys::writer() };
    let (encapsulation, shared) =
        encapsulate(&keys::content().public(), &Steady(0xEE), &content_info(&keys::repository(), 1)).unwrap();
    let (key, commitment) = derive_pair(context::CONTENT_FRAMES, &shared, &SALT);
    let origin = Origin { suite: SUITE, epoch: 1, encapsulation, salt: SALT, commitment };
    let records = if merged { vec![record(true), record(false)] } else { vec![record(false)] };
    let front = LogPackFront {
        signer: signer.key_id(),
        origins: vec![origin],
        records: records.iter().map(Vec::as_slice).collect(),
    };
    let mut pack = Vec::new();
    front.encode(&mut pack).unwrap();

    let ids = IdKey::new(keys::content_ids());
    let [first, second] = plain();
    let mut difference = Vec::new();
    Compressor::new(3).unwrap().difference(&first, &second, &mut difference).unwrap();
    let frames = [
        (Encoding::Stored, None, first.clone(), &first),
        (Encoding::Difference, Some(ids.blob_id(&first)), difference, &second),
    ];
    let mut contents = TableOfContents::default();
    for (counter, (encoding, base, mut sealed, plain)) in frames.into_iter().enumerate() {
        let (counter, plain_length) = (counter as u64, plain.len() as u32);
        let associated = FrameAssociatedData::new(
            &keys::repository(),
            BlobClass::Content,
            encoding,
            counter,
            plain_length,
            base.as_ref(),
        );
        seal_in_place(SUITE, &key, frame_nonce(counter), associated.as_ref(), &mut sealed, 0).unwrap();
        contents.frames.push(FrameRecord {
            offset: pack.len() as u32,
            sealed_length: sealed.len() as u32,
            plain_length,
            encoding,
            depth: u8::from(base.is_some()),
            origin: 0,
            counter,
            base,
            blobs: vec![(ids.blob_id(plain), plain_length)],
        });
        pack.extend_from_slice(&sealed);
    }
    let mut table = Vec::new();
    contents.encode(&mut table).unwrap();
    let (key, commitment) = derive_pair(context::PACK_CONTENTS, &keys::metadata(), &[0xAC; 32]);
    let trailer = PackTrailer {
        contents_offset: pack.len() as u32,
        contents_plain_length: table.len() as u32,
        epoch: 1,
        suite: SUITE,
        class: BlobClass::Content,
        origin_count: 1,
        frame_count: 2,
        blob_count: 2,
        salt: [0xAC; 32],
        commitment,
        signer: signer.key_id(),
    };
    let associated = contents_associated_data(&keys::repository(), table.len() as u32);
    seal_in_place(SUITE, &key, [0; 12], &associated, &mut table, 0).unwrap();
    pack.extend_from_slice(&table);
    origin.encode(&mut pack);
    encode_trailer(&trailer, &mut pack);
    let message = SignedMessage::new(&keys::repository(), ObjectKind::LogPack.number(), &pack);
    pack.extend_from_slice(&signer.sign(&message));
    pack
}

fn cases() -> Vec<Case> {
    let pack = log_pack(false);
    let records_at = 64 + 104;
    let trailer_at = pack.len() - 192;
    let length = pack.len();
    vec![
        Case::accept(
            "segment",
            "a segment of two chunks; the second is a difference against the first",
            pack.clone(),
        ),
        Case::accept("merged", "a merged log pack of one segment", log_pack(true)),
        Case::truncated("nothing", "no bytes", []),
        Case::truncated("head", "within the head", cut(&pack, 63)),
        Case::truncated("records", "within the record", cut(&pack, 300)),
        Case::unsupported("version", "[LOG-PACK-11]: version 2", patched(&pack, 5, &[2])),
        Case::unsupported("suite", "origin of suite 3", patched(&pack, 64, &[3])),
        Case::corrupt("magic", "[LOG-PACK-11]: another magic", patched(&pack, 0, b"CHRM")),
        Case::corrupt("kind", "[LOG-PACK-11]: a content pack", patched(&pack, 4, &[3])),
        Case::corrupt("no-origins", "[LOG-PACK-11]: no origins", patched(&pack, 6, &[0])),
        Case::corrupt("no-records", "[LOG-PACK-11]: no records", patched(&pack, 8, &[0])),
        Case::corrupt("many-records", "[LOG-PACK-11]: more than the bound", patched(&pack, 8, &[0xFF; 4])),
        Case::corrupt("reserved", "[LOG-PACK-11]: reserved bytes", patched(&pack, 63, &[1])),
        Case::corrupt("second-record", "[LOG-PACK-12]: two records where one is", patched(&pack, 8, &[2])),
        Case::corrupt("record-length", "[LOG-PACK-12]: a record one byte longer", {
            let first = pack[records_at];
            patched(&pack, records_at, &[first.wrapping_add(1)])
        }),
        Case::corrupt("record-magic", "[LOG-PACK-12]: no envelope", patched(&pack, records_at + 4, b"X")),
        Case::corrupt("record-kind", "[LOG-PACK-12]: an annotation", patched(&pack, records_at + 8, &[8])),
        Case::corrupt("trailer-kind", "[LOG-PACK-14]: of a content pack", {
            patched(&pack, trailer_at + 17, &[3])
        }),
        Case::corrupt("trailer-magic", "a trailer without its magic", patched(&pack, trailer_at + 28, b"X")),
        Case::corrupt("trailer-signer", "[LOG-PACK-14]: another signer", {
            patched(&pack, trailer_at + 96, &[pack[trailer_at + 96] ^ 1])
        }),
        Case::corrupt("origins", "[LOG-PACK-14]: the copies differ", {
            patched(&pack, trailer_at - 1, &[pack[trailer_at - 1] ^ 1])
        }),
        Case::corrupt("trailing", "the trailer is not at the end", longer(&pack, &[0])),
        Case::corrupt("cut", "the trailer is not at the end", cut(&pack, length - 1)),
    ]
}
