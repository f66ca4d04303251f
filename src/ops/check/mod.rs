//! Checking a repository: nothing is changed but the ledger of what was verified and what was found bad, and
//! what is put right from parity where that is asked for.
//!
//! - `objects`: configuration, registry, slots, index runs, roots, whatever else lies there
//! - `packs`: are they there, do they hold what the index says, does it all decode
//! - `logs`: archived segments of logs
//! - `trees`: from every snapshot to every chunk; which paths are affected by what is lost
//! - `mend`: what parity, a second copy or a catalogue brings back of what is damaged
//! - `copies`: what is held elsewhere too
//! - `damage`: what others are told of packs that are bad
//! - `places`: what one of several places lacks
//! - `selection`: which packs are read, and the ledger
//! - `report`: what was found
//!
//! Memory does not grow with the repository but for the lists of its packs and snapshots and four
//! bits for each record of the index.

mod copies;
mod damage;
mod logs;
mod mend;
mod objects;
mod packs;
mod places;
mod report;
mod selection;
mod trees;

pub use places::{Holding, Lacking};
pub use report::{Affected, CheckCounts, CheckReport, Finding, Gravity, LostLog, Mended, MendedFrom};
pub use selection::ReadData;

use self::damage::{Damage, Published};
use self::objects::{Inventory, Objects, PATIENCE};
pub(in crate::ops) use self::packs::agrees;
use self::packs::{Fate, Packs};
use self::report::Findings;
use self::selection::ledger;
use self::trees::Trees;
use super::Snapshots;
use super::deserted::{self, Deserted};
use super::error::{OpsError, unless_unnoted};
use crate::base::{BlobId, PackId, SnapshotId};
use crate::format::pack::BlobClass;
use crate::format::trust::Act;
use crate::repo::{CondemnedListing, FoundSnapshot, RepoError, Repository, pack_name};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How to check.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// Which packs of content are read; packs of trees and recipes always are.
    pub read_data: ReadData,
    /// Notes in the repository which packs were verified, and which are bad.
    pub keep_ledger: bool,
    /// Name and version of the program, for the ledger.
    pub program: String,
}

/// What a look at everything but trees has shown.
pub(in crate::ops) struct Surveyed<'a> {
    packs: &'a Packs<'a>,
    snapshots: Vec<FoundSnapshot>,
    perhaps_forgotten: HashSet<SnapshotId>,
    deserted: Vec<Deserted>,
    findings: &'a Findings,
    trees: RefCell<Trees<'a>>,
}

impl Surveyed<'_> {
    /// Walks the trees of all snapshots and says in the report what is hurt.
    pub fn walk_trees(&self, report: &mut CheckReport) -> Result<(), OpsError> {
        self.trees.borrow_mut().check(&self.snapshots, &self.perhaps_forgotten, report)?;
        for deserted in &self.deserted {
            let (gravity, what) = match (self.comes_back(deserted)?, &deserted.bytes) {
                (true, _) => {
                    (Gravity::Damage, "its parity holds it whole: `chronolith repair snapshots` puts it back")
                }
                // Of what it says nothing is left.
                (false, _) if deserted.root.is_none() && !deserted.rests_on.is_empty() => continue,
                (false, Some(_)) => (Gravity::Warning, "what it needs is gone as well"),
                (false, None) => {
                    (Gravity::Warning, "its parity is left, and does not bring it back by itself")
                }
            };
            let what = format!("it is gone, and nobody has ended it as far as is known; {what}");
            self.findings.add(gravity, deserted.name(), what);
        }
        Ok(())
    }

    /// Returns what is gone, and of which only parity is left.
    pub fn deserted(&self) -> &[Deserted] {
        &self.deserted
    }

    /// Says whether something that is gone can be put back as it was, once trees were walked: a root without what it
    /// needs would hurt more than it helps.
    pub fn comes_back(&self, deserted: &Deserted) -> Result<bool, OpsError> {
        if deserted.bytes.is_none() {
            return Ok(false);
        }
        if let Some(root) = &deserted.root {
            return self.trees.borrow_mut().would_be_whole(root);
        }
        for other in self.deserted.iter().filter(|other| deserted.rests_on.contains(&other.id)) {
            if self.comes_back(other)? {
                return Ok(true);
            }
        }
        Ok(deserted.rests_on.is_empty())
    }

    /// Says whether nothing below a node of a tree or recipe is lost, once trees were walked.
    pub fn is_whole(&self, node: &BlobId) -> bool {
        self.trees.borrow().is_whole(node)
    }

    /// Says whether no copy of a blob can be read. What this key cannot tell is not known to be lost.
    pub fn is_lost(&self, class: BlobClass, id: &BlobId, length: u32) -> bool {
        self.packs.fate(class, id, Some(length)) == Fate::Lost
    }
}

/// Checks a repository.
///
/// # Errors
///
/// When the store cannot be listed, or the user stopped it. What is damaged is in the report.
pub fn check(repository: &Arc<Repository>, options: &CheckOptions) -> Result<CheckReport, OpsError> {
    until_settled(repository, options, &mut Pass::default())
}

/// Checks a repository, and puts right what is found damaged as far as its parity goes, and what is stored
/// twice or listed in a catalogue from there. The report tells how things stand afterwards.
///
/// # Errors
///
/// As [`check`]; [`RepoError::Forbidden`], before anything is read, for a key that may not write parity.
/// A store that does not take what was put right is a warning: then nothing was.
pub fn check_and_repair(
    repository: &Arc<Repository>,
    options: &CheckOptions,
) -> Result<CheckReport, OpsError> {
    repository.registry().may_sign(&repository.keyring().identity.key, Act::Parity)?;
    until_settled(repository, options, &mut Pass { mends: true, ..Pass::default() })
}

/// Looks until what was found does not come from what was put right, or taken away, during the look.
fn until_settled(
    repository: &Arc<Repository>,
    options: &CheckOptions,
    pass: &mut Pass,
) -> Result<CheckReport, OpsError> {
    let mut options = options.clone();
    loop {
        let walk = |surveyed: &Surveyed<'_>, report: &mut CheckReport| surveyed.walk_trees(report);
        if let Some(report) = look(repository, &options, pass, walk)? {
            return Ok(report);
        }
        // What was damaged is looked at again, with everything that lies in the open; what was read and found
        // right need not be read a second time.
        if !pass.rereads {
            options.read_data = ReadData::None;
        }
        repository.refresh_index()?;
    }
}

/// Checks everything but trees, then hands over what is known.
///
/// # Errors
///
/// As [`check`], and what `then` says.
pub(in crate::ops) fn survey(
    repository: &Arc<Repository>,
    options: &CheckOptions,
    then: impl FnOnce(&Surveyed<'_>, &mut CheckReport) -> Result<(), OpsError>,
) -> Result<CheckReport, OpsError> {
    let mut only = Pass { looks_before: LOOKS_MAX, ..Pass::default() };
    Ok(look(repository, options, &mut only, then)?.unwrap_or_default())
}

/// Looks at most, where what is found bad may only have been taken away meanwhile.
const LOOKS_MAX: u32 = 3;

/// One of a few looks at the repository.
#[derive(Default)]
struct Pass {
    /// How many there were before.
    looks_before: u32,
    /// Puts right what parity brings back, and then ends before anything is said of it.
    mends: bool,
    /// What was put right by the looks before.
    mended: Vec<Mended>,
    /// Packs of content and log packs that are read, whatever else is.
    again: HashSet<PackId>,
    /// What the looks before have told others of packs that are bad.
    published: Published,
    /// Whether everything is read again that was to be read at first.
    rereads: bool,
    /// What the looks before have read.
    counts: CheckCounts,
    /// Whether they read content.
    read_data: bool,
}

impl Pass {
    /// Ends a look that another follows. What it found bad by reading is read again; where that is more than is
    /// remembered by name, everything is.
    fn goes_on(&mut self, again: Option<HashSet<PackId>>, counts: CheckCounts, read_data: bool) {
        self.looks_before += 1;
        self.rereads = again.is_none();
        if let Some(again) = again {
            self.again.extend(again);
            self.counts.add_reads(&counts);
            self.read_data = read_data;
        }
    }
}

/// Looks at everything but trees, then hands over what is known; `None` where something was put right, or where
/// something seems damaged and objects went meanwhile, as a sweep takes them: then all has to be looked at again.
fn look(
    repository: &Arc<Repository>,
    options: &CheckOptions,
    pass: &mut Pass,
    then: impl FnOnce(&Surveyed<'_>, &mut CheckReport) -> Result<(), OpsError>,
) -> Result<Option<CheckReport>, OpsError> {
    let environment = repository.environment();
    let findings = Findings::default();
    let mut report = CheckReport { mended: pass.mended.clone(), ..CheckReport::default() };
    // First of all: what a snapshot needs was there before it was, so whatever is listed from here on shows it.
    let listed = objects::listed_snapshots(repository)?;
    repository.load_index()?;
    let mut inventory = Inventory::take(environment.store.list("")?, &findings);
    let mut objects = Objects {
        repository,
        findings: &findings,
        count: 0,
        closed: 0,
        perhaps_forgotten: HashSet::new(),
        patience: PATIENCE,
    };
    objects.check(&mut inventory)?;
    let mut snapshots = objects.roots()?;
    // What was committed since is for the next check.
    snapshots.retain(|found| listed.contains(&found.id));
    let memory = repository.memory()?;
    objects.leave_out_ended(&memory, &mut snapshots)?;
    objects.memory(&memory, &inventory)?;
    let deserted = match inventory.deserted.is_empty() {
        true => Vec::new(),
        false => deserted::find(repository, &inventory.deserted, &Snapshots::load_all(repository)?)?,
    };
    let mut logs = logs::check_logs(repository, &memory, &findings, &options.read_data, &pass.again)?;
    report.counts.logs = logs.objects;
    report.lost_logs = std::mem::take(&mut logs.lost);
    report.unchecked.append(&mut logs.unchecked);
    report.counts.objects = objects.count;
    if objects.closed > 0 {
        report
            .unchecked
            .push(format!("{} objects: they belong to epochs not granted to this key", objects.closed));
    }

    let known = repository.index().packs();
    let unlisted: Vec<PackId> =
        inventory.packs.keys().filter(|id| !known.contains_key(id)).copied().collect();
    for id in &unlisted {
        let what = "no index run names it: an interrupted backup left it, or its run is damaged";
        findings.add(Gravity::Note, pack_name(id), what);
    }
    report.undescribed = unlisted.len() as u64;
    if !unlisted.is_empty() {
        repository.index_unlisted_packs()?;
    }
    let index = repository.index().numbered();
    report.counts.index_records = index.len();
    report.counts.packs = inventory.packs.len() as u64;
    let condemned = repository.condemned(&CondemnedListing::default())?;
    let damage = Damage::load(repository)?;
    let mut reported = damage.reported();
    reported.extend(&pass.again);
    let packs = Packs::new(repository, &index, &findings, damage, &condemned, &memory, &pass.again);
    let present = packs.compare(&inventory.packs, &repository.index().packs(), &known);
    let (metadata, content): (Vec<_>, Vec<_>) =
        present.into_iter().partition(|(_, _, class)| *class == BlobClass::Metadata);
    let plain = |packs: Vec<(PackId, u64, BlobClass)>| -> Vec<(PackId, u64)> {
        packs.into_iter().map(|(id, length, _)| (id, length)).collect()
    };
    let content = plain(content);
    let ledger = match options.read_data {
        ReadData::OldestFirst { .. } => ledger(repository)?,
        _ => HashMap::new(),
    };
    let chosen = options.read_data.choose(content.clone(), &ledger);
    // What was reported is looked at again every time: it may be whole again.
    let (doubted, mut others): (Vec<_>, Vec<_>) =
        content.into_iter().partition(|(id, _)| reported.contains(id));
    let mut read = chosen;
    read.retain(|(id, _)| !reported.contains(id));
    let taken: HashSet<PackId> = read.iter().map(|(id, _)| *id).collect();
    others.retain(|(id, _)| !taken.contains(id));
    packs.look(BlobClass::Metadata, plain(metadata), Vec::new(), None)?;
    // However short the time is: else what is known to be bad would pass for whole.
    packs.look(BlobClass::Content, doubted, Vec::new(), None)?;
    packs.look(BlobClass::Content, read, others, options.read_data.budget())?;
    if options.keep_ledger && options.read_data != ReadData::None {
        // What an interruption leaves undone does not make undone what was verified.
        let kept = packs.keep_ledger(&options.program);
        let what = "which packs were read could not be noted, so that the next check does not know";
        unless_unnoted(kept, environment.observer.as_ref(), what)?;
    }
    if environment.observer.interrupted() {
        return Err(RepoError::Interrupted.into());
    }
    let read_data = options.read_data != ReadData::None || pass.read_data;
    packs.settle(read_data)?;
    if pass.mends {
        pass.mended = mend::mend(repository, &findings)?;
        report.mended.clone_from(&pass.mended);
        if pass.mended.iter().any(|mended| mended.in_place) {
            pass.mends = false;
            pass.goes_on(findings.in_packs(), packs.counts(&logs), read_data);
            return Ok(None);
        }
    }
    let damage = packs.take_damage();
    let read = packs.counts(&logs);
    report.known_damage = damage.known_bad.difference(&pass.again).count() as u64;
    if options.keep_ledger {
        let method = if read_data { "read-data" } else { "structure" };
        let published = damage.publish(repository, method, &options.program);
        let what = "what was found bad could not be reported, so that backups may go on relying on it";
        if let Some(published) = unless_unnoted(published, environment.observer.as_ref(), what)? {
            pass.published.reported += published.reported;
            pass.published.cancelled += published.cancelled;
        }
    }
    (report.reported, report.cancelled) = (pass.published.reported, pass.published.cancelled);
    packs.unchecked(&mut report.unchecked);
    report.counts.add_reads(&read);
    report.counts.add_reads(&pass.counts);
    let trees = RefCell::new(Trees::new(repository, &index, &packs, &findings)?);
    let perhaps_forgotten = std::mem::take(&mut objects.perhaps_forgotten);
    let surveyed =
        Surveyed { packs: &packs, snapshots, perhaps_forgotten, deserted, findings: &findings, trees };
    then(&surveyed, &mut report)?;
    drop(surveyed);
    drop(packs);
    let seems_damaged = findings.are_grave() || !report.hurt.is_empty();
    if seems_damaged
        && pass.looks_before + 1 < LOOKS_MAX
        && inventory.has_lost_any(&environment.store.list("")?)
    {
        pass.goes_on(findings.in_packs(), read, read_data);
        return Ok(None);
    }
    mend::foretell(repository, &findings)?;
    findings.finish(&mut report);
    Ok(Some(report))
}
