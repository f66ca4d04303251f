//! Whom comments, privileges and security labels of an archive speak of.
//!
//! `pg_dump` tags them `KIND NAME`, with the name as a statement has it (`fmtId`): in quotes where it is no plain word of
//! lower-case letters, or a word of the language. The entry of the thing itself is tagged with the bare name.

use super::statement::unquoted;
use crate::postgres::dump::contents::TocEntry;

/// Kinds of entries that only speak of another.
const ABOUT_OTHERS: [&str; 3] = ["ACL", "COMMENT", "SECURITY LABEL"];

/// Says whether an entry only speaks of another one: its privileges, its comment, its label.
pub(super) fn is_about_another(entry: &TocEntry) -> bool {
    ABOUT_OTHERS.iter().any(|kind| entry.is(kind))
}

/// Says whether an entry only speaks of what has this kind and this bare name, which no schema contains.
pub(super) fn is_about(entry: &TocEntry, kind: &str, name: &[u8]) -> bool {
    let tag = entry.tag.as_deref().unwrap_or_default();
    let is_outside = entry.schema.as_ref().is_none_or(Vec::is_empty);
    let written = tag.strip_prefix(kind.as_bytes()).and_then(|rest| rest.strip_prefix(b" "));
    is_about_another(entry)
        && is_outside
        && written.is_some_and(|written| match unquoted(written) {
            Some(bare) => bare == name,
            None => written == name,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, tag: &str, schema: &str) -> TocEntry {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let mut entry = TocEntry::default();
        (entry.kind, entry.tag, entry.schema) = (text(kind), text(tag), text(schema));
        entry
    }

    #[test]
    fn names_are_compared_however_they_are_written() {
        for (written, name) in [
            ("app", "app"),
            ("\"dash-db\"", "dash-db"),
            ("\"Shop\"", "Shop"),
            ("\"user\"", "user"),
            ("\"a b\"", "a b"),
            ("\"a\"\"b\"", "a\"b"),
            ("\"\"\"\"", "\""),
        ] {
            for kind in ["ACL", "COMMENT", "SECURITY LABEL"] {
                let about = entry(kind, &format!("SCHEMA {written}"), "");
                assert!(is_about(&about, "SCHEMA", name.as_bytes()), "{written}");
                assert!(!is_about(&about, "DATABASE", name.as_bytes()), "{written}");
                assert!(!is_about(&about, "SCHEMA", written.to_uppercase().as_bytes()), "{written}");
            }
        }
        assert!(!is_about(&entry("ACL", "SCHEMA shop", ""), "SCHEMA", b"sho"));
        assert!(!is_about(&entry("ACL", "SCHEMA \"a\"\"b\"", ""), "SCHEMA", b"a\"\"b"));
        // A table may have any name, and a schema around it.
        assert!(!is_about(&entry("TABLE", "DATABASE app", "public"), "DATABASE", b"app"));
        assert!(!is_about(&entry("COMMENT", "DATABASE app", "public"), "DATABASE", b"app"));
        assert!(!is_about(&entry("DATABASE", "DATABASE app", ""), "DATABASE", b"app"));
        assert!(!is_about(&TocEntry::default(), "SCHEMA", b""));
    }
}
