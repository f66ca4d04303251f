//! The configuration.
#![no_main]
use chronolith::format::config::Config;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(parsed) = Config::parse(bytes) {
        assert_eq!(Config::finish(parsed.config.encode(), &parsed.signature), bytes);
    }
});
