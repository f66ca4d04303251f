//! A cluster's log as a drawing: a line for each timeline, from left to right as the log grows.

use crate::timeline::{LogBase, LogStream};

const BASE: char = 'B';
const HELD: char = '━';
const MISSING: char = '·';
const FORK: char = '┗';

/// Draws the timelines of a log, `width` cells wide: `━` is archived, `·` is missing between what is, `┗`
/// branches off the timeline above it that it names, `B` is a base backup.
pub fn draw(stream: &LogStream, bases: &[LogBase], width: usize) -> Vec<String> {
    let starts = stream.segments().map(|segment| segment.start).chain(bases.iter().map(|base| base.start));
    let ends = stream.segments().map(|segment| segment.end).chain(bases.iter().map(|base| base.stop));
    let (Some(first), Some(last)) = (starts.min(), ends.max()) else { return Vec::new() };
    let length = u128::from(last.saturating_sub(first).max(1));
    let cell = |position: u64| {
        let at = u128::from(position.saturating_sub(first)) * width as u128 / length;
        usize::try_from(at).unwrap_or(usize::MAX).min(width.saturating_sub(1))
    };
    let mut lines = Vec::new();
    let mut timelines = stream.timelines();
    timelines.extend(bases.iter().map(|base| base.timeline));
    for timeline in timelines {
        let mut cells = vec![' '; width];
        let mut put = |from: usize, to: usize, mark: char| {
            cells.iter_mut().take(to + 1).skip(from).for_each(|cell| *cell = mark);
        };
        let mut previous = None;
        let mut holes = Vec::new();
        for segment in stream.segments_of(timeline) {
            put(cell(segment.start), cell(segment.end - 1), HELD);
            if let Some(end) = previous.filter(|end| *end < segment.start) {
                holes.push((end, segment.start));
            }
            previous = Some(segment.end);
        }
        // A hole is shown however short it is.
        for (from, to) in holes {
            put(cell(from), cell(to - 1), MISSING);
        }
        let parent = stream.path(timeline).and_then(|path| path.parent());
        if let Some((_, at)) = parent {
            put(cell(at), cell(at), FORK);
        }
        for base in bases.iter().filter(|base| base.timeline == timeline) {
            put(cell(base.stop), cell(base.stop), BASE);
        }
        let drawn: String = cells.into_iter().collect();
        let name = match parent {
            Some((parent, _)) => format!("{timeline} (of {parent})"),
            None => timeline.to_string(),
        };
        lines.push(format!("{name:>12}  {}", drawn.trim_end()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Timestamp;
    use crate::timeline::{LogSegment, TimelinePath};

    #[test]
    fn timelines_are_drawn_one_below_the_other() {
        let mut stream = LogStream::new(100);
        let segment = |timeline, number: u64| LogSegment {
            name: String::new(),
            last: String::new(),
            count: 1,
            timeline,
            start: number * 100,
            end: number * 100 + 100,
            written_end: number * 100 + 100,
            whole: true,
            commits: None,
            known: true,
            points: Vec::new(),
        };
        for number in [0, 1, 2, 4, 5, 6] {
            stream.add_segment(segment(1, number));
        }
        for number in [5, 6, 7, 8, 9] {
            stream.add_segment(segment(2, number));
        }
        stream.add_path(TimelinePath::root(1).then(2, 550).unwrap());
        let base = LogBase {
            name: String::new(),
            timeline: 1,
            start: 100,
            stop: 150,
            stopped: Timestamp::default(),
            holds_log: false,
        };
        let lines = draw(&stream, &[base], 20);
        assert_eq!(lines, ["           1  ━━━B━━··━━━━━━", "    2 (of 1)            ━┗━━━━━━━━"]);
        assert!(draw(&LogStream::new(100), &[], 20).is_empty());
    }
}
