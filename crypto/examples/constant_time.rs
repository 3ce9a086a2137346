//! Whether signing and key expansion take secrets into account in what they do: by Valgrind's memcheck, and by timing.
//!
//! ```text
//! cargo build --release -p weft-crypto --example constant_time
//! valgrind -q --error-limit=no target/release/examples/constant_time memcheck
//! target/release/examples/constant_time timing [backend] [seconds]
//! ```
//!
//! **memcheck** (Langley's ctgrind, 2010): seeds are marked as never initialised before they are expanded and the keys
//! sign. Memcheck follows that mark bit by bit through registers and memory and reports each conditional jump and each
//! address that depends on it. Nothing is declassified until the signatures are compared at the end, so not even public
//! keys and R, which are published anyway, may steer anything. It runs the very code of a release build, but only what
//! Valgrind's CPU has: the serial and the AVX2 path. The AVX-512 path is the same generic source over other vectors.
//!
//! **timing** (Reparaz, Balasch, Verbauwhede, "Dude, is my code constant time?", 2017): batches of one fixed seed and
//! batches of random seeds in random order, the CPU's cycle counter around each call, Welch's t between the two
//! classes, for all calls and for those below some percentiles. |t| above 4.5 is evidence of a difference; a test like
//! this finds leaks and cannot prove that there is none.
//!
//! Both end with canaries, code that does depend on secrets, which must be found: else the check proves nothing. The exit
//! status is 0 only if all is as it should be.

// Client requests to Valgrind are an instruction sequence, and the cycle counter is an intrinsic.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a check that cannot be made should stop")]

use std::hint::black_box;
use std::process::ExitCode;

use weft_crypto::backend::{Backend, Options};
use weft_crypto::sign::{BatchSigner, ExpandedKey};
use weft_crypto::{Columns, Messages};

/// Leaks what it compares: as many steps as bytes are equal.
#[inline(never)]
fn early_exit(a: &[u8; 32], b: &[u8; 32]) -> usize {
    let mut equal = 0;
    for (a, b) in a.iter().zip(b) {
        if black_box(*a) != black_box(*b) {
            break;
        }
        equal += 1;
    }
    equal
}

/// Leaks its argument by the address it reads.
#[inline(never)]
fn lookup(table: &[u8; 256], at: u8) -> u8 {
    black_box(table)[usize::from(black_box(at))]
}

mod memcheck {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    fn request(code: u64, arguments: [u64; 3]) -> u64 {
        let block = [code, arguments[0], arguments[1], arguments[2], 0, 0];
        let mut answer = 0_u64;
        // SAFETY: Valgrind's client request for amd64 (`valgrind.h`): rotations of rdi by 128 bits in all and an exchange
        // of rbx with itself, which do nothing on a real CPU; Valgrind reads the block and writes the answer to rdx.
        unsafe {
            core::arch::asm!(
                "rol rdi, 3",
                "rol rdi, 13",
                "rol rdi, 61",
                "rol rdi, 51",
                "xchg rbx, rbx",
                inout("rdx") answer,
                in("rax") block.as_ptr(),
                options(nostack)
            );
        }
        answer
    }
    #[cfg(not(target_arch = "x86_64"))]
    fn request(_: u64, _: [u64; 3]) -> u64 {
        0
    }

    // The codes are those of `valgrind.h` and `memcheck.h`; the latter count from 'M', 'C'.
    const RUNNING_ON_VALGRIND: u64 = 0x1001;
    const COUNT_ERRORS: u64 = 0x1201;
    const MAKE_MEM_UNDEFINED: u64 = 0x4d43_0001;
    const MAKE_MEM_DEFINED: u64 = 0x4d43_0002;
    const GET_VBITS: u64 = 0x4d43_0008;

    fn range<T>(of: &[T]) -> [u64; 3] {
        [of.as_ptr() as u64, size_of_val(of) as u64, 0]
    }

    /// Marks `of` as secret.
    fn taint<T>(of: &mut [T]) {
        request(MAKE_MEM_UNDEFINED, range(of));
        black_box(of);
    }

    fn declassify<T>(of: &mut [T]) {
        request(MAKE_MEM_DEFINED, range(of));
        black_box(of);
    }

    /// Whether every bit of `of` depends on a secret.
    fn tainted(of: &[u8]) -> bool {
        let mut bits = vec![0_u8; of.len()];
        // The bits are written by Valgrind, behind the compiler's back.
        let [from, length, _] = range(of);
        request(GET_VBITS, [from, black_box(bits.as_mut_ptr()) as u64, length]);
        black_box(&bits).iter().all(|bits| *bits == u8::MAX)
    }

    /// Reports of memcheck while `run` runs.
    fn reports(run: impl FnOnce()) -> u64 {
        let before = request(COUNT_ERRORS, [0; 3]);
        run();
        request(COUNT_ERRORS, [0; 3]) - before
    }

    /// Rows: more than one group of every backend, and a last vector that is not full.
    const ROWS: usize = 77;

    fn check(signer: &dyn BatchSigner) -> bool {
        let seeds: Vec<[u8; 32]> =
            (0..ROWS).map(|row| *blake3::hash(&row.to_le_bytes()).as_bytes()).collect();
        let ids: Vec<[u8; 32]> = seeds.iter().map(|seed| *blake3::hash(seed).as_bytes()).collect();
        let long = [0x5a; 600];
        let slices: Vec<&[u8]> = (0..ROWS).map(|row| &long[..row * 7]).collect();
        let sorts = [Messages::Ids(&ids), Messages::Slices(&slices)];
        // Once in the open: what is expected, and tables are made.
        let keys: Vec<ExpandedKey> = seeds.iter().map(ExpandedKey::from_seed).collect();
        let mut warm = Vec::new();
        signer.expand(&seeds, &mut warm);

        let mut secret = seeds.clone();
        taint(&mut secret);
        let mut secret_keys = Vec::with_capacity(ROWS);
        let expansion = reports(|| signer.expand(&secret, &mut secret_keys));
        let flowed = secret_keys.iter().all(|key| tainted(key.public()));
        println!(
            "{}: expansion of {ROWS} seeds: {expansion} reports, secret reached every bit: {flowed}",
            signer.name()
        );
        let mut good = expansion == 0 && flowed;
        for (sort, messages) in ["ids", "messages of 0 to 532 bytes"].iter().zip(&sorts) {
            let references: Vec<&ExpandedKey> = secret_keys.iter().collect();
            let mut signatures = vec![[0_u8; 64]; ROWS];
            let signing = reports(|| signer.sign(&references, messages, &mut signatures));
            let flowed = signatures.iter().all(|signature| tainted(signature));
            declassify(&mut signatures);
            let equal = (0..ROWS).all(|row| signatures[row] == keys[row].sign(messages.get(row)));
            println!(
                "{}: signing {sort}: {signing} reports, secret reached every bit: {flowed}, signatures right: {equal}",
                signer.name()
            );
            good &= signing == 0 && flowed && equal;
        }
        good
    }

    fn canaries() -> bool {
        let mut seed = [7_u8; 32];
        let table: [u8; 256] = std::array::from_fn(|at| at as u8);
        taint(&mut seed);
        let branch = reports(|| {
            black_box(early_exit(&seed, &[7; 32]));
        });
        let index = reports(|| {
            black_box(lookup(&table, seed[0]));
        });
        println!("canary, a branch on a secret: {branch} reports; an address from a secret: {index} reports");
        let mut good = branch > 0 && index > 0;
        // This library's own code for public data, whose time does depend on it.
        let key = ExpandedKey::from_seed(&[7; 32]);
        let ids: Vec<[u8; 32]> = (0..64).map(|row| [row; 32]).collect();
        let mut signatures: Vec<[u8; 64]> = ids.iter().map(|id| key.sign(id)).collect();
        for backend in Backend::ALL {
            let Ok(verifier) = backend.verifier(&Options::default()) else { continue };
            let mut verdicts = [false; 64];
            let mut verify = |signatures: &[[u8; 64]]| {
                let keys = vec![*key.public(); 64];
                verifier.verify(
                    &Columns { keys: &keys, messages: Messages::Ids(&ids), signatures },
                    &mut verdicts,
                );
            };
            let clean = reports(|| verify(&signatures));
            taint(&mut signatures);
            let found = reports(|| verify(&signatures));
            declassify(&mut signatures);
            declassify(&mut verdicts);
            println!("canary, {backend} verification: {clean} reports, {found} with secret signatures");
            good &= clean == 0 && found > 0;
        }
        good
    }

    pub(super) fn run() -> bool {
        if request(RUNNING_ON_VALGRIND, [0; 3]) == 0 {
            eprintln!("run this under valgrind");
            return false;
        }
        let mut good = true;
        for backend in [Backend::Serial, Backend::Avx2] {
            match backend.signer() {
                Ok(signer) => good &= check(signer.as_ref()),
                Err(error) => {
                    println!("NOT CHECKED: {error}");
                    good = false;
                }
            }
        }
        // Last: what memcheck reports of these is meant.
        good & canaries()
    }
}

mod timing {
    use std::time::{Duration, Instant};

    use super::*;

    /// One vector of the widest backend: the shortest call, so the most of them.
    const ROWS: usize = 8;
    /// The largest |t| that says nothing.
    const LIMIT: f64 = 4.5;
    /// Calls before the percentiles are taken; they are not counted.
    const WARM_UP: usize = 20_000;
    /// Calls slower than such a share of all are left out: interrupts, and other tenants of the machine.
    const PERCENTILES: [f64; 5] = [0.5, 0.75, 0.9, 0.99, 1.0];

    #[cfg(target_arch = "x86_64")]
    fn cycles() -> u64 {
        use core::arch::x86_64::{_mm_lfence, _rdtsc};
        // SAFETY: both instructions are part of every x86-64.
        unsafe {
            _mm_lfence();
            let now = _rdtsc();
            _mm_lfence();
            now
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    fn cycles() -> u64 {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        START.elapsed().as_nanos() as u64
    }

    struct Draw(u64);

    impl Draw {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }

    /// Count, mean and squared deviations of one class (Welford).
    #[derive(Clone, Copy, Default)]
    struct Class {
        count: f64,
        mean: f64,
        squares: f64,
    }

    impl Class {
        fn add(&mut self, value: f64) {
            self.count += 1.0;
            let off = value - self.mean;
            self.mean += off / self.count;
            self.squares += off * (value - self.mean);
        }

        /// The variance of the mean.
        fn error(&self) -> f64 {
            self.squares / (self.count - 1.0) / self.count
        }
    }

    /// Both classes of one operation: fixed, random; for each percentile.
    struct Test {
        name: &'static str,
        warm_up: Vec<f64>,
        limits: [f64; PERCENTILES.len()],
        classes: [[Class; 2]; PERCENTILES.len()],
    }

    impl Test {
        fn new(name: &'static str) -> Self {
            let limits = [f64::INFINITY; PERCENTILES.len()];
            Self { name, warm_up: Vec::with_capacity(WARM_UP), limits, classes: Default::default() }
        }

        fn add(&mut self, class: usize, cycles: u64) {
            let cycles = cycles as f64;
            if self.warm_up.len() < WARM_UP {
                self.warm_up.push(cycles);
                if self.warm_up.len() == WARM_UP {
                    self.warm_up.sort_by(f64::total_cmp);
                    for (limit, share) in self.limits.iter_mut().zip(PERCENTILES) {
                        if share < 1.0 {
                            *limit = self.warm_up[(WARM_UP as f64 * share) as usize];
                        }
                    }
                }
                return;
            }
            for (limit, classes) in self.limits.iter().zip(&mut self.classes) {
                if cycles <= *limit {
                    classes[class].add(cycles);
                }
            }
        }

        /// Prints, and returns the largest |t|.
        fn report(&self) -> f64 {
            let mut worst = 0.0_f64;
            print!("{}:", self.name);
            for (share, [fixed, random]) in PERCENTILES.iter().zip(&self.classes) {
                let error = (fixed.error() + random.error()).sqrt();
                let t = (fixed.mean - random.mean) / error;
                worst = worst.max(t.abs());
                print!(
                    "  p{:.0}: {:.0} and {:.0} calls, {:.1} cycles, difference {:+.2} +- {:.2}, t {t:+.2};",
                    share * 100.0,
                    fixed.count,
                    random.count,
                    random.mean,
                    fixed.mean - random.mean,
                    error
                );
            }
            println!("  largest |t| {worst:.2}");
            worst
        }
    }

    pub(super) fn run(backend: Backend, seconds: f64) -> bool {
        let Ok(signer) = backend.signer() else {
            println!("NOT CHECKED: {backend} is not on this machine");
            return false;
        };
        println!("{backend}, batches of {ROWS}, {seconds} s; cycles are those of the counter, per batch");
        let mut draw = Draw(Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()));
        let fixed: [[u8; 32]; ROWS] = [*blake3::hash(b"the fixed seed").as_bytes(); ROWS];
        let ids = [[0x33; 32]; ROWS];
        // Everything stands at the same place for both classes.
        let mut seeds = fixed;
        let mut inputs = [(0, fixed); 64];
        let mut keys: Vec<ExpandedKey> = Vec::with_capacity(ROWS);
        let mut signatures = [[0; 64]; ROWS];
        let mut tests = [Test::new("expansion"), Test::new("signing"), Test::new("canary")];
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs_f64(seconds) {
            // Inputs first, so that what runs right before a call is the same for both classes: a copy.
            for (class, input) in &mut inputs {
                *class = (draw.next() >> 40) as usize & 1;
                let mask = black_box((*class as u64).wrapping_sub(1));
                for (seed, fixed) in input.iter_mut().zip(&fixed) {
                    for (bytes, fixed) in seed.as_chunks_mut::<8>().0.iter_mut().zip(fixed.as_chunks::<8>().0)
                    {
                        let random = draw.next();
                        *bytes = (random ^ ((random ^ u64::from_le_bytes(*fixed)) & mask)).to_le_bytes();
                    }
                }
            }
            for (class, input) in black_box(&inputs) {
                seeds.copy_from_slice(input);
                let seeds = black_box(&seeds);
                let begin = cycles();
                signer.expand(seeds, &mut keys);
                let expanded = cycles();
                let references: [&ExpandedKey; ROWS] = std::array::from_fn(|row| &keys[row]);
                let before = cycles();
                signer.sign(&references, &Messages::Ids(&ids), black_box(&mut signatures));
                let signed = cycles();
                signer.sign(&references, &Messages::Ids(&ids), black_box(&mut signatures));
                black_box(early_exit(&seeds[0], &fixed[0]));
                let leaked = cycles();
                tests[0].add(*class, expanded - begin);
                tests[1].add(*class, signed - before);
                tests[2].add(*class, leaked - signed);
            }
        }
        let worst = tests.each_ref().map(Test::report);
        let (clean, found) = (worst[..2].iter().all(|t| *t < LIMIT), worst[2] > LIMIT);
        println!("no difference found: {clean}; the canary's was found: {found}");
        clean && found
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let good = match arguments.first().map(String::as_str) {
        Some("memcheck") => memcheck::run(),
        Some("timing") => {
            let backend = arguments.get(1).map_or(Backend::Avx512, |name| name.parse().unwrap());
            timing::run(backend, arguments.get(2).map_or(60.0, |text| text.parse().unwrap()))
        }
        _ => {
            eprintln!("memcheck | timing [backend] [seconds]");
            false
        }
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
