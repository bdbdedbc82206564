//! What `ppo-train plan` prints: a plan in aligned plain text, and the same figures as JSON.

use super::Plan;
use super::disk::Disk;
use super::fit::{Devices, fit};
use super::memory::{PROGRAM_AND_GAPS, Part, Phase, estimate, on_host, peak, total};
use crate::model::{Family, ModelConfig};
use crate::recipe::{KlIn, Recipe, SftData};
use crate::task::settings;
use crate::terminal::size;
use serde_json::{Value, json};
use std::fmt::Write;

const WIDTH: usize = 100;
/// Width of the label column.
const LABEL: usize = 14;

/// A plan as text of at most 100 columns.
pub fn report(plan: &Plan, devices: Devices) -> String {
    let (recipe, config) = (&plan.recipe, &plan.config);
    let mut out = String::new();
    let mut line = |label: &str, text: String| write_wrapped(&mut out, label, &text);
    line("name", format!("{}, seed {}", recipe.name, recipe.seed));
    line("model", model(recipe, config));
    line("", shape(config));
    if recipe.model.tokenizer.is_some() {
        line("tokenizer", plan.tokenizer_dir.display().to_string());
    }
    let threads = match recipe.machine.threads {
        0 => "one CPU thread per core".to_string(),
        1 => "1 CPU thread".to_string(),
        count => format!("{count} CPU threads"),
    };
    let device = match (recipe.machine.device.as_str(), plan.on_cpu()) {
        ("auto", true) => "auto (here the CPU)",
        ("auto", false) => "auto (here a GPU)",
        (named, _) => named,
    };
    line("device", format!("{device}, {}, {threads}", word(&recipe.machine.precision)));
    line("task", task(recipe));
    line("prompt", format!("template {}", recipe.prompt.template));
    let reward = &recipe.reward;
    line("reward", format!("{} accuracy + {} format, {} rules", reward.accuracy, reward.format, word(&reward.rules)));
    match &recipe.sft {
        None => line("warm start", "none".into()),
        Some(sft) => {
            let source = match &sft.data {
                Some(SftData::Solver(solver)) if solver.match_lengths => {
                    format!("the solver ({}, as long as a dialogue)", word(&solver.style))
                }
                Some(SftData::Solver(solver)) => format!("the solver ({})", word(&solver.style)),
                Some(SftData::File(file)) => file.path.display().to_string(),
                None => String::new(),
            };
            line(
                "warm start",
                if let Some(from) = &sft.from {
                    format!("the finished one in {}", from.display())
                } else {
                    format!(
                        "{} rows of up to {} tokens from {source}; epochs {}, batch {}: {} steps, learning rate {:e}",
                        grouped(sft.train),
                        grouped(sft.context),
                        sft.epochs,
                        sft.batch,
                        grouped(sft.steps()),
                        sft.lr
                    )
                },
            );
        }
    }
    match &recipe.ppo {
        None => line("ppo", "none: the run ends after the warm start".into()),
        Some(ppo) => {
            let sequences = plan.sequences_per_step();
            let (prompts, samples) = (recipe.rollout.prompts_per_step, recipe.rollout.samples_per_prompt);
            let per_step = plan.max_tokens_per_step();
            line(
                "ppo",
                format!(
                    "{} steps of {} sequences ({} prompts, {samples} samples each)",
                    grouped(ppo.steps),
                    grouped(sequences),
                    grouped(prompts)
                ),
            );
            let critic = match plan.critic_updates(ppo) {
                0 => "no critic".to_string(),
                _ if !ppo.critic_is_separate() => format!("with a value head on the actor at {:e}", ppo.critic_lr),
                n => format!("{n} critic updates of {} at {:e}", ppo.critic_sequences(), ppo.critic_lr),
            };
            line(
                "",
                format!(
                    "per step: {} actor updates of {} sequences at learning rate {:e}, {critic}; advantage {}",
                    plan.actor_updates(ppo),
                    ppo.mini_batch,
                    ppo.actor_lr,
                    word(&ppo.advantage)
                ),
            );
            let kl = match ppo.kl_in {
                KlIn::Off => "no KL, no reference".to_string(),
                place => format!("KL ({}) in the {} times {}", word(&ppo.kl_estimator), word(&place), ppo.kl_coef),
            };
            line(
                "",
                format!("clip {} to {}, {kl}, entropy {}", 1.0 - ppo.clip_low, 1.0 + ppo.clip_high, ppo.entropy_coef),
            );
            line(
                "tokens",
                format!(
                    "at most {} per step ({} prompt and {} response tokens per sequence), {} in total",
                    grouped(per_step),
                    grouped(recipe.rollout.max_prompt_tokens),
                    grouped(recipe.rollout.max_response_tokens),
                    scaled(per_step as f64 * ppo.steps as f64)
                ),
            );
            line("evaluation", evaluation(plan));
            line("checkpoints", checkpoints(recipe));
        }
    }
    line("output", plan.out.display().to_string());
    out.push('\n');
    memory_table(&mut out, &estimate(plan, devices.processes), devices);
    verdict(&mut out, plan, devices);
    disk(&mut out, Disk::of(plan));
    out
}

fn model(recipe: &Recipe, config: &ModelConfig) -> String {
    let weights = if recipe.model.random_weights { "random weights in the shape of " } else { "" };
    let parameters = scaled(config.parameters() as f64);
    format!("{weights}{}: {}, {parameters} parameters", recipe.model.path.display(), family(config))
}

fn family(config: &ModelConfig) -> &'static str {
    match config.family {
        Family::Qwen2 => "Qwen2",
        Family::Qwen3 => "Qwen3",
        Family::Llama => "Llama",
    }
}

fn shape(c: &ModelConfig) -> String {
    format!(
        "{} layers, hidden {}, MLP {}, {} heads of {} ({} key-value), vocabulary {} ({}), context {}",
        c.num_hidden_layers,
        c.hidden_size,
        c.intermediate_size,
        c.num_attention_heads,
        c.head_dim,
        c.num_key_value_heads,
        grouped(c.vocab_size as usize),
        if c.tie_word_embeddings { "tied" } else { "untied" },
        grouped(c.max_position_embeddings as usize)
    )
}

fn task(recipe: &Recipe) -> String {
    let settings = settings(&recipe.task);
    let [train, validation, test] = settings.sizes().map(grouped);
    let (kind, source) = (word(&json!(recipe.task)["kind"]), settings.describe());
    format!("{kind}, {train} training, {validation} validation and {test} test problems, {source}")
}

fn evaluation(plan: &Plan) -> String {
    let every = match plan.recipe.evaluation.every {
        0 => "before the first step and after the last".to_string(),
        n => format!("before the first step, every {n} steps and after the last"),
    };
    let ways: Vec<String> = plan.recipe.evaluation.decoding.iter().map(word).collect();
    format!("{every}: {} validation problems, {}", grouped(plan.evaluation_problems()), ways.join(" and "))
}

fn checkpoints(recipe: &Recipe) -> String {
    let kept = &recipe.checkpoints;
    let every = if kept.every == 0 { "after the last step".into() } else { format!("every {} steps", kept.every) };
    let permanent = match kept.keep_every {
        0 => String::new(),
        n => format!(", all of steps that {n} divides"),
    };
    let best = if kept.keep_best { " and the best" } else { "" };
    format!("{every}; kept: the newest {}{permanent}{best}", kept.keep_last)
}

/// Parts by phase, in GiB or MiB, and the peak.
fn memory_table(out: &mut String, parts: &[Part], devices: Devices) {
    let phases: Vec<Phase> = Phase::ALL.into_iter().filter(|phase| total(parts, *phase) > 0).collect();
    let (_, most) = peak(parts);
    let (unit, name) = if most >= 1 << 30 { (30, "GiB") } else { (20, "MiB") };
    let amount = |bytes: u64| format!("{:.2}", bytes as f64 / f64::from(1 << unit));
    let mut row = |label: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>15}")).collect();
        out.push_str(format!("{label:<20}{cells}").trim_end());
        out.push('\n');
    };
    row(&format!("memory ({name})"), phases.iter().map(|phase| phase.name().to_string()).collect());
    let mut seen = Vec::new();
    for part in parts {
        if seen.contains(&part.name) || part.phases.is_empty() {
            continue;
        }
        seen.push(part.name);
        let held = |phase: &Phase| parts.iter().find(|p| p.name == part.name && p.phases.contains(phase));
        let cells = phases.iter().map(|phase| held(phase).map_or("-".into(), |p| amount(p.bytes))).collect();
        row(&format!("  {}", part.name), cells);
    }
    row("  total", phases.iter().map(|phase| amount(total(parts, *phase))).collect());
    let (phase, bytes) = peak(parts);
    // Where the program is a part, the device is a CPU.
    let without = match parts.iter().any(|part| part.name == PROGRAM_AND_GAPS) {
        true => "",
        false => ", excluding the CUDA context and fragmentation",
    };
    let each = if devices.processes > 1 { " in each process" } else { "" };
    let _ = writeln!(out, "  peak {} {name}{each} ({}): an upper bound{without}", amount(bytes), phase.name());
    let resting: Vec<String> =
        parts.iter().filter(|p| p.phases.is_empty()).map(|p| format!("{} {}", p.name, amount(p.bytes))).collect();
    if !resting.is_empty() {
        let on_node = on_host(parts) * devices.per_node() as u64;
        let (whose, each) = match devices.per_node() {
            1 => ("", ""),
            _ => (" of each machine", " in each process"),
        };
        let _ = writeln!(out, "  on the host{whose}: {} {name} ({}{each})", amount(on_node), resting.join(", "));
    }
}

/// What the run folder takes.
fn disk(out: &mut String, disk: Disk) {
    let checkpoints = match disk.checkpoints {
        0 => String::new(),
        count => format!(" + {count} checkpoints of {}", size(disk.checkpoint)),
    };
    let free = match disk.free {
        Some(free) if free < disk.total() => format!("; ONLY {} FREE", size(free)),
        Some(free) => format!("; {} free", size(free)),
        None => String::new(),
    };
    let _ = writeln!(out, "disk, at most {}: start {}{checkpoints}{free}", size(disk.total()), size(disk.start));
}

/// Whether the peak fits the machine, and what would make it fit.
fn verdict(out: &mut String, plan: &Plan, devices: Devices) {
    if devices.processes > 1 {
        let Devices { processes, nodes, .. } = devices;
        let on = if nodes > 1 { format!(" on {nodes} machines") } else { String::new() };
        let _ = writeln!(out, "  {processes} processes{on}, which divide the sequences and the optimizers' states");
        if plan.on_cpu() {
            let (phase, bytes) = devices.peak(plan);
            let _ = writeln!(out, "  on a machine with {}: {} ({})", devices.per_node(), size(bytes), phase.name());
        }
    }
    let Some(fit) = fit(plan, devices) else { return };
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let room = format!("  {:.0} GiB of memory, {:.1} GiB usable", gib(devices.memory.unwrap_or(0)), gib(fit.room));
    let _ = match (fit.fits(), fit.changes.is_empty()) {
        (true, _) => writeln!(out, "{room}: it fits"),
        (false, true) => writeln!(out, "{room}: IT DOES NOT FIT, and no setting would lower the peak"),
        (false, false) => writeln!(out, "{room}: IT DOES NOT FIT; in this order, these changes lower the peak:"),
    };
    for change in &fit.changes {
        let _ = writeln!(out, "    {change:<40}{:>8.2} GiB", gib(change.peak));
    }
    if fit.reached() > fit.room {
        let _ = writeln!(out, "    still too much: use a smaller model or more memory");
    }
}

/// The same figures for programs: counts are numbers, memory is in bytes.
pub fn json(plan: &Plan, devices: Devices) -> Value {
    let (recipe, config) = (&plan.recipe, &plan.config);
    let (parts, disk) = (estimate(plan, devices.processes), Disk::of(plan));
    let (phase, bytes) = peak(&parts);
    let part = |part: &Part| {
        let phases: Vec<_> = part.phases.iter().map(|phase| phase.name()).collect();
        json!({"name": part.name, "bytes": part.bytes, "phases": phases})
    };
    json!({
        "name": recipe.name,
        "out": plan.out,
        "tokenizer": plan.tokenizer_dir,
        "model": {
            "family": family(config),
            "parameters": config.parameters(),
            "layers": config.num_hidden_layers,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "heads": config.num_attention_heads,
            "key_value_heads": config.num_key_value_heads,
            "head_dim": config.head_dim,
            "vocabulary": config.vocab_size,
            "tied": config.tie_word_embeddings,
            "context": config.max_position_embeddings,
        },
        "warm_start": recipe.own_warm_start().map(|sft| {
            json!({"rows": sft.train, "epochs": sft.epochs, "steps": sft.steps()})
        }),
        "ppo": recipe.ppo.as_ref().map(|ppo| json!({
            "steps": ppo.steps,
            "sequences_per_step": plan.sequences_per_step(),
            "actor_updates_per_step": plan.actor_updates(ppo),
            "critic_updates_per_step": plan.critic_updates(ppo),
            "critic": ppo.needs_critic().then(|| word(&ppo.critic)),
            "reference": ppo.needs_reference(),
            "max_tokens_per_step": plan.max_tokens_per_step(),
            "max_tokens": plan.max_tokens_per_step().saturating_mul(ppo.steps),
            "evaluation_problems": plan.evaluation_problems(),
        })),
        "memory": {
            "parts": parts.iter().map(part).collect::<Vec<_>>(),
            "peak_bytes": bytes,
            "peak_phase": phase.name(),
            "processes": devices.processes,
            "nodes": devices.nodes,
            "host_bytes": on_host(&parts) * devices.per_node() as u64,
            "node_bytes": plan.on_cpu().then(|| devices.peak(plan).1),
            "device_bytes": devices.memory,
            "fits": fit(plan, devices).map(|fit| fit.fits()),
        },
        "disk": {
            "start_bytes": disk.start,
            "checkpoint_bytes": disk.checkpoint,
            "checkpoints": disk.checkpoints,
            "total_bytes": disk.total(),
            "free_bytes": disk.free,
        },
        "recipe": recipe,
    })
}

/// A choice as the recipe spells it.
fn word(choice: &impl serde::Serialize) -> String {
    match serde_json::to_value(choice) {
        Ok(Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}

/// 327680 as 327,680.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three digits and a unit: 1.23 M, 3.09 B.
fn scaled(n: f64) -> String {
    match n {
        _ if n < 1e3 => format!("{n}"),
        _ if n < 1e6 => format!("{:.2} k", n / 1e3),
        _ if n < 1e9 => format!("{:.2} M", n / 1e6),
        _ => format!("{:.2} B", n / 1e9),
    }
}

/// Writes `label` and, beside it, `text` wrapped at spaces.
fn write_wrapped(out: &mut String, label: &str, text: &str) {
    let mut line = format!("{label:<LABEL$}");
    for word in text.split(' ') {
        if line.len() + word.chars().count() > WIDTH && line.len() > LABEL {
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(LABEL);
        }
        line.push_str(word);
        line.push(' ');
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
