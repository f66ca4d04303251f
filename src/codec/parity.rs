//! Reed-Solomon parity: from any k good shards out of k + r come all k shards of data.
//!
//! The code is that of `format-spec/parity.md`, "Algorithm 1": the high-rate code of the crate, whatever the
//! numbers of shards, so that its parity is the same for ever.

use super::error::CodecError;
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

fn failed(doing: &'static str) -> impl Fn(reed_solomon_simd::Error) -> CodecError {
    move |error| CodecError::Library { doing, why: error.to_string() }
}

/// Computes the parity shards of data, one after the other; the last data shard is filled up with zeros.
///
/// # Errors
///
/// When the algorithm does not permit such numbers of shards.
pub fn parity_of(data: &[u8], shard_bytes: usize, parity_shards: usize) -> Result<Vec<u8>, CodecError> {
    let wrong = failed("computing parity");
    let count = data.len().div_ceil(shard_bytes.max(1));
    let engine = DefaultEngine::new();
    let mut encoder =
        HighRateEncoder::new(count, parity_shards, shard_bytes, engine, None).map_err(&wrong)?;
    for shard in data.chunks(shard_bytes.max(1)) {
        if shard.len() == shard_bytes {
            encoder.add_original_shard(shard).map_err(&wrong)?;
        } else {
            let mut last = shard.to_vec();
            last.resize(shard_bytes, 0);
            encoder.add_original_shard(&last).map_err(&wrong)?;
        }
    }
    let result = encoder.encode().map_err(&wrong)?;
    let mut parity = Vec::with_capacity(parity_shards.saturating_mul(shard_bytes));
    result.recovery_iter().for_each(|shard| parity.extend_from_slice(shard));
    Ok(parity)
}

/// Computes the data shards that are missing, by their numbers, from those that are good: at least as many, of
/// data and parity together, as there are data shards.
///
/// # Errors
///
/// When there are fewer, or the algorithm does not permit such numbers of shards.
pub fn from_parity<'a>(
    data_shards: usize,
    parity_shards: usize,
    shard_bytes: usize,
    data: impl IntoIterator<Item = (usize, &'a [u8])>,
    parity: impl IntoIterator<Item = (usize, &'a [u8])>,
) -> Result<Vec<(usize, Vec<u8>)>, CodecError> {
    let wrong = failed("repairing from parity");
    let engine = DefaultEngine::new();
    let mut decoder =
        HighRateDecoder::new(data_shards, parity_shards, shard_bytes, engine, None).map_err(&wrong)?;
    for (number, shard) in data {
        decoder.add_original_shard(number, shard).map_err(&wrong)?;
    }
    for (number, shard) in parity {
        decoder.add_recovery_shard(number, shard).map_err(&wrong)?;
    }
    let result = decoder.decode().map_err(&wrong)?;
    Ok(result.restored_original_iter().map(|(number, shard)| (number, shard.to_vec())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&(length as u64).to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn the_example_of_the_specification() {
        let subject: Vec<u8> = (0..150).collect();
        let parity = parity_of(&subject, 64, 2).unwrap();
        assert_eq!(parity.len(), 128);
        assert_eq!(parity[..8], [0xba, 0xbe, 0xb1, 0xb5, 0xbc, 0xb8, 0xb7, 0xb3]);
        assert_eq!(parity[64..72], [0x7a, 0x7f, 0x73, 0x76, 0x78, 0x7d, 0x71, 0x74]);
    }

    #[test]
    fn what_is_missing_comes_back_up_to_the_strength() {
        for (length, shard, parity_shards) in
            [(1, 64, 1), (1000, 64, 3), (4096 * 40 + 7, 4096, 5), (640, 64, 10)]
        {
            let data = data(length);
            let parity = parity_of(&data, shard, parity_shards).unwrap();
            let mut padded = data.clone();
            padded.resize(length.div_ceil(shard) * shard, 0);
            let shards: Vec<&[u8]> = padded.chunks(shard).collect();
            let lost = parity_shards.min(shards.len());
            let good = shards.iter().enumerate().skip(lost).map(|(number, shard)| (number, *shard));
            let help = parity.chunks(shard).enumerate();
            let restored = from_parity(shards.len(), parity_shards, shard, good, help).unwrap();
            assert_eq!(restored.len(), lost);
            assert!(restored.iter().all(|(number, bytes)| bytes == shards[*number]));
            // One less is not enough.
            let good = shards.iter().enumerate().skip(lost).map(|(number, shard)| (number, *shard));
            let help = parity.chunks(shard).enumerate().skip(1 + parity_shards - lost);
            assert!(from_parity(shards.len(), parity_shards, shard, good, help).is_err());
        }
    }
}
