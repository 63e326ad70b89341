//! Who may answer a read, when, and with what: sessions, followers, shards that cannot be read, pages.

mod common;

use common::{Cluster, FIRST_GROUP, assert_error, bytes_of, founding, get, id_in, put, write};
use slowdb_proto::limits::{ID_BYTES_MAX, SCAN_RECORDS_MAX};
use slowdb_proto::{
    Admin, ClientId, Code, CollectionSettings, CountRequest, Freshness, GetRequest, GroupPosition, Position,
    ReadLevel, Reply, Request, RequestKind, ScanRequest, SearchRequest, WriteLevel, WriteReply, WriteRequest,
};

const NAMES: [&str; 3] = ["ada", "bob", "cyd"];
const V: [f32; 4] = [1.0, 2.0, 3.0, 4.0];

fn three() -> Cluster {
    Cluster::founded(&founding(&NAMES, 4, 2))
}

fn seen(written: &WriteReply) -> Vec<GroupPosition> {
    vec![GroupPosition { group: written.group, position: written.first }]
}

fn session(shard: u32, seen: Vec<GroupPosition>, wait_ms: u32, id: &str) -> RequestKind {
    let fresh = Freshness { level: Some(ReadLevel::Session), seen, wait_ms };
    let (collection, ids) = ("default".to_owned(), vec![id.to_owned()]);
    RequestKind::Get(GetRequest { collection, first_group: FIRST_GROUP, shard, fresh, ids })
}

fn request(kind: RequestKind) -> Request {
    Request { cluster: None, timeout_ms: 10_000, kind }
}

fn follower(cluster: &mut Cluster, shard: u32) -> usize {
    let leader = cluster.leader(shard);
    (0..3).find(|at| *at != leader).expect("there are three")
}

#[test]
fn a_session_read_waits_until_what_was_seen_is_applied() {
    let mut cluster = three();
    let (leader, late, id) = (cluster.leader(0), follower(&mut cluster, 0), id_in(0, 2, 0));
    cluster.cut.insert(NAMES[late].to_owned());
    let written = cluster.written(leader, write(0, 1, WriteLevel::Quorum), &put(&id, &V));
    assert_eq!(cluster.get(late, 0, &id), None, "at one it answers with what it has");
    let asked = cluster.send(late, request(session(0, seen(&written), 10_000, &id)), b"");
    cluster.settle();
    assert!(cluster.take(late, asked).is_none(), "it has not applied the write");
    cluster.cut.clear();
    let mut answer = None;
    cluster.wait("an answer", |cluster| {
        answer = cluster.take(late, asked);
        answer.is_some()
    });
    let Some((Reply::Records { at, records, .. }, body)) = answer else {
        panic!("wanted records: {answer:?}")
    };
    assert_eq!((records[0].map(|record| record.position), body), (Some(written.first), bytes_of(&V)));
    assert!(at.applied >= written.first && at.group == written.group);
    // What it has applied already it answers at once.
    assert!(cluster.try_get(late, session(0, seen(&written), 0, &id)).is_some());
}

#[test]
fn a_replica_that_stays_behind_says_how_far_it_is() {
    let mut cluster = three();
    let (leader, late, id) = (cluster.leader(0), follower(&mut cluster, 0), id_in(0, 2, 0));
    cluster.cut.insert(NAMES[late].to_owned());
    let mut written = cluster.written(leader, write(0, 1, WriteLevel::Quorum), &put(&id, &V));
    for sequence in 2..5 {
        written = cluster.written(leader, write(0, sequence, WriteLevel::Quorum), &put(&id, &V));
    }
    let error = cluster.refused(late, session(0, seen(&written), 100, &id), b"");
    assert_error(&error, Code::Behind, "it is 4 entries behind");
    let at = error.at.expect("it says how far it is");
    assert_eq!((at.shard, at.group, at.applied.index), (0, written.group, written.first.index - 4));
    assert!(error.code.is_retryable(), "another replica may be further");
}

/// The new leader's first entry holds no write, and takes the place of the one that is overtaken.
#[test]
fn an_overtaken_position_is_named_and_not_waited_for() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    others.iter().for_each(|at| cluster.kill(*at));
    let written = cluster.written(leader, write(0, 1, WriteLevel::One), &put(&id, &V));
    let same_term = Position { index: written.first.index + 7, ..written.first };
    cluster.kill(leader);
    others.iter().for_each(|at| cluster.restart(*at));
    let next = cluster.leader(0);
    cluster.wait("the first entry of the new term", |cluster| {
        cluster.state(next, 0).1.term > written.first.term
    });
    let later = vec![GroupPosition { group: written.group, position: same_term }];
    for (seen, position) in [(seen(&written), written.first), (later, same_term)] {
        let error = cluster.refused(next, session(0, seen, 10_000, &id), b"");
        assert_error(&error, Code::Overtaken, &format!("{position} of group {}", written.group));
        assert_eq!(error.at.map(|at| (at.shard, at.applied)), Some((0, position)));
        assert!(!error.code.is_retryable());
    }
    // Whoever waits for it at a replica that follows later hears it then.
    cluster.restart(leader);
    let asked = cluster.send(leader, request(session(0, seen(&written), 60_000, &id)), b"");
    let mut answer = None;
    cluster.wait("an answer", |cluster| {
        answer = cluster.take(leader, asked);
        answer.is_some()
    });
    let Some((Reply::Error(error), _)) = answer else { panic!("wanted an error: {answer:?}") };
    assert_error(&error, Code::Overtaken, "overtaken by a failover");
}

#[test]
fn what_was_seen_before_any_write_is_held_by_every_replica() {
    let mut cluster = three();
    let id = id_in(0, 2, 0);
    for from in 0..3 {
        let (reply, _) = cluster.ask(from, get(0, ReadLevel::One, &[&id]), b"");
        let Reply::Records { at, .. } = reply else { panic!("wanted records, got {reply:?}") };
        let seen = vec![GroupPosition { group: at.group, position: at.applied }];
        for to in 0..3 {
            let (reply, _) = cluster.ask(to, session(0, seen.clone(), 5_000, &id), b"");
            assert!(matches!(reply, Reply::Records { .. }), "{from} to {to}: {reply:?}");
        }
    }
}

#[test]
fn positions_of_dropped_collections_are_passed_over_and_of_groups_to_come_they_show_a_stale_catalog() {
    let mut cluster = three();
    let id = id_in(0, 1, 0);
    let create = || Admin::CreateCollection {
        name: "other".into(),
        dimension: 4,
        metric: slowdb_proto::Metric::L2,
        num_shards: 1,
        replication_factor: 3,
        settings: CollectionSettings::default(),
    };
    assert!(matches!(cluster.admin(create(), false), Reply::Admin(_)));
    let groups = |cluster: &mut Cluster, at: usize| {
        let Reply::Map(map) = cluster.ask(at, RequestKind::Map, b"").0 else { panic!("wanted a map") };
        let other = map.collections.iter().find(|collection| collection.name == "other");
        other.map(|collection| collection.shards[0].group)
    };
    let mut old = None;
    cluster.wait("the collection", |cluster| {
        old = groups(cluster, 0);
        old.is_some()
    });
    assert!(matches!(cluster.admin(Admin::DropCollection { name: "other".into() }, false), Reply::Admin(_)));
    assert!(matches!(cluster.admin(create(), false), Reply::Admin(_)));
    let at = |group, index| GroupPosition { group, position: Position { term: 9, index, offset: 0 } };
    let old = old.expect("it was there");
    let read = |first_group, seen| {
        let RequestKind::Get(get) = session(0, seen, 100, &id) else { panic!("a get") };
        RequestKind::Get(GetRequest { collection: "other".into(), first_group, ..get })
    };
    for node in 0..3 {
        let mut new = old;
        cluster.wait("the new one", |cluster| {
            new = groups(cluster, node).unwrap_or(old);
            new != old
                && matches!(cluster.ask(node, read(new, vec![at(old, 77)]), b"").0, Reply::Records { .. })
        });
        let error = cluster.refused(node, read(new, vec![at(old + 50, 2)]), b"");
        assert_error(&error, Code::Behind, &format!("has not heard of group {} yet", old + 50));
    }
}

#[test]
fn a_follower_answers_at_quorum_what_was_acknowledged_before() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    for sequence in 1..20 {
        let vector = [sequence as f32; 4];
        cluster.written(leader, write(0, sequence, WriteLevel::Quorum), &put(&id, &vector));
        for at in 0..3 {
            let (reply, body) = cluster.ask(at, get(0, ReadLevel::Quorum, &[&id]), b"");
            assert!(matches!(reply, Reply::Records { .. }), "{reply:?}");
            assert_eq!(body, bytes_of(&vector), "node {at}, write {sequence}");
        }
    }
}

#[test]
fn a_follower_that_is_cut_off_answers_nothing_at_quorum_and_one_without_a_leader_says_so() {
    let mut cluster = three();
    let (leader, late, id) = (cluster.leader(0), follower(&mut cluster, 0), id_in(0, 2, 0));
    cluster.written(leader, write(0, 1, WriteLevel::Quorum), &put(&id, &V));
    cluster.cut.insert(NAMES[late].to_owned());
    let short = Request { timeout_ms: 100, ..request(get(0, ReadLevel::Quorum, &[&id])) };
    let Reply::Error(error) = cluster.ask_as(late, short, b"").0 else { panic!("it heard of nobody") };
    assert_error(&error, Code::Timeout, "did not answer in time");
    for _ in 0..60 {
        cluster.tick();
    }
    let error = cluster.refused(late, get(0, ReadLevel::Quorum, &[&id]), b"");
    assert_error(&error, Code::NotLeader, "nobody at present does");
}

/// What a leader was asked before it was cut off is answered by nobody else's newer state, and never with older state
/// than what was acknowledged before it was asked.
#[test]
fn a_leader_that_was_away_serves_nothing_stale_at_quorum() {
    let mut cluster = three();
    let (old, id) = (cluster.leader(0), id_in(0, 2, 0));
    cluster.written(old, write(0, 1, WriteLevel::Quorum), &put(&id, &V));
    cluster.cut.insert(NAMES[old].to_owned());
    let others: Vec<usize> = (0..3).filter(|at| *at != old).collect();
    let before = cluster.send(old, request(get(0, ReadLevel::Quorum, &[&id])), b"");
    let other = WriteRequest { client: ClientId([8; 16]), ..write(0, 1, WriteLevel::Quorum) };
    let mut next = None;
    cluster.wait("another leader takes the write", |cluster| {
        next = others.iter().copied().find(|at| {
            let written = cluster.ask(*at, RequestKind::Write(other.clone()), &put(&id, &[9.0; 4]));
            matches!(written.0, Reply::Written(_))
        });
        next.is_some()
    });
    let after = cluster.send(old, request(get(0, ReadLevel::Quorum, &[&id])), b"");
    cluster.cut.clear();
    for asked in [before, after] {
        let mut answer = None;
        cluster.wait("an answer", |cluster| {
            answer = cluster.take(old, asked);
            answer.is_some()
        });
        match answer {
            Some((Reply::Error(_), _)) => {}
            Some((Reply::Records { .. }, body)) => assert_eq!(body, bytes_of(&[9.0; 4])),
            other => panic!("wanted an answer to a read, got {other:?}"),
        }
    }
}

#[test]
fn a_search_names_the_shards_that_it_goes_without() {
    let mut cluster = Cluster::founded(&founding(&["a", "b", "c", "d"], 4, 8));
    let Reply::Map(map) = cluster.ask(0, RequestKind::Map, b"").0 else { panic!("wanted a map") };
    let has_a = |shard: &&slowdb_proto::ShardInfo| shard.replicas.iter().any(|r| r.node == "a");
    let (here, gone): (Vec<_>, Vec<_>) = map.collections[0].shards.iter().partition(has_a);
    assert!(!here.is_empty() && !gone.is_empty());
    for level in [ReadLevel::One, ReadLevel::Session, ReadLevel::Quorum] {
        let search = SearchRequest {
            collection: "default".into(),
            first_group: FIRST_GROUP,
            shards: (0..8).collect(),
            fresh: Freshness::at(level),
            k: 3,
            metric: None,
        };
        let (reply, _) = cluster.ask(0, RequestKind::Search(search), &bytes_of(&V));
        let Reply::Hits { shards, missing, .. } = reply else { panic!("wanted hits, got {reply:?}") };
        let numbers =
            |of: &[&slowdb_proto::ShardInfo]| of.iter().map(|s| (s.shard, s.group)).collect::<Vec<_>>();
        assert_eq!(shards.iter().map(|at| (at.shard, at.group)).collect::<Vec<_>>(), numbers(&here));
        assert_eq!(missing.len(), gone.len(), "{level:?}");
        for (missing, gone) in missing.iter().zip(&gone) {
            assert_eq!(missing.shard, gone.shard);
            assert_error(&missing.error, Code::StaleRoute, &format!("no replica of shard {}", gone.shard));
        }
    }
}

fn scan(shard: u32, after: Option<&str>, limit: u32) -> ScanRequest {
    ScanRequest {
        collection: "default".into(),
        first_group: FIRST_GROUP,
        shard,
        fresh: Freshness::at(ReadLevel::Quorum),
        prefix: String::new(),
        after: after.map(Into::into),
        limit,
        vectors: true,
        payloads: true,
    }
}

#[test]
fn pages_of_any_replicas_show_each_record_once_in_order() {
    let mut cluster = three();
    let leader = cluster.leader(0);
    let mut ids: Vec<String> = (0..25).map(|number| id_in(0, 2, number)).collect();
    for (sequence, id) in (1..).zip(&ids) {
        cluster.written(leader, write(0, sequence, WriteLevel::Quorum), &put(id, &[sequence as f32; 4]));
    }
    ids.sort();
    let (mut found, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
    for page in 0.. {
        // Records that are written again change places in the store, not in the pages.
        cluster.written(leader, write(0, 100 + page, WriteLevel::Quorum), &put(&ids[3], &V));
        let asked = RequestKind::Scan(scan(0, after.as_deref(), 7));
        let (reply, body) = cluster.ask(page as usize % 3, asked, b"");
        let Reply::Page { at, records, more } = reply else { panic!("wanted a page, got {reply:?}") };
        assert!(at.applied.index > 1 && at.shard == 0);
        assert_eq!(body.len(), records.len() * 16);
        found.extend(records.into_iter().map(|record| record.id));
        after = found.last().cloned();
        if !more {
            break;
        }
        assert_eq!(found.len() % 7, 0, "pages are full but the last");
    }
    assert_eq!(found, ids);
    let bare = ScanRequest { vectors: false, payloads: false, ..scan(0, None, 100) };
    let (reply, body) = cluster.ask(0, RequestKind::Scan(bare), b"");
    assert!(
        matches!(reply, Reply::Page { records, more: false, .. } if records.len() == 25) && body.is_empty()
    );
    let prefix = ids[0][..ids[0].len() - 1].to_owned();
    let begins: Vec<&String> = ids.iter().filter(|id| id.starts_with(&prefix)).collect();
    let some = ScanRequest { prefix: prefix.clone(), ..scan(0, None, 100) };
    let (reply, _) = cluster.ask(1, RequestKind::Scan(some), b"");
    let Reply::Page { records, more: false, .. } = reply else { panic!("wanted a page, got {reply:?}") };
    assert_eq!(records.iter().map(|record| &record.id).collect::<Vec<_>>(), begins);
    for (prefix, wanted) in [(String::new(), ids.len()), (prefix, begins.len()), ("no such".into(), 0)] {
        let fresh = Freshness::at(ReadLevel::Quorum);
        let count =
            CountRequest { collection: "default".into(), first_group: FIRST_GROUP, shard: 0, fresh, prefix };
        let (reply, _) = cluster.ask(2, RequestKind::Count(count), b"");
        assert!(matches!(reply, Reply::Counted { records, .. } if records == wanted as u64), "{reply:?}");
    }
    let long = ScanRequest { prefix: "x".repeat(ID_BYTES_MAX + 1), ..scan(0, None, 1) };
    let error = cluster.refused(0, RequestKind::Scan(long), b"");
    assert_error(&error, Code::BadId, "a prefix of 513 bytes");
    for limit in [0, SCAN_RECORDS_MAX as u32 + 1] {
        let error = cluster.refused(0, RequestKind::Scan(scan(0, None, limit)), b"");
        assert_error(&error, Code::BadRequest, &format!("a page of {limit} records"));
    }
    let error = cluster.refused(0, RequestKind::Scan(scan(5, None, 1)), b"");
    assert_error(&error, Code::BadRequest, "there is no shard 5");
}
