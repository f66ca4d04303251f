//! Where a key may write: patterns for hosts, labels and log streams.

use crate::base::limits::{NAME_BYTES_MAX, TRUST_PATTERNS_MAX};
use crate::format::FormatError;
use crate::format::bytes::ensure;
use crate::format::cbor::Reader;

/// The hosts, labels and streams that a key may write. An empty list means any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Patterns of hosts.
    pub hosts: Vec<String>,
    /// Patterns of labels.
    pub labels: Vec<String>,
    /// Patterns of log streams.
    pub streams: Vec<String>,
}

impl Scope {
    /// Says whether snapshots of this host and label are within.
    pub fn covers_snapshot(&self, host: &str, label: &str) -> bool {
        any(&self.hosts, host) && any(&self.labels, label)
    }

    /// Says whether the log stream is within.
    pub fn covers_stream(&self, stream: &str) -> bool {
        any(&self.streams, stream)
    }

    pub(super) fn decode_patterns(value: Reader<'_, '_>) -> Result<Vec<String>, FormatError> {
        let patterns =
            value.array(TRUST_PATTERNS_MAX, |pattern| pattern.text(NAME_BYTES_MAX).map(str::to_owned))?;
        ensure(!patterns.is_empty(), "scope", "an empty list is left out")?;
        Ok(patterns)
    }
}

fn any(patterns: &[String], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text))
}

/// Says whether the pattern describes the whole text: `*` stands for any run of characters, `?` for one,
/// every other character for itself.
///
/// Takes time proportional to the product of the lengths at worst.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // Where to go on if the present attempt fails: behind the newest `*`, one character further on.
    let mut retry = None;
    loop {
        let mut rest = pattern.clone();
        match (rest.next(), text.clone().next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((rest.clone(), text.clone()));
                pattern = rest;
                continue;
            }
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                pattern = rest;
                text.next();
                continue;
            }
            _ => {}
        }
        let Some((behind, from)) = &mut retry else { return false };
        if from.next().is_none() {
            return false;
        }
        (pattern, text) = (behind.clone(), from.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "anything"),
            ("db-?", "db-1"),
            ("db-*", "db-"),
            ("*.example.org", "db.example.org"),
            ("a*b*c", "aXbXbXc"),
            ("?", "ü"),
            ("[a]", "[a]"),
            ("**", "x"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "x"),
            ("?", ""),
            ("db-?", "db-12"),
            ("db", "DB"),
            ("a*b", "a"),
            ("a*b*c", "aXbX"),
            ("[a]", "a"),
            ("db", "db2"),
            ("*a", "ab"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        let hostile = "*a".repeat(500);
        assert!(!matches(&hostile, &"a".repeat(499)));
    }
}
