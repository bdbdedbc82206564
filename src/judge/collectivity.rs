//! Collectivity: how often a trace says "we".
//!
//! What counts are the pronouns of the first person plural (`we`, `us`, `our`, `ours`, `ourselves`), the contractions
//! that begin with one, and `let's`. `US` in capitals is a country. Only what voices say is read: tags, answers and
//! the cast of characters are left out. Words are what blanks divide.

use super::voices::speeches;

/// The words of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    pub we: u32,
    /// All words, those of `we` among them.
    pub all: u32,
}

/// Counts the words that voices say.
pub fn words(text: &str) -> Words {
    let mut words = Words::default();
    for speech in speeches(text) {
        for word in text[speech.span].split_whitespace() {
            words.all += 1;
            words.we += u32::from(word.split(|c: char| !(c.is_alphabetic() || is_apostrophe(c))).any(is_we));
        }
    }
    words
}

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '’')
}

fn is_we(word: &str) -> bool {
    const PRONOUNS: [&str; 5] = ["we", "us", "our", "ours", "ourselves"];
    let word = word.trim_matches(is_apostrophe);
    let (pronoun, contracted) = word.split_once(is_apostrophe).unwrap_or((word, ""));
    let is = |other: &str| pronoun.eq_ignore_ascii_case(other);
    match contracted {
        "" => pronoun != "US" && PRONOUNS.iter().any(|other| is(other)),
        _ => is("we") || is("let") && contracted.eq_ignore_ascii_case("s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_person_plural_is_found() {
        for (text, we, all) in [
            ("We know. Let us go, let's go; it is Ours—ourselves!", 4, 10),
            ("we're we’ll WE'VE Let’s \"our\" (us)", 6, 6),
            ("owe west bus hour lets let were US U.S. I you weird", 0, 12),
            ("<think>we</think> we <answer>we</answer>", 1, 1),
            ("<persona1>we we</persona1><think1>a we</think1> we <group_solution>we</group_solution>", 1, 2),
            ("12-5=7,7*7=49 no", 0, 2),
            ("", 0, 0),
        ] {
            assert_eq!(words(text), Words { we, all }, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_words(text: String) {
            let words = words(&text);
            prop_assert!(words.we <= words.all && words.all as usize <= text.len());
        }
    }
}
