//! What writers that died have left on the disk: told by `check`, removed by the next backup.

use crate::support::world::{Client, content, noise, streams};
use chronolith::ops::backup::{BackupOptions, Source, backup};
use chronolith::ops::check::{CheckOptions, Gravity, check};
use chronolith::storage::{LocalStore, STALE_AFTER_SECONDS};
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[test]
fn a_backup_removes_what_dead_writers_left_a_day_ago() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::create(folder.path().join("repository")).unwrap();
    let owner = Client::init(Arc::new(store), 41);
    let day = Duration::from_secs(STALE_AFTER_SECONDS as u64);
    let leave = |name: &str, age: Duration| {
        let path = folder.path().join("repository/tmp").join(name);
        fs::write(&path, noise(1, 5000)).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        path
    };
    let minute = Duration::from_secs(60);
    let (stale, young) = (leave("4711-0", day + minute), leave("4711-1", day - minute));
    let told = |path: &PathBuf| {
        let report = check(&owner.open(), &CheckOptions::default()).unwrap();
        assert!(!report.is_damaged(), "{report:?}");
        let name = format!("tmp/{}", path.file_name().unwrap().to_str().unwrap());
        report.findings.iter().any(|finding| finding.object == name && finding.gravity == Gravity::Note)
    };
    assert!(told(&stale) && told(&young));
    // Neither looking nor trying changes anything.
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), "x").unwrap();
    let dry = BackupOptions { dry_run: true, ..owner.options() };
    backup(&owner.open(), vec![Source::Path(source.path().to_owned())], &dry).unwrap();
    assert!(stale.exists());
    let first = content([("first", noise(2, 3000))]);
    let id = backup(&owner.open(), streams(&first), &owner.options()).unwrap().snapshot.unwrap();
    assert_eq!(owner.read(id).unwrap(), first);
    assert!(!stale.exists() && young.exists());
    assert!(told(&young));
}
