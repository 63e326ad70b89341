//! The words that SlowDB's nodes and clients share: ids, requests, replies, limits, errors, frames
