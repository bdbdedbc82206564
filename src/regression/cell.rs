//! A value of a table.

use serde_json::Value;

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Cell {
    #[default]
    Missing,
    /// Always finite.
    Number(f64),
    Flag(bool),
    Text(String),
    /// Of a file in which everything is text: a number if it reads as one.
    Field(String),
}

/// What stands for a missing value in files of text: what R, pandas and spreadsheets write.
const MISSING: [&str; 6] = ["", "NA", "N/A", "NaN", "nan", "null"];

impl Cell {
    /// A scalar; `None` for a list or an object. `is_text`: of a file in which everything is text.
    pub fn of(value: &Value, is_text: bool) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Missing,
            Value::Bool(flag) => Self::Flag(*flag),
            Value::Number(number) => number.as_f64().filter(|n| n.is_finite()).map_or(Self::Missing, Self::Number),
            Value::String(text) if is_text && MISSING.contains(&text.trim()) => Self::Missing,
            Value::String(text) if is_text => Self::Field(text.trim().into()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(_) | Value::Object(_) => return None,
        })
    }

    pub fn is_missing(&self) -> bool {
        *self == Self::Missing
    }

    /// A number, or 0 and 1 for false and true; `None` for texts and what is missing.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Flag(flag) => Some(f64::from(u8::from(*flag))),
            Self::Field(text) => match text.as_str() {
                "true" | "True" | "TRUE" => Some(1.0),
                "false" | "False" | "FALSE" => Some(0.0),
                text => text.parse().ok().filter(|number: &f64| number.is_finite()),
            },
            Self::Missing | Self::Text(_) => None,
        }
    }

    /// The name of the level that the value is, as files write it.
    pub fn level(&self) -> String {
        match self {
            Self::Missing => String::new(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Text(text) | Self::Field(text) => text.clone(),
        }
    }

    /// Whether somebody means this value by a text.
    pub fn is(&self, text: &str) -> bool {
        match self {
            Self::Missing => false,
            Self::Number(number) => text.trim().parse::<f64>().is_ok_and(|other| other == *number),
            Self::Field(own) if own != text => {
                let numbers = own.parse::<f64>().ok().zip(text.trim().parse::<f64>().ok());
                numbers.is_some_and(|(own, other)| own == other)
            }
            other => other.level() == text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_numbers_flags_or_texts() {
        let cell = |value: Value, is_text| Cell::of(&value, is_text).unwrap();
        for (value, is_text, number, level) in [
            (json!(3), false, Some(3.0), "3"),
            (json!(0.5), false, Some(0.5), "0.5"),
            (json!(true), false, Some(1.0), "true"),
            (json!("3"), false, None, "3"),
            (json!(" 3 "), true, Some(3.0), "3"),
            (json!("007"), true, Some(7.0), "007"),
            (json!("False"), true, Some(0.0), "False"),
            (json!("inf"), true, None, "inf"),
            (json!("NA"), true, None, ""),
            (json!(null), false, None, ""),
        ] {
            let cell = cell(value.clone(), is_text);
            assert_eq!((cell.number(), cell.level().as_str()), (number, level), "{value}");
        }
        assert!(cell(json!(40), false).is("40") && cell(json!(40), false).is("4e1") && !cell(json!(40), false).is("4"));
        assert!(
            cell(json!("40"), true).is("40.0") && cell(json!("a"), true).is("a") && !cell(json!("a"), false).is("")
        );
        assert!(cell(json!(true), false).is("true") && !cell(json!(null), false).is(""));
        assert_eq!((Cell::of(&json!([1]), false), Cell::of(&json!({}), true)), (None, None));
        assert!(cell(json!("NaN"), true).is_missing() && !cell(json!("NaN"), false).is_missing());
    }
}
