//! Names in snapshots.

use crate::support::repository::{file, folder, in_memory, store_tree};
use chronolith::base::{BlobId, SnapshotId};
use chronolith::ops::find::{Pattern, find};
use chronolith::repo::Repository;
use std::ops::ControlFlow;
use std::sync::Arc;

fn found(
    repository: &Arc<Repository>,
    snapshots: &[(SnapshotId, BlobId)],
    pattern: &str,
    ignore_case: bool,
) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    let pattern = Pattern::new(pattern, ignore_case).unwrap();
    let unsearched = find(repository, snapshots.to_vec(), &pattern, |snapshot, path, _| {
        let number = snapshots.iter().position(|(id, _)| id == snapshot).unwrap();
        paths.push((number, String::from_utf8_lossy(path).into_owned()));
        ControlFlow::Continue(())
    });
    assert!(unsearched.unwrap().is_empty());
    paths
}

#[test]
fn names_and_paths_are_found_in_every_snapshot_that_has_them() {
    let (_, repository) = in_memory();
    let shared = || folder("shared", vec![folder("deep", vec![file("x.sql", "1"), file("Y.SQL", "2")])]);
    let barren = || folder("barren", vec![folder("deeper", vec![file("no", "1")]), file("none", "2")]);
    let first = store_tree(&repository, "one", vec![shared(), barren()]);
    let second = store_tree(&repository, "two", vec![shared(), barren(), file("new.sql", "3")]);
    let both = [first, second];
    let place = |number: usize, path: &str| (number, path.to_owned());
    assert_eq!(
        found(&repository, &both, "*.sql", false),
        [place(0, "shared/deep/x.sql"), place(1, "new.sql"), place(1, "shared/deep/x.sql")]
    );
    assert_eq!(found(&repository, &both, "*.sql", true).len(), 5);
    assert_eq!(found(&repository, &both, "deep", false), [place(0, "shared/deep"), place(1, "shared/deep")]);
    assert_eq!(found(&repository, &both, "/shared/*/x*", false).len(), 2);
    assert_eq!(found(&repository, &both, "**/deeper/**", false).len(), 2);
    assert_eq!(found(&repository, &both, "/deep", false), []);
    assert_eq!(found(&repository, &both[1..], "n*", false).len(), 3);
    assert!(Pattern::new("[", false).is_err());
}
