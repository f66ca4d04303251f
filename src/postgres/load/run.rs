//! The steps of a load, in the order that [`super`] tells.

use super::passing::{Inlet, Passing, PrivateFile};
use super::statement::{quoted, renamed, setting, without_setting};
use super::{Load, LoadOptions, Loaded, PlannedLoad, Way};
use crate::base::{Observer, SnapshotId, explain};
use crate::format::trust::Act;
use crate::ops::backup::BackupOptions;
use crate::ops::cat::cat;
use crate::ops::{OpsError, Program, is_label};
use crate::postgres::connection::Server;
use crate::postgres::dump::scan::Held;
use crate::postgres::dump::{DumpFormat, DumpOptions, dump};
use crate::postgres::error::PostgresError;
use crate::repo::{RepoError, Repository};
use std::io::{BufWriter, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// From here on a server needs to be told that a locale is libc's.
const LOCALE_PROVIDERS: i32 = 150_000;
/// How often sessions are ended that keep a database from being renamed.
const RENAME_TRIES: u32 = 20;
/// Names are cut at this length by the server.
const NAME_BYTES_MAX: usize = 63;
const LOAD: &str = "load into";

/// The label of what was replaced by a load.
fn safety_label(target: &str) -> String {
    let label = format!("before-load-{}", target.replace([':', '@'], "_"));
    if is_label(&label) { label } else { "before-load".to_owned() }
}

/// Says whether this key may back up a database that is to be replaced.
pub(super) fn may_back_up(
    repository: &Repository,
    options: &LoadOptions,
    target: &str,
) -> Result<(), PostgresError> {
    repository.require_writer()?;
    let (identity, label) = (repository.keyring().identity.key, safety_label(target));
    let act = Act::Snapshot { host: &options.backup.host, label: &label };
    Ok(repository.registry().may_sign(&identity, act)?)
}

impl Load {
    /// Loads one database, by its number among those that are planned.
    ///
    /// # Errors
    ///
    /// When it cannot be loaded: the server is then as it was.
    pub fn run(&mut self, number: usize) -> Result<Loaded, PostgresError> {
        let Some(plan) = self.planned.get(number) else {
            return Err(PostgresError::failed(format!("there is no database number {number}"), ""));
        };
        let random = self.repository.environment().entropy.draw();
        let random = random.iter().take(8).fold(String::new(), |name, byte| format!("{name}{byte:02x}"));
        let temporary = format!("chronolith_load_{random}");
        let mut run = Run {
            repository: &self.repository,
            server: &mut self.server,
            options: &self.options,
            version_number: self.version_number,
            restore: self.programs.command("pg_restore"),
            plan,
            observer: self.repository.environment().observer.clone(),
            temporary,
            backs_up: self.backs_up,
        };
        match plan.way {
            Way::Into => run.load_into(),
            Way::New | Way::Replace { .. } => run.through_another(),
        }
    }
}

/// One database on its way.
struct Run<'a> {
    repository: &'a Arc<Repository>,
    server: &'a mut Server,
    options: &'a LoadOptions,
    version_number: i32,
    restore: Command,
    plan: &'a PlannedLoad,
    observer: Arc<dyn Observer>,
    /// The name under which the database is made.
    temporary: String,
    backs_up: bool,
}

impl Run<'_> {
    fn through_another(&mut self) -> Result<Loaded, PostgresError> {
        self.create()?;
        let loaded = self.fill().and_then(|loaded| self.take_place().map(|aside| (loaded, aside)));
        let (mut loaded, aside) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let temporary = self.temporary.clone();
                if let Err(why) = self.remove(&temporary) {
                    let why = explain(&why);
                    self.observer.warn(&format!("the database {temporary} was left behind; drop it: {why}"));
                }
                return Err(error);
            }
        };
        if let Some(aside) = aside {
            self.let_go(aside, &mut loaded);
        }
        Ok(loaded)
    }

    /// Makes the database under a name that nobody knows.
    fn create(&mut self) -> Result<(), PostgresError> {
        let plan = self.plan;
        let mut statement = renamed(&plan.create, &plan.old_name, &self.temporary);
        if statement == plan.create {
            return Err(PostgresError::Damaged {
                what: format!("the dump of {}", plan.database),
                why: "makes a database of another name".to_owned(),
            });
        }
        if self.options.no_tablespaces {
            statement = without_setting(&statement, "TABLESPACE");
        }
        let statement = String::from_utf8(statement).map_err(|_| PostgresError::Damaged {
            what: format!("the dump of {}", plan.database),
            why: "says in no readable way how the database is made".to_owned(),
        })?;
        let mut statement = statement.trim().trim_end_matches(';').to_owned();
        let says_provider = setting(statement.as_bytes(), "LOCALE_PROVIDER").is_some();
        if self.version_number >= LOCALE_PROVIDERS && !says_provider {
            // A dump of an older server means libc, whatever this server prefers.
            statement.push_str(" LOCALE_PROVIDER = libc");
        }
        self.server.execute("make a database at", &statement)
    }

    fn remove(&mut self, database: &str) -> Result<(), PostgresError> {
        self.server.end_sessions(database)?;
        self.server.execute("drop a database at", &format!("DROP DATABASE IF EXISTS {}", quoted(database)))
    }

    /// Loads, counts, analyses, and gives the database what is its own.
    fn fill(&mut self) -> Result<Loaded, PostgresError> {
        let temporary = self.temporary.clone();
        let by_file = self.plan.is_part || self.options.jobs > 1;
        let held = if by_file { self.by_file(&temporary, false)? } else { self.by_pipe(&temporary)? };
        let mut loaded = Loaded::default();
        self.compare(&temporary, &held, &mut loaded)?;
        let plan = self.plan;
        for statement in &plan.properties {
            let renamed = renamed(statement, &plan.old_name, &temporary);
            match String::from_utf8(renamed) {
                Ok(statement) => self.server.execute("set up a database at", &statement)?,
                Err(_) => loaded.notes.push(
                    "settings of the database are in an encoding that cannot be read, and are left out"
                        .to_owned(),
                ),
            }
        }
        if let Some(owner) = &plan.owner {
            let statement = format!("ALTER DATABASE {} OWNER TO {}", quoted(&temporary), quoted(owner));
            self.server.execute("set up a database at", &statement)?;
        }
        Ok(loaded)
    }

    /// Compares what was loaded with the dump, and has the server look at it for its plans.
    fn compare(&self, database: &str, held: &Held, loaded: &mut Loaded) -> Result<(), PostgresError> {
        let mut inside = self.server.connect_to(database)?;
        let counted = inside.count(&self.plan.contents, held, self.observer.as_ref())?;
        (loaded.tables, loaded.rows, loaded.uncounted) = (counted.tables, counted.rows, counted.uncounted);
        // Large objects belong to no table or schema, and come with a whole database only.
        loaded.large_objects = if self.plan.is_part { 0 } else { held.large_objects };
        if self.plan.way != Way::Into {
            let found = inside.large_objects()?;
            if found != loaded.large_objects {
                return Err(PostgresError::failed(
                    format!("{found} large objects were loaded instead of {}", loaded.large_objects),
                    "what was loaded is taken away again; look into the server's log",
                ));
            }
            inside.query_patiently("analyse", "ANALYZE", &[], self.observer.as_ref())?;
            return Ok(());
        }
        for entry in self.plan.contents.entries.iter().filter(|entry| entry.is("TABLE")) {
            let name = |text: &Option<Vec<u8>>| String::from_utf8(text.clone().unwrap_or_default()).ok();
            if let (Some(schema), Some(table)) = (name(&entry.schema), name(&entry.tag)) {
                let sql = format!("ANALYZE {}.{}", quoted(&schema), quoted(&table));
                inside.query_patiently("analyse", &sql, &[], self.observer.as_ref())?;
            }
        }
        Ok(())
    }

    /// A command that loads into a database.
    fn command(&mut self, database: &str) -> Command {
        let mut command = std::mem::replace(&mut self.restore, Command::new("pg_restore"));
        self.server.login().guide(&mut command, database);
        // A bare name could be taken for a connection string.
        let name = database.replace('\\', "\\\\").replace('\'', "\\'");
        command.args(["--no-password", "--exit-on-error"]).arg(format!("--dbname=dbname='{name}'"));
        let flags = [
            (self.options.no_owner, "--no-owner"),
            (self.options.no_privileges, "--no-privileges"),
            (self.options.no_tablespaces, "--no-tablespaces"),
        ];
        command.args(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| flag));
        command.current_dir("/").stdout(Stdio::null());
        command
    }

    fn name(&self) -> String {
        format!("pg_restore of the database {:?}", self.plan.database)
    }

    /// Writes the dump out through `passing`; says whether all of it was taken.
    fn pass(&self, passing: &mut Passing<'_>) -> Result<bool, PostgresError> {
        match cat(self.repository, &self.plan.path, &self.plan.content, passing) {
            Ok(report) => Ok(report.complete),
            Err(_) if self.observer.interrupted() => Err(RepoError::Interrupted.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Loads a stream as it comes: nothing of it is kept.
    fn by_pipe(&mut self, database: &str) -> Result<Held, PostgresError> {
        let mut command = self.command(database);
        command.stdin(Stdio::piped());
        let mut program = Program::start(self.name(), command)?;
        let input = program.take_input();
        let input = input.ok_or_else(|| PostgresError::failed("pg_restore takes no input", "try again"))?;
        let mut inlet = Inlet::new(input, self.observer.as_ref())?;
        let mut passing = Passing::new(&mut inlet, &self.plan.contents, self.plan.head_length);
        let complete = self.pass(&mut passing)?;
        let held = if complete { Some(passing.finish()?.0) } else { None };
        drop(inlet);
        program.finish(self.observer.as_ref())?;
        held.ok_or_else(|| {
            PostgresError::failed(
                "pg_restore ended before it had read the whole dump",
                "look into its messages",
            )
        })
    }

    /// Loads from a copy, in which several jobs find their tables.
    fn by_file(&mut self, database: &str, one_transaction: bool) -> Result<Held, PostgresError> {
        let (options, plan) = (self.options, self.plan);
        let folder = &options.temporary;
        let copy = PrivateFile::make(folder, &format!(".{}", self.temporary))?;
        let mut out = BufWriter::with_capacity(1 << 20, &copy.0);
        let mut passing = Passing::new(&mut out, &plan.contents, plan.head_length);
        if !self.pass(&mut passing)? {
            let folder = folder.display();
            return Err(PostgresError::failed(
                format!("the copy of the dump in {folder} broke off"),
                "try again",
            ));
        }
        let (held, places) = passing.finish()?;
        out.flush().map_err(PostgresError::file("write a copy of the dump into", folder))?;
        drop(out);
        let mut contents = plan.contents.clone();
        contents.set_places(&places);
        copy.write_head(&contents.write(), folder)?;
        let mut command = self.command(database);
        match one_transaction {
            true => command.arg("--single-transaction"),
            false => command.arg(format!("--jobs={}", options.jobs.max(1))),
        };
        // The copy has no name but this one, which each of the program's processes opens for itself.
        command.arg("/dev/stdin").stdin(Stdio::from(copy.0));
        Program::start(self.name(), command)?.finish(self.observer.as_ref())?;
        Ok(held)
    }

    /// Loads parts into a database that stays, all or nothing.
    fn load_into(&mut self) -> Result<Loaded, PostgresError> {
        let target = self.plan.target.clone();
        let held = self.by_file(&target, true)?;
        let mut loaded = Loaded::default();
        self.compare(&target, &held, &mut loaded).map_err(|error| {
            PostgresError::failed(
                format!("the parts were loaded and stay in {target}, but: {}", explain(&error)),
                "compare these tables with the dump; somebody may have written into them already",
            )
        })?;
        Ok(loaded)
    }

    /// Gives the new database its name; returns the name that the old one has then.
    fn take_place(&mut self) -> Result<Option<String>, PostgresError> {
        if self.observer.interrupted() {
            return Err(RepoError::Interrupted.into());
        }
        let (new, target) = (quoted(&self.temporary), quoted(&self.plan.target));
        if self.plan.way == Way::New {
            self.server
                .execute("rename a database of", &format!("ALTER DATABASE {new} RENAME TO {target}"))?;
            return Ok(None);
        }
        let aside = aside_name(&self.plan.target, &self.temporary);
        let old = quoted(&aside);
        let statement = format!(
            "BEGIN; ALTER DATABASE {target} RENAME TO {old}; ALTER DATABASE {new} RENAME TO {target}; COMMIT"
        );
        let mut tries = RENAME_TRIES;
        loop {
            // Whoever comes after this waits until the name is another database's.
            self.server.end_sessions(&self.plan.target)?;
            match self.server.execute("rename a database of", &statement) {
                Ok(()) => return Ok(Some(aside)),
                Err(error) => {
                    // There may be no transaction left to end.
                    let _ = self.server.execute(LOAD, "ROLLBACK");
                    tries -= 1;
                    if tries == 0 || self.observer.interrupted() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Backs the old database up, and drops it then.
    fn let_go(&mut self, aside: String, loaded: &mut Loaded) {
        // What was empty when it was looked at may have been written to while the load ran.
        let was_empty = self.plan.way == (Way::Replace { empty: true });
        let is_empty = was_empty
            && self.server.connect_to(&aside).and_then(|mut inside| inside.is_empty()).unwrap_or(false);
        let saved = match (is_empty, self.backs_up) {
            (true, _) => Ok(None),
            (_, false) => Err("this key may not add backups to the repository".to_owned()),
            (_, true) => self.back_up(&aside).map(Some).map_err(|error| match &error {
                PostgresError::Ops(OpsError::Source { lines, .. }) => {
                    format!("{}: {}", explain(&error), lines.join(" | "))
                }
                _ => explain(&error),
            }),
        };
        let dropped = saved.and_then(|saved| {
            loaded.safety = saved;
            self.remove(&aside).map_err(|error| explain(&error))
        });
        if let Err(why) = dropped {
            (loaded.kept, loaded.kept_why) = (Some(aside), Some(why));
        }
    }

    fn back_up(&mut self, aside: &str) -> Result<SnapshotId, PostgresError> {
        let options = DumpOptions {
            databases: vec![aside.to_owned()],
            schemas: Vec::new(),
            tables: Vec::new(),
            jobs: 1,
            format: DumpFormat::Custom,
            programs: self.options.programs.clone(),
            backup: BackupOptions {
                label: Some(safety_label(&self.plan.target)),
                ..self.options.backup.clone()
            },
        };
        let report = dump(self.repository, self.server, &options)?;
        report.backup.snapshot.ok_or_else(|| self.server.odd("dump"))
    }
}

/// A name for what had the name before.
fn aside_name(target: &str, temporary: &str) -> String {
    let random = temporary.rsplit('_').next().unwrap_or_default();
    let suffix = format!("_before_{random}");
    let mut end = target.len().min(NAME_BYTES_MAX - suffix.len().min(NAME_BYTES_MAX));
    while !target.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", target.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_made() {
        assert_eq!(aside_name("app", "chronolith_load_00ff"), "app_before_00ff");
        let long = aside_name(&"ö".repeat(31), "chronolith_load_0011223344556677");
        assert!(
            long.len() <= 63 && long.starts_with("öö") && long.ends_with("_before_0011223344556677"),
            "{long}"
        );
        assert_eq!(safety_label("a:b"), "before-load-a_b");
        assert_eq!(safety_label("a\nb"), "before-load");
    }
}
