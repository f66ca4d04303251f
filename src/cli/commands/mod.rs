//! One file a command: its arguments, what it calls, how it shows the result.

pub mod backup;
pub mod cat;
pub mod check;
pub mod completions;
pub mod copy;
pub mod demo;
pub mod diff;
pub mod find;
pub mod forget;
pub mod init;
mod keep;
pub mod key;
pub mod ls;
mod marks;
pub mod mirror;
pub mod note;
pub mod parity;
pub mod pg;
pub mod pin;
pub mod prune;
mod rekey;
pub mod repair;
pub mod restore;
pub mod snapshots;
pub mod stats;
pub mod tag;
pub mod undelete;
pub mod unpin;
pub mod verify;

use super::arguments::Command;
use super::events::Schema;
use super::fault::Fault;
use super::session::Session;

/// Runs a command; returns the exit code.
pub fn run(session: &Session, command: Command) -> Result<u8, Fault> {
    match command {
        Command::Init(arguments) => init::run(session, &arguments),
        Command::Backup(arguments) => backup::run(session, &arguments),
        Command::Key(arguments) => key::run(session, &arguments),
        Command::Snapshots(arguments) => snapshots::run(session, &arguments),
        Command::Ls(arguments) => ls::run(session, &arguments),
        Command::Cat(arguments) => cat::run(session, &arguments),
        Command::Find(arguments) => find::run(session, &arguments),
        Command::Diff(arguments) => diff::run(session, &arguments),
        Command::Forget(arguments) => forget::run(session, &arguments),
        Command::Prune(arguments) => prune::run(session, &arguments),
        Command::Undelete(arguments) => undelete::run(session, &arguments),
        Command::Restore(arguments) => restore::run(session, &arguments),
        Command::Check(arguments) => check::run(session, &arguments),
        Command::Tag(arguments) => tag::run(session, &arguments),
        Command::Pin(arguments) => pin::run(session, &arguments),
        Command::Unpin(arguments) => unpin::run(session, &arguments),
        Command::Note(arguments) => note::run(session, &arguments),
        Command::Verify(arguments) => verify::run(session, &arguments),
        Command::Parity(arguments) => parity::run(session, &arguments),
        Command::Repair(arguments) => repair::run(session, &arguments),
        Command::Copy(arguments) => copy::run(session, &arguments),
        Command::Mirror(arguments) => mirror::run(session, &arguments),
        Command::Stats(arguments) => stats::run(session, &arguments),
        Command::Pg(arguments) => pg::run(session, &arguments),
        Command::Demo(arguments) => demo::run(session, &arguments),
        Command::Completions(arguments) => completions::run(session, &arguments),
    }
}

/// Returns the schema of what a command writes with `--json`.
pub const fn schema(command: &Command) -> Schema {
    let name = match command {
        Command::Init(_) => "init",
        Command::Backup(_) => "backup",
        Command::Key(_) => "key",
        Command::Snapshots(_) => "snapshots",
        Command::Ls(_) => "ls",
        Command::Cat(_) => "cat",
        Command::Find(_) => "find",
        Command::Diff(_) => "diff",
        Command::Forget(_) => "forget",
        Command::Prune(_) => "prune",
        Command::Undelete(_) => "undelete",
        Command::Restore(_) => "restore",
        Command::Check(_) => "check",
        Command::Tag(_) => "tag",
        Command::Pin(_) => "pin",
        Command::Unpin(_) => "unpin",
        Command::Note(_) => "note",
        Command::Verify(_) => "verify",
        Command::Parity(_) => "parity",
        Command::Repair(_) => "repair",
        Command::Copy(_) => "copy",
        Command::Mirror(_) => "mirror",
        Command::Stats(_) => "stats",
        Command::Pg(arguments) => pg::schema_name(arguments),
        Command::Demo(_) => "demo",
        Command::Completions(_) => "completions",
    };
    Schema { name, version: 1 }
}
