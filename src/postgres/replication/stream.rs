//! The log as the server writes it.

use super::session::{Replication, Rows, SlotName, text};
use super::wire::{Fields, ReplicationError, said};
use crate::base::Timestamp;
use crate::postgres::segment::Lsn;
use std::time::{Duration, Instant};

/// From the epoch of Unix to that of PostgreSQL, in microseconds.
const POSTGRES_EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;
/// How long a server may take to end a stream.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Where the log goes on, on a later timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The timeline.
    pub timeline: u32,
    /// Where it branches off.
    pub at: Lsn,
}

/// What came of asking for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It comes.
    Streaming,
    /// The timeline has nothing any more.
    Ended(Option<Fork>),
}

/// What comes in a stream.
#[derive(Debug)]
pub enum Streamed<'a> {
    /// A part of the log.
    Log {
        /// Where it begins.
        start: Lsn,
        /// When it was sent, by the server's clock.
        time: Timestamp,
        /// The log.
        bytes: &'a [u8],
    },
    /// A sign of life.
    Alive {
        /// How far the server has sent its log.
        end: Lsn,
        /// When that was, by its clock.
        time: Timestamp,
        /// Whether it wants to hear at once how far we are.
        asks: bool,
    },
    /// The timeline has ended.
    Ended(Option<Fork>),
    /// Nothing came.
    Silence,
}

impl Replication {
    /// Asks for the log of a timeline from a position on.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn start_streaming(
        &mut self,
        slot: &SlotName,
        timeline: u64,
        start: Lsn,
    ) -> Result<Started, ReplicationError> {
        self.command(&format!("START_REPLICATION SLOT \"{slot}\" PHYSICAL {start} TIMELINE {timeline}"))?;
        self.started()
    }

    fn started(&mut self) -> Result<Started, ReplicationError> {
        loop {
            let message = self.expect()?;
            match message.kind {
                b'W' => return Ok(Started::Streaming),
                b'E' => {
                    let problem = said(message.body);
                    // An error that ends the session too is told all the same.
                    let _ = self.results();
                    return Err(problem);
                }
                // A timeline without anything behind the start answers with its end at once.
                b'T' => return self.results().map(|rows| Started::Ended(fork(&rows))),
                b'C' => return self.results().map(|_| Started::Ended(None)),
                _ => {}
            }
        }
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    ///
    /// When the server says so, or is gone.
    pub fn next_streamed(&mut self, patience: Duration) -> Result<Streamed<'_>, ReplicationError> {
        const ODD: ReplicationError = ReplicationError::Odd("a part of a log that is none");
        let Some((kind, body)) = self.wire.next(Some(patience))? else { return Ok(Streamed::Silence) };
        match kind {
            b'd' => {}
            b'c' => {
                self.wire.send_message(b'c', b"")?;
                return self.results().map(|rows| Streamed::Ended(fork(&rows)));
            }
            b'E' => {
                let problem = said(self.wire.body(body));
                let _ = self.results();
                return Err(problem);
            }
            _ => return Ok(Streamed::Silence),
        }
        let mut fields = Fields(self.wire.body(body));
        match fields.u8() {
            Some(b'w') => {
                let (start, _end, time) =
                    (fields.u64().ok_or(ODD)?, fields.u64().ok_or(ODD)?, fields.u64().ok_or(ODD)?);
                Ok(Streamed::Log { start: Lsn(start), time: instant(time), bytes: fields.0 })
            }
            Some(b'k') => {
                let (end, time) = (fields.u64().ok_or(ODD)?, fields.u64().ok_or(ODD)?);
                Ok(Streamed::Alive { end: Lsn(end), time: instant(time), asks: fields.u8() == Some(1) })
            }
            _ => Err(ODD),
        }
    }

    /// Tells the server how far the log is safe here, and asks for a sign of life if that is wanted. What is
    /// only in memory is told as not written.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn report(&mut self, safe: Lsn, now: Timestamp, asks: bool) -> Result<(), ReplicationError> {
        let time = now.nanoseconds() / 1000 - POSTGRES_EPOCH_MICROSECONDS;
        let mut body = vec![b'r'];
        // Written, flushed; nothing is ever applied here.
        for number in [safe.0, safe.0, 0] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        body.extend_from_slice(&time.to_be_bytes());
        body.push(u8::from(asks));
        self.wire.send_message(b'd', &body)
    }

    /// Ends a stream in good order, whatever the user wants now; a server that does not answer is left alone.
    pub fn end_streaming(&mut self) {
        self.wire.heeds = false;
        let until = Instant::now() + END_WITHIN;
        if self.wire.send_message(b'c', b"").is_err() {
            return;
        }
        while Instant::now() < until {
            match self.wire.receive(Some(Duration::from_secs(1))) {
                Ok(Some(message)) if message.kind == b'Z' => return,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Asks what time it is at the server, which says so only in a stream: one is begun where its log ends.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn clock(&mut self) -> Result<Timestamp, ReplicationError> {
        let identity = self.identify()?;
        let (at, timeline) = (identity.position, identity.timeline);
        self.command(&format!("START_REPLICATION PHYSICAL {at} TIMELINE {timeline}"))?;
        match self.started()? {
            Started::Streaming => {}
            Started::Ended(_) => return Err(ReplicationError::Odd("the end of the timeline that it is on")),
        }
        self.report(Lsn(0), Timestamp::from_nanoseconds(0), true)?;
        let until = Instant::now() + END_WITHIN;
        let time = loop {
            match self.next_streamed(Duration::from_millis(100))? {
                Streamed::Log { time, .. } | Streamed::Alive { time, .. } => break time,
                Streamed::Ended(_) => return Err(ReplicationError::Odd("an end of its log")),
                Streamed::Silence if Instant::now() < until => {}
                Streamed::Silence => return Err(ReplicationError::Lost("it does not answer".to_owned())),
            }
        };
        let heeds = self.wire.heeds;
        self.end_streaming();
        self.wire.heeds = heeds;
        Ok(time)
    }

    /// Lets no interruption end a wait from here on: whoever streams looks for one himself.
    pub fn heed_nobody(&mut self) {
        self.wire.heeds = false;
    }
}

fn instant(microseconds: u64) -> Timestamp {
    let since_unix = microseconds.cast_signed().saturating_add(POSTGRES_EPOCH_MICROSECONDS);
    Timestamp::from_nanoseconds(since_unix.saturating_mul(1000))
}

fn fork(rows: &Rows) -> Option<Fork> {
    let row = rows.first()?;
    Some(Fork { timeline: text(row, 0)?.parse().ok()?, at: text(row, 1)?.parse().ok()? })
}
