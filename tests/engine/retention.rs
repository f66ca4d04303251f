//! Retention policies, as tables: which snapshots stay, and why.

use chronolith::base::{SnapshotId, Timestamp};
use chronolith::ops::retention::{
    Amount, Candidate, KeepDays, Period, Policy, PolicyError, Reason, RetentionPlan, plan,
};
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// A snapshot: when it began and when the store received it, as times in the zone of the test.
#[derive(Clone)]
struct Made {
    number: u32,
    started: Timestamp,
    stored: Option<Timestamp>,
    host: &'static str,
    label: &'static str,
    tags: BTreeMap<String, Option<String>>,
    pinned: bool,
}

fn id(number: u32) -> SnapshotId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    SnapshotId::new(bytes)
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn time(text: &str, zone: &TimeZone) -> Timestamp {
    let time = match text.parse::<jiff::Timestamp>() {
        Ok(time) => time,
        Err(_) => text.parse::<jiff::civil::DateTime>().unwrap().to_zoned(zone.clone()).unwrap().timestamp(),
    };
    Timestamp::from_nanoseconds(time.as_nanosecond() as i64)
}

/// Snapshots of one group that were stored the moment they began, oldest first, numbered from 0.
fn made(times: &[&str], zone: &TimeZone) -> Vec<Made> {
    let one = |(number, text): (usize, &&str)| Made {
        number: number as u32,
        started: time(text, zone),
        stored: Some(time(text, zone)),
        host: "db1",
        label: "app",
        tags: BTreeMap::new(),
        pinned: false,
    };
    times.iter().enumerate().map(one).collect()
}

fn decide(made: &[Made], policy: &Policy, zone: &TimeZone, now: &str) -> Result<RetentionPlan, PolicyError> {
    let candidates: Vec<Candidate<'_>> = made
        .iter()
        .map(|made| Candidate {
            id: id(made.number),
            host: made.host,
            label: made.label,
            started: made.started,
            stored: made.stored,
            tags: &made.tags,
            pinned: made.pinned,
        })
        .collect();
    plan(&candidates, policy, zone, time(now, zone))
}

/// Numbers of those that stay.
fn kept(made: &[Made], policy: &Policy, zone: &TimeZone, now: &str) -> Vec<u32> {
    let plan = decide(made, policy, zone, now).unwrap();
    made.iter().map(|made| made.number).filter(|n| plan.get(&id(*n)).unwrap().is_kept()).collect()
}

fn reasons(made: &[Made], policy: &Policy, number: u32) -> Vec<String> {
    let plan = decide(made, policy, &TimeZone::UTC, "2026-06-01T00:00").unwrap();
    plan.get(&id(number)).unwrap().reasons.iter().map(ToString::to_string).collect()
}

const NOW: &str = "2026-06-01T00:00";

/// `--keep-` options as text: `last=3 daily=7 daily=30d tag=a`.
fn policy(text: &str) -> Policy {
    let mut policy = Policy::default();
    for part in text.split_whitespace() {
        let (word, amount) = part.split_once('=').unwrap();
        match word {
            "last" => policy.last.push(Amount::parse(amount).unwrap()),
            "tag" => policy.tags.push((amount.to_owned(), None)),
            "days" => policy.days = Some(KeepDays { days: amount.parse().unwrap(), at_least: 0 }),
            "least" => policy.days.as_mut().unwrap().at_least = amount.parse().unwrap(),
            word => {
                let period = Period::ALL.into_iter().find(|period| period.word() == word).unwrap();
                policy.periods.push((period, Amount::parse(amount).unwrap()));
            }
        }
    }
    policy
}

#[test]
fn what_each_rule_keeps() {
    let utc = TimeZone::UTC;
    let times = [
        "2024-03-10T12:00",    // 0
        "2024-12-30T12:00",    // 1: ISO week 1 of 2025
        "2025-01-02T12:00",    // 2: the same week
        "2025-11-30T12:00",    // 3
        "2025-12-01T08:00",    // 4
        "2025-12-31T23:59",    // 5
        "2026-01-01T00:00",    // 6
        "2026-01-01T00:00:30", // 7
        "2026-01-01T00:59",    // 8
        "2026-01-01T01:00",    // 9
        "2026-01-04T12:00",    // 10: Sunday
        "2026-01-05T12:00",    // 11: Monday
    ];
    let made = made(&times, &utc);
    for (text, expected) in [
        ("last=1", vec![11]),
        ("last=3", vec![9, 10, 11]),
        ("last=100", (0..12).collect()),
        ("last=all", (0..12).collect()),
        ("minutely=4", vec![8, 9, 10, 11]),
        ("minutely=5", vec![7, 8, 9, 10, 11]),
        ("hourly=4", vec![8, 9, 10, 11]),
        ("daily=3", vec![9, 10, 11]),
        ("daily=4", vec![5, 9, 10, 11]),
        ("weekly=2", vec![10, 11]),
        // The week of 29 December 2025 is one with the first days of 2026.
        ("weekly=3", vec![4, 10, 11]),
        // Week 1 of 2025 holds a day of 2024; the oldest of all stays, since there are fewer than 100 weeks.
        ("weekly=100", vec![0, 2, 3, 4, 10, 11]),
        ("monthly=2", vec![5, 11]),
        ("monthly=3", vec![3, 5, 11]),
        ("quarterly=2", vec![5, 11]),
        ("quarterly=3", vec![2, 5, 11]),
        ("yearly=1", vec![11]),
        ("yearly=2", vec![5, 11]),
        // Fewer years than are to be kept: the oldest snapshot stays beside the newest of its year.
        ("yearly=4", vec![0, 1, 5, 11]),
        ("yearly=all", vec![0, 1, 5, 11]),
        ("yearly=2 daily=2 last=1", vec![5, 10, 11]),
        ("last=4d", vec![10, 11]),
        ("last=5d", (5..12).collect()),
        ("last=1m", (5..12).collect()),
        ("daily=4d", vec![10, 11]),
        ("daily=5d", vec![5, 9, 10, 11]),
        ("daily=1w", vec![5, 9, 10, 11]),
        ("monthly=1y", vec![3, 5, 11]),
        ("yearly=2y", vec![0, 1, 5, 11]),
        ("last=0 daily=1", vec![11]),
        // As of NOW, 1 June 2026.
        ("days=147", vec![11]),
        ("days=147 least=3", vec![9, 10, 11]),
        ("days=151", vec![6, 7, 8, 9, 10, 11]),
        // Nothing is that young: one stays all the same.
        ("days=5", vec![11]),
        ("days=5 least=2", vec![10, 11]),
    ] {
        assert_eq!(kept(&made, &policy(text), &utc, NOW), expected, "{text}");
    }
}

#[test]
fn the_plan_says_which_rules_keep_a_snapshot() {
    let utc = TimeZone::UTC;
    let mut made = made(&["2026-01-01T10:00", "2026-01-01T11:00", "2026-01-02T10:00"], &utc);
    made[1].pinned = true;
    made[2].tags.insert("release".to_owned(), Some("2.1".to_owned()));
    let policy = policy("last=1 daily=7 hourly=1d tag=release");
    assert_eq!(reasons(&made, &policy, 0), ["hourly within 1d", "oldest (daily not full)"]);
    assert_eq!(reasons(&made, &policy, 1), ["pinned", "hourly within 1d", "daily"]);
    assert_eq!(reasons(&made, &policy, 2), ["last", "hourly within 1d", "daily", "tag release"]);
}

#[test]
fn pins_win_and_tags_match_with_their_values() {
    let utc = TimeZone::UTC;
    let mut made =
        made(&["2020-01-01T10:00", "2020-01-02T10:00", "2020-01-03T10:00", "2026-01-02T10:00"], &utc);
    made[0].pinned = true;
    made[1].tags.insert("release".to_owned(), Some("2.1".to_owned()));
    made[2].tags.insert("release".to_owned(), Some("2.2".to_owned()));
    let mut policy = policy("last=1");
    assert_eq!(kept(&made, &policy, &utc, NOW), [0, 3]);
    policy.tags = vec![("release".to_owned(), Some("2.2".to_owned()))];
    assert_eq!(kept(&made, &policy, &utc, NOW), [0, 2, 3]);
    policy.tags = vec![("release".to_owned(), None)];
    assert_eq!(kept(&made, &policy, &utc, NOW), [0, 1, 2, 3]);
}

#[test]
fn groups_are_decided_each_for_itself_and_keep_one() {
    let utc = TimeZone::UTC;
    let mut made =
        made(&["2026-01-01T10:00", "2026-01-02T10:00", "2026-01-03T10:00", "2026-01-04T10:00"], &utc);
    made[0].host = "db2";
    made[1].label = "other";
    assert_eq!(kept(&made, &policy("last=1"), &utc, NOW), [0, 1, 3]);
    let mut nothing = policy("tag=missing");
    let plan = decide(&made, &nothing, &utc, NOW).unwrap();
    assert!(plan.groups.iter().all(|group| group.decisions.last().unwrap().reasons == [Reason::Only].into()));
    assert_eq!(plan.forgotten().collect::<Vec<_>>(), [id(2)]);
    nothing.allow_remove_all = true;
    assert_eq!(decide(&made, &nothing, &utc, NOW).unwrap().forgotten().count(), 4);
}

#[test]
fn an_empty_policy_is_refused_whatever_else_is_allowed() {
    let made = made(&["2026-01-01T10:00"], &TimeZone::UTC);
    for allow_remove_all in [false, true] {
        let empty = Policy { allow_remove_all, last: vec![Amount::Count(0)], ..Policy::default() };
        assert_eq!(decide(&made, &empty, &TimeZone::UTC, NOW), Err(PolicyError::Empty));
    }
}

#[test]
fn days_and_hours_follow_the_clocks_of_the_zone() {
    let berlin = zone("Europe/Berlin");
    // 29 March 2026 has 23 hours, 25 October 25: at 01:00 UTC clocks go back from 3 to 2.
    let autumn = [
        "2026-10-24T22:30:00Z", // 0: 00:30 on the 25th
        "2026-10-25T00:30:00Z", // 1: 02:30 summer time
        "2026-10-25T01:10:00Z", // 2: 02:10 winter time
        "2026-10-25T01:40:00Z", // 3: 02:40 winter time
        "2026-10-25T22:30:00Z", // 4: 23:30 on the 25th, 24 hours after the first
        "2026-10-25T23:30:00Z", // 5: 00:30 on the 26th
    ];
    let autumn = made(&autumn, &berlin);
    assert_eq!(kept(&autumn, &policy("daily=2"), &berlin, NOW), [4, 5]);
    assert_eq!(kept(&autumn, &policy("hourly=4"), &berlin, NOW), [1, 3, 4, 5]);
    assert_eq!(kept(&autumn, &policy("minutely=5"), &berlin, NOW), [1, 2, 3, 4, 5]);
    // In New York the same times are of two other days.
    assert_eq!(kept(&autumn, &policy("daily=2"), &zone("America/New_York"), NOW), [3, 5]);
    // A day back from 00:30 on the 26th is 00:30 on the 25th, 25 hours ago.
    assert_eq!(kept(&autumn, &policy("last=1d"), &berlin, NOW), [0, 1, 2, 3, 4, 5]);
    assert_eq!(kept(&autumn, &policy("last=24h"), &berlin, NOW), [1, 2, 3, 4, 5]);
    let spring = made(
        &["2026-03-28T01:30:00Z", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"],
        &berlin,
    );
    assert_eq!(kept(&spring, &policy("daily=3"), &berlin, NOW), [0, 2, 3]);
    // 02:30 on the 29th does not exist: a day back from 02:30 on the 30th is 03:30.
    assert_eq!(kept(&spring, &policy("last=1d"), &berlin, NOW), [2, 3]);
    assert_eq!(kept(&spring, &policy("last=24h"), &berlin, NOW), [1, 2, 3]);
    // Keep-days counts days of the calendar back from now.
    let now = "2026-03-30T00:30:00Z";
    assert_eq!(kept(&spring, &policy("days=1"), &berlin, now), [2, 3]);
}

/// A hostile writer of the group, who cannot set the store's clock.
fn hostile(mut made: Vec<Made>, claims: &[&str], stored: &str) -> Vec<Made> {
    for claim in claims {
        let mut lie = made[0].clone();
        lie.number = made.len() as u32;
        lie.started = time(claim, &TimeZone::UTC);
        lie.stored = Some(time(stored, &TimeZone::UTC));
        made.push(lie);
    }
    made
}

#[test]
fn lies_about_times_push_no_good_snapshot_out() {
    let utc = TimeZone::UTC;
    let good: Vec<String> = (1..=7).map(|day| format!("2026-05-{day:02}T03:00")).collect();
    let good = made(&good.iter().map(String::as_str).collect::<Vec<_>>(), &utc);
    let future: Vec<String> = (1..=9).map(|day| format!("2030-01-{day:02}T03:00")).collect();
    let past: Vec<String> = (1..=9).map(|day| format!("2026-04-{:02}T05:00", day + 20)).collect();
    let same_days: Vec<String> = (1..=7).map(|day| format!("2026-05-{day:02}T23:00")).collect();
    let hours: Vec<String> = (3..=9).map(|hour| format!("2026-05-07T0{hour}:30")).collect();
    let extremes = ["1677-09-21T00:12:44Z", "2262-04-11T23:47:16Z"].map(str::to_owned).to_vec();
    for lies in [future, past, same_days, hours, extremes] {
        let lies: Vec<&str> = lies.iter().map(String::as_str).collect();
        let all = hostile(good.clone(), &lies, "2026-05-08T01:00");
        // Seven days: the lies have one, of the day on which they were stored or of the last good one.
        for text in ["daily=8", "daily=7", "last=7d daily=1", "daily=7d"] {
            let kept = kept(&all, &policy(text), &utc, "2026-05-08T02:00");
            let expected: Vec<u32> = (1..=5).collect();
            let good: Vec<u32> = kept.into_iter().filter(|n| (1..=5).contains(n)).collect();
            assert_eq!(good, expected, "{text}: {lies:?}");
        }
        let days = kept(&all, &policy("days=7"), &utc, "2026-05-08T02:00");
        assert!((0..7).all(|n| days.contains(&n)), "{lies:?}: {days:?}");
    }
    // A rule about the newest follows the order of commits, not claims.
    let all = hostile(good, &["2040-01-01T00:00"], "2026-05-04T12:00");
    let mut all: Vec<Made> = all;
    all.sort_by_key(|made| made.stored);
    assert_eq!(kept(&all, &policy("last=2"), &utc, NOW), [5, 6]);
}

#[test]
fn a_store_that_was_copied_keeps_history_by_what_snapshots_say() {
    let utc = TimeZone::UTC;
    let days: Vec<String> = (1..=9).map(|day| format!("2026-05-{day:02}T03:00")).collect();
    let mut copied = made(&days.iter().map(String::as_str).collect::<Vec<_>>(), &utc);
    for made in &mut copied {
        made.stored = Some(time("2026-05-20T12:00", &utc));
    }
    // Copied in whatever order.
    copied.rotate_left(4);
    let mut kept = kept(&copied, &policy("daily=3"), &utc, "2026-05-20T13:00");
    kept.sort_unstable();
    assert_eq!(kept, [6, 7, 8]);
    // And a store that knows no times at all.
    for made in &mut copied {
        made.stored = None;
    }
    copied.sort_by_key(|made| made.number);
    assert_eq!(super::retention::kept(&copied, &policy("daily=3"), &utc, "2026-05-20T13:00"), [6, 7, 8]);
}
