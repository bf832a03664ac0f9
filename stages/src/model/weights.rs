//! Weights from and to files: HF folders in safetensors.
//!
//! A [`Source`] gives tensors by their HF name in HF's layout (`[out, in]` for a linear layer); a
//! model is built from one. Files are mapped, not read: a page comes from the disk when a weight on it
//! is used, and [`Raw`] gives a tensor's bytes as they lie there. Nothing is allocated by a number that
//! only a file's header claims: the header is checked against the length of the file first. Pickled
//! checkpoints are not read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensors, View};

use super::gguf::Packing;
use crate::{Context, Result, StageError};

/// What gives weights by name.
pub trait Source {
    /// The values of a tensor, row by row. An error where it is missing or has another shape.
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>>;
}

/// A tensor as it lies in a file.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The shape, in HF's order: rows first.
    pub shape: Vec<usize>,
    /// How its weights are packed.
    pub packing: Packing,
    /// Its bytes, row by row.
    pub bytes: Bytes,
}

/// A range of a mapped file, which it keeps mapped.
#[derive(Clone, Debug)]
pub struct Bytes {
    map: Arc<Mmap>,
    range: std::ops::Range<usize>,
}

impl Bytes {
    /// A range of a map; none where it reaches past the end.
    pub(crate) fn new(map: &Arc<Mmap>, range: std::ops::Range<usize>) -> Option<Bytes> {
        map.get(range.clone())?;
        Some(Bytes { map: map.clone(), range })
    }
    /// A part of it; none where it reaches past the end.
    pub fn part(&self, range: std::ops::Range<usize>) -> Option<Bytes> {
        self.get(range.clone())?;
        let start = self.range.start;
        Some(Bytes { map: self.map.clone(), range: start + range.start..start + range.end })
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

/// Maps a file for reading. Whoever shortens the file while it is mapped kills the process, as with
/// every program that maps files; model files are replaced by renaming.
pub(crate) fn map(path: &Path) -> Result<Arc<Mmap>> {
    let file = fs_err::File::open(path)?;
    // SAFETY: the map is read only; nobody is expected to change a model file in place.
    let map = unsafe { Mmap::map(file.file()) };
    Ok(Arc::new(map.map_err(|e| StageError::bad(path, e.to_string()))?))
}

/// The files of a model: relative names, and where their bytes are.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    files: BTreeMap<String, PathBuf>,
    called: String,
}

impl Folder {
    /// Those of an input.
    pub fn of_port(ctx: &Context, port: &str) -> Folder {
        let files = ctx.files(port).map(|(name, path)| (name.to_owned(), path.to_owned()));
        Folder { files: files.collect(), called: format!("input `{port}`") }
    }
    /// Those directly in a directory.
    pub fn of_dir(dir: &Path) -> Result<Folder> {
        let mut files = BTreeMap::new();
        for entry in fs_err::read_dir(dir)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                files.insert(name, entry.path());
            }
        }
        Ok(Folder { files, called: dir.display().to_string() })
    }
    /// One file alone.
    pub fn of_file(path: &Path) -> Folder {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let files = name.map(|name| (name, path.to_owned())).into_iter().collect();
        Folder { files, called: path.display().to_string() }
    }
    /// A file, if it is there.
    pub fn get(&self, name: &str) -> Option<&Path> {
        self.files.get(name).map(PathBuf::as_path)
    }
    /// A file that must be there.
    pub fn need(&self, name: &str) -> Result<&Path> {
        self.get(name).ok_or_else(|| {
            StageError::failed(format!("{} has no {name}", self.called))
                .hint("a model is a folder of config.json, tokenizer.json and its weights")
        })
    }
    /// All files.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.files.iter().map(|(name, path)| (name.as_str(), path.as_path()))
    }
}

/// Normal weights of standard deviation 0.02 around 0, unit norms and no biases: GPT-2's and
/// Llama's initialisation.
pub struct Normal(ChaCha8Rng);

impl Normal {
    /// The standard deviation.
    pub const STD: f64 = 0.02;

    /// Weights drawn from a seed; the same on every device.
    pub fn new(seed: u64) -> Normal {
        Normal(ChaCha8Rng::seed_from_u64(seed))
    }
}

impl Source for Normal {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let len = shape.iter().product();
        if name.ends_with("norm.weight") {
            return Ok(vec![1.0; len]);
        }
        if name.ends_with(".bias") {
            return Ok(vec![0.0; len]);
        }
        // Box and Muller: two normals of two uniforms in (0, 1].
        let mut values = Vec::with_capacity(len + 1);
        while values.len() < len {
            let radius = (-2.0 * uniform(&mut self.0).ln()).sqrt() * Normal::STD;
            let angle = uniform(&mut self.0) * std::f64::consts::TAU;
            values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
        }
        values.truncate(len);
        Ok(values)
    }
}

/// In (0, 1], of 53 bits.
pub(crate) fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// Tensors of one or more safetensors files.
pub struct Tensors {
    files: Vec<File>,
}

struct File {
    path: PathBuf,
    bytes: Arc<Mmap>,
    header: Metadata,
    start: usize,
}

impl Tensors {
    /// Opens a file and checks its header.
    pub fn open(path: &Path) -> Result<Tensors> {
        let bytes = map(path)?;
        let (len, header) = SafeTensors::read_metadata(&bytes).map_err(|e| {
            StageError::bad(path, format!("not a safetensors file: {e}"))
                .hint("the file is damaged or cut off; fetch or write it again")
        })?;
        let start = len + 8;
        let held = bytes.len().checked_sub(start);
        if held.is_none_or(|held| held < header.data_len()) {
            return Err(StageError::bad(path, "the file is shorter than its header says"));
        }
        Ok(Tensors { files: vec![File { path: path.to_owned(), bytes, header, start }] })
    }

    /// Opens `model.safetensors`, or its shards.
    pub fn open_model(folder: &Folder) -> Result<Tensors> {
        let shards = folder
            .iter()
            .filter(|(name, _)| name.starts_with("model-") && name.ends_with(".safetensors"));
        let shards: Vec<&Path> = match folder.get("model.safetensors") {
            Some(path) => vec![path],
            None => shards.map(|(_, path)| path).collect(),
        };
        if shards.is_empty() {
            refuse_pickle(folder)?;
            folder.need("model.safetensors")?;
        }
        let mut files = Vec::new();
        for path in shards {
            files.extend(Tensors::open(path)?.files);
        }
        Ok(Tensors { files })
    }

    /// Names of all tensors, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.files.iter().flat_map(|f| f.header.tensors().into_keys()).collect();
        names.sort();
        names
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.files.iter().find_map(|f| f.header.info(name)).map(|info| info.shape.as_slice())
    }

    /// A tensor as it lies in its file. An expert's matrix may be a part of one that holds those of
    /// all experts of a layer (`mlp.experts.gate_up_proj`), as transformers 5 has them in memory and
    /// some files on disk.
    pub fn raw(&self, name: &str) -> Result<Raw> {
        match self.shape(name) {
            None => match self.expert(name)? {
                Some(raw) => Ok(raw),
                None => self.whole(name),
            },
            Some(_) => self.whole(name),
        }
    }

    /// A matrix of an expert from the tensor of all, if there is one.
    fn expert(&self, name: &str) -> Result<Option<Raw>> {
        let Some((at, expert, layer)) = expert_of(name) else { return Ok(None) };
        let (all, part, parts) = match layer {
            "gate_proj" => ("gate_up_proj", 0, 2),
            "up_proj" => ("gate_up_proj", 1, 2),
            _ => ("down_proj", 0, 1),
        };
        let all = format!("{at}.{all}");
        if self.shape(&all).is_none() {
            return Ok(None);
        }
        let raw = self.whole(&all)?;
        let [experts, rows, columns] = raw.shape[..] else {
            let message = format!("tensor `{all}` is {:?}, not of three axes", raw.shape);
            return Err(StageError::bad(self.path(), message));
        };
        if expert >= experts || !rows.is_multiple_of(parts) {
            let message = format!("tensor `{all}` of {:?} has no `{name}`", raw.shape);
            return Err(StageError::bad(self.path(), message));
        }
        let size = raw.bytes.len() / (experts * parts);
        let start = (expert * parts + part) * size;
        let bytes = raw.bytes.part(start..start + size);
        let bytes = bytes.ok_or_else(|| StageError::bad(self.path(), "an offset past the end"))?;
        Ok(Some(Raw { shape: vec![rows / parts, columns], packing: raw.packing, bytes }))
    }

    fn whole(&self, name: &str) -> Result<Raw> {
        let found = self.files.iter().find_map(|f| Some((f, f.header.info(name)?)));
        let Some((file, info)) = found else {
            return Err(StageError::bad(self.path(), format!("no tensor `{name}`"))
                .hint("config.json and the weights must be of the same model"));
        };
        let packing = match info.dtype {
            Dtype::F32 => Packing::F32,
            Dtype::BF16 => Packing::Bf16,
            Dtype::F16 => Packing::F16,
            other => {
                let message = format!("tensor `{name}` has elements of type {other:?}");
                return Err(StageError::bad(&file.path, message).hint("use f32, f16 or bf16"));
            }
        };
        let (from, to) = info.data_offsets;
        let bytes = Bytes::new(&file.bytes, file.start + from..file.start + to);
        let bytes = bytes.ok_or_else(|| StageError::bad(&file.path, "an offset past the end"))?;
        Ok(Raw { shape: info.shape.clone(), packing, bytes })
    }

    fn path(&self) -> &Path {
        self.files.first().map(|file| file.path.as_path()).unwrap_or(Path::new(""))
    }
}

impl Source for Tensors {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let raw = self.raw(name)?;
        if raw.shape != shape {
            let message = format!("tensor `{name}` is {:?}, not {shape:?}", raw.shape);
            return Err(StageError::bad(self.path(), message)
                .hint("config.json and the weights must be of the same model"));
        }
        Ok(raw.packing.unpack(&raw.bytes))
    }
}

/// `model.layers.0.mlp.experts.3.up_proj.weight` as `model.layers.0.mlp.experts`, 3 and `up_proj`.
pub(crate) fn expert_of(name: &str) -> Option<(&str, usize, &str)> {
    let (at, rest) = name.split_at(name.find(".mlp.experts.")? + ".mlp.experts".len());
    let (expert, layer) = rest.strip_prefix('.')?.split_once('.')?;
    let layer = layer.strip_suffix(".weight")?;
    let known = matches!(layer, "gate_proj" | "up_proj" | "down_proj");
    known.then_some((at, expert.parse().ok()?, layer))
}

/// Weights that only a pickle holds: reading one runs whatever code it brings.
fn refuse_pickle(folder: &Folder) -> Result<()> {
    let ends = [".bin", ".pt", ".pth", ".ckpt", ".pkl"];
    match folder.iter().find(|(name, _)| ends.iter().any(|end| name.ends_with(end))) {
        Some((_, path)) => {
            Err(StageError::bad(path, "its weights are a pickle, which is a program").hint(
                "save them as safetensors where they come from: `model.save_pretrained(folder)`",
            ))
        }
        None => Ok(()),
    }
}

/// The transpose of a matrix of `rows` rows.
#[cfg_attr(not(feature = "models"), allow(dead_code))]
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (i, row) in values.chunks_exact(columns).enumerate() {
        for (j, &x) in row.iter().enumerate() {
            out[j * rows + i] = x;
        }
    }
    out
}

/// A tensor on its way to a file: name, shape, values.
pub struct Named {
    /// The HF name.
    pub name: String,
    /// The shape, in HF's layout.
    pub shape: Vec<usize>,
    /// The values, row by row.
    pub values: Vec<f32>,
}

/// Writes tensors as f32 in a safetensors file. The bytes depend on the tensors alone.
pub fn write(path: &Path, tensors: &[Named]) -> Result<()> {
    write_as(path, tensors, Packing::F32)
}

/// [`write()`] in floats of 32 or 16 bits.
pub fn write_as(path: &Path, tensors: &[Named], floats: Packing) -> Result<()> {
    fn lazy(t: &Named) -> Lazy<'_> {
        let values: Values = Box::new(|| t.values.clone());
        Lazy { name: t.name.clone(), shape: t.shape.clone(), values }
    }
    let tensors: Vec<Lazy> = tensors.iter().map(lazy).collect();
    write_lazy(path, &tensors, floats)
}

/// Gives the values of a tensor.
pub type Values<'a> = Box<dyn Fn() -> Vec<f32> + 'a>;

/// A tensor whose values are asked for when they are written.
pub struct Lazy<'a> {
    /// The HF name.
    pub name: String,
    /// The shape, in HF's layout.
    pub shape: Vec<usize>,
    /// The values, row by row.
    pub values: Values<'a>,
}

/// [`write_as()`] of tensors that are made one at a time: no more than one is held.
pub fn write_lazy(path: &Path, tensors: &[Lazy], floats: Packing) -> Result<()> {
    let (kind, size) = match floats {
        Packing::F32 => (Dtype::F32, 4),
        Packing::F16 => (Dtype::F16, 2),
        Packing::Bf16 => (Dtype::BF16, 2),
        other => return Err(StageError::failed(format!("safetensors does not hold {other:?}"))),
    };
    let views =
        tensors.iter().map(|tensor| (tensor.name.as_str(), Written { tensor, floats, kind, size }));
    // What is written comes from a temporary file, which nobody else may read.
    let allowed = fs_err::File::create(path)?.metadata()?.permissions();
    safetensors::serialize_to_file(views, None, path)
        .map_err(|e| StageError::failed(format!("{}: {e}", path.display())))?;
    Ok(fs_err::set_permissions(path, allowed)?)
}

/// A tensor as safetensors wants it.
struct Written<'a> {
    tensor: &'a Lazy<'a>,
    floats: Packing,
    kind: Dtype,
    size: usize,
}

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        self.kind
    }
    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.floats.pack(&(self.tensor.values)(), None).into()
    }
    fn data_len(&self) -> usize {
        self.tensor.shape.iter().product::<usize>() * self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pickle_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("pytorch_model.bin"), b"\x80\x04.").unwrap();
        let error = Tensors::open_model(&Folder::of_dir(folder.path()).unwrap()).err().unwrap();
        assert!(error.to_string().contains("a pickle, which is a program"), "{error}");
        assert!(error.help().unwrap().contains("safetensors"));
    }
}
