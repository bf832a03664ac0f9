//! Sixteen lanes, whatever the processor: the few vector operations that the kernels are made of.
//!
//! A kernel is an [`Op`], generic over [`Simd`] and inlined whole into a function that is compiled
//! for one instruction set; [`Isa::run`] picks that function by what the processor has. A value of
//! an instruction set's type exists only where the processor has it, so that its operations are
//! safe to call. Loads and stores through pointers are not. On processors without a file of their
//! own here the plain lanes are what the compiler makes of them.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;

pub use plain::Plain;

/// Floats, 32-bit integers and quads of bytes, sixteen of each.
pub trait Simd: Copy + Send + Sync {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen i32.
    type I: Copy;
    /// Sixteen quads of u8.
    type B: Copy;
    /// There are registers for eight columns of a product at a time.
    const MANY: bool;

    /// The same number in all lanes.
    fn splat(self, x: f32) -> Self::F;
    /// # Safety
    /// Sixteen f32 are there.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// There is room for sixteen f32.
    unsafe fn store(self, p: *mut f32, x: Self::F);
    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a b`
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger of each lane.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller of each lane.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n`, for integers `n` in -126..=127.
    fn pow2(self, n: Self::F) -> Self::F;
    /// The sum of all lanes.
    fn sum(self, a: Self::F) -> f32;
    /// The largest of all lanes.
    fn largest(self, a: Self::F) -> f32;

    /// # Safety
    /// Sixteen f16 are there.
    unsafe fn load_f16(self, p: *const u16) -> Self::F;
    /// # Safety
    /// There is room for sixteen f16.
    unsafe fn store_f16(self, p: *mut u16, x: Self::F);
    /// # Safety
    /// Sixteen bfloat16 are there.
    unsafe fn load_bf16(self, p: *const u16) -> Self::F;
    /// # Safety
    /// Sixteen u8 are there.
    unsafe fn load_u8(self, p: *const u8) -> Self::F;
    /// # Safety
    /// Sixteen i8 are there.
    unsafe fn load_i8(self, p: *const i8) -> Self::F;
    /// Integers in -128..=127 as bytes.
    /// # Safety
    /// There is room for sixteen bytes.
    unsafe fn store_i8(self, p: *mut i8, x: Self::F);

    /// # Safety
    /// 64 bytes are there.
    unsafe fn bytes(self, p: *const u8) -> Self::B;
    /// Bits that are in the mask, of each byte.
    fn and(self, a: Self::B, mask: u8) -> Self::B;
    /// Bits that are in either.
    fn or(self, a: Self::B, b: Self::B) -> Self::B;
    /// Pairs of bytes as u16, shifted right.
    fn shr(self, a: Self::B, by: u32) -> Self::B;
    /// Pairs of bytes as u16, shifted left.
    fn shl(self, a: Self::B, by: u32) -> Self::B;

    /// Zeros.
    fn zeros(self) -> Self::I;
    /// `a + b`
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I;
    /// Each lane plus the product of its quad of `w` (all up to 127) with the quad `x` of i8.
    fn dot(self, sum: Self::I, w: Self::B, x: i32) -> Self::I;
    /// [`Simd::dot`] for `w` up to 255.
    fn dot_wide(self, sum: Self::I, w: Self::B, x: i32) -> Self::I;
    /// As floats.
    fn floats(self, a: Self::I) -> Self::F;

    /// Asks for the line of an address, which need not be ours, before it is used.
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 has the instruction, and it reads nothing that a program can see.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: a hint, which reads nothing that a program can see.
        unsafe {
            std::arch::asm!(
                "prfm pldl1keep, [{p}]", p = in(reg) p,
                options(nostack, readonly, preserves_flags),
            );
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = p;
    }

    /// `e^x`, to a few units in the last place; 0 and large numbers beyond what f32 holds.
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        let x = self.max(self.min(x, self.splat(88.0)), self.splat(-87.0));
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts, so that the difference is exact.
        let r = self.fma(n, self.splat(-0.693_359_4), x);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        let mut sum = self.splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            sum = self.fma(sum, r, self.splat(c));
        }
        self.mul(sum, self.pow2(n))
    }
}

/// A kernel: mark `run` `#[inline(always)]`.
pub trait Op {
    /// What it gives.
    type Out;
    /// Runs with an instruction set.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// An instruction set that this processor has.
#[derive(Clone, Copy)]
pub enum Isa {
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    /// NEON with dot products of bytes.
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    /// Any processor.
    Plain(Plain),
}

impl Isa {
    /// The instruction sets of this processor, best first.
    pub fn all() -> Vec<Isa> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        all.extend(avx512::Avx512::detect().map(Isa::Avx512));
        #[cfg(target_arch = "x86_64")]
        all.extend(avx2::Avx2::detect().map(Isa::Avx2));
        #[cfg(target_arch = "aarch64")]
        all.extend(neon::Neon::detect().map(Isa::Neon));
        all.push(Isa::Plain(Plain));
        all
    }
    /// The best one.
    pub fn best() -> Isa {
        Isa::all().first().copied().unwrap_or(Isa::Plain(Plain))
    }
    /// The best one but AVX-512.
    pub fn without_avx512() -> Isa {
        let all = Isa::all();
        let fits = |isa: &&Isa| !isa.name().starts_with("AVX-512");
        all.iter().find(fits).copied().unwrap_or(Isa::Plain(Plain))
    }
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "AVX-512 VNNI",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "AVX2",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "NEON",
            Isa::Plain(_) => "plain",
        }
    }
    /// Runs a kernel.
    #[inline(always)]
    pub fn run<O: Op>(self, op: O) -> O::Out {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a value of this type exists only where the processor has its instructions.
            Isa::Avx512(s) => unsafe { avx512::enter(s, op) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2(s) => unsafe { avx2::enter(s, op) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::Neon(s) => unsafe { neon::enter(s, op) },
            Isa::Plain(s) => op.run(s),
        }
    }
}
