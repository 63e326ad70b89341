//! The bytes, against the examples in the format's documentation, and against damage.

use super::super::format::{
    HEADER_AREA, HeaderCopy, RECORD_HEADER, RecordHeader, RecordType, SEGMENT_HEADER, SegmentHeader,
    body_check, record_bytes,
};

/// As the document writes bytes: sixteen to a line.
fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

/// The block of the document that begins with this line.
fn block(head: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md");
    let text = std::fs::read_to_string(path).expect("the document is there");
    let (_, rest) = text.split_once(&format!("```{head}\n")).unwrap_or_else(|| panic!("no block {head}"));
    rest.split_once("\n```").unwrap_or_else(|| panic!("block {head} does not end")).0.to_owned()
}

fn segment_header() -> SegmentHeader {
    SegmentHeader {
        log_id: 0x0123_4567_89ab_cdef,
        opening: 3,
        sequence: 9,
        active: true,
        first_needed: 5,
        segment_bytes: 64 << 20,
        prev_sequence: 8,
        prev_end: 0x03ff_ffc0,
        synced_end: HEADER_AREA,
        prev_chain: 0xfeed_beef_cafe_f00d,
    }
}

fn record_header() -> RecordHeader {
    RecordHeader {
        chain: segment_header().chain_start(),
        body_check: body_check(b"hello"),
        watermark: HEADER_AREA,
        opening: 3,
        body_bytes: 5,
        kind_byte: RecordType::Entry as u8,
        kind: 2,
        group: 7,
        term: 4,
        index: 1000,
    }
}

/// The examples of docs/format.md. If this fails, logs written before cannot be read any more.
#[test]
fn golden_bytes() {
    let segment = segment_header();
    assert_eq!(block("hex segment header"), hex(&segment.encode()));
    let mut record = Vec::new();
    record_header().encode(segment.seed(), HEADER_AREA, &mut record);
    assert_eq!(block("hex record"), hex(&record));
}

#[test]
fn segment_header_comes_back_and_no_flipped_bit_does() {
    let header = segment_header();
    let bytes = header.encode();
    assert_eq!(SegmentHeader::decode(&bytes), HeaderCopy::Valid(header));
    assert_eq!(SegmentHeader::decode(&[0; SEGMENT_HEADER]), HeaderCopy::Zero);
    for bit in 0..SEGMENT_HEADER * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(SegmentHeader::decode(&damaged), HeaderCopy::Bad, "bit {bit}");
    }
}

#[test]
fn record_header_comes_back_only_at_its_own_place() {
    let header = record_header();
    let seed = segment_header().seed();
    let mut bytes = Vec::new();
    let check = header.encode(seed, 8192, &mut bytes);
    let bytes: [u8; RECORD_HEADER] = bytes.try_into().expect("a header has 64 bytes");
    assert_eq!(RecordHeader::decode(&bytes, seed, 8192), Some((header, check)));
    assert_eq!(RecordHeader::decode(&bytes, seed, 8256), None, "at another offset");
    let other = SegmentHeader { sequence: 10, ..segment_header() };
    assert_eq!(RecordHeader::decode(&bytes, other.seed(), 8192), None, "in another segment");
    let other = SegmentHeader { log_id: 1, ..segment_header() };
    assert_eq!(RecordHeader::decode(&bytes, other.seed(), 8192), None, "in another log");
    for bit in 0..RECORD_HEADER * 8 {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(RecordHeader::decode(&damaged, seed, 8192), None, "bit {bit}");
    }
}

#[test]
fn record_header_that_makes_no_sense_is_no_record() {
    let good = record_header();
    assert_eq!(good.record_type(8192, 16384), Some(RecordType::Entry));
    let bad = [
        RecordHeader { kind_byte: 0, ..good },
        RecordHeader { kind_byte: 8, ..good },
        RecordHeader { body_bytes: 8192, ..good },
        RecordHeader { body_bytes: u32::MAX, ..good },
        RecordHeader { watermark: 8256, ..good },
        RecordHeader { watermark: 0, ..good },
        RecordHeader { watermark: 8191, ..good },
        RecordHeader { kind_byte: RecordType::HardState as u8, ..good },
        RecordHeader { kind_byte: RecordType::Removed as u8, ..good },
    ];
    for header in bad {
        assert_eq!(header.record_type(8192, 16384), None, "{header:?}");
    }
    assert_eq!(record_bytes(0), 64);
    assert_eq!(record_bytes(1), 128);
    assert_eq!(record_bytes(64), 128);
}
