//! Clients with keys of other roles.

use crate::support::world::Client;
use chronolith::base::{Entropy, SecretBytes};
use chronolith::format::trust::Role;
use chronolith::format::trust::scope::Scope;
use chronolith::ops::keys::{NewKey, add};
use chronolith::repo::NewSlot;
use std::sync::Arc;

/// Adds a key to the owner's repository and returns the client that holds it.
pub fn with_role(owner: &Client, role: Role, name: &str) -> Client {
    let mut key_file = vec![0; 32];
    owner.entropy.fill(&mut key_file);
    let secret = SecretBytes::new(key_file.clone());
    let new = NewKey { role, name: name.to_owned(), domain: String::new(), scope: Scope::default() };
    add(&owner.open(), &new, &NewSlot::KeyFile(&secret)).unwrap();
    Client { key_file, listener: Arc::default(), ..owner.clone() }
}
