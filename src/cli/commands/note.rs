//! `chronolith note`.

use super::marks::say;
use crate::cli::fault::Fault;
use crate::cli::session::Session;
use crate::ops::marks::Mark;
use clap::Args;

/// Writes a note on a snapshot
///
/// Notes stay as long as the snapshot. `chronolith snapshots --note TEXT` finds them, `-v` shows them.
#[derive(Args)]
pub struct Arguments {
    /// The snapshot
    #[arg(value_name = "SNAP")]
    pub snapshot: String,
    /// What is to be noted
    #[arg(value_name = "TEXT")]
    pub text: String,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("write a note on {} in {}", arguments.snapshot, session.place()?));
    let names = [arguments.snapshot.clone()];
    say(session, &names, &[Mark::Note { text: arguments.text.clone() }], "noted")
}
