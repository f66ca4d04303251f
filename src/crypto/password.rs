//! From what a person knows or a file holds to the key that opens a slot.

use super::derive::context;
use super::error::CryptoError;
use crate::base::limits::{ARGON2_LANES_MAX, ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES_MAX};
use crate::base::{Secret, SecretBytes};
use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

/// Fewest and most bytes of a key file: it is not stretched, so it must hold full entropy.
pub const KEY_FILE_BYTES: std::ops::RangeInclusive<usize> = 32..=4096;

/// What Argon2id costs. Stored beside the slot it opens, hence bounded before it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordParameters {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Default for PasswordParameters {
    /// 64 MiB, 3 passes, 4 lanes: RFC 9106's second recommendation.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 }
    }
}

impl PasswordParameters {
    /// Takes parameters within the bounds of the format: at least 8 KiB a lane, at least one pass and lane.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, CryptoError> {
        let refuse = |what| Err(CryptoError::PasswordParameters { what });
        if !(1..=ARGON2_LANES_MAX).contains(&lanes) {
            return refuse("lanes");
        }
        if !(1..=ARGON2_PASSES_MAX).contains(&passes) {
            return refuse("passes");
        }
        if memory_kib < 8 * lanes || memory_kib > ARGON2_MEMORY_KIB_MAX {
            return refuse("memory");
        }
        Ok(Self { memory_kib, passes, lanes })
    }

    /// Memory in KiB.
    pub const fn memory_kib(&self) -> u32 {
        self.memory_kib
    }

    /// Passes over the memory.
    pub const fn passes(&self) -> u32 {
        self.passes
    }

    /// Lanes, which may run side by side.
    pub const fn lanes(&self) -> u32 {
        self.lanes
    }
}

/// Stretches a password: Argon2id, version 0x13, 32 bytes.
///
/// The password is taken as it is; no normalisation, no trimming.
pub fn key_from_password(
    password: &SecretBytes,
    salt: &[u8; 32],
    parameters: &PasswordParameters,
) -> Result<Secret, CryptoError> {
    let refuse = |_| CryptoError::PasswordParameters { what: "rejected by the function" };
    let PasswordParameters { memory_kib, passes, lanes } = *parameters;
    let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(refuse)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.expose(), salt, key.as_mut())
        .map_err(refuse)?;
    Ok(Secret::new(*key))
}

/// Derives a key from the whole content of a key file, which is random already.
///
/// BLAKE3's derive-key mode over the salt followed by the content: microseconds, since a log segment
/// every 100 ms can't pay for stretching.
pub fn key_from_file(content: &SecretBytes, salt: &[u8; 32]) -> Result<Secret, CryptoError> {
    let length_bytes = content.expose().len();
    if !KEY_FILE_BYTES.contains(&length_bytes) {
        return Err(CryptoError::KeyFileLength { length_bytes });
    }
    let mut hasher = blake3::Hasher::new_derive_key(context::KEY_FILE);
    hasher.update(salt).update(content.expose());
    Ok(Secret::new(*hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::hex32;
    use super::*;

    fn small() -> PasswordParameters {
        PasswordParameters::new(32, 2, 2).unwrap()
    }

    #[test]
    fn parameters_are_bounded() {
        for (memory, passes, lanes) in [
            (7, 1, 1),
            (15, 1, 2),
            (64, 0, 1),
            (64, 1, 0),
            (ARGON2_MEMORY_KIB_MAX + 1, 1, 1),
            (64, ARGON2_PASSES_MAX + 1, 1),
            (u32::MAX, 1, ARGON2_LANES_MAX + 1),
            (u32::MAX, u32::MAX, u32::MAX),
        ] {
            assert!(PasswordParameters::new(memory, passes, lanes).is_err(), "{memory} {passes} {lanes}");
        }
        let default = PasswordParameters::default();
        assert_eq!(PasswordParameters::new(default.memory_kib, default.passes, default.lanes), Ok(default));
    }

    #[test]
    fn another_password_salt_or_cost_gives_another_key() {
        let word = || SecretBytes::new(b"correct horse".to_vec());
        let key = |word: &SecretBytes, salt: &[u8; 32], parameters: &PasswordParameters| {
            *key_from_password(word, salt, parameters).unwrap().expose()
        };
        let first = key(&word(), &[1; 32], &small());
        assert_eq!(first, key(&word(), &[1; 32], &small()));
        assert_ne!(first, key(&word(), &[2; 32], &small()));
        assert_ne!(first, key(&SecretBytes::new(b"correct horse ".to_vec()), &[1; 32], &small()));
        assert_ne!(first, key(&word(), &[1; 32], &PasswordParameters::new(32, 3, 2).unwrap()));
    }

    #[test]
    fn golden_keys() {
        let word = SecretBytes::new(b"correct horse battery staple".to_vec());
        let key = key_from_password(&word, &[0x5A; 32], &small()).unwrap();
        assert_eq!(key.expose(), &hex32(GOLDEN[0]));
        let file = SecretBytes::new((0..32).collect());
        assert_eq!(key_from_file(&file, &[0x5A; 32]).unwrap().expose(), &hex32(GOLDEN[1]));
    }

    const GOLDEN: [&str; 2] = [
        "45fd658adbecbfdbd10197dac5b7b4e6fb94c853d0ca7d9168dde7ee548592b1",
        "94f04d5a8fdd26bcb5627e9382868a563ccae5c6cf3f70453501a14cadf81b4a",
    ];

    #[test]
    fn a_short_file_is_no_key() {
        for length_bytes in [0, 31, 4097] {
            let refused = key_from_file(&SecretBytes::new(vec![1; length_bytes]), &[0; 32]);
            assert_eq!(refused.err(), Some(CryptoError::KeyFileLength { length_bytes }));
        }
    }
}
