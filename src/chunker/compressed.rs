//! Recognition of content that is already compressed or encrypted, for which nothing can be saved.

/// A format that leaves nothing to deduplicate or compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CompressedKind {
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// LZ4 frame.
    Lz4,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
    /// `pg_dump -Fc` with its compression on.
    PostgresCustom,
    /// zip.
    Zip,
    /// 7-Zip.
    SevenZip,
    /// lzop.
    Lzop,
    /// qpress, as xtrabackup writes it.
    Qpress,
    /// Snappy frame.
    Snappy,
    /// age-encrypted.
    Age,
    /// OpenPGP, binary or armoured message.
    OpenPgp,
    /// `openssl enc`.
    OpenSsl,
    /// `xbcrypt`, as xtrabackup encrypts.
    Xbcrypt,
}

impl CompressedKind {
    /// Returns the name that people know the format by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
            Self::PostgresCustom => "pg_dump custom format",
            Self::Zip => "zip",
            Self::SevenZip => "7-Zip",
            Self::Lzop => "lzop",
            Self::Qpress => "qpress",
            Self::Snappy => "snappy",
            Self::Age => "age",
            Self::OpenPgp => "OpenPGP",
            Self::OpenSsl => "openssl enc",
            Self::Xbcrypt => "xbcrypt",
        }
    }

    /// Says whether the content is encrypted rather than only compressed.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Age | Self::OpenPgp | Self::OpenSsl | Self::Xbcrypt)
    }
}

/// Recognises compressed or encrypted content by its first bytes (64 suffice).
pub fn compressed_kind(head: &[u8]) -> Option<CompressedKind> {
    MAGICS
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map(|(_, kind)| *kind)
        .or_else(|| postgres_custom(head).then_some(CompressedKind::PostgresCustom))
        .or_else(|| bzip2(head).then_some(CompressedKind::Bzip2))
        .or_else(|| skippable(head).then_some(CompressedKind::Zstd))
        .or_else(|| open_pgp(head).then_some(CompressedKind::OpenPgp))
}

/// First bytes that are proof enough by themselves.
const MAGICS: [(&[u8], CompressedKind); 15] = [
    (b"\x1f\x8b\x08", CompressedKind::Gzip),
    (b"\x28\xb5\x2f\xfd", CompressedKind::Zstd),
    (b"\x04\x22\x4d\x18", CompressedKind::Lz4),
    (b"\x02\x21\x4c\x18", CompressedKind::Lz4),
    (b"\xfd7zXZ\0", CompressedKind::Xz),
    (b"PK\x03\x04", CompressedKind::Zip),
    (b"7z\xbc\xaf\x27\x1c", CompressedKind::SevenZip),
    (b"\x89LZO\0\r\n\x1a\n", CompressedKind::Lzop),
    (b"qpress10", CompressedKind::Qpress),
    (b"\xff\x06\0\0sNaPpY", CompressedKind::Snappy),
    (b"age-encryption.org/", CompressedKind::Age),
    (b"-----BEGIN AGE ENCRYPTED FILE-----", CompressedKind::Age),
    (b"-----BEGIN PGP MESSAGE-----", CompressedKind::OpenPgp),
    (b"Salted__", CompressedKind::OpenSsl),
    (b"XBCRYP", CompressedKind::Xbcrypt),
];

/// `pg_dump -Fc`, unless it was told not to compress: only then does its archive deduplicate.
///
/// The header (`pg_backup_archiver.c`, `ReadHead`): magic, version major, minor and revision, length of
/// an integer, length of an offset, format (1 = custom), compression. Since version 1.15 the last is one
/// byte that names the algorithm; before, an integer with a sign byte in front, the level.
fn postgres_custom(head: &[u8]) -> bool {
    const CUSTOM: u8 = 1;
    let Some(rest) = head.strip_prefix(b"PGDMP") else { return false };
    match rest {
        [1, minor, _, _, _, CUSTOM, algorithm, ..] if *minor >= 15 => *algorithm != 0,
        [1, _, _, integer_bytes, _, CUSTOM, _sign, level @ ..] => {
            level.iter().take(usize::from(*integer_bytes)).any(|byte| *byte != 0)
        }
        _ => false,
    }
}

/// bzip2: a level, then the mark of a first block or of the end.
fn bzip2(head: &[u8]) -> bool {
    const BLOCK: [u8; 6] = [0x31, 0x41, 0x59, 0x26, 0x53, 0x59];
    const END: [u8; 6] = [0x17, 0x72, 0x45, 0x38, 0x50, 0x90];
    match head.strip_prefix(b"BZh") {
        Some([b'1'..=b'9', mark @ ..]) => mark.starts_with(&BLOCK) || mark.starts_with(&END),
        _ => false,
    }
}

/// A skippable frame, with which parallel compressors of Zstandard and LZ4 begin.
fn skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// A binary message of OpenPGP: a session key packet for a public key or for a passphrase.
fn open_pgp(head: &[u8]) -> bool {
    match head {
        [0x85, _, _, 3, _, _, _, _, _, _, _, _, algorithm, ..]
        | [0x84, _, 3, _, _, _, _, _, _, _, _, algorithm, ..] => matches!(algorithm, 1 | 2 | 16 | 18 | 25),
        [0x8c, _, 4, cipher, s2k, hash, ..] => {
            (1..=13).contains(cipher) && matches!(s2k, 0 | 1 | 3) && (1..=14).contains(hash)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognised() {
        let cases: [(&[u8], CompressedKind); 10] = [
            (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", CompressedKind::Gzip),
            (b"\x28\xb5\x2f\xfd\x04\x58", CompressedKind::Zstd),
            (b"\x50\x2a\x4d\x18\x04\0\0\0", CompressedKind::Zstd),
            (b"BZh91AY&SY\x94", CompressedKind::Bzip2),
            (b"\xfd7zXZ\0\0\x04", CompressedKind::Xz),
            // pg_dump 15 -Fc, 15 -Fc -Z 6, 16 -Fc.
            (b"PGDMP\x01\x0e\0\x04\x08\x01\x01\x01\0\0\0", CompressedKind::PostgresCustom),
            (b"PGDMP\x01\x0e\0\x04\x08\x01\0\x06\0\0\0", CompressedKind::PostgresCustom),
            (b"PGDMP\x01\x0f\0\x04\x08\x01\x01", CompressedKind::PostgresCustom),
            (b"Salted__12345678", CompressedKind::OpenSsl),
            (b"\x8c\x0d\x04\x09\x03\x0a", CompressedKind::OpenPgp),
        ];
        for (head, kind) in cases {
            assert_eq!(compressed_kind(head), Some(kind), "{head:x?}");
        }
    }

    #[test]
    fn what_can_be_deduplicated_is_not_advised_against() {
        let cases: [&[u8]; 8] = [
            b"",
            b"--\n-- PostgreSQL database dump\n--\n",
            b"-- MariaDB dump 10.19",
            b"BZh9 is how bzip2 begins",
            // Custom format without compression, before 16 and since.
            b"PGDMP\x01\x0e\0\x04\x08\x01\0\0\0\0\0\0\x27",
            b"PGDMP\x01\x10\0\x04\x08\x01\0\0\0\0\0",
            b"PGDMP",
            b"SQLite format 3\0",
        ];
        for head in cases {
            assert_eq!(compressed_kind(head), None, "{head:x?}");
        }
    }
}
