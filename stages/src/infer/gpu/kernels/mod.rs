//! What the device computes, in cubecl: WGSL (Metal, Vulkan) and CUDA from one source.
//!
//! Activations are f32; every sum is too. Kernels check no bounds: whoever launches them sees to it
//! that buffers have the sizes that the kernels name. Reductions go through shared memory and need
//! no plane operations, which not every adapter has.

// What a kernel needs is a list of numbers.
#![allow(clippy::too_many_arguments, clippy::assign_op_pattern)]
// The macro writes functions without docs.
#![allow(missing_docs)]

pub mod attention;
pub mod product;
pub mod rows;
