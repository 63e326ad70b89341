//! Placing without a search: the first node with room on the ring, where the bounds say that nothing can be cheaper.

use crate::flow::{Cost, Flow, MOVE};

impl Flow<'_> {
    /// Takes what can be taken without a search. Says whether nothing is left to do.
    pub(super) fn place_all_directly(&mut self, open: &mut Vec<usize>) -> bool {
        open.retain(|&shard| {
            while self.wants(shard) && self.place_directly(shard) {}
            self.wants(shard)
        });
        open.is_empty()
    }

    /// Takes a node with room if nothing can be cheaper.
    fn place_directly(&mut self, shard: usize) -> bool {
        let mut bound = Cost::MAX;
        let mut best: Option<(Cost, u64, u32)> = None;
        for node in self.free(shard) {
            let cost = self.pair_cost(shard, self.zone(node));
            bound = bound.min(cost + self.to_end_node[node as usize]);
            if self.has_room[node as usize] {
                let found = (cost, self.distance(shard, node), node);
                best = Some(best.map_or(found, |best| best.min(found)));
            }
        }
        if let Some((cost, _, node)) = best {
            let shortest = cost <= bound && self.nothing_cheaper(shard, cost);
            if shortest {
                self.take(shard, node, cost, 0);
            }
            return shortest;
        }
        let Some(pairs) = self.least_pairs(shard) else { return false };
        let cost = pairs + MOVE;
        if cost > bound || !self.nothing_cheaper(shard, cost) {
            return false;
        }
        let found = self.first_on_ring(shard, pairs);
        if let Some(node) = found {
            self.take(shard, node, cost, MOVE);
        }
        found.is_some()
    }

    /// Takes the node, which nothing beats: whatever else the shard can reach is as far, also through its gates.
    fn take(&mut self, shard: usize, node: u32, cost: Cost, move_cost: Cost) {
        self.to_end_shard[shard] = self.to_end_shard[shard].max(cost);
        for nth in 0..self.count[shard] {
            let slot = (self.start[shard] + nth) as usize;
            let pairs = self.pair_cost(shard, self.zone(self.slots[slot]));
            self.to_end_slot[slot] = self.to_end_slot[slot].max(cost - pairs);
        }
        self.enter(shard, node, None);
        self.bound_gate(shard, self.zone(node), move_cost + self.to_end_node[node as usize]);
        self.load(node);
    }

    /// What a replica costs in pairs in the best zone that has room.
    fn least_pairs(&self, shard: usize) -> Option<Cost> {
        if self.zones_with_room == 0 {
            return None;
        }
        if self.pair == 0 {
            return Some(0);
        }
        let with_room = |&zone: &u32| self.room_in_zone.get(zone as usize).is_some_and(|&room| room > 0);
        let mut used: Vec<u32> = self.nodes_of(shard).iter().map(|&node| self.zone(node)).collect();
        used.extend(&self.problem.jobs[shard].fixed);
        used.sort_unstable();
        used.dedup();
        used.retain(with_room);
        if used.len() < self.zones_with_room {
            return Some(0);
        }
        used.iter().map(|&zone| self.pair_cost(shard, zone)).min()
    }

    /// Whether no new node can be reached for less than `cost`, by the bounds.
    fn nothing_cheaper(&self, shard: usize, cost: Cost) -> bool {
        cost <= MOVE + self.least_to_end
            || self
                .zone_to_end
                .iter()
                .zip(0..)
                .all(|(&to_end, zone)| cost <= self.pair_cost(shard, zone) + MOVE + to_end)
    }

    /// The first node with room on the shard's walk, in a zone that costs these pairs.
    fn first_on_ring(&mut self, shard: usize, pairs: Cost) -> Option<u32> {
        let points = self.problem.points;
        let end = points.len();
        let first = points.first_from(self.problem.jobs[shard].point);
        for range in [first..end, 0..first] {
            let mut at = self.next_with_room(range.start);
            while at < range.end {
                let node = points.node(at);
                if !self.nodes_of(shard).contains(&node) && self.pair_cost(shard, self.zone(node)) == pairs {
                    return Some(node);
                }
                at = self.next_with_room(at + 1);
            }
        }
        None
    }

    /// The first point from `at` on whose node has room, or the number of points. Paths to it are halved.
    fn next_with_room(&mut self, mut at: usize) -> usize {
        let end = self.problem.points.len();
        while at < end && !self.has_room[self.problem.points.node(at) as usize] {
            let next = self.skip[at] as usize;
            if next == at {
                self.skip[at] = at as u32 + 1;
            } else if next < end && !self.has_room[self.problem.points.node(next) as usize] {
                self.skip[at] = self.skip[next].max(next as u32 + 1);
            }
            at = self.skip[at] as usize;
        }
        at
    }
}
