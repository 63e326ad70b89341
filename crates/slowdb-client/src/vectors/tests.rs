use super::*;
use proptest::prelude::*;
use slowdb_fuzz::Target;
use std::io::Write;

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(name);
    File::create(&path).and_then(|mut f| f.write_all(bytes)).expect("written");
    (dir, path)
}

fn npy(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    if version == 1 {
        bytes.extend((header.len() as u16).to_le_bytes());
    } else {
        bytes.extend((header.len() as u32).to_le_bytes());
    }
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn open(name: &str, bytes: &[u8]) -> Result<Vectors, FileError> {
    let (_dir, path) = file(name, bytes);
    Vectors::open(path)
}

fn write_npy(dimension: usize, components: &[f32]) -> Vec<u8> {
    let mut writer = NpyWriter::new(std::io::Cursor::new(Vec::new()), dimension).expect("begun");
    components.chunks(dimension).for_each(|row| writer.write(row).expect("written"));
    writer.finish().expect("finished").into_inner()
}

const GOOD: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n";
const DATA: [u8; 8] = [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]; // 1.0, -2.0

#[test]
fn all_versions_and_orders_of_keys_are_read() {
    let other = "{\"shape\": (2L, 1L), 'fortran_order': False, 'descr': '<f4'}";
    for (version, header) in [(1, GOOD), (2, GOOD), (3, GOOD), (1, other)] {
        let mut vectors = open("a.npy", &npy(version, header, &DATA)).expect("a good file");
        assert_eq!((vectors.rows(), vectors.dimension()), (2, 1));
        vectors.check().expect("finite");
        assert_eq!(vectors.read_all().expect("read"), [1.0, -2.0]);
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let with = |from: &str, to: &str| npy(1, &GOOD.replace(from, to), &DATA);
    let good = npy(1, GOOD, &DATA);
    let cases: [(&str, Vec<u8>, &str); 15] = [
        ("a.npy", good[..good.len() - 1].to_vec(), "truncated"),
        ("a.npy", good[..20].to_vec(), "inside its header"),
        ("a.npy", good[..4].to_vec(), "inside its header"),
        ("a.npy", [&good[..], b"x"].concat(), "longer than its header says"),
        ("a.npy", with("<f4", "<f8"), "'<f8'"),
        ("a.npy", with("<f4", ">f4"), "'>f4'"),
        ("a.npy", with("'<f4'", "[('x', '<f4')]"), "[('x', '<f4')]"),
        ("a.npy", with("False", "True"), "Fortran"),
        ("a.npy", with("(2, 1)", "(2,)"), "shape is (2)"),
        ("a.npy", with("(2, 1)", "(2, 0)"), "shape is (2, 0)"),
        ("a.npy", with("(2, 1)", "(18446744073709551615, 9)"), "shape is (18446744073709551615, 9)"),
        ("a.npy", with("'shape'", "'form'"), "makes no sense"),
        ("a.npy", npy(4, GOOD, &DATA), "version 4"),
        ("a.npy", b"PK\x03\x04 something else".to_vec(), "no .npy file"),
        ("a.csv", good.clone(), ".npy or .fvecs"),
    ];
    for (name, bytes, wanted) in cases {
        let error = open(name, &bytes).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "'{error}' should say '{wanted}'");
    }
}

#[test]
fn fvecs_are_read_and_checked() {
    let row = |dimension: i32, x: f32| [dimension.to_le_bytes(), x.to_le_bytes()].concat();
    let mut vectors = open("a.fvecs", &[row(1, 0.5), row(1, 2.0)].concat()).expect("a good file");
    vectors.check().expect("finite");
    assert_eq!(vectors.read_all().expect("read"), [0.5, 2.0]);

    let mut ragged = open("a.fvecs", &[row(1, 0.5), row(2, 2.0)].concat()).expect("its length is right");
    let error = ragged.check().expect_err("the second row differs").to_string();
    assert!(error.contains("row 1 claims 2 components"), "{error}");

    for (bytes, wanted) in [
        (vec![], "empty"),
        (vec![1, 0], "2 bytes hold no row"),
        (row(0, 1.0), "claims 0 components"),
        (row(-4, 1.0), "claims -4 components"),
        (row(2, 1.0), "truncated"),
    ] {
        let error = open("a.fvecs", &bytes).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "'{error}' should say '{wanted}'");
    }
}

#[test]
fn the_row_that_is_not_finite_is_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let bytes = write_npy(2, &[1.0, f32::MAX, f32::MIN, bad, 5.0, 6.0]);
        let mut vectors = open("a.npy", &bytes).expect("the layout is good");
        let error = vectors.check().expect_err("not finite").to_string();
        assert!(error.contains(&format!("row 1, component 1 is {bad}")), "{error}");
    }
}

#[test]
fn rows_that_cancel_out_are_still_finite() {
    let bytes = write_npy(3, &[f32::MAX, f32::MAX, -f32::MAX, f32::MIN_POSITIVE, 0.0, -0.0]);
    open("a.npy", &bytes).and_then(|mut v| v.check()).expect("all finite");
}

proptest! {
    #[test]
    fn what_is_written_is_read(dimension in 1usize..9, rows in 0usize..20, seed in any::<u32>()) {
        let values: Vec<f32> = (0..dimension * rows).map(|i| (i as f32) * 0.25 - (seed % 100) as f32).collect();
        let bytes = write_npy(dimension, &values);
        prop_assert_eq!((bytes.len() - values.len() * 4) % 64, 0, "data starts at a multiple of 64");
        let mut vectors = open("a.npy", &bytes).expect("opens");
        prop_assert_eq!((vectors.rows(), vectors.dimension()), (rows as u64, dimension));
        vectors.check().expect("finite");
        prop_assert_eq!(vectors.read_all().expect("read"), values);
    }

    /// Bytes from anywhere are refused or read, but never break the reader.
    #[test]
    fn damage_is_refused_or_harmless(at in 0usize..70, byte in any::<u8>(), cut in 0usize..140) {
        let mut bytes = npy(1, GOOD, &DATA);
        let len = bytes.len();
        bytes[at.min(len - 1)] = byte;
        bytes.truncate(cut.max(1));
        for name in ["a.npy", "a.fvecs"] {
            if let Ok(mut vectors) = open(name, &bytes) {
                let _ = vectors.check();
            }
        }
    }
}

/// Reads all of what is taken for a file of vectors; what it holds is the same in the file that is written of it.
fn reads_all(name: &str, bytes: &[u8]) -> bool {
    let Ok(mut vectors) = open(name, bytes) else { return false };
    let (rows, dimension) = (vectors.rows(), vectors.dimension());
    let Ok(all) = vectors.read_all() else { return false };
    assert_eq!(all.len() as u64, rows * dimension as u64);
    let mut again = open("again.npy", &write_npy(dimension, &all)).expect("just written");
    assert_eq!((again.rows(), again.dimension()), (rows, dimension));
    let bits = |all: Vec<f32>| all.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(again.read_all().expect("just written")), bits(all));
    // Finite or not, that is an answer.
    let _ = vectors.rewind().map(|()| vectors.check());
    true
}

/// Buffers of a file that is read and of one that is written.
const BUFFERS: usize = 4 << 20;

#[test]
fn fuzz_npy() {
    let wide = write_npy(5, &[0.5; 40]);
    let structured = GOOD.replace("'<f4'", "[('a', '<f4')]");
    assert!(open("a.npy", &npy(1, &structured, &DATA)).is_err());
    let corpus = [npy(1, GOOD, &DATA), npy(2, GOOD, &DATA), npy(3, GOOD, &DATA), wide, write_npy(3, &[])];
    let target = Target::new("fuzz_npy", corpus).cases(1_500).memory(BUFFERS, 64);
    target.run(|bytes| reads_all("a.npy", bytes));
}

#[test]
fn fuzz_fvecs() {
    let rows = |rows: usize, dimension: u32| {
        let row = [dimension.to_le_bytes().to_vec(), [0, 0, 0x80, 0x3f].repeat(dimension as usize)].concat();
        row.repeat(rows)
    };
    let target = Target::new("fuzz_fvecs", [rows(1, 1), rows(3, 2), rows(2, 30)]);
    target.cases(1_500).memory(BUFFERS, 64).run(|bytes| reads_all("a.fvecs", bytes));
}
