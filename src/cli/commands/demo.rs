//! `chronolith demo`.

use crate::cli::demo;
use crate::cli::fault::Fault;
use crate::cli::session::Session;
use clap::Args;

/// Shows the whole way on real databases, in a temporary folder, and compares row by row
///
/// Makes a SQLite database, takes a consistent copy, backs it up, changes it, backs it up again and
/// restores the first; where PostgreSQL is installed, the same with dumps of a throw-away server.
#[derive(Args)]
pub struct Arguments {}

/// Runs the command.
pub fn run(session: &Session, _: &Arguments) -> Result<u8, Fault> {
    demo::run(session)
}
