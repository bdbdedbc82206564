//! `ppo-train steer`, and a direction that is planted and found again.

use crate::judge::right;
use crate::judge_local::model;
use crate::server::Manner::{Say, Status};
use crate::server::{Seen, Server};
use crate::support::{SMOKE, json, run, stdout};
use ppo_train::model::{Head, ModelConfig, Policy, Weights};
use ppo_train::rollout::{Engine, Sampling, Steering, Stop};
use ppo_train::sae::{Residuals, Text};
use ppo_train::steer::{Direction, difference_of_means, mean_norm};
use ppo_train::torch::{on_device, test_device};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use serde_json::{Value, json};
use std::path::Path;
use tch::{Kind, Tensor};

const WIDTH: i64 = 32;
/// The token whose logit the planted direction raises.
const RAISED: i64 = 7;

/// A model without attention and MLP: the residual stream is the embedding. Those of the tokens 0 to 6 have the planted
/// direction u taken off, those of 8 to 15 have it added; the head reads it for one token alone.
fn planted() -> (Policy, Vec<f32>) {
    let config = ModelConfig::from_json(
        r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 24, "hidden_size": 32, "intermediate_size": 8,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
            "rope_theta": 1e4, "max_position_embeddings": 64, "tie_word_embeddings": false}"#,
    )
    .unwrap();
    let weights = Weights::zeros(&config, Head::Language, Kind::Float, test_device());
    let noise = |first: f64| (Tensor::arange(24 * WIDTH, (Kind::Float, test_device())) * 1.7 + first).sin() * 0.14;
    let u = (Tensor::arange(WIDTH, (Kind::Float, test_device())) * 0.9).cos();
    let u = &u / u.norm();
    let signs: Vec<f32> = (0..24).map(|id| if id < RAISED { -1.0 } else { f32::from((8..16).contains(&id)) }).collect();
    let raised: Vec<f32> = (0..24).map(|id| if id == RAISED { 3.0 } else { 0.0 }).collect();
    let with = |first: f64, along: &[f32]| {
        let rest = noise(first).view([24, WIDTH]);
        let rest = &rest - rest.matmul(&u).unsqueeze(1) * &u;
        rest + on_device(along, test_device()).unsqueeze(1) * &u
    };
    for (name, tensor) in weights.entries() {
        let mut tensor = tensor.shallow_clone();
        match name.as_str() {
            "model.embed_tokens.weight" => tensor.copy_(&with(0.3, &signs)),
            "lm_head.weight" => tensor.copy_(&with(1.1, &raised)),
            name if name.contains("norm") => drop(tensor.fill_(1.0)),
            _ => {}
        }
    }
    let u = ppo_train::torch::to_host(&u);
    (Policy::new(&config, weights), u)
}

#[test]
fn a_planted_direction_is_found_again() {
    let (policy, u) = planted();
    let planted = Direction::from_vector("planted", u, None).unwrap();
    // Traces of one kind of tokens after a prompt of the other; only the response counts.
    let traces = |own: std::ops::Range<i64>, other: i64| -> Vec<Text> {
        own.map(|id| Text { ids: [vec![other; 3], vec![id; 2 + id as usize % 3]].concat(), first: 3, row: 0 }).collect()
    };
    let [first, second] = [traces(8..16, 2), traces(0..7, 9)];
    for layer in [0, 1] {
        let residuals = Residuals { policy: &policy, layer };
        let found = difference_of_means(&residuals, &first, &second, "found".into()).unwrap();
        assert!(found.cosine(&planted) > 0.97, "{}", found.cosine(&planted));
        assert!((found.norm() - 2.0).abs() < 0.1, "{}", found.norm());
        // The norm of an embedding is that of u and noise.
        let norm = mean_norm(&residuals, &first).unwrap();
        assert!((1.0..1.4).contains(&norm), "{norm}");

        let prompts = [vec![20], vec![17, 22, 18]];
        let strengths = [0.0, 4.0, -4.0];
        let responses = strengths.map(|strength| (0, strength)).repeat(prompts.len());
        let steering = Steering::new(&policy.config, layer, &[&found.vector], responses, None).unwrap();
        let stop = Stop { ends: &|_, _| false, max_tokens: 6 };
        let engine = Engine {
            policy: &policy,
            sampling: Sampling::greedy(),
            stop,
            vocabulary: 24,
            batch: 0,
            goes_on: &|| true,
            steering: Some(&steering),
        };
        let written = engine.generate(&prompts, 3, |_, _| ChaCha8Rng::seed_from_u64(0), |_| ());
        for all in written.chunks(3) {
            // The first token follows from the prompt, which is not steered.
            assert!(all.iter().all(|response| response.ids[0] == all[0].ids[0] && response.ids[0] != RAISED));
            assert!(all[1].ids[1..].iter().all(|id| *id == RAISED), "{:?}", all[1].ids);
            assert!(!all[2].ids.contains(&RAISED), "{:?}", all[2].ids);
        }
    }
    let error = difference_of_means(&Residuals { policy: &policy, layer: 0 }, &first, &first, "d".into())
        .unwrap_err()
        .to_string();
    assert_eq!(error, "d: all its numbers are 0, which is no direction");
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn strengths_are_held_against_0_and_random_directions() {
    let dir = model(3);
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (folder, traces, saved) = (at("model"), at("traces.jsonl"), at("direction.safetensors"));
    let steer = |more: &[&str]| {
        let first = ["steer", &folder, "--recipe", SMOKE, "--layer", "0", "--problems", "5", "--decoding", "sampled"];
        run(0, &[&first, more].concat())
    };
    let report = json(&steer(&[
        "--random",
        "--unit",
        "norm",
        "--strengths=-2,2",
        "--controls",
        "3",
        "--traces",
        &traces,
        "--save",
        &saved,
        "--json",
    ]));
    assert_eq!(
        (&report["scale"]["unit"], &report["layer"], &report["problems"]),
        (&"norm".into(), &0.into(), &5.into())
    );
    // A recipe without [hooks.persona] has the lexical judge, to which nothing is missing.
    assert_eq!((&report["judged_by"], &report["judge"]["kind"]), (&"the lexical judge".into(), &"lexical".into()));
    let residual = number(&report["scale"]["residual_norm"]);
    let conditions = report["conditions"].as_array().unwrap();
    let of = |key: &str| conditions.iter().map(|row| number(&row[key])).collect::<Vec<_>>();
    assert_eq!(of("strength"), [-2.0, 0.0, 2.0]);
    assert!(of("share").iter().zip([2.0, 0.0, 2.0]).all(|(share, expected)| (share - expected).abs() < 1e-6));
    assert!((of("added")[2] - 2.0 * residual).abs() < 1e-5 * residual);
    let figures = |row: usize| conditions[row]["figures"].as_array().unwrap();
    assert_eq!(figures(2).len(), 12);
    assert!(figures(1).iter().all(|figure| figure.get("against").is_none() && figure["n"] == 5));
    assert!(figures(2).iter().all(|figure| number(&figure["against"]["p"]) <= number(&figure["against"]["p_holm"])));
    let controls = report["controls"]["rows"].as_array().unwrap();
    assert_eq!(controls.len(), 2 * 12);
    assert!(controls.iter().all(|row| (0.25..=1.0).contains(&number(&row["p"]))));

    // Strength 0 is what `eval` samples.
    let eval = json(&run(
        0,
        &[
            "eval",
            &folder,
            "--recipe",
            SMOKE,
            "--split",
            "validation",
            "--problems",
            "5",
            "--decoding",
            "sampled",
            "--json",
        ],
    ));
    let rows = lines(dir.path().join("traces.jsonl").as_path());
    assert_eq!(rows.len(), 5 * (3 + 3 * 2));
    let texts = |strength: f64| -> Vec<String> {
        let own = rows.iter().filter(|row| row["control"] == false && number(&row["strength"]) == strength);
        own.map(|row| row["text"].as_str().unwrap().to_string()).collect()
    };
    let expected: Vec<&str> =
        eval["rows"].as_array().unwrap().iter().map(|row| row["response"].as_str().unwrap()).collect();
    assert_eq!(texts(0.0), expected);
    assert!(texts(2.0) != texts(0.0) && texts(-2.0) != texts(2.0));

    // The same direction from a file, in raw units; the prompt steered too is something else.
    let again = at("again.jsonl");
    let raw = format!("--strengths={}", of("factor")[2]);
    let page = stdout(&steer(&["--file", &saved, &raw, "--traces", &again]));
    assert!(page.contains("a strength of 1 is the direction as it is (unit `raw`): it adds 1"), "{page}");
    assert!(page.contains("by the lexical judge") && !page.contains("## Controls"), "{page}");
    let text = |row: &Value| row["text"].as_str().unwrap().to_string();
    let raw_texts = |path: &str| lines(Path::new(path))[5..].iter().map(text).collect::<Vec<_>>();
    assert_eq!(raw_texts(&again), texts(2.0));
    let page = stdout(&steer(&["--file", &saved, &raw, "--traces", &again, "--prompt"]));
    assert!(page.contains("at all tokens of prompts and responses"), "{page}");
    assert!(raw_texts(&again) != texts(2.0));

    // What is written can be judged, analysed, and made a direction of.
    run(0, &["judge", "--traces", &traces]);
    run(0, &["analyze", &traces, "--model", "tokens ~ strength | index", "--where", "control=false"]);
    for (name, strength) in [("up.jsonl", 2.0), ("down.jsonl", -2.0)] {
        let own = rows.iter().filter(|row| number(&row["strength"]) == strength);
        std::fs::write(at(name), own.map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    }
    let (up, down) = (at("up.jsonl"), at("down.jsonl"));
    let between = |a: &str, b: &str| {
        let found = at("found.safetensors");
        let report = json(&steer(&["--between", a, b, "--strengths", "1", "--save", &found, "--json"]));
        assert!(report["direction"].as_str().unwrap().starts_with("difference of means, "), "{report}");
        Direction::from_file(Path::new(&found), "direction").unwrap()
    };
    let (one, other) = (between(&up, &down), between(&down, &up));
    assert!((one.cosine(&other) + 1.0).abs() < 1e-6);
}

/// A judge behind an endpoint refuses the answers to one problem, and says nothing of use about the conversation in
/// those to another: both are missing, which is not 0.
#[test]
fn what_a_judge_does_not_say_is_missing() {
    let dir = model(3);
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (folder, traces, answers) = (at("model"), at("traces.jsonl"), at("answers"));
    let steer = |code: i32, more: &[&str]| {
        let along = ["steer", &folder, "--recipe", SMOKE, "--layer", "0", "--random", "--unit", "norm"];
        let over = ["--strengths=-0.5,0.5", "--controls", "1", "--problems", "5", "--decoding", "sampled"];
        run(code, &[&along[..], &over, &["--traces", &traces], more].concat())
    };
    let rows = || lines(Path::new(&traces));
    let texts = |rows: &[Value]| rows.iter().map(|row| row["text"].clone()).collect::<Vec<_>>();
    steer(0, &[]);
    let lexical = rows();
    let problem = |index: usize| lexical[index]["problem"].as_str().unwrap().to_string();
    let (refused, muddled) = (problem(1), problem(2));
    let server = Server::start(move |_, seen: &Seen| {
        let is_about = |problem: &str| seen.prompt().contains(&format!("\n{problem}\n"));
        let asks_for = |key: &str| seen.prompt().contains(&format!("{{\"{key}\": "));
        match () {
            () if is_about(&refused) => Status(400, "", "{\"error\": \"too long\"}".into()),
            () if is_about(&muddled) && asks_for("question_answering") => Say("I would rather not.".into()),
            () if asks_for("perspectives") => {
                Say(json!({ "perspectives": [{ "expertise": "sums", "bfi": vec![3; 10] }] }).to_string())
            }
            () => Say(right(seen)),
        }
    });
    let url = format!("hooks.persona.judge.url={}", server.url);
    let sets = ["hooks.persona.judge.kind=endpoint", "hooks.persona.judge.model=tiny", &url];
    let mut judge: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    judge.extend(["--answers", &answers]);
    let report = json(&steer(0, &[&judge[..], &["--json"]].concat()));
    assert_eq!((&report["judged_by"], &report["judge"]["model"]), (&"tiny behind an endpoint".into(), &"tiny".into()));

    // Strengths and problems of the direction, then those of a control. Where nobody speaks, nothing is asked.
    let rows = rows();
    assert_eq!((rows.len(), texts(&rows)), (5 * (3 + 2), texts(&lexical)));
    let (mut missing, mut partly) = (0, 0);
    for row in rows.iter().filter(|row| row["judgement"]["perspectives"] != json!([])) {
        let judgement = &row["judgement"];
        match row["index"].as_u64().unwrap() {
            1 => {
                assert_eq!(
                    (&row["missing"], judgement),
                    (&"conversational: status 400: too long".into(), &Value::Null)
                );
                missing += 1;
            }
            index => {
                let all = json!([1, 1, 1, 1]);
                let conversational = if index == 2 { &Value::Null } else { &all };
                assert_eq!((&judgement["cognitive"], &judgement["conversational"]), (&all, conversational));
                partly += usize::from(index == 2);
            }
        }
    }
    assert!(missing > 0 && partly > 0, "{missing} {partly}");
    let said = format!("{} of 25 traces judged, {missing} missing: conversational: status 400: too long", 25 - missing);
    let notes: Vec<&str> = report["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect();
    assert!(notes.contains(&said.as_str()) && notes.iter().any(|note| note.starts_with("the judge: ")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains(&format!("conversational: missing in {partly} of "))), "{notes:?}");

    // Figures are those of the answers that the judge speaks of.
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    for (part, name) in [("conversational", "question_answering"), ("cognitive", "verification")] {
        let name = format!("{part}/{name}/prevalence");
        let known = |strength: f64| -> Vec<Option<f64>> {
            let own = rows.iter().filter(|row| row["control"] == false && number(&row["strength"]) == strength);
            let has = |counts: &Vec<Value>| f64::from(u8::from(counts[0] != 0));
            own.map(|row| row["judgement"][part].as_array().map(has)).collect()
        };
        for row in report["conditions"].as_array().unwrap() {
            let (strength, figures) = (number(&row["strength"]), row["figures"].as_array().unwrap());
            assert_eq!((figures.len(), &figures[0]["name"], &figures[0]["n"]), (12, &"accuracy".into(), &5.into()));
            let figure = figures.iter().find(|figure| figure["name"] == name.as_str()).unwrap();
            let own: Vec<f64> = known(strength).into_iter().flatten().collect();
            assert!(figure["n"] == own.len() && (number(&figure["value"]) - mean(&own)).abs() < 1e-12, "{figure}");
            if strength != 0.0 {
                let both = known(strength).into_iter().zip(known(0.0));
                let changes: Vec<f64> = both.filter_map(|(own, zero)| Some(own? - zero?)).collect();
                let against = &figure["against"];
                assert_eq!(against["n"], changes.len());
                assert!((number(&against["difference"]) - mean(&changes)).abs() < 1e-12, "{figure}");
            }
        }
    }
    let controls = report["controls"]["rows"].as_array().unwrap();
    assert!(controls.len() == 2 * 12 && controls.iter().all(|row| row["known"] == 1), "{controls:?}");
    assert!(controls.iter().any(|row| number(&row["n"]) < 5.0 || number(&row["fewest"]) < 5.0), "{controls:?}");

    // What was answered is not asked again; more than may be missing is a failure.
    let asked = server.seen().len();
    let failed = steer(1, &[&judge[..], &["--set", "hooks.persona.max_missing=0.01"]].concat());
    let error = String::from_utf8(failed.stderr).unwrap();
    assert!(error.contains(&said) && error.ends_with(" (hooks.persona.max_missing is 0.01)\n"), "{error}");
    assert_eq!(server.seen().len() - asked, missing + 2 * partly);
    let page = stdout(&steer(0, &judge));
    for part in
        ["by tiny behind an endpoint", "| problems | at both strengths |", "- what is missing is not 0: ", &said]
    {
        assert!(page.contains(part), "{part}\n{page}");
    }

    // The lines are judged traces, and rows.
    run(0, &["judge", "--traces", &traces]);
    run(0, &["judge", "--differ", &traces, &traces]);
    run(0, &["analyze", &traces, "--model", "tokens ~ strength | index", "--where", "control=false"]);
}

#[test]
fn what_cannot_be_steered_is_said() {
    let dir = model(3);
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let folder = at("model");
    let (rows, empty) = (at("rows.jsonl"), at("empty.jsonl"));
    std::fs::write(&rows, "{\"text\": \"1\"}\n{\"trace\": \"2\"}\n").unwrap();
    std::fs::write(&empty, "").unwrap();
    let (weights, short) = (at("model/model.safetensors"), at("short.safetensors"));
    Direction::random(31, 1.0, 0, 0).save(Path::new(&short)).unwrap();
    for (args, parts) in [
        (&["--layer", "0"][..], &["--between <A> <B>|--sae <DIR>|--file <FILE>|--random"][..]),
        (&["--layer", "2", "--random"], &["there is no layer 2: the model has 2, from 0 to 1"]),
        (&["--layer", "0", "--random", "--strengths", "1,nan"], &["--strengths: NaN is not a strength"]),
        (&["--layer", "0", "--random", "--strengths", "1e39"], &["a strength of 1"]),
        (&["--layer", "0", "--random", "--unit", "activation"], &["--max-activation", "--unit"]),
        (&["--layer", "0", "--random", "--unit", "norms"], &["[possible values: raw, activation, norm]"]),
        (&["--layer", "0", "--random", "--tensor", "x"], &["--file FILE, which is not given"]),
        (&["--layer", "0", "--random", "--begin"], &["--prompt"]),
        (&["--layer", "0", "--random", "--set", "hooks.persona=unset"], &["the recipe has no [hooks.persona]"]),
        (
            &["--layer", "0", "--between", &rows, &rows],
            &["rows.jsonl, line 2: expected a text in `response` or `text`"],
        ),
        (&["--layer", "0", "--between", &empty, &rows], &["empty.jsonl: no row has tokens to look at"]),
        (&["--layer", "0", "--file", &rows], &["rows.jsonl is damaged or was not fetched completely"]),
        (&["--layer", "0", "--file", &weights, "--tensor", "model.norm.wight"], &["did you mean `model.norm.weight`?"]),
        (
            &["--layer", "0", "--file", &weights, "--tensor", "model.embed_tokens.weight"],
            &["32], expected [H] or [1, H]: one direction"],
        ),
        (&["--layer", "0", "--file", &short], &["a direction has 31 numbers, but the model's residual stream 32"]),
    ] {
        let first = ["steer", &folder, "--recipe", SMOKE, "--problems", "1"];
        let message = String::from_utf8(run(2, &[&first, args].concat()).stderr).unwrap();
        assert!(parts.iter().all(|part| message.contains(part)), "{args:?}: {message}");
    }
    let message = String::from_utf8(run(2, &["steer", &folder, "--layer", "0", "--random"]).stderr).unwrap();
    assert!(message.contains("name a recipe with --recipe"), "{message}");
}
