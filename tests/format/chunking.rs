//! The values to test with in `format-spec/chunking.md` are those that the code computes.

use crate::vectors::folder;
use chronolith::base::Secret;
use chronolith::chunker::{CutParameters, Cutter, GearTable, Sketcher};
use std::collections::BTreeMap;
use std::fs;

fn cuts(mut data: &[u8], [minimum, average, maximum]: [u32; 3]) -> String {
    let table = GearTable::derive(&Secret::new([7; 32]));
    let cutter = Cutter::new(&table, CutParameters::new(minimum, average, maximum).unwrap());
    let mut lengths = Vec::new();
    while let Some(length) = cutter.cut(data, true) {
        lengths.push(length.to_string());
        data = &data[length..];
    }
    lengths.join(" ")
}

fn sketch(chunk: &[u8]) -> String {
    Sketcher::derive(&Secret::new([7; 32])).sketch(chunk).0.map(|number| number.to_string()).join(" ")
}

#[test]
fn the_values_in_the_page_are_those_of_the_code() {
    let text = fs::read_to_string(folder().parent().unwrap().join("chunking.md")).unwrap();
    let (_, values) = text.split_once("## Values to test with").unwrap();
    let said: BTreeMap<&str, &str> = values
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .collect();
    let mut noise = vec![0; 2 << 20];
    blake3::Hasher::new_derive_key("chronolith test noise").finalize_xof().fill(&mut noise);
    let large = [32 << 10, 128 << 10, 512 << 10];
    for (what, found) in [
        ("noise, 32768 131072 524288", cuts(&noise, large)),
        ("first 3000 bytes of noise, 64 256 1024", cuts(&noise[..3000], [64, 256, 1024])),
        ("1048581 zeros, 32768 131072 524288", cuts(&[0; 1_048_581], large)),
        ("sketch of the first 100000 bytes of noise", sketch(&noise[..100_000])),
        ("sketch of 100000 zeros", sketch(&[0; 100_000])),
    ] {
        assert_eq!(said.get(what), Some(&found.as_str()), "{what}");
    }
}
