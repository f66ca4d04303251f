//! What the server is asked, before a load and after.

use super::statement::quoted;
use crate::base::Observer;
use crate::postgres::connection::Server;
use crate::postgres::dump::contents::{Contents, TocEntry, show};
use crate::postgres::dump::scan::Held;
use crate::postgres::error::PostgresError;
use std::collections::{BTreeMap, BTreeSet};

const ASK: &str = "ask";
/// Tables that are named one by one.
const TABLES_SHOWN: usize = 5;

/// What a database has already: kind, schema and name.
#[derive(Default)]
pub(super) struct Present(BTreeSet<(String, String, String)>);

/// What was counted.
pub(super) struct Counted {
    pub tables: u64,
    pub rows: u64,
    pub uncounted: u64,
}

/// Puts the kind of an entry into one of those that are looked up.
fn sort_of(entry: &TocEntry) -> Option<&'static str> {
    Some(match entry.kind().as_str() {
        "TABLE" | "FOREIGN TABLE" | "VIEW" | "MATERIALIZED VIEW" | "SEQUENCE" | "INDEX" => "relation",
        "TYPE" | "DOMAIN" | "SHELL TYPE" => "type",
        "FUNCTION" | "PROCEDURE" | "AGGREGATE" => "function",
        "SCHEMA" => "schema",
        "EXTENSION" => "extension",
        _ => return None,
    })
}

impl Present {
    /// Says whether an entry is of a kind that is looked up by its name.
    pub fn is_named(entry: &TocEntry) -> bool {
        sort_of(entry).is_some()
    }

    /// Says whether the database has what an entry would make; of what is not looked up nobody knows.
    pub fn has(&self, entry: &TocEntry) -> bool {
        let Some(sort) = sort_of(entry) else { return false };
        let name = show(&entry.tag);
        // Functions come with the types of their arguments.
        let name = match sort {
            "function" => name.split('(').next().unwrap_or_default().to_owned(),
            _ => name,
        };
        let schema = if matches!(sort, "schema" | "extension") { String::new() } else { show(&entry.schema) };
        self.0.contains(&(sort.to_owned(), schema, name))
    }
}

impl Server {
    /// Returns names.
    pub(super) fn names(&mut self, sql: &str) -> Result<BTreeSet<String>, PostgresError> {
        Ok(self.query(ASK, sql, &[])?.iter().map(|row| row.get(0)).collect())
    }

    pub(super) fn available_extensions(&mut self) -> Result<BTreeMap<String, String>, PostgresError> {
        let sql = "SELECT name::text, coalesce(default_version, '') FROM pg_available_extensions";
        Ok(self.query(ASK, sql, &[])?.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Says what hangs on a database so that it cannot be renamed or dropped.
    pub(super) fn holds(&mut self, database: &str) -> Result<Option<&'static str>, PostgresError> {
        let sql = "SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = $1::text::name), \
            EXISTS (SELECT FROM pg_replication_slots WHERE database = $1::text::name), \
            EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = $1::text::name)";
        let rows = self.query(ASK, sql, &[&database])?;
        let row = rows.first().ok_or_else(|| self.odd(ASK))?;
        let held: [bool; 3] = [row.get(0), row.get(1), row.get(2)];
        let what = ["prepared transactions", "logical replication slots", "subscriptions"];
        Ok(held.into_iter().zip(what).find(|(held, _)| *held).map(|(_, what)| what))
    }

    /// Says whether this database holds nothing of anybody's. Numbers from 16384 on are of no object that a new
    /// database has (`FirstNormalObjectId` of the server).
    pub(super) fn is_empty(&mut self) -> Result<bool, PostgresError> {
        let sql = "SELECT NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
              WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\\_toast%' \
              AND nspname NOT LIKE 'pg\\_temp\\_%') \
            AND NOT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
              WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\\_temp\\_%') \
            AND NOT EXISTS (SELECT FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace \
              WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\\_toast%' \
              AND nspname NOT LIKE 'pg\\_temp\\_%') \
            AND NOT EXISTS (SELECT FROM pg_namespace WHERE nspname NOT IN ('public', 'information_schema') \
              AND nspname NOT LIKE 'pg\\_%') \
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid >= 16384) \
            AND NOT EXISTS (SELECT FROM pg_largeobject_metadata) \
            AND NOT EXISTS (SELECT FROM pg_extension WHERE extname <> 'plpgsql')";
        let rows = self.query(ASK, sql, &[])?;
        rows.first().map(|row| row.get(0)).ok_or_else(|| self.odd(ASK))
    }

    /// Returns what this database has.
    pub(super) fn present(&mut self) -> Result<Present, PostgresError> {
        let sql = "SELECT 'relation', nspname::text, relname::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace \
            UNION ALL SELECT 'type', nspname::text, typname::text FROM pg_type JOIN pg_namespace n ON n.oid = typnamespace \
            UNION ALL SELECT 'function', nspname::text, proname::text FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace \
            UNION ALL SELECT 'schema', '', nspname::text FROM pg_namespace \
            UNION ALL SELECT 'extension', '', extname::text FROM pg_extension";
        let rows = self.query(ASK, sql, &[])?;
        Ok(Present(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()))
    }

    /// Counts the rows of every table that was loaded, and refuses where they are not as many as in the dump.
    pub(super) fn count(
        &mut self,
        contents: &Contents,
        held: &Held,
        observer: &dyn Observer,
    ) -> Result<Counted, PostgresError> {
        const DOING: &str = "count rows at";
        let sql = "SELECT n.nspname::text, c.relname::text FROM pg_depend d JOIN pg_class c ON c.oid = d.objid \
            JOIN pg_namespace n ON n.oid = c.relnamespace WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e'";
        let of_extensions: BTreeSet<(String, String)> =
            self.query(ASK, sql, &[])?.iter().map(|row| (row.get(0), row.get(1))).collect();
        self.execute(ASK, "SET row_security = off")?;
        let mut counted = Counted { tables: 0, rows: 0, uncounted: 0 };
        let mut wrong = Vec::new();
        for entry in contents.entries.iter().filter(|entry| entry.is("TABLE DATA") && entry.has_data) {
            let name = |text: &Option<Vec<u8>>| String::from_utf8(text.clone().unwrap_or_default()).ok();
            let (Some(schema), Some(table), Some(expected)) =
                (name(&entry.schema), name(&entry.tag), held.rows.get(&entry.id).copied())
            else {
                counted.uncounted += 1;
                continue;
            };
            let pair = (schema, table);
            if of_extensions.contains(&pair) {
                counted.uncounted += 1;
                continue;
            }
            let sql = format!("SELECT count(*) FROM ONLY {}.{}", quoted(&pair.0), quoted(&pair.1));
            let rows = self.query_patiently(DOING, &sql, &[], observer)?;
            let found: i64 = rows.first().map(|row| row.get(0)).ok_or_else(|| self.odd(DOING))?;
            counted.tables += 1;
            counted.rows += expected;
            if u64::try_from(found) != Ok(expected) {
                wrong.push(format!("{}.{} has {found} instead of {expected}", pair.0, pair.1));
            }
        }
        match wrong.len() {
            0 => Ok(counted),
            count => Err(PostgresError::failed(
                format!(
                    "{count} tables do not have as many rows as in the dump: {}",
                    wrong.into_iter().take(TABLES_SHOWN).collect::<Vec<_>>().join(", ")
                ),
                "what was loaded is taken away again; look into the server's log",
            )),
        }
    }

    pub(super) fn large_objects(&mut self) -> Result<u64, PostgresError> {
        let rows = self.query(ASK, "SELECT count(*) FROM pg_largeobject_metadata", &[])?;
        let count: i64 = rows.first().map(|row| row.get(0)).ok_or_else(|| self.odd(ASK))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Ends all other sessions of a database.
    pub(super) fn end_sessions(&mut self, database: &str) -> Result<(), PostgresError> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
            WHERE datname = $1::text::name AND pid <> pg_backend_pid()";
        self.query("end sessions at", sql, &[&database]).map(drop)
    }
}
