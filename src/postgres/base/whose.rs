//! Whether a folder is the one that a running server works in.
//!
//! Neither the system identifier nor a path says so: standbys and copies have the identifier, another host has
//! another folder at the path, and a copy has everything that was written before it was made. So the server is
//! made to write something new, which must be in the folder at once: a transaction that exports its snapshot
//! has a file of its own in `pg_snapshots`, with the number of its process, for as long as it lasts. Any role may
//! do that, on a standby too. A server that stands still and a copy, however fresh, have no such file.
//!
//! What the folder then says of itself is looked at once more: `pg_control` must show the checkpoint that the
//! backup began with.

use super::{CONTROL_TRIES, CONTROL_WAIT};
use crate::postgres::connection::Server;
use crate::postgres::control::ControlFile;
use crate::postgres::error::PostgresError;
use crate::postgres::segment::Lsn;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

const PROVE: &str = "find the data directory of";
/// How often a snapshot is exported: two servers with sessions of the same numbers at the same moment are told
/// apart by the next one.
const ROUNDS: u32 = 2;
/// What is read of an exported snapshot; the process stands in its second line.
const EXPORTED_BYTES_MAX: u64 = 4096;

/// What to try where the files cannot be shown to be the server's.
const CURE: &str = "name the data directory of that server with --pgdata (or PGDATA), name the server of this \
                    folder with --host and --port, or let the server send its files: --remote";

impl Server {
    /// Says whether a folder is the one that this server works in.
    ///
    /// # Errors
    ///
    /// When the server does not let this role export a snapshot, or the folder cannot be read.
    pub(super) fn works_in(&mut self, folder: &Path) -> Result<bool, PostgresError> {
        let sql = "SELECT has_function_privilege('pg_export_snapshot()', 'EXECUTE')";
        if !self.query(PROVE, sql, &[])?.first().is_some_and(|row| row.get(0)) {
            return Err(PostgresError::refused(
                format!(
                    "nothing shows that {} is the data directory of the server at {}: it does not let this role \
                     export a snapshot",
                    folder.display(),
                    self.place()
                ),
                "GRANT EXECUTE ON FUNCTION pg_export_snapshot() TO the role, or let the server send its files: --remote",
            ));
        }
        for _ in 0..ROUNDS {
            self.execute(PROVE, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
            let shows = self.exports_to(folder);
            self.execute(PROVE, "ROLLBACK")?;
            if !shows? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Exports the snapshot of the open transaction; says whether its file is in the folder.
    fn exports_to(&mut self, folder: &Path) -> Result<bool, PostgresError> {
        let rows = self.query(PROVE, "SELECT pg_export_snapshot(), pg_backend_pid()", &[])?;
        let row = rows.first().ok_or_else(|| self.odd(PROVE))?;
        let (name, process): (String, i32) = (row.get(0), row.get(1));
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            return Err(self.odd(PROVE));
        }
        let path = folder.join("pg_snapshots").join(name);
        match read_begin(&path) {
            Ok(content) => Ok(is_of(&content, process)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(PostgresError::file("read", &path)(error)),
        }
    }

    /// Refuses a folder that this server does not work in.
    ///
    /// # Errors
    ///
    /// As [`Server::works_in`], and when the folder is not the server's.
    pub(super) fn require_works_in(
        &mut self,
        folder: &Path,
        said: Option<&Path>,
    ) -> Result<(), PostgresError> {
        if self.works_in(folder)? {
            return Ok(());
        }
        let own = match said {
            None => String::new(),
            Some(said) if said == folder => {
                ", which has its own at the same path, on another host or in a container".to_owned()
            }
            Some(said) => format!(", which says that it works in {}", said.display()),
        };
        Err(PostgresError::refused(
            format!(
                "{} is not the data directory of the server at {}{own}: the system identifier is the same, so it is \
                 that of a standby or of its primary, or a copy; what that server writes now does not come into it",
                folder.display(),
                self.place()
            ),
            CURE,
        ))
    }

    /// Refuses a control file that does not show the checkpoint that the backup began with.
    pub(super) fn require_reached(
        &self,
        control: &ControlFile,
        folder: &Path,
        start: Lsn,
    ) -> Result<(), PostgresError> {
        if control.redo >= start {
            return Ok(());
        }
        Err(PostgresError::refused(
            format!(
                "{} does not belong to the server at {}: the backup begins at {start}, and the newest checkpoint in \
                 this folder is one that begins at {}",
                folder.display(),
                self.place(),
                control.redo
            ),
            CURE,
        ))
    }

    /// Refuses tablespaces that the server has and that are not in this host's files: the others were dropped.
    pub(super) fn require_dropped(&mut self, missing: &BTreeMap<u32, String>) -> Result<(), PostgresError> {
        let mut left = None;
        // The server removes the files before others see that it did.
        for _ in 0..CONTROL_TRIES {
            let now = if missing.is_empty() { BTreeMap::new() } else { self.tablespaces()? };
            left = missing.iter().find(|(oid, path)| now.get(*oid) == Some(*path));
            if left.is_none() {
                return Ok(());
            }
            std::thread::sleep(CONTROL_WAIT);
        }
        let Some((oid, path)) = left else { return Ok(()) };
        Err(PostgresError::refused(
            format!(
                "the files of tablespace {oid} of the server at {} are not in {path} here, or this user may not \
                 see them",
                self.place()
            ),
            "run this where the server's paths are the same, as the server's user, or let the server send its files: --remote",
        ))
    }
}

fn read_begin(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(EXPORTED_BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

/// Says whether an exported snapshot is that of a process.
fn is_of(content: &[u8], process: i32) -> bool {
    let wanted = format!("pid:{process}");
    content.split(|byte| *byte == b'\n').any(|line| line == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exported_snapshot_is_that_of_its_process() {
        let content =
            b"vxid:3/41\npid:4711\ndbid:5\niso:2\nro:1\nxmin:730\nxmax:730\nxcnt:0\nsof:0\nsxcnt:0\nrec:0\n";
        assert!(is_of(content, 4711));
        assert!(!is_of(content, 471) && !is_of(content, 47110) && !is_of(b"", 4711));
    }
}
