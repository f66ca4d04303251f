//! `chronolith pg archive-push`.

use super::Cluster;
use crate::cli::edges;
use crate::cli::fault::{Fault, exit};
use crate::cli::session::Session;
use crate::postgres::archive::push;
use crate::postgres::lineage::Archiver;
use crate::repo::LogPut;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Archives a file of the write-ahead log: the server's archive_command
///
/// archive_command = 'chronolith -r /backup --key-file /etc/key pg archive-push --cluster main %p'
///
/// Exits 0 only when the file is safely stored, 1 to 125 otherwise. A file that is archived already is a
/// success; other bytes under its name, and the log of another cluster, are refused.
#[derive(Args)]
pub struct Arguments {
    /// The file: what the server puts for %p
    #[arg(value_name = "%p")]
    pub path: PathBuf,
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("archive {}", arguments.path.display()));
    let cluster = arguments.cluster.name(session)?;
    let repository = session.open_for_server()?;
    let archiver = Archiver {
        cluster,
        host: edges::host_name(),
        program: concat!("chronolith ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let pushed = push(&repository, &archiver, &arguments.path)?;
    let (stored, id) = match pushed.outcome {
        LogPut::Stored(id) => (true, id),
        LogPut::Present(id) => (false, id),
    };
    session.talk.event(
        "summary",
        json!({
            "name": pushed.name,
            "bytes": pushed.bytes,
            "stream": pushed.stream,
            "stored": stored,
            "log_pack": id.to_string(),
        }),
    )?;
    Ok(exit::DONE)
}
