//! Replicas to nodes with the fewest moves: a flow of least cost.
//!
//! Each shard sends one unit per wanted replica through a gate per zone to a node, and from there to the end:
//!
//! ```text
//! shard --(k-th unit: k-1 pairs that share)--> gate (shard, zone) --(0 if the node has it, else 1 move)--> node
//! node --(its share, rounded down)--> end;  node --(1)--> extras --(what rounding left over)--> end
//! node --(k-th unit too many: k)--> end
//! ```
//!
//! Costs are compared in the order: units too many (balance), pairs that share a zone, moves. The flow is found by the
//! primal-dual method (Ford and Fulkerson 1957; with potentials that stay feasible, Edmonds and Karp 1972, Tomizawa
//! 1971; see Ahuja, Magnanti, Orlin, Network Flows, 1993, sections 9.7 and 9.8): what is kept for nothing is a flow of
//! cost 0, so of least cost for its size, and a unit sent along a *shortest* path of the residual network keeps the
//! flow one of least cost for what has been sent. When all units are sent, no placement is cheaper.
//!
//! Potentials are lower bounds of every vertex's distance to the end, and they only grow. A step to the next vertex is
//! tight if the bounds before and after it differ by its cost, and a tight path to the end is a shortest one. So a unit
//! whose first free node on the ring is no farther than the bound needs no search ([`Flow::place_directly`]); other
//! tight paths are found many at a time (`paths`); and when there are none, the bounds are raised (`bounds`).

mod bounds;
mod direct;
mod paths;
#[cfg(test)]
mod tests;

use crate::ring::Points;
use crate::shares::Shares;
use crate::zones::Zones;
use std::iter::repeat_n;

use bounds::Bounds;

/// Costs in order of weight: a simple path costs less of one than the next weighs. It meets each node once, so moves
/// stay below [`PAIR`] with up to 2^19 nodes; and each gate once, so pairs stay below [`OVER`] with up to 2^24 replicas.
type Cost = i64;
/// One replica copied.
const MOVE: Cost = 1;
/// Two replicas of a shard in one zone.
const PAIR: Cost = 1 << 20;
/// One replica more on a node than its share rounded up.
const OVER: Cost = 1 << 46;
/// From so many on, one more of them costs no more than the last.
const OVERS_MAX: u32 = 1 << 15;

/// A shard as the flow sees it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Where its walk on the ring starts.
    pub(crate) point: u64,
    /// Nodes to find. At most as many as there are.
    pub(crate) wanted: u32,
    /// Nodes that have it: taking one of them is no move.
    pub(crate) live: Vec<u32>,
    /// Zones of replicas that stay elsewhere whatever is found here.
    pub(crate) fixed: Vec<u32>,
}

/// What is asked.
pub(crate) struct Problem<'a> {
    pub(crate) points: &'a Points,
    /// Zone of each node; zones of others may follow.
    pub(crate) zones: &'a Zones,
    pub(crate) shares: &'a Shares,
    pub(crate) jobs: &'a [Job],
}

/// The nodes of each job, in the order they were found.
pub(crate) fn assign(problem: &Problem<'_>) -> Vec<Vec<u32>> {
    let flow = solve(problem);
    (0..problem.jobs.len()).map(|shard| flow.nodes_of(shard).to_vec()).collect()
}

fn solve<'a>(problem: &'a Problem<'a>) -> Flow<'a> {
    let mut flow = Flow::new(problem);
    flow.keep();
    flow.bound();
    let mut open: Vec<usize> = (0..problem.jobs.len()).filter(|&shard| flow.wants(shard)).collect();
    let mut bounds = Bounds::default();
    while !flow.place_all_directly(&mut open) {
        bounds.raise(&mut flow, &open);
        if !flow.place_all_directly(&mut open) {
            paths::send(&mut flow, &mut open);
        }
    }
    flow
}

struct Flow<'a> {
    problem: &'a Problem<'a>,
    pair: Cost,
    in_zone: Vec<Vec<u32>>,
    /// First slot of each shard, and one past the last of all. A slot carries one replica.
    start: Vec<u32>,
    count: Vec<u32>,
    slots: Vec<u32>,
    /// Whether the replica in each slot is new on its node.
    moved: Vec<bool>,
    shard_of_slot: Vec<u32>,
    /// How many of the nodes that have each shard it is not placed on.
    unplaced: Vec<u32>,
    base: Vec<u32>,
    extra: Vec<bool>,
    over: Vec<u32>,
    extras_used: u32,
    /// Lower bounds of the distance to the end. A gate's is kept with each slot in its zone.
    to_end_shard: Vec<Cost>,
    to_end_slot: Vec<Cost>,
    to_end_node: Vec<Cost>,
    to_end_extras: Cost,
    /// The least of each zone's nodes, and of all.
    zone_to_end: Vec<Cost>,
    least_to_end: Cost,
    has_room: Vec<bool>,
    room_in_zone: Vec<u32>,
    zones_with_room: usize,
    /// For each point of the ring, one at or after it whose node had room; one more than the points is none.
    skip: Vec<u32>,
}

impl<'a> Flow<'a> {
    fn new(problem: &'a Problem<'a>) -> Self {
        let nodes = problem.shares.floor.len();
        let zone_count = problem.zones.count();
        let mut in_zone = vec![Vec::new(); zone_count];
        for node in 0..nodes as u32 {
            in_zone[problem.zones.of_node(node) as usize].push(node);
        }
        let mut start = vec![0];
        for job in problem.jobs {
            start.push(start.last().copied().unwrap_or(0) + job.wanted);
        }
        let slots = start.last().map_or(0, |&all| all as usize);
        let mut flow = Self {
            pair: if problem.zones.matter() { PAIR } else { 0 },
            start,
            count: vec![0; problem.jobs.len()],
            slots: vec![0; slots],
            moved: vec![false; slots],
            shard_of_slot: (0..)
                .zip(problem.jobs)
                .flat_map(|(nth, job)| repeat_n(nth, job.wanted as usize))
                .collect(),
            unplaced: problem.jobs.iter().map(|job| job.live.len() as u32).collect(),
            base: vec![0; nodes],
            extra: vec![false; nodes],
            over: vec![0; nodes],
            extras_used: 0,
            to_end_shard: vec![0; problem.jobs.len()],
            to_end_slot: vec![0; slots],
            to_end_node: vec![0; nodes],
            to_end_extras: 0,
            zone_to_end: vec![0; zone_count],
            least_to_end: 0,
            has_room: vec![true; nodes],
            room_in_zone: in_zone.iter().map(|nodes| nodes.len() as u32).collect(),
            zones_with_room: in_zone.iter().filter(|nodes| !nodes.is_empty()).count(),
            skip: (0..=problem.points.len() as u32).collect(),
            in_zone,
            problem,
        };
        flow.close_full_nodes();
        flow
    }

    fn zone(&self, node: u32) -> u32 {
        self.problem.zones.of_node(node)
    }

    fn nodes_of(&self, shard: usize) -> &[u32] {
        let start = self.start[shard] as usize;
        &self.slots[start..start + self.count[shard] as usize]
    }

    fn live(&self, shard: usize) -> &'a [u32] {
        &self.problem.jobs[shard].live
    }

    /// Nodes that have the shard and that it is not placed on: free to take.
    fn free(&self, shard: usize) -> impl Iterator<Item = u32> {
        let live: &[u32] = if self.unplaced[shard] == 0 { &[] } else { self.live(shard) };
        live.iter().copied().filter(move |node| !self.nodes_of(shard).contains(node))
    }

    /// What it costs to have the replica in this slot where it is.
    fn move_cost(&self, slot: usize) -> Cost {
        if self.moved[slot] { MOVE } else { 0 }
    }

    /// Replicas of the shard in the zone that this flow has placed, and all of them.
    fn uses(&self, shard: usize, zone: u32) -> (u32, u32) {
        let placed = self.nodes_of(shard).iter().filter(|&&node| self.zone(node) == zone).count() as u32;
        let fixed = self.problem.jobs[shard].fixed.iter().filter(|&&other| other == zone).count() as u32;
        (placed, placed + fixed)
    }

    /// What one more replica of the shard in the zone costs in pairs.
    fn pair_cost(&self, shard: usize, zone: u32) -> Cost {
        if self.pair == 0 { 0 } else { self.pair * Cost::from(self.uses(shard, zone).1) }
    }

    fn finds_room(&self, node: usize) -> bool {
        let shares = self.problem.shares;
        self.base[node] < shares.floor[node]
            || (shares.rounds_up[node] && !self.extra[node] && self.extras_used < shares.extras)
    }

    /// What one more replica on the node costs in balance.
    fn over_cost(&self, node: u32) -> Cost {
        let node = node as usize;
        if self.has_room[node] { 0 } else { OVER * Cost::from((self.over[node] + 1).min(OVERS_MAX)) }
    }

    fn may_take_extra(&self, node: u32) -> bool {
        self.problem.shares.rounds_up[node as usize] && !self.extra[node as usize]
    }

    /// The slot that stands for the shard's gate to the zone, if the gate carries anything.
    fn gate(&self, shard: usize, zone: u32) -> Option<u32> {
        let nth = self.nodes_of(shard).iter().position(|&node| self.zone(node) == zone)?;
        Some(self.start[shard] + nth as u32)
    }

    /// The gate, if the step to it from its shard is tight.
    fn tight_gate(&self, shard: usize, zone: u32) -> Option<u32> {
        let cost = self.pair_cost(shard, zone);
        self.gate(shard, zone)
            .filter(|&slot| self.to_end_shard[shard] == cost + self.to_end_slot[slot as usize])
    }

    /// The shard and gate through which this slot has the node, if it still does and the step back there is tight.
    fn tight_gate_back(&self, slot: u32, node: u32) -> Option<(usize, u32)> {
        let place = slot as usize;
        let back = self.to_end_node[node as usize] + self.move_cost(place);
        if self.to_end_slot[place] != back || self.slots[place] != node {
            return None;
        }
        let shard = self.shard_of_slot[place] as usize;
        self.gate(shard, self.zone(node)).map(|gate| (shard, gate))
    }

    /// Whether the step from the gate back to its shard is tight.
    fn is_tight_back(&self, shard: usize, slot: u32) -> bool {
        let last_pair = self.pair_cost(shard, self.zone(self.slots[slot as usize])) - self.pair;
        self.to_end_slot[slot as usize] == self.to_end_shard[shard] - last_pair
    }

    /// Puts the shard on a node, in place of another if one is given. The slot where it stands then.
    fn enter(&mut self, shard: usize, node: u32, gone: Option<u32>) -> usize {
        let start = self.start[shard] as usize;
        let held = gone.and_then(|gone| self.nodes_of(shard).iter().position(|&held| held == gone));
        let slot = match held {
            Some(nth) => start + nth,
            None => {
                self.count[shard] += 1;
                start + self.count[shard] as usize - 1
            }
        };
        let is_new = !self.live(shard).contains(&node);
        self.unplaced[shard] += u32::from(held.is_some() && !self.moved[slot]);
        self.unplaced[shard] -= u32::from(!is_new);
        self.moved[slot] = is_new;
        self.slots[slot] = node;
        slot
    }

    fn close_full_nodes(&mut self) {
        for node in 0..self.has_room.len() {
            self.close_if_full(node);
        }
    }

    /// Nodes never find room again: paths end where there is room, and on their way leave loads as they are.
    fn close_if_full(&mut self, node: usize) {
        if self.has_room[node] && !self.finds_room(node) {
            self.has_room[node] = false;
            let zone = self.zone(node as u32) as usize;
            self.room_in_zone[zone] -= 1;
            self.zones_with_room -= usize::from(self.room_in_zone[zone] == 0);
        }
    }

    /// Counts one more replica on the node.
    fn load(&mut self, node: u32) {
        let (node, shares) = (node as usize, self.problem.shares);
        if self.base[node] < shares.floor[node] {
            self.base[node] += 1;
        } else if self.finds_room(node) {
            self.extra[node] = true;
            self.extras_used += 1;
            if self.extras_used == shares.extras {
                self.close_full_nodes();
            }
        } else {
            self.over[node] += 1;
        }
        self.close_if_full(node);
    }

    /// Keeps what can be kept for nothing: one replica per zone, as many as wanted, and on each node its share.
    ///
    /// Any such choice is right, since paths mend it; this one leaves them little to mend. Shards with too many give
    /// up those on the fullest nodes, and full nodes give up those that are farthest on the ring.
    fn keep(&mut self) {
        let jobs = self.problem.jobs;
        let mut held = vec![0_i64; self.base.len()];
        for &node in jobs.iter().flat_map(|job| &job.live) {
            held[node as usize] += 1;
        }
        let mut kept_on: Vec<Vec<u32>> = vec![Vec::new(); self.base.len()];
        for (shard, job) in jobs.iter().enumerate() {
            let mut order = job.live.clone();
            let surplus =
                |node: u32| held[node as usize] - i64::from(self.problem.shares.floor[node as usize]);
            if job.live.len() > job.wanted as usize || self.pair > 0 {
                order.sort_by_cached_key(|&node| (surplus(node), self.distance(shard, node), node));
            }
            let mut kept: Vec<u32> = Vec::with_capacity(job.wanted as usize);
            for node in order {
                let zone = self.zone(node);
                let zone_free = self.pair == 0
                    || !(job.fixed.contains(&zone) || kept.iter().any(|&other| self.zone(other) == zone));
                if kept.len() < job.wanted as usize && zone_free {
                    kept.push(node);
                    kept_on[node as usize].push(shard as u32);
                } else {
                    held[node as usize] -= 1;
                }
            }
        }
        let shares = self.problem.shares;
        // Who rounds up: those that hold enough for it, in the order of their first points.
        let mut takers: Vec<usize> = (0..kept_on.len())
            .filter(|&node| shares.rounds_up[node] && kept_on[node].len() > shares.floor[node] as usize)
            .collect();
        takers.sort_by_key(|&node| (self.problem.points.of(node).first().copied(), node));
        takers.truncate(shares.extras as usize);
        let mut most = shares.floor.clone();
        for node in takers {
            most[node] += 1;
        }
        for (node, mut shards) in kept_on.into_iter().enumerate() {
            if shards.len() > most[node] as usize {
                shards.sort_by_cached_key(|&shard| (self.distance(shard as usize, node as u32), shard));
                shards.truncate(most[node] as usize);
            }
            for shard in shards {
                self.enter(shard as usize, node as u32, None);
                self.load(node as u32);
            }
        }
    }

    fn distance(&self, shard: usize, node: u32) -> u64 {
        self.problem.points.distance(self.problem.jobs[shard].point, node)
    }

    /// First bounds: a shard that has nothing to take back must move something.
    fn bound(&mut self) {
        for shard in 0..self.count.len() {
            let bound = if self.unplaced[shard] == 0 { MOVE } else { 0 };
            self.to_end_shard[shard] = bound;
            let slots = self.start[shard] as usize..self.start[shard + 1] as usize;
            self.to_end_slot[slots].fill(bound);
        }
    }

    /// After bounds of nodes have grown.
    fn refresh_zones(&mut self) {
        for (zone, nodes) in self.in_zone.iter().enumerate() {
            let bounds = nodes.iter().map(|&node| self.to_end_node[node as usize]);
            self.zone_to_end[zone] = bounds.min().unwrap_or(Cost::MAX / 2);
        }
        self.least_to_end = self.zone_to_end.iter().copied().min().unwrap_or(0);
    }

    fn wants(&self, shard: usize) -> bool {
        self.count[shard] < self.problem.jobs[shard].wanted
    }

    /// Sets the bound of the shard's gate to the zone.
    fn bound_gate(&mut self, shard: usize, zone: u32, bound: Cost) {
        let start = self.start[shard] as usize;
        for slot in start..start + self.count[shard] as usize {
            if self.zone(self.slots[slot]) == zone {
                self.to_end_slot[slot] = bound;
            }
        }
    }
}

/// The slots that have each node.
#[derive(Default)]
struct Holders {
    start: Vec<u32>,
    slots: Vec<u32>,
}

impl Holders {
    fn of(flow: &Flow<'_>) -> Self {
        let mut start = vec![0_u32; flow.base.len() + 1];
        let all = || (0..flow.count.len()).flat_map(|shard| (flow.start[shard]..).zip(flow.nodes_of(shard)));
        for (_, &node) in all() {
            start[node as usize + 1] += 1;
        }
        for node in 0..flow.base.len() {
            start[node + 1] += start[node];
        }
        let mut next = start.clone();
        let mut slots = vec![0; start.last().map_or(0, |&all| all as usize)];
        for (slot, &node) in all() {
            slots[next[node as usize] as usize] = slot;
            next[node as usize] += 1;
        }
        Self { start, slots }
    }

    fn on(&self, node: u32) -> &[u32] {
        &self.slots[self.start[node as usize] as usize..self.start[node as usize + 1] as usize]
    }
}
