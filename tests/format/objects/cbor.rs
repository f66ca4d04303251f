//! Deterministic CBOR itself: an object of which nothing is known.

use super::{Case, Object};
use chronolith::format::cbor::{Field, decode_map, encode_map};

pub const OBJECT: Object = Object {
    name: "cbor",
    recode: |bytes| {
        let extra = decode_map("object", bytes, |_, _| Ok(Field::Unknown))?;
        Ok(encode_map(&extra, |_| {}))
    },
    cases,
};

/// An object whose field 0 is this value.
fn field(value: &[u8]) -> Vec<u8> {
    [&[0xA1, 0x00], value].concat()
}

fn cases() -> Vec<Case> {
    let all = [
        &[0xA8][..],
        &[0x00, 0x17],
        &[0x01, 0x1B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x02, 0x3B, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x03, 0x43, 0x01, 0x02, 0x03],
        &[0x04, 0x62, 0xC3, 0xBC],
        &[0x05, 0x82, 0xF4, 0xF5],
        &[0x06, 0xA2, 0x61, 0x62, 0x00, 0x62, 0x61, 0x61, 0x00],
        &[0x19, 0xFF, 0xFF, 0x80],
    ]
    .concat();
    let deep = |levels| field(&[&vec![0x81; levels][..], &[0x00]].concat());
    vec![
        Case::accept("empty", "no fields", [0xA0]),
        Case::accept(
            "all-types",
            "one of each type; text keys of a map go by length, then bytewise",
            all.clone(),
        ),
        Case::accept("deep", "15 arrays around an integer", deep(15)),
        Case::truncated("nothing", "no bytes", []),
        Case::truncated("cut", "the last byte is missing", &all[..all.len() - 1]),
        Case::truncated(
            "long-string",
            "a byte string says that it has 2^63 - 1 bytes",
            field(&[0x5B, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
        ),
        Case::truncated(
            "long-array",
            "an array says that it has 2^32 - 1 items",
            field(&[0x9A, 0xFF, 0xFF, 0xFF, 0xFF]),
        ),
        Case::unsupported(
            "critical",
            "[CBOR-7]: field 65536 is not known",
            [0xA1, 0x1A, 0x00, 0x01, 0x00, 0x00, 0x00],
        ),
        Case::corrupt("no-map", "[CBOR-1]: an array", [0x80]),
        Case::corrupt("trailing", "[CBOR-1]: a byte follows", [0xA0, 0x00]),
        Case::corrupt("long-integer", "[CBOR-2]: 23 in two bytes", field(&[0x18, 0x17])),
        Case::corrupt("long-integer-2", "[CBOR-2]: 255 in three bytes", field(&[0x19, 0x00, 0xFF])),
        Case::corrupt(
            "long-integer-4",
            "[CBOR-2]: 65535 in five bytes",
            field(&[0x1A, 0x00, 0x00, 0xFF, 0xFF]),
        ),
        Case::corrupt(
            "long-integer-8",
            "[CBOR-2]: 2^32 - 1 in nine bytes",
            field(&[0x1B, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]),
        ),
        Case::corrupt("long-length", "[CBOR-2]: the length 1 in two bytes", field(&[0x58, 0x01, 0x00])),
        Case::corrupt("long-key", "[CBOR-2]: the key 0 in two bytes", [0xA1, 0x18, 0x00, 0x00]),
        Case::corrupt("indefinite-bytes", "[CBOR-3]", field(&[0x5F, 0x41, 0x00, 0xFF])),
        Case::corrupt("indefinite-text", "[CBOR-3]", field(&[0x7F, 0x61, 0x61, 0xFF])),
        Case::corrupt("indefinite-array", "[CBOR-3]", field(&[0x9F, 0xFF])),
        Case::corrupt("indefinite-map", "[CBOR-3]", [0xBF, 0xFF]),
        Case::corrupt("null", "[CBOR-4]", field(&[0xF6])),
        Case::corrupt("undefined", "[CBOR-4]", field(&[0xF7])),
        Case::corrupt("simple", "[CBOR-4]: simple value 32", field(&[0xF8, 0x20])),
        Case::corrupt("half", "[CBOR-4]: a float of two bytes", field(&[0xF9, 0x00, 0x00])),
        Case::corrupt("float", "[CBOR-4]: a float of four bytes", field(&[0xFA, 0, 0, 0, 0])),
        Case::corrupt("double", "[CBOR-4]: a float of eight bytes", field(&[0xFB, 0, 0, 0, 0, 0, 0, 0, 0])),
        Case::corrupt("tag", "[CBOR-4]: tag 0", field(&[0xC0, 0x00])),
        Case::corrupt("reserved", "[CBOR-4]: additional information 28", field(&[0x1C])),
        Case::corrupt("same-key", "[CBOR-5]: field 0 twice", [0xA2, 0x00, 0x00, 0x00, 0x00]),
        Case::corrupt("descending", "[CBOR-5]: field 1 before field 0", [0xA2, 0x01, 0x00, 0x00, 0x00]),
        Case::corrupt("text-key", "[CBOR-5]: the key of a field is a text", [0xA1, 0x60, 0x00]),
        Case::corrupt(
            "inner-order",
            "[CBOR-5]: in an inner map the longer text key comes first",
            field(&[0xA2, 0x62, 0x61, 0x61, 0x00, 0x61, 0x62, 0x00]),
        ),
        Case::corrupt("utf-8", "[CBOR-6]: a text that is not UTF-8", field(&[0x61, 0xFF])),
        Case::corrupt("too-deep", "[CBOR-8]: 16 arrays around an integer", deep(16)),
    ]
}
