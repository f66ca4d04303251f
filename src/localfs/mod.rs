//! The local file system: scanning, metadata, sparse files, durable restore writes.
