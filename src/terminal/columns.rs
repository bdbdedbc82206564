//! Tables in columns.
//!
//! Decided: a table of figures loses nothing where nobody needs it to be narrow, in a file or a pipe. On a terminal
//! that is too narrow for it, titles and long texts lose their middle; names and numbers never do, since half of them
//! is worth nothing. Lines may be longer than the terminal then. Texts that a model wrote are shortened everywhere.

use console::{Term, measure_text_width};

/// Columns of a table of texts if the width of the terminal is unknown.
const WIDTH: usize = 100;
/// The narrowest terminal that is believed.
const NARROWEST_TERMINAL: usize = 40;
/// Blanks between columns.
const GAP: usize = 2;
/// The narrowest that a column becomes.
const NARROWEST: usize = 5;
/// Cells of at most this width are numbers and the like, longer ones texts.
const SHORT: usize = 24;

/// The columns of the terminal, if standard output is one.
fn terminal() -> Option<usize> {
    Term::stdout().size_checked().map(|(_, columns)| usize::from(columns).max(NARROWEST_TERMINAL))
}

/// The width for a table of texts: that of the terminal, or 100 columns.
pub fn width() -> usize {
    terminal().unwrap_or(WIDTH)
}

/// A table of figures, whose first column names them: whole, or if the terminal is narrower than it, with long texts
/// and titles shortened. Columns of numbers are right-aligned. A short row is filled with empty cells.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    laid_out(terminal().unwrap_or(usize::MAX), |column, width| column == 0 || width <= SHORT, head, rows)
}

/// A table in at most `width` columns: cells that are too wide lose their middle.
pub fn table_within(width: usize, head: &[&str], rows: &[Vec<String>]) -> String {
    laid_out(width, |_, _| false, head, rows)
}

/// A table in `width` columns, or as many as it takes: `keeps` says of a column, by its index and the width of its
/// widest cell without the title, whether its cells are shown whole.
fn laid_out(width: usize, keeps: impl Fn(usize, usize) -> bool, head: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], column: usize| row.get(column).map(|text| one_line(text)).unwrap_or_default();
    let mut columns: Vec<Vec<String>> = head.iter().map(|title| vec![one_line(title)]).collect();
    for (index, column) in columns.iter_mut().enumerate() {
        column.extend(rows.iter().map(|row| cell(row, index)));
    }

    let widest = |cells: &[String]| cells.iter().map(|text| measure_text_width(text)).max().unwrap_or(0);
    let mut widths: Vec<usize> = columns.iter().map(|column| widest(column)).collect();
    let least: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let own = widest(&column[1..]);
            if keeps(index, own) { own.max(NARROWEST) } else { NARROWEST }
        })
        .collect();
    let room = width.saturating_sub(GAP * columns.len().saturating_sub(1));
    while widths.iter().sum::<usize>() > room {
        match widths.iter_mut().zip(&least).filter(|(width, least)| **width > **least).max() {
            Some((width, _)) => *width -= 1,
            None => break,
        }
    }

    let is_number = |text: &String| text.is_empty() || text.trim_end_matches([' ', '%']).parse::<f64>().is_ok();
    let right: Vec<bool> = columns.iter().map(|column| column[1..].iter().all(is_number)).collect();
    let mut lines = vec![String::new(); rows.len() + 1];
    for ((column, &width), &right) in columns.iter().zip(&widths).zip(&right) {
        for (line, text) in lines.iter_mut().zip(column) {
            let text = shorten(text, width);
            let space = " ".repeat(width.saturating_sub(measure_text_width(&text)));
            let gap = if line.is_empty() { "" } else { "  " };
            *line += &if right { format!("{gap}{space}{text}") } else { format!("{gap}{text}{space}") };
        }
    }
    let rule: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
    lines.insert(1, rule.join("  "));
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    lines.join("\n")
}

/// The text on one line and harmless: line feeds as `↵`, other control characters as the replacement character.
fn one_line(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => '↵',
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.trim_end().chars().map(shown).collect()
}

/// The text in at most `width` columns, its middle left out.
fn shorten(text: &str, width: usize) -> String {
    if measure_text_width(text) <= width {
        return text.to_string();
    }
    let room = width.saturating_sub(1);
    let head = fitting(text.chars(), room.div_ceil(2));
    let tail = fitting(text.chars().rev(), room / 2);
    format!("{head}…{}", tail.chars().rev().collect::<String>())
}

/// The first characters that fit.
fn fitting(characters: impl Iterator<Item = char>, width: usize) -> String {
    let mut left = width;
    let fits = |c: &char| {
        let own = measure_text_width(c.encode_utf8(&mut [0; 4]));
        let fits = own <= left;
        left = left.saturating_sub(own);
        fits
    };
    characters.take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_table_shortens_long_cells_and_replaces_control_characters() {
        let rows = [
            vec!["5 7 12 = 59".into(), "<think>\n5*12=60\u{1b}[2J".repeat(9), "1.00".into(), "right".into()],
            vec!["1 2 3 = 6".into(), "?".into(), "0.1".into()],
        ];
        let table = table_within(60, &["problem", "response", "reward", "verdict"], &rows);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| measure_text_width(line) <= 60), "{table}");
        assert!(lines[2].contains("<think>↵5*12=60") && lines[2].contains('…') && !table.contains('\u{1b}'), "{table}");
        assert!(lines[3].starts_with("1 2 3 = 6    ?") && lines[3].ends_with("   0.1"), "{table}");
    }

    #[test]
    fn names_and_numbers_are_never_cut() {
        let name = "conversational/question_answering/per_1000_tokens";
        let rows = [vec![name.into(), "-12.5".into(), "-0.125 to -0.0125".into(), "a text of some length ".repeat(3)]];
        let head = ["figure", "difference at matched length", "95 % interval", "note"];
        let has_all =
            |table: &str| rows[0].iter().chain(&head.map(String::from)).all(|cell| table.contains(cell.trim()));
        let keeps = |column: usize, width: usize| column == 0 || width <= SHORT;
        let narrow = laid_out(80, keeps, &head, &rows);
        assert!(narrow.contains(name) && narrow.contains("-12.5") && narrow.contains("-0.125 to -0.0125"), "{narrow}");
        assert!(narrow.contains("di…th") && narrow.contains("a …th") && !has_all(&narrow), "{narrow}");
        // With room enough it is the same as without a limit.
        assert_eq!(laid_out(500, keeps, &head, &rows), laid_out(usize::MAX, keeps, &head, &rows));
        assert!(has_all(&laid_out(usize::MAX, keeps, &head, &rows)));
    }

    proptest! {
        #[test]
        fn a_table_keeps_to_its_width(cells in prop::collection::vec("\\PC{0,60}|.{0,60}", 4), width in 40..120usize) {
            let rows: Vec<Vec<String>> = cells.chunks(2).map(<[String]>::to_vec).collect();
            let table = table_within(width, &["a", "b"], &rows);
            prop_assert_eq!(table.split('\n').count(), 4);
            prop_assert!(table.lines().all(|line| measure_text_width(line) <= width), "{}", table);
        }
    }
}
