//! `metrics.jsonl`: one flat record per line, for pandas and `jq`:
//! `{"stage": "ppo", "step": 12, "time": 1.7e9, "actor/pg_loss": 0.01, ..., "texts": {"samples/0": "..."}}`.
//!
//! JSON has no NaN: values that are not finite are the strings `"NaN"`, `"Infinity"`, `"-Infinity"` (which pandas and
//! Rust's `parse` read back). Histograms are left to TensorBoard; their mean, maximum and minimum are scalars.

use super::log_file::LogFile;
use super::record::{Record, Stage};
use super::sink::Sink;
use crate::json::number;
use crate::read_bytes;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Most bytes of a log that is read: more than any run writes.
const LARGEST: u64 = 1 << 36;

/// A file of lines that are JSON objects, each with its stage and its step.
pub(super) struct JsonLines {
    log: LogFile,
    lines: fn(&Record) -> Vec<u8>,
}

impl JsonLines {
    /// The file at `path`, without what a resumed run will write again. `lines`: what a record adds to it.
    pub fn open(
        path: &Path,
        lines: fn(&Record) -> Vec<u8>,
        resume: Option<(Stage, u64)>,
        warn: fn(&str),
    ) -> Result<Self> {
        Ok(Self { log: LogFile::new(path.to_path_buf(), cut(path, resume)?, warn), lines })
    }
}

impl Sink for JsonLines {
    fn write(&mut self, record: &Record) {
        let lines = (self.lines)(record);
        if !lines.is_empty() {
            self.log.append(lines);
        }
    }

    fn flush(&mut self) {
        self.log.flush();
    }
}

/// The record as one line, with its line feed.
pub fn line(record: &Record) -> Vec<u8> {
    let mut fields = Map::new();
    fields.insert("stage".into(), record.stage.name().into());
    fields.insert("step".into(), record.step.into());
    fields.insert("time".into(), number(record.time));
    fields.extend(record.scalars().map(|(name, value)| (name.to_string(), number(value))));
    let texts: Map<_, _> = record.texts().map(|(tag, text)| (tag.to_string(), text.into())).collect();
    if !texts.is_empty() {
        fields.insert("texts".into(), texts.into());
    }
    let mut line = Value::Object(fields).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// The stage and the step of a line.
fn address(fields: &Map<String, Value>) -> Result<(Stage, u64)> {
    let stage = fields.get("stage").and_then(Value::as_str).and_then(Stage::from_name).context("no stage")?;
    Ok((stage, fields.get("step").and_then(Value::as_u64).context("no step")?))
}

/// The record in a line.
///
/// # Errors
/// It is not JSON, has no stage or step, or a value that is no number.
pub fn parse(line: &str) -> Result<Record> {
    let fields: Map<String, Value> = serde_json::from_str(line)?;
    let (stage, step) = address(&fields)?;
    let mut record = Record::new(stage, step);
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("stage" | "step", _) => {}
            ("time", Value::Number(time)) => record.time = time.as_f64().unwrap_or_default(),
            ("texts", Value::Object(texts)) => {
                for (tag, text) in texts {
                    record.text(tag, text.as_str().context("a text is not a string")?);
                }
            }
            (_, Value::Number(value)) => record.set(name, value.as_f64().context("a number is too large")?),
            (_, Value::String(value)) => {
                let value =
                    value.parse().ok().with_context(|| format!("{name} is {value:?}, which is not a number"))?;
                record.set(name, value);
            }
            (_, value) => bail!("{name} is {value}, which is not a number"),
        }
    }
    Ok(record)
}

/// The records of a `metrics.jsonl`, oldest first. An incomplete last line (still being written, or cut off when a run
/// was killed) is skipped. Other lines that are not records (somebody else's, or what a power loss left of ours) are
/// passed over, and named to `warn` in one message.
///
/// # Errors
/// A file that cannot be read, or that has lines, but no record.
pub fn read(path: &Path, warn: fn(&str)) -> Result<Vec<Record>> {
    read_lines(path, parse, warn)
}

/// `read`, for lines of any kind.
pub(super) fn read_lines<T>(path: &Path, parse: fn(&str) -> Result<T>, warn: fn(&str)) -> Result<Vec<T>> {
    let bytes = read_bytes(path, LARGEST).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut read, mut bad) = (Vec::new(), Vec::new());
    let whole = bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    for (number, line) in (1..).zip(whole.map(<[u8]>::trim_ascii)).filter(|(_, line)| !line.is_empty()) {
        match std::str::from_utf8(line).map_err(anyhow::Error::from).and_then(parse) {
            Ok(record) => read.push(record),
            Err(error) => bad.push((number, error)),
        }
    }
    let Some((first, error)) = bad.first() else { return Ok(read) };
    let (shown, error) = (path.display(), format!("{error:#}"));
    // The parser has seen a single line.
    let why = error.split_once(" at line ").map_or(error.as_str(), |(why, _)| why);
    if read.is_empty() {
        bail!("{shown}: line {first} is not a record, and no other line is: {why}");
    }
    let others = match bad.len() - 1 {
        0 => String::new(),
        1 => format!("; nor is line {}", bad[1].0),
        more => format!("; nor are {more} others, the next of them line {}", bad[1].0),
    };
    warn(&format!("warning: {shown}: line {first} is not a record, and is passed over: {why}{others}"));
    Ok(read)
}

/// The last step of a stage in a file's records, if it has any.
pub(super) fn last_step(path: &Path, stage: Stage) -> Option<u64> {
    let bytes = read_bytes(path, LARGEST).ok()?;
    let steps = bytes.split(|&byte| byte == b'\n').filter_map(of_line).filter(|(own, _)| *own == stage);
    steps.map(|(_, step)| step).max()
}

/// The stage and the step of a line, if it is one of ours.
fn of_line(line: &[u8]) -> Option<(Stage, u64)> {
    address(&serde_json::from_slice(line).ok()?).ok()
}

/// Cuts off what a resumed run will write again, and an incomplete last line; returns the number of bytes that stay.
///
/// Records are in the order of the run, so what is undone is the end of the file, and cutting it is one `ftruncate`:
/// atomic, and without need for free space. Only the records of hooks come late; those of steps that are done are
/// written again behind the cut, where the system calls them lost if the process is killed just then: what hooks made
/// is in their own files.
fn cut(path: &Path, resume: Option<(Stage, u64)>) -> Result<u64> {
    let bytes = match read_bytes(path, LARGEST) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut kept = 0;
    let mut late = Vec::new();
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")).peekable();
    let is_undone = |(stage, step): (Stage, u64)| stage.first_undone(resume).is_some_and(|first| step >= first);
    // A whole line that somebody else wrote is not a reason to cut what follows.
    while let Some(line) = lines.next_if(|line| !of_line(line).map_or(resume.is_none(), is_undone)) {
        kept += line.len();
    }
    for line in lines {
        if of_line(line).is_some_and(|address| address.0 == Stage::Hook && !is_undone(address)) {
            late.extend(line);
        }
    }
    if kept < bytes.len() {
        let replace = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().append(true).open(path)?;
            file.set_len(kept as u64)?;
            file.write_all(&late)?;
            file.sync_all()
        };
        replace().with_context(|| format!("cannot cut {} at the step the run continues from", path.display()))?;
    }
    Ok((kept + late.len()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let mut record = Record::new(Stage::Evaluation, 12);
        record.time = 1.75e9;
        for (name, value) in [("a/x", 0.25), ("a/inf", f64::INFINITY), ("a/minus", f64::NEG_INFINITY), ("z", -0.0)] {
            record.set(name, value);
        }
        record.text("samples/0", "<think>\n\"\u{1b}\"</think>");
        let line = String::from_utf8(line(&record)).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(parse(&line).unwrap(), record);
        record.set("a/nan", f64::NAN);
        let nan = parse(std::str::from_utf8(&super::line(&record)).unwrap()).unwrap().get("a/nan");
        assert!(nan.unwrap().is_nan());
    }

    #[test]
    fn a_resumed_run_finds_only_what_it_will_not_write_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let (sft, ppo) = (|step| (Stage::Sft, step), |step| (Stage::Ppo, step));
        let (before, hook) = ((Stage::Evaluation, 0), |step| (Stage::Hook, step));
        let all = [sft(1), sft(40), before, ppo(1), ppo(2), hook(0), hook(2)];
        for (resume, kept) in [
            (Some(ppo(1)), vec![sft(1), sft(40), before, ppo(1), hook(0)]),
            (Some(ppo(9)), all.to_vec()),
            (Some(sft(39)), vec![sft(1)]),
            (None, vec![]),
        ] {
            let mut bytes: Vec<u8> = all.iter().flat_map(|&(stage, step)| line(&Record::new(stage, step))).collect();
            bytes.extend(b"{\"stage\": \"ppo\", \"st");
            fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path, no_warning).unwrap().len(), 7);
            assert_eq!(cut(&path, resume).unwrap(), fs::metadata(&path).unwrap().len());
            let left: Vec<_> =
                read(&path, no_warning).unwrap().iter().map(|record| (record.stage, record.step)).collect();
            assert_eq!(left, kept, "{resume:?}");
        }
        assert_eq!(cut(&dir.path().join("absent"), None).unwrap(), 0);
    }

    fn no_warning(warning: &str) {
        panic!("{warning}");
    }

    #[test]
    fn lines_that_are_not_ours_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let ours = |step| line(&Record::new(Stage::Ppo, step));
        let torn = &ours(2)[..20];
        for (strange, said) in [
            (&b"hello\n"[..], "line 2 is not a record, and is passed over: expected value"),
            (&[0; 4096], "line 2 is not a record"),
            (&[torn, b"\n"].concat(), "line 2 is not a record, and is passed over: EOF"),
            (b"{\"stage\": \"ppo\"}\n\xff\n", "no step; nor is line 3"),
            (b"[1]\n\n[2]\n3\n", "line 2 is not a record, and is passed over: invalid type: sequence, expected a map"),
        ] {
            let last = ours(3);
            let text = [&ours(1), strange, &ours(2), &last].concat();
            fs::write(&path, &text).unwrap();
            // What stands before a record in its line takes it along.
            let expected: &[u64] = if strange.ends_with(b"\n") { &[1, 2, 3] } else { &[1, 3] };
            let steps = |warn| read(&path, warn).unwrap().iter().map(|record| record.step).collect::<Vec<_>>();
            assert_eq!(steps(|_| ()), expected, "{said}");
            assert_eq!(cut(&path, Some((Stage::Ppo, 2))).unwrap(), (text.len() - last.len()) as u64);
            assert_eq!(last_step(&path, Stage::Ppo), expected.get(expected.len() - 2).copied());
            let warned = std::panic::catch_unwind(|| read(&path, no_warning).map(drop)).unwrap_err();
            let warned = warned.downcast::<String>().unwrap();
            assert!(warned.contains(said) && warned.contains("metrics.jsonl: "), "{warned}");
        }
        fs::write(&path, "no\nno\n").unwrap();
        assert!(read(&path, |_| ()).unwrap_err().to_string().contains("line 1 is not a record, and no other line is"));
        assert_eq!(last_step(&path, Stage::Ppo), None);
    }
}
