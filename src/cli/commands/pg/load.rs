//! `chronolith pg load`.

use super::connection::Connection;
use super::dump::backup_options;
use super::programs::places_of_programs;
use crate::base::Observer;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::{Named, Session};
use crate::cli::unlock::{ask_line, has_terminal};
use crate::postgres::load::{Load, LoadOptions, Loaded, PlannedLoad, Way};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

/// Loads dumped databases into a server: the same or another one, under the same name or another
///
/// Everything is checked before anything is written. A whole database is loaded under a name of its own, its rows are
/// counted, and only then it takes the place of one that has the name; that one is backed up and dropped. Schemas and
/// tables go into a database that is there, in one transaction, and replace nothing.
#[derive(Args)]
pub struct Arguments {
    /// The snapshot that `pg dump` made
    #[arg(value_name = "SNAP")]
    pub snapshot: OsString,
    /// A database, and its new name; may be given several times [default: the only one there is]. A sign = within a
    /// name is written ==
    #[arg(long, value_name = "OLD[=NEW]")]
    pub database: Vec<String>,
    /// Makes databases that are not there
    #[arg(long)]
    pub create: bool,
    /// Only this schema; may be given several times
    #[arg(long, value_name = "NAME")]
    pub schema: Vec<String>,
    /// Only this table, with all that belongs to it; may be given several times
    #[arg(long, value_name = "[SCHEMA.]NAME")]
    pub table: Vec<String>,
    /// How many tables and indexes are loaded at a time; more than one needs a copy of the dump
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Everything belongs to whoever loads it
    #[arg(long)]
    pub no_owner: bool,
    /// Nothing is granted to anybody
    #[arg(long)]
    pub no_privileges: bool,
    /// Everything goes into the usual tablespace
    #[arg(long)]
    pub no_tablespaces: bool,
    /// Another role in the place of one; may be given several times. A sign = within a name is written ==
    #[arg(long, value_name = "OLD=NEW")]
    pub role_map: Vec<String>,
    /// The folder for a copy of the dump, which has no name there [env: TMPDIR; default: /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub temporary: Option<PathBuf>,
    /// The folder of PostgreSQL's programs [default: looked for]
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// Replaces without asking, also where this key cannot back up what is replaced, locales differ or the dump is
    /// of a newer version
    #[arg(long)]
    pub force: bool,
    /// Says what would be loaded, and changes nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub connection: Connection,
}

/// Takes names apart at the signs between them; two of them stand for one that belongs to a name.
fn names(text: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, names.last_mut()) {
            ('=', _) if characters.peek() != Some(&'=') => names.push(String::new()),
            (character, Some(name)) => {
                name.push(character);
                if character == '=' {
                    characters.next();
                }
            }
            (_, None) => {}
        }
    }
    names
}

fn pair(option: &str, text: &str) -> Result<(String, String), Fault> {
    match <[String; 2]>::try_from(names(text)) {
        Ok([old, new]) if !old.is_empty() && !new.is_empty() => Ok((old, new)),
        _ => Err(Fault::usage(
            format!("{option} {text:?} is not OLD=NEW"),
            format!("{option} old=new; a sign = within a name is written =="),
        )),
    }
}

impl Arguments {
    fn options(&self) -> Result<LoadOptions, Fault> {
        let mut databases = Vec::new();
        for database in &self.database {
            databases.push(match names(database).as_slice() {
                [only] if !only.is_empty() => (only.clone(), only.clone()),
                _ => pair("--database", database)?,
            });
        }
        let mut roles = BTreeMap::new();
        for map in &self.role_map {
            let (old, new) = pair("--role-map", map)?;
            roles.insert(old, new);
        }
        let variable = std::env::var_os("TMPDIR").filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(LoadOptions {
            databases,
            create: self.create,
            schemas: self.schema.clone(),
            tables: self.table.clone(),
            jobs: usize::from(self.jobs),
            no_owner: self.no_owner,
            no_privileges: self.no_privileges,
            no_tablespaces: self.no_tablespaces,
            roles,
            force: self.force,
            programs: places_of_programs(self.programs.as_ref()),
            temporary: self.temporary.clone().or(variable).unwrap_or_else(|| PathBuf::from("/var/tmp")),
            backup: backup_options(),
        })
    }
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("load databases of {}", arguments.snapshot.display()));
    let began = Instant::now();
    let options = arguments.options()?;
    let server = arguments.connection.open(None)?;
    let named = session.find(&arguments.snapshot)?;
    if !named.path.is_empty() {
        return Err(Fault::usage(
            format!("{} names a file of the snapshot", named.show()),
            "name the snapshot, and the database with --database",
        ));
    }
    let mut load = Load::prepare(&named.repository, server, &named.view, options.clone())?;
    tell_plan(session, &load, &options);
    if arguments.dry_run {
        let planned: Vec<Value> = load.planned.iter().map(|plan| event(plan, None)).collect();
        summary(session, &named, &load, planned, true, began)?;
        session.talk.tell("dry run: nothing was written");
        return Ok(exit::DONE);
    }
    confirm(arguments, &load)?;
    session.check_interrupted()?;
    let (mut done, mut kept) = (Vec::new(), false);
    for number in 0..load.planned.len() {
        let name = load.planned.get(number).map(|plan| plan.target.clone()).unwrap_or_default();
        session.doing(format!("load the database {name}"));
        let loaded = load.run(number)?;
        if let Some(plan) = load.planned.get(number) {
            tell_loaded(session, plan, &loaded);
            done.push(event(plan, Some(&loaded)));
        }
        kept |= loaded.kept.is_some();
    }
    session.talk.end();
    summary(session, &named, &load, done, false, began)?;
    Ok(if kept && !arguments.force { exit::INCOMPLETE } else { exit::DONE })
}

/// Says in words where a database goes.
const fn way(way: Way) -> &'static str {
    match way {
        Way::New => "new",
        Way::Replace { empty: true } => "replaces an empty one",
        Way::Replace { empty: false } => "replaces the one that is there",
        Way::Into => "parts into the one that is there",
    }
}

fn tell_plan(session: &Session, load: &Load, options: &LoadOptions) {
    let talk = &session.talk;
    for plan in &load.planned {
        let size = render::size(plan.facts.dump_bytes);
        let name = match plan.database == plan.target {
            true => plan.target.clone(),
            false => format!("{} as {}", plan.database, plan.target),
        };
        let name = render::visible(&name);
        talk.tell(&format!("{name}: {size} of PostgreSQL {}, {}", load.facts.server_version, way(plan.way)));
        plan.notes.iter().for_each(|note| talk.note(note));
        if plan.way == (Way::Replace { empty: false }) && !load.backs_up {
            talk.warn(
                "this key may not add backups: what is replaced stays on the server, under another name",
            );
        }
    }
    let is_part = !options.schemas.is_empty() || !options.tables.is_empty();
    if options.jobs > 1 || is_part {
        let folder = options.temporary.display();
        talk.tell(&format!("a copy of what is loaded goes into {folder}, without a name, until the end"));
    }
}

/// Asks for the name of each database that would be replaced.
fn confirm(arguments: &Arguments, load: &Load) -> Result<(), Fault> {
    let replaced = load.planned.iter().filter(|plan| plan.way == Way::Replace { empty: false });
    for plan in replaced.filter(|_| !arguments.force) {
        let name = render::visible(&plan.target);
        if !has_terminal() {
            return Err(Fault::usage(
                format!("the database {name} on the server holds something, and would be replaced"),
                "give --force, load under another name (--database OLD=NEW --create), or run this at a terminal",
            ));
        }
        let answer = ask_line(&format!("Type the name of the database that is to be replaced ({name}): "))?;
        if answer.trim_end_matches(['\n', '\r']) != plan.target {
            return Err(Fault::usage("another name was typed: nothing was changed", "run it again"));
        }
    }
    Ok(())
}

fn tell_loaded(session: &Session, plan: &PlannedLoad, loaded: &Loaded) {
    let talk = &session.talk;
    let name = render::visible(&plan.target);
    let objects = match loaded.large_objects {
        0 => String::new(),
        count => format!(", {}", render::count(count, "large object", "large objects")),
    };
    talk.tell(&format!(
        "{name} is loaded: {} in {}{objects}, as many as in the dump",
        render::count(loaded.rows, "row", "rows"),
        render::count(loaded.tables, "table", "tables")
    ));
    if loaded.uncounted > 0 {
        let tables = render::count(loaded.uncounted, "table was", "tables were");
        talk.tell(&format!(
            "{tables} not counted: an extension has rows in them, or the name cannot be read"
        ));
    }
    loaded.notes.iter().for_each(|note| talk.note(note));
    if let Some(id) = loaded.safety {
        let dropped = if loaded.kept.is_none() { ", and dropped on the server" } else { "" };
        talk.tell(&format!("what {name} held before is in snapshot {}{dropped}", id.short()));
    }
    if let (Some(kept), Some(why)) = (&loaded.kept, &loaded.kept_why) {
        talk.warn(&format!("what {name} held before is kept on the server, as the database {kept}: {why}"));
    }
}

fn event(plan: &PlannedLoad, loaded: Option<&Loaded>) -> Value {
    json!({
        "database": plan.database,
        "target": plan.target,
        "way": match plan.way {
            Way::New => "new",
            Way::Replace { .. } => "replace",
            Way::Into => "into",
        },
        "replaces_data": plan.way == Way::Replace { empty: false },
        "dump_bytes": plan.facts.dump_bytes,
        "notes": plan.notes,
        "tables": loaded.map(|loaded| loaded.tables),
        "rows": loaded.map(|loaded| loaded.rows),
        "uncounted": loaded.map(|loaded| loaded.uncounted),
        "large_objects": loaded.map(|loaded| loaded.large_objects),
        "safety": loaded.and_then(|loaded| loaded.safety).map(|id| id.to_string()),
        "kept": loaded.and_then(|loaded| loaded.kept.clone()),
    })
}

fn summary(
    session: &Session,
    named: &Named,
    load: &Load,
    databases: Vec<Value>,
    dry_run: bool,
    began: Instant,
) -> Result<(), Fault> {
    session.talk.event(
        "summary",
        json!({
            "snapshot": named.view.id.to_string(),
            "server_version": load.server_version,
            "dump_version": load.facts.program_version,
            "restore_version": load.programs.version,
            "dry_run": dry_run,
            "seconds": began.elapsed().as_secs_f64(),
            "databases": databases,
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_within_a_name_is_written_twice() {
        for (text, expected) in [
            ("app", vec!["app"]),
            ("app=copy", vec!["app", "copy"]),
            ("a==b", vec!["a=b"]),
            ("a==b=c", vec!["a=b", "c"]),
            ("a===b", vec!["a=", "b"]),
            ("x==y==z=n==m", vec!["x=y=z", "n=m"]),
            ("a=b=c", vec!["a", "b", "c"]),
            ("=", vec!["", ""]),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
        assert!(pair("--role-map", "a=b=c").is_err() && pair("--role-map", "a=").is_err());
        assert!(pair("--role-map", "a==b").is_err());
    }
}
