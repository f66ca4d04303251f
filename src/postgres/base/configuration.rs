//! Configuration that lies outside of the data directory, as Debian has it: without it nothing restored
//! could be started (B7, B18).

use crate::postgres::error::PostgresError;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Names that the files have in a data directory.
const NAMES: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];
/// A folder beside the configuration whose files belong to it.
const INCLUDED: &str = "conf.d";
/// Longer files are no configuration.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The files of a configuration, by the names that they will have in a data directory.
pub(super) type Configuration = BTreeMap<String, Vec<u8>>;

/// Reads what lies outside of the data directory; `files` are the server's configuration, its rules for
/// hosts, and its map of identities, as far as it tells.
pub(super) fn read_outside(
    data_directory: &Path,
    files: &[Option<PathBuf>; 3],
) -> Result<Configuration, PostgresError> {
    let mut found = Configuration::new();
    for (name, path) in NAMES.iter().zip(files) {
        let Some(path) = path.as_ref().filter(|path| !is_inside(data_directory, path)) else { continue };
        take(path, (*name).to_owned(), &mut found)?;
    }
    let main = files.first().and_then(Option::as_ref).filter(|path| !is_inside(data_directory, path));
    let beside = main.and_then(|path| path.parent()).map(|folder| folder.join(INCLUDED));
    for entry in beside.iter().flat_map(fs::read_dir).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".conf") && !name.starts_with('.') {
            take(&entry.path(), format!("{INCLUDED}/{name}"), &mut found)?;
        }
    }
    Ok(found)
}

fn is_inside(data_directory: &Path, path: &Path) -> bool {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).starts_with(data_directory)
}

fn take(path: &Path, name: String, found: &mut Configuration) -> Result<(), PostgresError> {
    let length = fs::metadata(path).map_err(PostgresError::file("look at", path))?.len();
    if length > FILE_BYTES_MAX {
        let why = format!("has {length} bytes, too many for a configuration");
        return Err(PostgresError::Damaged { what: path.display().to_string(), why });
    }
    found.insert(name, fs::read(path).map_err(PostgresError::file("read", path))?);
    Ok(())
}
