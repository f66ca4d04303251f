//! A base backup over the wire: archives of files one after the other, read to the last result or error.
//!
//! The form is that of version 15 and newer, in which the server names each archive. A manifest is not asked for:
//! the repository has a digest of every file that arrives, and the server's own would be of the same bytes.

use super::session::{Replication, Rows, row, text};
use super::wire::{Fields, ReplicationError, said, warning};
use crate::postgres::segment::Lsn;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Names the backup in its label.
    pub label: String,
    /// Makes the checkpoint at once.
    pub fast: bool,
    /// The log that makes it consistent comes with it.
    pub with_log: bool,
    /// What lies in the folder of the links to tablespaces comes with it, and no map of them: only so does a server send
    /// tablespaces within its data directory.
    pub with_links: bool,
}

/// An archive that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Archive {
    /// The data directory.
    Data,
    /// A tablespace.
    Tablespace(u32),
}

/// How a backup ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupEnd {
    /// How far replay must come.
    pub stop: Lsn,
    /// What the server warned of.
    pub warnings: Vec<String>,
}

/// A base backup on its way; as a reader it gives the bytes of the archive that began last.
pub struct BackupCopy<'a> {
    session: &'a mut Replication,
    /// The tablespaces outside of the data directory, by their numbers.
    pub tablespaces: BTreeMap<u32, String>,
    data: Range<usize>,
    next: Option<Archive>,
    done: bool,
    problem: Option<ReplicationError>,
}

impl Replication {
    /// Begins a base backup.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn base_backup(&mut self, options: &CopyOptions) -> Result<BackupCopy<'_>, ReplicationError> {
        let label = options.label.replace('\'', "''");
        let checkpoint = if options.fast { "fast" } else { "spread" };
        self.command(&format!(
            "BASE_BACKUP ( LABEL '{label}', CHECKPOINT '{checkpoint}', WAL {}, WAIT false, TABLESPACE_MAP {}, \
             MANIFEST 'no', VERIFY_CHECKSUMS true, TARGET 'client' )",
            options.with_log, !options.with_links
        ))?;
        self.warnings.clear();
        // Where it begins, then the tablespaces: a result each, then the copy.
        let mut tables: Vec<Rows> = Vec::new();
        loop {
            let Some((kind, body)) = self.wire.next(None)? else { continue };
            let body = self.wire.body(body);
            match kind {
                b'T' => tables.push(Rows::new()),
                b'D' => {
                    let row = row(body).ok_or(ReplicationError::Odd("a row that is none"))?;
                    tables.last_mut().ok_or(ReplicationError::Odd("a row of nothing"))?.push(row);
                }
                b'N' => {
                    let warning = warning(body);
                    self.warnings.extend(warning);
                }
                b'E' => {
                    let problem = said(body);
                    let _ = self.results();
                    return Err(problem);
                }
                b'H' => break,
                b'Z' => return Err(ReplicationError::Odd("no backup")),
                _ => {}
            }
        }
        let listed = tables.last().ok_or(ReplicationError::Odd("no list of tablespaces"))?;
        let read = |row: &Vec<Option<Vec<u8>>>| Some((text(row, 0)?.parse().ok()?, text(row, 1)?.to_owned()));
        let tablespaces = listed.iter().filter_map(read).collect();
        Ok(BackupCopy { session: self, tablespaces, data: 0..0, next: None, done: false, problem: None })
    }
}

impl BackupCopy<'_> {
    /// Goes on to the next archive; `None` after the last. What is left of the one before is passed over.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn next_archive(&mut self) -> Result<Option<Archive>, ReplicationError> {
        while self.next.is_none() && !self.done {
            self.data = 0..0;
            self.advance()?;
        }
        Ok(self.next.take())
    }

    /// Returns why reading failed, where the server or the connection was the reason.
    pub fn problem(&mut self) -> Option<ReplicationError> {
        self.problem.take()
    }

    /// Reads to the last result: only then is there a backup.
    ///
    /// # Errors
    ///
    /// What the server found wrong, which it says after everything else.
    pub fn finish(mut self) -> Result<BackupEnd, ReplicationError> {
        while !self.done {
            self.data = 0..0;
            self.next = None;
            self.advance()?;
        }
        let rows = self.session.results_patiently()?;
        let stop = rows.first().and_then(|row| text(row, 0)?.parse().ok());
        let stop = stop.ok_or(ReplicationError::Odd("no end of the backup"))?;
        Ok(BackupEnd { stop, warnings: std::mem::take(&mut self.session.warnings) })
    }

    /// Takes the next message.
    fn advance(&mut self) -> Result<(), ReplicationError> {
        const ODD: ReplicationError = ReplicationError::Odd("a part of a backup that is none");
        let Some((kind, place)) = self.session.wire.next(None)? else { return Ok(()) };
        let body = self.session.wire.body(place.clone());
        match kind {
            b'd' => {}
            b'c' => {
                self.done = true;
                return Ok(());
            }
            b'N' => {
                let warning = warning(body);
                self.session.warnings.extend(warning);
                return Ok(());
            }
            b'E' => {
                let problem = said(body);
                let _ = self.session.results();
                return Err(problem);
            }
            _ => return Ok(()),
        }
        let mut fields = Fields(body);
        match fields.u8() {
            Some(b'd') => self.data = place.start + 1..place.end,
            Some(b'n') => {
                let name = fields.text().and_then(|name| std::str::from_utf8(name).ok()).ok_or(ODD)?;
                let stem = name.strip_suffix(".tar").ok_or(ODD)?;
                self.next = Some(match stem {
                    "base" => Archive::Data,
                    number => Archive::Tablespace(number.parse().map_err(|_| ODD)?),
                });
            }
            // Progress.
            Some(b'p') => {}
            _ => return Err(ODD),
        }
        Ok(())
    }
}

impl Read for BackupCopy<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        while self.data.is_empty() && self.next.is_none() && !self.done {
            if let Err(error) = self.advance() {
                let text = error.to_string();
                self.problem = Some(error);
                return Err(io::Error::other(text));
            }
        }
        let held = self.session.wire.body(self.data.clone());
        let count = held.len().min(space.len());
        if let (Some(space), Some(held)) = (space.get_mut(..count), held.get(..count)) {
            space.copy_from_slice(held);
        }
        self.data.start += count;
        Ok(count)
    }
}
