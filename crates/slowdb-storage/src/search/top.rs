//! The best `k` candidates seen so far.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::{Hit, Metric};
use crate::types::{RecordRef, Version};

/// A record that is in the result for now. Its id is still in the mapped file.
pub(super) struct Candidate<'a> {
    /// Smaller is better, for every metric.
    key: f32,
    id: &'a [u8],
    version: Version,
}

impl Candidate<'_> {
    pub(super) fn to_hit(&self, metric: Metric) -> Hit {
        let score = match metric {
            Metric::L2 | Metric::L1 => self.key,
            // Adding zero makes a negative zero positive.
            Metric::InnerProduct | Metric::Cosine => -self.key + 0.0,
        };
        Hit { id: self.id.to_vec(), score, version: self.version }
    }
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        order(self.key, self.id, other.key, other.id)
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate<'_> {}

fn order(key: f32, id: &[u8], other_key: f32, other_id: &[u8]) -> Ordering {
    key.total_cmp(&other_key).then_with(|| id.cmp(other_id))
}

/// The result of one query on its way: the worst of the best on top.
pub(super) struct Top<'a> {
    k: usize,
    heap: BinaryHeap<Candidate<'a>>,
    /// The worst key of a full result. Not a number as long as there is room.
    limit: f32,
}

impl<'a> Top<'a> {
    pub(super) fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new(), limit: f32::NAN }
    }

    /// The worst key of a full result; not a number as long as there is room.
    pub(super) fn limit(&self) -> f32 {
        self.limit
    }

    /// Whether a candidate with this key could be wanted. Says so without looking at the candidate, for
    /// almost all of them no.
    pub(super) fn may_take(&self, key: f32) -> bool {
        // Room makes the limit not a number, to which nothing is greater.
        !matches!(key.partial_cmp(&self.limit), Some(Ordering::Greater))
    }

    /// Whether a candidate belongs to the result as it is.
    pub(super) fn wants(&self, key: f32, id: &[u8]) -> bool {
        self.heap.len() < self.k
            || self.heap.peek().is_some_and(|worst| order(key + 0.0, id, worst.key, worst.id).is_lt())
    }

    /// Takes a candidate that is wanted.
    pub(super) fn take(&mut self, key: f32, record: &RecordRef<'a>) {
        if self.heap.len() == self.k {
            self.heap.pop();
        }
        // Adding zero makes a negative zero positive, so that equal scores are equal keys.
        self.heap.push(Candidate { key: key + 0.0, id: record.id, version: record.version });
        if self.heap.len() == self.k {
            self.limit = self.heap.peek().map_or(f32::NAN, |worst| worst.key);
        }
    }

    /// Takes in what another thread has found among other records.
    pub(super) fn absorb(&mut self, other: Self) {
        self.heap.extend(other.heap);
        while self.heap.len() > self.k {
            self.heap.pop();
        }
    }

    pub(super) fn into_sorted(self) -> impl Iterator<Item = Candidate<'a>> {
        self.heap.into_sorted_vec().into_iter()
    }
}
