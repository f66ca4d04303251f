//! Segments as they come, stored: pieces of the one that is being written, so that nothing is received for long
//! without being safe; then the whole, which supersedes them and has the bytes that archiving by the server
//! itself has.
//!
//! Segments longer than an object may be are stored in long pieces, as they are when the server archives them.

use super::{Failure, Happening, Run, other_bytes};
use crate::base::limits;
use crate::format::log::LogDigest;
use crate::ops::OpsError;
use crate::postgres::archive::{digest_of, note, note_ancestors};
use crate::postgres::lineage::{Lineage, admit};
use crate::postgres::segment::{LogFile, Lsn, SegmentName, SegmentSize};
use crate::postgres::wal::{FirstPage, Noted, walk, walk_behind, walk_from};
use crate::repo::{LogEntry, LogPut, holds_whole, joined};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The share of the permitted lag after which a piece is begun to be stored; the rest is for storing it.
const LAG_SHARE: f64 = 0.6;
/// Records begin at multiples of this.
const RECORD_ALIGNMENT: u64 = 8;
/// How long is waited where nothing is to be stored.
const IDLE: Duration = Duration::from_secs(3600);

/// What the keeper is given.
pub(super) enum Task {
    /// A part of the log, which follows on the one before.
    Log { timeline: u64, start: Lsn, bytes: Vec<u8> },
    /// The history of a timeline.
    History { timeline: u32, content: Vec<u8> },
}

/// A piece that is in the archive already.
struct Held {
    offset: u64,
    end: u64,
    digest: LogDigest,
}

/// The segment that is being received.
struct Segment {
    name: SegmentName,
    timeline: u64,
    start: Lsn,
    first: Option<FirstPage>,
    /// Where in the segment the bytes at hand begin: 0 but for segments longer than one object.
    at: u64,
    bytes: Vec<u8>,
    /// What was noted of the part of a long segment that is before these.
    before: Noted,
    whole: blake3::Hasher,
    /// Up to where in the segment everything is safe, as pieces.
    safe: u64,
    /// Since when something is not.
    waits_since: Option<Instant>,
    /// What the archive held of it when it was first looked at.
    held: Vec<Held>,
    /// Objects of it that were seen in the archive; `None` before the first look.
    seen: Option<HashSet<String>>,
    /// Whether the archive holds it whole: then there is no need for pieces.
    is_held_whole: bool,
}

impl Segment {
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    /// Returns bytes by where in the segment they stand, if they are at hand.
    fn part(&self, from: u64, to: u64) -> Option<&[u8]> {
        let index = |offset: u64| usize::try_from(offset.checked_sub(self.at)?).ok();
        self.bytes.get(index(from)?..index(to)?)
    }
}

/// Stores what it is given.
pub(super) struct Keeper<'a> {
    run: &'a Run<'a>,
    system_identifier: u64,
    size: SegmentSize,
    /// Up to where the log is safe.
    safe: &'a AtomicU64,
    /// Known once a first page has been seen.
    lineage: Option<Lineage>,
    histories: Vec<(u32, Vec<u8>)>,
    segment: Option<Segment>,
}

impl<'a> Keeper<'a> {
    pub fn new(run: &'a Run<'a>, system_identifier: u64, size: SegmentSize, safe: &'a AtomicU64) -> Self {
        Self { run, system_identifier, size, safe, lineage: None, histories: Vec::new(), segment: None }
    }

    /// Stores until there is nothing more to come; then what is left.
    pub fn keep(mut self, tasks: &Receiver<Task>) -> Result<(), Failure> {
        loop {
            let wait = self.segment.as_ref().and_then(|segment| segment.waits_since);
            let wait = wait.map_or(IDLE, |since| self.piece_after().saturating_sub(since.elapsed()));
            match tasks.recv_timeout(wait) {
                Ok(Task::Log { timeline, start, bytes }) => self.take(timeline, start, &bytes)?,
                Ok(Task::History { timeline, content }) => {
                    self.store_piece()?;
                    self.histories.push((timeline, content));
                    if self.lineage.is_some() {
                        self.store_histories()?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.store_piece(),
            }
            let waits = self.segment.as_ref().and_then(|segment| segment.waits_since);
            if waits.is_some_and(|since| since.elapsed() >= self.piece_after()) {
                self.store_piece()?;
            }
        }
    }

    fn piece_after(&self) -> Duration {
        self.run.options.lag.mul_f64(LAG_SHARE)
    }

    /// Takes a part of the log.
    fn take(&mut self, timeline: u64, start: Lsn, mut bytes: &[u8]) -> Result<(), Failure> {
        let mut at = start;
        while !bytes.is_empty() {
            let begin = self.size.start_of(at);
            let goes_on = |segment: &Segment| segment.timeline == timeline && segment.start == begin;
            if !self.segment.as_ref().is_some_and(goes_on) {
                self.store_piece()?;
                self.segment = Some(self.segment_at(timeline, begin)?);
            }
            let (size, block) = (self.size.bytes(), self.block_bytes());
            let Some(segment) = &mut self.segment else { return Ok(()) };
            if begin.0 + segment.end() != at.0 {
                return Err(odd(format!("it sent {at} where {} follows", Lsn(begin.0 + segment.end()))));
            }
            let room = usize::try_from(segment.at + block - segment.end()).unwrap_or(0);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            segment.bytes.extend_from_slice(now);
            segment.waits_since.get_or_insert_with(Instant::now);
            (at, bytes) = (Lsn(at.0 + now.len() as u64), later);
            if segment.first.is_none() {
                self.look()?;
            }
            match &self.segment {
                Some(segment) if segment.end() == size && size == block => self.store_whole()?,
                Some(segment) if segment.end() == segment.at + block => self.store_block()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn block_bytes(&self) -> u64 {
        self.size.bytes().min(limits::LOG_PIECE_BYTES_MAX)
    }

    fn segment_at(&self, timeline: u64, start: Lsn) -> Result<Segment, Failure> {
        let name = SegmentName::at(timeline, start, self.size);
        Ok(Segment {
            name: name.ok_or_else(|| odd(format!("there is no segment at {start}")))?,
            timeline,
            start,
            first: None,
            at: 0,
            bytes: Vec::with_capacity(usize::try_from(self.block_bytes()).unwrap_or(0)),
            before: Noted::default(),
            whole: blake3::Hasher::new(),
            safe: 0,
            waits_since: None,
            held: Vec::new(),
            seen: None,
            is_held_whole: false,
        })
    }

    /// Looks at the first page of a segment: that it is of this cluster (A12), and of this place.
    fn look(&mut self) -> Result<(), Failure> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        // Whatever a server sends at once holds the head of the page that it begins with.
        let first = FirstPage::read(&segment.bytes);
        let first = first.map_err(|error| odd(format!("the beginning of {}: {error}", segment.name)))?;
        let fits = first.address == segment.start
            && first.segment_size == self.size
            && first.timeline <= segment.timeline
            && first.system_identifier == self.system_identifier;
        if !fits {
            return Err(odd(format!("the first page of {} is that of something else", segment.name)));
        }
        segment.first = Some(first);
        let lineage = Lineage::of(&first);
        if self.lineage.as_ref() != Some(&lineage) {
            let (name, digest) = (segment.name.to_string(), digest_of(&segment.bytes));
            admit(self.run.repository, &self.run.options.archiver, &lineage, &name, || Ok(digest))?;
            self.lineage = Some(lineage);
            self.store_histories()?;
        }
        Ok(())
    }

    fn entry(&self, name: &str, timeline: u64) -> Result<LogEntry, Failure> {
        let archiver = &self.run.options.archiver;
        let lineage = self.lineage.as_ref().ok_or_else(|| odd("no first page".to_owned()))?;
        let mut entry = archiver.entry(lineage.stream(&archiver.cluster), name, lineage);
        entry.timeline = Some(timeline);
        Ok(entry)
    }

    /// A15: before any segment of its timeline.
    fn store_histories(&mut self) -> Result<(), Failure> {
        for (timeline, content) in std::mem::take(&mut self.histories) {
            let name = LogFile::History { timeline }.to_string();
            let mut entry = self.entry(&name, u64::from(timeline))?;
            note_ancestors(&mut entry, timeline, &content);
            let put = self.run.repository.archive_log(&entry, &content);
            if matches!(put.map_err(OpsError::from)?, LogPut::Stored(_)) {
                (self.run.tell)(Happening::History { timeline });
            }
        }
        Ok(())
    }

    /// Stores what is not safe yet of the segment that is being received.
    fn store_piece(&mut self) -> Result<(), Failure> {
        let Some(mut segment) = self.segment.take() else { return Ok(()) };
        let stored = self.store_piece_of(&mut segment);
        self.segment = Some(segment);
        stored
    }

    fn store_piece_of(&self, segment: &mut Segment) -> Result<(), Failure> {
        segment.waits_since = None;
        let Some(first) = segment.first.filter(|_| segment.safe < segment.end()) else { return Ok(()) };
        let mut entry = self.entry(&segment.name.to_string(), segment.timeline)?;
        self.compare(segment, &entry)?;
        // What the archive holds further than what has come is compared when it comes.
        let waits_for_more = segment.held.first().is_some_and(|held| held.end > segment.end());
        if !segment.is_held_whole && !waits_for_more && segment.safe < segment.end() {
            let (from, end) = (segment.safe, segment.end());
            let bytes =
                segment.part(from, end).ok_or_else(|| odd("a piece is not at hand".to_owned()))?.to_vec();
            let here = FirstPage { address: Lsn(first.address.0 + segment.at), ..first };
            let noted = walk_from(&segment.bytes, &here, usize::try_from(from - segment.at).unwrap_or(0));
            note(&mut entry, &noted, segment.start.0 + from, end - from);
            if noted.complete {
                // As the server counts: the next record would begin here.
                let next = noted.end.0.next_multiple_of(RECORD_ALIGNMENT).min(segment.start.0 + end);
                entry.facts.insert("last_record_end".to_owned(), Lsn(next).to_string());
            }
            let seen = segment.seen.get_or_insert_default();
            self.run.repository.append_log_piece(&entry, from, &bytes, seen)?;
            segment.safe = end;
            self.run.count(|report| report.pieces += 1);
        }
        self.safe_up_to(Lsn(segment.start.0 + segment.safe));
        Ok(())
    }

    /// Compares what has come with what the archive holds of the segment.
    fn compare(&self, segment: &mut Segment, entry: &LogEntry) -> Result<(), Failure> {
        if segment.seen.is_none() {
            let listing = self.run.repository.search_log(&entry.stream, &entry.name)?;
            let refused = listing.refused.iter().map(|(name, _)| name.clone());
            segment.seen = Some(listing.found.iter().map(|log| log.object.clone()).chain(refused).collect());
            segment.is_held_whole = holds_whole(&listing.found);
            let held = joined(&listing.found, 0).into_iter().filter_map(|log| {
                let (offset, digest) = (log.record.piece_offset?, log.record.content.as_ref()?.digest);
                Some(Held { offset, end: offset + digest.length, digest })
            });
            segment.held = held.collect();
        }
        let come = segment.end();
        let (passed, ahead): (Vec<Held>, Vec<Held>) =
            std::mem::take(&mut segment.held).into_iter().partition(|held| held.end <= come);
        segment.held = ahead;
        for held in passed {
            let Some(part) = segment.part(held.offset, held.end) else { continue };
            let digest = digest_of(part);
            if digest != held.digest {
                let reason = "other bytes of this segment are there already";
                self.run.repository.record_conflict(entry, digest, None, reason)?;
                return Err(other_bytes(&entry.name).into());
            }
            segment.safe = segment.safe.max(held.end);
        }
        Ok(())
    }

    /// Stores a segment that is there to its end.
    fn store_whole(&mut self) -> Result<(), Failure> {
        let Some(segment) = self.segment.take() else { return Ok(()) };
        let Some(first) = segment.first else { return Ok(()) };
        let name = segment.name.to_string();
        let mut entry = self.entry(&name, segment.timeline)?;
        note(&mut entry, &walk(&segment.bytes, &first), segment.start.0, segment.end());
        let put = self.run.repository.archive_log(&entry, &segment.bytes)?;
        self.ended(&segment, put);
        if segment.seen.is_none_or(|seen| !seen.is_empty()) {
            // What is left of pieces costs room only.
            let _ = self.run.repository.drop_superfluous_pieces(&entry.stream, &name, &segment.bytes);
        }
        Ok(())
    }

    /// Stores a part of a segment that is longer than an object may be, as archiving by the server does.
    fn store_block(&mut self) -> Result<(), Failure> {
        let Some(mut segment) = self.segment.take() else { return Ok(()) };
        let Some(first) = segment.first else { return Ok(()) };
        let mut entry = self.entry(&segment.name.to_string(), segment.timeline)?;
        self.compare(&mut segment, &entry)?;
        let here = FirstPage { address: Lsn(first.address.0 + segment.at), ..first };
        let noted = walk_behind(&segment.bytes, &here, &segment.before);
        note(&mut entry, &noted, here.address.0, segment.bytes.len() as u64);
        segment.before = noted;
        segment.whole.update(&segment.bytes);
        let end = segment.end();
        let whole = || LogDigest { length: end, blake3: *segment.whole.finalize().as_bytes() };
        let last = (end == self.size.bytes()).then(whole);
        let put = self.run.repository.archive_log_piece(&entry, segment.at, &segment.bytes, last)?;
        if last.is_some() {
            self.ended(&segment, put);
            return Ok(());
        }
        segment.seen = None;
        segment.held.clear();
        (segment.at, segment.safe, segment.waits_since) = (end, end, None);
        segment.bytes.clear();
        self.safe_up_to(Lsn(segment.start.0 + end));
        self.segment = Some(segment);
        Ok(())
    }

    fn ended(&self, segment: &Segment, put: LogPut) {
        let stored = matches!(put, LogPut::Stored(_));
        self.run.count(|report| match stored {
            true => report.segments += 1,
            false => report.present += 1,
        });
        self.safe_up_to(Lsn(segment.start.0 + self.size.bytes()));
        (self.run.tell)(Happening::Segment { name: segment.name, stored });
    }

    fn safe_up_to(&self, position: Lsn) {
        self.safe.fetch_max(position.0, Ordering::AcqRel);
        self.run.count(|report| report.safe = report.safe.max(position));
    }
}

fn odd(why: String) -> Failure {
    let what = "the log that the server sends".to_owned();
    Failure::Final(crate::postgres::PostgresError::Damaged { what, why: format!("cannot be: {why}") })
}
