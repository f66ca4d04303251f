#![no_main]
use chronolith::format::catalog::Catalog;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = Catalog::decode(bytes) {
        assert_eq!(read.encode().as_deref(), Ok(bytes));
    }
});
