//! The recovery sheet: everything that one key holds, as lines that can be printed and typed in again.
//!
//! It opens the repository when every slot and even the registry's grants are lost. Each line of
//! secrets ends with a check of two bytes, so that a typing error is found in its line. Layout:
//! `format-spec/keys.md`, "Recovery sheet".
//!
//! A loan has the same form and is never printed: it is what another process needs to read as this one does.

use super::error::RepoError;
use super::repository::Repository;
use crate::base::{Entropy, RepositoryId, Secret, SecretBytes, TrustId};
use crate::crypto::ContentSecretKey;
use crate::format::cbor::Extra;
use crate::format::grant::Bundle;
use crate::format::pack::BlobClass;
use crate::format::slot::Identity;
use zeroize::Zeroizing;

/// First line of a sheet.
pub const SHEET_TITLE: &str = "chronolith recovery sheet 1";
/// First line of a loan.
const LOAN_TITLE: &str = "chronolith loan 1";

/// What a sheet holds.
pub struct RecoverySheet {
    /// The repository it opens.
    pub repository: RepositoryId,
    /// Who the holder is.
    pub identity: Identity,
    /// The secrets of all epochs that were granted to that key.
    pub bundles: Vec<Bundle>,
}

fn check(words: &str) -> String {
    let hash = blake3::hash(words.as_bytes());
    hash.to_hex().as_str()[..4].to_owned()
}

/// Writes one line: a name, hexadecimal digits in groups of eight, the check.
fn line(out: &mut Zeroizing<String>, name: &str, bytes: &[u8]) {
    use std::fmt::Write;
    let mut words = Zeroizing::new(name.to_owned());
    for group in bytes.chunks(4) {
        words.push(' ');
        for byte in group {
            // Writing to a string cannot fail.
            let _ = write!(words, "{byte:02x}");
        }
    }
    out.push_str(&words);
    out.push_str(" / ");
    out.push_str(&check(&words));
    out.push('\n');
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// What some editors put before a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The lines of a sheet: names, and bytes that may be secret.
type Fields = Vec<(String, Zeroizing<Vec<u8>>)>;

/// Reads the lines of a sheet, each a name and bytes.
fn fields_of(text: &SecretBytes, title: &str) -> Result<Fields, RepoError> {
    let text = std::str::from_utf8(text.expose())
        .map_err(|_| RepoError::Usage("the recovery sheet is no text".to_owned()))?;
    let mut lines = text.lines().enumerate().filter(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    let first = lines.next().map_or("", |(_, line)| line.trim_start_matches(BYTE_ORDER_MARK));
    let (mut found, mut expected) = (first.split_whitespace(), title.split_whitespace());
    let words = title.split_whitespace().count();
    for number in 1..=words + 1 {
        let is_same = match (found.next(), expected.next()) {
            (Some(found), Some(expected)) => found.eq_ignore_ascii_case(expected),
            (found, expected) => found == expected,
        };
        // The last word is the version.
        match number == words {
            _ if is_same => {}
            true => return Err(RepoError::TooNew("the recovery sheet is of another version".to_owned())),
            false => {
                let why = format!("the recovery sheet has to begin with the line {title:?}");
                return Err(RepoError::Usage(why));
            }
        }
    }
    let mut fields: Fields = Vec::new();
    for (number, line) in lines {
        let wrong = |why: &str| RepoError::Usage(format!("line {} of the recovery sheet: {why}", number + 1));
        let (words, expected) = line.rsplit_once('/').ok_or_else(|| wrong("it has no check"))?;
        let words =
            Zeroizing::new(words.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase());
        if check(&words) != expected.trim().to_ascii_lowercase() {
            return Err(wrong("a digit is wrong"));
        }
        let (name, digits) = words.split_once(' ').ok_or_else(|| wrong("it has no digits"))?;
        let digits = Zeroizing::new(digits.replace(' ', ""));
        let bytes = hexadecimal(&digits).ok_or_else(|| wrong("it is not hexadecimal"))?;
        fields.push((name.to_owned(), Zeroizing::new(bytes)));
    }
    Ok(fields)
}

impl RecoverySheet {
    /// Writes the sheet of this repository's own key.
    pub fn export(repository: &Repository) -> SecretBytes {
        Self::write(repository, SHEET_TITLE, true)
    }

    /// Writes what lets another process read the repository as this one does: the secrets that a reader has, and
    /// none by which anything could be signed, unlocked or written.
    pub fn lend(repository: &Repository) -> SecretBytes {
        Self::write(repository, LOAN_TITLE, false)
    }

    fn write(repository: &Repository, title: &str, whole: bool) -> SecretBytes {
        let keyring = repository.keyring();
        let identity = &keyring.identity;
        let (sequence, known) = repository.registry().head();
        let mut out = Zeroizing::new(format!("{title}\n"));
        line(&mut out, "repository", repository.id().as_bytes());
        if whole {
            line(&mut out, "signing", identity.seed.expose());
            line(&mut out, "exchange", identity.exchange.secret().expose());
        }
        line(&mut out, "genesis", identity.genesis.as_bytes());
        line(&mut out, "registry", &[sequence.to_be_bytes().as_slice(), known.as_bytes()].concat());
        if let Ok(ids) = keyring.id_key(BlobClass::Metadata) {
            line(&mut out, "metadata-ids", ids.secret().expose());
        }
        if let Ok(ids) = keyring.id_key(BlobClass::Content) {
            line(&mut out, "content-ids", ids.secret().expose());
        }
        if let Some(seed) = keyring.chunker_seed().ok().filter(|_| whole) {
            line(&mut out, "chunker", seed.expose());
        }
        for epoch in keyring.epochs() {
            let number = epoch.number.to_be_bytes();
            let secret = |secret: &Secret| Zeroizing::new([number.as_slice(), secret.expose()].concat());
            line(&mut out, "epoch-metadata", &secret(&epoch.metadata));
            if let Some(content) = &epoch.content_secret {
                line(&mut out, "epoch-content", &secret(content.secret()));
            }
        }
        SecretBytes::new(out.as_bytes().to_vec())
    }

    /// Says whether this is the text of a sheet, good or bad: typed by hand, perhaps without its title.
    pub fn recognise(text: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(text) else { return false };
        let mut words = text.trim_start_matches(BYTE_ORDER_MARK).split_whitespace();
        let title = ["chronolith", "recovery", "sheet"];
        let has_title =
            title.iter().all(|word| words.next().is_some_and(|found| found.eq_ignore_ascii_case(word)));
        let begins = |line: &str, name: &str| {
            line.trim_start().get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name))
        };
        let has_line = |name: &str| text.lines().any(|line| begins(line, name));
        has_title || has_line("signing ") && has_line("epoch-metadata ")
    }

    /// Reads a sheet as it was printed; empty lines, and lines that begin with `#`, are passed over.
    ///
    /// # Errors
    ///
    /// [`RepoError::Usage`] with the number of the line that does not hold.
    pub fn parse(text: &SecretBytes) -> Result<Self, RepoError> {
        Self::from_fields(&fields_of(text, SHEET_TITLE)?)
            .ok_or_else(|| RepoError::Usage("the recovery sheet is not complete".to_owned()))
    }

    /// Reads a loan. Whoever borrows is nobody in particular: its identity is drawn, and signs nothing that counts.
    ///
    /// # Errors
    ///
    /// As [`RecoverySheet::parse`].
    pub fn parse_loan(text: &SecretBytes, entropy: &dyn Entropy) -> Result<Self, RepoError> {
        let mut fields = fields_of(text, LOAN_TITLE)?;
        for name in ["signing", "exchange"] {
            let drawn: [u8; 32] = entropy.draw();
            fields.retain(|(field, _)| field != name);
            fields.push((name.to_owned(), Zeroizing::new(drawn.to_vec())));
        }
        Self::from_fields(&fields).ok_or_else(|| RepoError::Usage("the loan is not complete".to_owned()))
    }

    fn from_fields(fields: &[(String, Zeroizing<Vec<u8>>)]) -> Option<Self> {
        let one = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.as_slice());
        let key = |name: &str| -> Option<[u8; 32]> { one(name)?.try_into().ok() };
        let by_epoch = |name: &'static str| {
            fields.iter().filter(move |(n, _)| n == name).filter_map(|(_, bytes)| {
                let (number, secret) = bytes.split_first_chunk::<4>()?;
                Some((u32::from_be_bytes(*number), Secret::new(secret.try_into().ok()?)))
            })
        };
        let (sequence, known) = one("registry")?.split_first_chunk::<8>()?;
        let genesis = TrustId::new(key("genesis")?);
        let metadata_ids = Secret::new(key("metadata-ids")?);
        let secret = |name| key(name).map(Secret::new);
        let bundles = by_epoch("epoch-metadata")
            .map(|(epoch, metadata)| Bundle {
                epoch,
                metadata,
                content: by_epoch("epoch-content")
                    .find(|(number, _)| *number == epoch)
                    .map(|(_, secret)| ContentSecretKey::new(secret)),
                content_ids: secret("content-ids"),
                metadata_ids: metadata_ids.duplicate(),
                chunker_seed: secret("chunker"),
                extra: Extra::new(),
            })
            .collect();
        Some(Self {
            repository: RepositoryId::new(key("repository")?),
            identity: Identity {
                signing_seed: secret("signing")?,
                exchange: ContentSecretKey::new(secret("exchange")?),
                genesis,
                // The registry decides; this is for messages only.
                role: crate::format::trust::Role::Reader,
                known: TrustId::new(known.try_into().ok()?),
                known_sequence: u64::from_be_bytes(*sequence),
                extra: Extra::new(),
            },
            bundles,
        })
    }
}
