//! From record to record through a segment.
//!
//! A record is a header, headers of blocks and of data, then the blocks' images and data, then the record's
//! own data. It may straddle pages, each of which begins with a header of its own, and segments: what began
//! in the segment before is skipped by the length that the first page names, and what goes on in the next
//! is left alone. So of a commit whose record straddles two segments the time is not noted, and the
//! latest time noted is never later than what the segments hold.
//!
//! What replay creates must not be missed so: a tablespace, because it is made wherever its record says, and an
//! init fork, because at the end of its recovery a server refuses to start where the relation's main fork is
//! there already. Of a record that creates one of the two and goes on behind the end, the beginning is noted, and a
//! walk that is given it puts the two parts together. Where the end falls into a record's header nobody can tell
//! at the end what it will be; there the rest tells by itself.

use super::page::{FirstPage, PageHeader, u16_at, u32_at, u64_at};
use crate::base::Timestamp;
use crate::postgres::layout::RelationId;
use crate::postgres::segment::Lsn;
use std::collections::{BTreeMap, BTreeSet};

const RECORD_HEADER_BYTES: usize = 24;
/// Records begin at multiples of this.
const ALIGNMENT: usize = 8;
/// Managers of resources whose records are looked into.
const XLOG: u8 = 0;
const TRANSACTION: u8 = 1;
const STORAGE: u8 = 2;
const TABLESPACE: u8 = 5;
/// Kinds of records of the log itself.
const XLOG_SWITCH: u8 = 0x40;
const XLOG_RESTORE_POINT: u8 = 0x70;
const TABLESPACE_CREATE: u8 = 0x00;
const FORK_CREATE: u8 = 0x10;
/// The number of the init fork in records.
const INIT_FORK: u32 = 3;
/// How much of a header may stand before the end, where it does not say yet what the record is.
const HEADER_CUTS: [usize; 2] = [8, 16];
/// A record that creates something is not longer: a tablespace's folder has at most 1024 bytes.
const CREATING_RECORD_MAX: usize = 2048;
/// Longest record that is put together: one that is looked into and straddles pages. A commit of very many
/// dropped tables may be longer, but its time stands where its main data begins.
const LOOKED_INTO_MAX: usize = 64 << 20;
/// Restore points and tablespaces that are noted in one segment. Init forks are all noted.
const NOTED_MAX: usize = 256;
/// From the epoch of Unix to that of PostgreSQL, in microseconds.
const POSTGRES_EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// What a segment holds that planning a recovery needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Noted {
    /// The earliest and the latest time of a commit, an abort, or either of a prepared transaction.
    pub commits: Option<(Timestamp, Timestamp)>,
    /// How many of these there are.
    pub commit_count: u64,
    /// Named restore points and where their records begin.
    pub restore_points: BTreeMap<String, Lsn>,
    /// Tablespaces that are created, by their number, with their folders.
    pub tablespaces: BTreeMap<u32, String>,
    /// Relations whose init fork is created: unlogged ones, whose main fork a server makes of it.
    pub init_forks: BTreeSet<RelationId>,
    /// The beginning of a record that creates a tablespace or an init fork and goes on behind the end of what was
    /// walked through: for the walk through what follows.
    pub begun: Vec<u8>,
    /// Whether the walk came to the end of what is written. If not, times are not known.
    pub complete: bool,
    /// Where the last whole record ends.
    pub end: Lsn,
    /// Whether the server went on to the next segment before this one was full.
    pub switched: bool,
}

/// Walks through a segment, or the beginning of one, that starts at the position its first page names.
/// The log of an unknown version is left alone: nothing is noted.
pub fn walk(segment: &[u8], first: &FirstPage) -> Noted {
    start(segment, first, 0, &[])
}

/// Does the same behind another walk, which has noted that a record begins whose rest is here.
pub fn walk_behind(segment: &[u8], first: &FirstPage, before: &Noted) -> Noted {
    start(segment, first, 0, &before.begun)
}

/// Does the same, and notes only what stands in records that end behind an offset: those of a piece of a
/// segment, which may begin in the pieces before it.
pub fn walk_from(segment: &[u8], first: &FirstPage, from: usize) -> Noted {
    start(segment, first, from, &[])
}

fn start(segment: &[u8], first: &FirstPage, from: usize, begun: &[u8]) -> Noted {
    let mut noted = Noted { end: first.address, ..Noted::default() };
    let Some(major) = first.version.major() else { return noted };
    let mut walker = Walker { segment, first, from, begun, at: 0, pending: 0, major };
    noted.complete = walker.walk(&mut noted).is_some();
    noted
}

struct Walker<'a> {
    segment: &'a [u8],
    first: &'a FirstPage,
    /// Where noting begins.
    from: usize,
    /// What is known of the record whose rest the first page begins with.
    begun: &'a [u8],
    at: usize,
    /// Bytes of the present record that are not passed yet: what a page that goes on with it must name.
    pending: usize,
    major: u32,
}

/// Why a record ends here.
enum Cut {
    /// The segment ends, and the record goes on in the next.
    Segment,
    /// The next page begins anew: the record was never finished.
    Abandoned,
    /// What follows is no part of this log.
    Broken,
}

impl Walker<'_> {
    fn position(&self) -> Lsn {
        Lsn(self.first.address.0.saturating_add(self.at as u64))
    }

    /// Reads the header of the page that begins here; `None` if no page of this log does.
    fn page(&self) -> Option<PageHeader> {
        let page = self.segment.get(self.at..)?;
        let header = PageHeader::read(page)?;
        let belongs = header.version == self.first.version && header.address == self.position();
        belongs.then_some(header)
    }

    fn page_begins(&self) -> bool {
        self.at.is_multiple_of(self.first.page_bytes)
    }

    /// Walks; `Some` when the end of what is written was reached in good order.
    fn walk(&mut self, noted: &mut Noted) -> Option<()> {
        let mut previous = None;
        loop {
            self.at = self.at.next_multiple_of(ALIGNMENT);
            if self.at >= self.segment.len() {
                return Some(());
            }
            let passed = if self.page_begins() {
                // What was written may end with a page: the next is of zeros, or left from another use of the file.
                let Some(header) = self.page() else { return (self.at > 0).then_some(()) };
                self.at += header.length;
                // Of a record that began in the segment before.
                self.pending = header.rest as usize;
                self.rest(noted, self.at == header.length)
            } else if u32_at(self.segment, self.at)? == 0 {
                return self.rest_is_unused();
            } else {
                self.record(noted, &mut previous)
            };
            match passed {
                Ok(true) => {}
                Ok(false) => return None,
                Err(Cut::Segment) => return Some(()),
                Err(Cut::Abandoned) => {}
                Err(Cut::Broken) => return None,
            }
            if noted.switched {
                return Some(());
            }
        }
    }

    /// Reads the record that begins here; false when it is none.
    fn record(&mut self, noted: &mut Noted, previous: &mut Option<Lsn>) -> Result<bool, Cut> {
        let start = self.position();
        let length = u32_at(self.segment, self.at).map_or(0, |length| length as usize);
        if length < RECORD_HEADER_BYTES {
            return Ok(false);
        }
        self.pending = length;
        let header = self.take(RECORD_HEADER_BYTES)?;
        let (Some(link), Some(&[info, manager])) = (u64_at(&header, 8), header.get(16..18)) else {
            return Ok(false);
        };
        // The link to the record before tells a record from what another use of the file has left here.
        let linked = match *previous {
            Some(Lsn(previous)) => link == previous,
            None => link < start.0,
        };
        if !linked {
            return Ok(false);
        }
        if matches!(manager, XLOG | TRANSACTION | STORAGE | TABLESPACE) && length <= LOOKED_INTO_MAX {
            let mut body = Vec::new();
            if let Err(cut) = self.take_into(&mut body, self.pending) {
                let creates = creates(manager, info) && length <= CREATING_RECORD_MAX;
                if matches!(cut, Cut::Segment) && creates {
                    noted.begun = [header, body].concat();
                }
                return Err(cut);
            }
            let is_new = self.at > self.from;
            if is_new && !look(noted, start, manager, info, &body, self.major) {
                return Ok(false);
            }
        } else {
            self.pass(self.pending, |_| {})?;
        }
        *previous = Some(start);
        noted.end = self.position();
        Ok(true)
    }

    /// Where no record begins, the rest of the page is zeros.
    fn rest_is_unused(&self) -> Option<()> {
        let end = self.at.next_multiple_of(self.first.page_bytes).min(self.segment.len());
        let rest = self.segment.get(self.at..end)?;
        rest.iter().all(|byte| *byte == 0).then_some(())
    }

    /// Passes bytes of the present record, and the headers of pages among them.
    fn pass(&mut self, mut length: usize, mut each: impl FnMut(&[u8])) -> Result<bool, Cut> {
        while length > 0 {
            if self.at >= self.segment.len() {
                return Err(Cut::Segment);
            }
            if self.page_begins() {
                let header = self.page().ok_or(Cut::Broken)?;
                match header.rest as usize {
                    0 => return Err(Cut::Abandoned),
                    rest if rest == self.pending => self.at += header.length,
                    _ => return Err(Cut::Broken),
                }
            }
            let step = length.min(self.first.page_bytes - self.at % self.first.page_bytes);
            each(self.segment.get(self.at..self.at + step).ok_or(Cut::Segment)?);
            self.at += step;
            self.pending -= step;
            length -= step;
        }
        Ok(true)
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, Cut> {
        let mut bytes = Vec::new();
        self.take_into(&mut bytes, length)?;
        Ok(bytes)
    }

    /// Takes bytes of the present record; what there is of them, where it is cut.
    fn take_into(&mut self, bytes: &mut Vec<u8>, length: usize) -> Result<(), Cut> {
        bytes.reserve(length.min(1 << 16));
        self.pass(length, |piece| bytes.extend_from_slice(piece)).map(drop)
    }

    /// Passes the rest of a record; the one that all begins with may create something.
    fn rest(&mut self, noted: &mut Noted, is_first: bool) -> Result<bool, Cut> {
        if !is_first || self.pending == 0 || self.begun.len() + self.pending > CREATING_RECORD_MAX {
            return self.pass(self.pending, |_| {});
        }
        let mut record = self.begun.to_vec();
        if let Err(cut) = self.take_into(&mut record, self.pending) {
            // It goes on behind this piece, too.
            if matches!(cut, Cut::Segment) && !self.begun.is_empty() {
                noted.begun = record;
            }
            return Err(cut);
        }
        let created = match self.begun.is_empty() {
            true => HEADER_CUTS.iter().find_map(|cut| created(&record, *cut, self.major)),
            false => created(&record, 0, self.major),
        };
        if let Some(created) = created.filter(|_| self.at > self.from) {
            noted.create(created);
        }
        Ok(true)
    }
}

/// What replay of a record creates.
enum Created {
    Tablespace(u32, String),
    InitFork(RelationId),
}

impl Noted {
    fn create(&mut self, created: Created) {
        match created {
            Created::Tablespace(number, folder) => drop(self.tablespaces.insert(number, folder)),
            Created::InitFork(relation) => drop(self.init_forks.insert(relation)),
        }
    }
}

/// Says whether a record of this kind may create something that is noted.
fn creates(manager: u8, info: u8) -> bool {
    matches!((manager, info & 0xF0), (TABLESPACE, TABLESPACE_CREATE) | (STORAGE, FORK_CREATE))
}

/// Reads what a record creates, of which so many bytes of the header are missing; `None` if it does not. The rest
/// of a header is enough to tell: there are few forms that the bytes of such a record may have.
fn created(record: &[u8], missing: usize, major: u32) -> Option<Created> {
    let header = record.get(16_usize.checked_sub(missing)?..RECORD_HEADER_BYTES - missing)?;
    let [info, manager, 0, 0, ..] = *header else { return None };
    if !creates(manager, info) {
        return None;
    }
    if missing == 0 && u32_at(record, 0)? as usize != record.len() {
        return None;
    }
    let data = main_data(record.get(RECORD_HEADER_BYTES - missing..)?, major)?;
    if manager == STORAGE {
        return init_fork(data).map(Created::InitFork);
    }
    let (folder, end) = data.get(4..)?.split_at_checked(data.len().checked_sub(5)?)?;
    let is_folder = folder.first() == Some(&b'/') && end == [0] && !folder.contains(&0);
    is_folder.then(|| Some(Created::Tablespace(u32_at(data, 0)?, text(folder)?))).flatten()
}

/// Reads whose init fork a record of a fork's creation names; `None` for other forks.
fn init_fork(data: &[u8]) -> Option<RelationId> {
    let numbers = [0, 4, 8, 12].map(|at| u32_at(data, at));
    let [Some(tablespace), Some(database), Some(number), Some(INIT_FORK)] = numbers else { return None };
    (data.len() == 16).then_some(RelationId { tablespace, database, number })
}

/// Notes what a record says; false when it cannot be one.
fn look(noted: &mut Noted, start: Lsn, manager: u8, info: u8, body: &[u8], major: u32) -> bool {
    let Some(data) = main_data(body, major) else { return false };
    match (manager, info & 0xF0) {
        // Commit, abort, and the commit and abort of a prepared transaction.
        (TRANSACTION, info) if matches!(info & 0x70, 0x00 | 0x20 | 0x30 | 0x40) => {
            let Some(time) = u64_at(data, 0).and_then(time) else { return false };
            noted.commit_count += 1;
            let (earliest, latest) = noted.commits.unwrap_or((time, time));
            noted.commits = Some((earliest.min(time), latest.max(time)));
        }
        (XLOG, XLOG_SWITCH) => noted.switched = true,
        (XLOG, XLOG_RESTORE_POINT) if noted.restore_points.len() < NOTED_MAX => {
            if let Some(name) = data.get(8..).and_then(text) {
                noted.restore_points.insert(name, start);
            }
        }
        (TABLESPACE, TABLESPACE_CREATE) if noted.tablespaces.len() < NOTED_MAX => {
            if let (Some(number), Some(folder)) = (u32_at(data, 0), data.get(4..).and_then(text)) {
                noted.tablespaces.insert(number, folder);
            }
        }
        (STORAGE, FORK_CREATE) => noted.init_forks.extend(init_fork(data)),
        _ => {}
    }
    true
}

/// Reads a text that ends with a zero byte.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
    (!text.is_empty()).then_some(text)
}

/// Takes the server's microseconds since 2000; `None` out of range.
fn time(microseconds: u64) -> Option<Timestamp> {
    let microseconds = microseconds.cast_signed().checked_add(POSTGRES_EPOCH_MICROSECONDS)?;
    microseconds.checked_mul(1000).map(Timestamp::from_nanoseconds)
}

/// Finds a record's own data, the last part of it, by reading the headers before it; `None` when these make
/// no sense.
fn main_data(body: &[u8], major: u32) -> Option<&[u8]> {
    const LONG: u8 = 254;
    const SHORT: u8 = 255;
    const ORIGIN: u8 = 253;
    const TOP_TRANSACTION: u8 = 252;
    const BLOCK_MAX: u8 = 32;
    let (mut at, mut following, mut main) = (0_usize, 0_usize, 0_usize);
    // Headers end where what is left is what they announced.
    while body.len().checked_sub(at)? > following {
        let id = *body.get(at)?;
        at += 1;
        match id {
            SHORT => {
                main = usize::from(*body.get(at)?);
                at += 1;
                following += main;
            }
            LONG => {
                main = u32_at(body, at)? as usize;
                at += 4;
                following = following.checked_add(main)?;
            }
            ORIGIN => at += 2,
            TOP_TRANSACTION => at += 4,
            0..=BLOCK_MAX => {
                let (length, data) = block(body.get(at..)?, major)?;
                at += length;
                following = following.checked_add(data)?;
            }
            _ => return None,
        }
        // The main data's header is the last.
        if id >= LONG {
            break;
        }
    }
    if body.len().checked_sub(at)? != following {
        return None;
    }
    body.get(body.len().checked_sub(main)?..)
}

/// Reads the header of a block behind its id: its length, and how much image and data it announces.
fn block(header: &[u8], major: u32) -> Option<(usize, usize)> {
    const HAS_IMAGE: u8 = 0x10;
    const SAME_RELATION: u8 = 0x80;
    const HAS_HOLE: u8 = 0x01;
    let compressed: u8 = if major >= 15 { 0x04 | 0x08 | 0x10 } else { 0x02 };
    let flags = *header.first()?;
    let mut data = usize::from(u16_at(header, 1)?);
    let mut length = 3;
    if flags & HAS_IMAGE != 0 {
        data += usize::from(u16_at(header, length)?);
        let image = *header.get(length + 4)?;
        length += 5;
        if image & HAS_HOLE != 0 && image & compressed != 0 {
            length += 2;
        }
    }
    if flags & SAME_RELATION == 0 {
        length += 12;
    }
    Some((length + 4, data))
}
