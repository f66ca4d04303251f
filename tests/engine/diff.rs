//! What differs between two trees.

use crate::support::CountingStore;
use crate::support::repository::{Node, file, folder, in_memory, make, noise, store_tree, symlink};
use chronolith::base::{BlobId, Timestamp};
use chronolith::ops::diff::{Change, DiffReport, diff};
use chronolith::repo::Repository;
use chronolith::storage::MemoryStore;
use std::ops::ControlFlow;
use std::sync::Arc;

fn differences(repository: &Arc<Repository>, before: &BlobId, after: &BlobId) -> (Vec<String>, DiffReport) {
    let mut lines = Vec::new();
    let report = diff(repository, before, after, |path, change| {
        let path = String::from_utf8_lossy(path);
        lines.push(match change {
            Change::Added(_) => format!("+ {path}"),
            Change::Removed(_) => format!("- {path}"),
            Change::Changed { how, .. } => {
                let flag = |set: bool, letter: &'static str| if set { letter } else { "" };
                let flags = [flag(how.kind, "k"), flag(how.content, "c"), flag(how.metadata, "m")].concat();
                format!("{flags} {path}")
            }
        });
        ControlFlow::Continue(())
    });
    (lines, report.unwrap())
}

#[test]
fn every_kind_of_difference_is_told_once() {
    let (_, repository) = in_memory();
    let touched = |node: Node| node.with(|entry| entry.modified = Timestamp::from_nanoseconds(5));
    let reread = |node: Node| node.with(|entry| entry.accessed = Some(Timestamp::from_nanoseconds(9)));
    let before = vec![
        folder("gone", vec![file("a", "12345"), folder("inner", vec![file("b", "123")])]),
        folder("same", vec![file("x", noise(1, 50_000))]),
        folder(
            "work",
            vec![file("content", "1"), file("touched", "2"), file("read", "3"), symlink("l", "a")],
        ),
        file("kind", "was a file"),
    ];
    let after = vec![
        folder("same", vec![file("x", noise(1, 50_000))]),
        folder(
            "work",
            vec![
                file("content", "one"),
                touched(file("touched", "2")),
                reread(file("read", "3")),
                symlink("l", "b"),
                file("new", "1234567"),
            ],
        ),
        folder("kind", vec![file("inside", "now a folder")]),
    ];
    let (_, before) = store_tree(&repository, "one", before);
    let (_, after) = store_tree(&repository, "two", after);
    let (lines, report) = differences(&repository, &before, &after);
    let expected = [
        "- gone",
        "- gone/a",
        "- gone/inner",
        "- gone/inner/b",
        "kcm kind",
        "+ kind/inside",
        "c work/content",
        "c work/l",
        "+ work/new",
        "m work/touched",
    ];
    assert_eq!(lines, expected);
    let counts = report.counts;
    assert_eq!((counts.added, counts.added_bytes, counts.removed, counts.removed_bytes), (2, 19, 4, 8));
    assert_eq!((counts.changed_content, counts.changed_metadata), (3, 1));
    let (back, _) = differences(&repository, &after, &before);
    assert_eq!(back.len(), lines.len());
    assert!(differences(&repository, &after, &after).0.is_empty());
}

#[test]
fn equal_folders_are_not_read() {
    let store = Arc::new(CountingStore::new(MemoryStore::new()));
    let repository = make(store.clone());
    let same =
        || folder("same", (0..300).map(|n| folder(n.to_string(), vec![file("f", n.to_string())])).collect());
    let (_, before) = store_tree(&repository, "one", vec![same(), file("f", "1")]);
    let (_, after) = store_tree(&repository, "two", vec![same(), file("f", "2")]);
    store.reset();
    assert_eq!(differences(&repository, &before, &after).0, ["c f"]);
    assert!(store.total() <= 2, "{} requests", store.total());
}
