//! What takes the time, for any instruction set: products, attention, norms and activations.

pub mod attention;
pub mod elementwise;
pub mod inputs;
pub mod product;
#[cfg(test)]
mod tests;

/// A pointer that threads share; each writes a part of its own.
#[derive(Clone, Copy)]
pub struct Out(pub *mut f32);
// SAFETY: whoever writes through it says which part is its own.
unsafe impl Sync for Out {}
// SAFETY: as above.
unsafe impl Send for Out {}

impl Out {
    /// All of it.
    pub fn of(values: &mut [f32]) -> Out {
        Out(values.as_mut_ptr())
    }
    /// # Safety
    /// The range is there, and nobody else reads or writes it.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, from: usize, len: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(from), len) }
    }
}
