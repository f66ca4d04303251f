//! The engine against a naive model: a map of paths to bytes for each snapshot, whatever happens to
//! the client's own files in between.

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod operations;
mod retention;
mod scripts;
mod unchanged;

/// The short form of the fuzzer: its seeds, and some scripts that are made up.
mod fuzzed {
    use super::operations::run;
    use super::support::world::noise;
    use std::path::Path;

    #[test]
    fn seeds_of_the_fuzzer() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/operations");
        let mut seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|seed| seed.unwrap().path()).collect();
        seeds.sort();
        assert!(seeds.len() >= 6);
        for seed in seeds {
            println!("{}", seed.display());
            run(&std::fs::read(seed).unwrap());
        }
    }

    #[test]
    fn scripts_with_faults() {
        let seed = std::env::var("CHRONOLITH_TEST_SEED").map_or(20_261_129, |text| text.parse().unwrap());
        for number in 0..12 {
            println!("CHRONOLITH_TEST_SEED={seed}, script {number}");
            run(&noise(seed + number, 90));
        }
    }
}
