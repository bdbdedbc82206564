//! An indexed Job for Kubernetes (1.29 or later): a pod per seed, and a ConfigMap with the recipe.
//!
//! Decided: a pod is never started again in place, so that its exit code decides: a run that was stopped (75) or whose
//! pod was evicted gets a new pod, without limit, and goes on in the volume; a run that failed or was refused fails its
//! seed alone; what killed it otherwise counts against `restarts`. The tests read it back; no cluster ran it.

use super::quote::{shell, text};
use super::{Job, Kubernetes, Site};
use crate::recipe::Recipe;
use crate::recipe::identity::leaves;
use crate::{BadInput, bad};
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::path::{Component, Path, PathBuf};

const CONTAINER: &str = "ppo-train";
const RECIPES: &str = "/recipe";
const RECIPE: &str = "recipe.toml";
/// Failed, bad input, a mistake of the program: it would come to the same again.
const FAILED: [u8; 3] = [1, 2, 101];

/// The manifest as YAML, for `kubectl apply`.
///
/// # Errors
/// Bad input: the site has no section `kubernetes`, or a path cannot be used.
pub fn manifest(job: &Job, site: &Site) -> Result<String> {
    let Some(kubernetes) = &site.kubernetes else {
        return Err(bad!(
            "there is no image for Kubernetes: expected --site FILE with image and claim in [kubernetes]"
        ));
    };
    if job.processes > 1 {
        return Err(bad!("a pod runs a single process: expected no --processes with --kubernetes"));
    }
    in_volume(&job.out, &kubernetes.mount)?;
    // That of the run folders: two experiments with one recipe are two Jobs.
    let name = label(&job.out.file_name().map_or(job.name.as_str().into(), |name| name.to_string_lossy()));
    let metadata = match &kubernetes.namespace {
        None => json!({ "name": name }),
        Some(namespace) => json!({ "name": name, "namespace": namespace }),
    };
    let recipe = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": { RECIPE: job.recipe },
    });
    let exit = |action: &str, codes: &[u8]| {
        let codes = json!({ "containerName": CONTAINER, "operator": "In", "values": codes });
        json!({ "action": action, "onExitCodes": codes })
    };
    let evicted = json!({ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] });
    let seeds = job.seeds.len();
    let work = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": seeds,
            "parallelism": site.at_once.map_or(seeds, |most| seeds.min(most as usize)),
            "backoffLimitPerIndex": site.restarts,
            "podFailurePolicy": { "rules": [evicted, exit("Ignore", &[75]), exit("FailIndex", &FAILED)] },
            "template": { "spec": pod(job, site, kubernetes, &name)? },
        },
    });
    let shown = |document: &Value| serde_yaml_ng::to_string(document).context("the manifest cannot be written as YAML");
    let head = "# Written by ppo-train submit: kubectl apply -f FILE. A pod per seed, which goes on after an eviction.";
    Ok(format!("{head}\n{}---\n{}", shown(&recipe)?, shown(&work)?))
}

/// The keys of a recipe that name what is not in the volume, a sentence for each: pods have it only if the image does.
pub fn outside(recipe: &Recipe, site: &Site) -> Vec<String> {
    let Some(Kubernetes { mount, .. }) = &site.kubernetes else { return vec![] };
    let sentence = |(key, value): (String, toml::Value)| {
        // As a path every other text, such as a name or a URL, is one in the volume.
        let path = value.as_str().filter(|path| !is_in(Path::new(path), mount))?;
        Some(format!(
            "`{key}` is {path}, which is not in the volume, at {mount} in the pods: unless the image has it, every run \
             ends at its start"
        ))
    };
    leaves(recipe).into_iter().filter_map(sentence).collect()
}

/// Whether a path, relative to `mount`, is in the volume there.
fn is_in(path: &Path, mount: &str) -> bool {
    let mut found = PathBuf::new();
    for part in Path::new(mount).join(path).components() {
        match part {
            Component::ParentDir => drop(found.pop()),
            part => found.push(part),
        }
    }
    found.starts_with(mount)
}

/// Refuses run folders that are not in the volume, and would be gone with their pod. `out` is relative to `mount`.
fn in_volume(out: &Path, mount: &str) -> Result<(), BadInput> {
    if is_in(out, mount) {
        return Ok(());
    }
    let out = out.display();
    Err(BadInput(format!(
        "{out} is not in the volume, which is at {mount} in the pods: what a run writes would be gone with its pod\n\
         expected --out with a path relative to {mount}, or below it"
    )))
}

fn pod(job: &Job, site: &Site, kubernetes: &Kubernetes, name: &str) -> Result<Value, BadInput> {
    let (program, out) = (site.program.as_deref().unwrap_or(CONTAINER), text(&job.out, "the run folder")?);
    let seeds = job.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let before: String = site.before.iter().map(|line| format!("{line}\n")).collect();
    let script = format!(
        "{before}set -- {seeds}\nshift \"$JOB_COMPLETION_INDEX\"\nexec {} {RECIPES}/{RECIPE} --out {} --seeds \"$1\"\n",
        shell(program),
        shell(out)
    );
    let sizes = [
        ("cpu", site.cpus.map(|cpus| json!(cpus))),
        ("memory", site.memory.map(|memory| json!(format!("{memory}Gi")))),
        (&*kubernetes.gpu_resource, (site.gpus > 0).then(|| json!(site.gpus))),
    ];
    let sizes: Map<String, Value> = sizes.into_iter().filter_map(|(name, size)| Some((name.into(), size?))).collect();
    let mounts = [("work", &*kubernetes.mount), ("recipe", RECIPES)];
    let mut pod = json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": site.grace,
        "containers": [{
            "name": CONTAINER,
            "image": kubernetes.image,
            "workingDir": kubernetes.mount,
            "command": ["sh", "-c", script],
            "resources": { "requests": sizes, "limits": sizes },
            "volumeMounts": mounts.map(|(name, path)| json!({ "name": name, "mountPath": path })),
        }],
        "volumes": [
            { "name": "work", "persistentVolumeClaim": { "claimName": kubernetes.claim } },
            { "name": "recipe", "configMap": { "name": name } },
        ],
    });
    let nodes: Map<String, Value> =
        kubernetes.nodes.iter().filter_map(|node| node.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect();
    if !nodes.is_empty() {
        pod["nodeSelector"] = Value::Object(nodes);
    }
    Ok(pod)
}

/// A name as Kubernetes allows it: small letters, digits and hyphens, at most 52 characters, so that a pod's fits too.
fn label(name: &str) -> String {
    const LONGEST: usize = 52;
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(plain).collect();
    let name: String = name.trim_matches('-').chars().take(LONGEST).collect();
    let name = name.trim_end_matches('-');
    match name.starts_with(|c: char| c.is_ascii_lowercase()) {
        true => name.into(),
        // A service's name, which a Job's becomes, begins with a letter.
        false => format!("run-{}", name.chars().take(LONGEST - 4).collect::<String>()).trim_end_matches('-').into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::process::Command;

    fn job(out: &str) -> Job {
        Job {
            name: "My_run: 1".into(),
            recipe: "name = \"x\"\n# 'quoted': - yes\nseed = 1\n".into(),
            seeds: vec![1, 4, 7],
            out: PathBuf::from(out),
            folder: PathBuf::from("/work"),
            program: "/not/here".into(),
            processes: 1,
        }
    }

    fn documents(yaml: &str) -> Vec<Value> {
        serde_yaml_ng::Deserializer::from_str(yaml).map(|document| Value::deserialize(document).unwrap()).collect()
    }

    #[test]
    fn a_manifest_says_what_a_job_needs() {
        let site: Site = toml::from_str(
            "gpus = 2\nmemory = 64\nat_once = 2\n[kubernetes]\nimage = \"r/i:1\"\nclaim = \"c\"\nnamespace = \"lab\"\n\
             nodes = [\"gpu=a100\"]",
        )
        .unwrap();
        let [recipe, work] = &documents(&manifest(&job("runs/My_run: 1"), &site).unwrap())[..] else { panic!() };
        assert_eq!(recipe["data"]["recipe.toml"], job("").recipe);
        assert_eq!(work["metadata"], json!({ "name": "my-run--1", "namespace": "lab" }));
        let spec = &work["spec"];
        assert_eq!((&spec["completions"], &spec["parallelism"]), (&json!(3), &json!(2)));
        let rules = spec["podFailurePolicy"]["rules"].as_array().unwrap();
        let actions: Vec<_> = rules.iter().map(|rule| (&rule["action"], &rule["onExitCodes"]["values"])).collect();
        let (ignore, fail) = (json!("Ignore"), json!("FailIndex"));
        let expected = [(&ignore, &json!(null)), (&ignore, &json!([75])), (&fail, &json!([1, 2, 101]))];
        assert_eq!(actions, expected);
        let pod = &spec["template"]["spec"];
        // Only then may there be a podFailurePolicy.
        assert_eq!(pod["restartPolicy"], "Never");
        assert_eq!(pod["nodeSelector"], json!({ "gpu": "a100" }));
        let limits = json!({ "memory": "64Gi", "nvidia.com/gpu": 2 });
        assert_eq!(pod["containers"][0]["resources"], json!({ "requests": limits, "limits": limits }));
        assert!(manifest(&job("x"), &Site::default()).unwrap_err().to_string().contains("expected --site FILE"));
    }

    #[test]
    fn a_pod_trains_the_seed_of_its_index_in_folders_of_any_name() {
        let mut site: Site = toml::from_str("[kubernetes]\nimage = \"i\"\nclaim = \"c\"\n").unwrap();
        site.program = Some("echo".into());
        let odd = "it's $(here) \"a;b\"/x";
        let work = documents(&manifest(&job(odd), &site).unwrap()).remove(1);
        let script = work["spec"]["template"]["spec"]["containers"][0]["command"][2].as_str().unwrap();
        for (index, seed) in [(0, 1), (1, 4), (2, 7)] {
            let mut shell = Command::new("sh");
            let said = shell.args(["-c", script]).env("JOB_COMPLETION_INDEX", index.to_string()).output().unwrap();
            let said = String::from_utf8(said.stdout).unwrap();
            assert_eq!(said, format!("/recipe/recipe.toml --out {odd} --seeds {seed}\n"));
        }
    }

    #[test]
    fn run_folders_are_in_the_volume() {
        for (out, inside) in [
            ("runs/x", true),
            ("/work/runs/x", true),
            ("runs/../../work/x", true),
            ("/scratch/x", false),
            ("/workshop/x", false),
            ("../x", false),
            ("/work/../x", false),
        ] {
            assert_eq!(in_volume(Path::new(out), "/work").is_ok(), inside, "{out}");
        }
    }

    #[test]
    fn what_a_recipe_names_outside_the_volume_is_told() {
        let text = "name = \"x\"\nrollout.stop = [\"/end\"]\nprompt.template = \"/opt/own.jinja\"\n\
                    [model]\npath = \"models/m\"\ntokenizer = \"../t\"\n\
                    [task]\nkind = \"countdown\"\ntrain_file = \"/work/a\"\ntest_file = \"b\"\n\
                    [hooks.persona.judge]\nkind = \"local\"\npath = \"/work/../judge\"\n\
                    [hooks.distinct.judge]\nkind = \"endpoint\"\nurl = \"https://example.org/v1\"\nmodel = \"m\"\n";
        let (recipe, _) = crate::recipe::read_text("a recipe", text, &[]).unwrap();
        let site: Site = toml::from_str("[kubernetes]\nimage = \"i\"\nclaim = \"c\"\n").unwrap();
        let said = outside(&recipe, &site);
        let expected = [
            "`hooks.persona.judge.path` is /work/../judge, ",
            "`model.tokenizer` is ../t, ",
            "`prompt.template` is /opt/own.jinja, ",
        ];
        assert_eq!(said.len(), expected.len(), "{said:?}");
        assert!(said.iter().zip(expected).all(|(said, expected)| said.starts_with(expected)), "{said:?}");
        assert!(said[0].contains("not in the volume, at /work in the pods"), "{said:?}");
        assert!(outside(&recipe, &Site::default()).is_empty());
    }

    #[test]
    fn names_are_labels() {
        for (name, expected) in [("Smoke_2", "smoke-2"), ("7b", "run-7b"), ("é", "run"), ("-a-", "a"), ("", "run")] {
            assert_eq!(label(name), expected);
        }
        assert_eq!(label(&"7x".repeat(99)).len(), 52);
    }
}
