//! Where PostgreSQL's programs may be.

use std::path::PathBuf;

/// Folders in which the programs of servers usually are, or the one that was named.
pub fn places_of_programs(named: Option<&PathBuf>) -> Vec<PathBuf> {
    if let Some(folder) = named {
        return vec![folder.clone()];
    }
    let mut folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|entry| entry.path().join("bin")));
    let others = std::fs::read_dir("/usr").into_iter().flatten().flatten().map(|entry| entry.path());
    folders
        .extend(others.filter(|path| path.display().to_string().contains("pgsql-")).map(|p| p.join("bin")));
    folders.push(PathBuf::from("/usr/local/pgsql/bin"));
    folders
}
