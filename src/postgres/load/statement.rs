//! Names of roles and databases in the statements of an archive, found and replaced.
//!
//! The statements are those that `pg_dump` writes: keywords in capitals, names quoted where they must be.

use crate::postgres::dump::contents::TocEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Quoted,
    Other,
}

#[derive(Debug, Clone)]
struct Token<'a> {
    kind: Kind,
    text: &'a [u8],
    range: Range<usize>,
    /// How many parentheses are open.
    depth: usize,
}

const fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

const fn goes_on(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// Returns where a literal between `quote`s ends, which begins at `from`.
fn end_of_literal(sql: &[u8], from: usize, quote: u8, escapes: bool) -> usize {
    let mut at = from + 1;
    while let Some(byte) = sql.get(at) {
        match *byte {
            b'\\' if escapes => at += 2,
            byte if byte == quote && sql.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    sql.len()
}

/// Returns where a literal ends that begins with `$tag$` at `from`; `None` where none begins.
fn end_of_dollars(sql: &[u8], from: usize) -> Option<usize> {
    let rest = sql.get(from + 1..)?;
    let length = rest.iter().position(|byte| !goes_on(*byte) || *byte == b'$')?;
    if rest.get(length) != Some(&b'$') || rest.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let tag = sql.get(from..from + length + 2)?;
    let body = sql.get(from + tag.len()..)?;
    let end = body.windows(tag.len()).position(|window| window == tag);
    Some(end.map_or(sql.len(), |end| from + 2 * tag.len() + end))
}

fn tokens(sql: &[u8]) -> Vec<Token<'_>> {
    let mut tokens: Vec<Token<'_>> = Vec::new();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = sql.get(at).copied() {
        let from = at;
        let (kind, end) = match byte {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'-' if sql.get(at + 1) == Some(&b'-') => {
                let rest = sql.get(at..).unwrap_or_default();
                at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                continue;
            }
            b'"' => (Kind::Quoted, end_of_literal(sql, at, b'"', false)),
            b'\'' => {
                let escapes = tokens.last().is_some_and(|last| {
                    last.range.end == at && matches!(last.text, b"E" | b"e") && last.kind == Kind::Word
                });
                (Kind::Other, end_of_literal(sql, at, b'\'', escapes))
            }
            b'$' => (Kind::Other, end_of_dollars(sql, at).unwrap_or(at + 1)),
            byte if begins_word(byte) => {
                let rest = sql.get(at..).unwrap_or_default();
                let length = rest.iter().position(|byte| !goes_on(*byte)).unwrap_or(rest.len());
                (Kind::Word, at + length)
            }
            b')' => {
                depth = depth.saturating_sub(1);
                (Kind::Other, at + 1)
            }
            _ => (Kind::Other, at + 1),
        };
        at = end.min(sql.len());
        let text = sql.get(from..at).unwrap_or_default();
        tokens.push(Token { kind, text, range: from..at, depth });
        if byte == b'(' {
            depth += 1;
        }
    }
    tokens
}

impl Token<'_> {
    fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text == keyword.as_bytes()
    }

    /// The name that it is.
    fn name(&self) -> Option<Vec<u8>> {
        match self.kind {
            Kind::Word => Some(self.text.to_vec()),
            Kind::Quoted => {
                let inner = self.text.get(1..self.text.len().checked_sub(1)?)?;
                let mut name = Vec::with_capacity(inner.len());
                let mut bytes = inner.iter();
                while let Some(byte) = bytes.next() {
                    name.push(*byte);
                    if *byte == b'"' {
                        bytes.next();
                    }
                }
                Some(name)
            }
            Kind::Other => None,
        }
    }
}

/// Returns the bare name of one that stands in quotes, and nothing beside it.
pub fn unquoted(text: &[u8]) -> Option<Vec<u8>> {
    match tokens(text).as_slice() {
        [only] if only.kind == Kind::Quoted && only.text.len() == text.len() => only.name(),
        _ => None,
    }
}

/// Quotes a name.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quoted_bytes(name: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for byte in name {
        out.push(*byte);
        if *byte == b'"' {
            out.push(b'"');
        }
    }
    out.push(b'"');
    out
}

/// The keywords that names of roles follow, by the kind of the entry.
fn keywords(kind: &str) -> &'static [&'static str] {
    match kind {
        "ACL" | "DEFAULT ACL" => &["TO", "FROM", "ROLE", "AUTHORIZATION", "BY"],
        "POLICY" => &["TO"],
        "USER MAPPING" => &["FOR"],
        "DATABASE PROPERTIES" => &["ROLE"],
        _ => &[],
    }
}

/// Finds the roles that a statement names, and where.
fn role_places(kind: &str, sql: &[u8]) -> Vec<(Range<usize>, Vec<u8>)> {
    let keywords = keywords(kind);
    let mut places = Vec::new();
    if keywords.is_empty() {
        return places;
    }
    let tokens = tokens(sql);
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        if token.depth > 0 || !keywords.iter().any(|keyword| token.is(keyword)) {
            continue;
        }
        while let Some(token) = tokens.get(at) {
            if token.is("GROUP") {
                at += 1;
                continue;
            }
            let Some(name) = token.name() else { break };
            if !token.is("PUBLIC") {
                places.push((token.range.clone(), name));
            }
            at += 1;
            if tokens.get(at).is_none_or(|token| token.text != b",") {
                break;
            }
            at += 1;
        }
    }
    places
}

fn replaced(sql: &[u8], places: &[(Range<usize>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(sql.len());
    let mut at = 0;
    for (range, text) in places {
        out.extend_from_slice(sql.get(at..range.start).unwrap_or_default());
        out.extend_from_slice(text);
        at = range.end;
    }
    out.extend_from_slice(sql.get(at..).unwrap_or_default());
    out
}

/// Adds the roles that an entry needs: its owner, and those whom its statement names.
pub fn roles_of(entry: &TocEntry, owners: bool, privileges: bool, roles: &mut BTreeSet<Vec<u8>>) {
    let kind = entry.kind();
    let is_privilege = matches!(kind.as_str(), "ACL" | "DEFAULT ACL");
    if owners && !is_privilege {
        roles.extend(entry.owner.iter().filter(|owner| !owner.is_empty()).cloned());
    }
    if privileges || !is_privilege {
        let statement = entry.statement.as_deref().unwrap_or_default();
        roles.extend(role_places(&kind, statement).into_iter().map(|(_, name)| name));
    }
}

/// Puts other roles into an entry.
pub fn map_roles(entry: &mut TocEntry, map: &BTreeMap<Vec<u8>, Vec<u8>>) {
    if let Some(new) = entry.owner.as_ref().and_then(|owner| map.get(owner)) {
        entry.owner = Some(new.clone());
    }
    let kind = entry.kind();
    if let Some(statement) = &mut entry.statement {
        let places = role_places(&kind, statement).into_iter();
        let places: Vec<_> =
            places.filter_map(|(range, name)| Some((range, quoted_bytes(map.get(&name)?)))).collect();
        *statement = replaced(statement, &places);
    }
}

/// Returns a statement about the database `old` as one about `new`.
pub fn renamed(sql: &[u8], old: &[u8], new: &str) -> Vec<u8> {
    let tokens = tokens(sql);
    let pairs = tokens.windows(2).filter_map(|pair| match pair {
        [keyword, name] if keyword.is("DATABASE") && name.name().as_deref() == Some(old) => {
            Some((name.range.clone(), quoted(new).into_bytes()))
        }
        _ => None,
    });
    replaced(sql, &pairs.collect::<Vec<_>>())
}

/// Returns what `KEYWORD = name` says in a statement.
pub fn setting(sql: &[u8], keyword: &str) -> Option<Vec<u8>> {
    place_of_setting(sql, keyword).map(|(_, name)| name)
}

fn place_of_setting(sql: &[u8], keyword: &str) -> Option<(Range<usize>, Vec<u8>)> {
    let tokens = tokens(sql);
    tokens.windows(3).find_map(|three| match three {
        [word, sign, value] if word.is(keyword) && sign.text == b"=" => {
            Some((word.range.start..value.range.end, value.name()?))
        }
        _ => None,
    })
}

/// Returns a statement without `KEYWORD = name`.
pub fn without_setting(sql: &[u8], keyword: &str) -> Vec<u8> {
    let place = place_of_setting(sql, keyword).map(|(range, _)| (range, Vec::new()));
    replaced(sql, &place.into_iter().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, statement: &str, owner: &str) -> TocEntry {
        let mut entry = TocEntry::default();
        (entry.kind, entry.statement) = (Some(kind.into()), Some(statement.into()));
        entry.owner = Some(owner.into());
        entry
    }

    fn roles(kind: &str, statement: &str) -> Vec<String> {
        let mut found = BTreeSet::new();
        roles_of(&entry(kind, statement, ""), true, true, &mut found);
        found.into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn roles_stand_where_pg_dump_writes_them() {
        let grant = "REVOKE ALL ON TABLE public.\"TO x\" FROM owner;\nGRANT SELECT(\"TO\",b),UPDATE ON TABLE \
                     public.\"FROM\" TO \"Ann \"\"B\"\"\" WITH GRANT OPTION;\nSET SESSION AUTHORIZATION boss;\n\
                     GRANT ALL ON SCHEMA s TO PUBLIC;\nRESET SESSION AUTHORIZATION;\n";
        assert_eq!(roles("ACL", grant), ["Ann \"B\"", "boss", "owner"]);
        let default =
            "ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA s GRANT SELECT ON TABLES  TO reader;\n";
        assert_eq!(roles("DEFAULT ACL", default), ["maker", "reader"]);
        let policy = "CREATE POLICY \"TO\" ON public.t FOR UPDATE TO a, \"b, c\" USING ((x = 'TO y'::text) AND f(TO)) \
                      WITH CHECK ((z = $$ TO q $$));\n";
        assert_eq!(roles("POLICY", policy), ["a", "b, c"]);
        assert_eq!(
            roles("USER MAPPING", "CREATE USER MAPPING FOR ann SERVER s OPTIONS (\n \"user\" 'FOR x'\n);"),
            ["ann"]
        );
        let properties = "ALTER ROLE ann IN DATABASE app SET x TO 'y';\nALTER DATABASE app SET role TO 'z';";
        assert_eq!(roles("DATABASE PROPERTIES", properties), ["ann"]);
        assert!(roles("FUNCTION", "CREATE FUNCTION f() AS $$ GRANT x TO y $$").is_empty());
    }

    #[test]
    fn roles_and_databases_get_other_names() {
        let map = [(b"old".to_vec(), b"new \"one\"".to_vec())].into();
        let mut grant =
            entry("ACL", "GRANT SELECT ON TABLE public.old TO old;\nGRANT ALL ON t TO older, old;", "old");
        map_roles(&mut grant, &map);
        assert_eq!(
            grant.statement.unwrap(),
            b"GRANT SELECT ON TABLE public.old TO \"new \"\"one\"\"\";\nGRANT ALL ON t TO older, \"new \"\"one\"\"\";"
        );
        assert_eq!(grant.owner.unwrap(), b"new \"one\"");
        let sql = "ALTER DATABASE \"My db\" SET a TO 'DATABASE \"My db\"';\nREVOKE ALL ON DATABASE \"My db\" FROM PUBLIC;";
        assert_eq!(
            String::from_utf8(renamed(sql.as_bytes(), b"My db", "x")).unwrap(),
            "ALTER DATABASE \"x\" SET a TO 'DATABASE \"My db\"';\nREVOKE ALL ON DATABASE \"x\" FROM PUBLIC;"
        );
        let create = b"CREATE DATABASE app WITH TEMPLATE = template0 ENCODING = 'UTF8' TABLESPACE = fast;";
        assert_eq!(setting(create, "TABLESPACE").unwrap(), b"fast");
        assert_eq!(setting(create, "LOCALE_PROVIDER"), None);
        assert_eq!(
            without_setting(create, "TABLESPACE"),
            b"CREATE DATABASE app WITH TEMPLATE = template0 ENCODING = 'UTF8' ;"
        );
    }

    #[test]
    fn statements_that_are_cut_anywhere_are_no_trouble() {
        let sql = b"GRANT SELECT ON TABLE \"a\"\"b\" TO $x$ y $x$, E'\\' TO z', \"q";
        for end in 0..=sql.len() {
            let mut found = BTreeSet::new();
            let text = String::from_utf8_lossy(&sql[..end]).into_owned();
            roles_of(&entry("ACL", &text, ""), true, true, &mut found);
            renamed(&sql[..end], b"a", "b");
        }
    }
}
