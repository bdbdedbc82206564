//! Prompt templates: how a problem becomes the model's input.
//!
//! Jinja (minijinja) with the settings that transformers uses for chat templates, so that these render the same: block
//! tags swallow the rest of their line, and one newline at a template's end is dropped. A template sees the task's
//! variables and the filter `chat`, which wraps a text as a user message in the `chat_template` of the tokenizer's
//! folder. Our own templates and a user's are strict: an unknown variable is an error. A chat template is lenient, as
//! its authors expect. No template can read a file or run for long.
//!
//! `strftime_now` always returns 26 July 2024, the date that Llama's template falls back to: if the prompt changed at
//! midnight, a resumed run would be a different run.

use super::jinja::{python_like, without_generation};
use super::{ChatTemplate, TokenizerConfig};
use crate::{WRITTEN, bad, read_text};
use anyhow::Result;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, context};
use std::path::Path;

/// The templates that a recipe can name, with their sources.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("base", include_str!("templates/base.jinja")),
    ("base_think", include_str!("templates/base_think.jinja")),
    ("chat", include_str!("templates/chat.jinja")),
    ("compact", include_str!("templates/compact.jinja")),
    ("task", include_str!("templates/task.jinja")),
];

/// Bound on the work of one rendering, in minijinja's units of about an instruction; a long chat template takes
/// thousands.
const FUEL: u64 = 1_000_000;

/// Most bytes of a template. minijinja counts its lines, columns and arguments in 16 bits, and panics beyond; long chat
/// templates have 20,000.
const LONGEST: usize = u16::MAX as usize;

/// A template, parsed.
pub struct PromptTemplate {
    environment: Environment<'static>,
    name: String,
}

impl PromptTemplate {
    /// A built-in template by its name, or else the file at that path. `tokenizer_dir`: where the chat template is.
    ///
    /// # Errors
    /// Bad input: neither a built-in name nor a readable file; a syntax error, with its line.
    pub fn new(template: &str, tokenizer_dir: &Path) -> Result<Self> {
        let source = source_of(template)?;
        let mut prompt = parse(format!("prompt template `{template}`"), source, UndefinedBehavior::Strict)
            .map_err(|message| bad!("{message}"))?;
        // A missing or broken chat template matters only to a template that uses it.
        let chat = chat_template(tokenizer_dir).map_err(|error| format!("{error:#}"));
        prompt.environment.add_filter("chat", move |message: String| match &chat {
            Ok((template, tokens)) => {
                let messages = Value::from(vec![context! { role => "user", content => message }]);
                wrap(template, tokens, messages).map_err(invalid)
            }
            Err(error) => Err(invalid(error.clone())),
        });
        Ok(prompt)
    }

    /// A template of this source, without the filter `chat`; `name` is what messages call it.
    ///
    /// # Errors
    /// Bad input: a syntax error, with its line.
    pub fn of_source(name: &str, source: &str) -> Result<Self> {
        parse(name.to_string(), source.to_string(), UndefinedBehavior::Strict).map_err(|message| bad!("{message}"))
    }

    /// The prompt of a problem with these variables (an object).
    ///
    /// # Errors
    /// Bad input: an unknown variable, a chat template that is missing or raises an error, or too much work; with the
    /// template's name and line.
    pub fn render(&self, variables: &serde_json::Value) -> Result<String> {
        self.run(Value::from(Serde(variables))).map_err(|error| {
            let names = variables.as_object().map(|map| map.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
            let hint = match (error.kind(), names) {
                (ErrorKind::UndefinedError, Some(names)) => format!("; the variables are: {names}"),
                _ => String::new(),
            };
            bad!("{}{hint}", explain(&self.name, &error))
        })
    }

    fn run(&self, context: Value) -> Result<String, Error> {
        self.environment.get_template(&self.name)?.render(context)
    }
}

/// The source of a built-in template by its name, or else of the file at that path.
///
/// # Errors
/// Bad input: neither a built-in name nor a readable file.
pub fn source_of(template: &str) -> Result<String> {
    if let Some((_, source)) = BUILT_IN.iter().find(|(name, _)| *name == template) {
        return Ok((*source).to_string());
    }
    read(Path::new(template)).map_err(|error| {
        let names = BUILT_IN.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        bad!("prompt template `{template}` is neither built in ({names}) nor a readable file: {error}")
    })
}

/// A user message in the chat template of a tokenizer's folder, up to where the answer begins.
///
/// # Errors
/// Bad input: a chat template that is missing or broken, or raises an error.
pub fn chat(tokenizer_dir: &Path, message: &str) -> Result<String> {
    chat_messages(tokenizer_dir, &serde_json::json!([{ "role": "user", "content": message }]))
}

/// `chat` for a list of messages, each with `role` and `content`.
///
/// # Errors
/// As `chat`.
pub fn chat_messages(tokenizer_dir: &Path, messages: &serde_json::Value) -> Result<String> {
    let (template, tokens) = chat_template(tokenizer_dir)?;
    wrap(&template, &tokens, Value::from(Serde(messages))).map_err(|message| bad!("{message}"))
}

/// Whether a rendered prompt ends with an open think block: nothing but white space follows its last `<think>`. A
/// prompt that only mentions the tags opens nothing.
pub fn opens_think(prompt: &str) -> bool {
    prompt.trim_end().ends_with("<think>")
}

fn parse(name: String, source: String, undefined: UndefinedBehavior) -> Result<PromptTemplate, String> {
    if source.len() > LONGEST {
        return Err(format!("{name} has {} bytes, expected at most {LONGEST}", source.len()));
    }
    let mut environment = Environment::new();
    environment.set_undefined_behavior(undefined);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| error.to_string())?);
    environment.set_fuel(Some(FUEL));
    // Python's methods of strings and dicts (`strip`, `split`, `items`), which chat templates use.
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    python_like(&mut environment);
    environment.add_function("raise_exception", |message: String| Err::<Value, _>(invalid(message)));
    environment.add_function("strftime_now", |format: String| strftime(&format));
    environment
        .add_template_owned(name.clone(), without_generation(&source))
        .map_err(|error| explain(&name, &error))?;
    Ok(PromptTemplate { environment, name })
}

/// The chat template of a tokenizer's folder, and the special tokens that it may use.
fn chat_template(dir: &Path) -> Result<(PromptTemplate, TokenizerConfig)> {
    let mut tokens = TokenizerConfig::from_dir(dir)?;
    // Newer folders have it in a separate file, which transformers prefers.
    let file = dir.join("chat_template.jinja");
    let source = match read(&file) {
        Ok(source) => Some(source),
        Err(_) => tokens.chat_template.take().and_then(ChatTemplate::source),
    };
    let source = source.ok_or_else(|| {
        let config = dir.join("tokenizer_config.json");
        bad!("{} has no `chat_template`: this model is not made for chat", config.display())
    })?;
    let template = parse(format!("chat template of {}", dir.display()), source, UndefinedBehavior::Lenient)
        .map_err(|message| bad!("{message}"))?;
    Ok((template, tokens))
}

/// A template's file, without the byte-order mark that Windows programs put before it.
fn read(path: &Path) -> std::io::Result<String> {
    read_text(path, WRITTEN).map(|text| text.trim_start_matches('\u{feff}').to_string())
}

/// Messages as the model expects them, up to where its answer begins.
fn wrap(template: &PromptTemplate, tokens: &TokenizerConfig, messages: Value) -> Result<String, String> {
    let context = context! {
        messages,
        add_generation_prompt => true,
        bos_token => tokens.bos().unwrap_or_default(),
        eos_token => tokens.eos().unwrap_or_default(),
        tools => (),
        documents => (),
    };
    template.run(context).map_err(|error| explain(&template.name, &error))
}

fn strftime(format: &str) -> String {
    let date = [
        ("%d", "26"),
        ("%b", "Jul"),
        ("%B", "July"),
        ("%m", "07"),
        ("%Y", "2024"),
        ("%y", "24"),
        ("%a", "Fri"),
        ("%A", "Friday"),
        ("%H", "00"),
        ("%M", "00"),
        ("%S", "00"),
    ];
    date.iter().fold(format.to_string(), |text, (field, value)| text.replace(field, value))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// One message: the template, the line, what is wrong.
fn explain(name: &str, error: &Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!(", line {line}"));
    format!("{name}{line}: {}", error.detail().map_or(error.kind().to_string(), str::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::PathBuf;

    /// A tokenizer's folder with this chat template, and a template file in it.
    fn folder(config: serde_json::Value, template: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let file = dir.path().join("prompt.html");
        std::fs::write(&file, template).unwrap();
        (dir, file)
    }

    fn rendered(config: serde_json::Value, template: &str) -> Result<String> {
        let (dir, file) = folder(config, template);
        PromptTemplate::new(file.to_str().unwrap(), dir.path())?.render(&json!({"numbers": [5, 7, 12], "target": 59}))
    }

    fn error(config: serde_json::Value, template: &str) -> String {
        let error = rendered(config, template).unwrap_err();
        assert!(error.is::<crate::BadInput>());
        error.to_string()
    }

    fn error_in_chat(template: &str) -> String {
        error(json!({ "chat_template": template }), "{{ 'a' | chat }}")
    }

    #[test]
    fn built_in() {
        let render = |name: &str| {
            let variables = json!({"numbers": [5, 7, 12], "target": 59});
            PromptTemplate::new(name, Path::new("none")).unwrap().render(&variables)
        };
        assert_eq!(render("compact").unwrap(), "Numbers: 5 7 12\nTarget: 59\n");
        let (base, think) = (render("base").unwrap(), render("base_think").unwrap());
        assert_eq!(format!("{base} <think>"), think);
        assert!(base.contains("Make 59 from the numbers 5, 7, 12.") && base.ends_with("\nAssistant:"));
        assert_eq!((opens_think(&base), opens_think(&think)), (false, true));
        assert!(render("chat").unwrap_err().to_string().contains("has no `chat_template`"));
    }

    /// A template that changes for one task does not change for the other: Countdown's prompts are those that runs and
    /// checkpoints know.
    #[test]
    fn each_task_has_its_part_of_a_built_in_template() {
        let (dir, _) = folder(json!({"chat_template": "{{ messages[0].content }}|"}), "");
        let render = |name: &str, variables: serde_json::Value| {
            PromptTemplate::new(name, dir.path()).unwrap().render(&variables).unwrap()
        };
        let names = ["base", "base_think", "chat", "compact"];
        let numbers = json!({"numbers": [5, 7, 12], "target": 59});
        let prompts = names.map(|name| render(name, numbers.clone()));
        assert!(prompts[2].ends_with("\n<answer> 8 - 3 </answer>|"));
        let hashes = prompts.map(|prompt| crate::hash::hash(prompt.as_bytes())[..16].to_string());
        assert_eq!(hashes, ["a7b4f3a42a1f6be2", "1e6dfddc1238e37c", "5bf217f0f9631a5b", "a13c6cf128285ae0"]);
        let claim = json!({"claim": "It is {{ so }}.", "speaker": "A. B."});
        let [base, think, chat, compact] = names.map(|name| render(name, claim.clone()));
        assert_eq!(format!("{base} <think>"), think);
        assert!(
            base.contains("</answer>\n\nUser: Did ") && base.ends_with("\nClaim: It is {{ so }}.\nAssistant:"),
            "{base}"
        );
        assert!(chat.starts_with("Did fact-checkers") && chat.ends_with("\n<answer> false </answer>|"), "{chat}");
        assert_eq!(compact, "Claim: It is {{ so }}.\nTrue, half-true or false?\n");
        assert!([base, chat, compact].iter().all(|prompt| !prompt.contains("number") && !opens_think(prompt)));
    }

    /// What the chat templates of Qwen and Llama are made of.
    #[test]
    fn chat() {
        let template = r#"
{%- if tools is not none and tools %}{{ tools | tojson }}{% endif %}
{%- if not date is defined %}
    {%- set date = strftime_now("%d %b %Y") %}
{%- endif %}
{{- bos_token }}
{%- set seen = namespace(last=false) %}
{%- for message in messages %}
    {%- if message['role'] not in ['user', 'system'] %}{{ raise_exception('unknown role') }}{% endif %}
    {%- set seen.last = loop.last %}
    {{- '<|im_start|>' + message.role + '\n' + message['content'].strip() + eos_token + '\n' }}
{%- endfor %}
{%- if add_generation_prompt and seen.last %}{{ '<|im_start|>assistant\n' }}{% endif %}
{%- if unknown %}{{ unknown }}{% endif %}
{{- date }}"#;
        let bos = json!({"content": "<s>", "special": true});
        let config = |chat| json!({"chat_template": chat, "bos_token": bos, "eos_token": "</s>"});
        let expected = "<s><|im_start|>user\nA & <b> 59</s>\n<|im_start|>assistant\n26 Jul 2024";
        let ours = "{% filter chat %}\n A & <b> {{ target }} \n{% endfilter %}";
        assert_eq!(rendered(config(json!(template)), ours).unwrap(), expected);
        let named = json!([{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]);
        assert_eq!(rendered(config(named), ours).unwrap(), expected);

        let config = json!({"chat_template": template});
        assert_eq!(
            rendered(config, "{{ 'a' | chat }}{{ numbers | tojson }}").unwrap().lines().last().unwrap(),
            "26 Jul 2024[5, 7, 12]"
        );
        let refused = error(json!({"chat_template": "\n{{ raise_exception('no system') }}"}), "{{ 'a' | chat }}");
        assert!(refused.contains("chat template of") && refused.contains("line 2: no system"), "{refused}");
        let broken = error(json!({"chat_template": "{% if %}"}), "{{ 'a' | chat }}");
        assert!(broken.contains("chat template of"), "{broken}");
        assert_eq!(rendered(json!({"chat_template": "{% if %}"}), "unused").unwrap(), "unused");
    }

    /// Against transformers (scripts/golden_templates.py).
    #[test]
    fn templates_render_as_in_transformers() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/templates.json");
        let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
        let mut wrong = Vec::new();
        for case in golden["cases"].as_array().unwrap() {
            let (template, expected) = (case["template"].as_str().unwrap(), case["rendered"].as_str().unwrap());
            let parsed = parse("t".into(), template.into(), UndefinedBehavior::Lenient);
            let context = context! { messages => Value::from(Serde(&golden["messages"])) };
            let rendered = parsed.and_then(|parsed| parsed.run(context).map_err(|error| explain("t", &error)));
            if rendered.as_deref() != Ok(expected) {
                wrong.push(format!("{template}\n  expected {expected:?}\n  found {rendered:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn each_error_is_one_clear_message() {
        let cases: [(&str, &[&str]); 7] = [
            ("{{ target }}\n{{ nubmers }}", &["line 2", "`nubmers`", "the variables are: numbers, target"]),
            ("{% if nubmers %}x{% endif %}", &["line 1", "`nubmers`", "the variables are: numbers, target"]),
            ("a\nb {{ target", &["line 2", "prompt.html", "end"]),
            ("a\nb {%} c", &["line 2", "prompt.html", "`}`"]),
            ("{% include 'prompt.html' %}", &["line 1", "prompt.html"]),
            (
                "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
                &["prompt.html", "fuel"],
            ),
            ("{{ 'x' * 10000000000 }}", &["line 1", "prompt.html"]),
        ];
        for (template, parts) in cases {
            let error = error(json!({}), template);
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        for long in [format!("{{{{ f({}) }}}}", "1,".repeat(70_000)), format!("{}{{{{ 'a", "x".repeat(65_600))] {
            let error = error(json!({}), &long);
            assert!(error.ends_with(" bytes, expected at most 65535"), "{error}");
            let error = error_in_chat(&long);
            assert!(error.contains("chat template of") && error.ends_with("expected at most 65535"), "{error}");
        }
        let missing = PromptTemplate::new("bsae", Path::new("none")).err().unwrap().to_string();
        assert!(missing.contains("`bsae`") && missing.contains("base, base_think, chat, compact"), "{missing}");
    }

    #[test]
    fn a_think_block_is_open_only_at_the_end() {
        for (prompt, open) in [
            ("Think.\n<think>", true),
            ("Think.\n<think>\n \n", true),
            ("Reason in <think> tags; then answer in <answer> tags.\n", false),
            ("Reason in <think> </think> tags.\n<think>\n", true),
            ("Assistant: Let me see. <think> hm", false),
            ("<think>\n\n</think>\n\n", false),
            ("", false),
        ] {
            assert_eq!(opens_think(prompt), open, "{prompt}");
        }
    }
}
