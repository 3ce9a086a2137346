//! The running node: ingest pipeline, configuration, and the weft binary.
//!
//! [`node`] puts a node together; [`pipeline`] is what a message goes through, [`lane`] what the sequencer knows, [`confirm`] what makes it final, [`replicate`] how other nodes' lanes come here, [`lanes`] the logs of all nodes, [`hasher`] hashes side by side, [`service`] what
//! clients are answered, [`receipts`] what proves to others what is here, [`history`] who paid whom, [`verifier`] the choice of CPU backend and GPUs. [`config`], [`telemetry`], [`http`], [`health`] and [`stats`] are the operator's side, [`cli`] the commands of
//! the `weft` binary.

#![forbid(unsafe_code)]

pub mod cli;
pub mod cluster;
pub mod config;
pub mod confirm;
pub mod hasher;
pub mod health;
pub mod history;
pub mod http;
pub mod lane;
pub mod lanes;
pub mod node;
pub mod pipeline;
pub mod random;
pub mod receipts;
pub mod replicate;
pub mod service;
pub mod stats;
pub mod subscriptions;
pub mod telemetry;
pub mod units;
pub mod verifier;

#[cfg(test)]
mod testing;
