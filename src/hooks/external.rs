//! A command of the user's as a hook: it gets the checkpoint's folder and prints a JSON object of numbers.

use super::command::run as run_command;
use super::outcome::Outcome;
use super::schedule::Job;
use crate::checkpoint::Checkpoint;
use crate::dist::apart;
use crate::json::Object;
use crate::recipe::External;
use crate::stats::{Figure, HIGH, LOW};
use crate::{Stopped, bad};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::path::{Path, absolute};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Longest answer of a command, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// Calls the command of a job for a checkpoint. It gets absolute paths, so that it may change its folder.
///
/// # Errors
/// It cannot be started, fails, takes too long, or prints something else; `Stopped` if `stop` is set meanwhile.
pub fn call(settings: &External, job: &Job, run: &Path, checkpoint: &Checkpoint, stop: &AtomicBool) -> Result<Outcome> {
    let shown = settings.command.join(" ");
    let Some((program, arguments)) = settings.command.split_first() else {
        return Err(bad!("hooks.external.{}.command is empty", job.hook));
    };
    let folder = absolute(checkpoint.path())?;
    let mut command = Command::new(program);
    apart(&mut command)
        .args(arguments)
        .arg(&folder)
        .env("PPO_TRAIN_CHECKPOINT", &folder)
        .env("PPO_TRAIN_MODEL", absolute(checkpoint.language_model())?)
        .env("PPO_TRAIN_RUN", absolute(run)?)
        .env("PPO_TRAIN_STEP", job.step.to_string());
    let limit = Duration::from_secs(settings.timeout);
    let ended = run_command(&mut command, limit, MAX_ANSWER, stop).map_err(|error| match error.is::<Stopped>() {
        true => error,
        false => error.context(format!("the command `{shown}`")),
    })?;
    if !ended.status.success() {
        let last = ended.last.map_or(String::new(), |last| format!(": {last}"));
        bail!("`{shown}` ended with {}{last}", ended.status);
    }
    let figures = figures(&ended.output).with_context(|| format!("the answer of `{shown}`"))?;
    let first: Vec<String> = figures.iter().take(4).map(|figure| format!("{} {}", figure.name, figure.value)).collect();
    Ok(Outcome {
        hook: job.hook.clone(),
        step: job.step,
        identity: identity(settings),
        summary: first.join(", "),
        missing: None,
        notes: vec![],
        figures,
    })
}

/// What a result depends on besides the checkpoint.
pub fn identity(settings: &External) -> Value {
    json!({ "command": settings.command })
}

/// Whether a figure may have this name: logs, pictures and `compare --metric` take it as it is.
fn check(name: &str) -> Result<()> {
    let is_known = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    match name.split('/').find(|part| part.is_empty() || *part == "..") {
        _ if name.is_empty() => bail!("a name is empty"),
        Some("") => bail!("the name {name:?} is empty before or after a `/`"),
        Some(_) => bail!("the name {name:?} has a part `..`"),
        None => {}
    }
    match name.chars().find(|c| !is_known(*c)) {
        Some(other) => bail!("the name {name:?} has {other:?}, expected letters, digits, `_`, `-`, `.` and `/`"),
        None => Ok(()),
    }
}

/// The numbers in an answer; true is 1 and false 0. Objects within it make names with slashes.
fn figures(text: &str) -> Result<Vec<Figure>> {
    fn collect(prefix: &str, object: &Map<String, Value>, found: &mut Vec<Figure>) -> Result<()> {
        for (name, value) in object {
            let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            check(&name)?;
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
    // A key that is there twice is an error of `Object`.
    let Object(object) =
        serde_json::from_str(text.trim()).context("expected one JSON object of numbers on standard output")?;
    let mut found = vec![];
    collect("", &object, &mut found)?;
    if found.is_empty() {
        bail!("it has no number");
    }
    let mut names = HashSet::new();
    for Figure { name, .. } in &found {
        if !names.insert(name.as_str()) {
            bail!("{name} is there twice");
        }
        if let Some(end) = [LOW, HIGH].into_iter().find(|end| name.rsplit('/').next() == Some(*end)) {
            bail!("{name} would be taken for the end of an interval: call it something else than `{end}`");
        }
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
        assert_eq!(figures("{\"e/f-1.ä_\": -1}").unwrap(), [Figure::plain("e/f-1.ä_", -1.0)]);
        for (text, message) in [
            ("", "expected one JSON object"),
            ("{\"a\": 1} {\"b\": 2}", "expected one JSON object"),
            ("[1]", "expected one JSON object"),
            ("{\"a\": \"1\"}", "a is \"1\", expected a number"),
            ("{\"a\": null}", "a is null, expected a number"),
            ("{\"a b\": 1}", "the name \"a b\" has ' ', expected letters, digits,"),
            ("{\"a\": {\"b\\n\": 1}}", "the name \"a/b\\n\" has '\\n', expected letters, digits,"),
            ("{\"\": 1}", "a name is empty"),
            ("{\"a\": {\"\": 1}}", "the name \"a/\" is empty before or after a `/`"),
            ("{\"/../x\": 1}", "the name \"/../x\" is empty before or after a `/`"),
            ("{\"a\": {\"../x\": 1}}", "the name \"a/../x\" has a part `..`"),
            ("{}", "it has no number"),
            ("{\"a\": 1, \"a\": 2}", "the key `a` is there twice"),
            ("{\"a/b\": 1, \"a\": {\"b\": 2}}", "a/b is there twice"),
            ("{\"a\": {\"low\": 1}}", "a/low would be taken for the end of an interval"),
        ] {
            let error = format!("{:#}", figures(text).unwrap_err());
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    fn command(words: &[&str], timeout: u64) -> Result<Outcome> {
        let settings: External = serde_json::from_value(json!({ "command": words, "timeout": timeout })).unwrap();
        let job = Job { step: 4, hook: "score".into() };
        let checkpoint = Checkpoint::at(Path::new("run/step_000004"));
        call(&settings, &job, Path::new("run"), &checkpoint, &AtomicBool::new(false))
    }

    #[test]
    fn commands_see_the_checkpoint_or_fail_with_a_reason() {
        let script =
            "echo '{\"step\": '$PPO_TRAIN_STEP'}'; test $1 = $PWD/run/step_000004 && test $PPO_TRAIN_RUN = $PWD/run";
        let outcome = command(&["sh", "-c", script, "sh"], 60).unwrap();
        assert_eq!(outcome.figures, [Figure::plain("step", 4.0)]);
        let record = outcome.record();
        assert_eq!((record.step, record.get("hooks/score/step")), (4, Some(4.0)));
        for (words, timeout, message) in [
            (&["no-such-program"][..], 60, "the command `no-such-program`: it cannot be started"),
            (&["false"], 60, "`false` ended with exit status: 1"),
            (&["sh", "-c", "echo no weights >&2; exit 4"], 60, "ended with exit status: 4: no weights"),
            (&["sh", "-c", "exec sleep 60"], 1, "it was stopped after 1 s"),
            (&["echo", "hello"], 60, "the answer of `echo hello`: expected one JSON object"),
        ] {
            let error = format!("{:#}", command(words, timeout).unwrap_err());
            assert!(error.contains(message), "{words:?}: {error}");
        }
    }
}
