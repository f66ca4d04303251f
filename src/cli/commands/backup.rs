//! `chronolith backup`.

use crate::base::Observer;
use crate::cli::edges;
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::format::snapshot::SnapshotMode;
use crate::ingest::Effort;
use crate::ops::backup::{BackupOptions, BackupReport, BasesFrom, Differences, Source, backup};
use crate::repo::Repository;
use clap::Args;
use serde_json::json;
use std::collections::HashSet;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Problems that are named one by one; the rest is counted.
const PROBLEMS_SHOWN: usize = 20;

/// Makes one snapshot of a stream, of commands' outputs, of files and folders
///
/// Nothing is committed when a source as a whole cannot be read, or a command does not end with
/// exit code 0. Files that cannot be read are named and left out; the exit code is 3 then.
#[derive(Args)]
pub struct Arguments {
    /// Files and folders
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Backs up standard input under this name
    #[arg(long, value_name = "NAME")]
    pub stdin: Option<OsString>,
    /// Runs a shell command and backs up its output under NAME; may be given several times
    #[arg(long, value_name = "NAME=COMMAND")]
    pub exec: Vec<String>,
    /// Reads everything, whatever the parent holds
    #[arg(long, group = "mode")]
    pub full: bool,
    /// Compares with the newest snapshot of the same host and label (the default)
    #[arg(long, group = "mode")]
    pub incremental: bool,
    /// Compares with the newest full snapshot of the same host and label
    #[arg(long, group = "mode")]
    pub differential: bool,
    /// Compares with this snapshot
    #[arg(long, value_name = "SNAP", conflicts_with = "full")]
    pub parent: Option<String>,
    /// Tags the snapshot; may be given several times
    #[arg(long, value_name = "K[=V]")]
    pub tag: Vec<String>,
    /// Ties the backups of one thing together [default: the names of the sources]
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// The host whose data this is [default: this one]
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Leaves out what matches, as in .gitignore; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Does not enter other file systems
    #[arg(short = 'x', long)]
    pub one_file_system: bool,
    /// Cuts files that match at page boundaries, as it does by itself for known database files
    #[arg(long, value_name = "GLOB")]
    pub pages: Vec<String>,
    /// The page of files named by --pages
    #[arg(long, value_name = "BYTES", default_value = "8K", requires = "pages", value_parser = page_size)]
    pub page_size: u32,
    /// The level of compression, 1 (fast) to 19 (small), or `auto`: 3, and up to 9 while the store is slower
    /// than the processor
    #[arg(long, value_name = "N", default_value = "3", value_parser = effort)]
    pub level: Effort,
    /// Stores what changed as differences against the previous snapshot's chunks
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = When::Auto)]
    pub differences: When,
    /// The cache of such chunks, for keys that may not read content and for repositories far away, takes no
    /// more than this; 0 goes without
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = size)]
    pub base_cache: u64,
    /// Says what would be read, and stores nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// When chunks are stored as differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// Always, but from the base cache only where the repository is not on a disk of this machine
    Auto,
    /// Wherever that takes less room
    Always,
    /// Where the base cache holds the chunk
    Cached,
    /// Never: every backup is read from whole chunks
    Never,
}

impl From<When> for Differences {
    fn from(when: When) -> Self {
        match when {
            When::Auto => Self::Auto,
            When::Always => Self::Always,
            When::Cached => Self::Cached,
            When::Never => Self::Never,
        }
    }
}

/// Reads `--level`.
pub fn effort(text: &str) -> Result<Effort, String> {
    match text.parse() {
        _ if text == "auto" => Ok(Effort::Auto),
        Ok(level) if (1..=19).contains(&level) => Ok(Effort::Level(level)),
        _ => Err("a level is a number from 1 to 19, or auto".to_owned()),
    }
}

fn size(text: &str) -> Result<u64, String> {
    crate::base::units::parse_size(text).ok_or_else(|| "a size is a number such as 512M or 2G".to_owned())
}

fn page_size(text: &str) -> Result<u32, String> {
    let size = crate::base::units::parse_size(text).and_then(|size| u32::try_from(size).ok());
    match size {
        Some(size) if size.is_power_of_two() && (512..=1 << 20).contains(&size) => Ok(size),
        _ => Err("a page is a power of two from 512 bytes to 1M, such as 8K".to_owned()),
    }
}

/// Makes a path absolute. Only one with `..` in it is looked up: what `..` means depends on links.
fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    let failed = |error| Fault::file("find", path, &error);
    if !path.components().any(|part| part == Component::ParentDir) {
        return std::path::absolute(path).map_err(failed);
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize().map_err(failed)?.join(name)),
        _ => path.canonicalize().map_err(failed),
    }
}

/// Takes `K` or `K=V` apart.
pub fn parse_tag(tag: &str) -> Result<(String, Option<String>), Fault> {
    let (key, value) = match tag.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (tag, None),
    };
    if key.is_empty() {
        return Err(Fault::usage(format!("the tag {tag:?} has no name"), "write K or K=V"));
    }
    Ok((key.to_owned(), value))
}

impl Arguments {
    fn sources(&self, session: &Session) -> Result<Vec<Source>, Fault> {
        let mut sources = Vec::new();
        if let Some(name) = &self.stdin {
            if std::io::stdin().is_terminal() {
                return Err(Fault::usage(
                    "standard input is this terminal",
                    "pipe something in: pg_dump app | chronolith backup --stdin app.sql",
                ));
            }
            let reader = Box::new(session.input());
            sources.push(Source::Stream { name: name.as_bytes().to_vec(), reader });
        }
        for exec in &self.exec {
            let (name, command) =
                exec.split_once('=').filter(|(_, command)| !command.is_empty()).ok_or_else(|| {
                    Fault::usage(
                        format!("--exec {exec:?} is not NAME=COMMAND"),
                        "--exec 'app.sql=pg_dump app'",
                    )
                })?;
            sources.push(Source::Command { name: name.as_bytes().to_vec(), command: command.to_owned() });
        }
        for path in &self.paths {
            sources.push(Source::Path(absolute(path)?));
        }
        if sources.is_empty() {
            return Err(Fault::usage(
                "nothing to back up was named",
                "name paths, --stdin NAME, or --exec NAME=COMMAND",
            ));
        }
        Ok(sources)
    }

    const fn mode(&self) -> SnapshotMode {
        match (self.full, self.differential) {
            (true, _) => SnapshotMode::Full,
            (false, true) => SnapshotMode::Differential,
            (false, false) => SnapshotMode::Incremental,
        }
    }

    fn options(&self, session: &Session, repository: &Arc<Repository>) -> Result<BackupOptions, Fault> {
        let parent = match &self.parent {
            Some(name) => Some(session.snapshots(repository)?.resolve(name)?.id),
            None => None,
        };
        let host = self.host.clone().unwrap_or_else(edges::host_name);
        if host.contains([':', '@']) {
            return Err(Fault::usage(
                format!(
                    "{host:?} cannot be a host: no name of a snapshot could tell it from its other parts"
                ),
                "give another with --host, without ':' and '@'",
            ));
        }
        let program = concat!("chronolith ", env!("CARGO_PKG_VERSION"));
        Ok(BackupOptions {
            label: self.label.clone(),
            mode: self.mode(),
            parent,
            tags: self.tag.iter().map(|tag| parse_tag(tag)).collect::<Result<_, _>>()?,
            excludes: self.exclude.clone(),
            one_file_system: self.one_file_system,
            skipped: own_folders(session, repository),
            pages: (!self.pages.is_empty()).then(|| (self.pages.clone(), self.page_size)),
            dry_run: self.dry_run,
            effort: self.level,
            differences: self.differences.into(),
            base_cache_bytes: self.base_cache,
            ..BackupOptions::new(&host, &edges::user_name(), program)
        })
    }
}

/// The folders that this program writes while it reads: a backup that holds its own repository grows
/// without end.
pub fn own_folders(session: &Session, repository: &Repository) -> HashSet<(u64, u64)> {
    let cache = repository.environment().cache.clone();
    let folders = session.local_folders().chain(cache);
    folders.filter_map(|folder| folder.metadata().ok()).map(|found| (found.dev(), found.ino())).collect()
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("back up into {}", session.place()?));
    // What is wrong with the request is said before anybody is asked for a password.
    let sources = arguments.sources(session)?;
    let began = Instant::now();
    let repository = session.open()?;
    let options = arguments.options(session, &repository)?;
    let report = backup(&repository, sources, &options)?;
    session.talk.end();
    show(session, &report, began.elapsed().as_secs_f64())?;
    Ok(if report.problems.is_empty() { exit::DONE } else { exit::INCOMPLETE })
}

fn show(session: &Session, report: &BackupReport, seconds: f64) -> Result<(), Fault> {
    let talk = &session.talk;
    for (number, problem) in report.problems.iter().enumerate() {
        talk.event("problem", json!({ "path": problem.path, "what": problem.what }))?;
        if !session.settings.json && number < PROBLEMS_SHOWN {
            talk.warn(&format!("{}: {}", problem.path, problem.what));
        }
    }
    let more = report.problems.len().saturating_sub(PROBLEMS_SHOWN) as u64;
    if more > 0 && !session.settings.json {
        talk.warn(&format!("and {} more; --json names them all", render::count(more, "problem", "problems")));
    }
    for advice in &report.advice {
        talk.warn(advice);
    }
    let summary = &report.summary;
    talk.event(
        "summary",
        json!({
            "snapshot": report.snapshot.map(|id| id.to_string()),
            "host": report.host,
            "label": report.label,
            "parent": report.parent.map(|id| id.to_string()),
            "seconds": seconds,
            "dry_run": report.snapshot.is_none(),
            "problems": report.problems.len(),
            "differences": report.differences,
            "bases": report.bases.name(),
            "summary": events::summary(summary),
        }),
    )?;
    let parent = report.parent.map_or(String::new(), |id| format!(", compared with {}", id.short()));
    let read = format!(
        "{} in {}, {}",
        render::size(summary.bytes),
        render::count(summary.files, "file", "files"),
        render::span(seconds)
    );
    match report.snapshot {
        Some(id) => {
            talk.tell(&format!("snapshot {} of {}:{}{parent}", id.short(), report.host, report.label));
            let differences = match report.differences {
                0 => String::new(),
                count => {
                    let count = render::count(count, "difference", "differences");
                    let from = if report.bases == BasesFrom::Cache { " from the base cache" } else { "" };
                    format!(" ({count}{from})")
                }
            };
            talk.tell(&format!(
                "{read}: {} new, {} stored{differences}",
                render::size(summary.new_bytes),
                render::size(summary.stored_bytes)
            ));
        }
        None => {
            let unchanged = summary.unchanged_files;
            talk.tell(&format!("dry run: {read}, {unchanged} of them unchanged; nothing was stored{parent}"));
        }
    }
    Ok(())
}
