//! The payload of a version of the registry.

use super::{Case, Object, Steady, cut, grant, keys, longer};
use chronolith::base::{CatalogId, KeyId, ObjectId, Timestamp, TrustId};
use chronolith::crypto::derive::grant_info;
use chronolith::crypto::{ContentPublicKey, Suite, wrap};
use chronolith::format::trust::{Epoch, Grant, KeyRecord, Revocation, Role, Trust};

pub const OBJECT: Object =
    Object { name: "trust", recode: |bytes| Ok(Trust::decode(bytes)?.encode()), cases };

fn owner() -> KeyRecord {
    KeyRecord::new(
        keys::owner().public(),
        keys::owner_exchange().public(),
        Role::Owner,
        "owner",
        keys::time(),
    )
}

fn writer() -> KeyRecord {
    let exchange = keys::writer_exchange().public();
    let mut writer = KeyRecord::new(keys::writer().public(), exchange, Role::Writer, "db-1", keys::time());
    writer.domain = "databases".to_owned();
    writer.scope.hosts = vec!["db-?".to_owned(), "standby".to_owned()];
    writer.scope.labels = vec!["app*".to_owned()];
    writer.scope.streams = vec!["pg/main".to_owned()];
    writer
}

fn grant(epoch: u32, key: &KeyRecord) -> Grant {
    let info = grant_info(&keys::repository(), epoch, &key.id);
    let bundle = grant::Bundle { epoch, ..grant::bundle() }.for_role(key.role).encode();
    let wrapped = wrap(&key.exchange, &Steady(0xCC), &info, bundle.expose()).unwrap();
    Grant { key: key.id, wrapped, extra: Vec::new() }
}

fn epoch(number: u32, holders: &[&KeyRecord]) -> Epoch {
    let mut grants: Vec<_> = holders.iter().map(|key| grant(number, key)).collect();
    grants.sort_by_key(|grant| grant.key);
    let (content, created) = (keys::content().public(), keys::time());
    Epoch {
        number,
        content,
        created,
        suite: Suite::ChaCha20Poly1305,
        grants,
        closed: false,
        extra: Vec::new(),
    }
}

/// The first version: an owner, one epoch.
pub fn first() -> Trust {
    Trust {
        sequence: 1,
        predecessor: None,
        created: keys::time(),
        least_revision: 1,
        keys: vec![owner()],
        epochs: vec![epoch(1, &[&owner()])],
        extra: Vec::new(),
    }
}

/// A later version with all that can be in one.
fn later() -> Trust {
    let signing = [0x5F; 32];
    let mut revoked =
        KeyRecord::new(signing, ContentPublicKey([0x5E; 32]), Role::Reader, "", Timestamp::default());
    revoked.revoked = Some(Revocation {
        at: keys::time(),
        sequence: 2,
        catalog: Some(CatalogId::new([0xDD; 32])),
        accepted: vec![ObjectId::new([1; 32]), ObjectId::new([2; 32])],
        extra: Vec::new(),
    });
    let signing = [0x6F; 32];
    let mut removed =
        KeyRecord::new(signing, ContentPublicKey([0x6E; 32]), Role::Auditor, "old", Timestamp::default());
    removed.removed = true;
    removed.extra = vec![(50, vec![0x80])];
    let mut keys = vec![owner(), writer(), revoked, removed];
    keys.sort_by_key(|key| key.id);
    let mut closed = epoch(1, &[&owner()]);
    closed.closed = true;
    Trust {
        sequence: 3,
        predecessor: Some(TrustId::new([0xEE; 32])),
        created: Timestamp::from_nanoseconds(-1),
        least_revision: 2,
        keys,
        epochs: vec![closed, Epoch { suite: Suite::Aes256Gcm, ..epoch(2, &[&owner(), &writer()]) }],
        extra: vec![(1000, vec![0xA0])],
    }
}

fn cases() -> Vec<Case> {
    let good = first().encode();
    let changed = |change: fn(&mut Trust)| {
        let mut trust = later();
        change(&mut trust);
        trust.encode()
    };
    let corrupt = |name, comment, change| Case::corrupt(name, comment, changed(change));
    fn owner_of(trust: &mut Trust) -> &mut KeyRecord {
        trust.keys.iter_mut().find(|key| key.role == Role::Owner).unwrap()
    }
    fn revoked(trust: &mut Trust) -> &mut Revocation {
        trust.keys.iter_mut().find_map(|key| key.revoked.as_mut()).unwrap()
    }
    // The role of the only key: field 3 behind three byte strings of 32.
    let role = good.windows(4).position(|w| w == [0x03, 0x01, 0x04, 0x65]).unwrap() + 1;
    vec![
        Case::accept("first", "the first version: one owner, one epoch", good.clone()),
        Case::accept(
            "later",
            "a later version: patterns, a domain, a revoked and a removed key, a closed epoch, unknown fields",
            later().encode(),
        ),
        Case::truncated("nothing", "no bytes", []),
        Case::truncated("half", "within a key", cut(&good, 60)),
        Case::unsupported("role", "[TRUST-3]: role 6", super::patched(&good, role, &[6])),
        Case::unsupported(
            "critical",
            "[CBOR-7]: field 65536",
            changed(|trust| trust.extra = vec![(1 << 16, vec![0x00])]),
        ),
        Case::unsupported(
            "critical-in-key",
            "[CBOR-7]: field 65536 of a key",
            changed(|trust| owner_of(trust).extra = vec![(1 << 16, vec![0x00])]),
        ),
        corrupt("sequence-zero", "[TRUST-1]: version 0", |trust| trust.sequence = 0),
        corrupt("no-predecessor", "[TRUST-1]: version 3 without a predecessor", |trust| {
            trust.predecessor = None
        }),
        corrupt("first-predecessor", "[TRUST-1]: version 1 with a predecessor", |trust| trust.sequence = 1),
        corrupt("key-order", "[TRUST-2]: keys that descend", |trust| trust.keys.reverse()),
        corrupt("same-key", "[TRUST-2]: a key twice", |trust| trust.keys.insert(0, trust.keys[0].clone())),
        corrupt("key-id", "[TRUST-3]: an id that is not the hash of the key", |trust| {
            trust.keys[0].id = KeyId::new([0; 32])
        }),
        corrupt("no-owner", "[TRUST-4]: the only owner is removed", |trust| owner_of(trust).removed = true),
        corrupt("removed-false", "[TRUST-5]: field 11 is false", |trust| {
            owner_of(trust).extra = vec![(11, vec![0xF4])]
        }),
        corrupt("empty-hosts", "[TRUST-5]: an empty list of hosts", |trust| {
            owner_of(trust).extra = vec![(6, vec![0x80])]
        }),
        corrupt("accepted-order", "[TRUST-5]: accepted objects that descend", |trust| {
            revoked(trust).accepted.reverse()
        }),
        corrupt("no-epoch", "[TRUST-6]: no epoch", |trust| trust.epochs.clear()),
        corrupt("epoch-gap", "[TRUST-6]: epochs 1 and 3", |trust| trust.epochs[1].number = 3),
        corrupt("last-closed", "[TRUST-6]: the last epoch is closed", |trust| trust.epochs[1].closed = true),
        corrupt("grant-order", "[TRUST-7]: grants that descend", |trust| trust.epochs[1].grants.reverse()),
        corrupt("grant-key", "[TRUST-7]: a grant to a key that is not listed", |trust| {
            trust.epochs[0].grants[0].key = KeyId::new([0; 32])
        }),
        corrupt("long-grant", "[TRUST-7]: a grant of 4097 bytes", |trust| {
            trust.epochs[0].grants[0].wrapped = vec![0; 4097]
        }),
        Case::corrupt("trailing", "[CBOR-1]: a byte follows", longer(&good, &[0])),
    ]
}
