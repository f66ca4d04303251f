//! What of a log is kept, over random histories and policies: whatever stays is as recoverable as it was, by
//! the planner of recoveries, which knows nothing of retention.

use chronolith::base::Timestamp;
use chronolith::timeline::{
    Certainty, HeldBase, LogBase, LogDecision, LogFileAge, LogReason, LogRetention, LogRules, LogSegment,
    LogStream, Target, TimelinePath, newest_timeline, plan, plan_from,
};
use std::collections::BTreeSet;

const SEGMENT: u64 = 100;
const HOUR: i64 = 3600 * 1_000_000_000;

struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }

    fn one_in(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }
}

fn at(hour: i64) -> Timestamp {
    Timestamp::from_nanoseconds(hour * HOUR)
}

/// A timeline that is being written.
struct Line {
    path: TimelinePath,
    next: u64,
}

/// What a server, its promotions and its archive left behind.
struct History {
    stream: LogStream,
    bases: Vec<HeldBase>,
    files: Vec<LogFileAge>,
    now: i64,
    lines: Vec<Line>,
}

impl History {
    fn draw(draw: &mut Draw) -> Self {
        let mut history = Self {
            stream: LogStream::new(SEGMENT),
            bases: Vec::new(),
            files: Vec::new(),
            now: 1000,
            lines: vec![Line { path: TimelinePath::root(1), next: 1 }],
        };
        let (mut timelines, steps) = (1, 20 + draw.below(100));
        for _ in 0..steps {
            history.now += draw.below(8) as i64;
            let line = match draw.one_in(8) {
                true => draw.below(history.lines.len() as u64) as usize,
                false => history.lines.len() - 1,
            };
            match draw.below(30) {
                0..=20 => history.archive(draw, line),
                21 => history.lines[line].next += 1 + draw.below(2),
                22..=27 => history.back_up(draw, line),
                _ if timelines < 6 => {
                    timelines += 1;
                    history.branch(draw, line, timelines);
                }
                _ => {}
            }
        }
        history
    }

    fn archive(&mut self, draw: &mut Draw, line: usize) {
        let Line { path, next } = &mut self.lines[line];
        let (timeline, start) = (path.last(), *next * SEGMENT);
        *next += 1;
        let name = format!("{timeline}:{}", start / SEGMENT);
        // Archived now or some hours late.
        let late = draw.below(4) as i64;
        let commits = (!draw.one_in(5)).then(|| (at(self.now - late - 2), at(self.now - late)));
        let segment = LogSegment {
            name: name.clone(),
            last: name.clone(),
            count: 1,
            timeline,
            start,
            end: start + SEGMENT,
            written_end: start + SEGMENT,
            whole: true,
            commits,
            known: !draw.one_in(12),
            points: Vec::new(),
        };
        let stored = (!draw.one_in(40)).then(|| at(self.now));
        let pinned = draw.one_in(80);
        self.files.push(LogFileAge { name, timeline, start, end: start + SEGMENT, stored, pinned });
        self.stream.add_segment(segment);
    }

    fn back_up(&mut self, draw: &mut Draw, line: usize) {
        let Line { path, next } = &self.lines[line];
        let timeline = path.last();
        let start = *next * SEGMENT + draw.below(SEGMENT);
        let stop = start + 1 + draw.below(3 * SEGMENT);
        if start < path.parent().map_or(0, |(_, at)| at) {
            return;
        }
        let (stopped, holds_log) = (at(self.now), draw.one_in(5));
        let name = format!("b{}", self.bases.len());
        let base = LogBase { name, timeline, start, stop, stopped, holds_log };
        // The store sees it later, and hosts lie.
        let ended = at(self.now + draw.below(3) as i64);
        self.bases.push(HeldBase { base, ended, kept: false, counts: true });
        // While it runs, the log goes on.
        for _ in 0..=(stop / SEGMENT).saturating_sub(start / SEGMENT) {
            self.now += draw.below(2) as i64;
            match draw.one_in(25) {
                true => self.lines[line].next += 1,
                false => self.archive(draw, line),
            }
        }
    }

    fn branch(&mut self, draw: &mut Draw, line: usize, timeline: u64) {
        let Line { path, next } = &self.lines[line];
        let least = path.parent().map_or(SEGMENT, |(_, at)| at);
        let most = *next * SEGMENT;
        if most <= least {
            return;
        }
        // Mostly a promotion at the end, sometimes a recovery to the past.
        let back =
            if draw.one_in(3) { draw.below(most - least) } else { draw.below(SEGMENT.min(most - least)) };
        let fork = most - back;
        let Ok(path) = path.clone().then(timeline, fork) else { return };
        // Its history may be lost.
        if !draw.one_in(8) {
            self.stream.add_path(path.clone());
        }
        self.lines.push(Line { path, next: fork / SEGMENT });
    }
}

fn goes(history: &History, decision: &LogDecision) -> BTreeSet<String> {
    let names = history.files.iter().map(|file| file.name.clone());
    names.filter(|name| !decision.kept.contains_key(name)).collect()
}

/// Everything that must be true of a decision.
fn judge(history: &History, rules: &LogRules, seed: u64, draw: &mut Draw) {
    let stream = &history.stream;
    let retention = LogRetention::new(stream, &history.bases, &history.files);
    let decision = retention.decide(rules);
    let gone = goes(history, &decision);
    let after = stream.left(&gone, &decision.histories);
    let stays = |held: &&HeldBase| {
        let name = &held.base.name;
        held.kept || decision.by_window.contains(name) || decision.waiting.contains(name)
    };
    let all: Vec<LogBase> = history.bases.iter().map(|held| held.base.clone()).collect();
    let left: Vec<HeldBase> = history.bases.iter().filter(stays).cloned().collect();
    let bases: Vec<LogBase> = left.iter().map(|held| held.base.clone()).collect();
    let files: Vec<LogFileAge> =
        history.files.iter().filter(|file| !gone.contains(&file.name)).cloned().collect();
    let then = LogRetention::new(&after, &left, &files);
    let timelines: Vec<u64> = stream.timelines().into_iter().collect();
    let times: Vec<Timestamp> =
        (0..12).map(|_| at(995 + draw.below((history.now - 990) as u64) as i64)).collect();
    for held in &left {
        let base = &held.base;
        // B11: what was worth something is so still.
        assert_eq!(then.is_good(base), retention.is_good(base), "{seed}: {base:?}");
        // R9: whoever looks for the newest timeline finds the same one. One whose history is lost is taken for the
        // first of all where nothing older is left.
        let newest = newest_timeline(stream, base);
        assert!(newest.is_none() || newest_timeline(&after, base) == newest, "{seed}: {base:?}");
        if let Ok(immediate) = plan(stream, base, &Target::Immediate, None) {
            let still = plan(&after, base, &Target::Immediate, None);
            assert_eq!(still.map(|plan| plan.segments), Ok(immediate.segments), "{seed}");
        }
        if rules.window.is_some() || !held.kept {
            continue;
        }
        // Without a window, every recovery from it needs and finds the same segments.
        for timeline in timelines.iter().map(|timeline| Some(*timeline)).chain([None]) {
            let targets = times.iter().map(|at| Target::Time { at: *at, inclusive: true });
            for target in targets.chain([Target::Latest]) {
                let Ok(now) = plan(stream, base, &target, timeline) else { continue };
                let then = plan(&after, base, &target, timeline).map(|plan| plan.segments);
                assert_eq!(then, Ok(now.segments), "{seed}: {} to {target:?} on {timeline:?}", base.name);
            }
        }
    }
    if let Some(window) = rules.window {
        for timeline in &timelines {
            for time in times.iter().filter(|time| **time >= window) {
                let target = Target::Time { at: *time, inclusive: true };
                let Ok(now) = plan_from(stream, &all, &target, Some(*timeline)) else { continue };
                if now.certainty == Certainty::Unknown {
                    continue;
                }
                let then = plan_from(&after, &bases, &target, Some(*timeline));
                assert!(then.is_ok(), "{seed}: {time:?} on {timeline}: {then:?}; before: {now:?}");
            }
        }
        // The end of the newest timeline is never given up.
        let newest = timelines.iter().rev().find(|timeline| stream.path(**timeline).is_some());
        if let Some(timeline) = newest.filter(|_| rules.is_current)
            && let Ok(now) = plan_from(stream, &all, &Target::Latest, Some(*timeline))
        {
            let then = plan_from(&after, &bases, &Target::Latest, Some(*timeline)).map(|plan| plan.end);
            let later = history.lines.iter().any(|line| line.path.last() < *timeline);
            assert!(then == Ok(now.end) || later, "{seed}: {then:?} {now:?}");
        }
    }
    // A backup that has begun behind the newest good one, and ends now, will find its log.
    if let Some(line) =
        history.lines.last().filter(|line| rules.is_current && stream.path(line.path.last()).is_some())
    {
        let path = &line.path;
        let good = all.iter().filter(|base| {
            retention.is_good(base) && plan(stream, base, &Target::Immediate, Some(path.last())).is_ok()
        });
        let newest = good.map(|base| if base.holds_log { base.stop } else { base.start }).max();
        let (timeline, stop) = (path.last(), line.next * SEGMENT);
        let start = newest.unwrap_or(0).max(path.parent().map_or(SEGMENT, |(_, at)| at)).max(SEGMENT);
        if start < stop {
            let start = start + draw.below(stop - start);
            let running = LogBase {
                name: "running".to_owned(),
                timeline,
                start,
                stop,
                stopped: at(history.now),
                holds_log: false,
            };
            let good =
                |stream: &LogStream| plan(stream, &running, &Target::Immediate, Some(timeline)).is_ok();
            assert!(good(&after) || !good(stream), "{seed}: {running:?}");
        }
    }
    // Nothing stays for no reason: in front of all that stays, old, and led to by something that goes.
    let oldest = bases.iter().map(|base| base.start).min();
    for file in history.files.iter().filter(|file| decision.kept.contains_key(&file.name)) {
        let is_old = !file.pinned && file.stored.is_some_and(|stored| stored < rules.recent);
        let in_front = oldest.is_some_and(|oldest| file.start + SEGMENT <= oldest);
        let reason = decision.kept[&file.name];
        let lost = reason == LogReason::LostHistory || reason == LogReason::Newest;
        assert!(!is_old || !in_front || lost, "{seed}: {file:?} {reason:?}");
    }
}

#[test]
fn whatever_stays_is_as_recoverable_as_it_was() {
    let (mut gone, mut kept, mut windows) = (0, 0, 0);
    for seed in 0..80 {
        let mut draw = Draw(seed * 7919 + 13);
        let mut history = History::draw(&mut draw);
        for _ in 0..3 {
            for held in &mut history.bases {
                held.kept = draw.one_in(3);
            }
            let ago = |hours: u64| at(history.now - hours as i64);
            let window = (!draw.one_in(3)).then(|| ago(1 + draw.below(200)));
            let recent = ago(1 + draw.below(100));
            let rules = LogRules { window, recent, busy: ago(draw.below(6)), is_current: !draw.one_in(6) };
            judge(&history, &rules, seed, &mut draw);
            let decision = LogRetention::new(&history.stream, &history.bases, &history.files).decide(&rules);
            gone += goes(&history, &decision).len();
            kept += decision.kept.len();
            windows += decision.by_window.len();
        }
    }
    // The test would prove nothing if all stayed.
    assert!(gone > 1000 && kept > 1000 && windows > 50, "{gone} {kept} {windows}");
}
