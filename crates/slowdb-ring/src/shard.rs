//! id → shard: equal ranges of the 64-bit hash space.

use std::ops::RangeInclusive;

use crate::murmur::murmur3_x64_128;

/// The place of an id in the hash space: the first half of its MurmurHash3 under seed 0.
#[must_use]
pub fn hash_of(id: &[u8]) -> u64 {
    murmur3_x64_128(id, 0).0
}

/// The shard that holds `id`, of `num_shards` with equal ranges.
///
/// Always below `num_shards`, except that it is 0 when there are none; whoever takes the number from outside
/// refuses 0 there.
#[must_use]
pub fn shard_of(id: &[u8], num_shards: u32) -> u32 {
    // Multiply and shift: the range of shard s is what this maps to s, no division, no bias beyond one hash value.
    let scaled = u128::from(hash_of(id)) * u128::from(num_shards);
    (scaled >> 64) as u32
}

/// The hashes that `shard` of `num_shards` holds, or `None` if there is no such shard.
#[must_use]
pub fn shard_range(shard: u32, num_shards: u32) -> Option<RangeInclusive<u64>> {
    let start = |shard: u32| (u128::from(shard) << 64).div_ceil(u128::from(num_shards));
    (shard < num_shards).then(|| start(shard) as u64..=(start(shard + 1) - 1) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden() {
        let shards = ["", "a", "doc-1", "doc-2", "Zürich", "x"].map(|id| shard_of(id.as_bytes(), 16));
        assert_eq!(shards, [0, 8, 11, 5, 10, 6]);
    }

    #[test]
    fn even() {
        let mut counts = [0_u32; 16];
        for id in 0..160_000 {
            counts[shard_of(format!("id-{id}").as_bytes(), 16) as usize] += 1;
        }
        // Five standard deviations of a fair draw.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 500), "{counts:?}");
    }

    proptest! {
        #[test]
        fn ranges_tile_the_space_and_hold_their_ids(id: Vec<u8>, num_shards in 1_u32..100_000) {
            let shard = shard_of(&id, num_shards);
            prop_assert!(shard < num_shards);
            let range = shard_range(shard, num_shards).unwrap();
            prop_assert!(range.contains(&hash_of(&id)));
            match shard_range(shard + 1, num_shards) {
                Some(next) => prop_assert_eq!(range.end() + 1, *next.start()),
                None => prop_assert_eq!(*range.end(), u64::MAX),
            }
            if shard == 0 {
                prop_assert_eq!(*range.start(), 0);
            }
        }

        #[test]
        fn halving_every_range_keeps_ids_with_their_parent(id: Vec<u8>, num_shards in 1_u32..1_000_000) {
            prop_assert_eq!(shard_of(&id, num_shards * 2) / 2, shard_of(&id, num_shards));
        }
    }

    #[test]
    fn no_shards_no_range() {
        assert_eq!(shard_range(0, 0), None);
        assert_eq!(shard_range(16, 16), None);
        assert_eq!(shard_range(0, 1), Some(0..=u64::MAX));
        assert_eq!(shard_range(u32::MAX - 1, u32::MAX).map(|range| *range.end()), Some(u64::MAX));
    }
}
