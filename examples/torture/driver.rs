//! Several workers at once on one repository, each a process for each operation; what they answer, and how
//! they die, goes into the model, and what the repository lists is held against it.

use crate::content::{FAMILIES, mix};
use crate::model::{Kept, Log, Model, State};
use crate::order::{Answer, Load, Order, Rough, Task, Who, World};
use crate::program::Program;
use crate::store::{Bent, Quick};
use crate::support::SeededEntropy;
use crate::support::world::Client;
use crate::worker::PUSHED;
use chronolith::base::Clock;
use chronolith::ops::Snapshots;
use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A session lapses after this long without a renewal, in the store's seconds.
const LAPSE_SECONDS: u64 = 900;
/// Whoever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);
/// Snapshots that are kept at once; with more, forgetting comes first.
const LIVE_MAX: usize = 36;
/// Operations between leaps of time.
const LEAP_EVERY: u64 = 24;
/// How far time leaps, by turns: log packs are old enough to be merged, and what was merged is old enough to stand
/// for them.
const LEAPS_SECONDS: [i64; 2] = [2 * 3600, 25 * 3600];
/// Segments that are pushed by one process, at most.
const PUSHES_MAX: u64 = 40;
/// Segments that are read back by one process.
const FETCHES: usize = 12;

/// How one process ended.
enum End {
    Answered(Answer),
    Killed,
    Broken(String),
}

/// What was so before an operation.
struct Before {
    /// How often the state of what it restores was changed.
    touched: u64,
    /// Whether some snapshot may miss something, before or after it.
    doubt: bool,
    rotations: (u64, u64),
}

/// A repository, and what is known of it.
pub struct Driver {
    pub world: World,
    pub owner: Client,
    pub people: Vec<Who>,
    pub maintainer: Who,
    pub program: Option<Program>,
    pub model: Mutex<Model>,
    pub verbose: bool,
    pub next: Mutex<u64>,
}

/// What is done to a process from outside.
struct Treatment {
    kill_after: Option<Duration>,
    pause: Option<(Duration, Duration)>,
}

impl Driver {
    fn owner_who(&self) -> Who {
        Who { cache: None, ..self.people[0].clone() }
    }

    /// Works until so many operations have been done, or the time is up.
    pub fn stretch(&self, seed: u64, workers: u64, until: u64, deadline: Instant) {
        if self.program.is_none() {
            return self.run(seed, workers, until, deadline);
        }
        // The program has the time of the machine; what is stored ages between operations.
        let first = *self.next.lock().unwrap();
        for (part, seconds) in (1..).zip(LEAPS_SECONDS) {
            self.run(mix(&[seed, part]), workers, first + (until - first) * part / 3, deadline);
            self.pass(seconds);
        }
        self.run(seed, workers, until, deadline);
    }

    fn run(&self, seed: u64, workers: u64, until: u64, deadline: Instant) {
        std::thread::scope(|scope| {
            for worker in 0..workers {
                scope.spawn(move || {
                    let random = SeededEntropy::new(mix(&[seed, worker]));
                    while Instant::now() < deadline && self.model.lock().unwrap().wrong.is_empty() {
                        let operation = {
                            let mut next = self.next.lock().unwrap();
                            if *next >= until {
                                break;
                            }
                            *next += 1;
                            *next
                        };
                        if self.program.is_none() && operation.is_multiple_of(LEAP_EVERY) {
                            let turn = operation / LEAP_EVERY % LEAPS_SECONDS.len() as u64;
                            self.pass(LEAPS_SECONDS[turn as usize]);
                        }
                        self.one(operation, worker, &random);
                    }
                });
            }
        });
    }

    /// Lets so much time pass at once.
    fn pass(&self, seconds: i64) {
        if self.program.is_none() {
            return Quick::of(&self.world).leap(seconds).expect("the scratch folder can be written");
        }
        // Everything in the store is older than it was, and clients know nothing of it any more: they would hold what
        // they have listed for as young as it is by their clocks.
        let age = Duration::from_secs(seconds.unsigned_abs());
        let mut folders = vec![self.world.repository.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("the repository can be listed").flatten() {
                let path = entry.path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => make_older(&path, age).expect("times can be set"),
                }
            }
        }
        for cache in self.people.iter().chain([&self.maintainer]).filter_map(|who| who.cache.as_ref()) {
            fs::remove_dir_all(cache).and_then(|()| fs::create_dir(cache)).expect("caches can be removed");
        }
    }

    fn wrong(&self, what: String) {
        eprintln!("WRONG: {what}");
        self.model.lock().unwrap().wrong.push(what);
    }

    /// Decides what is next.
    fn choose(&self, operation: u64, worker: u64, random: &SeededEntropy) -> (Task, Vec<u64>) {
        let mut model = self.model.lock().unwrap();
        let pick =
            |from: &[u64]| (!from.is_empty()).then(|| from[(random.number() % from.len() as u64) as usize]);
        let (live, gone) = (model.having(State::Live), model.having(State::Gone));
        let folder = |random: &SeededEntropy| {
            (one_in(random, 3)).then(|| self.world.scratch.join(format!("source{worker}")))
        };
        let mut number = random.number() % 100;
        if live.len() > LIVE_MAX {
            number = 50 + number % 20;
        }
        let backup = || {
            let family = random.number() % FAMILIES;
            let folder = folder(random);
            let label = format!("{}{}", if folder.is_some() { "files" } else { "dump" }, family % 3);
            Task::Backup(Load { operation, family, version: operation / 7, label, folder })
        };
        let mut touch = |chosen: &[u64]| {
            for number in chosen {
                let kept = model.kept.get_mut(number).expect("chosen from the model");
                (kept.busy, kept.touched) = (true, kept.touched + 1);
            }
        };
        let task = match number {
            0..=31 => backup(),
            32..=49 => match pick(&live) {
                Some(one) => {
                    let kept = &model.kept[&one];
                    Task::Restore { snapshot: kept.id.clone(), load: kept.load.clone() }
                }
                None => backup(),
            },
            50..=62 if !live.is_empty() => {
                let many = 1 + random.number() % 4;
                let mut chosen: Vec<u64> = (0..many).filter_map(|_| pick(&live)).collect();
                chosen.sort_unstable();
                chosen.dedup();
                touch(&chosen);
                let ids = chosen.iter().map(|one| model.kept[one].id.clone()).collect();
                return (Task::Forget(ids), chosen);
            }
            50..=62 => backup(),
            63..=76 => Task::Prune {
                grace_seconds: [0, 0, 0, 60, 600][(random.number() % 5) as usize],
                unused_hundredths: [0, 500, 3000][(random.number() % 3) as usize],
                held_hundredths: [None, None, Some(0), Some(0), Some(300)][(random.number() % 5) as usize],
                repack_most: one_in(random, 6).then(|| random.number() % 300_000),
            },
            77..=80 => match pick(&gone) {
                Some(one) => {
                    touch(&[one]);
                    return (Task::Undelete(model.kept[&one].id.clone()), vec![one]);
                }
                None => backup(),
            },
            // A pin wins over what is forgotten at the same moment.
            81..=83 => match pick(&live) {
                Some(one) => {
                    let kept = model.kept.get_mut(&one).expect("chosen from the model");
                    kept.busy = true;
                    let (snapshot, what) = (kept.id.clone(), random.number() % 700);
                    return (Task::Mark { snapshot, what }, vec![one]);
                }
                None => backup(),
            },
            84..=86 => Task::Check { read_data: one_in(random, 2), repair: one_in(random, 3) },
            87..=96 => self.choose_of_log(&mut model.log, random),
            97 => Task::Rotate,
            98 => Task::RepairIndex,
            _ => Task::Parity(1 + (random.number() % 20) as u8),
        };
        (task, Vec::new())
    }

    /// Decides what is done to the log.
    fn choose_of_log(&self, log: &mut Log, random: &SeededEntropy) -> Task {
        let (what, chance, many) = (random.number() % 10, random.number(), random.number() % PUSHES_MAX);
        let many = 1 + many as usize;
        let push = |log: &mut Log| Task::Push(log.begin_push(many));
        match what {
            0 => {
                let again = log.begin_push_again(log.any(chance), many);
                if again.is_empty() { push(log) } else { Task::Push(again) }
            }
            1..=3 if !log.kept.is_empty() => {
                Task::Fetch { numbers: log.some(chance, FETCHES), listed: one_in(random, 4) }
            }
            4 => log.begin_forget(chance).map_or_else(|| push(log), Task::ForgetLog),
            5 if one_in(random, 3) => {
                log.begin_contradict(chance).map_or_else(|| push(log), Task::Contradict)
            }
            _ => push(log),
        }
    }

    /// Who does it: writers back up, owners read, owners and maintainers forget and prune.
    fn who(&self, task: &Task, random: &SeededEntropy) -> Who {
        let mut who = match task {
            Task::Backup(_) | Task::Push(_) | Task::Contradict(_) | Task::Parity(_) => {
                self.people[(random.number() % self.people.len() as u64) as usize].clone()
            }
            // Only an owner seals anew.
            Task::Prune { held_hundredths: Some(_), .. } => self.people[0].clone(),
            Task::Forget(_) | Task::ForgetLog(_) | Task::Prune { .. } | Task::Undelete(_)
                if one_in(random, 2) =>
            {
                self.maintainer.clone()
            }
            _ => self.people[0].clone(),
        };
        if one_in(random, 4) {
            who.cache = None;
        }
        who
    }

    fn rough(&self, random: &SeededEntropy) -> Rough {
        let quiet = Rough { seed: random.number(), retries: true, ..Rough::default() };
        match random.number() % 10 {
            0..=2 => quiet,
            3 => Rough { delay_permille: 300, late_permille: 200, ..quiet },
            4 => Rough { fault_permille: 10, delay_permille: 50, late_permille: 50, ..quiet },
            5 => Rough { fault_permille: 200, late_permille: 100, ..quiet },
            6 => Rough { fault_permille: 15, retries: false, late_permille: 50, ..quiet },
            7 => Rough { gone_from: Some(random.number() % 90), retries: false, ..quiet },
            _ => Rough {
                dies_at: Some((1 + random.number() % 70, one_in(random, 2))),
                late_permille: 50,
                delay_permille: 100,
                ..quiet
            },
        }
    }

    fn treatment(&self, random: &SeededEntropy) -> Treatment {
        let after = |most: u64| Duration::from_millis(random.number() % most);
        let lapse = 1000 * LAPSE_SECONDS / self.world.speed.unsigned_abs();
        match random.number() % 20 {
            0 | 1 => Treatment { kill_after: Some(after(200)), pause: None },
            3 => Treatment { kill_after: Some(after(1500)), pause: None },
            2 if lapse < 20_000 => {
                Treatment { kill_after: None, pause: Some((after(500), after(lapse * 2))) }
            }
            _ => Treatment { kill_after: None, pause: None },
        }
    }

    fn one(&self, operation: u64, worker: u64, random: &SeededEntropy) {
        let (task, chosen) = self.choose(operation, worker, random);
        let who = self.who(&task, random);
        let (mut rough, treatment) = (self.rough(random), self.treatment(random));
        let doubt_before = self.model.lock().unwrap().any_doubt();
        let touched_before = self.touched(&task);
        let rotations_before = self.model.lock().unwrap().rotations;
        if matches!(task, Task::Rotate) {
            self.model.lock().unwrap().rotations.0 += 1;
        }
        let by_program = self.program.as_ref().filter(|program| one_in(random, 2) && program.can(&task));
        let clock = Quick::of(&self.world);
        let (began, began_at) = (Instant::now(), clock.now());
        let (end, told) = match by_program {
            Some(program) => {
                rough = Rough { seed: rough.seed, ..Rough::default() };
                let command = program.command(&self.world, &who, &task, rough.seed);
                self.supervise(command, &treatment, |status, out| {
                    program.answer(&self.world, &task, rough.seed, status, out)
                })
            }
            None => {
                let order = Order {
                    world: self.world.clone(),
                    who: who.clone(),
                    rough: rough.clone(),
                    task: task.clone(),
                };
                self.supervise(self.worker(&order), &treatment, answer_of_worker)
            }
        };
        let lived = began.elapsed();
        let _ = fs::remove_dir_all(self.world.scratch.join(format!("restored-{:016x}", rough.seed)));
        if self.verbose {
            let told = match &end {
                End::Answered(answer) => format!("{answer:?}"),
                End::Killed => "killed".to_owned(),
                End::Broken(what) => what.clone(),
            };
            let by = if by_program.is_some() { "program" } else { "worker" };
            eprintln!("{operation} {by} {} {lived:?} {task:?} {rough:?}: {told}", who.host);
        }
        let lived_seconds = clock.now().seconds() - began_at.seconds();
        let may_lapse = lived_seconds as f64 > LAPSE_SECONDS as f64 * 0.9;
        let quiet = rough.is_quiet() && treatment.kill_after.is_none() && !may_lapse;
        self.count(&task, &end, &treatment);
        match &end {
            End::Broken(what) => self.wrong(format!("operation {operation}, {task:?}, {rough:?}: {what}")),
            End::Answered(Answer::Wrong(what)) => {
                self.wrong(format!("operation {operation}, {task:?}: {what}"))
            }
            End::Answered(answer) if quiet => {
                let before = Before {
                    touched: touched_before,
                    doubt: doubt_before || self.model.lock().unwrap().any_doubt(),
                    rotations: rotations_before,
                };
                if let Some(what) = self.unexpected(&task, answer, &before) {
                    self.wrong(format!("operation {operation}, {task:?}, with nothing in its way: {what}"));
                }
            }
            _ => {}
        }
        if matches!(task, Task::Rotate) {
            self.model.lock().unwrap().rotations.1 += 1;
        }
        self.settle_log(&task, &told);
        self.settle(operation, &task, &end, chosen, may_lapse);
    }

    fn touched(&self, task: &Task) -> u64 {
        let Task::Restore { load, .. } = task else { return 0 };
        self.model.lock().unwrap().kept.get(&load.operation).map_or(0, |kept| kept.touched)
    }

    /// What must not be answered where nothing was in the way.
    fn unexpected(&self, task: &Task, answer: &Answer, before: &Before) -> Option<String> {
        let told = match answer {
            Answer::Done(_) => return None,
            answer => format!("{answer:?}"),
        };
        let usage = told.contains("class: \"Usage\"");
        let excused = match task {
            // Forgotten meanwhile, it may go while it is read.
            Task::Restore { .. } => self.touched(task) != before.touched,
            // A pin, or that it was swept already.
            Task::Forget(_) => usage,
            Task::Undelete(_) => true,
            Task::Mark { .. } => true,
            Task::Check { .. } => before.doubt,
            Task::Prune { .. } if told.contains("keys were added") => {
                let (begun, ended) = before.rotations;
                begun != ended || self.model.lock().unwrap().rotations != before.rotations
            }
            Task::Prune { .. } => before.doubt && told.contains("Corrupt"),
            Task::Fetch { numbers, .. } => self.model.lock().unwrap().log.may_go(numbers),
            _ => false,
        };
        (!excused).then_some(told)
    }

    fn worker(&self, order: &Order) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.arg("worker").arg(serde_json::to_string(order).expect("orders are JSON"));
        command
    }

    /// Runs a process, does to it what is to be done, and waits for its end.
    fn supervise(
        &self,
        mut command: Command,
        treatment: &Treatment,
        answer: impl FnOnce(ExitStatus, &Path) -> Result<Answer, String>,
    ) -> (End, Vec<u64>) {
        let place = self.world.scratch.join(format!("talk-{:?}", std::thread::current().id()));
        let file = |suffix: &str| {
            File::create(place.with_extension(suffix)).expect("the scratch folder can be written")
        };
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        let mut child = command.spawn().expect("processes can be started");
        let began = Instant::now();
        let mut paused = false;
        loop {
            if let Some(status) = child.try_wait().expect("it can be waited for") {
                let killed = status.signal() == Some(9);
                let out = place.with_extension("out");
                let text = fs::read_to_string(&out).unwrap_or_default();
                // A number may be cut short; what follows it is not.
                let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
                let done = lines.filter_map(|line| line.strip_prefix(PUSHED)?.parse().ok()).collect();
                let end = match killed {
                    true => End::Killed,
                    false => match answer(status, &out) {
                        Ok(answer) => End::Answered(answer),
                        Err(what) => {
                            let said = fs::read_to_string(place.with_extension("err")).unwrap_or_default();
                            End::Broken(format!("{what}; {status}; {said}"))
                        }
                    },
                };
                return (end, done);
            }
            let lived = began.elapsed();
            if treatment.kill_after.is_some_and(|after| lived > after) {
                let _ = child.kill();
            } else if lived > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                return (End::Broken(format!("it hung for {PATIENCE:?}")), Vec::new());
            }
            if let Some((after, length)) = treatment.pause
                && !paused
                && lived > after
            {
                paused = true;
                signal(&child, rustix::process::Signal::STOP);
                std::thread::sleep(length);
                signal(&child, rustix::process::Signal::CONT);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn count(&self, task: &Task, end: &End, treatment: &Treatment) {
        let mut model = self.model.lock().unwrap();
        let counts = &mut model.counts;
        counts.operations += 1;
        counts.paused += u64::from(treatment.pause.is_some());
        let list = match end {
            End::Answered(Answer::Done(_)) => &mut counts.done,
            End::Killed => &mut counts.killed,
            _ => &mut counts.failed,
        };
        *list.entry(task.word()).or_default() += 1;
        match (task, end) {
            (Task::Restore { .. }, End::Answered(Answer::Done(_))) => counts.restored += 1,
            (Task::Fetch { numbers, .. }, End::Answered(Answer::Done(_))) => {
                counts.fetched += numbers.len() as u64;
            }
            (Task::Prune { .. }, End::Answered(Answer::Done(told))) => counts.add_pruned(told),
            _ => {}
        }
    }

    /// The client that judges: no faults, no cache.
    fn judge(&self) -> Client {
        let bent = Bent::new(&self.world, &Rough::default()).expect("the repository is there");
        let clock = crate::support::world::ShiftedClock::default();
        Client { clock: std::sync::Arc::new(clock), ..self.owner.through(std::sync::Arc::new(bent)) }
    }

    /// What is listed, by the operations that made it: ids, and whether each is forgotten.
    fn listed(&self) -> Result<BTreeMap<u64, (String, bool)>, String> {
        let snapshots = Snapshots::load(&self.judge().try_open().map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())?;
        if let Some((name, error)) = snapshots.refused.first() {
            return Err(format!("{name} does not count: {error}"));
        }
        let operation = |view: &chronolith::ops::SnapshotView| {
            view.snapshot.tags.get("operation")?.as_ref()?.parse::<u64>().ok()
        };
        let all = snapshots.with_forgotten().iter();
        Ok(all.filter_map(|view| Some((operation(view)?, (view.id.to_string(), view.forgotten)))).collect())
    }

    /// Takes over what an operation changed of the log; `pushed` are the segments that it said were archived.
    fn settle_log(&self, task: &Task, pushed: &[u64]) {
        let log = &mut self.model.lock().unwrap().log;
        match task {
            Task::Push(numbers) => log.end_push(numbers, pushed),
            Task::Contradict(number) => log.end_contradict(*number),
            Task::ForgetLog(before) => log.end_forget(*before),
            _ => {}
        }
    }

    /// Takes over what an operation changed of snapshots.
    fn settle(&self, operation: u64, task: &Task, end: &End, chosen: Vec<u64>, may_lapse: bool) {
        let done = matches!(end, End::Answered(Answer::Done(_)));
        match task {
            Task::Backup(_) | Task::Forget(_) | Task::Undelete(_) => {}
            Task::Mark { .. } => {
                let mut model = self.model.lock().unwrap();
                return chosen.iter().for_each(|number| {
                    if let Some(kept) = model.kept.get_mut(number) {
                        kept.busy = false;
                    }
                });
            }
            _ => return,
        }
        let before: Vec<(u64, u64)> = {
            let model = self.model.lock().unwrap();
            let live = model.having(State::Live);
            live.into_iter().map(|number| (number, model.kept[&number].touched)).collect()
        };
        let listed = match self.listed() {
            Ok(listed) => listed,
            Err(error) => return self.wrong(format!("after operation {operation}: {error}")),
        };
        let mut model = self.model.lock().unwrap();
        let mut wrong = Vec::new();
        if let Task::Backup(load) = task {
            match (listed.get(&operation), end) {
                (Some((id, _)), _) => {
                    let state = if done || !may_lapse { State::Live } else { State::Doubtful };
                    model.counts.doubtful += u64::from(state == State::Doubtful);
                    let kept = Kept { id: id.clone(), load: load.clone(), state, busy: false, touched: 0 };
                    model.kept.insert(operation, kept);
                }
                (None, End::Answered(Answer::Done(id))) => {
                    wrong.push(format!("snapshot {id} of operation {operation} is not listed"));
                }
                _ => {}
            }
        }
        for number in chosen {
            let there = matches!(listed.get(&number), Some((_, false)));
            let kept = model.kept.get_mut(&number).expect("chosen from the model");
            let undeleted = matches!(task, Task::Undelete(_));
            match (undeleted, done, there) {
                (true, true, false) => wrong.push(format!("{} was undeleted, and is not listed", kept.id)),
                (false, true, true) => wrong.push(format!("{} was forgotten, and is listed", kept.id)),
                _ => {}
            }
            kept.state = match (there, undeleted && !done && may_lapse) {
                (true, true) => State::Doubtful,
                (true, false) => State::Live,
                (false, _) => State::Gone,
            };
            kept.busy = false;
        }
        for (number, touched) in before {
            let Some(kept) = model.kept.get(&number) else { continue };
            let there = matches!(listed.get(&number), Some((_, false)));
            if !there && kept.touched == touched && !kept.busy && kept.state == State::Live {
                wrong.push(format!("{} (operation {number}) is live, and is not listed", kept.id));
            }
        }
        drop(model);
        wrong.into_iter().for_each(|what| self.wrong(what));
    }

    fn quiet(&self, task: Task) -> Answer {
        let rough = Rough { seed: mix(&[*self.next.lock().unwrap(), 9]), retries: true, ..Rough::default() };
        let order = Order { world: self.world.clone(), who: self.owner_who(), rough, task };
        crate::worker::work(&order)
    }

    /// With no faults any more: everything that was committed and not forgotten restores, and a check that reads
    /// everything is clean.
    pub fn verify(&self) {
        let listed = match self.listed() {
            Ok(listed) => listed,
            Err(error) => return self.wrong(error),
        };
        let kept = self.model.lock().unwrap().kept.clone();
        for (number, one) in &kept {
            let there = matches!(listed.get(number), Some((_, false)));
            if one.state == State::Gone {
                if there {
                    self.wrong(format!("{} was forgotten, and is listed", one.id));
                }
                continue;
            }
            if !there {
                self.wrong(format!("{} (operation {number}) is lost", one.id));
                continue;
            }
            let restored = self.quiet(Task::Restore { snapshot: one.id.clone(), load: one.load.clone() });
            let mut model = self.model.lock().unwrap();
            match (restored, one.state) {
                (Answer::Done(_), _) => {
                    model.counts.restored += 1;
                    if let Some(kept) = model.kept.get_mut(number) {
                        kept.state = State::Live;
                    }
                }
                // Its writer never said that it was good, and could not have.
                (Answer::Failed { .. }, State::Doubtful) => {
                    model.counts.broken_doubtful += 1;
                    if let Some(kept) = model.kept.get_mut(number) {
                        kept.state = State::Gone;
                    }
                    drop(model);
                    if let answer @ (Answer::Failed { .. } | Answer::Wrong(_)) =
                        self.quiet(Task::Forget(vec![one.id.clone()]))
                    {
                        self.wrong(format!(
                            "{} misses something and cannot be forgotten: {answer:?}",
                            one.id
                        ));
                    }
                }
                (answer, _) => {
                    drop(model);
                    self.wrong(format!("{} (operation {number}, {:?}): {answer:?}", one.id, one.load));
                }
            }
        }
        let numbers: Vec<u64> = self.model.lock().unwrap().log.kept.iter().copied().collect();
        for listed in [false, true] {
            match self.quiet(Task::Fetch { numbers: numbers.clone(), listed }) {
                Answer::Done(_) => self.model.lock().unwrap().counts.fetched += numbers.len() as u64,
                answer => self.wrong(format!("the log (listed: {listed}): {answer:?}")),
            }
        }
        if let answer @ (Answer::Failed { .. } | Answer::Damaged(_) | Answer::Wrong(_)) =
            self.quiet(Task::Check { read_data: true, repair: false })
        {
            self.wrong(format!("check --read-data: {answer:?}"));
        }
        // Old ones that are gone need no remembering.
        self.model.lock().unwrap().kept.retain(|_, kept| kept.state != State::Gone || kept.touched < 3);
    }

    /// Prunes without grace until nothing is left to go, with sessions of the dead lapsed, the log merged and
    /// what was merged gone.
    pub fn sweep(&self) {
        for seconds in [0].into_iter().chain(LEAPS_SECONDS).chain([0]) {
            if seconds > 0 {
                self.pass(seconds);
            }
            let prune = Task::Prune {
                grace_seconds: 0,
                unused_hundredths: 0,
                held_hundredths: Some(0),
                repack_most: None,
            };
            match self.quiet(prune) {
                Answer::Done(told) => self.model.lock().unwrap().counts.add_pruned(&told),
                answer => self.wrong(format!("prune with nothing in its way: {answer:?}")),
            }
        }
    }
}

/// True once in so many times.
fn one_in(random: &SeededEntropy, times: u64) -> bool {
    random.number().is_multiple_of(times)
}

/// Sets the time at which a file was changed back.
fn make_older(path: &Path, age: Duration) -> std::io::Result<()> {
    let file = File::open(path)?;
    let changed = file.metadata()?.modified()?;
    file.set_times(FileTimes::new().set_modified(changed.checked_sub(age).unwrap_or(changed)))
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    if let Some(id) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(id, signal);
    }
}

fn answer_of_worker(_: ExitStatus, out: &Path) -> Result<Answer, String> {
    let text = fs::read_to_string(out).map_err(|error| error.to_string())?;
    let last = text.lines().last().ok_or("it died without an answer")?;
    serde_json::from_str(last).map_err(|error| format!("{error} in {last:?}"))
}
