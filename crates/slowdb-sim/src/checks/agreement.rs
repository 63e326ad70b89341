//! Replicas agree: whoever has applied a group up to some position is in the same state there, at any time and in
//! any life; and when nothing is under way, all are at the same position.

use crate::events::Event;
use slowdb_proto::Position;
use std::collections::BTreeMap;

pub(super) fn check(events: &[(u64, Event)]) -> Result<(), String> {
    let mut states: BTreeMap<(u64, Position), (usize, [u8; 16])> = BTreeMap::new();
    for (now, event) in events {
        match event {
            Event::Applied { node, group, position, digest } => {
                let (first, known) = *states.entry((*group, *position)).or_insert((*node, *digest));
                if known != *digest {
                    return Err(format!(
                        "group {group} at {position}: node {node} has digest {digest:02x?}, node {first} had \
                         {known:02x?} ({now} us)"
                    ));
                }
            }
            Event::NotQuiet { why } => return Err(format!("the replicas did not come together: {why}")),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(node: usize, index: u64, digest: u8) -> (u64, Event) {
        let position = Position { term: 1, index, offset: 0 };
        (0, Event::Applied { node, group: 1, position, digest: [digest; 16] })
    }

    #[test]
    fn states_at_one_position_are_equal() {
        assert_eq!(check(&[applied(0, 1, 7), applied(1, 2, 8), applied(1, 1, 7)]), Ok(()));
        assert!(check(&[applied(0, 1, 7), applied(1, 1, 8)]).is_err());
        assert!(check(&[(0, Event::NotQuiet { why: "so".into() })]).is_err());
    }
}
