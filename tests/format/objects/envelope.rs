//! The envelope: whole objects, signed and where the kind asks for it sealed. A reader of these vectors
//! judges the layout; those that it accepts also verify and open with the keys of the vectors.

use super::{Case, Object, cut, keys, longer, patched};
use chronolith::crypto::derive::{context, derive_pair};
use chronolith::crypto::{SignedMessage, SigningKey, Suite, seal_in_place};
use chronolith::format::ObjectKind;
use chronolith::format::envelope::{Compression, Envelope, HEADER_BYTES, Sealing, associated_data};

pub const OBJECT: Object = Object {
    name: "envelope",
    recode: |bytes| {
        let parsed = Envelope::parse(bytes)?;
        let header = parsed.envelope.encode_header(parsed.payload.len() as u64);
        Ok([&header, parsed.payload, parsed.signature].concat())
    },
    cases,
};

/// Makes a sealed object of the writer.
fn sealed(
    kind: ObjectKind,
    suite: Suite,
    compression: Compression,
    plain_length: u64,
    payload: &[u8],
) -> Vec<u8> {
    seal((kind, suite, compression, plain_length), payload, &keys::writer())
}

/// Makes a sealed object that is not compressed.
pub fn sealed_by(kind: ObjectKind, suite: Suite, payload: &[u8], signer: &SigningKey) -> Vec<u8> {
    seal((kind, suite, Compression::None, payload.len() as u64), payload, signer)
}

/// Makes a sealed object as a repository does.
fn seal(
    (kind, suite, compression, plain_length): (ObjectKind, Suite, Compression, u64),
    payload: &[u8],
    signer: &SigningKey,
) -> Vec<u8> {
    let salt = [0xAA; 32];
    let (key, commitment) = derive_pair(context::METADATA_OBJECT, &keys::metadata(), &salt);
    let sealing = Some(Sealing { suite, epoch: 1, salt, commitment });
    let envelope = Envelope { kind, compression, sealing, signer: signer.key_id(), plain_length };
    let mut object = envelope.begin(payload);
    let header: [u8; HEADER_BYTES] = object[..HEADER_BYTES].try_into().unwrap();
    let associated = associated_data(&keys::repository(), &header);
    seal_in_place(suite, &key, [0; 12], &associated, &mut object, HEADER_BYTES).unwrap();
    sign(object, kind, signer)
}

/// Makes an object of a kind that is not sealed.
pub fn plain(kind: ObjectKind, payload: &[u8], signer: &SigningKey) -> Vec<u8> {
    let (compression, plain_length) = (Compression::None, payload.len() as u64);
    let envelope = Envelope { kind, compression, sealing: None, signer: signer.key_id(), plain_length };
    sign(envelope.begin(payload), kind, signer)
}

fn sign(mut object: Vec<u8>, kind: ObjectKind, signer: &SigningKey) -> Vec<u8> {
    let signature = signer.sign(&SignedMessage::new(&keys::repository(), kind.number(), &object));
    object.extend_from_slice(&signature);
    object
}

fn cases() -> Vec<Case> {
    let payload = [&b"\xA1\x00\x58\x64"[..], &[0x61; 100]].concat();
    let small =
        sealed(ObjectKind::Annotation, Suite::ChaCha20Poly1305, Compression::None, 9, b"\xA1\x00\x66abcdef");
    let aes = sealed(ObjectKind::Annotation, Suite::Aes256Gcm, Compression::None, 9, b"\xA1\x00\x66abcdef");
    // What a compressor made of it once; another one may choose other bytes.
    let compressed = b"\x28\xB5\x2F\xFD\x20\x68\x5D\x00\x00\x28\xA1\x00\x58\x64\x61\x01\x00\x20\x05\x5A";
    assert_eq!(zstd::bulk::decompress(compressed, 1000).unwrap(), payload);
    let shorter = sealed(
        ObjectKind::Snapshot,
        Suite::ChaCha20Poly1305,
        Compression::Zstd,
        payload.len() as u64,
        compressed,
    );
    let open = plain(ObjectKind::Trust, b"\xA1\x00\x01", &keys::owner());
    let length = |bytes: &[u8]| (bytes.len() - HEADER_BYTES - 64) as u64;
    let stored = |bytes: &[u8], change: i64| (length(bytes) as i64 + change).to_le_bytes();
    vec![
        Case::accept(
            "sealed",
            "an annotation, sealed with ChaCha20-Poly1305 by the writer; the payload is {0: \"abcdef\"}",
            small.clone(),
        ),
        Case::accept("sealed-aes", "the same, sealed with AES-256-GCM", aes),
        Case::accept(
            "compressed",
            "a snapshot whose payload {0: 100 times \"a\"} is one zstd frame, sealed",
            shorter.clone(),
        ),
        Case::accept(
            "plain",
            "a trust object, not sealed, by the owner; the payload is {0: 1}",
            open.clone(),
        ),
        Case::truncated("nothing", "no bytes", []),
        Case::truncated("magic", "within the magic number", cut(&small, 3)),
        Case::truncated("header", "within the header", cut(&small, 127)),
        Case::truncated("payload", "within the payload", cut(&small, 140)),
        Case::truncated("signature", "within the signature", cut(&small, small.len() - 1)),
        Case::unsupported("kind", "[ENVELOPE-2]: kind 15", patched(&small, 4, &[15])),
        Case::unsupported("version", "[ENVELOPE-2]: version 2", patched(&small, 5, &[2])),
        Case::unsupported("suite", "[ENVELOPE-2]: suite 3", patched(&small, 6, &[3])),
        Case::unsupported("compression", "[ENVELOPE-2]: compression 2", patched(&small, 7, &[2])),
        Case::corrupt("magic", "[ENVELOPE-1]", patched(&small, 0, b"CHRM")),
        Case::corrupt(
            "pack",
            "[ENVELOPE-3]: content packs have a layout of their own",
            patched(&small, 4, &[3]),
        ),
        Case::corrupt("sealed-trust", "[ENVELOPE-4]: a registry is never sealed", patched(&small, 4, &[1])),
        Case::corrupt(
            "plain-annotation",
            "[ENVELOPE-4]: an annotation is always sealed",
            patched(&open, 4, &[8]),
        ),
        Case::corrupt("epoch-zero", "[ENVELOPE-5]: sealed in epoch 0", patched(&small, 8, &[0; 4])),
        Case::corrupt("plain-epoch", "[ENVELOPE-5]: not sealed, but of epoch 1", patched(&open, 8, &[1])),
        Case::corrupt("plain-salt", "[ENVELOPE-5]: not sealed, but with a salt", patched(&open, 79, &[1])),
        Case::corrupt(
            "plain-commitment",
            "[ENVELOPE-5]: not sealed, but with a commitment",
            patched(&open, 80, &[1]),
        ),
        Case::corrupt("reserved", "[ENVELOPE-6]: reserved bytes", patched(&small, 15, &[1])),
        Case::corrupt(
            "length",
            "[ENVELOPE-7]: the stored length is one less than the lengths add up to",
            patched(&small, 112, &stored(&small, -1)),
        ),
        Case::corrupt(
            "no-tag",
            "[ENVELOPE-7]: shorter than a tag",
            patched(&small, 112, &15_u64.to_le_bytes()),
        ),
        Case::corrupt(
            "empty",
            "[ENVELOPE-7]: an empty payload",
            plain(ObjectKind::Trust, b"", &keys::owner()),
        ),
        Case::corrupt(
            "not-shorter",
            "[ENVELOPE-7]: compressed, but not shorter",
            patched(&shorter, 120, &(compressed.len() as u64).to_le_bytes()),
        ),
        Case::corrupt(
            "plain-compressed",
            "[ENVELOPE-7]: compressed, but not sealed",
            patched(&patched(&open, 7, &[1]), 120, &4_u64.to_le_bytes()),
        ),
        Case::corrupt(
            "too-long",
            "[ENVELOPE-8]: 16 MiB and one byte",
            patched(&shorter, 120, &((16_u64 << 20) + 1).to_le_bytes()),
        ),
        Case::corrupt("trailing", "[ENVELOPE-9]: a byte follows the signature", longer(&small, &[0])),
    ]
}
