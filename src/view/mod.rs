//! The read path: walk, look up, ordered parallel streaming.
