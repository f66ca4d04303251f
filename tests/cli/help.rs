//! Help, and that the documents name only commands that exist.

use super::program::World;
use std::collections::BTreeSet;

/// The commands that the program completes: those that exist.
fn existing() -> BTreeSet<String> {
    let script = World::new().run(["completions", "fish"]).exits(0).text();
    let first = script.lines().filter(|line| line.contains("__fish_chronolith_needs_command"));
    first.filter_map(|line| line.split(" -a \"").nth(1)?.split('"').next().map(str::to_owned)).collect()
}

#[test]
fn help_fits_one_screen_and_names_every_command() {
    let world = World::new();
    let screen = world.run(["help"]).exits(0).text();
    assert_eq!(screen, world.run(["--help"]).exits(0).text());
    assert!(screen.lines().count() <= 32, "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 100), "{screen}");
    let commands = existing();
    assert!(commands.len() >= 10, "{commands:?}");
    for command in commands.iter().filter(|command| *command != "help") {
        let listed = screen.lines().any(|line| line.split_whitespace().take(3).any(|word| word == command));
        assert!(listed, "{command} is not on the screen:\n{screen}");
        let own = world.run(["help", command]).exits(0).text();
        assert!(own.contains("Usage: chronolith"), "{own}");
    }
}

#[test]
fn documents_name_only_commands_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    files.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    let commands = existing();
    let mut seen = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "md")) {
        let text = std::fs::read_to_string(file).unwrap();
        for (at, _) in text.match_indices("chronolith ") {
            // Only what stands as a command: at the start of a line, behind a pipe, a backtick or `--`.
            let before = text[..at].chars().next_back();
            let after_dashes = text[..at].ends_with("| ");
            if !matches!(before, None | Some('\n' | '`')) && !after_dashes {
                continue;
            }
            let word: String = text[at + "chronolith ".len()..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '-')
                .collect();
            if word.is_empty() || word.chars().all(char::is_uppercase) {
                continue;
            }
            seen += 1;
            assert!(commands.contains(&word), "{}: `chronolith {word}` does not exist", file.display());
        }
    }
    assert!(seen >= 10, "only {seen} commands were found in the documents");
}

#[test]
fn wrong_usage_is_two() {
    let world = World::new();
    for arguments in [vec![], vec!["frobnicate"], vec!["snapshots", "--frobnicate"], vec!["backup"]] {
        world.run(&arguments).exits(2);
    }
    world.run(["--version"]).exits(0);
}
