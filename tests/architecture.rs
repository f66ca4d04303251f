//! The law of `src/lib.rs`: modules import only from earlier layers; the library never prints,
//! never reads the environment, never exits; `unsafe` stands in three modules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Module name -> (number of its group, whether it forbids unsafe code).
fn layers() -> BTreeMap<String, (usize, bool)> {
    let text = fs::read_to_string(root().join("lib.rs")).unwrap();
    let (mut group, mut forbids, mut layers) = (0, false, BTreeMap::new());
    for line in text.lines() {
        if line.trim().is_empty() {
            group += 1;
        } else if line.starts_with("#[forbid(unsafe_code)]") {
            forbids = true;
        } else if let Some(name) = line.strip_prefix("pub mod ").and_then(|l| l.strip_suffix(';')) {
            layers.insert(name.to_owned(), (group, forbids));
            forbids = false;
        }
    }
    layers
}

fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(root()).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Code without comments and without the unit tests at the end of a file.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    let tests = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..tests]
        .lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.split("//").next().unwrap().to_owned()))
        .collect()
}

/// Every module name that follows `crate::` in a line: one, or those on the first level of a group.
fn named(line: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut names = Vec::new();
    for (at, word) in line.match_indices("crate::") {
        let rest = &line[at + word.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(name(rest));
            continue;
        };
        names.push(name(group));
        let mut depth = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(name(&group[at + 1..])),
                _ => {}
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn imports_run_one_way() {
    let layers = layers();
    assert!(layers.len() >= 10, "lib.rs could not be read: {layers:?}");
    let mut broken = Vec::new();
    for path in sources(&root()) {
        let own = module_of(&path);
        let Some(&(own_layer, _)) = layers.get(&own) else { continue };
        for (number, line) in code(&path) {
            for name in named(&line) {
                let Some(&(layer, _)) = layers.get(&name) else { continue };
                if name != own && layer >= own_layer {
                    broken.push(format!(
                        "{}:{number}: {own} (group {own_layer}) names crate::{name} (group {layer}); \
                         a module imports only from earlier groups of lib.rs: move the shared part down, \
                         or pass it in from above",
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_source_file_belongs_to_a_layer() {
    let layers = layers();
    for path in sources(&root()) {
        let own = module_of(&path);
        assert!(
            own == "lib" || own == "main" || layers.contains_key(&own),
            "{} is in no layer",
            path.display()
        );
    }
}

#[test]
fn the_library_is_silent_and_blind() {
    let words = [
        "println!",
        "eprintln!",
        "print!(",
        "eprint!(",
        "std::env",
        "env::var",
        "process::exit",
        "home_dir",
        "dbg!",
    ];
    let mut broken = Vec::new();
    for path in sources(&root()) {
        if ["cli", "main"].contains(&module_of(&path).as_str()) {
            continue;
        }
        for (number, line) in code(&path) {
            if let Some(word) = words.iter().find(|w| line.contains(**w)) {
                broken.push(format!(
                    "{}:{number}: `{word}`: the library never prints, reads the environment or exits; \
                     it reports to the Observer and is told what it needs",
                    path.display()
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn unsafe_code_stands_in_three_modules() {
    for (name, (_, forbids)) in layers() {
        let allowed = ["mapping", "sequences", "wide"].contains(&name.as_str());
        assert_eq!(
            forbids, !allowed,
            "mod {name}: every module but `mapping`, `sequences` and `wide` forbids unsafe code"
        );
    }
    assert!(fs::read_to_string(root().join("main.rs")).unwrap().contains("#![forbid(unsafe_code)]"));
}

#[test]
fn the_reader_of_imports_reads_all_forms() {
    assert_eq!(named("use crate::base::Id;"), ["base"]);
    assert_eq!(named("use crate::{base::{a, b}, repo, view::x};"), ["base", "repo", "view"]);
    assert_eq!(named("let x = crate::codec::f(crate::chunker::y);"), ["codec", "chunker"]);
}
