//! What is lent to another host reads, and does nothing else.

use super::support::repository::{backup_options, environment, in_memory, key_file, noise};
use chronolith::base::{Classify, ErrorClass, SecretBytes};
use chronolith::format::ObjectKind;
use chronolith::format::trust::{Act, Role};
use chronolith::ops::backup::{Source, backup};
use chronolith::ops::{Snapshots, cat};
use chronolith::repo::{BlobReader, RecoverySheet, find_path, open_lent, open_with_sheet};
use std::io::Cursor;

#[test]
fn a_loan_reads_and_signs_nothing_that_counts() {
    let (store, repository) = in_memory();
    let content = noise(1, 200_000);
    let source = |bytes: &[u8]| Source::Stream {
        name: b"dump".to_vec(),
        reader: Box::new(Cursor::new(bytes.to_vec())),
    };
    backup(&repository, vec![source(&content)], &backup_options("dump")).unwrap();
    let loan = RecoverySheet::lend(&repository);

    // It holds nothing of the identity, and no seed to cut by.
    let text = String::from_utf8(loan.expose().to_vec()).unwrap();
    for name in ["signing", "exchange", "chunker"] {
        assert!(!text.contains(name), "{name}");
    }
    assert!(!RecoverySheet::recognise(loan.expose()));
    assert!(RecoverySheet::parse(&loan).is_err());

    let lent = open_lent(environment(store.clone()), &loan).unwrap();
    assert_eq!(lent.keyring().identity.role, Role::Reader);
    assert_ne!(lent.keyring().identity.key, repository.keyring().identity.key);
    let snapshots = Snapshots::load(&lent).unwrap();
    let root = snapshots.resolve("dump").unwrap().snapshot.root;
    let mut reader = BlobReader::new(&lent).unwrap();
    let entry = find_path(&mut reader, &root, &[b"dump"]).unwrap().unwrap();
    let mut restored = Vec::new();
    cat::cat(&lent, "dump", &entry.content.unwrap(), &mut restored).unwrap();
    assert!(restored == content);

    // Whatever it puts counts for nobody.
    assert!(backup(&lent, vec![source(b"forged")], &backup_options("dump")).is_err());
    let _ = lent.put_object(
        "snapshots",
        ObjectKind::Snapshot,
        Act::Snapshot { host: "host", label: "dump" },
        b"forged",
    );
    let again = open_lent(environment(store.clone()), &loan).unwrap();
    assert_eq!(Snapshots::load(&again).unwrap().iter().count(), 1);
    assert!(key_file().expose() != loan.expose());

    // A loan is no sheet, a sheet no loan, and each belongs to one repository.
    let sheet = RecoverySheet::export(&repository);
    assert!(open_lent(environment(store.clone()), &sheet).is_err());
    let title = text.replacen("chronolith loan 1", "chronolith recovery sheet 1", 1);
    let as_sheet = RecoverySheet::parse(&SecretBytes::new(title.into_bytes()));
    assert!(as_sheet.is_err_and(|error| error.class() == ErrorClass::Usage));
    let whole = RecoverySheet::parse(&sheet).unwrap();
    assert!(open_with_sheet(environment(store), whole).is_ok());
    let (elsewhere, _) = in_memory();
    let error = open_lent(environment(elsewhere), &loan).err().unwrap();
    assert_eq!(error.class(), ErrorClass::WrongKey);
}
