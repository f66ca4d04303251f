//! Deterministic CBOR of which nothing is known.
#![no_main]
use chronolith::format::cbor::{Field, decode_map, encode_map};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(extra) = decode_map("object", bytes, |_, _| Ok(Field::Unknown)) {
        assert_eq!(encode_map(&extra, |_| {}), bytes);
    }
});
