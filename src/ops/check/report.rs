//! What a check found.

use crate::base::{ObjectId, PackId, SnapshotId, Timestamp};
use crate::localfs::path_text;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Findings that are told one by one; the rest is only counted.
const FINDINGS_MAX: usize = 10_000;
/// Paths that are told one by one.
pub(super) const AFFECTED_MAX: usize = 10_000;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// Nothing is wrong: what an interrupted command left, what does not belong here.
    Note,
    /// It does not count and harms nothing, but somebody put it there.
    Warning,
    /// An object is missing, damaged or contradicts another.
    Damage,
}

/// Something that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub gravity: Gravity,
    /// The object's name in the store.
    pub object: String,
    /// What is the matter with it.
    pub what: String,
    /// That parity, another copy or a catalogue brings it back.
    pub mendable: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}

/// A path in a snapshot that cannot be restored wholly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The path; empty for the root.
    pub path: Vec<u8>,
    /// Bytes of the file that are lost; empty for a folder of which not even the names are known.
    pub ranges: Vec<Range<u64>>,
    /// The damaged or missing objects that it needs.
    pub because: Vec<String>,
    /// That it is lost; else its packs are not what they were, and only a key that reads content can tell.
    pub is_certain: bool,
}

impl fmt::Display for Affected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.snapshot.short(), path_text(&self.path))?;
        for (number, range) in self.ranges.iter().enumerate() {
            let sign = if number == 0 { " bytes " } else { ", " };
            write!(f, "{sign}{} to {}", range.start, range.end.saturating_sub(1))?;
        }
        Ok(())
    }
}

/// An archived segment of a log of which no copy is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostLog {
    /// The stream.
    pub stream: String,
    /// The name of the segment.
    pub name: String,
    /// Where in the log it lies, as its record says.
    pub positions: Option<(u64, u64)>,
    /// The earliest and the latest commit in it, as its record says.
    pub commits: Option<(Timestamp, Timestamp)>,
}

/// Where the right bytes of a damaged object come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MendedFrom {
    /// Its parity.
    Parity,
    /// The other copy of what is stored twice.
    OtherCopy,
    /// A catalogue that lists it.
    Catalogue,
    /// Of parity, what it is of.
    Subject,
}

/// A damaged object that there is parity of or that is held elsewhere too, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// Its name in the store.
    pub object: String,
    /// What was to put it right.
    pub from: MendedFrom,
    /// That its right bytes stand in its place again.
    pub in_place: bool,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckCounts {
    /// Snapshots whose trees were walked.
    pub snapshots: u64,
    /// Distinct tree and recipe nodes.
    pub nodes: u64,
    /// Packs.
    pub packs: u64,
    /// Records of the index.
    pub index_records: u64,
    /// Other objects.
    pub objects: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Plain bytes that were decoded and identified.
    pub plain_bytes: u64,
    /// Log packs and log records.
    pub logs: u64,
    /// Log packs that were read whole.
    pub logs_read: u64,
}

impl CheckCounts {
    /// Adds what another look has read.
    pub(super) fn add_reads(&mut self, other: &Self) {
        self.packs_read += other.packs_read;
        self.bytes_read += other.bytes_read;
        self.plain_bytes += other.plain_bytes;
        self.logs_read += other.logs_read;
    }
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// How much was looked at.
    pub counts: CheckCounts,
    /// What was found, worst first, then by name.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub findings_more: u64,
    /// Findings of [`Gravity::Damage`], told or not.
    pub damaged: u64,
    /// What cannot be restored wholly.
    pub affected: Vec<Affected>,
    /// Paths beyond those.
    pub affected_more: u64,
    /// Snapshots of which something cannot be restored, with the number of paths.
    pub hurt: Vec<(SnapshotId, u64)>,
    /// Of these, the ones of which nothing is known to be lost: this key cannot tell.
    pub hurt_perhaps: BTreeSet<SnapshotId>,
    /// The same of snapshots that are forgotten: they hurt nobody, and cannot be undeleted whole.
    pub hurt_forgotten: Vec<(SnapshotId, u64)>,
    /// Paths in these.
    pub affected_forgotten: Vec<Affected>,
    /// Segments of logs that cannot be read back.
    pub lost_logs: Vec<LostLog>,
    /// Packs that no run of the index names.
    pub undescribed: u64,
    /// Packs in which something is damaged, as was reported before.
    pub known_damage: u64,
    /// Packs that were reported as damaged: nobody relies on what is bad in them any more.
    pub reported: u64,
    /// Earlier reports that were taken back, since what they named is right again.
    pub cancelled: u64,
    /// Of what was put right, or was to be: nothing where that was not asked for.
    pub mended: Vec<Mended>,
    /// What this key could not look at, a sentence each.
    pub unchecked: Vec<String>,
}

impl CheckReport {
    /// Says whether the repository is damaged.
    pub fn is_damaged(&self) -> bool {
        self.damaged > 0 || !self.hurt.is_empty()
    }
}

/// Collects findings from all threads.
#[derive(Default)]
pub(super) struct Findings {
    held: Mutex<(Vec<Finding>, u64, u64)>,
    /// Objects that are gone, and what is to be said of them: how bad that is shows once it is known who needs them.
    suspects: Mutex<BTreeMap<String, String>>,
    /// Objects that there is parity of.
    covered: Mutex<HashSet<ObjectId>>,
}

impl Findings {
    pub fn add(&self, gravity: Gravity, object: impl Into<String>, what: impl Into<String>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.2 += u64::from(gravity == Gravity::Damage);
        if held.0.len() < FINDINGS_MAX {
            held.0.push(Finding { gravity, object: object.into(), what: what.into(), mendable: false });
        } else {
            held.1 += 1;
        }
    }

    /// Notes that an object is gone. It counts as damaged until [`Findings::acquit`] says better.
    pub fn suspect(&self, object: impl Into<String>, what: impl Into<String>) {
        self.suspects().insert(object.into(), what.into());
    }

    /// Decides how bad it is that objects are gone, and what is to be said beside.
    pub fn acquit(&self, judge: impl Fn(&str) -> (Gravity, &'static str)) {
        for (object, mut what) in std::mem::take(&mut *self.suspects()) {
            let (gravity, remark) = judge(&object);
            what.push_str(remark);
            self.add(gravity, object, what);
        }
    }

    fn suspects(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the names of parity objects that were found damaged.
    pub fn damaged_parity(&self) -> Vec<String> {
        self.damaged().into_iter().filter(|name| name.starts_with("parity/")).collect()
    }

    /// Says whether anything is damaged.
    pub fn are_grave(&self) -> bool {
        !self.suspects().is_empty() || self.held.lock().unwrap_or_else(PoisonError::into_inner).2 > 0
    }

    /// Returns the packs and log packs in which something is damaged; `None` where not all are remembered.
    pub fn in_packs(&self) -> Option<HashSet<PackId>> {
        let is_told = self.held.lock().unwrap_or_else(PoisonError::into_inner).1 == 0;
        let names = self.damaged().into_iter();
        let packs = names.filter(|name| name.starts_with("packs/") || name.starts_with("logs/"));
        is_told.then(|| packs.filter_map(|name| name.rsplit('/').next()?.parse().ok()).collect())
    }

    /// Notes that there is parity of an object.
    pub fn cover(&self, id: ObjectId) {
        self.covered.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// Returns the objects that something is the matter with and that there is parity of, by their names.
    pub fn covered(&self) -> BTreeMap<String, ObjectId> {
        let covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let told = held.0.iter().filter(|finding| finding.gravity != Gravity::Note);
        let suspects = self.suspects();
        let told = told.map(|finding| &finding.object).chain(suspects.keys());
        told.filter_map(|object| {
            let id: ObjectId = object.rsplit('/').next()?.parse().ok()?;
            covered.contains(&id).then(|| (object.clone(), id))
        })
        .collect()
    }

    /// Returns the names of objects that were found damaged.
    pub fn damaged(&self) -> BTreeSet<String> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let damaged = held.0.iter().filter(|finding| finding.gravity == Gravity::Damage);
        damaged.map(|finding| finding.object.clone()).chain(self.suspects().keys().cloned()).collect()
    }

    /// Adds to what is said of these objects, and whether they can be brought back.
    pub fn remark(&self, remarks: &BTreeMap<String, (bool, &'static str)>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for finding in held.0.iter_mut().filter(|finding| finding.gravity != Gravity::Note) {
            if let Some((mendable, remark)) = remarks.get(&finding.object) {
                finding.what.push_str(remark);
                finding.mendable = *mendable;
            }
        }
    }

    pub fn finish(self, report: &mut CheckReport) {
        self.acquit(|_| (Gravity::Damage, ""));
        let (mut findings, more, damaged) = self.held.into_inner().unwrap_or_else(PoisonError::into_inner);
        findings.sort_by(|a, b| {
            (std::cmp::Reverse(a.gravity), &a.object, &a.what).cmp(&(
                std::cmp::Reverse(b.gravity),
                &b.object,
                &b.what,
            ))
        });
        (report.findings, report.findings_more, report.damaged) = (findings, more, damaged);
    }
}
