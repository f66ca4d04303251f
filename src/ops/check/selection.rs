//! Which packs a check reads, and in what order.

use crate::base::{PackId, Timestamp};
use crate::format::annotation::{AnnotationKind, Outcome};
use crate::format::trust::Act;
use crate::ops::OpsError;
use crate::repo::Repository;
use std::collections::HashMap;
use std::time::Duration;

/// What the annotations of the ledger say of how it was done: every frame was decrypted.
pub(super) const METHOD_CONTENT: &str = "content";

/// Which packs of content are read.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ReadData {
    /// None: the structure only.
    #[default]
    None,
    /// All.
    All,
    /// This share, the same packs each time.
    Percent(f64),
    /// About as many bytes, the same packs each time.
    Bytes(u64),
    /// One of several parts, which together are all.
    Part {
        /// Which, from 1.
        number: u64,
        /// Of how many.
        of: u64,
    },
    /// Those whose last verification is longest ago, until the time is up.
    OldestFirst {
        /// How long packs may be begun; `None` reads all.
        budget: Option<Duration>,
    },
}

impl ReadData {
    /// Reads a subset as users write it: `5%`, `10G`, `1/7`.
    ///
    /// # Errors
    ///
    /// [`OpsError::Usage`] for anything else.
    pub fn parse(text: &str) -> Result<Self, OpsError> {
        let refuse = || {
            OpsError::Usage(format!(
                "{text:?} is no part of the data: give a percentage (5%), a size (10G) or one of several parts (1/7)"
            ))
        };
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.trim().parse().map_err(|_| refuse())?;
            return if percent > 0.0 && percent <= 100.0 {
                Ok(Self::Percent(percent))
            } else {
                Err(refuse())
            };
        }
        if let Some((number, of)) = text.split_once('/') {
            let (number, of) = (number.trim().parse(), of.trim().parse());
            return match (number, of) {
                (Ok(number), Ok(of)) if number >= 1 && number <= of => Ok(Self::Part { number, of }),
                _ => Err(refuse()),
            };
        }
        match crate::base::units::parse_size(text) {
            Some(bytes) if bytes > 0 => Ok(Self::Bytes(bytes)),
            _ => Err(refuse()),
        }
    }

    /// Puts packs in the order in which they are read, without those that are not.
    pub(super) fn choose(
        &self,
        mut packs: Vec<(PackId, u64)>,
        ledger: &HashMap<PackId, Timestamp>,
    ) -> Vec<(PackId, u64)> {
        // Ids are hashes: any part of one chooses as evenly as chance would, and always alike.
        let head = |id: &PackId| {
            let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
            u64::from_be_bytes([a, b, c, d, e, f, g, h])
        };
        packs.sort_unstable();
        match self {
            Self::None => packs.clear(),
            Self::All => {}
            Self::Percent(percent) => {
                packs.retain(|(id, _)| (head(id) as f64) < percent / 100.0 * (u64::MAX as f64));
            }
            Self::Bytes(bytes) => {
                let mut left = *bytes;
                packs.retain(|(_, length)| {
                    let taken = left > 0;
                    left = left.saturating_sub(*length);
                    taken
                });
            }
            Self::Part { number, of } => packs.retain(|(id, _)| head(id) % of == number - 1),
            Self::OldestFirst { .. } => packs.sort_by_key(|(id, _)| ledger.get(id).copied()),
        }
        packs
    }

    pub(super) fn budget(&self) -> Option<Duration> {
        match self {
            Self::OldestFirst { budget } => *budget,
            _ => None,
        }
    }
}

/// Reads when each pack was last verified, as annotations of believed keys say.
pub(super) fn ledger(repository: &Repository) -> Result<HashMap<PackId, Timestamp>, OpsError> {
    let now = repository.environment().clock.now();
    let mut ledger = HashMap::new();
    repository.visit_annotations(|found| {
        let said = &found.annotation;
        let counts = said.kind == AnnotationKind::Verified
            && said.outcome == Some(Outcome::Passed)
            && said.method.as_deref() == Some(METHOD_CONTENT)
            // A clock that runs ahead must not keep packs from being read again.
            && said.created <= now
            && repository
                .registry()
                .believe("annotation", &found.signer, Act::Verified, &found.id.into())
                .is_ok();
        if counts {
            for pack in said.packs.iter() {
                let last = ledger.entry(*pack).or_insert(said.created);
                *last = (*last).max(said.created);
            }
        }
    })?;
    Ok(ledger)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packs(count: u64) -> Vec<(PackId, u64)> {
        (0..count).map(|number| (PackId::new(*blake3::hash(&number.to_le_bytes()).as_bytes()), 100)).collect()
    }

    #[test]
    fn subsets_as_users_write_them() {
        assert_eq!(ReadData::parse("5%").unwrap(), ReadData::Percent(5.0));
        assert_eq!(ReadData::parse("10G").unwrap(), ReadData::Bytes(10 << 30));
        assert_eq!(ReadData::parse("1/7").unwrap(), ReadData::Part { number: 1, of: 7 });
        for bad in ["", "0%", "101%", "-1%", "NaN%", "0/7", "8/7", "1/0", "x/y", "much", "0"] {
            assert!(ReadData::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_are_all_packs_once() {
        let mut all: Vec<_> = (1..=7)
            .flat_map(|number| ReadData::Part { number, of: 7 }.choose(packs(1000), &HashMap::new()))
            .collect();
        all.sort_unstable();
        let mut expected = packs(1000);
        expected.sort_unstable();
        assert_eq!(all, expected);
    }

    #[test]
    fn shares_are_about_that_share_and_grow_into_each_other() {
        let choose = |percent| ReadData::Percent(percent).choose(packs(1000), &HashMap::new());
        let (few, more) = (choose(5.0), choose(20.0));
        assert!((30..80).contains(&few.len()) && (150..250).contains(&more.len()));
        assert!(few.iter().all(|pack| more.contains(pack)));
        assert_eq!(choose(100.0).len(), 1000);
        assert_eq!(ReadData::Bytes(950).choose(packs(1000), &HashMap::new()).len(), 10);
    }

    #[test]
    fn what_was_never_verified_comes_first() {
        let packs = packs(3);
        let time = Timestamp::from_nanoseconds;
        let ledger = HashMap::from([(packs[0].0, time(20)), (packs[1].0, time(10))]);
        let order = ReadData::OldestFirst { budget: None }.choose(packs.clone(), &ledger);
        assert_eq!(order, [packs[2], packs[1], packs[0]]);
    }
}
