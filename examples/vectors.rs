//! Writes the test vectors of the format: `cargo run --example vectors`.
//!
//! They are committed. A vector that changes is a format that changes: repositories out there do not.

#[path = "../tests/format/objects/mod.rs"]
mod objects;

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec/vectors");
    for object in objects::ALL {
        let folder = folder.join(object.name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let cases = (object.cases)();
        for case in &cases {
            fs::write(folder.join(&case.name), case.file(object.name))?;
        }
        println!("{}: {} vectors", object.name, cases.len());
    }
    Ok(())
}
