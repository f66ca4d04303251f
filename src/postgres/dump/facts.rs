//! What a snapshot remembers of the server and the databases that were dumped.
//!
//! Facts are texts by name (`format-spec/snapshot.md`, field 15); the names are listed in
//! `docs/postgres-logical.md`. What is known of one database stands in one fact, as JSON: there may be thousands.

use crate::format::snapshot::Snapshot;
use crate::postgres::error::PostgresError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kind of a snapshot that holds dumps.
pub const KIND: &str = "postgres-dump";
const DATABASE: &str = "database.";

/// How dumps are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpFormat {
    /// Archives for `pg_restore`, uncompressed.
    Custom,
    /// SQL for `psql`.
    Plain,
}

/// One database.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseFacts {
    /// Where its dump is in the snapshot.
    pub file: String,
    /// Its owner.
    pub owner: String,
    /// Its encoding, as the server names it.
    pub encoding: String,
    /// `libc`, `icu` or `builtin`.
    pub locale_provider: String,
    /// By what strings are ordered.
    pub collate: String,
    /// By what characters are classified.
    pub ctype: String,
    /// The locale of a provider other than libc.
    pub locale: Option<String>,
    /// Version of the ordering, where the provider tells one.
    pub collation_version: Option<String>,
    /// Room that it took on the server.
    pub bytes: u64,
    /// Length of its dump.
    pub dump_bytes: u64,
    /// Tables whose rows are in the dump; unknown of a plain one, and so is what follows.
    pub tables: Option<u64>,
    /// Rows in the dump.
    pub rows: Option<u64>,
    /// Large objects in the dump.
    pub large_objects: Option<u64>,
    /// Versions of extensions by their names.
    pub extensions: BTreeMap<String, String>,
}

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpFacts {
    /// Tells the cluster apart from all others, where the server told it.
    pub system_identifier: Option<u64>,
    /// The server's version, as it writes it.
    pub server_version: String,
    /// Its first number.
    pub major: u32,
    /// Version of `pg_dump`.
    pub program_version: String,
    /// Whether a standby was dumped.
    pub from_standby: bool,
    /// How dumps are written.
    pub format: DumpFormat,
    /// Whether the globals hold the roles' passwords.
    pub role_passwords: bool,
    /// Schemas and tables, where only some were dumped: what `pg_dump` was told.
    pub only: Vec<String>,
    /// The databases by name.
    pub databases: BTreeMap<String, DatabaseFacts>,
}

impl DumpFacts {
    /// Returns the first number of `pg_dump`'s version; that of the server where it cannot be read.
    pub fn program_major(&self) -> u32 {
        let digits = self.program_version.split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(self.major)
    }

    /// Writes the facts down.
    ///
    /// # Errors
    ///
    /// When something is too much for a snapshot.
    pub fn write(&self) -> Result<BTreeMap<String, String>, PostgresError> {
        let mut facts = BTreeMap::new();
        let mut put = |name: &str, value: String| drop(facts.insert(name.to_owned(), value));
        if let Some(identifier) = self.system_identifier {
            put("system_identifier", identifier.to_string());
        }
        put("server_version", self.server_version.clone());
        put("major_version", self.major.to_string());
        put("dump_version", self.program_version.clone());
        put("from", if self.from_standby { "standby" } else { "primary" }.to_owned());
        let format = match self.format {
            DumpFormat::Custom => "custom",
            DumpFormat::Plain => "plain",
        };
        put("format", format.to_owned());
        put("role_passwords", if self.role_passwords { "yes" } else { "no" }.to_owned());
        if !self.only.is_empty() {
            put("only", self.only.join(" "));
        }
        for (name, database) in &self.databases {
            let text = serde_json::to_string(database).map_err(|error| PostgresError::Damaged {
                what: format!("what is known of the database {name}"),
                why: format!("cannot be written down: {error}"),
            })?;
            put(&format!("{DATABASE}{name}"), text);
        }
        Ok(facts)
    }

    /// Reads the facts of a snapshot; `None` for one that holds no dumps.
    ///
    /// # Errors
    ///
    /// When it claims to hold some and lacks what one needs.
    pub fn read(snapshot: &Snapshot) -> Result<Option<Self>, PostgresError> {
        if snapshot.kind != KIND {
            return Ok(None);
        }
        Self::from_map(&snapshot.facts).map(Some).map_err(|name| PostgresError::Damaged {
            what: "the snapshot of dumps".to_owned(),
            why: format!("does not say its {name}, or says nonsense"),
        })
    }

    fn from_map(facts: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |name: &str| facts.get(name).cloned().ok_or_else(|| name.to_owned());
        let mut databases = BTreeMap::new();
        for (name, value) in facts.range(DATABASE.to_owned()..) {
            let Some(database) = name.strip_prefix(DATABASE) else { break };
            let read = serde_json::from_str(value).map_err(|_| name.clone())?;
            databases.insert(database.to_owned(), read);
        }
        Ok(Self {
            system_identifier: facts.get("system_identifier").and_then(|value| value.parse().ok()),
            server_version: text("server_version")?,
            major: text("major_version")?.parse().map_err(|_| "major_version".to_owned())?,
            program_version: text("dump_version")?,
            from_standby: text("from")? == "standby",
            format: match text("format")?.as_str() {
                "custom" => DumpFormat::Custom,
                "plain" => DumpFormat::Plain,
                _ => return Err("format".to_owned()),
            },
            role_passwords: text("role_passwords")? == "yes",
            only: facts.get("only").map(|only| vec![only.clone()]).unwrap_or_default(),
            databases,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let database = DatabaseFacts {
            file: "databases/odd %2F name.dump".to_owned(),
            owner: "ann".to_owned(),
            rows: Some(3),
            extensions: [("hstore".to_owned(), "1.8".to_owned())].into(),
            ..DatabaseFacts::default()
        };
        let facts = DumpFacts {
            system_identifier: Some(u64::MAX - 3),
            server_version: "15.18".to_owned(),
            major: 15,
            program_version: "15.18".to_owned(),
            from_standby: false,
            format: DumpFormat::Custom,
            role_passwords: true,
            only: vec!["--table=a.b".to_owned()],
            databases: [("odd / name=1".to_owned(), database)].into(),
        };
        let written = facts.write().unwrap();
        assert_eq!(DumpFacts::from_map(&written), Ok(facts));
        for name in ["server_version", "format", "from", "dump_version"] {
            let mut map = written.clone();
            map.remove(name);
            assert_eq!(DumpFacts::from_map(&map), Err(name.to_owned()));
        }
        let mut map = written;
        map.insert("database.x".to_owned(), "nonsense".to_owned());
        assert_eq!(DumpFacts::from_map(&map), Err("database.x".to_owned()));
    }
}
