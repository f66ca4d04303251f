//! HPKE (RFC 9180) in base mode: DHKEM(X25519, HKDF-SHA256) with HKDF-SHA256.
//!
//! Whoever holds only a public half can make new secrets for its owner and can't learn them again:
//! this is why a writer's key reads nothing. Content packs use the export-only form; small bundles of
//! keys are wrapped whole with ChaCha20-Poly1305.

use super::error::CryptoError;
use crate::base::{Entropy, Secret, SecretBytes};
use hpke::aead::{Aead, ChaCha20Poly1305, ExportOnlyAead};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use std::convert::Infallible;
use zeroize::Zeroizing;

/// Bytes of an encapsulation.
pub const ENCAPSULATION_BYTES: usize = 32;
/// Bytes by which wrapping lengthens: the encapsulation and the tag.
pub const WRAP_OVERHEAD_BYTES: usize = ENCAPSULATION_BYTES + super::seal::TAG_BYTES;
/// The exporter context of content secrets.
const EXPORT_CONTEXT: &[u8] = b"chronolith v1 shared secret";

type Public = <X25519HkdfSha256 as Kem>::PublicKey;
type Private = <X25519HkdfSha256 as Kem>::PrivateKey;
type Encapsulation = <X25519HkdfSha256 as Kem>::EncappedKey;
type Sending<A> = hpke::aead::AeadCtxS<A, HkdfSha256, X25519HkdfSha256>;
type Receiving<A> = hpke::aead::AeadCtxR<A, HkdfSha256, X25519HkdfSha256>;

/// The public half of an X25519 key: of an epoch's content, or of one key of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentPublicKey(pub [u8; 32]);

impl ContentPublicKey {
    fn point(&self) -> Result<Public, CryptoError> {
        Public::from_bytes(&self.0).map_err(|_| CryptoError::PublicKey)
    }
}

/// The secret half of an X25519 key. Any 32 random bytes are one.
pub struct ContentSecretKey(Secret);

impl ContentSecretKey {
    /// Takes the secret half from its bytes.
    pub fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// Returns the public half.
    pub fn public(&self) -> ContentPublicKey {
        let scalar = self.scalar().expect("any 32 bytes are a scalar");
        ContentPublicKey(X25519HkdfSha256::sk_to_pk(&scalar).to_bytes().into())
    }

    /// Lends the secret, to be put into a grant or a slot.
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    fn scalar(&self) -> Result<Private, CryptoError> {
        Private::from_bytes(self.0.expose()).map_err(|_| CryptoError::PublicKey)
    }
}

/// The caller's randomness in the shape that the hpke crate asks for.
struct Drawn<'a>(&'a dyn Entropy);

impl TryRng for Drawn<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(buffer);
        Ok(())
    }
}

impl TryCryptoRng for Drawn<'_> {}

fn sender<A: Aead>(
    public: &ContentPublicKey,
    entropy: &dyn Entropy,
    info: &[u8],
) -> Result<([u8; ENCAPSULATION_BYTES], Sending<A>), CryptoError> {
    let (encapsulation, context) = hpke::setup_sender_with_rng::<A, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public.point()?,
        info,
        &mut Drawn(entropy),
    )
    .map_err(|_| CryptoError::PublicKey)?;
    Ok((encapsulation.to_bytes().into(), context))
}

fn receiver<A: Aead>(
    secret: &ContentSecretKey,
    encapsulation: &[u8],
    info: &[u8],
) -> Result<Receiving<A>, CryptoError> {
    let encapsulation = Encapsulation::from_bytes(encapsulation).map_err(|_| CryptoError::PublicKey)?;
    hpke::setup_receiver(&OpModeR::Base, &secret.scalar()?, &encapsulation, info)
        .map_err(|_| CryptoError::PublicKey)
}

/// Makes a fresh secret that only the holder of the secret half can learn again from the encapsulation.
///
/// `info` binds it to its use; the receiver must give the same.
pub fn encapsulate(
    public: &ContentPublicKey,
    entropy: &dyn Entropy,
    info: &[u8],
) -> Result<([u8; ENCAPSULATION_BYTES], Secret), CryptoError> {
    let (encapsulation, context) = sender::<ExportOnlyAead>(public, entropy, info)?;
    let mut secret = Zeroizing::new([0; 32]);
    context.export(EXPORT_CONTEXT, secret.as_mut()).map_err(|_| CryptoError::PublicKey)?;
    Ok((encapsulation, Secret::new(*secret)))
}

/// Learns the secret of an encapsulation again.
///
/// A wrong key gives another secret, not an error: the commitment beside what was sealed tells.
pub fn decapsulate(
    secret: &ContentSecretKey,
    encapsulation: &[u8; ENCAPSULATION_BYTES],
    info: &[u8],
) -> Result<Secret, CryptoError> {
    let context = receiver::<ExportOnlyAead>(secret, encapsulation, info)?;
    let mut shared = Zeroizing::new([0; 32]);
    context.export(EXPORT_CONTEXT, shared.as_mut()).map_err(|_| CryptoError::PublicKey)?;
    Ok(Secret::new(*shared))
}

/// Seals a small plaintext to a public key: the encapsulation, then the sealed bytes.
pub fn wrap(
    public: &ContentPublicKey,
    entropy: &dyn Entropy,
    info: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let (encapsulation, mut context) = sender::<ChaCha20Poly1305>(public, entropy, info)?;
    let sealed = context.seal(plain, b"").map_err(|_| CryptoError::TooLong)?;
    Ok([encapsulation.as_slice(), &sealed].concat())
}

/// Opens what [`wrap`] made.
pub fn unwrap(secret: &ContentSecretKey, info: &[u8], wrapped: &[u8]) -> Result<SecretBytes, CryptoError> {
    let (encapsulation, sealed) =
        wrapped.split_first_chunk::<ENCAPSULATION_BYTES>().ok_or(CryptoError::Sealed)?;
    let mut context = receiver::<ChaCha20Poly1305>(secret, encapsulation, info)?;
    context.open(sealed, b"").map(SecretBytes::new).map_err(|_| CryptoError::Sealed)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{hex, hex32};
    use super::*;
    use crate::base::KeyId;
    use crate::crypto::derive::grant_info;

    /// Randomness that is a published vector's ephemeral seed.
    struct Fixed(Vec<u8>);

    impl Entropy for Fixed {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.copy_from_slice(&self.0[..buffer.len()]);
        }
    }

    const INFO: &str = "4f6465206f6e2061204772656369616e2055726e";

    /// RFC 9180, A.2.1, encryption with sequence number 0.
    #[test]
    fn base_mode_of_rfc_9180() {
        let entropy = Fixed(hex("909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b"));
        let secret = ContentSecretKey::new(Secret::new(hex32(
            "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
        )));
        assert_eq!(
            secret.public().0,
            hex32("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
        );
        let (encapsulation, mut context) =
            sender::<ChaCha20Poly1305>(&secret.public(), &entropy, &hex(INFO)).unwrap();
        assert_eq!(encapsulation, hex32("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"));
        let plain = b"Beauty is truth, truth beauty";
        let sealed = context.seal(plain, b"Count-0").unwrap();
        assert_eq!(
            sealed,
            hex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")
        );
        let mut context = receiver::<ChaCha20Poly1305>(&secret, &encapsulation, &hex(INFO)).unwrap();
        assert_eq!(context.open(&sealed, b"Count-0").unwrap(), plain);
    }

    /// RFC 9180, A.7.1: the export-only form, by which content secrets are made.
    #[test]
    fn export_only_of_rfc_9180() {
        let entropy = Fixed(hex("55bc245ee4efda25d38f2d54d5bb6665291b99f8108a8c4b686c2b14893ea5d9"));
        let secret = ContentSecretKey::new(Secret::new(hex32(
            "33d196c830a12f9ac65d6e565a590d80f04ee9b19c83c87f2c170d972a812848",
        )));
        let (encapsulation, context) =
            sender::<ExportOnlyAead>(&secret.public(), &entropy, &hex(INFO)).unwrap();
        assert_eq!(encapsulation, hex32("e5e8f9bfff6c2f29791fc351d2c25ce1299aa5eaca78a757c0b4fb4bcd830918"));
        for (exporter, expected) in [
            (&b""[..], "7a36221bd56d50fb51ee65edfd98d06a23c4dc87085aa5866cb7087244bd2a36"),
            (b"\0", "d5535b87099c6c3ce80dc112a2671c6ec8e811a2f284f948cec6dd1708ee33f0"),
            (b"TestContext", "ffaabc85a776136ca0c378e5d084c9140ab552b78f039d2e8775f26efff4c70e"),
        ] {
            let mut value = [0; 32];
            context.export(exporter, &mut value).unwrap();
            assert_eq!(value, hex32(expected));
            let context = receiver::<ExportOnlyAead>(&secret, &encapsulation, &hex(INFO)).unwrap();
            context.export(exporter, &mut value).unwrap();
            assert_eq!(value, hex32(expected));
        }
    }

    #[test]
    fn golden_content_secret() {
        let secret = ContentSecretKey::new(Secret::new([9; 32]));
        let (encapsulation, shared) = encapsulate(&secret.public(), &Fixed(vec![5; 32]), b"info").unwrap();
        assert_eq!(encapsulation, hex32(GOLDEN[0]));
        assert_eq!(shared.expose(), &hex32(GOLDEN[1]));
        assert_eq!(decapsulate(&secret, &encapsulation, b"info").unwrap().expose(), shared.expose());
        assert_ne!(decapsulate(&secret, &encapsulation, b"other").unwrap().expose(), shared.expose());
    }

    const GOLDEN: [&str; 2] = [
        "402802aae25501861e6da002ef9f3e105b9296c3e3c90c92e600ec9a0ff52657",
        "a143db4b3fb10618ac004cb027654b1e7011b70811fd8b9626b209f3e9809c5a",
    ];

    #[test]
    fn a_grant_opens_for_its_key_only() {
        let entropy = Fixed(vec![6; 32]);
        let secret = ContentSecretKey::new(Secret::new([1; 32]));
        let info = grant_info(&crate::base::RepositoryId::new([2; 32]), 1, &KeyId::new([3; 32]));
        let wrapped = wrap(&secret.public(), &entropy, &info, b"keys").unwrap();
        assert_eq!(wrapped.len(), 4 + WRAP_OVERHEAD_BYTES);
        assert_eq!(unwrap(&secret, &info, &wrapped).unwrap().expose(), b"keys");
        let other = ContentSecretKey::new(Secret::new([4; 32]));
        assert_eq!(unwrap(&other, &info, &wrapped).unwrap_err(), CryptoError::Sealed);
        assert_eq!(unwrap(&secret, b"", &wrapped).unwrap_err(), CryptoError::Sealed);
        for length in 0..wrapped.len() {
            assert!(unwrap(&secret, &info, &wrapped[..length]).is_err());
        }
    }

    /// Points of small order would make a secret that everybody knows (RFC 9180, section 7.1.4).
    #[test]
    fn points_of_small_order_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        for point in [[0; 32], one] {
            let refused = encapsulate(&ContentPublicKey(point), &Fixed(vec![5; 32]), b"");
            assert_eq!(refused.err(), Some(CryptoError::PublicKey));
            let secret = ContentSecretKey::new(Secret::new([1; 32]));
            assert_eq!(decapsulate(&secret, &point, b"").err(), Some(CryptoError::PublicKey));
        }
    }
}
