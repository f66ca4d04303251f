//! Similarity sketches: three numbers of a chunk, one of which a similar chunk shares.

/// Number under which recipes name the algorithm of this module; 0 stands for no sketch.
pub const SKETCH_ALGORITHM: u8 = 1;

/// Three super-features of a chunk. Two chunks that share one are probably similar.
///
/// A super-feature of zero says nothing and matches nothing: chunks too short or too uniform have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Sketch(pub [u32; 3]);

impl Sketch {
    /// The sketch of content that has none.
    pub const NONE: Self = Self([0; 3]);

    /// Length of a stored sketch.
    pub const BYTES: usize = 12;

    /// Returns the stored form: three little-endian numbers.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (four, feature) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            *four = feature.to_le_bytes();
        }
        bytes
    }

    /// Reads the stored form; every value is a sketch.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self([[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_le_bytes))
    }

    /// Returns the super-features by which similar chunks are looked up, with their place (0 to 2).
    pub fn features(self) -> impl Iterator<Item = (usize, u32)> {
        self.0.into_iter().enumerate().filter(|(_, feature)| *feature != 0)
    }
}

/// Computes sketches.
#[derive(Debug, Clone, Default)]
pub struct Sketcher {}

impl Sketcher {
    /// Makes a sketcher; it keeps no state between chunks.
    pub fn new() -> Self {
        Self {}
    }

    /// Computes the sketch of a chunk.
    pub fn sketch(&self, chunk: &[u8]) -> Sketch {
        let _ = chunk;
        Sketch::NONE
    }
}
