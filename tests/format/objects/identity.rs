//! The plaintext of a key slot.

use super::{Case, Object, cut, keys, longer, patched};
use chronolith::base::SecretBytes;
use chronolith::format::slot::Identity;
use chronolith::format::trust::Role;

pub const OBJECT: Object = Object {
    name: "identity",
    recode: |bytes| Ok(Identity::decode(&SecretBytes::new(bytes.to_vec()))?.encode().expose().to_vec()),
    cases,
};

/// The owner, as the first slot of a repository holds it.
pub fn owner() -> Identity {
    Identity {
        signing_seed: chronolith::base::Secret::new([0x22; 32]),
        exchange: keys::owner_exchange(),
        genesis: keys::genesis(),
        role: Role::Owner,
        known: keys::genesis(),
        known_sequence: 1,
        extra: Vec::new(),
    }
}

fn cases() -> Vec<Case> {
    let plain = owner().encode().expose().to_vec();
    // 1 byte for the map, twice 35 for the secrets, 35 for the pin: then the role's number and value.
    let role = 1 + 3 * 35 + 1;
    assert_eq!(plain[role - 1..=role], [0x03, 0x01]);
    let unknown = super::identity::owner();
    let unknown = chronolith::format::slot::Identity { extra: vec![(6, vec![0xF5])], ..unknown };
    vec![
        Case::accept("owner", "the owner's secrets and what they pin", plain.clone()),
        Case::accept("unknown-field", "with a field of a newer program", unknown.encode().expose()),
        Case::truncated("half", "within the seed", cut(&plain, 20)),
        Case::unsupported("role", "[SLOT-7]: role 6", patched(&plain, role, &[6])),
        Case::corrupt(
            "sequence-zero",
            "[SLOT-7]: version 0 of the registry",
            patched(&plain, plain.len() - 1, &[0]),
        ),
        Case::corrupt("short-seed", "[SLOT-7]: a seed of 31 bytes", patched(&plain, 3, &[31])),
        Case::corrupt("trailing", "[CBOR-1]: a byte follows", longer(&plain, &[0])),
    ]
}
