//! The payload of a key slot.

use super::{Case, Object, cut, identity, keys, longer};
use chronolith::crypto::PasswordParameters;
use chronolith::format::slot::{Slot, Unlock};

pub const OBJECT: Object = Object { name: "slot", recode: |bytes| Ok(Slot::decode(bytes)?.encode()), cases };

/// A slot that the key of the vectors opens.
pub fn slot(unlock: Unlock) -> Slot {
    let salt = [0xBB; 32];
    Slot {
        unlock,
        salt,
        wrapped: identity::owner().wrap(&keys::opener(), &salt, &keys::repository()).unwrap(),
        key: keys::owner().key_id(),
        name: "owner".to_owned(),
        created: keys::time(),
        extra: Vec::new(),
    }
}

fn cases() -> Vec<Case> {
    let parameters = PasswordParameters::new(64, 1, 1).unwrap();
    let file = slot(Unlock::KeyFile).encode();
    let password = slot(Unlock::Password(parameters)).encode();
    let command = slot(Unlock::Command(PasswordParameters::default())).encode();
    let unknown = Slot { extra: vec![(9, vec![0x63, 0x61, 0x62, 0x63])], ..slot(Unlock::KeyFile) }.encode();
    let critical = Slot { extra: vec![(1 << 16, vec![0x00])], ..slot(Unlock::KeyFile) }.encode();
    // The parameters: field 1, an array of three, 64, 1, 1.
    let costs = |numbers: &[u8]| {
        let before = [0x01, 0x83, 0x18, 0x40, 0x01, 0x01];
        let at = password.windows(before.len()).position(|window| window == before).unwrap();
        [&password[..=at], numbers, &password[at + before.len()..]].concat()
    };
    let kind = |bytes: &[u8], kind| super::patched(bytes, 2, &[kind]);
    vec![
        Case::accept(
            "key-file",
            "opened by a key file; the key is 32 times 88, the salt 32 times bb",
            file.clone(),
        ),
        Case::accept("password", "opened by a password with the least costs", password.clone()),
        Case::accept("command", "opened by what a command prints, with the default costs", command),
        Case::accept("unknown-field", "with a field of a newer program", unknown),
        Case::truncated("half", "within the wrapped bytes", cut(&file, 100)),
        Case::truncated("nothing", "no bytes", []),
        Case::unsupported("kind", "[SLOT-2]: kind 4", kind(&file, 4)),
        Case::unsupported("critical", "[CBOR-7]: field 65536", critical),
        Case::corrupt("no-costs", "[SLOT-3]: a password without costs", kind(&file, 1)),
        Case::corrupt("costs", "[SLOT-3]: a key file with costs", kind(&password, 2)),
        Case::corrupt("two-costs", "[SLOT-3]: two numbers", costs(&[0x82, 0x18, 0x40, 0x01])),
        Case::corrupt("no-passes", "[SLOT-3]: no passes", costs(&[0x83, 0x18, 0x40, 0x00, 0x01])),
        Case::corrupt("no-lanes", "[SLOT-3]: no lanes", costs(&[0x83, 0x18, 0x40, 0x01, 0x00])),
        Case::corrupt(
            "little-memory",
            "[SLOT-3]: less than 8 KiB a lane",
            costs(&[0x83, 0x18, 0x40, 0x01, 0x09]),
        ),
        Case::corrupt(
            "much-memory",
            "[SLOT-3]: more than 1 GiB",
            costs(&[0x83, 0x1A, 0x00, 0x10, 0x00, 0x01, 0x01, 0x01]),
        ),
        Case::corrupt("many-passes", "[SLOT-3]: 65 passes", costs(&[0x83, 0x18, 0x40, 0x18, 0x41, 0x01])),
        Case::corrupt("many-lanes", "[SLOT-3]: 65 lanes", costs(&[0x83, 0x19, 0x10, 0x00, 0x01, 0x18, 0x41])),
        Case::corrupt("trailing", "[CBOR-1]: a byte follows", longer(&file, &[0])),
    ]
}
