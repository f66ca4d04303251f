//! How much snapshots hold.

use crate::support::repository::{backup_options, file, folder, in_memory, noise, store_tree};
use chronolith::ops::Snapshots;
use chronolith::ops::backup::{Source, backup};
use chronolith::ops::stats::{By, Figures, stats};
use chronolith::repo::Repository;
use chronolith::storage::Store;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

fn groups(repository: &Arc<Repository>, by: By) -> (Figures, BTreeMap<String, Figures>) {
    let found = repository.snapshots().unwrap().found;
    let report = stats(repository, found.iter().map(|f| (f.id, &f.snapshot)), Some(by)).unwrap();
    assert!(report.unreadable.is_empty());
    (report.total, report.groups.into_iter().collect())
}

#[test]
fn shared_content_is_counted_once_and_belongs_to_nobody_alone() {
    let (store, repository) = in_memory();
    let shared = || folder("shared", vec![file("s", noise(1, 400_000)), file("again", noise(1, 400_000))]);
    store_tree(&repository, "a", vec![shared(), file("own", noise(2, 100_000))]);
    store_tree(&repository, "b", vec![shared(), file("own", noise(3, 50_000))]);
    let (total, groups) = groups(&repository, By::Label);
    assert_eq!((total.snapshots, total.raw_bytes), (2, 1_750_000));
    assert_eq!(total.unique_bytes, 550_000);
    let (a, b) = (groups["a"], groups["b"]);
    assert_eq!((a.raw_bytes, a.unique_bytes), (900_000, 500_000));
    assert_eq!((b.raw_bytes, b.unique_bytes), (850_000, 450_000));
    // Alone: the own file, and the root that names it.
    assert!((100_000..102_000).contains(&a.alone_bytes), "{a:?}");
    assert!((50_000..52_000).contains(&b.alone_bytes), "{b:?}");
    assert!(a.alone_stored_bytes >= 100_000 && a.alone_stored_bytes < 110_000, "{a:?}");
    assert_eq!((total.base_bytes, a.base_bytes), (0, 0));
    let packs: u64 = store.list("packs/").unwrap().iter().map(|pack| pack.length).sum();
    assert!(total.stored_bytes <= packs && total.stored_bytes > 550_000);
    let found = repository.snapshots().unwrap().found;
    let report = stats(&repository, found.iter().map(|f| (f.id, &f.snapshot)), None).unwrap();
    assert_eq!((report.pack_bytes, report.total, report.groups.len()), (packs, total, 0));
}

#[test]
fn snapshots_of_one_label_share_among_themselves() {
    let (_, repository) = in_memory();
    for label in ["a", "a", "b"] {
        store_tree(&repository, label, vec![file("f", noise(1, 300_000)), file(label, noise(9, 1000))]);
    }
    let (_, labels) = groups(&repository, By::Label);
    assert_eq!((labels["a"].snapshots, labels["a"].unique_bytes), (2, 301_000));
    let (_, hosts) = groups(&repository, By::Host);
    assert_eq!(hosts["host"].alone_bytes, hosts["host"].unique_bytes + hosts["host"].metadata_bytes);
    assert_eq!(groups(&repository, By::Snapshot).1.len(), repository.snapshots().unwrap().found.len());
}

#[test]
fn what_only_differences_need_is_told_apart() {
    let (_, repository) = in_memory();
    let rows = |changed: usize| -> Vec<u8> {
        let mark = |row: usize| if row.is_multiple_of(97) { changed } else { 0 };
        let row = |row: usize| format!("{row}\t{}\t{}\n", mark(row), row * 7919 % 100_003);
        (0..20_000).flat_map(|number| row(number).into_bytes()).collect()
    };
    for changed in 1..=2 {
        let stream = Source::Stream { name: "dump".into(), reader: Box::new(Cursor::new(rows(changed))) };
        let report = backup(&repository, vec![stream], &backup_options("dump")).unwrap();
        assert_eq!(report.differences > 0, changed == 2, "{report:?}");
    }
    let snapshots = Snapshots::load(&repository).unwrap();
    let views: Vec<_> = snapshots.iter().map(|view| (view.id, &view.snapshot)).collect();
    let figures = |range: std::ops::Range<usize>| {
        stats(&repository, views[range].iter().copied(), Some(By::Snapshot)).unwrap()
    };
    let both = figures(0..2);
    assert_eq!(both.total.base_bytes, 0, "the first snapshot needs them itself");
    let groups: BTreeMap<String, Figures> = both.groups.into_iter().collect();
    let [first, second] = [0, 1].map(|number| groups[&views[number].0.to_string()]);
    assert_eq!((first.base_bytes, first.base_stored_bytes), (0, 0));
    assert!(second.base_bytes > 0 && second.base_stored_bytes > 0, "{second:?}");
    // Of the first one, what the second needs as a base is not its alone.
    assert!(first.alone_bytes + second.base_bytes <= first.unique_bytes + first.metadata_bytes, "{first:?}");
    // Once the first is gone, its chunks are kept for that only, and said to be.
    let rest = figures(1..2).total;
    assert_eq!((rest.base_bytes, rest.base_stored_bytes), (second.base_bytes, second.base_stored_bytes));
    assert!(rest.unique_bytes > rest.raw_bytes, "{rest:?}");
    assert_eq!(rest.unique_bytes - rest.base_bytes, rest.raw_bytes, "no chunk is there twice");
    assert_eq!(figures(0..1).total.base_bytes, 0);
}
