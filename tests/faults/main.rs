//! What goes wrong on the worst day: requests that fail, disks that fill up, processes that are
//! killed, objects that rot. After all of it, what was backed up is still there.

#[path = "../support/mod.rs"]
mod support;

mod requests;
