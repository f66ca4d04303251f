//! Dumped databases back into a server.
//!
//! All that can be known is looked at before anything is written ([`Load::prepare`]): versions, roles,
//! extensions, tablespaces, encodings and locales, what stands where the load would go.
//!
//! A whole database is loaded under a name of its own, counted, and only then gets the name that was asked for, so
//! that a load that fails at any point changes nothing. Steps, and what a crash after each leaves:
//!
//! 1. a database `chronolith_load_...` is made: it stays behind a crash, and harms nobody;
//! 2. `pg_restore` fills it; rows are counted and compared with those in the dump; it is analysed, and gets its
//!    owner, privileges and settings;
//! 3. in one transaction the database that had the name is renamed to `NAME_before_...`, and the new one
//!    gets the name;
//! 4. the old one, to which nobody writes any more, is dumped into the repository; then it is dropped. It is kept
//!    where it could not be dumped.
//!
//! Schemas and tables go into a database that is there in one transaction, and replace nothing.
//!
//! - `checks`: what is looked at before; `versions`: of servers, dumps and programs; `select`: parts of a dump; `statement`: names in statements
//! - `passing`: a dump on its way into `pg_restore`; `run`: the steps; `server`: what the server is asked; `tag`: whom entries speak of

mod checks;
mod passing;
mod run;
mod select;
mod server;
mod statement;
mod tag;
mod versions;

use super::connection::Server;
use super::dump::contents::Contents;
use super::dump::{DatabaseFacts, DumpFacts, DumpFormat, facts_of};
use super::error::PostgresError;
use super::programs::ClientPrograms;
use crate::base::SnapshotId;
use crate::format::tree::Content;
use crate::ops::SnapshotView;
use crate::ops::backup::BackupOptions;
use crate::repo::Repository;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What to load and how.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The databases, each with the name that it is to get; none means the only one that there is.
    pub databases: Vec<(String, String)>,
    /// Makes databases that are not there.
    pub create: bool,
    /// Only these schemas, of one database.
    pub schemas: Vec<String>,
    /// Only these tables, of one database.
    pub tables: Vec<String>,
    /// Tables and indexes that are loaded at a time.
    pub jobs: usize,
    /// Everything belongs to whoever loads it.
    pub no_owner: bool,
    /// Nothing is granted to anybody.
    pub no_privileges: bool,
    /// Everything goes into the tablespace that there always is.
    pub no_tablespaces: bool,
    /// New names of roles by their old ones.
    pub roles: BTreeMap<String, String>,
    /// Though the dump is of a newer version or a database of another locale stands there, and without a backup
    /// of what is replaced.
    pub force: bool,
    /// Folders in which PostgreSQL's programs may be.
    pub programs: Vec<PathBuf>,
    /// The folder for a copy of the dump, where several jobs or a part of it need one.
    pub temporary: PathBuf,
    /// How what is replaced is backed up.
    pub backup: BackupOptions,
}

/// Where a database goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// There is none of its name yet.
    New,
    /// It takes the place of one.
    Replace {
        /// Whether that holds nothing.
        empty: bool,
    },
    /// Parts of it go into one that stays.
    Into,
}

/// One database that will be loaded.
pub struct PlannedLoad {
    /// Its name in the snapshot.
    pub database: String,
    /// The name that it is to have.
    pub target: String,
    /// Where it goes.
    pub way: Way,
    /// What is known of it.
    pub facts: DatabaseFacts,
    /// What the user should know before, a line each.
    pub notes: Vec<String>,
    /// Its owner, where that is not whoever loads it.
    owner: Option<String>,
    /// The statement that makes it.
    create: Vec<u8>,
    /// Its name in statements.
    old_name: Vec<u8>,
    /// Settings, comments and privileges of the database itself.
    properties: Vec<Vec<u8>>,
    path: String,
    content: Content,
    contents: Contents,
    head_length: usize,
    is_part: bool,
}

/// What became of one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Tables whose rows were counted and are as many as in the dump.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
    /// Tables that hold rows of an extension too, or whose names cannot be read, which were not counted.
    pub uncounted: u64,
    /// Large objects.
    pub large_objects: u64,
    /// The snapshot that holds what was replaced.
    pub safety: Option<SnapshotId>,
    /// The name under which what was replaced is kept on the server.
    pub kept: Option<String>,
    /// Why it is kept there and not in a snapshot.
    pub kept_why: Option<String>,
    /// What the user should know, a line each.
    pub notes: Vec<String>,
}

/// A load that has been checked, and can be shown or run.
pub struct Load {
    repository: Arc<Repository>,
    server: Server,
    options: LoadOptions,
    /// Version of the server, as it writes it.
    pub server_version: String,
    version_number: i32,
    /// What the snapshot remembers.
    pub facts: DumpFacts,
    /// The databases, in order.
    pub planned: Vec<PlannedLoad>,
    /// Which of PostgreSQL's programs are used.
    pub programs: ClientPrograms,
    /// Whether this key may back up what is replaced.
    pub backs_up: bool,
}

impl Load {
    /// Checks a load, without writing anything.
    ///
    /// # Errors
    ///
    /// When the snapshot holds no such dump or this key cannot read it, or something stands in the way.
    pub fn prepare(
        repository: &Arc<Repository>,
        mut server: Server,
        view: &SnapshotView,
        options: LoadOptions,
    ) -> Result<Self, PostgresError> {
        let facts = facts_of(view)?;
        let known = server.known()?;
        if facts.format != DumpFormat::Custom {
            return Err(versions::plain(&facts, &known, view));
        }
        let wanted = checks::wanted(&facts, &options)?;
        versions::server(&facts, &known, &options)?;
        let programs =
            ClientPrograms::find(&options.programs, "pg_restore", known.major(), facts.program_major())?;
        // A database cannot be renamed from within.
        if wanted.iter().any(|(_, target)| target == server.database()) {
            let other = ["template1", "postgres"].into_iter().find(|name| *name != server.database());
            server = server.connect_to(other.unwrap_or("template1"))?;
        }
        let mut checker = checks::Checker::new(repository, &mut server, &known, &facts, view, &options)?;
        let mut planned = Vec::new();
        for (database, target) in &wanted {
            planned.push(checker.plan(database, target)?);
        }
        versions::readable(&planned, &facts, &programs, &known, &options)?;
        checks::used_roles(&options, &planned, &checker.seen_roles)?;
        let replaced = planned.iter().find(|plan| plan.way == Way::Replace { empty: false });
        let permitted = match replaced {
            Some(plan) => run::may_back_up(repository, &options, &plan.target),
            None => Ok(()),
        };
        let backs_up = match permitted {
            Ok(()) => true,
            Err(_) if options.force => false,
            Err(error) => return Err(error),
        };
        let (server_version, version_number) = (known.version, known.version_number);
        let repository = repository.clone();
        Ok(Self {
            repository,
            server,
            options,
            server_version,
            version_number,
            facts,
            planned,
            programs,
            backs_up,
        })
    }
}
