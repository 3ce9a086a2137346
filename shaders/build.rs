//! Composes every kernel from its parts, for every field layout, and validates it with naga.
//!
//! Output: `$OUT_DIR/NAME.wgsl` per kernel and layout, included by `src/lib.rs`. A shader that does not validate stops
//! the build with naga's message and the path of the composed source.

use std::path::{Path, PathBuf};

#[path = "compose.rs"]
mod compose;

/// Parts before a kernel that adds points.
const POINT: &[&str] = &["bindings", "LAYOUT", "memory", "edwards"];
/// Parts before a kernel of the batch equation that adds points.
const LANES: &[&str] = &["bindings", "LAYOUT", "memory", "edwards", "equation", "lanes"];
/// Parts before a kernel that takes roots or inverses.
const POWER: &[&str] = &["bindings", "LAYOUT", "memory", "power"];

/// (kernel, parts before it, whether it depends on the field layout).
const KERNELS: &[(&str, &[&str], bool)] = &[
    ("hash_ids", &["bindings", "sha512", "scalar"], false),
    ("hash_blocks", &["bindings", "sha512", "scalar"], false),
    ("decode", POWER, true),
    ("weigh", &["bindings", "scalar", "equation"], false),
    ("prepare", LANES, true),
    ("sort", &["bindings", "equation"], false),
    ("accumulate", LANES, true),
    ("fold", LANES, true),
    ("close", LANES, true),
    ("settle", &["bindings", "equation"], false),
    ("table", POINT, true),
    ("ladder", POINT, true),
    ("finish", POWER, true),
    ("exact", POINT, true),
    ("verdicts", &["bindings"], false),
    ("message_ids", &["blake3"], false),
];
/// Field layouts, by the name that generated files carry.
const LAYOUTS: &[&str] = &["u32x20", "u64x10"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=compose.rs");
    println!("cargo::rerun-if-changed=src");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    for (kernel, parts, layered) in KERNELS {
        if *layered {
            for layout in LAYOUTS {
                build(&out, &format!("{kernel}_{layout}"), kernel, parts, layout);
            }
        } else {
            let parts: Vec<&str> = parts.iter().copied().filter(|part| *part != "LAYOUT").collect();
            build(&out, kernel, kernel, &parts, "");
        }
    }
}

fn build(out: &Path, name: &str, kernel: &str, parts: &[&str], layout: &str) {
    let mut source = String::new();
    for part in parts.iter().chain([&kernel]) {
        let file = match (*part, layout) {
            ("LAYOUT", "u32x20") => "field20",
            ("LAYOUT", _) => "field10",
            (part, _) => part,
        };
        let path = format!("src/{file}.wgsl");
        match std::fs::read_to_string(&path) {
            Ok(text) => source.push_str(&text),
            Err(error) => panic!("{path}: {error}"),
        }
        source.push('\n');
    }
    let composed = compose::expand(&source).unwrap_or_else(|error| panic!("{name}: {error}"));
    let path = out.join(format!("{name}.wgsl"));
    if let Err(error) = std::fs::write(&path, &composed) {
        panic!("{}: {error}", path.display());
    }
    validate(&composed, &path);
}

fn validate(source: &str, path: &Path) {
    let module = naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{}: {}", path.display(), error.emit_to_string(source)));
    let mut validator = naga::valid::Validator::new(
        naga::valid::ValidationFlags::all(),
        naga::valid::Capabilities::SHADER_INT64,
    );
    if let Err(error) = validator.validate(&module) {
        panic!("{}: {}", path.display(), error.emit_to_string(source));
    }
}
