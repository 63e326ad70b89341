//! Raising the bounds until some path is tight: Dijkstra from all shards that want more, guided by the old bounds.

use std::collections::BTreeMap;

use crate::flow::{Cost, Flow, Holders, MOVE};

/// Vertices are numbered: shards, nodes, extras, the end, one gate per slot (of several in one zone the first counts).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vertex {
    Shard(usize),
    Node(u32),
    Extras,
    End,
    Gate(usize, u32),
}

/// The least distance at which the nodes of a zone have been offered to.
#[derive(Clone, Debug)]
struct Offer {
    at: Cost,
    /// Not to these: the shard that offered has them already.
    but: Vec<u32>,
}

/// Farther than any path.
const FAR: Cost = Cost::MAX / 2;

/// Scratch space.
#[derive(Default)]
pub(super) struct Bounds {
    distance: Vec<Cost>,
    done: Vec<bool>,
    touched: Vec<u32>,
    popped: Vec<u32>,
    /// The shortest path to the end so far: what cannot beat it is not looked at.
    best: Cost,
    holders: Holders,
    offers: Vec<Offer>,
    /// Vertices by the least that a path over them can cost. Of equal ones the last goes first.
    queue: BTreeMap<Cost, Vec<u32>>,
}

impl Bounds {
    /// Raises bounds so that from the nearest of the open shards a path to the end is tight.
    pub(super) fn raise(&mut self, flow: &mut Flow<'_>, open: &[usize]) {
        self.prepare(flow);
        for &shard in open {
            self.meet(flow, Vertex::Shard(shard), 0);
        }
        let length = self.find(flow);
        for &number in &self.popped {
            let bound = length - self.distance[number as usize];
            match self.vertex(flow, number) {
                Vertex::Shard(shard) => flow.to_end_shard[shard] = flow.to_end_shard[shard].max(bound),
                Vertex::Node(node) => {
                    flow.to_end_node[node as usize] = flow.to_end_node[node as usize].max(bound);
                }
                Vertex::Extras => flow.to_end_extras = flow.to_end_extras.max(bound),
                Vertex::Gate(shard, slot) => {
                    let bound = flow.to_end_slot[slot as usize].max(bound);
                    flow.bound_gate(shard, flow.zone(flow.slots[slot as usize]), bound);
                }
                Vertex::End => {}
            }
        }
        flow.refresh_zones();
    }

    fn prepare(&mut self, flow: &Flow<'_>) {
        if self.distance.is_empty() {
            let vertices = flow.count.len() + flow.base.len() + flow.slots.len() + 2;
            self.distance = vec![FAR; vertices];
            self.done = vec![false; vertices];
        }
        for &number in &self.touched {
            self.distance[number as usize] = FAR;
            self.done[number as usize] = false;
        }
        self.touched.clear();
        self.popped.clear();
        self.queue.clear();
        self.offers.clear();
        self.offers.resize(flow.in_zone.len(), Offer { at: FAR, but: Vec::new() });
        self.holders = Holders::of(flow);
        self.best = FAR;
    }

    fn number(flow: &Flow<'_>, vertex: Vertex) -> u32 {
        let (shards, nodes) = (flow.count.len() as u32, flow.base.len() as u32);
        match vertex {
            Vertex::Shard(shard) => shard as u32,
            Vertex::Node(node) => shards + node,
            Vertex::Extras => shards + nodes,
            Vertex::End => shards + nodes + 1,
            Vertex::Gate(_, slot) => shards + nodes + 2 + slot,
        }
    }

    fn vertex(&self, flow: &Flow<'_>, number: u32) -> Vertex {
        let (shards, nodes) = (flow.count.len() as u32, flow.base.len() as u32);
        if number < shards {
            Vertex::Shard(number as usize)
        } else if number < shards + nodes {
            Vertex::Node(number - shards)
        } else if number == shards + nodes {
            Vertex::Extras
        } else if number == shards + nodes + 1 {
            Vertex::End
        } else {
            let slot = number - shards - nodes - 2;
            Vertex::Gate(flow.shard_of_slot[slot as usize] as usize, slot)
        }
    }

    fn to_end(flow: &Flow<'_>, vertex: Vertex) -> Cost {
        match vertex {
            Vertex::Shard(shard) => flow.to_end_shard[shard],
            Vertex::Node(node) => flow.to_end_node[node as usize],
            Vertex::Extras => flow.to_end_extras,
            Vertex::Gate(_, slot) => flow.to_end_slot[slot as usize],
            Vertex::End => 0,
        }
    }

    fn meet(&mut self, flow: &Flow<'_>, vertex: Vertex, distance: Cost) {
        let number = Self::number(flow, vertex);
        let path = distance + Self::to_end(flow, vertex);
        if distance < self.distance[number as usize] && path < self.best {
            self.distance[number as usize] = distance;
            self.touched.push(number);
            self.queue.entry(path).or_default().push(number);
            if vertex == Vertex::End {
                self.best = path;
            }
        }
    }

    /// The bounds are consistent, so whatever is taken from the queue is at its distance.
    fn find(&mut self, flow: &Flow<'_>) -> Cost {
        while let Some(mut first) = self.queue.first_entry() {
            let Some(number) = first.get_mut().pop() else {
                first.remove();
                continue;
            };
            if std::mem::replace(&mut self.done[number as usize], true) {
                continue;
            }
            let at = self.distance[number as usize];
            let vertex = self.vertex(flow, number);
            if vertex == Vertex::End {
                return at;
            }
            self.popped.push(number);
            self.leave(flow, vertex, at);
        }
        unreachable!("a node can always take one more, and a shard wants at most as many as there are nodes")
    }

    fn leave(&mut self, flow: &Flow<'_>, vertex: Vertex, at: Cost) {
        match vertex {
            Vertex::Shard(shard) => self.leave_shard(flow, shard, at),
            Vertex::Gate(shard, slot) => {
                let zone = flow.zone(flow.slots[slot as usize]);
                self.enter_zone(flow, shard, zone, at);
                let last_pair = flow.pair_cost(shard, zone) - flow.pair;
                self.meet(flow, Vertex::Shard(shard), at - last_pair);
            }
            Vertex::Node(node) => {
                self.meet(flow, Vertex::End, at + flow.over_cost(node));
                if flow.may_take_extra(node) {
                    self.meet(flow, Vertex::Extras, at);
                }
                for nth in 0..self.holders.on(node).len() {
                    let slot = self.holders.on(node)[nth];
                    let shard = flow.shard_of_slot[slot as usize] as usize;
                    if let Some(gate) = flow.gate(shard, flow.zone(node)) {
                        let taken_back = flow.move_cost(slot as usize);
                        self.meet(flow, Vertex::Gate(shard, gate), at - taken_back);
                    }
                }
            }
            Vertex::Extras => {
                for node in (0..).zip(&flow.extra).filter_map(|(node, &extra)| extra.then_some(node)) {
                    self.meet(flow, Vertex::Node(node), at);
                }
            }
            Vertex::End => {}
        }
    }

    /// Through the gates that carry something as vertices of their own; the others lead straight to nodes.
    fn leave_shard(&mut self, flow: &Flow<'_>, shard: usize, at: Cost) {
        for &node in flow.nodes_of(shard) {
            let zone = flow.zone(node);
            if let Some(slot) = flow.gate(shard, zone) {
                self.meet(flow, Vertex::Gate(shard, slot), at + flow.pair_cost(shard, zone));
            }
        }
        for zone in 0..flow.in_zone.len() as u32 {
            if flow.uses(shard, zone).0 == 0 {
                self.enter_zone(flow, shard, zone, at + flow.pair_cost(shard, zone));
            }
        }
    }

    /// To all nodes of the zone that do not have the shard. What others offered for no more is not offered again.
    fn enter_zone(&mut self, flow: &Flow<'_>, shard: usize, zone: u32, at: Cost) {
        let has = flow.nodes_of(shard);
        for node in flow.free(shard) {
            if flow.zone(node) == zone {
                self.meet(flow, Vertex::Node(node), at);
            }
        }
        if at < self.offers[zone as usize].at {
            for &node in &flow.in_zone[zone as usize] {
                if !has.contains(&node) {
                    self.meet(flow, Vertex::Node(node), at + MOVE);
                }
            }
            let but = has.iter().copied().filter(|&node| flow.zone(node) == zone).collect();
            self.offers[zone as usize] = Offer { at, but };
        } else {
            for nth in 0..self.offers[zone as usize].but.len() {
                let node = self.offers[zone as usize].but[nth];
                if !has.contains(&node) {
                    self.meet(flow, Vertex::Node(node), at + MOVE);
                }
            }
        }
    }
}
