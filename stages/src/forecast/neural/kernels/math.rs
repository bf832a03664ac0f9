//! Functions on single numbers that the compiler vectorises, and how kernels get the processor's
//! instructions.
//!
//! [`wide!`] makes a function that is compiled once for every instruction set and run with the best
//! one. There is no fused multiply-add in the formulas, so that all of them give the same bits.

use std::sync::OnceLock;

use crate::infer::simd::Isa;
pub(super) use crate::model::kernels::cpu::{dot, exp, inverse_rms, max, sigmoid, sum};

/// The processor's best instruction set.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(Isa::best)
}

/// `wide! { fn name<'a>(x: &'a [f32], ...) { ... } }`: no result; `'a` in every reference.
macro_rules! wide {
    ($(#[$meta:meta])* fn $name:ident<$life:lifetime>($($arg:ident: $kind:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        // Its arguments are slices of one window, which no struct would make clearer.
        #[allow(clippy::too_many_arguments)]
        fn $name<$life>($($arg: $kind),*) {
            struct Call<$life>($($kind),*);
            impl<$life> $crate::infer::simd::Op for Call<$life> {
                type Out = ();
                #[inline(always)]
                fn run<S: $crate::infer::simd::Simd>(self, _: S) {
                    let Call($($arg),*) = self;
                    $body
                }
            }
            $crate::forecast::neural::kernels::math::isa().run(Call($($arg),*));
        }
    };
}
pub(super) use wide;

/// `ln x` for positive normal numbers, to about 2 ulp: the exponent, and the series of the artanh
/// in (m - 1) / (m + 1) for a mantissa between the roots of a half and of two.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    const ROOT: u32 = 0x3f35_04f3;
    let bits = x.to_bits().wrapping_sub(ROOT);
    let exponent = ((bits as i32) >> 23) as f32;
    let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(ROOT));
    let z = (m - 1.0) / (m + 1.0);
    let w = z * z;
    let series = 2.0 + w * (2.0 / 3.0 + w * (2.0 / 5.0 + w * (2.0 / 7.0 + w * (2.0 / 9.0))));
    exponent * std::f32::consts::LN_2 + z * series
}

/// `ln(1 + e^x)`.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    let low = if x < 0.0 { x } else { -x };
    (if x > 0.0 { x } else { 0.0 }) + ln(1.0 + exp(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_and_softplus_agree_with_f64() {
        for i in 1..20_000 {
            let x = i as f32 * 0.01;
            assert!((f64::from(ln(x)) - f64::from(x).ln()).abs() < 6e-7, "{x}");
            let y = x - 100.0;
            let expected = f64::from(y).exp().ln_1p();
            assert!((f64::from(softplus(y)) - expected).abs() < 3e-7 * expected.max(1.0), "{y}");
        }
    }
}
