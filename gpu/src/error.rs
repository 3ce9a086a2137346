//! What can go wrong with a device. Every error here means: the CPU does the work, nothing is lost.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a device cannot be used, or can be used no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuError {
    /// No adapter at all, or none but software ones, which are not used unless allowed.
    NoAdapter {
        /// Software adapters that were passed over.
        software: usize,
    },
    /// No adapter of that name or index.
    NotFound {
        /// What was asked for.
        wanted: String,
        /// The names of what is there.
        found: Vec<String>,
    },
    /// The adapter's limits are below what the kernels need.
    Limit {
        /// The limit's name.
        what: &'static str,
        /// What the adapter has.
        got: u64,
        /// What is needed.
        needed: u64,
    },
    /// The device could not give the memory, even for the smallest batch.
    OutOfMemory {
        /// Rows per batch that were asked for last.
        rows: usize,
    },
    /// The device is gone.
    Lost(String),
    /// The device refused something or took too long.
    Failed(String),
    /// The device gave a wrong verdict: it is used no more.
    Quarantined(String),
    /// The batch is larger than the device's buffers.
    TooLarge {
        /// Rows or bytes that were asked for.
        got: usize,
        /// What fits.
        limit: usize,
    },
}

impl fmt::Display for GpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuError::NoAdapter { software: 0 } => write!(f, "no GPU adapter"),
            GpuError::NoAdapter { software } => write!(
                f,
                "no GPU adapter ({software} software adapter(s) passed over: {} allows them)",
                crate::adapter::ALLOW_CPU_VARIABLE
            ),
            GpuError::NotFound { wanted, found } => {
                write!(f, "no GPU adapter `{wanted}`; there is: {}", found.join(", "))
            }
            GpuError::Limit { what, got, needed } => {
                write!(f, "the adapter's {what} is {got}, {needed} needed")
            }
            GpuError::OutOfMemory { rows } => write!(f, "out of device memory with batches of {rows} rows"),
            GpuError::Lost(why) => write!(f, "the device is lost: {why}"),
            GpuError::Failed(why) => write!(f, "the device failed: {why}"),
            GpuError::Quarantined(why) => write!(f, "the device is quarantined: {why}"),
            GpuError::TooLarge { got, limit } => {
                write!(f, "{got} is more than the device's buffers hold ({limit})")
            }
        }
    }
}

impl std::error::Error for GpuError {}

/// Runs a call into the driver's interface, and makes an error of its panic: wgpu panics where it sees no way on, and a device
/// that ends like that must not take the caller's batch with it.
pub(crate) fn contain<T>(call: impl FnOnce() -> Result<T, GpuError>) -> Result<T, GpuError> {
    // What a panic leaves half done is the device's, which is used no more after any error.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(GpuError::Failed(format!("panic in the driver's interface: {text}")))
    })
}
