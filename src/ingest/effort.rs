//! How hard content is compressed: at one level, or as hard as there is time for.
//!
//! Where the store takes packs more slowly than they are made, on a slow disk or link, workers wait for
//! it. That time buys smaller packs at a higher level, which then also are stored in less time. What a level costs and
//! saves is measured in `docs/chunk-sizes.md`. Below the default there is nothing to choose: level 2
//! takes as long as 3, and 1 makes packs a sixth larger for a fifth of the time, for as long as they are kept.

use crate::base::Timestamp;
use crate::codec::DEFAULT_LEVEL;
use std::sync::{Mutex, PoisonError};

/// How hard content is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// At a level of zstd.
    Level(i32),
    /// At the default level, and at higher ones while workers would wait for the store.
    Auto,
}

impl Default for Effort {
    fn default() -> Self {
        Self::Level(DEFAULT_LEVEL)
    }
}

/// A level, and the time that a worker takes at it, in hundredths of that at the default.
struct Rung {
    level: i32,
    cost: u64,
}

/// The levels that are worth their time, by what whole backups took (`docs/chunk-sizes.md`).
const LADDER: [Rung; 4] = [
    Rung { level: DEFAULT_LEVEL, cost: 100 },
    Rung { level: 4, cost: 120 },
    Rung { level: 6, cost: 210 },
    Rung { level: 9, cost: 330 },
];
/// The share of time in which workers wait is looked at this often.
const LOOK_EVERY_NANOSECONDS: u64 = 1_000_000_000;
/// A level is raised if workers, in hundredths of their time, would be no busier than this; ...
const BUSY_MOST: u64 = 95;
/// ... and lowered if they wait for less than this.
const WAIT_LEAST: u64 = 2;

struct Look {
    rung: usize,
    at: Timestamp,
    waited_nanoseconds: u64,
}

/// Chooses the level for all workers.
pub(super) struct Controller {
    effort: Effort,
    workers: u64,
    last: Mutex<Option<Look>>,
}

impl Controller {
    pub fn new(effort: Effort, workers: usize) -> Self {
        Self { effort, workers: workers.max(1) as u64, last: Mutex::new(None) }
    }

    /// Returns the level to begin with.
    pub const fn first(&self) -> i32 {
        match self.effort {
            Effort::Level(level) => level,
            Effort::Auto => DEFAULT_LEVEL,
        }
    }

    /// Returns the level for the next frame. `waited_nanoseconds` adds up how long all workers have waited
    /// for the store so far.
    pub fn level(&self, now: Timestamp, waited_nanoseconds: u64) -> i32 {
        if let Effort::Level(level) = self.effort {
            return level;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let look = last.get_or_insert(Look { rung: 0, at: now, waited_nanoseconds });
        let passed = now.nanoseconds().saturating_sub(look.at.nanoseconds());
        let passed = u64::try_from(passed).unwrap_or(0);
        if passed >= LOOK_EVERY_NANOSECONDS {
            let waited = waited_nanoseconds.saturating_sub(look.waited_nanoseconds);
            let rung = next_rung(look.rung, waited.saturating_mul(100) / passed.saturating_mul(self.workers));
            *look = Look { rung, at: now, waited_nanoseconds };
        }
        LADDER.get(look.rung).map_or(DEFAULT_LEVEL, |rung| rung.level)
    }
}

/// Returns the rung to go on with where workers wait for so many hundredths of their time.
fn next_rung(rung: usize, wait: u64) -> usize {
    let cost = |rung: usize| LADDER.get(rung).map(|rung| rung.cost);
    let busy = 100 - wait.min(100);
    match (cost(rung), cost(rung + 1)) {
        (Some(now), Some(higher)) if busy * higher <= BUSY_MOST * now => rung + 1,
        _ if wait < WAIT_LEAST => rung.saturating_sub(1),
        _ => rung,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_nanoseconds(seconds * 1_000_000_000)
    }

    #[test]
    fn a_fixed_level_stays_whatever_happens() {
        let controller = Controller::new(Effort::Level(7), 2);
        assert_eq!((controller.first(), controller.level(at(1), 0)), (7, 7));
        assert_eq!(controller.level(at(100), 190 * 1_000_000_000), 7);
    }

    #[test]
    fn workers_that_wait_compress_harder_and_ease_off_when_they_no_longer_do() {
        let controller = Controller::new(Effort::Auto, 2);
        let mut waited = 0;
        let mut step = |seconds: i64, share: f64| {
            waited += (2e9 * share) as u64;
            controller.level(at(seconds), waited)
        };
        assert_eq!(step(0, 0.9), 3, "nothing is known yet");
        assert_eq!(step(1, 0.9), 4);
        assert_eq!(step(2, 0.88), 6);
        assert_eq!(step(3, 0.76), 9);
        assert_eq!(step(4, 0.6), 9, "there is no higher one");
        assert_eq!(step(5, 0.0), 6);
        // What they wait for would not pay for the next level.
        assert_eq!(step(6, 0.3), 6);
        assert_eq!(step(7, 0.0), 4);
        assert_eq!(step(8, 0.0), 3);
        assert_eq!(step(9, 0.1), 3);
    }

    #[test]
    fn clocks_that_stand_still_or_go_back_change_nothing() {
        let controller = Controller::new(Effort::Auto, 4);
        assert_eq!(controller.level(at(10), 0), 3);
        assert_eq!(controller.level(at(10), u64::MAX), 3);
        assert_eq!(controller.level(at(5), u64::MAX), 3);
        assert_eq!(controller.level(at(11), u64::MAX), 4);
    }
}
