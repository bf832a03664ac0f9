//! Parameters by name: drawn from a seed, read from a file, and named again to be written.

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::TensorData;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::model::weights::{Named, Source, Tensors, uniform};
use crate::{Result, StageError};

/// Where the values of parameters come from.
pub enum Origin {
    /// Drawn; the same on every device.
    Drawn(Box<ChaCha8Rng>),
    /// Read.
    File(Tensors),
}

/// What a parameter is before it is trained.
pub enum Start {
    /// Normal, of variance `gain^2 / rows`.
    Normal(f32),
    /// All the same.
    All(f32),
    /// These.
    Values(Vec<f32>),
}

/// Makes parameters.
pub struct Build<'a, B: Backend> {
    origin: Origin,
    place: &'a B::Device,
}

impl<'a, B: Backend> Build<'a, B> {
    /// Draws from a seed.
    pub fn drawn(seed: u64, place: &'a B::Device) -> Self {
        Build { origin: Origin::Drawn(Box::new(ChaCha8Rng::seed_from_u64(seed))), place }
    }

    /// Reads a file.
    pub fn read(file: Tensors, place: &'a B::Device) -> Self {
        Build { origin: Origin::File(file), place }
    }

    fn values(&mut self, name: &str, shape: &[usize], start: Start) -> Result<Vec<f32>> {
        let rng = match &mut self.origin {
            Origin::File(file) => return finite(name, file.read(name, shape)?),
            Origin::Drawn(rng) => rng,
        };
        let count = shape.iter().product();
        Ok(match start {
            Start::All(value) => vec![value; count],
            Start::Values(values) => values,
            Start::Normal(gain) => {
                let deviation = f64::from(gain) / (shape[0] as f64).sqrt();
                // Box and Muller: two normals of two uniforms in (0, 1].
                let mut values = Vec::with_capacity(count + 1);
                while values.len() < count {
                    let radius = (-2.0 * uniform(rng).ln()).sqrt() * deviation;
                    let angle = uniform(rng) * std::f64::consts::TAU;
                    values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
                }
                values.truncate(count);
                values
            }
        })
    }

    /// A matrix, rows first.
    pub fn matrix(&mut self, name: &str, shape: [usize; 2], start: Start) -> Result<Matrix<B>> {
        let values = self.values(name, &shape, start)?;
        Ok(Param::from_data(TensorData::new(values, shape), self.place))
    }

    /// A vector, which is not decayed.
    pub fn vector(&mut self, name: &str, len: usize, start: Start) -> Result<Vector<B>> {
        let values = self.values(name, &[len], start)?;
        Ok(Param::from_data(TensorData::new(values, [len]), self.place))
    }
}

fn finite(name: &str, values: Vec<f32>) -> Result<Vec<f32>> {
    match values.iter().all(|x| x.is_finite()) {
        true => Ok(values),
        false => Err(StageError::failed(format!("tensor `{name}` holds numbers that are none"))
            .hint("the file is damaged, or the training went astray; fit the model again")),
    }
}

/// A matrix of parameters.
pub type Matrix<B> = Param<Tensor<B, 2>>;
/// A vector of parameters.
pub type Vector<B> = Param<Tensor<B, 1>>;

/// A vector as a matrix of one row.
pub fn row<B: Backend>(vector: &Vector<B>) -> Tensor<B, 2> {
    vector.val().unsqueeze()
}

/// All parameters of a net, named by the fields they lie in; which net it is, is no part of a name.
pub fn tensors<B: Backend, M: Module<B>>(module: &M) -> Result<Vec<Named>> {
    let mut names = Names { path: Vec::new(), found: Ok(Vec::new()) };
    module.visit(&mut names);
    names.found
}

struct Names {
    path: Vec<String>,
    found: Result<Vec<Named>>,
}

impl<B: Backend> ModuleVisitor<B> for Names {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let name = self.path.get(1..).unwrap_or_default().join(".");
        if let Ok(found) = &mut self.found {
            match Named::of(name, param.val()) {
                Ok(named) => found.push(named),
                Err(error) => self.found = Err(error),
            }
        }
    }
}
