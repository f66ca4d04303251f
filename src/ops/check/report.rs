//! What a check found.

use crate::base::{ObjectId, PackId, SnapshotId, Timestamp};
use crate::localfs::printable;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

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
}

impl fmt::Display for Affected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.snapshot.short(), printable(&self.path))?;
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
    /// Segments of logs that cannot be read back.
    pub lost_logs: Vec<LostLog>,
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
    /// Objects that there is parity of.
    covered: Mutex<HashSet<ObjectId>>,
}

impl Findings {
    pub fn add(&self, gravity: Gravity, object: impl Into<String>, what: impl Into<String>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.2 += u64::from(gravity == Gravity::Damage);
        if held.0.len() < FINDINGS_MAX {
            held.0.push(Finding { gravity, object: object.into(), what: what.into() });
        } else {
            held.1 += 1;
        }
    }

    /// Says whether anything is damaged.
    pub fn are_grave(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).2 > 0
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
        told.filter_map(|finding| {
            let id: ObjectId = finding.object.rsplit('/').next()?.parse().ok()?;
            covered.contains(&id).then(|| (finding.object.clone(), id))
        })
        .collect()
    }

    /// Returns the names of objects that were found damaged.
    pub fn damaged(&self) -> BTreeSet<String> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let damaged = held.0.iter().filter(|finding| finding.gravity == Gravity::Damage);
        damaged.map(|finding| finding.object.clone()).collect()
    }

    /// Adds to what is said of these objects.
    pub fn remark(&self, remarks: &BTreeMap<String, &'static str>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for finding in held.0.iter_mut().filter(|finding| finding.gravity != Gravity::Note) {
            if let Some(remark) = remarks.get(&finding.object) {
                finding.what.push_str(remark);
            }
        }
    }

    pub fn finish(self, report: &mut CheckReport) {
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
