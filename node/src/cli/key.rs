//! `weft key`: device keys in files.
//!
//! A key file holds the 32-byte Ed25519 seed (RFC 8032 section 5.1.5, the "private key") as 64 lower-case hex digits
//! and a newline, readable by its owner only. Invariants: an existing file is never overwritten, and a seed is never
//! printed; the file is complete and synced before its public key is shown.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;
use weft_core::builder::DeviceSigner;

use super::{JsonArg, usage};

/// Longest key file that is read, bytes: 64 hex digits and room for white space.
const KEY_FILE_BYTES_MAX: u64 = 256;

/// The commands under `weft key`.
#[derive(clap::Subcommand, Debug)]
pub enum KeyCommand {
    /// Make a new key from the system's randomness and print its public key
    #[command(
        long_about = "Make a new Ed25519 key from the system's randomness, write its seed to FILE (mode 0600) and \
            print the public key: the device's identity as an issuer. Refuses to overwrite a file.\n\n\
            Example:\n  \
            weft key new device.key"
    )]
    New(KeyNewArgs),
    /// Print the public key of a key file
    #[command(
        long_about = "Print the public key of a key file: the device's identity as an issuer. Warns if others can \
            read the file.\n\n\
            Example:\n  \
            weft key show device.key --json"
    )]
    Show(KeyShowArgs),
}

/// Arguments of `weft key new`.
#[derive(clap::Args, Debug)]
pub struct KeyNewArgs {
    /// The file to make
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where the report goes.
    #[command(flatten)]
    pub json: JsonArg,
}

/// Arguments of `weft key show`.
#[derive(clap::Args, Debug)]
pub struct KeyShowArgs {
    /// The key file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where the report goes.
    #[command(flatten)]
    pub json: JsonArg,
}

/// Runs `weft key new` or `weft key show`.
///
/// # Errors
/// If the file exists (new), is not a key file (show), or cannot be read or written.
pub fn run(command: KeyCommand) -> anyhow::Result<ExitCode> {
    let (signer, file, json) = match command {
        KeyCommand::New(args) => (create(&args.file)?, args.file, args.json),
        KeyCommand::Show(args) => (read_signer(&args.file)?, args.file, args.json),
    };
    let public = signer.public();
    json.write(&json!({ "public_key": public.to_string(), "file": file.to_string_lossy() }))?;
    if !json.on_stdout() {
        writeln!(std::io::stdout(), "{public}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a key file from the system's randomness.
///
/// # Errors
/// If the file exists (a usage error) or cannot be written.
pub fn create(file: &Path) -> anyhow::Result<DeviceSigner> {
    let mut seed = [0u8; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))?;
    let mut out = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Ok(out) => out,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(usage(format!("{} exists: a key is never overwritten", file.display())));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot create {}", file.display())),
    };
    let text = format!("{}\n", hex::encode(seed));
    out.write_all(text.as_bytes())
        .and_then(|()| out.sync_all())
        .with_context(|| format!("cannot write {}", file.display()))?;
    // Without this a crash could leave a directory that does not know the file.
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .with_context(|| format!("cannot sync {}", parent.display()))?;
    Ok(DeviceSigner::from_seed(seed))
}

/// Reads a key file; warns on stderr if others than its owner can read it.
///
/// # Errors
/// If the file cannot be read, or is not 64 hex digits (a usage error that never repeats the content).
pub fn read_signer(file: &Path) -> anyhow::Result<DeviceSigner> {
    read_seed(file).map(DeviceSigner::from_seed)
}

/// The seed in a key file, as [`read_signer`].
///
/// # Errors
/// As [`read_signer`].
pub fn read_seed(file: &Path) -> anyhow::Result<[u8; 32]> {
    let open = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let mode =
        open.metadata().with_context(|| format!("cannot read {}", file.display()))?.permissions().mode();
    if mode & 0o077 != 0 {
        eprintln!(
            "warning: {} can be read by others (mode {:o}): chmod 600 it",
            file.display(),
            mode & 0o777
        );
    }
    let mut bytes = Vec::new();
    open.take(KEY_FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let mut seed = [0u8; 32];
    match hex::decode_to_slice(bytes.trim_ascii(), &mut seed) {
        Ok(()) => Ok(seed),
        Err(_) => Err(usage(format!(
            "{} is not a key file: got {} bytes, need 64 hex digits",
            file.display(),
            bytes.len()
        ))),
    }
}
