//! Consistent copies of SQLite databases.

use chronolith::base::{Classify, ErrorClass, Observer, Phase, Quiet};
use chronolith::sqlite::copy;
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::Mutex;

fn make(path: &Path, rows: i64) -> Connection {
    let mut database = Connection::open(path).unwrap();
    database
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE t (a INTEGER, b TEXT);",
        )
        .unwrap();
    let all = database.transaction().unwrap();
    for row in 0..rows {
        all.execute("INSERT INTO t VALUES (?1, ?2)", params![row, "x".repeat(200)]).unwrap();
    }
    all.commit().unwrap();
    database
}

fn sum(path: &Path) -> (i64, i64) {
    let database = Connection::open(path).unwrap();
    let whole: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    database.query_row("SELECT count(*), sum(a) FROM t", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

/// Writes to the database whenever a part of it has been copied.
struct Writer(Mutex<(Connection, i64)>);

impl Observer for Writer {
    fn advance(&self, _phase: Phase, _bytes: u64, _new_bytes: u64) {
        let mut held = self.0.lock().unwrap();
        // One transaction moves a unit from one row to another: every moment has the same sum.
        let (database, turns) = &mut *held;
        *turns += 1;
        let all = database.transaction().unwrap();
        all.execute("UPDATE t SET a = a - 1 WHERE rowid = 1", []).unwrap();
        all.execute("UPDATE t SET a = a + 1 WHERE rowid = 40000", []).unwrap();
        all.commit().unwrap();
    }
}

#[test]
fn a_copy_is_of_one_moment_while_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let (live, taken) = (folder.path().join("live"), folder.path().join("taken"));
    let database = make(&live, 40_000);
    let expected = sum(&live);
    let writer = Writer(Mutex::new((database, 0)));
    let report = copy(&live, &taken, &writer).unwrap();
    assert!(writer.0.lock().unwrap().1 > 0, "nobody wrote");
    assert_eq!(report.bytes, std::fs::metadata(&taken).unwrap().len());
    assert_eq!(sum(&taken), expected);
}

#[test]
fn what_cannot_be_copied_leaves_nothing() {
    struct Stopped;
    impl Observer for Stopped {
        fn interrupted(&self) -> bool {
            true
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (live, taken) = (folder.path().join("live"), folder.path().join("taken"));
    assert_eq!(copy(&live, &taken, &Quiet).unwrap_err().class(), ErrorClass::NotFound);
    std::fs::write(&live, vec![7; 10_000]).unwrap();
    assert_eq!(copy(&live, &taken, &Quiet).unwrap_err().class(), ErrorClass::Usage);
    std::fs::remove_file(&live).unwrap();
    drop(make(&live, 10));
    assert_eq!(copy(&live, &taken, &Stopped).unwrap_err().class(), ErrorClass::Interrupted);
    assert!(!taken.exists());
    copy(&live, &taken, &Quiet).unwrap();
    assert_eq!(copy(&live, &taken, &Quiet).unwrap_err().class(), ErrorClass::Usage);
    assert_eq!(sum(&taken), (10, 45));
}
