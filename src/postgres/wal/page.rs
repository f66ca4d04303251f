//! Headers of pages. Numbers stand in the order of the server's machine; only little-endian is known.

use crate::postgres::segment::{Lsn, SegmentSize};

/// Length of the header of most pages, padding included.
pub(super) const SHORT_HEADER_BYTES: usize = 24;
/// Length of the header of a segment's first page.
pub(in crate::postgres) const LONG_HEADER_BYTES: usize = 40;
/// The page begins with the rest of a record from the page before.
const FIRST_IS_REST: u16 = 0x0001;
/// The header is a long one.
const LONG_HEADER: u16 = 0x0002;

/// A version of the log's form, which goes with one major version of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WalVersion(u16);

/// Magic numbers and the major versions that write them.
const KNOWN: [(u16, u32); 6] =
    [(0xD106, 13), (0xD10D, 14), (0xD110, 15), (0xD113, 16), (0xD116, 17), (0xD118, 18)];

impl WalVersion {
    /// Returns the server's major version; `None` where this program does not know it.
    pub fn major(self) -> Option<u32> {
        KNOWN.iter().find(|(magic, _)| *magic == self.0).map(|(_, major)| *major)
    }

    /// Says whether this program knows the form that a major version writes.
    pub fn is_known(major: u32) -> bool {
        KNOWN.iter().any(|(_, known)| *known == major)
    }

    /// Writes the version for people and for records: `15`, or the number in the page.
    pub fn name(self) -> String {
        self.major().map_or_else(|| format!("{:#06x}", self.0), |major| major.to_string())
    }
}

/// Why a file is no segment of a write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no segment of a write-ahead log: {0}")]
pub struct PageError(pub(super) &'static str);

/// The header of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub version: WalVersion,
    pub timeline: u32,
    pub address: Lsn,
    /// Length of what is left of a record from the page before; 0 where there is none.
    pub rest: u32,
    /// Length of this header.
    pub length: usize,
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

impl PageHeader {
    /// Reads the header that a page begins with; `None` when it is too short.
    pub fn read(page: &[u8]) -> Option<Self> {
        let info = u16_at(page, 2)?;
        let length = if info & LONG_HEADER == 0 { SHORT_HEADER_BYTES } else { LONG_HEADER_BYTES };
        Some(Self {
            version: WalVersion(u16_at(page, 0)?),
            timeline: u32_at(page, 4)?,
            address: Lsn(u64_at(page, 8)?),
            rest: if info & FIRST_IS_REST == 0 { 0 } else { u32_at(page, 16)? },
            length,
        })
    }
}

/// What the first page of a segment says of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstPage {
    /// The form of the log.
    pub version: WalVersion,
    /// The timeline on which the page was written: the segment's own, or where it is a copy an ancestor.
    pub timeline: u64,
    /// Where the segment begins.
    pub address: Lsn,
    /// What tells one cluster from all others.
    pub system_identifier: u64,
    /// Length of segments.
    pub segment_size: SegmentSize,
    /// Length of pages.
    pub page_bytes: usize,
}

impl FirstPage {
    /// Reads the header of a segment's first page.
    ///
    /// # Errors
    ///
    /// When the file does not begin with one.
    pub fn read(bytes: &[u8]) -> Result<Self, PageError> {
        let refuse = |why| PageError(why);
        let header = PageHeader::read(bytes).ok_or(refuse("it is too short"))?;
        // All versions since 7.1 have this byte; the other order of bytes has it at the other end.
        if header.version.0 >> 8 != 0xD0 && header.version.0 >> 8 != 0xD1 {
            return Err(refuse("its first page has no magic number"));
        }
        if header.length != LONG_HEADER_BYTES {
            return Err(refuse("its first page does not say whose it is"));
        }
        let short = refuse("it is too short");
        let system_identifier = u64_at(bytes, 24).ok_or(short)?;
        let size = u32_at(bytes, 32).ok_or(short)?;
        let page = u32_at(bytes, 36).ok_or(short)?;
        let segment_size = SegmentSize::new(u64::from(size))
            .map_err(|_| refuse("its first page names a length that no segment has"))?;
        if !page.is_power_of_two() || !(1 << 10..=64 << 10).contains(&page) {
            return Err(refuse("its first page names a length that no page has"));
        }
        Ok(Self {
            version: header.version,
            timeline: u64::from(header.timeline),
            address: header.address,
            system_identifier,
            segment_size,
            page_bytes: page as usize,
        })
    }
}
