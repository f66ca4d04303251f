//! What is looked at before anything is written.

use super::select::{Selection, select};
use super::server::Present;
use super::statement::{map_roles, roles_of, setting};
use super::tag::{is_about, is_about_another};
use super::{LoadOptions, PlannedLoad, Way};
use crate::format::tree::Content;
use crate::ops::SnapshotView;
use crate::ops::cat::cat;
use crate::ops::listing::{Found, locate};
use crate::postgres::connection::Server;
use crate::postgres::dump::contents::{Contents, NotAnArchive, TocEntry, show};
use crate::postgres::dump::{DatabaseFacts, DumpFacts, GLOBALS, Known};
use crate::postgres::error::PostgresError;
use crate::repo::Repository;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

/// How much of a dump is read before its table of contents is looked for.
const HEAD_BYTES_FIRST: usize = 256 << 10;
/// A table of contents is not longer.
const HEAD_BYTES_MAX: usize = 512 << 20;
/// Names that are listed one by one.
const NAMES_SHOWN: usize = 8;
/// Room that is to be left where a copy of the dump goes.
const SPARE_BYTES: u64 = 64 << 20;
/// What `pg_restore` must always be told.
const ALWAYS: [&str; 3] = ["ENCODING", "STDSTRINGS", "SEARCHPATH"];

/// Returns the databases that are wanted and their new names.
pub(super) fn wanted(
    facts: &DumpFacts,
    options: &LoadOptions,
) -> Result<Vec<(String, String)>, PostgresError> {
    let names = || facts.databases.keys().cloned().collect::<Vec<_>>().join(", ");
    let wanted = match (options.databases.as_slice(), facts.databases.keys().next()) {
        ([], Some(only)) if facts.databases.len() == 1 => vec![(only.clone(), only.clone())],
        ([], _) => {
            return Err(PostgresError::refused(
                format!("the snapshot holds several databases: {}", names()),
                "name those to load: --database NAME, or --database NAME=NEW for another name",
            ));
        }
        (named, _) => named.to_vec(),
    };
    for (database, _) in &wanted {
        if !facts.databases.contains_key(database) {
            return Err(PostgresError::NotFound {
                why: format!("the snapshot holds no database {database:?}"),
                cure: format!(
                    "it holds: {}{}",
                    names(),
                    if names().contains('=') { "; a sign = within a name is written ==" } else { "" }
                ),
            });
        }
    }
    let targets: BTreeSet<&String> = wanted.iter().map(|(_, target)| target).collect();
    if targets.len() != wanted.len() {
        return Err(PostgresError::refused("two databases are to get one name", "give them different names"));
    }
    if wanted.len() > 1 && !(options.schemas.is_empty() && options.tables.is_empty()) {
        return Err(PostgresError::refused(
            "schemas and tables belong to one database, and several were named",
            "load one database at a time",
        ));
    }
    Ok(wanted)
}

/// Refuses new names for roles that no dump names: a slip of the pen.
pub(super) fn used_roles(
    options: &LoadOptions,
    planned: &[PlannedLoad],
    seen: &BTreeSet<Vec<u8>>,
) -> Result<(), PostgresError> {
    match options.roles.keys().find(|role| !seen.contains(role.as_bytes())) {
        Some(role) => Err(PostgresError::refused(
            format!(
                "no role {role:?} is named in the dump of {}",
                list(planned.iter().map(|p| p.database.clone()))
            ),
            "--role-map OLD=NEW takes the name that the role had when it was dumped",
        )),
        None => Ok(()),
    }
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// Takes bytes until they hold a table of contents.
#[derive(Default)]
struct HeadReader {
    bytes: Vec<u8>,
    looked: usize,
    found: Option<(Contents, usize)>,
    wrong: Option<NotAnArchive>,
}

impl HeadReader {
    fn look(&mut self) {
        self.looked = self.bytes.len();
        match Contents::read(&self.bytes) {
            Ok(found) => self.found = found,
            Err(wrong) => self.wrong = Some(wrong),
        }
    }
}

impl Write for HeadReader {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(buffer);
        if self.bytes.len() >= HEAD_BYTES_FIRST.max(2 * self.looked) {
            self.look();
        }
        let enough = self.found.is_some() || self.wrong.is_some() || self.bytes.len() > HEAD_BYTES_MAX;
        // Whoever writes takes this for a reader that has enough.
        if enough { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(buffer.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the head of a dump, and so proves that this key can read it.
fn read_head(
    repository: &Arc<Repository>,
    view: &SnapshotView,
    path: &str,
) -> Result<(Content, Contents, usize), PostgresError> {
    let damaged = |why: String| PostgresError::Damaged {
        what: format!("{path} of snapshot {}", view.id.short()),
        why: format!("is no archive that can be loaded: {why}"),
    };
    let names: Vec<Vec<u8>> = path.split('/').map(|name| name.as_bytes().to_vec()).collect();
    let entry = match locate(repository, &view.snapshot.root, &names)? {
        Found::Leaf(entry) => entry,
        Found::Folder { .. } => return Err(damaged("it is a folder".to_owned())),
    };
    let content = entry.content.ok_or_else(|| damaged("it has no content".to_owned()))?;
    let mut reader = HeadReader::default();
    cat(repository, path, &content, &mut reader)?;
    if reader.found.is_none() && reader.wrong.is_none() {
        reader.look();
    }
    match (reader.found, reader.wrong) {
        (Some((contents, length)), _) => Ok((content, contents, length)),
        (None, Some(wrong)) => Err(damaged(wrong.0)),
        (None, None) => Err(damaged("it ends within its table of contents".to_owned())),
    }
}

/// Looks at one database after the other.
pub(super) struct Checker<'a> {
    repository: &'a Arc<Repository>,
    server: &'a mut Server,
    facts: &'a DumpFacts,
    view: &'a SnapshotView,
    options: &'a LoadOptions,
    role_map: BTreeMap<Vec<u8>, Vec<u8>>,
    existing: BTreeMap<String, DatabaseFacts>,
    /// All databases, also those that nobody may enter.
    names: BTreeSet<String>,
    roles: BTreeSet<String>,
    tablespaces: BTreeSet<String>,
    /// Versions of the extensions that could be made.
    extensions: BTreeMap<String, String>,
    /// Roles that the dumps name.
    pub seen_roles: BTreeSet<Vec<u8>>,
}

impl<'a> Checker<'a> {
    pub fn new(
        repository: &'a Arc<Repository>,
        server: &'a mut Server,
        known: &Known,
        facts: &'a DumpFacts,
        view: &'a SnapshotView,
        options: &'a LoadOptions,
    ) -> Result<Self, PostgresError> {
        let bytes = |(old, new): (&String, &String)| (old.clone().into_bytes(), new.clone().into_bytes());
        Ok(Self {
            existing: server.database_facts(known, false)?,
            names: server.names("SELECT datname::text FROM pg_database")?,
            roles: server.names("SELECT rolname::text FROM pg_roles")?,
            tablespaces: server.names("SELECT spcname::text FROM pg_tablespace")?,
            extensions: server.available_extensions()?,
            role_map: options.roles.iter().map(bytes).collect(),
            seen_roles: BTreeSet::new(),
            repository,
            server,
            facts,
            view,
            options,
        })
    }

    /// Looks at one database, and says how it will be loaded.
    pub fn plan(&mut self, database: &str, target: &str) -> Result<PlannedLoad, PostgresError> {
        let facts = self.facts.databases.get(database).cloned().unwrap_or_default();
        let is_part = !self.options.schemas.is_empty() || !self.options.tables.is_empty();
        let mut notes = Vec::new();
        let way = self.way(target, is_part)?;
        if !self.facts.only.is_empty() && !is_part {
            notes.push(format!("the dump holds a part of {database} only: {}", self.facts.only.join(" ")));
        }
        let (content, mut contents, head_length) = read_head(self.repository, self.view, &facts.file)?;
        let own = contents.entries.iter().find(|entry| entry.is("DATABASE")).cloned();
        let own = own.ok_or_else(|| PostgresError::Damaged {
            what: format!("the dump of {database}"),
            why: "does not say how the database is made".to_owned(),
        })?;
        if is_part {
            let chosen = select(&contents, &self.options.schemas, &self.options.tables);
            let chosen = chosen.map_err(|why| PostgresError::NotFound {
                why,
                cure: format!(
                    "names are taken as they are, a table's also as SCHEMA.TABLE; chronolith cat {}:{} | pg_restore \
                     --list shows what there is",
                    self.view.id.short(),
                    facts.file
                ),
            })?;
            notes.extend(chosen.left_out.iter().map(|key| {
                format!("the foreign key {key} is left out: it leads to a table that is not loaded")
            }));
            self.keep(&mut contents, &chosen, target, way)?;
        }
        self.check_roles(database, &contents, way)?;
        self.check_extensions(&contents, &facts, &mut notes)?;
        self.check_tablespaces(&contents, &own, way)?;
        if let Some(existing) = self.existing.get(target) {
            self.check_locale(target, &facts, existing, way, &mut notes)?;
        }
        if way != Way::Into && self.options.jobs > 1 && !is_part {
            self.check_room(content.length)?;
        }
        let name = own.tag.clone().unwrap_or_default();
        let is_property = |entry: &&TocEntry| {
            let is_wanted = !(entry.is("ACL") && self.options.no_privileges);
            entry.is("DATABASE PROPERTIES") || (is_about(entry, "DATABASE", &name) && is_wanted)
        };
        contents.entries.iter_mut().for_each(|entry| map_roles(entry, &self.role_map));
        let properties = contents.entries.iter().filter(is_property);
        let properties = properties.filter_map(|entry| entry.statement.clone()).collect();
        let owner = match (self.options.no_owner, way) {
            (true, Way::Replace { .. }) => self.existing.get(target).map(|existing| existing.owner.clone()),
            (true, _) => None,
            // A part of a database is not the owner's database.
            (false, _) if is_part => None,
            (false, _) => {
                let owner = own.owner.clone().unwrap_or_default();
                let owner = self.role_map.get(&owner).cloned().unwrap_or(owner);
                String::from_utf8(owner).ok().filter(|owner| !owner.is_empty())
            }
        };
        Ok(PlannedLoad {
            database: database.to_owned(),
            target: target.to_owned(),
            way,
            notes,
            owner,
            create: own.statement.clone().unwrap_or_default(),
            old_name: own.tag.clone().unwrap_or_default(),
            properties,
            path: facts.file.clone(),
            facts,
            content,
            contents,
            head_length,
            is_part,
        })
    }

    fn way(&mut self, target: &str, is_part: bool) -> Result<Way, PostgresError> {
        if !self.names.contains(target) {
            return match self.options.create {
                true => Ok(Way::New),
                false => Err(PostgresError::refused(
                    format!("the server has no database {target:?}"),
                    "--create makes it; --database OLD=NEW loads under another name",
                )),
            };
        }
        if !self.existing.contains_key(target) {
            return Err(PostgresError::refused(
                format!("the database {target:?} on the server cannot be entered"),
                "ALTER DATABASE ... ALLOW_CONNECTIONS true, or load under another name: --database OLD=NEW",
            ));
        }
        if is_part {
            return Ok(Way::Into);
        }
        if let Some(what) = self.server.holds(target)? {
            return Err(PostgresError::refused(
                format!("the database {target:?} cannot be replaced: it has {what}"),
                "end them first, or load under another name: --database OLD=NEW",
            ));
        }
        Ok(Way::Replace { empty: self.server.connect_to(target)?.is_empty()? })
    }

    /// Leaves of a dump what was chosen and what that needs and is not there.
    fn keep(
        &self,
        contents: &mut Contents,
        chosen: &Selection,
        target: &str,
        way: Way,
    ) -> Result<(), PostgresError> {
        let present = match way {
            Way::Into => self.server.connect_to(target)?.present()?,
            _ => Present::default(),
        };
        let is_there = |entry: &TocEntry| way == Way::Into && present.has(entry);
        let stands = contents.entries.iter().filter(|entry| {
            chosen.entries.contains(&entry.id)
                && !entry.is("SCHEMA")
                && Present::is_named(entry)
                && is_there(entry)
        });
        let stands: Vec<String> =
            stands.map(|entry| format!("{}.{}", show(&entry.schema), show(&entry.tag))).collect();
        if !stands.is_empty() {
            return Err(PostgresError::refused(
                format!("the database {target:?} has already: {}", list(stands.into_iter())),
                "nothing is replaced within a database: rename or drop it first, or load into another database \
                 (--database OLD=NEW --create)",
            ));
        }
        let schemas_there: BTreeSet<Vec<u8>> = contents
            .entries
            .iter()
            .filter(|entry| entry.is("SCHEMA") && is_there(entry))
            .filter_map(|entry| entry.tag.clone())
            .collect();
        let is_missing = |entry: &TocEntry| {
            let is_new = way != Way::Into || (Present::is_named(entry) && !is_there(entry));
            is_new && chosen.needed.contains(&entry.id)
        };
        // What is made because others need it comes with its privileges: whoever may use a table must get into its
        // schema. An extension has its own.
        let made = contents.entries.iter().filter(|entry| is_missing(entry) && !entry.is("EXTENSION"));
        let made: BTreeSet<i64> = made.map(|entry| entry.id).collect();
        contents.entries.retain(|entry| {
            let of_schema_there = (entry.is("SCHEMA") && is_there(entry))
                || schemas_there.iter().any(|name| is_about(entry, "SCHEMA", name));
            let of_made = is_about_another(entry) && entry.needs.iter().any(|id| made.contains(id));
            ALWAYS.iter().any(|kind| entry.is(kind))
                || (chosen.entries.contains(&entry.id) && !of_schema_there)
                || is_missing(entry)
                || of_made
        });
        Ok(())
    }

    fn check_roles(&mut self, database: &str, contents: &Contents, way: Way) -> Result<(), PostgresError> {
        let mut needed = BTreeSet::new();
        for entry in contents.entries.iter().filter(|entry| way != Way::Into || !entry.is("DATABASE")) {
            roles_of(entry, !self.options.no_owner, !self.options.no_privileges, &mut needed);
            roles_of(entry, true, true, &mut self.seen_roles);
        }
        let mapped = needed.iter().map(|role| self.role_map.get(role).unwrap_or(role));
        // A name in another encoding than the server's cannot be looked up here.
        let names = mapped.filter_map(|role| std::str::from_utf8(role).ok());
        let missing: BTreeSet<&str> = names.filter(|role| !self.roles.contains(*role)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(PostgresError::refused(
            format!(
                "the server lacks roles that the dump of {database} needs: {}",
                list(missing.into_iter().map(str::to_owned))
            ),
            format!(
                "make them (chronolith cat {}:{GLOBALS} | psql makes all), name others with --role-map OLD=NEW, or \
                 leave them out with --no-owner and --no-privileges",
                self.view.id.short()
            ),
        ))
    }

    fn check_extensions(
        &self,
        contents: &Contents,
        facts: &DatabaseFacts,
        notes: &mut Vec<String>,
    ) -> Result<(), PostgresError> {
        let names: Vec<String> =
            contents.entries.iter().filter(|e| e.is("EXTENSION")).map(|e| show(&e.tag)).collect();
        let missing: Vec<String> =
            names.iter().filter(|name| !self.extensions.contains_key(*name)).cloned().collect();
        if !missing.is_empty() {
            return Err(PostgresError::refused(
                format!("the server lacks extensions that the dump needs: {}", list(missing.into_iter())),
                "install their packages on the server's host",
            ));
        }
        for name in names {
            match (facts.extensions.get(&name), self.extensions.get(&name)) {
                (Some(old), Some(new)) if old != new => {
                    notes.push(format!("the extension {name} had version {old}, and will have {new}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_tablespaces(&self, contents: &Contents, own: &TocEntry, way: Way) -> Result<(), PostgresError> {
        if self.options.no_tablespaces {
            return Ok(());
        }
        let of_database = setting(own.statement.as_deref().unwrap_or_default(), "TABLESPACE");
        let of_database = of_database.filter(|_| way != Way::Into);
        let named = contents.entries.iter().filter_map(|entry| entry.tablespace.clone()).chain(of_database);
        let names: BTreeSet<String> = named.filter_map(|name| String::from_utf8(name).ok()).collect();
        let missing = names.into_iter().filter(|name| !name.is_empty() && !self.tablespaces.contains(name));
        let missing = list(missing);
        if missing.is_empty() {
            return Ok(());
        }
        Err(PostgresError::refused(
            format!("the server lacks tablespaces that the dump needs: {missing}"),
            "make them, or put everything into the usual one with --no-tablespaces",
        ))
    }

    fn check_locale(
        &self,
        target: &str,
        dumped: &DatabaseFacts,
        existing: &DatabaseFacts,
        way: Way,
        notes: &mut Vec<String>,
    ) -> Result<(), PostgresError> {
        let locale = |facts: &DatabaseFacts| facts.locale.clone().unwrap_or_default();
        let pairs = [
            ("encoding", dumped.encoding.clone(), existing.encoding.clone()),
            ("locale provider", dumped.locale_provider.clone(), existing.locale_provider.clone()),
            ("locale", locale(dumped), locale(existing)),
            ("collation", dumped.collate.clone(), existing.collate.clone()),
            ("character classes", dumped.ctype.clone(), existing.ctype.clone()),
        ];
        let differ: Vec<String> = pairs
            .iter()
            .filter(|(_, dumped, existing)| dumped != existing)
            .map(|(what, dumped, existing)| format!("{what} {dumped:?} instead of {existing:?}"))
            .collect();
        if differ.is_empty() {
            return Ok(());
        }
        let differ = differ.join(", ");
        if self.options.force || way == Way::Into {
            notes.push(format!("the dumped database differs from {target}: {differ}"));
            return Ok(());
        }
        Err(PostgresError::refused(
            format!(
                "the dumped database differs from {target} on the server, whose place it would take: {differ}"
            ),
            "load under another name (--database OLD=NEW --create), or replace it all the same with --force",
        ))
    }

    /// Refuses a copy of the dump for which there is certainly no room.
    fn check_room(&self, bytes: u64) -> Result<(), PostgresError> {
        let folder = &self.options.temporary;
        let room = rustix::fs::statvfs(folder)
            .map_err(|errno| PostgresError::file("look at the temporary folder", folder)(errno.into()))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        let needed = bytes.saturating_add(SPARE_BYTES);
        if needed <= free {
            return Ok(());
        }
        Err(PostgresError::failed(
            format!(
                "there is no room for a copy of the dump in {}: {needed} bytes are needed, {free} are free",
                folder.display()
            ),
            "name another folder with --temporary, or load with --jobs 1, which needs no copy",
        ))
    }
}
