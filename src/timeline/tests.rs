use super::*;
use crate::base::Timestamp;

const SEGMENT: u64 = 100;

fn at(second: i64) -> Timestamp {
    Timestamp::from_nanoseconds(second * 1_000_000_000)
}

/// A segment by timeline and number, with the times of its transactions.
fn segment(timeline: u64, number: u64, commits: Option<(i64, i64)>) -> LogSegment {
    LogSegment {
        name: format!("{timeline}:{number}"),
        last: format!("{timeline}:{number}"),
        count: 1,
        timeline,
        start: number * SEGMENT,
        end: (number + 1) * SEGMENT,
        written_end: (number + 1) * SEGMENT,
        whole: true,
        commits: commits.map(|(earliest, latest)| (at(earliest), at(latest))),
        known: true,
        points: Vec::new(),
    }
}

fn base(name: &str, timeline: u64, start: u64, stop: u64, second: i64) -> LogBase {
    LogBase { name: name.to_owned(), timeline, start, stop, stopped: at(second), holds_log: false }
}

/// Timeline 1 with segments 1 to 9, ten seconds each; 2 branches off at 450 and has 4 to 7.
fn forked() -> LogStream {
    let mut stream = LogStream::new(SEGMENT);
    for number in 1..=9 {
        let second = number as i64 * 10;
        stream.add_segment(segment(1, number, Some((second, second + 9))));
    }
    for number in 4..=7 {
        let second = number as i64 * 100;
        stream.add_segment(segment(2, number, Some((second, second + 99))));
    }
    stream.add_path(TimelinePath::root(1).then(2, 450).unwrap());
    stream
}

fn names(plan: &Result<RecoveryPlan, Refusal>) -> String {
    plan.as_ref().unwrap().segments.join(" ")
}

#[test]
fn the_way_changes_timelines_where_they_branch_off() {
    let stream = forked();
    let path = stream.path(2).unwrap();
    let reach = stream.reach(&path, 250);
    let names: Vec<&str> = reach.segments.iter().map(|segment| segment.name.as_str()).collect();
    // The segment in which timeline 2 begins is its own: the parent's goes on with what is not on the way.
    assert_eq!(names, ["1:2", "1:3", "2:4", "2:5", "2:6", "2:7"]);
    assert_eq!((reach.end, reach.latest()), (800, Some(at(799))));
    assert!(reach.next.is_none());
}

/// A15: after a promotion the segment in which the new timeline begins is there as its parent's only, until it is full.
/// What lies before the branch is the same in both, and a server takes the parent's.
#[test]
fn the_parents_segment_serves_until_the_childs_is_there() {
    let base = base("b", 1, 210, 290, 28);
    let held = |reach: &Reach<'_>| {
        let names: Vec<&str> = reach.segments.iter().map(|segment| segment.name.as_str()).collect();
        (names.join(" "), reach.end)
    };
    let without = |names: &[&str]| forked().without(&names.iter().map(|&name| name.to_owned()).collect());
    // Nothing of timeline 2 is archived but its history: it goes on to where it branches off, and no further.
    let stream = without(&["2:4", "2:5", "2:6", "2:7"]);
    let path = stream.path(2).unwrap();
    assert_eq!(held(&stream.reach(&path, 250)), ("1:2 1:3 1:4".to_owned(), 450));
    assert_eq!(names(&plan(&stream, &base, &Target::Latest, None)), "1:2 1:3 1:4");
    let on = |at| plan(&stream, &base, &Target::Position { at, inclusive: true }, None);
    assert!(on(449).is_ok() && matches!(on(450), Err(Refusal::Beyond { timeline: 2, end: 450, .. })));
    // Which of its transactions lie before the branch, nobody knows.
    let time = |second| {
        plan(&stream, &base, &Target::Time { at: at(second), inclusive: true }, None)
            .map(|plan| plan.certainty)
    };
    assert_eq!((time(38), time(45)), (Ok(Certainty::Certain), Ok(Certainty::Unknown)));
    assert_eq!(intervals(&stream, std::slice::from_ref(&base)).last().unwrap().to, 450);
    // Whoever is already behind the branch does not go back to the parent.
    let behind = LogBase { timeline: 2, start: 460, stop: 470, ..base.clone() };
    let missing = Refusal::Incomplete { base: "b".to_owned(), timeline: 2, missing: 400 };
    assert_eq!(plan(&stream, &behind, &Target::Immediate, Some(2)), Err(missing));
    // Of pieces that end before the branch all is known, and that the rest is missing.
    let mut pieces = without(&["1:4", "2:4"]);
    let begun = LogSegment { whole: false, written_end: 440, ..segment(1, 4, Some((40, 43))) };
    pieces.add_segment(begun);
    let latest = plan(&pieces, &base, &Target::Latest, None).unwrap();
    assert_eq!((latest.end, latest.latest, latest.cut), (440, Some(at(43)), Some((440, 500))));
    // A hole before it is one, though nothing but that segment follows.
    let hole = without(&["1:3", "2:4", "2:5", "2:6", "2:7"]);
    assert_eq!(plan(&hole, &base, &Target::Latest, Some(2)).unwrap().cut, Some((300, 400)));
    // Two promotions in one segment: the newest that is there.
    let mut twice = forked();
    twice.add_path(TimelinePath::root(1).then(2, 450).unwrap().then(3, 470).unwrap());
    let path = twice.path(3).unwrap();
    assert_eq!(held(&twice.reach(&path, 250)), ("1:2 1:3 2:4".to_owned(), 470));
    assert_eq!(held(&twice.without(&["2:4".to_owned()].into()).reach(&path, 250)).1, 450);
    // At the border of two segments nothing of the parent's next one is on the way.
    let mut border = without(&["2:4", "2:5", "2:6", "2:7"]);
    border.add_path(TimelinePath::root(1).then(3, 500).unwrap());
    assert_eq!(held(&border.reach(&border.path(3).unwrap(), 250)), ("1:2 1:3 1:4".to_owned(), 500));
}

/// What is needed of the parent is kept as long as the child's is not there, and only so long.
#[test]
fn the_parents_segment_is_kept_until_the_childs_is_there() {
    let held = |name: &str, stream: &LogStream| {
        let base = base("b", 1, 210, 290, 28);
        let bases = [HeldBase { base, ended: at(28), kept: true, counts: true }];
        let age = |segment: &LogSegment| LogFileAge {
            name: segment.name.clone(),
            timeline: segment.timeline,
            start: segment.start,
            end: segment.end,
            stored: Some(at(1)),
            pinned: false,
        };
        let files: Vec<LogFileAge> = stream.segments().map(age).collect();
        // Timeline 1 is left, and only what was recoverable within the window stays.
        let rules = LogRules { window: Some(at(750)), recent: at(1000), busy: at(1000), is_current: true };
        LogRetention::new(stream, &bases, &files).decide(&rules).kept.get(name).copied()
    };
    let without = |names: &[&str]| forked().without(&names.iter().map(|&name| name.to_owned()).collect());
    assert_eq!(held("1:4", &without(&["2:4", "2:5", "2:6"])), Some(LogReason::Recovery));
    assert_eq!(held("1:5", &without(&["2:4", "2:5", "2:6"])), None);
}

/// B11, B12, B13: what each target needs.
#[test]
fn a_plan_names_the_segments_that_a_target_needs() {
    let stream = forked();
    let base = base("b", 1, 210, 290, 28);
    let on = |target, timeline| plan(&stream, &base, &target, timeline);
    let time = |second| Target::Time { at: at(second), inclusive: true };
    assert_eq!(names(&on(Target::Immediate, None)), "1:2");
    assert_eq!(names(&on(Target::Latest, Some(1))), "1:2 1:3 1:4 1:5 1:6 1:7 1:8 1:9");
    let latest = on(Target::Latest, None);
    assert_eq!(names(&latest), "1:2 1:3 2:4 2:5 2:6 2:7");
    let latest = latest.unwrap();
    assert_eq!((latest.timeline, latest.histories.as_slice()), (2, [2].as_slice()));
    // Replay ends at the first transaction that ended later.
    assert_eq!(names(&on(time(35), Some(1))), "1:2 1:3");
    assert_eq!(names(&on(time(39), Some(1))), "1:2 1:3 1:4");
    let exclusive = Target::Time { at: at(39), inclusive: false };
    assert_eq!(names(&on(exclusive, Some(1))), "1:2 1:3");
    assert_eq!(names(&on(time(28), Some(1))), "1:2");
    assert_eq!(names(&on(Target::Position { at: 500, inclusive: true }, Some(1))), "1:2 1:3 1:4 1:5");
    // B12: before the end of the backup.
    assert!(matches!(on(time(27), None), Err(Refusal::BeforeBase { .. })));
    assert!(matches!(
        on(Target::Position { at: 289, inclusive: true }, None),
        Err(Refusal::BeforeBase { .. })
    ));
    // B13: the last transaction itself cannot be a target: nothing shows that it was reached.
    assert_eq!(names(&on(time(98), Some(1))), "1:2 1:3 1:4 1:5 1:6 1:7 1:8 1:9");
    let refusal =
        Refusal::Beyond { base: "b".to_owned(), timeline: 1, latest: Some(at(99)), end: 1000, next: None };
    assert_eq!(on(time(99), Some(1)), Err(refusal));
    assert!(matches!(
        on(Target::Position { at: 1000, inclusive: true }, Some(1)),
        Err(Refusal::Beyond { .. })
    ));
    let transaction = on(Target::Transaction { number: 7 }, None).unwrap();
    assert_eq!((transaction.certainty, transaction.segments.len()), (Certainty::Unknown, 6));
}

/// Times are not monotonic: a segment may end with an earlier one than it holds.
#[test]
fn times_need_not_grow() {
    let mut stream = LogStream::new(SEGMENT);
    stream.add_segment(segment(1, 1, Some((50, 60))));
    stream.add_segment(segment(1, 2, Some((40, 45))));
    stream.add_segment(segment(1, 3, None));
    stream.add_segment(segment(1, 4, Some((61, 70))));
    let base = base("b", 1, 100, 110, 30);
    let on = |second| plan(&stream, &base, &Target::Time { at: at(second), inclusive: true }, None);
    assert_eq!(names(&on(44)), "1:1");
    assert_eq!(names(&on(60)), "1:1 1:2 1:3 1:4");
    assert!(on(70).is_err());
}

/// R10: a backup that was made after a timeline branched off cannot follow it.
#[test]
fn a_backup_made_too_late_does_not_lead_there() {
    let stream = forked();
    let late = base("late", 1, 460, 480, 48);
    let refused = plan(&stream, &late, &Target::Latest, Some(2)).unwrap_err();
    assert!(matches!(refused, Refusal::Detour { why: Detour::Left { end: 450, .. }, .. }), "{refused:?}");
    assert_eq!(newest_timeline(&stream, &late), Some(1));
    assert_eq!(names(&plan(&stream, &late, &Target::Latest, None)), "1:4 1:5 1:6 1:7 1:8 1:9");
    // Of several backups the newest that leads there is taken.
    let early = base("early", 1, 110, 120, 12);
    let bases = [early, late];
    assert_eq!(plan_from(&stream, &bases, &Target::Latest, Some(2)).unwrap().base, "early");
    assert_eq!(plan_from(&stream, &bases, &Target::Latest, None).unwrap().base, "late");
    let time = Target::Time { at: at(47), inclusive: true };
    assert_eq!(plan_from(&stream, &bases, &time, Some(1)).unwrap().base, "early");
    assert_eq!(plan_from(&stream, &[], &time, None), Err(Refusal::NoBase));
    assert!(matches!(
        plan(&stream, &bases[0], &Target::Latest, Some(7)),
        Err(Refusal::NoHistory { timeline: 7 })
    ));
}

#[test]
fn gaps_end_what_can_be_recovered() {
    let mut stream = LogStream::new(SEGMENT);
    for number in [1, 2, 3, 6, 7] {
        stream.add_segment(segment(1, number, Some((number as i64 * 10, number as i64 * 10 + 9))));
    }
    assert_eq!(gaps(&stream), [Gap { timeline: 1, from: 400, to: 600 }]);
    let first = base("first", 1, 110, 180, 18);
    let second = base("second", 1, 200, 230, 23);
    let third = base("third", 1, 610, 650, 65);
    let torn = base("torn", 1, 310, 430, 43);
    let bases = [third.clone(), torn.clone(), second, first.clone()];
    let found = intervals(&stream, &bases);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].bases.join(" ").as_str(), found[0].from, found[0].to), ("first second", 180, 400));
    assert_eq!((found[0].from_time, found[0].to_time, found[0].cut), (at(18), Some(at(39)), true));
    assert_eq!((found[1].bases.join(" ").as_str(), found[1].from, found[1].to), ("third", 650, 800));
    assert_eq!((found[1].to_time, found[1].cut), (Some(at(79)), false));
    // B11: a backup whose log is not whole is none.
    let refused = plan(&stream, &torn, &Target::Immediate, None);
    let missing = Refusal::Incomplete { base: "torn".to_owned(), timeline: 1, missing: 400 };
    assert_eq!(refused, Err(missing));
    // A target behind the gap is refused, and the refusal says where the log goes on; the latest that can be
    // had lies before it, and says so.
    let time = Target::Time { at: at(62), inclusive: true };
    let refusal = Refusal::Beyond {
        base: "first".to_owned(),
        timeline: 1,
        latest: Some(at(39)),
        end: 400,
        next: Some(600),
    };
    assert_eq!(plan(&stream, &first, &time, None), Err(refusal));
    assert_eq!(plan(&stream, &first, &Target::Latest, None).unwrap().cut, Some((400, 600)));
    // What is certain to lie before the gap is not cut by it.
    let time = Target::Time { at: at(38), inclusive: true };
    assert_eq!(plan(&stream, &first, &time, None).unwrap().cut, None);
    let transaction = Target::Transaction { number: 7 };
    assert_eq!(plan(&stream, &first, &transaction, None).unwrap().cut, Some((400, 600)));
    assert_eq!(plan_from(&stream, &bases, &Target::Latest, None).unwrap().base, "third");
    // A backup that brings its own log is whole by itself.
    let whole = LogBase { holds_log: true, ..torn };
    assert_eq!(names(&plan(&stream, &whole, &Target::Immediate, None)), "");
    let found = intervals(&stream, &[whole]);
    assert_eq!((found[0].from, found[0].to, found[0].to_time, found[0].cut), (430, 430, None, true));
}

/// What was let go is not lost.
#[test]
fn forgotten_log_is_no_gap() {
    let mut stream = LogStream::new(SEGMENT);
    for number in [1, 2, 8, 9] {
        stream.add_segment(segment(1, number, None));
    }
    let gap = |from: u64, to: u64| Gap { timeline: 1, from, to };
    assert_eq!(gaps(&stream), [gap(300, 800)]);
    stream.add_forgotten(1, (500, 600));
    stream.add_forgotten(2, (300, 400));
    assert_eq!(gaps(&stream), [gap(300, 500), gap(600, 800)]);
    stream.add_forgotten(1, (0, 400));
    stream.add_forgotten(1, (400, 500));
    stream.add_forgotten(1, (600, 800));
    assert_eq!(gaps(&stream), []);
}

#[test]
fn named_places() {
    let mut stream = forked();
    let mut with = segment(1, 10, None);
    with.points = vec![("before".to_owned(), 1020)];
    stream.add_segment(with);
    let base = base("b", 1, 210, 290, 28);
    let on = |name: &str| plan(&stream, &base, &Target::Point { name: name.to_owned() }, Some(1));
    assert_eq!(on("before").unwrap().segments.last().unwrap(), "1:10");
    let refusal = Refusal::NoPoint { name: "after".to_owned(), known: vec!["before".to_owned()] };
    assert_eq!(on("after"), Err(refusal.clone()));
    // Where the newest backup was made behind it, an older one still leads there.
    let late = LogBase { name: "late".to_owned(), start: 1030, stop: 1040, stopped: at(103), ..base.clone() };
    let bases = [base.clone(), late];
    let target = Target::Point { name: "after".to_owned() };
    assert_eq!(plan_from(&stream, &bases, &target, Some(1)), Err(refusal.clone()));
    assert_eq!(plan_on_own_timelines(&stream, &bases, &target), Err(refusal));
    let target = Target::Point { name: "before".to_owned() };
    assert_eq!(plan_on_own_timelines(&stream, &bases, &target).unwrap().base, "b");
}

/// R9: a lost history hides the timelines behind it.
#[test]
fn lost_histories_are_named() {
    let mut stream = forked();
    assert_eq!(stream.lost_histories(), [0_u64; 0]);
    stream.add_path(TimelinePath::root(1).then(2, 450).unwrap().then(4, 600).unwrap());
    assert_eq!(stream.lost_histories(), [3]);
    stream.add_segment(segment(6, 9, None));
    assert_eq!(stream.lost_histories(), [3, 5, 6]);
    assert_eq!(stream.path(6), None);
    // A switch before a segment is full: what is behind it was never written.
    let mut early = segment(1, 10, None);
    early.written_end = 1010;
    stream.add_segment(early);
    let base = base("b", 1, 210, 290, 28);
    let on = |at| plan(&stream, &base, &Target::Position { at, inclusive: true }, Some(1));
    assert!(on(1009).is_ok() && on(1010).is_err());
}

/// R9: nobody ends on an older timeline by chance: a newer one whose way is lost stops a recovery to the newest.
#[test]
fn a_lost_history_refuses_the_newest_timeline() {
    let mut stream = forked();
    let base = base("b", 1, 210, 290, 28);
    let on = |stream: &LogStream, target, timeline| plan(stream, &base, &target, timeline);
    assert_eq!(on(&stream, Target::Latest, None).unwrap().timeline, 2);
    stream.add_segment(segment(3, 7, None));
    let refusal = Err(Refusal::LostHistory { lost: 3, chosen: 2 });
    assert_eq!(on(&stream, Target::Latest, None), refusal);
    assert_eq!(plan_from(&stream, std::slice::from_ref(&base), &Target::Latest, None), refusal);
    let time = Target::Time { at: at(500), inclusive: true };
    assert_eq!(on(&stream, time, None), refusal);
    assert_eq!(on(&stream, Target::Immediate, None).unwrap().timeline, 2);
    assert_eq!(on(&stream, Target::Latest, Some(2)).unwrap().timeline, 2);
    // A backup on the lost timeline knows where it is.
    let own = LogBase { timeline: 3, start: 710, stop: 720, ..base.clone() };
    assert_eq!(plan(&stream, &own, &Target::Latest, None).unwrap().timeline, 3);
    // Of a history that is damaged no segment need be there.
    let mut stream = forked();
    stream.add_damaged_history(3);
    assert_eq!(on(&stream, Target::Latest, None), refusal);
    // Archiving began on timeline 2, without its history; the backup is of timeline 1.
    let mut stream = LogStream::new(SEGMENT);
    stream.add_segment(segment(2, 4, None));
    let whole = LogBase { holds_log: true, ..base.clone() };
    assert!(matches!(
        plan(&stream, &whole, &Target::Latest, None),
        Err(Refusal::LostHistory { lost: 2, .. })
    ));
}

/// A base backup knows its own timeline: what it leads to there is shown as well as restored, though the history is lost.
#[test]
fn a_backup_on_a_lost_timeline_has_its_interval() {
    let mut stream = forked();
    stream.add_segment(segment(3, 7, Some((700, 709))));
    stream.add_segment(segment(3, 8, Some((800, 809))));
    let own = LogBase { timeline: 3, start: 710, stop: 720, ..base("b", 1, 0, 0, 702) };
    let found = intervals(&stream, std::slice::from_ref(&own));
    let shown: Vec<_> = found.iter().map(|found| (found.timeline, found.to, found.to_time)).collect();
    assert_eq!(shown, [(3, 900, Some(at(809)))]);
    assert_eq!(plan(&stream, &own, &Target::Latest, None).unwrap().end, 900);
    // One of another timeline leads nowhere there.
    assert!(intervals(&stream, &[base("c", 1, 210, 290, 28)]).iter().all(|found| found.timeline != 3));
}

/// B13: of segments whose records could not be read nobody knows the times.
#[test]
fn unknown_times_refuse_no_time() {
    let mut stream = LogStream::new(SEGMENT);
    stream.add_segment(segment(1, 1, Some((10, 19))));
    stream.add_segment(LogSegment { known: false, ..segment(1, 2, None) });
    let base = base("b", 1, 110, 150, 15);
    let on = |second| plan(&stream, &base, &Target::Time { at: at(second), inclusive: true }, None).unwrap();
    assert_eq!((on(18).certainty, on(18).segments.len()), (Certainty::Certain, 1));
    assert_eq!((on(25).certainty, on(25).segments.len()), (Certainty::Unknown, 2));
}

#[test]
fn a_lost_segment_shortens_an_interval() {
    let stream = forked();
    let bases = [base("b", 1, 210, 290, 28), base("c", 1, 810, 820, 82)];
    let lost = |name: &str| hurt(&stream, &bases, &[name.to_owned()].into());
    // Both ways lead through it.
    let found = lost("1:3");
    let left: Vec<_> =
        found.iter().map(|hurt| (hurt.before.timeline, hurt.after.as_ref().unwrap().to)).collect();
    assert_eq!(left, [(1, 300), (2, 300)]);
    // What only the parent has is on no way to the child.
    let found = lost("1:6");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].after.as_ref().unwrap().to_time, Some(at(59)));
    // Without it the backup itself is worth nothing.
    assert!(lost("1:2").iter().all(|hurt| hurt.after.is_none()));
    assert_eq!(lost("1:1"), []);
}

/// A segment of which only the beginning is archived is the last of its way.
#[test]
fn the_beginning_of_a_segment_ends_the_log() {
    let mut stream = LogStream::new(SEGMENT);
    stream.add_segment(segment(1, 1, Some((10, 19))));
    stream.add_segment(LogSegment { whole: false, written_end: 240, ..segment(1, 2, Some((20, 23))) });
    let base = base("b", 1, 110, 150, 15);
    let on = |target| plan(&stream, &base, &target, None);
    let latest = on(Target::Latest).unwrap();
    assert_eq!((latest.segments.join(" ").as_str(), latest.end, latest.cut), ("1:1 1:2", 240, None));
    let at = |at| Target::Position { at, inclusive: true };
    assert!(on(at(239)).is_ok());
    assert!(matches!(on(at(240)), Err(Refusal::Beyond { end: 240, next: None, .. })));
    assert_eq!(gaps(&stream), []);
    let found = intervals(&stream, std::slice::from_ref(&base));
    assert_eq!((found[0].to, found[0].cut), (240, false));
    // What follows it leaves a hole from the middle of the segment on.
    stream.add_segment(segment(1, 3, Some((30, 39))));
    assert_eq!(gaps(&stream), [Gap { timeline: 1, from: 240, to: 300 }]);
    let latest = plan(&stream, &base, &Target::Latest, None).unwrap();
    assert_eq!((latest.end, latest.cut), (240, Some((240, 300))));
    // A backup needs what it needs, whole or not.
    let within = LogBase { stop: 240, ..base.clone() };
    assert!(plan(&stream, &within, &Target::Immediate, None).is_ok());
    let behind = LogBase { stop: 241, ..base };
    assert!(matches!(
        plan(&stream, &behind, &Target::Immediate, None),
        Err(Refusal::Incomplete { missing: 240, .. })
    ));
}

/// What stands as one stretch is one part of the way, whatever else: reach, plan and what is left are those of its segments.
#[test]
fn a_stretch_stands_for_its_segments() {
    let stretch = |timeline: u64, from: u64, to: u64, commits| LogSegment {
        last: format!("{timeline}:{to}"),
        count: to - from + 1,
        end: (to + 1) * SEGMENT,
        written_end: (to + 1) * SEGMENT,
        ..segment(timeline, from, commits)
    };
    let mut stream = LogStream::new(SEGMENT);
    stream.add_segment(stretch(1, 1, 3, Some((10, 39))));
    stream.add_segment(stretch(1, 4, 9, Some((40, 99))));
    stream.add_segment(stretch(2, 4, 7, Some((400, 799))));
    stream.add_path(TimelinePath::root(1).then(2, 450).unwrap());
    let plain = forked();
    assert_eq!((stream.count(), stream.timelines()), (plain.count(), plain.timelines()));
    for timeline in [1, 2] {
        let path = stream.path(timeline).unwrap();
        for from in [100, 250, 390, 449, 460, 750] {
            let (one, many) = (stream.reach(&path, from), plain.reach(&path, from));
            assert_eq!((one.end, one.written_end), (many.end, many.written_end), "{timeline} {from}");
            assert_eq!(one.latest(), many.latest(), "{timeline} {from}");
        }
    }
    let bases = [base("b", 1, 210, 290, 28), base("c", 1, 460, 480, 48)];
    assert_eq!(intervals(&stream, &bases), intervals(&plain, &bases));
    let on = |target: &Target, timeline| plan(&stream, &bases[0], target, timeline);
    let latest = on(&Target::Latest, None).unwrap();
    assert_eq!(latest.segments, ["1:1", "2:4"]);
    assert_eq!((latest.segment_count, latest.last_segment.as_deref()), (7, Some("2:7")));
    // Up to the end of the stretch in which a later transaction ended.
    let time = Target::Time { at: at(35), inclusive: true };
    assert_eq!(on(&time, Some(1)).unwrap().segments, ["1:1"]);
    assert!(on(&Target::Time { at: at(99), inclusive: true }, Some(1)).is_err());
    assert_eq!(stream.holding(1, 399).map(|held| held.name.as_str()), Some("1:1"));
    assert!(stream.holding(1, 1000).is_none() && stream.holding(1, 99).is_none());
    assert!(stream.overlaps(1, (350, 380)) && stream.overlaps(1, (0, 101)) && !stream.overlaps(1, (0, 100)));
    assert_eq!(stream.forks_of(1).collect::<Vec<_>>(), [450]);
    // A way that leaves a timeline in the midst of a stretch leaves the stretch there.
    let mut stream = LogStream::new(SEGMENT);
    stream.add_segment(stretch(1, 1, 9, Some((10, 99))));
    stream.add_segment(stretch(2, 4, 7, Some((400, 799))));
    stream.add_path(TimelinePath::root(1).then(2, 450).unwrap());
    let reach = stream.reach(&stream.path(2).unwrap(), 250);
    let names: Vec<&str> = reach.segments.iter().map(|segment| segment.name.as_str()).collect();
    assert_eq!((names, reach.end), (vec!["1:1", "2:4"], 800));
    assert_eq!(stream.reach(&stream.path(1).unwrap(), 250).end, 1000);
}
