//! `weft loadgen profiles list|show|check`: the shipped profiles, and those in files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;
use weft_loadgen::profile::{Profile, presets};
use weft_loadgen::report::group;

use crate::cli::{EXIT_FOUND, JsonArg, usage};

/// Largest profile file that is read: the largest shipped one has 7 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The commands.
#[derive(clap::Subcommand, Debug)]
pub enum ProfilesCommand {
    /// List the profiles that come with weft
    List(ListArgs),
    /// Print a profile's TOML, to read or to start your own from
    Show(NameArgs),
    /// Check a profile file, and print what it amounts to
    Check(NameArgs),
}

/// Arguments of `list`.
#[derive(clap::Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    json: JsonArg,
}

/// A profile by name or file.
#[derive(clap::Args, Debug)]
pub struct NameArgs {
    /// Name of a shipped profile, or a TOML file
    #[arg(value_name = "NAME|FILE")]
    profile: String,
}

#[derive(Serialize)]
struct Line {
    name: String,
    about: String,
    devices: u64,
    msgs_per_s: f64,
    payload_bytes_mean: f64,
    classes: usize,
}

/// A shipped profile by name, or one from a file.
///
/// # Errors
/// A usage error that says what is wrong with it.
pub fn load(profile: &str) -> anyhow::Result<Profile> {
    let path = Path::new(profile);
    if presets::text(profile).is_none() && (path.exists() || profile.ends_with(".toml")) {
        let text = read(path)?;
        return Profile::parse(&text).map_err(|error| usage(format!("{}: {error}", path.display())));
    }
    presets::load(profile).map_err(|error| usage(error.to_string()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(usage(format!(
            "{}: {bytes} bytes; a profile has at most {FILE_BYTES_MAX}",
            path.display()
        )));
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Runs `weft loadgen profiles`.
///
/// # Errors
/// If a file cannot be read, or the profile is none.
pub fn run(command: ProfilesCommand) -> anyhow::Result<ExitCode> {
    match command {
        ProfilesCommand::List(args) => list(&args),
        ProfilesCommand::Show(args) => {
            match presets::text(&args.profile) {
                Some(text) => print!("{text}"),
                None => print!("{}", read(&PathBuf::from(&args.profile))?),
            }
            Ok(ExitCode::SUCCESS)
        }
        ProfilesCommand::Check(args) => Ok(check(&args.profile)),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let mut lines = Vec::new();
    for (name, _) in presets::PRESETS {
        let profile = presets::load(name)?;
        lines.push(Line {
            name: name.to_owned(),
            devices: profile.devices(),
            msgs_per_s: profile.rate_per_s(),
            payload_bytes_mean: profile.payload_bytes_mean(),
            classes: profile.classes.len(),
            about: profile.about,
        });
    }
    args.json.write(&lines)?;
    if !args.json.on_stdout() {
        println!("{:<20} {:>14} {:>14} {:>8}  about", "profile", "devices", "messages/s", "payload");
        for line in &lines {
            println!(
                "{:<20} {:>14} {:>14} {:>6.0} B  {}",
                line.name,
                group(line.devices),
                group(line.msgs_per_s.round() as u64),
                line.payload_bytes_mean,
                line.about
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(profile: &str) -> ExitCode {
    let profile = match load(profile) {
        Ok(profile) => profile,
        Err(error) => {
            println!("{error}");
            return ExitCode::from(EXIT_FOUND);
        }
    };
    println!("{}: {}", profile.name, profile.about);
    println!(
        "{:<18} {:>14} {:>8} {:>14} {:>8} {:>9}",
        "class", "devices", "share", "messages/s", "share", "payload"
    );
    let (devices, rate) = (profile.devices() as f64, profile.rate_per_s());
    for class in &profile.classes {
        println!(
            "{:<18} {:>14} {:>6.2} % {:>14} {:>6.2} % {:>7.1} B",
            class.name,
            group(class.devices),
            100.0 * class.devices as f64 / devices,
            group(class.rate_per_s().round() as u64),
            100.0 * class.rate_per_s() / rate,
            class.payload.mean()
        );
    }
    println!(
        "{:<18} {:>14} {:>8} {:>14} {:>8} {:>7.1} B",
        "all",
        group(profile.devices()),
        "",
        group(rate.round() as u64),
        "",
        profile.payload_bytes_mean()
    );
    ExitCode::SUCCESS
}
