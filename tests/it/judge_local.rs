//! Replies that are held to a schema while they are written, and the judge that writes them, with a model of random
//! weights: whatever it says, it can be read.

use crate::server::{Manner as Behaviour, Server};
use ppo_train::checkpoint::save_model;
use ppo_train::endpoint::{Service, Settings};
use ppo_train::grammar::{Acceptor, Grammar, Schema};
use ppo_train::judge::{Embedder, Judge, Judgement, Local, Perspective, Prompts, Question, Trace};
use ppo_train::model::{Head, ModelConfig, Policy, Weights};
use ppo_train::rng::{self, Purpose};
use ppo_train::rollout::{Author, Constraint, Engine, Manner, Sampling, Stop, Vocabulary};
use ppo_train::text::Tokenizer;
use ppo_train::torch::{on_device, test_device, to_host};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::Kind;

const QUICKSTART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/countdown-base");

/// A folder with random weights and the quickstart's tokenizer, which spells most words letter by letter.
pub fn model(seed: u64) -> tempfile::TempDir {
    // Its matrices are so small that several threads would mostly wait for each other.
    tch::set_num_threads(1);
    let dir = tempfile::tempdir().unwrap();
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(Path::new(QUICKSTART).join("config.json")).unwrap()).unwrap();
    for (key, value) in [("hidden_size", 32), ("intermediate_size", 48), ("num_hidden_layers", 2), ("head_dim", 8)] {
        config[key] = value.into();
    }
    config["max_position_embeddings"] = 16_384.into();
    config["initializer_range"] = json!(0.3);
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("config.json"), config.to_string()).unwrap();
    let config = ModelConfig::from_dir(&source).unwrap();
    let weights = Weights::random(&config, Head::Language, Kind::Float, test_device(), seed).unwrap();
    save_model(&dir.path().join("model"), &weights, &source, Path::new(QUICKSTART)).unwrap();
    dir
}

fn policy(dir: &Path) -> Policy {
    let config = ModelConfig::from_dir(&dir.join("model")).unwrap();
    let weights = Weights::load(&dir.join("model"), &config, Head::Language, Kind::Float, test_device()).unwrap();
    Policy::new(&config, weights)
}

/// A list of voices, each with a name and marks.
fn schema() -> Schema {
    let marks = Schema::List { item: Box::new(Schema::Integer { min: 1, max: 12 }), min: 2, max: 3 };
    let voice = Schema::Object(vec![("name".into(), Schema::Text { max: 12 }), ("marks".into(), marks)]);
    Schema::object(["voices"], &Schema::List { item: Box::new(voice), min: 1, max: 3 })
}

#[test]
fn allowed_tokens_are_those_that_an_acceptor_reads() {
    let tokenizer = Tokenizer::from_dir(Path::new(QUICKSTART)).unwrap();
    let vocabulary = Vocabulary::new(&tokenizer, tokenizer.vocab_size()).unwrap();
    let pieces = tokenizer.pieces().unwrap();
    let mut acceptor = Acceptor::new(Arc::new(Grammar::new(&schema())));
    let mut several = 0;
    for byte in r#"{"voices": [{"name": "no way 12", "marks": [1, 12, 3]}, {"name": "x", "marks": [7, 7]}]}"#.bytes() {
        for left in [usize::MAX, acceptor.shortest() + 3, acceptor.shortest() - 1] {
            let reads = |text: &str| {
                let mut acceptor = acceptor.clone();
                text.bytes().all(|byte| acceptor.read(byte)) && acceptor.shortest() <= left
            };
            let mut expected: Vec<i64> = pieces.iter().filter(|(text, _)| reads(text)).map(|(_, id)| *id).collect();
            let mut allowed = vocabulary.allowed(&acceptor, left).ids;
            expected.sort_unstable();
            allowed.sort_unstable();
            assert_eq!(allowed, expected);
            assert!(!allowed.is_empty());
            several += usize::from(allowed.len() > 100);
        }
        assert!(acceptor.read(byte));
    }
    assert!(acceptor.is_complete() && several > 10);
}

/// Greedy and drawn, several rows of two grammars in batches: each token against the full forward pass and a naive
/// mask.
#[test]
fn tokens_are_drawn_from_what_may_come_next() {
    let dir = model(1);
    let policy = policy(dir.path());
    let tokenizer = Tokenizer::from_dir(Path::new(QUICKSTART)).unwrap();
    let vocabulary = Vocabulary::new(&tokenizer, tokenizer.vocab_size()).unwrap();
    let grammars = [schema(), Schema::object(["a", "b"], &Schema::Integer { min: 5, max: 120 }), schema()]
        .map(|schema| Arc::new(Grammar::new(&schema)));
    let prompts = ["Numbers: 1 2\n", "x", "Target: 99\n"].map(|prompt| tokenizer.encode(prompt).unwrap());
    let pieces = tokenizer.pieces().unwrap();
    for greedy in [true, false] {
        let sampling = Sampling { temperature: 1.0, greedy, ..Sampling::plain() };
        let stop = Stop { ends: &|_, _| false, max_tokens: 60 };
        let engine = Engine {
            policy: &policy,
            sampling,
            stop,
            vocabulary: tokenizer.vocab_size(),
            batch: 4,
            goes_on: &|| true,
            steering: None,
        };
        let constraint = Constraint::new(&vocabulary, &grammars, 2);
        let stream = |prompt: usize, sample: usize| rng::stream(3, Purpose::Rollout, sample as u64, prompt as u64);
        let responses = engine.generate_within(&prompts, 2, Some(constraint), stream, |_| ());
        for (row, response) in responses.iter().enumerate() {
            let mut acceptor = Acceptor::new(Arc::clone(&grammars[row / 2]));
            let ids = [prompts[row / 2].as_slice(), &response.ids].concat();
            let ids = on_device(&ids, test_device()).unsqueeze(0);
            let all = policy.logits(&policy.decoder.forward(&ids)).get(0); // [T, V]
            let first = prompts[row / 2].len() - 1;
            for (at, (&id, &log_prob)) in response.ids.iter().zip(&response.log_probs).enumerate() {
                let logits = to_host(&all.get((first + at) as i64));
                let left = 60 - at - 1;
                let reads = |text: &str| {
                    let mut acceptor = acceptor.clone();
                    text.bytes().all(|byte| acceptor.read(byte)) && acceptor.shortest() <= left
                };
                let allowed = pieces.iter().filter(|(text, _)| reads(text));
                let scores: Vec<(i64, f64)> = allowed.map(|(_, id)| (*id, f64::from(logits[*id as usize]))).collect();
                let total: f64 = scores.iter().map(|(_, score)| score.exp()).sum();
                let own = scores.iter().find(|(other, _)| *other == id).expect("a token that may not come").1;
                assert!((own - total.ln() - f64::from(log_prob)).abs() < 1e-4);
                assert!(!greedy || scores.iter().all(|(_, score)| *score <= own + 1e-5));
                let text = &pieces.iter().find(|(_, other)| *other == id).unwrap().0;
                assert!(text.bytes().all(|byte| acceptor.read(byte)));
            }
            assert!(response.terminated && acceptor.is_complete());
        }
    }
}

/// With as many tokens as the shortest text has bytes, and with more.
#[test]
fn replies_are_complete_however_few_tokens_there_are() {
    let dir = model(2);
    let (tokenizer, schema) = (Tokenizer::from_dir(Path::new(QUICKSTART)).unwrap(), schema());
    let grammar = Arc::new(Grammar::new(&schema));
    for max_tokens in [grammar.shortest_text(), grammar.shortest_text() + 7, 400] {
        let manner = Manner { temperature: 1.5, max_tokens, batch: 3, ..Manner::default() };
        let author = Author::open(&dir.path().join("model"), manner, Arc::default()).unwrap();
        let messages = vec![tokenizer.encode("Numbers: 5 7\n").unwrap(); 10];
        let stream = |message: usize| rng::stream(1, Purpose::Rollout, 0, message as u64);
        let replies = author.write(&messages, Some(&vec![Arc::clone(&grammar); 10]), stream).unwrap();
        let texts: Vec<String> = replies.iter().map(|reply| author.text(reply).unwrap()).collect();
        for (text, reply) in texts.iter().zip(&replies) {
            assert_eq!(schema.check(&serde_json::from_str(text).unwrap()), Ok(()), "{text}");
            assert!(reply.terminated && reply.ids.len() <= max_tokens);
        }
        assert!(max_tokens < 100 || texts.windows(2).all(|pair| pair[0] != pair[1]));
    }
}

/// Ten traces, five questions: fifty replies of random weights.
#[test]
fn a_model_of_random_weights_judges() {
    let dir = model(3);
    let trace = |n: usize| Trace {
        problem: format!("Make {n} from 3 and 4."),
        text: "<think1>\nIs it 3 + 4? No.\n</think1>\n<think2>\n4 - 3 = 1.\n</think2>".repeat(n % 3 + 1),
    };
    let traces: Vec<Trace> = (0..10).map(trace).collect();
    // Ours are long for a tokenizer that spells words letter by letter.
    let short = tempfile::tempdir().unwrap();
    std::fs::write(
        short.path().join("trace.jinja"),
        "{{ problem }}\n{% for line in lines %}{{ line.text }}\n{% endfor %}",
    )
    .unwrap();
    for question in Question::ALL {
        std::fs::write(short.path().join(format!("{}.jinja", question.name())), question.name()).unwrap();
    }
    let judge = || {
        let manner = Manner { temperature: 1.0, batch: 10, max_tokens: 600, seed: 5, ..Manner::default() };
        let prompts = Prompts::new(Some(short.path())).unwrap();
        Local::open(&dir.path().join("model"), manner, prompts, Arc::default()).unwrap()
    };
    let judged = judge().judge(&traces).unwrap();
    let mut voices = vec![];
    for (judgement, trace) in judged.iter().zip(&traces) {
        let judgement = judgement.as_ref().unwrap();
        assert!(judgement.conversational.is_some() && judgement.roles.is_some() && judgement.cognitive.is_some());
        let perspectives = judgement.perspectives.as_ref().unwrap();
        for perspective in perspectives {
            assert!(perspective.bfi.unwrap().iter().all(|mark| (1..=5).contains(mark)));
            assert!((1..=120).contains(&perspective.expertise.as_ref().unwrap().len()));
        }
        for segment in &judgement.segments {
            assert!(segment.perspective < perspectives.len() && trace.text.get(segment.start..segment.end).is_some());
        }
        assert!(judgement.segments.windows(2).all(|pair| pair[0].end <= pair[1].start));
        voices.push(perspectives.len());
    }
    assert!(voices.iter().any(|count| *count > 1), "{voices:?}");
    // What is drawn depends on the prompt, not on the traces beside it.
    assert_eq!(judge().judge(&traces[..2]).unwrap(), judged[..2]);
    assert_eq!(judge().identity()["kind"], "local");
}

#[test]
fn a_trace_that_is_too_long_is_refused() {
    let dir = model(3);
    let trace = |words: usize| Trace { problem: "3 + 4?".into(), text: "word ".repeat(words) };
    let manner = Manner { max_tokens: 60, ..Manner::default() };
    let prompts = tempfile::tempdir().unwrap();
    for question in Question::ALL {
        std::fs::write(prompts.path().join(format!("{}.jinja", question.name())), "?").unwrap();
    }
    let open = |stop: Arc<AtomicBool>| {
        let prompts = Prompts::new(Some(prompts.path())).unwrap();
        Local::open(&dir.path().join("model"), manner, prompts, stop).unwrap()
    };
    let judged = open(Arc::default()).judge(&[trace(10_000)]).unwrap();
    let why = &judged[0].as_ref().unwrap_err().0;
    assert!(why.starts_with("conversational: a reply may take 85 tokens, but max_tokens is 60"), "{why}");
    let stopped = open(Arc::new(AtomicBool::new(true))).judge(&[trace(1)]);
    let manner = Manner { max_tokens: 400, ..Manner::default() };
    let judge =
        Local::open(&dir.path().join("model"), manner, Prompts::new(Some(prompts.path())).unwrap(), Arc::default());
    let judged = judge.unwrap().judge(&[trace(1), trace(10_000)]).unwrap();
    assert!(judged[0].is_ok());
    let why = &judged[1].as_ref().unwrap_err().0;
    assert!(why.starts_with("conversational: ") && why.contains("at most 16384 in total"), "{why}");
    assert!(stopped.is_err_and(|error| error.is::<ppo_train::Stopped>()));
}

#[test]
fn texts_become_vectors() {
    let dir = model(4);
    let texts: Vec<String> = ["mental arithmetic", "doubt", "mental arithmetic", "12"].map(String::from).to_vec();
    let author = Author::open(&dir.path().join("model"), Manner { batch: 2, ..Manner::default() }, Arc::default());
    let vectors = Embedder::local(Arc::new(author.unwrap())).embed(&texts).unwrap();
    let (policy, tokenizer) = (policy(dir.path()), Tokenizer::from_dir(Path::new(QUICKSTART)).unwrap());
    for (text, vector) in texts.iter().zip(&vectors) {
        let ids = tokenizer.encode(text).unwrap();
        let states = to_host(&policy.decoder.forward(&on_device(&ids, test_device()).unsqueeze(0))); // [t, 32]
        for (at, value) in vector.iter().enumerate() {
            let mean = states.iter().skip(at).step_by(32).sum::<f32>() / ids.len() as f32;
            assert!((mean - value).abs() < 1e-5, "{text}: {mean} {value}");
        }
    }
    assert!(vectors[0] == vectors[2] && vectors[0] != vectors[1]);

    // The same from a server, three texts once each, in any order; a second time from the disk.
    let server = Server::start(|_, seen| {
        let asked = seen.body["input"].as_array().unwrap();
        let vector = |text: &Value| vec![text.as_str().unwrap().len() as f64, 0.1];
        let entry = |(index, text): (usize, &Value)| json!({ "index": index, "embedding": vector(text) });
        let data: Vec<Value> = asked.iter().enumerate().rev().map(entry).collect();
        Behaviour::Body(json!({ "data": data, "usage": { "prompt_tokens": 9 } }).to_string())
    });
    let cache = tempfile::tempdir().unwrap();
    let open = || {
        let settings = Settings::new(&server.url, "vectors");
        Embedder::endpoint(Service::new(settings, None, cache.path(), Arc::default()).unwrap())
    };
    let expected: Vec<Vec<f32>> = texts.iter().map(|text| vec![text.len() as f32, 0.1]).collect();
    assert_eq!(open().embed(&texts).unwrap(), expected);
    assert_eq!(open().embed(&texts[..2]).unwrap(), expected[..2]);
    let seen = server.seen();
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "/v1/embeddings"));
    assert_eq!(seen[0].body, json!({ "model": "vectors", "input": ["12", "doubt", "mental arithmetic"] }));
    let voice = |text: &str| Perspective { expertise: Some(text.into()), ..Perspective::default() };
    let judgement = |voices: Vec<Perspective>| Judgement { perspectives: Some(voices), ..Judgement::default() };
    let [two, mute] = [judgement(vec![voice("12"), voice("doubt")]), judgement(vec![Perspective::default()])];
    let vectors = open().expertise(&[Some(&two), None, Some(&mute), Some(&Judgement::default())]).unwrap();
    assert_eq!(vectors, [Some(vec![vec![2.0, 0.1], vec![5.0, 0.1]]), None, None, None]);
    assert_eq!(server.seen().len(), 1);
    assert!(open().embed(&[" ".to_string()]).unwrap_err().is::<ppo_train::BadInput>());
}
