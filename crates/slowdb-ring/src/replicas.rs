//! Replicas to nodes: a walk first, exchanges where the walk does not come out even.
//!
//! Seen as a flow, each shard sends one unit per replica through one of its gates, one gate per zone, to a node and
//! from there to the end. Gates and nodes let their share through, rounded down, and what the rounding left over is
//! shared: by the gates of a shard, and by all nodes. A shard that finds no node with room looks for a shortest path
//! of free and cancellable flow; pushing along it makes room by exchanging replicas of other shards. If there is no
//! path, no arrangement within the limits exists, and only then may zones be shared more than they must.

use std::collections::VecDeque;

/// How many replicas each node may hold: its share rounded down, and for some of those with a remainder one more.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    floor: Vec<usize>,
    rounds_up: Vec<bool>,
    extras: usize,
}

impl Quota {
    /// Shares by weight of `shards * factor` replicas, none above `shards`, since a node holds a shard once.
    pub(crate) fn by_weight(weights: &[u32], shards: usize, factor: usize) -> Self {
        let mut floor = vec![0; weights.len()];
        let mut rounds_up = vec![false; weights.len()];
        let mut open: Vec<usize> = (0..weights.len()).collect();
        let mut left = shards * factor;
        loop {
            let weight: u128 = open.iter().map(|&node| u128::from(weights[node])).sum();
            let share = |node: usize| left as u128 * u128::from(weights[node]);
            let (full, rest): (Vec<_>, Vec<_>) =
                open.iter().partition(|&&node| share(node) >= shards as u128 * weight);
            if full.is_empty() {
                for &node in &open {
                    floor[node] = (share(node) / weight) as usize;
                    rounds_up[node] = !share(node).is_multiple_of(weight);
                }
                break;
            }
            // What a full node cannot take is shared among the others.
            for &node in &full {
                floor[node] = shards;
            }
            left -= full.len() * shards;
            open = rest;
            if open.is_empty() {
                break;
            }
        }
        let extras = shards * factor - floor.iter().sum::<usize>();
        Self { floor, rounds_up, extras }
    }
}

/// Nodes of each shard, in the order they were taken. `walks` gives the order each shard prefers.
pub(crate) fn assign(
    walks: impl Iterator<Item = Vec<usize>>,
    zones: &[usize],
    quota: Quota,
    factor: usize,
) -> Vec<Vec<usize>> {
    let mut state = State::new(zones, quota, factor);
    for (shard, walk) in walks.enumerate() {
        state.replicas.push(Vec::with_capacity(factor));
        for _ in 0..factor {
            let placed = [Zones::Spread, Zones::FreeFor(shard), Zones::Free]
                .into_iter()
                .any(|zones| state.take_first(shard, &walk, zones) || state.take_by_exchange(shard, zones));
            assert!(placed, "shares add up to all replicas and none exceeds the shards");
        }
    }
    state.replicas
}

/// How strictly replicas of a shard are spread over zones. Balance goes before zones, so this gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zones {
    /// As evenly as the factor and the number of zones allow.
    Spread,
    /// The same, except for one shard.
    FreeFor(usize),
    /// As it comes.
    Free,
}

struct State<'a> {
    zones: &'a [usize],
    zone_count: usize,
    /// What each gate of a shard lets through of its own, and how many of them one more.
    gate_floor: usize,
    gate_extras: usize,
    in_zone: Vec<Vec<usize>>,
    quota: Quota,
    replicas: Vec<Vec<usize>>,
    load: Vec<usize>,
    holders: Vec<Vec<usize>>,
    extras_used: usize,
}

/// A place that flow passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vertex {
    Shard(usize),
    Gate(usize, usize),
    /// Where a shard's gates that let one more through take it from.
    GateExtras(usize),
    Node(usize),
    /// Where the shares that are rounded up come from.
    Extras,
}

impl<'a> State<'a> {
    fn new(zones: &'a [usize], quota: Quota, factor: usize) -> Self {
        let zone_count = zones.iter().max().map_or(1, |&zone| zone + 1);
        let mut in_zone = vec![Vec::new(); zone_count];
        for (node, &zone) in zones.iter().enumerate() {
            in_zone[zone].push(node);
        }
        let nodes = zones.len();
        Self {
            zones,
            zone_count,
            gate_floor: factor / zone_count,
            gate_extras: factor % zone_count,
            in_zone,
            quota,
            replicas: Vec::new(),
            load: vec![0; nodes],
            holders: vec![Vec::new(); nodes],
            extras_used: 0,
        }
    }

    fn zone_use(&self, shard: usize, zone: usize) -> usize {
        self.replicas[shard].iter().filter(|&&node| self.zones[node] == zone).count()
    }

    fn may_use_extra(&self, node: usize) -> bool {
        self.load[node] == self.quota.floor[node] && self.quota.rounds_up[node]
    }

    fn has_room(&self, node: usize) -> bool {
        self.load[node] < self.quota.floor[node]
            || (self.may_use_extra(node) && self.extras_used < self.quota.extras)
    }

    /// Replicas of `shard` that went through its gates beyond their own shares.
    fn gate_extras_used(&self, shard: usize) -> usize {
        (0..self.zone_count).map(|zone| self.zone_use(shard, zone).saturating_sub(self.gate_floor)).sum()
    }

    fn is_free(shard: usize, zones: Zones) -> bool {
        zones == Zones::Free || zones == Zones::FreeFor(shard)
    }

    /// Whether the gate can take one of its shard's extras.
    fn gate_takes_extra(&self, shard: usize, zone: usize, zones: Zones) -> bool {
        let uses = self.zone_use(shard, zone);
        uses == self.gate_floor || (uses > self.gate_floor && Self::is_free(shard, zones))
    }

    fn has_extra_for_gates(&self, shard: usize, zones: Zones) -> bool {
        Self::is_free(shard, zones) || self.gate_extras_used(shard) < self.gate_extras
    }

    fn take_first(&mut self, shard: usize, walk: &[usize], zones: Zones) -> bool {
        let possible = walk.iter().copied().filter(|&node| {
            let zone = self.zones[node];
            self.has_room(node)
                && !self.replicas[shard].contains(&node)
                && (self.zone_use(shard, zone) < self.gate_floor
                    || (self.gate_takes_extra(shard, zone, zones) && self.has_extra_for_gates(shard, zones)))
        });
        // The first on the walk in the zone least used: of several that are as good, `min_by_key` takes the first.
        let found = possible.min_by_key(|&node| self.zone_use(shard, self.zones[node]));
        if let Some(node) = found {
            self.add(shard, node);
        }
        found.is_some()
    }

    fn add(&mut self, shard: usize, node: usize) {
        self.replicas[shard].push(node);
        self.hold(shard, node);
    }

    fn hold(&mut self, shard: usize, node: usize) {
        self.holders[node].push(shard);
        if self.load[node] >= self.quota.floor[node] {
            self.extras_used += 1;
        }
        self.load[node] += 1;
    }

    fn release(&mut self, shard: usize, node: usize) {
        self.holders[node].retain(|&holder| holder != shard);
        self.load[node] -= 1;
        if self.load[node] >= self.quota.floor[node] {
            self.extras_used -= 1;
        }
    }

    /// Breadth first from the shard to any room, then every hop becomes an exchange.
    fn take_by_exchange(&mut self, shard: usize, zones: Zones) -> bool {
        let Some(path) = self.shortest_path(shard, zones) else { return false };
        // Along the path, flow enters a node for the shard of the gate before it, and is cancelled at a node for
        // the shard of the gate after it. Per shard what is cancelled makes place for what enters.
        let mut entering: Vec<(usize, usize)> = Vec::new();
        let mut leaving: Vec<(usize, usize)> = Vec::new();
        for pair in path.windows(2) {
            match *pair {
                [Vertex::Gate(shard, _), Vertex::Node(node)] => entering.push((shard, node)),
                [Vertex::Node(node), Vertex::Gate(shard, _)] => leaving.push((shard, node)),
                _ => {}
            }
        }
        for &(shard, node) in &leaving {
            self.release(shard, node);
        }
        for (shard, node) in entering {
            match leaving.iter().position(|&(other, _)| other == shard) {
                Some(nth) => {
                    let (_, gone) = leaving.swap_remove(nth);
                    let slot = self.replicas[shard].iter().position(|&held| held == gone);
                    if let Some(slot) = slot {
                        self.replicas[shard][slot] = node;
                    }
                }
                None => self.replicas[shard].push(node),
            }
            self.hold(shard, node);
        }
        true
    }

    fn shortest_path(&self, shard: usize, zones: Zones) -> Option<Vec<Vertex>> {
        let start = Vertex::Shard(shard);
        let mut came_from: Vec<Option<Vertex>> = vec![None; self.vertex_count()];
        came_from[self.number(start)] = Some(start);
        let mut queue = VecDeque::from([start]);
        while let Some(vertex) = queue.pop_front() {
            let at_end = match vertex {
                Vertex::Node(node) => self.load[node] < self.quota.floor[node],
                Vertex::Extras => self.extras_used < self.quota.extras,
                _ => false,
            };
            if at_end {
                return Some(self.trace(start, vertex, &came_from));
            }
            self.for_each_next(vertex, zones, |next| {
                let slot = &mut came_from[self.number(next)];
                if slot.is_none() {
                    *slot = Some(vertex);
                    queue.push_back(next);
                }
            });
        }
        None
    }

    fn trace(&self, start: Vertex, end: Vertex, came_from: &[Option<Vertex>]) -> Vec<Vertex> {
        let mut path = vec![end];
        let mut vertex = end;
        while vertex != start
            && let Some(before) = came_from[self.number(vertex)]
        {
            path.push(before);
            vertex = before;
        }
        path.reverse();
        path
    }

    /// Where a unit of flow at `vertex` can go: forward where there is room, back where there is flow to cancel.
    fn for_each_next(&self, vertex: Vertex, zones: Zones, mut visit: impl FnMut(Vertex)) {
        match vertex {
            Vertex::Shard(shard) => {
                for zone in 0..self.zone_count {
                    if self.zone_use(shard, zone) < self.gate_floor {
                        visit(Vertex::Gate(shard, zone));
                    }
                }
                if self.has_extra_for_gates(shard, zones) {
                    visit(Vertex::GateExtras(shard));
                }
            }
            Vertex::GateExtras(shard) => {
                for zone in 0..self.zone_count {
                    if self.gate_takes_extra(shard, zone, zones) {
                        visit(Vertex::Gate(shard, zone));
                    }
                }
                if self.gate_extras_used(shard) > 0 {
                    visit(Vertex::Shard(shard));
                }
            }
            Vertex::Gate(shard, zone) => {
                for &node in &self.in_zone[zone] {
                    if !self.replicas[shard].contains(&node) {
                        visit(Vertex::Node(node));
                    }
                }
                let uses = self.zone_use(shard, zone);
                if uses > self.gate_floor {
                    visit(Vertex::GateExtras(shard));
                }
                if uses.min(self.gate_floor) > 0 {
                    visit(Vertex::Shard(shard));
                }
            }
            Vertex::Node(node) => {
                if self.may_use_extra(node) {
                    visit(Vertex::Extras);
                }
                for &shard in &self.holders[node] {
                    visit(Vertex::Gate(shard, self.zones[node]));
                }
            }
            Vertex::Extras => {
                for (node, &load) in self.load.iter().enumerate() {
                    if load > self.quota.floor[node] {
                        visit(Vertex::Node(node));
                    }
                }
            }
        }
    }

    fn vertex_count(&self) -> usize {
        1 + self.load.len() + self.replicas.len() * (2 + self.zone_count)
    }

    fn number(&self, vertex: Vertex) -> usize {
        let shards_from = 1 + self.load.len();
        match vertex {
            Vertex::Extras => 0,
            Vertex::Node(node) => 1 + node,
            Vertex::Shard(shard) => shards_from + shard * (2 + self.zone_count),
            Vertex::GateExtras(shard) => shards_from + shard * (2 + self.zone_count) + 1,
            Vertex::Gate(shard, zone) => shards_from + shard * (2 + self.zone_count) + 2 + zone,
        }
    }
}
