//! The safetensors files of a Hugging Face folder, found and read by transformers' rules: a whole file wins over an
//! index, surplus tensors are ignored, a base model's missing prefix is added.

use crate::recipe::spelling::nearest;
use crate::{json, not_fetched, torch};
use anyhow::{Context, Result, bail, ensure};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// The embedding, and the head that may be tied to it.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
pub const HEAD: &str = "lm_head.weight";

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// What keeps the weights of a folder from being read at all: files that are not there yet.
pub fn missing_files(dir: &Path) -> Option<String> {
    let (whole, index) = (dir.join(WHOLE), dir.join(INDEX));
    if !whole.is_file() && !index.is_file() {
        let instead = not_fetched(&whole).or_else(|| not_fetched(&index));
        return instead.or_else(|| Some(without_weights(dir)));
    }
    let files = match shard_files(dir) {
        Ok(files) => files,
        Err(error) => return Some(format!("{error:#}")),
    };
    let absent = |path: &PathBuf| {
        (!path.is_file()).then(|| format!("{} is not there, but {} names it", path.display(), index.display()))
    };
    files.iter().find_map(|path| not_fetched(path).or_else(|| absent(path)))
}

/// What a folder has instead of weights under the names that transformers gives them.
fn without_weights(dir: &Path) -> String {
    let shown = dir.display();
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    let named = |start: &str, end: &str| names.iter().find(|name| name.starts_with(start) && name.ends_with(end));
    if let Some(adapter) = named("adapter_", "") {
        return format!("{shown} is an adapter ({adapter}), not a whole model: merge it into its model first");
    }
    if let Some(shard) = named("model-", ".safetensors") {
        return format!("{shown} has {shard}, but the index is missing: {INDEX}");
    }
    let known = format!("{WHOLE}, or {INDEX} and its shards");
    if let Some(other) = named("", ".safetensors") {
        return format!("{shown} has {other}, but not {known}: name the files as transformers does");
    }
    if named("pytorch_model", ".bin").is_some() {
        return format!("{shown} has its weights as .bin files only: save them as safetensors with transformers");
    }
    format!("{shown} has no weights ({known})")
}

/// Where the tensors of a model are in the files of a folder.
pub struct Stored {
    /// Each file, with its tensors' names there and their places among those wanted.
    files: Vec<(PathBuf, Vec<(String, usize)>)>,
    /// The file with a head that should be tied.
    tied_head: Option<PathBuf>,
    /// What was ignored.
    pub notes: Vec<String>,
}

impl Stored {
    /// Looks for tensors of these names and shapes in `dir`; only the heads of the files are read. `tied`: whether the
    /// language head is the embedding.
    ///
    /// # Errors
    /// A file that is missing or damaged; one message about the tensors that are missing, there twice, or of another
    /// shape or an unusable type.
    pub fn find(dir: &Path, wanted: impl IntoIterator<Item = (String, Vec<i64>)>, tied: bool) -> Result<Self> {
        if let Some(missing) = missing_files(dir) {
            bail!(missing);
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        let index: BTreeMap<&str, usize> = wanted.iter().map(|(name, _)| name.as_str()).zip(0..).collect();
        let mut stored = Self { files: vec![], tied_head: None, notes: vec![] };
        if dir.join(WHOLE).exists() && dir.join(INDEX).exists() {
            stored.notes.push(format!("note: {} is read; the index beside it is ignored", dir.join(WHOLE).display()));
        }
        let mut found = vec![false; wanted.len()];
        let (mut wrong, mut surplus) = (Vec::new(), Vec::new());
        for path in shard_files(dir)? {
            let mut here = Vec::new();
            with_tensors(&path, |tensors| {
                for (name, data) in tensors.iter() {
                    // A base model saved without its head leaves the prefix out, and transformers adds it again.
                    let place = index.get(name).or_else(|| index.get(format!("model.{name}").as_str()));
                    let head = tied && name == HEAD;
                    // A tied head that is stored too must be like the embedding.
                    let like = if head { index.get(EMBEDDING) } else { place };
                    let misfit = like.and_then(|&place| misfit(&data, &wanted[place].1));
                    wrong.extend(misfit.map(|misfit| format!("{name} in {}: {misfit}", path.display())));
                    match place {
                        Some(&place) => {
                            if found[place] {
                                wrong.push(format!("{}: in the files twice", wanted[place].0));
                            }
                            found[place] = true;
                            here.push((name.to_string(), place));
                        }
                        None if head => stored.tied_head = Some(path.clone()),
                        None => surplus.push(name.to_string()),
                    }
                }
                Ok(())
            })?;
            stored.files.push((path, here));
        }
        let missing: Vec<&str> =
            wanted.iter().zip(&found).filter(|(_, found)| !**found).map(|((name, _), _)| name.as_str()).collect();
        if let Some(prefix) = common_prefix(&missing, &surplus) {
            bail!("the names of the tensors in {} begin with `{prefix}`: {}", dir.display(), unwrap(prefix));
        }
        wrong.extend(missing.iter().map(|name| format!("{name}: missing")));
        wrong.sort_unstable();
        let shown = dir.display();
        ensure!(wrong.is_empty(), "the weights in {shown} do not fit its config.json:{}", first_lines(&wrong));
        if !surplus.is_empty() {
            let first = surplus.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            let more = if surplus.len() > 3 { format!(" and {} more", surplus.len() - 3) } else { String::new() };
            stored.notes.push(format!("note: not part of this architecture and ignored in {shown}: {first}{more}"));
        }
        Ok(stored)
    }

    /// Hands every tensor, as it is stored, to `take` with its place.
    pub fn read(&self, mut take: impl FnMut(usize, &Tensor) -> Result<()>) -> Result<()> {
        for (path, here) in &self.files {
            with_tensors(path, |tensors| {
                here.iter().try_for_each(|(name, place)| take(*place, &tensor(tensors, name)?))
            })?;
        }
        Ok(())
    }

    /// Hands the stored head of a model whose head is tied to `take`, if there is one.
    pub fn read_tied_head(&self, take: impl FnOnce(&Tensor) -> Result<()>) -> Result<()> {
        self.tied_head.as_ref().map_or(Ok(()), |path| with_tensors(path, |tensors| take(&tensor(tensors, HEAD)?)))
    }
}

/// The names of the tensors in a folder's safetensors files.
///
/// # Errors
/// A file that is missing or damaged.
pub fn tensor_names(dir: &Path) -> Result<Vec<String>> {
    if let Some(missing) = missing_files(dir) {
        bail!(missing);
    }
    let mut names = Vec::new();
    for path in shard_files(dir)? {
        with_tensors(&path, |tensors| {
            names.extend(tensors.names().into_iter().map(String::from));
            Ok(())
        })?;
    }
    Ok(names)
}

/// A tensor of a safetensors file, by its name.
///
/// # Errors
/// A file that is missing or damaged; no such tensor, or one of another type than weights have.
pub fn named_tensor(path: &Path, name: &str) -> Result<Tensor> {
    let read = |tensors: &SafeTensors| {
        let names = tensors.names();
        if !names.contains(&name) {
            let hint = nearest(name, &names).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
            bail!("it has no tensor `{name}`{hint}\nits tensors are {}", first_names(&names));
        }
        tensor(tensors, name)
    };
    if !path.is_file() {
        bail!("{} is not a file", path.display());
    }
    with_tensors(path, |tensors| read(tensors).with_context(|| path.display().to_string()))
}

/// The first of many names.
fn first_names(names: &[&str]) -> String {
    const MOST: usize = 8;
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let more = names.len().saturating_sub(MOST);
    let shown = sorted[..names.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// The kind of a type that weights may have.
fn kind(dtype: safetensors::Dtype) -> Option<Kind> {
    torch::kind_of(dtype).filter(|kind| *kind != Kind::Int64)
}

fn tensor(tensors: &SafeTensors, name: &str) -> Result<Tensor> {
    let data = tensors.tensor(name)?;
    let shape: Vec<i64> = data.shape().iter().map(|&size| size as i64).collect();
    let kind = kind(data.dtype()).with_context(|| format!("{name} has the type {:?}", data.dtype()))?;
    Ok(Tensor::from_data_size(data.data(), &shape, kind))
}

fn with_tensors<T>(path: &Path, body: impl FnOnce(&SafeTensors) -> Result<T>) -> Result<T> {
    let shown = path.display();
    let map = torch::map(path)?;
    let tensors = SafeTensors::deserialize(&map)
        .with_context(|| format!("{shown} is damaged or was not fetched completely ({} bytes)", map.len()))?;
    body(&tensors)
}

/// What is wrong with a tensor that should have the shape `expected`.
fn misfit(data: &TensorView, expected: &[i64]) -> Option<String> {
    let (shape, kind_name) = (data.shape(), data.dtype());
    if shape.iter().map(|&size| size as i64).ne(expected.iter().copied()) {
        return Some(format!("shape {shape:?}, expected {expected:?}"));
    }
    kind(kind_name).is_none().then(|| format!("type {kind_name:?}, expected F32, BF16, F16 or F64"))
}

/// How to come by a model whose tensors have no `prefix`.
fn unwrap(prefix: &str) -> String {
    if prefix.contains("language_model.") {
        return "this is a vision-language model: save its language model on its own".into();
    }
    format!(
        "save the model without the wrapper that adds `{prefix}` (torch.compile adds `_orig_mod.`, data parallelism \
         `module.`, PEFT `base_model.model.`)"
    )
}

/// The first of many problems, a line each.
fn first_lines(problems: &[String]) -> String {
    const MOST: usize = 8;
    let more = problems.len().saturating_sub(MOST);
    let lines = problems.iter().take(MOST).map(|problem| format!("\n  {problem}"));
    lines.chain((more > 0).then(|| format!("\n  and {more} more"))).collect()
}

/// What the names of all `missing` tensors have in front of them among the `surplus` ones; a wrapper may also stand
/// between `model.` and the rest.
fn common_prefix<'a>(missing: &[&'a str], surplus: &'a [String]) -> Option<&'a str> {
    let bare = |name: &&'a str| name.strip_prefix("model.").unwrap_or(name);
    [missing.to_vec(), missing.iter().map(bare).collect()].iter().find_map(|missing| {
        let first = missing.first()?;
        let prefix = surplus.iter().filter_map(|name| name.strip_suffix(first)).find(|prefix| prefix.ends_with('.'))?;
        missing.iter().all(|name| surplus.iter().any(|s| s.strip_prefix(prefix) == Some(name))).then_some(prefix)
    })
}

/// The file that names the shard of each tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The safetensors files of a folder: one, or else the shards that its index names (in transformers' order).
fn shard_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (whole, index) = (dir.join(WHOLE), dir.join(INDEX));
    if whole.exists() || !index.exists() {
        return Ok(vec![whole]);
    }
    let Index { weight_map } = json::read(&index)?;
    let mut names: Vec<&str> = weight_map.values().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    for name in &names {
        ensure!(
            Path::new(name).file_name().is_some_and(|n| n == *name),
            "{} names a shard outside its folder: {name}",
            index.display()
        );
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::save_tensors;
    use tch::Device;

    /// Before anything is read: files that are not there, and files that are not what their name says.
    #[test]
    fn files_that_were_not_fetched_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        let link = |name: &str| std::os::unix::fs::symlink("blob", dir.join(name)).unwrap();
        let remove = |name: &str| std::fs::remove_file(dir.join(name)).unwrap();
        let find = || Stored::find(dir, [], false).err().map(|error| format!("{error:#}"));
        let says = |part: &str| {
            let missing = missing_files(dir).unwrap();
            assert!(missing.contains(part), "{missing}");
            assert_eq!(find().unwrap(), missing);
        };
        const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
        says("has no weights");
        write("training_args.bin", "");
        says("has no weights");
        write("pytorch_model-00001-of-00002.bin", "");
        says("as .bin files only");
        write("weights.safetensors", "");
        says("has weights.safetensors, but not model.safetensors");
        write("model-00001-of-00002.safetensors", "");
        says("has model-00001-of-00002.safetensors, but the index is missing: model.safetensors.index.json");
        write("adapter_model.safetensors", "");
        says("is an adapter (adapter_model.safetensors), not a whole model: merge it into its model first");
        link(WHOLE);
        says("model.safetensors is a link to blob, which is not there");
        remove(WHOLE);
        link(INDEX);
        says("index.json is a link to blob");
        remove(INDEX);
        for (text, part) in [
            (POINTER, "index.json is a Git LFS pointer"),
            ("{", "index.json: EOF while parsing"),
            ("{}", "index.json: missing field `weight_map`"),
            (r#"{"weight_map": {"a": "../one.safetensors"}}"#, "names a shard outside its folder"),
            (r#"{"weight_map": {"a": 1}}"#, "index.json: `weight_map.a`: invalid type: integer `1`"),
        ] {
            write(INDEX, text);
            says(part);
        }
        let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
        write(INDEX, &format!("\u{feff}{index}"));
        write("one.safetensors", "");
        says("two.safetensors is not there, but");
        link("two.safetensors");
        says("two.safetensors is a link to blob");
        remove("two.safetensors");
        write("two.safetensors", POINTER);
        says("two.safetensors is a Git LFS pointer");
        write("two.safetensors", "");
        assert_eq!(missing_files(dir), None);
        let error = find().unwrap();
        assert!(error.contains("one.safetensors is damaged or was not fetched completely (0 bytes)"), "{error}");
        // A whole file wins, whatever the index is.
        write(WHOLE, "");
        write(INDEX, "{");
        assert_eq!(missing_files(dir), None);
    }

    #[test]
    fn many_problems_are_sorted_and_the_first_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let ones = |kind| Tensor::ones([2], (kind, Device::Cpu));
        save_tensors(&dir.path().join(WHOLE), &[("w1", ones(Kind::Int64)), ("w2", ones(Kind::Float))]).unwrap();
        let wanted = (0..12).rev().map(|i| (format!("w{i}"), vec![if i == 2 { 3 } else { 2 }]));
        let error = Stored::find(dir.path(), wanted, false).err().unwrap().to_string();
        let lines: Vec<&str> = error.lines().map(str::trim).collect();
        assert_eq!((lines.len(), lines[1], lines[9]), (10, "w0: missing", "and 4 more"), "{error}");
        assert!(lines[2].ends_with("model.safetensors: type I64, expected F32, BF16, F16 or F64"), "{error}");
        assert_eq!(lines[3], "w10: missing");
    }
}
