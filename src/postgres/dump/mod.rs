//! Logical backups: databases as `pg_dump` writes them, and the globals, in one atomic snapshot.
//!
//! Steps, and what a crash after each leaves (nothing refers to what was stored):
//!
//! 1. a session with each database: it can be entered, and what is in it is asked;
//! 2. `pg_dump` of several databases at a time, each consistent in itself, each archive followed as it
//!    passes: it must be whole, and the program must end with 0;
//! 3. `pg_dumpall --globals-only`: after the databases, so that it has every role that they name;
//! 4. the snapshot is committed.
//!
//! In the snapshot: `databases/NAME.dump` (or `.sql`), `globals.sql`.
//!
//! - `contents`, `scan`: archives in the custom format
//! - `facts`: what the snapshot remembers
//! - `server`: what the server is asked

pub mod contents;
mod facts;
pub mod scan;
mod server;

pub use facts::{DatabaseFacts, DumpFacts, DumpFormat, KIND};

use self::scan::Scanned;
pub(super) use self::server::Known;
use super::connection::{Login, Server};
use super::error::PostgresError;
use super::programs::ClientPrograms;
use crate::base::Observer;
use crate::format::snapshot::SnapshotMode;
use crate::ops::backup::{
    BackupOptions, BackupReport, EngineJob, Lane, Producer, StreamPlan, Taking, backup_engine,
};
use crate::ops::{OpsError, Snapshots, cut_label, is_label};
use crate::repo::Repository;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// Mode of the files in the snapshot.
const FILE_MODE: u32 = 0o600;
/// The label of a dump of all databases.
const LABEL_OF_ALL: &str = "all-databases";
const FOLDER: &str = "databases";
/// Where roles, their memberships and tablespaces are in the snapshot.
pub const GLOBALS: &str = "globals.sql";

/// What to dump and how.
pub struct DumpOptions {
    /// The databases; none means all that can be entered and are no templates.
    pub databases: Vec<String>,
    /// Only schemas of these patterns of `pg_dump`, of one database.
    pub schemas: Vec<String>,
    /// Only tables of these patterns of `pg_dump`, of one database.
    pub tables: Vec<String>,
    /// How many databases are dumped at a time.
    pub jobs: usize,
    /// How they are written.
    pub format: DumpFormat,
    /// Folders in which PostgreSQL's programs may be.
    pub programs: Vec<PathBuf>,
    /// Everything that is the same for all backups; the parent is found here.
    pub backup: BackupOptions,
}

impl DumpOptions {
    /// What `pg_dump` is told about schemas and tables.
    fn only(&self) -> Vec<String> {
        let schemas = self.schemas.iter().map(|pattern| format!("--schema={pattern}"));
        schemas.chain(self.tables.iter().map(|pattern| format!("--table={pattern}"))).collect()
    }
}

/// What a dump did.
#[derive(Debug)]
pub struct DumpReport {
    /// The snapshot and its figures.
    pub backup: BackupReport,
    /// What it remembers.
    pub facts: DumpFacts,
}

/// Writes the name of a database so that it can be the name of a file.
fn file_name(database: &str, format: DumpFormat) -> String {
    let mut name = String::new();
    for character in database.chars() {
        if character == '/' || character == '%' || character.is_control() {
            let mut bytes = [0; 4];
            character.encode_utf8(&mut bytes).bytes().for_each(|b| name.push_str(&format!("%{b:02X}")));
        } else {
            name.push(character);
        }
    }
    name + match format {
        DumpFormat::Custom => ".dump",
        DumpFormat::Plain => ".sql",
    }
}

/// The label of dumps that were given none: the databases that were named, and what of them alone is dumped
/// (`--table=orders`). So a part is never in one series with the whole: it would be loaded for it, and kept in its
/// place.
fn default_label(databases: &[String], only: &[String]) -> String {
    let sorted = |words: &[String]| {
        let mut words: Vec<&str> = words.iter().map(|word| word.trim_start_matches("--")).collect();
        words.sort_unstable();
        words.join(",")
    };
    let mut names = databases.to_vec();
    names.sort();
    let all = if names.is_empty() { LABEL_OF_ALL.to_owned() } else { names.join(",") };
    let whole = if only.is_empty() { all } else { format!("{all} only {}", sorted(only)) };
    let label = whole.replace([':', '@'], "_");
    if is_label(&label) {
        return label;
    }
    let label: String = format!("database {label}").chars().filter(|c| !c.is_control()).collect();
    if is_label(&label) { label } else { cut_label(&label, &whole) }
}

/// One database that is about to be dumped.
struct Job {
    name: String,
    facts: DatabaseFacts,
    restrict_key: Option<String>,
}

/// A dump that has been checked and is about to begin.
struct Preparation<'a> {
    options: &'a DumpOptions,
    login: &'a Login,
    programs: ClientPrograms,
    known: Known,
    jobs: Vec<Job>,
    restrict_key: Option<String>,
    observer: Arc<dyn Observer>,
}

/// Dumps databases of a running server.
///
/// # Errors
///
/// When the server refuses, a program is missing, too old or fails, or the repository cannot be written:
/// nothing is committed then.
pub fn dump(
    repository: &Arc<Repository>,
    server: &mut Server,
    options: &DumpOptions,
) -> Result<DumpReport, PostgresError> {
    let known = server.known()?;
    let programs = ClientPrograms::find(&options.programs, "pg_dump", known.major(), 0)?;
    let all = server.databases_to_dump(&known, &options.databases)?;
    let is_part = !options.schemas.is_empty() || !options.tables.is_empty();
    if is_part && all.len() != 1 {
        return Err(PostgresError::refused(
            "schemas and tables belong to one database, and none or several were named",
            "name the database: chronolith pg dump app --table orders",
        ));
    }
    let plain = options.format == DumpFormat::Plain;
    // Without one, pg_dump draws a key anew each time. It must be one that the server cannot foresee.
    let key = |program: &str, name: &str| {
        let text = format!("pg_dump restrict key\0{name}");
        let hash = || repository.keyring().metadata_hash(text.as_bytes()).to_string();
        programs.knows(program, "--restrict-key").then(hash)
    };
    let mut jobs = Vec::new();
    for (name, mut facts) in all {
        facts.extensions = server.connect_to(&name)?.extensions()?;
        facts.file = format!("{FOLDER}/{}", file_name(&name, options.format));
        let restrict_key = if plain { key("pg_dump", &name) } else { None };
        jobs.push(Job { name, facts, restrict_key });
    }
    jobs.sort_by(|a, b| a.facts.file.cmp(&b.facts.file));
    let mut backup = options.backup.clone();
    let (named, only) = (&options.databases, options.only());
    let label = backup.label.get_or_insert_with(|| default_label(named, &only)).clone();
    let snapshots = Snapshots::load(repository)?;
    backup.parent = snapshots.newest_of(&backup.host, &label).map(|view| view.id);
    if backup.parent.is_none() {
        backup.mode = SnapshotMode::Full;
    }
    let observer = repository.environment().observer.clone();
    if !known.reads_passwords {
        observer.warn(
            "this role may not read the passwords of roles (pg_authid): the globals are dumped without them",
        );
    }
    let sources = jobs.iter().map(|job| job.name.clone()).collect();
    let restrict_key = key("pg_dumpall", "\0globals");
    let login = server.login();
    let preparation = Preparation { options, login, programs, known, jobs, restrict_key, observer };
    let mut remembered = None;
    let job = EngineJob { kind: KIND.to_owned(), sources, label };
    let report = backup_engine(repository, job, &backup, |taking| {
        let facts = preparation.take(taking)?;
        let written = facts.write()?;
        remembered = Some(facts);
        Ok::<_, PostgresError>(written)
    })?;
    let facts = remembered.ok_or_else(|| server.odd("dump"))?;
    Ok(DumpReport { backup: report, facts })
}

impl Preparation<'_> {
    fn take(&self, taking: &mut Taking<'_>) -> Result<DumpFacts, PostgresError> {
        let plans: Vec<StreamPlan> = self
            .jobs
            .iter()
            .map(|job| {
                let name = job.facts.file.split_once('/').map_or("", |(_, name)| name);
                StreamPlan { name: name.as_bytes().to_vec(), mode: FILE_MODE, weight: job.facts.bytes }
            })
            .collect();
        taking.open_folder(FOLDER.as_bytes())?;
        let dumped =
            taking.streams(&plans, self.options.jobs, |number, lane| match self.jobs.get(number) {
                Some(job) => self.database(job, lane),
                None => Err(PostgresError::failed("a database was lost from sight", "")),
            })?;
        taking.close_folder()?;
        self.globals(taking)?;
        Ok(DumpFacts {
            system_identifier: self.known.system_identifier,
            server_version: self.known.version.clone(),
            major: self.known.major(),
            program_version: self.programs.version.clone(),
            from_standby: self.known.is_standby,
            format: self.options.format,
            role_passwords: self.known.reads_passwords,
            only: self.options.only(),
            databases: dumped.into_iter().collect::<BTreeMap<_, _>>(),
        })
    }

    fn database(&self, job: &Job, lane: &mut Lane<'_>) -> Result<(String, DatabaseFacts), PostgresError> {
        let mut command = self.command("pg_dump", &job.name);
        match self.options.format {
            DumpFormat::Custom => command.args(["--format=custom", "--compress=0"]),
            DumpFormat::Plain => command.arg("--format=plain"),
        };
        command.arg("--strict-names").args(self.options.only());
        command.args(job.restrict_key.iter().map(|key| format!("--restrict-key={key}")));
        lane.observer().item(&job.name);
        let name = format!("pg_dump of the database {:?}", job.name);
        let mut producer = Producer::start(name.clone(), command, lane.observer())?;
        let mut facts = job.facts.clone();
        if self.options.format == DumpFormat::Plain {
            facts.dump_bytes = lane.take(&mut producer)?;
            producer.finish()?;
            return Ok((job.name.clone(), facts));
        }
        let mut scanned = Scanned::new(producer);
        facts.dump_bytes = lane.take(&mut scanned)?;
        let (producer, scanner) = scanned.into_parts();
        // What the program says of its failure says more than that its archive is not whole.
        producer.finish()?;
        let damaged = |why: contents::NotAnArchive| PostgresError::Damaged {
            what: format!("what {name} wrote"),
            why: format!("is no whole archive: {why}"),
        };
        let (_, held) = scanner.finish().map_err(damaged)?;
        facts.tables = Some(held.rows.len() as u64);
        facts.rows = Some(held.rows.values().sum());
        facts.large_objects = Some(held.large_objects);
        Ok((job.name.clone(), facts))
    }

    fn globals(&self, taking: &mut Taking<'_>) -> Result<(), PostgresError> {
        let mut command = self.command("pg_dumpall", "");
        command.arg("--globals-only");
        if !self.known.reads_passwords {
            command.arg("--no-role-passwords");
        }
        // Else it tries the databases that there usually are.
        let database = &self.known.database;
        if database.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            command.arg(format!("--database={database}"));
        }
        command.args(self.restrict_key.iter().map(|key| format!("--restrict-key={key}")));
        let mut producer =
            Producer::start("pg_dumpall --globals-only".to_owned(), command, self.observer.clone())?;
        taking.stream(GLOBALS.as_bytes(), FILE_MODE, &mut producer)?;
        Ok(producer.finish()?)
    }

    fn command(&self, program: &str, database: &str) -> Command {
        let mut command = self.programs.command(program);
        command.arg("--no-password").current_dir("/");
        self.login.guide(&mut command, database);
        command
    }
}

/// Returns the snapshot's dumps, or says that it holds none.
///
/// # Errors
///
/// When it holds none, or does not say what it must.
pub fn facts_of(view: &crate::ops::SnapshotView) -> Result<DumpFacts, PostgresError> {
    DumpFacts::read(&view.snapshot)?.ok_or_else(|| {
        PostgresError::from(OpsError::Usage(format!(
            "snapshot {} of {:?} holds no databases that pg dump dumped (its kind is {:?})",
            view.id.short(),
            view.snapshot.label,
            view.snapshot.kind
        )))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_and_labels() {
        assert_eq!(file_name("app", DumpFormat::Custom), "app.dump");
        assert_eq!(file_name("../a%b\n", DumpFormat::Plain), "..%2Fa%25b%0A.sql");
        assert_eq!(file_name("Größe 1", DumpFormat::Custom), "Größe 1.dump");
        let part = |names: &[&str], only: &[&str]| {
            let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
            default_label(&words(names), &words(only))
        };
        let label = |names: &[&str]| part(names, &[]);
        assert_eq!(label(&[]), "all-databases");
        assert_eq!(label(&["shop", "app"]), "app,shop");
        assert_eq!(label(&["a:b@c"]), "a_b_c");
        assert_eq!(label(&["deadbeef"]), "database deadbeef");
        assert_eq!(label(&["latest"]), "database latest");
        // A part is another series than the whole, and than another part.
        assert_eq!(part(&["app"], &["--table=shop.orders"]), "app only table=shop.orders");
        assert_eq!(
            part(&["app"], &["--table=b", "--schema=x", "--table=a"]),
            "app only schema=x,table=a,table=b"
        );
        assert_eq!(part(&["latest"], &["--table=a:b"]), "latest only table=a_b");
        // So are those whose names differ only where they are cut off.
        let (long, other) = ("x".repeat(300), format!("{}y", "x".repeat(299)));
        assert_ne!(label(&[&long]), label(&[&other]));
        assert_ne!(part(&["app"], &[&long]), part(&["app"], &[&other]));
        assert!(is_label(&label(&[&long])) && is_label(&part(&[&long], &["--table=t"])));
    }
}
