//! `chronolith pg restore`.

use super::Cluster;
use super::programs::places_of_programs;
use super::server_command::server_command;
use crate::base::{Clock, Observer, Timestamp, explain};
use crate::cli::edges::{self, SystemClock};
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::read_time;
use crate::postgres::Lsn;
use crate::postgres::lineage::Archiver;
use crate::postgres::restore::{
    ClusterRestore, RecoveryAction, RestoreOptions, RestoreReport, Standing, Timeline, start,
};
use crate::timeline::{Certainty, Target};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What the restored server does once it has come to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// It becomes an ordinary server
    Promote,
    /// It waits, and can be read
    Pause,
    /// It shuts down
    Shutdown,
}

/// Restores a base backup, so that the server recovers to a moment when it is started
///
/// Everything is checked before the first byte is written. The server's control file is written last: a
/// restore that was broken off cannot be started, and goes on when it is run again. Give one target, or none
/// for the end of the log.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub cluster: Cluster,
    /// Where the data directory is to be: empty, unless --delta is given
    #[arg(long, value_name = "DIR")]
    pub pgdata: PathBuf,
    /// The end of the log, or as soon as the backup is consistent
    #[arg(long, value_name = "latest|immediate", group = "targets", value_parser = ["latest", "immediate"])]
    pub target: Option<String>,
    /// The last transaction that ended until this instant
    #[arg(long, value_name = "TIME", group = "targets")]
    pub target_time: Option<String>,
    /// This position of the log
    #[arg(long, value_name = "LSN", group = "targets")]
    pub target_lsn: Option<Lsn>,
    /// The end of this transaction
    #[arg(long, value_name = "XID", group = "targets")]
    pub target_xid: Option<u64>,
    /// This restore point (pg_create_restore_point)
    #[arg(long, value_name = "NAME", group = "targets")]
    pub target_name: Option<String>,
    /// As soon as the backup is consistent
    #[arg(long, group = "targets")]
    pub target_immediate: bool,
    /// Ends before the target, which is left out
    #[arg(long)]
    pub target_exclusive: bool,
    /// The timeline to recover along: latest, current (that of the backup), or a number
    #[arg(long, value_name = "T", default_value = "latest", value_parser = timeline)]
    pub target_timeline: Timeline,
    /// What the server does at the target
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Action::Promote)]
    pub target_action: Action,
    /// From this base backup [default: the newest that allows the target]
    #[arg(long, value_name = "SNAP")]
    pub base: Option<String>,
    /// Restores what lies before a hole in the archived log, instead of refusing
    #[arg(long)]
    pub up_to_gap: bool,
    /// Makes a standby, which goes on following the log
    #[arg(long, conflicts_with = "targets")]
    pub standby: bool,
    /// Restores over the same cluster, stopped, and writes only what differs; its name has to be typed
    #[arg(long)]
    pub delta: bool,
    /// The name of the cluster that --delta goes over, where nobody is there to type it
    #[arg(long, value_name = "NAME", requires = "delta")]
    pub confirm: Option<String>,
    /// Where a tablespace goes; OLD is its path or its number; may be given several times
    #[arg(long, value_name = "OLD=NEW")]
    pub tablespace_map: Vec<String>,
    /// A setting for the restored server, such as port=5433; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// The folder of the server's programs [default: looked for]
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// Starts the server and waits until it is up
    #[arg(long)]
    pub start: bool,
    /// Restores over another cluster, without its name being typed, though its log cannot be archived, where
    /// the server's programs are missing, or where the log creates a tablespace at a place that is in use
    #[arg(long)]
    pub force: bool,
    /// Says what would be restored, and changes nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

fn timeline(text: &str) -> Result<Timeline, String> {
    match text {
        "latest" => Ok(Timeline::Latest),
        "current" => Ok(Timeline::OfBase),
        number => match number.parse() {
            Ok(number) if number > 0 => Ok(Timeline::Number(number)),
            _ => Err("a timeline is latest, current, or a number".to_owned()),
        },
    }
}

impl Arguments {
    fn target(&self, session: &Session) -> Result<Target, Fault> {
        let inclusive = !self.target_exclusive;
        if let Some(text) = &self.target_time {
            return Ok(Target::Time { at: target_time(session, text)?, inclusive });
        }
        if let Some(Lsn(at)) = self.target_lsn {
            return Ok(Target::Position { at, inclusive });
        }
        if let Some(number) = self.target_xid {
            return Ok(Target::Transaction { number });
        }
        if let Some(name) = &self.target_name {
            return Ok(Target::Point { name: name.clone() });
        }
        let immediate = self.target_immediate || self.target.as_deref() == Some("immediate");
        if self.target_exclusive {
            return Err(Fault::usage(
                "--target-exclusive needs a target that can be left out",
                "give --target-time, --target-lsn or --target-xid",
            ));
        }
        Ok(if immediate { Target::Immediate } else { Target::Latest })
    }

    fn options(&self, session: &Session, command: Option<String>) -> Result<RestoreOptions, Fault> {
        let data_directory =
            std::path::absolute(&self.pgdata).map_err(|error| Fault::file("find", &self.pgdata, &error))?;
        let mut tablespaces = BTreeMap::new();
        for map in &self.tablespace_map {
            let (old, new) = map.split_once('=').ok_or_else(|| {
                Fault::usage(format!("--tablespace-map {map:?} is not OLD=NEW"), "--tablespace-map /old=/new")
            })?;
            let new =
                std::path::absolute(new).map_err(|error| Fault::file("find", Path::new(new), &error))?;
            tablespaces.insert(old.to_owned(), new);
        }
        Ok(RestoreOptions {
            target: self.target(session)?,
            exclusive: self.target_exclusive,
            timeline: self.target_timeline,
            action: match self.target_action {
                Action::Promote => RecoveryAction::Promote,
                Action::Pause => RecoveryAction::Pause,
                Action::Shutdown => RecoveryAction::Shutdown,
            },
            base: None,
            up_to_gap: self.up_to_gap,
            standby: self.standby,
            delta: self.delta,
            force: self.force,
            tablespaces,
            settings: settings(&self.set)?,
            restore_command: command,
            programs: places_of_programs(self.programs.as_ref()),
            ..RestoreOptions::new(data_directory)
        })
    }
}

/// Reads a target time; one without an offset is taken as local time, and that is said.
pub fn target_time(session: &Session, text: &str) -> Result<Timestamp, Fault> {
    let read = read_time(text, SystemClock.now(), &edges::zone()).ok_or_else(|| {
        Fault::usage(format!("{text:?} is no time that can be read"), "write it as '2026-01-15 14:30:00+01'")
    })?;
    if let Some(other) = read.other {
        return Err(Fault::usage(
            format!(
                "{text:?} was twice, when clocks were set back: {} and {}",
                render::time(read.time),
                render::time(other)
            ),
            "write the offset too",
        ));
    }
    if read.assumed {
        let taken = render::time(read.time);
        session.talk.note(&format!("the target has no offset; it is taken as {taken}"));
    }
    Ok(read.time)
}

/// Reads settings for a restored server.
pub fn settings(given: &[String]) -> Result<Vec<(String, String)>, Fault> {
    let read = |set: &String| {
        let (name, value) = set
            .split_once('=')
            .filter(|(name, _)| is_setting(name))
            .ok_or_else(|| Fault::usage(format!("--set {set:?} is not NAME=VALUE"), "--set port=5433"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    given.iter().map(read).collect()
}

fn is_setting(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let cluster = arguments.cluster.name(session)?;
    session.doing(format!("restore {cluster} into {}", arguments.pgdata.display()));
    let began = Instant::now();
    let command = server_command(session, &cluster, "archive-get", "%f %p");
    let mut options = arguments.options(session, command.as_ref().ok().cloned())?;
    let program = concat!("chronolith ", env!("CARGO_PKG_VERSION")).to_owned();
    options.archiver = Some(Archiver { cluster: cluster.clone(), host: edges::host_name(), program });
    let repository = session.open()?;
    if let Some(name) = &arguments.base {
        options.base = Some(session.snapshots(&repository)?.resolve(name)?.id);
    }
    let restore = ClusterRestore::prepare(&repository, &cluster, options.clone())?;
    if restore.archived {
        command?;
    }
    tell_plan(session, &restore);
    if arguments.dry_run {
        summary(session, &restore, &options, &RestoreReport::default(), true, began)?;
        session.talk.tell("dry run: nothing was written");
        return Ok(exit::DONE);
    }
    if restore.standing == Standing::Cluster && !arguments.force {
        let what = format!("the cluster in {} will be as its backup was", arguments.pgdata.display());
        let whose = "is to be restored over";
        super::confirm(session, arguments.confirm.as_ref(), &cluster, &what, whose)?;
    }
    // Until the server is up it fetches log; without a session only the grace of a prune protects it.
    let held = restore.hold(concat!("chronolith ", env!("CARGO_PKG_VERSION")));
    if let Err(error) = &held {
        session.talk.warn(&format!(
            "no session could be stored, so that a prune waits for nobody: {}",
            explain(error)
        ));
    }
    let report = restore.run()?;
    session.talk.end();
    summary(session, &restore, &options, &report, false, began)?;
    tell_result(session, &restore, &options, &report, began.elapsed().as_secs_f64());
    if arguments.start {
        let programs = restore.programs.as_deref().ok_or_else(|| {
            Fault::usage("the server's programs were not found", "name their folder with --programs")
        })?;
        session.doing(format!("start the restored server in {}", options.data_directory.display()));
        start(programs, &options.data_directory, restore.promotes(), session.talk.as_ref())?;
        session.talk.tell("the server is up");
    }
    Ok(exit::DONE)
}

/// Says in words where the recovery ends.
pub fn describe(target: &Target) -> String {
    let edge = |inclusive: &bool| if *inclusive { "" } else { ", exclusive" };
    match target {
        Target::Latest => "the end of the log".to_owned(),
        Target::Immediate => "where the backup is consistent".to_owned(),
        Target::Time { at, inclusive } => format!("{}{}", render::time(*at), edge(inclusive)),
        Target::Position { at, inclusive } => format!("{}{}", Lsn(*at), edge(inclusive)),
        Target::Transaction { number } => format!("transaction {number}"),
        Target::Point { name } => format!("restore point {name}"),
    }
}

fn tell_plan(session: &Session, restore: &ClusterRestore) {
    let (talk, facts, plan) = (&session.talk, &restore.base.facts, &restore.plan);
    talk.tell(&format!(
        "base backup {} of {}, PostgreSQL {}, ended at {}",
        restore.base.view.id.short(),
        facts.cluster,
        facts.server_version,
        render::time(facts.stopped)
    ));
    if let Some((from, to)) = plan.cut {
        talk.warn(&format!(
            "the archived log has a hole from {} to {}: the recovery ends before it",
            Lsn(from),
            Lsn(to)
        ));
    }
    if plan.certainty == Certainty::Unknown {
        talk.warn("whether the archived log holds the target will show only when the server recovers");
    }
    if !restore.unarchived.is_empty() {
        talk.tell(&format!(
            "{} of the log of the cluster that stands there {} not archived yet, which is done first",
            render::count(restore.unarchived.len() as u64, "file", "files"),
            if restore.unarchived.len() == 1 { "is" } else { "are" }
        ));
    }
    if facts.bad_page_count() > 0 {
        talk.warn(&format!(
            "{} of this base backup had wrong checksums when they were read",
            render::count(facts.bad_page_count(), "page", "pages")
        ));
    }
}

fn summary(
    session: &Session,
    restore: &ClusterRestore,
    options: &RestoreOptions,
    report: &RestoreReport,
    dry_run: bool,
    began: Instant,
) -> Result<(), Fault> {
    let (facts, plan) = (&restore.base.facts, &restore.plan);
    let tablespaces: BTreeMap<String, String> = restore
        .places
        .iter()
        .map(|place| (place.oid.to_string(), place.target.display().to_string()))
        .collect();
    session.talk.event(
        "summary",
        json!({
            "snapshot": restore.base.view.id.to_string(),
            "cluster": facts.cluster,
            "pgdata": options.data_directory.display().to_string(),
            "dry_run": dry_run,
            "seconds": began.elapsed().as_secs_f64(),
            "target": describe(&options.target),
            "timeline": plan.timeline,
            "segments": plan.segment_count,
            "latest": plan.latest.map(events::time),
            "certain": plan.certainty == Certainty::Certain && plan.cut.is_none(),
            "cut": plan.cut.map(|(from, to)| json!({ "from": Lsn(from).to_string(), "to": Lsn(to).to_string() })),
            "archived": restore.archived,
            "delta": restore.standing == Standing::Cluster,
            "tablespaces": tablespaces,
            "files": report.files,
            "unchanged_files": report.unchanged_files,
            "bytes": report.bytes,
            "written_bytes": report.written_bytes,
            "removed": report.removed,
            "unarchived": restore.unarchived.iter().map(|file| &file.name).collect::<Vec<_>>(),
            "log_archived": report.archived,
            "kept_aside": report.kept_aside.as_ref().map(|path| path.display().to_string()),
        }),
    )
}

fn tell_result(
    session: &Session,
    restore: &ClusterRestore,
    options: &RestoreOptions,
    report: &RestoreReport,
    seconds: f64,
) {
    let talk = &session.talk;
    let folder = options.data_directory.display();
    talk.tell(&format!(
        "restored into {folder}: {} in {}, {} written, in {}",
        render::size(report.bytes),
        render::count(report.files, "file", "files"),
        render::size(report.written_bytes),
        render::span(seconds)
    ));
    for place in &restore.places {
        talk.tell(&format!("tablespace {} is in {}", place.oid, place.target.display()));
    }
    if let (Some(first), Some(last)) = (report.archived.first(), report.archived.last()) {
        let files = render::count(report.archived.len() as u64, "file", "files");
        talk.tell(&format!("{files} of its log came into the archive first: {first} to {last}"));
    }
    if let Some(aside) = &report.kept_aside {
        talk.tell(&format!("the old control file and log are kept in {}", aside.display()));
    }
    match (options.standby, restore.archived) {
        (true, true) => talk.tell("it follows the archive as a standby; set primary_conninfo for more"),
        (true, false) => {
            talk.tell("nothing is archived: set primary_conninfo, or this standby follows nobody")
        }
        (false, _) => talk.tell(&format!(
            "started, it recovers along timeline {} to {}",
            restore.plan.timeline,
            describe(&options.target)
        )),
    }
    talk.tell(
        "it does not archive (archive_mode is off): decide where it is to, then ALTER SYSTEM RESET archive_mode",
    );
}
