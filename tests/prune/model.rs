//! A small model of deletion beside writers, explored in every order of steps: what `format-spec/concurrency.md`
//! says is enough that no snapshot that counts misses what it needs, and each rule that is left out is found
//! to be needed.
//!
//! There is one blob. Every pack holds it but those of a thief, which only claim to; a snapshot can be read while
//! any that does is there. What a step reads or writes, it does at once; between two steps of one actor all
//! others may take theirs.

use std::collections::HashSet;

/// Rules of the specification, which can be left out one by one.
#[derive(Clone, Copy)]
struct Rules {
    /// [CONCURRENCY-10]: the session comes before the first listing.
    session_first: bool,
    /// [CONCURRENCY-12]: a condemnation is named after the rescue.
    rescue_before_naming: bool,
    /// [CONCURRENCY-16]: what was once listed is not adopted from, though the condemnation is gone.
    barred_for_good: bool,
    /// [CONCURRENCY-21]: condemnations are listed after the commit, too.
    look_after_commit: bool,
    /// [CONCURRENCY-23]: a writer that had lapsed looks at everything.
    look_after_lapse: bool,
    /// [CONCURRENCY-29]: copies in condemned packs do not count.
    condemned_do_not_count: bool,
    /// [CONCURRENCY-32], step 6: what is needed is rescued before anything is deleted.
    sweep_rescues: bool,
    /// [CONCURRENCY-32], step 7: sessions that have not named the condemnation are waited for.
    sweep_waits: bool,
    /// [CONCURRENCY-33]: sessions are listed before roots.
    sessions_before_roots: bool,
    /// [CONCURRENCY-47]: what rests on another word stands in for nothing.
    words_stand_apart: bool,
    /// Not a rule: sessions stand still for so long that they lapse.
    sessions_lapse: bool,
}

const ALL: Rules = Rules {
    session_first: true,
    rescue_before_naming: true,
    barred_for_good: true,
    look_after_commit: true,
    look_after_lapse: true,
    condemned_do_not_count: true,
    sweep_rescues: true,
    sweep_waits: true,
    sessions_before_roots: true,
    words_stand_apart: true,
    sessions_lapse: true,
};

/// Sets of packs, of condemnations, of writers, of roots: a bit each.
type Set = u8;

const PACKS: u32 = 4;
/// A scene with more is no small model.
const WORLDS_MAX: usize = 2_000_000;
const CONDEMNATIONS: usize = 2;
/// The root that was there from the beginning.
const OLD: Set = 1 << 7;

fn bits(set: Set) -> impl Iterator<Item = u32> {
    (0..8).filter(move |bit| set & (1 << bit) != 0)
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// Stores the blob where it cannot adopt it.
    Backup,
    /// Brings back a snapshot: it has nothing to store anew.
    Undelete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum At {
    Begin,
    List,
    NameFirst,
    See,
    Adopt,
    Look,
    Rescue,
    Name,
    Commit,
    Renew,
    LookAgain,
    RescueAgain,
    NameAgain,
    End,
    Done,
    /// It says that the snapshot misses something.
    Failed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Writer {
    kind: Kind,
    at: At,
    barred: Set,
    seen: Set,
    /// Condemnations that it is about to name, and those that it has named by a renewal.
    pending: Set,
    named: Set,
    /// What the listing of its last look showed as condemned.
    looked: Set,
    lives: bool,
    lapsed: bool,
    /// A renewal showed that it had lapsed, and it has not looked at everything since.
    detected: bool,
    has_lapsed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    List,
    Sessions,
    Roots,
    Condemn,
    Announce,
    SweepList,
    SweepSessions,
    SweepRoots,
    SweepPacks,
    Delete,
    Forget,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Prune {
    step: Step,
    rounds: u8,
    known: Set,
    /// The condemnation that it has put.
    own: Set,
    sessions: Set,
    roots: Set,
    target: Set,
    /// Condemnations that may be swept, and packs that are left to delete.
    free: Set,
    present: Set,
    doomed: Set,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Condemnation {
    packs: Set,
    /// Writers whose newest renewal it records.
    recorded: Set,
    gone: bool,
}

impl Writer {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            at: At::Begin,
            barred: 0,
            seen: 0,
            pending: 0,
            named: 0,
            looked: 0,
            lives: false,
            lapsed: false,
            detected: false,
            has_lapsed: false,
        }
    }
}

impl Prune {
    fn new(rounds: u8) -> Self {
        Self {
            step: Step::List,
            rounds,
            known: 0,
            own: 0,
            sessions: 0,
            roots: 0,
            target: 0,
            free: 0,
            present: 0,
            doomed: 0,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    packs: Set,
    /// Packs that only claim to hold the blob, and whether a thief has still to put one.
    forged: Set,
    thief: bool,
    used: Set,
    roots: Set,
    /// Snapshots whose writers have said that something is missing.
    failed: Set,
    /// A writer whose session never lapsed lost what it relied on.
    let_down: bool,
    condemnations: [Option<Condemnation>; CONDEMNATIONS],
    writers: Vec<Writer>,
    prunes: Vec<Prune>,
}

impl World {
    fn new(packs: Set, roots: Set, writers: &[Kind], prunes: &[u8]) -> Self {
        Self {
            packs,
            forged: 0,
            thief: false,
            used: packs,
            roots,
            failed: 0,
            let_down: false,
            condemnations: [None; CONDEMNATIONS],
            writers: writers.iter().map(|kind| Writer::new(*kind)).collect(),
            prunes: prunes.iter().map(|rounds| Prune::new(*rounds)).collect(),
        }
    }

    /// The same with a thief about.
    fn with_thief(self) -> Self {
        Self { thief: true, ..self }
    }

    /// Packs that really hold the blob.
    fn true_packs(&self) -> Set {
        self.packs & !self.forged
    }

    /// Packs that are counted as copies.
    fn counted(&self, rules: &Rules) -> Set {
        if rules.words_stand_apart { self.true_packs() } else { self.packs }
    }

    /// A thief claims to hold the blob, once and at any time.
    fn steal(&self, next: &mut Vec<Self>) {
        let mut world = Self { thief: false, ..self.clone() };
        let before = world.packs;
        if self.thief && world.put_pack().is_some() {
            world.forged |= world.packs & !before;
            next.push(world);
        }
    }

    /// The condemnations that a listing shows.
    fn listed(&self) -> Set {
        let standing = |number: &usize| self.condemnations[*number].is_some_and(|found| !found.gone);
        (0..CONDEMNATIONS).filter(standing).fold(0, |set, number| set | 1 << number)
    }

    fn packs_of(&self, condemnations: Set) -> Set {
        bits(condemnations)
            .filter_map(|number| self.condemnations[number as usize])
            .fold(0, |set, found| set | found.packs)
    }

    /// Puts a pack under a name that was never used; `None` where the model has no more of them.
    fn put_pack(&mut self) -> Option<()> {
        let name = (0..PACKS).find(|name| self.used & (1 << name) == 0)?;
        self.used |= 1 << name;
        self.packs |= 1 << name;
        Some(())
    }

    /// A renewal: it ends a lapse, and the writer sees that there was one.
    fn renew(&mut self, number: usize) {
        let writer = &mut self.writers[number];
        writer.lives = true;
        writer.detected |= writer.lapsed;
        writer.lapsed = false;
        for found in self.condemnations.iter_mut().flatten() {
            found.recorded &= !(1 << number);
        }
    }

    /// [CONCURRENCY-18]: makes sure of a copy outside of what was listed; says whether there is one.
    fn rescue(&mut self, listed: Set, rules: &Rules) -> Option<bool> {
        if self.counted(rules) & !listed != 0 {
            return Some(true);
        }
        if self.true_packs() == 0 {
            return Some(false);
        }
        self.put_pack().map(|()| true)
    }

    /// Wipes out what nobody reads any more, so that worlds that go on alike are one.
    fn tidy(&mut self) {
        for writer in &mut self.writers {
            if writer.at > At::Adopt {
                (writer.barred, writer.seen) = (0, 0);
            }
            if matches!(writer.at, At::Done | At::Failed) {
                *writer = Writer { at: At::Done, ..Writer::new(writer.kind) };
            }
        }
        for prune in &mut self.prunes {
            if prune.step == Step::Done {
                *prune = Prune { step: Step::Done, ..Prune::new(0) };
            }
        }
    }

    /// What must be true: whatever counts can be read. A writer that had lapsed may say that its snapshot failed
    /// until it has reported success; no other ever has to.
    fn holds(&self) -> bool {
        let doubtful = self.writers.iter().enumerate().fold(self.failed, |set, (number, writer)| {
            let unsure = writer.at < At::End && writer.has_lapsed;
            if unsure { set | 1 << number } else { set }
        });
        !self.let_down && (self.true_packs() != 0 || self.roots & !doubtful == 0)
    }

    fn write(&self, number: usize, rules: &Rules, next: &mut Vec<Self>) {
        let mut world = self.clone();
        let writer = self.writers[number];
        let go = |world: &mut Self, at: At| world.writers[number].at = at;
        match writer.at {
            At::Begin if rules.session_first || writer.barred != 0 || writer.pending == Set::MAX => {
                world.renew(number);
                go(&mut world, if rules.session_first { At::List } else { At::See });
            }
            // Without the rule the listing comes first.
            At::Begin => {
                world.writers[number].barred = world.packs_of(world.listed());
                world.writers[number].named = world.listed();
                world.writers[number].pending = Set::MAX;
            }
            At::List => {
                world.writers[number].barred = world.packs_of(world.listed());
                world.writers[number].pending = world.listed();
                go(&mut world, At::NameFirst);
            }
            At::NameFirst => {
                world.writers[number].named |= writer.pending;
                world.renew(number);
                go(&mut world, At::See);
            }
            At::See => {
                world.writers[number].seen = world.packs;
                go(&mut world, At::Adopt);
            }
            At::Adopt => {
                // A renewal of the thread beside it may list again at any time before.
                let listed = world.packs_of(world.listed());
                let barred = if rules.barred_for_good { writer.barred | listed } else { listed };
                for barred in [writer.barred, barred] {
                    let mut world = self.clone();
                    world.writers[number].barred = barred;
                    go(&mut world, At::Look);
                    // Whoever adopts what is forged is deceived there and then: no rule of deletion helps.
                    let adopts = writer.seen & !barred & !self.forged != 0;
                    let stored = match writer.kind {
                        _ if adopts => Some(true),
                        Kind::Backup => world.put_pack().map(|()| true),
                        Kind::Undelete => world.rescue(barred, rules),
                    };
                    match stored {
                        Some(true) => next.push(world),
                        Some(false) => {
                            go(&mut world, At::Done);
                            world.writers[number].lives = false;
                            next.push(world);
                        }
                        None => {}
                    }
                }
                return;
            }
            At::Look | At::LookAgain => {
                let again = writer.at == At::LookAgain;
                let new = world.listed() & !writer.named;
                let lapsed = writer.detected && rules.look_after_lapse;
                world.writers[number].looked = world.packs_of(world.listed());
                world.writers[number].pending = new;
                world.writers[number].detected = false;
                let done = new == 0 && !lapsed || again && !rules.look_after_commit;
                go(
                    &mut world,
                    match (again, done) {
                        (false, true) => At::Commit,
                        (true, true) => At::End,
                        (false, false) if rules.rescue_before_naming => At::Rescue,
                        (true, false) if rules.rescue_before_naming => At::RescueAgain,
                        (false, false) => At::Name,
                        (true, false) => At::NameAgain,
                    },
                );
            }
            At::Rescue | At::RescueAgain => {
                let again = writer.at == At::RescueAgain;
                match world.rescue(writer.looked, rules) {
                    Some(true) => go(
                        &mut world,
                        match (again, rules.rescue_before_naming) {
                            (false, true) => At::Name,
                            (true, true) => At::NameAgain,
                            (false, false) => At::Look,
                            (true, false) => At::LookAgain,
                        },
                    ),
                    Some(false) if !writer.has_lapsed => world.let_down = true,
                    Some(false) if again => {
                        world.failed |= 1 << number;
                        world.writers[number].lives = false;
                        go(&mut world, At::Failed);
                    }
                    // Nothing was committed.
                    Some(false) => {
                        world.writers[number].lives = false;
                        go(&mut world, At::Done);
                    }
                    None => return,
                }
            }
            At::Name | At::NameAgain => {
                let again = writer.at == At::NameAgain;
                world.writers[number].named |= writer.pending;
                world.renew(number);
                go(
                    &mut world,
                    match (again, rules.rescue_before_naming) {
                        (false, true) => At::Look,
                        (true, true) => At::LookAgain,
                        (false, false) => At::Rescue,
                        (true, false) => At::RescueAgain,
                    },
                );
            }
            At::Commit => {
                world.roots |= 1 << number;
                go(&mut world, At::Renew);
            }
            At::Renew => {
                world.renew(number);
                go(&mut world, At::LookAgain);
            }
            At::End => {
                world.writers[number].lives = false;
                go(&mut world, At::Done);
            }
            At::Done | At::Failed => return,
        }
        next.push(world);
    }

    /// A session stands still for so long that nobody waits for it any more ([CONCURRENCY-15]).
    fn lapse(&self, number: usize, next: &mut Vec<Self>) {
        let recorded = self.condemnations.iter().flatten().any(|found| found.recorded & (1 << number) != 0);
        if self.writers[number].lives && !self.writers[number].lapsed && recorded {
            let mut world = self.clone();
            world.writers[number].lapsed = true;
            world.writers[number].has_lapsed = true;
            next.push(world);
        }
    }

    fn prune(&self, number: usize, rules: &Rules, next: &mut Vec<Self>) {
        let mut world = self.clone();
        let prune = self.prunes[number];
        let living = self.writers.iter().enumerate().filter(|(_, writer)| writer.lives);
        let living: Set = living.fold(0, |set, (number, _)| set | 1 << number);
        let mut here = prune;
        let step = match prune.step {
            Step::List => {
                here.known = self.listed();
                Step::Sessions
            }
            Step::Sessions => {
                here.sessions = living;
                Step::Roots
            }
            Step::Roots => {
                here.roots = self.roots & !self.failed;
                Step::Condemn
            }
            Step::Condemn => {
                let known = self.packs_of(prune.known);
                let outside = if prune.roots == 0 { self.packs } else { self.counted(rules) } & !known;
                world.prunes[number].step = Step::Announce;
                let mut targets = Vec::new();
                if prune.roots == 0 {
                    targets.push(outside);
                } else if rules.condemned_do_not_count {
                    targets.extend(bits(outside).map(|kept| outside & !(1 << kept)));
                } else {
                    targets.push(if self.packs & known != 0 {
                        outside
                    } else {
                        outside & outside.wrapping_sub(1)
                    });
                }
                for target in targets {
                    let mut world = world.clone();
                    world.prunes[number].target = target;
                    next.push(world);
                }
                // What is needed is repacked: the copy is there before anything is condemned.
                if prune.roots != 0 && outside & !self.forged != 0 && world.put_pack().is_some() {
                    world.prunes[number].target = outside;
                    next.push(world.clone());
                }
                if outside == 0 {
                    world.prunes[number].target = 0;
                    next.push(world);
                }
                return;
            }
            Step::Announce => {
                if prune.target != 0 {
                    let free = self.condemnations.iter().position(Option::is_none);
                    let Some(free) = free else { return };
                    here.own = 1 << free;
                    world.condemnations[free] =
                        Some(Condemnation { packs: prune.target, recorded: prune.sessions, gone: false });
                }
                Step::SweepList
            }
            Step::SweepList => {
                here.known = self.listed();
                if rules.sessions_before_roots { Step::SweepSessions } else { Step::SweepRoots }
            }
            Step::SweepSessions => {
                let waits = |condemnation: u32| {
                    let waits = |writer: &Writer| {
                        writer.lives && !writer.lapsed && writer.named & (1 << condemnation) == 0
                    };
                    rules.sweep_waits && self.writers.iter().any(waits)
                };
                // Without the rule a prune knows of its own condemnation only.
                let due = if rules.condemned_do_not_count { prune.known } else { prune.known & prune.own };
                here.free = bits(due).filter(|one| !waits(*one)).fold(0, |set, one| set | 1 << one);
                if rules.sessions_before_roots { Step::SweepRoots } else { Step::SweepPacks }
            }
            Step::SweepRoots => {
                here.roots = self.roots & !self.failed;
                if rules.sessions_before_roots { Step::SweepPacks } else { Step::SweepSessions }
            }
            Step::SweepPacks => {
                here.present = self.packs;
                here.doomed = self.packs & self.packs_of(prune.free);
                let counted = match rules.condemned_do_not_count {
                    true => self.counted(rules) & !self.packs_of(prune.known),
                    false => self.counted(rules) & !self.packs_of(prune.own),
                };
                let needs = prune.roots != 0 && counted == 0 && self.true_packs() != 0;
                if needs && rules.sweep_rescues && world.put_pack().is_none() {
                    return;
                }
                Step::Delete
            }
            Step::Delete => match bits(prune.doomed).next() {
                Some(pack) => {
                    here.doomed &= !(1 << pack);
                    world.packs &= !(1 << pack);
                    Step::Delete
                }
                None => Step::Forget,
            },
            Step::Forget => {
                // [CONCURRENCY-35]: by a listing from before the deletion.
                for one in bits(prune.free) {
                    let found = world.condemnations[one as usize].as_mut();
                    if let Some(found) = found.filter(|found| found.packs & prune.present == 0) {
                        found.gone = true;
                    }
                }
                here.rounds -= 1;
                if here.rounds == 0 { Step::Done } else { Step::List }
            }
            Step::Done => return,
        };
        world.prunes[number] = Prune { step, ..here };
        next.push(world);
    }
}

/// Explores everything that can happen; returns how many worlds there are, or, where one does not hold, the
/// shortest way there.
fn explore(start: World, rules: &Rules) -> Result<usize, Vec<World>> {
    let mut met: HashSet<World> = HashSet::from([start.clone()]);
    let mut all = vec![(start, 0)];
    let mut next = Vec::new();
    let mut at = 0;
    while let Some((world, _)) = all.get(at) {
        for number in 0..world.writers.len() {
            world.write(number, rules, &mut next);
            if rules.sessions_lapse {
                world.lapse(number, &mut next);
            }
        }
        for number in 0..world.prunes.len() {
            world.prune(number, rules, &mut next);
        }
        world.steal(&mut next);
        for mut world in next.drain(..) {
            world.tidy();
            if !world.holds() {
                let mut way = vec![world];
                while at != 0 {
                    way.push(all[at].0.clone());
                    at = all[at].1;
                }
                way.reverse();
                return Err(way);
            }
            if met.insert(world.clone()) {
                all.push((world, at));
            }
        }
        assert!(all.len() < WORLDS_MAX, "too many worlds");
        at += 1;
    }
    Ok(all.len())
}

/// The way to a world that does not hold, in words.
fn tell(way: &[World]) -> String {
    let lines = way.iter().map(|world| {
        let writers: Vec<String> = world
            .writers
            .iter()
            .map(|writer| {
                let marks = [(writer.lives, "lives"), (writer.lapsed, "lapsed"), (writer.detected, "detected")];
                let marks: Vec<&str> = marks.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark).collect();
                format!("{:?} named {:b} {}", writer.at, writer.named, marks.join(" "))
            })
            .collect();
        let prunes: Vec<String> =
            world.prunes.iter().map(|prune| format!("{:?} free {:b}", prune.step, prune.free)).collect();
        let condemned: Vec<String> = world
            .condemnations
            .iter()
            .flatten()
            .map(|found| format!("{:b}{}", found.packs, if found.gone { " gone" } else { "" }))
            .collect();
        format!(
            "packs {:b} forged {:b} roots {:b} failed {:b} condemned {condemned:?} writers {writers:?} prunes {prunes:?}\n",
            world.packs, world.forged, world.roots, world.failed
        )
    });
    lines.collect()
}

/// Who is about, from the least to the most, and whether sessions lapse there: the largest are looked at without.
fn scenes() -> Vec<(&'static str, bool, World)> {
    use Kind::{Backup, Undelete};
    vec![
        ("a backup and a prune", true, World::new(1, 0, &[Backup], &[2])),
        ("an undelete and a prune", true, World::new(1, 0, &[Undelete], &[2])),
        ("a backup, a prune and a thief", true, World::new(1, 0, &[Backup], &[1]).with_thief()),
        ("an undelete, a prune and a thief", true, World::new(1, 0, &[Undelete], &[2]).with_thief()),
        ("two prunes, two copies and a thief", true, World::new(3, OLD, &[], &[1, 1]).with_thief()),
        ("two prunes and two copies", true, World::new(3, OLD, &[], &[1, 1])),
        ("a backup and two prunes", false, World::new(1, 0, &[Backup], &[1, 1])),
        ("two backups and a prune", false, World::new(1, 0, &[Backup, Backup], &[1])),
        ("a backup, an undelete and a prune", false, World::new(1, 0, &[Backup, Undelete], &[1])),
    ]
}

#[test]
fn nothing_is_lost_in_whatever_order_things_happen() {
    for (what, sessions_lapse, world) in scenes() {
        let worlds = explore(world, &Rules { sessions_lapse, ..ALL })
            .unwrap_or_else(|way| panic!("{what}: a snapshot misses a blob:\n{}", tell(&way)));
        eprintln!("{what}: {worlds} worlds");
        assert!(worlds > 100, "{what}: only {worlds} worlds");
    }
}

#[test]
fn every_rule_is_needed() {
    type LeaveOut = fn(&mut Rules);
    let without: [(&str, LeaveOut); 9] = [
        ("CONCURRENCY-10", |rules| rules.session_first = false),
        ("CONCURRENCY-12", |rules| rules.rescue_before_naming = false),
        ("CONCURRENCY-16", |rules| rules.barred_for_good = false),
        ("CONCURRENCY-21", |rules| rules.look_after_commit = false),
        ("CONCURRENCY-23", |rules| rules.look_after_lapse = false),
        ("CONCURRENCY-29", |rules| rules.condemned_do_not_count = false),
        ("CONCURRENCY-32, step 6", |rules| rules.sweep_rescues = false),
        ("CONCURRENCY-32, step 7", |rules| rules.sweep_waits = false),
        ("CONCURRENCY-47", |rules| rules.words_stand_apart = false),
    ];
    for (rule, leave_out) in without {
        let mut rules = ALL;
        leave_out(&mut rules);
        let found = scenes()
            .into_iter()
            .any(|(_, sessions_lapse, world)| explore(world, &Rules { sessions_lapse, ..rules }).is_err());
        assert!(found, "nothing goes wrong without {rule}");
    }
}

#[test]
fn the_order_of_sessions_and_roots_is_a_second_line() {
    // [CONCURRENCY-33]: whoever commits between the two listings looks again afterwards, and the condemnation is
    // older than both. It is what is left where a writer does not.
    for (what, sessions_lapse, world) in scenes().into_iter().take(5) {
        let rules = Rules { sessions_lapse, sessions_before_roots: false, ..ALL };
        assert!(explore(world, &rules).is_ok(), "{what}");
    }
}
