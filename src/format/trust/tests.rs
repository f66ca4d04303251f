use super::*;
use crate::base::{ObjectId, PackId};
use crate::crypto::{ContentPublicKey, Suite};

fn record(number: u8, role: Role) -> KeyRecord {
    let exchange = ContentPublicKey([number; 32]);
    KeyRecord::new([number; 32], exchange, role, &format!("key {number}"), Timestamp::from_nanoseconds(5))
}

fn id(number: u8) -> KeyId {
    record(number, Role::Owner).id
}

const OWNER: u8 = 1;
const SECOND: u8 = 2;
const MAINTAINER: u8 = 3;
const WRITER: u8 = 4;
const READER: u8 = 5;
const AUDITOR: u8 = 6;

fn epoch(number: u32, keys: &[u8]) -> Epoch {
    let grant = |key: &u8| Grant { key: id(*key), wrapped: vec![*key; 80], extra: Vec::new() };
    let mut grants: Vec<_> = keys.iter().map(grant).collect();
    grants.sort_by_key(|grant| grant.key);
    Epoch {
        number,
        content: ContentPublicKey([9; 32]),
        created: Timestamp::from_nanoseconds(6),
        suite: Suite::ChaCha20Poly1305,
        grants,
        closed: false,
        extra: Vec::new(),
    }
}

fn first() -> Trust {
    let mut keys = vec![
        record(OWNER, Role::Owner),
        record(SECOND, Role::Owner),
        record(MAINTAINER, Role::Maintainer),
        record(WRITER, Role::Writer),
        record(READER, Role::Reader),
        record(AUDITOR, Role::Auditor),
    ];
    let writer = &mut keys[3];
    writer.scope.hosts = vec!["db-*".to_owned()];
    writer.scope.labels = vec!["app".to_owned(), "globals".to_owned()];
    writer.scope.streams = vec!["pg/main".to_owned()];
    keys.sort_by_key(|key| key.id);
    Trust {
        sequence: 1,
        predecessor: None,
        created: Timestamp::from_nanoseconds(7),
        least_revision: 1,
        keys,
        epochs: vec![epoch(1, &[OWNER, SECOND, MAINTAINER, WRITER, READER, AUDITOR])],
        extra: Vec::new(),
    }
}

fn key_mut(trust: &mut Trust, number: u8) -> &mut KeyRecord {
    trust.keys.iter_mut().find(|key| key.id == id(number)).unwrap()
}

fn revoke(trust: &mut Trust, number: u8, sequence: u64) {
    key_mut(trust, number).revoked = Some(Revocation { sequence, ..Revocation::default() });
}

fn version(number: u8, trust: Trust, signer: u8) -> Version {
    Version { id: TrustId::new([number; 32]), trust, signer: id(signer), signature_holds: true }
}

/// A successor that changes nothing yet.
fn after(last: &Version) -> Trust {
    let mut trust = last.trust.clone();
    trust.sequence += 1;
    trust.predecessor = Some(last.id);
    trust
}

fn resolve(versions: &[Version]) -> Result<Chain, ChainError> {
    Chain::resolve(versions.to_vec(), TrustId::new([10; 32]), &[])
}

fn ids(chain: &Chain) -> Vec<u8> {
    chain.versions().iter().map(|version| version.id.as_bytes()[0]).collect()
}

#[test]
fn comes_back_the_same() {
    let mut trust = first();
    trust.extra = vec![(40, vec![0x01])];
    trust.epochs.push(epoch(2, &[OWNER]));
    trust.epochs[0].closed = true;
    key_mut(&mut trust, WRITER).removed = true;
    key_mut(&mut trust, WRITER).domain = "site b".to_owned();
    key_mut(&mut trust, AUDITOR).extra = vec![(99, vec![0x20])];
    key_mut(&mut trust, AUDITOR).revoked = Some(Revocation {
        at: Timestamp::from_nanoseconds(-1),
        sequence: 1,
        catalog: Some(crate::base::CatalogId::new([3; 32])),
        accepted: vec![ObjectId::new([1; 32]), ObjectId::new([2; 32])],
        extra: Vec::new(),
    });
    let payload = trust.encode();
    assert_eq!(Trust::decode(&payload).unwrap(), trust);
    for length in 0..payload.len() {
        assert_eq!(Trust::decode(&payload[..length]), Err(FormatError::Truncated), "{length}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let broken: &[fn(&mut Trust)] = &[
        |t| t.sequence = 0,
        |t| t.sequence = 2,
        |t| t.predecessor = Some(TrustId::new([1; 32])),
        |t| t.keys.reverse(),
        |t| t.keys.push(t.keys[5].clone()),
        |t| t.keys[0].id = KeyId::new([0; 32]),
        |t| t.keys.retain(|key| key.role != Role::Owner),
        |t| t.keys.iter_mut().for_each(|key| key.removed = true),
        |t| t.epochs.clear(),
        |t| t.epochs[0].number = 2,
        |t| t.epochs[0].closed = true,
        |t| t.epochs[0].grants.reverse(),
        |t| t.epochs[0].grants[5].key = KeyId::new([0xFF; 32]),
        |t| t.epochs.push(epoch(3, &[])),
    ];
    for (number, breaking) in broken.iter().enumerate() {
        let mut trust = first();
        breaking(&mut trust);
        assert!(matches!(Trust::decode(&trust.encode()), Err(FormatError::Invalid { .. })), "{number}");
    }
    let mut trust = first();
    trust.extra = vec![(1 << 16, vec![0x00])];
    assert!(matches!(Trust::decode(&trust.encode()), Err(FormatError::Unsupported { .. })));
}

#[test]
fn the_table_of_permissions() {
    use Role::{Auditor, Maintainer, Owner, Reader, Writer};
    let trust = first();
    let all: &[Role] = &Role::ALL;
    let (host, label, stream) = ("db-1", "app", "pg/main");
    let table: &[(Act<'_>, &[Role])] = &[
        (Act::Configuration, &[Owner]),
        (Act::Trust, &[Owner]),
        (Act::ContentPack, &[Owner, Maintainer, Writer]),
        (Act::MetadataPack, &[Owner, Maintainer, Writer]),
        (Act::IndexRun, &[Owner, Maintainer, Writer]),
        (Act::Snapshot { host, label }, &[Owner, Writer]),
        (Act::LogPack, &[Owner, Maintainer, Writer]),
        (Act::LogMerge, &[Owner, Maintainer]),
        (Act::LogRecord { stream }, &[Owner, Writer]),
        (Act::Mark { host, label }, &[Owner, Maintainer, Writer]),
        (Act::Withdraw, &[Owner, Maintainer]),
        (Act::Verified, all),
        (Act::Attested, &[Owner, Reader]),
        (Act::Session, all),
        (Act::Condemned, &[Owner, Maintainer]),
        (Act::Damaged, all),
        (Act::Catalog, &[Owner, Maintainer]),
        (Act::Parity, &[Owner, Maintainer, Writer]),
    ];
    let keys =
        [(OWNER, Owner), (MAINTAINER, Maintainer), (WRITER, Writer), (READER, Reader), (AUDITOR, Auditor)];
    for (act, roles) in table {
        for (key, role) in keys {
            assert_eq!(trust.may_sign(&id(key), *act).is_ok(), roles.contains(&role), "{role} {act:?}");
        }
        assert!(trust.may_sign(&KeyId::new([0; 32]), *act).is_err());
    }
}

#[test]
fn a_writer_writes_its_own_hosts_labels_and_streams() {
    let trust = first();
    assert!(trust.may_write(&id(WRITER), "db-1", "globals").is_ok());
    for (host, label) in [("web-1", "app"), ("db-1", "other"), ("DB-1", "app")] {
        assert!(matches!(trust.may_write(&id(WRITER), host, label), Err(Refusal::Scope { .. })));
        assert!(trust.may_sign(&id(WRITER), Act::Mark { host, label }).is_err());
        assert!(trust.may_sign(&id(MAINTAINER), Act::Mark { host, label }).is_ok());
        assert!(trust.may_write(&id(OWNER), host, label).is_ok());
    }
    assert!(trust.may_sign(&id(WRITER), Act::LogRecord { stream: "pg/other" }).is_err());
    assert!(trust.may_sign(&id(WRITER), Act::Slot { identity: id(WRITER) }).is_ok());
    assert!(trust.may_sign(&id(WRITER), Act::Slot { identity: id(READER) }).is_err());
    assert!(trust.may_sign(&id(OWNER), Act::Slot { identity: id(READER) }).is_ok());
}

#[test]
fn a_revoked_key_is_believed_only_where_its_revocation_says_so() {
    let mut trust = first();
    let act = Act::Snapshot { host: "db-1", label: "app" };
    let (good, bad) = (ObjectId::new([1; 32]), ObjectId::new([2; 32]));
    let writer = key_mut(&mut trust, WRITER);
    writer.revoked = Some(Revocation { accepted: vec![good], ..Revocation::default() });
    assert!(trust.believes(&id(WRITER), act, &good, false).is_ok());
    assert_eq!(trust.believes(&id(WRITER), act, &bad, true), Err(Refusal::Revoked { key: id(WRITER) }));
    assert!(trust.may_write(&id(WRITER), "db-1", "app").is_err());
    assert!(trust.believes(&id(WRITER), Act::Withdraw, &good, false).is_err());

    key_mut(&mut trust, WRITER).revoked.as_mut().unwrap().catalog =
        Some(crate::base::CatalogId::new([1; 32]));
    assert!(trust.believes(&id(WRITER), act, &bad, true).is_ok());
    assert!(trust.believes(&id(WRITER), act, &bad, false).is_err());

    let mut trust = first();
    key_mut(&mut trust, WRITER).removed = true;
    assert!(trust.believes(&id(WRITER), act, &bad, false).is_ok());
    assert_eq!(trust.may_sign(&id(WRITER), act), Err(Refusal::Retired { key: id(WRITER) }));
}

#[test]
fn packs_are_adopted_within_a_domain_or_attested() {
    let mut trust = first();
    let pack = PackId::new([1; 32]);
    let adopts = |trust: &Trust, signer: u8, attested| {
        trust.may_adopt(&id(WRITER), &id(signer), &pack, false, attested)
    };
    assert!(
        adopts(&trust, OWNER, false) && adopts(&trust, MAINTAINER, false) && adopts(&trust, WRITER, false)
    );
    assert!(!adopts(&trust, READER, true), "a reader makes no packs");
    key_mut(&mut trust, OWNER).domain = "elsewhere".to_owned();
    assert!(!adopts(&trust, OWNER, false) && adopts(&trust, OWNER, true));
    revoke(&mut trust, MAINTAINER, 1);
    assert!(!adopts(&trust, MAINTAINER, false) && adopts(&trust, MAINTAINER, true));
    key_mut(&mut trust, MAINTAINER).revoked.as_mut().unwrap().accepted = vec![pack.into()];
    assert!(adopts(&trust, MAINTAINER, false));
    assert!(!trust.may_adopt(&id(WRITER), &KeyId::new([0; 32]), &pack, true, true));
}

#[test]
fn nothing_is_built_on_what_a_reader_could_not_read() {
    let mut trust = first();
    trust.epochs.push(epoch(2, &[OWNER, WRITER, READER]));
    assert!(trust.may_build_on(1) && trust.may_build_on(2));
    assert!(!trust.may_build_on(0) && !trust.may_build_on(3));
    trust.epochs[0] = epoch(1, &[OWNER, SECOND, WRITER]);
    assert!(!trust.may_build_on(1), "the reader has no grant of the first epoch");
    trust.epochs[0] = epoch(1, &[OWNER, READER]);
    assert!(trust.may_build_on(1), "writers need not read");
    trust.epochs[0].closed = true;
    assert!(!trust.may_build_on(1));
}

#[test]
fn a_chain_is_followed_to_its_end() {
    let one = version(10, first(), OWNER);
    let two = version(20, after(&one), SECOND);
    let three = version(5, after(&two), OWNER);
    let chain = resolve(&[three.clone(), one.clone(), two.clone()]).unwrap();
    assert_eq!(ids(&chain), [10, 20, 5]);
    assert_eq!(chain.head().trust.sequence, 3);
    assert!(chain.refused.is_empty() && !chain.has_gaps);
    assert_eq!(chain.at(2).unwrap().id, two.id);
    assert!(matches!(resolve(&[two, three]), Err(ChainError::NoStart { .. })));
}

#[test]
fn of_two_successors_the_lower_id_counts() {
    let one = version(10, first(), OWNER);
    let high = version(30, after(&one), OWNER);
    let low = version(20, after(&one), SECOND);
    let on_high = version(1, after(&high), OWNER);
    let chain = resolve(&[on_high.clone(), high.clone(), one.clone(), low.clone()]).unwrap();
    assert_eq!(ids(&chain), [10, 20]);
    assert_eq!(chain.refused.len(), 2);

    // Who has seen the other one does not follow in silence.
    let known = [(2, high.id)];
    let refused = Chain::resolve(vec![one, low, high], TrustId::new([10; 32]), &known);
    assert!(matches!(refused, Err(ChainError::Diverged { sequence: 2, .. })));
}

#[test]
fn what_was_seen_can_not_be_taken_away() {
    let one = version(10, first(), OWNER);
    let two = version(20, after(&one), OWNER);
    let three = version(30, after(&two), OWNER);
    let known = [(2, two.id), (1, one.id)];
    let back = Chain::resolve(vec![one.clone()], one.id, &known);
    assert!(matches!(back, Err(ChainError::Missing { sequence: 2, .. })));
    // Earlier versions may be lost, since what came later is pinned by the slot itself.
    let chain = Chain::resolve(vec![two.clone(), three.clone()], one.id, &[(2, two.id)]).unwrap();
    assert_eq!(ids(&chain), [20, 30]);
    assert!(chain.has_gaps);
    let chain = Chain::resolve(vec![one, three.clone()], TrustId::new([10; 32]), &[(3, three.id)]).unwrap();
    assert_eq!(ids(&chain), [10, 30]);
}

#[test]
fn a_version_that_no_owner_could_make_does_not_count() {
    let one = version(10, first(), OWNER);
    type Forgery = fn(&mut Version);
    let forged: &[(&str, Forgery)] = &[
        ("signature", |v| v.signature_holds = false),
        ("a writer", |v| v.signer = id(WRITER)),
        ("a maintainer", |v| v.signer = id(MAINTAINER)),
        ("an owner it adds itself", |v| {
            v.trust.keys.push(record(7, Role::Owner));
            v.trust.keys.sort_by_key(|key| key.id);
            v.signer = id(7);
        }),
        ("a new role", |v| {
            key_mut(&mut v.trust, WRITER).role = Role::Owner;
        }),
        ("a swapped exchange key", |v| {
            key_mut(&mut v.trust, READER).exchange = ContentPublicKey([8; 32]);
        }),
        ("a dropped key", |v| {
            v.trust.keys.retain(|key| key.role != Role::Auditor);
            v.trust.epochs[0].grants.retain(|grant| grant.key != id(AUDITOR));
        }),
        ("a swapped content key", |v| v.trust.epochs[0].content = ContentPublicKey([8; 32])),
        ("a dropped epoch", |v| v.trust.epochs.clear()),
        ("a number that jumps", |v| v.trust.sequence = 3),
        ("an older configuration", |v| v.trust.least_revision = 0),
        ("a backdated revocation", |v| revoke(&mut v.trust, WRITER, 1)),
    ];
    for (what, forge) in forged {
        let mut two = version(20, after(&one), OWNER);
        forge(&mut two);
        let chain = resolve(&[one.clone(), two]).unwrap();
        assert_eq!(ids(&chain), [10], "{what}");
        assert_eq!(chain.refused.len(), 1, "{what}");
    }
}

#[test]
fn a_revoked_owner_can_not_come_back() {
    let one = version(10, first(), OWNER);
    let mut revoking = after(&one);
    revoke(&mut revoking, OWNER, 2);
    let two = version(20, revoking, SECOND);
    let by_the_revoked = version(30, after(&two), OWNER);
    let mut taking_back = after(&two);
    key_mut(&mut taking_back, OWNER).revoked = None;
    let by_another = version(31, taking_back, SECOND);
    let chain = resolve(&[one.clone(), two.clone(), by_the_revoked, by_another]).unwrap();
    assert_eq!(ids(&chain), [10, 20]);
    assert_eq!(chain.refused.len(), 2);

    let mut accepting_more = after(&two);
    let key = key_mut(&mut accepting_more, OWNER);
    key.revoked.as_mut().unwrap().accepted = vec![ObjectId::new([1; 32])];
    let chain = resolve(&[one, two, version(30, accepting_more, SECOND)]).unwrap();
    assert_eq!(ids(&chain), [10, 20, 30]);
}

#[test]
fn a_first_version_is_its_owners() {
    for (signer, holds) in [(OWNER, true), (WRITER, false), (OWNER, false)] {
        let mut one = version(10, first(), signer);
        one.signature_holds = holds;
        assert_eq!(resolve(&[one]).is_ok(), signer == OWNER && holds);
    }
    let other = version(11, first(), OWNER);
    assert!(matches!(resolve(&[other]), Err(ChainError::NoStart { .. })));
}
