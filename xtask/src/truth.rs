//! What the right answer to a search is, computed without SlowDB: every score in double precision.
//!
//! Scores that SlowDB computes in single precision can order two vectors differently when their exact
//! scores are closer than rounding can tell, and equal vectors tie. So an answer is right when
//!
//! - it has `k` different ids (or all there are), nearest first,
//! - each score is the exact one, up to rounding,
//! - no vector was left out that is nearer than the last hit by more than rounding.

use crate::dataset::Dataset;
use anyhow::{Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::thread;

/// How far a single-precision score of vectors of that dimension may be from the exact one, for scores
/// around one.
fn rounding(dimension: usize) -> f64 {
    f64::from(f32::EPSILON) * (dimension as f64).sqrt().max(8.0)
}

/// Exact cosine similarities of every query with every vector.
#[derive(Debug)]
pub struct Truth<'a> {
    data: &'a Dataset,
    rows: BTreeMap<&'a str, usize>,
    /// For each query the scores of all rows.
    scores: Vec<Vec<f64>>,
}

impl<'a> Truth<'a> {
    /// Computes all scores, on all cores.
    pub fn compute<'q>(data: &'a Dataset, queries: &'q [Vec<f32>]) -> Truth<'a> {
        let norms: Vec<f64> = data.vectors().map(norm).collect();
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let share = queries.len().div_ceil(workers).max(1);
        let scores = thread::scope(|scope| {
            let norms = &norms;
            let of_part = |part: &'q [Vec<f32>]| {
                scope
                    .spawn(move || part.iter().map(|query| scores_of(data, norms, query)).collect::<Vec<_>>())
            };
            let parts: Vec<_> = queries.chunks(share).map(of_part).collect();
            parts.into_iter().flat_map(|part| part.join().expect("arithmetic does not panic")).collect()
        });
        Truth { data, rows: data.rows(), scores }
    }

    /// Checks the answer to one query, ids with scores; the error says what is wrong with it.
    pub fn check(&self, query: usize, k: usize, hits: &[(String, f32)]) -> Result<()> {
        let scores = &self.scores[query];
        let wanted = k.min(self.data.len());
        ensure!(hits.len() == wanted, "query {query}: {} hits instead of {wanted}", hits.len());
        let slack = 2.0 * rounding(self.data.dimension);
        let mut rows = BTreeSet::new();
        let mut last = f64::INFINITY;
        for (id, score) in hits {
            let Some(&row) = self.rows.get(id.as_str()) else {
                bail!("query {query}: {id:?} is no id of the data");
            };
            ensure!(rows.insert(row), "query {query}: {id:?} is there twice");
            let exact = scores[row];
            let off = (f64::from(*score) - exact).abs();
            ensure!(off <= slack, "query {query}: {id:?} has the score {score}, exactly it is {exact}");
            ensure!(exact <= last + slack, "query {query}: {id:?} stands behind a vector that is less near");
            last = last.min(exact);
        }
        let missed = (0..scores.len()).find(|row| !rows.contains(row) && scores[*row] > last + slack);
        if let Some(row) = missed {
            let (id, score) = (&self.data.ids[row], scores[row]);
            bail!("query {query}: {id:?} is missing: its score is {score}, that of the last hit {last}");
        }
        Ok(())
    }

    /// How many of the hits are as near as the exact `k` nearest, up to rounding.
    pub fn right(&self, query: usize, k: usize, hits: &[(String, f32)]) -> usize {
        let scores = &self.scores[query];
        let mut order = scores.clone();
        order.sort_by(|a, b| b.total_cmp(a));
        let Some(worst) = k.min(order.len()).checked_sub(1).map(|last| order[last]) else { return 0 };
        let slack = 2.0 * rounding(self.data.dimension);
        let rows: BTreeSet<usize> =
            hits.iter().filter_map(|(id, _)| self.rows.get(id.as_str()).copied()).collect();
        rows.into_iter().filter(|row| scores[*row] >= worst - slack).count()
    }
}

fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// Cosine similarity of a query with every row; a vector without length has no direction and scores 0.
fn scores_of(data: &Dataset, norms: &[f64], query: &[f32]) -> Vec<f64> {
    let length = norm(query);
    let score = |(vector, norm): (&[f32], &f64)| {
        let dot: f64 = vector.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let lengths = length * norm;
        if lengths > 0.0 { dot / lengths } else { 0.0 }
    };
    data.vectors().zip(norms).map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four vectors: two equal, one across, one opposite.
    fn data() -> Dataset {
        let ids = ["a", "b", "across", "opposite"].map(str::to_owned).to_vec();
        Dataset::new(2, ids, vec![1.0, 0.0, 2.0, 0.0, 0.0, 3.0, -1.0, 0.0])
    }

    fn hits(pairs: &[(&str, f32)]) -> Vec<(String, f32)> {
        pairs.iter().map(|(id, score)| ((*id).to_owned(), *score)).collect()
    }

    #[test]
    fn right_answers_pass_in_either_order_of_a_tie() {
        let data = data();
        let queries = [vec![5.0, 0.0]];
        let truth = Truth::compute(&data, &queries);
        for answer in [hits(&[("a", 1.0), ("b", 1.0)]), hits(&[("b", 1.0), ("a", 1.0)])] {
            truth.check(0, 2, &answer).expect("right");
            assert_eq!(truth.right(0, 2, &answer), 2);
        }
        truth.check(0, 1, &hits(&[("b", 1.0)])).expect("either of a tie may be left out");
        truth
            .check(0, 9, &hits(&[("a", 1.0), ("b", 1.0), ("across", 0.0), ("opposite", -1.0)]))
            .expect("all");
    }

    #[test]
    fn wrong_answers_are_named() {
        let data = data();
        let queries = [vec![5.0, 0.0]];
        let truth = Truth::compute(&data, &queries);
        for (answer, complaint) in [
            (hits(&[("a", 1.0)]), "1 hits instead of 2"),
            (hits(&[("a", 1.0), ("a", 1.0)]), "is there twice"),
            (hits(&[("a", 1.0), ("nobody", 1.0)]), "is no id"),
            (hits(&[("a", 1.0), ("across", 0.0)]), "\"b\" is missing"),
            (hits(&[("a", 1.0), ("b", 0.5)]), "has the score 0.5"),
            (hits(&[("across", 0.0), ("a", 1.0)]), "stands behind"),
        ] {
            let error = truth.check(0, 2, &answer).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
        assert_eq!(truth.right(0, 2, &hits(&[("a", 1.0), ("across", 0.0)])), 1);
    }
}
