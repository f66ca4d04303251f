//! What a grant holds once unwrapped: the secrets of one epoch, as far as a role has them; see
//! `format-spec/keys.md`, section "Grants".

use super::FormatError;
use super::bytes::ensure;
use super::cbor::{Extra, Field, decode_map, encode_map, required};
use super::trust::{Epoch, Role};
use crate::base::{Secret, SecretBytes};
use crate::crypto::ContentSecretKey;

const WHAT: &str = "grant";

/// The secrets of an epoch, as far as one key has them.
pub struct Bundle {
    /// The epoch.
    pub epoch: u32,
    /// The key from which all metadata of the epoch is sealed. Every role has it.
    pub metadata: Secret,
    /// The secret half of the content key: who has it reads content.
    pub content: Option<ContentSecretKey>,
    /// The key under which content is named; the same in every epoch.
    pub content_ids: Option<Secret>,
    /// The key under which metadata is named; the same in every epoch. Every role has it.
    pub metadata_ids: Secret,
    /// The seed of the chunker's table; the same in every epoch.
    pub chunker_seed: Option<Secret>,
    /// Fields that this program does not know.
    pub extra: Extra,
}

impl Bundle {
    /// Encodes the plaintext to be wrapped.
    pub fn encode(&self) -> SecretBytes {
        let secret = |secret: &ContentSecretKey| secret.secret().duplicate();
        SecretBytes::new(encode_map(&self.extra, |map| {
            map.at(0).unsigned(self.epoch.into());
            map.at(1).bytes(self.metadata.expose());
            map.optional(2, self.content.as_ref().map(secret), |place, key| place.bytes(key.expose()));
            map.optional(3, self.content_ids.as_ref(), |place, key| place.bytes(key.expose()));
            map.at(4).bytes(self.metadata_ids.expose());
            map.optional(5, self.chunker_seed.as_ref(), |place, key| place.bytes(key.expose()));
        }))
    }

    /// Decodes what was unwrapped.
    pub fn decode(plain: &SecretBytes) -> Result<Self, FormatError> {
        let (mut epoch, mut metadata, mut content) = (None, None, None);
        let (mut content_ids, mut metadata_ids, mut chunker_seed) = (None, None, None);
        let extra = decode_map(WHAT, plain.expose(), |number, value| {
            match number {
                0 => epoch = Some(value.small()?),
                1 => metadata = Some(Secret::new(value.fixed()?)),
                2 => content = Some(ContentSecretKey::new(Secret::new(value.fixed()?))),
                3 => content_ids = Some(Secret::new(value.fixed()?)),
                4 => metadata_ids = Some(Secret::new(value.fixed()?)),
                5 => chunker_seed = Some(Secret::new(value.fixed()?)),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let epoch = required(epoch, "epoch of a grant")?;
        ensure(epoch > 0, WHAT, "epochs are numbered from 1")?;
        Ok(Self {
            epoch,
            metadata: required(metadata, "metadata key of a grant")?,
            content,
            content_ids,
            metadata_ids: required(metadata_ids, "metadata id key of a grant")?,
            chunker_seed,
            extra,
        })
    }

    /// Says whether the bundle is that of an epoch of the registry: its number, and, where the content
    /// key is in it, its public half ([KEYS-13]).
    pub fn belongs_to(&self, epoch: &Epoch) -> bool {
        let content = self.content.as_ref().is_none_or(|key| key.public() == epoch.content);
        self.epoch == epoch.number && content
    }

    /// Copies as much of it as a role is given: what a key can't do, it can't do because it lacks the secret.
    pub fn for_role(&self, role: Role) -> Self {
        let reads = matches!(role, Role::Owner | Role::Reader);
        let writes = matches!(role, Role::Owner | Role::Writer);
        let copy =
            |secret: &Option<Secret>, given: bool| secret.as_ref().filter(|_| given).map(Secret::duplicate);
        let content = self.content.as_ref().filter(|_| reads);
        Self {
            epoch: self.epoch,
            metadata: self.metadata.duplicate(),
            content: content.map(|key| ContentSecretKey::new(key.secret().duplicate())),
            content_ids: copy(&self.content_ids, reads || writes),
            metadata_ids: self.metadata_ids.duplicate(),
            chunker_seed: copy(&self.chunker_seed, writes),
            extra: Extra::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Bundle {
        Bundle {
            epoch: 2,
            metadata: Secret::new([1; 32]),
            content: Some(ContentSecretKey::new(Secret::new([2; 32]))),
            content_ids: Some(Secret::new([3; 32])),
            metadata_ids: Secret::new([4; 32]),
            chunker_seed: Some(Secret::new([5; 32])),
            extra: vec![(9, vec![0x01])],
        }
    }

    #[test]
    fn a_role_gets_no_more_than_it_needs() {
        for (role, content, content_ids, seed) in [
            (Role::Owner, true, true, true),
            (Role::Maintainer, false, false, false),
            (Role::Writer, false, true, true),
            (Role::Reader, true, true, false),
            (Role::Auditor, false, false, false),
        ] {
            let bundle = Bundle::decode(&whole().for_role(role).encode()).unwrap();
            assert_eq!(bundle.content.is_some(), content, "{role}");
            assert_eq!(bundle.content_ids.is_some(), content_ids, "{role}");
            assert_eq!(bundle.chunker_seed.is_some(), seed, "{role}");
            assert_eq!((bundle.epoch, bundle.metadata.expose()), (2, &[1; 32]));
            assert_eq!(bundle.metadata_ids.expose(), &[4; 32]);
        }
    }

    #[test]
    fn belongs_to_one_epoch() {
        let epoch = Epoch {
            number: 2,
            content: whole().content.unwrap().public(),
            created: crate::base::Timestamp::default(),
            suite: crate::crypto::Suite::default(),
            grants: Vec::new(),
            closed: false,
            extra: Extra::new(),
        };
        assert!(whole().belongs_to(&epoch));
        assert!(!whole().belongs_to(&Epoch { number: 3, ..epoch.clone() }));
        let other = Epoch { content: crate::crypto::ContentPublicKey([7; 32]), ..epoch };
        assert!(!whole().belongs_to(&other));
        assert!(whole().for_role(Role::Writer).belongs_to(&other), "a writer can not tell");
    }

    #[test]
    fn comes_back_the_same() {
        let plain = whole().encode();
        assert_eq!(Bundle::decode(&plain).unwrap().encode().expose(), plain.expose());
        for length in 0..plain.expose().len() {
            assert!(Bundle::decode(&SecretBytes::new(plain.expose()[..length].to_vec())).is_err());
        }
    }
}
