//! The payload of a version of the registry.
#![no_main]
use chronolith::format::trust::Trust;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(trust) = Trust::decode(bytes) {
        assert_eq!(trust.encode(), bytes);
    }
});
