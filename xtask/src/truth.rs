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

/// The exact nearest vectors to some queries, by cosine similarity.
#[derive(Debug)]
pub struct Truth<'a> {
    data: &'a Dataset,
    rows: BTreeMap<&'a str, usize>,
    norms: Vec<f64>,
    queries: &'a [Vec<f32>],
    /// For each query the `k` nearest rows with their scores.
    nearest: Vec<Vec<(usize, f64)>>,
}

impl<'a> Truth<'a> {
    /// Compares every query with every vector, on all cores.
    pub fn compute(data: &'a Dataset, queries: &'a [Vec<f32>], k: usize) -> Truth<'a> {
        let norms: Vec<f64> = data.vectors().map(norm).collect();
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let share = queries.len().div_ceil(workers).max(1);
        let nearest = thread::scope(|scope| {
            let norms = &norms;
            let of_part = |part: &'a [Vec<f32>]| {
                scope.spawn(move || {
                    part.iter().map(|query| nearest(data, norms, query, k)).collect::<Vec<_>>()
                })
            };
            let parts: Vec<_> = queries.chunks(share).map(of_part).collect();
            parts.into_iter().flat_map(|part| part.join().expect("arithmetic does not panic")).collect()
        });
        Truth { data, rows: data.rows(), norms, queries, nearest }
    }

    fn score(&self, query: usize, row: usize) -> f64 {
        let query = &self.queries[query];
        cosine(query, norm(query), self.data.vector(row), self.norms[row])
    }

    /// How far two scores may be apart and still count as equal.
    fn slack(&self) -> f64 {
        2.0 * rounding(self.data.dimension)
    }

    /// Checks the answer to one query, ids with scores; the error says what is wrong with it.
    pub fn check(&self, query: usize, hits: &[(String, f32)]) -> Result<()> {
        let nearest = &self.nearest[query];
        let (got, wanted) = (hits.len(), nearest.len());
        ensure!(got == wanted, "query {query}: {got} hits instead of {wanted}");
        let slack = self.slack();
        let mut rows = BTreeSet::new();
        let mut last = f64::INFINITY;
        for (id, score) in hits {
            let Some(&row) = self.rows.get(id.as_str()) else {
                bail!("query {query}: {id:?} is no id of the data");
            };
            ensure!(rows.insert(row), "query {query}: {id:?} is there twice");
            let exact = self.score(query, row);
            let off = (f64::from(*score) - exact).abs();
            ensure!(off <= slack, "query {query}: {id:?} has the score {score}, exactly it is {exact}");
            ensure!(exact <= last + slack, "query {query}: {id:?} stands behind a vector that is less near");
            last = last.min(exact);
        }
        // If any vector is missing that is nearer than the last hit, one of the nearest is.
        let missed = nearest.iter().find(|(row, score)| !rows.contains(row) && *score > last + slack);
        if let Some((row, score)) = missed {
            let id = &self.data.ids[*row];
            bail!("query {query}: {id:?} is missing: its score is {score}, that of the last hit {last}");
        }
        Ok(())
    }

    /// How many hits should be found in all.
    pub fn wanted(&self) -> usize {
        self.nearest.iter().map(Vec::len).sum()
    }

    /// How many of a query's hits are as near as the exact nearest, up to rounding.
    pub fn right(&self, query: usize, hits: &[(String, f32)]) -> usize {
        let Some((_, worst)) = self.nearest[query].last() else { return 0 };
        let rows: BTreeSet<usize> =
            hits.iter().filter_map(|(id, _)| self.rows.get(id.as_str()).copied()).collect();
        rows.into_iter().filter(|row| self.score(query, *row) >= worst - self.slack()).count()
    }
}

/// The `k` rows with the highest scores, highest first.
fn nearest(data: &Dataset, norms: &[f64], query: &[f32], k: usize) -> Vec<(usize, f64)> {
    let length = norm(query);
    let score = |(row, (vector, norm)): (usize, (&[f32], &f64))| (row, cosine(query, length, vector, *norm));
    let mut scores: Vec<(usize, f64)> = data.vectors().zip(norms).enumerate().map(score).collect();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    scores.truncate(k);
    scores
}

fn norm(vector: &[f32]) -> f64 {
    dot(vector, vector).sqrt()
}

/// A vector without length has no direction: its similarity to everything is 0.
fn cosine(a: &[f32], a_norm: f64, b: &[f32], b_norm: f64) -> f64 {
    let lengths = a_norm * b_norm;
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

/// Eight sums side by side, since one alone would have to wait for each of its additions.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let (a_blocks, a_rest) = a.as_chunks::<8>();
    let (b_blocks, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0_f64; 8];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for (sum, (x, y)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += f64::from(*x) * f64::from(*y);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    sums.iter().sum::<f64>() + rest
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
        let truth = Truth::compute(&data, &queries, 2);
        for answer in [hits(&[("a", 1.0), ("b", 1.0)]), hits(&[("b", 1.0), ("a", 1.0)])] {
            truth.check(0, &answer).expect("right");
            assert_eq!(truth.right(0, &answer), 2);
        }
        let one = Truth::compute(&data, &queries, 1);
        one.check(0, &hits(&[("b", 1.0)])).expect("either of a tie may be left out");
        let all = Truth::compute(&data, &queries, 9);
        let answer = hits(&[("a", 1.0), ("b", 1.0), ("across", 0.0), ("opposite", -1.0)]);
        all.check(0, &answer).expect("all there are");
        assert_eq!(all.wanted(), 4);
    }

    #[test]
    fn wrong_answers_are_named() {
        let data = data();
        let queries = [vec![5.0, 0.0]];
        let truth = Truth::compute(&data, &queries, 2);
        for (answer, complaint) in [
            (hits(&[("a", 1.0)]), "1 hits instead of 2"),
            (hits(&[("a", 1.0), ("a", 1.0)]), "is there twice"),
            (hits(&[("a", 1.0), ("nobody", 1.0)]), "is no id"),
            (hits(&[("a", 1.0), ("across", 0.0)]), "\"b\" is missing"),
            (hits(&[("a", 1.0), ("b", 0.5)]), "has the score 0.5"),
            (hits(&[("across", 0.0), ("a", 1.0)]), "stands behind"),
        ] {
            let error = truth.check(0, &answer).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
        assert_eq!(truth.right(0, &hits(&[("a", 1.0), ("across", 0.0)])), 1);
    }
}
