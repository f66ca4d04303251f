//! Mirroring: the same objects at another place, by whoever holds no key.
//!
//! Every object but the configuration is named by the hash of its bytes, so each is verified while it is copied,
//! and what is damaged is never taken for good, nor carried on. Nothing is ever replaced but by bytes that have
//! their name as their hash.
//!
//! The order ([CONCURRENCY-5]), and what a crash after each step leaves at the target:
//! 1. the target is listed, then the source's roots, then everything at the source;
//! 2. the configuration is copied, its second copy first: an empty repository, which says whose mirror it is;
//! 3. everything but roots: objects that nothing refers to. Where a sweep at the source overtook that, what
//!    is there now is listed and copied too;
//! 4. the roots of step 1: each with all that it needs.
//!
//! Run again it goes on: what is there with its length is not copied twice.
//!
//! | room | holds |
//! |---|---|
//! | `config` | the one object that is not named by its hash |
//! | `copying` | one object after the other, by several threads |
//! | `follow` | what the source's sweep deleted is deleted; what the source lost is brought back |

mod config;
mod copying;
mod follow;

pub use follow::{Followed, follow_sweep, lost_at_source, put_back};

use self::config::{Copy, Known, PLACES, Side};
use self::copying::Copying;
use super::error::OpsError;
use crate::base::{ObjectId, Observer, Phase};
use crate::repo::RepoError;
use crate::storage::{ObjectInfo, Store};
use std::collections::{BTreeMap, BTreeSet};

/// Where roots lie.
const ROOTS: [&str; 5] = ["snapshots/", "annotations/", "logs/", "catalog/", "copies/catalog/"];
/// Times that a sweep may overtake one run.
const ROUNDS_MAX: usize = 64;

/// How to mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorOptions {
    /// Reads what is at the target already, and replaces what is not what it is named for.
    pub verify: bool,
    /// Reads the source too, and replaces what is damaged there by what is good at the target. Implies `verify`.
    pub heal: bool,
    /// Writes nothing.
    pub dry_run: bool,
    /// Objects that are copied at once; each is in memory as a whole.
    pub workers: usize,
}

impl Default for MirrorOptions {
    fn default() -> Self {
        Self { verify: false, heal: false, dry_run: false, workers: 4 }
    }
}

/// One of both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The repository.
    Source,
    /// Its mirror.
    Target,
}

impl Place {
    /// Returns the word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

/// An object that is not what it is named for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DamagedObject {
    /// Its name.
    pub name: String,
    /// Where.
    pub place: Place,
    /// What is the matter with it.
    pub why: String,
    /// Whether good bytes of the other side took its place, or would without a dry run.
    pub healed: bool,
}

/// What a mirror run did, or would do.
#[derive(Debug, Clone, Default)]
pub struct MirrorReport {
    /// Objects that were copied.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Objects that the target had.
    pub present: u64,
    /// Objects of either side that were read and are what they are named for, beside those copied.
    pub verified: u64,
    /// Damaged objects, by name.
    pub damaged: Vec<DamagedObject>,
    /// Objects that were deleted at the source while this ran.
    pub vanished: u64,
    /// Names at the source that no object has; they are left out.
    pub foreign: u64,
    /// Objects that only the target has.
    pub only_at_target: Vec<ObjectInfo>,
}

impl MirrorReport {
    /// Says whether something is damaged and stays so.
    pub fn is_incomplete(&self) -> bool {
        self.damaged.iter().any(|object| !object.healed)
    }
}

/// Returns the id that an object's name ends in.
fn id_of(name: &str) -> Option<ObjectId> {
    name.rsplit_once('/')?.1.parse().ok()
}

fn is_root(name: &str) -> bool {
    ROOTS.iter().any(|area| name.starts_with(area))
}

fn lengths(objects: Vec<ObjectInfo>) -> BTreeMap<String, ObjectInfo> {
    objects.into_iter().map(|object| (object.name.clone(), object)).collect()
}

/// Copies what the target lacks.
///
/// # Errors
///
/// [`OpsError::Usage`] where the target holds something else; [`OpsError::Stopped`] where the source has an older
/// configuration than the target, or none; when a store fails, or the user stopped it: run it again.
pub fn mirror(
    source: &dyn Store,
    target: &dyn Store,
    options: &MirrorOptions,
    observer: &dyn Observer,
) -> Result<MirrorReport, OpsError> {
    if !options.dry_run {
        // What dead writers left takes room that may be needed now.
        let _ = target.clean();
    }
    let target_objects = lengths(target.list("")?);
    let mut roots = Vec::new();
    for area in ROOTS {
        roots.extend(source.list(area)?);
    }
    let mut listing = source.list("")?;
    let mut report = MirrorReport {
        foreign: listing
            .iter()
            .filter(|object| id_of(&object.name).is_none() && !PLACES.contains(&object.name.as_str()))
            .count() as u64,
        ..MirrorReport::default()
    };
    let sides = Side::read_both(source, target)?;
    let chosen = choose(source, target, &sides, &target_objects, options)?;
    configuration(source, target, &sides, &chosen, options, &mut report)?;

    let total = listing.iter().map(|object| object.length).sum();
    observer.begin(Phase::Copy, Some(total));
    let copying = Copying { source, target, options, observer, there: &target_objects };
    let mut done = BTreeSet::new();
    for round in 0.. {
        if round == ROUNDS_MAX {
            return Err(OpsError::Stopped {
                why: "the source deletes faster than this copies".to_owned(),
                cure: "run it again; what was copied is not copied twice",
            });
        }
        let others = listing.iter().filter(|object| {
            id_of(&object.name).is_some() && !is_root(&object.name) && done.insert(object.name.clone())
        });
        let vanished = copying.run(others, &mut report)?;
        // What took the place of something that was swept meanwhile may be younger than the listing.
        if vanished == 0 {
            break;
        }
        listing = source.list("")?;
    }
    copying.run(roots.iter().filter(|object| id_of(&object.name).is_some()), &mut report)?;
    observer.end(Phase::Copy);

    let at_source: BTreeSet<&str> =
        listing.iter().chain(&roots).map(|object| object.name.as_str()).chain(PLACES).collect();
    report.only_at_target = target_objects
        .into_values()
        .filter(|object| id_of(&object.name).is_some() && !at_source.contains(object.name.as_str()))
        .collect();
    report.damaged.sort();
    Ok(report)
}

/// Decides which configuration counts, and refuses two sides that do not belong together.
fn choose(
    source: &dyn Store,
    target: &dyn Store,
    (from, to): &(Side, Side),
    target_objects: &BTreeMap<String, ObjectInfo>,
    options: &MirrorOptions,
) -> Result<Known, OpsError> {
    let other = |what: &str| {
        OpsError::Usage(format!(
            "{} holds {what}, so that it can be no mirror of this one",
            target.location()
        ))
    };
    match (from.best(), to.best()) {
        (Some(ours), Some(theirs)) if ours.repository != theirs.repository => {
            Err(other(&format!("another repository ({})", theirs.repository.short())))
        }
        (Some(ours), Some(theirs)) if ours.revision < theirs.revision => Err(OpsError::Stopped {
            why: format!(
                "the source has revision {} of the configuration and the target {}: the source was set back, \
                 or is the mirror itself",
                ours.revision, theirs.revision
            ),
            cure: "mirror the other way round, or find out who put an old repository in its place",
        }),
        (Some(ours), Some(_)) => Ok(ours.clone()),
        (Some(ours), None) => {
            let empty = target_objects.keys().all(|name| PLACES.contains(&name.as_str()));
            match empty || from.shares_registry(to) {
                true => Ok(ours.clone()),
                false => Err(other("something else")),
            }
        }
        (None, Some(theirs)) if options.heal && from.shares_registry(to) => Ok(theirs.clone()),
        (None, _) => {
            if from.copies.iter().all(|copy| matches!(copy, Copy::Missing)) {
                return Err(RepoError::NoRepository { location: source.location() }.into());
            }
            Err(OpsError::Stopped {
                why: "neither copy of the source's configuration can be believed".to_owned(),
                cure: "bring it back from a mirror: chronolith mirror --heal",
            })
        }
    }
}

/// Brings the configuration up to date at the target, and back at the source.
fn configuration(
    source: &dyn Store,
    target: &dyn Store,
    (from, to): &(Side, Side),
    chosen: &Known,
    options: &MirrorOptions,
    report: &mut MirrorReport,
) -> Result<(), OpsError> {
    let sides = [(Place::Source, source, from), (Place::Target, target, to)];
    for (place, store, side) in sides {
        for (name, copy) in PLACES.into_iter().zip(&side.copies) {
            let writes = place == Place::Target || options.heal;
            let why = match copy {
                // One of the same revision that says something else was signed by an owner as well.
                Copy::Good(known) if known.revision >= chosen.revision => {
                    report.present += u64::from(place == Place::Target);
                    continue;
                }
                Copy::Good(_) if place == Place::Target => None,
                Copy::Good(known) => Some(format!("it is revision {}, an old one", known.revision)),
                Copy::Missing if place == Place::Target => None,
                Copy::Missing => Some("it is missing".to_owned()),
                Copy::Bad(why) => Some(why.clone()),
            };
            if writes && !options.dry_run {
                store.replace(name, &chosen.bytes)?;
            }
            match why {
                Some(why) => {
                    report.damaged.push(DamagedObject { name: name.to_owned(), place, why, healed: writes });
                }
                None => {
                    report.copied += 1;
                    report.copied_bytes += chosen.bytes.len() as u64;
                }
            }
        }
    }
    Ok(())
}
