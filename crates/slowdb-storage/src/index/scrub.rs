//! Reading whole index files and comparing them with themselves.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chain::Chain;
use super::file::Index;
use crate::bitmap::Bitmap;
use crate::entry::Entry;
use crate::error::Corruption;

/// A check of all pages of all files, and that each table leads to each slot that it is to lead to once, page by page.
pub(crate) struct IndexScrub {
    files: VecDeque<FileScrub>,
    pub(crate) bad: Vec<Corruption>,
}

struct FileScrub {
    index: Arc<Index>,
    /// How many pages are done: those of the table come last.
    done: u64,
    /// Slots that no entry was found for.
    missing: Bitmap,
    fits: bool,
    is_good: bool,
}

impl IndexScrub {
    /// What a step reads.
    pub(crate) const STEP_BYTES: u64 = super::page::PAGE_BYTES as u64;

    pub(crate) fn new(chain: &Chain) -> Self {
        let file = |index: &Arc<Index>| FileScrub {
            index: Arc::clone(index),
            done: 0,
            missing: Bitmap::default(),
            fits: true,
            is_good: true,
        };
        Self { files: chain.files().iter().map(file).collect(), bad: Vec::new() }
    }

    /// Checks all of it, and says what is bad.
    pub(crate) fn all(chain: &Chain) -> Vec<Corruption> {
        let mut scrub = Self::new(chain);
        while scrub.has_more() {
            scrub.step();
        }
        scrub.bad
    }

    pub(crate) fn has_more(&self) -> bool {
        !self.files.is_empty()
    }

    /// Checks a page; there is one left.
    pub(crate) fn step(&mut self) {
        let Some(file) = self.files.front_mut() else { return };
        if let Err(corruption) = file.step() {
            file.is_good = false;
            self.bad.push(corruption);
        }
        if file.is_done() {
            // What is missing because of a damaged page is not missing otherwise.
            let all_found = file.fits && file.missing.count() == 0;
            if file.is_good && !all_found {
                self.bad.push(file.index.unfit());
            }
            self.files.pop_front();
        }
    }
}

impl FileScrub {
    fn step(&mut self) -> Result<(), Corruption> {
        let (others, _) = self.index.pages();
        let page = self.index.page_in_order(self.done);
        if self.done == others && self.is_good {
            self.missing = self.index.led_to()?;
        }
        let in_table = self.done >= others;
        self.done += 1;
        let words = self.index.checked_page(page)?;
        if in_table {
            let slots = words.iter().filter_map(|bits| Entry::from_bits(*bits)).map(Entry::slot);
            slots.for_each(|slot| self.fits &= self.missing.take(slot as usize));
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let (others, table) = self.index.pages();
        self.done == others + table
    }
}
