//! Opening a log: finding its segments, reading them, and making durable what may not be.
//!
//! Nothing is changed on the disk before everything was read and found to be whole. Then the records that are not
//! known to be synced are written into a new segment, which becomes part of the log only once they are synced
//! there. A crash anywhere in between leaves the log as it was, and the next opening has another number.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use slowdb_disk::Disk;

use super::batch::{Cursor, Item};
use super::decide::Damage;
use super::error::{Corruption, CorruptionKind, WalOpenError};
use super::format::{HEADER_AREA, PAGE, SegmentHeader, record_seed};
use super::group::Effect;
use super::groups::Groups;
use super::log::{LiveSegment, Wal, WalVerified};
use super::options::WalOptions;
use super::reader::Segments;
use super::record::{EntryMeta, Location, Recovered, RecoveredGroup};
use super::scan::{Scan, ScanEnd, ScanError, Scanned};
use super::segment::{FoundFile, Pool, SegmentFile, corrupt, open_io};

/// Records written at a time when a tail is written again.
const RECORDS_PER_WRITE: usize = 512;

/// Opens the log, see [`Wal::open`].
pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &str,
    options: WalOptions,
) -> Result<(Wal, Recovered), WalOpenError> {
    let (mut pool, found) = Pool::open(disk, dir)?;
    let mut layout = Layout::new(found, &options)?;
    let opening = layout.opening_max.checked_add(1);
    let opening = opening.ok_or_else(|| WalOpenError::OpeningsExhausted { dir: dir.to_owned() })?;
    let mut buffer = Vec::new();
    let mut replay = Replay::new(layout.is_from_the_beginning());
    replay.sealed_segments(&layout, &options, &mut buffer)?;

    let tail = Tail::read(&layout, &options, &mut buffer)?;
    let header = tail.next_header(&layout, opening, &options);
    tail.replay(&mut replay, &header)?;
    replay.finish(&layout)?;

    layout.settle_headers()?;
    let (segment, cursor) = tail.write_again(&mut layout, &mut pool, header, &options)?;
    let mut recovered = replay.recovered();
    recovered.created = layout.live.is_empty();
    recovered.opening = opening;
    recovered.end = layout.live.back().map(|last| (last.segment.name.clone(), tail.end.offset));

    let (live, free) = layout.into_segments(segment);
    free.give_back(&mut pool, &options)?;
    let segments = Arc::new(Segments::default());
    for segment in &live {
        let seed = seed_of(&segment.header, options.checks_chain());
        segments.insert(segment.header.sequence, seed, Arc::clone(&segment.file.file));
    }
    let wal = Wal {
        options,
        pool,
        groups: replay.groups,
        live,
        cursor,
        dirty: false,
        poison: None,
        segments,
        scratch: Vec::new(),
    };
    Ok((wal, recovered))
}

/// Reads the log as opening it does, up to where that would begin to write; see [`Wal::verify`].
pub(super) fn verify(disk: Arc<dyn Disk>, dir: &str) -> Result<WalVerified, WalOpenError> {
    if !disk.exists(dir).map_err(|error| open_io("looking for", dir, error))? {
        return Ok(WalVerified::default());
    }
    let options = WalOptions::default();
    let (_, found) = Pool::open(disk, dir)?;
    let layout = Layout::new(found, &options)?;
    let mut buffer = Vec::new();
    let mut replay = Replay::new(layout.is_from_the_beginning());
    replay.sealed_segments(&layout, &options, &mut buffer)?;
    let tail = Tail::read(&layout, &options, &mut buffer)?;
    let header = tail.next_header(&layout, layout.opening_max.saturating_add(1), &options);
    tail.replay(&mut replay, &header)?;
    replay.finish(&layout)?;
    let segments = layout.live.len() as u64;
    let bytes = layout.live.iter().map(|file| file.segment.bytes).sum();
    Ok(WalVerified { segments, bytes })
}

/// What the checksums of a segment's records depend on.
fn seed_of(header: &SegmentHeader, checks_chain: bool) -> u64 {
    if checks_chain { header.seed() } else { record_seed(header.log_id, 0) }
}

/// A cursor at the beginning of a segment.
pub(super) fn cursor_at_start(header: &SegmentHeader, checks_chain: bool) -> Cursor {
    Cursor {
        seed: seed_of(header, checks_chain),
        opening: header.opening,
        segment_bytes: header.segment_bytes as u32,
        end: HEADER_AREA,
        synced: HEADER_AREA,
        chain: header.chain_start(),
        ends_with_mark: false,
    }
}

/// The files of the log: which are part of it, and which are not.
struct Layout {
    /// Oldest first.
    live: VecDeque<FoundFile>,
    /// Used once, and not needed any more.
    free: Vec<SegmentFile>,
    /// Created and never used.
    fresh: Vec<SegmentFile>,
    opening_max: u32,
    log_id: u64,
}

/// Files that are not part of the log.
struct Free {
    used: Vec<SegmentFile>,
    fresh: Vec<SegmentFile>,
}

impl Free {
    /// Keeps some of the used ones as spares and removes the rest. Of a fresh one it is not known how far its
    /// creation got.
    fn give_back(self, pool: &mut Pool, options: &WalOptions) -> Result<(), WalOpenError> {
        let removing = |(path, error): (String, std::io::Error)| open_io("removing", &path, error);
        pool.give_back(self.used, options.segment_bytes, options.spare_segments).map_err(removing)?;
        pool.give_back(self.fresh, options.segment_bytes, 0).map_err(removing)
    }
}

impl Layout {
    fn new(found: Vec<FoundFile>, options: &WalOptions) -> Result<Self, Corruption> {
        let mut layout = Self {
            live: VecDeque::new(),
            free: Vec::new(),
            fresh: Vec::new(),
            opening_max: 0,
            log_id: options.log_id,
        };
        let mut active: BTreeMap<u64, FoundFile> = BTreeMap::new();
        let mut log_id = None;
        for file in found {
            let Some(header) = file.header else {
                layout.fresh.push(file.segment);
                continue;
            };
            let expected = *log_id.get_or_insert(header.log_id);
            if header.log_id != expected {
                let what = CorruptionKind::OtherLog { expected, found: header.log_id };
                return Err(corrupt(&file.segment.name, 0, what));
            }
            layout.opening_max = layout.opening_max.max(header.opening);
            if !header.active {
                layout.free.push(file.segment);
            } else if let Some(other) = active.get(&header.sequence) {
                let other = other.segment.name.clone();
                let what = CorruptionKind::Duplicate { other, sequence: header.sequence };
                return Err(corrupt(&file.segment.name, 0, what));
            } else {
                active.insert(header.sequence, file);
            }
        }
        layout.log_id = log_id.unwrap_or(options.log_id);
        layout.walk_back(&mut active)?;
        layout.free.extend(active.into_values().map(|file| file.segment));
        Ok(layout)
    }

    /// Follows the headers from the newest segment back to the oldest that is needed.
    fn walk_back(&mut self, active: &mut BTreeMap<u64, FoundFile>) -> Result<(), Corruption> {
        let Some((_, last)) = active.pop_last() else { return Ok(()) };
        let Some(mut header) = last.header else { return Ok(()) };
        let first_needed = header.first_needed;
        self.live.push_front(last);
        while header.sequence > first_needed {
            let sequence = header.prev_sequence.max(first_needed);
            let prev = active.remove(&header.prev_sequence).filter(|_| header.prev_sequence >= first_needed);
            let (Some(prev), Some(next)) = (prev, self.live.front()) else {
                let name = self.live.front().map_or("", |file| file.segment.name.as_str());
                return Err(corrupt(name, 0, CorruptionKind::MissingSegment { sequence }));
            };
            if u64::from(header.prev_end) > prev.segment.bytes {
                let expected = u64::from(header.prev_end);
                let what = CorruptionKind::FileLength { expected, actual: prev.segment.bytes };
                return Err(corrupt(&prev.segment.name, prev.segment.bytes, what));
            }
            let Some(prev_header) = prev.header.filter(|found| found.opening <= header.opening) else {
                let what = CorruptionKind::Impossible("segments are newer than their successors".to_owned());
                return Err(corrupt(&next.segment.name, 0, what));
            };
            header = prev_header;
            self.live.push_front(prev);
        }
        Ok(())
    }

    fn is_from_the_beginning(&self) -> bool {
        let first = self.live.front().and_then(|file| file.header);
        first.is_none_or(|header| header.prev_sequence == 0)
    }

    /// Makes the headers that the layout was read from durable, and both their copies whole.
    ///
    /// After a failed sync a header may be readable without being on the disk, and what it says about older
    /// segments must not be acted upon before it is.
    fn settle_headers(&self) -> Result<(), WalOpenError> {
        for (place, file) in self.live.iter().enumerate() {
            let is_last = place + 1 == self.live.len();
            let Some(header) = file.header.filter(|_| is_last || file.copies_differ) else { continue };
            let segment = &file.segment;
            let settled = segment.write_header(&header);
            settled.map_err(|error| open_io("restoring the header of", &segment.name, error))?;
        }
        Ok(())
    }

    /// The segments of the log once the new one is part of it, and the files that are not.
    fn into_segments(self, newest: LiveSegment) -> (VecDeque<LiveSegment>, Free) {
        let mut free = Free { used: self.free, fresh: self.fresh };
        let mut live = VecDeque::new();
        for found in self.live {
            match found.header {
                Some(old) if old.sequence <= newest.header.prev_sequence => {
                    live.push_back(LiveSegment { header: old, file: found.segment });
                }
                // Its records were all written again.
                _ => free.used.push(found.segment),
            }
        }
        live.push_back(newest);
        (live, free)
    }
}

/// The groups as they become while the log is read.
struct Replay {
    groups: Groups,
    entries: BTreeMap<u64, VecDeque<EntryMeta>>,
    from_the_beginning: bool,
}

impl Replay {
    fn new(from_the_beginning: bool) -> Self {
        Self { groups: Groups::default(), entries: BTreeMap::new(), from_the_beginning }
    }

    /// Reads all segments but the newest. They were synced as far as the next one says.
    fn sealed_segments(
        &mut self,
        layout: &Layout,
        options: &WalOptions,
        buffer: &mut Vec<u8>,
    ) -> Result<(), WalOpenError> {
        for (file, next) in layout.live.iter().zip(layout.live.iter().skip(1)) {
            let (Some(header), Some(next)) = (file.header, next.header) else { continue };
            read_segment(&file.segment, u64::from(next.prev_end), buffer)?;
            let scan = scan_of(buffer, header, Some(next.prev_end), options);
            let end = scan
                .run(|record| self.record(&record, header.sequence, record.offset))
                .map_err(|error| scan_failed(error, &file.segment.name))?;
            if end.chain != next.prev_chain && options.checks_chain() {
                let offset = u64::from(end.offset);
                return Err(corrupt(&file.segment.name, offset, CorruptionKind::SegmentChain).into());
            }
        }
        Ok(())
    }

    /// Takes in a record that lies, or will lie, at this place.
    fn record(&mut self, record: &Scanned<'_>, segment: u64, offset: u32) -> Result<(), Refusal> {
        let header = &record.header;
        let effect = self.groups.replay(record, segment, self.from_the_beginning);
        let effect = effect.map_err(|error| Refusal { group: header.group, why: error.to_string() })?;
        if effect == Effect::None {
            return Ok(());
        }
        let entries = self.entries.entry(header.group).or_default();
        match effect {
            Effect::None => {}
            Effect::Append(index) => {
                while entries.back().is_some_and(|entry| entry.index >= index) {
                    entries.pop_back();
                }
                let len = header.body_bytes;
                let location = Location { segment, offset, len };
                entries.push_back(EntryMeta { index, term: header.term, kind: header.kind, len, location });
            }
            Effect::Trim(index) => {
                while entries.front().is_some_and(|entry| entry.index <= index) {
                    entries.pop_front();
                }
            }
            Effect::Reset(_) | Effect::Remove => entries.clear(),
        }
        Ok(())
    }

    /// Everything was read: are the groups whole?
    fn finish(&mut self, layout: &Layout) -> Result<(), Corruption> {
        for (group, state) in &mut self.groups.live {
            state.finish().map_err(|why| {
                let name = layout.live.front().map_or("", |file| file.segment.name.as_str());
                let what = CorruptionKind::Impossible(format!("group {group}: {why}"));
                Corruption { groups: vec![*group], ..corrupt(name, u64::from(HEADER_AREA), what) }
            })?;
        }
        Ok(())
    }

    fn recovered(&mut self) -> Recovered {
        let overtaken = self.groups.overtaken.iter().map(|(key, (_, data))| (*key, data.clone()));
        let mut recovered = Recovered {
            removed: self.groups.removed.keys().copied().collect(),
            overtaken: overtaken.collect(),
            ..Recovered::default()
        };
        for (group, state) in &self.groups.live {
            let found = RecoveredGroup {
                hard_state: state.hard,
                config: state.config.clone(),
                compacted: state.base,
                entries: self.entries.remove(group).unwrap_or_default().into(),
            };
            recovered.groups.insert(*group, found);
        }
        recovered
    }
}

/// Why a record was refused although it can be read.
struct Refusal {
    group: u64,
    why: String,
}

/// The newest segment: where the log ends, and what of it must be written again.
struct Tail<'a> {
    end: ScanEnd,
    records: Vec<Scanned<'a>>,
    /// Whether all records of the segment are written again, so that it is not needed any more.
    whole: bool,
    /// Records from here on are written again.
    start: u32,
    /// The checksum of the record before.
    start_chain: u64,
    /// The file that it is in.
    name: String,
    /// The segment, if there is one.
    header: Option<SegmentHeader>,
}

impl<'a> Tail<'a> {
    fn read(layout: &Layout, options: &WalOptions, buffer: &'a mut Vec<u8>) -> Result<Self, WalOpenError> {
        let mut tail = Self {
            end: ScanEnd { offset: HEADER_AREA, chain: 0, watermark: HEADER_AREA },
            records: Vec::new(),
            whole: true,
            start: HEADER_AREA,
            start_chain: 0,
            name: String::new(),
            header: None,
        };
        let Some((file, header)) = layout.live.back().and_then(|file| Some((file, file.header?))) else {
            return Ok(tail);
        };
        read_segment(&file.segment, header.segment_bytes, buffer)?;
        let scan = scan_of(buffer, header, None, options);
        let records = &mut tail.records;
        let end = scan.run(|record| {
            records.push(record);
            Ok::<(), Refusal>(())
        });
        tail.end = end.map_err(|error| scan_failed(error, &file.segment.name))?;
        tail.header = Some(header);
        tail.name.clone_from(&file.segment.name);
        // A segment with little in it is written again as a whole, so that openings do not pile up segments.
        tail.whole = u64::from(tail.end.offset - HEADER_AREA) <= header.segment_bytes / 4;
        tail.start = if tail.whole { HEADER_AREA } else { tail.end.watermark };
        let before = tail.records.partition_point(|record| record.offset < tail.start);
        tail.start_chain =
            before.checked_sub(1).map_or(header.chain_start(), |last| tail.records[last].check);
        Ok(tail)
    }

    /// The header of the segment that the tail is written to, as it is before it becomes part of the log.
    fn next_header(&self, layout: &Layout, opening: u32, options: &WalOptions) -> SegmentHeader {
        let tail_bytes = u64::from(self.end.offset - self.start);
        let needed = (u64::from(HEADER_AREA) + tail_bytes).next_multiple_of(u64::from(PAGE));
        let first = SegmentHeader {
            log_id: layout.log_id,
            opening,
            sequence: 1,
            active: false,
            first_needed: 1,
            segment_bytes: options.segment_bytes.max(needed),
            prev_sequence: 0,
            prev_end: 0,
            synced_end: HEADER_AREA,
            prev_chain: 0,
        };
        let Some(last) = self.header else { return first };
        let next = SegmentHeader { sequence: last.sequence + 1, first_needed: last.first_needed, ..first };
        if !self.whole {
            let (prev_end, prev_chain) = (self.start, self.start_chain);
            return SegmentHeader { prev_sequence: last.sequence, prev_end, prev_chain, ..next };
        }
        let only = last.first_needed == last.sequence;
        SegmentHeader {
            first_needed: if only { next.sequence } else { last.first_needed },
            prev_sequence: last.prev_sequence,
            prev_end: last.prev_end,
            prev_chain: last.prev_chain,
            ..next
        }
    }

    /// Takes in the records at the places where they will be.
    fn replay(&self, replay: &mut Replay, next: &SegmentHeader) -> Result<(), Corruption> {
        let Some(header) = self.header else { return Ok(()) };
        for record in &self.records {
            let (segment, offset) = match record.offset.checked_sub(self.start) {
                Some(distance) => (next.sequence, HEADER_AREA + distance),
                None => (header.sequence, record.offset),
            };
            replay
                .record(record, segment, offset)
                .map_err(|refusal| refused(refusal, &self.name, record.offset))?;
        }
        Ok(())
    }

    /// Writes the tail into a segment of its own, syncs it, and makes that segment part of the log.
    fn write_again(
        &self,
        layout: &mut Layout,
        pool: &mut Pool,
        header: SegmentHeader,
        options: &WalOptions,
    ) -> Result<(LiveSegment, Cursor), WalOpenError> {
        let bytes = header.segment_bytes;
        pool.spares = std::mem::take(&mut layout.free);
        let taken = pool.take(bytes);
        layout.free = std::mem::take(&mut pool.spares);
        let file = taken.map_err(|(path, error)| match slowdb_disk::is_full(&error) {
            true => WalOpenError::NoSpace { dir: pool.dir.clone(), bytes },
            false => open_io("creating log segment", &path, error),
        })?;
        let writing = |error| open_io("writing", &file.name, error);
        // First the opening number is taken, durably: should this opening be interrupted, the next one has another
        // number, and does not take what this one left for its own.
        file.write_header(&header).map_err(writing)?;
        let mut cursor = cursor_at_start(&header, options.checks_chain());
        let first = self.records.partition_point(|record| record.offset < self.start);
        let mut scratch = Vec::new();
        for records in self.records[first..].chunks(RECORDS_PER_WRITE) {
            let items: Vec<Item<'_>> = records.iter().map(Item::again).collect();
            cursor.write(file.file.as_ref(), &items, &mut scratch).map_err(writing)?;
        }
        file.file.sync().map_err(writing)?;
        cursor.synced = cursor.end;
        let header = SegmentHeader { active: true, synced_end: cursor.end, ..header };
        file.write_header(&header).map_err(writing)?;
        Ok((LiveSegment { header, file }, cursor))
    }
}

fn read_segment(segment: &SegmentFile, bytes: u64, buffer: &mut Vec<u8>) -> Result<(), WalOpenError> {
    let bytes = bytes as usize;
    if bytes > buffer.capacity() {
        // Fresh memory is zero as it is. Touching all of it once more would take most of the time.
        *buffer = vec![0; bytes];
    } else {
        buffer.resize(bytes, 0);
    }
    segment.file.read_at(buffer, 0).map_err(|error| open_io("reading", &segment.name, error))
}

fn scan_of<'a>(
    bytes: &'a [u8],
    header: SegmentHeader,
    sealed_end: Option<u32>,
    options: &WalOptions,
) -> Scan<'a> {
    let checks_chain = options.checks_chain();
    Scan { bytes, header, seed: seed_of(&header, checks_chain), checks_chain, sealed_end }
}

fn scan_failed(error: ScanError<Refusal>, name: &str) -> Corruption {
    match error {
        ScanError::Damaged { offset, damage, groups } => {
            Corruption { groups, ..corrupt(name, u64::from(offset), Damage::kind(damage)) }
        }
        ScanError::Refused { offset, error } => refused(error, name, offset),
    }
}

fn refused(refusal: Refusal, name: &str, offset: u32) -> Corruption {
    let what = CorruptionKind::Impossible(refusal.why);
    Corruption { groups: vec![refusal.group], ..corrupt(name, u64::from(offset), what) }
}
