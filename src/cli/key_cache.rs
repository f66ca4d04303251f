//! The kernel's keyring as a memory for opened slots: no file, gone after some minutes.
//!
//! The session keyring is asked first: it belongs to one log-in. Where there is none, as in a
//! container, the keyring of the user's sessions serves. Where the kernel refuses both, nothing is
//! remembered and nothing is said: it costs the time of stretching a password.

use crate::base::SecretBytes;
use crate::repo::KeyCache;
use linux_keyutils::{KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission};

/// How long an opened slot is remembered after it was last opened with its password.
const TIMEOUT_SECONDS: usize = 15 * 60;

/// Remembers in the kernel's keyring.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelKeyCache;

const RINGS: [KeyRingIdentifier; 2] = [KeyRingIdentifier::Session, KeyRingIdentifier::UserSession];

fn rings() -> impl Iterator<Item = KeyRing> {
    RINGS.into_iter().filter_map(|ring| KeyRing::from_special_id(ring, false).ok())
}

fn put(ring: KeyRing, name: &str, secret: &[u8]) -> Option<()> {
    let key = ring.add_key(name, secret).ok()?;
    // The owner too, not only who holds the keyring: the next command may run in another session.
    let permissions = Permission::VIEW | Permission::READ | Permission::SEARCH | Permission::SETATTR;
    let all = KeyPermissionsBuilder::builder().posessor(Permission::ALL).user(permissions).build();
    let limited = key.set_timeout(TIMEOUT_SECONDS).and_then(|()| key.set_perms(all));
    if limited.is_err() {
        // Better none than one that stays.
        let _ = key.invalidate();
        return None;
    }
    Some(())
}

impl KeyCache for KernelKeyCache {
    fn load(&self, name: &str) -> Option<SecretBytes> {
        rings().find_map(|ring| ring.search(name).ok()?.read_to_vec().ok()).map(SecretBytes::new)
    }

    fn store(&self, name: &str, secret: &[u8]) {
        let _ = rings().find_map(|ring| put(ring, name, secret));
    }

    fn forget(&self, name: &str) {
        for ring in rings() {
            if let Ok(key) = ring.search(name) {
                let _ = key.invalidate();
            }
        }
    }
}
