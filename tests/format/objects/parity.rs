//! Parity of an object of 150 bytes.

use super::{Case, Object, cut, keys, longer, patched};
use chronolith::base::ObjectId;
use chronolith::crypto::SignedMessage;
use chronolith::format::ObjectKind;
use chronolith::format::parity::{ParityHead, ParityView, encode};

pub const OBJECT: Object = Object {
    name: "parity",
    recode: |bytes| {
        let view = ParityView::parse(bytes)?;
        Ok([&encode(view.head, view.table, view.shards)?, &view.signature[..]].concat())
    },
    cases,
};

/// Parity shards of [`subject`], as another program computed them from the definition in the page.
const SHARDS: &str = include_str!("parity_shards.txt");

/// 150 bytes, three shards.
fn subject() -> Vec<u8> {
    (0..150_u8).collect()
}

fn head() -> ParityHead {
    ParityHead {
        subject_kind: ObjectKind::Snapshot,
        subject: ObjectId::new(*blake3::hash(&subject()).as_bytes()),
        subject_bytes: 150,
        shard_bytes: 64,
        parity_shards: 2,
        signer: keys::owner().key_id(),
        table_hash: [0; 32],
    }
}

fn object() -> Vec<u8> {
    let digits: String = SHARDS.split_ascii_whitespace().collect();
    let shards: Vec<u8> =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
    let mut data = subject();
    data.resize(192, 0);
    let all = [data, shards.clone()].concat();
    let table: Vec<[u8; 16]> =
        all.chunks(64).map(|shard| blake3::hash(shard).as_bytes()[..16].try_into().unwrap()).collect();
    sign(encode(head(), &table, &shards).unwrap())
}

fn sign(mut bytes: Vec<u8>) -> Vec<u8> {
    let message = SignedMessage::new(&keys::repository(), ObjectKind::Parity.number(), &bytes);
    bytes.extend_from_slice(&keys::owner().sign(&message));
    bytes
}

/// The object with both heads changed and their hashes made right again.
fn with_head(object: &[u8], at: usize, by: &[u8]) -> Vec<u8> {
    let mut head = patched(&object[..128], at, by);
    let hash = blake3::hash(&head);
    head.extend_from_slice(hash.as_bytes());
    let last = object.len() - 64 - 160;
    patched(&patched(object, 0, &head), last, &head)
}

fn cases() -> Vec<Case> {
    let object = object();
    let last_head = object.len() - 64 - 160;
    vec![
        Case::accept("two-of-three", "three data shards, two parity shards", object.clone()),
        Case::truncated("nothing", "no bytes", []),
        Case::truncated("head", "within the head", cut(&object, 159)),
        Case::truncated("table", "within the table", cut(&object, 200)),
        Case::truncated("signature", "within the signature", cut(&object, object.len() - 1)),
        Case::unsupported("version", "[PARITY-6]: version 2", with_head(&object, 5, &[2])),
        Case::unsupported("algorithm", "[PARITY-6]: algorithm 2", with_head(&object, 6, &[2])),
        Case::unsupported("subject-kind", "[PARITY-6]: kind 15", with_head(&object, 7, &[15])),
        Case::corrupt("magic", "[PARITY-6]", with_head(&object, 0, b"CHRM")),
        Case::corrupt("kind", "[PARITY-6]: a catalogue", with_head(&object, 4, &[12])),
        Case::corrupt("parity-of-parity", "[PARITY-7]: a parity object", with_head(&object, 7, &[13])),
        Case::corrupt("shard-zero", "[PARITY-7]: shards of 0 bytes", with_head(&object, 8, &[0; 4])),
        Case::corrupt("shard-odd", "[PARITY-7]: shards of 65 bytes", with_head(&object, 8, &[65])),
        Case::corrupt("shard-large", "[PARITY-7]: too long", with_head(&object, 8, &[0x40, 0, 0, 1])),
        Case::corrupt("data-shards", "[PARITY-7]: four shards of 150 bytes", with_head(&object, 12, &[4])),
        Case::corrupt("empty", "[PARITY-7]: an empty subject", with_head(&object, 80, &[0])),
        Case::corrupt("no-parity", "[PARITY-7]: no parity shards", with_head(&object, 88, &[0])),
        Case::corrupt("much-parity", "[PARITY-7]: five for three", with_head(&object, 88, &[5])),
        Case::corrupt("reserved", "[PARITY-8]: reserved bytes", with_head(&object, 95, &[1])),
        Case::corrupt("head-hash", "[PARITY-8]: the head's hash", patched(&object, 159, &[object[159] ^ 1])),
        Case::corrupt("table", "[PARITY-8]: the table's hash", patched(&object, 160, &[object[160] ^ 1])),
        Case::corrupt("second-head", "[PARITY-8]: another second head", {
            patched(&object, last_head + 20, &[object[last_head + 20] ^ 1])
        }),
        Case::corrupt("trailing", "[PARITY-9]: a byte follows", longer(&object, &[0])),
    ]
}
