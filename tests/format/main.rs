//! The format: what `format-spec/` says is what the code does.
//!
//! Every vector under `format-spec/vectors/` is read and judged as its header says; what is accepted
//! encodes back to the same bytes; damage of any kind to it gets an answer. The vectors themselves are
//! what `objects/` makes (`cargo run --example vectors` writes them), and the hexadecimal examples in the
//! pages are their bytes.
//!
//! To add an object: a file in `objects/` with an `Object`, and its line in `objects::ALL`.

mod chunking;
mod examples;
mod objects;
mod pages;
mod vectors;
