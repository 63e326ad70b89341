//! The examples of docs/format.md: identity, catalog and a shard's mark, written by the code and decoded by
//! the document's tables; and what docs/wire.md says of parts of snapshots, and of what leaders are told.
//!
//! If this fails, nodes do not open what they wrote before, or the document is wrong.

use crate::catalog::{self, Catalog, CatalogChange, CatalogMachine, Report};
use crate::identity::{Founding, Identity};
use crate::shard::{ShardMachine, ShardPlace};
use crate::tend::Told;
use slowdb_disk::{Disk, SimDisk};
use slowdb_proto::{
    ClusterId, CollectionSettings, Condition, ConflictPolicy, Metric, NodeState, OpsBuilder, ReadLevel,
    SettingsChange, Standing, Wanted, WriteLevel,
};
use slowdb_repl::{AckLevel, Late, Position, ProposalHeader, ProposalView};
use slowdb_storage::{Options, Store};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The block of the document that begins with this line.
fn block(head: &str) -> String {
    block_of("format.md", head)
}

fn block_of(document: &str, head: &str) -> String {
    let path = format!("{}/../../docs/{document}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the document is there");
    let (_, rest) = text.split_once(&format!("```{head}\n")).unwrap_or_else(|| panic!("no block {head}"));
    rest.split_once("\n```").unwrap_or_else(|| panic!("block {head} does not end")).0.to_owned()
}

/// As the document writes bytes: sixteen to a line.
fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

/// A struct in an archive, read by the document's rules and its table of the struct.
struct Struct<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Offset of each field; the size is that of the field "".
    fields: BTreeMap<String, usize>,
}

impl<'a> Struct<'a> {
    fn at(bytes: &'a [u8], at: usize, name: &str) -> Self {
        let row = |line: &str| {
            let mut words = line.split_whitespace();
            let offset = words.next().and_then(|word| word.parse().ok());
            (words.next().unwrap_or_default().to_owned(), offset.expect("a row begins with an offset"))
        };
        Struct { bytes, at, fields: block(&format!("text {name}")).lines().map(row).collect() }
    }

    fn root(bytes: &'a [u8], name: &str) -> Self {
        let size = Struct::at(bytes, 0, name).fields[""];
        Struct::at(bytes, bytes.len() - size, name)
    }

    fn place(&self, field: &str) -> usize {
        self.at + self.fields[field]
    }

    fn byte(&self, field: &str) -> u8 {
        self.bytes[self.place(field)]
    }

    fn u32(&self, field: &str) -> u32 {
        u32_at(self.bytes, self.place(field))
    }

    fn u64(&self, field: &str) -> u64 {
        let at = self.place(field);
        u64::from(u32_at(self.bytes, at)) | u64::from(u32_at(self.bytes, at + 4)) << 32
    }

    fn array(&self, field: &str) -> [u8; 16] {
        self.bytes[self.place(field)..][..16].try_into().expect("sixteen bytes")
    }

    fn inner(&self, field: &str, name: &str) -> Self {
        Struct::at(self.bytes, self.place(field), name)
    }

    fn items(&self, field: &str, name: &str) -> Vec<Self> {
        let at = self.place(field);
        let first = target(self.bytes, at, at);
        let item = |n| {
            let item = Struct::at(self.bytes, first, name);
            Struct { at: first + n * item.fields[""], ..item }
        };
        (0..u32_at(self.bytes, at + 4) as usize).map(item).collect()
    }

    /// Where the value of an option is, if there is one; it is as large as it is aligned.
    fn option(&self, field: &str, value_bytes: usize) -> Option<usize> {
        let at = self.place(field);
        (self.bytes[at] == 1).then_some(at + value_bytes)
    }

    fn text(&self, field: &str) -> &'a str {
        text_at(self.bytes, self.place(field))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Where the offset at `at` leads, from `from`.
fn target(bytes: &[u8], at: usize, from: usize) -> usize {
    from.checked_add_signed(u32_at(bytes, at) as i32 as isize).expect("inside the archive")
}

fn text_at(bytes: &[u8], at: usize) -> &str {
    let (from, len) = if bytes[at] >> 6 == 0b10 {
        let word = u32_at(bytes, at);
        (target(bytes, at + 4, at), ((word & 63) | (word >> 8 << 6)) as usize)
    } else {
        (at, bytes[at..at + 8].iter().position(|byte| *byte == 0xff).unwrap_or(8))
    };
    std::str::from_utf8(&bytes[from..from + len]).expect("text")
}

fn file(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name, false).expect("it was written");
    let mut bytes = vec![0; file.len().expect("the disk works") as usize];
    file.read_at(&mut bytes, 0).expect("the disk works");
    bytes
}

/// Takes a sealed file apart.
fn sealed<'a>(bytes: &'a [u8], magic: &[u8]) -> &'a [u8] {
    let (head, content) = bytes.split_at(24);
    assert_eq!((&head[..4], u32_at(head, 4)), (magic, 1));
    assert_eq!(u32_at(head, 8) as usize, content.len());
    let mut hasher = Xxh3::new();
    hasher.update(&head[..16]);
    hasher.update(content);
    assert_eq!(head[16..], hasher.digest().to_le_bytes());
    content
}

fn founding(zone: Option<&str>) -> Founding {
    Founding {
        nodes: vec![("n1".into(), "127.0.0.1:7001".into())],
        zone: zone.map(Into::into),
        dimension: 3,
        metric: Metric::Cosine,
        num_shards: 1,
        virtual_nodes: 64,
        replication_factor: 3,
        weight: 1,
    }
}

fn proposal(index: u64, writes: u32, sequence: u64, body: &[u8]) -> ProposalView<'_> {
    let (level, client) = (AckLevel::Quorum, [7; 16]);
    let header =
        ProposalHeader { level, retry: false, writes, client, sequence, hlc: 0, origin: 1, late: None };
    ProposalView { header, first: Position::new(1, index, 0), body }
}

#[test]
fn identity() {
    let disk = SimDisk::new();
    let identity = Identity {
        node: "n1".into(),
        storage: [2; 16],
        cluster: Some(ClusterId([1; 16])),
        founding: founding(Some("east")),
        joined: Some(9),
        known: vec![("n2".into(), "n2:7002".into())],
        peers: BTreeMap::from([("n2".into(), [3; 16])]),
    };
    identity.save(&disk).expect("the disk works");
    let bytes = file(&disk, "identity");
    assert_eq!(block("hex identity"), hex(&bytes));

    let content = sealed(&bytes, b"SDBI");
    let root = Struct::root(content, "Identity");
    assert_eq!((root.text("node"), root.array("storage")), ("n1", [2; 16]));
    assert_eq!(root.byte("cluster"), 1);
    assert_eq!(content[root.place("cluster") + 1..][..16], [1; 16]);
    let founding = root.inner("founding", "Founding");
    let [address] = &founding.items("nodes", "Address")[..] else { panic!("one node") };
    assert_eq!((address.text("id"), address.text("address")), ("n1", "127.0.0.1:7001"));
    assert_eq!((founding.byte("zone"), text_at(content, founding.place("zone") + 4)), (1, "east"));
    let numbers = ["dimension", "num_shards", "virtual_nodes", "replication_factor", "weight"];
    assert_eq!((numbers.map(|f| founding.u32(f)), founding.byte("metric")), ([3, 1, 64, 3, 1], 2));
    let joined = root.place("joined");
    assert_eq!((content[joined], u32_at(content, joined + 8)), (1, 9));
    let [known] = &root.items("known", "Address")[..] else { panic!("one other node") };
    assert_eq!((known.text("id"), known.text("address")), ("n2", "n2:7002"));
    let peers = root.place("peers");
    let node = target(content, peers, peers);
    // One node of the tree: kind, 5 keys of 8 bytes, 5 values of 16, length.
    assert_eq!((u32_at(content, peers + 4), content[node], u32_at(content, node + 124)), (1, 0, 1));
    assert_eq!((text_at(content, node + 4), &content[node + 44..][..16]), ("n2", &[3; 16][..]));
}

/// Decodes an option of text.
fn option_text<'a>(at: &Struct<'a>, field: &str) -> Option<&'a str> {
    (at.byte(field) == 1).then(|| text_at(at.bytes, at.place(field) + 4))
}

fn founded() -> Catalog {
    catalog::found(&founding(None), &BTreeMap::new(), ClusterId([1; 16])).expect("it can be founded")
}

#[test]
fn catalog() {
    let disk = SimDisk::new();
    let mut machine = CatalogMachine::open(Arc::new(disk.clone()), 0).expect("nothing is there yet");
    let applied = machine.apply(&proposal(2, 1, 0, &CatalogChange::Found(founded()).encode()));
    assert_eq!(applied.expect("the disk works"), Ok(()));
    machine.end_of_entry(2).expect("the disk works");
    let bytes = file(&disk, "catalog");
    assert_eq!(block("hex catalog"), hex(&bytes));

    let content = sealed(&bytes, b"SDBC");
    let root = Struct::root(content, "Checkpoint");
    assert_eq!(root.u64("held"), 2);
    let catalog = root.inner("catalog", "Catalog");
    assert_eq!((catalog.byte("cluster"), catalog.u64("epoch"), catalog.u32("virtual_nodes")), (1, 1, 64));
    assert_eq!((catalog.u64("next_replica"), catalog.u64("next_group")), (3, 2));
    assert!(catalog.items("removed", "Removed").is_empty());
    let [node] = &catalog.items("nodes", "Node")[..] else { panic!("one node") };
    assert_eq!((node.text("id"), node.text("address")), ("n1", "127.0.0.1:7001"));
    assert_eq!((option_text(node, "zone"), node.u32("weight"), node.byte("storage")), (None, 1, 0));
    assert_eq!((node.byte("state"), node.byte("down")), (0, 0));
    assert_group(&catalog.inner("own", "Group"), 0, 1);
    let [collection] = &catalog.items("collections", "Collection")[..] else { panic!("one collection") };
    assert_eq!((collection.text("name"), collection.u32("dimension")), ("default", 3));
    assert_eq!((collection.byte("metric"), collection.u32("replication_factor")), (2, 3));
    let [shard] = &collection.items("shards", "Shard")[..] else { panic!("one shard") };
    assert_eq!(shard.u32("shard"), 0);
    assert_group(&shard.inner("spec", "Group"), 1, 2);
}

/// A group as it was founded on `n1`.
fn assert_group(group: &Struct<'_>, id: u64, replica: u64) {
    assert_eq!((group.u64("group"), group.u64("epoch"), group.text("leader")), (id, 1, "n1"));
    assert_eq!((group.u64("index"), group.u64("intent"), group.text("reason")), (0, 0, "first placement"));
    let [only] = &group.items("replicas", "Replica")[..] else { panic!("one replica") };
    assert_eq!((only.u64("replica"), only.text("node"), only.u64("since")), (replica, "n1", 1));
    assert_eq!((only.byte("wanted"), only.byte("standing")), (0, 2));
    let [founder] = &group.items("founders", "Founder")[..] else { panic!("one founder") };
    assert_eq!((founder.u64("replica"), founder.text("node"), founder.byte("votes")), (replica, "n1", 1));
}

/// What a new cluster has nothing of.
#[test]
fn catalog_later() {
    let mut catalog = founded();
    for (node, storage) in [("n2", 5), ("n3", 6)] {
        let (address, zone) = (format!("{node}:1"), Some("east".to_owned()));
        let join =
            CatalogChange::Join { node: node.into(), storage: [storage; 16], address, zone, weight: 9 };
        assert_eq!(catalog.change(join), Ok(()));
    }
    assert_eq!(catalog.change(CatalogChange::Remove { node: "n3".into() }), Ok(()));
    let leaving = CatalogChange::Found(catalog.clone()).encode();
    let leaving = Struct::root(&leaving, "Change").inner("found.catalog", "Catalog");
    let leaving: Vec<u8> = leaving.items("nodes", "Node").iter().map(|node| node.byte("leaving")).collect();
    assert_eq!(leaving, [0, 0, 1]);
    // It never voted, so its copy is no member and the next report says so.
    let members = vec![(1, Standing::Voter), (3, Standing::Learner)];
    let report = Report { group: 0, index: 9, intent: 9, members };
    assert_eq!(catalog.change(CatalogChange::Report(report)), Ok(()));
    assert_eq!(catalog.change(CatalogChange::Down { node: "n2".into(), down: true }), Ok(()));
    let state = CatalogChange::State { node: "n2".into(), state: NodeState::Draining };
    assert_eq!(catalog.change(state), Ok(()));
    let bytes = CatalogChange::Found(catalog).encode();
    let root = Struct::root(&bytes, "Change");
    assert_eq!(root.byte("number"), 0);
    let catalog = root.inner("found.catalog", "Catalog");
    assert_eq!((catalog.u64("epoch"), catalog.u64("next_replica")), (7, 5));
    let [_, node] = &catalog.items("nodes", "Node")[..] else { panic!("two nodes") };
    assert_eq!((option_text(node, "zone"), node.u32("weight")), (Some("east"), 9));
    assert_eq!((node.byte("state"), node.byte("down"), node.byte("storage")), (2, 1, 1));
    assert_eq!(bytes[node.place("storage") + 1..][..16], [5; 16]);
    let [removed] = &catalog.items("removed", "Removed")[..] else { panic!("one that was removed") };
    assert_eq!((removed.text("id"), removed.array("storage")), ("n3", [6; 16]));
    let own = catalog.inner("own", "Group");
    assert_eq!((own.u64("epoch"), own.text("reason")), (4, "node n3 was removed"));
    let replicas = own.items("replicas", "Replica");
    let replicas: Vec<_> = replicas.iter().map(|r| (r.byte("wanted"), r.byte("standing"))).collect();
    assert_eq!(replicas, [(0, 2), (1, 1)]);
}

#[test]
fn catalog_changes() {
    let nodes = vec![("n1".into(), Wanted::Voter), ("n2".into(), Wanted::Learner)];
    let (leader, reason) = ("n1".into(), "balance".into());
    let place = CatalogChange::Place { group: 1, since: 4, nodes, leader, reason }.encode();
    assert_eq!(block("hex catalog change"), hex(&place));
    let place = Struct::root(&place, "Change");
    assert_eq!((place.byte("number"), place.u64("place.group"), place.u64("place.since")), (6, 1, 4));
    assert_eq!((place.text("place.leader"), place.text("place.reason")), ("n1", "balance"));
    let nodes = place.items("place.nodes", "Place");
    let nodes: Vec<_> = nodes.iter().map(|node| (node.text("node"), node.byte("wanted"))).collect();
    assert_eq!(nodes, [("n1", 0), ("n2", 1)]);

    let (node, address, zone) = ("n2".into(), "n2:1".into(), Some("east".into()));
    let join = CatalogChange::Join { node, storage: [5; 16], address, zone, weight: 9 }.encode();
    let join = Struct::root(&join, "Change");
    assert_eq!((join.byte("number"), join.text("join.node"), join.array("join.storage")), (1, "n2", [5; 16]));
    assert_eq!((join.text("join.address"), option_text(&join, "join.zone")), ("n2:1", Some("east")));
    assert_eq!(join.u32("join.weight"), 9);

    let zone = CatalogChange::Zone { node: "n1".into(), zone: "east".into() }.encode();
    let zone = Struct::root(&zone, "Change");
    assert_eq!((zone.byte("number"), zone.text("zone.node"), zone.text("zone.zone")), (2, "n1", "east"));
    let state = CatalogChange::State { node: "n1".into(), state: NodeState::Cordoned }.encode();
    let state = Struct::root(&state, "Change");
    assert_eq!((state.byte("number"), state.text("state.node"), state.byte("state.state")), (3, "n1", 1));
    let down = CatalogChange::Down { node: "n1".into(), down: true }.encode();
    let down = Struct::root(&down, "Change");
    assert_eq!((down.byte("number"), down.text("down.node"), down.byte("down.down")), (4, "n1", 1));
    let remove = CatalogChange::Remove { node: "n1".into() }.encode();
    let remove = Struct::root(&remove, "Change");
    assert_eq!((remove.byte("number"), remove.text("remove.node")), (5, "n1"));

    let members = vec![(2, Standing::Voter), (3, Standing::Changing)];
    let report = CatalogChange::Report(Report { group: 1, index: 8, intent: 4, members }).encode();
    let report = Struct::root(&report, "Change");
    assert_eq!(report.byte("number"), 7);
    let report = report.inner("report.report", "Report");
    assert_eq!((report.u64("group"), report.u64("index"), report.u64("intent")), (1, 8, 4));
    let members = report.items("members", "Member");
    let members: Vec<_> = members.iter().map(|m| (m.u64("replica"), m.byte("standing"))).collect();
    assert_eq!(members, [(2, 2), (3, 3)]);

    let (name, shards) = ("new".into(), vec![vec!["n1".into(), "n2".into()], vec!["n2".into()]]);
    let (dimension, metric, replication_factor) = (3, Metric::Cosine, 2);
    let settings = CollectionSettings {
        read_level: ReadLevel::One,
        conflicts: ConflictPolicy::KeepCurrent,
        ..CollectionSettings::default()
    };
    let create =
        CatalogChange::Create { name, dimension, metric, replication_factor, settings, shards }.encode();
    let create = Struct::root(&create, "Change");
    assert_eq!((create.byte("number"), create.text("create.name")), (8, "new"));
    assert_eq!((create.u32("create.dimension"), create.byte("create.metric")), (3, 2));
    assert_eq!(create.u32("create.replication_factor"), 2);
    let settings = create.inner("create.settings", "Settings");
    assert_eq!(
        ["write_level", "read_level", "write_floor", "read_floor", "conflicts"].map(|it| settings.byte(it)),
        [1, 0, 0, 0, 1]
    );
    let list = |at: usize| (target(create.bytes, at, at), u32_at(create.bytes, at + 4));
    let (first, count) = list(create.place("create.shards"));
    assert_eq!((count, list(first).1, list(first + 8).1), (2, 2, 1));
    let (n1, n2) = (list(first).0, list(first + 8).0);
    assert_eq!((text_at(create.bytes, n1), text_at(create.bytes, n2)), ("n1", "n2"));

    let drop = CatalogChange::Drop { name: "new".into() }.encode();
    let drop = Struct::root(&drop, "Change");
    assert_eq!((drop.byte("number"), drop.text("drop.name")), (9, "new"));
    let (write_level, read_floor) = (Some(WriteLevel::All), Some(ReadLevel::Session));
    let settings = SettingsChange { write_level, read_floor, ..SettingsChange::default() };
    let alter = CatalogChange::Alter { name: "new".into(), replication_factor: Some(2), settings }.encode();
    let alter = Struct::root(&alter, "Change");
    assert_eq!((alter.byte("number"), alter.text("alter.name")), (10, "new"));
    assert_eq!(alter.option("alter.replication_factor", 4).map(|at| u32_at(alter.bytes, at)), Some(2));
    assert_eq!(alter.option("alter.write_level", 1).map(|at| alter.bytes[at]), Some(2));
    assert_eq!(alter.option("alter.read_level", 1), None);
    assert_eq!(alter.option("alter.write_floor", 1), None);
    assert_eq!(alter.option("alter.read_floor", 1).map(|at| alter.bytes[at]), Some(1));

    let moved = CatalogChange::Move { node: "n1".into(), address: "n1:2".into() }.encode();
    let moved = Struct::root(&moved, "Change");
    assert_eq!(
        (moved.byte("number"), moved.text("move.node"), moved.text("move.address")),
        (11, "n1", "n1:2")
    );
}

#[test]
fn catalog_staged() {
    let disk = SimDisk::new();
    let machine = CatalogMachine::open(Arc::new(disk.clone()), 0).expect("nothing is there yet");
    let bytes = CatalogChange::Found(founded()).encode();
    let size = Struct::root(&bytes, "Catalog").fields[""];
    // The catalog is the last thing in its change, and so in a snapshot: only the number and padding lie before it.
    let change = Struct::root(&bytes, "Change");
    assert_eq!(change.place("found.catalog") + size, bytes.len());
    let mut source = CatalogMachine::open(Arc::new(SimDisk::new()), 0).expect("nothing is there yet");
    let applied = source.apply(&proposal(2, 1, 0, &bytes));
    assert_eq!(applied.expect("the disk works"), Ok(()));
    let (mut part, mut staging) = (Vec::new(), machine.stage(7));
    assert_eq!(source.snapshot().read(0, &mut part), Ok(None), "one part");
    assert_eq!(Struct::root(&part, "Catalog").u64("epoch"), 1);
    assert_eq!(source.digest(), xxh3_128(&part).to_le_bytes());
    staging.write(&part).expect("it is small");
    staging.finish().expect("the disk works");
    let staged = file(&disk, "catalog.staged");
    let root = Struct::root(sealed(&staged, b"SDBC"), "Checkpoint");
    assert_eq!((root.u64("held"), root.inner("catalog", "Catalog").u64("epoch")), (7, 1));
}

#[test]
fn told() {
    let members = vec![(2, Standing::Voter)];
    let bytes = Told::Report(Report { group: 1, index: 8, intent: 4, members }).encode();
    let size = 8 + Struct::at(&bytes, 0, "Report").fields[""];
    let at = bytes.len() - size;
    let report = Struct::at(&bytes, at + 8, "Report");
    assert_eq!((bytes[at], report.u64("group"), report.u64("index")), (0, 1, 8));
    let bytes = Told::Progress(vec![(4, 5, 6)]).encode();
    let at = bytes.len() - size;
    let (first, count) = (target(&bytes, at + 4, at + 4), u32_at(&bytes, at + 8));
    assert_eq!((bytes[at], count, [0, 8, 16].map(|word| u32_at(&bytes, first + word))), (1, 1, [4, 5, 6]));
    let bytes = Told::LowSpace { free: 7, enough: 8 }.encode();
    let at = bytes.len() - size;
    assert_eq!((bytes[at], u32_at(&bytes, at + 8), u32_at(&bytes, at + 16)), (2, 7, 8));
    let bytes = Told::Vacant { epoch: 9 }.encode();
    let at = bytes.len() - size;
    assert_eq!((bytes[at], u32_at(&bytes, at + 8)), (3, 9));
}

#[test]
fn part() {
    let place = ShardPlace { disk: Arc::new(SimDisk::new()), replica: 4, options: Options::new(2) };
    let mut shard = ShardMachine::open(place, 0).expect("it opens");
    let mut batch = OpsBuilder::new();
    batch.put("a", &[1.0, -2.0], b"p").expect("a good put");
    shard.apply(&proposal(5, 1, 3, &batch.finish())).expect("the disk works");
    let snapshot = shard.snapshot().expect("it can be shown");
    let (mut mark, mut records) = (Vec::new(), Vec::new());
    let next = snapshot.read(0, &mut mark).expect("the disk works").expect("there is a record");
    assert_eq!(snapshot.read(next, &mut records), Ok(None));
    let applied = Struct::root(&mark[1..], "Mark").inner("applied", "Position");
    assert_eq!((mark[0], applied.u64("index")), (1, 5));
    assert_eq!(block_of("wire.md", "hex part"), hex(&records));
}

#[test]
fn mark() {
    let disk = SimDisk::new();
    let place = ShardPlace { disk: Arc::new(disk.clone()), replica: 4, options: Options::new(2) };
    let open = || ShardMachine::open(place.clone(), 0).expect("it opens");
    let mut shard = open();
    let mut batch = OpsBuilder::new();
    batch.put("a", &[1.0, -2.0], b"p").expect("a good put");
    batch.put("b", &[3.0, 4.0], b"").expect("a good put");
    batch.delete_if("a", Some(Condition::IfAbsent)).expect("a good delete");
    shard.apply(&proposal(5, 3, 3, &batch.finish())).expect("the disk works");
    let done = shard.begin_checkpoint().expect("it can").expect("there is something new").run();
    shard.finish_checkpoint(done.expect("the disk works")).expect("it is the last one begun");
    let digest = shard.digest();
    drop(shard);

    let store = Store::open(Arc::new(disk.clone()), "shards/4.0", Options::new(2)).expect("it opens");
    let bytes = store.mark();
    assert_eq!(block("hex mark"), hex(bytes));
    let root = Struct::root(bytes, "Mark");
    let position = |at: &Struct<'_>| (at.u64("term"), at.u64("index"), at.u32("offset"));
    assert_eq!(position(&root.inner("applied", "Position")), (1, 5, 2));
    let [result] = &root.items("results", "Result")[..] else { panic!("one result") };
    assert_eq!((result.array("client"), result.u64("sequence")), ([7; 16], 3));
    assert_eq!((position(&result.inner("first", "Position")), result.u32("replaced")), ((1, 5, 0), 0));
    let [unmet] = &result.items("unmet", "Unmet")[..] else { panic!("one unmet condition") };
    assert_eq!((unmet.u32("write"), unmet.byte("current")), (2, 1));
    assert_eq!(position(&unmet.inner("current.position", "Position")), (1, 5, 0));
    assert!(root.items("forgotten", "Client").is_empty() && root.byte("clients_forgotten") == 0);

    let mut hashed = vec![7; 16];
    [3_u64, 1, 5].iter().for_each(|word| hashed.extend(word.to_le_bytes()));
    hashed.extend([0; 8]);
    hashed.extend(2_u32.to_le_bytes());
    hashed.extend(Position::new(1, 5, 0).encode());
    let terms = root.items("terms", "Term");
    let terms: Vec<_> = terms.iter().map(|row| (row.u64("term"), row.u64("first"))).collect();
    assert_eq!(terms, [(1, 5)]);
    let mut rows = 1_u32.to_le_bytes().to_vec();
    [1_u64, 5].iter().for_each(|word| rows.extend(word.to_le_bytes()));
    let expected = store.digest().0.wrapping_add(xxh3_128(&hashed)).wrapping_add(xxh3_128(&rows));
    assert_eq!(digest, expected.to_le_bytes());
    drop(store);
    let shard = open();
    assert_eq!((shard.digest(), shard.held()), (digest, 5));
}

/// What a mark says of deletes and of late writes.
#[test]
fn mark_of_conflicts() {
    let place = ShardPlace { disk: Arc::new(SimDisk::new()), replica: 4, options: Options::new(2) };
    let mut shard = ShardMachine::open(place, 0).expect("it opens");
    shard.begin_term(1, 2).expect("it is the first");
    let mut batch = OpsBuilder::new();
    batch.delete("a").expect("a good delete");
    shard.apply(&proposal(5, 1, 3, &batch.finish())).expect("the disk works");
    let mut batch = OpsBuilder::new();
    batch.put("a", &[1.0, -2.0], b"p").expect("a good put");
    let body = batch.finish();
    let mut late = proposal(6, 1, 4, &body);
    late.header = ProposalHeader {
        level: AckLevel::One,
        hlc: 9,
        late: Some(Late { was: Position::new(7, 8, 0), fork: 4 }),
        ..late.header
    };
    // Of a term that this history never heard of, as forced recovery makes them.
    shard.apply(&late).expect("the disk works");
    let mut part = Vec::new();
    shard.snapshot().expect("it can be shown").read(0, &mut part).expect("the disk works");
    let root = Struct::root(&part[1..], "Mark");
    let position = |at: &Struct<'_>| (at.u64("term"), at.u64("index"), at.u32("offset"));
    assert_eq!((root.u64("index"), root.u64("horizon")), (6, 0));
    let [tombstone] = &root.items("tombstones", "Tombstone")[..] else { panic!("one tombstone") };
    assert_eq!((tombstone.text("id"), position(&tombstone.inner("position", "Position"))), ("a", (1, 5, 0)));
    let made = tombstone.inner("made", "Made");
    assert_eq!((made.byte("level"), made.u64("hlc"), made.byte("was")), (1, 0, 0));
    let [conflict] = &root.items("conflicts", "Conflict")[..] else { panic!("one conflict") };
    assert_eq!((conflict.text("id"), conflict.byte("became")), ("a", 3));
    assert_eq!(position(&conflict.inner("was", "Position")), (7, 8, 0));
    assert_eq!(position(&conflict.inner("decided", "Position")), (1, 6, 0));
    assert_eq!((conflict.byte("met"), position(&conflict.inner("met.position", "Position"))), (1, (1, 5, 0)));
    let made = conflict.inner("made", "Made");
    assert_eq!((made.byte("level"), made.u64("hlc"), made.byte("was")), (0, 9, 0));
    assert_eq!((conflict.byte("loser"), conflict.byte("loser.number")), (1, 0));
    let bytes = |field: &str| {
        let at = conflict.place(field);
        let from = target(conflict.bytes, at, at);
        &conflict.bytes[from..from + u32_at(conflict.bytes, at + 4) as usize]
    };
    assert_eq!(
        (bytes("loser.vector"), bytes("loser.payload")),
        (&[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0][..], &b"p"[..])
    );
}
