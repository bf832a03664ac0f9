//! What a session remembers, on the device: keys and values of each layer, as f32.
//!
//! Memory of a device is taken when it is asked for, not when it is written: a session begins with
//! room for a few hundred tokens and doubles it as it reads on.

use std::sync::Arc;

use cubecl::server::Handle;

use super::Gpu;

/// Positions that a session begins with.
const FIRST: usize = 256;

/// Keys `[head, size, positions]` and values `[head, positions, size]` of each layer.
pub struct Memory {
    pub(super) layers: Vec<(Handle, Handle)>,
    /// Positions that there is room for.
    pub(super) positions: usize,
    pub(in crate::infer) gpu: Arc<dyn Gpu>,
}

impl Memory {
    /// Nothing yet.
    pub fn new(gpu: &Arc<dyn Gpu>) -> Memory {
        Memory { layers: Vec::new(), positions: 0, gpu: Arc::clone(gpu) }
    }

    /// Another that holds the first `len` positions.
    pub fn prefix(&self, len: usize) -> Memory {
        let mut copy = Memory::new(&self.gpu);
        if len > 0 {
            (copy.positions, copy.layers) = self.moved(len, len);
        }
        copy
    }

    /// Makes room for `needed` positions, of which the first `len` are filled; `most` is what the
    /// session may have.
    pub fn fit(&mut self, len: usize, needed: usize, most: usize) {
        if needed <= self.positions {
            return;
        }
        let room = needed.max(2 * self.positions).max(FIRST).min(most.max(needed));
        (self.positions, self.layers) = self.moved(len, room);
    }

    fn moved(&self, len: usize, room: usize) -> (usize, Vec<(Handle, Handle)>) {
        let room = room.next_multiple_of(32);
        (room, self.gpu.moved(&self.layers, (self.positions, room), len))
    }
}
