//! Which nodes hold nothing that would be lost with them, as the catalog's leader has heard from them.
//!
//! A node that has no replica any more may still hold the only copy of writes: what was acknowledged at `one` and
//! overtaken, until a leader has settled it. Only the node itself can tell. So each that holds nothing says so now and
//! then, with the epoch of the catalog that it knows, and one that is up is removed only after it has said so *since* it
//! had its last replica. A word that was late on its way is from before that, and does not count.

use crate::catalog::Catalog;
use std::collections::{BTreeMap, BTreeSet};

/// What the leader of one term knows. It begins anew with each term.
#[derive(Default)]
pub(crate) struct Vacancies {
    term: u64,
    /// Epoch that was looked at last.
    epoch: u64,
    nodes: BTreeMap<String, Vacancy>,
}

#[derive(Default)]
struct Vacancy {
    /// The first epoch from which on its word counts.
    since: u64,
    /// The last epoch at which it said that it holds nothing.
    told: Option<u64>,
}

impl Vacancies {
    /// Takes note of who has replicas. To be called in every tick of a leader that knows the catalog.
    pub(crate) fn look(&mut self, term: u64, catalog: &Catalog) {
        let is_new = self.term != term;
        if !is_new && self.epoch == catalog.epoch {
            return;
        }
        if is_new {
            self.nodes.clear();
        }
        (self.term, self.epoch) = (term, catalog.epoch);
        let replicas = catalog.shards().flat_map(|(_, shard)| &shard.spec.replicas);
        let occupied: BTreeSet<&str> = replicas.map(|replica| replica.node.as_str()).collect();
        self.nodes.retain(|node, _| catalog.node(node).is_some());
        for node in &catalog.nodes {
            // Who is new to this leader may have had replicas until just before this epoch.
            let is_known = self.nodes.contains_key(&node.id);
            let vacancy = self.nodes.entry(node.id.clone()).or_default();
            if occupied.contains(node.id.as_str()) {
                vacancy.since = catalog.epoch + 1;
            } else if !is_known {
                vacancy.since = catalog.epoch;
            }
        }
    }

    /// A node said that it holds nothing, at this epoch.
    pub(crate) fn hear(&mut self, node: &str, epoch: u64) {
        if let Some(vacancy) = self.nodes.get_mut(node) {
            vacancy.told = vacancy.told.max(Some(epoch));
        }
    }

    /// Whether the leader of this term may go by it that a node holds nothing.
    pub(crate) fn is_vacant(&self, term: u64, node: &str) -> bool {
        let vacancy = self.nodes.get(node).filter(|_| self.term == term);
        vacancy.is_some_and(|vacancy| vacancy.told.is_some_and(|told| told >= vacancy.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::founded;

    /// A catalog at this epoch in which these have a replica.
    fn catalog(epoch: u64, occupied: &[&str]) -> Catalog {
        let mut catalog = Catalog { epoch, ..founded(&["n1", "n2", "n3"], 4, 3) };
        for shard in catalog.collections.iter_mut().flat_map(|collection| &mut collection.shards) {
            shard.spec.replicas.retain(|replica| occupied.contains(&replica.node.as_str()));
        }
        catalog
    }

    #[test]
    fn only_a_word_from_after_the_last_replica_counts() {
        let mut vacancies = Vacancies::default();
        vacancies.look(3, &catalog(10, &["n1", "n2"]));
        assert!(!vacancies.is_vacant(3, "n3"), "it has said nothing");
        vacancies.hear("n3", 9);
        assert!(!vacancies.is_vacant(3, "n3"), "it may have had one since");
        vacancies.hear("n3", 10);
        assert!(vacancies.is_vacant(3, "n3"));
        vacancies.look(3, &catalog(11, &["n1", "n3"]));
        assert!(!vacancies.is_vacant(3, "n3"));
        vacancies.look(3, &catalog(14, &["n1", "n2"]));
        vacancies.hear("n3", 11);
        assert!(!vacancies.is_vacant(3, "n3"), "it had one at that epoch");
        vacancies.hear("n3", 12);
        assert!(vacancies.is_vacant(3, "n3"));
    }

    #[test]
    fn what_another_leader_heard_does_not_count() {
        let mut vacancies = Vacancies::default();
        vacancies.look(3, &catalog(10, &["n1"]));
        vacancies.hear("n2", 10);
        assert!(vacancies.is_vacant(3, "n2") && !vacancies.is_vacant(4, "n2"));
        vacancies.look(5, &catalog(12, &["n1"]));
        assert!(!vacancies.is_vacant(5, "n2"));
        vacancies.hear("n2", 11);
        assert!(!vacancies.is_vacant(5, "n2"), "others led meanwhile");
        vacancies.hear("n2", 12);
        vacancies.hear("n2", 11);
        assert!(vacancies.is_vacant(5, "n2"));
        vacancies.hear("n9", 12);
        assert!(!vacancies.is_vacant(5, "n9"), "there is no such node");
    }
}
