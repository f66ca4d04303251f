//! Text for people: tables, times, names that may hold anything.

use crate::base::Timestamp;
use crate::base::units::format_size;

/// How a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// At the left.
    Left,
    /// At the right, as numbers do.
    Right,
}

/// A table with a line of titles.
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins a table.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; control characters in it are shown, not obeyed.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| visible(cell)).collect());
    }

    /// Returns the lines of the table; one without rows is only its titles.
    pub fn lines(&self) -> Vec<String> {
        let length = |text: &str| text.chars().count();
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, (title, _))| {
                let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| length(cell));
                cells.max().unwrap_or(0).max(length(title))
            })
            .collect();
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                let room = " ".repeat(width - length(cell).min(*width));
                match align {
                    Align::Left => line.extend([cell.as_str(), &room]),
                    Align::Right => line.extend([room.as_str(), cell]),
                }
            }
            line.trim_end().to_owned()
        };
        std::iter::once(&titles).chain(&self.rows).map(line).collect()
    }
}

/// Makes control characters visible, so that a name cannot move the cursor or forge a line.
pub fn visible(text: &str) -> String {
    // What turns the direction of a line around lets a name pretend to be another.
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.chars().any(is_hidden) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| -> Box<dyn Iterator<Item = char>> {
            if is_hidden(c) { Box::new(c.escape_default()) } else { Box::new(std::iter::once(c)) }
        })
        .collect()
}

/// Writes a time in the local zone with its offset.
pub fn time(time: Timestamp) -> String {
    crate::ops::show_time(time, &super::edges::zone())
}

/// Writes tags as they are given: `k` or `k=v`.
pub fn tags<'a>(tags: impl IntoIterator<Item = (&'a String, &'a Option<String>)>) -> String {
    let one = |(key, value): (&String, &Option<String>)| match value {
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    };
    tags.into_iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Writes a size.
pub fn size(bytes: u64) -> String {
    format_size(bytes)
}

/// Writes a number with its noun, in the plural where it must be.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Writes a time span: `0.4 s`, `12 s`, `3 min 05 s`.
pub fn span(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_shows_control_characters() {
        let mut table = Table::new(&[("name", Align::Left), ("size", Align::Right), ("", Align::Left)]);
        table.row(vec!["ä\nb".to_owned(), "5".to_owned(), String::new()]);
        table.row(vec!["x".to_owned(), "12345".to_owned(), "t".to_owned()]);
        assert_eq!(table.lines(), ["name   size", "ä\\nb      5", "x     12345  t"]);
    }

    #[test]
    fn spans() {
        assert_eq!([0.04, 12.4, 185.0, 7500.0].map(span), ["0.0 s", "12 s", "3 min 05 s", "2 h 05 min"]);
    }
}
