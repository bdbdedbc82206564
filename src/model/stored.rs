//! The safetensors files of a Hugging Face folder, found and read by transformers' rules: a whole file wins over an
//! index, surplus tensors are ignored, a base model's missing prefix is added.

use crate::{lfs_pointer, torch};
use anyhow::{Context, Result, bail, ensure};
use safetensors::SafeTensors;
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
    let shown = dir.display();
    if !dir.join(WHOLE).is_file() && !dir.join(INDEX).is_file() {
        let files = std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_file());
        let names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        let has = |end: &str| names.iter().find(|name| name.ends_with(end));
        let known = format!("{WHOLE}, or {INDEX} and its shards");
        return Some(match (has(".bin"), has(".safetensors")) {
            (_, Some(other)) => format!("{shown} has {other}, but not {known}: name the files as transformers does"),
            (Some(_), None) => {
                format!("{shown} has its weights as .bin files only: save them as safetensors with transformers")
            }
            (None, None) => format!("{shown} has no weights ({known})"),
        });
    }
    let files = shard_files(dir).ok()?;
    let absent = |path: &PathBuf| {
        let index = dir.join(INDEX);
        (!path.is_file()).then(|| format!("{} is not there, but {} names it", path.display(), index.display()))
    };
    files.iter().find_map(|path| absent(path).or_else(|| lfs_pointer(path)))
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
    /// A file that is missing or damaged; one message with every tensor that is missing, there twice, or of another
    /// shape or an unusable type.
    pub fn find(dir: &Path, wanted: impl IntoIterator<Item = (String, Vec<i64>)>, tied: bool) -> Result<Self> {
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
                    let Some(&place) = place else {
                        if tied && name == HEAD {
                            stored.tied_head = Some(path.clone());
                        } else {
                            surplus.push(name.to_string());
                        }
                        continue;
                    };
                    let expected = &wanted[place].1;
                    let shape = data.shape();
                    if shape.iter().map(|&size| size as i64).ne(expected.iter().copied()) {
                        wrong.push(format!("{name}: shape {shape:?}, expected {expected:?}"));
                    } else if kind(data.dtype()).is_none() {
                        wrong.push(format!("{name}: type {:?}, expected F32, BF16, F16 or F64", data.dtype()));
                    } else if found[place] {
                        wrong.push(format!("{}: in the files twice", wanted[place].0));
                    }
                    found[place] = true;
                    here.push((name.to_string(), place));
                }
                Ok(())
            })?;
            stored.files.push((path, here));
        }
        let missing: Vec<&str> =
            wanted.iter().zip(&found).filter(|(_, found)| !**found).map(|((name, _), _)| name.as_str()).collect();
        if let Some(prefix) = common_prefix(&missing, &surplus) {
            bail!(
                "the tensors in {} are named `{prefix}{}` and so on: save the model without the wrapper that adds \
                 `{prefix}` (torch.compile adds `_orig_mod.`, data parallelism `module.`, PEFT `base_model.model.`)",
                dir.display(),
                missing[0]
            );
        }
        wrong.extend(missing.iter().map(|name| format!("{name}: missing")));
        let shown = dir.display();
        ensure!(wrong.is_empty(), "the weights in {shown} do not fit its config.json:\n  {}", wrong.join("\n  "));
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
    let mut names = Vec::new();
    for path in shard_files(dir)? {
        with_tensors(&path, |tensors| {
            names.extend(tensors.names().into_iter().map(String::from));
            Ok(())
        })?;
    }
    Ok(names)
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
    if let Some(pointer) = lfs_pointer(path) {
        bail!(pointer);
    }
    let map = torch::map(path)?;
    let tensors = SafeTensors::deserialize(&map)
        .with_context(|| format!("{shown} is damaged or was not fetched completely ({} bytes)", map.len()))?;
    body(&tensors)
}

/// What the names of all `missing` tensors have in front of them among the `surplus` ones.
fn common_prefix<'a>(missing: &[&str], surplus: &'a [String]) -> Option<&'a str> {
    let first = missing.first()?;
    let prefix = surplus.iter().find_map(|name| name.strip_suffix(first)).filter(|prefix| !prefix.is_empty())?;
    missing.iter().all(|name| surplus.iter().any(|s| s.strip_prefix(prefix) == Some(name))).then_some(prefix)
}

/// The safetensors files of a folder: one, or else the shards that its index names (in transformers' order).
fn shard_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (whole, index) = (dir.join(WHOLE), dir.join(INDEX));
    if whole.exists() || !index.exists() {
        return Ok(vec![whole]);
    }
    let text = std::fs::read_to_string(&index)?;
    let json: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("in {}", index.display()))?;
    let map = json["weight_map"].as_object().with_context(|| format!("{} has no weight_map", index.display()))?;
    let mut names: Vec<&str> = map.values().filter_map(|v| v.as_str()).collect();
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
