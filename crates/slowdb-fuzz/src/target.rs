//! A decoder, and how often it is fed.

use crate::{Mutator, memory};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// Memory that any decoder may take, in bytes, whatever the input: errors, and what it makes once.
const MEMORY_BASE: usize = 64 * 1024;

type Reseal<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;

/// A decoder with valid encodings of what it decodes.
pub struct Target<'a> {
    name: &'static str,
    corpus: Vec<Vec<u8>>,
    cases: u64,
    memory_base: usize,
    memory_factor: usize,
    reseal: Reseal<'a>,
}

impl<'a> Target<'a> {
    /// A target whose name is that of its test, with encodings that the decoder accepts.
    pub fn new(name: &'static str, corpus: impl IntoIterator<Item = Vec<u8>>) -> Self {
        assert!(name.starts_with("fuzz_"), "{name}: tests are found by that");
        Target {
            name,
            corpus: corpus.into_iter().collect(),
            cases: 5_000,
            memory_base: MEMORY_BASE,
            memory_factor: 16,
            reseal: Box::new(|_| {}),
        }
    }

    /// How many cases make a short run, 5,000 without this.
    #[must_use]
    pub fn cases(mut self, cases: u64) -> Self {
        self.cases = cases;
        self
    }

    /// How much memory, in bytes, the decoder may take at a time: a base, and a factor for each byte of the input. 64 KiB
    /// and 16 without this.
    #[must_use]
    pub fn memory(mut self, base: usize, factor: usize) -> Self {
        (self.memory_base, self.memory_factor) = (base, factor);
        self
    }

    /// What makes checksums right again. It is left out in one case of eight.
    #[must_use]
    pub fn reseal(mut self, reseal: impl Fn(&mut Vec<u8>) + 'a) -> Self {
        self.reseal = Box::new(reseal);
        self
    }

    /// Feeds the decoder, which says whether it accepted the input.
    ///
    /// # Panics
    /// If the decoder does, takes too much memory, or refuses an encoding of the corpus; what to run to see it once more
    /// is printed.
    pub fn run(&self, mut accepts: impl FnMut(&[u8]) -> bool) {
        for (place, valid) in self.corpus.iter().enumerate() {
            assert!(accepts(valid), "{}: encoding {place} of the corpus is refused", self.name);
        }
        if let Some(case) = variable("SLOWDB_FUZZ_CASE") {
            self.case(case, &mut accepts);
            return;
        }
        let first = variable("SLOWDB_FUZZ_SEED").unwrap_or(0);
        let seconds = variable("SLOWDB_FUZZ_SECONDS").map(Duration::from_secs);
        let (begin, mut done, mut accepted) = (Instant::now(), 0_u64, 0_u64);
        while seconds.map_or(done < self.cases, |seconds| begin.elapsed() < seconds) {
            accepted += u64::from(self.case(first.wrapping_add(done), &mut accepts));
            done += 1;
        }
        println!(
            "{}: {done} cases from {first} in {:.1} s, {accepted} of them accepted",
            self.name,
            begin.elapsed().as_secs_f64()
        );
    }

    fn case(&self, case: u64, accepts: &mut impl FnMut(&[u8]) -> bool) -> bool {
        // Numbers that follow each other give inputs that have nothing to do with each other.
        let mut mutator = Mutator::new(&self.corpus, case.wrapping_mul(0xd129_0bf7_8fd5_9f2b));
        let mut input = mutator.draw();
        if mutator.rng().below(8) > 0 {
            (self.reseal)(&mut input);
        }
        let (result, bytes) = memory::peak(|| catch_unwind(AssertUnwindSafe(|| accepts(&input))));
        let allowed = self.memory_base + self.memory_factor * input.len();
        if result.is_ok() && bytes <= allowed {
            return result.is_ok_and(|accepted| accepted);
        }
        println!(
            "{} fails on {} bytes: {:02x?}\nto see it once more: cargo xtask fuzz --target {} --case {case}",
            self.name,
            input.len(),
            &input[..input.len().min(512)],
            self.name,
        );
        match result {
            Err(panic) => resume_unwind(panic),
            Ok(_) => panic!("{} took {bytes} bytes of memory for {} of input", self.name, input.len()),
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is '{value}', and has to be a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A decoder of a length and as many bytes.
    fn decode(bytes: &[u8]) -> Option<&[u8]> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        rest.get(..u32::from_le_bytes(*len) as usize)
    }

    fn corpus() -> Vec<Vec<u8>> {
        vec![[&5_u32.to_le_bytes()[..], b"hello"].concat()]
    }

    fn fails(decoder: impl FnMut(&[u8]) -> bool) -> bool {
        catch_unwind(AssertUnwindSafe(|| Target::new("fuzz_planted", corpus()).run(decoder))).is_err()
    }

    #[test]
    fn a_careful_decoder_passes() {
        assert!(!fails(|bytes| decode(bytes).is_some()));
    }

    /// Each must be caught in a short run, or the short runs of real targets prove little.
    #[test]
    fn planted_bugs_are_caught() {
        let trusted =
            |bytes: &[u8]| usize::try_from(u32::from_le_bytes(bytes[..4].try_into().unwrap())).unwrap();
        assert!(
            fails(|bytes| bytes.len() >= 4 && !bytes[4..4 + trusted(bytes)].is_empty()),
            "a length is trusted"
        );
        assert!(
            fails(|bytes| bytes.len() >= 4 && Vec::<u8>::with_capacity(trusted(bytes)).is_empty()),
            "memory is taken before it is known what for"
        );
        assert!(fails(|_| false), "what is valid is refused");
    }
}
