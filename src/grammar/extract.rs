//! The one object in a reply that is what was asked for. Models put it into a code fence, think before it, and talk
//! around it; none of that matters. Objects that do not fit do not matter either if another one does.

use super::schema::Schema;
use crate::json::Object;
use serde_json::{Deserializer, Value};

/// The object in `text` that fits `schema`.
///
/// # Errors
/// There is none, or two that differ; in a clause, for the model that wrote it as much as for people.
pub fn find(text: &str, schema: &Schema) -> Result<Value, String> {
    // What a reasoning model thinks is not its reply.
    let text = text.rsplit_once("</think>").map_or(text, |(_, reply)| reply);
    let mut fits: Vec<Value> = vec![];
    let mut wrong: Option<String> = None;
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        rest = &rest[start..];
        let mut stream = Deserializer::from_str(rest).into_iter::<Object>();
        let length = match stream.next() {
            Some(Ok(Object(object))) => {
                let value = Value::Object(object);
                match schema.check(&value) {
                    Ok(()) if !fits.contains(&value) => fits.push(value),
                    Ok(()) => {}
                    Err(why) => wrong = Some(why),
                }
                stream.byte_offset()
            }
            Some(Err(error)) => {
                wrong.get_or_insert_with(|| format!("it is not JSON: {error}"));
                1
            }
            None => 1,
        };
        rest = &rest[length.max(1)..];
    }
    match (fits.len(), wrong) {
        (1, _) => Ok(fits.remove(0)),
        (0, Some(why)) => Err(why),
        (0, None) => Err("there is no JSON object in it".to_string()),
        (count, _) => Err(format!("there are {count} different JSON objects in it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_is_found_whatever_is_around_it() {
        let schema = Schema::object(["a"], &Schema::Integer { min: 0, max: 9 });
        let found = |text: &str| find(text, &schema);
        let one = Ok(json!({ "a": 1 }));
        for text in [
            "{\"a\": 1}",
            "```json\n{\n  \"a\": 1\n}\n```",
            "Sure! Here it is: {\"a\": 1}. Anything else?",
            "<think>maybe {\"a\": 2}?</think>\n{\"a\": 1}",
            "The layout {\"a\": N} becomes {\"a\": 1}",
            "{x} {\"b\": {\"a\": 3}} {\"a\": 1} {",
            "{\"a\": 1} and again {\"a\": 1}",
        ] {
            assert_eq!(found(text), one, "{text}");
        }
        assert_eq!(found("{\"a\": 1, \"b\": [{}]}"), Ok(json!({ "a": 1, "b": [{}] })));
        for (text, message) in [
            ("", "there is no JSON object in it"),
            ("a: 1", "there is no JSON object in it"),
            ("{\"a\": 1", "it is not JSON: EOF while parsing an object at line 1 column 7"),
            ("{\"a\": 10}", "`a` is 10, expected an integer from 0 to 9"),
            ("{\"a\": 1} or {\"a\": 2}", "there are 2 different JSON objects in it"),
        ] {
            assert_eq!(found(text), Err(message.to_string()), "{text}");
        }
        let twice = found("{\"a\": 1, \"a\": 2}").unwrap_err();
        assert!(twice.starts_with("it is not JSON: the key `a` is there twice"), "{twice}");
    }

    /// Whatever a model writes, the search ends soon.
    #[test]
    fn deep_and_broken_replies_are_no_work() {
        let schema = Schema::object(["a"], &Schema::Integer { min: 0, max: 9 });
        for text in ["{".repeat(200_000), "{\"a\":".repeat(20_000), "{\"a\":[".repeat(20_000)] {
            assert!(find(&text, &schema).unwrap_err().starts_with("it is not JSON"));
        }
    }
}
