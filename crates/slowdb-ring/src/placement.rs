//! [`Placement`]: who should hold what, as a value.

/// Replicas of each shard in order; the first should lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    nodes: Vec<String>,
    replicas: Vec<Vec<usize>>,
}

impl Placement {
    pub(crate) fn new(nodes: Vec<String>, replicas: Vec<Vec<usize>>) -> Self {
        Self { nodes, replicas }
    }

    /// Number of shards.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.replicas.len()
    }

    /// All nodes of the ring by name, also those that hold nothing.
    #[must_use]
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// The nodes that hold `shard`, the preferred leader first; nothing if there is no such shard.
    pub fn replicas(&self, shard: u32) -> impl Iterator<Item = &str> {
        self.replicas.get(shard as usize).into_iter().flatten().map(|&node| self.nodes[node].as_str())
    }

    /// The node that should lead `shard`, or `None` if there is no such shard.
    #[must_use]
    pub fn preferred_leader(&self, shard: u32) -> Option<&str> {
        self.replicas(shard).next()
    }

    /// The shards that `node` holds, ascending.
    pub fn shards_on(&self, node: &str) -> impl Iterator<Item = u32> {
        let place = self.nodes.iter().position(|name| name == node);
        (0..)
            .zip(&self.replicas)
            .filter(move |(_, nodes)| place.is_some_and(|place| nodes.contains(&place)))
            .map(|(shard, _)| shard)
    }

    /// How many replicas `self` has that `before` has not: what has to be copied to get from there to here.
    #[must_use]
    pub fn moves_from(&self, before: &Self) -> usize {
        (0..self.replicas.len() as u32)
            .map(|shard| {
                self.replicas(shard).filter(|name| before.replicas(shard).all(|held| held != *name)).count()
            })
            .sum()
    }
}
