//! `chronolith pg archive-get`.

use super::Cluster;
use crate::base::Observer;
use crate::cli::fault::{Fault, exit};
use crate::cli::session::Session;
use crate::cli::settings::CachePlace;
use crate::postgres::archive::{Got, Spool, get, is_standby};
use crate::postgres::{LogFile, SegmentName};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// "It is not in the archive": what the server takes for the end of the log.
const ABSENT: u8 = 1;
/// The longest pause between two attempts of a standby.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Segments that may be fetched ahead.
const PREFETCH_MAX: i64 = 1024;

/// Brings back a file of the write-ahead log: the server's restore_command
///
/// restore_command = 'chronolith -r /backup --key-file /etc/key pg archive-get --cluster main %f %p'
///
/// Exits 0 when the file is there, 1 when the archive does not hold it, 126 when anything else is in the
/// way: on 1 a recovering server takes the log for ended, on 126 it stops. A standby (standby.signal without
/// recovery.signal) must not stop for a store that is out of reach: there it tries again for a while, and
/// then exits 1 with a warning.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The file's name: what the server puts for %f
    #[arg(value_name = "%f")]
    pub name: String,
    /// Where to write it: what the server puts for %p
    #[arg(value_name = "%p")]
    pub path: PathBuf,
    #[command(flatten)]
    pub cluster: Cluster,
    /// On a standby: how many seconds to try for
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub patience: u64,
    /// How many of the following segments to fetch ahead, while the server replays this one
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=PREFETCH_MAX))]
    pub prefetch: u16,
    /// The folder for segments that are fetched ahead [default: the cache folder]
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Takes segments behind this one for absent: the log of a drill ends there
    #[arg(long, value_name = "SEGMENT", hide = true)]
    pub last: Option<SegmentName>,
    /// Fetches ahead only: what this command starts by itself
    #[arg(long, hide = true)]
    pub fill_spool: bool,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("bring back {}", arguments.name));
    if arguments.fill_spool {
        return fill(session, arguments);
    }
    let got = match is_standby(&arguments.path) {
        _ if is_behind(arguments) => Got::Absent,
        false => attempt(session, arguments)?,
        true => match patiently(session, arguments) {
            Ok(got) => got,
            Err(fault) => {
                session.talk.warn(&format!(
                    "{} could not be looked for: {}; the standby is told that it is not there yet",
                    arguments.name,
                    fault.why()
                ));
                Got::Absent
            }
        },
    };
    let (code, bytes) = match got {
        Got::Written { bytes } => (exit::DONE, Some(bytes)),
        Got::Beginning { bytes } => {
            session.talk.note(&format!(
                "of {} the first {bytes} bytes are archived: the log ends there",
                arguments.name
            ));
            (exit::DONE, Some(bytes))
        }
        Got::Absent => (ABSENT, None),
    };
    if bytes.is_some() {
        fetch_ahead(session, arguments);
    }
    let fields = json!({ "name": arguments.name, "found": bytes.is_some(), "bytes": bytes });
    session.talk.event("summary", fields)?;
    Ok(code)
}

/// Says whether a segment lies behind the last one that is wanted, on whatever timeline.
fn is_behind(arguments: &Arguments) -> bool {
    let place = |segment: &SegmentName| segment.to_string().split_off(8);
    match (&arguments.last, arguments.name.parse()) {
        (Some(last), Ok(LogFile::Segment(segment))) => place(&segment) > place(last),
        _ => false,
    }
}

fn attempt(session: &Session, arguments: &Arguments) -> Result<Got, Fault> {
    let cluster = arguments.cluster.name(session)?;
    if let Some(spool) = spool(session, arguments)?
        && let Some(bytes) = spool.take(&arguments.name, &arguments.path)?
    {
        return Ok(Got::Written { bytes });
    }
    let repository = session.open_for_server()?;
    Ok(get(&repository, &cluster, &arguments.name, &arguments.path)?)
}

/// Tries until it has an answer or its time is up (R3).
fn patiently(session: &Session, arguments: &Arguments) -> Result<Got, Fault> {
    let until = Instant::now() + Duration::from_secs(arguments.patience);
    let mut pause = Duration::from_millis(250);
    loop {
        let fault = match attempt(session, arguments) {
            Ok(got) => return Ok(got),
            Err(fault) => fault,
        };
        if Instant::now() + pause > until {
            return Err(fault);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn spool(session: &Session, arguments: &Arguments) -> Result<Option<Spool>, Fault> {
    let root = match (&arguments.spool, &session.settings.cache) {
        _ if arguments.prefetch == 0 => return Ok(None),
        (Some(folder), _) | (None, CachePlace::Folder(folder)) => folder,
        (None, CachePlace::None) => return Ok(None),
    };
    let cluster = arguments.cluster.name(session)?;
    Ok(Spool::of(root, session.place()?, &cluster, &arguments.path))
}

/// Starts a process that fetches ahead, once half of what it fetched is used up. What goes wrong with it
/// costs time only: the next command asks the repository itself.
fn fetch_ahead(session: &Session, arguments: &Arguments) {
    let most = usize::from(arguments.prefetch);
    let Ok(Some(spool)) = spool(session, arguments) else { return };
    let Some(ahead) = spool.ahead(&arguments.name, &arguments.path, most) else { return };
    if ahead * 2 <= most {
        session.start_beside("--fill-spool");
    }
}

fn fill(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    if let Some(spool) = spool(session, arguments)? {
        let repository = session.open_for_server()?;
        spool.fill(&repository, &arguments.name, usize::from(arguments.prefetch))?;
    }
    Ok(exit::DONE)
}
