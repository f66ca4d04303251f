//! Log streams: what a write-ahead log and a binary log have in common.
//!
//! A log is a line of positions, cut into segments; timelines branch off it. Nothing here knows PostgreSQL:
//! positions are numbers, names are texts, and an engine's folder says what they mean.
//!
//! - `path`: the way that recovery takes over the timelines
//! - `stream`: what is archived of a log, and how far it reaches from a place on
//! - `interval`: what can be recovered, and where there are holes
//! - `retention`: what of a log is kept
//! - `plan`: what one recovery needs, or why it cannot be

mod interval;
mod path;
mod plan;
mod retention;
mod stream;

pub use interval::{Gap, Hurt, Interval, gaps, hurt, intervals};
pub use path::{Branch, Detour, NoPath, TimelinePath};
pub use plan::{
    Certainty, RecoveryPlan, Refusal, Target, newest_timeline, plan, plan_from, plan_on_own_timelines,
};
pub use retention::{HeldBase, LogDecision, LogFileAge, LogReason, LogRetention, LogRules};
pub use stream::{LogBase, LogSegment, LogStream, Reach};

#[cfg(test)]
mod tests;
