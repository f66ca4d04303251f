//! The decision for every snapshot: which rules keep it.

use super::period::Period;
use super::policy::{Amount, Policy, PolicyError};
use crate::base::{SnapshotId, Timestamp};
use jiff::Zoned;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A snapshot that claims to be this much older than the store saw it takes nobody's place.
const LATE_NANOSECONDS: i64 = 24 * 3600 * 1_000_000_000;

/// What retention must know of a snapshot.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Its id.
    pub id: SnapshotId,
    /// Its host.
    pub host: &'a str,
    /// Its label.
    pub label: &'a str,
    /// When it began, as its writer claims.
    pub started: Timestamp,
    /// When the store received it, where the store says so.
    pub stored: Option<Timestamp>,
    /// Its tags.
    pub tags: &'a BTreeMap<String, Option<String>>,
    /// Whether a pin holds it.
    pub pinned: bool,
}

/// A rule that keeps a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is pinned.
    Pinned,
    /// It is one of the newest.
    Last,
    /// It is at most so much older than the newest.
    Within(String),
    /// It is the newest of its period; where an interval is named, within that.
    Newest(Period, Option<String>),
    /// It is the oldest of its group, and there are not yet as many periods as are to be kept.
    Oldest(Period),
    /// It has a tag.
    Tag(String),
    /// It is of the last days.
    Days,
    /// It is one of the newest that are kept however old they are.
    AtLeast,
    /// The group would have no snapshot without it.
    Only,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("pinned"),
            Self::Last => f.write_str("last"),
            Self::Within(interval) => write!(f, "within {interval}"),
            Self::Newest(period, None) => f.write_str(period.word()),
            Self::Newest(period, Some(interval)) => write!(f, "{} within {interval}", period.word()),
            Self::Oldest(period) => write!(f, "oldest ({} not full)", period.word()),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Days => f.write_str("last days"),
            Self::AtLeast => f.write_str("least number"),
            Self::Only => f.write_str("only one left"),
        }
    }
}

/// What is decided about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Which.
    pub id: SnapshotId,
    /// The rules that keep it; none means that it goes.
    pub reasons: BTreeSet<Reason>,
}

impl Decision {
    /// Says whether the snapshot stays.
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Decisions about the snapshots of one host and label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The host.
    pub host: String,
    /// The label.
    pub label: String,
    /// The decisions, oldest snapshot first.
    pub decisions: Vec<Decision>,
}

/// Decisions about all snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetentionPlan {
    /// The groups, by host and label.
    pub groups: Vec<Group>,
}

impl RetentionPlan {
    /// Returns the snapshots that go.
    pub fn forgotten(&self) -> impl Iterator<Item = SnapshotId> {
        let decisions = self.groups.iter().flat_map(|group| &group.decisions);
        decisions.filter(|decision| !decision.is_kept()).map(|decision| decision.id)
    }

    /// Returns the decision about a snapshot.
    pub fn get(&self, id: &SnapshotId) -> Option<&Decision> {
        self.groups.iter().flat_map(|group| &group.decisions).find(|decision| decision.id == *id)
    }
}

/// One snapshot at the time as of which a rule sees it.
struct Placed {
    /// Its place in the group.
    place: usize,
    time: Timestamp,
    zoned: Zoned,
}

/// Decides about snapshots, which come in the order of their commits, oldest first.
///
/// # Errors
///
/// [`PolicyError::Empty`] for a policy that keeps nothing: whoever means that names the snapshots.
pub fn plan(
    candidates: &[Candidate<'_>],
    policy: &Policy,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<RetentionPlan, PolicyError> {
    if policy.is_empty() {
        return Err(PolicyError::Empty);
    }
    let mut groups: BTreeMap<(&str, &str), Vec<&Candidate<'_>>> = BTreeMap::new();
    for candidate in candidates {
        groups.entry((candidate.host, candidate.label)).or_default().push(candidate);
    }
    let decide = |((host, label), members): ((&str, &str), Vec<&Candidate<'_>>)| Group {
        host: host.to_owned(),
        label: label.to_owned(),
        decisions: decide_group(&members, policy, zone, now),
    };
    Ok(RetentionPlan { groups: groups.into_iter().map(decide).collect() })
}

fn decide_group(
    members: &[&Candidate<'_>],
    policy: &Policy,
    zone: &TimeZone,
    now: Timestamp,
) -> Vec<Decision> {
    let mut reasons: Vec<BTreeSet<Reason>> =
        members.iter().map(|member| own_reasons(member, policy)).collect();
    for view in views(members, zone, now) {
        apply(&view, policy, zone, now, &mut reasons);
    }
    if !policy.allow_remove_all
        && reasons.iter().all(BTreeSet::is_empty)
        && let Some(newest) = reasons.last_mut()
    {
        newest.insert(Reason::Only);
    }
    members.iter().zip(reasons).map(|(member, reasons)| Decision { id: member.id, reasons }).collect()
}

/// What keeps a snapshot whatever else there is.
fn own_reasons(member: &Candidate<'_>, policy: &Policy) -> BTreeSet<Reason> {
    let mut reasons = BTreeSet::new();
    if member.pinned {
        reasons.insert(Reason::Pinned);
    }
    for (key, value) in &policy.tags {
        let has = member.tags.get(key).is_some_and(|found| value.is_none() || found == value);
        if has {
            let tag = value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}"));
            reasons.insert(Reason::Tag(tag));
        }
    }
    reasons
}

/// Places a group's snapshots in time; a snapshot stays when it is kept in any of the views.
///
/// The first view believes the store: in the order of commits, no snapshot before the one committed
/// before it, none after the time at which the store received it, and without those that came late.
/// So a writer who lies about times fills no more periods than have passed since the commit before.
///
/// Snapshots that came late are lies, or the store was copied and its times are those of the copy,
/// or a backup took days. The second view is there where there are such snapshots: all of them as of
/// the times that they claim. It can only keep more.
fn views(members: &[&Candidate<'_>], zone: &TimeZone, now: Timestamp) -> Vec<Vec<Placed>> {
    let claimed = |member: &Candidate<'_>| member.started.min(member.stored.unwrap_or(now));
    let late = |member: &Candidate<'_>| {
        member.stored.is_some_and(|stored| {
            stored.nanoseconds().saturating_sub(member.started.nanoseconds()) > LATE_NANOSECONDS
        })
    };
    let placed =
        |place, time| Placed { place, time, zoned: super::super::time::to_jiff(time).to_zoned(zone.clone()) };
    let mut seen = Vec::new();
    let mut before = Timestamp::from_nanoseconds(i64::MIN);
    for (place, member) in members.iter().enumerate().filter(|(_, member)| !late(member)) {
        before = before.max(claimed(member));
        seen.push(placed(place, before));
    }
    let mut views = vec![seen];
    if members.iter().any(|member| late(member)) {
        let mut all: Vec<Placed> =
            members.iter().enumerate().map(|(place, member)| placed(place, claimed(member))).collect();
        all.sort_by_key(|placed| (placed.time, placed.place));
        views.push(all);
    }
    for view in &mut views {
        view.reverse();
    }
    views
}

/// Applies all rules to a view, newest first.
fn apply(
    view: &[Placed],
    policy: &Policy,
    zone: &TimeZone,
    now: Timestamp,
    reasons: &mut [BTreeSet<Reason>],
) {
    let Some(newest) = view.first() else { return };
    let mut keep = |placed: &Placed, reason: Reason| {
        if let Some(reasons) = reasons.get_mut(placed.place) {
            reasons.insert(reason);
        }
    };
    for amount in &policy.last {
        for (number, placed) in view.iter().enumerate() {
            match amount {
                Amount::All => keep(placed, Reason::Last),
                Amount::Count(count) if number < *count as usize => keep(placed, Reason::Last),
                Amount::Within(interval) if placed.time >= interval.before(&newest.zoned) => {
                    keep(placed, Reason::Within(interval.to_string()));
                }
                _ => {}
            }
        }
    }
    for (period, amount) in &policy.periods {
        by_period(view, *period, amount, &mut keep);
    }
    if let Some(days) = policy.days {
        let present = super::super::time::to_jiff(now).to_zoned(zone.clone());
        let from = super::policy::Interval::of_days(days.days).before(&present);
        for (number, placed) in view.iter().enumerate() {
            if days.days > 0 && placed.time >= from {
                keep(placed, Reason::Days);
            } else if number < days.at_least as usize {
                keep(placed, Reason::AtLeast);
            }
        }
    }
}

/// Keeps the newest of each period; and the oldest of all while more periods are to be kept than there
/// are, so that history can grow to its full length.
fn by_period(view: &[Placed], period: Period, amount: &Amount, keep: &mut impl FnMut(&Placed, Reason)) {
    let (Some(newest), Some(oldest)) = (view.first(), view.last()) else { return };
    let (mut left, from, interval) = match amount {
        Amount::All => (u32::MAX, None, None),
        Amount::Count(count) => (*count, None, None),
        Amount::Within(interval) => {
            (u32::MAX, Some(interval.before(&newest.zoned)), Some(interval.to_string()))
        }
    };
    let mut kept = None;
    for placed in view.iter().filter(|placed| from.is_none_or(|from| placed.time >= from)) {
        if left == 0 {
            return;
        }
        let key = period.key(&placed.zoned);
        if kept != Some(key) {
            kept = Some(key);
            left -= 1;
            keep(placed, Reason::Newest(period, interval.clone()));
        }
    }
    if left > 0 && from.is_none_or(|from| oldest.time >= from) && !newest_of(view, oldest, period) {
        keep(oldest, Reason::Oldest(period));
    }
}

fn newest_of(view: &[Placed], oldest: &Placed, period: Period) -> bool {
    let key = period.key(&oldest.zoned);
    let newest = view.iter().find(|placed| period.key(&placed.zoned) == key);
    newest.is_some_and(|newest| newest.place == oldest.place)
}
