//! Producers that fail, and users who change their minds: nothing half is ever committed.

use crate::support::world::{Client, Content, Listener, content, dump, noise, streams};
use chronolith::base::{Classify, ErrorClass};
use chronolith::ops::OpsError;
use chronolith::ops::backup::{Source, backup};
use chronolith::storage::MemoryStore;
use std::io::{self, Read};
use std::sync::Arc;

fn owner() -> (Client, Content) {
    let owner = Client::init(Arc::new(MemoryStore::new()), 2);
    let before = content([("app.sql", dump(1, 2000, 20))]);
    owner.back_up(&before);
    (owner, before)
}

fn unharmed(owner: &Client, before: &Content, what: &str) {
    let snapshots = owner.snapshots();
    assert_eq!(snapshots.len(), 1, "{what}: something was committed");
    assert_eq!(owner.read(snapshots[0]).unwrap(), *before, "{what}");
}

fn command(name: &str, command: &str) -> Source {
    Source::Command { name: name.as_bytes().to_vec(), command: command.to_owned() }
}

#[test]
fn a_producer_that_fails_commits_nothing_and_is_quoted() {
    let (owner, before) = owner();
    let cases = [
        ("exit 3", "exit code 3", ""),
        ("echo no such table >&2; exit 1", "exit code 1", "no such table"),
        ("seq 1 200000; echo lost connection >&2; exit 1", "exit code 1", "lost connection"),
        ("kill -9 $$", "signal 9", ""),
        ("seq 1 1000; kill -TERM $$", "signal 15", ""),
        ("no-such-program-anywhere --all", "not found", "no-such-program-anywhere"),
        ("exec >&-; echo closed early >&2; exit 7", "exit code 7", "closed early"),
        ("for n in $(seq 1 5000); do echo line $n >&2; done; exit 1", "exit code 1", "line 5000"),
    ];
    for (text, why, said) in cases {
        for others in [false, true] {
            let mut sources = vec![command("b.sql", text)];
            if others {
                // Producers before and after it are fine, and still nothing counts.
                sources.insert(0, command("a.sql", "echo a"));
                sources.push(command("c.sql", "echo c"));
            }
            let error = backup(&owner.open(), sources, &owner.options()).unwrap_err();
            let OpsError::Source { name, why: found, lines } = &error else { panic!("{text}: {error:?}") };
            assert!(name.contains(text) || name.contains(&format!("{text:?}")), "{name}");
            assert!(found.contains(why), "{text}: {found}");
            assert!(lines.join("\n").contains(said), "{text}: {lines:?}");
            unharmed(&owner, &before, text);
        }
    }
    let report = backup(&owner.open(), vec![command("a.sql", "printf abc")], &owner.options()).unwrap();
    assert_eq!(owner.read(report.snapshot.unwrap()).unwrap(), content([("a.sql", b"abc".to_vec())]));
}

/// Gives some bytes, then an error.
struct Broken(Vec<u8>, usize);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.0[self.1..];
        if rest.is_empty() {
            return Err(io::Error::from_raw_os_error(5));
        }
        let count = rest.len().min(buffer.len()).min(10_000);
        buffer[..count].copy_from_slice(&rest[..count]);
        self.1 += count;
        Ok(count)
    }
}

#[test]
fn a_stream_that_breaks_commits_nothing() {
    let (owner, before) = owner();
    for length in [0, 1, 4096, 300_000, 9_000_000] {
        let reader = Box::new(Broken(noise(7, length), 0));
        let source = Source::Stream { name: b"app.sql".to_vec(), reader };
        let error = backup(&owner.open(), vec![source], &owner.options()).unwrap_err();
        assert!(matches!(&error, OpsError::Read { name, .. } if name == "app.sql"), "{error:?}");
        unharmed(&owner, &before, "a broken stream");
    }
}

#[test]
fn what_a_backup_that_broke_off_had_stored_is_not_stored_again() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 2);
    let length = 68 << 20;
    let reader = Box::new(Broken(noise(7, length), 0));
    let source = Source::Stream { name: b"app.bin".to_vec(), reader };
    backup(&owner.open(), vec![source], &owner.options()).unwrap_err();
    let report = owner.try_back_up(&content([("app.bin", noise(7, length))])).unwrap();
    // But for the packs that were not full yet, and those on their way.
    assert!(report.summary.new_bytes < 40 << 20, "{}", report.summary.new_bytes);
    owner.read(report.snapshot.unwrap()).unwrap();
}

#[test]
fn a_dump_without_its_last_line_is_answered_with_advice() {
    let (owner, _) = owner();
    let mut cut = dump(2, 2000, 20);
    cut.truncate(cut.len() - 20);
    let report = owner.try_back_up(&content([("app.sql", cut.clone())])).unwrap();
    assert!(report.advice.iter().any(|line| line.contains("cut short")), "{:?}", report.advice);
    assert_eq!(owner.read(report.snapshot.unwrap()).unwrap()[&b"app.sql".to_vec()], cut);
    let report = owner.try_back_up(&content([("app.sql", dump(3, 2000, 20))])).unwrap();
    assert!(report.advice.is_empty(), "{:?}", report.advice);
    let report = owner.try_back_up(&content([("app.sql", Vec::new())])).unwrap();
    assert!(report.advice.iter().any(|line| line.contains("empty")), "{:?}", report.advice);
}

#[test]
fn an_interruption_at_any_moment_commits_nothing() {
    let (owner, before) = owner();
    let next = content([("app.sql", noise(3, 6_000_000)), ("b.sql", dump(2, 3000, 10))]);
    for number in 1.. {
        let client = owner.with_listener(Listener::interrupting_at(number));
        let result = backup(&client.open(), streams(&next), &client.options());
        if client.listener.questions() < number {
            assert!(result.is_ok(), "it was not interrupted: {result:?}");
            assert!(number > 5, "a backup asks more often than {number} times");
            break;
        }
        assert_eq!(result.unwrap_err().class(), ErrorClass::Interrupted);
        unharmed(&owner, &before, "an interrupted backup");
    }
}
