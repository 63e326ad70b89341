//! The classic traps of replicated logs, each as a story.
//!
//! | trap | story |
//! |---|---|
//! | an old entry on a majority | `an_old_entry_on_a_majority_is_not_committed_by_that` |
//! | a crash between truncation and quarantine, at each sync | `power_that_goes_away_at_any_step_of_a_truncation_loses_no_write_at_one` |
//! | a crash between the steps of a snapshot, at each sync | `power_that_goes_away_at_any_step_of_a_snapshot_leaves_the_old_state_or_the_new` |
//! | a snapshot over a tail of another history, and a crash at each sync of it | `power_that_goes_away_while_a_snapshot_replaces_another_history_loses_no_write_at_one` |
//! | a retry across a change of leaders and a snapshot | `a_retry_across_a_change_of_leaders_and_a_snapshot_is_executed_once` |
//! | a leader that goes away within a change of members | `a_change_of_members_survives_the_leader_that_began_it` |
//! | clocks that jump | `clocks_that_jump_change_no_order` |
//! | a leader that is drained and removed while it is cut off | `a_node_is_not_removed_while_it_has_what_nobody_else_has` |

use super::{SECOND, Story, is_in, leader, node_name, outcomes, value, written};
use crate::cluster::Cluster;
use crate::events::{Ask, By, Event, Key, Stop};
use crate::options::{ChangeOptions, Options, Profile};
use slowdb_disk::Disk;
use slowdb_proto::{Admin, NodeState, ReadLevel, WriteLevel};
use slowdb_repl::Part;

/// Nodes that keep next to no log, so that who was away needs a snapshot; nobody joins, and nobody is given up.
fn of_three_with_little_log(seed: u64) -> Story {
    let changes = ChangeOptions { retained_bytes: 1024, ..ChangeOptions::none(0) };
    let mut options = Options { nodes: 3, changes: Some(changes), ..Options::draw(seed, Profile::Calm) };
    options.disk.checkpoint_bytes = 1024;
    options.disk.checkpoint_ticks = 20;
    Story::of(options)
}

/// The term that a node's replica of the shard is in; 0 while it does not run.
fn term(cluster: &Cluster, node: usize) -> u64 {
    cluster.nodes[node].probes().iter().find(|probe| probe.group.0 == 1).map_or(0, |probe| probe.term)
}

fn applied(cluster: &Cluster, node: usize) -> u64 {
    let probe = cluster.nodes[node].probes().iter().find(|probe| probe.group.0 == 1);
    probe.map_or(0, |probe| probe.applied.index)
}

/// Writes enough for the log behind it to be let go.
fn write_much(story: &mut Story, from: u64) {
    let writes: Vec<Ask> = (from..from + 120).map(|value| story.write(value)).collect();
    story.ask(writes);
    story.wait(2 * SECOND);
}

/// One of these is elected, and is cut off before anybody hears of its first entry.
fn elect_unheard(story: &mut Story, electing: &[usize]) -> usize {
    for _ in 0..50 {
        let before = electing.iter().map(|node| term(&story.cluster, *node)).max().unwrap_or_default();
        let has_term = |cluster: &Cluster, node: &usize| term(cluster, *node) > before;
        story.until("an election", |cluster| electing.iter().any(|node| has_term(cluster, node)));
        let standing = *electing.iter().find(|node| has_term(&story.cluster, node)).expect("one stands");
        story.until("its votes", |cluster| electing.iter().all(|node| has_term(cluster, node)));
        story.cut_from(standing);
        let end = story.cluster.now + 100_000;
        if story.cluster.run(end, |cluster| leader(cluster) == Some(standing)) {
            return standing;
        }
        // Somebody else stood as well, and the votes were split.
        story.mend_from(standing);
    }
    panic!("no election can be watched");
}

/// Whether what a node has of a shard came by a snapshot.
fn came_by_snapshot(story: &Story, node: usize) -> bool {
    let names = story.cluster.nodes[node].disk.list("shards").expect("its replicas");
    names.iter().any(|name| name.split_once('.').is_some_and(|(_, incarnation)| incarnation != "0"))
}

/// Figure 8 of the Raft paper (Ongaro and Ousterhout, 2014): an entry of an older term that a majority holds is not
/// committed by that, since a leader of a term in between may still overwrite it.
#[test]
fn an_old_entry_on_a_majority_is_not_committed_by_that() {
    // Runs in which a leader with the old entry was elected again, as in the figure.
    let mut old_entries = 0;
    for seed in 60..68 {
        let mut options = Options { nodes: 5, replication_factor: 5, ..Options::draw(seed, Profile::Calm) };
        // So slow that an election can be watched while it happens.
        options.net.delay = (8_000, 8_000);
        let mut story = Story::of(options);
        story.ask(vec![story.write(1)]);
        let first = story.leader();
        let friend = (first + 1) % 5;
        let others: Vec<usize> = (0..5).filter(|node| ![first, friend].contains(node)).collect();
        // The first leader reaches one other node only, and then both are gone.
        for other in &others {
            for node in [first, friend] {
                story.cluster.network.cut(node, *other);
                story.cluster.network.cut(*other, node);
            }
        }
        let lost = story.client(vec![story.write(2)]);
        (0..5).filter(|node| *node != first).for_each(|node| story.cluster.network.cut_client(lost, node));
        story.wait(60_000);
        story.cluster.network.cut_client(lost, first);
        assert_eq!(outcomes(&story.cluster, lost), [], "two of five are no majority");
        for node in [first, friend] {
            story.cluster.stop(node, Stop::PowerLoss, 3 * SECOND);
        }
        let second = elect_unheard(&mut story, &others);
        let nowhere = story.client(vec![story.write(3)]);
        (0..5)
            .filter(|node| *node != second)
            .for_each(|node| story.cluster.network.cut_client(nowhere, node));
        story.wait(60_000);
        story.cluster.network.cut_client(nowhere, second);
        story.cluster.stop(second, Stop::PowerLoss, 8 * SECOND);
        // The first one is back, with its entry, and leads a majority.
        for other in &others {
            for node in [first, friend] {
                story.cluster.network.mend(node, *other);
                story.cluster.network.mend(*other, node);
            }
        }
        story.until("a leader of the first's history", |cluster| {
            leader(cluster).is_some_and(|node| node != second && applied(cluster, node) > 0)
        });
        let during = story.ask(vec![story.read(), story.write(4)]);
        // And then the one in between is back.
        story.mend_from(second);
        story.until("the one in between is back", |cluster| cluster.nodes[second].running.is_some());
        story.wait(5 * SECOND);
        let read = story.ask(vec![story.read()]);
        old_entries += u32::from(value(&during[0]) == Some(2));
        assert_eq!(value(&read[0]), Some(4), "what was acknowledged stays, after {during:?}");
        for client in [lost, nowhere] {
            (0..5).for_each(|node| story.cluster.network.mend_client(client, node));
        }
        story.check();
    }
    assert!(old_entries > 0, "the old entry never had another chance");
}

/// The window of results comes with snapshots: who leads after one still knows what was executed.
#[test]
fn a_retry_across_a_change_of_leaders_and_a_snapshot_is_executed_once() {
    for seed in 70..73 {
        let mut story = of_three_with_little_log(seed);
        let old = story.leader();
        let away = (old + 1) % 3;
        story.cut_off(away);
        let first = story.client(vec![story.write(1)]);
        story.until("an attempt at the leader", |cluster| {
            let sent = |event: &(u64, Event)| matches!(event.1, Event::Attempt { node, .. } if node == old);
            cluster.log.events().iter().any(sent)
        });
        (0..3).for_each(|node| story.cluster.network.cut_client(first, node));
        story.until("it is applied", |cluster| applied(cluster, old) >= 3);
        write_much(&mut story, 100);
        let behind = applied(&story.cluster, away);
        story.mend(away);
        story.until("it has caught up", |cluster| applied(cluster, away) > behind + 50);
        assert!(came_by_snapshot(&story, away));
        // Until the one that got the snapshot leads.
        for _ in 0..20 {
            let now = story.leader();
            if now == away {
                break;
            }
            story.cut_off(now);
            story.until("another leader", |cluster| leader(cluster).is_some_and(|leader| leader != now));
            story.mend(now);
            story.wait(2 * SECOND);
        }
        let second = story.ask(vec![story.write(2)]);
        (0..3).for_each(|node| story.cluster.network.mend_client(first, node));
        story.until("an answer", |cluster| cluster.clients[first].is_idle());
        let first = written(&outcomes(&story.cluster, first)[0]);
        assert!(first.index < 10 && first < written(&second[0]), "the stored result: {first}");
        let read = story.ask(vec![story.read()]);
        assert_eq!(value(&read[0]), Some(2), "the first write has not come back over the second");
        story.check();
    }
}

/// Power goes away at each sync of a node that takes in a snapshot, one after the other.
#[test]
fn power_that_goes_away_at_any_step_of_a_snapshot_leaves_the_old_state_or_the_new() {
    for step in 0..14 {
        let mut story = of_three_with_little_log(80);
        story.ask(vec![story.write(1)]);
        let away = (story.leader() + 1) % 3;
        story.cut_off(away);
        write_much(&mut story, 100);
        let disk = story.cluster.nodes[away].disk.clone();
        disk.crash_at_sync(disk.syncs() + step);
        story.mend(away);
        story.until("it is where the others are", |cluster| {
            let others = (0..3).filter(|node| *node != away).map(|node| applied(cluster, node));
            cluster.nodes[away].running.is_some() && others.max() == Some(applied(cluster, away))
        });
        assert!(came_by_snapshot(&story, away));
        let last = story.ask(vec![story.write(2), story.read()]);
        assert_eq!(value(&last[1]), Some(2));
        story.check();
    }
}

/// The leader goes away in the middle of a change of members; the next one ends what it began.
#[test]
fn a_change_of_members_survives_the_leader_that_began_it() {
    for seed in 90..94 {
        let mut story = Story::of_one(seed, 3);
        story.ask(vec![story.write(1)]);
        story.join(&[1, 2]);
        story.cluster.bring_back(3);
        let is_joint = |event: &(u64, Event)| match &event.1 {
            Event::Members { group: 1, members, .. } => members
                .iter()
                .any(|(_, _, part)| matches!(part, Part::Entering | Part::Leaving | Part::Demoted)),
            _ => false,
        };
        let seen = story.cluster.log.events().len();
        // The fourth node takes a replica over, if the planner wants it to; or the operator empties a node.
        story.act(slowdb_proto::Admin::SetNodeState {
            node: crate::node::node_name(1),
            state: slowdb_proto::NodeState::Draining,
        });
        story.until("a joint configuration", |cluster| cluster.log.events()[seen..].iter().any(is_joint));
        let old = story.leader();
        story.cluster.stop(old, Stop::PowerLoss, 500_000);
        story.until("everything in its place", |cluster| cluster.unsettled().is_none());
        let read = story.ask(vec![story.read()]);
        assert_eq!(value(&read[0]), Some(1));
        story.check();
    }
}

/// Wall clocks an hour ahead and an hour behind: what is ordered by the log stays ordered.
#[test]
fn clocks_that_jump_change_no_order() {
    const HOUR: i64 = 3_600_000;
    for seed in 100..103 {
        let mut story = Story::new(seed);
        let mut expected = 1;
        for offset in [HOUR, -HOUR, 0, 2 * HOUR] {
            let node = story.leader();
            story.cluster.nodes[node].wall_offset = offset;
            for level in [WriteLevel::Quorum, WriteLevel::All] {
                expected += 1;
                let write =
                    Ask::Write { level, writes: vec![(story.key(), Some(expected))], condition: None };
                let done = story.ask(vec![write, story.read()]);
                assert_eq!(value(&done[1]), Some(expected), "with a clock {offset} ms off");
            }
            story.cut_off(node);
            story.until("another leader", |cluster| leader(cluster).is_some_and(|leader| leader != node));
            let read = story.ask(vec![story.read()]);
            assert_eq!(value(&read[0]), Some(expected));
            story.mend(node);
            story.wait(SECOND);
        }
        story.check();
    }
}

/// The leader is cut off, acknowledges a write of 2 at `one`, and is overtaken. Gives its node and the key.
fn overtaken_with_a_write(story: &mut Story) -> (usize, Key) {
    let old = story.leader();
    let key = *story.cluster.keys.of_shard(0).last().expect("there are ids");
    story.cut_off(old);
    let write = Ask::Write { level: WriteLevel::One, writes: vec![(key, Some(2))], condition: None };
    let alone = story.client(vec![write]);
    story.others(old).for_each(|other| story.cluster.network.cut_client(alone, other));
    story.until("an acknowledgement at one", |cluster| cluster.clients[alone].is_idle());
    written(&outcomes(&story.cluster, alone)[0]);
    story.until("another leader", |cluster| leader(cluster).is_some_and(|leader| leader != old));
    (old, key)
}

/// A leader that is cut off acknowledges a write at `one`, and is overtaken; then it can be heard again, and its power goes
/// away at this of its syncs from there on. In the end the write is there: nothing else has touched its record.
fn overtaken_without_power_at(story: &mut Story, step: u64, much: bool) {
    story.ask(vec![story.write(1)]);
    let (old, key) = overtaken_with_a_write(story);
    if much {
        write_much(story, 100)
    } else {
        drop(story.ask(vec![story.write(3)]))
    }
    let disk = story.cluster.nodes[old].disk.clone();
    disk.crash_at_sync(disk.syncs() + step);
    story.mend(old);
    story.until("nothing is left to be offered", |cluster| {
        let rests = |node: usize| {
            cluster.nodes[node].running.is_some() && cluster.nodes[node].quarantines().is_none()
        };
        let most = (0..3).map(|node| applied(cluster, node)).max();
        (0..3).all(rests) && Some(applied(cluster, old)) == most
    });
    assert!(!much || came_by_snapshot(story, old));
    let read = Ask::Read { level: ReadLevel::Quorum, keys: vec![key], by: By::Get, at: None };
    let read = story.ask(vec![read]);
    assert_eq!(value(&read[0]), Some(2), "power lost at sync {step}");
}

/// What is cut from a log is in quarantine before, whenever the power goes.
#[test]
fn power_that_goes_away_at_any_step_of_a_truncation_loses_no_write_at_one() {
    for step in 0..10 {
        let mut story = Story::new(120);
        overtaken_without_power_at(&mut story, step, false);
        story.check();
    }
}

/// The same with a snapshot that takes the place of a tail which had another history.
#[test]
fn power_that_goes_away_while_a_snapshot_replaces_another_history_loses_no_write_at_one() {
    for step in 0..14 {
        let mut story = of_three_with_little_log(130);
        overtaken_without_power_at(&mut story, step, true);
        story.check();
    }
}

/// A leader that is cut off acknowledges a write at `one`, is overtaken, and drained meanwhile: it has no replica any more,
/// and the only copy of that write. It stays a node until that write has found its place.
#[test]
fn a_node_is_not_removed_while_it_has_what_nobody_else_has() {
    for seed in 140..143 {
        let changes = ChangeOptions { node_down_after: 120 * SECOND, ..ChangeOptions::none(0) };
        let mut story =
            Story::of(Options { nodes: 4, changes: Some(changes), ..Options::draw(seed, Profile::Calm) });
        story.ask(vec![story.write(1)]);
        story.until("all is in its place", |cluster| cluster.unsettled().is_none());
        let (old, key) = overtaken_with_a_write(&mut story);
        let name = node_name(old);
        story.act(Admin::SetNodeState { node: name.clone(), state: NodeState::Draining });
        story.until("it has no replica", |cluster| {
            let Some(catalog) = &cluster.catalog else { return false };
            let mut shards = catalog.groups.iter().skip(1).flat_map(|spec| &spec.replicas);
            shards.all(|replica| replica.node != name)
        });
        let done = story.cluster.actions_done;
        story.cluster.act(Admin::RemoveNode { node: name.clone(), lost: false });
        story.wait(5 * SECOND);
        assert_eq!(story.cluster.actions_done, done, "removed with what only it has");
        story.mend(old);
        story.until("it is removed", |cluster| {
            cluster.actions_done > done && cluster.catalog.as_ref().is_some_and(|it| !is_in(it, &name))
        });
        let read = Ask::Read { level: ReadLevel::Quorum, keys: vec![key], by: By::Get, at: None };
        let read = story.ask(vec![read]);
        assert_eq!(value(&read[0]), Some(2));
        story.check();
    }
}
