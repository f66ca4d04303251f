//! Measures what chunk sizes, shared frames, dictionaries and sketches are worth on real content:
//! the figures of `docs/chunk-sizes.md`.
//!
//! Inputs are read whole, so memory must hold the old and the new version. Speeds are of one thread,
//! by its own CPU time, so that other work on the machine disturbs them less.

mod first;
mod input;
mod pages;
mod pair;

use chronolith::chunker::{RECOGNISE_BYTES, recognise};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo bench --bench chunk_sizes -- WORDS
  first FILE                what a first backup stores, by chunk size and frame size
  dictionary FILE           the same with trained dictionaries instead of shared frames
  pair OLD NEW [MIN,AVG,MAX in KiB]...   what a second version adds, with and without differences
  pages OLDDIR NEWDIR       the same for folders of database files, cut at fixed places
  recognise DIR             which files are taken for database files
  sketch FILE               speed of the sketch";

fn main() -> ExitCode {
    // `cargo bench` adds a word of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["first", file] => first::first(&input::read(file)),
        ["dictionary", file] => first::dictionary(&input::read(file)),
        ["pair", old, new, cuts @ ..] => pair::pair(&input::read(old), &input::read(new), cuts),
        ["pages", old, new] => pages::pages(&input::read_folder(old), &input::read_folder(new)),
        ["recognise", folder] => recognised(folder),
        ["sketch", file] => pair::sketch_speed(&input::read(file)),
        [] => println!("{USAGE}"),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn recognised(folder: &str) {
    let (mut count, mut files) = (0, 0);
    input::walk(folder.as_ref(), &mut |path| {
        let Ok((head, length)) = input::head(path, RECOGNISE_BYTES) else { return };
        files += 1;
        if let Some(found) = recognise(&head, length) {
            count += 1;
            println!(
                "{} of {} KiB pages, {length} bytes: {}",
                found.kind.name(),
                found.page_bytes >> 10,
                path.display()
            );
        }
    });
    println!("{count} of {files} files");
}
