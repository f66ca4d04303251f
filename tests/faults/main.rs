//! What goes wrong on the worst day: requests that fail, producers that break off, objects that rot.
//! After all of it, what was backed up is still there, and nothing half is.

#[path = "../support/mod.rs"]
mod support;

mod annotations;
mod damage;
mod deeds;
mod full_disk;
mod healing;
mod keys;
mod killed;
mod leftovers;
mod matrix;
mod parity;
mod producers;
mod repairs;
mod requests;
mod restores;
mod wrong_bits;
