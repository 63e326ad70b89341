//! Sending along tight paths, as many at a time as do not get in each other's way.
//!
//! Dinitz's blocking flows (1970) on the tight steps: breadth first gives every vertex its level, depth first then
//! goes up level by level, and where it gets stuck it does not go again.

use std::collections::BTreeMap;

use crate::flow::{Cost, Flow, Holders, MOVE};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vertex {
    Shard(usize),
    Gate(usize, u32),
    Node(u32),
    Extras,
    End,
}

/// Not met, or given up.
const NONE: u32 = u32::MAX;

/// Nodes by bound, then by zone.
type Buckets = BTreeMap<(Cost, u32), BTreeMap<u32, Vec<u32>>>;

struct Levels {
    shard: Vec<u32>,
    /// A gate's is kept with each slot in its zone.
    slot: Vec<u32>,
    node: Vec<u32>,
    extras: u32,
    holders: Holders,
    /// By bound and level.
    nodes_at: Buckets,
    /// How many of a node's shards, and of the nodes with extras, have been tried.
    tried: Vec<usize>,
    tried_extras: usize,
}

/// Sends along tight paths from the open shards until there are none.
pub(super) fn send(flow: &mut Flow<'_>, open: &mut Vec<usize>) {
    while let Some(mut levels) = Levels::of(flow, open) {
        open.retain(|&shard| {
            while flow.wants(shard) && levels.send_one(flow, shard) {}
            flow.wants(shard)
        });
    }
}

impl Levels {
    /// Breadth first over tight steps. `None` if the end is not met.
    fn of(flow: &Flow<'_>, open: &[usize]) -> Option<Self> {
        let nodes = flow.base.len();
        let mut levels = Self {
            shard: vec![NONE; flow.count.len()],
            slot: vec![NONE; flow.slots.len()],
            node: vec![NONE; nodes],
            extras: NONE,
            holders: Holders::of(flow),
            nodes_at: Buckets::new(),
            tried: vec![0; nodes],
            tried_extras: 0,
        };
        let mut unmet = Buckets::new();
        for node in 0..nodes as u32 {
            let bucket = unmet.entry((flow.to_end_node[node as usize], 0)).or_default();
            bucket.entry(flow.zone(node)).or_default().push(node);
        }
        let mut met: Vec<Vertex> = open.iter().map(|&shard| Vertex::Shard(shard)).collect();
        for &shard in open {
            levels.shard[shard] = 0;
        }
        let (mut level, mut ends) = (0, false);
        while !met.is_empty() && !ends {
            level += 1;
            let mut next = Vec::new();
            for vertex in met {
                ends |= levels.meet_next(flow, vertex, level, &mut unmet, &mut next);
            }
            met = next;
        }
        for node in 0..nodes as u32 {
            if levels.node[node as usize] != NONE {
                let key = (flow.to_end_node[node as usize], levels.node[node as usize]);
                levels.nodes_at.entry(key).or_default().entry(flow.zone(node)).or_default().push(node);
            }
        }
        ends.then_some(levels)
    }

    /// Gives what tight steps lead to from `vertex` its level. Says whether one leads to the end.
    fn meet_next(
        &mut self,
        flow: &Flow<'_>,
        vertex: Vertex,
        level: u32,
        unmet: &mut Buckets,
        next: &mut Vec<Vertex>,
    ) -> bool {
        match vertex {
            Vertex::Shard(shard) => {
                for &node in flow.nodes_of(shard) {
                    self.meet_gate(flow, flow.tight_gate(shard, flow.zone(node)), shard, level, next);
                }
                let bound = flow.to_end_shard[shard];
                for node in flow.free(shard) {
                    let zone = flow.zone(node);
                    if flow.uses(shard, zone).0 == 0
                        && flow.to_end_node[node as usize] == bound - flow.pair_cost(shard, zone)
                    {
                        self.meet_node(node, level, next);
                    }
                }
                if let Some(zones) = unmet.get_mut(&(bound - MOVE, 0)) {
                    for (&zone, nodes) in zones.iter_mut() {
                        if flow.uses(shard, zone).1 == 0 || flow.pair == 0 && flow.uses(shard, zone).0 == 0 {
                            for node in nodes.drain(..) {
                                self.meet_node(node, level, next);
                            }
                        }
                    }
                    zones.retain(|_, nodes| !nodes.is_empty());
                }
                for &zone in &flow.problem.jobs[shard].fixed {
                    if flow.pair > 0 && flow.uses(shard, zone).0 == 0 {
                        let bound = bound - flow.pair_cost(shard, zone);
                        self.meet_zone(flow, shard, zone, bound, level, unmet, next);
                    }
                }
                false
            }
            Vertex::Gate(shard, slot) => {
                let zone = flow.zone(flow.slots[slot as usize]);
                let bound = flow.to_end_slot[slot as usize];
                for node in flow.free(shard) {
                    if flow.zone(node) == zone && flow.to_end_node[node as usize] == bound {
                        self.meet_node(node, level, next);
                    }
                }
                self.meet_zone(flow, shard, zone, bound, level, unmet, next);
                if flow.is_tight_back(shard, slot) && self.shard[shard] == NONE {
                    self.shard[shard] = level;
                    next.push(Vertex::Shard(shard));
                }
                false
            }
            Vertex::Node(node) => {
                if flow.may_take_extra(node)
                    && self.extras == NONE
                    && flow.to_end_node[node as usize] == flow.to_end_extras
                {
                    self.extras = level;
                    next.push(Vertex::Extras);
                }
                for nth in 0..self.holders.on(node).len() {
                    let slot = self.holders.on(node)[nth];
                    if let Some((shard, gate)) = flow.tight_gate_back(slot, node) {
                        self.meet_gate(flow, Some(gate), shard, level, next);
                    }
                }
                flow.over_cost(node) == flow.to_end_node[node as usize]
            }
            Vertex::Extras => {
                for node in 0..flow.extra.len() as u32 {
                    if flow.extra[node as usize] && flow.to_end_node[node as usize] == flow.to_end_extras {
                        self.meet_node(node, level, next);
                    }
                }
                false
            }
            Vertex::End => false,
        }
    }

    fn meet_node(&mut self, node: u32, level: u32, next: &mut Vec<Vertex>) {
        if self.node[node as usize] == NONE {
            self.node[node as usize] = level;
            next.push(Vertex::Node(node));
        }
    }

    fn meet_gate(
        &mut self,
        flow: &Flow<'_>,
        slot: Option<u32>,
        shard: usize,
        level: u32,
        next: &mut Vec<Vertex>,
    ) {
        if let Some(slot) = slot.filter(|&slot| self.slot[slot as usize] == NONE) {
            self.set_gate(flow, shard, flow.zone(flow.slots[slot as usize]), level);
            next.push(Vertex::Gate(shard, slot));
        }
    }

    fn set_gate(&mut self, flow: &Flow<'_>, shard: usize, zone: u32, level: u32) {
        for (slot, &node) in (flow.start[shard] as usize..).zip(flow.nodes_of(shard)) {
            if flow.zone(node) == zone {
                self.slot[slot] = level;
            }
        }
    }

    /// Nodes of the zone that do not have the shard, through a gate with this bound.
    #[expect(clippy::too_many_arguments, reason = "one step of a search, with its lists")]
    fn meet_zone(
        &mut self,
        flow: &Flow<'_>,
        shard: usize,
        zone: u32,
        bound: Cost,
        level: u32,
        unmet: &mut Buckets,
        next: &mut Vec<Vertex>,
    ) {
        if let Some(nodes) = unmet.get_mut(&(bound - MOVE, 0)).and_then(|zones| zones.get_mut(&zone)) {
            let has = flow.nodes_of(shard);
            nodes.retain(|node| {
                let kept = has.contains(node);
                if !kept {
                    self.meet_node(*node, level, next);
                }
                kept
            });
        }
    }

    /// Depth first from the shard to the end, level by level; exchanges along the path found.
    fn send_one(&mut self, flow: &mut Flow<'_>, shard: usize) -> bool {
        if self.shard[shard] == NONE {
            return false;
        }
        let mut path = vec![Vertex::Shard(shard)];
        while let Some(&vertex) = path.last() {
            match self.step(flow, vertex) {
                Some(Vertex::End) => {
                    self.exchange(flow, &path);
                    return true;
                }
                Some(next) => path.push(next),
                None => {
                    self.give_up(flow, vertex);
                    path.pop();
                }
            }
        }
        false
    }

    fn give_up(&mut self, flow: &Flow<'_>, vertex: Vertex) {
        match vertex {
            Vertex::Shard(shard) => self.shard[shard] = NONE,
            Vertex::Gate(shard, slot) => {
                self.set_gate(flow, shard, flow.zone(flow.slots[slot as usize]), NONE);
            }
            Vertex::Node(node) => self.node[node as usize] = NONE,
            Vertex::Extras => self.extras = NONE,
            Vertex::End => {}
        }
    }

    /// A tight step one level up.
    fn step(&mut self, flow: &Flow<'_>, vertex: Vertex) -> Option<Vertex> {
        match vertex {
            Vertex::Shard(shard) => self.step_from_shard(flow, shard),
            Vertex::Gate(shard, slot) => {
                let zone = flow.zone(flow.slots[slot as usize]);
                let (bound, level) = (flow.to_end_slot[slot as usize], self.slot[slot as usize] + 1);
                if flow.is_tight_back(shard, slot) && self.shard[shard] == level {
                    return Some(Vertex::Shard(shard));
                }
                self.step_to_node(flow, shard, zone, bound, level)
            }
            Vertex::Node(node) => {
                let level = self.node[node as usize] + 1;
                let bound = flow.to_end_node[node as usize];
                if flow.over_cost(node) == bound {
                    return Some(Vertex::End);
                }
                if flow.may_take_extra(node) && self.extras == level && bound == flow.to_end_extras {
                    return Some(Vertex::Extras);
                }
                while let Some(&slot) = self.holders.on(node).get(self.tried[node as usize]) {
                    let back = flow.tight_gate_back(slot, node);
                    if let Some((shard, gate)) = back.filter(|&(_, gate)| self.slot[gate as usize] == level) {
                        return Some(Vertex::Gate(shard, gate));
                    }
                    self.tried[node as usize] += 1;
                }
                None
            }
            Vertex::Extras => {
                let level = self.extras + 1;
                while self.tried_extras < flow.extra.len() {
                    let node = self.tried_extras;
                    if flow.extra[node]
                        && self.node[node] == level
                        && flow.to_end_node[node] == flow.to_end_extras
                    {
                        return Some(Vertex::Node(node as u32));
                    }
                    self.tried_extras += 1;
                }
                None
            }
            Vertex::End => None,
        }
    }

    fn step_from_shard(&mut self, flow: &Flow<'_>, shard: usize) -> Option<Vertex> {
        let (bound, level) = (flow.to_end_shard[shard], self.shard[shard] + 1);
        for &node in flow.nodes_of(shard) {
            let slot = flow.tight_gate(shard, flow.zone(node));
            if let Some(slot) = slot.filter(|&slot| self.slot[slot as usize] == level) {
                return Some(Vertex::Gate(shard, slot));
            }
        }
        for node in flow.free(shard) {
            let zone = flow.zone(node);
            if flow.uses(shard, zone).0 == 0
                && flow.to_end_node[node as usize] == bound - flow.pair_cost(shard, zone)
                && self.node[node as usize] == level
            {
                return Some(Vertex::Node(node));
            }
        }
        if let Some(zones) = self.nodes_at.get_mut(&(bound - MOVE, level)) {
            let found = zones.iter_mut().find_map(|(&zone, nodes)| {
                let (placed, all) = flow.uses(shard, zone);
                let free = if flow.pair == 0 { placed == 0 } else { all == 0 };
                if free { first_alive(&self.node, flow, shard, nodes) } else { None }
            });
            if found.is_some() {
                return found.map(Vertex::Node);
            }
            zones.retain(|_, nodes| !nodes.is_empty());
        }
        let fixed = &flow.problem.jobs[shard].fixed;
        fixed.iter().filter(|&&zone| flow.pair > 0 && flow.uses(shard, zone).0 == 0).find_map(|&zone| {
            self.step_to_node(flow, shard, zone, bound - flow.pair_cost(shard, zone), level)
        })
    }

    /// To a node of the zone that does not have the shard, through a gate with this bound.
    fn step_to_node(
        &mut self,
        flow: &Flow<'_>,
        shard: usize,
        zone: u32,
        bound: Cost,
        level: u32,
    ) -> Option<Vertex> {
        for node in flow.free(shard) {
            if flow.zone(node) == zone
                && self.node[node as usize] == level
                && flow.to_end_node[node as usize] == bound
            {
                return Some(Vertex::Node(node));
            }
        }
        let nodes = self.nodes_at.get_mut(&(bound - MOVE, level))?.get_mut(&zone)?;
        first_alive(&self.node, flow, shard, nodes).map(Vertex::Node)
    }

    /// Along the path a node is entered for the shard before it and given back by the shard after it. What a shard
    /// gives back makes place for what it enters; the first enters one more.
    fn exchange(&mut self, flow: &mut Flow<'_>, path: &[Vertex]) {
        let mut entered: Vec<(usize, u32)> = Vec::new();
        let mut given_back: Vec<(usize, u32)> = Vec::new();
        for pair in path.windows(2) {
            match *pair {
                [Vertex::Gate(shard, _) | Vertex::Shard(shard), Vertex::Node(node)] => {
                    entered.push((shard, node));
                }
                [Vertex::Node(node), Vertex::Gate(shard, _)] => given_back.push((shard, node)),
                [Vertex::Node(node), Vertex::Extras] => flow.extra[node as usize] = true,
                [Vertex::Extras, Vertex::Node(node)] => flow.extra[node as usize] = false,
                _ => {}
            }
        }
        // The path was tight, so a gate's bound is that of the node entered and the step there.
        for &(shard, node) in &entered {
            let level = flow.gate(shard, flow.zone(node)).map_or(NONE, |slot| self.slot[slot as usize]);
            let gone = given_back.iter().position(|&(other, _)| other == shard);
            let slot = flow.enter(shard, node, gone.map(|nth| given_back.swap_remove(nth).1));
            self.slot[slot] = level;
            let bound = flow.move_cost(slot) + flow.to_end_node[node as usize];
            flow.bound_gate(shard, flow.zone(node), bound);
        }
        if let Some(&Vertex::Node(node)) = path.last() {
            flow.load(node);
        }
    }
}

/// The first of the nodes that has not been given up and does not have the shard. Forgets those given up.
fn first_alive(levels: &[u32], flow: &Flow<'_>, shard: usize, nodes: &mut Vec<u32>) -> Option<u32> {
    let mut nth = 0;
    while nth < nodes.len() {
        if levels[nodes[nth] as usize] == NONE {
            nodes.swap_remove(nth);
        } else if flow.nodes_of(shard).contains(&nodes[nth]) {
            nth += 1;
        } else {
            return Some(nodes[nth]);
        }
    }
    None
}
