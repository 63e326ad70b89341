//! Hostile bytes for decoders, drawn from a seed.
//!
//! A [`Target`] is a decoder with valid encodings. Each case takes one of those, changes it ([`Mutator`]) and feeds it to
//! the decoder, which has to refuse it or to make sense of it: a panic fails, and so does memory beyond a bound. What the
//! decoder must get right beyond that (what it accepted is the same when encoded and decoded again) it asserts itself.
//!
//! A target is a test, beside its decoder, whose name begins with `fuzz_`. It runs a fixed number of cases, the same each
//! time. `cargo xtask fuzz` runs them for as long as it is told to, from a seed of its own, by these variables:
//!
//! | variable | is |
//! |---|---|
//! | `SLOWDB_FUZZ_SECONDS` | how long each target runs, instead of its number of cases |
//! | `SLOWDB_FUZZ_SEED` | where it begins; 0 without it |
//! | `SLOWDB_FUZZ_CASE` | the one case to run: what a failure tells |
//!
//! There is no feedback from coverage. What makes up for it: corpora with every kind of message, and
//! [`Target::reseal`], which makes checksums right again, so that what lies behind them is reached.

mod memory;
mod mutate;
mod rng;
mod target;

pub use mutate::Mutator;
pub use rng::Rng;
pub use target::Target;
