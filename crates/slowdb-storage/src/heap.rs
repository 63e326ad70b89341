//! Which parts of the heap are in use: bytes by extents, and where the next record goes.
//!
//! Records are put one behind the other into the current extent. Another one becomes current when there is no room
//! left: the lowest that nobody needs, else one beyond all others. So the heap needs no lists of free places; an
//! extent is used again as a whole, once everything in it is gone or was moved ([`crate::compact`]).

use crate::layout::{Geometry, SlotMeta};
use crate::manifest::HeapUse;

/// Where in the heap a record is or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeapPlace {
    pub(crate) extent: u32,
    pub(crate) at: u32,
    pub(crate) len: u32,
}

impl HeapPlace {
    /// Of the record that this is the metadata of.
    pub(crate) fn of(meta: &SlotMeta, geometry: &Geometry) -> Self {
        Self {
            extent: (meta.heap_offset >> geometry.heap_log2) as u32,
            at: (meta.heap_offset & (geometry.heap_extent() as u64 - 1)) as u32,
            len: u32::from(meta.id_len) + meta.payload_len,
        }
    }

    /// In the file.
    pub(crate) fn offset(self, geometry: &Geometry) -> u64 {
        (u64::from(self.extent) << geometry.heap_log2) + u64::from(self.at)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtentState {
    /// Records can go there, and may be there.
    Open,
    /// It is being emptied: nothing new goes there.
    Closing,
    /// Nobody needs what is in it, and its space may not be the file's: it has to be allocated before it is
    /// used.
    Returned,
}

/// An extent of the heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeapExtent {
    pub(crate) state: ExtentState,
    /// It holds a record that cannot be moved.
    pub(crate) stuck: bool,
    pub(crate) filled: u32,
    /// Bytes of records that live.
    live: u32,
    /// Bytes of records that live, or that a checkpoint, a read or a snapshot may need.
    pub(crate) held: u32,
}

impl HeapExtent {
    const NEW: Self = Self { state: ExtentState::Open, stuck: false, filled: 0, live: 0, held: 0 };

    pub(crate) fn has_live(&self) -> bool {
        self.live > 0
    }

    /// Bytes that would be gained, were all that is needed of it elsewhere.
    pub(crate) fn dead(&self) -> u32 {
        self.filled - self.held
    }
}

pub(crate) struct Heap {
    pub(crate) extents: Vec<HeapExtent>,
    /// The one that records go to, unless there is none yet.
    pub(crate) current: Option<u32>,
    extent_bytes: u32,
}

impl Heap {
    pub(crate) fn at_open(uses: &[HeapUse], current: Option<u32>, geometry: &Geometry) -> Self {
        let extent = |(n, used): (usize, &HeapUse)| {
            let needed = used.live > 0 || current == Some(n as u32);
            let state = if needed { ExtentState::Open } else { ExtentState::Returned };
            let filled = if needed { used.filled } else { 0 };
            HeapExtent { state, stuck: false, filled, live: used.live, held: used.live }
        };
        Self {
            extents: uses.iter().enumerate().map(extent).collect(),
            current,
            extent_bytes: geometry.heap_extent() as u32,
        }
    }

    /// For the manifest of a checkpoint of everything up to now.
    pub(crate) fn uses(&self) -> Vec<HeapUse> {
        self.extents.iter().map(|extent| HeapUse { filled: extent.filled, live: extent.live }).collect()
    }

    /// Where a record of `len` bytes is to go, which is not more than an extent has. Takes nothing yet.
    pub(crate) fn place(&self, len: u32) -> HeapPlace {
        if let Some(extent) = self.current {
            let at = self.extents[extent as usize].filled;
            if len <= self.extent_bytes - at {
                return HeapPlace { extent, at, len };
            }
        }
        // Space that the file has comes before space that it would have to ask for.
        let unused = |state| self.extents.iter().position(|extent| extent.state == state && extent.held == 0);
        let extent = unused(ExtentState::Open).or_else(|| unused(ExtentState::Returned));
        HeapPlace { extent: extent.unwrap_or(self.extents.len()) as u32, at: 0, len }
    }

    /// Whether a place is in an extent that has to be allocated first.
    pub(crate) fn is_returned(&self, place: HeapPlace) -> bool {
        self.extents.get(place.extent as usize).is_some_and(|e| e.state == ExtentState::Returned)
    }

    /// The file has grown to so many extents.
    pub(crate) fn grow(&mut self, extents: usize) {
        self.extents.resize(extents.max(self.extents.len()), HeapExtent::NEW);
    }

    /// The space of an extent that nobody needs was given back.
    pub(crate) fn returned(&mut self, extent: usize) {
        self.extents[extent] = HeapExtent { state: ExtentState::Returned, ..HeapExtent::NEW };
    }

    /// The extent was allocated.
    pub(crate) fn reopen(&mut self, extent: usize) {
        self.extents[extent] = HeapExtent::NEW;
    }

    /// Takes a place that [`Heap::place`] gave, for a record that lives.
    pub(crate) fn take(&mut self, place: HeapPlace) {
        let extent = &mut self.extents[place.extent as usize];
        assert!(extent.state == ExtentState::Open, "records go to extents that are open");
        if place.at == 0 {
            assert!(extent.held == 0, "an extent is used again once nobody needs what was in it");
            *extent = HeapExtent::NEW;
        }
        extent.filled = place.at + place.len;
        extent.live += place.len;
        extent.held += place.len;
        self.current = Some(place.extent);
    }

    /// The record there does not live any more, but may be needed.
    pub(crate) fn end_life(&mut self, place: HeapPlace) {
        self.extents[place.extent as usize].live -= place.len;
    }

    /// Nobody needs the record there any more.
    pub(crate) fn release(&mut self, place: HeapPlace) {
        self.extents[place.extent as usize].held -= place.len;
    }
}
