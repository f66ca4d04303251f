//! What lies below a path.

use crate::support::repository::{file, folder, in_memory, names, store_tree, symlink};
use chronolith::base::{BlobId, Classify, ErrorClass};
use chronolith::ops::listing::{list, locate};
use chronolith::repo::Repository;
use std::ops::ControlFlow;
use std::sync::Arc;

fn listed(repository: &Arc<Repository>, root: &BlobId, path: &str, recursive: bool) -> Vec<String> {
    let found = locate(repository, root, &names(path)).unwrap();
    let mut paths = Vec::new();
    let unreadable = list(repository, &found, recursive, |path, _| {
        paths.push(String::from_utf8_lossy(path).into_owned());
        ControlFlow::Continue(())
    });
    assert!(unreadable.unwrap().is_empty());
    paths
}

#[test]
fn folders_are_listed_in_order() {
    let (_, repository) = in_memory();
    let many = (0..5000).map(|number| file(format!("{number:05}"), "x")).collect();
    let tree = vec![
        folder("a", vec![folder("b", vec![file("c", "1")]), file("d", "2")]),
        folder("empty", vec![]),
        folder("many", many),
        symlink("z", "a"),
    ];
    let (_, root) = store_tree(&repository, "ls", tree);
    assert_eq!(listed(&repository, &root, "", false), ["a", "empty", "many", "z"]);
    assert_eq!(listed(&repository, &root, "/a/", true), ["b", "b/c", "d"]);
    assert_eq!(listed(&repository, &root, "a/b/c", true), ["c"]);
    assert_eq!(listed(&repository, &root, "empty", true), [""; 0]);
    let all = listed(&repository, &root, "", true);
    assert_eq!(all.len(), 5008 - 1);
    assert!(all.is_sorted());
    let missing = locate(&repository, &root, &names("a/x")).unwrap_err();
    assert_eq!((missing.class(), missing.to_string().contains("a/x")), (ErrorClass::NotFound, true));
    assert!(locate(&repository, &root, &names("a/d/e")).is_err());
}
