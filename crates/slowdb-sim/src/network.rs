//! Virtual links: who reaches whom, how long it takes, what goes wrong on the way.

use crate::options::NetOptions;
use crate::random::Random;
use slowdb_repl::Lane;

/// Clients that may be added in the course of a run.
const SCRIPTED_CLIENTS_MAX: usize = 16;

/// What becomes of a frame: when copies of it arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) arrives: [Option<u64>; 2],
    /// A bit is flipped on the way.
    pub(crate) damaged: bool,
}

pub(crate) struct Network {
    options: NetOptions,
    random: Random,
    nodes: usize,
    /// Partitions may overlap: a link is whole when nothing cuts it.
    cuts: Vec<u32>,
    client_cuts: Vec<Vec<u32>>,
    /// How much longer everything takes to and from each node, in microseconds.
    far: Vec<u64>,
    /// The life of the other node that a node's connection leads to.
    connected: Vec<Option<u32>>,
    /// When the last frame of each lane of a link arrives, sorted: lanes keep their order.
    lanes: Vec<Vec<(Lane, u64)>>,
}

impl Network {
    pub(crate) fn new(options: NetOptions, nodes: usize, clients: usize, random: Random) -> Self {
        Network {
            options,
            random,
            nodes,
            cuts: vec![0; nodes * nodes],
            far: vec![0; nodes],
            client_cuts: vec![vec![0; nodes]; clients + SCRIPTED_CLIENTS_MAX],
            connected: vec![None; nodes * nodes],
            lanes: vec![Vec::new(); nodes * nodes],
        }
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn heal(&mut self) {
        self.options = self.options.calm();
        self.cuts.fill(0);
        self.far.fill(0);
        self.client_cuts.iter_mut().for_each(|cuts| cuts.fill(0));
    }

    fn link(&self, from: usize, to: usize) -> usize {
        from * self.nodes + to
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        self.cuts[link] += 1;
    }

    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        self.cuts[link] = self.cuts[link].saturating_sub(1);
    }

    pub(crate) fn cut_client(&mut self, client: usize, node: usize) {
        self.client_cuts[client][node] += 1;
    }

    pub(crate) fn mend_client(&mut self, client: usize, node: usize) {
        self.client_cuts[client][node] = self.client_cuts[client][node].saturating_sub(1);
    }

    /// From now on everything to and from this node takes so much longer, in microseconds.
    #[cfg(test)]
    pub(crate) fn set_far(&mut self, node: usize, micros: u64) {
        self.far[node] = micros;
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[self.link(from, to)] > 0
    }

    pub(crate) fn is_client_cut(&self, client: usize, node: usize) -> bool {
        self.client_cuts.get(client).is_some_and(|cuts| cuts[node] > 0)
    }

    pub(crate) fn connect(&mut self, from: usize, to: usize, life: u32) {
        let link = self.link(from, to);
        self.connected[link] = Some(life);
    }

    pub(crate) fn disconnect(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        self.connected[link] = None;
    }

    /// Whether `from` has a connection to this life of `to`.
    pub(crate) fn is_connected(&self, from: usize, to: usize, life: u32) -> bool {
        self.connected[self.link(from, to)] == Some(life)
    }

    /// When a frame between nodes arrives.
    pub(crate) fn send(&mut self, now: u64, from: usize, to: usize, lane: Lane) -> Fate {
        if self.is_cut(from, to) {
            let held = self.random.chance(self.options.held);
            let at = held.then(|| now + self.random.between(self.options.late_by));
            return Fate { arrives: [at, None], damaged: false };
        }
        if self.random.chance(self.options.loss) {
            return Fate::default();
        }
        let far = self.far[from] + self.far[to];
        let mut at = now + far + self.random.between(self.options.delay);
        if self.random.chance(self.options.late) {
            at += self.random.between(self.options.late_by);
        } else if !self.random.chance(self.options.reorder) {
            let link = self.link(from, to);
            let lanes = &mut self.lanes[link];
            let place = lanes.binary_search_by_key(&lane, |(lane, _)| *lane).unwrap_or_else(|place| {
                lanes.insert(place, (lane, 0));
                place
            });
            let last = &mut lanes[place].1;
            at = at.max(*last);
            *last = at;
        }
        let again = self.random.chance(self.options.duplicate);
        let copy = again.then(|| at + self.random.between(self.options.delay) * 3);
        Fate { arrives: [Some(at), copy], damaged: self.random.chance(self.options.damage) }
    }

    /// When a request or reply between a client and a node arrives, if it does. Sent again by clients only.
    pub(crate) fn send_client(&mut self, now: u64, client: usize, node: usize) -> Option<u64> {
        if self.is_client_cut(client, node) || self.random.chance(self.options.loss) {
            return None;
        }
        let late = if self.random.chance(self.options.late) { self.options.late_by } else { (0, 0) };
        Some(now + self.random.between(self.options.delay) + self.random.between(late))
    }

    /// Flips a bit.
    pub(crate) fn damage(&mut self, bytes: &mut [u8]) {
        let at = self.random.index(bytes.len());
        bytes[at] ^= 1 << self.random.below(8);
    }
}
