//! `chronolith pg drill`.

use super::Cluster;
use super::programs::places_of_programs;
use super::restore::{describe, settings, target_time};
use super::server_command::server_command;
use crate::base::{Classify, Clock, ErrorClass, Observer, SnapshotId, Timestamp, explain};
use crate::cli::edges::{SystemClock, SystemEntropy};
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::postgres::PostgresError;
use crate::postgres::drill::{
    Assertion, Drawn, Drill, DrillOptions, DrillReport, Recoverable, new_folder, record, recoverable,
    throw_away,
};
use crate::postgres::restore::Timeline;
use crate::timeline::Target;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where the folder goes that is thrown away, where the environment does not say.
const USUAL_FOLDER: &str = "/var/tmp";
/// What tells the process that watches that the folder stays.
const KEEP: &[u8] = b"keep";

/// Where a drill's recovery ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    /// The end of the log
    Latest,
    /// A second of all those that can be recovered, drawn at random
    Random,
    /// As soon as the backup is consistent
    Immediate,
}

/// Proves that a cluster can be restored: restores, replays, starts, looks, reports, throws away
///
/// All of it happens in a private folder, with a server that can harm nobody: generated configuration, a Unix
/// socket in that folder only, no archiving, no workers, nothing preloaded. What it came to is noted in the repository.
/// Ends with exit code 3 if something does not hold. The server and its folder go at the end, also after an error, ^C or
/// kill -9.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub cluster: Cluster,
    /// Where the recovery ends
    #[arg(long, value_enum, value_name = "WHERE", default_value_t = Goal::Latest, group = "goal")]
    pub target: Goal,
    /// The last transaction that ended until this instant
    #[arg(long, value_name = "TIME", group = "goal")]
    pub target_time: Option<String>,
    /// From this base backup [default: the newest that allows the target]
    #[arg(long, value_name = "SNAP")]
    pub base: Option<String>,
    /// Statements that must hold: each brings no row, or only rows with a single true; may be given several times
    #[arg(long = "assert", value_name = "SQL")]
    pub assertions: Vec<String>,
    /// A file of such statements; may be given several times
    #[arg(long, value_name = "FILE")]
    pub sql: Vec<PathBuf>,
    /// The database that they are about
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    pub dbname: String,
    /// Lets pg_amcheck look at every table and B-tree index
    #[arg(long)]
    pub amcheck: bool,
    /// A superuser of the cluster [default: found out]
    #[arg(long, value_name = "ROLE")]
    pub user: Option<String>,
    /// A setting for the throw-away server, such as shared_buffers=1GB; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// The folder of the server's programs [default: looked for]
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// Where there is room for the restored cluster [env: TMPDIR; default: /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Leaves the server running and its folder where it is
    #[arg(long)]
    pub keep: bool,
    /// Throws away what an earlier drill kept, and does nothing else
    #[arg(long, value_name = "DIR")]
    pub throw_away: Option<PathBuf>,
    /// Notes nothing in the repository
    #[arg(long)]
    pub no_ledger: bool,
    /// Waits until the drill has ended, however it did, and throws away: what this command starts by itself
    #[arg(long, value_name = "DIR", hide = true)]
    pub guard: Option<PathBuf>,
}

/// The folder of a drill, and the process that throws it away when this one cannot any more.
struct Place {
    folder: PathBuf,
    guard: Option<Child>,
}

impl Place {
    fn new(parent: &Path) -> Result<Self, Fault> {
        let folder = new_folder(parent, &SystemEntropy)?;
        let mut place = Self { folder, guard: None };
        let failed = |error: std::io::Error| Fault::file("run", Path::new("this program"), &error);
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["pg", "drill", "--guard"]).arg(&place.folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        // ^C on the terminal is not meant for it.
        place.guard = Some(command.process_group(0).spawn().map_err(failed)?);
        Ok(place)
    }

    /// Leaves the folder, and the server that works in it.
    fn keep(mut self) -> Result<(), Fault> {
        if let Some(mut guard) = self.guard.take() {
            let told = guard.stdin.take().map_or(Ok(()), |mut input| input.write_all(KEEP));
            told.map_err(|error| Fault::failed(format!("the folder cannot be kept: {error}"), ""))?;
            let _ = guard.wait();
        }
        self.folder = PathBuf::new();
        Ok(())
    }

    /// Throws everything away.
    fn end(self) -> Result<(), Fault> {
        Ok(throw_away(&self.folder)?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.folder.as_os_str().is_empty() {
            // Something else went wrong, and that is being reported.
            let _ = throw_away(&self.folder);
        }
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// Waits until whoever started this has ended or says that the folder stays.
fn watch(folder: &Path) -> Result<u8, Fault> {
    let mut told = Vec::new();
    // However the other one ended, the pipe has an end.
    let _ = std::io::stdin().read_to_end(&mut told);
    if told != KEEP {
        throw_away(folder)?;
    }
    Ok(exit::DONE)
}

impl Arguments {
    fn assertions(&self) -> Result<Vec<Assertion>, Fault> {
        let given = self.assertions.iter().map(|sql| Ok(Assertion { name: sql.clone(), sql: sql.clone() }));
        let files = self.sql.iter().map(|path| {
            let sql = std::fs::read_to_string(path).map_err(|error| Fault::file("read", path, &error))?;
            Ok(Assertion { name: path.display().to_string(), sql })
        });
        given.chain(files).collect()
    }

    fn target(
        &self,
        session: &Session,
        recoverable: &Recoverable,
        base: Option<&SnapshotId>,
    ) -> Result<(Target, Timeline, Option<Drawn>), Fault> {
        if let Some(text) = &self.target_time {
            let target = Target::Time { at: target_time(session, text)?, inclusive: true };
            return Ok((target, Timeline::Latest, None));
        }
        match self.target {
            Goal::Latest => Ok((Target::Latest, Timeline::Latest, None)),
            Goal::Immediate => Ok((Target::Immediate, Timeline::Latest, None)),
            Goal::Random => {
                let drawn = recoverable.draw(base, &SystemEntropy).ok_or_else(|| {
                    Fault::usage(
                        "no second can be drawn: behind the end of the base backups no log is archived that a throw-away \
                         server may replay",
                        "--target latest tries what there is",
                    )
                })?;
                let target = Target::Time { at: drawn.at, inclusive: true };
                Ok((target, Timeline::Number(drawn.timeline), Some(drawn)))
            }
        }
    }

    fn parent(&self) -> PathBuf {
        let variable = || std::env::var_os("TMPDIR").filter(|path| !path.is_empty()).map(PathBuf::from);
        let usual = || {
            let folder = PathBuf::from(USUAL_FOLDER);
            if folder.is_dir() { folder } else { std::env::temp_dir() }
        };
        self.folder.clone().or_else(variable).unwrap_or_else(usual)
    }
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    if let Some(folder) = &arguments.guard {
        return watch(folder);
    }
    if let Some(folder) = &arguments.throw_away {
        session.doing(format!("throw away {}", folder.display()));
        throw_away(folder)?;
        return Ok(exit::DONE);
    }
    let cluster = arguments.cluster.name(session)?;
    session.doing(format!("drill a restore of {cluster}"));
    let assertions = arguments.assertions()?;
    let command = server_command(session, &cluster, "archive-get", "%f %p");
    let repository = session.open()?;
    let base = match &arguments.base {
        Some(name) => Some(session.snapshots(&repository)?.resolve(name)?.id),
        None => None,
    };
    let known = recoverable(&repository, &cluster)?;
    let (target, timeline, drawn) = arguments.target(session, &known, base.as_ref())?;
    let place = Place::new(&arguments.parent())?;
    let options = DrillOptions {
        folder: place.folder.clone(),
        target: target.clone(),
        timeline,
        base,
        settings: settings(&arguments.set)?,
        programs: places_of_programs(arguments.programs.as_ref()),
        user: arguments.user.clone(),
        assertions,
        database: arguments.dbname.clone(),
        amcheck: arguments.amcheck,
        restore_command: command.as_ref().ok().cloned(),
    };
    let mut drill = Drill::prepare(&repository, &cluster, options)?;
    if drill.restore.archived {
        let last = drill.restore.last_segment().map_or(String::new(), |last| format!(" --last {last}"));
        drill.fetch_with(command? + &last);
    }
    let story = Story { session, drill: &drill, target: &target, drawn, newest: known.newest };
    story.tell_plan();
    let report = match drill.run() {
        Ok(report) => report,
        Err(error) => {
            // What says something about the backup is noted; what is in the way on this host is not.
            let counts =
                matches!(error, PostgresError::Failed { .. }) || error.class() == ErrorClass::Corrupt;
            if counts && !arguments.no_ledger {
                record(&repository, drill.restore.base.view.id, Err(&explain(&error)), story.facts())?;
            }
            if arguments.keep && matches!(error, PostgresError::Failed { .. }) {
                let folder = place.folder.clone();
                place.keep()?;
                session.talk.note(&format!("what is there is left in {}", folder.display()));
            }
            return Err(error.into());
        }
    };
    session.talk.end();
    if !arguments.no_ledger {
        record(&repository, drill.restore.base.view.id, Ok(&report), story.facts())?;
    }
    let kept = arguments.keep.then(|| place.folder.clone());
    match &kept {
        Some(_) => place.keep()?,
        None => place.end()?,
    }
    story.show(&report, kept.as_deref(), !arguments.no_ledger)?;
    Ok(if report.passed() { exit::DONE } else { exit::INCOMPLETE })
}

/// What is told of a drill.
struct Story<'a> {
    session: &'a Session,
    drill: &'a Drill,
    target: &'a Target,
    drawn: Option<Drawn>,
    newest: Option<Timestamp>,
}

impl Story<'_> {
    fn tell_plan(&self) {
        let (talk, restore) = (&self.session.talk, &self.drill.restore);
        if let Some(drawn) = self.drawn {
            talk.tell(&format!(
                "drawn out of {}: {} on timeline {}",
                render::count(drawn.seconds, "second", "seconds"),
                render::time(drawn.at),
                drawn.timeline
            ));
        }
        talk.tell(&format!(
            "base backup {} of {}, PostgreSQL {}, ended at {}; recovery to {}",
            restore.base.view.id.short(),
            restore.base.facts.cluster,
            restore.base.facts.server_version,
            render::time(restore.base.facts.stopped),
            describe(self.target)
        ));
    }

    /// Seconds since the newest moment that can be recovered: what would be lost if everything was lost now.
    fn exposed_seconds(&self) -> Option<f64> {
        let passed = SystemClock.now().nanoseconds().checked_sub(self.newest?.nanoseconds())?;
        Some(std::time::Duration::from_nanos(u64::try_from(passed).unwrap_or(0)).as_secs_f64())
    }

    /// What is noted beside the report's own figures.
    fn facts(&self) -> BTreeMap<String, String> {
        let instant = |time: Timestamp| crate::ops::show_time(time, &jiff::tz::TimeZone::UTC);
        let target = match self.target {
            Target::Time { at, .. } => instant(*at),
            other => describe(other),
        };
        let mut facts = BTreeMap::from([
            ("program".to_owned(), concat!("chronolith ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("target".to_owned(), target),
            ("timeline".to_owned(), self.drill.restore.plan.timeline.to_string()),
        ]);
        if let (Some(newest), Some(seconds)) = (self.newest, self.exposed_seconds()) {
            facts.insert("newest_recoverable".to_owned(), instant(newest));
            facts.insert("rpo_seconds".to_owned(), format!("{seconds:.0}"));
        }
        facts
    }

    fn show(&self, report: &DrillReport, kept: Option<&Path>, noted: bool) -> Result<(), Fault> {
        // Warnings are events too, and the summary is the last one.
        self.tell_result(report, kept);
        let (talk, findings) = (&self.session.talk, &report.findings);
        let databases: Map<String, Value> = findings
            .databases
            .iter()
            .map(|(name, found)| {
                let fields = json!({
                    "recorded_bytes": found.recorded_bytes, "found_bytes": found.found_bytes, "relations": found.relations,
                });
                (name.clone(), fields)
            })
            .collect();
        talk.event(
            "summary",
            json!({
                "snapshot": self.drill.restore.base.view.id.to_string(),
                "cluster": self.drill.restore.base.facts.cluster,
                "target": describe(self.target),
                "drawn": self.drawn.map(|drawn| json!({
                    "time": events::time(drawn.at), "timeline": drawn.timeline, "of_seconds": drawn.seconds,
                })),
                "passed": report.passed(),
                "problems": findings.problems,
                "notes": findings.notes,
                "timeline": self.drill.restore.plan.timeline,
                "recovered_to": findings.recovered_to.map(events::time),
                "newest_recoverable": self.newest.map(events::time),
                "rpo_seconds": self.exposed_seconds(),
                "restore_seconds": report.restore_seconds,
                "replay_seconds": report.replay_seconds,
                "rto_seconds": report.restore_seconds + report.replay_seconds,
                "look_seconds": report.look_seconds,
                "files": report.restored.files,
                "bytes": report.restored.bytes,
                "segments": self.drill.restore.plan.segment_count,
                "databases": databases,
                "assertions": findings.assertions,
                "amcheck": findings.amcheck,
                "noted": noted,
                "kept": kept.map(|folder| folder.display().to_string()),
            }),
        )
    }

    fn tell_result(&self, report: &DrillReport, kept: Option<&Path>) {
        let (talk, findings) = (&self.session.talk, &report.findings);
        talk.tell(&format!(
            "up again after {}: {} restored in {}, {} of the log replayed in {}",
            render::span(report.restore_seconds + report.replay_seconds),
            render::size(report.restored.bytes),
            render::span(report.restore_seconds),
            render::count(self.drill.restore.plan.segment_count, "segment", "segments"),
            render::span(report.replay_seconds)
        ));
        if let Some(time) = findings.recovered_to {
            talk.tell(&format!("the last transaction that came back ended at {}", render::time(time)));
        }
        if let (Some(newest), Some(seconds)) = (self.newest, self.exposed_seconds()) {
            talk.tell(&format!(
                "the newest moment that can be recovered is {}, {} ago",
                render::time(newest),
                render::span(seconds)
            ));
        }
        for note in &findings.notes {
            talk.tell(note);
        }
        for problem in &findings.problems {
            talk.warn(problem);
        }
        let count = findings.databases.values().filter(|database| database.found_bytes.is_some()).count();
        let looked = if findings.amcheck { ", pg_amcheck" } else { "" };
        talk.tell(&format!(
            "{}: {}, {}{looked}",
            if report.passed() { "everything holds" } else { "NOT everything holds" },
            render::count(count as u64, "database", "databases"),
            render::count(findings.assertions, "assertion", "assertions")
        ));
        if let Some(folder) = kept {
            talk.tell(&format!(
                "kept: the server's socket is in {0}/socket; chronolith pg drill --throw-away {0} ends it",
                folder.display()
            ));
        }
    }
}
