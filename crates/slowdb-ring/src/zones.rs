//! Zone labels as numbers.

/// A number for each node's zone. Nodes without a label are alone in theirs.
#[derive(Clone, Debug)]
pub(crate) struct Zones {
    of_node: Vec<u32>,
    count: u32,
    matter: bool,
}

impl Zones {
    /// Zones of nodes by their labels.
    pub(crate) fn of<'a>(labels: impl Iterator<Item = Option<&'a str>>) -> Self {
        let labels: Vec<Option<&str>> = labels.collect();
        let mut distinct: Vec<&str> = labels.iter().copied().flatten().collect();
        distinct.sort_unstable();
        let labelled = distinct.len();
        distinct.dedup();
        if distinct.len() == labelled {
            // No two nodes share a zone: the rule is that of distinct nodes, and one zone for all is less to search.
            return Self { of_node: vec![0; labels.len()], count: 1, matter: false };
        }
        let mut count = distinct.len() as u32;
        let mut number = |label: &Option<&str>| match label {
            Some(label) => distinct.partition_point(|other| other < label) as u32,
            None => {
                count += 1;
                count - 1
            }
        };
        let of_node = labels.iter().map(&mut number).collect();
        Self { of_node, count, matter: true }
    }

    pub(crate) fn of_node(&self, node: u32) -> u32 {
        self.of_node[node as usize]
    }

    pub(crate) fn count(&self) -> usize {
        self.count as usize
    }

    /// Whether any two nodes share one. If not, all have number 0.
    pub(crate) fn matter(&self) -> bool {
        self.matter
    }
}
