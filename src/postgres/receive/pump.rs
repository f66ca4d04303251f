//! One connection: what the server sends goes to the keeper, what is safe is told to the server.

use super::begin::{Begin, Known, path_to};
use super::keeper::{Keeper, Task};
use super::{Failure, Happening, Run};
use crate::postgres::error::PostgresError;
use crate::postgres::replication::{Fork, Replication, ReplicationError, Started, Streamed};
use crate::postgres::segment::Lsn;
use crossbeam_channel::{SendTimeoutError, Sender, bounded};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const STREAM: &str = "receive the log of";
/// Parts of the log that wait to be stored; a server sends up to 128 KiB at once.
const QUEUE: usize = 128;
/// How long the slot may be held by a session that has ended here.
const SLOT_WITHIN: Duration = Duration::from_secs(5);
/// How often is looked whether something is safe, or to be done.
const TICK: Duration = Duration::from_millis(100);

/// How the pump ended without fault.
enum Ended {
    /// The user has had enough, or the wanted position is safe.
    Wanted,
    /// The keeper has stopped, and says why.
    Keeper,
}

/// Receives over one connection, until that is enough.
pub(super) fn connection(run: &Run<'_>, from_slot: bool) -> Result<(), Failure> {
    let place = run.endpoint.place();
    let observer = run.repository.environment().observer.clone();
    let connected = Replication::connect(run.endpoint, observer);
    let mut replication = match connected {
        Ok(replication) => replication,
        Err(ReplicationError::Interrupted) => return Ok(()),
        Err(error) => return Err(Failure::of_server(error, "connect to", place)),
    };
    let known = Known::ask(run, &mut replication)?;
    let begin = known.begin(run, &mut replication, from_slot)?;
    if begin.start > known.identity.position {
        let why = format!(
            "its log ends at {}, before {}, where it is to go on",
            known.identity.position, begin.start
        );
        let server = place.to_owned();
        return Err(Failure::Passing(PostgresError::Server { doing: STREAM, server, why, code: None }));
    }
    replication.heed_nobody();
    let safe = AtomicU64::new(0);
    let (sender, receiver) = bounded(QUEUE);
    let keeper = Keeper::new(run, known.identity.system_identifier, known.size, &safe);
    std::thread::scope(|scope| {
        let keeper = scope.spawn(|| {
            let receiver = receiver;
            keeper.keep(&receiver)
        });
        let mut pump =
            Pump { run, replication, safe: &safe, begin, told: Lsn(0), told_at: Instant::now(), sender };
        let ended = pump.run_through(&known);
        let Pump { mut replication, sender, .. } = pump;
        drop(sender);
        let kept = keeper.join().unwrap_or_else(|_| {
            Err(Failure::from(crate::repo::RepoError::Internal {
                doing: "storing the log",
                why: "a thread panicked".to_owned(),
            }))
        });
        // The last that became safe is told too, so that the server need not keep it.
        if kept.is_ok() && ended.is_ok() {
            let at = Lsn(safe.load(Ordering::Acquire));
            if at >= begin.kept_from && at > Lsn(0) {
                let _ = replication.report(at, run.repository.environment().clock.now(), false);
            }
            replication.end_streaming();
        }
        kept?;
        ended.map(drop)
    })
}

struct Pump<'a> {
    run: &'a Run<'a>,
    replication: Replication,
    safe: &'a AtomicU64,
    begin: Begin,
    /// What the server heard last, and when.
    told: Lsn,
    told_at: Instant,
    sender: Sender<Task>,
}

impl Pump<'_> {
    fn failed(&self, error: ReplicationError) -> Failure {
        Failure::of_server(error, STREAM, self.run.endpoint.place())
    }

    fn run_through(&mut self, known: &Known) -> Result<Ended, Failure> {
        for (timeline, content) in &known.histories {
            let task = Task::History { timeline: *timeline, content: content.clone() };
            if let Some(ended) = self.give(task, false)? {
                return Ok(ended);
            }
        }
        let Begin { mut timeline, mut start, .. } = self.begin;
        loop {
            let fork = match self.start(timeline, start)? {
                Started::Streaming => {
                    self.run.count(|report| report.timeline = timeline);
                    (self.run.tell)(Happening::Streaming { timeline, start });
                    match self.stream(timeline)? {
                        Ok(fork) => fork,
                        Err(ended) => return Ok(ended),
                    }
                }
                Started::Ended(fork) => fork,
            };
            let Some(Fork { timeline: next, at }) = fork else {
                return Err(self
                    .failed(ReplicationError::Lost(format!("it ended timeline {timeline} without a next"))));
            };
            // A15: the history first, and those of all timelines between.
            let (_, histories) = path_to(self.run, &mut self.replication, next)?;
            for (timeline, content) in histories {
                if let Some(ended) = self.give(Task::History { timeline, content }, false)? {
                    return Ok(ended);
                }
            }
            (self.run.tell)(Happening::Switched { timeline: next, at });
            // The new timeline has a segment of its own where it branches off.
            (timeline, start) = (u64::from(next), known.size.start_of(at));
        }
    }

    /// Asks for a timeline; a session before this one may hold the slot for a moment.
    fn start(&mut self, timeline: u64, start: Lsn) -> Result<Started, Failure> {
        let since = Instant::now();
        loop {
            match self.replication.start_streaming(&self.run.options.slot, timeline, start) {
                Err(error) if error.is("55006") && since.elapsed() < SLOT_WITHIN => std::thread::sleep(TICK),
                started => return started.map_err(|error| self.failed(error)),
            }
        }
    }

    /// Receives one timeline; returns where the log goes on when it ends.
    fn stream(&mut self, timeline: u64) -> Result<Result<Option<Fork>, Ended>, Failure> {
        let options = self.run.options;
        let (mut heard, mut asked) = (Instant::now(), false);
        loop {
            let safe = Lsn(self.safe.load(Ordering::Acquire));
            let enough = options.until.is_some_and(|until| safe >= until);
            if enough || self.run.observer().interrupted() {
                return Ok(Err(Ended::Wanted));
            }
            self.tell_server()?;
            // Idle, a server is silent; one that does not even answer is stuck.
            if heard.elapsed() >= options.silence / 2 && !asked {
                self.report(true)?;
                asked = true;
            }
            if heard.elapsed() >= options.silence {
                let seconds = options.silence.as_secs();
                let why = format!("it has said nothing for {seconds} seconds, though it was asked");
                return Err(self.failed(ReplicationError::Lost(why)));
            }
            let streamed = self.replication.next_streamed(TICK);
            let place = self.run.endpoint.place();
            let task = match streamed.map_err(|error| Failure::of_server(error, STREAM, place))? {
                Streamed::Silence => continue,
                Streamed::Log { start, bytes, .. } => Task::Log { timeline, start, bytes: bytes.to_vec() },
                Streamed::Alive { asks, .. } => {
                    (heard, asked) = (Instant::now(), false);
                    if asks {
                        self.report(false)?;
                    }
                    continue;
                }
                Streamed::Ended(fork) => return Ok(Ok(fork)),
            };
            if let Task::Log { bytes, .. } = &task {
                let length = bytes.len() as u64;
                self.run.count(|report| report.bytes += length);
            }
            if let Some(ended) = self.give(task, true)? {
                return Ok(Err(ended));
            }
            (heard, asked) = (Instant::now(), false);
        }
    }

    /// Gives the keeper something to do; while it is busy the server hears that we live, if it streams.
    fn give(&mut self, mut task: Task, in_stream: bool) -> Result<Option<Ended>, Failure> {
        loop {
            match self.sender.send_timeout(task, TICK) {
                Ok(()) => return Ok(None),
                Err(SendTimeoutError::Disconnected(_)) => return Ok(Some(Ended::Keeper)),
                Err(SendTimeoutError::Timeout(back)) => task = back,
            }
            if in_stream {
                self.tell_server()?;
            }
        }
    }

    /// Tells the server what is safe, when that is new or it has not heard from here for a while.
    fn tell_server(&mut self) -> Result<(), Failure> {
        let safe = Lsn(self.safe.load(Ordering::Acquire));
        let is_new = safe > self.told && safe >= self.begin.kept_from;
        let is_due = self.told_at.elapsed() >= self.run.options.report_every;
        if is_new || is_due { self.report(false) } else { Ok(()) }
    }

    fn report(&mut self, asks: bool) -> Result<(), Failure> {
        let safe = Lsn(self.safe.load(Ordering::Acquire));
        // A slot must not go back to where it was left long ago.
        let at = if safe >= self.begin.kept_from { safe } else { Lsn(0) };
        let now = self.run.repository.environment().clock.now();
        self.replication.report(at, now, asks).map_err(|error| self.failed(error))?;
        (self.told, self.told_at) = (at, Instant::now());
        Ok(())
    }
}
