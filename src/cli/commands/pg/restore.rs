//! `chronolith pg restore`.

use super::Cluster;
use super::programs::places_of_programs;
use super::remote::{self, Remote};
use super::server_command::server_command;
use crate::base::{Clock, Observer, Timestamp, explain};
use crate::cli::edges::{self, SystemClock};
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::{OpsError, read_time};
use crate::postgres::Lsn;
use crate::postgres::archive::push_as;
use crate::postgres::lineage::{Archiver, ClusterName};
use crate::postgres::restore::{
    Awaited, ClusterRestore, LeftOut, RecoveryAction, RestoreOptions, RestoreReport, Standing, Timeline,
    Unarchived, start,
};
use crate::repo::{Presence, Repository};
use crate::timeline::{Certainty, Target};
use clap::{Args, Parser, ValueEnum};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    /// Brings the log that the recovery needs along, into pg_wal: the restored server needs no repository
    #[arg(long)]
    pub bring_log: bool,
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
    #[command(flatten)]
    pub remote: Remote,
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

    /// Returns the arguments for another host, on which nothing of them means anything else than here.
    ///
    /// # Errors
    ///
    /// When one cannot be understood, or is no text.
    pub fn words(&self, session: &Session, repository: &Arc<Repository>) -> Result<Vec<String>, Fault> {
        let text = |path: &Path| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| Fault::usage(format!("{} is no text", path.display()), ""))
        };
        // Always brought along: the repository cannot be reached from there.
        let mut words = vec!["--bring-log".to_owned(), format!("--pgdata={}", text(&self.pgdata)?)];
        words.push(format!("--cluster={}", self.cluster.name(session)?));
        let mut add = |name: &str, value: Option<String>| {
            words.extend(value.map(|value| format!("--{name}={value}")));
        };
        add("target", self.target.clone());
        add("target-lsn", self.target_lsn.map(|lsn| lsn.to_string()));
        add("target-xid", self.target_xid.map(|number| number.to_string()));
        add("target-name", self.target_name.clone());
        if let Some(time) = &self.target_time {
            // The other host may live by another clock.
            let time = target_time(session, time)?;
            let exact = jiff::Timestamp::from_nanosecond(i128::from(time.nanoseconds()));
            let exact = exact.map_err(|_| Fault::usage("the target lies too far away", ""))?;
            add("target-time", Some(exact.to_string()));
        }
        let chosen = match self.target_timeline {
            Timeline::Latest => "latest".to_owned(),
            Timeline::OfBase => "current".to_owned(),
            Timeline::Number(number) => number.to_string(),
        };
        add("target-timeline", Some(chosen));
        add("target-action", self.target_action.to_possible_value().map(|value| value.get_name().to_owned()));
        if let Some(name) = &self.base {
            add("base", Some(session.snapshots(repository)?.resolve(name)?.id.to_string()));
        }
        self.tablespace_map.iter().for_each(|map| add("tablespace-map", Some(map.clone())));
        self.set.iter().for_each(|set| add("set", Some(set.clone())));
        add("programs", self.programs.as_deref().map(text).transpose()?);
        let switches = [
            ("target-immediate", self.target_immediate),
            ("target-exclusive", self.target_exclusive),
            ("up-to-gap", self.up_to_gap),
            ("standby", self.standby),
            ("delta", self.delta),
            ("start", self.start),
            ("force", self.force),
            ("dry-run", self.dry_run),
        ];
        words.extend(switches.iter().filter(|(_, on)| *on).map(|(name, _)| format!("--{name}")));
        Ok(words)
    }

    /// Reads the arguments into what the restore is told.
    ///
    /// # Errors
    ///
    /// When one cannot be understood.
    pub fn options(&self, session: &Session, command: Option<String>) -> Result<RestoreOptions, Fault> {
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
            bring_log: self.bring_log,
            programs: places_of_programs(self.programs.as_ref()),
            ..RestoreOptions::new(data_directory)
        })
    }
}

/// Reads a target time; one without an offset is taken as local time, and that is said. A day alone is its begin, as
/// servers take it.
pub fn target_time(session: &Session, text: &str) -> Result<Timestamp, Fault> {
    let is_day = text.trim().len() == 10 && text.trim().chars().all(|c| c.is_ascii_digit() || c == '-');
    let written = if is_day { format!("{} 00:00:00", text.trim()) } else { text.to_owned() };
    let read = read_time(&written, SystemClock.now(), &edges::zone()).ok_or_else(|| {
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

/// Whom a restore asks what only the user, or the host with the repository, can say.
pub trait Asker {
    /// Makes sure that the cluster is meant which stands there.
    fn confirm(&self, what: &str, whose: &str) -> Result<(), Fault>;
    /// Says to whoever deletes that the backup is read, until what is returned is dropped; or why nobody is told.
    fn hold(&self, restore: &ClusterRestore) -> Result<Option<Presence>, String>;
    /// Archives a file of the log that only the cluster has which stands there; success means that it is durable.
    fn archive(&self, repository: &Repository, file: &Unarchived) -> Result<(), OpsError>;
    /// Tells programs what was done.
    fn summary(&self, session: &Session, fields: Value) -> Result<(), Fault>;
}

/// Whoever runs this program here.
struct Here<'a> {
    session: &'a Session,
    arguments: &'a Arguments,
    cluster: &'a ClusterName,
}

impl Asker for Here<'_> {
    fn confirm(&self, what: &str, whose: &str) -> Result<(), Fault> {
        super::confirm(self.session, self.arguments.confirm.as_ref(), self.cluster, what, whose)
    }

    fn hold(&self, restore: &ClusterRestore) -> Result<Option<Presence>, String> {
        let held = restore.hold(concat!("chronolith ", env!("CARGO_PKG_VERSION")));
        held.map(Some).map_err(|error| explain(&error))
    }

    fn archive(&self, repository: &Repository, file: &Unarchived) -> Result<(), OpsError> {
        push_as(repository, &archiver(self.cluster), &file.path, &file.name).map(drop)
    }

    fn summary(&self, session: &Session, fields: Value) -> Result<(), Fault> {
        session.talk.event("summary", fields)
    }
}

/// Names this host and program as those who archive.
pub fn archiver(cluster: &ClusterName) -> Archiver {
    let program = concat!("chronolith ", env!("CARGO_PKG_VERSION")).to_owned();
    Archiver { cluster: cluster.clone(), host: edges::host_name(), program }
}

/// Reads arguments that came from another host.
///
/// # Errors
///
/// When they are not understood here.
pub fn parse(words: &[String]) -> Result<Arguments, Fault> {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }
    let line = Line::try_parse_from(std::iter::once("restore").chain(words.iter().map(String::as_str)));
    line.map(|line| line.arguments).map_err(|error| {
        let why = error.to_string().replace('\n', " ");
        Fault::usage(format!("the other host asks for what is not understood here: {why}"), "")
    })
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    if let Some(host) = &arguments.remote.remote {
        return remote::run(session, arguments, host);
    }
    let cluster = arguments.cluster.name(session)?;
    session.doing(format!("restore {cluster} into {}", arguments.pgdata.display()));
    let command = server_command(session, &cluster, "archive-get", "%f %p");
    let options = arguments.options(session, command.as_ref().ok().cloned())?;
    let repository = session.open()?;
    let asker = Here { session, arguments, cluster: &cluster };
    perform(session, arguments, &repository, options, command, &asker)
}

/// Restores here, out of a repository that is here or elsewhere. `command` is what brings the server its log, or why
/// there is none.
///
/// # Errors
///
/// What stands in the way, or failed.
pub fn perform(
    session: &Session,
    arguments: &Arguments,
    repository: &Arc<Repository>,
    mut options: RestoreOptions,
    command: Result<String, Fault>,
    asker: &dyn Asker,
) -> Result<u8, Fault> {
    let began = Instant::now();
    let cluster = arguments.cluster.name(session)?;
    session.doing(format!("restore {cluster} into {}", arguments.pgdata.display()));
    if let Some(name) = &arguments.base {
        options.base = Some(session.snapshots(repository)?.resolve(name)?.id);
    }
    let mut restore = ClusterRestore::prepare(repository, &cluster, options.clone())?;
    if restore.archived && !arguments.bring_log {
        command?;
    }
    tell_plan(session, &restore);
    if arguments.dry_run {
        summary(session, asker, &restore, &options, &RestoreReport::default(), true, began)?;
        session.talk.tell("dry run: nothing was written");
        return Ok(exit::DONE);
    }
    if restore.standing == Standing::Cluster && !arguments.force {
        let what = format!("the cluster in {} will be as its backup was", arguments.pgdata.display());
        let whose = "is to be restored over";
        asker.confirm(&what, whose)?;
    }
    // Until the server is up it fetches log; without a session only the grace of a prune protects it.
    let held = asker.hold(&restore);
    if let Err(why) = &held {
        let text = format!("no session could be stored, so that a prune waits for nobody: {why}");
        session.talk.warn(&text);
    }
    restore.archive_first(&|file| asker.archive(repository, file))?;
    let report = restore.run()?;
    session.talk.end();
    summary(session, asker, &restore, &options, &report, false, began)?;
    tell_result(session, &restore, &options, &report, arguments.start, began.elapsed().as_secs_f64());
    if arguments.start {
        let programs = restore.programs.as_deref().ok_or_else(|| {
            Fault::usage("the server's programs were not found", "name their folder with --programs")
        })?;
        session.doing(format!("start the restored server in {}", options.data_directory.display()));
        let awaited = restore.awaited();
        let log = start(programs, &options.data_directory, awaited, session.talk.as_ref())?;
        session.talk.tell(match awaited {
            Awaited::Promotion | Awaited::Reading => "the server is up",
            Awaited::Shutdown => "the server came to its target and has shut down, as it was to",
        });
        if awaited != Awaited::Shutdown {
            let log = log.display();
            session.talk.note(&format!("until it is started anew, what it says goes into {log}"));
        }
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
    for why in [LeftOut::Copy, LeftOut::Conflict] {
        tell_left_out(session, restore, why);
    }
    if facts.bad_page_count() > 0 {
        talk.warn(&format!(
            "{} of this base backup had wrong checksums when they were read",
            render::count(facts.bad_page_count(), "page", "pages")
        ));
    }
}

/// Says which files of the log that stands there do not come into the archive, and how they are kept.
fn tell_left_out(session: &Session, restore: &ClusterRestore, why: LeftOut) {
    let names = restore.left_out.iter().filter(|(_, reason)| *reason == why);
    let names: Vec<&str> = names.map(|(file, _)| file.name.as_str()).collect();
    let (Some(first), Some(last)) = (names.first(), names.last()) else { return };
    let which = match names.len() {
        1 => (*first).to_owned(),
        count => format!("{} ({first} to {last})", render::count(count as u64, "file", "files")),
    };
    let why = match why {
        LeftOut::Copy => {
            "archiving is off there, as in a restored copy, whose log is not that of the original. Where it is, \
             archive it first (ALTER SYSTEM RESET archive_mode, and start the server)"
        }
        LeftOut::Conflict => {
            "the archive has other bytes under that name, or another timeline of that number"
        }
    };
    session.talk.warn(&format!(
        "{which} of the log of the cluster that stands there will only be kept aside, beside the data directory, and not \
         archived: {why}"
    ));
}

fn left_out(restore: &ClusterRestore) -> Vec<Value> {
    let word = |why: &LeftOut| match why {
        LeftOut::Copy => "copy",
        LeftOut::Conflict => "conflict",
    };
    restore.left_out.iter().map(|(file, why)| json!({ "name": file.name, "why": word(why) })).collect()
}

fn summary(
    session: &Session,
    asker: &dyn Asker,
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
    asker.summary(
        session,
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
            "brought": options.bring_log,
            "delta": restore.standing == Standing::Cluster,
            "tablespaces": tablespaces,
            "files": report.files,
            "unchanged_files": report.unchanged_files,
            "bytes": report.bytes,
            "written_bytes": report.written_bytes,
            "removed": report.removed,
            "unarchived": restore.unarchived.iter().map(|file| &file.name).collect::<Vec<_>>(),
            "log_archived": report.archived,
            "log_left_out": left_out(restore),
            "kept_aside": report.kept_aside.as_ref().map(|path| path.display().to_string()),
        }),
    )
}

fn tell_result(
    session: &Session,
    restore: &ClusterRestore,
    options: &RestoreOptions,
    report: &RestoreReport,
    starts: bool,
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
    let given = |name: &str| options.settings.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
    match (options.standby, restore.archived && !options.bring_log, given("primary_conninfo").is_some()) {
        (true, true, false) => {
            talk.tell("it follows the archive as a standby; set primary_conninfo for more")
        }
        (true, true, true) => talk.tell("it follows the archive and its primary as a standby"),
        (true, false, true) => {
            talk.tell("it follows its primary as a standby, and fetches no log from an archive")
        }
        (true, false, false) => talk
            .tell("it fetches no log from an archive: set primary_conninfo, or this standby follows nobody"),
        (false, _, _) => talk.tell(&format!(
            "{} recovers along timeline {} to {}",
            if starts { "it is started now, and" } else { "when it is started, it" },
            restore.plan.timeline,
            describe(&options.target)
        )),
    }
    if let Some((_, value)) = given("archive_mode") {
        talk.tell(&format!("archive_mode is {}, as it was set", render::visible(value)));
        return;
    }
    talk.tell(&format!(
        "it does not archive (archive_mode is off): where it is to go on as {0}, once it is up, chronolith pg setup \
         --cluster {0} --apply, a restart, and pg setup --check",
        restore.base.facts.cluster
    ));
}
