//! Where repositories lie, as users name it.

use super::fault::Fault;
use std::path::{Path, PathBuf};

/// Kinds of places that later versions will know.
const REMOTE: [&str; 12] =
    ["s3", "gs", "gcs", "azure", "b2", "sftp", "ssh", "ftp", "http", "https", "webdav", "rest"];

/// Takes the path of a repository from what the user wrote.
pub fn local_path(place: &str) -> Result<PathBuf, Fault> {
    if let Some(path) = place.strip_prefix("file://") {
        return Ok(PathBuf::from(path));
    }
    let scheme = place.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    let remote = scheme.is_some_and(|scheme| {
        let word =
            !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        REMOTE.contains(&scheme.as_str()) || (word && place.contains("://"))
    });
    if remote {
        return Err(Fault::usage(
            format!(
                "{place} is not on a local disk, and this version keeps repositories on local disks only"
            ),
            "give the path of a folder (a mounted one will do)",
        ));
    }
    Ok(PathBuf::from(place))
}

/// The path without links and `..`, of which the end need not be there yet.
pub fn canonical(path: &Path) -> Option<PathBuf> {
    if let Ok(found) = path.canonicalize() {
        return Some(found);
    }
    let parent = path.parent()?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    Some(canonical(parent)?.join(path.file_name()?))
}
