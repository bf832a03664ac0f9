//! Lanes as arrays, for processors that have no file of their own here.

use half::{bf16, f16};

use super::Simd;

/// Any processor.
#[derive(Clone, Copy)]
pub struct Plain;

#[inline(always)]
fn each<A: Copy, B: Copy, C>(a: [A; 16], b: [B; 16], f: impl Fn(A, B) -> C) -> [C; 16] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Plain {
    type F = [f32; 16];
    type I = [i32; 16];
    type B = [u8; 64];
    const MANY: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; 16] {
        // SAFETY: the caller has sixteen there.
        unsafe { p.cast::<[f32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: [f32; 16]) {
        // SAFETY: the caller has room for sixteen.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(x) }
    }
    #[inline(always)]
    fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn fma(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        // Where the processor has no such instruction, a call for each lane would be far slower.
        #[cfg(target_arch = "aarch64")]
        return std::array::from_fn(|i| a[i].mul_add(b[i], c[i]));
        #[cfg(not(target_arch = "aarch64"))]
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn round(self, a: [f32; 16]) -> [f32; 16] {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn pow2(self, n: [f32; 16]) -> [f32; 16] {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn sum(self, a: [f32; 16]) -> f32 {
        let a: [f32; 8] = std::array::from_fn(|i| a[i] + a[i + 8]);
        let a: [f32; 4] = std::array::from_fn(|i| a[i] + a[i + 4]);
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn largest(self, a: [f32; 16]) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> [f32; 16] {
        // SAFETY: the caller has sixteen there.
        let bits = unsafe { p.cast::<[u16; 16]>().read_unaligned() };
        bits.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, x: [f32; 16]) {
        // SAFETY: the caller has room for sixteen.
        unsafe { p.cast::<[u16; 16]>().write_unaligned(x.map(|x| f16::from_f32(x).to_bits())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> [f32; 16] {
        // SAFETY: the caller has sixteen there.
        let bits = unsafe { p.cast::<[u16; 16]>().read_unaligned() };
        bits.map(|bits| bf16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> [f32; 16] {
        // SAFETY: the caller has sixteen there.
        unsafe { p.cast::<[u8; 16]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> [f32; 16] {
        // SAFETY: the caller has sixteen there.
        unsafe { p.cast::<[i8; 16]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, x: [f32; 16]) {
        // SAFETY: the caller has room for sixteen.
        unsafe { p.cast::<[i8; 16]>().write_unaligned(x.map(|x| x as i8)) }
    }

    #[inline(always)]
    unsafe fn bytes(self, p: *const u8) -> [u8; 64] {
        // SAFETY: the caller has 64 there.
        unsafe { p.cast::<[u8; 64]>().read_unaligned() }
    }
    #[inline(always)]
    fn and(self, a: [u8; 64], mask: u8) -> [u8; 64] {
        a.map(|a| a & mask)
    }
    #[inline(always)]
    fn or(self, a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    // Each byte alone: the bits that would come from its neighbour are always masked away.
    #[inline(always)]
    fn shr(self, a: [u8; 64], by: u32) -> [u8; 64] {
        a.map(|a| a >> by)
    }
    #[inline(always)]
    fn shl(self, a: [u8; 64], by: u32) -> [u8; 64] {
        a.map(|a| a << by)
    }

    #[inline(always)]
    fn zeros(self) -> [i32; 16] {
        [0; 16]
    }
    #[inline(always)]
    fn iadd(self, a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn dot(self, sum: [i32; 16], w: [u8; 64], x: i32) -> [i32; 16] {
        let x = x.to_le_bytes().map(|x| i32::from(x as i8));
        std::array::from_fn(|i| {
            let w = |j: usize| i32::from(w[4 * i + j]);
            sum[i] + (w(0) * x[0] + w(1) * x[1]) + (w(2) * x[2] + w(3) * x[3])
        })
    }
    #[inline(always)]
    fn dot_wide(self, sum: [i32; 16], w: [u8; 64], x: i32) -> [i32; 16] {
        self.dot(sum, w, x)
    }
    #[inline(always)]
    fn floats(self, a: [i32; 16]) -> [f32; 16] {
        a.map(|a| a as f32)
    }
}
