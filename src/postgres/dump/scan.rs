//! What passes of an archive in the custom format: whether it is whole, and how many rows are in it.
//!
//! Behind the head come blocks, one for each entry that has data: a byte for its type, the number of the entry,
//! then chunks, each behind its length, until a length of 0; large objects stand in one block, each
//! behind its number, until a number of 0.

use super::contents::{Contents, Layout, NotAnArchive};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

/// A table of contents is not longer.
const HEAD_BYTES_MAX: usize = 512 << 20;
/// How much is gathered before the head is looked at for the first time.
const HEAD_BYTES_FIRST: usize = 64 << 10;
const BLOCK_DATA: u8 = 1;
const BLOCK_LARGE_OBJECTS: u8 = 3;
/// What ends the rows of a table, and is none of them.
const ENDS: [(&[u8], u64); 2] = [(b"\\.\n\n\n", 3), (b"\\.\n", 1)];
const TAIL_BYTES: usize = 8;

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// Rows by the number of the entry that holds them.
    pub rows: BTreeMap<i64, u64>,
    /// Large objects.
    pub large_objects: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Type,
    Entry { large: bool },
    Object,
    Length { large: bool },
    Data { left: u64, large: bool },
}

/// Follows the blocks behind the head.
pub struct BlockScanner {
    layout: Layout,
    state: State,
    /// A number that has not come wholly.
    number: Vec<u8>,
    entry: i64,
    seen: BTreeSet<i64>,
    lines: u64,
    tail: Vec<u8>,
    held: Held,
}

impl BlockScanner {
    /// Begins behind the head of an archive.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            state: State::Type,
            number: Vec::new(),
            entry: 0,
            seen: BTreeSet::new(),
            lines: 0,
            tail: Vec::new(),
            held: Held::default(),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// When an archive has no such bytes.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), NotAnArchive> {
        while !bytes.is_empty() {
            let taken = self.step(bytes)?;
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Takes the next part of bytes of which there are some, and says how many they were.
    ///
    /// # Errors
    ///
    /// When an archive has no such bytes.
    pub fn step(&mut self, bytes: &[u8]) -> Result<usize, NotAnArchive> {
        let taken = match self.state {
            State::Type => {
                let large = match bytes.first() {
                    Some(&BLOCK_DATA) => false,
                    Some(&BLOCK_LARGE_OBJECTS) => true,
                    other => return Err(NotAnArchive(format!("a block in it has the type {other:?}"))),
                };
                self.state = State::Entry { large };
                1
            }
            State::Data { left, large } => {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                if !large {
                    self.rows(bytes.get(..length).unwrap_or_default());
                }
                let left = left - length as u64;
                self.state = if left == 0 { State::Length { large } } else { State::Data { left, large } };
                length
            }
            _ => {
                let wanted = self.layout.integer_length() - self.number.len();
                let part = bytes.get(..wanted.min(bytes.len())).unwrap_or_default();
                self.number.extend_from_slice(part);
                if self.number.len() == self.layout.integer_length() {
                    let number = self.layout.integer(&self.number);
                    self.number.clear();
                    self.number(number.ok_or_else(|| wrong("a number in it is too large"))?)?;
                }
                part.len()
            }
        };
        Ok(taken)
    }

    /// Says whether the number of the block has come and its end has not.
    pub fn is_inside(&self) -> bool {
        !matches!(self.state, State::Type | State::Entry { .. })
    }

    /// Returns the number of the entry that the block belongs to.
    pub fn entry(&self) -> i64 {
        self.entry
    }

    fn number(&mut self, number: i64) -> Result<(), NotAnArchive> {
        let length = u64::try_from(number).map_err(|_| wrong("a length in it is negative"));
        self.state = match self.state {
            State::Entry { large } => {
                self.entry = number;
                (self.lines, self.tail) = (0, Vec::new());
                if !self.seen.insert(number) {
                    return Err(wrong("two blocks in it belong to one entry"));
                }
                if large { State::Object } else { State::Length { large } }
            }
            State::Object if number == 0 => State::Type,
            State::Object => {
                self.held.large_objects += 1;
                State::Length { large: true }
            }
            State::Length { large } => match (length?, large) {
                (0, true) => State::Object,
                (0, false) => {
                    let end = ENDS.iter().find(|(end, _)| self.tail.ends_with(end));
                    let rows = self.lines.saturating_sub(end.map_or(0, |(_, lines)| *lines));
                    self.held.rows.insert(self.entry, rows);
                    State::Type
                }
                (left, large) => State::Data { left, large },
            },
            state => state,
        };
        Ok(())
    }

    /// Counts rows: each is a line, since those within values are escaped.
    fn rows(&mut self, data: &[u8]) {
        self.lines += data.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.tail.extend_from_slice(data.get(data.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default());
        let excess = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..excess);
    }

    /// Ends, and says what the archive holds.
    ///
    /// # Errors
    ///
    /// When it ends within a block, or lacks the block of an entry.
    pub fn finish(self, contents: &Contents) -> Result<Held, NotAnArchive> {
        if self.state != State::Type {
            return Err(wrong("it ends in the middle of a table's data"));
        }
        let lacking = contents.entries.iter().find(|e| e.has_data && !self.seen.contains(&e.id));
        match lacking {
            Some(entry) => {
                Err(NotAnArchive(format!("the data of {} is not in it", super::contents::show(&entry.tag))))
            }
            None => Ok(self.held),
        }
    }
}

fn wrong(why: &str) -> NotAnArchive {
    NotAnArchive(why.to_owned())
}

/// Gathers the head, then follows the blocks.
#[derive(Default)]
pub struct Scanner {
    head: Vec<u8>,
    looked: usize,
    behind: Option<(Contents, BlockScanner)>,
}

impl Scanner {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// When this is no archive.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), NotAnArchive> {
        if let Some((_, blocks)) = &mut self.behind {
            return blocks.push(bytes);
        }
        self.head.extend_from_slice(bytes);
        // To look again at every byte that comes would take for ever.
        if self.head.len() >= HEAD_BYTES_FIRST.max(2 * self.looked) { self.look() } else { Ok(()) }
    }

    fn look(&mut self) -> Result<(), NotAnArchive> {
        self.looked = self.head.len();
        let Some((contents, length)) = Contents::read(&self.head)? else {
            return match self.head.len() > HEAD_BYTES_MAX {
                true => Err(wrong("its table of contents has no end")),
                false => Ok(()),
            };
        };
        let mut blocks = BlockScanner::new(contents.layout);
        blocks.push(self.head.get(length..).unwrap_or_default())?;
        self.head = Vec::new();
        self.behind = Some((contents, blocks));
        Ok(())
    }

    /// Says whether the head has come wholly.
    pub fn contents(&self) -> Option<&Contents> {
        self.behind.as_ref().map(|(contents, _)| contents)
    }

    /// Ends.
    ///
    /// # Errors
    ///
    /// When the archive is not whole.
    pub fn finish(mut self) -> Result<(Contents, Held), NotAnArchive> {
        if self.behind.is_none() {
            self.look()?;
        }
        let (contents, blocks) = self.behind.ok_or_else(|| wrong("it ends within its table of contents"))?;
        let held = blocks.finish(&contents)?;
        Ok((contents, held))
    }
}

/// A stream whose archive is followed as it passes.
pub struct Scanned<R> {
    inner: R,
    scanner: Scanner,
}

impl<R: Read> Scanned<R> {
    /// Begins.
    pub fn new(inner: R) -> Self {
        Self { inner, scanner: Scanner::default() }
    }

    /// Returns what was read from, and what was seen.
    pub fn into_parts(self) -> (R, Scanner) {
        (self.inner, self.scanner)
    }
}

impl<R: Read> Read for Scanned<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let new = buffer.get(..count).unwrap_or_default();
        self.scanner.push(new).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why.0))?;
        Ok(count)
    }
}
