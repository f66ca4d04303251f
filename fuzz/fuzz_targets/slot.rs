//! The payload of a key slot, and the sealed part of one.
#![no_main]
use chronolith::base::{RepositoryId, Secret};
use chronolith::format::slot::Slot;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(slot) = Slot::decode(bytes) {
        assert_eq!(slot.encode(), bytes);
        let _ = slot.open(&Secret::new([0x88; 32]), &RepositoryId::new([0x11; 32]));
    }
});
