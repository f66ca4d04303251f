//! `chronolith pg`: PostgreSQL.

pub mod archive_get;
pub mod archive_push;
mod backup;
mod connection;
mod drawing;
mod drill;
mod dump;
mod forget;
mod load;
mod programs;
mod receive;
mod remote;
mod restore;
mod server_command;
mod setup;
mod timeline;
mod upgrade_cluster;

use crate::cli::fault::Fault;
use crate::cli::session::Session;
use crate::cli::unlock;
use crate::postgres::lineage::ClusterName;
use clap::{Args, Subcommand};

/// PostgreSQL: base backups, dumps of databases, and the write-ahead log in an archive
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Setup(setup::Arguments),
    Backup(Box<backup::Arguments>),
    Restore(Box<restore::Arguments>),
    /// Restores here for another host: what `pg restore --remote` starts
    #[command(hide = true)]
    RestoreHere,
    Dump(Box<dump::Arguments>),
    Load(Box<load::Arguments>),
    Drill(Box<drill::Arguments>),
    ArchivePush(archive_push::Arguments),
    ArchiveGet(archive_get::Arguments),
    Receive(receive::Arguments),
    Timeline(timeline::Arguments),
    Forget(Box<forget::Arguments>),
    UpgradeCluster(upgrade_cluster::Arguments),
}

/// The verbs that a server calls for each file of its log, without the others.
#[derive(Args)]
pub struct ServerArguments {
    #[command(subcommand)]
    verb: ServerVerb,
}

#[derive(Subcommand)]
enum ServerVerb {
    ArchivePush(archive_push::Arguments),
    ArchiveGet(archive_get::Arguments),
}

impl From<ServerArguments> for Arguments {
    fn from(ServerArguments { verb }: ServerArguments) -> Self {
        Self {
            verb: match verb {
                ServerVerb::ArchivePush(arguments) => Verb::ArchivePush(arguments),
                ServerVerb::ArchiveGet(arguments) => Verb::ArchiveGet(arguments),
            },
        }
    }
}

#[cfg(test)]
impl Arguments {
    /// Writes what a server's command was told.
    pub fn show_for_server(&self) -> String {
        match &self.verb {
            Verb::ArchivePush(arguments) => format!("{arguments:?}"),
            Verb::ArchiveGet(arguments) => format!("{arguments:?}"),
            _ => panic!("no server calls this"),
        }
    }
}

/// The cluster whose log is meant.
#[derive(Args, Debug)]
pub struct Cluster {
    /// The cluster: one server's history of base backups and log [default: `cluster` of the profile]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

impl Cluster {
    /// Returns the name. It is never guessed.
    pub fn name(&self, session: &Session) -> Result<ClusterName, Fault> {
        let name = self.cluster.as_ref().or(session.settings.cluster.as_ref()).ok_or_else(|| {
            Fault::usage("no cluster was named", "give --cluster NAME, or put `cluster` into the profile")
        })?;
        Ok(ClusterName::new(name)?)
    }
}

/// Makes sure that a cluster is meant: somebody types its name, or gave it. Says `what` becomes of it.
fn confirm(
    session: &Session,
    given: Option<&String>,
    cluster: &ClusterName,
    what: &str,
    whose: &str,
) -> Result<(), Fault> {
    let name = match given {
        Some(name) => name.clone(),
        None if unlock::has_terminal() => {
            unlock::ask_line(&format!("{what}: type its name to go on ({cluster}): "))?
        }
        None => {
            return Err(Fault::usage(
                format!("{what}, and nobody is there to type its name"),
                format!("--confirm {cluster} says that it is meant, or run it on a terminal"),
            ));
        }
    };
    session.check_interrupted()?;
    match name.trim() == cluster.to_string() {
        true => Ok(()),
        false => Err(Fault::usage(
            format!(
                "{:?} is not the name of the cluster, which is {cluster}: nothing was changed",
                name.trim()
            ),
            format!("type the name of the cluster that {whose}"),
        )),
    }
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    match &arguments.verb {
        Verb::Setup(arguments) => setup::run(session, arguments),
        Verb::Backup(arguments) => backup::run(session, arguments),
        Verb::Restore(arguments) => restore::run(session, arguments),
        Verb::RestoreHere => remote::serve(session),
        Verb::Dump(arguments) => dump::run(session, arguments),
        Verb::Load(arguments) => load::run(session, arguments),
        Verb::Drill(arguments) => drill::run(session, arguments),
        Verb::ArchivePush(arguments) => archive_push::run(session, arguments),
        Verb::ArchiveGet(arguments) => archive_get::run(session, arguments),
        Verb::Receive(arguments) => receive::run(session, arguments),
        Verb::Timeline(arguments) => timeline::run(session, arguments),
        Verb::Forget(arguments) => forget::run(session, arguments),
        Verb::UpgradeCluster(arguments) => upgrade_cluster::run(session, arguments),
    }
}

/// Returns the name of the schema of what a command writes with `--json`.
pub const fn schema_name(arguments: &Arguments) -> &'static str {
    match &arguments.verb {
        Verb::Setup(_) => "pg-setup",
        Verb::Backup(_) => "pg-backup",
        Verb::Restore(_) | Verb::RestoreHere => "pg-restore",
        Verb::Dump(_) => "pg-dump",
        Verb::Load(_) => "pg-load",
        Verb::Drill(_) => "pg-drill",
        Verb::ArchivePush(_) => "pg-archive-push",
        Verb::ArchiveGet(_) => "pg-archive-get",
        Verb::Receive(_) => "pg-receive",
        Verb::Timeline(_) => "pg-timeline",
        Verb::Forget(_) => "pg-forget",
        Verb::UpgradeCluster(_) => "pg-upgrade-cluster",
    }
}
