//! A script of operations, read from bytes, with faults at requests that the script names, against a model.
//! The fuzzer makes up the bytes; the tests here run seeds and some random ones.

use crate::support::world::{Client, Content, content, dump, noise};
use crate::support::{Failure, Fault, FaultStore, ManualClock};
use chronolith::base::SnapshotId;
use chronolith::ops::check::{CheckOptions, ReadData, check};
use chronolith::ops::forget::{by_name, forget};
use chronolith::ops::marks::{Mark, mark};
use chronolith::ops::prune::{PruneOptions, Unused, prune};
use chronolith::ops::repair::{IndexOptions, IndexPlan};
use chronolith::ops::rotation::rotate;
use chronolith::ops::undelete::undelete;
use chronolith::ops::{OpsError, Snapshots, parity};
use chronolith::storage::{MemoryStore, Operation};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Operations of a script at most.
const OPERATIONS_MAX: usize = 40;
/// Epochs at most: each makes all later ones slower.
const ROTATIONS_MAX: u32 = 3;

/// What is known of a snapshot.
struct Kept {
    id: SnapshotId,
    content: Content,
    live: bool,
}

/// A fault that is to come.
#[derive(Default)]
struct Coming {
    /// Requests until then; 0 for none.
    countdown: AtomicU64,
    fault: Mutex<Option<(Fault, bool)>>,
}

impl Coming {
    fn set(&self, requests: u64, kind: u8) {
        let lasting = kind & 0x10 != 0;
        let fault = match kind % 9 {
            0 => Fault::Before(Failure::Transient),
            1 => Fault::Before(Failure::Fatal),
            2 => Fault::Before(Failure::NoSpace),
            3 => Fault::Before(Failure::Denied),
            4 => Fault::After(Failure::Transient),
            5 => Fault::After(Failure::Fatal),
            6 => Fault::Twice,
            7 => Fault::Flip,
            _ => Fault::After(Failure::NoSpace),
        };
        *self.fault.lock().unwrap() = Some((fault, lasting));
        self.countdown.store(requests, Ordering::SeqCst);
    }

    fn end(&self) {
        self.countdown.store(0, Ordering::SeqCst);
    }

    fn next(&self) -> Option<Fault> {
        let count = |left: u64| left.checked_sub(1);
        let before = self.countdown.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count).ok()?;
        let (fault, lasting) = (*self.fault.lock().unwrap())?;
        if before != 1 {
            return None;
        }
        if lasting {
            // The store stays away until the operation has ended.
            self.countdown.store(1, Ordering::SeqCst);
        }
        Some(fault)
    }
}

/// Reads numbers from the script; past its end there are none.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> u64 {
        self.next().unwrap_or(0).into()
    }
}

struct World {
    clock: Arc<ManualClock>,
    coming: Arc<Coming>,
    /// Through the faults.
    client: Client,
    /// Beside them.
    judge: Client,
    kept: Vec<Kept>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at_seconds(1_800_000_000));
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        let judge = Client::init(store.clone(), 7);
        let coming = Arc::new(Coming::default());
        let faults = coming.clone();
        let faulty = FaultStore::with_plan(store, move |_, _: Operation, _: &str| faults.next());
        let client = judge.through(Arc::new(faulty));
        Self { clock, coming, client, judge, kept: Vec::new() }
    }

    /// The snapshot of this number, of those in this state.
    fn pick(&self, number: u64, live: bool) -> Option<SnapshotId> {
        let found: Vec<SnapshotId> =
            self.kept.iter().filter(|kept| kept.live == live).map(|kept| kept.id).collect();
        found.get(usize::try_from(number).unwrap() % found.len().max(1)).copied()
    }

    /// Takes over what a client without faults finds.
    fn look(&mut self, new: Option<Content>) {
        let snapshots = Snapshots::load(&self.judge.open()).unwrap();
        assert!(snapshots.refused.is_empty(), "{:?}", snapshots.refused);
        for view in snapshots.iter() {
            if self.kept.iter().any(|kept| kept.id == view.id) {
                continue;
            }
            let content = new.clone().expect("a snapshot that nobody made");
            self.kept.push(Kept { id: view.id, content, live: true });
        }
    }

    fn epochs(&self) -> u32 {
        self.judge.open().registry().trust().current_epoch().map_or(0, |epoch| epoch.number)
    }

    fn listed(&self, id: &SnapshotId) -> bool {
        let snapshots = Snapshots::load(&self.judge.open()).unwrap();
        snapshots.get(id).is_some_and(|view| !view.forgotten)
    }

    /// Does one operation; whether it failed is no matter, what it left is.
    fn one(&mut self, script: &mut Script<'_>) -> Option<()> {
        let operation = script.next()? % 16;
        let client = self.client.clone();
        let open = || client.try_open().map_err(OpsError::from);
        match operation {
            0..=3 => {
                let (version, family) = (script.number(), u64::from(operation % 2));
                let new = content([
                    ("app.sql", dump(version % 8, 250 + 90 * family, 6)),
                    ("noise", noise(family * 31 + version % 5, 3000 + version as usize * 20)),
                ]);
                let done = client.try_back_up(&new);
                self.look(Some(new));
                if let Ok(report) = done {
                    let id = report.snapshot.unwrap();
                    assert!(self.kept.iter().any(|kept| kept.id == id && kept.live), "{id} is not listed");
                }
            }
            4 => {
                let id = self.pick(script.number(), true)?;
                let kept = self.kept.iter().find(|kept| kept.id == id).unwrap();
                if let Ok(read) = client.read(id) {
                    assert!(read == kept.content, "{id} came back wrong");
                }
            }
            5 | 6 => {
                let id = self.pick(script.number(), true)?;
                let done = open().and_then(|repository| {
                    let snapshots = Snapshots::load(&repository)?;
                    let chosen = by_name(&snapshots, &[id], true)?;
                    forget(&repository, &snapshots, &chosen)
                });
                let there = self.listed(&id);
                assert!(done.is_err() || !there, "{id} was forgotten and is listed");
                self.kept.iter_mut().find(|kept| kept.id == id).unwrap().live = there;
            }
            7 => {
                let id = self.pick(script.number(), false)?;
                let done = open().and_then(|repository| undelete(&repository, &[id], "fuzz"));
                let there = self.listed(&id);
                assert!(done.is_err() || there, "{id} was brought back and is not listed");
                self.kept.iter_mut().find(|kept| kept.id == id).unwrap().live = there;
            }
            8..=10 => {
                let number = script.number();
                let max_unused = Unused::Share { hundredths: if number & 1 == 0 { 0 } else { 2000 } };
                let grace = if number & 6 == 0 { 3600 } else { 0 };
                let max_held = (number & 8 == 0).then_some(Unused::Bytes(0));
                let options =
                    PruneOptions { max_unused, max_held, ..PruneOptions::new("fuzz") }.within(grace);
                let _ = open().and_then(|repository| prune(&repository, &options));
            }
            11 => self.clock.advance(Duration::from_secs(600 * (1 + script.number()))),
            12 => {
                let id = self.pick(script.number(), true)?;
                let what = match script.number() % 3 {
                    0 => Mark::Pin { reason: None },
                    1 => Mark::Unpin { reason: None },
                    _ => Mark::Note { text: "noted".to_owned() },
                };
                let _ = open()
                    .and_then(|repository| mark(&repository, &Snapshots::load(&repository)?, &[id], &[what]));
            }
            13 => match script.number() % 4 {
                0 if self.epochs() < ROTATIONS_MAX => {
                    let _ = open().and_then(|repository| rotate(&repository));
                }
                1 => {
                    let options = IndexOptions { copy: true, program: "fuzz".to_owned() };
                    let _ = open().and_then(|repository| IndexPlan::new(&repository, options)?.run());
                }
                2 => drop(open().and_then(|repository| parity::add(&repository, 5))),
                _ => {
                    let options = CheckOptions { keep_ledger: true, ..CheckOptions::default() };
                    let _ = open().and_then(|repository| check(&repository, &options));
                }
            },
            // What comes next is overtaken by it.
            _ => {
                self.coming.set(1 + script.number() % 80, script.next()?);
                let done = self.one(script);
                self.coming.end();
                return done;
            }
        }
        Some(())
    }

    /// With no faults: what was committed and not forgotten is there, and a check that reads all is clean.
    fn verify(&mut self) {
        for kept in self.kept.iter().filter(|kept| kept.live) {
            assert!(self.listed(&kept.id), "{} is lost", kept.id);
            let read = self.judge.read(kept.id).unwrap_or_else(|error| panic!("{}: {error}", kept.id));
            assert!(read == kept.content, "{} came back wrong", kept.id);
        }
        let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
        let report = check(&self.judge.open(), &options).unwrap();
        assert!(!report.is_damaged(), "{:?} {:?}", report.findings, report.hurt);
    }
}

/// Runs a script.
pub fn run(bytes: &[u8]) {
    let mut world = World::new();
    let mut script = Script(bytes);
    for _ in 0..OPERATIONS_MAX {
        if world.one(&mut script).is_none() && script.0.is_empty() {
            break;
        }
        world.coming.end();
    }
    world.verify();
    // Whatever the dead left lapses, and goes.
    for _ in 0..2 {
        world.clock.advance(Duration::from_secs(4000));
        let options = PruneOptions::new("fuzz").within(0);
        prune(&world.judge.open(), &options).unwrap();
    }
    world.verify();
}
