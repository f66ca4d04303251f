//! The arguments. What stands here as comments of options is what `help` shows.

use super::commands;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// The whole command line.
#[derive(Parser)]
#[command(
    name = "chronolith",
    version,
    about = "Backups of databases, files and logs in one deduplicating, encrypted repository",
    disable_help_subcommand = false,
    subcommand_required = true,
    arg_required_else_help = true,
    override_help = super::help::screen()
)]
pub struct Arguments {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The repository: a folder [env: CHRONOLITH_REPO]
    #[arg(short, long, global = true, value_name = "PATH", hide_env = true)]
    pub repo: Option<String>,
    /// Another place that holds the same repository, and gets everything that is written; may be given several times
    #[arg(long, global = true, value_name = "PATH")]
    pub also: Vec<String>,
    /// With --also: in how many of all places a write has to succeed [default: in all]
    #[arg(long, global = true, value_name = "NUMBER")]
    pub quorum: Option<usize>,
    /// A file that holds the password [env: CHRONOLITH_PASSWORD_FILE; the password itself: CHRONOLITH_PASSWORD]
    #[arg(long, global = true, value_name = "FILE", group = "way")]
    pub password_file: Option<PathBuf>,
    /// A shell command that prints the password [env: CHRONOLITH_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND", group = "way")]
    pub password_command: Option<String>,
    /// A key file, or a recovery sheet [env: CHRONOLITH_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", group = "way")]
    pub key_file: Option<PathBuf>,
    /// Writes lines of JSON for programs to standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Says only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Names every item
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Shows no progress
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// The cache folder, which may be deleted at any time [env: CHRONOLITH_CACHE_DIR]
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "no_cache")]
    pub cache_dir: Option<PathBuf>,
    /// Uses no cache folder
    #[arg(long, global = true)]
    pub no_cache: bool,
    /// Does not remember an opened key in the kernel's keyring, where it stays for 15 minutes
    #[arg(long, global = true)]
    pub no_key_cache: bool,
    /// A profile of the configuration file [env: CHRONOLITH_PROFILE; default: "default", if it is there]
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// The configuration file [env: CHRONOLITH_CONFIG; default: ~/.config/chronolith/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    Init(commands::init::Arguments),
    Backup(commands::backup::Arguments),
    Snapshots(commands::snapshots::Arguments),
    Ls(commands::ls::Arguments),
    Cat(commands::cat::Arguments),
    Find(commands::find::Arguments),
    Diff(commands::diff::Arguments),
    Restore(commands::restore::Arguments),
    Tag(commands::tag::Arguments),
    Pin(commands::pin::Arguments),
    Unpin(commands::unpin::Arguments),
    Note(commands::note::Arguments),
    Forget(Box<commands::forget::Arguments>),
    Undelete(commands::undelete::Arguments),
    Prune(commands::prune::Arguments),
    Check(commands::check::Arguments),
    Verify(commands::verify::Arguments),
    Repair(commands::repair::Arguments),
    Parity(commands::parity::Arguments),
    Copy(commands::copy::Arguments),
    Mirror(commands::mirror::Arguments),
    Stats(commands::stats::Arguments),
    Key(commands::key::Arguments),
    #[command(alias = "postgres")]
    Pg(commands::pg::Arguments),
    Demo(commands::demo::Arguments),
    Completions(commands::completions::Arguments),
}
