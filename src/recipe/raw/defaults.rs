//! What a key means where the recipe does not name it: the paper's values and, where it is silent, verl's.

use super::Decoding;

macro_rules! values {
    ($($name:ident: $type:ty = $value:expr;)*) => {$(pub fn $name() -> $type { $value })*};
}
values! {
    yes: bool = true;
    one: f64 = 1.0;
    one_count: usize = 1;
    train: usize = 327_680;
    validation: usize = 1024;
    numbers: Vec<usize> = vec![3, 4];
    max_number: i64 = 99;
    targets: [i64; 2] = [10, 100];
    template: String = "base".into();
    accuracy: f64 = 0.9;
    format: f64 = 0.1;
    tries: [usize; 2] = [1, 4];
    insight: f64 = 0.2;
    sft_train: usize = 500;
    sft_validation: usize = 100;
    sft_epochs: usize = 5;
    sft_batch: usize = 64;
    sft_context: usize = 2048;
    sft_lr: f64 = 1e-5;
    sft_warmup: f64 = 0.1;
    micro_tokens: usize = 16_384;
    steps: usize = 250;
    mini_batch: usize = 256;
    actor_lr: f64 = 1e-6;
    critic_lr: f64 = 1e-5;
    weight_decay: f64 = 0.01;
    betas: [f64; 2] = [0.9, 0.999];
    adam_eps: f64 = 1e-8;
    grad_clip: f64 = 1.0;
    clip: f64 = 0.2;
    value_clip: f64 = 0.5;
    value_coef: f64 = 0.5;
    entropy_coef: f64 = 0.001;
    kl_coef: f64 = 0.001;
    kl_horizon: f64 = 10_000.0;
    prompts: usize = 128;
    samples: usize = 4;
    prompt_tokens: usize = 1024;
    every_ten: usize = 10;
    every_fifty: usize = 50;
    keep_last: usize = 2;
    show_samples: usize = 4;
    greedy: Vec<Decoding> = vec![Decoding::Greedy];
    auto: String = "auto".into();
}
