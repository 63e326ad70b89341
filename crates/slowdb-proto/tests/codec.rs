//! Requests and replies on the wire: what goes in comes out, and damage is refused.

use slowdb_fuzz::Target;
use slowdb_proto::limits::META_BYTES_MAX;
use slowdb_proto::{
    Admin, AdminReply, AdminRequest, Became, ClientId, ClusterId, ClusterMap, ClusterView, Code,
    CollectionInfo, CollectionSettings, ConflictEntry, ConflictPage, ConflictsRequest, CountRequest,
    DecodeError, ErrorReply, Explain, Freshness, GetRequest, GroupKind, GroupPosition, GroupStatus,
    HashesRequest, Hit, JoinReply, JoinRequest, LateStatus, LogStatus, Loser, Meant, Metric, MissingShard,
    MoveView, NodeInfo, NodeState, NodeStatus, NodeView, PageRecord, PeerStatus, PlannedMove, Position,
    RangeDigest, ReadLevel, RecordHash, RecordInfo, ReplicaInfo, ReplicaView, Reply, Request, RequestKind,
    Role, ScanRequest, ScrubStatus, SearchRequest, SettingsChange, ShardInfo, ShardPosition, SiblingInfo,
    SpaceStatus, Standing, Unmet, Wanted, WriteLevel, WriteReply, WriteRequest, check_name, decode_reply,
    decode_request, encode_reply, encode_request,
};

fn requests() -> Vec<Request> {
    let (collection, client) = ("default".to_owned(), ClientId([9; 16]));
    let write = WriteRequest {
        collection: collection.clone(),
        first_group: 9,
        shard: 3,
        level: Some(WriteLevel::All),
        client,
        sequence: u64::MAX,
        retry: true,
    };
    let ids = vec!["a".into(), "ä".repeat(256)];
    let get = GetRequest {
        collection: collection.clone(),
        first_group: 9,
        shard: 0,
        fresh: Freshness::at(ReadLevel::One),
        ids,
    };
    let seen = vec![GroupPosition { group: 7, position: Position { term: 1, index: 2, offset: 3 } }];
    let fresh = Freshness { level: Some(ReadLevel::Session), seen, wait_ms: 50 };
    let scan = ScanRequest {
        collection: collection.clone(),
        first_group: 9,
        shard: 1,
        fresh: fresh.clone(),
        prefix: "a".into(),
        after: Some("ab".into()),
        limit: 10,
        vectors: true,
        payloads: false,
    };
    let conflicts = ConflictsRequest {
        collection: collection.clone(),
        first_group: 9,
        shard: 1,
        fresh: fresh.clone(),
        from: Position { term: 1, index: 2, offset: 3 },
        limit: 10,
        losers: true,
    };
    let prefix = "a".into();
    let count = CountRequest {
        collection: collection.clone(),
        first_group: 9,
        shard: 1,
        fresh: fresh.clone(),
        prefix,
    };
    let hashes = HashesRequest {
        collection: collection.clone(),
        first_group: 9,
        shard: 1,
        fresh: fresh.clone(),
        ranges: vec![0, 4095],
    };
    let metric = Some(Metric::InnerProduct);
    let join = JoinRequest {
        node: "n1".into(),
        storage: [6; 16],
        address: "localhost:1".into(),
        zone: None,
        weight: 100,
    };
    let search = SearchRequest { collection, first_group: 9, shards: vec![1, 2], fresh, k: 10, metric };
    let kinds = [
        RequestKind::Map,
        RequestKind::Write(write),
        RequestKind::Get(get),
        RequestKind::Search(search),
        RequestKind::Status,
        RequestKind::Scan(scan),
        RequestKind::Conflicts(conflicts),
        RequestKind::Count(count),
        RequestKind::Hashes(hashes),
        RequestKind::Cluster,
        RequestKind::Join(join),
        RequestKind::Explain(Explain::Shard { collection: "default".into(), shard: 3 }),
        RequestKind::Explain(Explain::Node { node: "n1".into() }),
    ];
    let kinds = kinds.into_iter().chain(admins().into_iter().map(RequestKind::Admin));
    let request = |kind| Request { cluster: Some(ClusterId([7; 16])), timeout_ms: 5_000, kind };
    kinds.map(request).collect()
}

fn admins() -> Vec<AdminRequest> {
    let (node, name) = (|| "n1".to_owned(), || "default".to_owned());
    let settings = CollectionSettings::default();
    let created = Admin::CreateCollection {
        name: name(),
        dimension: 384,
        metric: Metric::L1,
        num_shards: 16,
        replication_factor: 3,
        settings,
    };
    let change = SettingsChange { conflicts: Some(settings.conflicts), ..SettingsChange::default() };
    let all = [
        Admin::SetNodeState { node: node(), state: NodeState::Draining },
        Admin::RemoveNode { node: node(), lost: true },
        Admin::Rebalance,
        created,
        Admin::DropCollection { name: name() },
        Admin::AlterCollection { name: name(), replication_factor: Some(5), settings: change },
    ];
    let meant = [None, Some(Meant::Collection(7)), Some(Meant::Node([6; 16]))];
    let about = all.into_iter().zip(meant.into_iter().cycle());
    about.map(|(admin, meant)| AdminRequest { admin, meant, dry_run: true }).collect()
}

/// What the catalog's leader answers.
fn catalog_replies(node: NodeInfo) -> Vec<Reply> {
    let (cluster, name) = (ClusterId([7; 16]), "default".to_owned());
    let planned = PlannedMove {
        collection: name.clone(),
        shard: 1,
        to: Some("n1".into()),
        from: None,
        bytes: 9,
        reason: "balance".into(),
    };
    let view = NodeView {
        id: node.id.clone(),
        address: node.address.clone(),
        zone: node.zone.clone(),
        weight: 100,
        state: NodeState::Cordoned,
        down: true,
        silent_ms: 5,
        replicas: 3,
        leads: 1,
        catalog: Standing::Voter,
        storage: Some([6; 16]),
    };
    let replica = ReplicaView {
        replica: 4,
        node: "n1".into(),
        wanted: Wanted::Learner,
        standing: Standing::Changing,
        bytes: 1,
        of_bytes: 2,
    };
    let moving =
        MoveView { group: 2, shard: Some((name, 1)), replicas: vec![replica], reason: "drain".into() };
    let cluster_view = ClusterView {
        cluster,
        epoch: 8,
        leader: "n1".into(),
        nodes: vec![view],
        moves: vec![moving],
        planned: vec![planned.clone()],
        lost: vec!["a shard".into()],
    };
    vec![
        Reply::Cluster(Box::new(cluster_view)),
        Reply::Joined(JoinReply { cluster, replica: 4, nodes: vec![node] }),
        Reply::Admin(AdminReply { changed: true, moves: vec![planned], notes: vec!["a note".into()] }),
        Reply::Explained(vec!["because".into()]),
    ]
}

fn replies() -> Vec<Reply> {
    let position = Position { term: 1, index: u64::MAX, offset: 3 };
    let replica = ReplicaInfo { replica: 1, node: "n1".into(), voter: true };
    let shard = ShardInfo { shard: 0, group: 1, replicas: vec![replica], leader: Some("n1".into()), term: 4 };
    let collection = CollectionInfo {
        name: "default".into(),
        dimension: 384,
        metric: Metric::Cosine,
        replication_factor: 3,
        settings: CollectionSettings::default(),
        shards: vec![shard],
    };
    let node = NodeInfo { id: "n1".into(), address: "localhost:1".into(), zone: Some("z".into()) };
    let map = ClusterMap {
        cluster: ClusterId([7; 16]),
        epoch: 2,
        answered_by: "n1".into(),
        catalog_leader: Some("ada".into()),
        nodes: vec![node.clone()],
        collections: vec![collection],
    };
    let group = GroupStatus {
        group: 1,
        kind: GroupKind::Shard { collection: "default".into(), shard: 0 },
        replica: 1,
        role: Role::Leader,
        term: 4,
        leader: None,
        first_index: 1,
        last_index: 9,
        committed: 8,
        applied: position,
        digest: [5; 16],
        records: 7,
        late: LateStatus { conflicts: 3, losers: 1, loser_bytes: 200, tombstones: 4, quarantined: 5 },
        checkpointed: 6,
        followers: vec![],
    };
    let peer = PeerStatus { node: "n2".into(), address: "localhost:2".into(), connected: false };
    let status = NodeStatus {
        node: "n1".into(),
        cluster: None,
        version: "0.1.0".into(),
        uptime_ms: 1,
        groups: vec![group],
        log: LogStatus { bytes: 1, segments: 2, pinned_bytes: 3 },
        space: SpaceStatus { free_bytes: Some(1), low_bytes: 2, enough_bytes: 3, refuses_writes: true },
        scrub: ScrubStatus { rounds: 1, finished_ms_ago: Some(2), bad: 3, ..ScrubStatus::default() },
        peers: vec![peer],
        warnings: vec!["careful".into()],
    };
    let unmet = Unmet { write: 1, current: Some(position) };
    let written = WriteReply {
        first: position,
        writes: 2,
        replaced: Some(1),
        unmet: vec![unmet],
        durable_on: 2,
        replicas: 3,
        group: 9,
    };
    let records = vec![None, Some(RecordInfo { position, payload_bytes: 4 })];
    let siblings = vec![SiblingInfo { record: 1, position, payload_bytes: 2 }];
    let hits = vec![vec![Hit { id: "a".into(), score: -0.5 }], vec![]];
    let shards = vec![ShardPosition { shard: 1, group: 2, applied: position, latest: position }];
    let error = ErrorReply {
        leader: Some("n2".into()),
        term: 3,
        at: Some(Box::new(shards[0])),
        ..ErrorReply::new(Code::NotLeader, "no")
    };
    let missing = MissingShard { shard: 4, error: error.clone() };
    let page = PageRecord { id: "a".into(), position, payload_bytes: 4 };
    let conflict = ConflictEntry {
        was: position,
        id: "a".into(),
        became: Became::Lost,
        decided: position,
        met: Some(position),
        level: WriteLevel::One,
        hlc: 7,
        loser: Some(Loser::Put { payload_bytes: 4 }),
    };
    let conflicts = ConflictPage { at: shards[0], entries: vec![conflict], next: Some(position) };
    let mut all = catalog_replies(node);
    all.extend([
        Reply::Map(map),
        Reply::Conflicts(Box::new(conflicts)),
        Reply::Written(written),
        Reply::Records { at: shards[0], records, siblings },
        Reply::Page { at: shards[0], records: vec![page], more: true },
        Reply::Hits { metric: Metric::L2, shards: shards.clone(), missing: vec![missing], results: hits },
        Reply::Status(Box::new(status)),
        Reply::Counted { at: shards[0], records: 7 },
        Reply::Ranges { at: shards[0], ranges: vec![RangeDigest { records: 7, digest: [1; 16] }] },
        Reply::Hashes {
            at: shards[0],
            records: vec![RecordHash { id: "a".into(), position, hash: [2; 16] }],
        },
        Reply::Error(error),
    ]);
    all
}

#[test]
fn what_is_encoded_is_decoded_wherever_it_lies() {
    for request in requests() {
        let bytes = encode_request(&request);
        // Off the network, nothing is aligned.
        for shift in 0..16 {
            let moved = [&vec![0; shift][..], &bytes].concat();
            assert_eq!(decode_request(&moved[shift..]).expect("good"), request);
        }
    }
    for reply in replies() {
        let bytes = encode_reply(&reply);
        assert_eq!(decode_reply(&bytes).expect("good"), reply);
    }
}

#[test]
fn what_is_cut_short_or_too_large_is_refused() {
    for request in requests() {
        let bytes = encode_request(&request);
        for len in 0..bytes.len() {
            // What is cut at the front of an archive misses its root; the rest must not be read beyond its end.
            if let Ok(other) = decode_request(&bytes[bytes.len() - len..]) {
                assert_eq!(other, request, "only padding can be spared");
            }
            let _ = decode_request(&bytes[..len]);
        }
    }
    let huge = vec![0; META_BYTES_MAX + 1];
    assert!(matches!(decode_request(&huge), Err(DecodeError::TooLarge { .. })));
    assert!(matches!(decode_reply(&huge), Err(DecodeError::TooLarge { .. })));
    assert!(decode_request(&[]).is_err());
}

#[test]
fn every_code_has_a_spelling_of_its_own() {
    const CODES: [Code; 23] = [
        Code::BadRequest,
        Code::WrongDimension,
        Code::NotFinite,
        Code::BadId,
        Code::TooLarge,
        Code::NotFound,
        Code::UnknownCollection,
        Code::WrongCluster,
        Code::NotLeader,
        Code::StaleRoute,
        Code::Overloaded,
        Code::Timeout,
        Code::Unavailable,
        Code::LeaderChanged,
        Code::UnknownOutcome,
        Code::LevelNotReached,
        Code::Corrupt,
        Code::StorageFailed,
        Code::ShuttingDown,
        Code::Refused,
        Code::Behind,
        Code::Overtaken,
        Code::Lost,
    ];
    let spellings: std::collections::BTreeSet<&str> = CODES.iter().map(|code| code.as_str()).collect();
    assert_eq!(spellings.len(), CODES.len());
    // A write that may have been executed, and is not executed again, must not be tried again either.
    assert!(!Code::UnknownOutcome.is_retryable());
    assert!(!Code::LevelNotReached.is_retryable());
    assert!(!Code::Lost.is_retryable());
}

#[test]
fn names_can_be_file_names() {
    for good in ["a", "n-1", "A_b.c", "0", &"x".repeat(64)] {
        check_name(good).expect(good);
    }
    for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "ä", "a\0", &"x".repeat(65)] {
        check_name(bad).expect_err(bad);
    }
}

/// Bytes from anywhere are refused or decoded, and never break the decoder.
#[test]
fn fuzz_request() {
    let corpus = requests().iter().map(|request| encode_request(request).to_vec()).collect::<Vec<_>>();
    Target::new("fuzz_request", corpus).run(|bytes| {
        let Ok(request) = decode_request(bytes) else { return false };
        assert_eq!(decode_request(&encode_request(&request)).expect("it was decoded"), request);
        true
    });
}

#[test]
fn fuzz_reply() {
    let corpus = replies().iter().map(|reply| encode_reply(reply).to_vec()).collect::<Vec<_>>();
    Target::new("fuzz_reply", corpus).run(|bytes| {
        let Ok(reply) = decode_reply(bytes) else { return false };
        // Scores may be NaN, which equals nothing: compared as bytes.
        let again = encode_reply(&reply);
        assert_eq!(encode_reply(&decode_reply(&again).expect("it was decoded")), again);
        true
    });
}
