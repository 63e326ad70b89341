//! The examples of docs/format.md: files of a store with one record, made by the public API, and everything
//! in them computed once more from what the document says, without this crate's code.
//!
//! If this fails, stores written before cannot be read any more, or the document is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use slowdb_disk::{Disk, SimDisk};
use slowdb_storage::{Digest, Options, Store, Version};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed, xxh3_128};

const ID: &[u8] = b"a";
const VECTOR: [f32; 2] = [1.0, -2.0];
const PAYLOAD: &[u8] = b"p";
const VERSION: [u64; 3] = [4, 1000, 0];
const MARK: &[u8] = b"mark";
const HASH_SEED: u64 = 7;
const INDEX: &str = "index-0000000000000001";
const PAGE: usize = 4096;

/// The block of the document that begins with this line.
fn block(head: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md");
    let text = std::fs::read_to_string(path).expect("the document is there");
    let (_, rest) = text.split_once(&format!("```{head}\n")).unwrap_or_else(|| panic!("no block {head}"));
    rest.split_once("\n```").unwrap_or_else(|| panic!("block {head} does not end")).0.to_owned()
}

/// The offset of each field in the document's table of a struct, and its size as that of the field "".
fn layout(name: &str) -> BTreeMap<String, usize> {
    let table = block(&format!("text {name}"));
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let offset = words.next().and_then(|word| word.parse().ok());
        (words.next().unwrap_or_default().to_owned(), offset.unwrap_or_else(|| panic!("{name}: {line}")))
    };
    table.lines().map(row).collect()
}

/// As the document writes bytes: sixteen to a line.
fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

fn file(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(&format!("s/{name}"), false).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The store of the examples, checkpointed.
fn stored() -> (SimDisk, Digest) {
    let disk = SimDisk::new();
    let mut options = Options::new(VECTOR.len());
    options.extent_bytes = 4096;
    options.hash_seed = HASH_SEED;
    let mut store = Store::open(Arc::new(disk.clone()), "s", options).unwrap();
    store.put(ID, (&VECTOR).into(), PAYLOAD, Version(VERSION)).unwrap();
    store.checkpoint(MARK).unwrap();
    let digest = store.digest();
    (disk, digest)
}

/// As the document describes it.
fn record_hash() -> u128 {
    let vector: Vec<u8> = VECTOR.iter().flat_map(|component| component.to_le_bytes()).collect();
    let mut bytes: Vec<u8> = VERSION.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend((ID.len() as u32).to_le_bytes());
    bytes.extend((PAYLOAD.len() as u32).to_le_bytes());
    bytes.extend(xxh3_128(&vector).to_le_bytes());
    bytes.extend(xxh3_128(PAYLOAD).to_le_bytes());
    bytes.extend(ID);
    xxh3_128(&bytes)
}

#[test]
fn files() {
    let (disk, _) = stored();
    assert_eq!(disk.list("s").unwrap(), ["heap", INDEX, "manifest", "slots", "vectors"]);
    assert_eq!(file(&disk, "vectors").len(), 65_536);
    assert_eq!(file(&disk, "slots").len(), 65_536);
    assert_eq!(file(&disk, "heap").len(), 131_072);
    assert_eq!(file(&disk, INDEX).len(), 4 * PAGE);
    assert_eq!(file(&disk, "manifest").len(), 2 * PAGE);
}

#[test]
fn slot() {
    let (disk, digest) = stored();
    let slots = file(&disk, "slots");
    assert_eq!(block("hex slot"), hex(&slots[..64]));
    let at = layout("Slot");
    let words: Vec<u64> = ["term", "index", "offset", "heap_offset"].map(|f| word(&slots, at[f])).into();
    assert_eq!(words, [4, 1000, 0, 0]);
    assert_eq!(slots[at["hash"]..][..16], record_hash().to_le_bytes());
    assert_eq!(slots[at["payload_len"]..][..4], 1_u32.to_le_bytes());
    assert_eq!(slots[at["id_len"]..][..2], 1_u16.to_le_bytes());
    assert!(at[""] == 64 && is_zero(&slots[at["zero"]..at["check"]]));
    assert_eq!(word(&slots, at["check"]), xxh3_64_with_seed(&slots[..56], 0), "of slot 0");
    assert_eq!(digest.0, record_hash(), "the digest of one record is its hash");
    assert!(is_zero(&slots[64..]), "nobody used the others");
}

#[test]
fn vector_and_heap() {
    let (disk, _) = stored();
    let vectors = file(&disk, "vectors");
    assert_eq!(block("hex vector"), hex(&vectors[..64]));
    let heap = file(&disk, "heap");
    assert_eq!(block("hex heap"), hex(&heap[..2]));
    assert!(is_zero(&vectors[8..]) && is_zero(&heap[2..]));
}

#[test]
fn index() {
    let (disk, _) = stored();
    let index = file(&disk, INDEX);
    assert_eq!(block("hex index head"), hex(&index[..80]));
    let at = layout("IndexHead");
    let head = |field: &str| word(&index, 8 + at[field] * 8);
    assert_eq!(["format", "number", "table_pages", "slots"].map(head), [3, 1, 1, 1]);
    assert!(at[""] == 9 && ["below", "puts", "died", "slots_below"].map(head) == [0; 4]);
    let number = 1_u64;
    for page in 0..4 {
        let bytes = &index[page * PAGE..][..PAGE];
        let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(page as u64);
        assert_eq!(word(bytes, 0), xxh3_64_with_seed(&bytes[8..], seed), "page {page}");
    }
    let fingerprint = (xxh3_64_with_seed(ID, HASH_SEED) >> 32) as u32;
    let table_pages = 1;
    let page = (u64::from(fingerprint) * table_pages) >> 32;
    let place = (fingerprint.wrapping_mul(0x9e37_79b1) >> 16) as usize % 511;
    let at = (1 + page as usize) * PAGE + 8 + place * 8;
    assert_eq!(word(&index, at), u64::from(fingerprint) << 32 | 1, "slot 0");
    let shown = format!("fingerprint {fingerprint:08x}, place {place}, byte {at} of the file");
    let document = block("text index entry");
    assert_eq!(document, shown);
    assert_eq!(block("hex index entry"), hex(&index[at..at + 8]));
    let (copy, other) = index[2 * PAGE..].split_at(PAGE);
    assert!(copy[8..] == other[8..], "the bitmap is there twice");
    let rest = [&index[80..PAGE], &index[PAGE + 8..at], &index[at + 8..2 * PAGE], &copy[16..]];
    assert!(rest.into_iter().all(is_zero), "nothing else is in the index");
    assert_eq!(block("hex index bitmap"), hex(&index[2 * PAGE..][..16]));
    assert_eq!(word(&index, 2 * PAGE + 8), 1, "slot 0 lives");
}

/// As in the document: five records, of which one is put again.
#[test]
fn delta() {
    let disk = SimDisk::new();
    let mut options = Options::new(VECTOR.len());
    options.hash_seed = HASH_SEED;
    let mut store = Store::open(Arc::new(disk.clone()), "s", options).unwrap();
    for id in [b"a", b"b", b"c", b"d", b"e"] {
        store.put(id, (&VECTOR).into(), PAYLOAD, Version(VERSION)).unwrap();
    }
    store.checkpoint(MARK).unwrap();
    store.put(ID, (&VECTOR).into(), PAYLOAD, Version(VERSION)).unwrap();
    store.checkpoint(MARK).unwrap();
    assert_eq!(disk.list("s").unwrap()[1..3], [INDEX, "index-0000000000000002"]);
    let delta = file(&disk, "index-0000000000000002");
    assert_eq!(delta.len(), 5 * PAGE);
    assert_eq!(block("hex delta heads"), hex(&delta[..80]) + "\n" + &hex(&delta[PAGE..PAGE + 80]));
    assert!(delta[8..PAGE] == delta[PAGE + 8..2 * PAGE], "the head is there twice");
    for (page, bytes) in (0..).zip(delta.chunks(PAGE)) {
        let seed = 2_u64.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(page);
        assert_eq!(word(bytes, 0), xxh3_64_with_seed(&bytes[8..], seed), "page {page}");
    }
    let at = layout("IndexHead");
    let head = |field: &str| word(&delta, 8 + at[field] * 8);
    assert_eq!(["format", "number", "table_pages", "slots"].map(head), [3, 2, 1, 6]);
    assert_eq!(["below", "puts", "died", "slots_below"].map(head), [1, 1, 1, 5]);
    let fingerprint = (xxh3_64_with_seed(ID, HASH_SEED) >> 32) as u32;
    let place = (fingerprint.wrapping_mul(0x9e37_79b1) >> 16) as usize % 511;
    let at = 2 * PAGE + 8 + place * 8;
    assert_eq!(word(&delta, at), u64::from(fingerprint) << 32 | 6, "slot 5");
    assert_eq!(block("text delta entry"), format!("byte {at} of the file: {}", hex(&delta[at..at + 8])));
    assert_eq!(block("hex delta lists"), hex(&delta[3 * PAGE..][..16]));
    assert_eq!(word(&delta, 3 * PAGE + 8), 5, "slot 5 was put, then slot 0 died");
    assert!(delta[3 * PAGE + 8..4 * PAGE] == delta[4 * PAGE + 8..], "the lists are there twice");
    let (before, after) = (&delta[2 * PAGE + 8..at], &delta[at + 8..3 * PAGE]);
    let rest = [&delta[80..PAGE], before, after, &delta[3 * PAGE + 16..4 * PAGE]];
    assert!(rest.into_iter().all(is_zero), "nothing else is in the delta");
}

#[test]
fn manifest() {
    let (disk, digest) = stored();
    let manifest = file(&disk, "manifest");
    let (copy, other) = manifest.split_at(PAGE);
    assert!(copy == other, "it is there twice");
    let (used, rest) = copy.split_at(40 + word(copy, 16) as usize);
    assert_eq!(block("hex manifest"), hex(used));
    assert!(is_zero(rest));
    let body = &used[40..];
    let mut hasher = Xxh3::new();
    hasher.update(&manifest[..24]);
    hasher.update(body);
    assert_eq!(manifest[24..40], hasher.digest128().to_le_bytes());
    let at = layout("Manifest");
    let start = body.len() - at[""];
    let root = &body[start..];
    let short = |field: &str| u32::from_le_bytes(root[at[field]..][..4].try_into().unwrap());
    assert_eq!(["dimension", "slots_log2", "heap_log2"].map(short), [2, 6, 17]);
    let long = |field: &str| word(root, at[field]);
    assert_eq!(["hash_seed", "slots", "records"].map(long), [HASH_SEED, 1, 1]);
    let current = at["heap_current"];
    assert_eq!(
        (root[current], u32::from_le_bytes(root[current + 4..][..4].try_into().unwrap())),
        (1, 0),
        "some, extent 0"
    );
    let heap = (start + at["heap"]).checked_add_signed(short("heap") as i32 as isize).unwrap();
    assert_eq!(root[at["heap"] + 4..][..4], 1_u32.to_le_bytes());
    let used = layout("HeapUse");
    assert_eq!((used["filled"], used["live"], used[""]), (0, 4, 8));
    assert_eq!(body[heap..heap + 8], [2, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(root[at["digest"]..][..16], digest.0.to_le_bytes());
    assert_eq!((root[at["index"]], word(root, at["index"] + 8)), (1, 1), "some, number 1");
    let mark = (start + at["mark"]).checked_add_signed(short("mark") as i32 as isize).unwrap();
    let len = u32::from_le_bytes(root[at["mark"] + 4..][..4].try_into().unwrap());
    assert_eq!(&body[mark..][..len as usize], MARK);
}

/// Finds an id as the document describes it. Gives the slot, and how many pages were looked at.
fn look_up(index: &[u8], id: &[u8], seed: u64) -> (u64, u64) {
    let fingerprint = (xxh3_64_with_seed(id, seed) >> 32) as u32;
    let table_pages = word(index, 32);
    let first = (fingerprint.wrapping_mul(0x9e37_79b1) >> 16) as usize % 511;
    for n in 0..table_pages {
        let page = (((u64::from(fingerprint) * table_pages) >> 32) + n) % table_pages;
        for place in (first..511).chain(0..first) {
            let entry = word(index, (1 + page as usize) * PAGE + 8 + place * 8);
            assert_ne!(entry, 0, "an empty place before the entry of {id:?}");
            if entry >> 32 == u64::from(fingerprint) {
                return ((entry & 0xffff_ffff) - 1, n + 1);
            }
        }
    }
    panic!("{id:?} is not in the index")
}

/// More entries belong to a page than it has places: some are in the next.
#[test]
fn probing() {
    let disk = SimDisk::new();
    let mut options = Options::new(2);
    options.hash_seed = HASH_SEED;
    let mut store = Store::open(Arc::new(disk.clone()), "s", options).unwrap();
    let in_last_page = |id: &[u8; 4]| xxh3_64_with_seed(id, HASH_SEED) >> 63 == 1;
    let ids: Vec<[u8; 4]> = (0_u32..).map(u32::to_le_bytes).filter(in_last_page).take(520).collect();
    for id in &ids {
        store.put(id, (&VECTOR).into(), b"", Version::default()).unwrap();
    }
    store.checkpoint(b"").unwrap();
    let index = file(&disk, INDEX);
    assert_eq!(word(&index, 32), 2, "520 records take two pages");
    let found: Vec<(u64, u64)> = ids.iter().map(|id| look_up(&index, id, HASH_SEED)).collect();
    assert!((0..).zip(&found).all(|(slot, found)| found.0 == slot));
    assert_eq!(found.iter().filter(|found| found.1 == 2).count(), 520 - 511);
}

/// Each slot and each byte of the heap is where the document's arithmetic says.
#[test]
fn extents() {
    let disk = SimDisk::new();
    let mut options = Options::new(20);
    // Stride 128: 512 slots and 65,536 bytes to an extent of vectors, 32,768 bytes of slots, which take 65,536.
    options.extent_bytes = 65_536;
    let mut store = Store::open(Arc::new(disk.clone()), "s", options).unwrap();
    let payload = [9; 65_536];
    for n in 0..520_u64 {
        let payload = if n < 3 { &payload[..] } else { &[] };
        store.put(&n.to_le_bytes(), (&[n as f32; 20]).into(), payload, Version([0, n, 0])).unwrap();
    }
    store.checkpoint(b"").unwrap();
    let (vectors, slots, heap) = (file(&disk, "vectors"), file(&disk, "slots"), file(&disk, "heap"));
    let mut heap_end = 0_usize;
    for n in 0..520_usize {
        let (extent, at) = (n / 512, n % 512);
        let vector = extent * 65_536 + at * 128;
        assert_eq!(vectors[vector..vector + 4], (n as f32).to_le_bytes(), "vector {n}");
        let slot = extent * 65_536 + at * 64;
        assert_eq!(word(&slots, slot + 8), n as u64, "slot {n}");
        let len = 8 + if n < 3 { 65_536 } else { 0 };
        if heap_end / 131_072 != (heap_end + len - 1) / 131_072 {
            heap_end = heap_end.next_multiple_of(131_072);
        }
        assert_eq!(word(&slots, slot + 40), heap_end as u64, "heap offset of {n}");
        assert_eq!(word(&heap, heap_end), n as u64, "id {n}");
        heap_end += len;
    }
}
