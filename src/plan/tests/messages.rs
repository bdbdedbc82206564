//! Broken recipes and what is said about them; overrides, layers, old spellings.

use super::*;
use crate::recipe;

/// What in `GOOD` is replaced by what, the line that the message shows, and parts of the message.
const BROKEN: &[(&str, &str, usize, &[&str])] = &[
    ("kl_coef", "kl_cof", 22, &["unknown key `kl_cof` in [ppo]", "did you mean `kl_coef`?"]),
    ("kl_coef", "lerning_rate", 22, &["did you mean `actor_lr`?"]),
    ("kl_coef", "temperature", 22, &["`temperature` belongs in [rollout]"]),
    ("kl_coef", "max_new_tokens", 22, &["did you mean `max_response_tokens`? It belongs in [rollout]"]),
    ("[rollout]", "[rolout]", 24, &["unknown section [rolout]", "did you mean `rollout`?"]),
    ("seed = 3", "steps = 3", 2, &["unknown key `steps`", "`steps` belongs in [ppo]"]),
    (
        "seed = 3",
        "seed = \"3\"",
        2,
        &["`seed` has the wrong type", "string \"3\"", "expected a whole number of at least 0"],
    ),
    ("seed = 3", "seed = 99999999999999999999", 2, &["`seed`"]),
    ("seed = 3", "seed = 3\nseed = 4", 3, &["duplicate key"]),
    ("seed = 3", "seed = ", 2, &["this is not valid TOML"]),
    ("seed = 3\n", "", 21, &["unknown key `x`"]),
    ("name = \"trial\"\n", "", 1, &["missing key `name`"]),
    ("\"trial\"", "\"a/b\"", 1, &["`name` cannot contain '/'"]),
    ("\"trial\"", "\"\"", 1, &["`name` is empty"]),
    ("\"trial\"", "\".trial\"", 1, &["cannot begin with a dot"]),
    ("tiny-model\"", "tiny-modle\"", 5, &["there is no model folder", "tiny-model?"]),
    ("random_weights = true", "random_weights = 1", 6, &["`model.random_weights`", "expected true or false"]),
    ("\"countdown\"", "\"countdwon\"", 9, &["cannot be \"countdwon\"", "did you mean \"countdown\"?"]),
    ("kind = \"countdown\"\n", "", 8, &["missing key `kind` in [task]"]),
    ("train = 1000", "train = -1", 10, &["`task.train` is -1, expected a whole number of at least 1"]),
    ("train = 1000", "train = 1e3", 10, &["`task.train`", "number 1e3", "expected a whole number of at least 1"]),
    ("train = 1000", "train = 0", 10, &["`task.train` is 0, expected a whole number of at least 1"]),
    ("train = 1000", "numbers = [3, 7]", 10, &["a problem of 7 numbers"]),
    ("train = 1000", "numbers = 3", 10, &["expected a list"]),
    ("train = 1000", "targets = [9, 3]", 10, &["[9, 3]", "lowest"]),
    ("train = 1000", "targets = [9]", 10, &["`task.targets` has 1 entry", "expected a list of two"]),
    ("train = 1000", "max_number = 1\nnumbers = [2]\ntargets = [10, 20]", 12, &["no 2 numbers up to 1 make 10"]),
    ("train = 1000", "train_file = \"x\"", 10, &["or none", "task.validation_file and task.test_file"]),
    ("train = 1000", "train = 10", 25, &["16 prompts per step", "10 training problems"]),
    ("\"solver\"", "\"slover\"", 14, &["`sft.data.kind` cannot be \"slover\"", "did you mean \"solver\"?"]),
    (
        "data.kind = \"solver\"",
        "data = \"slover\"",
        14,
        &["there is no file slover", "did you mean kind = \"solver\"?"],
    ),
    (
        "data.kind = \"solver\"",
        "data.style = \"sums\"",
        14,
        &["missing key `kind` in [sft.data]", "one of: solver, file"],
    ),
    ("data.kind = \"solver\"", "data.kind = \"file\"", 14, &["missing key `path` in [sft.data]", "a quoted string"]),
    ("data.kind = \"solver\"", "data = { kind = \"solver\", path = \"x\" }", 14, &["unknown key `path` in [sft.data]"]),
    ("data.kind = \"solver\"", "data.kind = \"file\"\ndata.style = \"sums\"", 15, &["`style` needs kind = \"solver\""]),
    ("data.kind = \"solver\"", "data.Kind = \"solver\"", 14, &["unknown key `Kind`", "did you mean `kind`?"]),
    (
        "data.kind = \"solver\"",
        "lr = 0.1",
        13,
        &["missing section `data`", "[sft.data] with kind = \"solver\" or \"file\""],
    ),
    ("seed = 3", "seed = 18446744073709551615", 2, &["expected a whole number of at most 9223372036854775807"]),
    ("data.kind = \"solver\"", "data = 3", 14, &["`sft.data` is a section", "[sft.data]"]),
    ("batch = 20", "batch = 300", 16, &["more than the 200 rows"]),
    ("batch = 20", "data.tries = [3, 2]", 16, &["`sft.data.tries` is [3, 2]"]),
    ("batch = 20", "data.insight = 1.5", 16, &["`sft.data.insight` is 1.5, expected a number from 0 to 1"]),
    ("batch = 20", "micro_batch_tokens = 63", 16, &["a row of 64 tokens"]),
    ("context = 64", "context = 129", 17, &["context is 128"]),
    ("mini_batch = 32", "mini_batch = 30", 21, &["64 sequences", "not a multiple of 30", "16 or 32"]),
    ("mini_batch = 32\n", "", 19, &["not a multiple of 256", "default"]),
    ("kl_coef = 0.001", "critic_mini_batch = 5", 22, &["not a multiple of 5", "4 or 8"]),
    ("kl_coef = 0.001", "kl_coef = nan", 22, &["`ppo.kl_coef` is NaN, expected a number from 0"]),
    ("kl_coef = 0.001", "actor_lr = inf", 22, &["`ppo.actor_lr` is inf"]),
    ("kl_coef = 0.001", "gamma = 1.1", 22, &["`ppo.gamma` is 1.1, expected a number from 0 to 1"]),
    ("kl_coef = 0.001", "clip_dual = 0.5", 22, &["above 1"]),
    ("kl_coef = 0.001", "betas = [0.9, 1]", 22, &["`ppo.betas` contains 1"]),
    ("kl_coef = 0.001", "advantage = \"gea\"", 22, &["did you mean \"gae\"?", "gae, grpo, rloo"]),
    ("kl_coef = 0.001", "kl_target = 0.1\nkl_in = \"loss\"", 22, &["kl_in = \"reward\""]),
    ("kl_coef = 0.001", "kl_in = \"loss\"", 22, &["k1", "k2"]),
    ("kl_coef = 0.001", "kl_coef = 0\nkl_target = 0.1", 22, &["from 0 it never moves"]),
    ("kl_coef = 0.001", "advantage = \"rloo\"\ncritic = \"shared\"", 23, &["no critic to share"]),
    ("kl_coef = 0.001", "critic = \"shared\"\ncritic_mini_batch = 8", 23, &["actor's mini-batches"]),
    ("kl_coef = 0.001", "advantage = \"rloo\"\ncritic_warmup_steps = 2", 23, &["no critic to warm up"]),
    ("kl_coef = 0.001", "critic_warmup_steps = 10", 22, &["the actor would never learn"]),
    ("kl_coef = 0.001", "micro_batch_tokens = 60", 22, &["a sequence of 64 tokens", "micro-batch of 60"]),
    ("max_prompt_tokens = 24", "max_prompt_tokens = 100", 28, &["100 prompt and 40 response", "context is 128"]),
    (
        "samples_per_prompt = 4",
        "samples_per_prompt = 4\ntemperature = 0",
        27,
        &["`rollout.temperature` is 0, expected a number from 0.001 to 100"],
    ),
    ("samples_per_prompt = 4", "samples_per_prompt = 4\ntop_p = 1.5", 27, &["at most 1"]),
    (
        "samples_per_prompt = 4",
        "samples_per_prompt = 4\nbatch = 3",
        27,
        &["4 samples of a prompt are decoded together"],
    ),
    ("prompts_per_step = 16", "prompts_per_step = 9223372036854775807", 25, &["`rollout.prompts_per_step`"]),
    ("problems = 50", "problems = 101", 31, &["101 problems", "task.validation is 100"]),
    ("problems = 50", "decoding = []", 31, &["one or both modes, each once"]),
    ("problems = 50", "decoding = [\"greddy\"]", 31, &["did you mean \"greedy\"?"]),
    ("problems = 50", "[machine]\ndevice = \"gpu\"", 32, &["no device `gpu`", "cuda"]),
    ("problems = 50", "[machine]\nprecision = \"float16\"", 32, &["did you mean \"bfloat16\"?"]),
    ("problems = 50", "[prompt]\ntemplate = \"bsae\"", 32, &["did you mean \"base\"?"]),
    ("problems = 50", "[reward]\naccuracy = 0\nformat = 0", 32, &["no response can earn a reward"]),
    ("problems = 50", "[checkpoints]\nkeep_last = 0", 32, &["`checkpoints.keep_last` is 0"]),
    ("problems = 50", "[[hooks]]\nsamples = 1", 31, &["`hooks` is a section", "write [hooks]"]),
    ("problems = 50", "[hooks.samples]\nn = 1", 31, &["`hooks.samples` is a key with a value"]),
    ("problems = 50", "[logging]\njsonl = false\ntensorboard = false", 32, &["nothing would record the run"]),
    ("seed = 3", "\"ppo.steps\" = 3", 2, &["unknown key `ppo.steps`", "without quotes: ppo.steps"]),
    ("seed = 3", "hooks = [1]", 2, &["`hooks` is a section"]),
    ("kl_coef = 0.001", "betas = [0.9, 0.95, 0.99]", 22, &["`ppo.betas` has 3 entries, expected a list of two"]),
    ("kl_coef = 0.001", "advantage = { gae = 1 }", 22, &["`ppo.advantage` is a key with a value"]),
    ("\"trial\"", "3", 1, &["`name` has the wrong type: integer 3, expected a quoted string"]),
];

#[test]
fn a_good_recipe_is_a_plan() {
    let bench = Bench::new();
    let plan = bench.load(bench.good(), &[]).unwrap();
    assert_eq!(plan.out, Path::new("checkpoints/trial"));
    let ppo = plan.recipe.ppo.clone().unwrap();
    assert_eq!((plan.sequences_per_step(), plan.actor_updates(&ppo), plan.critic_updates(&ppo)), (64, 2, 2));
    assert_eq!(plan.max_tokens_per_step(), 64 * 64);
    assert!(bench.load(format!("\u{feff}{}", bench.good().replace('\n', "\r\n")), &[]).is_ok());
    // What a run stores says the same.
    let again = bench.load(&plan.text, &[]).unwrap();
    assert_eq!(again.text, plan.text);
}

#[test]
fn a_broken_recipe_is_shown_where_it_is_broken() {
    let bench = Bench::new();
    for (from, to, line, fragments) in BROKEN {
        let mut text = bench.good();
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
        if fragments.contains(&"unknown key `x`") {
            text = text.replace("kl_coef", "x");
        }
        let message = bench.fails(&text, &[]);
        assert!(message.contains(&format!("r.toml:{line}:")), "{from} -> {to}, line {line}:\n{message}");
        assert!(message.contains('^'), "{from} -> {to}:\n{message}");
        for fragment in *fragments {
            assert!(message.contains(fragment), "{from} -> {to}, {fragment}:\n{message}");
        }
    }
}

#[test]
fn a_message_about_a_missing_model_says_how_to_get_it() {
    let bench = Bench::new();
    let absent = bench.path("smollm2-135m-instruct");
    let message = bench.fails(GOOD.replace("{model}", &absent), &[]);
    assert!(message.contains(&format!("help: to get it: scripts/smollm2 {absent}")), "{message}");
}

#[test]
fn one_message_in_full() {
    let bench = Bench::new();
    let message = bench.fails(bench.good().replace("mini_batch = 32", "mini_batch = 30"), &[]);
    let expected = format!(
        "a step has 64 sequences (16 prompts x 4 samples), not a multiple of 30\n  --> {}:21:14\n   |\n\
         21 | mini_batch = 30\n   |              ^^\n   |\n   = help: the nearest size that fits: 16 or 32",
        bench.path("r.toml")
    );
    assert_eq!(message, expected);
}

#[test]
fn overrides_replace_add_and_are_shown_when_wrong() {
    let bench = Bench::new();
    let text = bench.good();
    let sets =
        ["ppo.kl_coef=0.5", "seed = 7", "task.numbers=[3]", "name=second", "ppo.kl_coef = 0.25", "reward.format=0"];
    let plan = bench.load(&text, &sets).unwrap();
    assert_eq!((plan.recipe.seed, plan.recipe.name.as_str()), (7, "second"));
    assert_eq!(plan.recipe.ppo.unwrap().kl_coef, 0.25);
    let Task::Countdown(Countdown { numbers, .. }) = plan.recipe.task else { panic!("another task") };
    assert_eq!((numbers, plan.recipe.reward.format), (vec![3], 0.0));
    assert!(plan.text.contains("kl_coef = 0.25"));

    for (sets, column, fragments) in [
        (&["seed=1", "ppo.kl_cof=0.1"][..], 11, &["--set ppo.kl_cof=0.1\n", "did you mean `kl_coef`?"][..]),
        (&["ppo.kl_coef=0,1"], 19, &["`ppo.kl_coef`", "\"0,1\"", "expected a number", "^^^"]),
        (&["ppo.mini_batch=7"], 22, &["not a multiple of 7"]),
        (&["task.numbers=[3, 9]"], 20, &["a problem of 9 numbers"]),
        (&["task.numbers=[3, \"x\"]"], 24, &["`task.numbers", "expected a whole number"]),
        (&["task.numbers=[3,"], 23, &["this is not valid TOML"]),
        (&["ppo.kl_coef"], 7, &["KEY=VALUE"]),
        (&["ppo.kl_coef="], 18, &["no value"]),
        (&["=3"], 7, &["begins with a key"]),
        (&["ppo..x=3"], 7, &["begins with a key"]),
        (&["ppo=3"], 7, &["`ppo` is a section"]),
        (&["seed.x=3"], 7, &["`seed` is a key with a value"]),
        (&["name=3"], 12, &["expected a quoted string", "the shell needs both"]),
        (&["rolout.batch=8"], 7, &["unknown section [rolout]"]),
        (&["seed=1\nname=2"], 7, &["a single line"]),
        (&["ppo.advantage=ggae"], 21, &["did you mean \"gae\"?"]),
        (&["name=naïve/ü"], 12, &["cannot contain '/'"]),
    ] {
        let message = bench.fails(&text, sets);
        assert!(message.contains(&format!("command line:1:{column}\n")), "{sets:?} {column}:\n{message}");
        for fragment in fragments {
            assert!(message.contains(fragment), "{sets:?}:\n{message}");
        }
    }
}

#[test]
fn what_is_not_a_recipe_is_reported() {
    let bench = Bench::new();
    let at = |name: &str| load(Path::new(&bench.path(name)), &[], None).err().unwrap().to_string();
    assert!(bench.fails("", &[]).contains("the recipe is empty"));
    assert!(bench.fails("# nothing\n", &[]).contains("the recipe is empty"));
    assert!(bench.fails([0xff, 0xfe, 0, 1], &[]).contains("byte 0 is not UTF-8"));
    assert!(bench.fails([0, 1, 2, 3], &[]).contains("this is not valid TOML"));
    assert!(at("s.toml").ends_with(&format!("did you mean {}?", bench.path("r.toml"))));
    assert!(at("nowhere/r.toml").contains("there is no folder"));
    assert!(at("").contains("is a folder, expected a recipe; did you mean"));
    let good = bench.good();
    let nothing = format!("{}{}", &good[..good.find("[sft]").unwrap()], &good[good.find("[rollout]").unwrap()..]);
    assert!(bench.fails(&nothing, &[]).contains("trains nothing"));
    // A warm start without PPO rolls nothing out, so the default lengths do not matter.
    let nothing = &nothing[..nothing.find("[rollout]").unwrap()];
    assert!(bench.load(nothing, &["sft.data.kind=solver", "sft.context=100"]).is_ok());
}

/// A warm start is known by its record; tests/it/warm_starts.rs begins with one.
#[test]
fn a_model_is_no_finished_warm_start() {
    let bench = Bench::new();
    let text = bench.good().replace("data.kind = \"solver\"\n", "");
    let from = format!("sft.from={}", bench.path("tiny-model"));
    let message = bench.fails(&text, &[&from]);
    assert!(message.contains("it has no warm_start.json") && message.contains("belongs into model.path"), "{message}");
    let record = bench.0.path().join("tiny-model/warm_start.json");
    for (text_of_record, part) in
        [("{", "warm_start.json"), ("{\"sft\": null}", "had no warm start"), ("{}", "no `sft`")]
    {
        fs::write(&record, text_of_record).unwrap();
        let message = bench.fails(&text, &[&from]);
        assert!(message.contains(part), "{message}");
    }
    fs::write(&record, "{\"sft\": {}}").unwrap();
    bench.load(&text, &[&from]).unwrap();
    let message = bench.fails(bench.good(), &[&from]);
    assert!(message.contains("a finished warm start has no rows"), "{message}");
}

/// Spellings of an earlier version and their present meaning.
#[test]
fn old_spellings_are_accepted() {
    let bench = Bench::new();
    let old = bench
        .good()
        .replace("data.kind = \"solver\"", "data = \"solver\"\nstyle = \"dialogue\"\ntries = [2, 3]\nwarmup = 0.5")
        + "[device]\ndevice = \"cpu\"\n[reward]\nallow_equals = false\n";
    let plan = bench.load(&old, &["ppo.lr_warmup_steps=5"]).unwrap();
    let now = bench
        .good()
        .replace("data.kind = \"solver\"", "data = { kind = \"solver\", style = \"dialogue\", tries = [2, 3] }")
        + "[machine]\ndevice = \"cpu\"\n";
    let sets = ["task.allow_equals=false", "sft.warmup_ratio=0.5", "ppo.warmup_ratio=0.5"];
    assert_eq!(plan.text, bench.load(&now, &sets).unwrap().text);

    let (_, sources) = recipe::read(&bench.0.path().join("r.toml"), &["sft.data=rows.jsonl".into()]).unwrap();
    assert_eq!(sources.notes, ["note: `sft.data` is now a section [sft.data] with `kind = \"file\"` and `path`"]);
    // The rows of a file have no style, so none is left when a file replaces the solver.
    let message = bench.fails(&now, &["sft.data=rows.jsonl"]);
    assert!(message.contains("there is no file rows.jsonl") && message.contains("command line:1:16"), "{message}");
    // If a file has both spellings, the old one is an unknown key.
    let both = bench.good().replace("batch = 20", "batch = 20\nwarmup = 0.1\nwarmup_ratio = 0.2");
    let message = bench.fails(&both, &[]);
    assert!(message.contains("unknown key `warmup` in [sft]"), "{message}");
}

#[test]
fn a_damaged_recipe_does_not_panic() {
    let bench = Bench::new();
    let good = bench.good().replace("seed", "# ä\r\nseed");
    for (at, _) in good.char_indices().step_by(2) {
        for damage in ["", "é", "\"", "[", "\r"] {
            let end = at + good[at..].chars().next().map_or(0, char::len_utf8);
            let _ = bench.load(format!("{}{damage}{}", &good[..at], &good[end..]), &[]);
        }
        let _ = bench.load(&good[..at], &["ppo.kl_coef=[", "seed=\u{1F600}"]);
    }
}

#[test]
fn a_recipe_extends_another() {
    let bench = Bench::new();
    let write = |name: &str, text: &str| fs::write(bench.0.path().join(name), text).unwrap();
    write("base.toml", &bench.good());
    fs::create_dir(bench.0.path().join("more")).unwrap();
    write("more/middle.toml", "extends = \"../base.toml\"\nname = \"middle\"\n[sft.data]\nstyle = \"dialogue\"\n");
    let top = "extends = \"more/middle.toml\"\nname = \"top\"\n[ppo]\nkl_coef = 0.5\n";
    let plan = bench.load(top, &["ppo.steps=7"]).unwrap();
    let (sft, ppo) = (plan.recipe.sft.unwrap(), plan.recipe.ppo.unwrap());
    assert!(sft.solver().is_some_and(|solver| solver.style == TraceStyle::Dialogue), "{:?}", sft.data);
    assert_eq!((plan.recipe.name.as_str(), sft.batch), ("top", 20));
    assert_eq!((ppo.kl_coef, ppo.steps, ppo.mini_batch), (0.5, 7, 32));
    // What a run stores extends nothing.
    assert!(!plan.text.contains("extends"));
    assert_eq!(bench.load(&plan.text, &[]).unwrap().text, plan.text);

    let says = |text: &str, sets: &[&str], fragments: &[&str]| {
        let message = bench.fails(text, sets);
        for fragment in fragments {
            assert!(message.contains(fragment), "{fragment}:\n{message}");
        }
    };
    says(&top.replace("kl_coef = 0.5", "kl_cof = 0.5"), &[], &["r.toml:4:1", "did you mean `kl_coef`?"]);
    says(&top.replace("kl_coef = 0.5", "mini_batch = 30"), &[], &["r.toml:4:14", "not a multiple of 30"]);
    says(top, &["ppo.kl_coef=x"], &["command line:1:19", "expected a number"]);
    says(top, &["extends=base.toml"], &["command line", "only be set in a recipe file"]);
    says("extends = \"more/midle.toml\"\n", &[], &["r.toml:1:11", "there is no recipe", "middle.toml?"]);
    says("extends = 3\n", &[], &["r.toml:1:11", "expected a quoted string"]);
    says("extends = \"r.toml\"\n", &[], &["r.toml:1:11", "cannot extend itself"]);
    says("extend = \"base.toml\"\n", &[], &["r.toml:1:1", "did you mean `extends`?"]);
    write("base.toml", &bench.good().replace("kl_coef", "kl_cof"));
    says(top, &[], &["base.toml:22:1", "did you mean `kl_coef`?"]);
    write("base.toml", &bench.good().replace("random_weights = true", "random_weights = 1"));
    says(top, &[], &["base.toml:6:18", "expected true or false"]);
}
