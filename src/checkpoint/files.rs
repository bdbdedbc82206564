//! The files of a checkpoint: models as Hugging Face folders, loose tensors as safetensors.

use crate::dist::{Held, Offer, Part};
use crate::model::Weights;
use crate::{WHOLE, open, read_text, torch};
use anyhow::{Context, Result, bail, ensure};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo, TensorView, View};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Copied with the weights, unchanged, besides the tokenizer's files.
const GENERATION: &str = "generation_config.json";
const TOKENIZER: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// Largest size of a file of weights.
const SHARD_BYTES: usize = 5_000_000_000;

/// Writes a model into `dir` as transformers would, with the configuration of the folder `source` and the tokenizer of
/// the folder `tokenizer`.
pub fn save_model(dir: &Path, weights: &Weights, source: &Path, tokenizer: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    save_config(dir, weights, source, |_| ())?;
    copy(source, dir, &[GENERATION])?;
    copy(tokenizer, dir, &TOKENIZER)?;
    save_shards(dir, weights.entries(), SHARD_BYTES)
}

/// Copies files that exist.
fn copy(from: &Path, to: &Path, names: &[&str]) -> Result<()> {
    for file in names.iter().map(|name| from.join(name)).filter(|file| file.exists()) {
        copy_file(&file, &to.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Copies a file, or says which cannot be copied where.
pub fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let mut source = open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let mut copy = || std::io::copy(&mut source, &mut fs::File::create(to)?);
    copy().map(drop).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Writes weights as `model.safetensors`, or as shards of at most `limit` bytes (a larger tensor gets its own) with the
/// index that names them.
fn save_shards(dir: &Path, weights: &[(String, Tensor)], limit: usize) -> Result<()> {
    let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
    let mut shards: Vec<&[(String, Tensor)]> = vec![];
    let mut rest = weights;
    while !rest.is_empty() {
        let mut room = limit;
        let fits = |(_, tensor): &&(String, Tensor)| {
            let enough = bytes(tensor) <= room;
            room = room.saturating_sub(bytes(tensor));
            enough
        };
        let (shard, after) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        shards.push(shard);
        rest = after;
    }
    if let [all] = shards[..] {
        return save_tensors(&dir.join("model.safetensors"), all);
    }
    let mut files = serde_json::Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        save_tensors(&dir.join(&file), shard)?;
        files.extend(shard.iter().map(|(name, _)| (name.clone(), file.clone().into())));
    }
    let total: usize = weights.iter().map(|(_, tensor)| bytes(tensor)).sum();
    let index = json!({"metadata": {"total_size": total}, "weight_map": files});
    write_text(&dir.join("model.safetensors.index.json"), &serde_json::to_string_pretty(&index)?)
}

/// Writes a critic into `dir` as transformers' token classifier with one label, with the configuration of the folder
/// `source` and the tokenizer of the folder `tokenizer`.
pub fn save_critic(dir: &Path, weights: &Weights, source: &Path, tokenizer: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    save_config(dir, weights, source, |config| {
        let name = config["architectures"][0].as_str().map(|n| n.replace("ForCausalLM", "ForTokenClassification"));
        config["architectures"] = json!([name]);
        config["id2label"] = json!({"0": "value"});
        config["label2id"] = json!({"value": 0});
    })?;
    copy(tokenizer, dir, &TOKENIZER)?;
    save_shards(dir, weights.entries(), SHARD_BYTES)
}

/// Writes the `config.json` of `source` with the current precision of the weights, after a `change`.
fn save_config(dir: &Path, weights: &Weights, source: &Path, change: impl FnOnce(&mut Value)) -> Result<()> {
    let path = source.join("config.json");
    let text = read_text(&path, WHOLE).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut config: Value = serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    // transformers 5 writes `dtype` where it used to write `torch_dtype`, and reads both.
    let key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    config[key] = match weights.flat().kind() {
        Kind::BFloat16 => "bfloat16".into(),
        Kind::Half => "float16".into(),
        _ => "float32".into(),
    };
    change(&mut config);
    write_text(&dir.join("config.json"), &serde_json::to_string_pretty(&config)?)
}

/// Writes a small file of a folder that is being filled.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes named tensors as one safetensors file, with the metadata that transformers looks for.
pub fn save_tensors<S: AsRef<str>>(path: &Path, tensors: &[(S, Tensor)]) -> Result<()> {
    let views = tensors.iter().map(|(name, tensor)| Ok((name.as_ref(), Contiguous::new(tensor)?)));
    let views = views.collect::<Result<Vec<_>>>()?;
    let write = || -> Result<()> {
        // The crate writes a temporary file that only its owner can read; ours shall be as readable as any new file.
        let mode = fs::File::create(path)?.metadata()?.permissions();
        match safetensors::serialize_to_file(views, Some(pt()), path) {
            // It would say everything twice.
            Err(SafeTensorError::IoError(error)) => return Err(error.into()),
            written => written?,
        }
        Ok(fs::set_permissions(path, mode)?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Writes what the parts of all ranks make as one safetensors file, piece by piece: no rank holds the whole.
///
/// # Errors
/// Those of the file system and of `Offer::take`.
pub fn save_parts(path: &Path, offer: &mut Offer) -> Result<()> {
    let mut end = 0;
    let info = |(name, own, part): &Held| {
        let Some(dtype) = torch::dtype_of(own.kind()) else {
            bail!("tensors of kind {:?} are not stored", own.kind());
        };
        let shape = part.map_or_else(|| own.size(), |part| vec![part.total]);
        let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
        let start = end;
        end += shape.iter().product::<usize>() * own.kind().elt_size_in_bytes();
        Ok((name.clone(), TensorInfo { dtype, shape, data_offsets: (start, end) }))
    };
    let head = Metadata::new(Some(pt()), offer.parts().iter().map(info).collect::<Result<_>>()?)?;
    let mut head = serde_json::to_vec(&head)?;
    // The format wants the numbers aligned.
    head.resize(head.len().next_multiple_of(8), b' ');
    let mut write = || -> Result<()> {
        let mut file = fs::File::create(path)?;
        file.write_all(&(head.len() as u64).to_le_bytes())?;
        file.write_all(&head)?;
        offer.take(|piece| Ok(file.write_all(torch::bytes(&piece.contiguous()))?))
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The metadata that transformers looks for.
fn pt() -> HashMap<String, String> {
    HashMap::from([("format".to_string(), "pt".to_string())])
}

/// All tensors of a safetensors file, by name.
///
/// # Errors
/// A damaged file.
pub fn read_tensors(path: &Path) -> Result<HashMap<String, Tensor>> {
    let map = torch::map(path)?;
    let stored = SafeTensors::deserialize(&map).with_context(|| format!("{} is damaged", path.display()))?;
    let read = |(name, data): (&str, TensorView)| {
        let kind = torch::kind_of(data.dtype()).with_context(|| format!("{name} is {:?}", data.dtype()))?;
        let shape: Vec<i64> = data.shape().iter().map(|&d| d as i64).collect();
        Ok((name.to_string(), Tensor::from_data_size(data.data(), &shape, kind)))
    };
    stored.iter().map(read).collect()
}

/// Fills `targets` in place with the tensors of the same names in a safetensors file.
///
/// # Errors
/// A damaged file, or one without a target's name, shape or type.
pub fn load_tensors<S: AsRef<str>>(path: &Path, targets: &[(S, Tensor)]) -> Result<()> {
    load_parts(path, targets.iter().map(|(name, target)| (name, target.shallow_clone(), None)))
}

/// `load_tensors`; a target with a part gets that part of its tensor.
///
/// # Errors
/// Those of `load_tensors`.
pub fn load_parts<S: AsRef<str>>(
    path: &Path,
    targets: impl IntoIterator<Item = (S, Tensor, Option<Part>)>,
) -> Result<()> {
    let map = torch::map(path)?;
    let stored = SafeTensors::deserialize(&map).with_context(|| format!("{} is damaged", path.display()))?;
    for (name, mut target, part) in targets {
        let name = name.as_ref();
        let expected = part.map_or_else(|| target.size(), |part| vec![part.total]);
        let data = stored.tensor(name).with_context(|| format!("{} has no tensor {name}", path.display()))?;
        let shape: Vec<i64> = data.shape().iter().map(|&d| d as i64).collect();
        let kind = torch::kind_of(data.dtype());
        ensure!(
            shape == expected && kind == Some(target.kind()),
            "{}: tensor {name} is {:?} {shape:?}, expected {:?} {:?}",
            path.display(),
            data.dtype(),
            target.kind(),
            expected
        );
        let bytes = match part {
            None => data.data(),
            Some(part) => {
                let [first, len] = [part.first, part.len].map(|n| n as usize * target.kind().elt_size_in_bytes());
                &data.data()[first..][..len]
            }
        };
        tch::no_grad(|| target.copy_(&Tensor::from_data_size(bytes, &target.size(), target.kind())));
    }
    Ok(())
}

/// A tensor as safetensors needs it: plain memory on the host.
struct Contiguous {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Contiguous {
    fn new(tensor: &Tensor) -> Result<Self> {
        let Some(dtype) = torch::dtype_of(tensor.kind()) else {
            bail!("tensors of kind {:?} are not stored", tensor.kind());
        };
        let shape = tensor.size().iter().map(|&d| d as usize).collect();
        Ok(Self { tensor: tensor.detach().to_device(Device::Cpu).contiguous(), dtype, shape })
    }
}

impl View for Contiguous {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(torch::bytes(&self.tensor))
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::threads::Thread;
    use crate::dist::{Comm, Solo, offer};
    use crate::model::{Head, ModelConfig};
    use crate::torch::test_device;
    use tch::Kind;

    #[test]
    fn shards_hold_the_same_model_as_one_file() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama_tiny");
        let config = ModelConfig::from_dir(&golden).unwrap();
        let load = |dir: &Path| Weights::load(dir, &config, Head::Language, Kind::Float, test_device()).unwrap();
        let whole = load(&golden);
        let dir = tempfile::tempdir().unwrap();
        save_shards(dir.path(), whole.entries(), 20_000).unwrap();
        let sizes: Vec<u64> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
        assert!(sizes.len() > 5 && sizes.iter().all(|size| *size < 30_000), "{sizes:?}");
        assert_eq!(torch::to_host(load(dir.path()).flat()), torch::to_host(whole.flat()));
    }

    #[test]
    fn what_ranks_have_parts_of_is_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let whole = Tensor::arange(1000, (Kind::Float, Device::Cpu));
        std::thread::scope(|scope| {
            for comm in Thread::group(3) {
                let (whole, path) = (whole.copy(), &path);
                scope.spawn(move || {
                    let part = Part::of(comm.rank(), 3, 1000);
                    let own = ("moment".to_string(), part.cut(&whole).copy(), Some(part));
                    let parts = [own, ("count".to_string(), Tensor::from(7f32), None)];
                    offer(&comm, &parts, |offer| save_parts(path, offer)).unwrap();
                });
            }
        });
        // As the crate reads it, and as two ranks do.
        let read = read_tensors(&path).unwrap();
        assert_eq!((torch::to_host(&read["moment"]), read["count"].size()), (torch::to_host(&whole), vec![]));
        let part = Part::of(1, 2, 1000);
        let own = Tensor::zeros([part.len], (Kind::Float, Device::Cpu));
        load_parts(&path, [("moment", own.shallow_clone(), Some(part))]).unwrap();
        assert_eq!(torch::to_host(&own), torch::to_host(&part.cut(&whole)));
        let nowhere = offer(&Solo, &[], |offer| save_parts(&dir.path().join("no/t"), offer)).unwrap_err();
        assert!(nowhere.chain().any(|cause| cause.is::<std::io::Error>()), "{nowhere:#}");
    }

    #[test]
    fn tensors_are_read_back_as_written_and_misfits_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let written = [
            ("half", Tensor::from_slice(&[1.5f32, -2.0]).to_kind(Kind::BFloat16)),
            ("slice", Tensor::arange(6, (Kind::Float, test_device())).view([2, 3]).transpose(0, 1)),
            ("count", Tensor::from(7.0f32)),
        ];
        save_tensors(&path, &written).unwrap();
        let read: Vec<_> = written.iter().map(|(name, t)| (*name, t.zeros_like())).collect();
        load_tensors(&path, &read).unwrap();
        for ((name, got), (_, expected)) in read.iter().zip(&written) {
            assert_eq!(torch::to_host(got), torch::to_host(expected), "{name}");
        }
        let wrong = [("half", Tensor::from(1.0f32)), ("other", Tensor::from(1.0f32))];
        for target in wrong {
            let name = target.0;
            let error = load_tensors(&path, &[target]).unwrap_err();
            assert!(format!("{error:#}").contains(name), "{error:#}");
        }
    }
}
