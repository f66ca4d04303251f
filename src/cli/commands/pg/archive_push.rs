//! `chronolith pg archive-push`.

use super::Cluster;
use crate::cli::edges;
use crate::cli::fault::{Fault, exit};
use crate::cli::session::Session;
use crate::cli::settings::CachePlace;
use crate::postgres::archive::{Handed, Receipts, is_waiting, push_handed};
use crate::postgres::lineage::Archiver;
use crate::repo::{LogPut, Repository};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Waiting files that are worth a process of their own.
const WORTH_A_PROCESS: usize = 2;

/// Archives a file of the write-ahead log: the server's archive_command
///
/// archive_command = 'chronolith -r /backup --key-file /etc/key pg archive-push --cluster main %p'
///
/// Exits 0 only when the file is safely stored, 1 to 125 otherwise. A file that is archived already is a
/// success; other bytes under its name, and the log of another cluster, are refused.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The file: what the server puts for %p
    #[arg(value_name = "%p")]
    pub path: PathBuf,
    #[command(flatten)]
    pub cluster: Cluster,
    /// When files wait: archives them ahead in a process beside the server, which leaves receipts
    #[arg(long = "async")]
    pub ahead: bool,
    /// Files that are archived ahead at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
    /// The folder for receipts [default: the cache folder]
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Archives ahead only: what this command starts by itself
    #[arg(long, hide = true)]
    pub archive_ready: bool,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("archive {}", arguments.path.display()));
    let archiver = Archiver {
        cluster: arguments.cluster.name(session)?,
        host: edges::host_name(),
        program: concat!("chronolith ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let path = arguments.path.clone();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let read = {
        let (path, name) = (path.clone(), name.clone());
        move || Handed::read(&path, &name)
    };
    // Where no receipt may save the reading it goes on while the repository is opened.
    let reading = (!arguments.ahead && !arguments.archive_ready).then(|| std::thread::spawn(read.clone()));
    // Before any receipt is looked at: what is archived, only the repository can say.
    let repository = session.open_for_server()?;
    let receipts = receipts(session, arguments, &archiver, &repository);
    if arguments.archive_ready {
        if let Some(receipts) = receipts {
            let threads = usize::from(arguments.jobs);
            receipts.archive_ready(&repository, &archiver, &arguments.path, threads)?;
        }
        return Ok(exit::DONE);
    }
    let redeemed = receipts.map(|receipts| receipts.redeem(&repository, &arguments.path)).transpose()?;
    if redeemed == Some(true) {
        archive_ahead(session, arguments);
        let fields =
            json!({ "name": name, "bytes": null, "stream": null, "stored": false, "log_pack": null });
        session.talk.event("summary", fields)?;
        return Ok(exit::DONE);
    }
    // Begun first, so that others are archived while this one is; but no segment of a timeline is to be
    // there before its history is.
    let is_history = arguments.path.extension().is_some_and(|extension| extension == "history");
    if !is_history {
        archive_ahead(session, arguments);
    }
    let handed = match reading {
        Some(reading) => reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        None => read(),
    };
    let pushed = push_handed(&repository, &archiver, &path, &name, handed)?;
    if is_history {
        archive_ahead(session, arguments);
    }
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

fn receipts(
    session: &Session,
    arguments: &Arguments,
    archiver: &Archiver,
    repository: &Repository,
) -> Option<Receipts> {
    let root = match (&arguments.spool, &session.settings.cache) {
        _ if !arguments.ahead => return None,
        (Some(folder), _) | (None, CachePlace::Folder(folder)) => folder,
        (None, CachePlace::None) => return None,
    };
    Receipts::of(root, repository, &archiver.cluster, &arguments.path)
}

/// Starts a process that archives what waits. One that is at it already goes on alone; what goes wrong with
/// it costs time only, since this command archives whatever has no receipt.
fn archive_ahead(session: &Session, arguments: &Arguments) {
    if arguments.ahead && is_waiting(&arguments.path, WORTH_A_PROCESS) {
        session.start_beside("--archive-ready");
    }
}
