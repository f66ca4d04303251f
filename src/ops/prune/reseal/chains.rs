//! Chains of differences, as far as roots do not need what they are built on.

use super::super::super::keeper::Keeper;
use crate::repo::{Located, NumberedIndex};

/// Copies at the ends of the chains below one difference that are looked at: more there are only where somebody
/// has made copies of copies.
const ENDS_MAX: usize = 32;

/// Looks down from copies that are relied on.
#[derive(Clone, Copy)]
pub(super) struct Chains<'a> {
    pub index: &'a NumberedIndex,
    pub keeper: &'a Keeper<'a>,
}

impl Chains<'_> {
    /// Says whether a copy is relied on.
    pub fn is_chosen(&self, number: u64) -> bool {
        self.keeper.chosen.get(number)
    }

    /// Says whether a copy is relied on for nothing but what differs from it.
    pub fn is_held(&self, number: u64, copy: &Located) -> bool {
        self.keeper.is_only_base(number, copy)
    }

    /// Returns the copies that a difference is decoded with, where roots do not need them themselves.
    fn below(&self, copy: &Located) -> Vec<(u64, Located)> {
        let mut found = Vec::new();
        let record = &copy.record;
        let Some(base) = record.base.filter(|base| !self.keeper.is_reached(record.class, base)) else {
            return found;
        };
        self.index.copies(record.class, &base, |number, below| {
            if below.record.depth < record.depth && self.is_chosen(number) {
                found.push((number, below));
            }
        });
        found
    }

    /// Returns the lowest copies that only this one and its like hold: each stands alone, or its base is needed by
    /// itself. None where this one holds nothing.
    pub fn ends(&self, copy: &Located) -> Vec<(u64, Located)> {
        let mut ends: Vec<(u64, Located)> = Vec::new();
        let mut open = self.below(copy);
        // Depth falls with every step.
        while let Some((number, copy)) = open.pop() {
            let below = self.below(&copy);
            if !below.is_empty() {
                open.extend(below);
            } else if ends.iter().all(|(known, _)| *known != number) {
                ends.push((number, copy));
            }
            if ends.len() + open.len() > ENDS_MAX {
                break;
            }
        }
        ends
    }

    /// Does the same for a copy that is only a base, which may be such an end itself.
    pub fn ends_from(&self, number: u64, copy: &Located) -> Vec<(u64, Located)> {
        let ends = self.ends(copy);
        if ends.is_empty() { vec![(number, copy.clone())] } else { ends }
    }
}

/// Sealed bytes that a blob takes, by its part of its frame.
pub(super) fn share(copy: &Located) -> u64 {
    let record = &copy.record;
    u64::from(record.sealed_length) * u64::from(record.length) / u64::from(record.plain_length.max(1))
}
