//! Where objects are kept: the `Store` trait, its stores and decorators.
