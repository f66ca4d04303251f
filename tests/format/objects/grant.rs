//! The plaintext of a grant.

use super::{Case, Object, cut, keys, longer, patched};
use chronolith::base::SecretBytes;
pub use chronolith::format::grant::Bundle;
use chronolith::format::trust::Role;

pub const OBJECT: Object = Object {
    name: "grant",
    recode: |bytes| Ok(Bundle::decode(&SecretBytes::new(bytes.to_vec()))?.encode().expose().to_vec()),
    cases,
};

/// All secrets of epoch 1.
pub fn bundle() -> Bundle {
    Bundle {
        epoch: 1,
        metadata: keys::metadata(),
        content: Some(keys::content()),
        content_ids: Some(keys::content_ids()),
        metadata_ids: keys::metadata_ids(),
        chunker_seed: Some(keys::chunker_seed()),
        extra: Vec::new(),
    }
}

fn cases() -> Vec<Case> {
    let plain = |role| bundle().for_role(role).encode().expose().to_vec();
    let owner = plain(Role::Owner);
    let unknown = Bundle { extra: vec![(7, vec![0x01])], ..bundle() }.encode().expose().to_vec();
    let critical = Bundle { extra: vec![(1 << 16, vec![0x01])], ..bundle() }.encode().expose().to_vec();
    vec![
        Case::accept("owner", "what an owner gets: everything", owner.clone()),
        Case::accept("writer", "what a writer gets", plain(Role::Writer)),
        Case::accept("reader", "what a reader gets", plain(Role::Reader)),
        Case::accept("auditor", "what maintainers and auditors get", plain(Role::Auditor)),
        Case::accept("unknown-field", "with a field of a newer program", unknown),
        Case::truncated("half", "within a key", cut(&owner, 20)),
        Case::unsupported("critical", "[CBOR-7]: field 65536", critical),
        Case::corrupt("epoch-zero", "[KEYS-12]: epoch 0", patched(&owner, 2, &[0])),
        Case::corrupt("no-metadata", "[KEYS-12]: the metadata key is missing", [0xA1, 0x00, 0x01]),
        Case::corrupt("short-key", "[KEYS-12]: a key of 31 bytes", patched(&owner, 5, &[31])),
        Case::corrupt("trailing", "[CBOR-1]: a byte follows", longer(&owner, &[0])),
    ]
}
