//! The memory that deltas take: never more than was promised, however large the layers and whatever they hold.
//!
//! Two measures that know nothing of each other are taken. An allocator counts what this crate allocates, byte by byte;
//! it does not see what the C code of zstd does. What the kernel says was resident at most holds that too, and whatever
//! else there is. Contents and scratch space are files, so that what is in memory is there for the sake of the delta.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]
#![allow(clippy::print_stdout, reason = "the figures, for whoever asks for them")]

mod applying;
mod ceiling;
#[path = "../common/mod.rs"]
mod common;
mod creating;
mod forged;
mod layers;

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;
