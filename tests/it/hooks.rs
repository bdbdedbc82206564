//! Hooks beside training: on their schedule, failing without harm, and afterwards with the same result.

use crate::support::{SMOKE, json, kill, program, run, stdout};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Output};
use std::time::{Duration, Instant};

/// Trains the smoke recipe with this more of a recipe.
fn train(code: i32, dir: &Path, more: &str, arguments: &[&str]) -> Output {
    run(code, &arguments_of(dir, more, arguments))
}

fn arguments_of<'a>(dir: &'a Path, more: &str, arguments: &[&'a str]) -> Vec<&'a str> {
    let recipe = dir.join("recipe.toml");
    let base = fs::canonicalize(SMOKE).unwrap();
    fs::write(&recipe, format!("extends = {:?}\n{more}", base.display().to_string())).unwrap();
    let paths: Vec<&'a str> = vec![leak(recipe), "--out", leak(dir.join("run"))];
    [paths, arguments.to_vec()].concat()
}

/// A path for as long as the test process lives.
fn leak(path: std::path::PathBuf) -> &'static str {
    Box::leak(path.display().to_string().into_boxed_str())
}

/// The records of the hooks in a run's metrics.jsonl: step and fields.
fn records(dir: &Path) -> Vec<(u64, Value)> {
    let text = fs::read_to_string(dir.join("run/metrics.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["stage"] == "hook").map(|row| (row["step"].as_u64().unwrap(), row)).collect()
}

const SCORE: &str = r#"
[hooks.external.score]
command = ["sh", "-c", "test -f $1/COMPLETE && echo {\\\"step\\\": $PPO_TRAIN_STEP}", "sh"]
every = 2
steps = [3]
"#;

#[test]
fn a_command_is_called_at_its_checkpoints_and_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    train(0, dir.path(), &format!("{SCORE}[ppo]\nsteps = 4\n[checkpoints]\nevery = 0\nkeep_last = 1\n"), &[]);
    let found: Vec<_> =
        records(dir.path()).iter().map(|(step, row)| (*step, row["hooks/score/step"].clone())).collect();
    assert_eq!(found, [0, 2, 3, 4].map(|step| (step, Value::from(step as f64))));
    // Checkpoints that were made for a hook go once it has seen them.
    let run_folder = dir.path().join("run");
    let kept = |step: usize| run_folder.join(format!("step_{step:06}")).exists();
    assert_eq!([2, 3, 4].map(kept), [false, false, true]);

    let shown = run_folder.display().to_string();
    let again = json(&run(0, &["judge", &shown, "--steps", "0,4", "--again", "--json"]));
    assert_eq!((&again[0]["figures"][0]["value"], &again[1]["figures"][0]["value"]), (&0.0.into(), &4.0.into()));
    let status = json(&run(0, &["status", &shown, "--json"]));
    assert_eq!((&status[0]["state"], &status[0]["step"]), (&"finished".into(), &4.into()));
    let states = status[0]["hooks"].as_array().unwrap();
    assert!(states.len() == 4 && states.iter().all(|hook| hook["state"] == "done"), "{status}");

    // What was judged is still known when its checkpoint is gone, but cannot be judged again.
    let known = stdout(&run(0, &["judge", &shown, "--steps", "2"]));
    assert!(known.starts_with("hook score at step 2: step 2\n"), "{known}");
    let page = dir.path().join("report.html");
    run(0, &["report", &shown, "--out", &page.display().to_string()]);
    let page = fs::read_to_string(page).unwrap();
    // The one address is the name of SVG's vocabulary, which nothing fetches.
    assert_eq!(page.matches("://").count(), page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    assert!(
        !page.contains("<script")
            && page.contains("score of run")
            && page.contains("<th scope=\"row\">task.max_number</th>")
    );

    let missing = String::from_utf8(run(2, &["judge", &shown, "--steps", "2", "--again"]).stderr).unwrap();
    assert!(missing.contains("has no checkpoint of step 2; it has 0 and 4"), "{missing}");
    let unknown = String::from_utf8(run(2, &["judge", &shown, "--steps", "4", "--hook", "scare"]).stderr).unwrap();
    assert!(unknown.contains("no hook `scare`; did you mean `score`?"), "{unknown}");
}

#[test]
fn a_hook_that_fails_is_tried_again_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[hooks]\nattempts = 2\npause = 0.1\n[hooks.external.broken]\n\
                command = [\"sh\", \"-c\", \"echo no weights >&2; exit 3\"]\n[ppo]\nsteps = 2\n";
    let output = train(0, dir.path(), more, &[]);
    let shown = String::from_utf8(output.stderr).unwrap();
    assert_eq!(shown.matches("hook broken at step 2 failed").count(), 2, "{shown}");
    assert!(shown.contains("ended with exit status: 3: no weights"), "{shown}");
    assert!(shown.contains("step_000002/broken.log\n") && shown.contains("--steps 2 --hook broken"), "{shown}");
    let folder = dir.path().join("run").display().to_string();
    let status = stdout(&run(0, &["status", &folder]));
    assert!(status.contains("2 hooks: 0 done, 2 failed"), "{status}");
    assert!(status.contains("broken at step 2 failed 2 times: "), "{status}");
    assert!(records(dir.path()).is_empty());
    // A later attempt that succeeds is all that is left of it.
    let set = "hooks.external.broken.command=[\"echo\", \"{\\\"x\\\": 1}\", \"#\"]";
    let mended = run(1, &["judge", &folder, "--set", set]);
    assert!(String::from_utf8(mended.stderr).unwrap().contains("expected one JSON object"));
    let set = "hooks.external.broken.command=[\"sh\", \"-c\", \"echo '{\\\"x\\\": 1}'\"]";
    run(0, &["judge", &folder, "--set", set]);
    assert!(stdout(&run(0, &["status", &folder])).contains("2 hooks: 2 done\n"));
}

/// The program's file may be gone or another one by the time a hook is due: what runs judges.
#[cfg(target_os = "linux")]
#[test]
fn hooks_are_run_by_the_program_that_trains() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let own = dir.path().join("ppo-train");
    fs::hard_link(env!("CARGO_BIN_EXE_ppo-train"), &own).unwrap();
    let gate = dir.path().join("begun");
    let more = format!(
        "[ppo]\nsteps = 2\n[hooks]\nattempts = 1\n[hooks.external.score]\nsteps = [1]\n\
         command = [\"sh\", \"-c\", \"touch {}; sleep 1; echo '{{\\\"x\\\": 1}}'\"]\n",
        gate.display()
    );
    let arguments = arguments_of(dir.path(), &more, &[]);
    let mut command = std::process::Command::new(&own);
    command
        .args(program(&arguments).get_args())
        .envs(program(&arguments).get_envs().filter_map(|(k, v)| Some((k, v?))));
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for(&mut child, &gate);
    fs::remove_file(&own).unwrap();
    fs::write(&own, "#!/bin/sh\nexit 1\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(records(dir.path()).iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn what_takes_too_long_ends_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[ppo]\nsteps = 1\n[hooks]\nattempts = 3\npause = 0.0\n[hooks.external.slow]\ntimeout = 1\n\
                command = [\"sh\", \"-c\", \"sleep 60 & sleep 60\"]\n[hooks.transfer]\nproblems = 2\n\
                task = { kind = \"countdown\", numbers = [2], max_number = 9, targets = [2, 50], train = 8, \
                validation = 8, test = 8 }\n";
    let output = train(0, dir.path(), more, &[]);
    let shown = String::from_utf8(output.stderr).unwrap();
    assert_eq!(shown.matches("hook slow at step 1 failed").count(), 3, "{shown}");
    assert!(shown.contains("it was stopped after 1 s"), "{shown}");
    let run_folder = dir.path().join("run").display().to_string();
    // The others are done although one fails, and what failed is named.
    let judged = run(1, &["judge", &run_folder, "--again"]);
    let said = String::from_utf8(judged.stderr).unwrap();
    assert!(said.contains("error: 2 of 4 hooks failed:\n  slow at step 0: "), "{said}");
    assert!(stdout_of(&judged.stdout).contains("hook transfer at step 1: "));
    // The new results are in the logs too.
    assert_eq!(records(dir.path()).len(), 4);
}

fn stdout_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is judged is not taken for what other settings would say.
#[test]
fn other_settings_do_not_get_the_old_answers() {
    let dir = tempfile::tempdir().unwrap();
    train(0, dir.path(), "[ppo]\nsteps = 1\n[hooks.persona]\ntraces = 4\nevery = 1\n", &[]);
    let folder = dir.path().join("run").display().to_string();
    let set = ["judge", &folder, "--steps", "1", "--set", "hooks.persona.traces=3"];
    let error = String::from_utf8(run(2, &set).stderr).unwrap();
    assert!(error.contains("persona at step 1 is judged already, but not with the same traces: --again"), "{error}");
    run(0, &["judge", &folder, "--steps", "1", "--set", "hooks.persona.traces=4"]);
    run(0, &[&set[..], &["--out", &dir.path().join("other").display().to_string()]].concat());
    run(0, &[&set[..], &["--again"]].concat());
    // Nor are other responses, or other grades, taken for those that were judged.
    let own = dir.path().join("own.jinja");
    fs::write(&own, "{{ numbers | join(' ') }} to {{ target }}").unwrap();
    let template = format!("prompt.template={}", own.display());
    for (set, part) in [
        (template.as_str(), "prompt"),
        ("rollout.max_response_tokens=40", "tokens"),
        ("rollout.stop=['=']", "stop"),
        ("reward.format=0.2", "reward"),
        ("task.max_number=20", "task"),
        ("machine.precision=bfloat16", "precision"),
        ("seed=2", "seed"),
    ] {
        let arguments = ["judge", &folder, "--steps", "1", "--set", "hooks.persona.traces=3", "--set", set];
        let error = String::from_utf8(run(2, &arguments).stderr).unwrap();
        assert!(error.contains(&format!("is judged already, but not with the same {part}: --again")), "{set}: {error}");
    }
    let other = ["judge", &folder, "--steps", "1", "--set", "hooks.persona.traces=3", "--set", &template];
    run(0, &[&other[..], &["--again"]].concat());
    run(0, &other);
    let noted = String::from_utf8(run(0, &["judge", &folder, "--steps", "1"]).stderr).unwrap();
    assert!(noted.contains("note: persona at step 1 was not judged with the same "), "{noted}");
    assert!(noted.contains("prompt and ") || noted.contains(" and prompt") || noted.contains("prompt;"), "{noted}");
    // A template of the same name that says something else is another one.
    fs::write(&own, "{{ numbers | join(' ') }} for {{ target }}").unwrap();
    let error = String::from_utf8(run(2, &other).stderr).unwrap();
    assert!(error.contains("not with the same prompt: --again"), "{error}");
    // Only what is due is judged unless steps are named.
    let all = json(&run(0, &["judge", &folder, "--set", "hooks.persona.traces=3", "--again", "--json"]));
    assert_eq!(all.as_array().unwrap().len(), 2);
    // Judged traces that cannot be compared are refused.
    let (empty, wrong) = (dir.path().join("empty.jsonl"), dir.path().join("wrong.jsonl"));
    fs::write(&empty, "").unwrap();
    let traces = fs::read_to_string(dir.path().join("run/hooks/step_000001/persona/traces.jsonl")).unwrap();
    let mut line: Value = serde_json::from_str(traces.lines().next().unwrap()).unwrap();
    line["judgement"]["segments"] = serde_json::json!([{ "start": 5, "end": 2, "perspective": 0 }]);
    fs::write(&wrong, line.to_string()).unwrap();
    for (file, message) in
        [(empty, "has no judged traces"), (wrong, "line 1 is not a judged trace: the segment from 5")]
    {
        let file = file.display().to_string();
        for flag in ["--agree", "--differ"] {
            let error = String::from_utf8(run(2, &["judge", flag, &file, &file]).stderr).unwrap();
            assert!(error.contains(message), "{error}");
        }
    }
}

fn wait_for(child: &mut Child, path: &Path) {
    let end = Instant::now() + Duration::from_secs(120);
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < end, "{}", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A signal while hooks are waited for; the same command then does what is left.
#[test]
fn an_interrupted_hook_is_done_by_the_resumed_run() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let more = format!(
        "[ppo]\nsteps = 2\n[hooks.external.slow]\n\
         command = [\"sh\", \"-c\", \"test -f {0} || exec sleep 600; echo '{{\\\"x\\\": 1}}'\"]\n",
        gate.display()
    );
    let arguments = arguments_of(dir.path(), &more, &[]);
    let mut child = program(&arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for(&mut child, &dir.path().join("run/step_000002/COMPLETE"));
    std::thread::sleep(Duration::from_millis(500));
    kill("-TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(75));
    fs::write(&gate, "").unwrap();
    train(0, dir.path(), &more, &["--resume"]);
    let steps: Vec<_> = records(dir.path()).iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [0, 2]);
}

/// The evaluation on another task is that of `eval` on it, at each step.
#[test]
fn a_transfer_is_an_evaluation_on_another_task() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[ppo]\nsteps = 2\n[hooks.transfer]\nproblems = 8\n[hooks.transfer.task]\nkind = \"countdown\"\n\
                seed = 7\nnumbers = [2]\nmax_number = 9\ntargets = [2, 50]\ntrain = 8\nvalidation = 8\ntest = 8\n";
    train(0, dir.path(), more, &[]);
    let found = records(dir.path());
    assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 2]);
    let folder = dir.path().join("run");
    let answers = fs::read_to_string(folder.join("hooks/step_000002/transfer/answers.jsonl")).unwrap();
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tokens: f64 = answers.iter().map(|answer| answer["tokens"].as_f64().unwrap()).sum();
    assert_eq!(answers.len(), 8);
    assert!((found[1].1["hooks/transfer/response_length"].as_f64().unwrap() - tokens / 8.0).abs() < 1e-9);
    let (shown, seed) = (folder.display().to_string(), ["--set", "seed=5"]);
    let error = run(2, &["judge", &shown, "--steps", "2", "--set", "prompt.template=base"]).stderr;
    assert!(String::from_utf8(error).unwrap().contains("judged already, but not with the same prompt: --again"));
    // Greedy answers do not depend on the seed.
    run(0, &[&["judge", &shown, "--steps", "2"], &seed[..]].concat());
    // Afterwards the answers are the same.
    let other = dir.path().join("again").display().to_string();
    run(0, &["judge", &folder.display().to_string(), "--steps", "2", "--out", &other]);
    let again = fs::read_to_string(dir.path().join("again/hooks/step_000002/transfer/answers.jsonl")).unwrap();
    assert_eq!(again.lines().collect::<Vec<_>>(), answers.iter().map(Value::to_string).collect::<Vec<_>>());
}

/// The default judge at each step; its traces agree with themselves, and are in the report.
#[test]
fn personas_are_judged_at_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    train(0, dir.path(), "[ppo]\nsteps = 2\n[hooks.persona]\ntraces = 8\nevery = 1\n", &[]);
    let found = records(dir.path());
    assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1, 2]);
    let run_folder = dir.path().join("run");
    for (step, record) in found {
        let traces = fs::read_to_string(run_folder.join(format!("hooks/step_{step:06}/persona/traces.jsonl"))).unwrap();
        let traces: Vec<Value> = traces.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(traces.len(), 8);
        let voices = |trace: &Value| trace["judgement"]["perspectives"].as_array().unwrap().len() as f64;
        let mean = traces.iter().map(voices).sum::<f64>() / 8.0;
        assert!((record["hooks/persona/perspectives/mean"].as_f64().unwrap() - mean).abs() < 1e-9);
        assert_eq!(record["hooks/persona/missing"], 0.0);
    }
    let traces = run_folder.join("hooks/step_000002/persona").display().to_string();
    let own = json(&run(0, &["judge", "--agree", &traces, &traces, "--json"]));
    let voices = own.as_array().unwrap().iter().find(|row| row["name"] == "perspectives").unwrap();
    assert_eq!(voices["n"], 8);
    let other = run_folder.join("hooks/step_000000/persona").display().to_string();
    let differ = json(&run(0, &["judge", "--differ", &other, &traces, "--json"]));
    let voices = differ.as_array().unwrap().iter().find(|row| row["name"] == "perspectives/mean").unwrap();
    assert_eq!(voices["n"], serde_json::json!([8, 8]));
    let error = String::from_utf8(run(2, &["judge", "--agree", &traces, &other]).stderr).unwrap();
    assert!(error.contains("are not about the same traces"), "{error}");
    let page = dir.path().join("report.html");
    run(0, &["report", &run_folder.display().to_string(), "--out", &page.display().to_string(), "--traces", "1"]);
    let page = fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("class=\"trace\"").count(), 2);
    assert!(page.contains("the lexical judge sees words, not meaning"));
}

/// Responses without voices have figures that say so, beside training and afterwards.
#[test]
fn voices_are_looked_for_inside() {
    let dir = tempfile::tempdir().unwrap();
    train(0, dir.path(), "[ppo]\nsteps = 2\n[hooks.distinct]\ntraces = 8\nlayer = 0\n", &[]);
    let found = records(dir.path());
    assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 2]);
    for (step, record) in found {
        let folder = dir.path().join(format!("run/hooks/step_{step:06}/distinct"));
        let segments = fs::read_to_string(folder.join("segments.jsonl")).unwrap();
        let result: Value = serde_json::from_slice(&fs::read(folder.join("result.json")).unwrap()).unwrap();
        assert_eq!((&record["hooks/distinct/traces"], &result["identity"]["layer"]), (&0.0.into(), &0.into()));
        assert!(segments.lines().count() <= 8 && result["summary"].as_str().unwrap().starts_with("none of 8 traces"));
    }
    let run_folder = dir.path().join("run").display().to_string();
    let again = stdout(&run(0, &["judge", &run_folder, "--steps", "2", "--hook", "distinct", "--again"]));
    assert!(again.contains("none of 8 traces has two voices"), "{again}");
}

#[test]
fn hooks_that_cannot_be_are_refused_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    for (more, message) in [
        ("[hooks.external.persona]\ncommand = [\"true\"]\n", "`persona` is already a built-in hook"),
        ("[hooks.external.\"a b\"]\ncommand = [\"true\"]\n", "expected letters, digits"),
        ("[hooks.external.a]\ncommand = []\n", "the command is empty"),
        ("[hooks.external.a]\ncommand = [\"true\"]\nsteps = [999]\n", "step 999 never comes"),
        ("[hooks.external.a]\ncomand = [\"true\"]\n", "did you mean `command`?"),
        ("[hooks.external]\ncommand = [\"true\"]\n", "expected a section [hooks.external.NAME]"),
        ("[hooks.persona]\ntraces = 100000\n", "100000 responses to judge, but task.validation is"),
        ("[hooks.transfer]\nevery = 1\n", "missing section `task` in [hooks.transfer]"),
        (
            "[hooks.transfer]\ntask = { kind = \"countdown\", numbers = [9] }\n",
            "a problem of 9 numbers cannot be generated",
        ),
        (
            "[hooks.transfer]\nproblems = 99\ntask = { kind = \"countdown\", test = 3 }\n",
            "99 problems, but hooks.transfer.task.test is 3",
        ),
        ("[hooks]\ndevice = \"gpu\"\n", "there is no device `gpu`"),
        ("[hooks.distinct]\ntraces = 4\nlayer = 99\n", "layers, from 0 to"),
        ("[hooks.distinct]\ntraces = 999999\n", "999999 responses to judge, but task.validation is"),
        ("[hooks.external.distinct]\ncommand = [\"true\"]\n", "`distinct` is already a built-in hook"),
        (
            "[hooks.persona]\ntraces = 4\njudge = { kind = \"endpoint\", model = \"a\", url = \"example.org\" }\n",
            "does not begin with http://",
        ),
        (
            "[hooks.persona]\ntraces = 4\njudge = { kind = \"endpoint\", model = \"a\", url = \"http://a\", \
             body = \"3\" }\n",
            "expected a JSON object in quotes",
        ),
        (
            "[hooks.persona]\ntraces = 4\njudge = { kind = \"endpoint\", model = \"a\", url = \"http://a\", \
             prompts = \"none\" }\n",
            "there is no folder none",
        ),
        (
            "[hooks.persona]\ntraces = 4\njudge = { kind = \"endpoint\", model = \"a\", url = \"http://a\", \
             key_env = \"NO_SUCH_KEY_HERE\" }\n",
            "the environment variable NO_SUCH_KEY_HERE is not set",
        ),
        (
            "[hooks.transfer]\nproblems = 4\nmax_prompt_tokens = 3\ntask = { kind = \"countdown\", numbers = [2], \
             max_number = 9, targets = [2, 50], train = 8, validation = 8, test = 8 }\n",
            "hooks.transfer.max_prompt_tokens is 3",
        ),
    ] {
        let output = train(2, dir.path(), more, &[]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(message), "{more}: {error}");
    }
}
