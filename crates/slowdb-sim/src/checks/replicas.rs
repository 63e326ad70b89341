//! Replicas come and go as committed configurations say: none is given up before one is without it, no id is used twice,
//! and no group is left with fewer votes than it had and was wanted to have.

use crate::events::Event;
use slowdb_proto::Wanted;
use slowdb_repl::Part;
use slowdb_server::CatalogProbe;
use std::collections::{BTreeMap, BTreeSet};

type Members = Vec<(u64, String, Part)>;

#[derive(Default)]
struct Seen {
    /// Where each replica is: its group and node.
    homes: BTreeMap<u64, (u64, String)>,
    /// By node and group, the replica there.
    there: BTreeMap<(usize, u64), u64>,
    /// Replicas that have applied something. One that has not may be lost with the power, and be begun again.
    heard: BTreeSet<u64>,
    /// Replicas that the catalog has dropped.
    dropped: BTreeSet<u64>,
    /// Replicas and groups that it has now.
    replicas: BTreeSet<u64>,
    groups: BTreeSet<u64>,
    /// By group and the epoch that wanted it: how many votes there are to be.
    wanted: BTreeMap<(u64, u64), usize>,
    /// The latest committed members of each group, with their index and intent.
    members: BTreeMap<u64, (u64, u64, Members)>,
    /// Votes of each group before the joint configuration that it is in, and the intent that this was entered with.
    before: BTreeMap<u64, (usize, u64)>,
}

pub(super) fn check(events: &[(u64, Event)]) -> Result<(), String> {
    let mut seen = Seen::default();
    for (now, event) in events {
        let checked = match event {
            Event::Catalog { catalog, .. } => seen.catalog(catalog),
            Event::Replica { node, group, replica } => {
                seen.there.insert((*node, *group), *replica);
                Ok(())
            }
            Event::Applied { node, group, position, .. } if position.index > 1 => {
                seen.heard.extend(seen.there.get(&(*node, *group)));
                Ok(())
            }
            Event::Members { group, index, intent, members, .. } if !members.is_empty() => {
                seen.members(*group, *index, *intent, members)
            }
            Event::ReplicaGone { node, group, replica } => seen.given_up(*node, *group, *replica),
            _ => Ok(()),
        };
        checked.map_err(|why| format!("{why} ({now} us)"))?;
    }
    Ok(())
}

impl Seen {
    fn catalog(&mut self, catalog: &CatalogProbe) -> Result<(), String> {
        let mut replicas = BTreeSet::new();
        self.groups.clear();
        for spec in &catalog.groups {
            self.groups.insert(spec.group);
            let votes = spec.replicas.iter().filter(|replica| replica.wanted == Wanted::Voter).count();
            self.wanted.insert((spec.group, spec.epoch), votes);
            for replica in &spec.replicas {
                self.lives(replica.replica, spec.group, &replica.node)?;
                replicas.insert(replica.replica);
                if self.dropped.contains(&replica.replica) {
                    return Err(format!(
                        "the id of replica {} of group {} is used again",
                        replica.replica, spec.group
                    ));
                }
            }
        }
        let gone = self.replicas.difference(&replicas).copied();
        self.dropped.extend(gone);
        self.replicas = replicas;
        Ok(())
    }

    fn lives(&mut self, replica: u64, group: u64, node: &str) -> Result<(), String> {
        let home = self.homes.entry(replica).or_insert_with(|| (group, node.to_owned()));
        if (home.0, home.1.as_str()) == (group, node) {
            return Ok(());
        }
        Err(format!(
            "replica {replica} is one of group {group} on {node}, and was one of group {} on {}",
            home.0, home.1
        ))
    }

    fn members(&mut self, group: u64, index: u64, intent: u64, members: &Members) -> Result<(), String> {
        for (replica, node, _) in members {
            self.lives(*replica, group, node)?;
            let is_news = self.members.get(&group).is_none_or(|known| known.0 < index);
            if is_news && self.groups.contains(&group) && self.dropped.contains(replica) {
                return Err(format!(
                    "group {group} has replica {replica} again at {index}, which the catalog has dropped"
                ));
            }
        }
        let Some((known, known_intent, before)) = self.members.get(&group) else {
            self.members.insert(group, (index, intent, members.clone()));
            return Ok(());
        };
        if *known >= index {
            if *known == index && *before != *members {
                return Err(format!(
                    "group {group} has two memberships at {index}: {before:?} and {members:?}"
                ));
            }
            return Ok(());
        }
        let is_joint =
            |members: &Members| members.iter().any(|it| !matches!(it.2, Part::Voter | Part::Learner));
        let votes = |members: &Members| members.iter().filter(|it| it.2 == Part::Voter).count();
        match (is_joint(before), is_joint(members)) {
            (false, true) => drop(self.before.insert(group, (votes(before), intent))),
            (_, false) => {
                let steps = (votes(before), *known_intent);
                let (had, entered) = self.before.remove(&group).unwrap_or(steps);
                let wanted = |intent| self.wanted.get(&(group, intent)).copied();
                let wanted = wanted(entered).into_iter().chain(wanted(intent)).min();
                if let Some(wanted) = wanted.filter(|wanted| votes(members) < had.min(*wanted)) {
                    return Err(format!(
                        "group {group} is left with {} votes at {index}; it had {had}, and {wanted} were wanted",
                        votes(members)
                    ));
                }
            }
            (true, true) => {}
        }
        self.members.insert(group, (index, intent, members.clone()));
        Ok(())
    }

    fn given_up(&self, node: usize, group: u64, replica: u64) -> Result<(), String> {
        let Some((index, _, members)) = self.members.get(&group) else { return Ok(()) };
        // With its collection a group is gone as a whole.
        let counts = self.groups.contains(&group) && self.heard.contains(&replica);
        if counts && members.iter().any(|(member, ..)| *member == replica) {
            return Err(format!(
                "node {node} gave replica {replica} of group {group} up, which is a member at {index}: {members:?}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(index: u64, members: &[(u64, &str, Part)]) -> (u64, Event) {
        let members =
            members.iter().map(|(replica, node, part)| (*replica, (*node).to_owned(), *part)).collect();
        (0, Event::Members { node: 0, group: 1, replica: 1, index, intent: 0, members })
    }

    #[test]
    fn an_id_belongs_to_one_node() {
        let first = members(1, &[(1, "a", Part::Voter), (2, "b", Part::Learner)]);
        assert_eq!(check(&[first.clone(), members(2, &[(1, "a", Part::Voter)])]), Ok(()));
        assert!(check(&[first, members(2, &[(1, "a", Part::Voter), (2, "c", Part::Learner)])]).is_err());
    }

    #[test]
    fn a_member_is_not_given_up() {
        let mut seen = Seen::default();
        seen.groups.insert(1);
        seen.heard.insert(2);
        let with = vec![(1, "a".to_owned(), Part::Voter), (2, "b".to_owned(), Part::Voter)];
        seen.members(1, 1, 0, &with).expect("it is sound");
        assert!(seen.given_up(1, 1, 2).is_err());
        seen.members(1, 3, 0, &with[..1].to_vec()).expect("nobody wanted more");
        assert_eq!(seen.given_up(1, 1, 2), Ok(()));
    }

    #[test]
    fn votes_are_not_fewer_than_wanted() {
        let three: Members =
            ["a", "b", "c"].iter().zip(1..).map(|(n, r)| (r, (*n).to_owned(), Part::Voter)).collect();
        let mut seen = Seen::default();
        seen.members(1, 1, 7, &three).expect("it is sound");
        seen.wanted.insert((1, 7), 3);
        assert!(seen.members(1, 2, 7, &three[..2].to_vec()).is_err());
        seen.wanted.insert((1, 8), 1);
        assert_eq!(seen.members(1, 3, 8, &three[..1].to_vec()), Ok(()));
    }
}
