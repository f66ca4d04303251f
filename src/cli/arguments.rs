//! The arguments. What stands here as comments of options is what `help` shows.

use super::commands;
use super::contract::Contract;
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
#[derive(Args, Clone, Debug, Default)]
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

impl Arguments {
    /// Reads the command line. What a server calls for each file of its log is looked for first, by itself: to describe
    /// all commands takes longer than to understand one. Whatever else it is, and whatever is wrong with it, the whole
    /// tells.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or the help that was asked for.
    pub fn read(contract: Contract) -> Result<Self, clap::Error> {
        match contract {
            Contract::Usual => Self::try_parse(),
            Contract::Push | Contract::Get => ServerArguments::try_parse()
                .map_or_else(|_| Self::try_parse(), |arguments| Ok(arguments.into())),
        }
    }
}

/// A command line of which a server calls one for each file of its log.
#[derive(Parser)]
#[command(name = "chronolith")]
struct ServerArguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: ServerCommand,
}

#[derive(Subcommand)]
enum ServerCommand {
    #[command(alias = "postgres")]
    Pg(commands::pg::ServerArguments),
}

impl From<ServerArguments> for Arguments {
    fn from(ServerArguments { global, command: ServerCommand::Pg(pg) }: ServerArguments) -> Self {
        Self { global, command: Command::Pg(pg.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server's command says is the same whether it is looked for by itself or among all.
    #[test]
    fn commands_of_servers_are_read_alike() {
        for line in [
            "chronolith pg archive-push --cluster main pg_wal/000000010000000000000001",
            "chronolith -r /x --key-file /k postgres -q archive-push --async --jobs 3 --spool /s p --json",
            "chronolith pg archive-get --cluster main --prefetch 8 %f %p --no-cache",
            "chronolith pg --profile p archive-get --patience 3 --last 000000010000000000000002 f p --fill-spool",
        ] {
            let words = || line.split(' ');
            let all = Arguments::try_parse_from(words()).unwrap_or_else(|error| panic!("{line}: {error}"));
            let alone: Arguments = ServerArguments::try_parse_from(words()).unwrap().into();
            let shown = |arguments: &Arguments| match &arguments.command {
                Command::Pg(pg) => format!("{:?} {}", arguments.global, pg.show_for_server()),
                _ => panic!("{line}"),
            };
            assert_eq!(shown(&alone), shown(&all));
        }
        // Nothing is taken for such a command that is none, or is not right.
        for line in [
            "chronolith pg timeline",
            "chronolith pg archive-push",
            "chronolith pg archive-push -q -v p",
            "chronolith pg archive-push --password-file a --key-file b p",
            "chronolith pg archive-get --prefetch 2000 f p",
            "chronolith pg archive-get f p --frobnicate",
            "chronolith backup --label pg archive-get",
        ] {
            assert!(ServerArguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
