//! Writes that were acknowledged at `one` by a leader that was cut off are accounted for, whatever became of the leader.

use crate::nodes::{DEADLINE, Nodes, small};
use serde_json::Value as Json;
use slowdb_client::{Client, ClientError, Collection, Condition, Put, ReadOptions, WriteLevel, WriteOptions};
use slowdb_proto::GroupKind;
use slowdb_ring::shard_of;
use std::collections::BTreeMap;
use xtask::cluster::{Shape, view};
use xtask::direct::Direct;
use xtask::overtaken::{Account, Acked, Value, account, wait_decided, write, write_at_one};

const DIMENSION: usize = 4;

fn value(n: f32) -> Value {
    Some(vec![n; DIMENSION])
}

/// What the old leader acknowledged alone, and what the others wrote afterwards.
struct Sides {
    nodes: Nodes,
    client: Client,
    old: String,
    late: Vec<Acked>,
    ids: Vec<String>,
}

/// The leader of one shard is cut off, and acknowledges five writes at `one`. The collection has the policy `newest`, or
/// this one.
async fn cut_off(policy: Option<&str>) -> Sides {
    let shape = Shape { relayed: true, ..small(DIMENSION as u32) };
    let num_shards = shape.num_shards;
    let (nodes, client) = Nodes::start(shape).await;
    if let Some(policy) = policy {
        set_policy(&nodes, &client, policy).await;
    }
    let collection = client.collection("default");
    let ids: Vec<String> = (0..)
        .map(|n| format!("r{n}"))
        .filter(|id| shard_of(id.as_bytes(), num_shards) == 0)
        .take(5)
        .collect();
    for id in &ids[1..] {
        write(&collection, id, &value(1.0), WriteLevel::Quorum).await.expect("written");
    }
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
    let old = view::View::of(&client).await.leaders()[&0].clone();
    let direct = Direct::to(&nodes.cluster, &old).await.expect("connected");
    nodes.cluster.relays().expect("it has relays").isolate(&old);
    let wanted: Vec<(String, Value)> = ids
        .iter()
        .zip([value(10.0), value(11.0), None, value(13.0), value(14.0)])
        .map(|(id, value)| (id.clone(), value))
        .collect();
    let map = client.map();
    let default = map.collections.iter().find(|it| it.name == "default").expect("it is there from the start");
    let late = write_at_one(&direct, default, &wanted).await.expect("it answers");
    assert_eq!(late.len(), 5, "a leader that was just cut off leads on for a while");
    Sides { nodes, client, old, late, ids }
}

/// Sets the policy, and waits until all shards have it: it is part of the state whose digests they show.
async fn set_policy(nodes: &Nodes, client: &Client, policy: &str) {
    let before = view::wait_equal(client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
    let altered = nodes.cli(&["collections", "alter", "default", "--conflicts", policy]);
    assert_eq!((altered.exit, &altered.json["changed"]), (0, &true.into()), "{altered:?}");
    let digests = |view: &view::View| -> BTreeMap<(String, u64), [u8; 16]> {
        let shards =
            view.nodes.iter().flat_map(|(node, status)| status.groups.iter().map(move |it| (node, it)));
        let shards = shards.filter(|(_, group)| matches!(group.kind, GroupKind::Shard { .. }));
        shards.map(|(node, group)| ((node.clone(), group.group), group.digest)).collect()
    };
    let before = digests(&before);
    let all_have = |now: &view::View| {
        let now = digests(now);
        Ok(before.iter().all(|(replica, digest)| now.get(replica).is_some_and(|now| now != digest)))
    };
    view::wait(client, "all shards have the policy", DEADLINE, all_have).await.expect("they have it");
}

/// The others write to the last two of the five: at quorum, and then at `one`.
async fn go_on(collection: &Collection, sides: &Sides) -> BTreeMap<String, Value> {
    let mut written = BTreeMap::new();
    for (id, n, level) in [(3, 23.0, WriteLevel::Quorum), (4, 24.0, WriteLevel::One)] {
        let position = write(collection, &sides.ids[id], &value(n), level).await.expect("written");
        assert!(position.term > sides.late[0].name.was.term, "a new leader wrote it");
        written.insert(sides.ids[id].clone(), value(n));
    }
    written
}

fn lines(text: &Json) -> String {
    text.as_str().map_or_else(|| text.to_string(), str::to_owned)
}

/// Every write is accounted for; then the commands list, show, replay and discard.
async fn check(sides: &Sides, others: &BTreeMap<String, Value>) {
    let Sides { nodes, client, late, ids, .. } = sides;
    let collection = client.collection("default");
    wait_decided(client, &nodes.cluster, DEADLINE).await.expect("all is decided");
    let account = account(&collection, late, others).await.expect("nothing is missing");
    assert_eq!(account, Account { applied: 3, lost: 2, ..Account::default() });

    let status = nodes.cli(&["status"]).json;
    let shard = &status["collections"][0]["shards"][0]["late"];
    assert_eq!((&shard["conflicts"], &shard["losers"]), (&5.into(), &2.into()), "{}", lines(&status));

    let name = late[3].name.to_string();
    let shown = nodes.cli(&["conflicts", "show", &name]);
    assert_eq!(
        (shown.exit, &shown.json["became"], &shown.json["id"]),
        (0, &"lost".into(), &ids[3].as_str().into())
    );
    assert_eq!(shown.json["vector"], Json::from(vec![13.0; DIMENSION]));
    // What was written since is not undone by the way.
    let since = nodes.cli(&["put", &ids[3], "--vector", "33,33,33,33"]);
    let refused = nodes.cli(&["conflicts", "replay", &name]);
    assert_eq!((refused.exit, refused.code()), (1, "condition_not_met"), "{refused:?}");
    let position = &since.json["position"];
    let version = format!("{}.{}.{}", position["term"], position["index"], position["offset"]);
    assert!(refused.message().contains(&version), "{refused:?} after {since:?}");
    let replayed = nodes.cli(&["conflicts", "replay", &name, "--force"]);
    assert_eq!((replayed.exit, &replayed.json["replayed"]), (0, &name.as_str().into()), "{replayed:?}");
    assert_eq!(nodes.cli(&["get", &ids[3]]).json["vector"], Json::from(vec![13.0; DIMENSION]));
    let again = nodes.cli(&["conflicts", "replay", &name]);
    assert_eq!((again.exit, again.code()), (4, "not_found"), "{again:?}");
    let nothing = nodes.cli(&["conflicts", "replay", &late[0].name.to_string()]);
    assert_eq!((nothing.exit, nothing.code()), (1, "refused"), "nothing lost there: {nothing:?}");
    let one = nodes.cli(&["conflicts", "discard", &late[4].name.to_string()]);
    assert_eq!((one.exit, &one.json["discarded"]), (0, &1.into()), "{one:?}");
    let rest = nodes.cli(&["conflicts", "discard", "--all"]);
    assert_eq!((rest.exit, &rest.json["discarded"]), (0, &3.into()), "{rest:?}");
    view::wait_equal(client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_acknowledged_while_it_was_cut_off_is_accounted_for() {
    let sides = cut_off(None).await;
    let others = go_on(&sides.client.collection("default"), &sides).await;
    sides.nodes.cluster.relays().expect("it has relays").heal();
    check(&sides, &others).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_acknowledged_before_it_was_killed_is_accounted_for_when_it_is_back() {
    let mut sides = cut_off(None).await;
    sides.nodes.cluster.kill(&sides.old).expect("it ran");
    sides.nodes.cluster.relays().expect("it has relays").heal();
    let others = go_on(&sides.client.collection("default"), &sides).await;
    sides.nodes.cluster.start(&sides.old).expect("it starts again");
    check(&sides, &others).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_both_are_kept_what_both_sides_wrote_is_read_until_a_compare_and_set_resolves_it() {
    let sides = cut_off(Some("keep_both")).await;
    let Sides { nodes, client, late, ids, .. } = &sides;
    let collection = client.collection("default");
    let others = go_on(&collection, &sides).await;
    nodes.cluster.relays().expect("it has relays").heal();
    wait_decided(client, &nodes.cluster, DEADLINE).await.expect("all is decided");
    let account = account(&collection, late, &others).await.expect("nothing is missing");
    assert_eq!(account, Account { applied: 3, lost: 2, ..Account::default() });

    let read = ReadOptions { timeout: Some(DEADLINE), ..ReadOptions::default() };
    let write = WriteOptions { timeout: Some(DEADLINE), ..WriteOptions::default() };
    for (id, current, lost) in [(3, 23.0, 13.0), (4, 24.0, 14.0)] {
        let id = ids[id].as_str();
        let record = collection.get(id, &read).await.expect("read").expect("there");
        let siblings: Vec<Value> = record.siblings.iter().map(|it| Some(it.vector.clone())).collect();
        assert_eq!((Some(record.vector), siblings), (value(current), vec![value(lost)]), "{id}");
        let shown = nodes.cli(&["get", id]).json;
        assert_eq!(shown["siblings"][0]["vector"], Json::from(vec![lost; DIMENSION]), "{}", lines(&shown));

        // Who has not seen the record resolves nothing; who has does, once.
        let merged = [current + lost; DIMENSION];
        let put = Put { id, vector: &merged, payload: &[] };
        let stale = collection.put_if(put, Condition::IfVersion(record.siblings[0].position), &write).await;
        assert!(matches!(stale, Err(ClientError::ConditionNotMet { .. })), "{stale:?}");
        let seen = Condition::IfVersion(record.position);
        collection.put_if(put, seen, &write).await.expect("it is the version that there is");
        let again = collection.put_if(put, seen, &write).await;
        assert!(matches!(again, Err(ClientError::ConditionNotMet { .. })), "{again:?}");
        let record = collection.get(id, &read).await.expect("read").expect("there");
        assert_eq!((record.vector, record.siblings), (merged.to_vec(), vec![]), "{id}");
    }
    view::wait_equal(client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
}
