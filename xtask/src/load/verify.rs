//! Whether what a load wrote is there.
//!
//! A lane writes to an id one value after the other, so after the load an id must hold the value whose write
//! was acknowledged last, or one that was attempted after it. A write whose outcome the client does not know
//! may also have taken effect late, so its value is allowed too.

use super::{Lane, Write, Written, value};
use anyhow::{Result, bail};
use slowdb_client::{Collection, ReadOptions};
use std::collections::BTreeMap;

/// Ids asked for at once.
const CHUNK: usize = 500;
/// Violations that are named; more are only counted.
const NAMED_MAX: usize = 5;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Ids looked at.
    pub ids: u64,
    /// Acknowledged writes among all.
    pub acked: u64,
}

impl Written {
    /// Reads every id at `quorum` and checks that no acknowledged write is lost.
    pub async fn verify(&self, collection: &Collection) -> Result<Verified> {
        let mut verified = Verified { ids: 0, acked: self.acked() };
        let mut violations = Vec::new();
        for lane in &self.lanes {
            let histories = histories(lane);
            let ids: Vec<&str> = histories.keys().copied().collect();
            for chunk in ids.chunks(CHUNK) {
                let records = collection.get_many(chunk, &ReadOptions::default()).await?.records;
                for (id, record) in chunk.iter().zip(records) {
                    let vector = record.as_ref().map(|record| record.vector.as_slice());
                    let found = self.sequence_of(lane.lane, vector);
                    violations.extend(found.and_then(|found| judge(id, &histories[id], found)).err());
                    verified.ids += 1;
                }
            }
        }
        if violations.is_empty() {
            return Ok(verified);
        }
        let count = violations.len();
        violations.truncate(NAMED_MAX);
        bail!("{count} of {} ids do not hold what was acknowledged: {}", verified.ids, violations.join("; "))
    }

    /// Which of a lane's values a vector is, every component compared.
    fn sequence_of(&self, lane: u32, vector: Option<&[f32]>) -> Result<Option<u64>, String> {
        let Some(vector) = vector else { return Ok(None) };
        let sequence = vector.first().map_or(0, |tag| *tag as u64);
        let expected = value(lane, sequence, self.dimension);
        let same = vector.len() == expected.len()
            && vector.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
        if same { Ok(Some(sequence)) } else { Err(format!("a vector that lane {lane} never wrote")) }
    }
}

/// A lane's attempts on each id, in order.
fn histories(lane: &Lane) -> BTreeMap<&str, Vec<&Write>> {
    let mut histories: BTreeMap<&str, Vec<&Write>> = BTreeMap::new();
    for write in &lane.writes {
        histories.entry(&write.id).or_default().push(write);
    }
    histories
}

/// Whether an id with this history may hold this value (`None`: no record).
fn judge(id: &str, history: &[&Write], found: Option<u64>) -> Result<(), String> {
    let last_acked = history.iter().rposition(|write| write.acked.is_some());
    let allowed = |n: usize, write: &Write| match last_acked {
        Some(last) if n <= last => n == last || (write.acked.is_none() && !write.refused),
        _ => !write.refused,
    };
    match found {
        None if last_acked.is_none() => Ok(()),
        None => Err(format!("{id} is gone")),
        Some(sequence) => match history.iter().position(|write| write.sequence == sequence) {
            Some(n) if allowed(n, history[n]) => Ok(()),
            Some(_) => {
                let wanted = last_acked.map(|last| history[last].sequence);
                Err(format!("{id} holds value {sequence}, the last acknowledged is {wanted:?}"))
            }
            None => Err(format!("{id} holds value {sequence}, which was never written to it")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn write(sequence: u64, acked: bool, refused: bool) -> Write {
        let now = Instant::now();
        Write { id: "x".into(), sequence, begun: now, acked: acked.then_some(now), refused }
    }

    fn verdict(writes: &[Write], found: Option<u64>) -> bool {
        judge("x", &writes.iter().collect::<Vec<_>>(), found).is_ok()
    }

    #[test]
    fn the_last_acknowledged_value_or_a_later_attempt_may_stand() {
        let acked = |n| write(n, true, false);
        let unknown = |n| write(n, false, false);
        let refused = |n| write(n, false, true);
        assert!(verdict(&[acked(1), acked(2)], Some(2)));
        assert!(!verdict(&[acked(1), acked(2)], Some(1)), "an older value came back");
        assert!(!verdict(&[acked(1)], None), "an acknowledged write is gone");
        assert!(!verdict(&[acked(1)], Some(7)), "nobody wrote that");
        assert!(verdict(&[acked(1), unknown(2)], Some(1)));
        assert!(verdict(&[acked(1), unknown(2)], Some(2)));
        assert!(verdict(&[unknown(1), acked(2)], Some(1)), "it may have taken effect late");
        assert!(verdict(&[unknown(1)], None));
        assert!(!verdict(&[acked(1), refused(2)], Some(2)), "a refused write took effect");
    }

    #[test]
    fn a_value_is_recognised_by_every_component() {
        let written = Written { lanes: Vec::new(), dimension: 8 };
        let mut vector = value(3, 9, 8);
        assert_eq!(written.sequence_of(3, Some(&vector)), Ok(Some(9)));
        assert_eq!(written.sequence_of(3, None), Ok(None));
        vector[7] += 1.0;
        assert!(written.sequence_of(3, Some(&vector)).is_err());
    }
}
