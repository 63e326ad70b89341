//! At most one leader for each term of each group, over the whole run.

use crate::events::Event;
use std::collections::BTreeMap;

pub(super) fn check(events: &[(u64, Event)]) -> Result<(), String> {
    let mut leaders: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for (_, event) in events {
        if let Event::Leads { node, group, term } = event {
            let first = *leaders.entry((*group, *term)).or_insert(*node);
            if first != *node {
                return Err(format!("nodes {first} and {node} both led group {group} in term {term}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads(node: usize, term: u64) -> (u64, Event) {
        (0, Event::Leads { node, group: 1, term })
    }

    #[test]
    fn one_leader_may_be_seen_twice_but_two_may_not() {
        assert_eq!(check(&[leads(0, 1), leads(0, 1), leads(1, 2)]), Ok(()));
        assert!(check(&[leads(0, 1), leads(1, 2), leads(1, 1)]).is_err());
    }
}
