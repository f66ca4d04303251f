//! How content is packed small: zstd frames and differences, always with a bound on the output.
