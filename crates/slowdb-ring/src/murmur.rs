//! MurmurHash3, x64, 128 bit. Written from Austin Appleby's public domain reference.
//!
//! Not for secrets and not against an adversary: whoever chooses ids can choose them to collide.

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

/// The MurmurHash3 x64 128-bit hash of `bytes` as its two halves, first half first.
#[must_use]
pub fn murmur3_x64_128(bytes: &[u8], seed: u32) -> (u64, u64) {
    let (mut h1, mut h2) = (u64::from(seed), u64::from(seed));
    let (blocks, tail) = bytes.as_chunks::<16>();
    for block in blocks {
        let (k1, k2) = halves(*block);
        h1 ^= mix1(k1);
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix2(k2);
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    // A zero half mixes to zero, so a tail padded with zeros is what the reference's fall-through computes.
    let mut last = [0; 16];
    last[..tail.len()].copy_from_slice(tail);
    let (k1, k2) = halves(last);
    h1 ^= mix1(k1);
    h2 ^= mix2(k2);

    let len = bytes.len() as u64;
    (h1, h2) = (h1 ^ len, h2 ^ len);
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    (h1, h2) = (finish(h1), finish(h2));
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    (h1, h2)
}

fn halves(block: [u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(block);
    (both as u64, (both >> 64) as u64)
}

fn mix1(k: u64) -> u64 {
    k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn mix2(k: u64) -> u64 {
    k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn finish(mut k: u64) -> u64 {
    k ^= k >> 33;
    k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
    k ^= k >> 33;
    k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn bytes_of((h1, h2): (u64, u64)) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&h1.to_le_bytes());
        bytes[8..].copy_from_slice(&h2.to_le_bytes());
        bytes
    }

    /// The verification of the reference's test suite: hashes of 0, 01, 012, … under falling seeds, hashed again.
    #[test]
    fn verification_value_of_the_reference() {
        let key: Vec<u8> = (0..=255).collect();
        let hashes: Vec<u8> =
            (0..256).flat_map(|len| bytes_of(murmur3_x64_128(&key[..len], 256 - len as u32))).collect();
        let (verification, _) = murmur3_x64_128(&hashes, 0);
        assert_eq!(verification as u32, 0x6384_BA69);
    }

    #[test]
    fn published_vectors() {
        assert_eq!(murmur3_x64_128(b"", 0), (0, 0));
        assert_eq!(murmur3_x64_128(b"", 1), (0x4610_abe5_6eff_5cb5, 0x5162_2daa_78f8_3583));
        let fox = b"The quick brown fox jumps over the lazy dog";
        assert_eq!(murmur3_x64_128(fox, 0), (0xe34b_bc7b_bc07_1b6c, 0x7a43_3ca9_c49a_9347));
    }

    proptest! {
        #[test]
        fn as_another_implementation(bytes: Vec<u8>, seed: u32) {
            let other = murmur3::murmur3_x64_128(&mut Cursor::new(&bytes), seed).unwrap();
            prop_assert_eq!(bytes_of(murmur3_x64_128(&bytes, seed)), other.to_le_bytes());
        }
    }
}
