//! Characters that would act on a page unseen, made visible.

use std::borrow::Cow;

/// The text with its control characters, and those that turn or hide what is around them, as `⟨U+202E⟩`. Models write
/// such characters, and file names may have them.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts_unseen) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts_unseen(c) { shown += &format!("⟨U+{:04X}⟩", c as u32) } else { shown.push(c) }
    }
    shown.into()
}

/// Controls apart from line ends and tabs; marks and embeddings of direction; spaces without width, other line ends and
/// tags. Joiners are part of words and emoji.
fn acts_unseen(c: char) -> bool {
    let direction =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let hidden = matches!(c, '\u{ad}' | '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    let tag = matches!(c, '\u{e0000}'..='\u{e007f}');
    c.is_control() && !matches!(c, '\n' | '\t') || direction || hidden || tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_unseen_is_shown() {
        assert_eq!(visible("a\u{202e}b\u{1b}[31m\u{7}\r\0"), "a⟨U+202E⟩b⟨U+001B⟩[31m⟨U+0007⟩⟨U+000D⟩⟨U+0000⟩");
        assert_eq!(visible("\u{2066}\u{e0041}"), "⟨U+2066⟩⟨U+E0041⟩");
        for plain in ["a line\n\tand <another>", "שלום", "👩\u{200d}🔬", "é"] {
            assert!(matches!(visible(plain), Cow::Borrowed(same) if same == plain));
        }
    }
}
