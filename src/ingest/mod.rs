//! The write path: cut, identify, look up, encode, seal, pack, commit.
