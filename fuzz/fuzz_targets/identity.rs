//! The plaintext of a key slot.
#![no_main]
use chronolith::base::SecretBytes;
use chronolith::format::slot::Identity;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(identity) = Identity::decode(&SecretBytes::new(bytes.to_vec())) {
        assert_eq!(identity.encode().expose(), bytes);
    }
});
