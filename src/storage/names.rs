//! What a name may look like: a few plain characters, so that no name can leave the repository and
//! every store (and every case-preserving file system) can hold it as it is.

use super::{Operation, StorageError};

/// The folder of unfinished writes on stores that have folders; no object's name lies under it.
pub const TEMPORARY_FOLDER: &str = "tmp";
/// Longest name.
pub const NAME_BYTES_MAX: usize = 512;
/// Longest part of a name between slashes.
pub const SEGMENT_BYTES_MAX: usize = 200;

/// Says whether one part of a name is well formed: letters, digits, `.`, `_`, `-`, no dot in front.
pub(super) fn segment_is_valid(segment: &[u8]) -> bool {
    !segment.is_empty()
        && segment.len() <= SEGMENT_BYTES_MAX
        && !segment.starts_with(b".")
        && segment.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

fn refuse(operation: Operation, name: &str, why: &'static str) -> StorageError {
    StorageError::Invalid { operation, name: name.to_owned(), why }
}

/// Refuses names that no object may have.
pub fn check_name(operation: Operation, name: &str) -> Result<(), StorageError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(refuse(operation, name, "the name is too long"));
    }
    if !name.split('/').all(|segment| segment_is_valid(segment.as_bytes())) {
        return Err(refuse(operation, name, "this is no name for an object"));
    }
    if name.split('/').next() == Some(TEMPORARY_FOLDER) {
        return Err(refuse(operation, name, "the name is kept for unfinished writes"));
    }
    Ok(())
}

/// Refuses prefixes that start no object's name. The empty prefix and a trailing slash are fine.
pub fn check_prefix(prefix: &str) -> Result<(), StorageError> {
    let name = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.is_empty() || "tmp".starts_with(prefix) {
        return Ok(());
    }
    check_name(Operation::List, name)
}

/// Refuses what no store could keep under that name.
pub(super) fn check_object(operation: Operation, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    check_name(operation, name)?;
    if bytes.is_empty() {
        return Err(refuse(operation, name, "no object is empty"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["chronolith", "packs/ab/0f", "logs/main.pg-17_a/x", "a", "tmpx/a", "x/tmp"] {
            assert!(check_name(Operation::Get, good).is_ok(), "{good}");
        }
        let long = "a/".repeat(400) + "a";
        let wide = "a".repeat(201);
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "../a",
            "a/../b",
            "./a",
            ".hidden",
            "a/.x",
            "a b",
            "a\n",
            "a\0b",
            "a\\b",
            "é",
            "tmp",
            "tmp/a",
            "a:b",
            "lost+found",
            &long,
            &wide,
        ] {
            assert!(check_name(Operation::Get, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn prefixes() {
        for good in ["", "packs", "packs/", "packs/a", "t", "tm"] {
            assert!(check_prefix(good).is_ok(), "{good}");
        }
        for bad in ["/", "..", "../", "a//", "packs/../", "tmp/", "a\0"] {
            assert!(check_prefix(bad).is_err(), "{bad:?}");
        }
    }
}
