//! The envelope of structured objects.
#![no_main]
use chronolith::format::Envelope;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(parsed) = Envelope::parse(bytes) {
        let header = parsed.envelope.encode_header(parsed.payload.len() as u64);
        assert_eq!([&header, parsed.payload, parsed.signature].concat(), bytes);
    }
});
