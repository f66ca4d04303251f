//! What the log in a restored data directory says of the files beside it.

use super::ClusterRestore;
use super::writing::remove;
use crate::postgres::error::PostgresError;
use crate::postgres::layout::{Fork, RelationFile, tablespace_folder};
use crate::postgres::segment::LogFile;
use crate::postgres::wal::{FirstPage, Noted, walk_behind};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;

impl ClusterRestore {
    /// Walks through the segments in the data directory, in the order of their names; what cannot be looked into
    /// is `None`.
    pub(super) fn walk_inside(
        &self,
        mut each: impl FnMut(&str, Option<&Noted>) -> Result<(), PostgresError>,
    ) -> Result<(), PostgresError> {
        let folder = self.options.data_directory.join("pg_wal");
        let mut segments = Vec::new();
        for entry in fs::read_dir(&folder).map_err(PostgresError::file("look into", &folder))? {
            let path = entry.map_err(PostgresError::file("look into", &folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Ok(LogFile::Segment(_)) = name.parse() {
                segments.push((name.to_owned(), path.clone()));
            }
        }
        // Names are in the order of the log, but that a timeline ends where its child goes on: what a segment
        // leaves unfinished is looked for in the one with the next name.
        segments.sort();
        let mut before = Noted::default();
        for (name, path) in segments {
            let bytes = fs::read(&path).map_err(PostgresError::file("read", &path))?;
            let first = FirstPage::read(&bytes).ok();
            let noted = first.map(|first| walk_behind(&bytes, &first, &before));
            each(&name, noted.as_ref())?;
            before = noted.unwrap_or_default();
        }
        Ok(())
    }

    /// Removes the files of relations of which the log says only behind the moment when they were read that they
    /// are unlogged: a server makes them of the init fork when its recovery ends, and refuses to start
    /// where they are there (B6).
    pub(super) fn remove_unlogged(&self) -> Result<(), PostgresError> {
        let mut unlogged = self.init_forks.clone();
        self.walk_inside(|_, noted| {
            unlogged.extend(noted.into_iter().flat_map(|noted| &noted.init_forks));
            Ok(())
        })?;
        let version = tablespace_folder(self.base.facts.major, self.base.facts.catalog_version);
        let mut folders: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for relation in unlogged {
            folders.entry(relation.folder(&version)).or_default().insert(relation.number);
        }
        for (folder, numbers) in folders {
            let folder = self.options.data_directory.join(folder);
            let entries = match fs::read_dir(&folder) {
                // A database, or a tablespace, that replay creates.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries.map_err(PostgresError::file("look into", &folder))?,
            };
            for entry in entries {
                let entry = entry.map_err(PostgresError::file("look into", &folder))?;
                let file = RelationFile::parse(entry.file_name().as_bytes());
                if file.is_some_and(|file| file.fork != Fork::Init && numbers.contains(&file.number)) {
                    remove(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}
