//! What the server is asked in the course of a base backup, all in one session that stays open (B1).

use super::label::BackupLabel;
use crate::base::{Observer, Timestamp};
use crate::postgres::connection::Server;
use crate::postgres::error::PostgresError;
use crate::postgres::segment::Lsn;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The oldest server whose backups can be taken beside others.
const MAJOR_MIN: u32 = 13;
const ASK: &str = "ask";

/// What is asked before anything begins.
#[derive(Debug)]
pub(super) struct About {
    pub system_identifier: u64,
    pub version: String,
    pub version_number: u32,
    /// Where the server says that its data is, if it tells this user.
    pub data_directory: Option<PathBuf>,
    pub archives: bool,
    /// Its configuration, its rules for hosts, its map of identities, if it tells this user.
    pub configuration: [Option<PathBuf>; 3],
}

impl About {
    pub fn major(&self) -> u32 {
        self.version_number / 10_000
    }
}

/// What the server says at the end.
pub(super) struct Stopped {
    pub stop: Lsn,
    pub label: Vec<u8>,
    pub map: Vec<u8>,
    pub time: Timestamp,
}

fn microseconds(value: i64) -> Timestamp {
    Timestamp::from_nanoseconds(value.saturating_mul(1000))
}

const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

impl Server {
    pub(super) fn about(&mut self) -> Result<About, PostgresError> {
        let sql = "SELECT (SELECT system_identifier::text FROM pg_control_system()), \
            current_setting('server_version'), current_setting('server_version_num')::int, \
            (SELECT setting FROM pg_settings WHERE name = 'data_directory'), \
            current_setting('archive_mode') <> 'off', current_setting('wal_level'), \
            (SELECT setting FROM pg_settings WHERE name = 'config_file'), \
            (SELECT setting FROM pg_settings WHERE name = 'hba_file'), \
            (SELECT setting FROM pg_settings WHERE name = 'ident_file')";
        let rows = self.query(ASK, sql, &[])?;
        let row = rows.first().ok_or_else(|| self.odd(ASK))?;
        let identifier: String = row.get(0);
        // The server writes the number as if it had a sign.
        let system_identifier = identifier
            .parse::<i64>()
            .map(i64::cast_unsigned)
            .or_else(|_| identifier.parse())
            .map_err(|_| self.odd(ASK))?;
        let about = About {
            system_identifier,
            version: row.get(1),
            version_number: u32::try_from(row.get::<_, i32>(2)).unwrap_or(0),
            data_directory: row.get::<_, Option<String>>(3).map(PathBuf::from),
            archives: row.get(4),
            configuration: [6, 7, 8].map(|at| row.get::<_, Option<String>>(at).map(PathBuf::from)),
        };
        let wal_level: String = row.get(5);
        if about.major() < MAJOR_MIN {
            return Err(PostgresError::refused(
                format!(
                    "the server has version {}, and base backups need {MAJOR_MIN} or newer",
                    about.version
                ),
                "back it up logically: chronolith backup --exec 'app.sql=pg_dump app'",
            ));
        }
        if wal_level == "minimal" {
            return Err(PostgresError::refused(
                "the server writes too little into its log for a base backup (wal_level = minimal)",
                "ALTER SYSTEM SET wal_level = 'replica', and start the server anew",
            ));
        }
        Ok(about)
    }

    /// Keeps the segments of the log from being removed until this session ends; false where the server
    /// does not permit that.
    pub(super) fn hold_log(&mut self, name: &str) -> bool {
        let sql = "SELECT FROM pg_create_physical_replication_slot($1, true, true)";
        self.query("reserve a slot at", sql, &[&name]).is_ok()
    }

    /// Begins the backup; returns where replay must begin, and the time.
    pub(super) fn start_backup(
        &mut self,
        label: &str,
        fast: bool,
        major: u32,
        observer: &dyn Observer,
    ) -> Result<(Lsn, Timestamp), PostgresError> {
        const DOING: &str = "start a backup of";
        let sql = match major {
            15.. => "SELECT pg_backup_start($1, $2)::text",
            _ => "SELECT pg_start_backup($1, $2, false)::text",
        };
        let rows = self.query_patiently(DOING, sql, &[&label, &fast], observer)?;
        let start = rows.first().and_then(|row| row.get::<_, String>(0).parse().ok());
        let rows = self.query(DOING, &format!("SELECT {NOW}"), &[])?;
        start.zip(rows.first().map(|row| microseconds(row.get(0)))).ok_or_else(|| self.odd(DOING))
    }

    /// Ends the backup. What the server says of it is taken as bytes (B2): a path need not be a text.
    pub(super) fn stop_backup(
        &mut self,
        major: u32,
        observer: &dyn Observer,
    ) -> Result<Stopped, PostgresError> {
        const DOING: &str = "stop the backup of";
        let function = match major {
            15.. => "pg_backup_stop(false)",
            _ => "pg_stop_backup(false, false)",
        };
        let sql = format!(
            "SELECT lsn::text, convert_to(labelfile, getdatabaseencoding()), \
             convert_to(spcmapfile, getdatabaseencoding()), {NOW} FROM {function}"
        );
        let rows = self.query_patiently(DOING, &sql, &[], observer)?;
        let row = rows.first().ok_or_else(|| self.odd(DOING))?;
        let stop: String = row.get(0);
        let (label, map): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(1), row.get(2));
        let label = label.filter(|label| BackupLabel::parse(label).is_some());
        Ok(Stopped {
            stop: stop.parse().map_err(|_| self.odd(DOING))?,
            label: label.ok_or_else(|| self.odd(DOING))?,
            map: map.unwrap_or_default(),
            time: microseconds(row.get(3)),
        })
    }

    /// Returns the tablespaces that lie outside of the data directory, by their numbers.
    pub(super) fn tablespaces(&mut self) -> Result<BTreeMap<u32, String>, PostgresError> {
        let sql = "SELECT oid::bigint, pg_tablespace_location(oid) FROM pg_tablespace \
            WHERE pg_tablespace_location(oid) LIKE '/%'";
        let rows = self.query(ASK, sql, &[])?;
        let read = |row: &postgres::Row| Some((u32::try_from(row.get::<_, i64>(0)).ok()?, row.get(1)));
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Says whether there are tablespaces within the data directory, which a developer's setting permits.
    pub(super) fn has_inner_tablespaces(&mut self) -> Result<bool, PostgresError> {
        let sql = "SELECT EXISTS (SELECT FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE 'pg\\_tblspc/%')";
        let rows = self.query(ASK, sql, &[])?;
        rows.first().map(|row| row.get(0)).ok_or_else(|| self.odd(ASK))
    }

    /// Returns the names of databases by their numbers.
    pub(super) fn databases(&mut self) -> Result<BTreeMap<u32, String>, PostgresError> {
        let rows = self.query(ASK, "SELECT oid::bigint, datname::text FROM pg_database", &[])?;
        let read = |row: &postgres::Row| Some((u32::try_from(row.get::<_, i64>(0)).ok()?, row.get(1)));
        Ok(rows.iter().filter_map(read).collect())
    }
}
