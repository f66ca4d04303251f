//! `chronolith unpin`.

use super::marks::say;
use crate::cli::fault::Fault;
use crate::cli::session::Session;
use crate::ops::marks::Mark;
use clap::Args;

/// Takes all pins off snapshots, by an owner's or maintainer's key
#[derive(Args)]
pub struct Arguments {
    /// The snapshots
    #[arg(value_name = "SNAP", required = true)]
    pub snapshots: Vec<String>,
    /// Why; it stays on record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("unpin snapshots of {}", session.place()?));
    say(session, &arguments.snapshots, &[Mark::Unpin { reason: arguments.reason.clone() }], "unpinned")
}
