//! Which replica of each shard leads.
//!
//! Shards are jobs, replicas the machines that can do them: a semi-matching. It is as even as it can be when no chain
//! of hand-overs takes a lead from a node that has more of its share to one that has less (Harvey, Ladner, Lovász,
//! Tamir, Semi-matchings for bipartite graphs and load balancing, 2006; the steps here are counted from each node's
//! share by weight, which keeps the cost convex).

use std::collections::VecDeque;

use crate::shares::Shares;

/// The leader of each shard, among its candidates: each node leads its share by weight, rounded down or up, where the
/// replicas allow. Starts from `present`, and takes `prefer` (least first) for shards without one.
pub(crate) fn choose(
    candidates: &[Vec<u32>],
    present: &[Option<u32>],
    weights: &[u32],
    prefer: impl Fn(usize, u32) -> u64,
) -> Vec<Option<u32>> {
    let mut held = vec![Vec::new(); weights.len()];
    for (shard, nodes) in candidates.iter().enumerate() {
        for &node in nodes {
            held[node as usize].push(shard as u32);
        }
    }
    let caps: Vec<u32> = held.iter().map(|shards| shards.len() as u32).collect();
    let total = candidates.iter().filter(|nodes| !nodes.is_empty()).count() as u32;
    let shares = Shares::by_weight(weights, &caps, total);
    let mut leads = Leads {
        candidates,
        held,
        leader: present.to_vec(),
        led: vec![Vec::new(); weights.len()],
        shares,
        closed: vec![false; weights.len()],
    };
    for (shard, leader) in present.iter().enumerate() {
        if let Some(node) = leader {
            leads.led[*node as usize].push(shard as u32);
        }
    }
    for (shard, nodes) in candidates.iter().enumerate() {
        if leads.leader[shard].is_none() {
            let best = nodes
                .iter()
                .copied()
                .min_by_key(|&node| (leads.next(node).max(-1), prefer(shard, node), node));
            if let Some(node) = best {
                leads.leader[shard] = Some(node);
                leads.led[node as usize].push(shard as u32);
            }
        }
    }
    while leads.lower() || leads.raise() {}
    leads.leader
}

struct Leads<'a> {
    candidates: &'a [Vec<u32>],
    held: Vec<Vec<u32>>,
    leader: Vec<Option<u32>>,
    led: Vec<Vec<u32>>,
    shares: Shares,
    /// Nodes from which no chain leads anywhere better, now and later.
    closed: Vec<bool>,
}

impl Leads<'_> {
    /// The step that one lead more would be: below 0 up to the share rounded down, 0 for rounding up, then above.
    fn next(&self, node: u32) -> i64 {
        self.step(node, self.led[node as usize].len() as i64 + 1)
    }

    /// The step of the last lead the node has.
    fn last(&self, node: u32) -> i64 {
        self.step(node, self.led[node as usize].len() as i64)
    }

    fn step(&self, node: u32, nth: i64) -> i64 {
        let floor = i64::from(self.shares.floor[node as usize]);
        if nth <= floor { nth - floor - 1 } else { nth - i64::from(self.shares.ceiling(node as usize)) }
    }

    /// Hands leads on from nodes above their share rounded up. Says whether any were.
    fn lower(&mut self) -> bool {
        self.closed.fill(false);
        let mut any = false;
        while let Some(node) = (0..self.led.len() as u32)
            .filter(|&node| self.last(node) > 0 && !self.closed[node as usize])
            .max_by_key(|&node| (self.last(node), std::cmp::Reverse(node)))
        {
            let most = self.last(node);
            any |= self.hand_over(
                node,
                |leads, at| leads.led[at as usize].clone(),
                |leads, shard| leads.candidates[shard as usize].clone(),
                |leads, to| leads.next(to) < most,
                |giver, taker| (giver, taker),
            );
        }
        any
    }

    /// Hands leads on to nodes below their share rounded down. Says whether any were.
    fn raise(&mut self) -> bool {
        self.closed.fill(false);
        let mut any = false;
        while let Some(node) = (0..self.led.len() as u32)
            .filter(|&node| self.next(node) < 0 && !self.closed[node as usize])
            .min_by_key(|&node| (self.next(node), node))
        {
            let least = self.next(node);
            any |= self.hand_over(
                node,
                |leads, at| {
                    let held = leads.held[at as usize].iter().copied();
                    held.filter(|&shard| leads.leader[shard as usize] != Some(at)).collect()
                },
                |leads, shard| leads.leader[shard as usize].into_iter().collect(),
                |leads, from| leads.last(from) > least,
                |taker, giver| (giver, taker),
            );
        }
        any
    }

    /// Breadth first from `start` to a node that `ends` the chain; then every hop hands its shard over.
    fn hand_over(
        &mut self,
        start: u32,
        shards: impl Fn(&Self, u32) -> Vec<u32>,
        nodes: impl Fn(&Self, u32) -> Vec<u32>,
        ends: impl Fn(&Self, u32) -> bool,
        giver_and_taker: impl Fn(u32, u32) -> (u32, u32),
    ) -> bool {
        // For each node met: the node before it and the shard between them.
        let mut met: Vec<Option<(u32, u32)>> = vec![None; self.led.len()];
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            for shard in shards(self, at) {
                for next in nodes(self, shard) {
                    if next == start || met[next as usize].is_some() || self.closed[next as usize] {
                        continue;
                    }
                    met[next as usize] = Some((at, shard));
                    if !ends(self, next) {
                        queue.push_back(next);
                        continue;
                    }
                    let mut to = next;
                    while let Some((before, shard)) = met[to as usize] {
                        let (giver, taker) = giver_and_taker(before, to);
                        self.led[giver as usize].retain(|&led| led != shard);
                        self.led[taker as usize].push(shard);
                        self.leader[shard as usize] = Some(taker);
                        to = before;
                    }
                    return true;
                }
            }
        }
        self.closed[start as usize] = true;
        for (closed, met) in self.closed.iter_mut().zip(met) {
            *closed |= met.is_some();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sum over nodes of 1, 2, 3, ... for each lead above the share rounded up and below the share rounded down.
    fn unevenness(counts: &[u32], shares: &Shares) -> u32 {
        let of = |off: u32| off * (off + 1) / 2;
        let each = counts.iter().enumerate().map(|(node, &count)| {
            of(count.saturating_sub(shares.ceiling(node))) + of(shares.floor[node].saturating_sub(count))
        });
        each.sum()
    }

    fn least(candidates: &[Vec<u32>], counts: &mut Vec<u32>, shares: &Shares) -> u32 {
        let Some((first, rest)) = candidates.split_first() else { return unevenness(counts, shares) };
        if first.is_empty() {
            return least(rest, counts, shares);
        }
        let each = first.iter().map(|&node| {
            counts[node as usize] += 1;
            let found = least(rest, counts, shares);
            counts[node as usize] -= 1;
            found
        });
        each.min().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn as_even_as_any_choice(
            sets in prop::collection::vec(0_u32..32, 1..8), weights in prop::collection::vec(1_u32..4, 5),
        ) {
            let candidates: Vec<Vec<u32>> =
                sets.iter().map(|set| (0..5).filter(|node| set >> node & 1 == 1).collect()).collect();
            let present: Vec<Option<u32>> = candidates.iter().map(|nodes| nodes.first().copied()).collect();
            let mut caps = vec![0; 5];
            for &node in candidates.iter().flatten() {
                caps[node as usize] += 1;
            }
            let total = candidates.iter().filter(|nodes| !nodes.is_empty()).count() as u32;
            let shares = Shares::by_weight(&weights, &caps, total);
            let best = least(&candidates, &mut vec![0; 5], &shares);
            for from in [present, vec![None; candidates.len()]] {
                let leaders = choose(&candidates, &from, &weights, |_, node| u64::from(node));
                let mut counts = vec![0; 5];
                for (nodes, leader) in candidates.iter().zip(&leaders) {
                    prop_assert_eq!(leader.is_none(), nodes.is_empty());
                    if let Some(leader) = leader {
                        prop_assert!(nodes.contains(leader));
                        counts[*leader as usize] += 1;
                    }
                }
                prop_assert_eq!(unevenness(&counts, &shares), best, "{:?}", counts);
            }
        }
    }
}
