//! Answers that go without some shards, if the caller allows it.

use crate::error::ClientError;
use slowdb_proto::Code;

/// A shard that an answer goes without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingShard {
    /// Its number.
    pub shard: u32,
    /// Why it gave no answer.
    pub reason: String,
}

pub(crate) fn check_coverage(min_coverage: f64) -> Result<(), ClientError> {
    if (0.0..=1.0).contains(&min_coverage) {
        return Ok(());
    }
    let message = format!("a coverage of {min_coverage}: it is a share of the shards, from 0 to 1");
    Err(ClientError::BadInput { code: Code::BadRequest, message })
}

/// Whether so many shards of all are enough. No shard at all never is.
pub(crate) fn suffices(covered: usize, all: usize, min_coverage: f64) -> bool {
    covered == all || (covered > 0 && covered as f64 >= all as f64 * min_coverage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_enough_or_not() {
        for (covered, all, min, enough) in [
            (4, 4, 1.0, true),
            (3, 4, 1.0, false),
            (3, 4, 0.75, true),
            (2, 4, 0.75, false),
            (0, 4, 0.0, false),
            (1, 4, 0.0, true),
        ] {
            assert_eq!(suffices(covered, all, min), enough, "{covered} of {all}, {min}");
        }
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            check_coverage(bad).expect_err("no share");
        }
    }
}
