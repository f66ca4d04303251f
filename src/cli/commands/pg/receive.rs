//! `chronolith pg receive`.

use super::Cluster;
use super::connection::Connection;
use crate::base::Observer;
use crate::cli::edges;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::cli::talk::Talk;
use crate::postgres::Lsn;
use crate::postgres::lineage::Archiver;
use crate::postgres::receive::{
    Happening, LISTS_SLOTS, ReceiveOptions, ReceiveReport, drop_slot, receive, slot_status,
};
use crate::postgres::replication::{Endpoint, SlotName};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

/// Receives the write-ahead log through a replication slot, as the server writes it
///
/// What a transaction writes is in the repository within a second, before its segment is full; the server
/// keeps everything that is not. Whole segments are stored as archive-push stores them, once. Goes on until
/// it is stopped (^C, SIGTERM), and makes a lost connection again. The role needs REPLICATION, and a line for
/// the database `replication` in pg_hba.conf.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub cluster: Cluster,
    /// The replication slot: the server keeps its log for it until that is received
    #[arg(long, value_name = "NAME")]
    pub slot: SlotName,
    /// Makes the slot if there is none
    #[arg(long, conflicts_with_all = ["drop_slot", "status"])]
    pub create_slot: bool,
    /// Removes the slot, and receives nothing
    #[arg(long, conflicts_with = "status")]
    pub drop_slot: bool,
    /// Shows where the slot stands, and receives nothing
    #[arg(long)]
    pub status: bool,
    /// How many seconds a transaction may be received and not safe; more makes fewer objects
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub lag: u64,
    /// How often the server hears how far the log is safe when nothing changes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub report_every: u64,
    /// After how many seconds of silence, though it was asked, the server is taken for stuck
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub silence: u64,
    /// Ends when the connection is lost, instead of making it again
    #[arg(long)]
    pub once: bool,
    /// Ends when the log is safe up to this position
    #[arg(long, value_name = "LSN")]
    pub until: Option<Lsn>,
    #[command(flatten)]
    pub connection: Connection,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let endpoint = arguments.connection.endpoint()?;
    if arguments.drop_slot || arguments.status {
        session.watch_signals()?;
        return match arguments.status {
            true => status(session, arguments, &endpoint),
            false => remove(session, arguments, &endpoint),
        };
    }
    let cluster = arguments.cluster.name(session)?;
    session.doing(format!("receive the log of {cluster} into {}", session.place()?));
    let repository = session.open()?;
    let options = ReceiveOptions {
        archiver: Archiver {
            cluster,
            host: edges::host_name(),
            program: concat!("chronolith ", env!("CARGO_PKG_VERSION")).to_owned(),
        },
        slot: arguments.slot.clone(),
        create_slot: arguments.create_slot,
        lag: Duration::from_secs(arguments.lag),
        report_every: Duration::from_secs(arguments.report_every),
        silence: Duration::from_secs(arguments.silence),
        once: arguments.once,
        until: arguments.until,
    };
    let talk = session.talk.clone();
    let report = receive(&repository, &endpoint, &options, &|happening| told(&talk, &happening))?;
    show(session, arguments, &report)?;
    Ok(if report.gaps == 0 { exit::DONE } else { exit::INCOMPLETE })
}

/// Tells what happens, at once: whoever reads it may wait for it.
fn told(talk: &Talk, happening: &Happening) {
    let (name, fields): (&str, Value) = match happening {
        Happening::Streaming { timeline, start } => {
            talk.tell(&format!("receiving timeline {timeline} from {start}"));
            ("streaming", json!({ "timeline": timeline, "start_lsn": start.to_string() }))
        }
        Happening::Segment { name, stored } => {
            talk.item(&format!("{name} {}", if *stored { "is stored" } else { "was stored already" }));
            ("segment", json!({ "name": name.to_string(), "stored": stored }))
        }
        Happening::History { timeline } => {
            talk.tell(&format!("the history of timeline {timeline} is stored"));
            ("history", json!({ "timeline": timeline }))
        }
        Happening::Switched { timeline, at } => {
            talk.tell(&format!("the server goes on with timeline {timeline}, which branches off at {at}"));
            ("switched", json!({ "timeline": timeline, "forked_at": at.to_string() }))
        }
        Happening::Gap { first, last } => {
            talk.warn(&format!(
                "the server no longer has the log from {first} to {last}: recorded as a gap, which no recovery \
                 passes; take a new base backup"
            ));
            ("gap", json!({ "first": first.to_string(), "last": last.to_string() }))
        }
        Happening::Lost { why, pause } => {
            let seconds = pause.as_secs_f64();
            talk.warn(&format!("{why}; next attempt in {}", render::span(seconds)));
            ("lost", json!({ "why": why, "pause_seconds": seconds }))
        }
    };
    // Whoever stopped reading events gets no more; the work goes on.
    let _ = talk.event(name, fields).and_then(|()| talk.flush());
}

fn show(session: &Session, arguments: &Arguments, report: &ReceiveReport) -> Result<(), Fault> {
    session.talk.event(
        "summary",
        json!({
            "slot": arguments.slot.to_string(),
            "timeline": report.timeline,
            "safe_lsn": report.safe.to_string(),
            "segments": report.segments,
            "segments_present": report.present,
            "pieces": report.pieces,
            "bytes": report.bytes,
            "gaps": report.gaps,
            "reconnects": report.reconnects,
        }),
    )?;
    session.talk.tell(&format!(
        "{} received: {} and {} stored; safe up to {} on timeline {}",
        render::size(report.bytes),
        render::count(report.segments, "segment", "segments"),
        render::count(report.pieces, "piece", "pieces"),
        report.safe,
        report.timeline
    ));
    Ok(())
}

fn status(session: &Session, arguments: &Arguments, endpoint: &Endpoint) -> Result<u8, Fault> {
    session.doing(format!("look at the slot {}", arguments.slot));
    let status = slot_status(endpoint, &arguments.slot, session.talk.clone())?;
    let restart = status.slot.and_then(|slot| slot.restart);
    session.talk.event(
        "summary",
        json!({
            "slot": arguments.slot.to_string(),
            "exists": status.slot.is_some(),
            "restart_lsn": restart.map(|(lsn, _)| lsn.to_string()),
            "restart_timeline": restart.map(|(_, timeline)| timeline),
            "kept_bytes": status.kept_bytes(),
            "system_identifier": status.server.system_identifier.to_string(),
            "timeline": status.server.timeline,
            "server_lsn": status.server.position.to_string(),
        }),
    )?;
    if session.settings.json {
        return Ok(if status.slot.is_some() { exit::DONE } else { exit::NOT_FOUND });
    }
    let place = endpoint.place();
    match (status.slot, restart) {
        (None, _) => {
            session.talk.line(&format!("{}: there is no such slot at {place}", arguments.slot))?;
            session.talk.tell(LISTS_SLOTS);
        }
        (Some(_), None) => session.talk.line(&format!("{}: nothing is kept for it", arguments.slot))?,
        (Some(_), Some((lsn, timeline))) => session.talk.line(&format!(
            "{}: stands at {lsn} on timeline {timeline}; the server, at {}, keeps {} for it",
            arguments.slot,
            status.server.position,
            render::size(status.kept_bytes().unwrap_or(0))
        ))?,
    }
    Ok(if status.slot.is_some() { exit::DONE } else { exit::NOT_FOUND })
}

fn remove(session: &Session, arguments: &Arguments, endpoint: &Endpoint) -> Result<u8, Fault> {
    session.doing(format!("remove the slot {}", arguments.slot));
    drop_slot(endpoint, &arguments.slot, session.talk.clone())?;
    session.talk.event("summary", json!({ "slot": arguments.slot.to_string(), "exists": false }))?;
    session.talk.tell(&format!("the slot {} is removed", arguments.slot));
    Ok(exit::DONE)
}
