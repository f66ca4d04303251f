//! Where content is cut: cut points, recognition of database files, similarity sketches.
