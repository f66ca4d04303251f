//! The program as a user meets it: help, exit codes, error texts, JSON, secrets.

mod commands;
mod copies;
mod damage;
mod errors;
mod forget;
mod help;
mod keys;
mod marks;
mod program;
mod pty;
mod sources;
mod terminal;
