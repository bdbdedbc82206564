//! A trace made of another one.

use super::dialogue::Dialogue;
use super::monologue;

/// The dialogue as a monologue: all utterances in one `<think>` block, a line each, followed by the conclusion; in
/// `<answer>` tags if `tagged`. That is what the paper trains Llama on, so that its arms are of comparable length.
pub fn merge_utterances(dialogue: &Dialogue, tagged: bool) -> String {
    let said: Vec<&str> = dialogue.turns.iter().map(|turn| turn.text).collect();
    monologue::write(&said.join("\n"), dialogue.conclusion(), tagged)
}

/// The text with the tags `<from>` and `</from>` named `to`, wherever they are; nothing else changes.
///
/// `rename_tags(text, "group_solution", "answer")` makes the group's solution the answer. A solution that holds an
/// answer of its own then has two.
pub fn rename_tags(text: &str, from: &str, to: &str) -> String {
    text.replace(&format!("<{from}>"), &format!("<{to}>")).replace(&format!("</{from}>"), &format!("</{to}>"))
}

#[cfg(test)]
mod tests {
    use super::super::{Dialogue, Monologue};
    use super::*;

    const TEXT: &str = "<cast_of_characters><persona1>A</persona1><persona2>B</persona2></cast_of_characters>
<conversation><think2>\nIs it 7?\n</think2><think1>It is.</think1></conversation>
<group_solution>7 it is: <answer>3+4</answer></group_solution>";

    #[test]
    fn a_dialogue_becomes_a_monologue() {
        let dialogue = Dialogue::parse(TEXT).unwrap();
        let merged = merge_utterances(&dialogue, true);
        assert_eq!(merged, "<think>\nIs it 7?\nIt is.\n</think>\n<answer>3+4</answer>");
        let plain = merge_utterances(&dialogue, false);
        assert_eq!(plain, "<think>\nIs it 7?\nIt is.\n</think>\n\n3+4");
        assert_eq!(Monologue::parse(&merged).unwrap().words(), dialogue.counts().words);
    }

    #[test]
    fn tags_are_renamed_and_text_is_not() {
        let text = "<a>a</a> <aa> < a> </a> <b>";
        assert_eq!(rename_tags(text, "a", "bc"), "<bc>a</bc> <aa> < a> </bc> <b>");
        assert_eq!(rename_tags(&rename_tags(TEXT, "group_solution", "x"), "x", "group_solution"), TEXT);
    }
}
