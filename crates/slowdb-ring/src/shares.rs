//! How much of a total falls to each node by weight, in whole units.

/// Each node's share rounded down, and for some of those with a remainder one more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares {
    /// Units that fall to each node for certain.
    pub(crate) floor: Vec<u32>,
    /// Whether the node's share has a remainder, so that it may take one unit more.
    pub(crate) rounds_up: Vec<bool>,
    /// How many of the nodes that may take one more do so.
    pub(crate) extras: u32,
}

impl Shares {
    /// Shares of `total` by weight, no node's above its entry in `caps`. What a full node cannot take is shared among
    /// the others. The caps add up to `total` at least.
    pub(crate) fn by_weight(weights: &[u32], caps: &[u32], total: u32) -> Self {
        let mut floor = vec![0; weights.len()];
        let mut rounds_up = vec![false; weights.len()];
        let mut open: Vec<usize> = (0..weights.len()).collect();
        let mut left = u128::from(total);
        while !open.is_empty() {
            let weight: u128 = open.iter().map(|&node| u128::from(weights[node])).sum();
            let share = |node: usize| left * u128::from(weights[node]);
            let (full, rest): (Vec<_>, Vec<_>) =
                open.iter().partition(|&&node| share(node) >= u128::from(caps[node]) * weight);
            if full.is_empty() {
                for &node in &open {
                    floor[node] = (share(node) / weight) as u32;
                    rounds_up[node] = !share(node).is_multiple_of(weight);
                }
                break;
            }
            for &node in &full {
                floor[node] = caps[node];
                left = left.saturating_sub(u128::from(caps[node]));
            }
            open = rest;
        }
        let extras = total - floor.iter().sum::<u32>().min(total);
        Self { floor, rounds_up, extras }
    }

    /// The most that the node may take.
    pub(crate) fn ceiling(&self, node: usize) -> u32 {
        self.floor[node] + u32::from(self.rounds_up[node])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn full_nodes_leave_the_rest_to_others() {
        let shares = Shares::by_weight(&[8, 1, 1], &[10, 10, 10], 20);
        assert_eq!((shares.floor, shares.rounds_up, shares.extras), (vec![10, 5, 5], vec![false; 3], 0));
        let shares = Shares::by_weight(&[1, 1, 1], &[9, 9, 9], 10);
        assert_eq!((shares.floor, shares.rounds_up, shares.extras), (vec![3; 3], vec![true; 3], 1));
    }

    proptest! {
        #[test]
        fn shares_add_up_and_respect_caps(
            nodes in prop::collection::vec((1_u32..20, 0_u32..30), 1..9), part in 0_u32..=100,
        ) {
            let (weights, caps): (Vec<u32>, Vec<u32>) = nodes.into_iter().unzip();
            let total = caps.iter().sum::<u32>() * part / 100;
            let shares = Shares::by_weight(&weights, &caps, total);
            prop_assert_eq!(shares.floor.iter().sum::<u32>() + shares.extras, total);
            let takers = shares.rounds_up.iter().filter(|up| **up).count() as u32;
            prop_assert!(shares.extras == 0 && takers == 0 || shares.extras < takers);
            for (node, &cap) in caps.iter().enumerate() {
                prop_assert!(shares.ceiling(node) <= cap);
            }
        }
    }
}
