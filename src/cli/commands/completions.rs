//! `chronolith completions`.

use crate::cli::arguments::Arguments as Whole;
use crate::cli::fault::{Fault, exit, output};
use crate::cli::session::Session;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;

/// Writes what completes commands and options in a shell
///
/// For bash: chronolith completions bash > ~/.local/share/bash-completion/completions/chronolith
#[derive(Args)]
pub struct Arguments {
    /// The shell
    pub shell: Shell,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing("write completions");
    if session.settings.json {
        return Err(Fault::usage("completions are for shells, not JSON", "leave --json out"));
    }
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Whole::command(), "chronolith", &mut script);
    std::io::stdout().write_all(&script).map_err(output)?;
    Ok(exit::DONE)
}
