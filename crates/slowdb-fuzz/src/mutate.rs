//! Changes to valid encodings.

use crate::Rng;

/// Numbers at which decoders break.
const EXTREMES: [u64; 16] = [
    0,
    1,
    2,
    7,
    8,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x0001_0000,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    1 << 62,
    i64::MAX as u64,
    u64::MAX,
];
/// Most changes of one case.
const CHANGES_MAX: usize = 6;
/// Most bytes that one change adds.
const ADDED_MAX: usize = 64;

/// Draws hostile bytes: an encoding of a corpus with some changes.
#[derive(Debug)]
pub struct Mutator<'a> {
    corpus: &'a [Vec<u8>],
    rng: Rng,
}

impl<'a> Mutator<'a> {
    /// All that it draws is determined by corpus and seed.
    ///
    /// # Panics
    /// If the corpus is empty.
    pub fn new(corpus: &'a [Vec<u8>], seed: u64) -> Self {
        assert!(!corpus.is_empty(), "a corpus has at least one encoding");
        Mutator { corpus, rng: Rng::new(seed) }
    }

    /// Where it draws from.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// The next input. Most cases have one or two changes: more rarely get past the first check.
    pub fn draw(&mut self) -> Vec<u8> {
        let mut bytes = self.rng.pick(self.corpus).clone();
        let changes = 1 + self.rng.below(CHANGES_MAX).min(self.rng.below(CHANGES_MAX));
        for _ in 0..changes {
            self.change(&mut bytes);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.rng.below(bytes.len());
        match self.rng.below(12) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << self.rng.below(8),
            2 if !bytes.is_empty() => bytes[at] = self.rng.next_u64() as u8,
            3..=6 => self.number(bytes),
            7 => bytes.truncate(at),
            8 => {
                let added = self.added();
                bytes.splice(at..at, added);
            }
            9 => {
                let end = at + self.rng.below(bytes.len() - at + 1).min(ADDED_MAX);
                bytes.drain(at..end);
            }
            10 => {
                // A part of it once more, there or elsewhere.
                let end = at + self.rng.below(bytes.len() - at + 1).min(4 * ADDED_MAX);
                let (part, to) = (bytes[at..end].to_vec(), self.rng.below(bytes.len()));
                bytes.splice(to..to, part);
            }
            _ => {
                // The beginning of one and the end of another.
                let other = self.rng.pick(self.corpus);
                let from = if self.rng.below(2) == 0 { at } else { self.rng.below(other.len()) };
                bytes.truncate(at);
                bytes.extend_from_slice(other.get(from..).unwrap_or_default());
            }
        }
    }

    fn added(&mut self) -> Vec<u8> {
        let len = 1 + self.rng.below(ADDED_MAX);
        let byte = self.rng.next_u64() as u8;
        match self.rng.below(3) {
            0 => vec![0; len],
            1 => vec![byte; len],
            _ => (0..len).map(|_| self.rng.next_u64() as u8).collect(),
        }
    }

    /// Writes an extreme number over 1, 2, 4 or 8 bytes, as often as not where a number of that width would lie; or moves
    /// the one that is there.
    fn number(&mut self, bytes: &mut [u8]) {
        let width = 1 << self.rng.below(4);
        let Some(places) = bytes.len().checked_sub(width) else { return };
        let mut at = self.rng.below(places + 1);
        if self.rng.below(2) == 0 {
            at -= at % width;
        }
        let mut word = [0; 8];
        word[..width].copy_from_slice(&bytes[at..at + width]);
        let there = u64::from_le_bytes(word);
        let len = bytes.len() as u64;
        let number = match self.rng.below(6) {
            0 => there.wrapping_add(1),
            1 => there.wrapping_sub(1),
            2 => there.wrapping_mul(2),
            3 => len.wrapping_sub(at as u64).wrapping_add(self.rng.below(5) as u64).wrapping_sub(2),
            _ => self.rng.pick(&EXTREMES).wrapping_sub(self.rng.below(2) as u64),
        };
        let number = if self.rng.below(8) == 0 { number.swap_bytes() } else { number };
        bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_everything() {
        let corpus = [b"some bytes that are long enough".to_vec(), vec![], vec![7; 100]];
        let draw = |seed| Mutator::new(&corpus, seed).draw();
        for seed in 0..2_000 {
            assert_eq!(draw(seed), draw(seed), "seed {seed}");
        }
        // Of nothing little can be made but nothing.
        let corpus = [corpus[0].clone(), corpus[2].clone()];
        let draw = |seed| Mutator::new(&corpus, seed).draw();
        let changed = (0..2_000).filter(|seed| !corpus.contains(&draw(*seed))).count();
        assert!(changed > 1_800, "{changed} of 2000 are changed");
    }
}
