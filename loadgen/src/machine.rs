//! What a report says about the machine and the build: processor, kernel, memory, disk, commit.
//!
//! Owns the readers of `/proc` and their parsers. Everything is best effort: what a system does not tell is `null` in the report, never
//! an error. Nothing here measures; it only names what was measured on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Instruction sets that decide how fast signatures and hashes are; of these a report lists the ones present (Linux names).
const FLAGS_OF_INTEREST: [&str; 17] = [
    "adx",
    "aes",
    "avx",
    "avx2",
    "avx512bw",
    "avx512dq",
    "avx512f",
    "avx512ifma",
    "avx512_vbmi",
    "avx512vl",
    "bmi2",
    "gfni",
    "sha_ni",
    "sha512",
    "vaes",
    "asimd",
    "sve",
];

/// The machine that a run was made on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu_model: Option<String>,
    /// Logical cores this process may use.
    pub cores: Option<usize>,
    /// Instruction sets of interest that the processor has.
    pub cpu_flags: Vec<String>,
    /// Operating system and kernel release.
    pub kernel: Option<String>,
    /// Main memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Graphics processors that the kernel knows: PCI vendor and device, or the driver's name for it; `none` if there is none.
    pub gpu: Option<String>,
    /// Where the target keeps its data, if the caller told.
    pub disk: Option<Disk>,
}

/// The file system below a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Type of the file system, such as `ext4` or `tmpfs`.
    pub file_system: String,
    /// Device or source that is mounted.
    pub device: String,
    /// Model of the device, where the kernel names one.
    pub model: Option<String>,
    /// Whether the kernel says that the device rotates.
    pub rotational: Option<bool>,
}

impl Machine {
    /// Reads what this machine says about itself; `data_dir` is the directory whose disk matters.
    #[must_use]
    pub fn read(data_dir: Option<&Path>) -> Self {
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        Self {
            cpu_model: cpu_model(&cpu_info),
            cores: std::thread::available_parallelism().ok().map(usize::from),
            cpu_flags: cpu_flags(&cpu_info),
            kernel: release.map(|release| format!("{} {}", std::env::consts::OS, release.trim())),
            memory_bytes: memory_bytes(&memory),
            gpu: Some(gpus(Path::new("/sys/class/drm")).unwrap_or_else(|| "none".to_owned())),
            disk: data_dir.and_then(disk_below),
        }
    }
}

/// Cards below a directory of the kernel's, as `driver vendor:device`.
fn gpus(directory: &Path) -> Option<String> {
    let mut cards: Vec<String> = fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            // `card0`, and not its outputs `card0-HDMI-A-1`.
            let number = name.strip_prefix("card")?;
            if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let device = entry.path().join("device");
            let read = |file: &str| fs::read_to_string(device.join(file)).ok();
            let id = |file: &str| Some(read(file)?.trim().trim_start_matches("0x").to_owned());
            let driver = read("uevent")?;
            let driver =
                driver.lines().find_map(|line| line.strip_prefix("DRIVER=")).unwrap_or("unknown driver");
            Some(format!(
                "{driver} {}:{}",
                id("vendor").unwrap_or_default(),
                id("device").unwrap_or_default()
            ))
        })
        .collect();
    cards.sort();
    (!cards.is_empty()).then(|| cards.join(", "))
}

/// The most memory that this process has had resident, bytes (proc(5), status, `VmHWM`).
#[must_use]
pub fn memory_peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes: u64 = field(&status, &["VmHWM"])?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}

fn field<'a>(text: &'a str, names: &[&str]) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        names.contains(&name.trim()).then(|| value.trim())
    })
}

fn cpu_model(cpu_info: &str) -> Option<String> {
    field(cpu_info, &["model name", "Model", "cpu model"]).map(str::to_owned)
}

fn cpu_flags(cpu_info: &str) -> Vec<String> {
    let Some(present) = field(cpu_info, &["flags", "Features"]) else { return Vec::new() };
    let present: Vec<&str> = present.split_whitespace().collect();
    FLAGS_OF_INTEREST.iter().filter(|flag| present.contains(flag)).map(|flag| (*flag).to_owned()).collect()
}

fn memory_bytes(mem_info: &str) -> Option<u64> {
    let kibibytes: u64 = field(mem_info, &["MemTotal"])?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}

fn disk_below(directory: &Path) -> Option<Disk> {
    // The directory may not exist yet: its nearest ancestor that does lies on the same file system.
    let mut path = directory;
    let path: PathBuf = loop {
        match path.canonicalize() {
            Ok(found) => break found,
            Err(_) if path.as_os_str().is_empty() => break std::env::current_dir().ok()?,
            Err(_) => path = path.parent()?,
        }
    };
    let (file_system, device) = mount_of(&fs::read_to_string("/proc/self/mountinfo").ok()?, &path)?;
    let queue = device.strip_prefix("/dev/").map(|name| Path::new("/sys/class/block").join(name));
    // A partition has no queue of its own: its disk is one directory up.
    let read = |file: &str| {
        let queue = queue.as_ref()?.canonicalize().ok()?;
        [queue.join(file), queue.parent()?.join(file)].iter().find_map(|path| fs::read_to_string(path).ok())
    };
    let model = read("device/model").map(|model| model.trim().to_owned()).filter(|model| !model.is_empty());
    let rotational = read("queue/rotational").map(|value| value.trim() == "1");
    Some(Disk { file_system, device, model, rotational })
}

/// File system type and source of the innermost mount that holds `path` (proc(5), mountinfo).
fn mount_of(mount_info: &str, path: &Path) -> Option<(String, String)> {
    let mut best: Option<(usize, (String, String))> = None;
    for line in mount_info.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(mount_point) = before.split(' ').nth(4) else { continue };
        // Spaces in the path are written as \040.
        let mount_point = mount_point.replace("\\040", " ");
        let mut after = after.split(' ');
        let (Some(file_system), Some(source)) = (after.next(), after.next()) else { continue };
        // A later mount on the same point hides an earlier one: `>=`.
        if path.starts_with(&mount_point)
            && best.as_ref().is_none_or(|(length, _)| mount_point.len() >= *length)
        {
            best = Some((mount_point.len(), (file_system.to_owned(), source.to_owned())));
        }
    }
    best.map(|(_, mount)| mount)
}

/// The commit of the source: what the build was told (environment variable `WEFT_COMMIT` at compile time), or what git says now about
/// the directory that this crate was built from, with `-dirty` if it has changes since.
#[must_use]
pub fn commit() -> Option<String> {
    if let Some(commit) = option_env!("WEFT_COMMIT") {
        return Some(commit.to_owned());
    }
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"]).filter(|commit| commit.len() >= 40)?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// A Unix time in seconds as an RFC 3339 date and time in UTC.
#[must_use]
pub fn rfc3339(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Civil date from days, in years that begin in March so that the leap day is the last (the proleptic Gregorian calendar repeats
    // every 400 years = 146,097 days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_and_memory_are_read_from_the_kernel_texts() {
        let text = "processor\t: 0\nmodel name\t: Example CPU 9000\nflags\t\t: fpu avx2 sha_ni avx512f nonsense\n\nprocessor\t: 1\n";
        assert_eq!(cpu_model(text).as_deref(), Some("Example CPU 9000"));
        assert_eq!(cpu_flags(text), ["avx2", "avx512f", "sha_ni"]);
        assert_eq!(memory_bytes("MemTotal:       1024 kB\nMemFree: 3 kB\n"), Some(1_048_576));
        assert_eq!((cpu_model(""), memory_bytes("MemTotal: many")), (None, None));
    }

    #[test]
    fn the_innermost_mount_of_a_path_is_found() {
        let text = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                    22 21 0:5 / /data/fast rw - xfs /dev/nvme0n1 rw\n\
                    23 21 0:6 / /data\\040two rw shared:3 master:1 - tmpfs tmpfs rw\n\
                    24 21 0:7 / /data/fast rw - btrfs /dev/nvme1n1 rw\n\
                    broken line\n";
        let mount = |path: &str| mount_of(text, Path::new(path)).unwrap();
        assert_eq!(mount("/home"), ("ext4".to_owned(), "/dev/sda1".to_owned()));
        assert_eq!(mount("/data/fast/ledger"), ("btrfs".to_owned(), "/dev/nvme1n1".to_owned()));
        assert_eq!(mount("/data/faster"), ("ext4".to_owned(), "/dev/sda1".to_owned()));
        assert_eq!(mount("/data two/x"), ("tmpfs".to_owned(), "tmpfs".to_owned()));
        assert_eq!(mount_of("", Path::new("/")), None);
    }

    #[test]
    fn a_directory_that_does_not_exist_yet_is_on_its_parents_disk() {
        let here = tempfile::tempdir().unwrap();
        assert_eq!(disk_below(&here.path().join("not/yet")), disk_below(here.path()));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(rfc3339(4_102_444_800), "2100-01-01T00:00:00Z");
    }
}
