//! Scripts of operations with faults, against the model of the tests.
#![no_main]

#[path = "../../tests/model/operations.rs"]
mod operations;
#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| operations::run(bytes));
