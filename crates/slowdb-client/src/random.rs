//! Randomness: identities from the operating system, and a small generator for jitter.
//!
//! Nothing here is for cryptography beyond drawing an identity.

use crate::error::ClientError;

/// Sixteen bytes that no other client has.
pub(crate) fn identity() -> Result<[u8; 16], ClientError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| ClientError::Internal {
        message: format!("the operating system gave no random bytes for the client's identity: {e}"),
    })?;
    Ok(bytes)
}

/// SplitMix64: for jitter, so that clients that failed together do not come back together.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Jitter(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from half of `whole` to all of it.
    pub(crate) fn between_half_and(&mut self, whole: std::time::Duration) -> std::time::Duration {
        let share = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        whole.mul_f64(0.5 + share / 2.0)
    }
}
