//! A restored cluster that is kept within a folder: nothing of what its original was configured to do, and
//! nothing that the log says, reaches outside.

use super::ClusterRestore;
use super::writing::{Owner, make_folder, own, remove, write};
use crate::postgres::error::PostgresError;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may connect: whoever may open the socket, which stands in a folder of its owner's only.
const RULES: &[u8] = b"local all all trust\n";
const GENERATED: &[u8] =
    b"# chronolith: a throw-away server; all that it is told stands in postgresql.auto.conf\n";
const SOCKETS: &str = "socket";

/// Returns the place of a tablespace within the folder.
pub(super) fn tablespace(folder: &Path, oid: u32) -> PathBuf {
    folder.join("tablespaces").join(oid.to_string())
}

/// Refuses log that creates a tablespace at a path: the server would make it there, whatever is there (B8).
pub(super) fn check_created(segment: &str, created: &[(u32, String)]) -> Result<(), PostgresError> {
    // Without a path it lies in the data directory.
    match created.iter().find(|(_, path)| !path.is_empty()) {
        None => Ok(()),
        Some((oid, path)) => Err(PostgresError::refused(
            format!(
                "segment {segment} of the log creates tablespace {oid} at {path}, which a throw-away server must not reach"
            ),
            "choose a target before it, or a base backup that was taken after it",
        )),
    }
}

/// Refuses log of which nobody knows what it creates.
pub(super) fn refuse_unknown(segment: &str) -> PostgresError {
    PostgresError::refused(
        format!(
            "segment {segment} of the log cannot be looked into, so it may create a tablespace where a throw-away \
             server must not reach"
        ),
        "choose a target before it, or a newer base backup",
    )
}

impl ClusterRestore {
    /// Looks into the log in the data directory, as into that of the archive before.
    pub(super) fn check_inside(&self) -> Result<(), PostgresError> {
        self.walk_inside(|name, noted| {
            let noted = noted.ok_or_else(|| refuse_unknown(name))?;
            let created: Vec<(u32, String)> =
                noted.tablespaces.iter().map(|(n, p)| (*n, p.clone())).collect();
            check_created(name, &created)?;
            if noted.complete { Ok(()) } else { Err(refuse_unknown(name)) }
        })
    }

    /// Puts generated configuration in the place of what the original had, takes links out of the data directory,
    /// and gives the folder to who runs the server.
    pub(super) fn contain(&self, folder: &Path, owner: Option<Owner>) -> Result<(), PostgresError> {
        let data = &self.options.data_directory;
        for entry in fs::read_dir(data).map_err(PostgresError::file("look into", data))? {
            let entry = entry.map_err(PostgresError::file("look into", data))?;
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                remove(&entry.path())?;
            }
        }
        for (name, content) in
            [("postgresql.conf", GENERATED), ("pg_hba.conf", RULES), ("pg_ident.conf", b"")]
        {
            write(&data.join(name), content, owner)?;
        }
        let sockets = folder.join(SOCKETS);
        make_folder(&sockets)?;
        let tablespaces = folder.join("tablespaces");
        for folder in [folder, &sockets, &tablespaces].into_iter().filter(|folder| folder.exists()) {
            own(folder, owner)?;
        }
        Ok(())
    }
}
