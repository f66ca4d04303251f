//! What the tests of the objects share.

/// A change to a good value, with its name.
pub(super) type Change<T> = (&'static str, fn(&mut T));

/// Bytes that look like an id, the same for the same number, in the order of the numbers.
pub(super) fn id32(number: u8) -> [u8; 32] {
    std::array::from_fn(|place| if place == 0 { number } else { number.wrapping_mul(31) ^ place as u8 })
}

/// Decodes what becomes of good bytes when each bit is flipped, each length cut, each byte made 0 or 255;
/// the decoder must return, whatever it says.
pub(super) fn survives_damage(good: &[u8], decode: impl Fn(&[u8])) {
    for length in 0..good.len() {
        decode(&good[..length]);
    }
    let mut bytes = good.to_vec();
    for at in 0..good.len() {
        let values = (0..8).map(|bit| good[at] ^ 1 << bit).chain([0, 0xFF]);
        for value in values {
            bytes[at] = value;
            decode(&bytes);
        }
        bytes[at] = good[at];
    }
    bytes.push(0);
    decode(&bytes);
}
