//! `chronolith pin`.

use super::marks::say;
use crate::cli::fault::Fault;
use crate::cli::session::Session;
use crate::ops::marks::Mark;
use clap::Args;

/// Pins snapshots: no policy forgets them until they are unpinned
#[derive(Args)]
pub struct Arguments {
    /// The snapshots
    #[arg(value_name = "SNAP", required = true)]
    pub snapshots: Vec<String>,
    /// Why; it is shown to whoever wants to forget them
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("pin snapshots of {}", session.place()?));
    say(session, &arguments.snapshots, &[Mark::Pin { reason: arguments.reason.clone() }], "pinned")
}
