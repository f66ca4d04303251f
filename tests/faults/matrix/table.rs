//! The table of stated outcomes, as text.

use super::Row;
use super::verbs::{Found, Outcome};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const TABLE: &str = include_str!("table.txt");
const KIND: usize = 30;
const HARM: usize = 9;

/// Reads the table: rows of a kind and one or more harms, with a word for each command.
fn stated() -> BTreeMap<(String, String), Vec<Outcome>> {
    let mut stated = BTreeMap::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let (kind, rest) = line.split_at(KIND);
        let (harms, words) = rest.split_once('|').unwrap_or_else(|| panic!("no | in {line:?}"));
        let outcomes: Vec<Outcome> = words
            .split_whitespace()
            .map(|word| {
                let known = Outcome::WORDS.iter().find(|(known, _)| *known == word);
                known.unwrap_or_else(|| panic!("{word:?} is no outcome: {line:?}")).1
            })
            .collect();
        for harm in harms.split_whitespace() {
            let cell = (kind.trim().to_owned(), harm.to_owned());
            assert!(stated.insert(cell, outcomes.clone()).is_none(), "stated twice: {harm} of {kind}");
        }
    }
    stated
}

fn word(found: &Found) -> String {
    found.as_ref().map_or_else(|_| "NEVER".to_owned(), |outcome| outcome.word().to_owned())
}

fn line(out: &mut String, kind: &str, harm: &str, words: impl IntoIterator<Item = String>) {
    let _ = write!(out, "{kind:KIND$}{harm:HARM$}|");
    words.into_iter().for_each(|word| _ = write!(out, " {word:9}"));
    out.truncate(out.trim_end().len());
    out.push('\n');
}

/// Compares what was found with what is stated; empty where both are the same.
pub fn compare(rows: &[Row]) -> String {
    let mut stated = stated();
    let (mut wrong, mut whys, mut found_table) = (String::new(), String::new(), String::new());
    for row in rows {
        line(&mut found_table, row.kind, row.harm, row.found.iter().map(word));
        for (found, verb) in row.found.iter().zip(super::VERBS) {
            if let Err(why) = found {
                let _ = writeln!(whys, "{} {} {verb:?}: {why}", row.kind, row.harm);
            }
        }
        let expected = stated.remove(&(row.kind.to_owned(), row.harm.to_owned()));
        match expected {
            Some(expected) if expected.iter().map(|o| Ok(*o)).eq(row.found.iter().cloned()) => {}
            Some(expected) => {
                line(&mut wrong, row.kind, "stated", expected.iter().map(|o| o.word().to_owned()));
                line(&mut wrong, "", row.harm, row.found.iter().map(word));
            }
            None => line(&mut wrong, row.kind, row.harm, row.found.iter().map(word)),
        }
    }
    for (kind, harm) in stated.keys() {
        let _ = writeln!(wrong, "{kind}: {harm}: stated, and there is no such");
    }
    match wrong.is_empty() && whys.is_empty() {
        true => String::new(),
        false => format!("\n{wrong}\nNever:\n{whys}\nAll that was found:\n{found_table}"),
    }
}
