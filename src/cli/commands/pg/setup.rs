//! `chronolith pg setup`.

use super::Cluster;
use super::connection::Connection;
use super::server_command::server_command;
use crate::cli::fault::{Fault, exit};
use crate::cli::session::Session;
use crate::postgres::Server;
use crate::postgres::lineage::ClusterName;
use crate::postgres::setup::{Setup, apply, archiver_state, is_archived, look, switch_segment};
use clap::Args;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How often the archive is looked into.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Shows what a server needs so that its log is archived, sets it, proves it
///
/// Without --apply and --check nothing is changed. Give the key that the server is to archive with
/// (--key-file): its path goes into archive_command, and the server's user must be able to read it.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub cluster: Cluster,
    /// Sets what is missing (ALTER SYSTEM)
    #[arg(long, conflicts_with = "check")]
    pub apply: bool,
    /// Replaces another way of archiving
    #[arg(long, requires = "apply")]
    pub force: bool,
    /// Proves that archiving works: ends a segment, and waits until it is in the repository
    #[arg(long)]
    pub check: bool,
    /// How many seconds to wait for that segment
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
    #[command(flatten)]
    pub connection: Connection,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let cluster = arguments.cluster.name(session)?;
    session.doing(format!("set up the archiving of {cluster}"));
    let command = server_command(session, &cluster, "archive-push", "%p")?;
    let mut server = arguments.connection.open(None)?;
    let setup = look(&mut server, &command)?;
    if arguments.check {
        return prove(session, arguments, &cluster, &mut server, &setup);
    }
    if arguments.apply {
        apply(&mut server, &setup, arguments.force)?;
    }
    show(session, arguments, &server, &setup)?;
    Ok(exit::DONE)
}

fn show(session: &Session, arguments: &Arguments, server: &Server, setup: &Setup) -> Result<(), Fault> {
    let talk = &session.talk;
    let settings: Vec<Value> = setup
        .settings
        .iter()
        .map(|s| json!({ "name": s.name, "found": s.found, "wanted": s.wanted, "restart": s.restart }))
        .collect();
    talk.event(
        "summary",
        json!({
            "system_identifier": setup.system_identifier.to_string(),
            "server_version": setup.version,
            "standby": setup.standby,
            "settings": settings,
            "ready": setup.is_ready(),
            "applied": arguments.apply,
            "restart": setup.needs_restart(),
        }),
    )?;
    talk.tell(&format!(
        "PostgreSQL {} at {}, system {}",
        setup.version,
        server.place(),
        setup.system_identifier
    ));
    if setup.is_ready() {
        talk.tell("everything is set; --check proves that it works");
        return Ok(());
    }
    if !session.settings.json {
        for statement in setup.settings.iter().filter_map(|setting| setting.statement()) {
            talk.line(&format!("{statement};"))?;
        }
    }
    if let Some(other) = setup.other_command.as_ref().filter(|_| !arguments.apply) {
        talk.tell(&format!("the log is archived in another way already: {other}"));
    }
    let next = match (arguments.apply, setup.needs_restart()) {
        (true, true) => "it is set; the server must be started anew, then --check proves that it works",
        (true, false) => "it is set; --check proves that it works",
        (false, true) => "--apply sets this; the server must be started anew for it",
        (false, false) => "--apply sets this",
    };
    talk.tell(next);
    Ok(())
}

/// Ends a segment and waits until the repository holds it.
fn prove(
    session: &Session,
    arguments: &Arguments,
    cluster: &ClusterName,
    server: &mut Server,
    setup: &Setup,
) -> Result<u8, Fault> {
    if setup.standby {
        return Err(Fault::usage("the server is a standby, which ends no segments", "check the primary"));
    }
    let off = setup.settings.iter().find(|s| s.name == "archive_mode" && s.wanted.is_some());
    if off.is_some() {
        return Err(Fault::failed(
            "the server does not archive (archive_mode)",
            "pg setup --apply, and a restart",
        ));
    }
    let repository = session.open()?;
    let began = Instant::now();
    let segment = switch_segment(server)?;
    loop {
        if is_archived(&repository, cluster, setup.system_identifier, segment)? {
            break;
        }
        if began.elapsed() >= Duration::from_secs(arguments.timeout) {
            let state = archiver_state(server)?;
            let failed = state.last_failed.map_or(String::new(), |name| {
                format!("; the server failed {} times, last with {name}: its own log says why", state.failed)
            });
            return Err(Fault::failed(
                format!("{segment} is not in the repository after {} seconds{failed}", arguments.timeout),
                "the server's user must be able to run the program, read the key and write the repository",
            ));
        }
        session.check_interrupted()?;
        std::thread::sleep(LOOK_EVERY);
    }
    let seconds = began.elapsed().as_secs_f64();
    session.talk.event(
        "summary",
        json!({ "system_identifier": setup.system_identifier.to_string(), "segment": segment.to_string(), "seconds": seconds }),
    )?;
    session.talk.tell(&format!(
        "{segment} was ended, and came into the repository in {seconds:.1} s: archiving works"
    ));
    Ok(exit::DONE)
}
