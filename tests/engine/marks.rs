//! Tags, pins, notes: who may say what, what takes what back, and what a crash in between leaves.

use crate::support::repository::{environment, file, in_memory, noise, reopen, store_tree};
use chronolith::base::{Classify, ErrorClass, SecretBytes, SnapshotId};
use chronolith::format::annotation::{Annotation, AnnotationKind, Outcome};
use chronolith::format::trust::scope::Scope;
use chronolith::format::trust::{Act, Role};
use chronolith::ops::keys::{NewKey, add};
use chronolith::ops::marks::{Mark, mark};
use chronolith::ops::verify::verify;
use chronolith::ops::{SnapshotView, Snapshots};
use chronolith::repo::{Credential, NewSlot, Repository, open};
use chronolith::storage::{MemoryStore, Store};
use std::sync::Arc;

fn say(repository: &Arc<Repository>, ids: &[SnapshotId], marks: &[Mark]) -> usize {
    let snapshots = Snapshots::load(repository).unwrap();
    mark(repository, &snapshots, ids, marks).unwrap().len()
}

fn view(repository: &Arc<Repository>, id: SnapshotId) -> SnapshotView {
    Snapshots::load(repository).unwrap().get(&id).unwrap().clone()
}

fn tag(key: &str, value: Option<&str>) -> Mark {
    Mark::Tag { key: key.to_owned(), value: value.map(str::to_owned) }
}

fn untag(key: &str) -> Mark {
    Mark::Untag { key: key.to_owned() }
}

fn with_role(
    repository: &Arc<Repository>,
    store: Arc<MemoryStore>,
    role: Role,
    scope: Scope,
) -> Arc<Repository> {
    let secret = || SecretBytes::new(vec![role as u8 + 100; 32]);
    let new = NewKey { role, name: format!("{role:?}"), domain: String::new(), scope };
    add(repository, &new, &NewSlot::KeyFile(&secret())).unwrap();
    open(environment(store), &Credential::KeyFile(secret())).unwrap()
}

#[test]
fn tags_are_given_replaced_and_taken_off() {
    let (_, repository) = in_memory();
    let (one, _) = store_tree(&repository, "a", vec![file("f", "1")]);
    let (two, _) = store_tree(&repository, "b", vec![file("f", "2")]);
    assert_eq!(say(&repository, &[one, two], &[tag("k", Some("1")), tag("plain", None)]), 4);
    assert_eq!(say(&repository, &[one, two], &[tag("k", Some("1"))]), 0, "it is so already");
    for id in [one, two] {
        let view = view(&repository, id);
        assert_eq!(view.tags["k"].as_deref(), Some("1"));
        assert_eq!(view.tags["plain"], None);
        assert!(view.said.iter().all(|said| said.signer == repository.keyring().identity.key));
    }
    // A new value takes the place of the old, and of the old only there.
    say(&repository, &[one], &[tag("k", Some("2"))]);
    assert_eq!(view(&repository, one).tags["k"].as_deref(), Some("2"));
    assert_eq!(view(&repository, one).said.iter().filter(|said| said.key.as_deref() == Some("k")).count(), 1);
    assert_eq!(view(&repository, two).tags["k"].as_deref(), Some("1"));
    say(&repository, &[one], &[untag("k"), untag("never")]);
    assert!(!view(&repository, one).tags.contains_key("k"));
    assert!(view(&repository, two).tags.contains_key("k"));
    for bad in [tag("", None), tag(&"k".repeat(5000), None), Mark::Note { text: "n".repeat(70_000) }] {
        let snapshots = Snapshots::load(&repository).unwrap();
        let refused = mark(&repository, &snapshots, &[one], &[bad]).unwrap_err();
        assert_eq!(refused.class(), ErrorClass::Usage, "{refused}");
    }
}

#[test]
fn what_speaks_of_several_is_taken_back_for_one() {
    let (_, repository) = in_memory();
    let ids: Vec<SnapshotId> =
        ["a", "b", "c"].map(|label| store_tree(&repository, label, vec![file("f", label)]).0).to_vec();
    let host = view(&repository, ids[0]).snapshot.host;
    for kind in [AnnotationKind::Tag, AnnotationKind::Pin] {
        let mut all = Annotation::new(kind, repository.environment().clock.now());
        all.subjects = ids.iter().copied().collect();
        all.key = (kind == AnnotationKind::Tag).then(|| "k".to_owned());
        all.value = Some("all".to_owned());
        repository.annotate(&all, Act::Mark { host: &host, label: "a" }).unwrap();
    }
    say(&repository, &ids[..1], &[untag("k"), Mark::Unpin { reason: Some("done".to_owned()) }]);
    let first = view(&repository, ids[0]);
    assert!(first.tags.is_empty() && first.pinned.is_empty() && first.said.is_empty());
    for id in &ids[1..] {
        let view = view(&repository, *id);
        assert_eq!(view.tags["k"].as_deref(), Some("all"));
        let [pin] = view.pinned.as_slice() else { panic!("{:?}", view.pinned) };
        assert_eq!(pin.reason.as_deref(), Some("all"));
    }
}

#[test]
fn tags_that_a_snapshot_was_made_with_come_off_too() {
    use chronolith::ops::backup::{BackupOptions, Source, backup};
    let (_, repository) = in_memory();
    let stream =
        Source::Stream { name: b"s".to_vec(), reader: Box::new(std::io::Cursor::new(noise(1, 100))) };
    let options = BackupOptions {
        tags: vec![("k".to_owned(), Some("born".to_owned())), ("other".to_owned(), None)],
        ..crate::support::repository::backup_options("l")
    };
    let id = backup(&repository, vec![stream], &options).unwrap().snapshot.unwrap();
    say(&repository, &[id], &[tag("k", Some("later"))]);
    assert_eq!(view(&repository, id).tags["k"].as_deref(), Some("later"));
    say(&repository, &[id], &[untag("k")]);
    let after = view(&repository, id).tags;
    assert_eq!(after.keys().collect::<Vec<_>>(), ["other"]);
    // What is wanted again is said again.
    say(&repository, &[id], &[tag("k", None)]);
    assert!(view(&repository, id).tags.contains_key("k"));
}

#[test]
fn each_role_says_what_it_may() {
    let (store, repository) = in_memory();
    let (id, _) = store_tree(&repository, "a", vec![file("f", "1")]);
    let elsewhere = Scope { labels: vec!["b".to_owned()], ..Scope::default() };
    let pin = Mark::Pin { reason: Some("audit".to_owned()) };
    say(&repository, &[id], std::slice::from_ref(&pin));
    let marks = [tag("k", None), pin, Mark::Note { text: "n".to_owned() }, untag("k")];
    let unpin = Mark::Unpin { reason: None };
    for (role, may_mark, may_unpin) in [
        (Role::Maintainer, true, true),
        (Role::Reader, false, false),
        (Role::Auditor, false, false),
        // Of another label, so neither.
        (Role::Writer, false, false),
    ] {
        let owner = reopen(store.clone()).unwrap();
        let key = with_role(
            &owner,
            store.clone(),
            role,
            if role == Role::Writer { elsewhere.clone() } else { Scope::default() },
        );
        let snapshots = Snapshots::load(&key).unwrap();
        let before = store.list("annotations/").unwrap().len();
        for mark_ in &marks {
            let said = mark(&key, &snapshots, &[id], std::slice::from_ref(mark_));
            assert_eq!(said.is_ok(), may_mark, "{role:?} {mark_:?}");
        }
        let said = mark(&key, &snapshots, &[id], std::slice::from_ref(&unpin));
        assert_eq!(said.is_ok(), may_unpin, "{role:?}");
        if !may_mark {
            assert_eq!(said.unwrap_err().class(), ErrorClass::Forbidden);
            assert_eq!(store.list("annotations/").unwrap().len(), before, "nothing was said");
        } else {
            say(&repository, &[id], &[Mark::Pin { reason: Some("audit".to_owned()) }]);
        }
    }
    let view = view(&reopen(store).unwrap(), id);
    assert_eq!(view.notes, ["n"]);
    assert_eq!(view.said.iter().filter(|said| said.kind == AnnotationKind::Note).count(), 1);
}

#[test]
fn a_snapshot_is_verified_and_that_is_on_record() {
    let (store, repository) = in_memory();
    let small = (0..50).map(|n| file(format!("f{n}"), noise(n, 3000))).collect::<Vec<_>>();
    let mut nodes = vec![file("big", noise(99, 6_000_000))];
    nodes.extend(small);
    let (id, _) = store_tree(&repository, "a", nodes);
    let good = verify(&repository, &view(&repository, id), "test", true).unwrap();
    assert!(good.passed(), "{:?}", good.problems);
    assert_eq!((good.files, good.bytes, good.without_digest), (51, 6_150_000, 0));
    assert_eq!(good.signer, repository.keyring().identity.key);
    let said = view(&repository, id).said;
    assert_eq!((said.len(), said[0].outcome), (1, Some(Outcome::Passed)));
    // Nothing is noted where that is not wished.
    let before = store.list("").unwrap();
    verify(&repository, &view(&repository, id), "test", false).unwrap();
    assert_eq!(store.list("").unwrap(), before);
    let mut packs = store.list("packs/").unwrap();
    packs.sort_by_key(|pack| pack.length);
    let name = packs.pop().unwrap().name;
    let mut bytes = store.get(&name, u64::MAX).unwrap();
    bytes[40_000] ^= 1;
    store.delete(&name).unwrap();
    store.put(&name, &bytes).unwrap();
    let fresh = reopen(store.clone()).unwrap();
    let bad = verify(&fresh, &view(&fresh, id), "test", true).unwrap();
    assert!(!bad.passed());
    assert!(bad.problems.iter().all(|(_, why)| why.contains(&name)), "{:?}", bad.problems);
    let said = view(&fresh, id).said;
    let failed = said.iter().find(|said| said.outcome == Some(Outcome::Failed)).unwrap();
    assert!(failed.value.as_ref().unwrap().contains(&name));
    // Who cannot read content cannot verify it.
    let auditor = with_role(&fresh, store, Role::Auditor, Scope::default());
    let refused = verify(&auditor, &view(&auditor, id), "test", true).unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Forbidden);
}
