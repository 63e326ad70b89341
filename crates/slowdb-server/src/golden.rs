//! The examples of docs/format.md: identity, catalog and a shard's mark, written by the code and decoded by
//! the document's tables.
//!
//! If this fails, nodes do not open what they wrote before, or the document is wrong.

use crate::catalog::{self, CatalogChange, CatalogMachine};
use crate::identity::{Founding, Identity};
use crate::shard::{ShardMachine, ShardPlace};
use slowdb_disk::{Disk, SimDisk};
use slowdb_proto::{ClusterId, Metric, OpsBuilder};
use slowdb_repl::{AckLevel, Position, ProposalHeader, ProposalView};
use slowdb_storage::{Options, Store};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The block of the document that begins with this line.
fn block(head: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md");
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
    let header = ProposalHeader { level, retry: false, writes, client, sequence, hlc: 0, origin: 1 };
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
    let numbers = ["dimension", "num_shards", "virtual_nodes", "replication_factor"].map(|f| founding.u32(f));
    assert_eq!((numbers, founding.byte("metric")), ([3, 1, 64, 3], 2));
    let peers = root.place("peers");
    let node = target(content, peers, peers);
    // One node of the tree: kind, 5 keys of 8 bytes, 5 values of 16, length.
    assert_eq!((u32_at(content, peers + 4), content[node], u32_at(content, node + 124)), (1, 0, 1));
    assert_eq!((text_at(content, node + 4), &content[node + 44..][..16]), ("n2", &[3; 16][..]));
}

#[test]
fn catalog() {
    let disk = SimDisk::new();
    let mut machine = CatalogMachine::open(Arc::new(disk.clone()), 0).expect("nothing is there yet");
    let founded =
        catalog::found(&founding(None), &BTreeMap::new(), ClusterId([1; 16])).expect("it can be founded");
    let change = CatalogChange::Found(founded).encode();
    machine.apply(&proposal(2, 1, 0, &change)).expect("the disk works").expect("it is the first");
    machine.end_of_entry(2).expect("the disk works");
    let bytes = file(&disk, "catalog");
    assert_eq!(block("hex catalog"), hex(&bytes));

    let content = sealed(&bytes, b"SDBC");
    let root = Struct::root(content, "Checkpoint");
    assert_eq!(root.u64("held"), 2);
    assert_catalog(&root.inner("catalog", "Catalog"));
    let start = change.len() - 56;
    assert_eq!(change[start], 0);
    assert_catalog(&Struct::at(&change, start + 8, "Catalog"));

    let change = CatalogChange::Zone { node: "n1".into(), zone: "east".into() }.encode();
    assert_eq!(block("hex catalog change"), hex(&change));
    let start = change.len() - 56;
    assert_eq!((change[start], text_at(&change, start + 4), text_at(&change, start + 12)), (1, "n1", "east"));
}

fn assert_catalog(catalog: &Struct<'_>) {
    assert_eq!((catalog.byte("cluster"), catalog.u64("epoch")), (1, 1));
    let [node] = &catalog.items("nodes", "Node")[..] else { panic!("one node") };
    assert_eq!((node.text("id"), node.text("address"), node.byte("zone")), ("n1", "127.0.0.1:7001", 0));
    let [collection] = &catalog.items("collections", "Collection")[..] else { panic!("one collection") };
    assert_eq!((collection.text("name"), collection.u32("dimension")), ("default", 3));
    assert_eq!((collection.byte("metric"), collection.u32("replication_factor")), (2, 3));
    let [shard] = &collection.items("shards", "Shard")[..] else { panic!("one shard") };
    assert_eq!(
        (shard.u32("shard"), shard.u64("group"), shard.byte("leader"), shard.u64("term")),
        (0, 1, 0, 0)
    );
    let [replica] = &shard.items("replicas", "Replica")[..] else { panic!("one replica") };
    assert_eq!((replica.u64("replica"), replica.text("node"), replica.byte("voter")), (2, "n1", 1));
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
    shard.apply(&proposal(5, 2, 3, &batch.finish())).expect("the disk works");
    let done = shard.begin_checkpoint().expect("it can").expect("there is something new").run();
    shard.finish_checkpoint(done.expect("the disk works")).expect("it is the last one begun");
    let digest = shard.digest();
    drop(shard);

    let store = Store::open(Arc::new(disk.clone()), "shards/4.0", Options::new(2)).expect("it opens");
    let bytes = store.mark();
    assert_eq!(block("hex mark"), hex(bytes));
    let root = Struct::root(bytes, "Mark");
    let position = |at: &Struct<'_>| (at.u64("term"), at.u64("index"), at.u32("offset"));
    assert_eq!(position(&root.inner("applied", "Position")), (1, 5, 1));
    let [result] = &root.items("results", "Result")[..] else { panic!("one result") };
    assert_eq!((result.array("client"), result.u64("sequence")), ([7; 16], 3));
    assert_eq!((position(&result.inner("first", "Position")), result.u32("replaced")), ((1, 5, 0), 0));
    assert!(root.items("forgotten", "Client").is_empty() && root.byte("clients_forgotten") == 0);

    let mut hashed = vec![7; 16];
    [3_u64, 1, 5].iter().for_each(|word| hashed.extend(word.to_le_bytes()));
    hashed.extend([0; 8]);
    let expected = store.digest().0.wrapping_add(xxh3_128(&hashed));
    assert_eq!(digest, expected.to_le_bytes());
    drop(store);
    let shard = open();
    assert_eq!((shard.digest(), shard.held()), (digest, 5));
}
