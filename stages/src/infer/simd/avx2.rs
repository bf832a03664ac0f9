//! AVX2 with FMA and F16C: sixteen lanes are two registers.

use std::arch::x86_64::*;

use super::{Op, Simd};

/// The processor has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Avx2> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Avx2(()))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn enter<O: Op>(s: Avx2, op: O) -> O::Out {
    op.run(s)
}

type F = [__m256; 2];
type I = [__m256i; 2];

/// The same for both halves of sixteen lanes. Not a closure: it might not be inlined.
macro_rules! both {
    ($halves:expr, |$half:ident| $result:expr) => {{
        let [first, second] = $halves;
        let $half = first;
        let first = $result;
        let $half = second;
        [first, $result]
    }};
}

/// Sums of four products of u8 with i8; pairs of products must fit 16 bits.
#[inline(always)]
unsafe fn quads(w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)) }
}

// Every method is inlined into `enter`, and a value of the type exists only where the processor has
// the instructions.
impl Simd for Avx2 {
    type F = F;
    type I = I;
    type B = I;
    const MANY: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: see above.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> F {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: F) {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe {
            _mm256_storeu_ps(p, x[0]);
            _mm256_storeu_ps(p.add(8), x[1]);
        }
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        // SAFETY: see above.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        // SAFETY: see above.
        unsafe {
            both!(a, |a| _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
        }
    }
    #[inline(always)]
    fn pow2(self, n: F) -> F {
        // SAFETY: see above.
        unsafe {
            both!(n, |n| {
                let n = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
            })
        }
    }
    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        // SAFETY: see above.
        unsafe {
            let a = _mm256_add_ps(a[0], a[1]);
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }
    }
    #[inline(always)]
    fn largest(self, a: F) -> f32 {
        // SAFETY: see above.
        unsafe {
            let a = _mm256_max_ps(a[0], a[1]);
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> F {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast())),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, x: F) {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe {
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<0>(x[0]));
            _mm_storeu_si128(p.add(8).cast(), _mm256_cvtps_ph::<0>(x[1]));
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> F {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe {
            both!([p, p.add(8)], |p| {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            })
        }
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> F {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe {
            both!([p, p.add(8)], |p| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(
                p.cast()
            ))))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> F {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe {
            both!([p, p.add(8)], |p| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(
                p.cast()
            ))))
        }
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, x: F) {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe {
            let [a, b] = both!(x, |x| _mm256_cvtps_epi32(x));
            let pairs = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
            let low = _mm256_castsi256_si128(pairs);
            let high = _mm256_extracti128_si256::<1>(pairs);
            _mm_storeu_si128(p.cast(), _mm_packs_epi16(low, high));
        }
    }

    #[inline(always)]
    unsafe fn bytes(self, p: *const u8) -> I {
        // SAFETY: the caller keeps the promise of the trait.
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }
    #[inline(always)]
    fn and(self, a: I, mask: u8) -> I {
        // SAFETY: see above.
        unsafe { both!(a, |a| _mm256_and_si256(a, _mm256_set1_epi8(mask as i8))) }
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        // SAFETY: see above.
        unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
    }
    #[inline(always)]
    fn shr(self, a: I, by: u32) -> I {
        // SAFETY: see above.
        unsafe { both!(a, |a| _mm256_srl_epi16(a, _mm_cvtsi32_si128(by as i32))) }
    }
    #[inline(always)]
    fn shl(self, a: I, by: u32) -> I {
        // SAFETY: see above.
        unsafe { both!(a, |a| _mm256_sll_epi16(a, _mm_cvtsi32_si128(by as i32))) }
    }

    #[inline(always)]
    fn zeros(self) -> I {
        // SAFETY: see above.
        unsafe { [_mm256_setzero_si256(); 2] }
    }
    #[inline(always)]
    fn iadd(self, a: I, b: I) -> I {
        // SAFETY: see above.
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    fn dot(self, sum: I, w: I, x: i32) -> I {
        // SAFETY: see above.
        unsafe {
            let x = _mm256_set1_epi32(x);
            self.iadd(sum, [quads(w[0], x), quads(w[1], x)])
        }
    }
    #[inline(always)]
    fn dot_wide(self, sum: I, w: I, x: i32) -> I {
        // Two products of 255 * 127 do not fit 16 bits; with the high bit apart they do.
        let sum = self.dot(sum, self.and(w, 127), x);
        self.dot(sum, self.and(w, 128), x)
    }
    #[inline(always)]
    fn floats(self, a: I) -> F {
        // SAFETY: see above.
        unsafe { both!(a, |a| _mm256_cvtepi32_ps(a)) }
    }
}
