//! Authenticated encryption: two suites, one interface.
//!
//! The rule for every key: one nonce, one message. Keys are derived for one object or one pack
//! ([`super::derive`]); nonces are zero where a key seals once, else a counter.
//!
//! ChaCha20-Poly1305 is sealed by one implementation and opened by another, written by others in another language and twice
//! as fast: whatever is opened again before it is published proves the one by the other, and all that a restore and a check
//! do is to open.

use super::error::CryptoError;
use crate::base::Secret;
use aws_lc_rs::aead as aws;
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use std::fmt;
use std::str::FromStr;

/// Bytes by which sealing lengthens.
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;

/// A cipher with its numbers, chosen when a repository is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Suite {
    /// ChaCha20-Poly1305 (RFC 8439).
    #[default]
    ChaCha20Poly1305 = 1,
    /// AES-256 in Galois/counter mode (NIST SP 800-38D).
    Aes256Gcm = 2,
}

impl Suite {
    /// Returns the number that stands for the suite in stored objects; 0 means "not sealed" there.
    pub const fn number(self) -> u8 {
        match self {
            Self::ChaCha20Poly1305 => 1,
            Self::Aes256Gcm => 2,
        }
    }

    /// Returns the name that people write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Aes256Gcm => "aes-256-gcm",
        }
    }
}

impl TryFrom<u8> for Suite {
    type Error = CryptoError;

    fn try_from(number: u8) -> Result<Self, CryptoError> {
        match number {
            1 => Ok(Self::ChaCha20Poly1305),
            2 => Ok(Self::Aes256Gcm),
            _ => Err(CryptoError::UnknownSuite),
        }
    }
}

impl FromStr for Suite {
    type Err = CryptoError;

    fn from_str(name: &str) -> Result<Self, CryptoError> {
        [Self::ChaCha20Poly1305, Self::Aes256Gcm]
            .into_iter()
            .find(|suite| suite.name() == name)
            .ok_or(CryptoError::UnknownSuite)
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What seals.
enum Cipher {
    ChaCha(Box<ChaCha20Poly1305>),
    /// The same that opens.
    Aes,
}

/// A cipher under one key, for many nonces. May be shared between threads.
///
/// Using a nonce twice under one key gives both messages away: the caller counts, and never starts over.
pub struct Sealer {
    cipher: Cipher,
    key: Box<aws::LessSafeKey>,
}

impl Sealer {
    /// Prepares a suite's cipher under a key.
    pub fn new(suite: Suite, key: &Secret) -> Self {
        let (cipher, algorithm) = match suite {
            Suite::ChaCha20Poly1305 => {
                let cipher = ChaCha20Poly1305::new(key.expose().into());
                (Cipher::ChaCha(Box::new(cipher)), &aws::CHACHA20_POLY1305)
            }
            Suite::Aes256Gcm => (Cipher::Aes, &aws::AES_256_GCM),
        };
        let key = aws::UnboundKey::new(algorithm, key.expose()).expect("a key has 32 bytes");
        Self { cipher, key: Box::new(aws::LessSafeKey::new(key)) }
    }

    /// Encrypts `buffer[from..]` in place and appends the tag.
    ///
    /// `from` is at most the buffer's length; what stands before it is left as it is.
    pub fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        buffer: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), CryptoError> {
        buffer.reserve(TAG_BYTES);
        let plain = buffer.get_mut(from..).ok_or(CryptoError::TooLong)?;
        match &self.cipher {
            Cipher::ChaCha(cipher) => {
                let tag = cipher
                    .encrypt_inout_detached(&Nonce::from(nonce), associated, InOutBuf::from(plain))
                    .map_err(|_| CryptoError::TooLong)?;
                buffer.extend_from_slice(&tag);
            }
            Cipher::Aes => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce);
                let tag = self
                    .key
                    .seal_in_place_separate_tag(nonce, aws::Aad::from(associated), plain)
                    .map_err(|_| CryptoError::TooLong)?;
                buffer.extend_from_slice(tag.as_ref());
            }
        }
        Ok(())
    }

    /// Decrypts `buffer[from..]` in place and removes the tag.
    ///
    /// On refusal what stood from `from` on is gone: bytes that did not verify are never handed out.
    pub fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        buffer: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), CryptoError> {
        let opened = self.open_slice(nonce, associated, buffer.get_mut(from..));
        match &opened {
            Ok(()) => buffer.truncate(buffer.len() - TAG_BYTES),
            Err(_) => buffer.truncate(from),
        }
        opened
    }

    /// Decrypts what `sealed` holds into `room`, which is made longer where it has to be and never shorter, and returns
    /// what that was.
    pub fn open_into<'a>(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        sealed: &[u8],
        room: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], CryptoError> {
        let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(CryptoError::Sealed)?;
        if room.len() < body.len() {
            room.resize(body.len(), 0);
        }
        let opened = room.get_mut(..body.len()).ok_or(CryptoError::TooLong)?;
        let nonce = aws::Nonce::assume_unique_for_key(nonce);
        self.key
            .open_separate_gather(nonce, aws::Aad::from(associated), body, tag, opened)
            .map_err(|_| CryptoError::Sealed)?;
        Ok(opened)
    }

    fn open_slice(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        sealed: Option<&mut [u8]>,
    ) -> Result<(), CryptoError> {
        let (body, tag) =
            sealed.and_then(|s| s.split_last_chunk_mut::<TAG_BYTES>()).ok_or(CryptoError::Sealed)?;
        let nonce = aws::Nonce::assume_unique_for_key(nonce);
        self.key
            .open_in_place_separate_tag(nonce, aws::Aad::from(associated), tag, body)
            .map(|_| ())
            .map_err(|_| CryptoError::Sealed)
    }
}

/// Encrypts `buffer[from..]` in place under a key that is used for this message only, and appends the tag.
pub fn seal_in_place(
    suite: Suite,
    key: &Secret,
    nonce: [u8; NONCE_BYTES],
    associated: &[u8],
    buffer: &mut Vec<u8>,
    from: usize,
) -> Result<(), CryptoError> {
    Sealer::new(suite, key).seal(nonce, associated, buffer, from)
}

/// Decrypts `buffer[from..]` in place and removes the tag.
pub fn open_in_place(
    suite: Suite,
    key: &Secret,
    nonce: [u8; NONCE_BYTES],
    associated: &[u8],
    buffer: &mut Vec<u8>,
    from: usize,
) -> Result<(), CryptoError> {
    Sealer::new(suite, key).open(nonce, associated, buffer, from)
}

/// Returns the nonce of a counter: four zero bytes, then the counter, little-endian.
pub fn counter_nonce(counter: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::super::testing::{hex, hex32};
    use super::*;

    /// RFC 8439, section 2.8.2.
    #[test]
    fn chacha20_poly1305_of_rfc_8439() {
        let key = Secret::new(hex32("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"));
        let nonce = hex("070000004041424344454647").try_into().unwrap();
        let associated = hex("50515253c0c1c2c3c4c5c6c7");
        let plain: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
            for the future, sunscreen would be it.";
        let mut buffer = plain.to_vec();
        seal_in_place(Suite::ChaCha20Poly1305, &key, nonce, &associated, &mut buffer, 0).unwrap();
        let sealed = hex(
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
            1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b6116\
            1ae10b594f09e26a7e902ecbd0600691",
        );
        assert_eq!(buffer, sealed);
        open_in_place(Suite::ChaCha20Poly1305, &key, nonce, &associated, &mut buffer, 0).unwrap();
        assert_eq!(buffer, plain);
    }

    /// Test case 16 of the specification of GCM by McGrew and Viega.
    #[test]
    fn aes_256_gcm_of_the_specification() {
        let key = Secret::new(hex32("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"));
        let nonce = hex("cafebabefacedbaddecaf888").try_into().unwrap();
        let associated = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
            1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
        let mut buffer = plain.clone();
        seal_in_place(Suite::Aes256Gcm, &key, nonce, &associated, &mut buffer, 0).unwrap();
        let sealed = hex("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
            8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662 76fc6ece0f4e1768cddf8853bb2d551b");
        assert_eq!(buffer, sealed);
        open_in_place(Suite::Aes256Gcm, &key, nonce, &associated, &mut buffer, 0).unwrap();
        assert_eq!(buffer, plain);
    }

    #[test]
    fn what_was_altered_does_not_open_and_leaves_nothing() {
        for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
            let sealer = Sealer::new(suite, &Secret::new([3; 32]));
            let mut sealed = b"head".to_vec();
            sealed.extend_from_slice(b"payload");
            sealer.seal(counter_nonce(9), b"aad", &mut sealed, 4).unwrap();
            assert_eq!(&sealed[..4], b"head");
            assert_eq!(sealed.len(), 4 + 7 + TAG_BYTES);

            for at in 4..sealed.len() {
                let mut altered = sealed.clone();
                altered[at] ^= 1;
                let mut room = b"what was there before".to_vec();
                let result = sealer.open_into(counter_nonce(9), b"aad", &altered[4..], &mut room);
                assert_eq!(result, Err(CryptoError::Sealed));
                assert_eq!(sealer.open(counter_nonce(9), b"aad", &mut altered, 4), Err(CryptoError::Sealed));
                assert_eq!(altered, b"head");
            }
            for length in 0..sealed.len() {
                let mut cut = sealed[..length].to_vec();
                assert!(sealer.open(counter_nonce(9), b"aad", &mut cut, 4).is_err());
            }
            assert!(sealer.open(counter_nonce(8), b"aad", &mut sealed.clone(), 4).is_err());
            assert!(sealer.open(counter_nonce(9), b"aae", &mut sealed.clone(), 4).is_err());
            let mut room = b"what was there before".to_vec();
            let opened = sealer.open_into(counter_nonce(9), b"aad", &sealed[4..], &mut room);
            assert_eq!(opened.unwrap(), b"payload");
            sealer.open(counter_nonce(9), b"aad", &mut sealed, 4).unwrap();
            assert_eq!(sealed, b"headpayload");
        }
    }

    /// Whatever the length: pieces that vector code takes, and what is left of them.
    #[test]
    fn both_implementations_of_chacha20_poly1305_agree() {
        let key = Secret::new([5; 32]);
        let (rust, sealer) =
            (ChaCha20Poly1305::new(key.expose().into()), Sealer::new(Suite::default(), &key));
        let mut room = Vec::new();
        for length in (0..700).chain([4096, 65_537, 1 << 20]) {
            let plain: Vec<u8> = (0..length).map(|n: usize| (n * n % 251) as u8).collect();
            let (nonce, associated) = (counter_nonce(length as u64), &plain[..length.min(20)]);
            let mut sealed = plain.clone();
            sealer.seal(nonce, associated, &mut sealed, 0).unwrap();
            let opened = sealer.open_into(nonce, associated, &sealed, &mut room).unwrap();
            assert!(opened == plain, "{length} bytes");
            let (body, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>().unwrap();
            let tag = chacha20poly1305::Tag::from(*tag);
            rust.decrypt_inout_detached(&Nonce::from(nonce), associated, InOutBuf::from(&mut *body), &tag)
                .unwrap();
            assert!(body == plain, "{length} bytes");
        }
    }

    #[test]
    fn nothing_can_be_sealed_too() {
        for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
            let mut buffer = Vec::new();
            seal_in_place(suite, &Secret::new([3; 32]), [0; 12], b"", &mut buffer, 0).unwrap();
            assert_eq!(buffer.len(), TAG_BYTES);
            open_in_place(suite, &Secret::new([3; 32]), [0; 12], b"", &mut buffer, 0).unwrap();
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn suites_by_number_and_name() {
        for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
            assert_eq!(Suite::try_from(suite.number()).unwrap(), suite);
            assert_eq!(suite.name().parse::<Suite>().unwrap(), suite);
        }
        assert!(Suite::try_from(0).is_err() && Suite::try_from(3).is_err());
    }
}
