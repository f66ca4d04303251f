//! Checking a repository: nothing is changed but the ledger of what was verified and what was found bad.
//!
//! - `objects`: configuration, registry, slots, index runs, roots, whatever else lies there
//! - `packs`: are they there, do they hold what the index says, does it all decode
//! - `logs`: archived segments of logs
//! - `trees`: from every snapshot to every chunk; which paths are affected by what is lost
//! - `damage`: what others are told of packs that are bad
//! - `selection`: which packs are read, and the ledger
//! - `report`: what was found
//!
//! Memory does not grow with the repository but for the lists of its packs and snapshots and three
//! bits for each record of the index.

mod damage;
mod logs;
mod objects;
mod packs;
mod report;
mod selection;
mod trees;

pub use report::{Affected, CheckCounts, CheckReport, Finding, Gravity, LostLog};
pub use selection::ReadData;

use self::damage::Damage;
use self::objects::{Inventory, Objects};
use self::packs::Packs;
pub(in crate::ops) use self::packs::agrees;
use self::report::Findings;
use self::selection::ledger;
use self::trees::Trees;
use super::error::OpsError;
use crate::base::{BlobId, PackId, explain};
use crate::format::pack::BlobClass;
use crate::repo::{CondemnedListing, FoundSnapshot, RepoError, Repository, pack_name};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
    trees: RefCell<Trees<'a>>,
}

impl Surveyed<'_> {
    /// Walks the trees of all snapshots and says in the report what is hurt.
    pub fn walk_trees(&self, report: &mut CheckReport) -> Result<(), OpsError> {
        self.trees.borrow_mut().check(&self.snapshots, report)
    }

    /// Says whether nothing below a node of a tree or recipe is lost, once trees were walked.
    pub fn is_whole(&self, node: &BlobId) -> bool {
        self.trees.borrow().is_whole(node)
    }

    /// Says whether some copy of a blob can be read, as far as is known.
    pub fn readable(&self, class: BlobClass, id: &BlobId, length: u32) -> bool {
        self.packs.readable(class, id, Some(length))
    }
}

/// Checks a repository.
///
/// # Errors
///
/// When the store cannot be listed, or the user stopped it. What is damaged is in the report.
pub fn check(repository: &Arc<Repository>, options: &CheckOptions) -> Result<CheckReport, OpsError> {
    survey(repository, options, |surveyed, report| surveyed.walk_trees(report))
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
    let environment = repository.environment();
    let findings = Findings::default();
    let mut report = CheckReport::default();
    repository.load_index()?;
    let inventory = Inventory::take(environment.store.list("")?, &findings);
    let mut objects = Objects { repository, findings: &findings, count: 0, closed: 0 };
    objects.check(&inventory)?;
    let snapshots = objects.roots()?;
    let logs = logs::check_logs(repository, &findings, &options.read_data)?;
    report.counts.logs = logs.objects;
    report.counts.logs_read = logs.read;
    report.lost_logs = logs.lost;
    report.unchecked.extend(logs.unchecked);
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
    if !unlisted.is_empty() {
        repository.index_unlisted_packs()?;
    }
    let index = repository.index().numbered();
    report.counts.index_records = index.len();
    report.counts.packs = inventory.packs.len() as u64;
    let condemned = repository.condemned(&CondemnedListing::default())?;
    let damage = Damage::load(repository)?;
    let reported = damage.reported();
    let packs = Packs::new(repository, &index, &findings, damage, &condemned);
    let present = packs.compare(&inventory.packs, &repository.index().packs());
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
    let (mut read, mut others): (Vec<_>, Vec<_>) =
        content.into_iter().partition(|(id, _)| reported.contains(id));
    read.extend(chosen.into_iter().filter(|(id, _)| !reported.contains(id)));
    let taken: HashSet<PackId> = read.iter().map(|(id, _)| *id).collect();
    others.retain(|(id, _)| !taken.contains(id));
    packs.look(BlobClass::Metadata, plain(metadata), Vec::new(), None)?;
    packs.look(BlobClass::Content, read, others, options.read_data.budget())?;
    if options.keep_ledger && options.read_data != ReadData::None {
        // What an interruption leaves undone does not make undone what was verified.
        packs.keep_ledger(&options.program)?;
    }
    if environment.observer.interrupted() {
        return Err(RepoError::Interrupted.into());
    }
    packs.settle(options.read_data != ReadData::None)?;
    let damage = packs.take_damage();
    report.known_damage = damage.known_bad.len() as u64;
    if options.keep_ledger {
        let method = if options.read_data == ReadData::None { "structure" } else { "read-data" };
        // Who may not write here still learns what is wrong.
        match damage.publish(repository, method, &options.program) {
            Ok(published) => (report.reported, report.cancelled) = (published.reported, published.cancelled),
            Err(error @ RepoError::Interrupted) => return Err(error.into()),
            Err(error) => environment.observer.warn(&format!(
                "what was found bad could not be reported, so that backups may go on relying on it: {}",
                explain(&error)
            )),
        }
    }
    packs.unchecked(&mut report.unchecked);
    report.counts.packs_read = packs.packs_read.load(Ordering::Relaxed);
    report.counts.bytes_read = packs.bytes_read.load(Ordering::Relaxed) + logs.bytes_read;
    report.counts.plain_bytes = packs.plain_bytes.load(Ordering::Relaxed);
    let trees = RefCell::new(Trees::new(repository, &index, &packs, &findings)?);
    let surveyed = Surveyed { packs: &packs, snapshots, trees };
    then(&surveyed, &mut report)?;
    drop(surveyed);
    drop(packs);
    findings.finish(&mut report);
    Ok(report)
}
