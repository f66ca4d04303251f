//! The demonstration's SQLite database.

use super::Stage;
use crate::base::SnapshotId;
use crate::cli::fault::Fault;
use crate::cli::render;
use crate::ops::Snapshots;
use crate::ops::backup::Source;
use crate::ops::restore::{RestoreOptions, RestorePlan};
use crate::sqlite::copy;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params};
use std::path::{Path, PathBuf};

/// Rows at the beginning.
const ROWS: i64 = 120_000;
/// Rows that are changed.
const CHANGED: usize = 1200;
/// They are among the newest ones, as in most databases.
const NEWEST: i64 = 6000;
/// Rows that are added.
const ADDED: i64 = 500;
/// Rows that are deleted.
const DELETED: usize = 200;

fn failed(error: rusqlite::Error) -> Fault {
    Fault::failed(format!("SQLite: {error}"), "")
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap_or(0) % below.max(1)
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let at = self.next(words.len());
        words.get(at).copied().unwrap_or_default()
    }
}

const FIRST: [&str; 12] = [
    "Ada", "Blaise", "Carla", "Dmitri", "Edsger", "Frances", "Grace", "Hedy", "Ivan", "Joan", "Kurt", "Lynn",
];
const LAST: [&str; 12] = [
    "Lovelace", "Pascal", "Gomez", "Orlov", "Dijkstra", "Allen", "Hopper", "Lamarr", "Petrov", "Clarke",
    "Goedel", "Conway",
];
const TOWNS: [&str; 8] = ["Oslo", "Porto", "Quito", "Riga", "Seoul", "Turin", "Utrecht", "Vienna"];

fn insert(
    database: &mut Connection,
    ids: std::ops::Range<i64>,
    numbers: &mut Numbers,
) -> rusqlite::Result<()> {
    let all = database.transaction()?;
    {
        let mut statement = all.prepare("INSERT INTO customer VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        for id in ids {
            let (first, last) = (numbers.pick(&FIRST), numbers.pick(&LAST));
            let mail = format!(
                "{}.{}{}@example.org",
                first.to_lowercase(),
                last.to_lowercase(),
                numbers.next(100_000)
            );
            let balance = i64::try_from(numbers.next(10_000_000)).unwrap_or(0);
            let note: String =
                (0..numbers.next(12)).map(|_| numbers.pick(&TOWNS)).collect::<Vec<_>>().join(" ");
            statement.execute(params![
                id,
                format!("{first} {last}"),
                mail,
                numbers.pick(&TOWNS),
                balance,
                note
            ])?;
        }
    }
    all.commit()
}

fn make(path: &Path) -> rusqlite::Result<Connection> {
    let mut database = Connection::open(path)?;
    database.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = OFF;
         CREATE TABLE customer (
             id INTEGER PRIMARY KEY, name TEXT NOT NULL, mail TEXT NOT NULL, town TEXT NOT NULL,
             balance INTEGER NOT NULL, note TEXT NOT NULL
         );
         CREATE INDEX customer_by_town ON customer (town, id);",
    )?;
    insert(&mut database, 1..ROWS + 1, &mut Numbers(1))?;
    Ok(database)
}

fn change(database: &mut Connection) -> rusqlite::Result<()> {
    let mut numbers = Numbers(2);
    let all = database.transaction()?;
    // Enough for all that are changed and deleted, none twice.
    let mut ids = (ROWS - NEWEST + 1..=ROWS).step_by(3);
    for id in ids.by_ref().take(CHANGED) {
        all.execute(
            "UPDATE customer SET balance = balance + 1, note = note || ' changed' WHERE id = ?1",
            params![id],
        )?;
    }
    for id in ids.take(DELETED) {
        all.execute("DELETE FROM customer WHERE id = ?1", params![id])?;
    }
    all.commit()?;
    insert(database, ROWS + 1..ROWS + 1 + ADDED, &mut numbers)
}

/// Compares two databases row by row, in every column; returns the number of rows.
fn compare(expected: &Path, found: &Path) -> Result<u64, Fault> {
    let open =
        |path: &Path| Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed);
    let (expected, found) = (open(expected)?, open(found)?);
    let query = "SELECT * FROM customer ORDER BY id";
    let mut expected = expected.prepare(query).map_err(failed)?;
    let mut found = found.prepare(query).map_err(failed)?;
    let columns = expected.column_count();
    let mut expected = expected.query([]).map_err(failed)?;
    let mut found = found.query([]).map_err(failed)?;
    let mut rows = 0;
    loop {
        match (expected.next().map_err(failed)?, found.next().map_err(failed)?) {
            (None, None) => return Ok(rows),
            (Some(expected), Some(found)) => {
                for column in 0..columns {
                    let expected: Value = expected.get(column).map_err(failed)?;
                    let found: Value = found.get(column).map_err(failed)?;
                    if expected != found {
                        let why = format!("row {}, column {column} is not what it was", rows + 1);
                        return Err(Fault::failed(why, "this is a defect: please report it"));
                    }
                }
                rows += 1;
            }
            _ => {
                let why = format!("the number of rows is not what it was after {rows} equal ones");
                return Err(Fault::failed(why, "this is a defect: please report it"));
            }
        }
    }
}

/// Restores the copy in a snapshot and returns where it lies.
fn restore(stage: &Stage<'_>, id: &SnapshotId, copy: &Path) -> Result<PathBuf, Fault> {
    let snapshots = Snapshots::load(&stage.repository)?;
    let view = snapshots.resolve(&id.to_string())?;
    let path: Vec<Vec<u8>> = copy
        .to_string_lossy()
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| part.as_bytes().to_vec())
        .collect();
    let target = stage.folder.path("restored");
    let options = RestoreOptions { verify: true, ..RestoreOptions::default() };
    let report = RestorePlan::new(&stage.repository, &view.snapshot.root, &path, &target, options)?.run()?;
    match report.problems.first() {
        Some(problem) => Err(Fault::failed(problem.what.clone(), "this is a defect: please report it")),
        None => Ok(target.join("app.db")),
    }
}

/// Runs this part.
pub fn run(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let (live, taken) = (stage.folder.path("app.db"), stage.folder.path("copy").join("app.db"));
    let made = |error| Fault::file("make", &taken, &error);
    std::fs::create_dir_all(taken.parent().unwrap_or(&live)).map_err(made)?;
    stage.story.chapter("A SQLite database in use")?;
    let mut database = make(&live).map_err(failed)?;
    stage.story.tell(&format!("{ROWS} customers are in it, in write-ahead mode"))?;
    let report = copy(&live, &taken, stage.session.talk.as_ref()).map_err(of_copy)?;
    stage
        .story
        .tell(&format!("SQLite's backup API took a consistent copy: {}", render::size(report.bytes)))?;
    stage.story.command("chronolith backup --label app copy/app.db")?;
    let first = stage.back_up(Source::Path(taken.clone()), "app", "SQLite, first")?;

    // Kept aside to compare with; no backup sees it.
    let kept = stage.folder.path("kept.db");
    std::fs::rename(&taken, &kept).map_err(made)?;
    change(&mut database).map_err(failed)?;
    stage.story.chapter("The same database after a day of work")?;
    stage.story.tell(&format!(
        "{CHANGED} of the newest {NEWEST} rows were changed, {ADDED} added, {DELETED} deleted"
    ))?;
    copy(&live, &taken, stage.session.talk.as_ref()).map_err(of_copy)?;
    stage.story.command("chronolith backup --label app copy/app.db")?;
    stage.back_up(Source::Path(taken.clone()), "app", "SQLite, changed")?;

    stage.story.chapter("Back to the first day")?;
    let id = first.snapshot.ok_or_else(|| Fault::failed("the first backup made no snapshot", ""))?;
    stage
        .story
        .command(&format!("chronolith restore {}:copy/app.db --target restored --verify", id.short()))?;
    let restored = restore(stage, &id, &taken)?;
    let rows = compare(&kept, &restored)?;
    stage.story.proved(format!("SQLite: {rows} of {ROWS} rows are what they were, in every column"))
}

fn of_copy(error: crate::sqlite::SqliteError) -> Fault {
    use crate::base::Classify;
    Fault::Plain { class: error.class(), why: crate::cli::fault::explain(&error), advice: String::new() }
}
