//! Tables as Markdown, and what stands in their cells.

/// Cells of a row, which hold no line feed and no bar.
fn row(cells: &[String]) -> String {
    let safe: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|").replace(['\n', '\r'], " ")).collect();
    format!("| {} |\n", safe.join(" | "))
}

/// A table with a line feed at its end.
pub fn markdown_table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|title| title.to_string()).collect();
    let rule = vec!["---".to_string(); head.len()];
    [row(&head), row(&rule)].into_iter().chain(rows.into_iter().map(|cells| row(&cells))).collect()
}

/// What is known, or a dash.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or("–".into(), |value| value.to_string())
}

/// p in words of its size: nobody compares numbers below 0.0001.
pub fn p_value(value: f64) -> String {
    if value < 1e-4 { "< 0.0001".into() } else { format!("{value:.4}") }
}
