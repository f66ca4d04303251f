//! The repository: open and init, keyring, packs, index, blobs, roots.
