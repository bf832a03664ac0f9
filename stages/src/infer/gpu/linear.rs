//! Matrices on the device: those with the same inputs as one, and what adapters add.

use cubecl::prelude::*;
use cubecl::server::Handle;

use super::kernels::product::{PARTS, WIDE, product};
use super::weights::{GROUP, Layout, ROWS, put_tile};
use crate::infer::matrix::{Matrix, Weights};
use crate::infer::pool::Pass;
use crate::{Result, StageError};

/// Matrices whose outputs lie one after the other in a row of `width` floats, each at a multiple of 32.
pub struct Linear {
    pieces: Vec<Piece>,
    /// Floats of a row of outputs.
    pub width: usize,
    /// Where the outputs of each begin.
    pub from: Vec<usize>,
    bias: Option<Handle>,
    adapter: Option<Adapter>,
    none: Handle,
}

/// Tiles of one packing that are computed in one launch.
struct Piece {
    layout: Layout,
    tiles: usize,
    words: Handle,
    scales: Handle,
    /// Where its outputs go.
    to: usize,
    /// Where its inputs begin.
    from: usize,
}

/// Products of low rank beside them: `a` into a row of its own, `b` from there onto the outputs.
struct Adapter {
    a: Vec<Piece>,
    b: Vec<Piece>,
    width: usize,
}

/// Rows on the device.
#[derive(Clone)]
pub struct Rows {
    pub handle: Handle,
    /// Floats of a row, a multiple of 32.
    pub stride: usize,
}

/// What is asked of the device while weights are laid out.
pub struct Loader<'a, R: Runtime> {
    pub client: &'a ComputeClient<R>,
    pub pass: &'a Pass<'a>,
    /// Bytes of a buffer that a kernel can be given.
    pub most: usize,
}

/// The next multiple of 32.
pub fn padded(width: usize) -> usize {
    width.next_multiple_of(GROUP)
}

impl<R: Runtime> Loader<'_, R> {
    pub fn floats(&self, values: &[f32]) -> Handle {
        self.client.create_from_slice(f32::as_bytes(values))
    }

    fn words(&self, values: &[u32]) -> Handle {
        // A buffer of nothing cannot be bound.
        self.client.create_from_slice(u32::as_bytes(if values.is_empty() { &[0] } else { values }))
    }

    /// Uploads matrices of the same inputs.
    pub fn linear(&self, matrices: &[&Matrix]) -> Result<Linear> {
        let (mut pieces, mut from, mut width) = (Vec::new(), Vec::new(), 0);
        let mut at = 0;
        while at < matrices.len() {
            let like = |m: &&&Matrix| m.packing() == matrices[at].packing();
            let alike = matrices[at..].iter().take_while(like).count();
            let some = &matrices[at..at + alike];
            self.pieces(some, width, 0, &mut pieces)?;
            for matrix in some {
                from.push(width);
                width += padded(matrix.rows);
            }
            at += alike;
        }
        let bias = matrices.iter().any(|m| m.bias.is_some()).then(|| {
            let mut all = vec![0.0; width];
            for (matrix, &from) in matrices.iter().zip(&from) {
                let bias = matrix.bias.as_deref().unwrap_or_default();
                all[from..from + bias.len()].copy_from_slice(bias);
            }
            self.floats(&all)
        });
        let adapter = self.adapter(matrices, &from)?;
        Ok(Linear { pieces, width, from, bias, adapter, none: self.words(&[]) })
    }

    fn adapter(&self, matrices: &[&Matrix], from: &[usize]) -> Result<Option<Adapter>> {
        let adapters: Vec<_> = matrices
            .iter()
            .zip(from)
            .filter_map(|(matrix, &from)| Some((matrix.adapter.as_ref()?, from)))
            .collect();
        if adapters.is_empty() {
            return Ok(None);
        }
        let (mut a, mut b, mut width) = (Vec::new(), Vec::new(), 0);
        let all: Vec<&Matrix> = adapters.iter().map(|(adapter, _)| &adapter.a).collect();
        self.pieces(&all, 0, 0, &mut a)?;
        for (adapter, to) in &adapters {
            self.pieces(&[&adapter.b], *to, width, &mut b)?;
            width += padded(adapter.a.rows);
        }
        Ok(Some(Adapter { a, b, width }))
    }

    /// Pieces of matrices of one packing, as few as the device takes.
    fn pieces(
        &self,
        matrices: &[&Matrix],
        to: usize,
        from: usize,
        out: &mut Vec<Piece>,
    ) -> Result<()> {
        let Some(first) = matrices.first() else { return Ok(()) };
        let layout = Layout::of(first.packing(), first.columns);
        let tiles: Vec<(&Matrix, usize)> = matrices
            .iter()
            .flat_map(|&matrix| (0..matrix.rows.div_ceil(ROWS)).map(move |tile| (matrix, tile)))
            .collect();
        // A launch has no more cubes than 65,535 along an axis.
        let most = (self.most / (4 * layout.words().max(layout.scales()))).min(65_535);
        if most == 0 {
            let message =
                format!("rows of {} weights do not fit a buffer of the device", first.columns);
            return Err(StageError::failed(message).hint("run with `--device cpu`"));
        }
        let mut to = to;
        for tiles in tiles.chunks(most) {
            let mut words = vec![0u32; tiles.len() * layout.words()];
            let mut scales = vec![0u32; tiles.len() * layout.scales()];
            let (w, s) = (Target(words.as_mut_ptr()), Target(scales.as_mut_ptr()));
            let (w, s) = (&w, &s);
            self.pass.run(tiles.len(), |i, _| {
                let (matrix, tile) = tiles[i];
                // SAFETY: each unit has a tile of its own, and the vectors have them all.
                let (words, scales) =
                    unsafe { (w.part(i, layout.words()), s.part(i, layout.scales())) };
                if let Weights::Floats(_, bytes) = &matrix.weights {
                    put_tile(matrix, bytes, tile, words, scales);
                }
            });
            out.push(Piece {
                layout,
                tiles: tiles.len(),
                words: self.words(&words),
                scales: self.words(&scales),
                to,
                from,
            });
            to += tiles.len() * ROWS;
        }
        Ok(())
    }
}

/// Words that threads write different parts of.
struct Target(*mut u32);
// SAFETY: each unit of a loop writes a tile of its own.
unsafe impl Sync for Target {}

impl Target {
    /// # Safety
    /// The tile is there, and nobody else has it.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, tile: usize, len: usize) -> &mut [u32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(tile * len), len) }
    }
}

impl Linear {
    /// Floats of a row between the two products of the adapter.
    pub fn low(&self) -> usize {
        self.adapter.as_ref().map_or(0, |adapter| adapter.width)
    }

    /// `out = W x`, or added to what is there; `low` has room for [`Linear::low`] a row.
    pub fn run<R: Runtime>(
        &self,
        client: &ComputeClient<R>,
        x: &Rows,
        out: &Rows,
        low: &Handle,
        n: usize,
        add: bool,
    ) {
        for piece in &self.pieces {
            let bias = self.bias.as_ref();
            piece.run(client, x, out, n, bias.unwrap_or(&self.none), (bias.is_some(), add));
        }
        if let Some(adapter) = &self.adapter {
            let low = Rows { handle: low.clone(), stride: adapter.width };
            for piece in &adapter.a {
                piece.run(client, x, &low, n, &self.none, (false, false));
            }
            for piece in &adapter.b {
                piece.run(client, &low, out, n, &self.none, (false, true));
            }
        }
    }
}

impl Piece {
    fn run<R: Runtime>(
        &self,
        client: &ComputeClient<R>,
        x: &Rows,
        out: &Rows,
        n: usize,
        bias: &Handle,
        (biased, add): (bool, bool),
    ) {
        let wide = if n == 1 { 1 } else { WIDE };
        let count = CubeCount::Static(self.tiles as u32, n.div_ceil(wide) as u32, 1);
        let Layout { packing, groups } = self.layout;
        // SAFETY: sizes are those of the layout, strides those of the rows, which hold n.
        unsafe {
            product::launch_unchecked::<R>(
                client,
                count,
                CubeDim::new_2d(ROWS as u32, PARTS),
                ArrayArg::from_raw_parts(x.handle.clone(), n * x.stride / 4),
                ArrayArg::from_raw_parts(self.words.clone(), self.tiles * self.layout.words() / 4),
                ArrayArg::from_raw_parts(self.scales.clone(), self.tiles * self.layout.scales()),
                ArrayArg::from_raw_parts(bias.clone(), out.stride),
                ArrayArg::from_raw_parts(out.handle.clone(), n * out.stride),
                n as u32,
                groups as u32,
                x.stride as u32,
                self.from as u32,
                out.stride as u32,
                self.to as u32,
                packing,
                wide,
                biased,
                add,
            );
        }
    }
}

/// Bytes that matrices take on the device.
pub fn bytes(matrix: &Matrix) -> usize {
    let of = |m: &Matrix| Layout::of(m.packing(), m.columns).bytes() * m.rows.div_ceil(ROWS);
    let own = of(matrix);
    matrix.adapter.as_ref().map_or(own, |adapter| own + of(&adapter.a) + of(&adapter.b))
}
