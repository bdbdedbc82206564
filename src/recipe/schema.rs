//! What a struct of keys declares, as data: sections and keys with their types, defaults, bounds and sentences.
//!
//! schemars derives a JSON Schema from the structs; this reads it once, for the checks, the spelling advice and the
//! pages of keys, and hands it to editors. The recipe's are in `keys`; other files have structs of their own.

use super::keys::{MOST, Recipe};
use schemars::{JsonSchema, schema_for};
use serde_json::Value;
use std::sync::LazyLock;

/// A table of a recipe.
#[derive(Debug)]
pub struct Section {
    pub about: String,
    pub keys: Vec<Key>,
}

/// A key of a table.
#[derive(Debug)]
pub struct Key {
    pub name: String,
    pub about: String,
    pub required: bool,
    /// None if the key may be absent.
    pub default: Option<Value>,
    pub kind: Kind,
}

/// What a key holds.
#[derive(Debug)]
pub enum Kind {
    Bool,
    Text,
    Integer {
        least: i64,
        most: u64,
    },
    Number {
        least: f64,
        /// Whether `least` itself is excluded.
        above: bool,
        most: f64,
    },
    /// One of several words, each with a sentence.
    Choice(Vec<(String, String)>),
    List {
        of: Box<Kind>,
        length: Option<usize>,
    },
    Section(Section),
    /// A section whose key `kind` decides which other keys it has.
    Variants(Vec<(String, Section)>),
    /// Sections of one kind, each under a name of the user's.
    Named(Section),
}

impl Section {
    pub fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// The whole recipe.
pub static RECIPE: LazyLock<Section> = LazyLock::new(keys_of::<Recipe>);

/// What a file holds that is read into a `T`.
pub fn keys_of<T: JsonSchema>() -> Section {
    let schema = schema_for!(T).to_value();
    section(&schema, &schema["$defs"])
}

/// The JSON Schema for editors. It requires no key: any key may come from the recipe that this one extends.
pub fn for_editors<T: JsonSchema>() -> Value {
    fn adapt(schema: &mut Value) {
        match schema {
            Value::Object(object) => {
                object.shift_remove("required");
                // TOML has no null.
                if let Some(Value::Array(types)) = object.get("type") {
                    let mut types: Vec<Value> = types.iter().filter(|t| *t != "null").cloned().collect();
                    if types.len() == 1 {
                        object["type"] = types.remove(0);
                    }
                }
                if let Some(Value::Array(any)) = object.get("anyOf").cloned()
                    && let [Value::Object(only), Value::Object(null)] = any.as_slice()
                    && null.get("type").is_some_and(|t| t == "null")
                {
                    object.shift_remove("anyOf");
                    object.extend(only.clone());
                }
                if let Some(Value::String(text)) = object.get_mut("description") {
                    *text = text.replace('\n', " ");
                }
                object.values_mut().for_each(adapt);
            }
            Value::Array(all) => all.iter_mut().for_each(adapt),
            _ => {}
        }
    }
    let mut schema = schema_for!(T).to_value();
    adapt(&mut schema);
    schema
}

fn section(schema: &Value, defs: &Value) -> Section {
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|key| key == name));
    let key = |(name, schema): (&String, &Value)| {
        let target = resolve(schema, defs);
        let about = schema.get("description").or_else(|| target.get("description"));
        Key {
            name: name.clone(),
            about: text(about),
            required: required(name),
            default: schema.get("default").filter(|value| !value.is_null()).cloned(),
            kind: kind(target, defs),
        }
    };
    let keys = schema["properties"].as_object().into_iter().flatten().map(key).collect();
    Section { about: text(schema.get("description")), keys }
}

/// The schema that a reference points to, or the one beside `null`.
fn resolve<'a>(schema: &'a Value, defs: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        return &defs[name];
    }
    match schema["anyOf"].as_array() {
        Some(any) => any.iter().find(|s| s["type"] != "null").map_or(schema, |inner| resolve(inner, defs)),
        None => schema,
    }
}

fn kind(schema: &Value, defs: &Value) -> Kind {
    if let Some(all) = schema["oneOf"].as_array() {
        let variants = all.iter().filter_map(|s| Some((s["properties"]["kind"]["const"].as_str()?.to_string(), s)));
        let variants: Vec<_> = variants.map(|(name, schema)| (name, section(schema, defs))).collect();
        if !variants.is_empty() {
            return Kind::Variants(variants);
        }
        return Kind::Choice(all.iter().flat_map(words).collect());
    }
    let name = match &schema["type"] {
        Value::Array(types) => types.iter().find(|t| *t != "null").and_then(Value::as_str),
        name => name.as_str(),
    };
    match name {
        Some("boolean") => Kind::Bool,
        Some("string") if schema.get("enum").is_some() => Kind::Choice(words(schema)),
        Some("string") => Kind::Text,
        Some("integer") => Kind::Integer {
            least: schema["minimum"].as_f64().map_or(i64::MIN, |least| least as i64),
            // A seed may be any number.
            most: match schema["maximum"].as_f64() {
                Some(most) => most as u64,
                None if schema["format"] == "uint64" => i64::MAX as u64,
                None => MOST,
            },
        },
        Some("number") => Kind::Number {
            least: schema["exclusiveMinimum"].as_f64().or(schema["minimum"].as_f64()).unwrap_or(f64::NEG_INFINITY),
            above: schema["exclusiveMinimum"].is_number(),
            most: schema["maximum"].as_f64().unwrap_or(f64::INFINITY),
        },
        Some("array") => Kind::List {
            of: Box::new(kind(resolve(&schema["items"], defs), defs)),
            length: schema["maxItems"].as_u64().map(|length| length as usize),
        },
        _ => match &schema["additionalProperties"] {
            entry @ Value::Object(_) => Kind::Named(section(resolve(entry, defs), defs)),
            _ => Kind::Section(section(schema, defs)),
        },
    }
}

/// The words of one part of a choice: one with a sentence, or several without.
fn words(schema: &Value) -> Vec<(String, String)> {
    let about = text(schema.get("description"));
    let one = schema["const"].as_str().map(|word| (word.to_string(), about));
    let some = schema["enum"].as_array().into_iter().flatten();
    one.into_iter().chain(some.filter_map(|word| Some((word.as_str()?.to_string(), String::new())))).collect()
}

fn text(description: Option<&Value>) -> String {
    description.and_then(Value::as_str).unwrap_or_default().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_sentence_and_a_default_or_may_be_absent() {
        fn check(path: &str, section: &Section) {
            assert!(!section.about.is_empty(), "{path}");
            for key in &section.keys {
                let path = format!("{path}.{}", key.name);
                match &key.kind {
                    Kind::Section(inner) | Kind::Named(inner) => check(&path, inner),
                    Kind::Variants(all) => {
                        all.iter().for_each(|(kind, inner)| check(&format!("{path}({kind})"), inner))
                    }
                    _ => {}
                }
                assert!(!key.about.is_empty() || key.name == "kind", "{path} has no sentence");
                assert!(!(key.required && key.default.is_some()), "{path}");
            }
        }
        check("recipe", &RECIPE);
        let ppo = RECIPE.key("ppo").unwrap();
        let Kind::Section(ppo) = &ppo.kind else { panic!("{ppo:?}") };
        let lr = ppo.key("actor_lr").unwrap();
        assert!(matches!(lr.kind, Kind::Number { least: 0.0, above: true, most: 1.0 }), "{lr:?}");
        assert_eq!(lr.default, Some(1e-6.into()));
        assert!(matches!(ppo.key("steps").unwrap().kind, Kind::Integer { least: 1, most: MOST }));
        assert!(matches!(&RECIPE.key("task").unwrap().kind, Kind::Variants(all) if all[0].0 == "countdown"));
    }
}
