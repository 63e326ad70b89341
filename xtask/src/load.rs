//! Steady `quorum` writes on every shard, each remembered, so that afterwards it can be said of every
//! acknowledged one whether it is still there, and of every shard when it refused.
//!
//! Each shard has some lanes. A lane writes one value at a time and waits for the outcome: every other write
//! goes to an id of its own, the rest overwrite a few ids again and again. So lost writes and overwrites
//! that went backwards both show.

mod verify;

pub use verify::Verified;

use anyhow::{Result, bail};
use slowdb_client::{Collection, WriteOptions};
use slowdb_ring::shard_of;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Ids that a lane overwrites.
const HOT_IDS: u64 = 4;
/// Pause of a lane after a write that failed, so that a cluster without a leader is not flooded.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(5);

/// What to write.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Shards of the collection.
    pub num_shards: u32,
    /// Components of its vectors.
    pub dimension: usize,
    /// Concurrent writers for each shard.
    pub lanes_per_shard: u32,
    /// Starts every id, so that two loads do not meet.
    pub prefix: String,
    /// When a write counts as failed.
    pub timeout: Duration,
}

/// One attempt to write.
#[derive(Clone, Debug)]
pub struct Write {
    /// The id written to.
    pub id: String,
    /// Which value, see [`value`].
    pub sequence: u64,
    /// When it was sent.
    pub begun: Instant,
    /// When it was acknowledged, or that it was not.
    pub acked: Option<Instant>,
    /// Whether it certainly did not take effect.
    pub refused: bool,
}

/// What one lane did, in order.
#[derive(Debug)]
pub struct Lane {
    /// Its number.
    pub lane: u32,
    /// The shard it wrote to.
    pub shard: u32,
    /// Its writes.
    pub writes: Vec<Write>,
    /// The last error, if there was one.
    pub last_error: Option<String>,
}

/// How far a shard is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Acknowledged writes.
    pub acked: u64,
    /// When the latest of the acknowledged writes was sent.
    pub newest_begun: Option<Instant>,
}

/// A load under way.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    lanes: JoinSet<Lane>,
    options: LoadOptions,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    acked: Notify,
    progress: Mutex<Vec<Progress>>,
}

/// The value that a lane writes as its `sequence`th: told apart by the first component.
pub fn value(lane: u32, sequence: u64, dimension: usize) -> Vec<f32> {
    let mut state = u64::from(lane) << 32 | sequence;
    let mut vector: Vec<f32> = (0..dimension).map(|_| small(&mut state)).collect();
    // Exact: both stay below 2^24. The sequence comes first: with one component only, the id tells the lane.
    let tags = [sequence as f32, lane as f32];
    vector.iter_mut().zip(tags).for_each(|(component, tag)| *component = tag);
    vector
}

/// A number in -1..1 from a state that it moves on.
fn small(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 40) as f32) / ((1 << 23) as f32) - 1.0
}

impl Load {
    /// Starts to write.
    pub fn start(collection: &Collection, options: LoadOptions) -> Load {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            acked: Notify::new(),
            progress: Mutex::new(vec![Progress::default(); options.num_shards as usize]),
        });
        let mut lanes = JoinSet::new();
        for lane in 0..options.num_shards * options.lanes_per_shard {
            let (shared, collection, options) = (Arc::clone(&shared), collection.clone(), options.clone());
            lanes.spawn(run_lane(shared, collection, options, lane));
        }
        Load { shared, lanes, options }
    }

    /// How far each shard is.
    pub fn progress(&self) -> Vec<Progress> {
        self.shared.progress.lock().expect("no panic while it is held").clone()
    }

    /// Waits until every one of these shards satisfies a condition.
    pub async fn wait(
        &self,
        what: &str,
        shards: &[u32],
        deadline: Duration,
        holds: impl Fn(&Progress) -> bool,
    ) -> Result<()> {
        let end = tokio::time::Instant::now() + deadline;
        loop {
            let acked = self.shared.acked.notified();
            let progress = self.progress();
            let late: Vec<u32> = shards.iter().copied().filter(|s| !holds(&progress[*s as usize])).collect();
            if late.is_empty() {
                return Ok(());
            }
            if tokio::time::timeout_at(end, acked).await.is_err() {
                bail!("{what}: not so after {:.0} s on shards {late:?}", deadline.as_secs_f64());
            }
        }
    }

    /// Waits until each of these shards has acknowledged so many more writes than now.
    pub async fn wait_more(&self, more: u64, shards: &[u32], deadline: Duration) -> Result<()> {
        let before = self.progress();
        let what = format!("{more} more writes acknowledged");
        for shard in shards {
            let target = before[*shard as usize].acked + more;
            self.wait(&what, &[*shard], deadline, |progress| progress.acked >= target).await?;
        }
        Ok(())
    }

    /// Waits until each of these shards has acknowledged a write that was sent after `moment`.
    pub async fn wait_ack_after(&self, moment: Instant, shards: &[u32], deadline: Duration) -> Result<()> {
        let is_later = |progress: &Progress| progress.newest_begun.is_some_and(|begun| begun > moment);
        self.wait("a write acknowledged", shards, deadline, is_later).await
    }

    /// Lets every lane end the write it is at, and gives what was written.
    pub async fn stop(mut self) -> Result<Written> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut lanes = Vec::new();
        while let Some(lane) = self.lanes.join_next().await {
            lanes.push(lane?);
        }
        lanes.sort_by_key(|lane| lane.lane);
        Ok(Written { lanes, dimension: self.options.dimension })
    }
}

/// What a load wrote.
#[derive(Debug)]
pub struct Written {
    /// All lanes.
    pub lanes: Vec<Lane>,
    dimension: usize,
}

impl Written {
    fn writes(&self) -> impl Iterator<Item = &Write> {
        self.lanes.iter().flat_map(|lane| &lane.writes)
    }

    /// Writes that were acknowledged.
    pub fn acked(&self) -> u64 {
        self.writes().filter(|write| write.acked.is_some()).count() as u64
    }

    /// Writes that were not.
    pub fn failed(&self) -> u64 {
        self.writes().filter(|write| write.acked.is_none()).count() as u64
    }

    /// Every id that may hold a record, once.
    pub fn ids(&self) -> Vec<&str> {
        self.writes().map(|write| write.id.as_str()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The last error of each lane that had one.
    pub fn errors(&self) -> Vec<&str> {
        self.lanes.iter().filter_map(|lane| lane.last_error.as_deref()).collect()
    }

    /// How long each acknowledged write took.
    pub fn latencies(&self) -> Vec<Duration> {
        self.writes().filter_map(|write| Some(write.acked? - write.begun)).collect()
    }

    /// How long a shard refused writes after `moment`: until the first acknowledgement of a write that was
    /// sent after it. Acknowledgements that were on their way at that moment do not count.
    pub fn refused_after(&self, moment: Instant, shard: u32) -> Option<Duration> {
        let lanes = self.lanes.iter().filter(|lane| lane.shard == shard);
        let later = lanes.flat_map(|lane| &lane.writes).filter(|write| write.begun > moment);
        later.filter_map(|write| write.acked).min().map(|acked| acked - moment)
    }
}

async fn run_lane(shared: Arc<Shared>, collection: Collection, options: LoadOptions, lane: u32) -> Lane {
    let shard = lane % options.num_shards;
    let mut done = Lane { lane, shard, writes: Vec::new(), last_error: None };
    let mut ids =
        Ids { prefix: format!("{}-{lane}", options.prefix), shard, num_shards: options.num_shards, next: 0 };
    let hot: Vec<String> = (0..HOT_IDS).map(|_| ids.next()).collect();
    let write_options = WriteOptions { timeout: Some(options.timeout), ..WriteOptions::default() };
    let mut sequence = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        sequence += 1;
        let is_fresh = sequence % 2 == 0;
        let id = if is_fresh { ids.next() } else { hot[(sequence / 2 % HOT_IDS) as usize].clone() };
        let vector = value(lane, sequence, options.dimension);
        let begun = Instant::now();
        let outcome = collection.put(&id, &vector, &write_options).await;
        let mut write = Write { id, sequence, begun, acked: None, refused: false };
        match outcome {
            Ok(_) => {
                write.acked = Some(Instant::now());
                let mut progress = shared.progress.lock().expect("no panic while it is held");
                let here = &mut progress[shard as usize];
                here.acked += 1;
                here.newest_begun = here.newest_begun.max(Some(begun));
                drop(progress);
                shared.acked.notify_waiters();
            }
            Err(error) => {
                write.refused = !matches!(
                    error.code(),
                    "unknown_outcome" | "level_not_reached" | "bad_reply" | "internal"
                );
                done.last_error = Some(error.to_string());
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
        done.writes.push(write);
    }
    done
}

/// Ids that belong to one shard.
struct Ids {
    prefix: String,
    shard: u32,
    num_shards: u32,
    next: u64,
}

impl Ids {
    fn next(&mut self) -> String {
        loop {
            let id = format!("{}-{}", self.prefix, self.next);
            self.next += 1;
            if shard_of(id.as_bytes(), self.num_shards) == self.shard {
                return id;
            }
        }
    }
}
