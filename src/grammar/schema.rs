//! A schema: objects of fixed keys, lists, integers of a range, short texts. All of its replies are finite.

use serde_json::{Value, json};

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Schema {
    /// All of these keys. An acceptor wants them in this order and no others; a check ignores others.
    Object(Vec<(String, Schema)>),
    /// So many of the same.
    List {
        item: Box<Schema>,
        min: usize,
        max: usize,
    },
    Integer {
        min: u32,
        max: u32,
    },
    /// 1 to `max` characters, of which the first and the last are not white space. An acceptor writes printable ASCII
    /// without quotation marks and backslashes, so that a character is a byte, and may end with a space.
    Text {
        max: usize,
    },
}

impl Schema {
    /// An object whose values are all of the same schema.
    pub fn object<K: Into<String>>(keys: impl IntoIterator<Item = K>, value: &Schema) -> Self {
        Self::Object(keys.into_iter().map(|key| (key.into(), value.clone())).collect())
    }

    /// Checks a value.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place, in a clause: "`a[0].b` is missing".
    pub fn check(&self, value: &Value) -> Result<(), String> {
        self.check_at("", value)
    }

    fn check_at(&self, place: &str, value: &Value) -> Result<(), String> {
        let shown = if place.is_empty() { "the reply".to_string() } else { format!("`{place}`") };
        let wrong = |expected: &str| Err(format!("{shown} is {}, expected {expected}", brief(value)));
        match self {
            Schema::Object(keys) => {
                let Some(object) = value.as_object() else { return wrong("an object") };
                for (key, schema) in keys {
                    let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                    match object.get(key) {
                        Some(value) => schema.check_at(&place, value)?,
                        None => return Err(format!("`{place}` is missing")),
                    }
                }
                Ok(())
            }
            Schema::List { item, min, max } => {
                let Some(all) = value.as_array() else { return wrong("a list") };
                if !(*min..=*max).contains(&all.len()) {
                    let expected = if min == max { min.to_string() } else { format!("{min} to {max}") };
                    return Err(format!("{shown} has a length of {}, expected {expected}", all.len()));
                }
                all.iter().enumerate().try_for_each(|(at, value)| item.check_at(&format!("{place}[{at}]"), value))
            }
            Schema::Integer { min, max } => match value.as_u64() {
                Some(number) if (u64::from(*min)..=u64::from(*max)).contains(&number) => Ok(()),
                _ => wrong(&format!("an integer from {min} to {max}")),
            },
            Schema::Text { max } => match value.as_str().map(|text| text.trim().chars().count()) {
                Some(0) => Err(format!("{shown} is empty")),
                Some(length) if length > *max => {
                    Err(format!("{shown} has {length} characters, expected at most {max}"))
                }
                Some(_) => Ok(()),
                None => wrong("a text"),
            },
        }
    }

    /// As a JSON Schema, for servers that hold a reply to one.
    pub fn json_schema(&self) -> Value {
        match self {
            Schema::Object(keys) => {
                let properties: serde_json::Map<String, Value> =
                    keys.iter().map(|(key, schema)| (key.clone(), schema.json_schema())).collect();
                let required: Vec<&String> = keys.iter().map(|(key, _)| key).collect();
                let fixed = json!({ "type": "object", "required": required, "additionalProperties": false });
                let mut object = fixed.as_object().cloned().unwrap_or_default();
                object.insert("properties".into(), properties.into());
                object.into()
            }
            Schema::List { item, min, max } => {
                json!({ "type": "array", "items": item.json_schema(), "minItems": min, "maxItems": max })
            }
            Schema::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
            Schema::Text { max } => json!({ "type": "string", "minLength": 1, "maxLength": max }),
        }
    }
}

/// A value in a few characters.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_string(),
        Value::Object(_) => "an object".to_string(),
        other => {
            let text = other.to_string();
            let short: String = text.chars().take(40).collect();
            if short.len() < text.len() { format!("{short}…") } else { short }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        let voice = Schema::Object(vec![
            ("name".into(), Schema::Text { max: 5 }),
            ("marks".into(), Schema::List { item: Box::new(Schema::Integer { min: 1, max: 5 }), min: 2, max: 2 }),
        ]);
        Schema::Object(vec![("voices".into(), Schema::List { item: Box::new(voice), min: 1, max: 3 })])
    }

    #[test]
    fn the_first_thing_that_is_wrong_is_named_with_its_place() {
        let voice = |name: &str, marks: Value| json!({ "voices": [{ "name": name, "marks": marks, "more": null }] });
        assert_eq!(schema().check(&voice("Ada", json!([1, 5]))), Ok(()));
        assert_eq!(schema().check(&voice("äöüßé", json!([1, 5]))), Ok(()));
        let long = "x".repeat(60);
        for (value, message) in [
            (json!([]), "the reply is a list, expected an object"),
            (json!({}), "`voices` is missing"),
            (json!({ "voices": {} }), "`voices` is an object, expected a list"),
            (json!({ "voices": [] }), "`voices` has a length of 0, expected 1 to 3"),
            (json!({ "voices": [3] }), "`voices[0]` is 3, expected an object"),
            (json!({ "voices": [{ "name": "Ada" }] }), "`voices[0].marks` is missing"),
            (voice("Ada", json!([1])), "`voices[0].marks` has a length of 1, expected 2"),
            (voice("Ada", json!([1, 6])), "`voices[0].marks[1]` is 6, expected an integer from 1 to 5"),
            (voice("Ada", json!([1, 2.5])), "`voices[0].marks[1]` is 2.5, expected an integer from 1 to 5"),
            (voice("Ada", json!([1, -1])), "`voices[0].marks[1]` is -1, expected an integer from 1 to 5"),
            (voice("Ada", json!([1, "2"])), "`voices[0].marks[1]` is \"2\", expected an integer from 1 to 5"),
            (voice(" ", json!([1, 2])), "`voices[0].name` is empty"),
            (voice("Babbage", json!([1, 2])), "`voices[0].name` has 7 characters, expected at most 5"),
            (
                voice("Ada", json!([1, long])),
                "`voices[0].marks[1]` is \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…, expected an integer from 1 to 5",
            ),
        ] {
            assert_eq!(schema().check(&value), Err(message.to_string()));
        }
    }

    #[test]
    fn servers_get_the_same_as_a_json_schema() {
        let schema = schema().json_schema();
        assert_eq!(schema["required"], json!(["voices"]));
        let voices = &schema["properties"]["voices"];
        assert_eq!((&voices["minItems"], &voices["maxItems"]), (&json!(1), &json!(3)));
        let marks = &voices["items"]["properties"]["marks"];
        assert_eq!(marks["items"], json!({ "type": "integer", "minimum": 1, "maximum": 5 }));
    }
}
