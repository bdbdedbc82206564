//! A file of weights that somebody else wrote: its tensors are those of the model, or it is refused.

use ppo_train::model::Stored;

pub fn run(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    std::fs::write(dir.path().join("model.safetensors"), data).expect("room for a file");
    let wanted = [("model.embed_tokens.weight".to_string(), vec![2, 2]), ("model.norm.weight".to_string(), vec![2])];
    match Stored::find(dir.path(), wanted, true) {
        Err(error) => super::refused(format!("{error:#}"), data.len()),
        Ok(stored) => {
            let mut seen = [0; 2];
            let take = |place: usize, tensor: &tch::Tensor| {
                seen[place] = tensor.numel();
                Ok(())
            };
            stored.read(take).expect("what was found");
            assert_eq!(seen, [4, 2]);
            let mut head = None;
            let take = |tensor: &tch::Tensor| {
                head = Some(tensor.size());
                Ok(())
            };
            stored.read_tied_head(take).expect("what was found");
            assert!(head.is_none_or(|size| size == [2, 2]));
        }
    }
}
