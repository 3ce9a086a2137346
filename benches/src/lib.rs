//! Criterion benches, one file per question, peers in the same run.
