//! Names of files in a write-ahead log, and the positions that they stand for.
//!
//! A segment's name is its timeline and its number, the number written as two halves whose meaning depends
//! on the length of segments: how many fit into 4 GiB. All numbers in names are hexadecimal, timelines too
//! (A17); only the *content* of a history file writes timelines in decimal.

use std::fmt;
use std::str::FromStr;

/// A position in the write-ahead log: bytes since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// Why a text is no position, no name or no length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The text is no position.
    #[error("{0:?} is no position in a write-ahead log: these look like 1/6B37D80")]
    Position(String),
    /// The text is not the name of a file that PostgreSQL archives.
    #[error("{0:?} is not the name of a file of a write-ahead log")]
    Name(String),
    /// Segments are never that long.
    #[error("segments have no length of {0} bytes: it is a power of two from 1 MiB to 1 GiB")]
    Size(u64),
}

fn hexadecimal(text: &str, digits_max: usize) -> Option<u32> {
    let is_number = !text.is_empty()
        && text.len() <= digits_max
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
    if is_number { u32::from_str_radix(text, 16).ok() } else { None }
}

impl FromStr for Lsn {
    type Err = SegmentError;

    fn from_str(text: &str) -> Result<Self, SegmentError> {
        let half = |text: &str| hexadecimal(&text.to_ascii_uppercase(), 8);
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?))))
            .ok_or_else(|| SegmentError::Position(text.to_owned()))
    }
}

/// Writes the position as PostgreSQL does.
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The length of all segments of a cluster: a power of two from 1 MiB to 1 GiB (A13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// What `initdb` chooses by itself.
    pub const DEFAULT: Self = Self(16 << 20);

    /// Takes a length in bytes.
    ///
    /// # Errors
    ///
    /// When no cluster has it.
    pub fn new(bytes: u64) -> Result<Self, SegmentError> {
        match u32::try_from(bytes) {
            Ok(length) if length.is_power_of_two() && (1 << 20..=1 << 30).contains(&length) => {
                Ok(Self(length))
            }
            _ => Err(SegmentError::Size(bytes)),
        }
    }

    /// Returns the length in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// Returns how many segments share the first half of their number.
    fn segments_per_half(self) -> u64 {
        (1 << 32) / self.bytes()
    }

    /// Returns the position at which the segment that holds this one begins.
    pub fn start_of(self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 - lsn.0 % self.bytes())
    }
}

/// The name of a segment: a timeline and the two halves of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: u32,
    high: u32,
    low: u32,
}

impl SegmentName {
    /// Names the segment of a timeline that holds a position; `None` for timeline 0, which none is.
    pub fn at(timeline: u64, lsn: Lsn, size: SegmentSize) -> Option<Self> {
        let timeline = u32::try_from(timeline).ok().filter(|timeline| *timeline > 0)?;
        let number = lsn.0 / size.bytes();
        let high = u32::try_from(number / size.segments_per_half()).ok()?;
        let low = u32::try_from(number % size.segments_per_half()).ok()?;
        Some(Self { timeline, high, low })
    }

    /// Returns the timeline.
    pub fn timeline(self) -> u64 {
        u64::from(self.timeline)
    }

    /// Returns where the segment begins; `None` when segments of this length have no such name.
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        let low = u64::from(self.low);
        if low >= size.segments_per_half() {
            return None;
        }
        // The last segment that could be ends past the last position.
        let start = (u64::from(self.high) << 32) | (low * size.bytes());
        start.checked_add(size.bytes()).map(|_| Lsn(start))
    }

    /// Returns the segment's number, from the beginning of the log.
    pub fn number(self, size: SegmentSize) -> Option<u64> {
        self.start(size).map(|start| start.0 / size.bytes())
    }

    /// Returns the name of the segment that follows on the same timeline.
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        let start = self.start(size)?;
        Self::at(self.timeline(), Lsn(start.0.checked_add(size.bytes())?), size)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.high, self.low)
    }
}

impl FromStr for SegmentName {
    type Err = SegmentError;

    fn from_str(text: &str) -> Result<Self, SegmentError> {
        let read = || {
            let (timeline, number) = text.split_at_checked(8)?;
            let (high, low) = number.split_at_checked(8)?;
            let half = |text: &str| if text.len() == 8 { hexadecimal(text, 8) } else { None };
            Some(Self { timeline: half(timeline).filter(|t| *t > 0)?, high: half(high)?, low: half(low)? })
        };
        read().ok_or_else(|| SegmentError::Name(text.to_owned()))
    }
}

/// A file that PostgreSQL archives or asks for, by its name (A6, A15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFile {
    /// A whole segment.
    Segment(SegmentName),
    /// The beginning of a segment, left behind on a timeline that ended in it. Recovery never asks for it.
    Partial(SegmentName),
    /// Where a timeline branched off its ancestors.
    History {
        /// The timeline.
        timeline: u32,
    },
    /// What a base backup needs of the log: its segment, and where in it the backup began.
    BackupLabel {
        /// The segment in which the backup began.
        segment: SegmentName,
        /// How many bytes into it.
        offset: u32,
    },
}

impl LogFile {
    /// Returns where in the log the segment begins that the name speaks of; `None` where it speaks of none, or
    /// segments of this length have no such name.
    pub fn start(&self, size: SegmentSize) -> Option<Lsn> {
        match self {
            Self::Segment(name) | Self::Partial(name) | Self::BackupLabel { segment: name, .. } => {
                name.start(size)
            }
            Self::History { .. } => None,
        }
    }

    /// Returns the timeline that the name speaks of.
    pub fn timeline(&self) -> u64 {
        match self {
            Self::Segment(name) | Self::Partial(name) | Self::BackupLabel { segment: name, .. } => {
                name.timeline()
            }
            Self::History { timeline } => u64::from(*timeline),
        }
    }
}

impl FromStr for LogFile {
    type Err = SegmentError;

    /// Knows the four forms and no other: a name can't lead out of a folder.
    fn from_str(text: &str) -> Result<Self, SegmentError> {
        let refuse = || SegmentError::Name(text.to_owned());
        let Some((stem, rest)) = text.split_once('.') else {
            return text.parse().map(Self::Segment);
        };
        match rest {
            "history" if stem.len() == 8 => {
                let timeline = hexadecimal(stem, 8).filter(|timeline| *timeline > 0).ok_or_else(refuse)?;
                Ok(Self::History { timeline })
            }
            "partial" => stem.parse().map(Self::Partial).map_err(|_| refuse()),
            _ => {
                let offset = rest.strip_suffix(".backup").filter(|offset| offset.len() == 8);
                let offset = offset.and_then(|offset| hexadecimal(offset, 8)).ok_or_else(refuse)?;
                Ok(Self::BackupLabel { segment: stem.parse().map_err(|_| refuse())?, offset })
            }
        }
    }
}

impl fmt::Display for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(name) => name.fmt(f),
            Self::Partial(name) => write!(f, "{name}.partial"),
            Self::History { timeline } => write!(f, "{timeline:08X}.history"),
            Self::BackupLabel { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(mib: u64) -> SegmentSize {
        SegmentSize::new(mib << 20).unwrap()
    }

    /// A13: the same position has other names with other lengths of segments.
    #[test]
    fn names_and_positions() {
        for (mib, lsn, name) in [
            (16, "0/0", "000000010000000000000000"),
            (16, "0/1000000", "000000010000000000000001"),
            (16, "0/FF000000", "0000000100000000000000FF"),
            (16, "1/0", "000000010000000100000000"),
            (1, "0/FFF00000", "000000010000000000000FFF"),
            (1, "1/0", "000000010000000100000000"),
            (64, "0/FC000000", "00000001000000000000003F"),
            (64, "2/4000000", "000000010000000200000001"),
            (1024, "0/C0000000", "000000010000000000000003"),
            (1024, "1/0", "000000010000000100000000"),
        ] {
            let lsn: Lsn = lsn.parse().unwrap();
            let found = SegmentName::at(1, lsn, size(mib)).unwrap();
            assert_eq!(found.to_string(), name, "{mib} MiB");
            assert_eq!(found.start(size(mib)), Some(lsn), "{mib} MiB");
            assert_eq!(found.number(size(mib)), Some(lsn.0 / size(mib).bytes()));
            assert_eq!(SegmentName::at(1, Lsn(lsn.0 + 5), size(mib)), Some(found));
            assert_eq!(name.parse(), Ok(found));
        }
        let last: SegmentName = "0000000100000000000000FF".parse().unwrap();
        assert_eq!(last.next(size(16)).unwrap().to_string(), "000000010000000100000000");
        assert_eq!(last.start(size(64)), None, "64 MiB segments end at 3F");
        let end: SegmentName = "00000001FFFFFFFF000000FF".parse().unwrap();
        assert_eq!(end.next(size(16)), None);
        assert_eq!(SegmentName::at(0, Lsn(0), size(16)), None);
    }

    #[test]
    fn lengths_of_segments() {
        for mib in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] {
            assert_eq!(size(mib).bytes(), mib << 20);
        }
        for bytes in [0, 1, 1 << 19, (1 << 20) + 1, 3 << 20, 1 << 31, 1 << 40] {
            assert_eq!(SegmentSize::new(bytes), Err(SegmentError::Size(bytes)));
        }
    }

    /// A17: timelines in names are hexadecimal.
    #[test]
    fn timelines_are_hexadecimal() {
        let name: SegmentName = "0000000A0000000000000001".parse().unwrap();
        assert_eq!(name.timeline(), 10);
        assert_eq!("00000010.history".parse(), Ok(LogFile::History { timeline: 16 }));
        assert_eq!(LogFile::History { timeline: 11 }.to_string(), "0000000B.history");
    }

    /// A6: names of files in the log are known by their form; everything else is refused.
    #[test]
    fn files_of_the_log() {
        let segment: SegmentName = "000000010000000000000007".parse().unwrap();
        for (name, file) in [
            ("000000010000000000000007", LogFile::Segment(segment)),
            ("000000010000000000000007.partial", LogFile::Partial(segment)),
            ("00000002.history", LogFile::History { timeline: 2 }),
            ("000000010000000000000007.00000028.backup", LogFile::BackupLabel { segment, offset: 0x28 }),
        ] {
            assert_eq!(name.parse(), Ok(file));
            assert_eq!(file.to_string(), name);
        }
        for bad in [
            "",
            "0",
            "00000001000000000000000",
            "0000000100000000000000070",
            "00000001000000000000000g",
            "00000001000000000000000a",
            "000000000000000000000007",
            "00000000.history",
            "0000001.history",
            "00000001.History",
            "000000010000000000000007.history",
            "00000001.partial",
            "000000010000000000000007.partial.gz",
            "000000010000000000000007.28.backup",
            "000000010000000000000007.backup",
            "../00000010000000000000007",
            "000000010000000000000007/",
            "RECOVERYXLOG",
            "+00000010000000000000007",
            "é00000010000000000000007",
        ] {
            assert!(bad.parse::<LogFile>().is_err(), "{bad}");
        }
    }

    #[test]
    fn positions_as_the_server_writes_them() {
        assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
        assert_eq!("0/b".parse(), Ok(Lsn(11)));
        assert_eq!(Lsn(0x1_0000_0028).to_string(), "1/28");
        for bad in ["", "/", "0/", "/0", "1", "0/123456789", "0/-1", "x/0", "0/0/0", " 0/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }
}
