//! Recognition of database files by their content, so that they are cut at page boundaries.
//!
//! Names prove nothing and a wrong guess costs deduplication, so every page within the head must look
//! right, not just the first bytes. What is not recognised is cut by content, which is never wrong.

/// How much of a file's start [`recognise`] likes to see: several pages of any database.
pub const RECOGNISE_BYTES: usize = 64 << 10;

/// The family of a database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatabaseKind {
    /// A relation of PostgreSQL: heap, index, free space or visibility map.
    PostgresRelation,
    /// An InnoDB tablespace of MySQL or MariaDB.
    InnodbTablespace,
    /// A SQLite 3 database.
    Sqlite,
}

impl DatabaseKind {
    /// Returns the name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::PostgresRelation => "PostgreSQL relation",
            Self::InnodbTablespace => "InnoDB tablespace",
            Self::Sqlite => "SQLite database",
        }
    }
}

/// What was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatabaseFile {
    /// The family.
    pub kind: DatabaseKind,
    /// Length of a page in bytes, a power of two from 512 to 65536.
    pub page_bytes: u32,
}

/// Recognises a database file by its first bytes and its length.
///
/// `head` is the start of the file: 8 KiB are the least that is useful, [`RECOGNISE_BYTES`] the best;
/// a shorter one must be the whole file.
pub fn recognise(head: &[u8], length: u64) -> Option<DatabaseFile> {
    let found = |kind| move |page_bytes| DatabaseFile { kind, page_bytes };
    sqlite(head)
        .map(found(DatabaseKind::Sqlite))
        .or_else(|| innodb(head, length).map(found(DatabaseKind::InnodbTablespace)))
        .or_else(|| postgres(head).map(found(DatabaseKind::PostgresRelation)))
        .filter(|file| length > 0 && length.is_multiple_of(u64::from(file.page_bytes)))
}

/// Page sizes with which PostgreSQL can be built and in practice is, the usual one first.
const POSTGRES_PAGES: [u32; 4] = [8192, 4096, 16384, 32768];

/// PostgreSQL, `src/include/storage/bufpage.h`: every page carries its size and a layout version of 4.
fn postgres(head: &[u8]) -> Option<u32> {
    POSTGRES_PAGES.into_iter().find(|&page_bytes| {
        let pages = whole_pages(head, page_bytes);
        // A page of zeros is one that was added but never written.
        let written = pages.clone().filter(|page| !is_zero(page));
        let count = written.clone().count();
        count > 0 && written.clone().all(|page| postgres_page(page, page_bytes).is_some())
    })
}

/// Checks the header of one page of PostgreSQL, which is little-endian on every machine we serve.
fn postgres_page(page: &[u8], page_bytes: u32) -> Option<()> {
    const HEADER: u32 = 24;
    const LAYOUT: u32 = 4;
    const FLAGS_KNOWN: u16 = 0b111;
    const ALIGNMENT: u32 = 8;
    let flags = u16::from_le_bytes(array(page, 10)?);
    let lower = u32::from(u16::from_le_bytes(array(page, 12)?));
    let upper = u32::from(u16::from_le_bytes(array(page, 14)?));
    let special = u32::from(u16::from_le_bytes(array(page, 16)?));
    let size_and_version = u32::from(u16::from_le_bytes(array(page, 18)?));
    let right = size_and_version == (page_bytes | LAYOUT)
        && flags & !FLAGS_KNOWN == 0
        && (HEADER..=upper).contains(&lower)
        && (upper..=page_bytes).contains(&special)
        && special.is_multiple_of(ALIGNMENT);
    right.then_some(())
}

/// InnoDB, `fil0fil.h` and `fsp0fsp.h`: page 0 describes the space, and every page carries its own
/// number and the space's id. Numbers are big-endian.
fn innodb(head: &[u8], length: u64) -> Option<u32> {
    const PAGE_TYPE_SPACE_HEADER: u16 = 8;
    const PAGE_NUMBER: usize = 4;
    const PAGE_TYPE: usize = 24;
    const SPACE: usize = 34;
    let space: [u8; 4] = array(head, SPACE)?;
    let space_again: [u8; 4] = array(head, 38)?;
    let unused: [u8; 4] = array(head, 42)?;
    let pages = u32::from_be_bytes(array(head, 46)?);
    let page_bytes = innodb_page_bytes(u32::from_be_bytes(array(head, 54)?))?;
    let head_is_right = array(head, PAGE_NUMBER) == Some([0; 4])
        && array(head, PAGE_TYPE).map(u16::from_be_bytes) == Some(PAGE_TYPE_SPACE_HEADER)
        && space == space_again
        && unused == [0; 4]
        && pages > 0
        && u64::from(pages) * u64::from(page_bytes) <= length;
    let pages_are_right = (0_u32..).zip(whole_pages(head, page_bytes)).all(|(number, page)| {
        let numbered =
            array(page, PAGE_NUMBER) == Some(number.to_be_bytes()) && array(page, SPACE) == Some(space);
        numbered || is_zero(page)
    });
    (head_is_right && pages_are_right).then_some(page_bytes)
}

/// Reads the length of a stored page from the flags of a tablespace.
fn innodb_page_bytes(flags: u32) -> Option<u32> {
    /// MariaDB since 10.4: the low four bits are the size.
    const FULL_CRC32: u32 = 1 << 4;
    const DEFAULT: u32 = 16384;
    let shifted = |size: u32| 512_u32.checked_shl(size);
    let page_bytes = if flags & FULL_CRC32 != 0 {
        shifted(flags & 15)?
    } else {
        let (compressed, logical) = ((flags >> 1) & 15, (flags >> 6) & 15);
        match (compressed, logical) {
            (0, 0) => DEFAULT,
            (0, logical) => shifted(logical)?,
            (compressed, _) => shifted(compressed)?,
        }
    };
    (1024..=65536).contains(&page_bytes).then_some(page_bytes)
}

/// SQLite, `fileformat2.html` section 1.3: a magic, the page size and three numbers that are fixed.
fn sqlite(head: &[u8]) -> Option<u32> {
    const FRACTIONS: [u8; 3] = [64, 32, 32];
    if !head.starts_with(b"SQLite format 3\0") {
        return None;
    }
    let page_bytes = match u16::from_be_bytes(array(head, 16)?) {
        1 => 65536,
        bytes => u32::from(bytes),
    };
    let versions: [u8; 2] = array(head, 18)?;
    let right = page_bytes.is_power_of_two()
        && page_bytes >= 512
        && versions.iter().all(|version| (1..=2).contains(version))
        && array(head, 21) == Some(FRACTIONS);
    right.then_some(page_bytes)
}

/// Splits a head into the pages that are wholly within it.
fn whole_pages(head: &[u8], page_bytes: u32) -> impl Iterator<Item = &[u8]> + Clone {
    head.chunks_exact(page_bytes as usize)
}

fn is_zero(page: &[u8]) -> bool {
    page.iter().all(|byte| *byte == 0)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres_file(pages: usize) -> Vec<u8> {
        let mut file = vec![0_u8; pages * 8192];
        for page in file.chunks_mut(8192) {
            page[8192 - 40..].fill(7);
            page[10..12].copy_from_slice(&4_u16.to_le_bytes());
            page[12..14].copy_from_slice(&28_u16.to_le_bytes());
            page[14..16].copy_from_slice(&8152_u16.to_le_bytes());
            page[16..18].copy_from_slice(&8192_u16.to_le_bytes());
            page[18..20].copy_from_slice(&0x2004_u16.to_le_bytes());
        }
        file
    }

    fn innodb_file(pages: u32, flags: u32, page_bytes: usize) -> Vec<u8> {
        let mut file = vec![0_u8; pages as usize * page_bytes];
        for (number, page) in (0_u32..).zip(file.chunks_mut(page_bytes)) {
            page[4..8].copy_from_slice(&number.to_be_bytes());
            page[24..26].copy_from_slice(&if number == 0 { 8_u16 } else { 5 }.to_be_bytes());
            page[34..38].copy_from_slice(&77_u32.to_be_bytes());
        }
        file[38..42].copy_from_slice(&77_u32.to_be_bytes());
        file[46..50].copy_from_slice(&pages.to_be_bytes());
        file[54..58].copy_from_slice(&flags.to_be_bytes());
        file
    }

    fn sqlite_file(page_bytes: u16) -> Vec<u8> {
        let mut file = vec![0_u8; 131_072];
        file[..16].copy_from_slice(b"SQLite format 3\0");
        file[16..18].copy_from_slice(&page_bytes.to_be_bytes());
        file[18..24].copy_from_slice(&[1, 1, 0, 64, 32, 32]);
        file
    }

    fn kind(file: &[u8]) -> Option<(DatabaseKind, u32)> {
        let head = &file[..file.len().min(RECOGNISE_BYTES)];
        recognise(head, file.len() as u64).map(|found| (found.kind, found.page_bytes))
    }

    #[test]
    fn real_layouts_are_recognised() {
        assert_eq!(kind(&postgres_file(1)), Some((DatabaseKind::PostgresRelation, 8192)));
        assert_eq!(kind(&postgres_file(20)), Some((DatabaseKind::PostgresRelation, 8192)));
        // MariaDB full_crc32, MySQL default, MySQL with 32 KiB pages, ROW_FORMAT=COMPRESSED with 8 KiB.
        for (flags, page_bytes) in
            [(0x15, 16384), (0x4021, 16384), (0x4021 | 6 << 6, 32768), (0x21 | 4 << 1, 8192)]
        {
            let file = innodb_file(12, flags, page_bytes);
            let page_bytes = u32::try_from(page_bytes).ok();
            assert_eq!(
                kind(&file),
                page_bytes.map(|bytes| (DatabaseKind::InnodbTablespace, bytes)),
                "{flags:x}"
            );
        }
        assert_eq!(kind(&sqlite_file(4096)), Some((DatabaseKind::Sqlite, 4096)));
        assert_eq!(kind(&sqlite_file(1)), Some((DatabaseKind::Sqlite, 65536)));
    }

    #[test]
    fn a_relation_may_begin_or_end_with_unwritten_pages() {
        let mut file = postgres_file(8);
        file[..8192].fill(0);
        file[7 * 8192..].fill(0);
        assert_eq!(kind(&file), Some((DatabaseKind::PostgresRelation, 8192)));
        file.fill(0);
        assert_eq!(kind(&file), None, "zeros alone are no database");
    }

    #[test]
    fn one_wrong_page_is_enough_to_refuse() {
        for (at, what) in [(18, "layout"), (11, "flags"), (13, "lower"), (15, "upper"), (16, "special")] {
            let mut file = postgres_file(8);
            file[5 * 8192 + at] = 0xfb;
            assert_eq!(kind(&file), None, "{what}");
        }
        for at in [4, 34] {
            let mut file = innodb_file(12, 0x15, 16384);
            file[16384 + at] ^= 1;
            assert_eq!(kind(&file), None, "page 1, byte {at}");
        }
        for at in [4, 25, 34, 43, 46, 57] {
            let mut file = innodb_file(12, 0x15, 16384);
            file[at] ^= 0x0f;
            assert_eq!(kind(&file), None, "page 0, byte {at}");
        }
        for at in [3, 17, 18, 21, 23] {
            let mut file = sqlite_file(4096);
            file[at] ^= 0x41;
            assert_eq!(kind(&file), None, "SQLite, byte {at}");
        }
    }

    #[test]
    fn a_length_that_is_no_number_of_pages_is_refused() {
        let file = postgres_file(20);
        assert!(recognise(&file, file.len() as u64).is_some());
        assert_eq!(recognise(&file, file.len() as u64 + 1), None);
        assert_eq!(recognise(&file, 0), None);
    }

    #[test]
    fn ordinary_content_is_no_database() {
        assert_eq!(kind(b""), None);
        assert_eq!(kind(&b"-- PostgreSQL database dump\n".repeat(8192)), None);
        assert_eq!(kind(&[0xff; 65536]), None);
        let mut noise = vec![0_u8; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        for head in noise.chunks(8192) {
            assert_eq!(kind(head), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_head_is_survived(head in proptest::collection::vec(proptest::num::u8::ANY, 0..200), length: u64) {
            let _ = recognise(&head, length);
        }
    }
}
