//! A stolen key plays foul through the public formats: it signs and seals what it may not. None of it
//! is believed, and each refusal names the object.

#[path = "../support/mod.rs"]
mod support;

mod damage;
mod forge;
mod loan;
mod poison;
mod roles;
mod rotation;
mod slots;
mod stolen_writer;
