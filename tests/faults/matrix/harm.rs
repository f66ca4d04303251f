//! What is done to objects, and how it is undone.

use super::scene::Objects;
use chronolith::storage::Store;
use std::collections::{BTreeMap, BTreeSet};

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// It is gone.
    Deleted,
    /// Its second half is gone.
    CutShort,
    /// One bit in its middle is another.
    Flipped,
    /// It changes places with another of its kind.
    Swapped,
    /// It is as long as it was, and all zeros.
    Zeroed,
    /// An older one of its kind stands in its place.
    Replayed,
    /// It was rightly deleted, and is there again.
    Returned,
}

/// What happens to whatever is there.
pub const HARMS: [Harm; 6] =
    [Harm::Deleted, Harm::CutShort, Harm::Flipped, Harm::Swapped, Harm::Zeroed, Harm::Replayed];

impl Harm {
    /// The word that stands for it in the table.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::CutShort => "cut",
            Self::Flipped => "flipped",
            Self::Swapped => "swapped",
            Self::Zeroed => "zeroed",
            Self::Replayed => "replayed",
            Self::Returned => "returned",
        }
    }
}

/// An object to be harmed.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// One of its kind that changes places with it.
    pub other: Option<String>,
    /// Bytes of an older one; of an object that returns, its own.
    pub older: Vec<u8>,
}

/// A kind of object, and what rests on the one that is harmed.
#[derive(Debug, Clone)]
pub struct Kind {
    /// As the table calls it.
    pub name: &'static str,
    /// What is harmed: one object, or both its copies.
    pub targets: Vec<Target>,
    /// What a swap puts in its place where there is no other of its kind.
    pub foreign: Option<Vec<u8>>,
    /// What a listing shows otherwise once it cannot be read.
    pub listed: BTreeSet<String>,
    /// The same of what it changes places with.
    pub partner: BTreeSet<String>,
    /// What cannot be restored without it.
    pub needed: BTreeSet<String>,
    /// Whether what needs it needs a part of it each, so that a flipped bit harms some.
    pub in_parts: bool,
    /// What it is called where nobody can know its name.
    pub called: Option<&'static str>,
    /// What may happen to it.
    pub harms: Vec<Harm>,
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Kind {
    pub fn new(name: &'static str, targets: Vec<Target>) -> Self {
        let none = BTreeSet::new;
        let harms = HARMS.to_vec();
        Self {
            name,
            targets,
            foreign: None,
            listed: none(),
            partner: none(),
            needed: none(),
            in_parts: false,
            called: None,
            harms,
        }
    }

    /// Says what a listing shows otherwise once it cannot be read.
    pub fn listed(&mut self, names: &[&str]) -> &mut Self {
        self.listed = set(names);
        self
    }

    /// Says the same of what it changes places with.
    pub fn partner(&mut self, names: &[&str]) -> &mut Self {
        self.partner = set(names);
        self
    }

    /// Says what cannot be restored without it.
    pub fn needed(&mut self, names: &[&str]) -> &mut Self {
        self.needed = set(names);
        self
    }

    /// Says that what needs it needs a part of it each.
    pub fn in_parts(&mut self) -> &mut Self {
        self.in_parts = true;
        self
    }

    /// Says what it is called where nobody can know its name.
    pub fn called(&mut self, words: &'static str) -> &mut Self {
        self.called = Some(words);
        self
    }

    /// Harms objects; returns what was there before, by the names of all that were touched.
    pub fn apply(&self, harm: Harm, objects: &mut Objects) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut before = BTreeMap::new();
        for target in &self.targets {
            let original = objects.get(&target.name).map(|(bytes, _)| bytes.clone());
            before.insert(target.name.clone(), original.clone());
            let Some(original) = original else {
                assert_eq!(harm, Harm::Returned, "{} is not there", target.name);
                let newest = objects.values().map(|(_, modified)| *modified).max().unwrap_or_default();
                objects.insert(target.name.clone(), (target.older.clone(), newest));
                continue;
            };
            let bytes = match harm {
                Harm::Deleted => {
                    objects.remove(&target.name);
                    continue;
                }
                Harm::CutShort => original[..original.len() / 2].to_vec(),
                Harm::Flipped => {
                    let mut bytes = original;
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    bytes
                }
                Harm::Swapped => match (&target.other, &self.foreign) {
                    (Some(other), _) => {
                        let place = objects.get_mut(other).unwrap();
                        let bytes = std::mem::replace(&mut place.0, original);
                        before.insert(other.clone(), Some(bytes.clone()));
                        bytes
                    }
                    (None, foreign) => foreign.clone().unwrap(),
                },
                Harm::Zeroed => vec![0; original.len()],
                Harm::Replayed => target.older.clone(),
                Harm::Returned => panic!("{} is there", target.name),
            };
            objects.get_mut(&target.name).unwrap().0 = bytes;
        }
        before
    }
}

/// Puts objects back as they were, but for those that are rightly gone by now.
pub fn undo(store: &dyn Store, before: &BTreeMap<String, Option<Vec<u8>>>, gone: impl Fn(&str) -> bool) {
    for (name, bytes) in before {
        let Some(bytes) = bytes else { continue };
        let is_there = store.head(name).is_ok();
        if !is_there && gone(name) {
            continue;
        }
        store.replace(name, bytes).unwrap();
    }
}
