//! One repository that holds every kind of object, as a map of objects that each cell has its own copy of.

use super::harm::{Harm, Kind, Target};
use crate::keys::with_role;
use crate::support::SeededEntropy;
use crate::support::world::{Client, Content, ShiftedClock, content, dump, log_entry, noise, streams};
use chronolith::base::{BlobId, Clock, LogPackId, ObjectId, PackId, SnapshotId, Timestamp};
use chronolith::crypto::SignedMessage;
use chronolith::format::annotation::{Annotation, AnnotationKind};
use chronolith::format::cbor::Extra;
use chronolith::format::config::Config;
use chronolith::format::damaged::{Damaged, DamagedObject, Finding};
use chronolith::format::kind::ObjectKind;
use chronolith::format::log::LogDigest;
use chronolith::format::place::Place;
use chronolith::format::session::SessionPurpose;
use chronolith::format::sets::IdSet;
use chronolith::format::trust::{Act, Role};
use chronolith::ops::backup::{BackupOptions, Differences, backup};
use chronolith::ops::catalogue::{gather_logs, gather_now};
use chronolith::ops::forget::{forget, forget_logs};
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::ops::{Snapshots, parity, rotation};
use chronolith::repo::{LogEntry, LogPut, Presence, RepoError};
use chronolith::storage::{MemoryStore, Store};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The log stream of the scene.
pub const STREAM: &str = "pg/main/1";
/// The day on which everything was backed up.
const TODAY: i64 = 1_800_000_000;

/// The store's clock: every write takes a second.
pub struct Ticks(AtomicI64);

impl Ticks {
    /// Lets so many seconds pass.
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for Ticks {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanoseconds(self.0.fetch_add(1, Ordering::SeqCst) * 1_000_000_000)
    }
}

/// Objects as they lie in a store: bytes, and when they were stored.
pub type Objects = BTreeMap<String, (Vec<u8>, Timestamp)>;

/// A store that holds these objects.
pub fn store_of(objects: &Objects, now: i64) -> (Arc<MemoryStore>, Arc<Ticks>) {
    let clock = Arc::new(Ticks(AtomicI64::new(0)));
    let store = MemoryStore::with_clock(clock.clone());
    for (name, (bytes, modified)) in objects {
        clock.0.store(modified.nanoseconds() / 1_000_000_000, Ordering::SeqCst);
        store.put(name, bytes).unwrap();
    }
    clock.0.store(now, Ordering::SeqCst);
    (Arc::new(store), clock)
}

/// Everything that lies in a store.
pub fn objects_of(store: &dyn Store) -> Objects {
    let list = store.list("").unwrap();
    let object = |name: String, modified: Option<Timestamp>| {
        let bytes = store.get(&name, u64::MAX).unwrap();
        (name, (bytes, modified.unwrap_or_default()))
    };
    list.into_iter().map(|info| object(info.name, info.modified)).collect()
}

/// A snapshot that was committed.
pub struct Committed {
    pub id: SnapshotId,
    pub content: Content,
}

/// The repository, and what is known of it.
pub struct Scene {
    pub objects: Objects,
    pub now: i64,
    owner: Client,
    /// Snapshots that are roots, by what the test calls them.
    pub committed: BTreeMap<&'static str, Committed>,
    /// One that is forgotten and condemned, and still there.
    pub gone: Committed,
    /// Segments of the log.
    pub segments: BTreeMap<String, Vec<u8>>,
    /// One that is forgotten and condemned.
    pub gone_segment: (LogPackId, String, Vec<u8>),
    pub kinds: Vec<Kind>,
}

pub fn entry(name: &str) -> LogEntry {
    log_entry(STREAM, name)
}

pub fn segment_name(number: u64) -> String {
    format!("0000000100000000000000{number:02X}")
}

/// A segment that only changes places with others.
const ASIDE: u64 = 6;
/// One that was pruned.
const PRUNED: u64 = 0x10;

/// Segments that lie in merged log packs: one that only changes places with others, one that a catalogue lists, and one that
/// none does.
const MERGED: [[u8; 2]; 3] = [MERGED_ASIDE, MERGED_LISTED, MERGED_PLAIN];
const MERGED_ASIDE: [u8; 2] = [0x30, 0x31];
const MERGED_LISTED: [u8; 2] = [0x34, 0x35];
const MERGED_PLAIN: [u8; 2] = [0x38, 0x39];

/// A segment that may be put together with others: where it lies is known.
fn placed(number: u8) -> LogEntry {
    let start = u64::from(number) << 24;
    LogEntry {
        timeline: Some(1),
        positions: Some((start, start + (1 << 24))),
        ..entry(&segment_name(number.into()))
    }
}

/// Where a segment of two pieces is cut.
pub const CUT: usize = 3000;

/// Length and digest of a segment.
pub fn digest_of(bytes: &[u8]) -> LogDigest {
    LogDigest { length: bytes.len() as u64, blake3: *blake3::hash(bytes).as_bytes() }
}

/// How the scene backs up.
pub fn options(client: &Client, label: &str) -> BackupOptions {
    BackupOptions { label: Some(label.to_owned()), differences: Differences::Always, ..client.options() }
}

impl Scene {
    /// What the test calls a snapshot; nothing of one that only changes places with others.
    pub fn name_of(&self, id: &SnapshotId) -> Option<&'static str> {
        let mut committed = self.committed.iter().map(|(name, committed)| (*name, committed.id));
        let known = committed.find(|(_, known)| known == id).map(|(name, _)| name);
        known.or((self.gone.id == *id).then_some("gone"))
    }

    /// Says whether something speaks of what only changes places with others.
    pub fn is_aside(&self, fact: &str) -> bool {
        let aside = [ASIDE, PRUNED].into_iter().chain(MERGED_ASIDE.map(u64::from));
        aside.into_iter().any(|number| fact.ends_with(&segment_name(number)))
    }

    /// The files of all snapshots.
    pub fn everything(&self) -> Content {
        self.committed.values().flat_map(|committed| committed.content.clone()).collect()
    }

    /// The owner, with a store, a clock and randomness of its own.
    pub fn owner_in(&self, store: Arc<dyn Store>, seed: u64) -> Client {
        Client {
            clock: Arc::new(ShiftedClock::standing_at(TODAY + 100_000)),
            entropy: Arc::new(SeededEntropy::new(seed)),
            ..self.owner.through(store)
        }
    }
}

/// Makes the scene step by step, and knows what each step has stored.
struct Maker {
    owner: Client,
    store: Arc<MemoryStore>,
    /// What was stored and deleted since.
    deleted: Objects,
    committed: BTreeMap<&'static str, Committed>,
    kinds: Vec<Kind>,
}

impl Maker {
    fn begin() -> Self {
        let clock = Arc::new(Ticks(AtomicI64::new(TODAY)));
        let store = Arc::new(MemoryStore::with_clock(clock));
        let entropy = Arc::new(SeededEntropy::new(4711));
        let owner = Client {
            clock: Arc::new(ShiftedClock::standing_at(TODAY)),
            entropy,
            ..Client::holding(store.clone(), vec![9; 32])
        };
        owner.try_init().unwrap();
        Self { owner, store, deleted: Objects::new(), committed: BTreeMap::new(), kinds: Vec::new() }
    }

    /// Does something; returns the objects that it stored, by name.
    fn step<T>(&mut self, does: impl FnOnce(&mut Self) -> T) -> (T, Vec<String>) {
        let before = objects_of(self.store.as_ref());
        let result = does(self);
        let after = objects_of(self.store.as_ref());
        let deleted = before.iter().filter(|(name, _)| !after.contains_key(*name));
        self.deleted.extend(deleted.map(|(name, object)| (name.clone(), object.clone())));
        (result, after.into_keys().filter(|name| !before.contains_key(name)).collect())
    }

    fn back_up(&mut self, client: &Client, label: &str, content: &Content) -> (SnapshotId, Vec<String>) {
        self.owner.clock.shift_seconds(60);
        let client = client.clone();
        self.step(|_| {
            let report = backup(&client.open(), streams(content), &options(&client, label)).unwrap();
            report.snapshot.unwrap()
        })
    }

    /// Backs up what stays a root.
    fn commit(&mut self, client: &Client, name: &'static str, label: &str, content: Content) -> Vec<String> {
        let (id, added) = self.back_up(client, label, &content);
        self.committed.insert(name, Committed { id, content });
        added
    }

    fn forget(&mut self, id: SnapshotId) -> Vec<String> {
        self.owner.clock.shift_seconds(60);
        self.step(|maker| {
            let repository = maker.owner.open();
            forget(&repository, &Snapshots::load(&repository).unwrap(), &[id]).unwrap();
        })
        .1
    }

    fn prune(&mut self, options: &PruneOptions) -> Vec<String> {
        self.step(|maker| prune(&maker.owner.open(), options).unwrap()).1
    }

    fn sweep(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.prune(&PruneOptions::new("test").within(0));
        }
    }

    fn mark(&mut self, kind: AnnotationKind, name: &str, label: &str) -> String {
        let id = self.committed[name].id;
        let (_, mut added) = self.step(|maker| {
            let mut annotation = Annotation::new(kind, maker.owner.clock.now());
            annotation.subjects = [id].into_iter().collect();
            annotation.value = Some("why".to_owned());
            annotation.key = (kind == AnnotationKind::Tag).then(|| "release".to_owned());
            maker.owner.open().annotate(&annotation, Act::Mark { host: "db1", label }).unwrap();
        });
        added.pop().unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.store.get(name, u64::MAX).unwrap()
    }

    /// The packs of a kind among these: 3 content, 4 metadata.
    fn pack(&self, names: &[String], kind: u8) -> String {
        let mut packs = names.iter().filter(|name| name.starts_with("packs/"));
        packs.find(|name| self.bytes(name)[4] == kind).unwrap().clone()
    }

    /// Adds a kind: the object that is harmed, and an older one that changes places with it.
    fn kind(&mut self, name: &'static str, target: &str, other: &str) -> &mut Kind {
        let targets = vec![self.target(target, other)];
        self.kinds.push(Kind::new(name, targets));
        self.kinds.last_mut().unwrap()
    }

    fn target(&self, name: &str, other: &str) -> Target {
        assert_ne!(name, other);
        let older = self.bytes(other);
        assert_ne!(self.bytes(name), older, "{name} and {other} are the same");
        Target { name: name.to_owned(), other: Some(other.to_owned()), older }
    }

    /// Adds three kinds: an object that has a second copy, that copy, and both.
    fn twice(&mut self, names: [&'static str; 3], target: &str, other: &str) {
        let [first, second] =
            ["", "copies/"].map(|area| self.target(&format!("{area}{target}"), &format!("{area}{other}")));
        for (name, targets) in
            names.into_iter().zip([vec![first.clone()], vec![second.clone()], vec![first, second]])
        {
            self.kinds.push(Kind::new(name, targets));
        }
    }

    /// Adds a kind of which an object that was rightly deleted comes back.
    fn returned(&mut self, name: &'static str, choose: impl Fn(&str, &[u8]) -> bool) {
        let found = self.deleted.iter().find(|(name, (bytes, _))| choose(name, bytes));
        let (object, (bytes, _)) = found.unwrap_or_else(|| panic!("{name}: none was deleted"));
        let mut targets = vec![Target { name: object.clone(), other: None, older: bytes.clone() }];
        let copy = format!("copies/{object}");
        if let Some((bytes, _)) = self.deleted.get(&copy) {
            targets.push(Target { name: copy, other: None, older: bytes.clone() });
        }
        self.kinds.push(Kind { harms: vec![Harm::Returned], ..Kind::new(name, targets) });
    }
}

fn one_of(names: &[String], area: &str) -> String {
    names
        .iter()
        .find(|name| name.starts_with(area))
        .unwrap_or_else(|| panic!("no {area} in {names:?}"))
        .clone()
}

fn all_of(names: &[String], area: &str) -> Vec<String> {
    names.iter().filter(|name| name.starts_with(area)).cloned().collect()
}

/// The configuration with another revision, signed by the owner.
fn next_config(client: &Client) -> Vec<u8> {
    let repository = client.open();
    let mut config = repository.config().clone();
    config.revision += 1;
    let encoded = config.encode();
    let number = ObjectKind::Configuration.number();
    let message = SignedMessage::new(repository.id(), number, encoded.as_bytes());
    let signature = repository.keyring().identity.signing.sign(&message);
    Config::finish(encoded, &signature)
}

fn id_of<T: std::str::FromStr>(name: &str) -> T {
    let id = name.rsplit('/').next().unwrap().parse();
    id.unwrap_or_else(|_| panic!("{name} ends in no id"))
}

/// Makes the repository.
pub fn furnish() -> Scene {
    let mut maker = Maker::begin();
    let owner = maker.owner.clone();

    // Of the configuration and of the registry there are older ones.
    let old_config = maker.bytes("chronolith");
    let config = next_config(&owner);
    for name in ["copies/chronolith", "chronolith"] {
        maker.store.replace(name, &config).unwrap();
    }
    let mut foreign = Client::holding(Arc::new(MemoryStore::new()), vec![8; 32]);
    foreign.entropy = Arc::new(SeededEntropy::new(99));
    foreign.try_init().unwrap();
    let foreign_config = foreign.store.get("chronolith", u64::MAX).unwrap();
    let genesis = all_of(
        &maker.store.list("trust/").unwrap().into_iter().map(|o| o.name).collect::<Vec<_>>(),
        "trust/",
    );
    let own_slot = maker.store.list("keys/").unwrap().remove(0).name;
    let (web, added) =
        maker.step(|_| Client { host: "web".to_owned(), ..with_role(&owner, Role::Writer, "web") });
    let (second_trust, web_slot) = (one_of(&added, "trust/"), one_of(&added, "keys/"));

    // What was pruned long ago.
    let swept = content([("swept", noise(11, 9_000))]);
    let (id, _) = maker.back_up(&owner, "swept", &swept);
    let mut segments = BTreeMap::new();
    let early = noise(31, 5_000);
    let (put, _) = maker.step(|_| owner.open().archive_log(&entry(&segment_name(PRUNED)), &early).unwrap());
    let LogPut::Stored(swept_log) = put else { panic!() };
    let old = content([("old.sql", dump(1, 150, 7)), ("old.bin", noise(12, 12_000))]);
    let old_added = maker.commit(&owner, "old", "old", old);
    let old_pin = maker.mark(AnnotationKind::Pin, "old", "old");
    let (_, first_catalogue) = maker.step(|_| gather_now(&owner.open()).unwrap().unwrap());
    maker.forget(id);
    maker.step(|_| {
        let repository = owner.open();
        forget_logs(&repository, &Snapshots::load(&repository).unwrap(), &[swept_log]).unwrap();
    });
    // A sweep records the end of what a catalogue lists.
    let sweeps = (0..3).map(|_| maker.prune(&PruneOptions::new("test").within(0)));
    let second_catalogue: Vec<String> = sweeps.flatten().collect();
    maker.sweep(4);
    let older = content([("older.bin", noise(13, 6_000))]);
    let older_added = maker.commit(&owner, "older", "older", older);
    let (_, third_catalogue) = maker.step(|_| gather_now(&owner.open()).unwrap().unwrap());
    drop(first_catalogue);
    let (_, added_parity) = maker.step(|_| parity::add(&owner.open(), 5).unwrap());

    // Logs: segments, one in pieces, gaps, and bytes that were refused.
    let mut log_names = BTreeMap::new();
    for number in 1..=3 {
        let (name, bytes) = (segment_name(number), noise(40 + number, 6_000));
        let (_, added) = maker.step(|_| owner.open().archive_log(&entry(&name), &bytes).unwrap());
        log_names.insert(number, one_of(&added, "logs/"));
        segments.insert(name, bytes);
    }
    let (name, bytes) = (segment_name(4), noise(44, 6_000));
    let (first, last) = bytes.split_at(CUT);
    let whole = digest_of(&bytes);
    let (_, piece) = maker.step(|_| owner.open().archive_log_piece(&entry(&name), 0, first, None).unwrap());
    let (_, last_piece) =
        maker.step(|_| owner.open().archive_log_piece(&entry(&name), CUT as u64, last, Some(whole)).unwrap());
    segments.insert(name, bytes);
    let mut gap = |from, to| {
        let name = entry(&segment_name(from));
        one_of(
            &maker.step(|_| owner.open().record_gap(&name, &segment_name(to), "a test").unwrap()).1,
            "logs/",
        )
    };
    let (old_gap, new_gap) = (gap(0x20, 0x21), gap(0x24, 0x25));
    let mut conflict = |number| {
        let refused = |_: &mut Maker| {
            let error = owner.open().archive_log(&entry(&segment_name(number)), b"other").unwrap_err();
            assert!(matches!(error, RepoError::LogTaken { .. }), "{error}");
        };
        one_of(&maker.step(refused).1, "logs/")
    };
    let (old_conflict, new_conflict) = (conflict(2), conflict(3));
    let (name, bytes) = (segment_name(5), noise(45, 6_000));
    let (put, going_log) = maker.step(|_| owner.open().archive_log(&entry(&name), &bytes).unwrap());
    let LogPut::Stored(gone_log) = put else { panic!() };
    let (put, aside) =
        maker.step(|_| owner.open().archive_log(&entry(&segment_name(ASIDE)), &noise(46, 5_000)).unwrap());
    let LogPut::Stored(aside_log) = put else { panic!() };
    let gone_segment = (gone_log, name, bytes);

    // Segments that were put together, of which one is on record and one is not, and one that only changes places.
    let mut merged = Vec::new();
    for numbers in MERGED {
        let (_, added) = maker.step(|maker| {
            let repository = owner.open();
            for number in numbers {
                let bytes = noise(u64::from(number), 4_000);
                repository.archive_log(&placed(number), &bytes).unwrap();
                if numbers != MERGED_ASIDE {
                    segments.insert(segment_name(number.into()), bytes);
                }
            }
            let mut found = repository.log_stream(STREAM).unwrap().found;
            found
                .retain(|log| numbers.iter().any(|number| log.record.name == segment_name((*number).into())));
            repository.merge_logs(&found.iter().collect::<Vec<_>>()).unwrap();
            found.iter().for_each(|log| maker.store.delete(&log.object).unwrap());
            if numbers == MERGED_LISTED {
                let folder = repository.log_stream_folder(STREAM);
                let listed = maker.store.list(&format!("{folder}/merged/")).unwrap();
                let snapshots = Snapshots::load_all(&repository).unwrap();
                gather_logs(&repository, &snapshots, &[(folder, listed)].into(), 1);
            }
        });
        merged.push(added.into_iter().find(|name| name.contains("/merged/")).unwrap());
    }

    // Forgotten, announced, and still there.
    let gone_content = content([("gone.bin", noise(14, 12_000))]);
    let (gone_id, gone_added) = maker.back_up(&owner, "gone", &gone_content);
    let (gone_too, gone_too_added) =
        maker.back_up(&owner, "gone", &content([("gone-too.bin", noise(15, 5_000))]));
    let forgetting_too = one_of(&maker.forget(gone_too), "annotations/");
    let first_condemned = one_of(&maker.prune(&PruneOptions::new("test")), "condemned/");
    let forgetting = one_of(&maker.forget(gone_id), "annotations/");
    maker.step(|_| {
        let repository = owner.open();
        forget_logs(&repository, &Snapshots::load(&repository).unwrap(), &[gone_log, aside_log]).unwrap();
    });
    let condemned = one_of(&maker.prune(&PruneOptions::new("test")), "condemned/");

    // What is new.
    let app = noise(16, 16_000);
    let mut changed = app.clone();
    changed.iter_mut().step_by(3001).for_each(|byte| *byte ^= 1);
    let first = content([("app.bin", app.clone())]);
    let app_added = maker.commit(&owner, "app", "app", first);
    // From here on everything is of another epoch, and needs what is of the first.
    let (_, added) = maker.step(|_| rotation::rotate(&owner.open()).unwrap());
    let newest_trust = one_of(&added, "trust/");
    let second = content([("app.bin", app), ("changed.bin", changed)]);
    maker.commit(&owner, "app again", "app", second);
    let plain_added = maker.commit(&owner, "plain", "plain", content([("plain.bin", noise(17, 16_000))]));
    maker.commit(&web, "site", "site", content([("site.bin", noise(18, 9_000))]));
    let doubt_added = maker.commit(&owner, "doubt", "doubt", content([("doubt.bin", noise(19, 9_000))]));
    let pin = maker.mark(AnnotationKind::Pin, "app again", "app");
    let tag = maker.mark(AnnotationKind::Tag, "app again", "app");
    let note = maker.mark(AnnotationKind::Note, "app again", "app");
    let doubted = [maker.pack(&doubt_added, 4), maker.pack(&doubt_added, 3)];
    let reports: Vec<String> = doubted
        .iter()
        .zip([ObjectKind::MetadataPack, ObjectKind::ContentPack])
        .map(|(pack, kind)| one_of(&maker.step(|_| report(&owner, pack, kind)).1, "damaged/"))
        .collect();
    let ended_session = one_of(&all_of(&gone_too_added, "sessions/"), "sessions/");
    let web_repository = web.open();
    let (presence, sessions) = maker.step(|_| {
        Presence::begin(&web_repository, SessionPurpose::Write, IdSet::default(), "a backup").unwrap()
    });
    let mut objects = objects_of(maker.store.as_ref());
    // Sessions that ended are nothing to anybody, and the test is quicker without most of them.
    let last_session = one_of(&plain_added, "sessions/");
    let kept: Vec<&String> = sessions.iter().chain([&ended_session, &last_session]).collect();
    objects.retain(|name, _| !name.starts_with("sessions/") || kept.contains(&name));
    let now = objects.values().map(|(_, modified)| modified.nanoseconds()).max().unwrap() / 1_000_000_000 + 1;

    for (name, areas) in [
        ("configuration", vec![""]),
        ("configuration, its copy", vec!["copies/"]),
        ("configuration, both", vec!["", "copies/"]),
    ] {
        let target = |area: &&str| Target {
            name: format!("{area}chronolith"),
            other: None,
            older: old_config.clone(),
        };
        let kind = Kind::new(name, areas.iter().map(target).collect());
        maker.kinds.push(Kind { foreign: Some(foreign_config.clone()), ..kind });
    }
    let names = ["registry, first", "registry, first, its copy", "registry, first, both"];
    maker.twice(names, &genesis[0], &second_trust);
    let names = ["registry, newest", "registry, newest, its copy", "registry, newest, both"];
    maker.twice(names, &newest_trust, &second_trust);
    let others = ["app again", "doubt", "plain", "site"];
    let mut shown: Vec<String> = others.iter().map(|name| format!("snapshot {name}")).collect();
    shown.extend(["pin", "tag", "note"].iter().map(|what| format!("{what} of app again")));
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    maker.kinds.last_mut().unwrap().listed(&shown).needed(&others).called("registry of trust");
    maker.twice(["own slot", "own slot, its copy", "own slot, both"], &own_slot, &web_slot);
    let names = ["another's slot", "another's slot, its copy", "another's slot, both"];
    maker.twice(names, &web_slot, &own_slot);

    let (plain_pack, app_pack) = (maker.pack(&plain_added, 3), maker.pack(&app_added, 3));
    let old_pack = maker.pack(&old_added, 3);
    let older_pack = maker.pack(&older_added, 3);
    let plain_trees = maker.pack(&plain_added, 4);
    let old_trees = maker.pack(&old_added, 4);
    let gone_pack = maker.pack(&gone_added, 3);
    let gone_too_pack = maker.pack(&gone_too_added, 3);
    maker.kind("content pack", &plain_pack, &gone_too_pack).needed(&["plain"]);
    maker.kind("content pack that two need", &app_pack, &gone_too_pack).needed(&["app", "app again"]);
    maker.kind("content pack with parity", &old_pack, &gone_too_pack).needed(&["old"]);
    maker.kind("content pack, condemned", &gone_pack, &gone_too_pack).needed(&["gone"]);
    let gone_too_trees = maker.pack(&gone_too_added, 4);
    let gone_trees = maker.pack(&gone_added, 4);
    maker.kind("metadata pack", &plain_trees, &gone_too_trees).needed(&["plain"]);
    maker.kind("metadata pack with parity", &old_trees, &gone_too_trees).needed(&["old"]);
    maker.kind("metadata pack, condemned", &gone_trees, &gone_too_trees).needed(&["gone"]);
    drop(older_pack);

    let run = |names: &[String]| one_of(names, "index/");
    maker.kind("index run", &run(&plain_added), &run(&older_added));
    maker.kind("index run with parity", &run(&old_added), &run(&older_added));

    let snapshot = |names: &[String]| one_of(names, "snapshots/");
    let gone_too_snapshot = snapshot(&gone_too_added);
    maker
        .kind("snapshot", &snapshot(&plain_added), &gone_too_snapshot)
        .listed(&["snapshot plain"])
        .needed(&["plain"]);
    maker
        .kind("snapshot in a catalogue", &snapshot(&old_added), &gone_too_snapshot)
        .listed(&["snapshot old", "pin of old"])
        .needed(&["old"]);
    maker
        .kind("snapshot, forgotten", &snapshot(&gone_added), &gone_too_snapshot)
        .listed(&["forgotten gone"])
        .needed(&["gone"]);

    maker.kind("pin", &pin, &forgetting_too).listed(&["pin of app again"]);
    maker.kind("pin in a catalogue", &old_pin, &forgetting_too).listed(&["pin of old"]);
    maker.kind("tag", &tag, &forgetting_too).listed(&["tag of app again"]);
    maker.kind("note", &note, &forgetting_too).listed(&["note of app again"]);
    maker.kind("forgetting", &forgetting, &forgetting_too).listed(&["forgotten gone", "snapshot gone"]);

    let (aside, third_log) = (one_of(&aside, "logs/"), log_names[&3].clone());
    let segment = |number| segment_name(number);
    maker
        .kind("log pack", &third_log, &aside)
        .listed(&[&format!("segment {}", segment(3))])
        .partner(&[&format!("forgotten {}", segment(3))])
        .needed(&[&segment(3)]);
    maker
        .kind("log pack, forgotten", &one_of(&going_log, "logs/"), &aside)
        .listed(&[&format!("forgotten {}", segment(5))])
        .needed(&[&segment(5)]);
    for (name, place, numbers) in
        [("merged log pack", 2, MERGED_PLAIN), ("merged log pack on record", 1, MERGED_LISTED)]
    {
        let names = numbers.map(|number| segment_name(number.into()));
        let facts = names.clone().map(|name| format!("segment {name}"));
        maker
            .kind(name, &merged[place], &merged[0])
            .listed(&facts.each_ref().map(String::as_str))
            .needed(&names.each_ref().map(String::as_str))
            .in_parts();
    }
    maker
        .kind("log piece", &one_of(&last_piece, "logs/"), &one_of(&piece, "logs/"))
        .listed(&[&format!("piece {CUT} of {}", segment(4))])
        .partner(&[&format!("piece 0 of {}", segment(4))])
        .needed(&[&segment(4)]);
    maker
        .kind("log record, gap", &new_gap, &old_gap)
        .listed(&[&format!("gap {}", segment(0x24))])
        .partner(&[&format!("gap {}", segment(0x20))]);
    maker
        .kind("log record, conflict", &new_conflict, &old_conflict)
        .listed(&[&format!("conflict {}", segment(3))])
        .partner(&[&format!("conflict {}", segment(2))]);

    maker.kind("session, living", &one_of(&sessions, "sessions/"), &ended_session);
    maker.kind("session, ended", &last_session, &ended_session);
    maker.kind("condemnation", &condemned, &first_condemned);
    maker.kind("report of damage", &reports[1], &reports[0]);
    let (catalogue, old_catalogue) =
        (one_of(&third_catalogue, "catalog/"), one_of(&second_catalogue, "catalog/"));
    maker.twice(["catalogue", "catalogue, its copy", "catalogue, both"], &catalogue, &old_catalogue);
    maker.kinds.last_mut().unwrap().called("a catalogue");
    let parity_of = |name: &str| {
        let id: ObjectId = id_of(name);
        one_of(&added_parity, &format!("parity/{id}/"))
    };
    let (parity, other_parity) = (parity_of(&old_pack), parity_of(&maker.pack(&older_added, 3)));
    maker.kind("parity", &parity, &other_parity);

    let area = |prefix: &'static str| move |name: &str, _: &[u8]| name.starts_with(prefix);
    maker.returned("content pack that was pruned", |name, bytes| name.starts_with("packs/") && bytes[4] == 3);
    maker
        .returned("metadata pack that was pruned", |name, bytes| name.starts_with("packs/") && bytes[4] == 4);
    // No index run: one that comes back names packs that are gone, which a check cannot tell from packs that were lost.
    maker.returned("snapshot that was pruned", area("snapshots/"));
    maker.returned("forgetting that was pruned", area("annotations/"));
    maker.returned("log pack that was pruned", area("logs/"));
    maker.returned("session that was pruned", area("sessions/"));
    maker.returned("catalogue that was pruned", area("catalog/"));
    drop(presence);

    let gone = Committed { id: gone_id, content: gone_content };
    let Maker { owner, committed, kinds, .. } = maker;
    Scene { objects, now, owner, committed, gone, segments, gone_segment, kinds }
}

/// Says of a pack that is whole that it is damaged.
fn report(client: &Client, pack: &str, kind: ObjectKind) {
    let place = Place::new(kind, "", ObjectId::from(id_of::<PackId>(pack))).unwrap();
    let object = DamagedObject {
        place,
        finding: Finding::Hash,
        blobs: std::iter::empty::<BlobId>().collect(),
        expected_bytes: None,
        found_bytes: None,
        detail: None,
        extra: Extra::new(),
    };
    let damaged = Damaged {
        created: client.clock.now(),
        objects: vec![object],
        method: "test".to_owned(),
        program: "test".to_owned(),
        cancels: std::iter::empty().collect(),
        extra: Extra::new(),
    };
    client.open().report_damage(&damaged).unwrap();
}
