//! What a collection says of the requests to it: levels of those that name none, and the lowest that it takes.

mod common;

use common::{Cluster, FIRST_GROUP, assert_error, bytes_of, founding, get, id_in, put, write};
use slowdb_proto::{
    Admin, Code, Condition, ConflictPolicy, Freshness, GetRequest, OpsBuilder, ReadLevel, Reply, Request,
    RequestKind, ScanRequest, SearchRequest, SettingsChange, WriteLevel, WriteRequest,
};

const V: [f32; 4] = [1.0, 2.0, 3.0, 4.0];
const NAMES: [&str; 3] = ["ada", "bob", "cyd"];

fn three() -> Cluster {
    Cluster::founded(&founding(&NAMES, 4, 2))
}

/// All nodes know of the change when this returns.
fn alter(cluster: &mut Cluster, settings: SettingsChange) {
    let admin = Admin::AlterCollection { name: "default".into(), replication_factor: None, settings };
    match cluster.admin(admin, false) {
        Reply::Admin(done) if done.changed => {}
        other => panic!("wanted it done, got {other:?}"),
    }
    cluster.wait("all nodes know it", |cluster| {
        (0..3).all(|node| match cluster.ask(node, RequestKind::Map, b"").0 {
            Reply::Map(map) => settings.of(map.collections[0].settings) == map.collections[0].settings,
            _ => false,
        })
    });
}

fn fresh(level: Option<ReadLevel>) -> Freshness {
    Freshness { level, ..Freshness::at(ReadLevel::Quorum) }
}

/// A write of shard 0 that names no level.
fn open_write(sequence: u64) -> WriteRequest {
    WriteRequest { level: None, ..write(0, sequence, WriteLevel::Quorum) }
}

/// A read of shard 0 that names no level.
fn open_get(id: &str) -> RequestKind {
    let (collection, ids) = ("default".to_owned(), vec![id.to_owned()]);
    RequestKind::Get(GetRequest { collection, first_group: FIRST_GROUP, shard: 0, fresh: fresh(None), ids })
}

#[test]
fn a_write_without_a_level_takes_the_collections_own() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    let at_quorum = cluster.written(leader, open_write(1), &put(&id, &V));
    assert_eq!(at_quorum.replaced, Some(0), "at quorum it is applied when it is answered");
    alter(&mut cluster, SettingsChange { write_level: Some(WriteLevel::One), ..SettingsChange::default() });
    let at_one = cluster.written(leader, open_write(2), &put(&id, &V));
    assert_eq!(at_one.replaced, None);
    let named = cluster.written(leader, write(0, 3, WriteLevel::Quorum), &put(&id, &V));
    assert_eq!(named.replaced, Some(1), "a level that is named stands");
    let mut batch = OpsBuilder::new();
    batch.put_if(&id, &V, b"", Some(Condition::IfAbsent)).expect("a good put");
    let error = cluster.refused(leader, RequestKind::Write(open_write(4)), &batch.finish());
    assert_error(&error, Code::BadRequest, "write it at quorum or all");
    alter(&mut cluster, SettingsChange { write_level: Some(WriteLevel::All), ..SettingsChange::default() });
    let at_all = cluster.written(leader, open_write(5), &put(&id, &V));
    assert_eq!((at_all.durable_on, at_all.replicas), (3, 3));
}

#[test]
fn a_read_without_a_level_takes_the_collections_own() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    cluster.written(leader, write(0, 1, WriteLevel::All), &put(&id, &V));
    let follower = (leader + 1) % 3;
    cluster.cut.insert(NAMES[follower].to_owned());
    assert_eq!(cluster.try_get(follower, open_get(&id)), None, "at quorum it asks the leader, in vain");
    cluster.cut.clear();
    cluster.leader(0);
    alter(&mut cluster, SettingsChange { read_level: Some(ReadLevel::One), ..SettingsChange::default() });
    let follower = (cluster.leader(0) + 1) % 3;
    cluster.cut.insert(NAMES[follower].to_owned());
    let (reply, body) = cluster.ask(follower, open_get(&id), b"");
    assert!(matches!(reply, Reply::Records { .. }), "{reply:?}");
    assert_eq!(body, bytes_of(&V));
    assert_eq!(
        cluster.try_get(follower, get(0, ReadLevel::Quorum, &[&id])),
        None,
        "a level that is named stands"
    );
}

#[test]
fn levels_below_the_floor_are_refused() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    cluster.written(leader, write(0, 1, WriteLevel::One), &put(&id, &V));
    let floors = SettingsChange {
        write_level: Some(WriteLevel::All),
        write_floor: Some(WriteLevel::All),
        read_floor: Some(ReadLevel::Session),
        ..SettingsChange::default()
    };
    alter(&mut cluster, floors);
    for level in [WriteLevel::One, WriteLevel::Quorum] {
        let error = cluster.refused(leader, RequestKind::Write(write(0, 2, level)), &put(&id, &V));
        let says = format!("a write at {}: the collection takes writes at all", level.as_str());
        assert_error(&error, Code::BadRequest, &says);
    }
    cluster.written(leader, open_write(2), &put(&id, &V));
    let collection = "default".to_owned();
    let low = fresh(Some(ReadLevel::One));
    let ids = vec![id.clone()];
    let reads = [
        RequestKind::Get(GetRequest {
            collection: collection.clone(),
            first_group: FIRST_GROUP,
            shard: 0,
            fresh: low.clone(),
            ids,
        }),
        RequestKind::Search(SearchRequest {
            collection: collection.clone(),
            first_group: FIRST_GROUP,
            shards: vec![0],
            fresh: low.clone(),
            k: 1,
            metric: None,
        }),
        RequestKind::Scan(ScanRequest {
            collection,
            first_group: FIRST_GROUP,
            shard: 0,
            fresh: low,
            prefix: String::new(),
            after: None,
            limit: 1,
            vectors: false,
            payloads: false,
        }),
    ];
    for read in reads {
        let error = cluster.refused(leader, read, &bytes_of(&V));
        assert_error(&error, Code::BadRequest, "a read at one: the collection takes reads at session");
    }
    for level in [ReadLevel::Session, ReadLevel::Quorum] {
        let (reply, _) = cluster.ask(leader, get(0, level, &[&id]), b"");
        assert!(matches!(reply, Reply::Records { .. }), "{reply:?}");
    }
}

/// The policy that a collection has gets into the log of each of its shards, once.
#[test]
fn a_conflict_policy_reaches_the_shards() {
    let mut cluster = three();
    let before: Vec<_> = (0..2).map(|shard| (cluster.leader(shard), shard)).collect();
    let before: Vec<_> = before.into_iter().map(|(at, shard)| (shard, cluster.state(at, shard))).collect();
    let conflicts = Some(ConflictPolicy::KeepCurrent);
    alter(&mut cluster, SettingsChange { conflicts, ..SettingsChange::default() });
    let all_have = |cluster: &mut Cluster| {
        before.iter().all(|(shard, old)| (0..3).all(|at| cluster.state(at, *shard).2 != old.2))
    };
    cluster.wait("all replicas have it", all_have);
    let after: Vec<_> = (0..2).map(|shard| cluster.state(0, shard)).collect();
    for _ in 0..200 {
        cluster.tick();
        cluster.settle();
    }
    assert_eq!(
        after,
        (0..2).map(|shard| cluster.state(0, shard)).collect::<Vec<_>>(),
        "it is not said again"
    );
    assert_eq!(after[1].2, cluster.state(2, 1).2, "replicas are equal");
}

#[test]
fn settings_that_contradict_themselves_are_refused() {
    let mut cluster = three();
    let settings = SettingsChange { write_floor: Some(WriteLevel::All), ..SettingsChange::default() };
    let admin = Admin::AlterCollection { name: "default".into(), replication_factor: None, settings };
    let Reply::Error(error) = cluster.admin(admin, false) else { panic!("wanted it refused") };
    assert_error(&error, Code::BadRequest, "quorum for writes would be below their floor all");
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    let kind = RequestKind::Write(write(0, 1, WriteLevel::One));
    let (reply, _) =
        cluster.ask_as(leader, Request { cluster: None, timeout_ms: 1_000, kind }, &put(&id, &V));
    assert!(matches!(reply, Reply::Written(_)), "nothing has changed: {reply:?}");
}
