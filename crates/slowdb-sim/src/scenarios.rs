//! Small stories with a known end, for what random runs reach late.

mod traps;

use crate::checks;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::events::{Ask, By, Event, Key, Outcome, Seen, Stop};
use crate::faults::{Fault, Target, Wiped};
use crate::node::node_name;
use crate::options::{ChangeOptions, Options, Profile};
use slowdb_proto::{Admin, ConflictPolicy, NodeState, Position, ReadLevel, WriteLevel};
use slowdb_server::CatalogProbe;

const SECOND: u64 = 1_000_000;

/// Three nodes and one shard, no faults and no clients but those of the story.
struct Story {
    cluster: Cluster,
}

impl Story {
    fn new(seed: u64) -> Self {
        let changes = None;
        Story::of(Options { nodes: 3, changes, ..Options::draw(seed, Profile::Calm) })
    }

    /// One node, and others that may join it. The operator does what the story says, and nothing else.
    fn of_one(seed: u64, joiners: usize) -> Self {
        let changes = ChangeOptions {
            node_down_after: 2 * SECOND,
            retained_bytes: 1024,
            snapshot_bytes_per_second: 1024 * 1024,
            ..ChangeOptions::none(joiners)
        };
        Story::of(Options { nodes: 1, changes: Some(changes), ..Options::draw(seed, Profile::Calm) })
    }

    fn of(options: Options) -> Self {
        Story::with_shards(options, 1)
    }

    fn with_shards(options: Options, shards: u32) -> Self {
        println!("seed {}", options.seed);
        let (attempt, conflicts) = ((100_000, 200_000), ConflictPolicy::default());
        let options = Options { shards, clients: 0, attempt, conflicts, ..options };
        let mut story = Story { cluster: Cluster::new(options, false) };
        story.cluster.by_hand = true;
        story.until("the cluster is founded", |cluster| leader(cluster).is_some());
        story
    }

    fn until(&mut self, what: &str, done: impl FnMut(&Cluster) -> bool) {
        let end = self.cluster.now + 30 * SECOND;
        let reached = self.cluster.run(end, done);
        let violation = self.cluster.violation.take();
        assert!(reached && violation.is_none(), "{what}: {violation:?}\n{}", self.cluster.log.tail(40));
    }

    /// Nodes join, one after the other.
    fn join(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.cluster.bring_back(*node);
            let name = node_name(*node);
            self.until("it has joined", |cluster| {
                let known = cluster.catalog.as_ref().is_some_and(|catalog| is_in(catalog, &name));
                known && cluster.settled_by_catalog().is_none()
            });
        }
    }

    /// The operator gets what it asks for.
    fn act(&mut self, admin: Admin) {
        let done = self.cluster.actions_done;
        self.cluster.act(admin.clone());
        self.until(&format!("{admin:?}"), |cluster| cluster.actions_done > done);
    }

    fn wait(&mut self, micros: u64) {
        let end = self.cluster.now + micros;
        self.cluster.run(end, |_| false);
    }

    fn key(&self) -> Key {
        self.cluster.keys.of_shard(0)[0]
    }

    fn write(&self, value: u64) -> Ask {
        Ask::Write { level: WriteLevel::Quorum, writes: vec![(self.key(), Some(value))], condition: None }
    }

    fn read(&self) -> Ask {
        Ask::Read { level: ReadLevel::Quorum, keys: vec![self.key()], by: By::Get, at: None }
    }

    /// Adds a client with these things to do, and says its number.
    fn client(&mut self, script: Vec<Ask>) -> usize {
        let index = self.cluster.clients.len();
        let random = self.cluster.random.fork(index as u64);
        let client = Client::scripted(index, &self.cluster.options, random, script);
        self.cluster.add_client(client);
        index
    }

    /// Does these things and says how each ended.
    fn ask(&mut self, script: Vec<Ask>) -> Vec<Outcome> {
        let client = self.client(script);
        self.until("an answer", |cluster| cluster.clients[client].is_idle());
        outcomes(&self.cluster, client)
    }

    fn leader(&self) -> usize {
        leader(&self.cluster).expect("there is a leader")
    }

    fn others(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.cluster.nodes.len()).filter(move |other| *other != node)
    }

    /// Nothing passes from this node to the others.
    fn cut_from(&mut self, node: usize) {
        self.others(node).for_each(|other| self.cluster.network.cut(node, other));
    }

    /// What [`Story::cut_from`] has cut is whole again.
    fn mend_from(&mut self, node: usize) {
        self.others(node).for_each(|other| self.cluster.network.mend(node, other));
    }

    /// Nothing passes between this node and the others.
    fn cut_off(&mut self, node: usize) {
        self.cut_from(node);
        self.others(node).for_each(|other| self.cluster.network.cut(other, node));
    }

    /// What [`Story::cut_off`] has cut is whole again.
    fn mend(&mut self, node: usize) {
        self.mend_from(node);
        self.others(node).for_each(|other| self.cluster.network.mend(other, node));
    }

    /// All that the checkers look for holds.
    fn check(mut self) {
        self.cluster.heal();
        self.ask(vec![self.read()]);
        let violation = checks::all(self.cluster.log.events(), &self.cluster.keys);
        assert_eq!(violation, None, "{}", self.cluster.log.tail(60));
    }
}

fn is_in(catalog: &CatalogProbe, node: &str) -> bool {
    catalog.nodes.iter().any(|known| known.id == node)
}

/// Who leads the shard in its latest term.
fn leader(cluster: &Cluster) -> Option<usize> {
    let led =
        |node: usize| cluster.nodes[node].probes().iter().find(|p| p.group.0 == 1 && p.leads).map(|p| p.term);
    (0..cluster.nodes.len()).filter_map(|node| Some((led(node)?, node))).max().map(|(_, node)| node)
}

fn outcomes(cluster: &Cluster, client: usize) -> Vec<Outcome> {
    let events = cluster.log.events();
    let ops = checks::operations(events);
    let of_client =
        |op: &checks::Op| matches!(&events[op.begun].1, Event::Invoke { client: c, .. } if *c == client);
    ops.iter().filter(|op| of_client(op)).filter_map(|op| Some(op.outcome.as_ref()?.1.clone())).collect()
}

fn written(outcome: &Outcome) -> Position {
    match outcome {
        Outcome::Written { first, .. } => *first,
        other => panic!("not written: {other:?}"),
    }
}

fn value(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::Read { seen, .. } => seen[0].map(|Seen { value, .. }| value),
        other => panic!("not read: {other:?}"),
    }
}

#[test]
fn a_deposed_leader_in_a_minority_neither_commits_nor_answers_quorum_reads() {
    for seed in 1..6 {
        let mut story = Story::new(seed);
        story.ask(vec![story.write(1)]);
        let old = story.leader();
        story.cut_off(old);
        // These two can reach the old leader only, and begin before it can know.
        let writes = story.client(vec![story.write(2)]);
        let reads = story.client(vec![story.read()]);
        // This one cannot reach it.
        let others = story.client(vec![story.write(3), story.read()]);
        for other in (0..3).filter(|other| *other != old) {
            story.cluster.network.cut_client(writes, other);
            story.cluster.network.cut_client(reads, other);
        }
        story.cluster.network.cut_client(others, old);
        story.until("the majority goes on", |cluster| cluster.clients[others].is_idle());
        let of_majority = outcomes(&story.cluster, others);
        assert_eq!(value(&of_majority[1]), Some(3));
        story.wait(3 * SECOND);
        assert_eq!(outcomes(&story.cluster, writes), [], "a minority has committed a write");
        let read = outcomes(&story.cluster, reads);
        assert!(read.iter().all(|outcome| value(outcome) == Some(1)), "only before it was deposed: {read:?}");
        assert_ne!(story.leader(), old);
        story.check();
    }
}

/// How many groups each of three nodes leads.
fn led(cluster: &Cluster) -> [usize; 3] {
    [0, 1, 2].map(|node| cluster.nodes[node].probes().iter().filter(|probe| probe.leads).count())
}

/// The catalog and six shards are led by three nodes.
fn all_lead(cluster: &Cluster) -> bool {
    let led = led(cluster);
    led.iter().all(|led| *led >= 2) && led.iter().sum::<usize>() == 7
}

#[test]
fn a_node_that_has_become_far_from_all_others_leads_nothing_until_it_is_near_again() {
    for seed in 60..64 {
        let changes = None;
        let options = Options { nodes: 3, changes, ..Options::draw(seed, Profile::Calm) };
        let mut story = Story::with_shards(options, 6);
        story.until("all nodes lead", all_lead);
        let far = story.leader();
        // An answer takes 160 ms, far less than an election is waited for.
        story.cluster.network.set_far(far, 80_000);
        story.until("it leads nothing", |cluster| {
            led(cluster)[far] == 0 && led(cluster).iter().sum::<usize>() == 7
        });
        // The plan wants it to lead as before, and those who lead instead know why it does not.
        let end = story.cluster.now + 20 * SECOND;
        let leads_again = story.cluster.run(end, |cluster| led(cluster)[far] > 0);
        assert!(!leads_again, "it was given leadership that it had to give up");
        story.cluster.network.set_far(far, 0);
        story.until("it leads again", all_lead);
        story.check();
    }
}

#[test]
fn a_network_that_is_slow_everywhere_is_no_reason_to_change_leaders() {
    let changes = None;
    let options = Options { nodes: 3, changes, ..Options::draw(65, Profile::Calm) };
    let mut story = Story::with_shards(options, 6);
    story.until("all nodes lead", all_lead);
    // Leaderships that the plan wants elsewhere have found their way.
    story.wait(10 * SECOND);
    let before = led(&story.cluster);
    (0..3).for_each(|node| story.cluster.network.set_far(node, 40_000));
    let end = story.cluster.now + 20 * SECOND;
    let changed = story.cluster.run(end, |cluster| led(cluster) != before);
    assert!(!changed, "{before:?}, then {:?}", led(&story.cluster));
    story.check();
}

#[test]
fn a_node_that_comes_back_with_an_empty_disk_is_refused() {
    let mut story = Story::new(30);
    story.ask(vec![story.write(1)]);
    let node = (story.leader() + 1) % 3;
    story.cluster.stop(node, Stop::PowerLoss, 10_000);
    story.cluster.nodes[node].disk = slowdb_disk::SimDisk::new();
    story.wait(5 * SECOND);
    let refused = story.cluster.violation.take().expect("the others refuse it");
    assert_eq!(refused.checker, "gate");
    assert!(refused.what.contains("came back with another storage path"), "{refused}");
}

#[test]
fn power_lost_everywhere_right_after_an_acknowledgement_loses_nothing() {
    for seed in 10..14 {
        let mut story = Story::new(seed);
        for value in 1..8 {
            let outcome = story.ask(vec![story.write(value)]);
            written(&outcome[0]);
            for node in 0..3 {
                story.cluster.stop(node, Stop::PowerLoss, 10_000);
            }
            let read = story.ask(vec![story.read()]);
            assert_eq!(self::value(&read[0]), Some(value));
        }
        story.check();
    }
}

#[test]
fn a_write_tried_again_after_a_change_of_leaders_is_executed_once() {
    for seed in 20..25 {
        let mut story = Story::new(seed);
        let old = story.leader();
        let first = story.client(vec![story.write(1)]);
        // Its first attempt finds the leader, but hears nothing from it.
        story.until("an attempt at the leader", |cluster| {
            let sent = |event: &(u64, Event)| matches!(event.1, Event::Attempt { node, .. } if node == old);
            cluster.log.events().iter().any(sent)
        });
        story.cluster.network.cut_client(first, old);
        story.until("it is applied elsewhere", |cluster| {
            let others = (0..3).filter(|node| *node != old);
            others
                .flat_map(|node| cluster.nodes[node].probes())
                .any(|p| p.group.0 == 1 && p.applied.index >= 3)
        });
        story.cut_off(old);
        story.until("another leader", |cluster| leader(cluster).is_some_and(|leader| leader != old));
        for node in 0..3 {
            story.cluster.network.cut_client(first, node);
        }
        let second = story.ask(vec![story.write(2)]);
        for node in 0..3 {
            story.cluster.network.mend_client(first, node);
        }
        story.until("an answer", |cluster| cluster.clients[first].is_idle());
        let first = written(&outcomes(&story.cluster, first)[0]);
        assert!(first < written(&second[0]), "the stored result is given, not a new one: {first}");
        let read = story.ask(vec![story.read()]);
        assert_eq!(value(&read[0]), Some(2), "the first write has not come back over the second");
        story.check();
    }
}

#[test]
fn a_node_comes_back_to_a_cluster_in_which_it_knows_nobody() {
    for seed in 40..43 {
        let mut story = Story::of_one(seed, 4);
        story.ask(vec![story.write(1)]);
        story.join(&[1]);
        // While it is away the others are replaced, and only they could tell it by whom.
        story.cluster.stop(1, Stop::Kill, 60 * SECOND);
        (2..5).for_each(|node| story.cluster.bring_back(node));
        story.until("the others have joined", |cluster| {
            let joined = |catalog: &CatalogProbe| catalog.nodes.iter().filter(|node| !node.down).count() == 4;
            cluster.catalog.as_ref().is_some_and(joined) && cluster.planned.is_empty()
        });
        story.act(Admin::SetNodeState { node: node_name(0), state: NodeState::Draining });
        story.until("the first node is empty", |cluster| {
            let holds = |catalog: &CatalogProbe| {
                let shards = catalog.groups.iter().skip(1);
                shards.flat_map(|spec| &spec.replicas).any(|replica| replica.node == node_name(0))
            };
            cluster.catalog.as_ref().is_some_and(|catalog| !holds(catalog))
        });
        story.act(Admin::RemoveNode { node: node_name(0), lost: false });
        story.until("the first node is gone", |cluster| !cluster.nodes[0].present);
        let away = |cluster: &Cluster| cluster.nodes[1].running.is_none();
        assert!(away(&story.cluster), "it has seen nothing of all that");
        story.wait(60 * SECOND);
        assert!(!away(&story.cluster));
        story.until("it is one of them", |cluster| cluster.unsettled().is_none());
        let read = story.ask(vec![story.read()]);
        assert_eq!(value(&read[0]), Some(1));
        story.check();
    }
}

#[test]
fn a_node_that_lost_its_disk_may_not_join_before_it_is_removed() {
    let mut story = Story::of_one(50, 4);
    story.ask(vec![story.write(1)]);
    story.join(&[1, 2, 3]);
    story.cluster.stop(1, Stop::PowerLoss, 10 * SECOND);
    story.until("it is taken for down, and its replicas are elsewhere", |cluster| {
        let down = |catalog: &CatalogProbe| catalog.nodes.iter().any(|node| node.down);
        cluster.catalog.as_ref().is_some_and(down) && cluster.may_lose(1)
    });
    story.cluster.wipe(1, Wiped::Joins);
    assert!(story.cluster.nodes[1].lost);
    let answered = |cluster: &Cluster, says: &str| {
        let events = cluster.log.events().iter();
        events.filter(|(_, event)| matches!(event, Event::Answered { what } if what.contains(says))).count()
    };
    story.until("it is refused", |cluster| answered(cluster, "with another storage path") > 0);
    story.act(Admin::RemoveNode { node: node_name(1), lost: true });
    story.until("it is back, and everything in its place", |cluster| cluster.unsettled().is_none());
    let read = story.ask(vec![story.read()]);
    assert_eq!(value(&read[0]), Some(1));
    story.check();
}

#[test]
fn a_node_whose_disk_has_rotted_says_so_and_comes_back_as_new() {
    for seed in 110..114 {
        let changes = ChangeOptions { node_down_after: 2 * SECOND, ..ChangeOptions::none(1) };
        let mut story =
            Story::of(Options { nodes: 3, changes: Some(changes), ..Options::draw(seed, Profile::Calm) });
        story.ask(vec![story.write(1)]);
        story.until("all is in its place", |cluster| cluster.unsettled().is_none());
        story.cluster.nodes[1].rots = 400;
        story.cluster.shut_down(1, 10_000);
        story.until("it does not start", |cluster| cluster.nodes[1].lost);
        story.cluster.bring_back(3);
        let holds = |cluster: &Cluster, node: &str| {
            let Some(catalog) = &cluster.catalog else { return true };
            catalog.groups.iter().skip(1).flat_map(|spec| &spec.replicas).any(|it| it.node == node)
        };
        story.until("its replicas are elsewhere", |cluster| !holds(cluster, &node_name(1)));
        story.act(Admin::RemoveNode { node: node_name(1), lost: true });
        story.until("it is back, and everything in its place", |cluster| cluster.unsettled().is_none());
        let read = story.ask(vec![story.read()]);
        assert_eq!(value(&read[0]), Some(1));
        story.check();
    }
}

#[test]
fn nothing_is_at_rest_before_a_node_that_was_asked_to_stop_is_back() {
    let mut story = Story::new(60);
    story.until("all is in its place", |cluster| cluster.unsettled().is_none());
    let life = story.cluster.nodes[1].life;
    story.cluster.strike(Fault::Shutdown { target: Target::Node(1), down: 100_000 });
    assert!(story.cluster.nodes[1].running.is_some() && story.cluster.unsettled().is_some());
    story.until("all is in its place again", |cluster| cluster.unsettled().is_none());
    assert_eq!(story.cluster.nodes[1].life, life + 2, "it was stopped and started");
    story.check();
}
