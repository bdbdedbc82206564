//! The persona layout: a cast of characters, a conversation of their utterances in any order, and what they agreed on.
//!
//! An error is whatever leaves it unclear who says what or which answer counts: a block that is not closed, blocks that
//! cross, a speaker who is not of the cast, an empty block, a second solution, conclusions that contradict each other;
//! a tag that is misspelt; and text in the cast or the conversation that is in no block of theirs, since it may be what
//! somebody says whose tag is broken. What is untidy and still clear is a note: text before, between and after the
//! cast, the conversation and the solution, which is lost in what is made of the dialogue; a tag that opens twice in a
//! row; a persona who never speaks, or whose description lacks its end.

use super::blocks::{Block, Reader};
use super::conclusions::{answer_in, contradiction};
use crate::text::tags::{Mark, Remark, Tag};

/// A dialogue that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialogue<'a> {
    /// The persona of number N is `cast[N - 1]`.
    pub cast: Vec<Block<'a>>,
    /// The utterances in order, each with the `Tag::Turn` of its speaker.
    pub turns: Vec<Block<'a>>,
    /// What follows the conversation: solution, consensus and answer, at most one of each and at least one, in order.
    pub ending: Vec<Block<'a>>,
    /// What is untidy.
    pub notes: Vec<Remark>,
}

/// How much of a dialogue there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub personas: usize,
    /// Utterances.
    pub turns: usize,
    /// Words of the utterances, as blanks divide them.
    pub words: usize,
}

impl<'a> Dialogue<'a> {
    /// Reads a dialogue.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place; the top of this file says what is.
    pub fn parse(text: &'a str) -> Result<Self, Remark> {
        let mut reader = Reader::new(text);
        let cast = cast(&mut reader)?;
        let turns = conversation(&mut reader, cast.len())?;
        let ending = ending(&mut reader)?;
        reader.refuse_misspelt()?;
        if let Some((at, what)) = contradiction(&ending) {
            return Err(reader.remark(at, what));
        }
        reader.note_text(text.len());
        for (persona, number) in cast.iter().zip(1..) {
            if !turns.iter().any(|turn| turn.tag == Tag::Turn(number)) {
                let silent = reader.remark(persona.span.start, format_args!("persona {number} never speaks"));
                reader.notes.push(silent);
            }
        }
        Ok(Self { cast, turns, ending, notes: reader.notes })
    }

    /// Whether the persona of this number says anything.
    pub fn speaks(&self, number: usize) -> bool {
        self.turns.iter().any(|turn| turn.tag == Tag::Turn(number))
    }

    /// What the group settled on: its solution, else its consensus, else the answer.
    pub fn solution(&self) -> &'a str {
        let tags = [Tag::GroupSolution, Tag::GroupConsensus, Tag::Answer];
        tags.into_iter().find_map(|tag| self.after(tag)).unwrap_or_default()
    }

    /// The text in `<answer>` tags, which stand beside the solution or in it.
    pub fn answer(&self) -> Option<&'a str> {
        self.after(Tag::Answer).or_else(|| self.ending.iter().find_map(|block| answer_in(block.text)))
    }

    /// The answer, or else the solution.
    pub fn conclusion(&self) -> &'a str {
        self.answer().unwrap_or_else(|| self.solution())
    }

    /// The block of this kind after the conversation.
    fn after(&self, tag: Tag) -> Option<&'a str> {
        self.ending.iter().find(|block| block.tag == tag).map(|block| block.text)
    }

    pub fn counts(&self) -> Counts {
        let words = self.turns.iter().map(|turn| turn.text.split_whitespace().count()).sum();
        Counts { personas: self.cast.len(), turns: self.turns.len(), words }
    }

    /// The dialogue as text, tidy: tags on lines of their own, and nothing between the blocks.
    pub fn write(&self) -> String {
        let all = |blocks: &[Block]| -> String {
            let blocks: Vec<String> = blocks.iter().map(|block| block.tag.around(block.text)).collect();
            blocks.join("\n")
        };
        [Tag::Cast.around(&all(&self.cast)), Tag::Conversation.around(&all(&self.turns)), all(&self.ending)].join("\n")
    }
}

fn cast<'a>(reader: &mut Reader<'a>) -> Result<Vec<Block<'a>>, Remark> {
    reader.open(Tag::Cast)?;
    let mut cast: Vec<Block> = vec![];
    loop {
        let persona = Tag::Persona(cast.len() + 1);
        let expected = or_end(format!("`<{persona}>`"), &cast, Tag::Cast);
        reader.refuse_text(&expected)?;
        if !cast.is_empty() && reader.ends(Tag::Cast) {
            return Ok(cast);
        }
        let Some(Mark { tag, closes: false, .. }) = reader.peek().filter(|mark| mark.tag == persona) else {
            return Err(reader.unexpected(expected));
        };
        let (other, next) = (Tag::Turn(cast.len() + 1), Tag::Persona(cast.len() + 2));
        cast.push(reader.block_before(tag, other, [(next, false), (Tag::Cast, true)])?);
    }
}

fn conversation<'a>(reader: &mut Reader<'a>, personas: usize) -> Result<Vec<Block<'a>>, Remark> {
    reader.open(Tag::Conversation)?;
    let mut turns: Vec<Block> = vec![];
    loop {
        let expected = or_end("an utterance".into(), &turns, Tag::Conversation);
        reader.refuse_text(&expected)?;
        if !turns.is_empty() && reader.ends(Tag::Conversation) {
            return Ok(turns);
        }
        match reader.peek() {
            Some(mark @ Mark { tag: Tag::Turn(speaker), closes: false, .. }) if speaker > personas => {
                return Err(reader.remark(mark.start, format_args!("{mark} has no `<{}>`", Tag::Persona(speaker))));
            }
            Some(Mark { tag: Tag::Turn(speaker), closes: false, .. }) => turns.push(reader.block(Tag::Turn(speaker))?),
            _ => return Err(reader.unexpected(expected)),
        }
    }
}

/// What is expected among the blocks of `around`: another, or the end once there is one.
fn or_end(another: String, so_far: &[Block], around: Tag) -> String {
    if so_far.is_empty() { another } else { format!("{another} or `</{around}>`") }
}

/// All that follows the conversation.
fn ending<'a>(reader: &mut Reader<'a>) -> Result<Vec<Block<'a>>, Remark> {
    let mut ending: Vec<Block> = vec![];
    while let Some(mark) = reader.peek() {
        let known = matches!(mark.tag, Tag::GroupSolution | Tag::GroupConsensus | Tag::Answer) && !mark.closes;
        if !known {
            break;
        }
        let block = if mark.tag == Tag::Answer { reader.block(mark.tag)? } else { solution(reader, mark.tag)? };
        let is_second = |tag: Tag| holds(&block, tag) && ending.iter().any(|earlier| holds(earlier, tag));
        if let Some(tag) = [mark.tag, Tag::Answer].into_iter().find(|tag| is_second(*tag)) {
            return Err(reader.remark(mark.start, format_args!("a second `<{tag}>`")));
        }
        ending.push(block);
    }
    match reader.peek() {
        _ if ending.is_empty() => Err(reader.unexpected(format_args!("`<{}>`", Tag::GroupSolution))),
        Some(_) => Err(reader.unexpected("the end")),
        None => Ok(ending),
    }
}

/// A block that may hold the answer's.
fn solution<'a>(reader: &mut Reader<'a>, tag: Tag) -> Result<Block<'a>, Remark> {
    let open = reader.open(tag)?;
    if let Some(answer) = reader.peek().filter(|mark| mark.tag == Tag::Answer && !mark.closes) {
        reader.step();
        reader.close(answer)?;
    }
    reader.close(open)
}

/// Whether a block is of this kind, or holds the answer and that is asked for.
fn holds(block: &Block, tag: Tag) -> bool {
    block.tag == tag || tag == Tag::Answer && answer_in(block.text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tags::marks;
    use proptest::prelude::*;

    const CAST: &str = "<cast_of_characters><persona1>A</persona1><persona2>B</persona2></cast_of_characters>";

    /// A dialogue of the cast above with this conversation and what follows it.
    fn with(conversation: &str, ending: &str) -> String {
        format!("{CAST}<conversation>{conversation}</conversation>{ending}")
    }

    fn tidy() -> String {
        with("<think2>so?</think2><think1>3 + 4</think1>", "<group_solution>7</group_solution>")
    }

    #[test]
    fn a_dialogue_is_read() {
        let text = "<cast_of_characters>\n<persona1>\nA cook\n</persona1>\n<persona2>B</persona2>\n\
            </cast_of_characters>\n<conversation>\n<think2>\n\u{e9} first?\n</think2>\n<think1> Yes, I say </think1>\n\
            <think2>Well</think2>\n</conversation>\n<group_solution>\n(C) a cup\n</group_solution>\n";
        let dialogue = Dialogue::parse(text).unwrap();
        let texts = |blocks: &[Block]| -> Vec<(Tag, String)> {
            blocks.iter().map(|block| (block.tag, text[block.span.clone()].to_string())).collect()
        };
        let expect =
            |all: &[(Tag, &str)]| -> Vec<(Tag, String)> { all.iter().map(|(t, s)| (*t, s.to_string())).collect() };
        assert_eq!(texts(&dialogue.cast), expect(&[(Tag::Persona(1), "A cook"), (Tag::Persona(2), "B")]));
        let turns = [(Tag::Turn(2), "\u{e9} first?"), (Tag::Turn(1), "Yes, I say"), (Tag::Turn(2), "Well")];
        assert_eq!(texts(&dialogue.turns), expect(&turns));
        assert_eq!((dialogue.solution(), dialogue.answer(), dialogue.conclusion()), ("(C) a cup", None, "(C) a cup"));
        assert_eq!(dialogue.counts(), Counts { personas: 2, turns: 3, words: 6 });
        assert_eq!(dialogue.notes, []);
    }

    #[test]
    fn the_answer_stands_beside_the_solution_or_in_it() {
        for (ending, solution, answer) in [
            ("<group_solution>it is 7</group_solution><answer>7</answer>", "it is 7", Some("7")),
            ("<answer> 7</answer>", "7", Some("7")),
            ("<group_consensus>seven</group_consensus>", "seven", None),
            ("<group_consensus>yes</group_consensus><group_solution>7</group_solution>", "7", None),
            ("<group_solution>x <answer> 7 </answer></group_solution>", "x <answer> 7 </answer>", Some("7")),
        ] {
            let text = with("<think1>a</think1><think2>b</think2>", ending);
            let dialogue = Dialogue::parse(&text).unwrap();
            assert_eq!((dialogue.solution(), dialogue.answer()), (solution, answer));
            assert_eq!(dialogue.conclusion(), answer.unwrap_or(solution));
        }
    }

    #[test]
    fn what_is_wrong_has_a_name_and_a_place() {
        let solution = "<group_solution>7</group_solution>";
        for (text, message) in [
            (String::new(), "line 1, byte 0: expected `<cast_of_characters>`, found the end"),
            ("<think>a</think>".into(), "line 1, byte 0: expected `<cast_of_characters>`, found `<think>`"),
            (
                "\n<cast_of_characters>\n</cast_of_characters>".into(),
                "line 3, byte 22: expected `<persona1>`, found `</cast_of_characters>`",
            ),
            (
                tidy().replace("<persona1>A</persona1>", ""),
                "line 1, byte 20: expected `<persona1>`, found `<persona2>`",
            ),
            (
                tidy().replace("persona2", "persona3"),
                "line 1, byte 42: expected `<persona2>` or `</cast_of_characters>`, found `<persona3>`",
            ),
            (
                tidy().replace("</cast_of_characters>", ""),
                "line 1, byte 64: expected `<persona3>` or `</cast_of_characters>`, found `<conversation>`",
            ),
            (
                tidy().replace("<persona1>A</persona1>", "<persona1>A<think1>"),
                "line 1, byte 20: `<persona1>` is not closed before `<think1>`",
            ),
            (tidy().replace(">B</persona2>", "> </persona2>"), "line 1, byte 42: `<persona2>` is empty"),
            (format!("{CAST}{solution}"), "line 1, byte 85: expected `<conversation>`, found `<group_solution>`"),
            (with("", solution), "line 1, byte 99: expected an utterance, found `</conversation>`"),
            (with("<think1>a", solution), "line 1, byte 99: `<think1>` is not closed before `</conversation>`"),
            (
                with("<think1>a<think2>b</think2></think1>", solution),
                "line 1, byte 108: `<think2>` opens within `<think1>`",
            ),
            (with("<think1>a</think2>", solution), "line 1, byte 99: `<think1>` is not closed before `</think2>`"),
            (
                with("<think1>a</think1><think3>b</think3>", solution),
                "line 1, byte 117: `<think3>` has no `<persona3>`",
            ),
            (
                with("<think1>a</think1><answer>b</answer>", solution),
                "line 1, byte 117: expected an utterance or `</conversation>`, found `<answer>`",
            ),
            (with("<think1>\n\n</think1>", solution), "line 1, byte 99: `<think1>` is empty"),
            (with("<think1>a</think1>", ""), "line 1, byte 132: expected `<group_solution>`, found the end"),
            (with("<think1>a</think1>", &solution.repeat(2)), "line 1, byte 166: a second `<group_solution>`"),
            (with("<think1>a</think1>", "<group_solution>7"), "line 1, byte 132: `<group_solution>` is not closed"),
            (
                with("<think1>a</think1>", "<group_solution>x<answer>7</answer></group_solution>\n<answer>8</answer>"),
                "line 2, byte 185: a second `<answer>`",
            ),
            (
                with("<think1>a</think1>", &format!("{solution}</think1>")),
                "line 1, byte 166: expected the end, found `</think1>`",
            ),
            (
                with("<think1>a</think1>", "<answer>8</answer>\n<group_solution>7</group_solution>"),
                "line 2, byte 167: `<answer>` says 8, but `<group_solution>` says 7",
            ),
            (
                tidy().replace("<persona2>", "and\n<persona2>"),
                "line 1, byte 42: expected `<persona2>` or `</cast_of_characters>`, found `and`",
            ),
        ] {
            assert_eq!(Dialogue::parse(&text).unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn nothing_that_somebody_says_is_lost() {
        let broken =
            ["<Think2>", "<think 2>", "<think2 >", "<think02>", "<think_2>", "<thnk2>", "[think2]", "<think0>"];
        for open in broken.into_iter().chain(["<think99999999999999999999>", "They talk."]) {
            let close = open.replace('<', "</").replace('[', "[/");
            let turn = format!("{open}\nso?\n{close}");
            let last = (format!("<think1>a</think1>\n{turn}"), 118, " or `</conversation>`");
            for (conversation, at, or) in [(format!("{turn}\n<think1>a</think1>"), 99, ""), last] {
                let remark = Dialogue::parse(&with(&conversation, "<answer>7</answer>")).unwrap_err();
                assert_eq!((remark.at, remark.what), (at, format!("expected an utterance{or}, found `{open}`")));
            }
        }
        // Nor does it become a part of what somebody else says.
        let text = with("<think1>a</Think1> <Think2>b</Think2> <Think1>c</think1>", "<answer>7</answer>");
        let remark = Dialogue::parse(&text).unwrap_err().to_string();
        assert_eq!(remark, "line 1, byte 108: `</Think1>` is not a tag, though it is almost one");
    }

    #[test]
    fn what_is_untidy_is_noted() {
        let text = tidy().replace("<persona2>", "<persona2>\n<persona2>").replace("<think2>so?</think2>", "") + "!";
        let text = text.replace("<conversation>", "or\n<conversation>");
        let notes: Vec<String> = Dialogue::parse(&text).unwrap().notes.iter().map(|note| note.to_string()).collect();
        let expected = [
            "line 2, byte 53: `<persona2>` opens twice",
            "line 2, byte 96: text outside of the blocks",
            "line 3, byte 184: text outside of the blocks",
            "line 2, byte 63: persona 2 never speaks",
        ];
        assert_eq!(notes, expected);
    }

    #[test]
    fn a_description_without_its_end_is_clear() {
        for (one, two) in [
            ("</thinker1>", "</persona2>"),
            ("", "</persona2>"),
            ("\n", "</b>\n"),
            ("</x>", ""),
            ("</think1>", "</think2>"),
        ] {
            let text = tidy().replace("</persona1>", one).replace("</persona2>", two);
            let dialogue = Dialogue::parse(&text).unwrap();
            assert_eq!(dialogue.cast.iter().map(|block| block.text).collect::<Vec<_>>(), ["A", "B"], "{text}");
            assert!(dialogue.notes[0].to_string().ends_with("`<persona1>` is not closed before `<persona2>`"));
            assert_eq!(dialogue.notes.len(), if two == "</persona2>" { 1 } else { 2 });
            assert_eq!(Dialogue::parse(&dialogue.write()).unwrap().notes, []);
        }
    }

    /// Text that a block may hold: no tags, no blanks around it.
    fn words() -> impl Strategy<Value = String> {
        "[a-z\u{e9}.<>/=+0-9]{1,4}( [a-z\n]{1,5}){0,3}"
            .prop_filter("no tags", |text| marks(text).is_empty() && text.trim() == text)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            cast in prop::collection::vec(words(), 1..5),
            said in prop::collection::vec((0..4usize, words()), 1..8),
            settled in prop::sample::subsequence(vec![Tag::GroupConsensus, Tag::GroupSolution, Tag::Answer], 1..4),
            conclusion in words(),
        ) {
            let block = |tag, text| Block { tag, text, span: 0..0 };
            let dialogue = Dialogue {
                cast: cast.iter().zip(1..).map(|(text, number)| block(Tag::Persona(number), text)).collect(),
                turns: said.iter().map(|(who, text)| block(Tag::Turn(1 + who % cast.len()), text)).collect(),
                ending: settled.iter().map(|tag| block(*tag, &conclusion)).collect(),
                notes: vec![],
            };
            let text = dialogue.write();
            let mut again = Dialogue::parse(&text).unwrap();
            prop_assert_eq!(again.counts(), dialogue.counts());
            prop_assert_eq!(again.write(), text.clone());
            for block in again.cast.iter_mut().chain(&mut again.turns).chain(&mut again.ending) {
                prop_assert_eq!(&text[block.span.clone()], block.text);
                block.span = 0..0;
            }
            again.notes.clear();
            prop_assert_eq!(again, dialogue);
        }

        #[test]
        fn nothing_read_goes_beyond_the_text(parts in prop::collection::vec(prop::sample::select(vec![
            "<cast_of_characters>", "</cast_of_characters>", "<persona1>", "</persona1>", "<conversation>", "a\n", "é",
            "</conversation>", "<think1>", "</think1>", "<group_solution>", "</group_solution>",
            "<answer>", "</answer>",
        ]), 0..24)) {
            let text = parts.concat();
            match Dialogue::parse(&text) {
                Ok(dialogue) => prop_assert!(!dialogue.turns.is_empty() && !dialogue.solution().is_empty()),
                Err(remark) => prop_assert!(remark.at <= text.len() && !remark.what.is_empty()),
            }
        }
    }
}
