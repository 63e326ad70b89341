//! Which replica of each shard comes first: the one that should lead.

use std::collections::VecDeque;

/// Moves to the front of each shard's replicas one of them, so that each node leads its replicas divided by
/// `factor`, rounded down or up; otherwise keeps the order.
///
/// Such a choice always exists: let every replica lead 1/`factor` of its shard, and the shares can be made whole
/// without leaving those bounds. So a chain of exchanges is always found.
pub(crate) fn spread_leaders(replicas: &mut [Vec<usize>], nodes: usize, factor: usize) {
    let mut held = vec![0_usize; nodes];
    let mut leads = vec![Vec::new(); nodes];
    for (shard, nodes) in replicas.iter().enumerate() {
        for &node in nodes {
            held[node] += 1;
        }
        leads[nodes[0]].push(shard);
    }
    let least: Vec<usize> = held.iter().map(|held| held / factor).collect();
    let most: Vec<usize> = held.iter().map(|held| held.div_ceil(factor)).collect();
    for node in 0..nodes {
        while leads[node].len() > most[node] {
            let found = hand_on(replicas, &mut leads, node, |to, leads| leads[to].len() < most[to]);
            assert!(found, "a node that leads too much can always hand on");
        }
    }
    for node in 0..nodes {
        while leads[node].len() < least[node] {
            let found = (0..nodes).any(|giver| {
                leads[giver].len() > least[giver] && hand_on(replicas, &mut leads, giver, |to, _| to == node)
            });
            assert!(found, "for a node that leads too little there is always a giver");
        }
    }
}

/// Hands one lead of `from` on, over as few nodes as possible, to a node that `wants` one.
fn hand_on(
    replicas: &mut [Vec<usize>],
    leads: &mut [Vec<usize>],
    from: usize,
    wants: impl Fn(usize, &[Vec<usize>]) -> bool,
) -> bool {
    // For each node met: the node before it and the shard that would change hands.
    let mut met: Vec<Option<(usize, usize)>> = vec![None; leads.len()];
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        if node != from && wants(node, leads) {
            let mut to = node;
            while to != from
                && let Some((giver, shard)) = met[to]
            {
                leads[giver].retain(|&led| led != shard);
                leads[to].push(shard);
                if let Some(slot) = replicas[shard].iter().position(|&held| held == to) {
                    replicas[shard][..=slot].rotate_right(1);
                }
                to = giver;
            }
            return true;
        }
        for &shard in &leads[node] {
            for &next in &replicas[shard] {
                if next != from && met[next].is_none() {
                    met[next] = Some((node, shard));
                    queue.push_back(next);
                }
            }
        }
    }
    false
}
