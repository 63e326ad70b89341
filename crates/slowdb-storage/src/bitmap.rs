//! A bit for each slot. Copies share what neither has changed since, so that one costs a pointer for 32,768
//! slots, and what two differ in is found without looking at the rest.

use std::sync::Arc;

const CHUNK_WORDS: usize = 512;

type Chunk = [u64; CHUNK_WORDS];

/// Bits from 0 on; those beyond the last that was set are 0.
#[derive(Clone, Default)]
pub(crate) struct Bitmap {
    chunks: Vec<Arc<Chunk>>,
}

impl Bitmap {
    pub(crate) fn from_words(words: &[u64]) -> Self {
        let chunk = |words: &[u64]| {
            let mut chunk = [0; CHUNK_WORDS];
            chunk[..words.len()].copy_from_slice(words);
            Arc::new(chunk)
        };
        Self { chunks: words.chunks(CHUNK_WORDS).map(chunk).collect() }
    }

    /// Bits `64 n` to `64 n + 63`.
    pub(crate) fn word(&self, n: usize) -> u64 {
        self.chunks.get(n / CHUNK_WORDS).map_or(0, |chunk| chunk[n % CHUNK_WORDS])
    }

    pub(crate) fn get(&self, n: usize) -> bool {
        self.word(n / 64) >> (n % 64) & 1 == 1
    }

    pub(crate) fn set(&mut self, n: usize) {
        let (word, chunk) = (n / 64, n / 64 / CHUNK_WORDS);
        if chunk >= self.chunks.len() {
            self.chunks.resize(chunk + 1, Arc::new([0; CHUNK_WORDS]));
        }
        Arc::make_mut(&mut self.chunks[chunk])[word % CHUNK_WORDS] |= 1 << (n % 64);
    }

    /// Clears bit `n`. Says whether it was set.
    pub(crate) fn take(&mut self, n: usize) -> bool {
        let was_set = self.get(n);
        if was_set {
            let word = n / 64;
            Arc::make_mut(&mut self.chunks[word / CHUNK_WORDS])[word % CHUNK_WORDS] &= !(1 << (n % 64));
        }
        was_set
    }

    /// How many bits are set.
    pub(crate) fn count(&self) -> u64 {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|word| u64::from(word.count_ones())).sum()
    }

    /// The bits that are set, ascending.
    pub(crate) fn ones(&self) -> impl Iterator<Item = u32> {
        self.chunks.iter().enumerate().flat_map(|(n, chunk)| {
            chunk.iter().enumerate().flat_map(move |(at, word)| ones(n * CHUNK_WORDS + at, *word))
        })
    }

    /// The bits that are set here and not in `other`, ascending.
    pub(crate) fn minus(&self, other: &Self) -> impl Iterator<Item = u32> {
        let is_shared = move |n: usize, chunk: &Arc<Chunk>| {
            other.chunks.get(n).is_some_and(|other| Arc::ptr_eq(chunk, other))
        };
        let changed = self.chunks.iter().enumerate().filter(move |(n, chunk)| !is_shared(*n, chunk));
        changed.flat_map(move |(n, chunk)| {
            chunk.iter().enumerate().flat_map(move |(at, word)| {
                let at = n * CHUNK_WORDS + at;
                ones(at, word & !other.word(at))
            })
        })
    }
}

/// The bits that are set in word `n`.
fn ones(n: usize, word: u64) -> impl Iterator<Item = u32> {
    let rest = |word: &u64| Some(word & (word - 1)).filter(|rest| *rest != 0);
    std::iter::successors(Some(word).filter(|word| *word != 0), rest)
        .map(move |word| n as u32 * 64 + word.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn copies_go_their_own_ways_and_differ_in_what_was_changed(
            first in prop::collection::btree_set(0_u32..150_000, 0..200),
            set in prop::collection::btree_set(0_u32..150_000, 0..50),
            also_taken in prop::collection::btree_set(0_u32..150_000, 0..50),
            take in 0_usize..50,
        ) {
            let mut bitmap = Bitmap::default();
            first.iter().for_each(|n| bitmap.set(*n as usize));
            let (old, mut model) = (bitmap.clone(), first.clone());
            let taken: Vec<u32> = first.iter().copied().step_by(3).take(take).chain(also_taken).collect();
            for n in taken {
                prop_assert_eq!(bitmap.take(n as usize), model.remove(&n));
            }
            for n in set {
                bitmap.set(n as usize);
                model.insert(n);
            }
            prop_assert_eq!(old.ones().collect::<BTreeSet<_>>(), first.clone());
            prop_assert_eq!(bitmap.ones().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(bitmap.count(), model.len() as u64);
            prop_assert!(model.iter().all(|n| bitmap.get(*n as usize)));
            let minus = |a: &BTreeSet<u32>, b: &BTreeSet<u32>| a.difference(b).copied().collect::<Vec<_>>();
            prop_assert_eq!(old.minus(&bitmap).collect::<Vec<_>>(), minus(&first, &model));
            prop_assert_eq!(bitmap.minus(&old).collect::<Vec<_>>(), minus(&model, &first));
            let words: Vec<u64> = (0..150_000_usize.div_ceil(64)).map(|n| bitmap.word(n)).collect();
            prop_assert_eq!(Bitmap::from_words(&words).ones().collect::<Vec<_>>(), bitmap.ones().collect::<Vec<_>>());
        }
    }
}
