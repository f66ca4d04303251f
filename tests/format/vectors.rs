//! The vectors: each judged as its header says, all of them current, and none spared.

use crate::objects::{ALL, Case, Expect, Object};
use chronolith::format::FormatError;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/vectors")
}

/// A vector as its file has it.
struct Vector {
    object: String,
    expect: String,
    comment: String,
    bytes: Vec<u8>,
}

fn parse(text: &str) -> Vector {
    let (head, body) = text.split_once("\n\n").expect("an empty line ends the header");
    let mut lines = head.lines();
    let mut field = |name: &str| {
        let line = lines.next().unwrap_or_else(|| panic!("the header has no line {name:?}"));
        line.strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(": "))
            .unwrap_or_else(|| panic!("{line:?}"))
            .to_owned()
    };
    let (object, expect, comment) = (field("object"), field("expect"), field("comment"));
    assert_eq!(lines.next(), None, "the header has three lines");
    let digits: String = body.split_ascii_whitespace().collect();
    let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
    Vector { object, expect, comment, bytes: bytes.collect() }
}

/// All files: object/case -> content.
fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for object in fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()) {
        if !object.is_dir() {
            continue;
        }
        for case in fs::read_dir(&object).unwrap().map(|entry| entry.unwrap().path()) {
            let name = case.strip_prefix(folder()).unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read_to_string(case).unwrap());
        }
    }
    files
}

fn verdict(object: &Object, bytes: &[u8]) -> Expect {
    match (object.recode)(bytes) {
        Ok(_) => Expect::Accept,
        Err(FormatError::Truncated) => Expect::Truncated,
        Err(FormatError::Unsupported { .. }) => Expect::Unsupported,
        Err(FormatError::BadMagic | FormatError::TooLarge { .. } | FormatError::Invalid { .. }) => {
            Expect::Corrupt
        }
    }
}

fn object(name: &str) -> &'static Object {
    ALL.iter().find(|object| object.name == name).unwrap_or_else(|| panic!("no object {name:?}"))
}

#[test]
fn every_vector_is_judged_as_its_header_says() {
    let files = files();
    assert!(files.len() > 50, "only {} vectors", files.len());
    for (name, text) in files {
        let vector = parse(&text);
        assert!(!vector.comment.is_empty(), "{name}");
        assert_eq!(name.split('/').next(), Some(vector.object.as_str()), "{name}");
        let object = object(&vector.object);
        let said = (object.recode)(&vector.bytes);
        assert_eq!(verdict(object, &vector.bytes).name(), vector.expect, "{name}: {said:?}");
        if let Ok(again) = said {
            assert_eq!(again, vector.bytes, "{name} does not encode back to the same bytes");
        }
    }
}

#[test]
fn the_files_are_what_the_maker_makes() {
    let made: BTreeMap<String, String> = ALL
        .iter()
        .flat_map(|object| (object.cases)().into_iter().map(move |case| (object, case)))
        .map(|(object, case)| (format!("{}/{}", object.name, case.name), case.file(object.name)))
        .collect();
    let files = files();
    let stale: Vec<_> =
        made.iter().filter(|(name, text)| files.get(*name) != Some(*text)).map(|(name, _)| name).collect();
    let orphans: Vec<_> = files.keys().filter(|name| !made.contains_key(*name)).collect();
    assert!(
        stale.is_empty() && orphans.is_empty(),
        "run `cargo run --example vectors`, then look at what changed: a changed vector is a changed format.\n\
         stale: {stale:?}\nnobody makes: {orphans:?}"
    );
}

#[test]
fn every_object_has_a_case_of_each_kind() {
    for object in ALL {
        let cases = (object.cases)();
        for expect in Expect::ALL {
            assert!(
                cases.iter().any(|case| case.expect == expect),
                "{} has no {}",
                object.name,
                expect.name()
            );
        }
    }
}

/// The short form of fuzzing: every bit flipped, every length cut, every byte 0 or 255.
#[test]
fn damage_gets_an_answer_and_what_is_accepted_encodes_back() {
    for object in ALL {
        for Case { name, bytes, .. } in (object.cases)().iter().filter(|case| case.expect == Expect::Accept) {
            // Huge vectors would take minutes; their kinds of damage are those of the small ones.
            if bytes.len() > 4096 {
                continue;
            }
            let check = |damaged: &[u8]| {
                if let Ok(again) = (object.recode)(damaged) {
                    assert_eq!(again, damaged, "{}/{name}", object.name);
                }
            };
            for length in 0..bytes.len() {
                check(&bytes[..length]);
            }
            let mut damaged = bytes.clone();
            for at in 0..bytes.len() {
                for value in (0..8).map(|bit| bytes[at] ^ (1 << bit)).chain([0, 0xFF]) {
                    damaged[at] = value;
                    check(&damaged);
                }
                damaged[at] = bytes[at];
            }
            damaged.push(0);
            assert!((object.recode)(&damaged).is_err(), "{}/{name} accepts what follows it", object.name);
        }
    }
}
