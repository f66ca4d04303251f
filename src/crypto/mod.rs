//! Secrets and what is done with them: derivation, keyed hashes, sealing, signatures.
