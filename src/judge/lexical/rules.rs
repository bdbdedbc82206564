//! What the lexical judge listens for: all of its rules, in one table.
//!
//! A pattern is a regular expression over one sentence, whatever the case of its letters. It begins and ends between
//! words, unless it ends with a punctuation mark; `^` is the beginning of the sentence. A blank is any run of blanks,
//! and `'` is also a curly apostrophe.
//!
//! The rules were written from the definitions of the behaviours and tuned on the training half of a public set of
//! dialogues and monologues; docs/judges.md says what they find in the other half.
//!
//! A verdict without words is no behaviour: `12-5=7 no` drops nothing and checks nothing that one could read, or else
//! every list of tries would count as backtracking. `No, that misses.` is a disagreement.

use Cue::{
    Agreement, Backtracking, Backward, Conflict, Contrast, Denial, Reconciliation, Shift, Subgoal, Verification,
};
use regex::bytes::{RegexSet, RegexSetBuilder};
use std::borrow::Cow;
use std::sync::LazyLock;

/// What a sentence gives away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cue {
    /// Another way to look at it, another approach, an assumption to play through.
    Shift,
    /// A difference with what was said before, by others or by oneself.
    Conflict,
    /// A `but` that opens: it is a conflict if the sentence before agrees.
    Contrast,
    /// A `no` that opens: it is a conflict unless it answers a question of the same line.
    Denial,
    /// A difference is settled, or several views are put together.
    Reconciliation,
    /// Mere agreement: it reconciles if there was a difference before it.
    Agreement,
    /// A result is checked.
    Verification,
    /// An approach is dropped.
    Backtracking,
    /// A step on the way is set.
    Subgoal,
    /// The way is sought from the goal.
    Backward,
}

/// The rules: what they find, the pattern, and what it means.
pub const RULES: &[(Cue, &str, &str)] = &[
    (Shift, "^alternatively", "an alternative"),
    (Shift, "or,? alternatively,", "an alternative"),
    (Shift, "^on the other hand", "the other side"),
    (Shift, "^(what|how) about", "a proposal"),
    (Shift, "(what if|but what about)", "an assumption, a side that was left out"),
    (Shift, "(let's|let us|now|just) (suppose|imagine)", "an assumption"),
    (Shift, "^(suppose|imagine) (we|you|i|that|instead|for a moment)", "an assumption"),
    (Shift, "(another|a different|one more) (way|approach|angle|perspective|idea|view|thought)", "a second way"),
    (Shift, "(i have|here's|there's) another", "a second way"),
    (Shift, "from (a|an|the|my|your|another) (\\w+ ){0,3}(perspective|viewpoint|standpoint|angle)", "a named view"),
    (Shift, "from (my|your|another|a different) point of view", "a named view"),
    (Shift, "let's (look at|see|view|think of|visualize|picture) (it|this|that) (as|from|differently)", "a new view"),
    (Shift, "(should|let's|must|to|could|have to) also (consider|think about|look at|keep in mind)", "a further side"),
    (Shift, "(let's|we should|do|should|must) not (forget|overlook|ignore)|don't forget", "a further side"),
    (Shift, "(look|think) (at|about) (it|this|that) (differently|another way|from)", "a new view"),
    (Shift, "(i|we) (can )?(see|view|visualize|picture|imagine|think of) (it|this|that) (as|like|more)", "a view"),
    (Conflict, "(i|we) (must |have to |would |respectfully |strongly )?(disagree|object)", "open disagreement"),
    (Conflict, "(i|we) (don't|do not|can't|cannot) agree", "open disagreement"),
    (Conflict, "(i beg to differ|on the contrary|i'm not (so |entirely |quite )?(sure|convinced))", "disagreement"),
    (Denial, "^((well|hmm|but|oh),? )?(no|nope|nah)[,.!;:]", "a no that opens a sentence"),
    (Contrast, "^(but|however)", "a but that opens a sentence"),
    (Conflict, "^(hmm,? |oh,? |but |right, but |yes, but |okay, but )?(wait|hold on|hang on|not so fast)", "a halt"),
    (Conflict, "^(actually|not quite|not exactly|not necessarily|not really|not yet)", "a correction"),
    (Conflict, "^(well|but|hmm|no|yes),? actually", "a correction"),
    (Conflict, "^(right|okay|ok|yes|yeah|sure|true|agreed|fair enough|exactly)[,;]? (but|however|though)", "yes, but"),
    (Conflict, "^(while )?i (agree|see|understand|get)[^.]{0,80}, (but|however|though|let's not)", "yes, but"),
    (Conflict, "^(that|it|this)('s| is) (true|right|correct|a (good|fair|valid))[^.]{0,60}, (but|however)", "yes, but"),
    (Conflict, "(good|fair|valid|great|interesting) (point|start|idea|thought)[^.]{0,40}, but", "yes, but"),
    (Conflict, "^but (isn't|aren't|doesn't|don't|does|do|is|are|can|could|shouldn't|why|how)", "an objection"),
    (Conflict, "^but (i|you|your|that's not|that isn't|that doesn't|that can't|that would)", "an objection"),
    (
        Conflict,
        "(that|this|it)('s| is) (not|wrong|incorrect)( (right|true|correct|it|so|accurate|quite))?[.,;!]",
        "a no",
    ),
    (
        Conflict,
        "(that|this|it) (can't|cannot|isn't|doesn't seem|doesn't look) (to )?(be )?(right|true|correct)",
        "a no",
    ),
    (
        Conflict,
        "you('re| are|'ve| have| may be| might be)? ?(wrong|mistaken|overlooking|forgetting|missing)",
        "an error",
    ),
    (Conflict, "you (forgot|missed|overlooked|misread|misunderstood|ignored)", "an error of the other"),
    (Conflict, "(i|we) (doubt|(don't|do not) (think|believe|see (how|why)))", "doubt"),
    (Conflict, "(are you (really )?(sure|certain)|that misses|says who|makes no sense)", "a challenge"),
    (Conflict, "(my|your|the other|his|her) (objection|counterargument|counterpoint)", "a challenge"),
    (Reconciliation, "agree with (both|all of|everyone|everybody|you both|you all)", "several views at once"),
    (Reconciliation, "(both of you|you('re| are) both|you both)", "several views at once"),
    (
        Reconciliation,
        "(we|we're|we are|we can|we seem to)( all| both) (agree|in agreement|on the same page)",
        "all agree",
    ),
    (Reconciliation, "(we are|we're|we seem to be) (in agreement|on the same page)", "all agree"),
    (Reconciliation, "(consensus|common ground|compromise|middle ground)", "what is common"),
    (
        Reconciliation,
        "(good|fair|valid|excellent|great) (point|catch|question|observation|objection)",
        "a point is granted",
    ),
    (Reconciliation, "(i (see|get|take) your point|you('ve| have) (got )?a point)", "a point is granted"),
    (Reconciliation, "you('re| are) (absolutely |completely |quite |totally )?right", "the other is right"),
    (
        Reconciliation,
        "(i stand corrected|my mistake|my bad|i was wrong|thanks for (catching|pointing))",
        "the other is right",
    ),
    (Reconciliation, "that (settles|resolves|reconciles)", "a difference ends"),
    (Reconciliation, "(combin|merg|reconcil|integrat)(e|ing) (both|our|your|my|everyone's)", "views together"),
    (Reconciliation, "(put|putting) (our|everyone's) (\\w+ )?together", "views together"),
    (Reconciliation, "(both|all|our) (views|ideas|approaches|perspectives|arguments|analyses)", "views together"),
    (Agreement, "(i|we|i'd|i'll) (also |fully |completely |totally |definitely |all )?(agree|concur)", "agreement"),
    (Agreement, "^(so )?(agreed?|exactly|indeed|absolutely|precisely|certainly|definitely)", "agreement opens"),
    (Agreement, "^(yes|yeah|yep|right|correct|true|sure|okay|ok)[,.!]", "agreement opens"),
    (
        Agreement,
        "^that('s| is| sounds| seems| makes) (absolutely |exactly |perfectly )?(right|correct|true|sense)",
        "yes",
    ),
    (Agreement, "^that (works|fits|checks out|does it|is it)", "yes"),
    (Verification, "(double|cross|sanity)[- ]?check(s|ed|ing)?", "a second check"),
    (Verification, "(let's|let me|let us|i'll|we'll) (\\w+ )?(check|verify|confirm|validate|recheck|test)", "a check"),
    (Verification, "(let's|let me|let us|i'll|we'll) (\\w+ )?(re-?calculate|re-?compute|re-?examine)", "a check"),
    (Verification, "(we|i) (can|should|could|need to|must) (\\w+ )?(check|verify|confirm|validate|test)", "a check"),
    (Verification, "(just )?to (\\w+ )?(verify|confirm|check|be (sure|certain|safe|thorough))", "a check"),
    (Verification, "(verifying|verified|verifies|verification|rechecking|validating)", "a check"),
    (Verification, "(checks|adds) (out|up)", "a check succeeds"),
    (Verification, "(let's|let me|to|we should|should|must) make (absolutely )?(sure|certain)", "a check"),
    (
        Verification,
        "(does|do|did) (this|that|it|these|they|everything) (match|equal|satisfy|fit|work|hold|add up)",
        "a check",
    ),
    (Verification, "(this|that|it) (confirms|satisfies|matches|equals|fits|meets) (the|all|both|our|every)", "a check"),
    (Verification, "(doesn't|does not) (match|equal|satisfy|add up to) (the|our|all|any)", "a check fails"),
    (Verification, "(no|any) (contradictions?|mistakes?|errors?|inconsistenc(y|ies))", "a check"),
    (
        Verification,
        "(consistent|aligns?|fits?|agrees) with (all|everything|the (given|conditions|information))",
        "a check",
    ),
    (
        Backtracking,
        "(that|this|it)( just| also| still)? (doesn't|does not|didn't|won't) (work|help|lead|get us)",
        "in vain",
    ),
    (Backtracking, "(that|this|it)('s| is| isn't| was)( not)? (not working|working out|going to work)", "in vain"),
    (Backtracking, "(can't|cannot) (be right|work|be the way)", "in vain"),
    (Backtracking, "(start|starting|begin) (over|again|afresh|from scratch)", "a new start"),
    (Backtracking, "back to (square one|the (start|beginning|drawing board))", "a new start"),
    (
        Backtracking,
        "(let's|let me|i'll|we should|should|must|need to|have to) (go|step|take a step) back",
        "a way back",
    ),
    (Backtracking, "try (something else|something different|another|a different|other|again|instead)", "another try"),
    (Backtracking, "(dead end|scratch that|scrap that|never ?mind|forget that|that fails|this fails)", "an end"),
    (
        Backtracking,
        "(drop|abandon|give up on|discard) (this|that|it|the (idea|approach|plan|path))",
        "an approach ends",
    ),
    (Backtracking, "(reconsider|rethink|re-?evaluate|revisit|redo|backtrack)(ing)?", "an approach is reopened"),
    (Backtracking, "^instead,? (let's|we|i|try|use|consider)", "instead"),
    (Backtracking, "(i|we)( may| must)?('ve| have)? (made|make) (a|an|some) (mistake|error)", "an error of one's own"),
    (
        Backtracking,
        "(i|we) (miscalculated|misread|misunderstood|overlooked|missed something|forgot)",
        "one's own error",
    ),
    (
        Subgoal,
        "(break|breaking|split|splitting|divide|dividing) (this|it|that|things|everything) (down|up|into)",
        "parts",
    ),
    (Subgoal, "(break|breaking) down (the|this) (problem|question|task|expression|calculation)", "parts"),
    (
        Subgoal,
        "(let's|let me|let us|we should|we can|we'll|i'll|i would) (first )?(start|begin) (by|with|from)",
        "a start",
    ),
    (
        Subgoal,
        "^first(ly)?,? (let's|let us|we|i) (need|have to|should|must|will|find|calculate|determine)",
        "a first step",
    ),
    (
        Subgoal,
        "^(next|then|now|after that),? (let's|let us|we|i) (need|have to|should|must|find|calculate)",
        "a next step",
    ),
    (
        Subgoal,
        "(first|next|second|final|last|intermediate) (step|goal|subgoal|task) (is|would be|should be|will be)",
        "a step",
    ),
    (
        Subgoal,
        "(our|the|my|a) (sub-?goal|goal|plan|aim|strategy|objective) (here )?(is|should be|would be) to",
        "a goal",
    ),
    (Subgoal, "(if|once) (we|i) (can )?(get|find|make|know|reach|figure out|determine) [^.]*, (we|i)", "a stage"),
    (
        Subgoal,
        "(we|i) (first )?need to (first )?(find|get|make|determine|calculate|compute|figure out|reach)",
        "a need",
    ),
    (Backward, "(work|working|worked|reason|reasoning|think|thinking) (backwards?|in reverse)", "backwards"),
    (Backward, "(reverse[- ]engineer(ing)?|go backwards? from)", "backwards"),
    (
        Backward,
        "(start|starts|starting|begin|begins|beginning) (at|from|with) the (target|goal|end|answer)",
        "the goal first",
    ),
    (
        Backward,
        "(start|starts|starting|begin|begins|beginning) (at|from|with) the (final|desired|end) ",
        "the goal first",
    ),
    (
        Backward,
        "to (get|reach|make|obtain|hit) (the target|the goal|exactly )?(of )?\\d+,? (we|i|you|it)",
        "what it takes",
    ),
    (
        Backward,
        "(we|i|we're|we are) (still )?(need|missing|lack) (another |exactly |just )?\\d+ more",
        "what is missing",
    ),
    (
        Backward,
        "\\d+ (more|less|short|away) (to reach|from the target|of the target|than the target)",
        "what is missing",
    ),
    (
        Backward,
        "(the target|factors of \\d+|the target of \\d+) (minus|divided by|plus|times|is a multiple)",
        "the target in parts",
    ),
    (Backward, "factors of (the target|our target)", "the target in parts"),
    (
        Backward,
        "(what|which) [^.?]*(gives?|makes?|equals?|adds? up to|multipl(y|ies) to) (us )?(the target|\\d+)",
        "a search",
    ),
    (
        Backward,
        "(if|assume|suppose|assuming) (that )?the (answer|result|target) (is|was|were|equals)",
        "from the answer",
    ),
    (Backward, "for the (result|answer|sum|total) to (be|equal)", "from the answer"),
];

/// The cues of a sentence, in the order of the table; a cue may come more than once. Time is linear in its length.
pub fn cues(sentence: &str) -> impl Iterator<Item = Cue> {
    SET.as_ref().map(|set| set.matches(plain(sentence).as_bytes())).into_iter().flatten().map(|rule| RULES[rule].0)
}

/// Bytes that a compiled table may take.
const SIZE: usize = 1 << 26;

/// All patterns at once, for `plain` sentences. `None` if one of them is none, which the unit tests rule out.
///
/// Decided: patterns of ASCII alone. With letters of all languages, the automaton that finds where words begin and end
/// gives up at the first of them, and what replaces it is a hundred times slower.
static SET: LazyLock<Option<RegexSet>> = LazyLock::new(|| {
    let patterns = RULES.iter().map(|(_, pattern, _)| expression(pattern));
    let mut builder = RegexSetBuilder::new(patterns);
    builder.unicode(false).case_insensitive(true).size_limit(SIZE).dfa_size_limit(SIZE).build().ok()
});

/// A pattern of the table as a regular expression.
pub(super) fn expression(pattern: &str) -> String {
    let end = if pattern.ends_with([']', ' ', ',']) { "" } else { r"\b" };
    format!(r"\b(?:{}){end}", pattern.replace(' ', r"\s+"))
}

/// A sentence in ASCII, a character for a character, in which the patterns find what they would find in the sentence:
/// letters and digits of other languages are letters and digits that no pattern names, blanks are blanks.
pub(super) fn plain(sentence: &str) -> Cow<'_, str> {
    let plain = |c: char| match c {
        _ if c.is_ascii() => c,
        '\u{2019}' => '\'',
        // What is the same letter whatever its case.
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ if c.is_whitespace() => ' ',
        _ if c.is_alphabetic() => '_',
        _ => {
            let class = KINDS.as_ref().map(|kinds| kinds.matches(c.encode_utf8(&mut [0; 4])));
            let is = |kind| class.as_ref().is_some_and(|class| class.matched(kind));
            if is(0) {
                '0'
            } else if is(1) {
                '_'
            } else {
                '\u{1}'
            }
        }
    };
    if sentence.is_ascii() { sentence.into() } else { sentence.chars().map(plain).collect() }
}

/// The digits of all languages, and what a word consists of.
static KINDS: LazyLock<Option<regex::RegexSet>> = LazyLock::new(|| regex::RegexSet::new([r"^\d", r"^\w"]).ok());
