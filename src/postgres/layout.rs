//! What lies where in a data directory, and what of it a base backup takes.

use crate::localfs::{Excludes, LocalError};

/// What of a data directory is left out (B6). Folders stay, their content goes.
///
/// Four files are here because they have places of their own in the snapshot: `pg_control` must come last
/// (B4), and the others are made by the backup (B2, B3).
const LEFT_OUT: [&str; 28] = [
    "/pg_wal/*",
    "/pg_replslot/*",
    "/pg_dynshmem/*",
    "/pg_notify/*",
    "/pg_serial/*",
    "/pg_snapshots/*",
    "/pg_stat_tmp/*",
    "/pg_subtrans/*",
    "/postmaster.pid",
    "/postmaster.opts",
    "/backup_label",
    "/backup_label.old",
    "/tablespace_map",
    "/tablespace_map.old",
    "/backup_manifest",
    "/backup_manifest.tmp",
    "/recovery.signal",
    "/standby.signal",
    "/postgresql.auto.conf.tmp",
    "/current_logfiles.tmp",
    "/global/pg_control",
    "/global/pg_control.chronolith",
    "/chronolith.restore",
    "/restore.log",
    "pgsql_tmp*",
    "pg_internal.init*",
    ".s.PGSQL.*",
    ".chronolith-restore-*",
];

/// Returns the patterns of what is left out of a data directory or a tablespace.
pub(super) fn excludes() -> Result<Excludes, LocalError> {
    Excludes::new(LEFT_OUT)
}

/// Which file of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The rows, or the nodes of an index.
    Main,
    /// The map of free space.
    FreeSpace,
    /// The map of visibility.
    Visibility,
    /// What an unlogged relation is reset to after a crash.
    Init,
}

/// The name of a file of a relation: `16385_fsm.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationFile {
    /// The number of the relation's files.
    pub number: u32,
    /// Which of them.
    pub fork: Fork,
    /// Which part of a long one.
    pub segment: u32,
}

/// A relation's files, as records of the log name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelationId {
    /// The tablespace's number.
    pub tablespace: u32,
    /// The database's number.
    pub database: u32,
    /// The number of the relation's files.
    pub number: u32,
}

impl RelationId {
    /// The tablespace that needs no link.
    const DEFAULT_TABLESPACE: u32 = 1663;

    /// Returns the folder below a data directory that its files are in; `folder` is that of the version in a
    /// tablespace.
    pub fn folder(&self, folder: &str) -> String {
        match self.tablespace {
            Self::DEFAULT_TABLESPACE => format!("base/{}", self.database),
            tablespace => format!("pg_tblspc/{tablespace}/{folder}/{}", self.database),
        }
    }
}

impl std::fmt::Display for RelationId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}/{}", self.tablespace, self.database, self.number)
    }
}

impl std::str::FromStr for RelationId {
    type Err = ();

    /// Reads what [`Display`](std::fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers: Vec<u32> = text.split('/').map(number).collect::<Option<_>>().ok_or(())?;
        let [tablespace, database, number] = numbers.try_into().map_err(drop)?;
        Ok(Self { tablespace, database, number })
    }
}

fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

impl RelationFile {
    /// Reads a name; `None` for whatever else lies in the folder of a database.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        let (stem, segment) = match name.split_once('.') {
            Some((stem, segment)) => (stem, number(segment)?),
            None => (name, 0),
        };
        let (digits, fork) = match stem.split_once('_') {
            None => (stem, Fork::Main),
            Some((digits, "fsm")) => (digits, Fork::FreeSpace),
            Some((digits, "vm")) => (digits, Fork::Visibility),
            Some((digits, "init")) => (digits, Fork::Init),
            Some(_) => return None,
        };
        Some(Self { number: number(digits)?, fork, segment })
    }
}

/// Says whether a name is that of a file of a temporary relation: `t3_16385`.
pub fn is_temporary(name: &[u8]) -> bool {
    let read = || {
        let name = std::str::from_utf8(name).ok()?;
        let (backend, rest) = name.strip_prefix('t')?.split_once('_')?;
        number(backend)?;
        RelationFile::parse(rest.as_bytes())
    };
    read().is_some()
}

/// Where a path below a data directory, or below the part of a tablespace that belongs to a version, lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// In `global`.
    Shared(&'a [u8]),
    /// In the folder of a database.
    Database(u32, &'a [u8]),
    /// A link of `pg_tblspc`.
    TablespaceLink(u32),
    /// The folder of the log, where that is a link.
    LogFolder,
    /// Anywhere else.
    Other,
}

/// Says where a path lies; `in_tablespace` for those that begin with the folder of a database.
pub fn place(below: &[u8], in_tablespace: bool) -> Place<'_> {
    let parts: Vec<&[u8]> = below.split(|byte| *byte == b'/').collect();
    let oid = |part: &[u8]| std::str::from_utf8(part).ok().and_then(number);
    let database = |folder: &[u8], name| oid(folder).map_or(Place::Other, |oid| Place::Database(oid, name));
    match (in_tablespace, parts.as_slice()) {
        (true, [folder, name]) => database(folder, name),
        (false, [b"base", folder, name]) => database(folder, name),
        // A tablespace that is no link but a folder.
        (false, [b"pg_tblspc", _, version, folder, name]) if version.starts_with(b"PG_") => {
            database(folder, name)
        }
        (false, [b"global", name]) => Place::Shared(name),
        (false, [b"pg_tblspc", link]) => oid(link).map_or(Place::Other, Place::TablespaceLink),
        (false, [b"pg_wal"]) => Place::LogFolder,
        _ => Place::Other,
    }
}

/// Names the folder in which a server of a version keeps its part of a tablespace.
pub fn tablespace_folder(major: u32, catalog_version: u32) -> String {
    format!("PG_{major}_{catalog_version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_relations() {
        let parse = |name: &str| RelationFile::parse(name.as_bytes());
        let file = |number, fork, segment| Some(RelationFile { number, fork, segment });
        assert_eq!(parse("16385"), file(16385, Fork::Main, 0));
        assert_eq!(parse("16385.12"), file(16385, Fork::Main, 12));
        assert_eq!(parse("16385_fsm"), file(16385, Fork::FreeSpace, 0));
        assert_eq!(parse("16385_vm.1"), file(16385, Fork::Visibility, 1));
        assert_eq!(parse("16385_init"), file(16385, Fork::Init, 0));
        for other in
            ["", "PG_VERSION", "pg_filenode.map", "16385_", "16385_x", "16385.", "_fsm", "4294967296"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
        assert!(is_temporary(b"t3_16385") && is_temporary(b"t12_16385_fsm.1"));
        for no in ["t3", "t_1", "tx_1", "3_1", "t3_", "t3_PG_VERSION"] {
            assert!(!is_temporary(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn places() {
        assert_eq!(place(b"base/5/16385", false), Place::Database(5, b"16385"));
        assert_eq!(place(b"base/5/16385", true), Place::Other);
        assert_eq!(place(b"5/16385", true), Place::Database(5, b"16385"));
        assert_eq!(place(b"global/1262", false), Place::Shared(b"1262"));
        assert_eq!(place(b"pg_tblspc/16400", false), Place::TablespaceLink(16400));
        assert_eq!(place(b"pg_tblspc/16400/PG_15_202209061/5/7", false), Place::Database(5, b"7"));
        assert_eq!(place(b"pg_wal", false), Place::LogFolder);
        assert_eq!(place(b"postgresql.conf", false), Place::Other);
        assert_eq!(tablespace_folder(15, 202_209_061), "PG_15_202209061");
    }

    /// B6: the content of these folders goes, the folders stay; other files of such names stay too.
    #[test]
    fn what_is_left_out() {
        let excludes = excludes().unwrap();
        let out = |below: &str, folder: bool| {
            let name = below.rsplit('/').next().unwrap();
            excludes.matches(
                format!("/var/data/{below}").as_bytes(),
                below.as_bytes(),
                name.as_bytes(),
                folder,
            )
        };
        for below in [
            "pg_wal/000000010000000000000001",
            "pg_wal/archive_status",
            "pg_replslot/slot",
            "pg_stat_tmp/db_0.stat",
            "postmaster.pid",
            "backup_label.old",
            "base/pgsql_tmp",
            "base/5/pgsql_tmp123.4",
            "base/5/pg_internal.init.77",
            "global/pg_internal.init",
            "global/pg_control",
            "standby.signal",
        ] {
            assert!(out(below, false), "{below}");
        }
        for below in ["pg_wal", "pg_replslot", "base", "pg_xact", "pg_stat_tmp"] {
            assert!(!out(below, true), "{below}");
        }
        for below in
            ["base/5/postmaster.pid", "pg_xact/0000", "pg_logical/replorigin_checkpoint", "PG_VERSION"]
        {
            assert!(!out(below, false), "{below}");
        }
    }
}
