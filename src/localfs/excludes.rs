//! Patterns for files to leave out, with the rules that people know from `.gitignore`.
//!
//! - without a slash (other than at the end): matches the name of anything, at any depth;
//! - with one: matches the path below the source; with one in front, the whole path as well;
//! - a slash at the end: folders only; `**` matches any number of folders;
//! - `!` in front: brings back what an earlier pattern left out, the last match counts. What lies
//!   in a folder that was left out cannot be brought back, because nobody looks there.

use super::LocalError;
use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

/// Decides which entries a scan leaves out.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    names: Rules,
    relative: Rules,
    absolute: Rules,
}

/// Patterns that are matched against the same text, with the place of each in the user's list.
#[derive(Debug, Clone, Default)]
struct Rules {
    globs: GlobSet,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy)]
struct Rule {
    place: usize,
    brings_back: bool,
    folders_only: bool,
}

impl Rules {
    /// Returns the last rule that matches, if it is later than `best`.
    fn last_match(&self, text: &[u8], is_folder: bool, best: Option<Rule>) -> Option<Rule> {
        if self.rules.is_empty() {
            return best;
        }
        let matches = self.globs.matches_candidate(&Candidate::from_bytes(text));
        let rules = matches.into_iter().filter_map(|index| self.rules.get(index).copied());
        rules.filter(|rule| is_folder || !rule.folders_only).chain(best).max_by_key(|rule| rule.place)
    }
}

impl Excludes {
    /// Reads patterns; empty ones are passed over.
    pub fn new<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Self, LocalError> {
        let mut builders = [(); 3].map(|()| (GlobSetBuilder::new(), Vec::new()));
        let [names, relative, absolute] = &mut builders;
        for (place, whole) in patterns.into_iter().enumerate() {
            let whole = whole.as_ref();
            let failed = |source| LocalError::Pattern { pattern: whole.to_owned(), source };
            let (brings_back, pattern) = match whole.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => {
                    (false, whole.strip_prefix("\\").filter(|rest| rest.starts_with('!')).unwrap_or(whole))
                }
            };
            let (folders_only, pattern) = match pattern.strip_suffix('/') {
                Some(rest) => (true, rest),
                None => (false, pattern),
            };
            if pattern.is_empty() {
                continue;
            }
            let rule = Rule { place, brings_back, folders_only };
            let add = |(builder, rules): &mut (GlobSetBuilder, Vec<Rule>), pattern: &str| {
                let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
                builder.add(glob.map_err(failed)?);
                rules.push(rule);
                Ok::<_, LocalError>(())
            };
            match pattern.strip_prefix('/') {
                Some(anchored) => {
                    add(relative, anchored)?;
                    add(absolute, pattern)?;
                }
                None if pattern.contains('/') => add(relative, pattern)?,
                None => add(names, pattern)?,
            }
        }
        let [names, relative, absolute] = builders.map(|(builder, rules)| {
            let failed = |source| LocalError::Pattern { pattern: String::new(), source };
            Ok::<_, LocalError>(Rules { globs: builder.build().map_err(failed)?, rules })
        });
        Ok(Self { names: names?, relative: relative?, absolute: absolute? })
    }

    /// Says whether to leave out the entry with this whole path, this path below its source, and
    /// this name.
    pub fn matches(&self, path: &[u8], below_source: &[u8], name: &[u8], is_folder: bool) -> bool {
        let best = self.names.last_match(name, is_folder, None);
        let best = self.relative.last_match(below_source, is_folder, best);
        let best = self.absolute.last_match(path, is_folder, best);
        best.is_some_and(|rule| !rule.brings_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `path` lies below the source `/src`; a slash at its end makes it a folder.
    fn excluded(patterns: &[&str], path: &[u8]) -> bool {
        let (path, is_folder) = match path.strip_suffix(b"/") {
            Some(path) => (path, true),
            None => (path, false),
        };
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap();
        let whole = [b"/src/", path].concat();
        Excludes::new(patterns).unwrap().matches(&whole, path, name, is_folder)
    }

    #[test]
    fn a_name_matches_at_any_depth() {
        for path in [&b"core"[..], b"a/core", b"a/b/core", b"a/core/"] {
            assert!(excluded(&["core"], path));
        }
        assert!(!excluded(&["core"], b"score"));
        assert!(excluded(&["*.tmp"], b"a/x.tmp") && !excluded(&["*.tmp"], b"a/x.tmp2"));
        assert!(excluded(&["*.t?p", "[ab]*"], b"c/abc"));
        assert!(excluded(&["*.tmp"], b"a/\xff.tmp"), "names need not be UTF-8");
        assert!(!excluded(&["a*c"], b"a/c"));
    }

    #[test]
    fn a_slash_anchors() {
        assert!(excluded(&["a/b"], b"a/b") && !excluded(&["a/b"], b"x/a/b"));
        assert!(excluded(&["/a"], b"a") && !excluded(&["/a"], b"x/a"));
        assert!(excluded(&["/src/a"], b"a"), "whole paths work too");
        assert!(excluded(&["**/a/b"], b"x/y/a/b") && excluded(&["a/**"], b"a/b/c"));
        assert!(!excluded(&["a/*"], b"a/b/c"));
    }

    #[test]
    fn a_slash_at_the_end_means_folders() {
        assert!(excluded(&["cache/"], b"a/cache/") && !excluded(&["cache/"], b"a/cache"));
        assert!(excluded(&["/a/cache/"], b"a/cache/") && !excluded(&["/a/cache/"], b"a/cache"));
    }

    #[test]
    fn the_last_match_counts() {
        assert!(!excluded(&["*.log", "!keep.log"], b"a/keep.log"));
        assert!(excluded(&["!keep.log", "*.log"], b"a/keep.log"));
        assert!(!excluded(&["*.log", "!/a/keep.log"], b"a/keep.log"));
        assert!(excluded(&["*.log", "!keep.log", "/a/keep.log"], b"a/keep.log"));
        assert!(excluded(&["\\!x"], b"!x"));
    }

    #[test]
    fn nothing_and_nonsense() {
        assert!(!excluded(&["", "/", "!"], b"a"));
        assert_eq!(
            Excludes::new(["a[b"]).unwrap_err().to_string(),
            "\"a[b\" is no pattern for files to leave out"
        );
    }
}
