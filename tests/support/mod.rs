//! What several test binaries share: stores that misbehave on purpose, clocks that stand still.
//!
//! The stores implement the public trait, so that production code needs no test switches. Use them
//! with `#[path = "../support/mod.rs"] mod support;`.
#![allow(dead_code, reason = "every test binary uses some of it")]

mod counting;
mod fault;
mod late_list;
pub mod program;
pub mod repository;
pub mod server;
mod strict;
mod time;
pub mod world;

#[allow(unused_imports, reason = "every test binary uses some of it")]
pub use {
    counting::CountingStore,
    fault::{Failure, Fault, FaultStore},
    late_list::LateListStore,
    strict::StrictStore,
    time::{ManualClock, NoSleep, SeededEntropy},
};
