//! Files and folders into memory; the time a thread has worked.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub fn read(path: &str) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Reads the first bytes of a file and its length.
pub fn head(path: &Path, most: usize) -> io::Result<(Vec<u8>, u64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(most as u64).read_to_end(&mut head)?;
    Ok((head, length))
}

/// Visits every ordinary file below a folder, in order of names.
pub fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => walk(&path, visit),
            Ok(metadata) if metadata.is_file() => visit(&path),
            _ => {}
        }
    }
}

/// Reads all files of a folder, each with its path below it.
pub fn read_folder(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    walk(folder.as_ref(), &mut |path| {
        let name = path.strip_prefix(folder).expect("below the folder").to_owned();
        files.push((name, fs::read(path).expect("readable")));
    });
    files
}

/// Runs something and returns what it says and the seconds this thread worked on it.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let before = worked();
    let result = work();
    (result, worked() - before)
}

fn worked() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds: f64 = text.split(' ').next().and_then(|first| first.parse().ok()).expect("a number");
    nanoseconds / 1e9
}

pub fn mb(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
