//! Exact search: a linear walk over all slots, keeping the best `k` for each query.
//!
//! Vectors are looked at where they lie, eight at a time, for all queries of a batch, so that each is loaded
//! from memory once. Only a candidate that would enter the result costs more than its distance: its record
//! is read for ties and for the filter.
#![expect(unsafe_code, reason = "reads vectors out of mapped files through SIMD kernels")]

mod kernel;
mod top;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Corruption, ReadError};
use crate::layout::Geometry;
use crate::reader::{Reader, ShortSnapshot};
use crate::types::{RecordRef, Version};
use kernel::{Kernels, QUERIES, ROWS, prefetch};
use top::Top;

/// How near two vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The score is the squared Euclidean distance; smaller is nearer.
    L2,
    /// The score is the sum of the differences' absolute values (Manhattan distance); smaller is nearer.
    L1,
    /// The score is the inner product; greater is nearer.
    InnerProduct,
    /// The score is the cosine of the angle, -1 to 1; greater is nearer. A vector of length zero has 0 to
    /// every other.
    Cosine,
}

/// Decides whether a record may be in a result. It is asked only about records near enough, in no particular
/// order, perhaps more than once.
pub type Filter = dyn Fn(&RecordRef<'_>) -> bool + Sync;

/// What to search for.
#[derive(Clone, Copy)]
pub struct SearchQuery<'a> {
    /// One query vector, or several, one after the other. A batch is faster than its queries one by one.
    pub vectors: &'a [f32],
    /// How many records to find for each.
    pub k: usize,
    /// How to compare.
    pub metric: Metric,
    /// Which records count; all without it.
    pub filter: Option<&'a Filter>,
    /// How many threads walk over the records, the caller's own among them: as many as there are processors to
    /// spare. The others are started for this search. The result does not depend on it.
    pub threads: NonZeroUsize,
}

impl<'a> SearchQuery<'a> {
    /// The `k` nearest to each query, among all records, by the caller's thread.
    pub fn new(vectors: &'a [f32], k: usize, metric: Metric) -> Self {
        Self { vectors, k, metric, filter: None, threads: NonZeroUsize::MIN }
    }
}

/// A record found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Its id.
    pub id: Vec<u8>,
    /// How near it is; what that means says the [`Metric`]. Always finite: sums beyond the range of `f32`
    /// are given as its largest number.
    pub score: f32,
    /// Its version.
    pub version: Version,
}

impl Reader {
    /// The nearest records to each query, nearest first, as of one moment. Equal scores are ordered by id,
    /// bytewise. The same search over the same records gives the same bits on the same machine, whatever
    /// slots they are in and however queries are batched.
    ///
    /// The first search after the store was opened also compares every record with its hash.
    ///
    /// # Errors
    /// If the queries do not fit the store, or a record that had to be looked at is damaged.
    pub fn search(&self, query: &SearchQuery<'_>) -> Result<Vec<Vec<Hit>>, ReadError> {
        self.snapshot().search(query)
    }
}

impl ShortSnapshot<'_> {
    /// As [`Reader::search`], among these records.
    ///
    /// # Errors
    /// As for [`Reader::search`].
    pub fn search(&self, query: &SearchQuery<'_>) -> Result<Vec<Vec<Hit>>, ReadError> {
        let dimension = self.shared.geometry.dimension;
        check_query(query.vectors, dimension)?;
        let count = query.vectors.len() / dimension;
        if query.k == 0 || count == 0 {
            return Ok(vec![Vec::new(); count]);
        }
        let queries = Queries::new(query.vectors, dimension, self.shared.geometry.padded());
        let next = AtomicUsize::new(0);
        let walk = || Walk::new(self, query, &queries).run(&next);
        let ranges = self.slots().div_ceil(range_slots(&self.shared.geometry) as u64) as usize;
        let others = query.threads.get().min(ranges).saturating_sub(1);
        let tops = std::thread::scope(|scope| {
            let others: Vec<_> = (0..others).map(|_| scope.spawn(walk)).collect();
            let mut tops = walk()?;
            for other in others {
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                tops.iter_mut().zip(other).for_each(|(top, other)| top.absorb(other));
            }
            Ok::<_, Corruption>(tops)
        })?;
        let hits = |top: Top<'_>| top.into_sorted().map(|c| c.to_hit(query.metric)).collect();
        Ok(tops.into_iter().map(hits).collect())
    }
}

/// The kind of instructions that searches use on this processor: "avx512", "avx2", "neon" or "scalar".
pub fn simd_in_use() -> &'static str {
    Kernels::detected().name
}

fn check_query(vectors: &[f32], dimension: usize) -> Result<(), ReadError> {
    if !vectors.len().is_multiple_of(dimension) {
        return Err(ReadError::QueryDimension { dimension, got: vectors.len() });
    }
    match vectors.iter().position(|x| !x.is_finite()) {
        Some(n) => {
            Err(ReadError::QueryNotFinite { query: n / dimension, index: n % dimension, value: vectors[n] })
        }
        None => Ok(()),
    }
}

/// The queries, padded with zeros as the stored vectors are.
struct Queries {
    padded: Vec<f32>,
    len: usize,
    norms: Vec<f64>,
    /// The smallest squared length of a row for which `f32` does for a cosine.
    rows_from: Vec<f64>,
}

impl Queries {
    fn new(vectors: &[f32], dimension: usize, len: usize) -> Self {
        let count = vectors.len() / dimension;
        let mut padded = vec![0.0; count * len];
        for (to, from) in padded.chunks_exact_mut(len).zip(vectors.chunks_exact(dimension)) {
            to[..dimension].copy_from_slice(from);
        }
        let norms: Vec<f64> =
            vectors.chunks_exact(dimension).map(|v| exact(Metric::InnerProduct, v, v).sqrt()).collect();
        // A product below the smallest normal number is off by at most 2^-24 of that number. So the sums are
        // off by at most 2^-24 of the row's squared length, and of the product of both lengths, if each of
        // these is as large as the smallest normal number times the components. The sums themselves cannot
        // tell: a zero may be right, and there can be many that are.
        let least = len as f64 * f64::from(f32::MIN_POSITIVE);
        let rows_from = |norm: &f64| if *norm == 0.0 { least } else { least.max((least / norm).powi(2)) };
        let rows_from = norms.iter().map(rows_from).collect();
        Self { padded, len, norms, rows_from }
    }

    /// Whether the sums of query `n` and a row, in `f32`, are good enough for a cosine, if they are finite.
    fn fit(&self, n: usize, row_squared: f32) -> bool {
        row_squared.is_finite() && f64::from(row_squared) >= self.rows_from[n]
    }

    fn get(&self, n: usize) -> &[f32] {
        &self.padded[n * self.len..(n + 1) * self.len]
    }
}

/// Rows that share a page are read in an order that processors do not foresee; longer ones are streams of
/// their own, which they do.
const PREFETCH_STRIDE_MAX: usize = 2048;
/// How many bytes ahead of the gathering memory is asked for.
const PREFETCH_AHEAD: usize = 8192;

/// How much smaller than the worst of a result a cosine has to be, of it, to be taken for smaller before it is computed:
/// more than all roundings on the way together.
const COSINE_MARGIN: f64 = 1e-6;

/// Slots gathered to be compared together.
struct Rows {
    count: usize,
    slots: [u32; ROWS],
    vectors: [*const f32; ROWS],
}

impl Default for Rows {
    fn default() -> Self {
        Self { count: 0, slots: [0; ROWS], vectors: [std::ptr::null(); ROWS] }
    }
}

/// Slots that a thread walks over before it looks for others, all in one extent: both are powers of two.
fn range_slots(geometry: &Geometry) -> usize {
    geometry.slots_per_extent().min(4096)
}

/// One thread of a search.
struct Walk<'a> {
    snapshot: &'a ShortSnapshot<'a>,
    query: &'a SearchQuery<'a>,
    kernels: &'static Kernels,
    queries: &'a Queries,
    top: Vec<Top<'a>>,
    rows: Rows,
}

impl<'a> Walk<'a> {
    fn new(snapshot: &'a ShortSnapshot<'a>, query: &'a SearchQuery<'a>, queries: &'a Queries) -> Self {
        let top = queries.norms.iter().map(|_| Top::new(query.k)).collect();
        Walk { snapshot, query, kernels: Kernels::detected(), queries, top, rows: Rows::default() }
    }

    /// Walks over ranges that nobody has taken yet, until there are none.
    fn run(mut self, next: &AtomicUsize) -> Result<Vec<Top<'a>>, Corruption> {
        let shared = self.snapshot.shared;
        let slots = self.snapshot.slots() as usize;
        let step = range_slots(&shared.geometry);
        loop {
            let first = next.fetch_add(step, Ordering::Relaxed);
            if first >= slots {
                break;
            }
            self.range(first..slots.min(first + step))?;
        }
        self.compare_rows()?;
        Ok(self.top)
    }

    /// Walks over slots of one extent.
    fn range(&mut self, slots: Range<usize>) -> Result<(), Corruption> {
        let shared = self.snapshot.shared;
        let per_extent = shared.geometry.slots_per_extent();
        let (number, from) = (slots.start / per_extent, slots.start % per_extent);
        let extent = shared.extent(number);
        let lives = &shared.lives(number, extent)[from..from + slots.len()];
        let check = !extent.is_all_verified();
        let stride = shared.geometry.stride;
        let vectors = extent.vectors.ptr(from * stride, lives.len() * stride).cast_const();
        // The kernel that sums up two things at once does so itself.
        let prefetches = stride <= PREFETCH_STRIDE_MAX && !self.wants_norms_of_one();
        for (n, life) in lives.iter().enumerate() {
            if !life.is_visible(self.snapshot.pin.at) {
                continue;
            }
            let slot = (slots.start + n) as u32;
            if check && !extent.is_verified(from + n) {
                // SAFETY: the slot is visible at the pin.
                unsafe { shared.verify(slot)? };
            }
            if prefetches {
                prefetch(vectors.wrapping_add(n * stride + PREFETCH_AHEAD), stride);
            }
            self.rows.slots[self.rows.count] = slot;
            // SAFETY: inside the range that was asked for.
            self.rows.vectors[self.rows.count] = unsafe { vectors.add(n * stride) }.cast::<f32>();
            self.rows.count += 1;
            if self.rows.count == ROWS {
                self.compare_rows()?;
            }
        }
        // What was dead already may be visible to an older snapshot.
        let is_good = |n| extent.is_verified(n) || !shared.live_at_open.get(number * per_extent + n);
        if check && (0..per_extent).all(is_good) {
            extent.set_all_verified();
        }
        Ok(())
    }

    /// Whether this is a search for the cosines of a single query.
    fn wants_norms_of_one(&self) -> bool {
        self.query.metric == Metric::Cosine && self.top.len() == 1
    }

    /// Compares the gathered rows with all queries.
    fn compare_rows(&mut self) -> Result<(), Corruption> {
        let count = std::mem::take(&mut self.rows.count);
        if count == 0 {
            return Ok(());
        }
        // Missing rows are the last one again, whose scores are then not looked at.
        let last = self.rows.vectors[count - 1];
        self.rows.vectors[count..].fill(last);
        let rows = self.rows.vectors;
        let len = self.queries.len;
        let mut norms = [0.0; ROWS];
        if self.wants_norms_of_one() {
            let mut raw = [0.0; ROWS];
            let query = self.queries.get(0).as_ptr();
            // SAFETY: as for the kernels below.
            unsafe { (self.kernels.dot_one_with_norms)(query, &rows, len, &mut raw, &mut norms) };
            return self.take(0, count, &raw, &norms);
        }
        let (one, four) = match self.query.metric {
            Metric::L2 => (self.kernels.l2_one, self.kernels.l2_four),
            Metric::L1 => (self.kernels.l1_one, self.kernels.l1_four),
            Metric::InnerProduct | Metric::Cosine => (self.kernels.dot_one, self.kernels.dot_four),
        };
        if self.query.metric == Metric::Cosine {
            // SAFETY: as for the kernels below.
            unsafe { (self.kernels.norms)(&rows, len, &mut norms) };
        }
        let total = self.top.len();
        let mut q = 0;
        while q < total {
            let mut raw = [[0.0; ROWS]; QUERIES];
            let step = if total - q >= QUERIES { QUERIES } else { 1 };
            if step == QUERIES {
                let queries = std::array::from_fn(|n| self.queries.get(q + n).as_ptr());
                // SAFETY: rows and queries are `len` numbers each, `len` is a multiple of 16, nobody writes
                // them, and the kernels were chosen for this processor.
                unsafe { four(&queries, &rows, len, &mut raw) };
            } else {
                // SAFETY: as above.
                unsafe { one(self.queries.get(q).as_ptr(), &rows, len, &mut raw[0]) };
            }
            for (n, raw) in raw[..step].iter().enumerate() {
                self.take(q + n, count, raw, &norms)?;
            }
            q += step;
        }
        Ok(())
    }

    /// Offers the rows to a query's result.
    fn take(
        &mut self,
        q: usize,
        count: usize,
        raw: &[f32; ROWS],
        norms: &[f32; ROWS],
    ) -> Result<(), Corruption> {
        if self.all_too_far(q, raw, norms) {
            return Ok(());
        }
        let shared = self.snapshot.shared;
        for (n, raw) in raw[..count].iter().enumerate() {
            let slot = self.rows.slots[n];
            let key = match self.query.metric {
                Metric::L2 | Metric::L1 if raw.is_finite() => *raw,
                Metric::InnerProduct if raw.is_finite() => -*raw,
                Metric::Cosine if raw.is_finite() && self.queries.fit(q, norms[n]) => {
                    -cosine(f64::from(*raw), f64::from(norms[n]).sqrt(), self.queries.norms[q])
                }
                // Beyond or below what `f32` can sum up, which is rare: again, slowly.
                // SAFETY: the slot is visible at the pin.
                metric => self.exact_key(metric, q, unsafe { shared.padded_vector(slot) }),
            };
            if !self.top[q].may_take(key) {
                continue;
            }
            // SAFETY: as above; the pin outlives the result's use of the record.
            let record: RecordRef<'a> = unsafe { shared.record(slot)? };
            if self.top[q].wants(key, record.id) && self.query.filter.is_none_or(|filter| filter(&record)) {
                self.top[q].take(key, &record);
            }
        }
        Ok(())
    }

    /// Whether none of the rows belongs to a query's result, which is so for almost all. May say no of such rows, too.
    fn all_too_far(&self, q: usize, raw: &[f32; ROWS], norms: &[f32; ROWS]) -> bool {
        // Not a number as long as there is room, and then no comparison holds.
        let limit = self.top[q].limit();
        match self.query.metric {
            Metric::L2 | Metric::L1 => {
                raw.iter().fold(true, |all, raw| all & (*raw > limit) & (*raw < f32::INFINITY))
            }
            Metric::InnerProduct => {
                raw.iter().fold(true, |all, raw| all & (-*raw > limit) & (*raw > f32::NEG_INFINITY))
            }
            Metric::Cosine => {
                // Squares are compared, which needs neither roots nor divisions.
                let nearest = f64::from(-limit) * (1.0 - COSINE_MARGIN) * self.queries.norms[q];
                let squared = nearest * nearest;
                let is_too_far = |(raw, norm): (&f32, &f32)| {
                    let (dot, row_squared) = (f64::from(*raw), f64::from(*norm));
                    raw.is_finite()
                        & self.queries.fit(q, *norm)
                        & ((dot <= 0.0) | (dot * dot < squared * row_squared))
                };
                nearest > 0.0 && raw.iter().zip(norms).fold(true, |all, pair| all & is_too_far(pair))
            }
        }
    }

    fn exact_key(&self, metric: Metric, q: usize, row: &[f32]) -> f32 {
        let query = self.queries.get(q);
        match metric {
            Metric::L2 | Metric::L1 => clamp(exact(metric, query, row)),
            Metric::InnerProduct => -clamp(exact(metric, query, row)),
            Metric::Cosine => {
                let norm = exact(Metric::InnerProduct, row, row).sqrt();
                -cosine(exact(Metric::InnerProduct, query, row), norm, self.queries.norms[q])
            }
        }
    }
}

/// The distance (of L2 squared), or else the inner product, in `f64`, which no two `f32` vectors overflow.
fn exact(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    match metric {
        Metric::L2 => pairs.map(|(a, b)| (a - b) * (a - b)).sum(),
        Metric::L1 => pairs.map(|(a, b)| (a - b).abs()).sum(),
        Metric::InnerProduct | Metric::Cosine => pairs.map(|(a, b)| a * b).sum(),
    }
}

fn cosine(dot: f64, a: f64, b: f64) -> f32 {
    if a == 0.0 || b == 0.0 { 0.0 } else { (dot / a / b).clamp(-1.0, 1.0) as f32 }
}

fn clamp(score: f64) -> f32 {
    score.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

#[cfg(test)]
mod tests;
