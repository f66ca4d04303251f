//! The hexadecimal examples in the pages of `format-spec/` are the bytes of vectors.
//!
//! A block that begins with three backticks and `hex object/case` has lines of bytes in hexadecimal, two
//! spaces or more, and a comment; a line `..N` stands for N bytes that are not shown.

use crate::vectors::folder;
use std::fs;

fn vector(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let body = text.split_once("\n\n").unwrap().1;
    let digits: String = body.split_ascii_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn check(page: &str, name: &str, lines: &[&str]) {
    let bytes = vector(name);
    let mut at = 0;
    for line in lines {
        let shown = line.split("  ").next().unwrap().trim();
        if let Some(count) = shown.strip_prefix("..") {
            at += count.parse::<usize>().unwrap();
            continue;
        }
        for pair in shown.split_ascii_whitespace() {
            let byte = u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("{page}: {line:?}"));
            assert_eq!(bytes.get(at), Some(&byte), "{page}: {name} has another byte at {at}: {line:?}");
            at += 1;
        }
    }
    assert_eq!(at, bytes.len(), "{page}: the example of {name} does not show or count all bytes");
}

#[test]
fn the_examples_in_the_pages_are_true() {
    let mut examples = 0;
    for page in fs::read_dir(folder().parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()) {
        if page.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&page).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix("```hex ") {
                let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
                check(&page.display().to_string(), name, &block);
                examples += 1;
            }
        }
    }
    assert!(examples >= 6, "only {examples} examples");
}
