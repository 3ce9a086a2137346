//! The data directory of a node: who may use it, and to which ledger it belongs.
//!
//! Owns the lock, the format version, the genesis and the node's secret. Invariants: while a [`DataDir`] lives, no other process and no
//! other [`DataDir`] has the directory; a directory without `FORMAT` was never used; the secret is readable by its owner alone and is
//! wiped from memory when it is let go. What lies under `lanes/` is [`log`](crate::log)'s business; certificates are the node's.
//!
//! | name | holds |
//! |---|---|
//! | `LOCK` | locked (`flock`) while in use; text: the process id of the holder |
//! | `FORMAT` | text: `weft data 1` and a newline; written last by `init` |
//! | `genesis.bin` | the genesis, as `weft-core` encodes it |
//! | `node.key` | the node's Ed25519 seed: 64 hexadecimal digits and a newline; mode 0600 |
//! | `lanes/<lane, decimal>/` | the log of each lane |

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use weft_core::{Genesis, GenesisError, GenesisId, LaneId, NetworkId};
use zeroize::{Zeroize, Zeroizing};

use crate::disk::Disk;
use crate::real::RealDisk;

const LOCK: &str = "LOCK";
const FORMAT: &str = "FORMAT";
const GENESIS: &str = "genesis.bin";
const NODE_KEY: &str = "node.key";
const LANES: &str = "lanes";
const FORMAT_PREFIX: &str = "weft data ";
/// The version of the layout that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of `FORMAT` and `LOCK` that are read at most.
const TEXT_BYTES_MAX: u64 = 64;
/// Bytes of the key file that are read at most: 64 digits, and room for the end of line of any editor.
const KEY_FILE_BYTES_MAX: u64 = 80;

/// Why a data directory is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another process, or another part of this one, has the directory.
    #[error("{} is in use by {}; stop that node or choose another directory", path.display(), Holder(*pid))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Process id of the holder, if it could be read.
        pid: Option<u32>,
    },
    /// The directory belongs to another ledger.
    #[error("{} belongs to the network of genesis {got}, not {expected}", path.display())]
    AnotherNetwork {
        /// The directory.
        path: PathBuf,
        /// Its genesis.
        got: GenesisId,
        /// The genesis wanted.
        expected: GenesisId,
    },
    /// There is no data directory.
    #[error("{} is no data directory; create one with `weft init --data {}`", path.display(), path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// `init` on a directory that holds something.
    #[error("{} already holds {name}; choose an empty directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// A name in it.
        name: String,
    },
    /// `init` was interrupted here.
    #[error("{} holds {name} but no {FORMAT}: its creation was interrupted; remove it and create it again", path.display())]
    Unfinished {
        /// The directory.
        path: PathBuf,
        /// A name in it.
        name: String,
    },
    /// Written by another version of the program.
    #[error("{} has format {got:?}, this program knows \"{FORMAT_PREFIX}{FORMAT_VERSION}\"", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its text.
        got: String,
    },
    /// The genesis in it can not be read.
    #[error("{}: {source}", path.display())]
    Genesis {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: GenesisError,
    },
    /// The key file is not 64 hexadecimal digits.
    #[error("{} is not a node key: 64 hexadecimal digits are needed", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// Others can read the key file.
    #[error("{} has mode {got:04o}: others can read this node's secret; run `chmod 600 {}`", path.display(), path.display())]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        got: u32,
    },
    /// The operating system's answer.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
}

struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

fn at<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io { operation, path: path.to_path_buf(), source }
}

/// A data directory in use by this process.
pub struct DataDir {
    path: PathBuf,
    genesis: Genesis,
    genesis_id: GenesisId,
    seed: Zeroizing<[u8; 32]>,
    /// Keeps the lock.
    _lock: File,
}

impl DataDir {
    /// Creates a data directory for a node with this Ed25519 seed in the ledger of `genesis`, durably, and takes it into use. `path` must
    /// not exist or be empty.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn init(path: &Path, genesis: &Genesis, seed: &[u8; 32]) -> Result<Self, DataDirError> {
        let genesis_path = path.join(GENESIS);
        let bytes =
            genesis.encode().map_err(|source| DataDirError::Genesis { path: genesis_path, source })?;
        RealDisk.create_dir_all(path).map_err(at("create", path))?;
        let lock = take_lock(path)?;
        let names = RealDisk.list(path).map_err(at("list", path))?;
        if let Some(name) = names.into_iter().find(|name| name != LOCK) {
            return Err(DataDirError::NotEmpty { path: path.to_path_buf(), name });
        }
        write_file(&path.join(GENESIS), &bytes, 0o644)?;
        let mut digits = Zeroizing::new(hex_digits(seed));
        digits.push(b'\n');
        write_file(&path.join(NODE_KEY), &digits, 0o600)?;
        RealDisk.create_dir_all(&path.join(LANES)).map_err(at("create", path))?;
        RealDisk.sync_dir(path).map_err(at("sync", path))?;
        write_file(&path.join(FORMAT), format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n").as_bytes(), 0o644)?;
        RealDisk.sync_dir(path).map_err(at("sync", path))?;
        Self::read(path, lock)
    }

    /// Takes an existing data directory into use.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        if !path.is_dir() {
            return Err(DataDirError::Missing { path: path.to_path_buf() });
        }
        if !path.join(FORMAT).exists() {
            let names = RealDisk.list(path).map_err(at("list", path))?;
            let path = path.to_path_buf();
            return Err(match names.into_iter().find(|name| name != LOCK) {
                Some(name) => DataDirError::Unfinished { path, name },
                None => DataDirError::Missing { path },
            });
        }
        let lock = take_lock(path)?;
        Self::read(path, lock)
    }

    /// Takes an existing data directory into use if it belongs to the ledger of genesis `expected`.
    ///
    /// # Errors
    /// [`DataDirError::AnotherNetwork`] if it does not; else as [`DataDir::open`].
    pub fn open_for(path: &Path, expected: GenesisId) -> Result<Self, DataDirError> {
        let dir = Self::open(path)?;
        if dir.genesis_id != expected {
            let path = path.to_path_buf();
            return Err(DataDirError::AnotherNetwork { path, got: dir.genesis_id, expected });
        }
        Ok(dir)
    }

    fn read(path: &Path, lock: File) -> Result<Self, DataDirError> {
        let format_path = path.join(FORMAT);
        let format = read_file(&format_path, TEXT_BYTES_MAX)?;
        if *format != *format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n").as_bytes() {
            let got = String::from_utf8_lossy(&format).trim_end().to_owned();
            return Err(DataDirError::Format { path: format_path, got });
        }
        let genesis_path = path.join(GENESIS);
        let bytes = read_file(&genesis_path, weft_core::genesis::GENESIS_BYTES_MAX as u64 + 1)?;
        let refused = |source| DataDirError::Genesis { path: genesis_path.clone(), source };
        let genesis = Genesis::decode(&bytes).map_err(refused)?;
        let genesis_id = genesis.id().map_err(refused)?;
        let key_path = path.join(NODE_KEY);
        let mode = fs::metadata(&key_path).map_err(at("look at", &key_path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(DataDirError::KeyMode { path: key_path, got: mode });
        }
        let digits = read_file(&key_path, KEY_FILE_BYTES_MAX)?;
        let seed = parse_seed(&digits).ok_or(DataDirError::Key { path: key_path })?;
        Ok(Self { path: path.to_path_buf(), genesis, genesis_id, seed, _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ledger's genesis.
    #[must_use]
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Its id.
    #[must_use]
    pub const fn genesis_id(&self) -> GenesisId {
        self.genesis_id
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.genesis_id.network()
    }

    /// The node's Ed25519 seed (RFC 8032): a secret.
    #[must_use]
    pub fn node_seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The directory for the log of `lane`.
    #[must_use]
    pub fn lane_dir(&self, lane: LaneId) -> PathBuf {
        self.path.join(LANES).join(lane.to_string())
    }

    /// Lanes that have a directory, rising.
    ///
    /// # Errors
    /// The operating system's.
    pub fn lanes(&self) -> Result<Vec<LaneId>, DataDirError> {
        let lanes = self.path.join(LANES);
        let names = RealDisk.list(&lanes).map_err(at("list", &lanes))?;
        let mut lanes: Vec<LaneId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        lanes.sort_unstable();
        Ok(lanes)
    }
}

impl fmt::Debug for DataDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataDir")
            .field("path", &self.path)
            .field("genesis_id", &self.genesis_id)
            .finish_non_exhaustive()
    }
}

/// Takes the lock and writes this process's id into its file.
fn take_lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    // Not truncated on opening: until the lock is ours the text is the holder's.
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(&path)
        .map_err(at("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // The text only helps the reader of the message.
            let _ = file.take(TEXT_BYTES_MAX).read_to_string(&mut text);
            return Err(DataDirError::Locked { path: dir.to_path_buf(), pid: text.trim().parse().ok() });
        }
        Err(errno) => return Err(at("lock", &path)(errno.into())),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(at("write", &path))?;
    Ok(file)
}

/// Writes a new file whole and durably: under another name first, then renamed.
fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DataDirError> {
    let temporary = path.with_extension("tmp");
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let written = options.open(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(at("write", &temporary))?;
    fs::rename(&temporary, path).map_err(at("rename", &temporary))
}

/// All bytes of a file of at most `bytes_max` bytes; of a longer one that many.
fn read_file(path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, DataDirError> {
    // Its capacity from the start, so that no part of a secret is left behind when it grows.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max as usize + 1));
    let file = File::open(path).map_err(at("open", path))?;
    file.take(bytes_max).read_to_end(&mut bytes).map_err(at("read", path))?;
    Ok(bytes)
}

fn hex_digits(seed: &[u8; 32]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // One byte more for the caller's newline.
    let mut digits = Vec::with_capacity(65);
    for byte in seed {
        digits.push(DIGITS[usize::from(byte >> 4)]);
        digits.push(DIGITS[usize::from(byte & 15)]);
    }
    digits
}

fn parse_seed(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let text = text.trim_ascii_end();
    if text.len() != 64 {
        return None;
    }
    let mut seed = Zeroizing::new([0; 32]);
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for (byte, pair) in seed.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        let Some(value) = digit(*high).zip(digit(*low)).map(|(high, low)| (high << 4 | low) as u8) else {
            byte.zeroize();
            return None;
        };
        *byte = value;
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    use weft_core::DeviceKey;

    use super::*;

    fn genesis(name: &str) -> Genesis {
        Genesis::single(name, 1_700_000_000_000_000, DeviceKey([9; 32]))
    }

    #[test]
    fn what_init_wrote_is_what_open_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/data");
        let seed: [u8; 32] = std::array::from_fn(|i| (i * 7 + 3) as u8);
        let made = DataDir::init(&path, &genesis("a"), &seed).unwrap();
        assert_eq!(made.node_seed(), &seed);
        assert_eq!(made.lanes().unwrap(), []);
        fs::create_dir(made.lane_dir(LaneId(10))).unwrap();
        fs::create_dir(made.lane_dir(LaneId(9))).unwrap();
        fs::create_dir(path.join("lanes/x")).unwrap();
        drop(made);
        let opened = DataDir::open(&path).unwrap();
        assert_eq!(opened.node_seed(), &seed);
        assert_eq!(opened.genesis(), &genesis("a"));
        assert_eq!(opened.network(), genesis("a").network().unwrap());
        assert_eq!(opened.lanes().unwrap(), [LaneId(9), LaneId(10)]);
        let mode = fs::metadata(path.join(NODE_KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let shown = format!("{opened:?}");
        assert!(!shown.contains("030a11"), "the secret is not shown: {shown}");
    }

    #[test]
    fn a_second_user_of_the_directory_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::init(dir.path(), &genesis("a"), &[1; 32]).unwrap();
        match DataDir::open(dir.path()) {
            Err(DataDirError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_of_another_network_is_refused_with_both_ids() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::init(dir.path(), &genesis("a"), &[1; 32]).unwrap());
        let (mine, other) = (genesis("a").id().unwrap(), genesis("b").id().unwrap());
        assert!(DataDir::open_for(dir.path(), mine).is_ok());
        match DataDir::open_for(dir.path(), other) {
            Err(DataDirError::AnotherNetwork { got, expected, .. }) => {
                assert_eq!((got, expected), (mine, other));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_directory_that_is_missing_full_unfinished_or_of_another_format_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        assert!(matches!(DataDir::open(&path.join("none")), Err(DataDirError::Missing { .. })));
        assert!(matches!(DataDir::open(path), Err(DataDirError::Missing { .. })));
        drop(DataDir::init(path, &genesis("a"), &[1; 32]).unwrap());
        let again = DataDir::init(path, &genesis("a"), &[1; 32]);
        assert!(matches!(again, Err(DataDirError::NotEmpty { .. })), "{again:?}");
        fs::write(path.join(FORMAT), "weft data 2\n").unwrap();
        match DataDir::open(path) {
            Err(DataDirError::Format { got, .. }) => assert_eq!(got, "weft data 2"),
            other => panic!("{other:?}"),
        }
        fs::remove_file(path.join(FORMAT)).unwrap();
        assert!(matches!(DataDir::open(path), Err(DataDirError::Unfinished { .. })));
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join(NODE_KEY);
        drop(DataDir::init(dir.path(), &genesis("a"), &[1; 32]).unwrap());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::KeyMode { got: 0o640, .. })));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["", "00", &"0g".repeat(32), &"00".repeat(33), &"0".repeat(63)] {
            fs::write(&key, text).unwrap();
            assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Key { .. })), "{text}");
        }
        fs::write(&key, format!("{}\r\n", "0A".repeat(32))).unwrap();
        assert_eq!(DataDir::open(dir.path()).unwrap().node_seed(), &[10; 32]);
    }

    #[test]
    fn a_damaged_genesis_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::init(dir.path(), &genesis("a"), &[1; 32]).unwrap());
        let path = dir.path().join(GENESIS);
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 1);
        fs::write(&path, bytes).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Genesis { .. })));
    }
}
