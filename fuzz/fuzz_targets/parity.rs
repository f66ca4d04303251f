#![no_main]
use chronolith::format::parity::{ParityView, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(view) = ParityView::parse(bytes) {
        assert_eq!(encode(view.head, view.table, view.shards).as_deref(), Ok(view.signed));
    }
});
