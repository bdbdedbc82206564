//! How an autoencoder is trained.

/// Which activation is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    TopK,
    JumpRelu,
}

/// How an autoencoder is trained.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub shape: Shape,
    /// F.
    pub features: i64,
    /// Features active at a token: at most (`TopK`), or what their mean is drawn to (`JumpRelu`, by the loss of
    /// arXiv:2407.14435, appendix F).
    pub k: i64,
    /// Tokens to be trained on; texts are repeated until there are as many.
    pub tokens: i64,
    /// Tokens per step.
    pub batch: i64,
    pub lr: f64,
    pub seed: u64,
}

impl Settings {
    /// Steps of the training.
    pub fn steps(&self) -> i64 {
        (self.tokens / self.batch).max(1)
    }
}
