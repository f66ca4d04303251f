//! What is backed up: files that are a function of a family and a version, so that whoever restores knows
//! every byte. Families are shared by hosts, so that hosts adopt each other's chunks; versions differ in
//! places, so that differences are stored.

use crate::support::SeededEntropy;
use crate::support::world::{Content, noise};
use std::fs;
use std::path::Path;

/// Families that there are.
pub const FAMILIES: u64 = 5;

/// Mixes numbers into one.
pub fn mix(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |mixed, number| SeededEntropy::new(mixed.rotate_left(29) ^ number).number())
}

/// What a version of a family holds.
pub fn content(family: u64, version: u64) -> Content {
    let mut files = Content::new();
    let mut dump = String::from("--\n-- dump\n--\nCOPY public.account FROM stdin;\n");
    for row in 0..300 + mix(&[family, 1]) % 1200 {
        // A row changes every few versions, each at its own pace.
        let mark = mix(&[family, row, version / (1 + row % 9)]) % 100_000;
        dump.push_str(&format!("{row}\tcustomer {}\t{mark}\t{}\n", row * 7919 % 1000, row * 31 % 97));
    }
    files.insert(b"app.sql".to_vec(), dump.into_bytes());
    for part in 0..3 {
        let seed = mix(&[family, part, version / (2 + part)]);
        files.insert(format!("blob{part}").into_bytes(), noise(seed, 4000 + (seed % 40_000) as usize));
    }
    for small in 0..mix(&[family, version]) % 6 {
        let text = format!("small {} of {family}, {}\n", small, version / 2);
        files.insert(format!("small{small}").into_bytes(), text.into_bytes());
    }
    // A file that only grows, as a log does, and one that is mostly a hole.
    let grown: String = (0..version % 200).map(|line| format!("line {line} of {family}\n")).collect();
    files.insert(b"grown.log".to_vec(), grown.into_bytes());
    let mut sparse = vec![0; 100_000];
    sparse.extend_from_slice(&noise(mix(&[family, version]), 700));
    files.insert(b"sparse".to_vec(), sparse);
    files
}

/// The bytes of a segment of a log.
pub fn segment(number: u64) -> Vec<u8> {
    let mut bytes = noise(mix(&[number, 77]), 2000 + (number % 5) as usize * 9000);
    bytes.resize(64 << 10, 0);
    bytes
}

/// Writes content into a folder, which then holds nothing else.
pub fn write(folder: &Path, content: &Content) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !content.contains_key(entry.file_name().as_encoded_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    for (name, bytes) in content {
        let path = folder.join(String::from_utf8_lossy(name).as_ref());
        // What did not change is left alone, so that its times say so.
        if fs::read(&path).ok().as_ref() != Some(bytes) {
            fs::write(path, bytes)?;
        }
    }
    Ok(())
}

/// Says how what was restored differs from what was backed up; `None` where it does not.
pub fn differs(folder: &Path, expected: &Content) -> Option<String> {
    let mut found = Content::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return Some(format!("{}: {error}", folder.display())),
    };
    for entry in entries.flatten() {
        match fs::read(entry.path()) {
            Ok(bytes) => drop(found.insert(entry.file_name().into_encoded_bytes(), bytes)),
            Err(error) => return Some(format!("{}: {error}", entry.path().display())),
        }
    }
    for (name, bytes) in expected {
        let name_text = String::from_utf8_lossy(name);
        match found.remove(name) {
            None => return Some(format!("{name_text} is not there")),
            Some(other) if other.len() != bytes.len() => {
                return Some(format!("{name_text} has {} bytes, not {}", other.len(), bytes.len()));
            }
            Some(other) if other != *bytes => {
                let at = other.iter().zip(bytes).position(|(a, b)| a != b).unwrap_or(0);
                return Some(format!("{name_text} differs from byte {at} on"));
            }
            Some(_) => {}
        }
    }
    found.keys().next().map(|name| format!("{} is too much", String::from_utf8_lossy(name)))
}
