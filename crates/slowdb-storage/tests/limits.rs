//! Bad input is refused with an error that says what was wrong, and changes nothing.

mod common;

use std::sync::Arc;

use common::{DIMENSION, options};
use slowdb_disk::{Disk, SimDisk};
use slowdb_storage::{
    ID_BYTES_MAX, Metric, OpenError, Options, PAYLOAD_BYTES_MAX, ReadError, SearchQuery, Store, VectorRef,
    Version, WriteError,
};

const VECTOR: [f32; DIMENSION] = [1.0, -2.0, 3.0, f32::MAX, f32::MIN_POSITIVE / 2.0];

fn store() -> Store {
    let mut store = Store::open(Arc::new(SimDisk::new()), "s", options()).unwrap();
    store.put(b"a", (&VECTOR).into(), b"p", Version([1, 2, 3])).unwrap();
    store
}

#[test]
fn bad_writes_are_refused() {
    let mut store = store();
    let digest = store.digest();
    let mut put = |id: &[u8], vector: VectorRef<'_>, payload: &[u8]| {
        store.put(id, vector, payload, Version::default()).unwrap_err()
    };
    let good = VectorRef::from(&VECTOR);
    let err = put(b"", good, b"");
    assert!(matches!(err, WriteError::IdEmpty), "{err}");
    let err = put(&[b'x'; ID_BYTES_MAX + 1], good, b"");
    assert!(matches!(err, WriteError::IdTooLong(513)), "{err}");
    let err = put(b"a", good, &vec![0; PAYLOAD_BYTES_MAX + 1]);
    assert!(matches!(err, WriteError::PayloadTooLong(65_601)), "{err}");
    let err = put(b"a", (&[1.0; 4]).into(), b"");
    assert!(matches!(err, WriteError::Dimension { expected: 5, got: 4 }), "{err}");
    let err = put(b"a", VectorRef::LeBytes(&[0; 21]), b"");
    assert!(matches!(err, WriteError::VectorBytes(21)), "{err}");
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
        for index in 0..DIMENSION {
            let mut vector = VECTOR;
            vector[index] = bad;
            let err = put(b"a", (&vector).into(), b"");
            assert!(matches!(err, WriteError::NotFinite { index: i, .. } if i == index), "{err}");
        }
    }
    assert!(matches!(store.delete(b""), Err(WriteError::IdEmpty)));
    assert_eq!(store.digest(), digest);
    assert_eq!(store.reader().get(b"a").unwrap().unwrap().vector, VECTOR);
}

#[test]
fn the_largest_of_everything_is_taken() {
    let mut store = store();
    let id = [7; ID_BYTES_MAX];
    for n in 0..5 {
        let payload = vec![n; PAYLOAD_BYTES_MAX];
        store.put(&id, (&VECTOR).into(), &payload, Version([u64::MAX; 3])).unwrap();
        assert_eq!(store.reader().get(&id).unwrap().unwrap().payload, payload);
    }
    let mut large = Options::new(65_536);
    large.extent_bytes = 4096;
    let mut store = Store::open(Arc::new(SimDisk::new()), "s", large).unwrap();
    let vector = vec![0.5; 65_536];
    store.put(b"a", (&vector).into(), b"", Version::default()).unwrap();
    store.checkpoint(b"").unwrap();
    let hits = store.reader().search(&SearchQuery::new(&vector, 1, Metric::InnerProduct)).unwrap();
    assert_eq!(hits[0][0].score, 16_384.0);
}

#[test]
fn bad_queries_are_refused() {
    let reader = store().reader();
    let search = |vectors: &[f32]| reader.search(&SearchQuery::new(vectors, 1, Metric::L2));
    assert!(matches!(search(&[0.0; 6]), Err(ReadError::QueryDimension { dimension: 5, got: 6 })));
    let mut two = [0.0; 10];
    two[7] = f32::NAN;
    assert!(matches!(search(&two), Err(ReadError::QueryNotFinite { query: 1, index: 2, .. })));
    assert!(search(&[]).unwrap().is_empty());
    let none = reader.search(&SearchQuery::new(&VECTOR, 0, Metric::L2)).unwrap();
    assert_eq!(none, [vec![]]);
    assert_eq!(reader.get(b"").unwrap(), None);
    assert_eq!(reader.get(&[1; 600]).unwrap(), None);
}

#[test]
fn a_store_is_opened_as_what_it_is() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let open = |options| Store::open(Arc::clone(&disk), "s", options);
    for bad in [0, 65_537] {
        assert!(matches!(open(Options::new(bad)), Err(OpenError::BadDimension(d)) if d == bad));
    }
    let mut bad = Options::new(1);
    bad.extent_bytes = 100;
    assert!(matches!(open(bad), Err(OpenError::BadExtent(100))));
    assert!(disk.list("").unwrap().is_empty(), "nothing was created");
    drop(open(Options::new(3)).unwrap());
    let err = open(Options::new(4)).err().unwrap();
    assert!(matches!(err, OpenError::DimensionMismatch { stored: 3, asked: 4, .. }), "{err}");
}
