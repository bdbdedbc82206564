//! A text that a sampler could be led to is, once complete, a reply that the check accepts; and an end is never further
//! away than the acceptor says.

use ppo_train::grammar::{Acceptor, Grammar, Schema, find};
use std::sync::{Arc, LazyLock};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let mark = Schema::Integer { min: 1, max: 12 };
    let voice = vec![
        ("name".into(), Schema::Text { max: 6 }),
        ("marks".into(), Schema::List { item: Box::new(mark), min: 2, max: 3 }),
    ];
    let voices = Schema::List { item: Box::new(Schema::Object(voice)), min: 0, max: 2 };
    Schema::Object(vec![("count".into(), Schema::Integer { min: 0, max: 999 }), ("voices".into(), voices)])
});
static GRAMMAR: LazyLock<Arc<Grammar>> = LazyLock::new(|| Arc::new(Grammar::new(&SCHEMA)));

pub fn run(data: &[u8]) {
    let mut acceptor = Acceptor::new(GRAMMAR.clone());
    for (at, byte) in data.iter().enumerate() {
        let before = acceptor.shortest();
        if !acceptor.read(*byte) {
            break;
        }
        assert!(acceptor.shortest() + 1 >= before);
        assert_eq!(acceptor.is_complete(), acceptor.shortest() == 0);
        if acceptor.is_complete() {
            let text = std::str::from_utf8(&data[..=at]).expect("printable ASCII");
            find(text, &SCHEMA).expect("what the grammar allows");
        }
    }
    super::text(data, |text| match find(text, &SCHEMA) {
        Err(why) => super::refused(why, text.len()),
        Ok(value) => assert_eq!(find(&value.to_string(), &SCHEMA), Ok(value)),
    });
}
