//! What the program asks and shows on a terminal.

use super::program::{PASSWORD, World};
use super::pty::{Streams, Terminal};
use std::io::Write;

const OTHER: &str = "not-the-same-password";

/// Opens the repository with a file that holds a password, key or sheet.
fn opens(world: &World, option: &str, file: &str) -> i32 {
    let mut command = world.command();
    command.env_remove("CHRONOLITH_PASSWORD").args(["snapshots", "--no-key-cache", option, file]);
    World::finish(command, b"").code
}

#[test]
fn init_asks_twice_and_for_a_second_way_in_and_never_shows_the_password() {
    let world = World::new();
    world.write("taken", b"x");
    let mut terminal = Terminal::run(&world, &["init"], Streams::Terminal);
    terminal.answers_hidden("new password: ", PASSWORD);
    terminal.answers_hidden("again: ", PASSWORD);
    terminal.shows("made at");
    // It insists: no answer is none, and no file is overwritten.
    terminal.answers("write it to a file (FILE)? ", "");
    terminal.answers("write it to a file (FILE)? ", "taken");
    terminal.shows("taken exists already");
    terminal.answers("write it to a file (FILE)? ", "sheet");
    terminal.shows("sheet is written: move it to another place");
    let (code, screen, _) = terminal.ends();
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains(PASSWORD), "{screen}");
    world.write("password", PASSWORD.as_bytes());
    assert_eq!(opens(&world, "--password-file", "password"), 0);
    assert_eq!(opens(&world, "--key-file", "sheet"), 0);
    assert_eq!(std::fs::read(world.path("taken")).unwrap(), b"x");
    world.write("other", OTHER.as_bytes());
    assert_eq!(opens(&world, "--password-file", "other"), 5);
}

#[test]
fn two_passwords_that_differ_make_nothing() {
    let world = World::new();
    for (first, second, why) in
        [(PASSWORD, OTHER, "the two passwords differ"), ("", "", "the password is empty")]
    {
        let mut terminal = Terminal::run(&world, &["init"], Streams::Terminal);
        terminal.answers_hidden("new password: ", first);
        if !first.is_empty() {
            terminal.answers_hidden("again: ", second);
        }
        let (code, screen, _) = terminal.ends();
        assert_eq!(code, 2, "{screen}");
        assert!(screen.contains(why) && screen.contains("could not make a repository"), "{screen}");
        assert!(!screen.contains(PASSWORD) && !screen.contains(OTHER), "{screen}");
        assert!(!world.path("repository").exists(), "there is something already");
    }
}

#[test]
fn who_says_no_to_a_second_way_is_believed() {
    let world = World::new();
    let mut terminal = Terminal::run(&world, &["init"], Streams::Terminal);
    terminal.answers_hidden("new password: ", PASSWORD);
    terminal.answers_hidden("again: ", PASSWORD);
    terminal.answers("write it to a file (FILE)? ", "y");
    terminal.answers("write it to a file (FILE)? ", "n");
    terminal.shows("No second way in was made");
    let (code, screen, _) = terminal.ends();
    assert_eq!(code, 0, "{screen}");
    assert!(!world.path("n").exists() && !world.path("y").exists(), "a sheet was written");
}

#[test]
fn the_sheet_is_shown_on_the_terminal_only() {
    let world = World::new();
    let mut terminal = Terminal::run(&world, &["init"], Streams::Pipes);
    terminal.answers_hidden("new password: ", PASSWORD);
    terminal.answers_hidden("again: ", PASSWORD);
    terminal.answers("write it to a file (FILE)? ", "s");
    let (code, screen, out) = terminal.ends();
    assert_eq!(code, 0, "{screen}");
    assert!(out.is_empty(), "{}", String::from_utf8_lossy(&out));
    // What was shown can be typed off, and opens the repository.
    let sheet = screen.split_once("(FILE)? s\n").unwrap().1;
    world.write("sheet", sheet.as_bytes());
    assert_eq!(opens(&world, "--key-file", "sheet"), 0, "{sheet}");
}

#[test]
fn who_declines_a_second_way_is_not_asked_and_who_has_no_terminal_is_warned() {
    let world = World::new();
    let mut terminal = Terminal::run(&world, &["init", "--no-recovery"], Streams::Terminal);
    terminal.answers_hidden("new password: ", PASSWORD);
    terminal.answers_hidden("again: ", PASSWORD);
    let (code, screen, _) = terminal.ends();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("made at") && !screen.contains("sheet"), "{screen}");
    let world = World::new();
    let outcome = world.run(["init"]).exits(0);
    assert!(outcome.err.contains("one way in") && outcome.err.contains("key export"), "{}", outcome.err);
}

#[test]
fn a_password_is_asked_for_once_where_a_repository_is_opened() {
    let world = World::with_repository();
    let arguments = ["snapshots", "--no-key-cache"];
    let mut terminal = Terminal::run(&world, &arguments, Streams::Pipes);
    terminal.answers_hidden("password of ", PASSWORD);
    let (code, screen, _) = terminal.ends();
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains(PASSWORD), "{screen}");
    let mut terminal = Terminal::run(&world, &arguments, Streams::Terminal);
    terminal.answers_hidden("password of ", OTHER);
    let (code, screen, _) = terminal.ends();
    assert_eq!(code, 5, "{screen}");
    assert!(!screen.contains(OTHER), "{screen}");
}

#[test]
fn a_question_that_is_broken_off_leaves_the_terminal_as_it_was() {
    let world = World::new();
    let mut terminal = Terminal::run(&world, &["init"], Streams::Terminal);
    terminal.waits_hidden("new password: ");
    terminal.types("half\u{3}");
    let (code, screen, _) = terminal.ends();
    assert_eq!(code, 130, "{screen}");
    assert!(!screen.contains("half") && !world.path("repository").exists(), "{screen}");
    // Later questions end at once, as everything does that has not begun.
    let mut terminal = Terminal::run(&world, &["init"], Streams::Terminal);
    terminal.answers_hidden("new password: ", PASSWORD);
    terminal.answers_hidden("again: ", PASSWORD);
    terminal.shows("write it to a file (FILE)? ");
    terminal.types("\u{3}");
    let (code, screen, _) = terminal.ends();
    assert!(code != 0 && !screen.contains("panicked"), "{code}: {screen}");
    world.write("password", PASSWORD.as_bytes());
    assert_eq!(opens(&world, "--password-file", "password"), 0);
}

#[test]
fn a_backup_shows_how_far_it_is_on_a_terminal() {
    let world = World::with_repository();
    world.write("password", PASSWORD.as_bytes());
    let arguments = ["backup", "--stdin", "app.sql", "--label", "app", "--password-file", "password"];
    let start = |more: &[&str]| {
        let mut terminal = Terminal::run(&world, &[&arguments, more].concat(), Streams::Pipes);
        let mut input = terminal.input();
        input.write_all(&vec![b'x'; 3 << 20]).unwrap();
        (terminal, input)
    };
    // These began earlier, and must not show anything by the time the third does.
    let silent = ["--no-progress", "-q"].map(|quiet| start(&[quiet]));
    let (mut terminal, mut input) = start(&[]);
    terminal.shows("backup ");
    terminal.shows("3.00 MiB");
    input.write_all(&vec![b'y'; 2 << 20]).unwrap();
    terminal.shows("5.00 MiB");
    drop(input);
    terminal.shows("snapshot ");
    let (code, screen, out) = terminal.ends();
    assert_eq!(code, 0, "{screen}");
    assert!(out.is_empty());
    // The bar is wiped away before the summary is written.
    let (bar, summary) = screen.rsplit_once("snapshot ").unwrap();
    assert!(bar.contains("\u{1b}[") && bar.trim_end().ends_with("\u{1b}[2K"), "{bar:?}");
    assert!(summary.contains(":app") && !summary.contains('\u{1b}'), "{summary:?}");
    for (terminal, input) in silent {
        drop(input);
        let (code, screen, _) = terminal.ends();
        assert_eq!(code, 0, "{screen}");
        assert!(!screen.contains('\u{1b}') && !screen.contains("backup "), "{screen:?}");
    }
}

#[test]
fn a_backup_that_is_interrupted_at_the_terminal_commits_nothing() {
    let world = World::with_repository();
    world.write("password", PASSWORD.as_bytes());
    let arguments = ["backup", "--stdin", "app.sql", "--password-file", "password"];
    let mut terminal = Terminal::run(&world, &arguments, Streams::Pipes);
    let mut input = terminal.input();
    input.write_all(&vec![b'x'; 1 << 20]).unwrap();
    terminal.shows("1.00 MiB");
    terminal.types("\u{3}");
    terminal.shows("interrupted");
    drop(input);
    let (code, screen, _) = terminal.ends();
    assert_eq!(code, 130, "{screen}");
    assert!(world.run(["snapshots"]).exits(0).err.contains("no snapshots yet"));
}

#[test]
fn where_there_is_no_terminal_nothing_is_drawn() {
    let world = World::with_repository();
    let outcome = world.feed(["backup", "--stdin", "app.sql"], &vec![b'x'; 30 << 20]).exits(0);
    assert!(!outcome.err.contains('\u{1b}') && outcome.err.lines().count() == 2, "{}", outcome.err);
}
