//! The rules over a model of a server, its clients and everything that can be lost of it; and the
//! two formats that they stand on.
//!
//! This is a program of its own, because `make mutants` builds and runs it for each small break.

mod support;

/// It is shared with the fuzzers, which forge more.
#[allow(dead_code)]
#[path = "../../fuzz/src/forge.rs"]
mod forge;

mod adversary;
mod histories;
mod index_corrupt;
mod index_delta;
mod index_golden;
mod linear;
mod listing_doc;
mod resolve;
mod small_world;
