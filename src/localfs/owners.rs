//! Names of users and groups, read once from `/etc/passwd` and `/etc/group`.
//!
//! Network directories are not asked: a backup must not hang on one. Numbers are always kept, so a
//! user of such a directory still gets his files back where the numbers agree.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// The users and groups of this machine, by number and by name.
#[derive(Debug, Default)]
pub struct Owners {
    users: Names,
    groups: Names,
}

#[derive(Debug, Default)]
struct Names {
    by_number: HashMap<u32, Arc<str>>,
    by_name: HashMap<Arc<str>, u32>,
}

impl Names {
    /// Reads lines of `name:password:number:...`; the first line of a name or number counts.
    fn parse(text: &str) -> Self {
        let mut names = Self::default();
        for line in text.lines() {
            let mut fields = line.split(':');
            let (Some(name), Some(Ok(number))) = (fields.next(), fields.nth(1).map(str::parse)) else {
                continue;
            };
            if !name.is_empty() && !name.starts_with('#') {
                let name: Arc<str> = name.into();
                names.by_number.entry(number).or_insert_with(|| name.clone());
                names.by_name.entry(name).or_insert(number);
            }
        }
        names
    }

    fn load(path: &str) -> Self {
        let bytes = std::fs::read(Path::new(path)).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&bytes))
    }
}

impl Owners {
    /// Reads the names of this machine; where there are none, nobody has a name.
    pub fn load() -> Self {
        Self { users: Names::load("/etc/passwd"), groups: Names::load("/etc/group") }
    }

    /// Returns the name of a user.
    pub fn user(&self, uid: u32) -> Option<Arc<str>> {
        self.users.by_number.get(&uid).cloned()
    }

    /// Returns the name of a group.
    pub fn group(&self, gid: u32) -> Option<Arc<str>> {
        self.groups.by_number.get(&gid).cloned()
    }

    /// Returns the number of the user of that name.
    pub fn uid(&self, user: &str) -> Option<u32> {
        self.users.by_name.get(user).copied()
    }

    /// Returns the number of the group of that name.
    pub fn gid(&self, group: &str) -> Option<u32> {
        self.groups.by_name.get(group).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_count_and_nonsense_is_passed_over() {
        let names =
            Names::parse("root:x:0:0::/root:/bin/sh\ntoor:x:0:0\n\n#a:x:7\nbad\n:x:9\nroot:x:5:\nb:x:-1\n");
        assert_eq!(names.by_number.get(&0).map(|name| &**name), Some("root"));
        assert_eq!(names.by_name.get("root"), Some(&0));
        assert_eq!(names.by_name.get("toor"), Some(&0));
        assert_eq!(names.by_number.len(), 2);
    }
}
