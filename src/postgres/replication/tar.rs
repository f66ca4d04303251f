//! Archives of files as a server makes them: `ustar` headers, names of at most 100 bytes, lengths in octal or,
//! of long files, in base 256.

use std::io::{self, Read};

const BLOCK_BYTES: usize = 512;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It could not be read.
    #[error("the archive cannot be read")]
    Read(#[from] io::Error),
    /// It is none.
    #[error("the archive is damaged: {0}")]
    Damaged(&'static str),
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarKind {
    /// A file, whose bytes follow.
    File,
    /// A folder.
    Folder,
    /// A link.
    Link,
}

/// What an archive says of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// Its path: names, none of which is empty or leads elsewhere.
    pub path: Vec<Vec<u8>>,
    /// What it is.
    pub kind: TarKind,
    /// Length of its bytes.
    pub size: u64,
    /// Permissions.
    pub mode: u32,
    /// Its owner.
    pub user_id: u32,
    /// Its group.
    pub group_id: u32,
    /// When it was changed last, in seconds.
    pub modified_seconds: i64,
}

/// Reads an archive entry by entry; as a reader it gives the bytes of the entry that came last.
pub struct TarReader<R> {
    inner: R,
    /// Bytes of the entry that are left, and of what fills its last block.
    left: u64,
    padding: usize,
}

impl<R: Read> TarReader<R> {
    /// Begins to read.
    pub const fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// Goes on to the next entry; `None` at the end of the archive. What is left of the one before is passed over.
    ///
    /// # Errors
    ///
    /// When the archive ends in the middle, or is none.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, TarError> {
        io::copy(self, &mut io::sink())?;
        let mut block = [0; BLOCK_BYTES];
        if let Some(padding) = block.get_mut(..std::mem::take(&mut self.padding)) {
            self.inner.read_exact(padding)?;
        }
        if !self.read_block(&mut block)? {
            return Ok(None);
        }
        if block.iter().all(|byte| *byte == 0) {
            // Zeros end an archive; what follows them is more of them.
            while self.read_block(&mut block)? {
                if block.iter().any(|byte| *byte != 0) {
                    return Err(TarError::Damaged("something follows its end"));
                }
            }
            return Ok(None);
        }
        let entry = parse(&block)?;
        self.left = entry.size;
        self.padding = padding_of(entry.size);
        Ok(Some(entry))
    }

    /// Reads a block; false where the archive ends before one.
    fn read_block(&mut self, block: &mut [u8; BLOCK_BYTES]) -> Result<bool, TarError> {
        let mut filled = 0;
        while let Some(space) = block.get_mut(filled..).filter(|space| !space.is_empty()) {
            match self.inner.read(space)? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(TarError::Damaged("it ends in the middle of a header")),
                count => filled += count,
            }
        }
        Ok(true)
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let most = space.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(space) = space.get_mut(..most).filter(|space| !space.is_empty()) else { return Ok(0) };
        let count = self.inner.read(space)?;
        if count == 0 {
            let what = "the archive ends in the middle of a file";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn padding_of(size: u64) -> usize {
    let over = (size % BLOCK_BYTES as u64) as usize;
    if over == 0 { 0 } else { BLOCK_BYTES - over }
}

fn parse(block: &[u8; BLOCK_BYTES]) -> Result<TarEntry, TarError> {
    let damaged = |why| TarError::Damaged(why);
    let field = |from: usize, length: usize| block.get(from..from + length).unwrap_or_default();
    let (before, after) = (field(0, 148), field(156, BLOCK_BYTES - 156));
    let sum: u64 = before.iter().chain(after).map(|byte| u64::from(*byte)).sum::<u64>() + 8 * u64::from(b' ');
    if number(field(148, 8)) != Some(sum) {
        return Err(damaged("the checksum of a header does not hold"));
    }
    if field(257, 5) != b"ustar" || field(345, 1) != b"\0" {
        return Err(damaged("a header has another form"));
    }
    let small = |from| number(field(from, 8)).and_then(|value| u32::try_from(value).ok());
    let name = field(0, 100).split(|byte| *byte == 0).next().unwrap_or_default();
    let name = name.strip_suffix(b"/").unwrap_or(name);
    let path: Vec<Vec<u8>> = name.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
    let path = match path.split_first() {
        Some((first, rest)) if first == b"." && !rest.is_empty() => rest.to_vec(),
        _ => path,
    };
    if path.iter().any(|name| name.is_empty() || name == b"." || name == b"..") {
        return Err(damaged("a name leads elsewhere"));
    }
    let kind = match field(156, 1) {
        b"0" | b"\0" => TarKind::File,
        b"5" => TarKind::Folder,
        b"2" => TarKind::Link,
        _ => return Err(damaged("an entry is of a kind that no server sends")),
    };
    let number_or = |value: Option<u64>| value.ok_or(damaged("a number in a header is none"));
    let size = number_or(number(field(124, 12)))?;
    Ok(TarEntry {
        path,
        kind,
        size: if kind == TarKind::File { size } else { 0 },
        mode: small(100).ok_or(damaged("a number in a header is none"))? & 0o7777,
        user_id: small(108).ok_or(damaged("a number in a header is none"))?,
        group_id: small(116).ok_or(damaged("a number in a header is none"))?,
        modified_seconds: number_or(number(field(136, 12)))?.cast_signed(),
    })
}

/// Reads a number: octal digits, or in base 256 behind a first byte of 0x80.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((0x80, rest)) = field.split_first() {
        let (high, low) = rest.split_at_checked(rest.len().checked_sub(8)?)?;
        return high
            .iter()
            .all(|byte| *byte == 0)
            .then(|| u64::from_be_bytes(low.try_into().unwrap_or([0xFF; 8])));
    }
    let digits = field.split(|byte| matches!(byte, 0 | b' ')).find(|digits| !digits.is_empty())?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, kind: u8, size: &str) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, b"0000600\0");
        put(108, b"0000145\0");
        put(116, b"0000157\0");
        put(124, size.as_bytes());
        put(136, b"14371573001\0");
        put(156, &[kind]);
        put(257, b"ustar\x0000");
        put(148, b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    #[test]
    fn files_and_folders() {
        let mut archive = header("base/", b'5', "00000000000\0");
        archive.extend(header("base/1", b'0', "00000000003\0"));
        archive.extend(b"abc");
        archive.resize(archive.len() + 509, 0);
        archive.extend(header("empty", b'0', "00000000000\0"));
        archive.extend(vec![0; 1024]);
        let mut reader = TarReader::new(archive.as_slice());
        let folder = reader.next_entry().unwrap().unwrap();
        assert_eq!((folder.path.concat().as_slice(), folder.kind), (&b"base"[..], TarKind::Folder));
        let file = reader.next_entry().unwrap().unwrap();
        assert_eq!((file.path, file.size, file.mode), (vec![b"base".to_vec(), b"1".to_vec()], 3, 0o600));
        assert_eq!((file.user_id, file.group_id), (101, 111));
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"abc");
        assert_eq!(reader.next_entry().unwrap().unwrap().size, 0);
        assert_eq!(reader.next_entry().unwrap(), None);
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let read = |bytes: &[u8]| TarReader::new(bytes).next_entry();
        assert!(read(b"").unwrap().is_none());
        assert!(read(&[1; 100]).is_err(), "cut short");
        assert!(read(&[1; 512]).is_err(), "no checksum");
        for name in ["../x", "a//b", "/etc/passwd", "a/./b", "a/..", ""] {
            assert!(read(&header(name, b'0', "00000000000\0")).is_err(), "{name:?}");
        }
        assert!(read(&header("x", b'3', "00000000000\0")).is_err(), "a device");
        let mut reader = TarReader::new(&*header("x", b'0', "00000000003\0").leak());
        reader.next_entry().unwrap();
        assert!(io::copy(&mut reader, &mut io::sink()).is_err(), "it ends in the middle of a file");
        let mut bad = vec![0; 1024];
        bad[700] = 1;
        assert!(read(&bad).is_err(), "something follows the end");
        let mut long = header("x", b'0', "\0\0\0\0\0\0\0\0\0\0\0\0");
        long[124] = 0x80;
        long[130] = 2;
        long[148..156].copy_from_slice(b"        ");
        let sum: u32 = long.iter().map(|byte| u32::from(*byte)).sum();
        long[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(read(&long).unwrap().unwrap().size, 2 << 40);
    }
}
