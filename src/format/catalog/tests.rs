use super::*;

fn entry(kind: ObjectKind, folder: &str, id: u8) -> CatalogEntry {
    CatalogEntry {
        place: Place::new(kind, folder, ObjectId::new([id; 32])).unwrap(),
        number: 3,
        first_seen: Timestamp::from_nanoseconds(5),
        length: 700,
        original: vec![1, 2, 3],
        extra: vec![(9, vec![0x00])],
    }
}

fn end(kind: ObjectKind, id: u8) -> CatalogEnd {
    CatalogEnd {
        kind,
        id: ObjectId::new([id; 32]),
        number: 4,
        authority_kind: ObjectKind::Annotation,
        authority: ObjectId::new([8; 32]),
        ended: Timestamp::from_nanoseconds(6),
        original: Some(vec![4]),
        extra: Extra::new(),
    }
}

fn part(id: u8, scope: CatalogScope) -> CatalogPart {
    CatalogPart { catalogue: CatalogId::new([id; 32]), scope, entries: 2, extra: Extra::new() }
}

fn catalogue() -> Catalog {
    Catalog {
        sequence: 2,
        predecessor: Some(CatalogId::new([1; 32])),
        created: Timestamp::from_nanoseconds(7),
        scope: CatalogScope::Roots { first: 1, last: 4 },
        entries: vec![
            entry(ObjectKind::Snapshot, "00000001", 2),
            entry(ObjectKind::Annotation, "00000002", 1),
        ],
        ends: vec![end(ObjectKind::Snapshot, 3)],
        parts: vec![
            part(1, CatalogScope::Log("pg/main".to_owned())),
            part(2, CatalogScope::Roots { first: 5, last: 5 }),
        ],
        replaces: [CatalogId::new([1; 32])].into_iter().collect(),
        program: "chronolith 1.0".to_owned(),
        next_number: 5,
        extra: vec![(70, vec![0x00])],
    }
}

#[test]
fn comes_back() {
    let hash = "0123456789abcdef".repeat(4);
    let mut merged = end(ObjectKind::LogPack, 3);
    merged.authority_kind = ObjectKind::LogPack;
    merged.original = None;
    let logs = Catalog {
        sequence: 1,
        predecessor: None,
        scope: CatalogScope::Log("pg/main".to_owned()),
        entries: vec![
            entry(ObjectKind::LogPack, &format!("{hash}/{hash}"), 1),
            entry(ObjectKind::LogRecord, &format!("{hash}/records"), 1),
        ],
        ends: vec![merged],
        parts: Vec::new(),
        replaces: IdSet::default(),
        ..catalogue()
    };
    for catalogue in [catalogue(), logs] {
        assert_eq!(Catalog::decode(&catalogue.encode().unwrap()).unwrap(), catalogue);
    }
}

#[test]
fn refuses_what_breaks_a_rule() {
    let mut unfounded = end(ObjectKind::Snapshot, 3);
    unfounded.original = None;
    let mut odd = end(ObjectKind::Snapshot, 3);
    odd.authority_kind = ObjectKind::Session;
    let broken = [
        Catalog { sequence: 0, ..catalogue() },
        Catalog { sequence: 1, ..catalogue() },
        Catalog { next_number: 4, ..catalogue() },
        Catalog { next_number: 0, entries: Vec::new(), ends: Vec::new(), ..catalogue() },
        Catalog { scope: CatalogScope::Roots { first: 0, last: 4 }, ..catalogue() },
        Catalog { scope: CatalogScope::Roots { first: 5, last: 4 }, ..catalogue() },
        Catalog { scope: CatalogScope::Log("pg".to_owned()), ..catalogue() },
        Catalog { ends: vec![end(ObjectKind::Snapshot, 2)], ..catalogue() },
        Catalog { ends: vec![unfounded], ..catalogue() },
        Catalog { ends: vec![odd], ..catalogue() },
        Catalog { entries: vec![entry(ObjectKind::Session, "", 2)], ..catalogue() },
        Catalog { entries: vec![entry(ObjectKind::Snapshot, "00000001", 2); 2], ..catalogue() },
    ];
    for catalogue in broken {
        assert!(catalogue.encode().is_err(), "{catalogue:?}");
    }
}
