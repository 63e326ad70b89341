//! The shortest path from a shard to room, and the exchanges along it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::flow::{Cost, Flow, MOVE};

/// Vertices are numbered: shards, nodes, extras, one gate per slot, the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vertex {
    Shard(usize),
    Node(u32),
    Extras,
    /// The gate of a shard to the zone of the node in this slot; of several such slots the first.
    Gate(usize, u32),
    End,
}

/// What has been offered to the nodes of a zone.
#[derive(Clone, Debug)]
struct Offer {
    /// Distance at which all nodes but some could be entered.
    at: Cost,
    /// Those that the shard which offered it has already.
    but: Vec<u32>,
}

/// Scratch space of searches.
#[derive(Default)]
pub(crate) struct Search {
    distance: Vec<Cost>,
    came_from: Vec<u32>,
    done: Vec<bool>,
    touched: Vec<u32>,
    popped: Vec<u32>,
    shard_of_slot: Vec<u32>,
    offers: Vec<Offer>,
    /// (lower bound of the whole path, when pushed, vertex). Of equal bounds the last pushed goes first.
    queue: BinaryHeap<(Reverse<Cost>, u64, u32)>,
    pushed: u64,
}

const FAR: Cost = Cost::MAX / 4;

impl Search {
    /// Sends one more unit from the shard along a shortest path.
    pub(crate) fn place(&mut self, flow: &mut Flow<'_>, shard: usize) {
        self.prepare(flow);
        let length = self.find(flow, shard);
        self.raise_bounds(flow, length);
        let path = self.trace(flow, shard);
        exchange(flow, &path);
        flow.refresh_zones();
    }

    fn prepare(&mut self, flow: &Flow<'_>) {
        if self.distance.is_empty() {
            let vertices = flow.count.len() + flow.base.len() + flow.slots.len() + 2;
            self.distance = vec![FAR; vertices];
            self.came_from = vec![0; vertices];
            self.done = vec![false; vertices];
            for shard in 0..flow.count.len() {
                self.shard_of_slot.resize(flow.start[shard + 1] as usize, shard as u32);
            }
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
            Vertex::Gate(self.shard_of_slot[slot as usize] as usize, slot)
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

    fn relax(&mut self, flow: &Flow<'_>, from: Vertex, to: Vertex, distance: Cost) {
        let number = Self::number(flow, to);
        if distance < self.distance[number as usize] {
            self.distance[number as usize] = distance;
            self.came_from[number as usize] = Self::number(flow, from);
            self.touched.push(number);
            self.pushed += 1;
            self.queue.push((Reverse(distance + Self::to_end(flow, to)), self.pushed, number));
        }
    }

    /// Dijkstra guided by the bounds (A*): they are consistent, so what is taken from the queue is at its distance.
    fn find(&mut self, flow: &Flow<'_>, shard: usize) -> Cost {
        let start = Vertex::Shard(shard);
        let number = Self::number(flow, start);
        self.distance[number as usize] = 0;
        self.touched.push(number);
        self.queue.push((Reverse(Self::to_end(flow, start)), 0, number));
        while let Some((_, _, number)) = self.queue.pop() {
            if std::mem::replace(&mut self.done[number as usize], true) {
                continue;
            }
            let at = self.distance[number as usize];
            let vertex = self.vertex(flow, number);
            if vertex == Vertex::End {
                return at;
            }
            self.popped.push(number);
            self.expand(flow, vertex, at);
        }
        unreachable!("a node can always take one more, and a shard wants at most as many as there are nodes")
    }

    fn expand(&mut self, flow: &Flow<'_>, vertex: Vertex, at: Cost) {
        match vertex {
            Vertex::Shard(shard) => self.leave_shard(flow, shard, at),
            Vertex::Gate(shard, slot) => {
                let zone = flow.zone(flow.slots[slot as usize]);
                self.enter_zone(flow, vertex, shard, zone, at);
                let last_pair = flow.pair_cost(shard, zone) - flow.pair;
                self.relax(flow, vertex, Vertex::Shard(shard), at - last_pair);
            }
            Vertex::Node(node) => {
                self.relax(flow, vertex, Vertex::End, at + flow.over_cost(node));
                let place = node as usize;
                if flow.problem.shares.rounds_up[place] && !flow.extra[place] {
                    self.relax(flow, vertex, Vertex::Extras, at);
                }
                for &shard in &flow.holders[place] {
                    let shard = shard as usize;
                    let gate = gate(flow, shard, flow.zone(node));
                    let taken_back = flow.move_cost(shard, node);
                    self.relax(flow, vertex, gate, at - taken_back);
                }
            }
            Vertex::Extras => {
                for node in (0..).zip(&flow.extra).filter_map(|(node, &extra)| extra.then_some(node)) {
                    self.relax(flow, vertex, Vertex::Node(node), at);
                }
            }
            Vertex::End => {}
        }
    }

    /// Through the gates that carry something as vertices of their own; the others lead straight to nodes.
    fn leave_shard(&mut self, flow: &Flow<'_>, shard: usize, at: Cost) {
        let from = Vertex::Shard(shard);
        for &node in flow.nodes_of(shard) {
            let zone = flow.zone(node);
            self.relax(flow, from, gate(flow, shard, zone), at + flow.pair_cost(shard, zone));
        }
        for zone in 0..flow.in_zone.len() as u32 {
            if flow.uses(shard, zone).0 == 0 {
                self.enter_zone(flow, from, shard, zone, at + flow.pair_cost(shard, zone));
            }
        }
    }

    /// To all nodes of the zone that do not have the shard. What others offered for no more is not offered again.
    fn enter_zone(&mut self, flow: &Flow<'_>, from: Vertex, shard: usize, zone: u32, at: Cost) {
        let has = flow.nodes_of(shard);
        for &node in flow.live(shard) {
            if flow.zone(node) == zone && !has.contains(&node) {
                self.relax(flow, from, Vertex::Node(node), at);
            }
        }
        if at < self.offers[zone as usize].at {
            for &node in &flow.in_zone[zone as usize] {
                if !has.contains(&node) {
                    self.relax(flow, from, Vertex::Node(node), at + MOVE);
                }
            }
            let but = has.iter().copied().filter(|&node| flow.zone(node) == zone).collect();
            self.offers[zone as usize] = Offer { at, but };
        } else {
            for nth in 0..self.offers[zone as usize].but.len() {
                let node = self.offers[zone as usize].but[nth];
                if !has.contains(&node) {
                    self.relax(flow, from, Vertex::Node(node), at + MOVE);
                }
            }
        }
    }

    /// From what was met at distance d the end is at least `length` - d away.
    fn raise_bounds(&self, flow: &mut Flow<'_>, length: Cost) {
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
    }

    fn trace(&self, flow: &Flow<'_>, shard: usize) -> Vec<Vertex> {
        let (start, mut number) = (Self::number(flow, Vertex::Shard(shard)), Self::number(flow, Vertex::End));
        let mut path = Vec::new();
        while number != start {
            number = self.came_from[number as usize];
            path.push(self.vertex(flow, number));
        }
        path.reverse();
        path
    }
}

fn gate(flow: &Flow<'_>, shard: usize, zone: u32) -> Vertex {
    let nth = flow.nodes_of(shard).iter().position(|&node| flow.zone(node) == zone);
    Vertex::Gate(shard, flow.start[shard] + nth.unwrap_or(0) as u32)
}

/// Along the path a node is entered for the shard before it and given back by the shard after it. What a shard gives
/// back makes place for what it enters; the first enters one more.
fn exchange(flow: &mut Flow<'_>, path: &[Vertex]) {
    let mut entered: Vec<(usize, u32)> = Vec::new();
    let mut given_back: Vec<(usize, u32)> = Vec::new();
    let mut last = None;
    for pair in path.windows(2) {
        match *pair {
            [Vertex::Gate(shard, _) | Vertex::Shard(shard), Vertex::Node(node)] => {
                entered.push((shard, node))
            }
            [Vertex::Node(node), Vertex::Gate(shard, _)] => given_back.push((shard, node)),
            [Vertex::Node(node), Vertex::Extras] => flow.extra[node as usize] = true,
            [Vertex::Extras, Vertex::Node(node)] => flow.extra[node as usize] = false,
            _ => {}
        }
        if let Vertex::Node(node) = pair[1] {
            last = Some(node);
        }
    }
    for &(shard, node) in &entered {
        let start = flow.start[shard] as usize;
        let slot = match given_back.iter().position(|&(other, _)| other == shard) {
            Some(nth) => {
                let (_, gone) = given_back.swap_remove(nth);
                flow.holders[gone as usize].retain(|&holder| holder as usize != shard);
                let held = flow.nodes_of(shard).iter().position(|&held| held == gone);
                start + held.unwrap_or(0)
            }
            None => {
                flow.count[shard] += 1;
                start + flow.count[shard] as usize - 1
            }
        };
        flow.slots[slot] = node;
        flow.holders[node as usize].push(shard as u32);
    }
    // The path was tight, so each gate that it left is as far as the node it led to, and the step there.
    for (shard, node) in entered {
        let bound = flow.move_cost(shard, node) + flow.to_end_node[node as usize];
        flow.bound_gate(shard, flow.zone(node), bound);
    }
    if let Some(node) = last {
        flow.load(node);
    }
}
