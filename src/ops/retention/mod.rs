//! Retention: which snapshots a policy keeps, and by which rules.
//!
//! Pure: snapshots, policy, time zone and present are passed in; nothing is read or written.
//!
//! - `policy`: what may be asked for, and how people write it
//! - `period`: calendar periods in a time zone
//! - `plan`: the decision for every snapshot
//!
//! Invariants:
//! - a pinned snapshot is kept, whatever the policy says;
//! - every group keeps at least one snapshot, unless its loss was allowed in so many words;
//! - a time that a writer claims pushes nobody out: a snapshot counts as of the time at which the
//!   store received it where it claims to be younger, never as older than what was committed before it,
//!   and one that claims to be much older than the store saw it takes nobody's place.

mod period;
mod plan;
mod policy;

pub use period::Period;
pub use plan::{Candidate, Decision, Group, Reason, RetentionPlan, plan};
pub use policy::{Amount, Interval, KeepDays, Policy, PolicyError};
