//! Paths as bytes: joined, shown, and checked before they touch the file system.

use super::LocalError;
use std::fmt::Write;

/// Writes a path below a root for people. That of the root is empty, and nobody would see it.
pub fn path_text(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { printable(path) }
}

/// Writes a path for people: what is not printable or not UTF-8 appears as `\n`, `\x1b`, `\xff`.
pub fn printable(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Refuses what is no name of one entry of a folder: whoever made a snapshot chose it, and it must
/// not lead anywhere else.
pub fn check_component(name: &[u8]) -> Result<(), LocalError> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(LocalError::InvalidName { name: name.to_owned() });
    }
    Ok(())
}

/// Appends a component to a path.
pub(super) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(folder.len() + 1 + name.len());
    path.extend_from_slice(folder);
    if !folder.is_empty() && !folder.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Splits a path into its folder and its last component; `/` and `.` are their own folders.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let (trimmed, _) = path.split_at(end);
    match trimmed.iter().rposition(|byte| *byte == b'/') {
        _ if trimmed.is_empty() => (if path.is_empty() { b"." } else { b"/" }, b"."),
        None => (b".", trimmed),
        Some(slash) => {
            let (folder, name) = trimmed.split_at(slash + 1);
            (folder, name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_on_one_line() {
        assert_eq!(printable("grün/a b".as_bytes()), "grün/a b");
        assert_eq!(printable(b"a\nb\x1b[2J\xff\\"), "a\\nb\\u{1b}[2J\\xff\\\\");
    }

    #[test]
    fn components() {
        for good in [&b"a"[..], b"...", b" ", b"\n", b"\xff", b".a"] {
            assert!(check_component(good).is_ok());
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
            assert!(check_component(bad).is_err());
        }
    }

    #[test]
    fn splitting() {
        let cases: [(&[u8], &[u8], &[u8]); 8] = [
            (b"/a/b", b"/a/", b"b"),
            (b"/a/b//", b"/a/", b"b"),
            (b"/a", b"/", b"a"),
            (b"a", b".", b"a"),
            (b"/", b"/", b"."),
            (b"//", b"/", b"."),
            (b"", b".", b"."),
            (b"a/..", b"a/", b".."),
        ];
        for (path, folder, name) in cases {
            assert_eq!(split(path), (folder, name), "{}", printable(path));
        }
        assert_eq!(join(b"/", b"a"), b"/a");
        assert_eq!(join(b"a", b"b"), b"a/b");
        assert_eq!(join(b"", b"b"), b"b");
    }
}
