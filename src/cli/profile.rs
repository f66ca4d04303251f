//! The profile that a server's commands are run with, written into a configuration file.

use super::fault::Fault;
use super::settings::check_configuration;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use toml::{Table, Value};

/// Mode of a new file: the server's user reads it, and it holds no secret.
const MODE: u32 = 0o644;

/// What a profile of a server says.
pub struct ServerProfile {
    /// Its name.
    pub name: String,
    /// Its entries, by their names.
    pub entries: Vec<(&'static str, Value)>,
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

impl ServerProfile {
    /// Writes the part of a configuration file that it is.
    fn section(&self) -> String {
        let mut text = format!("[profile.{}]\n", quoted(&self.name));
        for (name, value) in &self.entries {
            text.push_str(&format!("{name} = {value}\n"));
        }
        text
    }

    /// Puts the profile into a configuration file, which is made where there is none; the rest of the file stays as
    /// it is. Says whether anything had to be written.
    ///
    /// # Errors
    ///
    /// When the file is no configuration or cannot be written; when it has another profile of this name, and `force`
    /// is not given.
    pub fn write(&self, path: &Path, force: bool) -> Result<bool, Fault> {
        let before = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Fault::file("read the configuration file", path, &error)),
        };
        check_configuration(&before, path)?;
        let section = self.section();
        let wanted = self.find(&section);
        let mut rest = before.clone();
        match self.find(&before) {
            found @ Some(_) if found == wanted => return Ok(false),
            Some(_) if !force => {
                return Err(Fault::usage(
                    format!("{} has another profile {:?} already", path.display(), self.name),
                    "give this one another name with --profile-name NAME; --force replaces it",
                ));
            }
            Some(_) => rest = self.without(&before),
            None => {}
        }
        let mut text = rest.trim_end().to_owned();
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(&section);
        check_configuration(&text, path)?;
        replace(path, text.as_bytes()).map_err(|error| Fault::file("write", path, &error))?;
        Ok(true)
    }

    fn find(&self, text: &str) -> Option<Value> {
        let table: Table = text.parse().ok()?;
        table.get("profile")?.get(&self.name).cloned()
    }

    /// Leaves the profile's own part out.
    fn without(&self, text: &str) -> String {
        let headers = [format!("[profile.{}]", self.name), format!("[profile.{}]", quoted(&self.name))];
        let mut inside = false;
        let mut rest = String::new();
        for line in text.lines() {
            if line.trim_start().starts_with('[') {
                inside = headers.iter().any(|header| header == line.trim());
            }
            if !inside {
                rest.push_str(line);
                rest.push('\n');
            }
        }
        rest
    }
}

/// Replaces a file in one step, durable; owner and mode stay.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    // A link to the file is kept.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".chronolith");
    let unfinished = path.with_file_name(name);
    let mut file = File::options().write(true).create(true).truncate(true).mode(MODE).open(&unfinished)?;
    if let Ok(old) = fs::metadata(&path) {
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        if rustix::process::geteuid().is_root() {
            chown(&unfinished, Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str, repository: &str) -> ServerProfile {
        ServerProfile { name: name.to_owned(), entries: vec![("repo", repository.into())] }
    }

    #[test]
    fn other_profiles_and_remarks_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/config.toml");
        assert!(profile("main", "/a \"b\"").write(&path, false).unwrap());
        assert!(!profile("main", "/a \"b\"").write(&path, false).unwrap());
        let text = "# mine\n[profile.default]\nrepo = \"/x\" # here\n\n[profile.main]\nrepo = \"/old\"\n\n[profile.\"a.b\"]\nquiet = true\n";
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(profile("main", "/new").write(&path, false).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert!(profile("main", "/new").write(&path, true).unwrap());
        let expected = "# mine\n[profile.default]\nrepo = \"/x\" # here\n\n[profile.\"a.b\"]\nquiet = true\n\n[profile.\"main\"]\nrepo = \"/new\"\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert!(profile("a.b", "/c").write(&path, true).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        // What is no configuration is left alone, and so is what cannot be told apart.
        for bad in ["[profile\n", "frobnicate = 1\n", "profile = { main = { repo = \"/old\" } }\n"] {
            fs::write(&path, bad).unwrap();
            assert!(profile("main", "/new").write(&path, true).is_err(), "{bad}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }
}
