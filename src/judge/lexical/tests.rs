//! Every rule has a sentence that it finds and one that it nearly does.

use super::rules::{RULES, cues, plain};
use super::*;
use crate::recipe::TraceStyle;
use crate::rng::{Purpose, stream};
use crate::task::countdown::{MAX_VALUE, Problem, SolverOptions, solver_dialogue, solver_trace};
use proptest::prelude::*;
use regex::Regex;
use std::sync::LazyLock;

/// Conversational and cognitive counts.
fn counts(text: &str) -> ([u32; 4], [u32; 4]) {
    let judgement = judgement(text);
    (judgement.conversational.unwrap(), judgement.cognitive.unwrap())
}

/// For each rule, in the order of the table: a sentence with its cue, and one without it.
const SENTENCES: &[(&str, &str)] = &[
    // Shift
    ("Alternatively, multiply.", "The alternative is bad."),
    ("It is 3 or, alternatively, 4.", "It is an alternatively spelt word."),
    ("On the other hand, it is even.", "It is on the other hand of the clock."),
    ("What about products?", "That is what it is about."),
    ("But what if it is odd?", "I see what it is if odd."),
    ("Let's suppose it is 4.", "It is supposed to be 4."),
    ("Suppose we multiply first.", "They suppose it is."),
    ("There is another way.", "There is no other way."),
    ("Here's another: 3*4.", "Here's the other."),
    ("From a legal and moral perspective it is right.", "The perspective of the picture is right."),
    ("From your point of view it is.", "The point of the view is nice."),
    ("Let's look at it from the side.", "Let's look at it."),
    ("We should also consider the time.", "The also-considered time."),
    ("Let's not forget the time.", "He forgot the time."),
    ("Think about it differently.", "Think about it."),
    ("I see this as a line.", "I see this line."),
    // Conflict
    ("I respectfully disagree.", "The results are in disagreement."),
    ("I can't agree with this.", "I agree with this."),
    ("I'm not entirely convinced.", "I'm convinced."),
    ("Well, no, it is 4.", "There is no, or little, water."),
    ("However, it is 4.", "It is 4, however."),
    ("Oh wait, it is 4.", "They wait for the bus."),
    ("Actually it is 4.", "It is actually 4."),
    ("Hmm, actually it is 4.", "So it actually is."),
    ("Right, but it is 4.", "The right button is 4."),
    ("I agree with the sum, but it is 4.", "I agree with the sum."),
    ("That's true, but it is 4.", "That's true."),
    ("It is a good start, Anna, but it is 4.", "It is a good start."),
    ("But isn't it 4?", "But it is 4."),
    ("But your sum is 4.", "But their sum is 4."),
    ("That is not right.", "That is not all of it."),
    ("It can't be right.", "It is right."),
    ("You're mistaken here.", "They're mistaken here."),
    ("You forgot the 4.", "He forgot the 4."),
    ("I don't think so.", "I think so."),
    ("Are you sure about it?", "We are sure about it."),
    ("My objection is another.", "He has an objection."),
    // Reconciliation
    ("I agree with both.", "I agree with it."),
    ("Both of you are quick.", "Both of them are quick."),
    ("So we all agree on 4.", "We all see 4."),
    ("We're on the same page.", "It is on the same page."),
    ("There is a consensus.", "There is sense."),
    ("Good point, Anna.", "A good pointer is there."),
    ("I see your point.", "I see the point A."),
    ("You're absolutely right.", "Turn to your right."),
    ("I stand corrected.", "I corrected it."),
    ("That settles it.", "He settles in town."),
    ("Combining our ideas gives 4.", "Combining these two gives 4."),
    ("Putting our sums together gives 4.", "Putting it together gives 4."),
    ("All views are here.", "The views are here."),
    // Agreement
    ("I fully agree.", "They fully agree."),
    ("Exactly, it is 4.", "It is exactly 4."),
    ("Yes, it is 4.", "The answer is yes, it seems."),
    ("That makes sense, Anna.", "It all makes sense."),
    ("That works, Anna.", "That word is odd."),
    // Verification
    ("I double-checked it.", "It is a double pawn."),
    ("Let's quickly check the sum.", "White gives check."),
    ("Let me recalculate it.", "The calculator is here."),
    ("We should verify that.", "We should do that."),
    ("To confirm, it is 4.", "The confirmation came."),
    ("Verifying it gives 4.", "A verse gives 4."),
    ("It all checks out.", "He checks in."),
    ("Let's make sure it is 4.", "He is sure it is 4."),
    ("Does this equal 4?", "These equal 4."),
    ("That satisfies all conditions.", "The conditions hold."),
    ("It doesn't equal the sum.", "The sum is equal."),
    ("There are no contradictions.", "It is contradictory."),
    ("It is consistent with all clues.", "It is consistent."),
    // Backtracking
    ("That doesn't work.", "That worked."),
    ("This is not working.", "This is a working day."),
    ("This can't be right.", "This is right."),
    ("I start over.", "I start the car over there."),
    ("Back to square one.", "Go back to a square."),
    ("Let's go back to 3.", "It goes back to 3."),
    ("We try another product.", "We try it."),
    ("Scratch that.", "It is a scratch."),
    ("We drop this idea.", "The drop is small."),
    ("Let us reconsider it.", "Let us consider it."),
    ("Instead, let's add them.", "It is 3 instead."),
    ("I made a mistake.", "They made a mistake."),
    ("I misread the 4.", "He misread the 4."),
    // Subgoal
    ("Let's break this down.", "The car may break this year."),
    ("I break down the problem.", "The cars break down."),
    ("Let's start by adding.", "They start by car."),
    ("First, we need an even one.", "First, it is even."),
    ("Next, let's find the sum.", "Next, it is the sum."),
    ("The first step is a sum.", "The first steps are here."),
    ("Our goal is to add up.", "The goal of the team."),
    ("Once we find 4, we add.", "Once there was a 4."),
    ("We need to find the sum.", "We need the sum."),
    // Backward
    ("We work backwards from 24.", "We walk backwards 24 steps."),
    ("I reverse-engineer the sum.", "I engineer the sum in reverse."),
    ("Start with the target.", "Start with the first number."),
    ("Beginning at the desired value, I divide.", "Beginning at noon, I divide."),
    ("To get 24, we need 4 and 6.", "To get it, we need 4 and 6."),
    ("We still need 5 more.", "We still need more."),
    ("That is 3 more than the target.", "That is 3 more than that."),
    ("The target minus 3 is 21.", "Their target is minus 3."),
    ("List factors of the target.", "List factors."),
    ("Which product gives 24?", "Which product is even?"),
    ("Assume the answer is 4.", "He says the answer is 4."),
    ("For the sum to be 4, it is even.", "For the sum, it is even."),
];

/// A rule over sentences as they are: what the judge finds in sentences that it has made plain.
fn in_all_languages(pattern: &str) -> Regex {
    let expression = rules::expression(pattern).replace('\'', "['\u{2019}]");
    Regex::new(&format!("(?i){expression}")).unwrap()
}

/// No pattern names what stands for the letters and digits of other languages, or tells one blank from another.
#[test]
fn patterns_do_not_know_what_stands_for_others() {
    let counts = Regex::new(r"\{[0-9,]+\}").unwrap();
    for (_, pattern, _) in RULES {
        let named = counts.replace_all(pattern, "");
        assert!(pattern.is_ascii() && !named.contains(|c: char| c == '_' || c.is_ascii_digit()), "{pattern}");
    }
}

#[test]
fn every_rule_finds_its_sentence_and_not_the_one_beside_it() {
    assert_eq!(SENTENCES.len(), RULES.len());
    for ((cue, pattern, note), (hit, miss)) in RULES.iter().zip(SENTENCES) {
        let own = in_all_languages(pattern);
        assert!(own.is_match(hit), "{pattern}: {hit}");
        assert!(cues(hit).any(|found| found == *cue), "{pattern}: {hit}");
        assert!(!own.is_match(miss), "{pattern}: {miss}");
        assert!(!note.is_empty() && sentences(hit).len() == 1 && sentences(miss).len() == 1, "{hit} {miss}");
    }
}

#[test]
fn patterns_know_blanks_and_apostrophes_and_case() {
    for text in ["LET\u{2019}S  double\u{a0}CHECK it.", "let's double check it."] {
        assert_eq!(counts(text).1, [1, 0, 0, 0], "{text}");
    }
    assert_eq!(counts("Let's double-check it and make sure.\nTo verify: 4.").1, [2, 0, 0, 0]);
}

#[test]
fn questions_count_when_something_answers_them() {
    for (text, answered) in [
        ("Is it 4? It is.", 1),
        ("Is it 4? Is it 5? It is.", 1),
        ("Is it 4? Yes. Is it 5?", 1),
        ("Is it 4?", 0),
        ("<think1>Why?</think1><think2>It is odd.</think2>", 1),
        ("<think1>Why?</think1><group_solution>It is odd.</group_solution>", 0),
        ("3*4=12? It is.", 0),
        ("The question is \"Is it 4?\" It is.", 0),
        ("He asks \"is it?\" and goes. It is.", 0),
        ("[a, b, ?] So it is.", 0),
    ] {
        assert_eq!(counts(text).0[0], answered, "{text}");
    }
}

#[test]
fn agreement_reconciles_what_differs() {
    for (text, [conflict, reconciled]) in [
        ("I agree. Exactly.", [0, 0]),
        ("I disagree. It is 4. I agree now. Exactly.", [1, 1]),
        ("What about 4? Right, it is.", [0, 1]),
        ("I agree, but it is 4.", [1, 0]),
        ("<think1>It is 3.</think1><think2>No, it is 4.</think2><think1>Yes, it is.</think1>", [1, 1]),
        ("You're right.", [0, 1]),
        ("That makes sense. But it is 4.", [1, 0]),
        ("It is so. But it is 4.", [0, 0]),
        ("Is it 4? No, it is 5.", [0, 0]),
        ("Is it 4?\nNo, it is 5.", [1, 0]),
    ] {
        let found = counts(text).0;
        assert_eq!([found[2], found[3]], [conflict, reconciled], "{text}");
    }
}

#[test]
fn enumeration_is_no_conversation() {
    let tries = "12-5=7,7*7=49 no\n12+5=17,17*7=119 no\n5*12=60,60+7=67 yes";
    for text in [
        "1. First do the sum. 2. Then divide. 3. Write it down.",
        "1. first do the sum\n2. then divide\n3. finally write it down",
        "3*4=12 no, 12+5=17 yes",
        tries,
        &format!("<think>\n{tries}\n</think>\n<answer>5*12+7</answer>"),
        &tries.replace('\n', ", "),
        "- Alice: Karl\n- Bob: Helga\n- Claire: Izzi",
        "6 / 4 = 1.5\n6 - 4 = 2\n(6 - 4) * 7 = 14",
    ] {
        assert_eq!(counts(text), ([0; 4], [0; 4]), "{text}");
    }
}

#[test]
fn a_disagreement_in_words_counts() {
    let text = "<think1>Let us try this. 12-5=7,7*7=49 no</think1>\n<think2>No, that misses. 12+5=17 no</think2>\n\
        <think1>I disagree, look here. 5*12=60,60+7=67 yes</think1>\n<think2>Yes, I agree.</think2>";
    assert_eq!(counts(text), ([0, 0, 2, 1], [0; 4]));
    let judgement = judgement(text);
    assert_eq!(judgement.perspectives.as_ref().unwrap().len(), 2);
    let said: Vec<&str> = judgement.segments.iter().map(|s| &text[s.start..s.end]).collect();
    assert_eq!(said[3], "Yes, I agree.");
    assert_eq!(judgement.segments.iter().map(|s| s.perspective).collect::<Vec<_>>(), [0, 1, 0, 1]);
}

/// A trace of our solver: a list of tries, or with personas a dialogue.
fn of_solver(index: u64, personas: Option<usize>) -> String {
    let options = SolverOptions { tries: [2, 12], insight: 0.2, more: 0, max_value: MAX_VALUE };
    let problem = Problem { nums: vec![5, 7, 12, 3], target: 67 };
    let mut rng = stream(0, Purpose::Traces, 0, index);
    match personas {
        None => solver_trace(&problem, TraceStyle::Monologue, &options, &mut rng),
        Some(personas) => solver_dialogue(&problem, personas, &options, &mut rng),
    }
}

#[test]
fn lists_of_tries_have_no_behaviour_and_dialogues_have_theirs_without_tags() {
    for index in 0..300 {
        let list = of_solver(index, None);
        assert_eq!(counts(&list), ([0; 4], [0; 4]), "{list}");
        let dialogue = of_solver(index, Some(2 + index as usize % 3));
        let judged = judgement(&dialogue);
        let opened = (1..=4).filter(|voice| dialogue.contains(&format!("<think{voice}>"))).count();
        assert_eq!(judged.perspectives.as_ref().unwrap().len(), opened, "{dialogue}");
        let said: Vec<&str> = judged.segments.iter().map(|part| &dialogue[part.start..part.end]).collect();
        assert_eq!(counts(&said.join("\n")), counts(&dialogue), "{dialogue}");
    }
}

#[test]
fn what_it_cannot_see_is_absent() {
    let judgement = judgement("I think it is 4.");
    assert_eq!(judgement.roles, None);
    assert_eq!(judgement.perspectives, Some(vec![Perspective { bfi: None, expertise: None }]));
    assert!(Lexical.cannot_see().unwrap().contains("roles"));
    let json = serde_json::to_value(&judgement).unwrap();
    assert_eq!(json["conversational"], serde_json::json!([0, 0, 0, 0]));
    assert!(json.get("roles").is_none());
    let traces = [Trace { problem: "p".into(), text: "Is it 4? It is.".into() }];
    assert_eq!(Lexical.judge(&traces).unwrap()[0].as_ref().unwrap().conversational.unwrap()[0], 1);
}

#[test]
fn time_is_linear() {
    for part in
        ["<", "?", "? ", "No, ", "a", " ", "I agree, but ", "<think1>", "what ", "1. ", "\u{2019}", "once we find "]
    {
        judgement(&part.repeat(1 << 16));
    }
}

proptest! {
    #[test]
    fn no_text_panics_and_segments_are_in_order(
        parts in prop::collection::vec(prop_oneof![
            any::<String>(),
            "</?(think[0-5]?|answer|persona[1-4]|conversation|group_solution|cast_of_characters)>",
            "(No, |Wait|I agree\\.|but|What about|\\?|\\.|\\n| |let's|’|['\"]|1\\. ){0,6}",
        ], 0..12),
    ) {
        let text = parts.concat();
        let judgement = judgement(&text);
        let voices = judgement.perspectives.unwrap().len();
        let mut end = 0;
        for segment in &judgement.segments {
            prop_assert!(end <= segment.start && segment.start < segment.end && segment.perspective < voices);
            prop_assert_eq!(text[segment.start..segment.end].trim().len(), segment.end - segment.start);
            end = segment.end;
        }
        prop_assert!((0..voices).all(|voice| judgement.segments.iter().any(|s| s.perspective == voice)));
    }

    #[test]
    fn sentences_of_all_languages_are_read_as_they_are(
        parts in prop::collection::vec(prop_oneof![
            any::<char>().prop_map(String::from),
            prop::sample::select(vec![
                "\u{e9}", "\u{17f}", "\u{212a}", "\u{b2}", "\u{203f}", "\u{200d}", "\u{301}", "\u{a0}", "\u{85}",
                "\u{661}", "\u{660}", "\u{2160}", "\u{2019}", "'", " ", ", ", ".", "_", "0", "\u{4f60}",
            ]).prop_map(String::from),
            prop::sample::select(SENTENCES).prop_map(|(hit, _)| hit.to_string()),
            prop::sample::select(SENTENCES).prop_map(|(hit, _)| hit.replace(['s', 'S'], "\u{17f}").replace(' ', "\u{2003}")),
        ], 0..6),
    ) {
        let text = parts.concat();
        let found: Vec<Cue> = cues(&text).collect();
        let expected = RULES.iter().zip(&*EXPRESSIONS).filter(|(_, own)| own.is_match(&text));
        prop_assert_eq!(found, expected.map(|((cue, ..), _)| *cue).collect::<Vec<_>>());
        prop_assert_eq!(plain(&text).len(), text.chars().count());
    }
}

static EXPRESSIONS: LazyLock<Vec<Regex>> =
    LazyLock::new(|| RULES.iter().map(|(_, pattern, _)| in_all_languages(pattern)).collect());
