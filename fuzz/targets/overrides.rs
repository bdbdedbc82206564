//! Overrides of a recipe, a line each, as arguments of `--set`.

pub fn run(data: &[u8]) {
    super::text(data, |text| {
        let sets: Vec<String> = text.split('\n').take(8).map(String::from).collect();
        super::recipe::read(BASE, &sets, text.len());
    });
}

const BASE: &str = r#"
name = "base"
[model]
path = "model"
[task]
kind = "countdown"
[sft]
train = 8
[sft.data]
kind = "solver"
[ppo]
steps = 4
"#;
