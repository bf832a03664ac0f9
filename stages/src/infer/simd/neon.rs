//! NEON with dot products of bytes, as every Apple chip and most ARM servers have it: sixteen lanes
//! are four registers.
//!
//! `sdot` and the conversions of f16 are written as assembly: their intrinsics are not stable in all
//! compilers that build this crate.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Op, Simd};

/// The processor has NEON and `sdot`.
#[derive(Clone, Copy)]
pub struct Neon(());

impl Neon {
    pub(super) fn detect() -> Option<Neon> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Neon(()))
    }
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn enter<O: Op>(s: Neon, op: O) -> O::Out {
    op.run(s)
}

type F = [float32x4_t; 4];
type I = [int32x4_t; 4];
type B = [uint8x16_t; 4];

/// The same for the four quarters of sixteen lanes. Not a closure: it might not be inlined.
macro_rules! quarters {
    ($quarters:expr, |$a:ident| $result:expr) => {{
        let [first, second, third, fourth] = $quarters;
        let $a = first;
        let first = $result;
        let $a = second;
        let second = $result;
        let $a = third;
        let third = $result;
        let $a = fourth;
        [first, second, third, $result]
    }};
}

/// The same for the quarters of two.
macro_rules! pairs {
    ($f:ident, $a:expr, $b:expr) => {{
        let (a, b) = ($a, $b);
        [$f(a[0], b[0]), $f(a[1], b[1]), $f(a[2], b[2]), $f(a[3], b[3])]
    }};
}

/// Each lane plus the product of its four signed bytes of `w` and `x`.
#[inline(always)]
fn sdot(sum: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: the instruction touches registers alone, and the processor has it where this runs.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sum:v}.4s, {w:v}.16b, {x:v}.16b",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Four f16 as f32.
#[inline(always)]
fn widen(x: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: the instruction touches registers alone; every ARMv8 has it.
    unsafe {
        asm!(
            "fcvtl {wide:v}.4s, {x:v}.4h",
            wide = out(vreg) wide,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    wide
}

/// Four f32 as f16, rounded to the nearest.
#[inline(always)]
fn narrow(x: float32x4_t) -> uint16x4_t {
    let half: uint16x4_t;
    // SAFETY: as in `widen`.
    unsafe {
        asm!(
            "fcvtn {half:v}.4h, {x:v}.4s",
            half = out(vreg) half,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    half
}

/// Sixteen signed 16-bit integers as floats.
#[inline(always)]
fn floats_of(low: int16x8_t, high: int16x8_t) -> F {
    // SAFETY: every aarch64 that runs Rust has NEON.
    unsafe {
        [
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
            vcvtq_f32_s32(vmovl_high_s16(low)),
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
            vcvtq_f32_s32(vmovl_high_s16(high)),
        ]
    }
}

/// The four bytes of an integer, four times.
#[inline(always)]
fn splat_bytes(x: i32) -> int8x16_t {
    // SAFETY: as above.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(x)) }
}

// Every method is inlined into `enter`. NEON is there on every aarch64 that runs Rust; `sdot` only
// where a value of the type exists.
impl Simd for Neon {
    type F = F;
    type I = I;
    type B = B;
    const MANY: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: see above.
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> F {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))] }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: F) {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe {
            for (i, x) in x.into_iter().enumerate() {
                vst1q_f32(p.add(4 * i), x);
            }
        }
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { pairs!(vaddq_f32, a, b) }
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { pairs!(vsubq_f32, a, b) }
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { pairs!(vmulq_f32, a, b) }
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { pairs!(vdivq_f32, a, b) }
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { pairs!(vmaxnmq_f32, a, b) }
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { pairs!(vminnmq_f32, a, b) }
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        // SAFETY: see above.
        unsafe {
            [
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        // SAFETY: see above.
        unsafe { quarters!(a, |a| vrndnq_f32(a)) }
    }
    #[inline(always)]
    fn pow2(self, n: F) -> F {
        // SAFETY: see above.
        unsafe {
            quarters!(n, |n| {
                let n = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(n))
            })
        }
    }
    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        // SAFETY: see above.
        unsafe {
            let a = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let a = vadd_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(a) + vget_lane_f32::<1>(a)
        }
    }
    #[inline(always)]
    fn largest(self, a: F) -> f32 {
        // SAFETY: see above.
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a[0], a[1]), vmaxnmq_f32(a[2], a[3]))) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> F {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe { quarters!([p, p.add(4), p.add(8), p.add(12)], |p| widen(vld1_u16(p))) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, x: F) {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe {
            for (i, x) in x.into_iter().enumerate() {
                vst1_u16(p.add(4 * i), narrow(x));
            }
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> F {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe {
            quarters!([p, p.add(4), p.add(8), p.add(12)], |p| vreinterpretq_f32_u32(vshll_n_u16::<
                16,
            >(
                vld1_u16(p)
            )))
        }
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> F {
        // SAFETY: the caller keeps the promise of the trait; 255 fits in sixteen signed bits.
        unsafe {
            let x = vld1q_u8(p);
            let signed = |x| vreinterpretq_s16_u16(x);
            floats_of(signed(vmovl_u8(vget_low_u8(x))), signed(vmovl_high_u8(x)))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> F {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe {
            let x = vld1q_s8(p);
            floats_of(vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x))
        }
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, x: F) {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe {
            let [a, b, c, d] = quarters!(x, |x| vqmovn_s32(vcvtnq_s32_f32(x)));
            let (low, high) = (vqmovn_s16(vcombine_s16(a, b)), vqmovn_s16(vcombine_s16(c, d)));
            vst1q_s8(p, vcombine_s8(low, high));
        }
    }

    #[inline(always)]
    unsafe fn bytes(self, p: *const u8) -> B {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe { [vld1q_u8(p), vld1q_u8(p.add(16)), vld1q_u8(p.add(32)), vld1q_u8(p.add(48))] }
    }
    #[inline(always)]
    fn and(self, a: B, mask: u8) -> B {
        // SAFETY: see above.
        unsafe { quarters!(a, |a| vandq_u8(a, vdupq_n_u8(mask))) }
    }
    #[inline(always)]
    fn or(self, a: B, b: B) -> B {
        // SAFETY: see above.
        unsafe { pairs!(vorrq_u8, a, b) }
    }
    // Each byte alone: the bits that would come from its neighbour are always masked away.
    #[inline(always)]
    fn shr(self, a: B, by: u32) -> B {
        // SAFETY: see above.
        unsafe { quarters!(a, |a| vshlq_u8(a, vdupq_n_s8(-(by as i8)))) }
    }
    #[inline(always)]
    fn shl(self, a: B, by: u32) -> B {
        // SAFETY: see above.
        unsafe { quarters!(a, |a| vshlq_u8(a, vdupq_n_s8(by as i8))) }
    }

    #[inline(always)]
    fn zeros(self) -> I {
        // SAFETY: see above.
        unsafe { [vdupq_n_s32(0); 4] }
    }
    #[inline(always)]
    fn iadd(self, a: I, b: I) -> I {
        // SAFETY: see above.
        unsafe { pairs!(vaddq_s32, a, b) }
    }
    #[inline(always)]
    fn dot(self, sum: I, w: B, x: i32) -> I {
        let x = splat_bytes(x);
        [sdot(sum[0], w[0], x), sdot(sum[1], w[1], x), sdot(sum[2], w[2], x), sdot(sum[3], w[3], x)]
    }
    #[inline(always)]
    fn dot_wide(self, sum: I, w: B, x: i32) -> I {
        // w = (w - 128) + 128, of which the first fits a signed byte and the second is the same for all.
        // SAFETY: see above.
        unsafe {
            let all = sdot(vdupq_n_s32(0), vdupq_n_u8(1), splat_bytes(x));
            let all = vshlq_n_s32::<7>(all);
            let w = quarters!(w, |w| veorq_u8(w, vdupq_n_u8(128)));
            let sum = quarters!(sum, |sum| vaddq_s32(sum, all));
            self.dot(sum, w, x)
        }
    }
    #[inline(always)]
    fn floats(self, a: I) -> F {
        // SAFETY: see above.
        unsafe { quarters!(a, |a| vcvtq_f32_s32(a)) }
    }
}
