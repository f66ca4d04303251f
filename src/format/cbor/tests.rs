use super::*;
use crate::format::FormatError;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn encode(write: impl FnOnce(Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(Writer::new(&mut out));
    out
}

/// Reads one value as field 0 of an object.
fn decode<T>(
    value: &[u8],
    read: impl Fn(Reader<'_, '_>) -> Result<T, FormatError>,
) -> Result<T, FormatError> {
    let object = [&[0xA1, 0x00], value].concat();
    let mut found = None;
    decode_map("test", &object, |number, reader| match number {
        0 => {
            found = Some(read(reader)?);
            Ok(Field::Known)
        }
        _ => Ok(Field::Unknown),
    })?;
    required(found, "field")
}

/// Reads one value of which nothing is known.
fn keep(value: &[u8]) -> Result<Extra, FormatError> {
    decode_map("test", &[&[0xA1, 0x00], value].concat(), |_, _| Ok(Field::Unknown))
}

/// RFC 8949, appendix A.
#[test]
fn integers_and_strings_of_rfc_8949() {
    for (value, bytes) in [
        (0, &[0x00][..]),
        (23, &[0x17]),
        (24, &[0x18, 0x18]),
        (255, &[0x18, 0xFF]),
        (256, &[0x19, 0x01, 0x00]),
        (65536, &[0x1A, 0x00, 0x01, 0x00, 0x00]),
        (1_000_000_000_000, &[0x1B, 0x00, 0x00, 0x00, 0xE8, 0xD4, 0xA5, 0x10, 0x00]),
        (u64::MAX, &[0x1B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
    ] {
        assert_eq!(encode(|w| w.unsigned(value)), bytes);
        assert_eq!(decode(bytes, |r| r.unsigned()).unwrap(), value);
    }
    for (value, bytes) in [
        (-1, &[0x20][..]),
        (-100, &[0x38, 0x63]),
        (-1000, &[0x39, 0x03, 0xE7]),
        (100, &[0x18, 0x64]),
        (i64::MIN, &[0x3B, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
        (i64::MAX, &[0x1B, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
    ] {
        assert_eq!(encode(|w| w.signed(value)), bytes);
        assert_eq!(decode(bytes, |r| r.signed()).unwrap(), value);
    }
    assert_eq!(encode(|w| w.bytes(&[1, 2, 3, 4])), [0x44, 1, 2, 3, 4]);
    assert_eq!(encode(|w| w.text("ü")), [0x62, 0xC3, 0xBC]);
    assert_eq!(encode(|w| w.array(&[1, 2, 3], |w, n| w.unsigned(*n))), [0x83, 1, 2, 3]);
    assert_eq!(encode(|w| w.boolean(true)), [0xF5]);
}

#[test]
fn only_the_canonical_form_is_read() {
    let refused: &[&[u8]] = &[
        &[0x18, 0x17],                   // 23 in two bytes
        &[0x19, 0x00, 0xFF],             // 255 in three
        &[0x1A, 0x00, 0x00, 0xFF, 0xFF], // 65535 in five
        &[0x1B, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x58, 0x01, 0x00],                               // a length in two bytes
        &[0x5F, 0x41, 0x00, 0xFF],                         // indefinite byte string
        &[0x7F, 0x61, 0x61, 0xFF],                         // indefinite text
        &[0x9F, 0xFF],                                     // indefinite array
        &[0xBF, 0xFF],                                     // indefinite map
        &[0x61, 0xFF],                                     // a text that is not UTF-8
        &[0xF6],                                           // null
        &[0xF7],                                           // undefined
        &[0xF9, 0x00, 0x00],                               // half float
        &[0xFA, 0, 0, 0, 0],                               // float
        &[0xFB, 0, 0, 0, 0, 0, 0, 0, 0],                   // double
        &[0xF0],                                           // simple value
        &[0xF8, 0x20],                                     // simple value
        &[0xC0, 0x00],                                     // tag
        &[0x1C],                                           // reserved
        &[0xA2, 0x00, 0x00, 0x00, 0x00],                   // the same key twice
        &[0xA2, 0x01, 0x00, 0x00, 0x00],                   // keys descending
        &[0xA2, 0x62, 0x61, 0x61, 0x00, 0x61, 0x62, 0x00], // the longer text key first
        &[0x00, 0x00],                                     // bytes follow
    ];
    for value in refused {
        assert!(matches!(keep(value), Err(FormatError::Invalid { .. })), "{value:02x?}");
    }
    let cut: &[&[u8]] = &[&[], &[0x18], &[0x19, 0x01], &[0x42, 0x00], &[0x62, 0x61], &[0x81], &[0xA1, 0x00]];
    for value in cut {
        assert_eq!(keep(value), Err(FormatError::Truncated), "{value:02x?}");
    }
}

#[test]
fn another_type_is_refused() {
    for value in [&[0x00][..], &[0x20], &[0x40], &[0x60], &[0x80], &[0xA0], &[0xF4], &[0xF6]] {
        let accepted = [
            decode(value, |r| r.unsigned()).is_ok(),
            decode(value, |r| r.bytes(9).map(drop)).is_ok(),
            decode(value, |r| r.text(9).map(drop)).is_ok(),
            decode(value, |r| r.boolean()).is_ok(),
            decode(value, |r| r.array(9, |_| Ok(()))).is_ok(),
            decode(value, |r| r.map(|_, _| Ok(Field::Unknown))).is_ok(),
        ];
        assert!(accepted.iter().filter(|yes| **yes).count() <= 1, "{value:02x?} {accepted:?}");
    }
    assert!(decode(&[0x3B, 0x80, 0, 0, 0, 0, 0, 0, 0], |r| r.signed()).is_err());
    assert!(decode(&[0x18, 0xFF], |r| r.small::<u8>()).is_ok());
    assert!(decode(&[0x19, 0x01, 0x00], |r| r.small::<u8>()).is_err());
    assert!(decode(&[0x41, 0x00], |r| r.fixed::<2>()).is_err());
}

#[test]
fn bounds_come_before_allocations() {
    let huge = [0x5B, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
    assert!(matches!(decode(&huge, |r| r.bytes(10).map(drop)), Err(FormatError::TooLarge { limit: 10, .. })));
    let mut many = huge;
    many[0] = 0x9B;
    assert!(matches!(decode(&many, |r| r.array(10, |r| r.unsigned())), Err(FormatError::TooLarge { .. })));
    assert_eq!(decode(&many, |r| r.array(u64::MAX, |r| r.unsigned())), Err(FormatError::Truncated));
    assert_eq!(keep(&many), Err(FormatError::Truncated));
    let deep = [&[0x81; 15][..], &[0x00]].concat();
    assert!(keep(&deep).is_ok());
    let deeper = [&[0x81; 100_000][..], &[0x00]].concat();
    assert!(matches!(keep(&deeper), Err(FormatError::Invalid { .. })));
}

#[test]
fn unknown_fields_are_kept_in_their_places() {
    let object = encode_map(&Vec::new(), |map| {
        map.at(0).unsigned(1);
        map.at(3).text("new");
        map.at(5).unsigned(2);
        map.at(700).array(&[1, 2], |w, n| w.unsigned(*n));
    });
    let read = |bytes: &[u8]| {
        let mut known = Vec::new();
        let extra = decode_map("test", bytes, |number, reader| match number {
            0 | 5 => {
                known.push(reader.unsigned()?);
                Ok(Field::Known)
            }
            _ => Ok(Field::Unknown),
        });
        extra.map(|extra| (known, extra))
    };
    let (known, extra) = read(&object).unwrap();
    assert_eq!(known, [1, 2]);
    assert_eq!(extra.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 700]);
    let again = encode_map(&extra, |map| {
        map.at(0).unsigned(known[0]);
        map.at(5).unsigned(known[1]);
    });
    assert_eq!(again, object);

    let critical = encode_map(&vec![(CRITICAL_FIELD, vec![0x00])], |map| map.at(0).unsigned(1));
    assert_eq!(read(&critical), Err(FormatError::Unsupported { what: "critical field" }));
    let known_by_now = encode_map(&vec![(0, vec![0x09])], |map| map.at(0).unsigned(1));
    assert_eq!(known_by_now, [0xA1, 0x00, 0x01]);
}

#[test]
fn fields_must_ascend() {
    for object in [&[0xA2, 0x00, 0x00, 0x00, 0x00][..], &[0xA2, 0x01, 0x00, 0x00, 0x00], &[0xA1, 0x60, 0x00]]
    {
        assert!(matches!(
            decode_map("test", object, |_, _| Ok(Field::Unknown)),
            Err(FormatError::Invalid { .. })
        ));
    }
    let last = encode_map(&vec![(u64::MAX - 1, vec![0x00])], |_| {});
    assert!(matches!(
        decode_map("test", &last, |_, _| Ok(Field::Unknown)),
        Err(FormatError::Unsupported { .. })
    ));
}

proptest! {
    /// Whatever the bytes: an answer, and what is accepted encodes back to the same bytes.
    #[test]
    fn reading_is_total_and_faithful(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(extra) = decode_map("test", &bytes, |_, _| Ok(Field::Unknown)) {
            prop_assert_eq!(encode_map(&extra, |_| {}), bytes);
        }
    }

    #[test]
    fn text_maps_come_back(map: BTreeMap<String, String>) {
        let bytes = encode(|w| w.text_map(&map));
        prop_assert_eq!(decode(&bytes, |r| r.text_map(1000, 1000)).unwrap(), map);
        keep(&bytes).unwrap();
    }

    #[test]
    fn an_independent_decoder_agrees(unsigned: u64, signed: i64, bytes: Vec<u8>, text: String, truth: bool) {
        let object = encode_map(&Vec::new(), |map| {
            map.at(0).unsigned(unsigned);
            map.at(1).signed(signed);
            map.at(2).bytes(&bytes);
            map.at(3).text(&text);
            map.at(4).boolean(truth);
        });
        let mut other = minicbor::Decoder::new(&object);
        prop_assert_eq!(other.map().unwrap(), Some(5));
        prop_assert_eq!((other.u8().unwrap(), other.u64().unwrap()), (0, unsigned));
        prop_assert_eq!((other.u8().unwrap(), other.i64().unwrap()), (1, signed));
        prop_assert_eq!((other.u8().unwrap(), other.bytes().unwrap()), (2, &bytes[..]));
        prop_assert_eq!((other.u8().unwrap(), other.str().unwrap()), (3, &text[..]));
        prop_assert_eq!((other.u8().unwrap(), other.bool().unwrap()), (4, truth));
        prop_assert_eq!(other.position(), object.len());
    }
}
