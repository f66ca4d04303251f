//! A server's log through a replication slot, into the repository as it is written.
//!
//! Two threads: one talks to the server and never waits long, the other stores (`keeper`). The server hears of
//! nothing as safe that the repository does not hold; its slot keeps everything else. So at every start, after a
//! crash of either side too, the log is received again from the beginning of the segment that the slot stands
//! in, and what is there already is compared and not stored again.
//!
//! - `begin`: where to begin, and what is missing before it
//! - `keeper`: segments and pieces of them, stored
//! - `pump`: one connection, from its start to its end
//! - `status`: what there is to know of a slot

mod begin;
mod keeper;
mod pump;
mod status;

pub use status::{LISTS_SLOTS, SlotStatus, drop_slot, slot_status};

use super::error::PostgresError;
use super::lineage::Archiver;
use super::replication::{Endpoint, ReplicationError, SlotName};
use super::segment::{Lsn, SegmentName};
use crate::base::{Classify, ErrorClass, Observer};
use crate::ops::OpsError;
use crate::repo::Repository;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The pause before a lost connection is made again: doubled at every failure, from this to that.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How to receive.
pub struct ReceiveOptions {
    /// The cluster, and who archives it.
    pub archiver: Archiver,
    /// The slot.
    pub slot: SlotName,
    /// Makes the slot where there is none.
    pub create_slot: bool,
    /// How long a transaction may be received and not safe.
    pub lag: Duration,
    /// How often the server hears how far the log is safe, when nothing changes.
    pub report_every: Duration,
    /// How long a server may be silent, though asked, until it is taken for stuck.
    pub silence: Duration,
    /// Ends when the connection is lost, instead of making it again.
    pub once: bool,
    /// Ends when the log is safe up to here.
    pub until: Option<Lsn>,
}

/// What happens while the log is received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The server sends its log.
    Streaming {
        /// On which timeline.
        timeline: u64,
        /// From where on.
        start: Lsn,
    },
    /// A segment is in the archive, whole.
    Segment {
        /// Which.
        name: SegmentName,
        /// False where it was there already.
        stored: bool,
    },
    /// The history of a timeline is in the archive.
    History {
        /// The timeline.
        timeline: u32,
    },
    /// The server has gone on to another timeline.
    Switched {
        /// The timeline.
        timeline: u32,
        /// Where it branches off.
        at: Lsn,
    },
    /// The server no longer has what would follow on what is archived.
    Gap {
        /// The first segment that is missing.
        first: SegmentName,
        /// The last one.
        last: SegmentName,
    },
    /// The connection, or the store, failed.
    Lost {
        /// How.
        why: String,
        /// How long until the next attempt.
        pause: Duration,
    },
}

/// What was received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiveReport {
    /// Whole segments that were stored.
    pub segments: u64,
    /// Whole segments that were in the archive already.
    pub present: u64,
    /// Pieces that were stored.
    pub pieces: u64,
    /// Holes that were recorded.
    pub gaps: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// How often the connection was made again.
    pub reconnects: u64,
    /// The timeline.
    pub timeline: u64,
    /// Up to where the log is safe.
    pub safe: Lsn,
}

/// How one connection ended.
enum Failure {
    /// The same may go well later.
    Passing(PostgresError),
    /// What follows on the archived log is no longer there.
    Missing(PostgresError),
    /// It will not.
    Final(PostgresError),
}

impl Failure {
    fn of_server(error: ReplicationError, doing: &'static str, place: &str) -> Self {
        match error.may_pass() {
            true => Self::Passing(error.at(doing, place)),
            // "requested WAL segment has already been removed"
            false if error.is("58P01") => Self::Missing(error.at(doing, place)),
            false => Self::Final(error.at(doing, place)),
        }
    }
}

impl<E: Into<PostgresError>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        match error.class() {
            ErrorClass::Transient => Self::Passing(error),
            _ => Self::Final(error),
        }
    }
}

/// What all connections of a run share.
struct Run<'a> {
    repository: &'a Repository,
    endpoint: &'a Endpoint,
    options: &'a ReceiveOptions,
    tell: &'a (dyn Fn(Happening) + Sync),
    report: Mutex<ReceiveReport>,
}

impl Run<'_> {
    fn count(&self, change: impl FnOnce(&mut ReceiveReport)) {
        change(&mut self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    fn counted(&self) -> ReceiveReport {
        *self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn observer(&self) -> &dyn Observer {
        self.repository.environment().observer.as_ref()
    }
}

/// Receives the log until the user has had enough, or the wanted position is safe. What was received by then is
/// in the repository when this returns.
///
/// # Errors
///
/// When the server or the repository refuses for good: another cluster, a slot that is not there or has lost the
/// log, other bytes than those that are archived. With `once` also when the connection is lost.
pub fn receive(
    repository: &Repository,
    endpoint: &Endpoint,
    options: &ReceiveOptions,
    tell: &(dyn Fn(Happening) + Sync),
) -> Result<ReceiveReport, PostgresError> {
    let run = Run { repository, endpoint, options, tell, report: Mutex::default() };
    let mut pause = PAUSE_MIN;
    let mut from_slot = false;
    loop {
        let before = run.counted();
        let (error, waits) = match pump::connection(&run, from_slot) {
            Ok(()) => return Ok(run.counted()),
            Err(Failure::Final(error)) => {
                // Stopped in the middle of a question, there is nothing to be said.
                let stopped = error.class() == ErrorClass::Interrupted;
                return if stopped { Ok(run.counted()) } else { Err(error) };
            }
            // What the slot does not keep may be gone; what it keeps must be there.
            Err(Failure::Missing(error)) if from_slot => return Err(lost_slot(&options.slot, &error)),
            Err(Failure::Missing(error)) => {
                from_slot = true;
                (error, false)
            }
            Err(Failure::Passing(error)) => (error, true),
        };
        if run.observer().interrupted() {
            return Ok(run.counted());
        }
        if !waits {
            continue;
        }
        if options.once {
            return Err(error);
        }
        let after = run.counted();
        if after.safe > before.safe {
            (pause, from_slot) = (PAUSE_MIN, false);
        }
        tell(Happening::Lost { why: crate::base::explain(&error), pause });
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if run.observer().interrupted() {
                return Ok(run.counted());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        pause = (pause * 2).min(PAUSE_MAX);
        run.count(|report| report.reconnects += 1);
    }
}

fn lost_slot(slot: &SlotName, error: &PostgresError) -> PostgresError {
    PostgresError::failed(
        format!("the slot {slot} has lost log that was not received yet: {error}"),
        "remove the slot and make it anew (pg receive --drop-slot, then --create-slot): what is missing is \
         recorded as a gap then; and take a new base backup",
    )
}

/// What stops a receiver whose bytes are not those that are archived.
fn other_bytes(name: &str) -> OpsError {
    OpsError::Stopped {
        why: format!("the server sends other bytes of {name} than the ones that are archived"),
        cure: "check that this server is the one whose log is archived under this name",
    }
}
