//! The configuration.

use super::{Case, Object, cut, keys, longer};
use chronolith::chunker::CutParameters;
use chronolith::crypto::{PasswordParameters, SignedMessage, Suite};
use chronolith::format::ObjectKind;
use chronolith::format::config::{Config, Feature, FeatureClass};

pub const OBJECT: Object = Object {
    name: "config",
    recode: |bytes| {
        let parsed = Config::parse(bytes)?;
        Ok(Config::finish(parsed.config.encode(), &parsed.signature))
    },
    cases,
};

fn config() -> Config {
    Config {
        repository: keys::repository(),
        revision: 1,
        suite: Suite::ChaCha20Poly1305,
        cut: CutParameters::new(65536, 262_144, 1_048_576).unwrap(),
        page_chunk_bytes: 131_072,
        password: PasswordParameters::default(),
        extra: Vec::new(),
        features: Vec::new(),
        signer: keys::owner().key_id(),
    }
}

fn signed(config: &Config) -> Vec<u8> {
    let encoded = config.encode();
    let kind = ObjectKind::Configuration.number();
    let signature = keys::owner().sign(&SignedMessage::new(&keys::repository(), kind, encoded.as_bytes()));
    Config::finish(encoded, &signature)
}

fn cases() -> Vec<Case> {
    let plain = signed(&config());
    let feature = |class, name: &str, message: &str| {
        let (name, program, message) = (name.to_owned(), "9.0".to_owned(), message.to_owned());
        Feature { class, name, program, message }
    };
    let full = signed(&Config {
        revision: 18_446_744_073_709_551_615,
        suite: Suite::Aes256Gcm,
        extra: vec!["colour blue, like the sea".to_owned()],
        features: vec![
            feature(FeatureClass::ReadOnly, "other-cuts", "Older programs would cut streams elsewhere."),
            feature(FeatureClass::Ignore, "parity-2", "Nothing to fear."),
        ],
        ..config()
    });
    let text = String::from_utf8(plain.clone()).unwrap();
    let full_text = String::from_utf8(full.clone()).unwrap();
    let replaced = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let full_replaced = |from: &str, to: &str| {
        assert!(full_text.contains(from), "{from}");
        full_text.replacen(from, to, 1)
    };
    vec![
        Case::accept("plain", "a configuration without features", plain.clone()),
        Case::accept("full", "with an unknown line and two features", full),
        Case::truncated("nothing", "no bytes", []),
        Case::truncated("first-line", "within the first line", cut(&plain, 10)),
        Case::truncated("half", "within a line", cut(&plain, 150)),
        Case::truncated("last-line-feed", "the last line feed is missing", cut(&plain, plain.len() - 1)),
        Case::unsupported(
            "format",
            "[CONFIG-3]: format 2, with lines that nobody knows",
            "chronolith repository\nformat 2\nanything\n",
        ),
        Case::unsupported(
            "suite",
            "a cipher suite that is not known",
            replaced("chacha20-poly1305", "rot13"),
        ),
        Case::unsupported(
            "chunker",
            "a chunker that is not known",
            replaced("fastcdc-v2020-keyed", "buzhash"),
        ),
        Case::unsupported(
            "password",
            "a password function that is not known",
            replaced("argon2id", "scrypt"),
        ),
        Case::unsupported(
            "feature-class",
            "[CONFIG-9]: a class of feature that is not known",
            full_replaced("feature ignore", "feature perhaps"),
        ),
        Case::corrupt(
            "magic",
            "[CONFIG-1]: another first line",
            replaced("chronolith repository", "chronolith repositorY"),
        ),
        Case::corrupt(
            "carriage-return",
            "[CONFIG-2]: a line ends with carriage return and line feed",
            replaced("revision 1\n", "revision 1\r\n"),
        ),
        Case::corrupt("missing-line", "[CONFIG-4]: no revision", replaced("revision 1\n", "")),
        Case::corrupt(
            "doubled-line",
            "[CONFIG-4]: two revisions",
            replaced("revision 1\n", "revision 1\nrevision 1\n"),
        ),
        Case::corrupt(
            "late-line",
            "[CONFIG-4]: a known line among the unknown",
            replaced("signer", "suite aes-256-gcm\nsigner"),
        ),
        Case::corrupt("leading-zero", "[CONFIG-5]: 01", replaced("revision 1", "revision 01")),
        Case::corrupt("sign", "[CONFIG-5]: +1", replaced("revision 1", "revision +1")),
        Case::corrupt("revision-zero", "[CONFIG-6]: revision 0", replaced("revision 1", "revision 0")),
        Case::corrupt(
            "upper-case",
            "[CONFIG-5]: hexadecimal digits in upper case",
            replaced("signature ", "signature AA"),
        ),
        Case::corrupt(
            "short-id",
            "the repository's id has 62 digits",
            replaced("repository 11", "repository "),
        ),
        Case::corrupt("odd-cut", "[CONFIG-7]: an average of 262143", replaced("262144", "262143")),
        Case::corrupt(
            "cut-order",
            "[CONFIG-7]: a minimum above the average",
            replaced("65536 262144", "524288 262144"),
        ),
        Case::corrupt("pages", "[CONFIG-7]: pages of 100000", replaced("pages 131072", "pages 100000")),
        Case::corrupt(
            "costs",
            "[CONFIG-7]: a password function of 1025 MiB",
            replaced("argon2id 65536", "argon2id 1049600"),
        ),
        Case::corrupt(
            "feature-order",
            "[CONFIG-9]: features that descend",
            full_replaced("parity-2", "apples"),
        ),
        Case::corrupt(
            "feature-message",
            "[CONFIG-9]: a feature without a message",
            full_replaced(" Nothing to fear.", ""),
        ),
        Case::corrupt("trailing-line", "[CONFIG-4]: a line follows the signature", longer(&plain, b"more\n")),
    ]
}
