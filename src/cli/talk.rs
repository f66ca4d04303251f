//! How a running command speaks: progress, notes and warnings for people on standard error, events
//! for programs as lines of JSON.
//!
//! Progress is shown on a terminal after one second, elsewhere as a line a minute. A thread of its
//! own draws it, so that the work only counts.

use super::events::{Schema, event};
use super::fault::{Fault, output};
use super::render;
use crate::base::{Observer, Phase};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing is shown of what takes less.
const SHOW_AFTER: Duration = Duration::from_secs(1);
/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// How often events of progress are written.
const EVENT_EVERY: Duration = Duration::from_secs(1);
/// How often the drawing thread looks.
const TICK: Duration = Duration::from_millis(100);

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only warnings and errors.
    Quiet,
    /// Results and notes too.
    Normal,
    /// Every item too.
    Verbose,
}

/// What a command is told about speaking.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// How much is said.
    pub level: Level,
    /// Whether progress is shown to people.
    pub progress: bool,
    /// The schema of events, where they are wanted.
    pub json: Option<Schema>,
}

#[derive(Debug, Default)]
struct Counter {
    begun: AtomicBool,
    bytes: AtomicU64,
    new_bytes: AtomicU64,
}

struct Running {
    phase: Phase,
    total_bytes: Option<u64>,
    since: Instant,
    item: String,
}

#[derive(Default)]
struct State {
    running: Vec<Running>,
    bar: Option<ProgressBar>,
    drawer: Option<JoinHandle<()>>,
    ended: bool,
    written: Option<Instant>,
}

struct Shared {
    manner: Manner,
    terminal: bool,
    counters: [Counter; 6],
    state: Mutex<State>,
    wake: Condvar,
    interrupted: Arc<AtomicBool>,
    events_aside: AtomicBool,
    out: Mutex<BufWriter<Stdout>>,
    lines_at_once: bool,
}

/// The observer of a command.
pub struct Talk {
    shared: Arc<Shared>,
}

const fn number(phase: Phase) -> usize {
    match phase {
        Phase::Scan => 0,
        Phase::Backup => 1,
        Phase::Restore => 2,
        Phase::Index => 3,
        Phase::Check => 4,
        Phase::Copy => 5,
    }
}

const fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Scan => "scan",
        Phase::Backup => "backup",
        Phase::Restore => "restore",
        Phase::Index => "index",
        Phase::Check => "check",
        Phase::Copy => "copy",
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(&self, phase: Phase) -> &Counter {
        let [scan, backup, restore, index, check, copy] = &self.counters;
        [scan, backup, restore, index, check, copy][number(phase)]
    }

    fn counts(&self, phase: Phase) -> (u64, u64) {
        let counter = self.counter(phase);
        (counter.bytes.load(Ordering::Relaxed), counter.new_bytes.load(Ordering::Relaxed))
    }

    fn say(&self, line: &str) {
        let state = self.lock();
        let write = || {
            // There is nobody left to tell when standard error is gone.
            let _ = writeln!(std::io::stderr(), "{line}");
        };
        match &state.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn event(&self, name: &str, fields: Value) -> io::Result<()> {
        let Some(schema) = self.manner.json else { return Ok(()) };
        let line = event(schema, name, fields);
        if self.events_aside.load(Ordering::Relaxed) {
            writeln!(std::io::stderr(), "{line}")
        } else {
            self.line(&line)
        }
    }

    /// Writes a line to standard output. All of it goes through here, so that lines of several
    /// threads stay whole.
    fn line(&self, line: &str) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(out, "{line}")?;
        if self.lines_at_once { out.flush() } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }

    fn watched(&self) -> bool {
        self.manner.json.is_some() || (self.manner.progress && self.manner.level > Level::Quiet)
    }

    /// Draws what is running now; called by the drawing thread only.
    fn draw(&self, state: &mut State) {
        let Some(running) = state.running.last() else {
            if let Some(bar) = state.bar.take() {
                bar.finish_and_clear();
            }
            return;
        };
        let (bytes, new_bytes) = self.counts(running.phase);
        let elapsed = running.since.elapsed();
        let since_last = state.written.map_or(elapsed, |written| written.elapsed());
        match Progress::due(self.manner.json.is_some(), self.terminal, elapsed, since_last) {
            None => {}
            Some(Progress::Event) => {
                state.written = Some(Instant::now());
                // Whoever stopped reading events gets no more; the work goes on.
                let _ = self.event(
                    "progress",
                    json!({
                        "phase": word(running.phase),
                        "bytes": bytes,
                        "total_bytes": running.total_bytes,
                        "new_bytes": new_bytes,
                        "seconds": elapsed.as_secs_f64(),
                    }),
                );
                let _ = self.flush();
            }
            Some(Progress::Bar) => {
                let bar = state.bar.get_or_insert_with(|| bar(running.total_bytes));
                bar.set_prefix(word(running.phase));
                bar.set_position(bytes);
                if let Some(total) = running.total_bytes {
                    bar.set_length(total.max(bytes));
                }
                bar.set_message(message(new_bytes, &running.item));
            }
            Some(Progress::Line) => {
                state.written = Some(Instant::now());
                let line = progress_line(running, bytes, new_bytes, elapsed);
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        }
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.ended {
            self.draw(&mut state);
            state = self.wake.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// How progress is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// An event for programs.
    Event,
    /// A bar that is drawn anew.
    Bar,
    /// A line that stays.
    Line,
}

impl Progress {
    /// Says how progress is due to be told now, if it is.
    fn due(json: bool, terminal: bool, elapsed: Duration, since_last: Duration) -> Option<Self> {
        let (progress, due) = match (json, terminal) {
            (true, _) => (Self::Event, since_last >= EVENT_EVERY),
            (false, true) => (Self::Bar, elapsed >= SHOW_AFTER),
            (false, false) => (Self::Line, since_last >= LINE_EVERY),
        };
        due.then_some(progress)
    }
}

fn message(new_bytes: u64, item: &str) -> String {
    let new = if new_bytes > 0 { format!("{} new  ", render::size(new_bytes)) } else { String::new() };
    format!("{new}{item}")
}

fn progress_line(running: &Running, bytes: u64, new_bytes: u64, elapsed: Duration) -> String {
    let rate = bytes as f64 / elapsed.as_secs_f64().max(0.001);
    let of = running.total_bytes.map_or(String::new(), |total| format!(" of {}", render::size(total)));
    let new = if new_bytes > 0 { format!(", {} new", render::size(new_bytes)) } else { String::new() };
    let rate = render::size(rate as u64);
    format!(
        "{}: {}{of} in {}, {rate}/s{new}",
        word(running.phase),
        render::size(bytes),
        render::span(elapsed.as_secs_f64())
    )
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{prefix} {bar:25} {bytes}/{total_bytes} {bytes_per_sec} {eta} left  {wide_msg}",
        ),
        None => {
            (ProgressBar::new_spinner(), "{prefix} {spinner} {bytes} {bytes_per_sec} {elapsed}  {wide_msg}")
        }
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl Talk {
    /// Begins to listen. `interrupted` is set by signals.
    pub fn new(manner: Manner, interrupted: Arc<AtomicBool>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let shared = Shared {
            manner,
            terminal,
            counters: Default::default(),
            state: Mutex::default(),
            wake: Condvar::new(),
            interrupted,
            events_aside: AtomicBool::new(false),
            out: Mutex::new(BufWriter::new(std::io::stdout())),
            lines_at_once: std::io::stdout().is_terminal(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns how the command was told to speak.
    pub fn manner(&self) -> Manner {
        self.shared.manner
    }

    /// Sends events to standard error: standard output carries data.
    pub fn set_events_aside(&self) {
        self.shared.events_aside.store(true, Ordering::Relaxed);
    }

    /// Writes a line to standard error unless asked to be quiet, or to speak JSON.
    pub fn tell(&self, line: &str) {
        if self.shared.manner.level > Level::Quiet && self.shared.manner.json.is_none() {
            self.shared.say(line);
        }
    }

    /// Writes an event, where events are wanted.
    ///
    /// # Errors
    ///
    /// When nobody reads them any more.
    pub fn event(&self, name: &str, fields: Value) -> Result<(), Fault> {
        self.shared.event(name, fields).map_err(output)
    }

    /// Writes a line of the result to standard output.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn line(&self, line: &str) -> Result<(), Fault> {
        self.shared.line(line).map_err(output)
    }

    /// Writes out what is still held back of the result.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn flush(&self) -> Result<(), Fault> {
        self.shared.flush().map_err(output)
    }

    /// Stops drawing; what is said afterwards stands alone.
    pub fn end(&self) {
        let mut state = self.shared.lock();
        state.ended = true;
        let drawer = state.drawer.take();
        drop(state);
        self.shared.wake.notify_all();
        if let Some(drawer) = drawer {
            // Its only way to fail is a panic, which has been reported.
            let _ = drawer.join();
        }
    }

    fn start(&self, phase: Phase, total_bytes: Option<u64>) {
        if !self.shared.watched() {
            return;
        }
        let mut state = self.shared.lock();
        state.running.push(Running { phase, total_bytes, since: Instant::now(), item: String::new() });
        if state.drawer.is_none() && !state.ended {
            let shared = self.shared.clone();
            let drawer = std::thread::Builder::new().name("chronolith-progress".to_owned());
            // Without the thread there is no progress to see, and nothing else is missing.
            state.drawer = drawer.spawn(move || shared.run()).ok();
        }
    }

    fn counter(&self, phase: Phase) -> &Counter {
        self.shared.counter(phase)
    }
}

impl Observer for Talk {
    fn begin(&self, phase: Phase, total_bytes: Option<u64>) {
        let counter = self.counter(phase);
        counter.bytes.store(0, Ordering::Relaxed);
        counter.new_bytes.store(0, Ordering::Relaxed);
        counter.begun.store(true, Ordering::Relaxed);
        self.start(phase, total_bytes);
    }

    fn advance(&self, phase: Phase, bytes: u64, new_bytes: u64) {
        let counter = self.counter(phase);
        counter.bytes.fetch_add(bytes, Ordering::Relaxed);
        counter.new_bytes.fetch_add(new_bytes, Ordering::Relaxed);
        if !counter.begun.load(Ordering::Relaxed) && !counter.begun.swap(true, Ordering::Relaxed) {
            self.start(phase, None);
        }
    }

    fn end(&self, phase: Phase) {
        self.counter(phase).begun.store(false, Ordering::Relaxed);
        self.shared.lock().running.retain(|running| running.phase != phase);
    }

    fn item(&self, name: &str) {
        if self.shared.manner.level >= Level::Verbose {
            self.tell(&render::visible(name));
        }
        if self.shared.watched()
            && self.shared.terminal
            && let Some(running) = self.shared.lock().running.last_mut()
        {
            running.item = render::visible(name);
        }
    }

    fn note(&self, text: &str) {
        self.tell(&render::visible(text));
        let _ = self.shared.event("note", json!({ "text": text }));
    }

    fn warn(&self, text: &str) {
        self.shared.say(&format!("warning: {}", render::visible(text)));
        let _ = self.shared.event("warning", json!({ "text": text }));
    }

    fn interrupted(&self) -> bool {
        self.shared.interrupted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_bar_on_a_terminal_and_elsewhere_a_line_a_minute() {
        let due = |json, terminal, elapsed, since_last| {
            Progress::due(json, terminal, Duration::from_millis(elapsed), Duration::from_millis(since_last))
        };
        assert_eq!(due(false, true, 999, 999), None);
        assert_eq!(due(false, true, 1_000, 1_000), Some(Progress::Bar));
        assert_eq!(due(false, true, 5_000, 100), Some(Progress::Bar), "it is drawn at every look");
        assert_eq!(due(false, false, 59_999, 59_999), None);
        assert_eq!(due(false, false, 60_000, 60_000), Some(Progress::Line));
        assert_eq!(due(false, false, 61_000, 1_000), None);
        assert_eq!(due(false, false, 120_000, 60_000), Some(Progress::Line));
        for terminal in [true, false] {
            assert_eq!(due(true, terminal, 999, 999), None);
            assert_eq!(due(true, terminal, 90_000, 1_000), Some(Progress::Event));
        }
    }

    #[test]
    fn a_line_of_progress_says_how_much_how_fast_and_what_was_new() {
        let mut running =
            Running { phase: Phase::Backup, total_bytes: None, since: Instant::now(), item: String::new() };
        let minute = Duration::from_secs(60);
        let line = progress_line(&running, 120 << 20, 0, minute);
        assert_eq!(line, "backup: 120.0 MiB in 1 min 00 s, 2.0 MiB/s");
        running.total_bytes = Some(240 << 20);
        let line = progress_line(&running, 120 << 20, 6 << 20, minute);
        assert_eq!(line, "backup: 120.0 MiB of 240.0 MiB in 1 min 00 s, 2.0 MiB/s, 6.0 MiB new");
    }
}
