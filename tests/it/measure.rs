//! How the time of a step grows; and the table of scripts/measure_gpu, of made-up measurements: the script itself is
//! made for an 80 GB GPU.

use crate::support::{self, SMOKE, program, stdout};
use serde_json::json;
use std::fs;
use std::process::Command;

/// The cells of a table's line that begins with this word.
fn cells(table: &str, name: &str) -> Vec<String> {
    let start = format!("| {name} |");
    let line = table.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no {name} in {table}"));
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect()
}

#[test]
fn the_table_is_what_was_measured_beside_verl() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bench.json");
    let generation = json!({"seconds": 20.0, "tokens": 153_600, "tokens_per_s": 7680.0, "gflops": 47_400.0});
    let found = json!({
        "rollout_tok_s": 7680.4, "score_tok_s": 60_000, "gemm_gflops": 612_300.0, "step_s": 46.0,
        "peak_rss_mb": 81_240, "peak_gpu_mb": 71_540,
        "stages": {"gen": generation, "update_critic": {"seconds": 11.5, "tokens": 153_600}},
    });
    fs::write(&file, found.to_string()).unwrap();
    let mut command = Command::new("python3");
    command.args(["scripts/measure_gpu.py", "A GPU"]).arg(&file);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = stdout(&output);
    assert_eq!(cells(&table, "stage")[3], "A GPU, s");
    assert_eq!(cells(&table, "generation"), ["generation", "40", "80", "20.0", "0.25", "7680", "47.4"]);
    assert_eq!(cells(&table, "critic update"), ["critic update", "23", "46", "11.5", "0.25", "", ""]);
    assert_eq!(cells(&table, "reference"), ["reference", "4", "8", "", "", "", ""]);
    assert_eq!(cells(&table, "step"), ["step", "92", "184", "46.0", "0.25", "", ""]);
    for line in [
        "Medians. verl's step: 153600 tokens in 256 responses; here 153600.",
        "Tokens per second: 7680 written, 60000 scored.",
        "One matrix product: 612.3 TFLOP/s.",
        "GPU memory at most: 71.5 GB.",
        "Host memory at most: 81.2 GB.",
    ] {
        assert!(table.contains(line), "{line}: {table}");
    }
}

#[test]
fn the_growth_of_a_step_is_measured_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("growth.svg");
    let shape = ["--prompts", "4", "--prompt-tokens", "5", "--response-tokens", "8", "--steps", "1"];
    let arguments = [&["bench", SMOKE, "--grow", "--json", "--svg", file.to_str().unwrap()][..], &shape].concat();
    let measured = support::json(&program(&arguments).output().unwrap());
    let all = measured["growth"].as_array().unwrap();
    let values = |at: usize| {
        let points = all[at]["points"].as_array().unwrap();
        points.iter().map(|point| point["value"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((values(0), values(1)), (vec![1.0, 2.0, 3.0, 4.0], vec![2.0, 4.0, 6.0, 8.0]));
    assert!(values(2).len() > 1 && values(2).is_sorted(), "{:?}", values(2));
    assert!(all.iter().all(|along| along["exponents"]["step"].is_number()), "{measured}");
    assert!(fs::read_to_string(&file).unwrap().starts_with("<svg"));
}
