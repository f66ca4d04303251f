//! A key slot: the secrets of one identity, wrapped to a password, a key file or what a command prints;
//! see `format-spec/slot.md`.
//!
//! The slot also pins the first registry of trust, so that whoever can open it knows whom to believe,
//! and can't be shown another repository in its place.

use super::FormatError;
use super::bytes::ensure;
use super::cbor::{Extra, Field, Reader, decode_map, encode_map, required};
use super::trust::Role;
use crate::base::limits::{NAME_BYTES_MAX, SLOT_BYTES_MAX};
use crate::base::{KeyId, RepositoryId, Secret, SecretBytes, Timestamp, TrustId};
use crate::crypto::derive::context;
use crate::crypto::{
    ContentSecretKey, CryptoError, PasswordParameters, SigningKey, Suite, derive_committed, derive_pair,
    open_in_place, seal_in_place,
};

const WHAT: &str = "slot";
const COMMITMENT_BYTES: usize = 32;

/// How a slot is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlock {
    /// By a password that a person knows, stretched.
    Password(PasswordParameters),
    /// By the content of a key file, which is random and not stretched.
    KeyFile,
    /// By what a command prints, stretched as a password is.
    Command(PasswordParameters),
}

impl Unlock {
    /// Returns the number that stands for it in stored slots.
    pub const fn number(&self) -> u8 {
        match self {
            Self::Password(_) => 1,
            Self::KeyFile => 2,
            Self::Command(_) => 3,
        }
    }

    const fn parameters(&self) -> Option<&PasswordParameters> {
        match self {
            Self::Password(parameters) | Self::Command(parameters) => Some(parameters),
            Self::KeyFile => None,
        }
    }
}

/// A slot as stored, in the payload of its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// How it is opened.
    pub unlock: Unlock,
    /// Salt of both derivations: of the key that opens the slot, and of the key that seals it.
    pub salt: [u8; 32],
    /// Commitment and sealed identity ([`Identity::wrap`]).
    pub wrapped: Vec<u8>,
    /// The identity inside.
    pub key: KeyId,
    /// A name for people.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Fields that this program does not know.
    pub extra: Extra,
}

impl Slot {
    /// Encodes the payload of the object's envelope.
    pub fn encode(&self) -> Vec<u8> {
        encode_map(&self.extra, |map| {
            map.at(0).unsigned(self.unlock.number().into());
            map.optional(1, self.unlock.parameters(), |place, parameters| {
                let numbers = [parameters.memory_kib(), parameters.passes(), parameters.lanes()];
                place.array(&numbers, |place, number| place.unsigned((*number).into()));
            });
            map.at(2).bytes(&self.salt);
            map.at(3).bytes(&self.wrapped);
            map.at(4).bytes(self.key.as_bytes());
            map.at(5).text(&self.name);
            map.at(6).signed(self.created.nanoseconds());
        })
    }

    /// Decodes the payload of the object's envelope.
    pub fn decode(payload: &[u8]) -> Result<Self, FormatError> {
        let (mut kind, mut parameters, mut salt, mut wrapped) = (None, None, None, None);
        let (mut key, mut name, mut created) = (None, None, None);
        let extra = decode_map(WHAT, payload, |number, value| {
            match number {
                0 => kind = Some(value.unsigned()?),
                1 => parameters = Some(decode_parameters(value)?),
                2 => salt = Some(value.fixed()?),
                3 => wrapped = Some(value.bytes(SLOT_BYTES_MAX)?.to_vec()),
                4 => key = Some(KeyId::new(value.fixed()?)),
                5 => name = Some(value.text(NAME_BYTES_MAX)?.to_owned()),
                6 => created = Some(value.timestamp()?),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let unlock = match (required(kind, "kind of a slot")?, parameters) {
            (1, Some(parameters)) => Unlock::Password(parameters),
            (2, None) => Unlock::KeyFile,
            (3, Some(parameters)) => Unlock::Command(parameters),
            (1..=3, _) => return Err(FormatError::Invalid { what: WHAT, why: "parameters for its kind" }),
            _ => return Err(FormatError::Unsupported { what: "kind of slot" }),
        };
        Ok(Self {
            unlock,
            salt: required(salt, "salt of a slot")?,
            wrapped: required(wrapped, "wrapped part of a slot")?,
            key: required(key, "key of a slot")?,
            name: required(name, "name of a slot")?,
            created: required(created, "time of a slot")?,
            extra,
        })
    }

    /// Opens the slot with the key that its password or file gives.
    pub fn open(&self, opener: &Secret, repository: &RepositoryId) -> Result<SecretBytes, CryptoError> {
        let (commitment, sealed) =
            self.wrapped.split_first_chunk::<COMMITMENT_BYTES>().ok_or(CryptoError::Sealed)?;
        let key = derive_committed(context::SLOT, opener, &self.salt, commitment)?;
        let mut buffer = sealed.to_vec();
        let associated = associated(repository, &self.key);
        open_in_place(Suite::ChaCha20Poly1305, &key, [0; 12], &associated, &mut buffer, 0)?;
        Ok(SecretBytes::new(buffer))
    }
}

fn decode_parameters(value: Reader<'_, '_>) -> Result<PasswordParameters, FormatError> {
    let numbers = value.array(3, |number| number.small::<u32>())?;
    let [memory_kib, passes, lanes] = numbers[..] else {
        return Err(FormatError::Invalid { what: WHAT, why: "parameters are three numbers" });
    };
    PasswordParameters::new(memory_kib, passes, lanes)
        .map_err(|_| FormatError::Invalid { what: WHAT, why: "parameters are out of bounds" })
}

fn associated(repository: &RepositoryId, key: &KeyId) -> Vec<u8> {
    [repository.as_bytes().as_slice(), key.as_bytes()].concat()
}

/// What a slot holds: who someone is, and whom they believe.
pub struct Identity {
    /// Seed of the signing key.
    pub signing_seed: Secret,
    /// Secret half to which grants are wrapped.
    pub exchange: ContentSecretKey,
    /// The first version of the registry.
    pub genesis: TrustId,
    /// The role of the key when the slot was made, for messages; the registry decides.
    pub role: Role,
    /// The newest version of the registry that was known when the slot was made.
    pub known: TrustId,
    /// Its number.
    pub known_sequence: u64,
    /// Fields that this program does not know.
    pub extra: Extra,
}

impl Identity {
    /// Encodes the plaintext of a slot.
    pub fn encode(&self) -> SecretBytes {
        SecretBytes::new(encode_map(&self.extra, |map| {
            map.at(0).bytes(self.signing_seed.expose());
            map.at(1).bytes(self.exchange.secret().expose());
            map.at(2).bytes(self.genesis.as_bytes());
            map.at(3).unsigned(self.role.number().into());
            map.at(4).bytes(self.known.as_bytes());
            map.at(5).unsigned(self.known_sequence);
        }))
    }

    /// Decodes the plaintext of a slot.
    pub fn decode(plain: &SecretBytes) -> Result<Self, FormatError> {
        let (mut signing_seed, mut exchange, mut genesis) = (None, None, None);
        let (mut role, mut known, mut known_sequence) = (None, None, None);
        let extra = decode_map("identity", plain.expose(), |number, value| {
            match number {
                0 => signing_seed = Some(Secret::new(value.fixed()?)),
                1 => exchange = Some(ContentSecretKey::new(Secret::new(value.fixed()?))),
                2 => genesis = Some(TrustId::new(value.fixed()?)),
                3 => role = Some(Role::decode(value)?),
                4 => known = Some(TrustId::new(value.fixed()?)),
                5 => known_sequence = Some(value.unsigned()?),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let known_sequence = required(known_sequence, "sequence in an identity")?;
        ensure(known_sequence > 0, "identity", "versions of the registry are numbered from 1")?;
        Ok(Self {
            signing_seed: required(signing_seed, "signing seed of an identity")?,
            exchange: required(exchange, "exchange key of an identity")?,
            genesis: required(genesis, "first registry of an identity")?,
            role: required(role, "role of an identity")?,
            known: required(known, "known registry of an identity")?,
            known_sequence,
            extra,
        })
    }

    /// Seals the identity for a slot: the commitment, then the sealed bytes.
    ///
    /// `salt` is fresh for every slot that is written: it is what makes the sealing key new.
    pub fn wrap(
        &self,
        opener: &Secret,
        salt: &[u8; 32],
        repository: &RepositoryId,
    ) -> Result<Vec<u8>, CryptoError> {
        let (key, commitment) = derive_pair(context::SLOT, opener, salt);
        let plain = self.encode();
        let mut wrapped = Vec::with_capacity(COMMITMENT_BYTES + plain.expose().len() + 16);
        wrapped.extend_from_slice(&commitment);
        wrapped.extend_from_slice(plain.expose());
        let associated = associated(repository, &SigningKey::from_seed(&self.signing_seed).key_id());
        let from = COMMITMENT_BYTES;
        seal_in_place(Suite::ChaCha20Poly1305, &key, [0; 12], &associated, &mut wrapped, from)?;
        Ok(wrapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            signing_seed: Secret::new([1; 32]),
            exchange: ContentSecretKey::new(Secret::new([2; 32])),
            genesis: TrustId::new([3; 32]),
            role: Role::Writer,
            known: TrustId::new([4; 32]),
            known_sequence: 5,
            extra: Extra::new(),
        }
    }

    fn slot(unlock: Unlock) -> Slot {
        let salt = [8; 32];
        Slot {
            unlock,
            salt,
            wrapped: identity().wrap(&Secret::new([7; 32]), &salt, &RepositoryId::new([6; 32])).unwrap(),
            key: SigningKey::from_seed(&Secret::new([1; 32])).key_id(),
            name: "backup of db-1".to_owned(),
            created: Timestamp::from_nanoseconds(1),
            extra: Extra::new(),
        }
    }

    #[test]
    fn opens_for_its_key_in_its_repository() {
        let slot = slot(Unlock::KeyFile);
        let repository = RepositoryId::new([6; 32]);
        let opened = Identity::decode(&slot.open(&Secret::new([7; 32]), &repository).unwrap()).unwrap();
        assert_eq!(opened.signing_seed.expose(), &[1; 32]);
        assert_eq!((opened.genesis, opened.known_sequence), (TrustId::new([3; 32]), 5));

        assert_eq!(slot.open(&Secret::new([9; 32]), &repository).unwrap_err(), CryptoError::Commitment);
        let elsewhere = slot.open(&Secret::new([7; 32]), &RepositoryId::new([5; 32]));
        assert_eq!(elsewhere.unwrap_err(), CryptoError::Sealed);
        let renamed = Slot { key: KeyId::new([1; 32]), ..slot.clone() };
        assert_eq!(renamed.open(&Secret::new([7; 32]), &repository).unwrap_err(), CryptoError::Sealed);
        for length in 0..slot.wrapped.len() {
            let cut = Slot { wrapped: slot.wrapped[..length].to_vec(), ..slot.clone() };
            assert!(cut.open(&Secret::new([7; 32]), &repository).is_err());
        }
    }

    #[test]
    fn comes_back_the_same() {
        let parameters = PasswordParameters::default();
        for unlock in [Unlock::Password(parameters), Unlock::KeyFile, Unlock::Command(parameters)] {
            let slot = slot(unlock);
            let payload = slot.encode();
            assert_eq!(Slot::decode(&payload).unwrap(), slot);
            for length in 0..payload.len() {
                assert_eq!(Slot::decode(&payload[..length]), Err(FormatError::Truncated));
            }
        }
    }

    #[test]
    fn costs_are_bounded_when_read() {
        let parameters = PasswordParameters::new(64, 1, 1).unwrap();
        let payload = slot(Unlock::Password(parameters)).encode();
        // 64 KiB, 1 pass, 1 lane: 83 18 40 01 01
        let at = payload.windows(5).position(|w| w == [0x83, 0x18, 0x40, 0x01, 0x01]).unwrap();
        for numbers in
            [[0x83, 0x18, 0x40, 0x00, 0x01], [0x83, 0x18, 0x40, 0x01, 0x00], [0x83, 0x18, 0x40, 0x01, 0x09]]
        {
            let mut other = payload.clone();
            other[at..at + 5].copy_from_slice(&numbers);
            assert!(matches!(Slot::decode(&other), Err(FormatError::Invalid { .. })), "{numbers:?}");
        }
        let mut newer = payload.clone();
        assert_eq!(newer[1..3], [0x00, 0x01]);
        newer[2] = 0x04;
        assert!(matches!(Slot::decode(&newer), Err(FormatError::Unsupported { .. })));
        newer[2] = 0x02;
        assert!(matches!(Slot::decode(&newer), Err(FormatError::Invalid { .. })));
    }
}
