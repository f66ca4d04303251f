//! The configuration: the one object in plain text, so that anybody sees what lies here and which
//! program reads it; see `format-spec/config.md`.
//!
//! Lines in a fixed order, each ended by one line feed; the last two name the signer and hold the
//! signature over everything before it.

use super::FormatError;
use super::bytes::{at_most, ensure};
use crate::base::limits::CONFIG_BYTES_MAX;
use crate::base::{KeyId, RepositoryId};
use crate::chunker::{CutParameters, PageCutter};
use crate::crypto::{PasswordParameters, SIGNATURE_BYTES, Suite};
use std::fmt::Write;
use std::str::FromStr;

const WHAT: &str = "configuration";
const MAGIC: &str = "chronolith repository\n";
/// The version of the format that this program reads and writes.
pub const FORMAT_VERSION: u64 = 1;
const CHUNKER: &str = "fastcdc-v2020-keyed";

/// What a program may do that does not know a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FeatureClass {
    /// Everything.
    Ignore,
    /// Read, but not write.
    ReadOnly,
    /// Nothing.
    Refuse,
}

impl FeatureClass {
    const ALL: [Self; 3] = [Self::Ignore, Self::ReadOnly, Self::Refuse];

    /// Returns the word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::ReadOnly => "read-only",
            Self::Refuse => "refuse",
        }
    }
}

/// Something that a repository uses beyond the first version of the format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// What a program may do that does not know it.
    pub class: FeatureClass,
    /// Its name: lower-case letters, digits and hyphens.
    pub name: String,
    /// The first version of the program that knows it.
    pub program: String,
    /// A sentence for whoever has an older program.
    pub message: String,
}

/// How far a program may go with a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access<'a> {
    /// Read and write.
    Full,
    /// Read; this feature forbids more.
    ReadOnly(&'a Feature),
    /// Nothing, because of this feature.
    Refused(&'a Feature),
}

/// What a repository is: its id, its parameters, its features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The repository's id.
    pub repository: RepositoryId,
    /// Number of this configuration, from 1; who has seen a higher one refuses a lower one.
    pub revision: u64,
    /// The cipher that was chosen at init.
    pub suite: Suite,
    /// How streams are cut.
    pub cut: CutParameters,
    /// Length of the chunks of database files, in bytes.
    pub page_chunk_bytes: u32,
    /// What stretching a password costs in new slots.
    pub password: PasswordParameters,
    /// Lines that this program does not know, each without its line feed.
    pub extra: Vec<String>,
    /// Features, ascending by name.
    pub features: Vec<Feature>,
    /// The owner that signed it.
    pub signer: KeyId,
}

/// A configuration taken apart. Nothing is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedConfig<'a> {
    /// The content.
    pub config: Config,
    /// Everything that the signature covers.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Config {
    /// Reads a configuration. A newer format is told by its first two lines, whatever follows.
    pub fn parse(stored: &[u8]) -> Result<ParsedConfig<'_>, FormatError> {
        at_most(WHAT, stored.len() as u64, CONFIG_BYTES_MAX)?;
        check_magic(stored)?;
        let text = std::str::from_utf8(stored).map_err(|_| invalid("it is not UTF-8"))?;
        let mut lines = Lines { rest: text };
        lines.next()?;
        if decimal::<u64>(lines.value("format")?)? != FORMAT_VERSION {
            return Err(FormatError::Unsupported { what: "format version" });
        }
        let config = Self {
            repository: lines.value("repository")?.parse().map_err(|_| invalid("the repository's id"))?,
            revision: decimal(lines.value("revision")?)?,
            suite: Suite::from_str(lines.value("suite")?)
                .map_err(|_| FormatError::Unsupported { what: "cipher suite" })?,
            cut: cut_parameters(lines.value("chunker")?)?,
            page_chunk_bytes: page_chunk_bytes(lines.value("pages")?)?,
            password: password_parameters(lines.value("password")?)?,
            extra: lines.unknown()?,
            features: lines.features()?,
            signer: lines.value("signer")?.parse().map_err(|_| invalid("the signer's id"))?,
        };
        ensure(config.revision >= 1, WHAT, "revisions are numbered from 1")?;
        let signed = stored.get(..stored.len() - lines.rest.len()).ok_or(FormatError::Truncated)?;
        let signature = hexadecimal(lines.value("signature")?)?;
        ensure(lines.rest.is_empty(), WHAT, "lines follow the signature")?;
        Ok(ParsedConfig { config, signed, signature })
    }

    /// Writes everything that the signature covers; [`Config::finish`] adds it.
    pub fn encode(&self) -> String {
        let mut text = MAGIC.to_owned();
        let (cut, password) = (&self.cut, &self.password);
        line(&mut text, format_args!("format {FORMAT_VERSION}"));
        line(&mut text, format_args!("repository {}", self.repository));
        line(&mut text, format_args!("revision {}", self.revision));
        line(&mut text, format_args!("suite {}", self.suite));
        let (minimum, average, maximum) = (cut.minimum(), cut.average(), cut.maximum());
        line(&mut text, format_args!("chunker {CHUNKER} {minimum} {average} {maximum}"));
        line(&mut text, format_args!("pages {}", self.page_chunk_bytes));
        let (memory, passes, lanes) = (password.memory_kib(), password.passes(), password.lanes());
        line(&mut text, format_args!("password argon2id {memory} {passes} {lanes}"));
        for unknown in &self.extra {
            line(&mut text, format_args!("{unknown}"));
        }
        for Feature { class, name, program, message } in &self.features {
            line(&mut text, format_args!("feature {} {name} {program} {message}", class.name()));
        }
        line(&mut text, format_args!("signer {}", self.signer));
        text
    }

    /// Appends the signature to what [`Config::encode`] wrote.
    pub fn finish(mut encoded: String, signature: &[u8; SIGNATURE_BYTES]) -> Vec<u8> {
        encoded.push_str("signature ");
        for byte in signature {
            let _ = write!(encoded, "{byte:02x}");
        }
        encoded.push('\n');
        encoded.into_bytes()
    }

    /// Says how far a program may go that knows these features.
    pub fn access(&self, known: &[&str]) -> Access<'_> {
        let unknown = self.features.iter().filter(|feature| !known.contains(&feature.name.as_str()));
        match unknown.max_by_key(|feature| feature.class) {
            Some(feature) if feature.class == FeatureClass::Refuse => Access::Refused(feature),
            Some(feature) if feature.class == FeatureClass::ReadOnly => Access::ReadOnly(feature),
            _ => Access::Full,
        }
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{content}");
}

fn invalid(why: &'static str) -> FormatError {
    FormatError::Invalid { what: WHAT, why }
}

/// Tells a file that is cut short within the first line from one that is something else.
fn check_magic(stored: &[u8]) -> Result<(), FormatError> {
    if stored.starts_with(MAGIC.as_bytes()) {
        Ok(())
    } else if MAGIC.as_bytes().starts_with(stored) {
        Err(FormatError::Truncated)
    } else {
        Err(FormatError::BadMagic)
    }
}

struct Lines<'a> {
    rest: &'a str,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a str, FormatError> {
        let (line, rest) = self.rest.split_once('\n').ok_or(FormatError::Truncated)?;
        ensure(!line.contains(|c: char| c.is_control()), WHAT, "a line has control characters")?;
        self.rest = rest;
        Ok(line)
    }

    /// Returns the keyword of the next line, which is left where it is.
    fn keyword(&self) -> &'a str {
        self.rest.split(['\n', ' ']).next().unwrap_or_default()
    }

    /// Takes the next line, which must have this keyword.
    fn value(&mut self, keyword: &'static str) -> Result<&'a str, FormatError> {
        let line = self.next()?;
        let value = line.strip_prefix(keyword).and_then(|rest| rest.strip_prefix(' '));
        value
            .ok_or(FormatError::Invalid { what: keyword, why: "this line of the configuration is not there" })
    }

    /// Takes the lines of newer programs, which stand before the features.
    fn unknown(&mut self) -> Result<Vec<String>, FormatError> {
        const KNOWN: [&str; 8] =
            ["format", "repository", "revision", "suite", "chunker", "pages", "password", "signature"];
        let mut unknown = Vec::new();
        while !["feature", "signer"].contains(&self.keyword()) {
            ensure(!KNOWN.contains(&self.keyword()), WHAT, "a line is there twice or out of order")?;
            let line = self.next()?;
            ensure(is_name(line.split(' ').next().unwrap_or_default()), WHAT, "a line has no keyword")?;
            unknown.push(line.to_owned());
        }
        Ok(unknown)
    }

    fn features(&mut self) -> Result<Vec<Feature>, FormatError> {
        let mut features = Vec::<Feature>::new();
        while self.keyword() == "feature" {
            let mut words = self.value("feature")?.splitn(4, ' ');
            let mut word = || words.next().filter(|word| !word.is_empty()).ok_or(invalid("a feature"));
            let (class, name, program, message) = (word()?, word()?, word()?, word()?);
            let class = FeatureClass::ALL.into_iter().find(|known| known.name() == class);
            // A class that nobody has thought of yet forbids everything, to be safe.
            let class = class.ok_or(FormatError::Unsupported { what: "class of a feature" })?;
            ensure(is_name(name), WHAT, "the name of a feature")?;
            let ascending = features.last().is_none_or(|last| last.name.as_str() < name);
            ensure(ascending, WHAT, "the features are not in ascending order")?;
            let [name, program, message] = [name, program, message].map(str::to_owned);
            features.push(Feature { class, name, program, message });
        }
        Ok(features)
    }
}

/// Lower-case letters, digits and hyphens.
fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Reads a number in its only form: no sign, no leading zero.
fn decimal<T: FromStr>(word: &str) -> Result<T, FormatError> {
    let canonical = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    ensure(canonical, WHAT, "a number is not in its only form")?;
    word.parse().map_err(|_| invalid("a number is out of range"))
}

fn numbers<const N: usize>(words: &str) -> Result<[u32; N], FormatError> {
    let mut numbers = [0; N];
    let mut words = words.split(' ');
    for number in &mut numbers {
        *number = decimal(words.next().ok_or(invalid("a number is missing"))?)?;
    }
    ensure(words.next().is_none(), WHAT, "there are too many numbers")?;
    Ok(numbers)
}

fn cut_parameters(value: &str) -> Result<CutParameters, FormatError> {
    let (name, rest) = value.split_once(' ').ok_or(invalid("the chunker"))?;
    if name != CHUNKER {
        return Err(FormatError::Unsupported { what: "chunker" });
    }
    let [minimum, average, maximum] = numbers(rest)?;
    CutParameters::new(minimum, average, maximum).map_err(|_| invalid("the chunker's parameters"))
}

fn page_chunk_bytes(value: &str) -> Result<u32, FormatError> {
    let [bytes] = numbers(value)?;
    PageCutter::new(bytes).map(|cutter| cutter.chunk_bytes()).map_err(|_| invalid("the length of pages"))
}

fn password_parameters(value: &str) -> Result<PasswordParameters, FormatError> {
    let (name, rest) = value.split_once(' ').ok_or(invalid("the password function"))?;
    if name != "argon2id" {
        return Err(FormatError::Unsupported { what: "password function" });
    }
    let [memory_kib, passes, lanes] = numbers(rest)?;
    PasswordParameters::new(memory_kib, passes, lanes)
        .map_err(|_| invalid("the password function's parameters"))
}

fn hexadecimal<const N: usize>(digits: &str) -> Result<[u8; N], FormatError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(invalid("not hexadecimal digits")),
    };
    let mut bytes = [0; N];
    ensure(digits.len() == 2 * N, WHAT, "the wrong number of digits")?;
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        if let [high, low] = pair {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feature(class: FeatureClass, name: &str) -> Feature {
        let (program, message) = ("2.1".to_owned(), "needs a newer program".to_owned());
        Feature { class, name: name.to_owned(), program, message }
    }

    fn config() -> Config {
        Config {
            repository: RepositoryId::new([0xAB; 32]),
            revision: 3,
            suite: Suite::Aes256Gcm,
            cut: CutParameters::new(65536, 262_144, 1_048_576).unwrap(),
            page_chunk_bytes: 131_072,
            password: PasswordParameters::default(),
            extra: vec!["colour blue as the sea".to_owned()],
            features: vec![
                feature(FeatureClass::ReadOnly, "other-cuts"),
                feature(FeatureClass::Ignore, "parity-2"),
            ],
            signer: KeyId::new([0xCD; 32]),
        }
    }

    fn stored(config: &Config) -> Vec<u8> {
        Config::finish(config.encode(), &[0x5A; 64])
    }

    #[test]
    fn comes_back_the_same() {
        let config = config();
        let stored = stored(&config);
        let parsed = Config::parse(&stored).unwrap();
        assert_eq!(parsed.config, config);
        assert_eq!(parsed.signature, [0x5A; 64]);
        assert_eq!(parsed.signed, config.encode().as_bytes());
        for length in 0..stored.len() {
            assert_eq!(Config::parse(&stored[..length]), Err(FormatError::Truncated), "{length}");
        }
    }

    #[test]
    fn a_program_goes_as_far_as_the_features_it_does_not_know_let_it() {
        let mut config = config();
        assert!(matches!(config.access(&[]), Access::ReadOnly(feature) if feature.name == "other-cuts"));
        assert_eq!(config.access(&["other-cuts"]), Access::Full);
        config.features.push(feature(FeatureClass::Refuse, "quantum"));
        assert!(
            matches!(config.access(&["other-cuts"]), Access::Refused(feature) if feature.name == "quantum")
        );
        assert_eq!(config.access(&["other-cuts", "quantum"]), Access::Full);
    }

    #[test]
    fn one_way_to_write_it() {
        let good = String::from_utf8(stored(&config())).unwrap();
        for (from, to) in [
            ("revision 3", "revision 03"),
            ("revision 3", "revision +3"),
            ("revision 3", "revision 0"),
            ("revision 3", "revision 3 "),
            ("revision 3", "revision  3"),
            ("revision 3\n", "revision 3\r\n"),
            ("revision 3\n", ""),
            ("revision 3\n", "revision 3\nrevision 3\n"),
            ("repository ab", "repository AB"),
            ("repository ab", "repository "),
            ("262144", "262143"),
            ("1048576", "1048576 1"),
            ("pages 131072", "pages 0"),
            ("pages 131072", "pages 4294967296"),
            ("argon2id 65536 3 4", "argon2id 65536 3 0"),
            ("argon2id 65536 3 4", "argon2id 4294967295 3 4"),
            ("colour", "Colour"),
            ("colour", " colour"),
            ("colour", "suite"),
            ("parity-2 2.1", "apples 2.1"),
            ("parity-2 2.1", "other-cuts 2.1"),
            ("parity-2 2.1 needs a newer program", "parity-2 2.1"),
            ("signer cd", "signer xy"),
            ("signature 5a", "signature 5A"),
            ("signature 5a", "signature "),
            ("5a\n", "5a\nmore\n"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert!(
                matches!(Config::parse(bad.as_bytes()), Err(FormatError::Invalid { .. })),
                "{from:?} {to:?}"
            );
        }
        for (from, to) in [
            ("format 1", "format 2"),
            ("aes-256-gcm", "rot13"),
            ("fastcdc-v2020-keyed", "buzhash"),
            ("argon2id", "scrypt"),
            ("feature ignore", "feature frobnicate"),
        ] {
            let newer = good.replacen(from, to, 1);
            assert!(matches!(Config::parse(newer.as_bytes()), Err(FormatError::Unsupported { .. })), "{to}");
        }
        assert_eq!(Config::parse(b"something else"), Err(FormatError::BadMagic));
        let long = vec![b'x'; 70_000];
        assert!(matches!(Config::parse(&long), Err(FormatError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_faithful(at in 0..900_usize, byte: u8) {
            let mut stored = stored(&config());
            let at = at % stored.len();
            stored[at] = byte;
            if let Ok(parsed) = Config::parse(&stored) {
                prop_assert_eq!(Config::finish(parsed.config.encode(), &parsed.signature), stored);
            }
        }
    }
}
