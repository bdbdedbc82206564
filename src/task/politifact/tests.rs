//! Files in every layout, and the task made of them.

use super::*;
use crate::recipe::Reward;
use crate::task::{grade, layout};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Rows for verl: four claims with their classes and numbers.
const VERL: [(&str, &str, i64); 4] = [
    ("Incomes are up.", "true", 5),
    ("Crime is\r\nrising.", "half-true", 3),
    ("The \"moon\" is cheese.", "false", 0),
    ("Rain is wet.", "true", 4),
];

fn verl_rows() -> String {
    let row = |(claim, verdict, number): (&str, &str, i64)| {
        let prompt = format!(
            "A conversation.\nUser: Decide.\nClaim: {claim}\nAnswer exactly one of: true, half-true, false.\nAssistant:"
        );
        let row = json!({
            "prompt": [{"role": "user", "content": prompt}],
            "reward_model": {"style": "rule", "ground_truth": {"verdict": verdict}},
            "extra_info": {"raw_label": number},
        });
        format!("{row}\n")
    };
    VERL.into_iter().map(row).collect()
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, text)| std::fs::write(dir.path(name), text).unwrap());
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A task of these files, and so many claims of each split.
    fn task(
        &self,
        [train, validation, test]: [&str; 3],
        sizes: [usize; 3],
        more: &str,
    ) -> Result<PolitifactTask, String> {
        let key = |key: &str, name: &str| match name {
            "" => String::new(),
            name => format!("{key} = {:?}\n", self.path(name)),
        };
        let files = [key("train_file", train), key("validation_file", validation), key("test_file", test)].concat();
        let [train, validation, test] = sizes;
        let text = format!("{files}train = {train}\nvalidation = {validation}\ntest = {test}\n{more}");
        PolitifactTask::new(&toml::from_str(&text).unwrap()).map_err(|error| format!("{error:#}"))
    }
}

fn claims(task: &PolitifactTask, split: Split) -> Vec<(String, &'static str)> {
    task.claims[split as usize].iter().map(|claim| (claim.text.clone(), CLASSES[claim.class])).collect()
}

fn pairs(expected: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    expected.iter().map(|(text, class)| ((*text).to_string(), *class)).collect()
}

const LIAR: &str = "1.json\tbarely-true\tSays \"no, never.\ttax\tann\tsenator\tOhio\tnone\t1\t0\t0\t0\t0\ta mailer\n\
                    2.json\tpants-fire\tIt ended\".\ttax\tbob\t\t\tnone\t0\t0\t0\t0\t1\t\n\
                    3.json\tmostly-true\tOf course.\ttax\t\t\t\tnone\t0\t0\t0\t1\t0\ta speech\n\
                    4.json\thalf-true\tPerhaps.\ttax\tann\t\t\tnone\t0\t0\t1\t0\t0\ta speech\n";

const LIAR2: &str = "id,label,date,statement,subject,speaker,speaker_description,state_info,true_counts,context\r\n\
                     1,2,May 1,\"Says \"\"no, never.\",tax,Ann,a,Ohio,0,a mailer\r\n\
                     2,0,May 2,\"It ended\"\".\",tax,Bob,b,Ohio,0,\r\n\
                     3,4,May 3,Of course.,tax,,c,Ohio,0,a speech\r\n\
                     4,3,May 4,Perhaps.,tax,Ann,d,Ohio,0,a speech\r\n";

const SAME: [(&str, &str); 4] =
    [("Says \"no, never.", "false"), ("It ended\".", "false"), ("Of course.", "true"), ("Perhaps.", "half-true")];

#[test]
fn every_layout_is_read() {
    let list = json!([
        {"claim": "Says \"no, never.", "label": "Mostly False"},
        {"statement": "It ended\".", "label": 0},
        {"statement": "Of course.", "verdict": "true", "label": 4},
        {"statement": " Perhaps.\n", "label": "half_true", "claim": "ignored"},
    ]);
    let list = list.to_string();
    let verl = verl_rows();
    let dir = Dir::new(&[("a.tsv", LIAR), ("a.csv", LIAR2), ("a.json", &list), ("a.jsonl", &verl), ("a.txt", "")]);
    let task = dir.task(["a.tsv", "a.csv", "a.json"], [4, 4, 4], "").unwrap();
    for split in Split::ALL {
        assert_eq!(claims(&task, split), pairs(&SAME), "{split:?}");
    }
    let first = json!({"claim": "Says \"no, never.", "speaker": "Ann", "context": "a mailer", "subject": "tax"});
    assert_eq!(task.variables(Split::Validation, 0), first);
    assert_eq!(
        task.variables(Split::Validation, 2),
        json!({"claim": "Of course.", "context": "a speech", "subject": "tax"})
    );

    let task = dir.task(["a.jsonl", "", "a.tsv"], [2, 1, 1], "").unwrap();
    let rows = [("Incomes are up.", "true"), ("Crime is rising.", "half-true"), ("Rain is wet.", "true")];
    assert_eq!(claims(&task, Split::Train), pairs(&rows[..2]));
    assert_eq!(claims(&task, Split::Validation), pairs(&rows[2..]), "the last row");
    assert_eq!(task.variables(Split::Train, 0), json!({"claim": "Incomes are up."}));
    assert_eq!(task.classes().unwrap().truth, [&[0, 1][..], &[0], &[2]]);

    let other = dir.task(["a.txt", "", "a.tsv"], [1, 1, 1], "").err().unwrap();
    assert!(other.contains("a.txt: claims are read from .tsv, .csv, .jsonl, .json and .parquet files"), "{other}");
}

#[test]
fn splits_do_not_overlap() {
    let verl = verl_rows();
    let dir = Dir::new(&[("a.jsonl", &verl), ("b.csv", LIAR2), ("empty.csv", "label,statement\n")]);
    for (files, sizes, message) in [
        (["a.jsonl", "", "b.csv"], [3, 2, 1], "4 rows, but the recipe asks for 3 to train and"),
        (["a.jsonl", "", "b.csv"], [3, 2, 1], "the last 2 to validate: set task.train to at most 2"),
        (
            ["a.jsonl", "", "b.csv"],
            [2, 2, 9],
            "b.csv has 4 rows, but the recipe asks for 9: set task.test to at most 4",
        ),
        (["a.jsonl", "b.csv", "b.csv"], [5, 1, 1], "a.jsonl has 4 rows, but the recipe asks for 5: set task.train"),
        (["empty.csv", "b.csv", "a.jsonl"], [1, 1, 1], "empty.csv has no rows"),
    ] {
        let error = dir.task(files, sizes, "").err().unwrap();
        assert!(error.contains(message), "{error}");
    }
    dir.task(["a.jsonl", "", "b.csv"], [3, 1, 1], "").unwrap();
}

#[test]
fn a_bad_row_is_named() {
    let line = |row: serde_json::Value| row.to_string();
    for (name, text, message) in [
        ("a.csv", LIAR2.replace(",3,May 4", ",6,May 4"), "a.csv, row 4: field `label`: 6 is not a number from 0 to 5"),
        ("a.tsv", LIAR.replace("barely-true", "barely-treu"), "a.tsv, row 1: field `label`: there is no rating"),
        ("a.tsv", LIAR.replace("barely-true", "barely-treu"), "did you mean \"barely-true\"?"),
        ("a.tsv", LIAR.replace("Perhaps.", ""), "a.tsv, row 4: no claim: expected `statement`, `claim` or `prompt`"),
        ("a.csv", LIAR2.replace(",4,May 3", ",,May 3"), "a.csv, row 3: no rating: expected `label`"),
        (
            "a.jsonl",
            line(json!({"prompt": "What?", "label": 1})),
            "line 1: field `prompt`: expected a line `Claim: ...`",
        ),
        (
            "a.jsonl",
            line(json!({"prompt": [], "label": 1})),
            "field `prompt`: expected a text, or a list with a message",
        ),
        (
            "a.jsonl",
            line(json!({"prompt": "Claim: \nAnswer exactly one of: true", "label": 1})),
            "line 1: the claim is empty",
        ),
        ("a.jsonl", verl_rows().replace("\"raw_label\":3", "\"raw_label\":4"), "line 2: `extra_info.raw_label` is 4"),
    ] {
        let dir = Dir::new(&[(name, &text)]);
        let error = dir.task([name, "", name], [1, 1, 1], "").err().unwrap();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn numbers_the_other_way_are_an_error_that_says_so() {
    let turned =
        (0..6).fold(verl_rows(), |rows, n| rows.replace(&format!("label\":{n}"), &format!("label\":#{}", 5 - n)));
    let dir = Dir::new(&[("a.jsonl", &turned.replace('#', ""))]);
    let error = dir.task(["a.jsonl", "", "a.jsonl"], [1, 1, 1], "").err().unwrap();
    assert!(error.contains("a.jsonl: the numbers of `extra_info.raw_label` run the other way: 4 of 4 rows"), "{error}");
    let order = error.split_once("set task.").unwrap().1;
    dir.task(["a.jsonl", "", "a.jsonl"], [1, 1, 1], order).unwrap();
}

#[test]
fn known_answers_are_graded_and_classed() {
    let dir = Dir::new(&[("a.tsv", LIAR), ("b.csv", LIAR2)]);
    let task = dir.task(["a.tsv", "b.csv", "a.tsv"], [4, 4, 4], "").unwrap();
    for rules in ["", "rules = 'tinyzero'", "dialogue_format = true"] {
        let reward: Reward = toml::from_str(rules).unwrap();
        for index in 0..4 {
            let grade = |answer: &str| {
                let response = layout::monologue("a thought", answer, false);
                grade(&task, (Split::Train, index), &response, &reward, false)
            };
            let right = grade(&task.right_answer(Split::Train, index).unwrap());
            assert_eq!((right.accuracy, right.format, right.class), (1.0, 1.0, Some(task.classes[0][index])));
            let wrong = grade(&task.wrong_answer(Split::Train, index));
            assert_eq!((wrong.accuracy, wrong.format, wrong.answered), (0.0, 1.0, true));
            assert!(wrong.class.is_some_and(|class| class != task.classes[0][index]));
            let both = grade("true or false");
            assert_eq!((both.accuracy, both.answered, both.class), (0.0, true, None));
            assert_eq!(both.reason, "names no verdict");
        }
    }
    assert_eq!(task.judge(Split::Train, 0, "TRUE.").reason, "false, not true");
}

#[test]
fn a_recipe_is_checked_before_files_are_read() {
    let check = |more: &str| {
        let text = format!(
            "name = 'a'\n[model]\npath = 'checkpoints/countdown-base'\n[task]\nkind = 'politifact'\n{more}\n[ppo]\n\
             steps = 1"
        );
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(file.path(), text).unwrap();
        let (recipe, at) = crate::recipe::read(Path::new(file.path()), &[]).map_err(|error| error.to_string())?;
        crate::task::settings(&recipe.task).check(&at).map_err(|error| error.to_string())
    };
    let files = "train_file = 'README.md'\ntest_file = 'CHANGELOG.md'";
    check(files).unwrap();
    check(&format!(
        "{files}\nlabel_order = ['false', 'half-true', 'mostly-true', 'true', 'barely-true', 'pants-fire']"
    ))
    .unwrap();
    for (lines, message) in [
        ("train_file = 'README.md'", "test_file"),
        ("train_file = 'READMI.md'\ntest_file = 'LICENSE'", "there is no file READMI.md; did you mean README.md?"),
        ("train_file = 'LICENSE'\ntest_file = 'LICENSE'", "the file of task.train_file again"),
        (&format!("{files}\nlabel_order = ['true']"), "is not an order of the six ratings: pants-on-fire is missing"),
        (&format!("{files}\nlabel_order = ['trve']"), "did you mean \"true\"?"),
        (&format!("{files}\nnumbers = [3]"), "unknown key `numbers`"),
    ] {
        let error = check(lines).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}
