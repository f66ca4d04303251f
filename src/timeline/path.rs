//! The way over the timelines: which one holds the log at a position, from the first to a chosen one.
//!
//! A timeline begins where it branches off its parent. Recovery to a timeline walks its ancestors in order
//! and leaves each where the next branches off; what an ancestor wrote after that point is on another way.

use std::fmt;

/// A stretch of a way: one timeline from where the way enters it to where it leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// The timeline.
    pub timeline: u64,
    /// Where it branched off its parent; 0 where it has none.
    pub begin: u64,
    /// Where the next one branches off; `None` for the last.
    pub end: Option<u64>,
}

/// Why a way does not lead from a place to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Detour {
    /// The timeline is no ancestor of the chosen one.
    #[error("timeline {timeline} is no ancestor of timeline {last}")]
    Stranger {
        /// Where one is.
        timeline: u64,
        /// Where one wants to go.
        last: u64,
    },
    /// The way has left the timeline before this position.
    #[error("timeline {last} branched off timeline {timeline} before this place")]
    Left {
        /// Where one is.
        timeline: u64,
        /// Where one wants to go.
        last: u64,
        /// Where the way leaves the timeline.
        end: u64,
    },
}

/// The way to a timeline: its ancestors and itself, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelinePath {
    branches: Vec<Branch>,
    last: Branch,
}

/// Why branches make no way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these timelines make no way: {0}")]
pub struct NoPath(&'static str);

impl TimelinePath {
    /// A way of one timeline that never branched off another.
    pub fn root(timeline: u64) -> Self {
        Self { branches: Vec::new(), last: Branch { timeline, begin: 0, end: None } }
    }

    /// Goes on to a timeline that branches off at a position.
    ///
    /// # Errors
    ///
    /// When the number or the position goes back.
    pub fn then(mut self, timeline: u64, at: u64) -> Result<Self, NoPath> {
        if timeline <= self.last.timeline {
            return Err(NoPath("the numbers of the timelines do not grow"));
        }
        if at < self.last.begin {
            return Err(NoPath("a timeline is left before it begins"));
        }
        self.branches.push(Branch { end: Some(at), ..self.last });
        self.last = Branch { timeline, begin: at, end: None };
        Ok(self)
    }

    /// Returns the timeline that the way ends on.
    pub fn last(&self) -> u64 {
        self.last.timeline
    }

    /// Returns the stretches, oldest first.
    pub fn branches(&self) -> impl DoubleEndedIterator<Item = &Branch> {
        self.branches.iter().chain([&self.last])
    }

    /// Returns the parent of the last timeline, and where it branched off.
    pub fn parent(&self) -> Option<(u64, u64)> {
        self.branches.last().map(|parent| (parent.timeline, self.last.begin))
    }

    /// Returns the stretch in which the log at this position lies. A position where one timeline leaves
    /// another belongs to the later.
    pub fn at(&self, position: u64) -> &Branch {
        let before = |branch: &&Branch| branch.end.is_some_and(|end| position < end);
        self.branches.iter().find(before).unwrap_or(&self.last)
    }

    /// Makes sure that whoever has replayed a timeline up to a position is still on this way.
    ///
    /// # Errors
    ///
    /// When the timeline is no ancestor, or was left before that position.
    pub fn follows(&self, timeline: u64, position: u64) -> Result<(), Detour> {
        let last = self.last.timeline;
        let branch = self
            .branches()
            .find(|branch| branch.timeline == timeline)
            .ok_or(Detour::Stranger { timeline, last })?;
        match branch.end {
            Some(end) if position > end => Err(Detour::Left { timeline, last, end }),
            _ => Ok(()),
        }
    }

    /// Shortens the way so that it ends on one of its timelines; `None` if it does not pass there.
    pub fn up_to(&self, timeline: u64) -> Option<Self> {
        if timeline == self.last.timeline {
            return Some(self.clone());
        }
        let index = self.branches.iter().position(|branch| branch.timeline == timeline)?;
        let (before, from) = self.branches.split_at(index);
        let last = Branch { end: None, ..*from.first()? };
        Some(Self { branches: before.to_vec(), last })
    }
}

/// Writes the timelines, oldest first.
impl fmt::Display for TimelinePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, branch) in self.branches().enumerate() {
            if index > 0 {
                f.write_str(" > ")?;
            }
            write!(f, "{}", branch.timeline)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1, then 2 from position 100, then 5 from position 250.
    fn path() -> TimelinePath {
        TimelinePath::root(1).then(2, 100).unwrap().then(5, 250).unwrap()
    }

    #[test]
    fn a_position_lies_on_one_branch() {
        let timeline = |position| path().at(position).timeline;
        assert_eq!([0, 99, 100, 249, 250, 9000].map(timeline), [1, 1, 2, 2, 5, 5]);
        assert_eq!(path().to_string(), "1 > 2 > 5");
        assert_eq!(path().parent(), Some((2, 250)));
    }

    /// R10: a backup that was taken after a timeline branched off cannot follow it.
    #[test]
    fn whoever_went_on_too_far_is_off_the_way() {
        assert_eq!(path().follows(1, 100), Ok(()));
        assert_eq!(path().follows(1, 101), Err(Detour::Left { timeline: 1, last: 5, end: 100 }));
        assert_eq!(path().follows(5, 9000), Ok(()));
        assert_eq!(path().follows(3, 0), Err(Detour::Stranger { timeline: 3, last: 5 }));
    }

    #[test]
    fn a_way_can_end_earlier() {
        assert_eq!(path().up_to(2), TimelinePath::root(1).then(2, 100).ok());
        assert_eq!(path().up_to(5), Some(path()));
        assert_eq!(path().up_to(3), None);
    }

    #[test]
    fn numbers_and_positions_grow() {
        assert!(path().then(5, 300).is_err());
        assert!(path().then(6, 249).is_err());
        // A timeline may be left where it began: a promotion without a write after another.
        assert_eq!(path().then(6, 250).unwrap().at(250).timeline, 6);
    }
}
