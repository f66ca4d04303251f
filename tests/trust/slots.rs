//! Slots that open with somebody's password, signed by somebody else: a thief cannot make a slot of
//! another's identity, but can copy one and sign it anew.

use crate::forge::{client_with, plain, put};
use crate::support::world::Client;
use chronolith::base::{Classify, ErrorClass, SecretBytes};
use chronolith::format::Envelope;
use chronolith::format::kind::ObjectKind;
use chronolith::format::slot::Slot;
use chronolith::format::trust::Role;
use chronolith::ops::check::{CheckOptions, Gravity, check};
use chronolith::ops::keys;
use chronolith::repo::{Credential, NewSlot, Repository, list_slots};
use chronolith::storage::MemoryStore;
use std::sync::Arc;

/// The slot of a repository's owner.
fn slot_of(client: &Client) -> (String, Slot) {
    let own = client.open().keyring().identity.key;
    let found = list_slots(&client.environment()).unwrap();
    let found = found.into_iter().find(|found| found.slot.key == own).unwrap();
    let name = format!("keys/{}", found.id);
    let object = client.store.get(&name, u64::MAX).unwrap();
    (name, Slot::decode(Envelope::parse(&object).unwrap().payload).unwrap())
}

fn take_away(client: &Client, name: &str) {
    client.store.delete(name).unwrap();
    client.store.delete(&format!("copies/{name}")).unwrap();
}

/// Signs copies of a slot anew; returns their names. They differ in what is only for people, and there
/// are as many as it takes to have some that are listed before the true one and some after.
fn signed_anew(repository: &Repository, client: &Client, (name, slot): &(String, Slot)) -> Vec<String> {
    let mut made: Vec<String> = Vec::new();
    while !(made.iter().any(|copy| copy < name) && made.iter().any(|copy| copy > name)) {
        let slot = Slot { name: format!("copy {}", made.len()), ..slot.clone() };
        let object = plain(repository, ObjectKind::Slot, &slot.encode());
        put(client, "copies/keys", &object);
        made.push(put(client, "keys", &object));
    }
    made
}

#[test]
fn a_slot_that_another_key_signed_is_not_accepted_and_locks_nobody_out() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 31);
    let thief = client_with(&owner, Role::Writer, "thief", "", &["web"]);
    let (name, slot) = slot_of(&owner);
    let forged = signed_anew(&thief.open(), &thief, &(name.clone(), slot.clone()));
    // The owner comes in by the true one, and hears of those that were tried before it.
    let own = owner.open();
    assert_eq!(own.keyring().identity.key, slot.key);
    let warned = owner.listener.warned();
    for forged in forged.iter().filter(|forged| **forged < name) {
        assert!(warned.contains(forged.as_str()), "{forged} is not told: {warned}");
    }
    // They are shown as nobody's, and `check` says why.
    let list = keys::list(&own).unwrap();
    assert_eq!(list.unlisted.len(), forged.len());
    assert!(list.keys.iter().all(|key| key.slots.len() == 1));
    let report = check(&own, &CheckOptions::default()).unwrap();
    assert!(!report.is_damaged(), "{report:?}");
    for name in &forged {
        let found = report.findings.iter().find(|finding| finding.object == *name).unwrap();
        assert_eq!(found.gravity, Gravity::Warning);
        assert!(found.what.contains("it does not count") && found.what.contains("slot"), "{found}");
    }
    // Without the true one, nothing opens, and the reason is no wrong key.
    take_away(&owner, &name);
    let error = owner.try_open().map(drop).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.class(), ErrorClass::Corrupt, "{text}");
    assert!(forged.iter().any(|forged| text.contains(forged.as_str())), "{text}");
    assert!(text.contains("may not sign a key slot"), "{text}");
}

#[test]
fn a_changed_key_file_closes_the_true_slot_whatever_copies_lie_before_it() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 32);
    let thief = client_with(&owner, Role::Writer, "thief", "", &["web"]);
    let (name, slot) = slot_of(&owner);
    signed_anew(&thief.open(), &thief, &(name.clone(), slot.clone()));
    let current = Credential::KeyFile(SecretBytes::new(owner.key_file.clone()));
    let new = SecretBytes::new(vec![9; 32]);
    keys::change_slot(&owner.open(), &current, &NewSlot::KeyFile(&new)).unwrap();
    assert!(owner.store.get(&name, u64::MAX).is_err(), "the old key file still opens the true slot");
    assert!(owner.try_open().is_err());
    let changed = Client { key_file: vec![9; 32], ..owner.clone() };
    assert_eq!(changed.open().keyring().identity.key, slot.key);
}

#[test]
fn an_owner_may_sign_the_slot_of_another_key() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 33);
    let writer = client_with(&owner, Role::Writer, "writer", "", &["web"]);
    let (name, slot) = slot_of(&writer);
    signed_anew(&owner.open(), &owner, &(name.clone(), slot.clone()));
    take_away(&owner, &name);
    assert_eq!(writer.open().keyring().identity.key, slot.key);
    // Nobody but the key itself and owners may, whatever the role.
    for role in [Role::Reader, Role::Maintainer, Role::Auditor] {
        let owner = Client::init(Arc::new(MemoryStore::new()), 34);
        let writer = client_with(&owner, Role::Writer, "writer", "", &["web"]);
        let other = client_with(&owner, role, "other", "", &[]);
        let (name, slot) = slot_of(&writer);
        signed_anew(&other.open(), &other, &(name.clone(), slot.clone()));
        assert_eq!(writer.open().keyring().identity.key, slot.key);
        take_away(&owner, &name);
        let error = writer.try_open().map(drop).unwrap_err();
        assert!(error.to_string().contains("may not sign a key slot"), "{role}: {error}");
    }
}
