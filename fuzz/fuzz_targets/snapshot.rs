//! Payloads of snapshots.
#![no_main]
use chronolith::format::snapshot::Snapshot;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(snapshot) = Snapshot::decode(bytes) {
        assert_eq!(snapshot.encode().unwrap(), bytes);
    }
});
