//! The index of a model's weights, beside one of its shards.

use ppo_train::model::{Stored, missing_files};

pub fn run(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let write = |name, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).expect("room for a file");
    write("model.safetensors.index.json", data);
    // A tensor `norm` of two bfloat16 zeros, in the format of safetensors.
    let head = br#"{"norm":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;
    write("a", &[&(head.len() as u64).to_le_bytes()[..], head, &[0; 4]].concat());
    if let Some(missing) = missing_files(dir.path()) {
        super::refused(missing, data.len());
    }
    match Stored::find(dir.path(), [("norm".to_string(), vec![2])], false) {
        Err(error) => super::refused(format!("{error:#}"), data.len()),
        Ok(stored) => {
            let mut seen = vec![];
            let take = |place, tensor: &tch::Tensor| {
                seen.push((place, tensor.numel()));
                Ok(())
            };
            stored.read(take).expect("what was found");
            assert_eq!(seen, [(0, 2)]);
        }
    }
}
