//! Merging the hits of several nodes into one list for each query.
//!
//! Pure. Order: nearest first, equal scores by id. An id that comes from two replies (its shard was asked
//! twice) is kept once.

use slowdb_proto::{Hit, Metric};
use std::cmp::Ordering;

/// Nearest first, then by id. Scores that are no numbers come last, so that they can hide nothing.
pub(crate) fn order(metric: Metric, a: &Hit, b: &Hit) -> Ordering {
    let by_score = match (a.score.is_nan(), b.score.is_nan()) {
        (false, false) if metric.greater_is_nearer() => b.score.total_cmp(&a.score),
        (false, false) => a.score.total_cmp(&b.score),
        (a_nan, b_nan) => a_nan.cmp(&b_nan),
    };
    by_score.then_with(|| a.id.cmp(&b.id))
}

/// The best `k` of several lists.
pub(crate) fn merge(metric: Metric, k: usize, lists: impl IntoIterator<Item = Vec<Hit>>) -> Vec<Hit> {
    let mut all: Vec<Hit> = lists.into_iter().flatten().collect();
    all.sort_by(|a, b| order(metric, a, b));
    let mut seen = std::collections::HashSet::with_capacity(all.len());
    all.retain(|hit| seen.insert(hit.id.clone()));
    all.truncate(k);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hit(id: &str, score: f32) -> Hit {
        Hit { id: id.into(), score }
    }

    #[test]
    fn ties_go_by_id_and_an_id_is_kept_once() {
        let lists = [vec![hit("b", 1.0), hit("z", 0.5)], vec![hit("a", 1.0), hit("z", 0.5)]];
        let merged = merge(Metric::Cosine, 10, lists);
        assert_eq!(merged, [hit("a", 1.0), hit("b", 1.0), hit("z", 0.5)]);
    }

    #[test]
    fn squared_distances_are_nearest_when_small() {
        let merged = merge(Metric::L2, 1, [vec![hit("far", 9.0)], vec![hit("near", 0.25)]]);
        assert_eq!(merged, [hit("near", 0.25)]);
    }

    #[test]
    fn a_score_that_is_no_number_comes_last() {
        for metric in [Metric::L2, Metric::Cosine] {
            let merged = merge(metric, 2, [vec![hit("nan", f32::NAN)], vec![hit("x", -1.0)]]);
            assert_eq!(merged[0].id, "x", "{metric:?}");
        }
    }

    proptest! {
        /// However records are spread over nodes, the merged top k is the top k of them all, as long as
        /// each node sends its own top k.
        #[test]
        fn a_merge_of_tops_is_the_top_of_all(
            scores in prop::collection::vec(0i8..20, 0..60),
            nodes in 1usize..6,
            k in 0usize..20,
            l2 in any::<bool>(),
        ) {
            let metric = if l2 { Metric::L2 } else { Metric::InnerProduct };
            let all: Vec<Hit> =
                scores.iter().enumerate().map(|(i, s)| hit(&format!("r{i:02}"), f32::from(*s))).collect();
            let mut lists = vec![Vec::new(); nodes];
            for (i, h) in all.iter().enumerate() {
                lists[(i * 7 + scores[i] as usize) % nodes].push(h.clone());
            }
            for list in &mut lists {
                list.sort_by(|a, b| order(metric, a, b));
                list.truncate(k);
            }
            let mut wanted = all;
            wanted.sort_by(|a, b| order(metric, a, b));
            wanted.truncate(k);
            prop_assert_eq!(merge(metric, k, lists), wanted);
        }
    }
}
