//! What is done with a repository in which something is damaged, and what comes of it.

use super::harm::{Harm, Kind, undo};
use super::scene::{
    CUT, Objects, STREAM, Scene, Ticks, digest_of, entry, objects_of, options, segment_name, store_of,
};
use crate::support::world::{Client, Content, Listener, read_snapshot, streams};
use chronolith::base::{LogPackId, SnapshotId, explain};
use chronolith::format::log::LogRecordKind;
use chronolith::ops::backup::backup;
use chronolith::ops::check::{CheckOptions, Gravity, LostLog, ReadData, check, check_and_repair};
use chronolith::ops::forget::{by_name, forget};
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::repair::{
    IndexOptions, IndexPlan, PacksOptions, PacksPlan, SnapshotsOptions, SnapshotsPlan,
};
use chronolith::ops::restore::{RestoreOptions, RestorePlan};
use chronolith::ops::undelete::{undelete, undelete_logs};
use chronolith::ops::{OpsError, Snapshots};
use chronolith::repo::{LogPut, Repository};
use chronolith::storage::{MemoryStore, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    List,
    Restore,
    Backup,
    Archive,
    Check,
    Prune,
    Undelete,
    Repair,
}

pub const VERBS: [Verb; 8] = [
    Verb::List,
    Verb::Restore,
    Verb::Backup,
    Verb::Archive,
    Verb::Check,
    Verb::Prune,
    Verb::Undelete,
    Verb::Repair,
];

/// What comes of it. Whatever it is: nothing is read wrong, nothing that is needed is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// As if nothing had happened.
    Works,
    /// As if nothing had happened, and the damaged object is named. Of a check: it is named as damage.
    Says,
    /// What the object held is missing, the rest is there, and the object is named.
    Loses,
    /// What the object held is missing, the rest is there, and nobody can know. Of a check: nothing is found.
    Silent,
    /// A backup rests on what nobody has read yet: once a check has, the next backup makes it whole.
    Blind,
    /// It fails, names the object, and has changed nothing.
    Refuses,
    /// It fails and has changed nothing; what the object was nobody can know.
    Closed,
    /// A check names it with a warning.
    Warns,
    /// A check names it with a note.
    Notes,
    /// A repair leaves nothing damaged.
    Heals,
    /// A repair leaves what it cannot bring back; nothing is worse.
    Stays,
}

impl Outcome {
    /// All of them, with the words that stand for them in the table.
    pub const WORDS: [(&'static str, Self); 11] = [
        ("works", Self::Works),
        ("says", Self::Says),
        ("loses", Self::Loses),
        ("silent", Self::Silent),
        ("blind", Self::Blind),
        ("refuses", Self::Refuses),
        ("closed", Self::Closed),
        ("warns", Self::Warns),
        ("notes", Self::Notes),
        ("heals", Self::Heals),
        ("stays", Self::Stays),
    ];

    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, outcome)| *outcome == self).map_or("", |(word, _)| word)
    }
}

/// What came of a cell; an error is what must never be.
pub type Found = Result<Outcome, String>;

/// What commands do with the repository when nothing is damaged.
#[derive(Default)]
pub struct Control {
    /// What is said then.
    said: BTreeSet<String>,
    listed: BTreeSet<String>,
    /// What is left after each command.
    left: BTreeMap<Verb, BTreeSet<String>>,
}

/// A repository in which something is damaged.
pub struct Ground<'a> {
    scene: &'a Scene,
    control: &'a Control,
    kind: Option<(&'a Kind, Harm)>,
    objects: Objects,
    before: BTreeMap<String, Option<Vec<u8>>>,
}

/// A copy of it to do something to.
struct Stage {
    store: Arc<MemoryStore>,
    clock: Arc<Ticks>,
    client: Client,
}

impl Stage {
    /// Does something with the repository freshly opened; returns what came of it and all that was said.
    fn does<T>(
        &self,
        does: impl FnOnce(&Arc<Repository>) -> Result<T, OpsError>,
    ) -> (Result<T, String>, Vec<String>) {
        let client = self.client.with_listener(Listener::default());
        let result = client.try_open().map_err(OpsError::from).and_then(|repository| does(&repository));
        let mut said = client.listener.warnings.lock().unwrap().clone();
        let result = result.map_err(|error| {
            let cure = match &error {
                OpsError::Stopped { cure, .. } => format!(" [{cure}]"),
                _ => String::new(),
            };
            explain(&error) + &cure
        });
        said.extend(result.as_ref().err().cloned());
        (result, said)
    }

    /// What was deleted or changed of these, and what is new.
    fn changes(&self, before: &Objects) -> (Vec<String>, Vec<String>) {
        let now = objects_of(self.store.as_ref());
        let bytes = |objects: &Objects, name: &String| objects.get(name).map(|(bytes, _)| bytes.clone());
        let changed = before.keys().filter(|name| bytes(&now, name) != bytes(before, name)).cloned();
        let new = now.keys().filter(|name| !before.contains_key(*name)).cloned();
        (changed.collect(), new.collect())
    }

    /// Refuses what changed, and what is new but in these areas.
    fn only_adds(&self, before: &Objects, areas: &[&str]) -> Result<(), String> {
        let (changed, mut new) = self.changes(before);
        new.retain(|name| !areas.iter().any(|area| name.starts_with(area)));
        match changed.is_empty() && new.is_empty() {
            true => Ok(()),
            false => Err(format!("changed {changed:?}, added {new:?}")),
        }
    }
}

fn all(read_data: ReadData, keep_ledger: bool) -> CheckOptions {
    CheckOptions { read_data, keep_ledger, program: "test".to_owned() }
}

impl<'a> Ground<'a> {
    /// The repository as it was made.
    pub fn sound(scene: &'a Scene, control: &'a Control) -> Self {
        Self { scene, control, kind: None, objects: scene.objects.clone(), before: BTreeMap::new() }
    }

    pub fn harmed(scene: &'a Scene, control: &'a Control, kind: &'a Kind, harm: Harm) -> Self {
        let mut objects = scene.objects.clone();
        let before = kind.apply(harm, &mut objects);
        Self { scene, control, kind: Some((kind, harm)), objects, before }
    }

    fn stage(&self, verb: Verb) -> Stage {
        let (store, clock) = store_of(&self.objects, self.scene.now);
        let client = self.scene.owner_in(store.clone(), 1 + verb as u64);
        Stage { store, clock, client }
    }

    /// Does everything once; returns how it ended, in the order of [`VERBS`].
    pub fn walk(&self) -> Vec<Found> {
        let (mut lost, mut listed) = (BTreeSet::new(), BTreeSet::new());
        VERBS
            .into_iter()
            .map(|verb| match verb {
                Verb::List => self.list(&mut listed),
                Verb::Restore => self.restore(&mut lost),
                Verb::Backup => self.backup(),
                Verb::Archive => self.archive(),
                Verb::Check => self.check(&lost, &listed),
                Verb::Prune => self.prune(),
                Verb::Undelete => self.undelete(),
                Verb::Repair => self.repair(),
            })
            .collect()
    }

    /// Says whether what was said names what was damaged.
    fn names<S: AsRef<str>>(&self, said: impl IntoIterator<Item = S>) -> bool {
        let called = self.kind.and_then(|(kind, _)| kind.called);
        said.into_iter().any(|line| {
            let line = line.as_ref();
            !self.control.said.contains(line)
                && (called.is_some_and(|words| line.contains(words))
                    || self.before.keys().any(|name| match name.rsplit('/').next() {
                        Some("chronolith") => line.starts_with(name) || line.contains(&format!(" {name}")),
                        Some(id) => line.contains(&id[..8]),
                        None => false,
                    }))
        })
    }

    fn worked(&self, said: &[String]) -> Outcome {
        if self.names(said) { Outcome::Says } else { Outcome::Works }
    }

    fn failed(&self, said: &[String]) -> Outcome {
        if self.names(said) { Outcome::Refuses } else { Outcome::Closed }
    }

    /// Puts what was damaged back, unless it would be gone by now, and looks whether everything is there.
    fn put_back(
        &self,
        verb: Verb,
        stage: &Stage,
        refused: bool,
        without: &[&str],
        new: &[(SnapshotId, &Content)],
    ) -> Result<(), String> {
        let left = self.control.left.get(&verb);
        undo(stage.store.as_ref(), &self.before, |name| {
            !refused && left.is_some_and(|left| !left.contains(name))
        });
        self.is_whole(stage, without, new).map_err(|why| format!("{verb:?}, the object being back: {why}"))
    }

    /// Everything that was committed is there, byte by byte, and a check finds no damage.
    fn is_whole(
        &self,
        stage: &Stage,
        without: &[&str],
        new: &[(SnapshotId, &Content)],
    ) -> Result<(), String> {
        let (result, _) = stage.does(|repository| {
            self.reads_all(repository, without, new)?;
            let report = check(repository, &all(ReadData::All, true))?;
            let damage: Vec<_> =
                report.findings.iter().filter(|finding| finding.gravity == Gravity::Damage).collect();
            match report.is_damaged() {
                true => Err(OpsError::Usage(format!("check finds {damage:?}, hurt {:?}", report.hurt))),
                false => Ok(()),
            }
        });
        result
    }

    /// Everything that was committed is there, byte by byte.
    fn reads_all(
        &self,
        repository: &Arc<Repository>,
        without: &[&str],
        new: &[(SnapshotId, &Content)],
    ) -> Result<(), OpsError> {
        let old = self.scene.committed.iter().filter(|(name, _)| !without.contains(*name));
        let old = old.map(|(name, committed)| (*name, committed.id, &committed.content));
        let new = new.iter().map(|(id, content)| ("what is new", *id, *content));
        for (name, id, content) in old.chain(new) {
            let read = read_snapshot(repository, id);
            let read = read.map_err(|error| OpsError::Usage(format!("{name}: {}", explain(&error))))?;
            if read != *content {
                return Err(OpsError::Usage(format!("WRONG BYTES of {name}")));
            }
        }
        self.reads_segments(repository)
    }

    /// All segments are there, byte by byte.
    fn reads_segments(&self, repository: &Repository) -> Result<(), OpsError> {
        for (name, bytes) in &self.scene.segments {
            let read = read_segment(repository, name);
            let read = read.map_err(|error| OpsError::Usage(format!("{name}: {}", explain(&error))))?;
            if read != *bytes {
                return Err(OpsError::Usage(format!("WRONG BYTES of {name}")));
            }
        }
        Ok(())
    }

    /// Decides by what is missing: nothing, or just what rests on the object.
    fn by_loss(&self, lost: &BTreeSet<String>, expected: &[&BTreeSet<String>], said: &[String]) -> Found {
        let named = self.names(said);
        if lost.is_empty() {
            return Ok(if named { Outcome::Says } else { Outcome::Works });
        }
        let expected: BTreeSet<String> = expected.iter().flat_map(|set| set.iter().cloned()).collect();
        let any = expected.contains("*");
        match (any || *lost == expected, named) {
            (true, true) => Ok(Outcome::Loses),
            (true, false) => Ok(Outcome::Silent),
            (false, _) => Err(format!("{lost:?} instead of {expected:?} is lost; said {said:?}")),
        }
    }

    fn list(&self, listed: &mut BTreeSet<String>) -> Found {
        let stage = self.stage(Verb::List);
        let (result, mut said) = stage.does(|repository| {
            let snapshots = Snapshots::load(repository)?;
            let logs = repository.log_stream(STREAM)?;
            let ended = repository.forgotten_logs()?;
            let ended: BTreeSet<LogPackId> = logs
                .found
                .iter()
                .filter(|log| ended.has_ended(repository.registry(), log))
                .map(|log| log.id)
                .collect();
            Ok((snapshots, logs, ended))
        });
        stage.only_adds(&self.objects, &[])?;
        let Ok((snapshots, logs, ended)) = result else { return Ok(self.failed(&said)) };
        let told = snapshots.refused.iter().chain(&logs.refused);
        said.extend(told.map(|(name, error)| format!("{name}: {}", explain(error))));
        let mut facts = BTreeSet::new();
        for view in snapshots.with_forgotten() {
            let Some(name) = self.scene.name_of(&view.id) else { continue };
            let what = if view.forgotten { "forgotten" } else { "snapshot" };
            facts.insert(format!("{what} {name}"));
            let said = [
                ("pin", !view.pinned.is_empty()),
                ("note", !view.notes.is_empty()),
                ("tag", view.tags.contains_key("release")),
            ];
            facts.extend(said.iter().filter(|(_, is)| *is).map(|(what, _)| format!("{what} of {name}")));
        }
        for log in &logs.found {
            let record = &log.record;
            let name = &record.name;
            facts.insert(match record.kind {
                LogRecordKind::Piece => format!("piece {} of {name}", record.piece_offset.unwrap_or(0)),
                LogRecordKind::Gap => format!("gap {name}"),
                LogRecordKind::Conflict => format!("conflict {name}"),
                _ if ended.contains(&log.id) => format!("forgotten {name}"),
                _ => format!("segment {name}"),
            });
        }
        facts.retain(|fact| !self.scene.is_aside(fact));
        listed.clone_from(&facts);
        let Some((kind, harm)) = self.kind else { return Ok(self.worked(&said)) };
        let lost = facts.symmetric_difference(&self.control.listed).cloned().collect();
        let none = BTreeSet::new();
        let partner = if harm == Harm::Swapped { &kind.partner } else { &none };
        self.by_loss(&lost, &[&kind.listed, partner], &said)
    }

    fn restore(&self, lost: &mut BTreeSet<String>) -> Found {
        let stage = self.stage(Verb::Restore);
        let (result, mut said) = stage.does(|repository| {
            let mut told = Vec::new();
            let snapshots = Snapshots::load(repository)?;
            told.extend(snapshots.refused.iter().map(|(name, error)| format!("{name}: {}", explain(error))));
            let gone = ("gone", &self.scene.gone);
            for (name, committed) in self.scene.committed.iter().map(|(name, it)| (*name, it)).chain([gone]) {
                let Some(view) = snapshots.get(&committed.id) else {
                    lost.insert(name.to_owned());
                    continue;
                };
                match restored(repository, &view.snapshot.root, &committed.content) {
                    Ok(()) => {}
                    Err(wrong) if wrong.contains("WRONG") => return Err(OpsError::Usage(wrong)),
                    Err(why) => {
                        told.push(why);
                        lost.insert(name.to_owned());
                    }
                }
            }
            let (_, gone, gone_bytes) = &self.scene.gone_segment;
            for (name, bytes) in self.scene.segments.iter().chain([(gone, gone_bytes)]) {
                match read_segment(repository, name) {
                    Ok(read) if read == *bytes => {}
                    Ok(_) => return Err(OpsError::Usage(format!("WRONG BYTES of {name}"))),
                    Err(error) => {
                        told.push(explain(&error));
                        lost.insert(name.clone());
                    }
                }
                let refused = repository.search_log(STREAM, name)?.refused;
                told.extend(refused.iter().map(|(name, error)| format!("{name}: {}", explain(error))));
            }
            Ok(told)
        });
        stage.only_adds(&self.objects, &["sessions/"])?;
        let told = match result {
            Ok(told) => told,
            Err(wrong) if wrong.contains("WRONG") => return Err(wrong),
            Err(_) => return Ok(self.failed(&said)),
        };
        said.extend(told);
        let Some((kind, harm)) = &self.kind else {
            return if lost.is_empty() { Ok(self.worked(&said)) } else { Err(format!("{lost:?}: {said:?}")) };
        };
        let some = kind.in_parts && *harm == Harm::Flipped && lost.is_subset(&kind.needed);
        self.by_loss(lost, &[if some { lost } else { &kind.needed }], &said)
    }

    fn backup(&self) -> Found {
        let stage = self.stage(Verb::Backup);
        let content = self.scene.everything();
        let run = |repository: &Arc<Repository>| {
            let report = backup(repository, streams(&content), &options(&stage.client, "all of it"))?;
            Ok(report.snapshot.unwrap())
        };
        let (result, said) = stage.does(run);
        let id = match result {
            Ok(id) => id,
            Err(error) => {
                let (changed, new) = stage.changes(&self.objects);
                if !changed.is_empty() || new.iter().any(|name| name.starts_with("snapshots/")) {
                    return Err(format!("{error}, and yet {changed:?} {new:?}"));
                }
                return Ok(self.failed(&said));
            }
        };
        let read = stage.client.read(id);
        let outcome = match &read {
            Ok(read) if *read == content => self.worked(&said),
            Ok(_) => return Err("WRONG BYTES of what was backed up".to_owned()),
            Err(_) => {
                let (result, _) = stage.does(|repository| check(repository, &all(ReadData::All, true)));
                result?;
                let (result, _) = stage.does(run);
                let again = stage.client.read(result?).map_err(|error| {
                    format!("after a check, the next backup cannot be read: {}", explain(&error))
                })?;
                if again != content {
                    return Err("WRONG BYTES of what was backed up after a check".to_owned());
                }
                Outcome::Blind
            }
        };
        undo(stage.store.as_ref(), &self.before, |_| false);
        let (back, _) = stage.does(|repository| self.reads_all(repository, &[], &[(id, &content)]));
        back.map_err(|why| format!("the object being back: {why}"))?;
        Ok(outcome)
    }

    fn archive(&self) -> Found {
        let stage = self.stage(Verb::Archive);
        let late = (segment_name(8), b"a segment that comes late".repeat(50));
        let (result, said) = stage.does(|repository| {
            for (name, bytes) in self.scene.segments.iter().chain([(&late.0, &late.1)]) {
                let pieces = *name == segment_name(4);
                let put = match pieces {
                    false => repository.archive_log(&entry(name), bytes)?,
                    true => {
                        let (first, last) = bytes.split_at(CUT);
                        repository.archive_log_piece(&entry(name), 0, first, None)?;
                        let whole = Some(digest_of(bytes));
                        repository.archive_log_piece(&entry(name), CUT as u64, last, whole)?
                    }
                };
                let (LogPut::Stored(_) | LogPut::Present(_)) = put;
            }
            Ok(())
        });
        let refused = result.is_err();
        if !refused {
            let (read, _) = stage.does(|repository| {
                self.reads_segments(repository)?;
                match read_segment(repository, &late.0)? == late.1 {
                    true => Ok(()),
                    false => Err(OpsError::Usage(format!("WRONG BYTES of {}", late.0))),
                }
            });
            read.map_err(|why| format!("archived, and not there: {why}"))?;
        }
        let (changed, _) = stage.changes(&self.objects);
        if !changed.is_empty() {
            return Err(format!("changed {changed:?}"));
        }
        undo(stage.store.as_ref(), &self.before, |_| false);
        let (read, _) = stage.does(|repository| self.reads_segments(repository));
        read.map_err(|why| format!("the object being back: {why}"))?;
        Ok(if refused { self.failed(&said) } else { self.worked(&said) })
    }

    fn check(&self, lost: &BTreeSet<String>, listed: &BTreeSet<String>) -> Found {
        let stage = self.stage(Verb::Check);
        let (result, mut said) = stage.does(|repository| check(repository, &all(ReadData::All, true)));
        stage.only_adds(&self.objects, &["sessions/", "damaged/", "annotations/"])?;
        let Ok(report) = result else {
            return Ok(self.failed(&said));
        };
        // What cannot be restored is what it says, and the other way round.
        let hurt = report.hurt.iter().chain(&report.hurt_forgotten);
        let hurt: BTreeSet<&str> = hurt.filter_map(|(id, _)| self.scene.name_of(id)).collect();
        for name in self.scene.committed.keys().copied().chain(["gone"]) {
            let shown =
                listed.iter().any(|fact| fact.split_once(' ').is_some_and(|(_, named)| named == name));
            let (is_lost, is_hurt) = (lost.contains(name), hurt.contains(name));
            if shown && is_lost != is_hurt || is_hurt && !is_lost {
                return Err(format!("of {name}: lost {is_lost}, hurt {is_hurt}: {:?}", report.findings));
            }
        }
        let is_lost = |name: &String| lost.contains(name) || self.scene.is_aside(name);
        // Of a merged log pack that is gone, the first and the last.
        let names = |log: &LostLog| log.name.split(" to ").map(str::to_owned).collect::<Vec<_>>();
        if let Some(log) = report.lost_logs.iter().find(|log| !names(log).iter().all(is_lost)) {
            return Err(format!("{} is not lost", log.name));
        }
        let mut worst = None;
        for finding in &report.findings {
            if self.names([finding.to_string()]) {
                worst = worst.max(Some(finding.gravity));
            }
        }
        // What is condemned is told of only by what needs it.
        if self.names(report.affected.iter().flat_map(|affected| &affected.because)) {
            worst = Some(Gravity::Damage);
        }
        said.retain(|line| self.names([line]));
        match (worst, report.is_damaged()) {
            (Some(Gravity::Damage), true) => Ok(Outcome::Says),
            (Some(Gravity::Damage), false) => Err("damage is no damage".to_owned()),
            (_, true) => Err(format!("damage, and it is not named: {:?}", report.findings)),
            (Some(Gravity::Warning), _) => Ok(Outcome::Warns),
            (None, _) if !said.is_empty() => Ok(Outcome::Warns),
            (Some(Gravity::Note), _) => Ok(Outcome::Notes),
            (None, _) => Ok(Outcome::Silent),
        }
    }

    fn prune(&self) -> Found {
        let stage = self.stage(Verb::Prune);
        let app = self.scene.committed["app"].id;
        let (result, mut said) = stage.does(|repository| {
            let snapshots = Snapshots::load_all(repository)?;
            let chosen = by_name(&snapshots, &[app], true)?;
            forget(repository, &snapshots, &chosen)?;
            Ok(())
        });
        let mut refused = result.is_err();
        let mut deleted = false;
        for _ in 0..2 {
            if refused {
                break;
            }
            let (result, more) =
                stage.does(|repository| prune(repository, &PruneOptions::new("test").within(0)));
            said.extend(more);
            refused = result.is_err();
            if refused && deleted {
                return Err(format!("refused at last: {said:?}"));
            }
            deleted |= !stage.changes(&self.objects).0.is_empty();
            stage.clock.advance(86_400);
            stage.client.clock.shift_seconds(86_400);
        }
        if refused {
            stage.only_adds(&self.objects, &["sessions/", "annotations/", "catalog/", "copies/catalog/"])?;
            // It can be forgotten all the same: then it was.
            self.put_back(Verb::Prune, &stage, true, &[], &[])?;
            return Ok(self.failed(&said));
        }
        let outcome = self.worked(&said);
        let back = self.put_back(Verb::Prune, &stage, false, &["app"], &[]);
        match (back, self.kind) {
            (Ok(()), _) => Ok(outcome),
            // Nobody can know of it, and what only it needs goes as if it had never been.
            (Err(_), Some((kind, Harm::Deleted))) if outcome == Outcome::Works && !kind.listed.is_empty() => {
                kind.targets.iter().for_each(|target| stage.store.delete(&target.name).unwrap());
                let without: Vec<&str> = kind.needed.iter().map(String::as_str).chain(["app"]).collect();
                self.is_whole(&stage, &without, &[])?;
                Ok(Outcome::Silent)
            }
            (Err(why), _) => Err(why),
        }
    }

    fn undelete(&self) -> Found {
        let stage = self.stage(Verb::Undelete);
        let gone = &self.scene.gone;
        let (log, name, bytes) = &self.scene.gone_segment;
        let (result, said) = stage.does(|repository| {
            undelete(repository, &[gone.id], "test")?;
            let found = repository.find_log(STREAM, name)?.found;
            let found: Vec<_> = found.into_iter().filter(|found| found.id == *log).collect();
            if found.is_empty() {
                return Err(OpsError::NotFound(format!("{name} is not there")));
            }
            undelete_logs(repository, &found, "test")?;
            Ok(())
        });
        let areas = ["sessions/", "annotations/", "packs/", "index/", "snapshots/", "logs/"];
        stage.only_adds(&self.objects, &areas)?;
        if result.is_err() {
            return Ok(self.failed(&said));
        }
        let read =
            stage.client.read(gone.id).map_err(|error| format!("brought back, and: {}", explain(&error)))?;
        if read != gone.content {
            return Err("WRONG BYTES of what was brought back".to_owned());
        }
        let new = [(gone.id, &gone.content)];
        undo(stage.store.as_ref(), &self.before, |_| false);
        // And it stays.
        for _ in 0..2 {
            stage.does(|repository| prune(repository, &PruneOptions::new("test").within(0))).0?;
            stage.clock.advance(86_400);
        }
        self.is_whole(&stage, &[], &new).map_err(|why| format!("after prunes: {why}"))?;
        let (read, _) = stage.does(|repository| {
            match Snapshots::load_all(repository)?.get(&gone.id).is_some_and(|view| !view.forgotten) {
                true => read_segment(repository, name),
                false => Err(OpsError::NotFound("it is not listed".to_owned())),
            }
        });
        match read {
            Ok(read) if read == *bytes => Ok(self.worked(&said)),
            Ok(_) => Err(format!("WRONG BYTES of {name}")),
            Err(why) => Err(format!("after prunes, {name}: {why}")),
        }
    }

    fn repair(&self) -> Found {
        let stage = self.stage(Verb::Repair);
        let mut said = Vec::new();
        let program = || "test".to_owned();
        for step in 0..4 {
            let (result, more) = stage.does(|repository| {
                match step {
                    0 => drop(check_and_repair(repository, &all(ReadData::All, true))?),
                    1 => {
                        let options = IndexOptions { copy: true, program: program() };
                        IndexPlan::new(repository, options)?.run()?;
                    }
                    2 => drop(PacksPlan::new(repository, PacksOptions::default())?.run()?),
                    _ => {
                        let options = SnapshotsOptions { program: program(), ..SnapshotsOptions::default() };
                        let plan = SnapshotsPlan::run(repository, options, true)?;
                        let copies = repository.snapshots()?.found;
                        for copy in
                            copies.iter().filter(|found| plan.repaired.iter().any(|c| c.id == found.id))
                        {
                            let is_whole = restored(repository, &copy.snapshot.root, &Content::new());
                            is_whole.map_err(|why| OpsError::Usage(format!("WRONG copy: {why}")))?;
                        }
                    }
                }
                Ok(())
            });
            said.extend(more);
            if let Err(error) = result {
                if error.contains("WRONG") {
                    return Err(error);
                }
                self.put_back(Verb::Repair, &stage, true, &[], &[])?;
                return Ok(self.failed(&said));
            }
        }
        match self.is_whole(&stage, &[], &[]) {
            Ok(()) => Ok(Outcome::Heals),
            Err(wrong) if wrong.contains("WRONG") => Err(wrong),
            Err(_) => {
                self.put_back(Verb::Repair, &stage, false, &[], &[])?;
                Ok(Outcome::Stays)
            }
        }
    }
}

/// Runs everything where nothing is damaged, and remembers what there is to compare with.
pub fn control(scene: &Scene) -> Control {
    let mut control = Control::default();
    let nothing = Control::default();
    let ground = Ground::sound(scene, &nothing);
    let mut listed = BTreeSet::new();
    ground.list(&mut listed).unwrap();
    control.listed = listed;
    let (result, said) = {
        let stage = ground.stage(Verb::Check);
        stage.does(|repository| check(repository, &all(ReadData::All, true)))
    };
    control.said.extend(said);
    control.said.extend(result.unwrap().findings.iter().map(ToString::to_string));
    // What a prune rightly deletes.
    let stage = ground.stage(Verb::Prune);
    let app = scene.committed["app"].id;
    let (result, said) = stage.does(|repository| {
        forget(repository, &Snapshots::load_all(repository)?, &[app])?;
        Ok(())
    });
    result.unwrap();
    control.said.extend(said);
    for _ in 0..2 {
        let (result, said) = stage.does(|repository| prune(repository, &PruneOptions::new("test").within(0)));
        result.unwrap();
        control.said.extend(said);
        stage.clock.advance(86_400);
        stage.client.clock.shift_seconds(86_400);
    }
    control.left.insert(Verb::Prune, objects_of(stage.store.as_ref()).into_keys().collect());
    control
}

/// Restores a snapshot into a folder and compares it.
fn restored(
    repository: &Arc<Repository>,
    root: &chronolith::base::BlobId,
    content: &Content,
) -> Result<(), String> {
    let target = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
    let options = RestoreOptions { no_sync: true, ..RestoreOptions::default() };
    let report = RestorePlan::new(repository, root, &[], target.path(), options)
        .and_then(|plan| plan.run())
        .map_err(|error| explain(&error))?;
    let mut missing = false;
    for (name, bytes) in content {
        let path = target.path().join(String::from_utf8_lossy(name).as_ref());
        match std::fs::read(path) {
            Ok(read) if read == *bytes => {}
            Ok(_) => return Err("WRONG BYTES of a restored file".to_owned()),
            Err(_) => missing = true,
        }
    }
    match (report.complete(), missing) {
        (true, false) => Ok(()),
        (true, true) => Err("WRONG: a file is missing and nobody says so".to_owned()),
        (false, _) => {
            Err(report.problems.iter().map(|problem| problem.what.as_str()).collect::<Vec<_>>().join("; "))
        }
    }
}

fn read_segment(repository: &Repository, name: &str) -> Result<Vec<u8>, OpsError> {
    let found = repository.search_log(STREAM, name)?.found;
    let mut bytes = Vec::new();
    repository.read_segment(&found, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(bytes)
}
