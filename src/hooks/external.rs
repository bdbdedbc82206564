//! A command of the user's as a hook: it gets the checkpoint's folder and prints a JSON object of numbers.

use super::outcome::Outcome;
use super::schedule::Job;
use crate::bad;
use crate::recipe::External;
use crate::stats::Figure;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest answer of a command, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// Calls the command of a job for the checkpoint in `folder`.
///
/// # Errors
/// It cannot be started, fails, takes too long, or prints something else.
pub fn call(settings: &External, job: &Job, run: &Path, folder: &Path) -> Result<Outcome> {
    let shown = settings.command.join(" ");
    let Some((program, arguments)) = settings.command.split_first() else {
        return Err(bad!("hooks.external.{}.command is empty", job.hook));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .arg(folder)
        .env("PPO_TRAIN_CHECKPOINT", folder)
        .env("PPO_TRAIN_RUN", run)
        .env("PPO_TRAIN_STEP", job.step.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    // Read while it runs, so that a long answer cannot block it.
    let reader: Option<JoinHandle<std::io::Result<String>>> = child.stdout.take().map(|pipe| {
        std::thread::spawn(move || {
            let mut text = String::new();
            pipe.take(MAX_ANSWER + 1).read_to_string(&mut text).map(|_| text)
        })
    });
    let status = wait(&mut child, Duration::from_secs(settings.timeout))
        .with_context(|| format!("`{shown}` was stopped after {} s", settings.timeout))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    let text = reader.and_then(|reader| reader.join().ok()).context("no answer")??;
    let figures = figures(&text).with_context(|| format!("the answer of `{shown}`"))?;
    let first: Vec<String> = figures.iter().take(4).map(|figure| format!("{} {}", figure.name, figure.value)).collect();
    Ok(Outcome {
        hook: job.hook.clone(),
        step: job.step,
        identity: json!({ "command": settings.command }),
        summary: first.join(", "),
        notes: vec![],
        figures,
    })
}

/// Waits for a child; one that takes too long is killed.
fn wait(child: &mut Child, limit: Duration) -> Result<std::process::ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            bail!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The numbers in an answer. Objects within it make names with slashes.
fn figures(text: &str) -> Result<Vec<Figure>> {
    fn collect(prefix: &str, object: &Map<String, Value>, found: &mut Vec<Figure>) -> Result<()> {
        for (name, value) in object {
            let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
                bail!("the name {name:?} has blanks");
            }
            match value {
                Value::Object(inner) => collect(&name, inner, found)?,
                Value::Bool(yes) => found.push(Figure::plain(name, f64::from(u8::from(*yes)))),
                Value::Number(number) => {
                    let value = number.as_f64().with_context(|| format!("{name} is too large"))?;
                    found.push(Figure::plain(name, value));
                }
                other => bail!("{name} is {other}, expected a number"),
            }
        }
        Ok(())
    }
    if text.len() as u64 > MAX_ANSWER {
        bail!("it is longer than {MAX_ANSWER} bytes");
    }
    let object: Map<String, Value> =
        serde_json::from_str(text.trim()).context("expected one JSON object of numbers on standard output")?;
    let mut found = vec![];
    collect("", &object, &mut found)?;
    if found.is_empty() {
        bail!("it has no number");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_objects_of_numbers() {
        assert_eq!(
            figures("{\"a\": 0.5, \"b\": {\"c\": 2, \"d\": true}}\n").unwrap(),
            [Figure::plain("a", 0.5), Figure::plain("b/c", 2.0), Figure::plain("b/d", 1.0)]
        );
        for (text, message) in [
            ("", "expected one JSON object"),
            ("{\"a\": 1} {\"b\": 2}", "expected one JSON object"),
            ("[1]", "expected one JSON object"),
            ("{\"a\": \"1\"}", "a is \"1\", expected a number"),
            ("{\"a\": null}", "a is null, expected a number"),
            ("{\"a b\": 1}", "has blanks"),
            ("{}", "it has no number"),
        ] {
            let error = format!("{:#}", figures(text).unwrap_err());
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    fn command(words: &[&str], timeout: u64) -> Result<Outcome> {
        let settings: External = serde_json::from_value(json!({ "command": words, "timeout": timeout })).unwrap();
        let job = Job { step: 4, hook: "score".into() };
        call(&settings, &job, Path::new("run"), Path::new("run/step_000004"))
    }

    #[test]
    fn commands_see_the_checkpoint_or_fail_with_a_reason() {
        let script = "echo '{\"step\": '$PPO_TRAIN_STEP'}'; test $1 = run/step_000004 && test $PPO_TRAIN_RUN = run";
        let outcome = command(&["sh", "-c", script, "sh"], 60).unwrap();
        assert_eq!(outcome.figures, [Figure::plain("step", 4.0)]);
        let record = outcome.record();
        assert_eq!((record.step, record.get("hooks/score/step")), (4, Some(4.0)));
        for (words, timeout, message) in [
            (&["no-such-program"][..], 60, "cannot start `no-such-program`"),
            (&["false"], 60, "`false` ended with exit status: 1"),
            (&["sh", "-c", "exec sleep 60"], 1, "was stopped after 1 s"),
            (&["echo", "hello"], 60, "the answer of `echo hello`: expected one JSON object"),
        ] {
            let error = format!("{:#}", command(words, timeout).unwrap_err());
            assert!(error.contains(message), "{words:?}: {error}");
        }
    }
}
