//! What a role cannot do is what its key does not hold.

use crate::forge::client_with;
use crate::support::world::{Client, content, dump};
use chronolith::base::{Classify, ErrorClass};
use chronolith::format::pack::BlobClass;
use chronolith::format::trust::Role;
use chronolith::ops::Snapshots;
use chronolith::ops::forget::forget;
use chronolith::ops::prune::{PruneOptions, prune};
use chronolith::storage::MemoryStore;
use std::sync::Arc;

#[test]
fn what_each_role_holds() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 11);
    let id = owner.back_up(&content([("app.sql", dump(1, 500, 3))]));
    // role, content secret, content ids, chunker seed
    let table = [
        (Role::Owner, true, true, true),
        (Role::Maintainer, false, false, false),
        (Role::Writer, false, true, true),
        (Role::Reader, true, true, false),
        (Role::Auditor, false, false, false),
    ];
    for (role, secret, ids, seed) in table {
        let client = client_with(&owner, role, role.name(), "", &[]);
        let repository = client.open();
        let keyring = repository.keyring();
        assert_eq!(keyring.identity.role, role);
        assert_eq!(keyring.reads_content(), secret, "{role}");
        assert_eq!(keyring.id_key(BlobClass::Content).is_ok(), ids, "{role}");
        assert_eq!(keyring.chunker_seed().is_ok(), seed, "{role}");
        assert!(keyring.id_key(BlobClass::Metadata).is_ok(), "{role}");
        // All can list; only who holds the content key can read.
        assert_eq!(client.snapshots(), [id], "{role}");
        match client.read(id) {
            Ok(read) => assert!(secret && read.len() == 1, "{role}"),
            Err(error) => {
                assert!(!secret, "{role}: {error}");
                assert_eq!(error.class(), ErrorClass::Forbidden, "{role}: {error}");
            }
        }
        let written = client.try_back_up(&content([("b.sql", dump(2, 50, 3))]));
        let may_write = matches!(role, Role::Owner | Role::Writer);
        assert_eq!(written.is_ok(), may_write, "{role}: {written:?}");
        if let Err(error) = written {
            assert_eq!(error.class(), ErrorClass::Forbidden, "{role}: {error}");
        } else {
            // What was written is not left in front of the others of this loop.
            owner
                .store
                .delete(&format!("snapshots/00000001/{}", written.unwrap().snapshot.unwrap()))
                .unwrap();
        }
    }
}

#[test]
fn only_owners_and_maintainers_forget() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 12);
    let ids = [1, 2, 3].map(|seed| owner.back_up(&content([("app.sql", dump(seed, 50, 3))])));
    let mut left = ids.to_vec();
    for role in [Role::Writer, Role::Reader, Role::Auditor, Role::Maintainer, Role::Owner] {
        let client = client_with(&owner, role, role.name(), "", &[]);
        let repository = client.open();
        let snapshots = Snapshots::load(&repository).unwrap();
        match forget(&repository, &snapshots, &[left[0]]) {
            Ok(put) => {
                assert!(matches!(role, Role::Owner | Role::Maintainer) && put.len() == 1, "{role}");
                left.remove(0);
            }
            Err(error) => {
                assert!(!matches!(role, Role::Owner | Role::Maintainer), "{role}: {error}");
                assert_eq!(error.class(), ErrorClass::Forbidden, "{role}: {error}");
            }
        }
        let seen = Snapshots::load(&owner.open()).unwrap();
        assert_eq!(seen.iter().map(|view| view.id).collect::<Vec<_>>(), left, "{role}");
    }
    assert_eq!(left.len(), 1);
}

#[test]
fn only_owners_and_maintainers_prune() {
    let owner = Client::init(Arc::new(MemoryStore::new()), 13);
    let (first, second) = (content([("a", dump(1, 900, 3))]), content([("b", dump(2, 900, 3))]));
    let forgotten = owner.back_up(&first);
    let kept = owner.back_up(&second);
    let repository = owner.open();
    forget(&repository, &Snapshots::load(&repository).unwrap(), &[forgotten]).unwrap();
    let options = PruneOptions::new("test").within(0);
    for role in [Role::Writer, Role::Reader, Role::Auditor, Role::Maintainer] {
        let client = client_with(&owner, role, role.name(), "", &[]);
        match prune(&client.open(), &options) {
            // It reads no content, and frees what nobody needs.
            Ok(report) => {
                assert!(role == Role::Maintainer && report.deleted_packs == 2, "{role}: {report:?}")
            }
            Err(error) => {
                assert_ne!(role, Role::Maintainer, "{error}");
                assert_eq!(error.class(), ErrorClass::Forbidden, "{role}: {error}");
                assert_eq!(owner.read(forgotten).unwrap(), first, "{role}");
            }
        }
    }
    assert_eq!(owner.read(kept).unwrap(), second);
    assert_eq!(owner.snapshots(), [kept]);
}
