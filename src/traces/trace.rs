//! One row of a warm start, as text.

/// What the model is shown, and what it should write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub prompt: String,
    pub response: String,
    /// What is solved and the right answer, as far as known: what two arms have in common.
    pub problem: String,
    /// The training problem of the run's task, if it is one.
    pub index: Option<usize>,
    /// The length in tokens of the partner that it was made as long as.
    pub wanted: Option<usize>,
    /// Whether `sft.data.answer_tags = true` would put its conclusion in tags: a trace of a task, without that key.
    pub taggable: bool,
    /// Where it comes from, for messages.
    pub place: String,
}
