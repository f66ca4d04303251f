//! The data directory around a file in `pg_wal`, looked at by name: the link that `pg_wal` may be is not
//! followed.

use crate::postgres::lineage::ClusterName;
use crate::postgres::segment::LogFile;
use crate::postgres::wal::FirstPage;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes of a segment that its first page's header takes.
const FIRST_PAGE_BYTES: u64 = 64;
/// Files of `pg_wal` that are looked at for a segment.
const FILES_MAX: usize = 4096;

/// Returns the data directory of a file in its `pg_wal`.
pub(super) fn data_directory(file: &Path) -> Option<PathBuf> {
    let below = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    below(&below(file)?)
}

/// Says whether the server around a file follows another: `standby.signal` is there and `recovery.signal`
/// is not.
pub fn is_standby(file: &Path) -> bool {
    data_directory(file)
        .is_some_and(|data| data.join("standby.signal").is_file() && !data.join("recovery.signal").exists())
}

/// Reads the system identifier of the cluster around a file: the first number in `pg_control`.
pub(super) fn system_identifier(file: &Path) -> Option<u64> {
    let mut control = File::open(data_directory(file)?.join("global/pg_control")).ok()?;
    let mut bytes = [0; 8];
    control.read_exact(&mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes)).filter(|identifier| *identifier != 0)
}

/// Returns a folder below `root` for what is kept of the data directory around a file: one for each kind,
/// repository, cluster and directory; `None` where the directory does not say which cluster it is.
pub(super) fn folder_of(
    root: &Path,
    kind: &str,
    repository: &str,
    cluster: &ClusterName,
    file: &Path,
) -> Option<PathBuf> {
    let system_identifier = system_identifier(file)?;
    let directory = std::fs::canonicalize(data_directory(file)?).ok()?;
    let mut hasher = blake3::Hasher::new();
    for part in [repository.as_bytes(), cluster.to_string().as_bytes(), directory.as_os_str().as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.update(&system_identifier.to_le_bytes());
    let name = hasher.finalize().to_hex();
    Some(root.join(kind).join(name.get(..32)?))
}

/// Reads the first page of some segment that lies beside a file.
pub(super) fn neighbour(file: &Path) -> Option<FirstPage> {
    first_page(file.parent()?, |_| true)
}

/// Reads the first page of some segment of a system in a folder; other systems' may lie there too.
pub(in crate::postgres) fn first_page_in(folder: &Path, system_identifier: u64) -> Option<FirstPage> {
    first_page(folder, |first| first.system_identifier == system_identifier)
}

fn first_page(folder: &Path, wanted: impl Fn(&FirstPage) -> bool) -> Option<FirstPage> {
    for entry in std::fs::read_dir(folder).ok()?.flatten().take(FILES_MAX) {
        let name = entry.file_name();
        if !matches!(name.to_str()?.parse(), Ok(LogFile::Segment(_))) {
            continue;
        }
        let mut bytes = Vec::new();
        let read =
            File::open(entry.path()).and_then(|file| file.take(FIRST_PAGE_BYTES).read_to_end(&mut bytes));
        // One that was made ahead of its use has no header of its own yet, or that of its last use.
        if let (Ok(_), Ok(first)) = (read, FirstPage::read(&bytes))
            && wanted(&first)
        {
            return Some(first);
        }
    }
    None
}
