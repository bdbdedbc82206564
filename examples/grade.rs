//! What responses to a Countdown problem earn under the paper's reward, and why.
//!
//! cargo run --example grade

#![allow(clippy::print_stdout)] // an example has something to show

use ppo_train::recipe::{Countdown, Reward};
use ppo_train::task::{Settings, Split, grade};

fn main() -> anyhow::Result<()> {
    let settings: Countdown = toml::from_str("train = 1\nvalidation = 1\ntest = 1\nnumbers = [3]\nmax_number = 25")?;
    let reward = Reward::default();
    let task = settings.build(&reward)?;
    println!("problem  {}", task.variables(Split::Train, 0));

    let right = task.right_answer(Split::Train, 0).unwrap_or_default();
    for response in [
        format!("<think>That is it.</think>\n<answer>{right}</answer>"),
        format!("I think it is <answer>{right}</answer>"),
        "<think>Too hard.</think>\n<answer>1 + 2</answer>".to_string(),
        "I do not know.".to_string(),
    ] {
        let grade = grade(task.as_ref(), (Split::Train, 0), &response, &reward, false);
        println!("{:.1}  {:<24} {}", grade.reward, grade.reason, response.replace('\n', " "));
    }
    Ok(())
}
