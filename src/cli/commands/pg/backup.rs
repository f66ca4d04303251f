//! `chronolith pg backup`.

use super::Cluster;
use super::connection::Connection;
use crate::base::Observer;
use crate::cli::commands::backup::{own_folders, parse_tag};
use crate::cli::edges;
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::format::snapshot::SnapshotMode;
use crate::ingest::Effort;
use crate::ops::backup::BackupOptions;
use crate::postgres::SegmentName;
use crate::postgres::base::{
    BaseOptions, BaseReport, LogChoice, LogPlace, base_backup, is_here, missing_log, remote_base_backup,
};
use crate::postgres::lineage::ClusterName;
use crate::repo::Repository;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Files with bad pages that are named one by one.
const BAD_FILES_SHOWN: usize = 20;

/// How often the archive is looked into for what is not there yet.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How the checkpoint is made that a backup begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Checkpoint {
    /// At once, with the load that this brings
    Fast,
    /// Without haste, which may take minutes
    Spread,
}

/// Where the write-ahead log is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// The cluster archives it
    Archive,
    /// Into the snapshot, which is complete in itself then
    #[value(alias = "inside")]
    Stream,
}

/// Takes a base backup of a running server
///
/// Its files are read where they are on this host and this user may read them; else the server sends them over
/// the replication protocol (version 15 or newer), and nothing is put on a disk on the way.
///
/// The server goes on working. Only what changed since the cluster's last base backup is stored, and
/// unchanged files are not read. Page checksums are verified where the cluster has them; pages that do
/// not hold are named, and the exit code is 3 then.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub cluster: Cluster,
    /// The data directory [env: PGDATA, unless another host is named; default: what the server says]
    #[arg(long, value_name = "DIR")]
    pub pgdata: Option<PathBuf>,
    /// Lets the server send its files, also where they could be read here
    #[arg(long, conflicts_with = "pgdata")]
    pub remote: bool,
    /// Reads everything, whatever earlier base backups hold
    #[arg(long, group = "mode")]
    pub full: bool,
    /// Compares with the cluster's newest base backup (the default)
    #[arg(long, group = "mode")]
    pub incremental: bool,
    /// Compares with the cluster's newest full base backup
    #[arg(long, group = "mode")]
    pub differential: bool,
    /// How the server makes the checkpoint that the backup begins with
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Checkpoint::Fast)]
    pub checkpoint: Checkpoint,
    /// Where the write-ahead log goes that the backup needs [default: archive where the server archives, else stream]
    #[arg(long, value_enum, value_name = "WHERE")]
    pub wal: Option<Log>,
    /// How many seconds to wait until the archive holds the log that the backup needs
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub archive_timeout: u64,
    /// Threads that compress and encrypt [default: one a core]
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Tags the snapshot; may be given several times
    #[arg(long, value_name = "K[=V]")]
    pub tag: Vec<String>,
    /// The level of compression, 1 (fast) to 19 (small), or `auto`: 3, and up to 9 while the store is slower
    /// than the processor
    #[arg(long, value_name = "N", default_value = "3", value_parser = super::super::backup::effort)]
    pub level: Effort,
    #[command(flatten)]
    pub connection: Connection,
}

impl Arguments {
    const fn mode(&self) -> SnapshotMode {
        match (self.full, self.differential) {
            (true, _) => SnapshotMode::Full,
            (false, true) => SnapshotMode::Differential,
            (false, false) => SnapshotMode::Incremental,
        }
    }

    const fn log(&self) -> LogChoice {
        match self.wal {
            None => LogChoice::Suitable,
            Some(Log::Archive) => LogChoice::Archive,
            Some(Log::Stream) => LogChoice::Inside,
        }
    }
}

/// Returns the data directory that was named.
pub fn named_data_directory(given: Option<&PathBuf>) -> Option<PathBuf> {
    let variable = || std::env::var_os("PGDATA").filter(|path| !path.is_empty()).map(PathBuf::from);
    given.cloned().or_else(variable)
}

/// Returns the data directory to read. Whoever names another host does not mean the folder that PGDATA names
/// for this one.
fn data_directory(session: &Session, arguments: &Arguments) -> Result<Option<PathBuf>, Fault> {
    if arguments.remote {
        return Ok(None);
    }
    let named = named_data_directory(arguments.pgdata.as_ref());
    if arguments.pgdata.is_none()
        && named.is_some()
        && let Some(host) = arguments.connection.options(None)?.other_host()
    {
        session.talk.note(&format!("PGDATA is left aside: the server on {host} was named"));
        return Ok(None);
    }
    Ok(named)
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let cluster = arguments.cluster.name(session)?;
    session.doing(format!("take a base backup of {cluster} into {}", session.place()?));
    let began = Instant::now();
    let data_directory = data_directory(session, arguments)?;
    let tags = arguments.tag.iter().map(|tag| parse_tag(tag)).collect::<Result<_, _>>()?;
    let mut server = match arguments.connection.open(data_directory.as_deref()) {
        Ok(server) => Some(server),
        // What only an ordinary session knows is left out then.
        Err(fault) if arguments.remote => {
            session.talk.note(&format!("the names of databases are not remembered: {}", fault.why()));
            None
        }
        Err(fault) => return Err(fault),
    };
    let is_remote =
        arguments.remote || (data_directory.is_none() && !server.as_mut().map_or(Ok(false), is_here)?);
    let repository = session.open()?;
    let program = concat!("chronolith ", env!("CARGO_PKG_VERSION"));
    let options = BaseOptions {
        cluster: cluster.clone(),
        data_directory,
        fast: arguments.checkpoint == Checkpoint::Fast,
        log: arguments.log(),
        backup: BackupOptions {
            mode: arguments.mode(),
            tags,
            effort: arguments.level,
            workers: arguments.jobs.unwrap_or(0),
            skipped: own_folders(session, &repository),
            ..BackupOptions::new(&edges::host_name(), &edges::user_name(), program)
        },
    };
    let report = match server {
        Some(server) if !is_remote => base_backup(&repository, server, options)?,
        server => {
            session.talk.note("the server sends its files");
            remote_base_backup(&repository, &arguments.connection.endpoint()?, server, options)?
        }
    };
    let missing = await_log(session, &repository, &cluster, &report, arguments.archive_timeout)?;
    session.talk.end();
    show(session, &report, &missing, began.elapsed().as_secs_f64())?;
    let facts = &report.facts;
    let good = facts.bad_pages.is_empty() && facts.warnings.is_empty() && missing.is_empty();
    Ok(if good { exit::DONE } else { exit::INCOMPLETE })
}

/// Waits until all of the log that the backup needs is archived (B11); returns what is not when the time
/// is up.
fn await_log(
    session: &Session,
    repository: &Repository,
    cluster: &ClusterName,
    report: &BaseReport,
    patience_seconds: u64,
) -> Result<Vec<SegmentName>, Fault> {
    let until = Instant::now() + Duration::from_secs(patience_seconds);
    loop {
        let missing = missing_log(repository, cluster, &report.facts)?;
        if missing.is_empty() || Instant::now() >= until {
            return Ok(missing);
        }
        session.check_interrupted()?;
        std::thread::sleep(LOOK_EVERY);
    }
}

fn show(session: &Session, report: &BaseReport, missing: &[SegmentName], seconds: f64) -> Result<(), Fault> {
    let (talk, facts, backup) = (&session.talk, &report.facts, &report.backup);
    for advice in &backup.advice {
        talk.warn(advice);
    }
    for (number, (file, blocks)) in facts.bad_pages.iter().enumerate() {
        talk.event("bad_pages", json!({ "path": file, "blocks": blocks.to_string() }))?;
        if !session.settings.json && number < BAD_FILES_SHOWN {
            talk.warn(&format!("{file}: the checksums of blocks {blocks} do not hold"));
        }
    }
    for warning in &facts.warnings {
        talk.warn(&format!("the server says: {warning}"));
    }
    let databases: Map<String, Value> =
        facts.databases.iter().map(|(name, bytes)| (name.clone(), json!(bytes))).collect();
    talk.event(
        "summary",
        json!({
            "snapshot": backup.snapshot.map(|id| id.to_string()),
            "cluster": facts.cluster,
            "host": backup.host,
            "parent": backup.parent.map(|id| id.to_string()),
            "seconds": seconds,
            "system_identifier": facts.system_identifier.to_string(),
            "server_version": facts.server_version,
            "timeline": facts.timeline,
            "start_lsn": facts.start.to_string(),
            "stop_lsn": facts.stop.to_string(),
            "start_time": events::time(facts.started),
            "stop_time": events::time(facts.stopped),
            "wal": match facts.log { LogPlace::Inside => "stream", LogPlace::Archive => "archive" },
            "wal_missing": missing.iter().map(SegmentName::to_string).collect::<Vec<_>>(),
            "data_checksums": facts.data_checksums,
            "bad_pages": facts.bad_page_count(),
            "warnings": facts.warnings,
            "tablespaces": facts.tablespaces,
            "databases": databases,
            "differences": backup.differences,
            "summary": events::summary(&backup.summary),
        }),
    )?;
    if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
        talk.warn(&format!(
            "{} of the log from {first} to {last} are not in the archive yet: until they are, nothing can be \
             restored from this backup",
            render::count(missing.len() as u64, "segment", "segments")
        ));
    }
    let Some(id) = backup.snapshot else { return Ok(()) };
    let summary = &backup.summary;
    let parent = backup.parent.map_or(String::new(), |id| format!(", compared with {}", id.short()));
    talk.tell(&format!("base backup {} of {}{parent}", id.short(), facts.cluster));
    talk.tell(&format!(
        "{} in {}, {} unchanged, {}: {} new, {} stored",
        render::size(summary.bytes),
        render::count(summary.files, "file", "files"),
        summary.unchanged_files,
        render::span(seconds),
        render::size(summary.new_bytes),
        render::size(summary.stored_bytes)
    ));
    let log = match facts.log {
        LogPlace::Inside => "with the log in it",
        LogPlace::Archive => "with the log in the archive",
    };
    let checked = match (facts.data_checksums, facts.bad_page_count()) {
        (true, 0) => "page checksums hold".to_owned(),
        (true, bad) => format!("{} do not hold", render::count(bad, "page", "pages")),
        (false, _) => "the cluster has no page checksums".to_owned(),
    };
    talk.tell(&format!(
        "timeline {}, {} to {}, until {}, {log}; {checked}",
        facts.timeline,
        facts.start,
        facts.stop,
        render::time(facts.stopped)
    ));
    Ok(())
}
