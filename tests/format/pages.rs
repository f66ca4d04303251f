//! The pages of `format-spec/` tell the truth: limits are those of the code, each rule stands once.

use crate::vectors::folder;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The pages of `format-spec/`.
fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().parent().unwrap()).unwrap();
    let mut pages: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    pages
}

/// `pub const NAME: type = value;` of `src/base/limits.rs`, evaluated.
fn constants() -> BTreeMap<String, u128> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/base/limits.rs");
    let text = fs::read_to_string(path).unwrap();
    let mut known: BTreeMap<String, u128> = [
        ("KIB".to_owned(), 1 << 10),
        ("MIB".to_owned(), 1 << 20),
        ("GIB".to_owned(), 1 << 30),
        ("TIB".to_owned(), 1 << 40),
        ("i64::MAX".to_owned(), i64::MAX as u128),
        ("u32::MAX".to_owned(), u128::from(u32::MAX)),
    ]
    .into();
    let mut constants = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("pub const ")) {
        let (name, rest) = line.split_once(':').unwrap();
        let (_, value) = rest.split_once('=').unwrap();
        let value = evaluate(value.trim().trim_end_matches(';'), &known);
        known.insert(name.to_owned(), value);
        constants.insert(name.to_owned(), value);
    }
    constants
}

/// Sums of products of numbers, names and shifts: all that the limits are made of.
fn evaluate(expression: &str, known: &BTreeMap<String, u128>) -> u128 {
    let expression = expression.split(" as ").next().unwrap();
    let atom = |text: &str| {
        let text = text.trim();
        let digits = text.replace('_', "");
        digits
            .parse()
            .ok()
            .or_else(|| known.get(text).copied())
            .unwrap_or_else(|| panic!("what is {text:?}?"))
    };
    let product = |text: &str| text.split('*').map(atom).product::<u128>();
    match expression.split_once("<<") {
        Some((value, shift)) => atom(value) << atom(shift),
        None => expression.split('+').map(product).sum(),
    }
}

#[test]
fn the_page_of_limits_is_the_code() {
    let text = fs::read_to_string(folder().parent().unwrap().join("limits.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let value = cells[2].replace([' ', ','], "").parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(rows.insert(cells[1].trim_matches('`').to_owned(), value).is_none(), "twice: {line}");
    }
    assert_eq!(rows, constants());
}

#[test]
fn rules_have_one_place_each() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        // A rule is stated where its id stands in bold; elsewhere it is cited.
        for (at, _) in text.match_indices("**[") {
            let id = text[at + 3..].split(']').next().unwrap();
            places.entry(id.to_owned()).or_default().push(page.display().to_string());
        }
    }
    for (id, pages) in &places {
        assert_eq!(pages.len(), 1, "[{id}] is stated more than once: {pages:?}");
    }
}
