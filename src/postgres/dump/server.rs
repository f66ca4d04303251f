//! What the server is asked before it is dumped.

use super::facts::DatabaseFacts;
use crate::postgres::connection::Server;
use crate::postgres::error::PostgresError;
use std::collections::BTreeMap;

const ASK: &str = "ask";
/// From here on databases have a provider of their locale, and its version.
const LOCALE_PROVIDERS: i32 = 150_000;
/// From here on the locale of every provider has a column.
const LOCALE_OF_ANY: i32 = 170_000;

/// What is known of a server.
pub(in crate::postgres) struct Known {
    pub system_identifier: Option<u64>,
    pub version: String,
    pub version_number: i32,
    pub is_standby: bool,
    /// Whether this role may read the passwords of roles.
    pub reads_passwords: bool,
    /// The database of the session that asked.
    pub database: String,
}

impl Known {
    pub fn major(&self) -> u32 {
        u32::try_from(self.version_number / 10_000).unwrap_or(0)
    }
}

impl Server {
    pub(in crate::postgres) fn known(&mut self) -> Result<Known, PostgresError> {
        let sql = "SELECT current_setting('server_version'), current_setting('server_version_num')::int, \
            pg_is_in_recovery(), has_table_privilege('pg_catalog.pg_authid', 'SELECT'), current_database()::text";
        let rows = self.query(ASK, sql, &[])?;
        let row = rows.first().ok_or_else(|| self.odd(ASK))?;
        let mut known = Known {
            system_identifier: None,
            version: row.get(0),
            version_number: row.get(1),
            is_standby: row.get(2),
            reads_passwords: row.get(3),
            database: row.get(4),
        };
        // Not everybody is told, and nothing depends on it.
        let sql = "SELECT system_identifier::text FROM pg_control_system()";
        let identifier = self.query(ASK, sql, &[]).ok().and_then(|rows| rows.first().map(|row| row.get(0)));
        known.system_identifier = identifier.and_then(|text: String| {
            text.parse::<i64>().map(i64::cast_unsigned).or_else(|_| text.parse()).ok()
        });
        Ok(known)
    }

    /// Returns what is known of databases: of those that are named, or of all that can be entered and are
    /// no templates.
    pub(in crate::postgres) fn databases_to_dump(
        &mut self,
        known: &Known,
        named: &[String],
    ) -> Result<BTreeMap<String, DatabaseFacts>, PostgresError> {
        let mut found = self.database_facts(known, named.is_empty())?;
        if named.is_empty() {
            return Ok(found);
        }
        let there = found.keys().cloned().collect::<Vec<_>>().join(", ");
        let mut wanted = BTreeMap::new();
        for name in named {
            if wanted.contains_key(name) {
                continue;
            }
            let facts = found.remove(name).ok_or_else(|| PostgresError::NotFound {
                why: format!("the server has no database {name:?} that can be entered"),
                cure: format!("it has: {there}"),
            })?;
            wanted.insert(name.clone(), facts);
        }
        Ok(wanted)
    }

    /// Returns what is known of databases that can be entered.
    pub(in crate::postgres) fn database_facts(
        &mut self,
        known: &Known,
        without_templates: bool,
    ) -> Result<BTreeMap<String, DatabaseFacts>, PostgresError> {
        let (provider, version) = match known.version_number >= LOCALE_PROVIDERS {
            true => ("datlocprovider::text", "datcollversion"),
            false => ("'c'", "NULL::text"),
        };
        let locale = match known.version_number {
            LOCALE_OF_ANY.. => "datlocale",
            LOCALE_PROVIDERS.. => "daticulocale",
            _ => "NULL::text",
        };
        // One that a DROP left half dropped has a limit of -2.
        let sql = format!(
            "SELECT datname::text, pg_get_userbyid(datdba)::text, pg_encoding_to_char(encoding)::text, {provider}, \
             datcollate::text, datctype::text, {locale}, {version}, \
             CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) ELSE 0 END \
             FROM pg_database WHERE datallowconn AND datconnlimit <> -2 AND NOT (datistemplate AND $1)"
        );
        let rows = self.query(ASK, &sql, &[&without_templates])?;
        let read = |row: &postgres::Row| {
            let provider: String = row.get(3);
            let facts = DatabaseFacts {
                owner: row.get(1),
                encoding: row.get(2),
                locale_provider: match provider.as_str() {
                    "i" => "icu",
                    "b" => "builtin",
                    _ => "libc",
                }
                .to_owned(),
                collate: row.get(4),
                ctype: row.get(5),
                locale: row.get(6),
                collation_version: row.get(7),
                bytes: u64::try_from(row.get::<_, i64>(8)).unwrap_or(0),
                ..DatabaseFacts::default()
            };
            (row.get(0), facts)
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Returns the versions of the extensions of this database.
    pub(in crate::postgres) fn extensions(&mut self) -> Result<BTreeMap<String, String>, PostgresError> {
        let rows = self.query(ASK, "SELECT extname::text, extversion FROM pg_extension", &[])?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}
