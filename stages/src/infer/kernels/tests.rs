//! Each packed product, on each instruction set, against unpacked weights and a plain sum.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::matrix::Matrix;
use super::super::pool::Pool;
use super::super::simd::{Isa, Op, Simd};
use super::Out;
use super::attention::{Attention, Cell, Query};
use super::elementwise::{Norm, SwiGlu};
use super::inputs::{Inputs, Shrink};
use super::product::Product;
use crate::model::gguf::Packing;
use crate::model::weights::{Bytes, Raw, map};

const PACKINGS: [Packing; 9] = [
    Packing::F32,
    Packing::F16,
    Packing::Bf16,
    Packing::Q4_0,
    Packing::Q4_1,
    Packing::Q8_0,
    Packing::Q4K,
    Packing::Q5K,
    Packing::Q6K,
];

fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Random bytes of a packing, with scales that are small numbers.
fn packed(packing: Packing, seed: u64, weights: usize) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let half =
        |rng: &mut ChaCha8Rng| half::f16::from_f32(rng.random_range(-0.1..0.1)).to_le_bytes();
    let mut out = Vec::new();
    for _ in 0..weights / packing.block() {
        let mut block: Vec<u8> = (0..packing.bytes()).map(|_| rng.random()).collect();
        let scales: &[usize] = match packing {
            Packing::F32 => {
                block = rng.random_range(-1.0f32..1.0).to_le_bytes().to_vec();
                &[]
            }
            Packing::Bf16 => {
                let x = half::bf16::from_f32(rng.random_range(-1.0..1.0));
                block = x.to_le_bytes().to_vec();
                &[]
            }
            Packing::F16 | Packing::Q4_0 | Packing::Q8_0 => &[0],
            Packing::Q4_1 | Packing::Q4K | Packing::Q5K => &[0, 2],
            Packing::Q6K => &[208],
        };
        for &at in scales {
            block[at..at + 2].copy_from_slice(&half(&mut rng));
        }
        out.extend(block);
    }
    out
}

fn raw(packing: Packing, bytes: &[u8], shape: [usize; 2]) -> Raw {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), bytes).unwrap();
    let map = map(file.path()).unwrap();
    let bytes = Bytes::new(&map, 0..bytes.len()).unwrap();
    Raw { shape: shape.to_vec(), packing, bytes }
}

fn inputs(isa: Isa, n: usize, width: usize, seed: u64) -> Inputs {
    let mut inputs = Inputs::default();
    inputs.fit(n, width);
    inputs.floats.copy_from_slice(&random(seed, n * width));
    if width.is_multiple_of(32) {
        let rows = inputs.rows();
        (0..n).for_each(|i| isa.run(Shrink(unsafe { rows.row(i) })));
    }
    inputs
}

fn product(isa: Isa, matrix: &Matrix, inputs: &Inputs, n: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; n * matrix.rows];
    let to = Out::of(&mut out);
    for tile in 0..matrix.tiles() {
        isa.run(Product { matrix, tile, inputs, n, out: to, add: false });
    }
    out
}

/// What the inputs of a product are worth: their floats, or their small integers and scales.
fn worth(matrix: &Matrix, inputs: &Inputs) -> Vec<f64> {
    let groups = inputs.width / 32;
    match matrix.quantized() {
        false => inputs.floats.iter().map(|x| f64::from(*x)).collect(),
        true => inputs
            .small
            .iter()
            .enumerate()
            .map(|(i, q)| {
                let (row, k) = (i / inputs.width, i % inputs.width);
                f64::from(*q) * f64::from(inputs.scale[row * groups + k / 32])
            })
            .collect(),
    }
}

#[test]
fn a_product_with_packed_weights_is_that_with_their_values() {
    let pool = Pool::new(2);
    for packing in PACKINGS {
        for (rows, columns, n) in [(5, 256, 1), (37, 512, 15), (16, 768, 4)] {
            let bytes = packed(packing, 7, rows * columns);
            let raw = raw(packing, &bytes, [rows, columns]);
            let matrix = Matrix::new("w", &raw, [rows, columns], &pool.pass()).unwrap();
            let weights = packing.unpack(&bytes);
            for isa in Isa::all() {
                let inputs = inputs(isa, n, columns, 3);
                let x = worth(&matrix, &inputs);
                let y = product(isa, &matrix, &inputs, n);
                for (i, y) in y.iter().enumerate() {
                    let (j, row) = (i / rows, i % rows);
                    let terms = weights[row * columns..][..columns]
                        .iter()
                        .zip(&x[j * columns..][..columns])
                        .map(|(w, x)| f64::from(*w) * x);
                    let (sum, size) =
                        terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                    let off = (f64::from(*y) - sum).abs() / size;
                    assert!(off < 1e-6, "{packing:?} {}: {off} at {row}, {j}", isa.name());
                }
            }
        }
    }
}

#[test]
fn inputs_in_eight_bits_are_near_the_floats() {
    for isa in Isa::all() {
        let inputs = inputs(isa, 3, 96, 11);
        for (i, (x, q)) in inputs.floats.iter().zip(&inputs.small).enumerate() {
            let d = inputs.scale[i / 32];
            assert!((x - d * f32::from(*q)).abs() <= d * 0.5001, "{}", isa.name());
        }
        for (g, sum) in inputs.sum.iter().enumerate() {
            let exact: i32 = inputs.small[32 * g..][..32].iter().map(|q| i32::from(*q)).sum();
            assert_eq!(*sum, inputs.scale[g] * exact as f32);
            assert!((inputs.half[2 * g] + inputs.half[2 * g + 1] - sum).abs() < 1e-5);
        }
    }
}

fn check_attention<C: Cell + Into<f32>>(isa: Isa, size: usize, sees: &[usize], limit: f64) {
    let longest = *sees.iter().max().unwrap();
    let (tiles, wide) = (longest.div_ceil(16), size.next_multiple_of(16));
    let cells = |seed, len| random(seed, len).into_iter().map(C::of).collect::<Vec<C>>();
    let (keys, values) = (cells(1, tiles * size * 16), cells(2, tiles * 16 * wide));
    let q: Vec<f32> = random(3, sees.len() * size).iter().map(|x| 4.0 * x).collect();
    let mut out = vec![f32::NAN; q.len()];
    let query = |(i, sees): (usize, &usize)| Query { from: i * size, to: i * size, sees: *sees };
    let queries: Vec<Query> = sees.iter().enumerate().map(query).collect();
    isa.run(Attention {
        q: &q,
        queries: &queries,
        keys: &keys,
        values: &values,
        size,
        out: Out::of(&mut out),
        scratch: &mut vec![f32::NAN; 10_000],
    });
    for (r, &sees) in sees.iter().enumerate() {
        let key = |p: usize, d: usize| f64::from(keys[(p / 16 * size + d) * 16 + p % 16].into());
        let score = |p: usize| -> f64 {
            let dot: f64 = (0..size).map(|d| f64::from(q[r * size + d]) * key(p, d)).sum();
            dot / (size as f64).sqrt()
        };
        let weights: Vec<f64> = (0..sees).map(|p| score(p).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for d in 0..size {
            let value = |p: usize| f64::from(values[p * wide + d].into());
            let exact: f64 = weights.iter().enumerate().map(|(p, w)| w / sum * value(p)).sum();
            let off = (f64::from(out[r * size + d]) - exact).abs();
            assert!(off < limit, "{} {r} {d}: {off}", isa.name());
        }
    }
}

#[test]
fn attention_mixes_the_values_that_a_query_sees() {
    for isa in Isa::all() {
        for (size, sees) in
            [(8, vec![1]), (64, vec![40, 41]), (64, vec![5, 6, 16]), (40, vec![17, 18, 19, 20, 33])]
        {
            check_attention::<f32>(isa, size, &sees, 2e-6);
            check_attention::<half::f16>(isa, size, &sees, 2e-6);
        }
    }
}

struct Exp<'a>(&'a mut [f32]);

impl Op for Exp<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.0.chunks_exact_mut(16) {
            unsafe { s.store(x.as_mut_ptr(), s.exp(s.load(x.as_ptr()))) };
        }
    }
}

proptest! {
    #[test]
    fn exp_is_right_to_a_few_units(x in prop::array::uniform16(-86.0f32..88.0)) {
        for isa in Isa::all() {
            let mut y = x;
            isa.run(Exp(&mut y));
            for (x, y) in x.iter().zip(y) {
                let off = (f64::from(y) / f64::from(*x).exp() - 1.0).abs();
                prop_assert!(off < 5e-7, "{} of {x}: {off}", isa.name());
            }
        }
    }
}

#[test]
fn norms_and_activations_are_their_formulas() {
    for isa in Isa::all() {
        for len in [7, 16, 83] {
            let (x, w) = (random(1, len), random(2, len));
            let mut y = vec![0.0; len];
            isa.run(Norm { x: &x, weight: &w, eps: 1e-5, out: &mut y });
            let mean: f32 = x.iter().map(|x| x * x).sum::<f32>() / len as f32;
            for i in 0..len {
                assert!((y[i] - x[i] / (mean + 1e-5).sqrt() * w[i]).abs() < 1e-6);
            }
            isa.run(SwiGlu { gate: &x, up: &w, out: &mut y });
            for i in 0..len {
                assert!((y[i] - x[i] / (1.0 + (-x[i]).exp()) * w[i]).abs() < 1e-6);
            }
        }
    }
}
