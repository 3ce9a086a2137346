//! `weft verify-signatures`: bytes in, verdicts out, for scripts and for other implementations to compare with.
//!
//! Input: JSON lines `{"pk": hex, "msg": hex, "sig": hex}`; further fields are ignored, so test vectors may carry
//! their comments. Output: `true` or `false`, one line for one line, in order. The rule is ZIP-215, whatever the
//! backend.
//!
//! A key that is not 32 bytes or a signature that is not 64 is `false`: a question about bytes, answered. A line
//! that is not such an object is an error that names the line, after the verdicts of all lines before it. Memory is
//! bounded: lines are read in batches of at most `BATCH_LINES_MAX` and `BATCH_BYTES_MAX`, and a line is at most
//! `LINE_BYTES_MAX` long.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use weft_crypto::backend::{self, Options};
use weft_crypto::{BatchVerifier, Columns, Messages};
use weft_gpu::adapter::Selection;

use super::{EXIT_FOUND, usage};
use crate::verifier;

/// Lines verified together: enough for a batch verifier to reach its best rate.
const BATCH_LINES_MAX: usize = 4096;
/// Message bytes gathered before a batch is verified even if it has few lines.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Input read at a time: several batches of ordinary lines.
const READ_BYTES: usize = 4 << 20;
/// Decoded keys kept between batches: a file of signatures often has few signers.
const CACHED_KEYS: usize = 1 << 14;
/// Longest line, bytes: a message of 8 MiB in hex. Longer input is a mistaken file.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// What `--help` says.
pub const LONG_ABOUT: &str = "Verify Ed25519 signatures given as JSON lines {\"pk\": hex, \"msg\": hex, \"sig\": hex} and print \
        true or false, one line for each, in order. Messages may have any length. The rule is ZIP-215: cofactored, \
        s below the group order, every encoding of a point accepted.\n\n\
        A pk that is not 32 bytes or a sig that is not 64 is false. A line that is not JSON of this form ends the \
        command with exit code 2 and its number, after the verdicts of the lines before it.\n\n\
        With --backend gpu every line goes the whole way through the device; if it fails or is caught with a wrong verdict, the CPU \
        decides and the exit code is 1.\n\n\
        Examples:\n  \
        weft verify-signatures --backend serial vectors.jsonl\n  \
        weft verify-signatures --backend gpu vectors.jsonl\n  \
        cat vectors.jsonl | weft verify-signatures -";

/// Arguments of `weft verify-signatures`.
#[derive(clap::Args, Debug)]
pub struct VerifySignaturesArgs {
    /// The verifier: auto (the fastest for this CPU), gpu, or one by name; a wrong name lists those there are
    #[arg(long, value_name = "NAME", env = "WEFT_VERIFIER", default_value = "auto")]
    pub backend: String,
    /// With --backend gpu: the adapter, as in `weft gpu list`
    #[arg(long, value_name = "ADAPTER", env = "WEFT_GPU", default_value = "auto")]
    pub gpu: Selection,
    /// JSON lines; - for stdin
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Runs `weft verify-signatures`.
///
/// # Errors
/// A usage error for an unknown backend or a line that cannot be read, naming it; an I/O error otherwise.
pub fn run(args: VerifySignaturesArgs) -> anyhow::Result<ExitCode> {
    let gpu = match args.backend.as_str() {
        verifier::GPU => Some(Arc::new(verifier::open_gpu(&args.gpu, CACHED_KEYS)?)),
        _ => None,
    };
    let verifier: Arc<dyn BatchVerifier> = match &gpu {
        Some(gpu) => gpu.clone(),
        None => open(&args.backend)?,
    };
    let stdout = std::io::stdout().lock();
    if args.file == Path::new("-") {
        verify_lines(&*verifier, std::io::stdin().lock(), stdout, "stdin")?;
    } else {
        let name = args.file.display().to_string();
        let file = File::open(&args.file).with_context(|| format!("cannot open {name}"))?;
        verify_lines(&*verifier, file, stdout, &name)?;
    }
    if let Some(error) = gpu.and_then(|gpu| gpu.ended()) {
        // The verdicts are right: the guard had the CPU verify again what the device cannot be believed.
        eprintln!("error: the GPU failed and the CPU verified in its place: {error}");
        return Ok(ExitCode::from(EXIT_FOUND));
    }
    Ok(ExitCode::SUCCESS)
}

/// The verifier called `name`; the error for a name that there is not lists those that this machine has.
///
/// # Errors
/// A usage error.
pub fn open(name: &str) -> anyhow::Result<Arc<dyn BatchVerifier>> {
    let options = Options { cached_keys: CACHED_KEYS };
    backend::by_name(name, &options).map(|chosen| chosen.verifier).map_err(|error| {
        let here: Vec<&str> =
            backend::available(&Options::default()).iter().map(|(backend, _)| backend.name()).collect();
        usage(format!("{error}, gpu; available here: auto, {}", here.join(", ")))
    })
}

/// One line of input. Unknown fields are ignored.
#[derive(serde::Deserialize)]
struct Line {
    pk: String,
    msg: String,
    sig: String,
}

/// A batch being gathered: columns for the verifier, and for each line the row it became, if it became one.
#[derive(Default)]
struct Batch {
    keys: Vec<[u8; 32]>,
    signatures: Vec<[u8; 64]>,
    messages: Vec<Vec<u8>>,
    rows: Vec<Option<usize>>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_LINES_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// Adds a line; the error says what is wrong with its form.
    fn push(&mut self, line: &[u8]) -> Result<(), String> {
        let line: Line = serde_json::from_slice(line).map_err(|error| {
            // serde_json counts lines within the text it was given, which is always one.
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            format!("column {}: {text}", error.column())
        })?;
        let decode =
            |name: &str, text: &str| hex::decode(text).map_err(|error| format!("\"{name}\": {error}"));
        let (key, message, signature) =
            (decode("pk", &line.pk)?, decode("msg", &line.msg)?, decode("sig", &line.sig)?);
        match (<[u8; 32]>::try_from(key.as_slice()), <[u8; 64]>::try_from(signature.as_slice())) {
            (Ok(key), Ok(signature)) => {
                self.rows.push(Some(self.keys.len()));
                self.keys.push(key);
                self.signatures.push(signature);
                self.bytes += message.len();
                self.messages.push(message);
            }
            _ => self.rows.push(None),
        }
        Ok(())
    }

    /// Verifies what was gathered, writes the verdicts in the order of the lines, and starts anew.
    fn flush(&mut self, verifier: &dyn BatchVerifier, out: &mut impl Write) -> std::io::Result<()> {
        let slices: Vec<&[u8]> = self.messages.iter().map(Vec::as_slice).collect();
        let mut verdicts = vec![false; self.keys.len()];
        let columns =
            Columns { keys: &self.keys, messages: Messages::Slices(&slices), signatures: &self.signatures };
        verifier.verify(&columns, &mut verdicts);
        let mut text = String::with_capacity(self.rows.len() * 6);
        for row in &self.rows {
            let valid = row.and_then(|row| verdicts.get(row).copied()).unwrap_or(false);
            text.push_str(if valid { "true\n" } else { "false\n" });
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        *self = Self::default();
        Ok(())
    }
}

/// Reads JSON lines and writes verdicts. What was read is verified before waiting for more, so that a program may
/// write a line, read the verdict, and write the next.
///
/// # Errors
/// As `run`.
pub fn verify_lines(
    verifier: &dyn BatchVerifier,
    input: impl Read,
    mut out: impl Write,
    name: &str,
) -> anyhow::Result<()> {
    let mut input = BufReader::with_capacity(READ_BYTES, input);
    let mut batch = Batch::default();
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        if !batch.rows.is_empty() && !input.buffer().contains(&b'\n') {
            batch.flush(verifier, &mut out)?;
        }
        let read = input
            .by_ref()
            .take(LINE_BYTES_MAX + 1)
            .read_until(b'\n', &mut line)
            .with_context(|| format!("cannot read {name}"))?;
        if read == 0 {
            break;
        }
        let problem = if read as u64 > LINE_BYTES_MAX {
            Some(format!("got more than {LINE_BYTES_MAX} bytes, the limit of a line"))
        } else if line.trim_ascii().is_empty() {
            Some("the line is empty, need {\"pk\": hex, \"msg\": hex, \"sig\": hex}".to_owned())
        } else {
            batch.push(&line).err()
        };
        if let Some(problem) = problem {
            batch.flush(verifier, &mut out)?;
            return Err(usage(format!("{name}, line {number}: {problem}")));
        }
        if batch.is_full() {
            batch.flush(verifier, &mut out)?;
        }
    }
    batch.flush(verifier, &mut out)?;
    Ok(())
}
