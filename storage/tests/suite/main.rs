//! The log as its users see it, on the simulated disk and on the real one.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;
mod concurrent;
mod crash;
mod faults;
mod log;
mod slots;
mod subtrees;
