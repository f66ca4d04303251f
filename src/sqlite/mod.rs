//! SQLite databases: how to take a consistent copy.
