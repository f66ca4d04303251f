//! The plaintext of a grant.
#![no_main]
use chronolith::base::SecretBytes;
use chronolith::format::grant::Bundle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(bundle) = Bundle::decode(&SecretBytes::new(bytes.to_vec())) {
        assert_eq!(bundle.encode().expose(), bytes);
    }
});
