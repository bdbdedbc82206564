//! Sentences, for rules that ask how one begins or ends.
//!
//! A sentence ends at `.`, `!` or `?` (or their Chinese forms) before a blank, and at the end of a line. `3.5` does not
//! end one; `e.g. this` does, which costs nothing here. What stands before the first word of a sentence is left out if
//! it is a bullet, the number of a list's item, or the name of a speaker with a colon.

/// A sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentence<'a> {
    pub text: &'a str,
    /// Whether it ends with a question mark, which quotation marks or brackets may follow, right after a word.
    pub asks: bool,
    /// Whether it is the first of its line.
    pub opens: bool,
}

/// The sentences of a text, in order, none of them empty. Time is linear in the text's length.
pub fn sentences(text: &str) -> Vec<Sentence<'_>> {
    let mut found = vec![];
    for line in text.lines() {
        let before = found.len();
        let mut start = 0;
        // Whether only ends, quotation marks and brackets follow the last end of a sentence.
        let (mut ended, mut quoted) = (false, false);
        for (at, c) in line.char_indices() {
            quoted = ended && closes(c) || quoted && ends(c);
            ended = ends(c) || quoted;
            let rest = &line[at + c.len_utf8()..];
            let stops =
                is_wide(c) || rest.is_empty() || rest.starts_with(char::is_whitespace) && !(quoted && goes_on(rest));
            if ended && stops && !is_number(&line[start..line.len() - rest.len()]) {
                push(&line[start..line.len() - rest.len()], found.len() == before, &mut found);
                start = line.len() - rest.len();
                (ended, quoted) = (false, false);
            }
        }
        push(&line[start..], found.len() == before, &mut found);
    }
    found
}

fn ends(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…') || is_wide(c)
}

/// Ends that no blank follows.
fn is_wide(c: char) -> bool {
    matches!(c, '。' | '！' | '？')
}

fn closes(c: char) -> bool {
    matches!(c, '"' | '\'' | '”' | '’' | ')' | ']' | '*' | '_')
}

/// Whether a sentence goes on after something quoted: `"Is it?" he asked`.
fn goes_on(rest: &str) -> bool {
    rest.trim_start().starts_with(char::is_lowercase)
}

/// `12.` as a whole, which begins an item of a list.
fn is_number(text: &str) -> bool {
    let digits = text.trim_start().strip_suffix('.').unwrap_or_default();
    !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn push<'a>(text: &'a str, opens: bool, found: &mut Vec<Sentence<'a>>) {
    let text = without_label(text.trim());
    if !text.is_empty() {
        let asked = text.trim_end_matches(closes).strip_suffix(['?', '？']);
        let asks = asked.is_some_and(|asked| asked.trim_end_matches(closes).ends_with(char::is_alphanumeric));
        found.push(Sentence { text, asks, opens });
    }
}

fn is_bullet(c: char) -> bool {
    c.is_whitespace() || matches!(c, '-' | '*' | '•' | '>' | '#' | '"' | '\'' | '“' | '‘' | '_' | '[')
}

/// Without bullets, an item's number, and a speaker's name.
fn without_label(text: &str) -> &str {
    let mut text = text.trim_start_matches(is_bullet);
    let digits = text.bytes().take(3).take_while(u8::is_ascii_digit).count();
    if digits > 0
        && let Some(rest) = text[digits..].strip_prefix(['.', ')', ':'])
        && rest.starts_with(char::is_whitespace)
    {
        text = rest.trim_start_matches(is_bullet);
    }
    let labelled = text.split_once(": ").filter(|(name, _)| is_name(name));
    labelled.map_or(text, |(_, said)| said.trim_start_matches(is_bullet))
}

/// One to three words with capitals, as in `Anna`, `Prof. Lee`, `Tired Tom Nash`.
fn is_name(text: &str) -> bool {
    let is_word = |word: &str| {
        let letters = word.strip_suffix('.').unwrap_or(word);
        letters.starts_with(char::is_uppercase) && letters.chars().all(|c| c.is_alphabetic() || c == '-')
    };
    text.len() <= 40 && text.split(' ').count() <= 3 && text.split(' ').all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<&str> {
        sentences(text).into_iter().map(|sentence| sentence.text).collect()
    }

    #[test]
    fn text_is_divided() {
        for (text, expected) in [
            ("No. It is 3.5, I say! So?", vec!["No.", "It is 3.5, I say!", "So?"]),
            ("one\n\n two ", vec!["one", "two"]),
            ("He said \"no.\" Then (so.) He left...", vec!["He said \"no.\"", "Then (so.)", "He left..."]),
            ("He asked \"so?\" and left. Yes", vec!["He asked \"so?\" and left.", "Yes"]),
            ("1. First this. 2. then that", vec!["First this.", "then that"]),
            ("- **Wait**, no\n12) yes\n* 3: a", vec!["Wait**, no", "yes", "a"]),
            ("Alex: No, it is.\nProf. Ben Smith: so", vec!["No, it is.", "Prof.", "so"]),
            ("Note that: so\nTo be it: is", vec!["Note that: so", "To be it: is"]),
            ("3*4=12 no, 12+5=17 yes", vec!["3*4=12 no, 12+5=17 yes"]),
            ("是吗？不是。好", vec!["是吗？", "不是。", "好"]),
            ("?! ... -", vec!["?!", "..."]),
            ("2.5 is 5/2. 7.", vec!["2.5 is 5/2.", "7."]),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        let opens: Vec<bool> = sentences("a. b\n\n- c").iter().map(|sentence| sentence.opens).collect();
        assert_eq!(opens, [true, false, true]);
    }

    #[test]
    fn questions_end_with_their_mark() {
        let asks = |text: &str| sentences(text).iter().map(|sentence| sentence.asks).collect::<Vec<_>>();
        assert_eq!(asks("Is it? \"Is it?\" (So?) It is. ?x 好？"), [true, true, true, false, true]);
        assert_eq!(asks("what?!\nwho?\n[a, ?]\n3 ?\n*Why*?"), [false, true, false, false, true]);
    }

    proptest! {
        #[test]
        fn nothing_but_labels_and_blanks_is_lost(text: String) {
            for line in text.lines() {
                let mut rest = line;
                for sentence in sentences(line) {
                    rest = rest.split_once(sentence.text).unwrap().1;
                }
                prop_assert!(rest.chars().all(|c| !c.is_alphanumeric()) || rest.contains([':', '.', ')']));
            }
        }
    }
}
