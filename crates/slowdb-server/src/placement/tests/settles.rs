//! Whatever happens, in whatever order, and whoever knows how little: no member is forgotten, no vote is given away, and
//! when nothing more happens everything is where it is wanted and there is nothing more to plan.

use super::world::World;
use super::{NAMES, founded};
use crate::catalog::{CatalogChange, GroupSpec};
use crate::placement::first_placement;
use slowdb_proto::{CollectionSettings, Metric, NodeState};
use std::collections::BTreeMap;

const SEEDS: u64 = 60;

/// Draws by splitmix64.
struct Draws(u64);

impl Draws {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % end as u64) as usize
    }

    fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }
}

struct Run {
    world: World,
    draws: Draws,
    /// What a group's leader may still believe to be wanted.
    stale: BTreeMap<u64, GroupSpec>,
    down: Option<String>,
}

impl Run {
    /// Somebody wants something, or a node dies or comes back. One at a time is dead.
    fn event(&mut self) {
        let nodes: Vec<String> = self.world.catalog.nodes.iter().map(|node| node.id.clone()).collect();
        let node = nodes[self.draws.below(nodes.len())].clone();
        let change = match self.draws.below(8) {
            0 | 1 => {
                let free = NAMES.iter().find(|name| !nodes.iter().any(|node| node == *name));
                let storage = [self.draws.below(200) as u8 + 1; 16];
                free.map(|name| CatalogChange::Join {
                    node: (*name).to_owned(),
                    storage,
                    address: format!("{name}:1"),
                    zone: self.draws.one_in(2).then(|| "zone".to_owned()),
                    weight: 1 + self.draws.below(3) as u32,
                })
            }
            2 | 3 => {
                let states = [NodeState::Active, NodeState::Cordoned, NodeState::Draining];
                Some(CatalogChange::State { node, state: states[self.draws.below(3)] })
            }
            4 => Some(CatalogChange::Remove { node }),
            5 => Some(super::factor("default", 1 + self.draws.below(5) as u32)),
            6 => self.collection(),
            _ => self.death(node),
        };
        // What does not fit is refused: there may be no room, or a replica left.
        if let Some(change) = change
            && self.world.catalog.clone().change(change.clone()).is_ok()
        {
            self.world.decide(change);
        }
    }

    fn collection(&mut self) -> Option<CatalogChange> {
        let name = "other".to_owned();
        if self.world.catalog.collection(&name).is_some() {
            return Some(CatalogChange::Drop { name });
        }
        let replication_factor = 1 + self.draws.below(3) as u32;
        let shards = first_placement(&self.world.catalog, 3, replication_factor).ok()?;
        Some(CatalogChange::Create {
            name,
            dimension: 4,
            metric: Metric::L2,
            replication_factor,
            settings: CollectionSettings::default(),
            shards,
        })
    }

    fn death(&mut self, node: String) -> Option<CatalogChange> {
        if let Some(node) = self.down.take() {
            self.world.die(&node, false);
            return Some(CatalogChange::Down { node, down: false });
        }
        self.world.die(&node, true);
        self.down = Some(node.clone());
        self.draws.one_in(2).then_some(CatalogChange::Down { node, down: true })
    }

    fn round(&mut self) {
        if self.draws.one_in(3) {
            self.world.look();
        }
        for id in self.world.groups() {
            match self.draws.below(10) {
                0 => self.world.depose(id, self.draws.0 as usize),
                1 => {
                    let spec = self.world.catalog.spec(slowdb_repl::GroupId(id)).cloned();
                    self.stale.extend(spec.map(|spec| (id, spec)));
                }
                2 | 3 => drop(self.world.turn(id, self.stale.get(&id))),
                4..=6 => {}
                _ => drop(self.world.turn(id, None)),
            }
        }
    }
}

#[test]
fn everything_comes_to_rest() {
    for seed in 0..SEEDS {
        let mut draws = Draws(seed);
        let nodes = 1 + draws.below(5);
        let catalog = founded(&NAMES[..nodes], 6, 1 + draws.below(4) as u32);
        let mut run = Run { world: World::new(catalog), draws, stale: BTreeMap::new(), down: None };
        for _ in 0..100 {
            if run.draws.one_in(4) {
                run.event();
            }
            run.round();
        }
        if let Some(node) = run.down.take() {
            run.world.down(&node, false);
        }
        run.world.settle(&format!("seed {seed}"));
    }
}

/// With a spare node, what was on a dead one is rebuilt elsewhere, and nobody waits for it.
#[test]
fn a_node_that_stays_away_is_done_without() {
    for seed in 0..SEEDS / 2 {
        let mut draws = Draws(1_000 + seed);
        let catalog = founded(&NAMES[..5], 6, 3);
        let lost = NAMES[draws.below(5)];
        let mut run = Run { world: World::new(catalog), draws, stale: BTreeMap::new(), down: None };
        run.world.die(lost, true);
        let known_at = run.draws.below(10);
        for at in 0..30 {
            if at == known_at {
                run.world.down(lost, true);
            }
            run.round();
        }
        run.world.settle(&format!("seed {seed} without {lost}"));
        let left = run.world.catalog.shards().filter(|(_, shard)| shard.spec.replica_on(lost).is_some());
        assert_eq!(left.count(), 0, "seed {seed}");
    }
}
